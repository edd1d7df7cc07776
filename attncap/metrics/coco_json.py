"""Predictions and references as files: the COCO results JSON and the COCO captions JSON.

Inside the package every image id is a string; files may hold integers or strings.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attncap._files import replacing
from attncap._messages import listed, quoted
from attncap.paths import HALF_CHARACTER

PathLike = str | os.PathLike[str]


def read_predictions(path: PathLike) -> dict[str, str]:
    """Read the COCO results JSON: `[{"image_id": 7, "caption": "a dog"}, ...]`.

    Args:
        path: the file. Other keys of an entry are ignored; ids may be integers or strings.

    Returns:
        image_id (str) -> caption, in the file's order.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is not JSON, not a list, an entry lacks a key or has another type, or an id occurs twice;
            the message names file and index.

    Example:
        >>> read_predictions("predictions.json")["7"]  # doctest: +SKIP
        'a dog'

    Reference: https://cocodataset.org/#format-results (captioning).
    """
    entries = _read(path)
    if not isinstance(entries, list):
        raise ValueError(
            f'{path}: expected a list of {{"image_id": ..., "caption": ...}}, got {_kind(entries)}'
            + (" (this looks like a captions JSON: give it as the references)" if isinstance(entries, dict) else "")
        )
    captions: dict[str, str] = {}
    for index, entry in enumerate(entries):
        image_id, caption = _entry(entry, f"{path}: entry {index}")
        if image_id in captions:
            first = list(captions).index(image_id)  # every entry before this one has added its caption
            raise ValueError(
                f"{path}: entry {index}: image_id {quoted(image_id)} came already in entry {first}; "
                "keep one caption per image"
            )
        captions[image_id] = caption
    return captions


def write_predictions(path: PathLike, captions: Mapping[str, str], integer_ids: bool = False) -> None:
    """Write the COCO results JSON, whole or not at all.

    Args:
        path: the file; its folder is made where missing.
        captions: image_id -> caption.
        integer_ids: write ids as integers, as COCO's own tools expect; default strings.

    Raises:
        ValueError: when integer_ids is set and an id is not an integer.

    Example:
        >>> write_predictions("predictions.json", {"7": "a dog"})  # doctest: +SKIP
    """
    write_json(path, [{"image_id": _id(key, integer_ids), "caption": text} for key, text in captions.items()])


def read_references(path: PathLike) -> dict[str, list[str]]:
    """Read a COCO captions JSON: `{"images": [...], "annotations": [{"id", "image_id", "caption"}, ...]}`.

    Args:
        path: the file. Only `images` (if present) and `annotations` are read.

    Returns:
        image_id (str) -> its captions, in the file's order.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is not JSON, not of this form, an annotation names no listed image or occurs twice, or a
            listed image has no caption; the message names file and index.

    Example:
        >>> read_references("captions_val.json")["7"]  # doctest: +SKIP
        ['A dog runs.', 'A brown dog.']

    Reference: https://cocodataset.org/#format-data (image captioning).
    """
    data = _read(path)
    if not isinstance(data, dict) or not isinstance(data.get("annotations"), list):
        found = f"an object with {listed(data) or 'no key'}" if isinstance(data, dict) else _kind(data)
        raise ValueError(f'{path}: expected a COCO captions JSON, an object with a list "annotations", got {found}')
    references: dict[str, list[str]] = {}
    images = data.get("images")
    if images is not None:
        if not isinstance(images, list):
            raise ValueError(f'{path}: expected "images" to be a list, got {_kind(images)}')
        for index, image in enumerate(images):
            image_id = _image_id(image, "id", f"{path}: images[{index}]")
            if image_id in references:
                raise ValueError(f"{path}: images[{index}]: id {quoted(image_id)} is listed twice")
            references[image_id] = []
    seen: dict[str, int] = {}
    for index, annotation in enumerate(data["annotations"]):
        where = f"{path}: annotations[{index}]"
        image_id, caption = _entry(annotation, where)
        if images is not None and image_id not in references:
            raise ValueError(f'{where}: image_id {quoted(image_id)} is not among the file\'s "images"')
        if "id" in annotation:
            own = _image_id(annotation, "id", where)
            if own in seen:
                raise ValueError(f"{where}: id {quoted(own)} came already in annotations[{seen[own]}]")
            seen[own] = index
        references.setdefault(image_id, []).append(caption)
    bare = [image_id for image_id, captions in references.items() if not captions]
    if bare:
        raise ValueError(
            f"{path}: {len(bare)} images have no caption, first {quoted(bare[0])}; take them out of images"
        )
    return references


def write_references(path: PathLike, references: Mapping[str, Sequence[str]], integer_ids: bool = False) -> None:
    """Write a COCO captions JSON that `pycocotools.coco.COCO` and `pycocoevalcap` read as it is.

    Args:
        path: the file; its folder is made where missing.
        references: image_id -> captions.
        integer_ids: write image ids as integers; default strings, which the COCO tools accept too.

    Raises:
        ValueError: when integer_ids is set and an id is not an integer.

    Example:
        >>> write_references("captions.json", {"7": ["A dog runs."]})  # doctest: +SKIP
    """
    ids = {key: _id(key, integer_ids) for key in references}
    pairs = [(ids[key], caption) for key, captions in references.items() for caption in captions]
    write_json(
        path,
        {
            "info": {"description": "captions written by attncap"},
            "licenses": [],
            "type": "captions",
            "images": [{"id": ids[key], "file_name": key} for key in references],
            "annotations": [
                {"id": number, "image_id": image_id, "caption": caption}
                for number, (image_id, caption) in enumerate(pairs, start=1)
            ],
        },
    )


def write_json(path: PathLike, value: Any, indent: int | None = None) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it.

    Args:
        path: the file; its folder is made where missing.
        value: what `json.dumps` takes.
        indent: spaces per level; None for one line.
    """
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=indent)
        file.write("\n")


def _read(path: PathLike) -> Any:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a JSON file of captions")
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: line {error.lineno}: not JSON ({error.msg}); was it written to its end?") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text at byte {error.start}; expected a JSON file") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, lists in lists without end
        raise ValueError(f"{path}: not JSON that can be read ({error})") from None


def _entry(entry: Any, where: str) -> tuple[str, str]:
    image_id = _image_id(entry, "image_id", where)
    if "caption" not in entry:
        raise ValueError(f'{where}: no "caption"; it has {listed(entry)}')
    if not isinstance(entry["caption"], str):
        raise ValueError(f'{where}: "caption" should be a string, got {_kind(entry["caption"])}')
    if HALF_CHARACTER.search(image_id + entry["caption"]):
        raise ValueError(f"{where}: half of a surrogate pair in the caption or the id; write the whole character")
    return image_id, entry["caption"]


def _image_id(entry: Any, key: str, where: str) -> str:
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: expected an object, got {_kind(entry)}")
    if key not in entry:
        raise ValueError(f'{where}: no "{key}"; it has {listed(entry) or "no key"}')
    value = entry[key]
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f'{where}: "{key}" should be an integer or a string, got {_kind(value)}')
    return str(value)


def _id(key: str, integer_ids: bool) -> int | str:
    if not integer_ids:
        return str(key)
    try:
        return int(key)
    except ValueError:
        raise ValueError(
            f"integer_ids needs ids that are integers, got {quoted(key)}; write without integer_ids"
        ) from None


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", int: "an integer"}
    return "null" if value is None else names.get(type(value), f"a {type(value).__name__}")
