"""Readers of caption data sets as published, each into the two tables and a list of what was left out.

A row of a file that cannot be used is listed in `rejects` and reading goes on: every caption row that was read is in
`captions` or in `rejects`. A file that is not in its format at all raises `ValueError`, which names file and place.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from attncap.images import PICTURE_ENDINGS, inside_folder
from attncap.words import split_words

REJECT_COLUMNS = ["source", "line", "image_id", "reason", "kind", "table"]
IMAGE_FOLDERS = ("images", "Images", "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k-images", "flickr30k_images")
TEXT_FOLDERS = (".", "Flickr8k_text", "Flickr_8k_text", "text")
TOKEN_FILES = ("Flickr8k.token.txt", "results_20130124.token")
SPLIT_NAMES = {
    **{name: name for name in ("train", "val", "test")},
    **{"dev": "val", "valid": "val", "validation": "val", "restval": "train", "training": "train", "testing": "test"},
}
SPLIT_COLUMNS = ("split", "partition")
# A split as a whole word of a file's name: "latest" is no "test". "trainval" names no single split.
_WORDS = "|".join(sorted(SPLIT_NAMES, key=len, reverse=True))
SPLIT_AND_YEAR = re.compile(rf"(?<![a-z])({_WORDS})(\d{{4}})?(?![a-z0-9])")
CELEBA_COLUMN = "partition"  # of CelebA: whoever names a column so declares its numbers
CELEBA_SPLITS = {"0": "train", "1": "val", "2": "test"}
BYTE_OF_ANOTHER_ENCODING = re.compile("[\udc80-\udcff]")
HALF_CHARACTER = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Parts:
    """The tables of `attncap.data.load.CaptionData`; `split` is None where the source gives none."""

    pictures: pd.DataFrame
    captions: pd.DataFrame
    rejects: pd.DataFrame
    integer_ids: bool = False


class Collector:
    """Gathers the rows of one source; decides what is a duplicate, empty, or outside the folder of the pictures."""

    def __init__(self, images: Path) -> None:
        self.images = images
        self.pictures: dict[str, tuple[str, str | None]] = {}
        self.refused: dict[str, str] = {}
        self.captions: list[tuple[str, str]] = []
        self.rejects: list[tuple[str, int | None, str, str, str, str]] = []
        self._seen: set[tuple[str, object, str]] = set()

    def reject(self, kind: str, why: str, source: Path | str, line: int | None, image_id: str, table: str) -> None:
        reason = f"{kind}: {why}" if why else kind
        self.rejects.append((str(source), line, _writable(image_id), _writable(reason), kind, table))

    def add_picture(
        self, image_id: str, names: Iterable[str], split: str | None, source: Path | str, line: int | None, where: str
    ) -> None:
        """`names`: below the folder, in the order to look for them; the first counts when none is there."""
        if image_id in self.pictures or image_id in self.refused:
            self.reject("duplicate picture", f"{where}{image_id!r} again", source, line, image_id, "pictures")
            return
        if HALF_CHARACTER.search(image_id):  # no file could name it: not a list of predictions, nor a report
            why = f"{where}half of a surrogate pair in the id {image_id!r}: write another id"
            self.refuse_picture(image_id, "not UTF-8", why, source, line)
            return
        try:
            paths = [inside_folder(self.images, name) for name in names]
        except ValueError as error:
            self.refuse_picture(image_id, "path leaves the folder", f"{where}{error}", source, line)
            return
        path = next((path for path in paths if os.path.isfile(path)), paths[0])
        self.pictures[image_id] = (str(path), split)

    def refuse_picture(self, image_id: str, kind: str, why: str, source: Path | str, line: int | None) -> None:
        self.refused[image_id] = kind
        self.reject(kind, why, source, line, image_id, "pictures")

    def add_caption(
        self, image_id: str, caption: object, source: Path | str, line: int | None, where: str = "", key: object = None
    ) -> None:
        """`key`: the source's own id of the row; two people may well say the same of a picture."""

        def reject(kind: str, why: str) -> None:
            self.reject(kind, f"{where}{why}" if why else where.rstrip(": "), source, line, image_id, "captions")

        if image_id in self.refused:
            reject("caption of a rejected picture", self.refused[image_id])
        elif image_id not in self.pictures:
            reject("caption without picture", f"no picture has the id {image_id!r}")
        elif caption is None or caption is pd.NA or (isinstance(caption, float) and caption != caption):
            reject("empty caption", "")
        elif not isinstance(caption, str):
            reject("malformed row", f"a caption of text expected, {type(caption).__name__} found")
        elif not has_text(caption):
            reject("empty caption", "")
        elif HALF_CHARACTER.search(caption):
            reject("not UTF-8", "half of a surrogate pair in the caption: save the file as UTF-8")
        elif (image_id, key, caption) in self._seen:
            reject("duplicate caption", "the same row is there already")
        else:
            self._seen.add((image_id, key, caption))
            self.captions.append((image_id, caption))

    def parts(self, integer_ids: bool = False) -> Parts:
        rejects = pd.DataFrame(self.rejects, columns=REJECT_COLUMNS).astype({"line": "Int64"})
        pictures = pd.DataFrame(
            {
                "image_id": pd.Series(list(self.pictures), dtype=str),
                "path": pd.Series([path for path, _ in self.pictures.values()], dtype=str),
                "split": pd.Series([split for _, split in self.pictures.values()], dtype=object),
            }
        )
        captions = pd.DataFrame(self.captions, columns=["image_id", "caption"]).astype(str)
        return Parts(pictures, captions, rejects, integer_ids)


def split_of(value: object, column: str) -> str | None:
    """Read a cell of a split column: "train", "val" or "test"; None where the cell is empty.

    Args:
        value: text in any case ("Train", "dev", "restval"), or in a column named `partition` CelebA's 0, 1 or 2.
        column: name of the column.

    Raises:
        ValueError: anything else, such as 0, 1, 2 in a column of another name, True or False.

    Example:
        >>> split_of("Dev", "split"), split_of(2, "partition")
        ('val', 'test')
    """
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value):
        return None
    word = str(value).strip().lower()
    if isinstance(value, str) and (not word or word in SPLIT_NAMES):
        return SPLIT_NAMES.get(word)
    number = word.removesuffix(".0")
    if column.strip().lower() == CELEBA_COLUMN and number in CELEBA_SPLITS:
        return CELEBA_SPLITS[number]
    mend = f"; name the column {CELEBA_COLUMN!r} where they are CelebA's 0, 1, 2" if number in CELEBA_SPLITS else ""
    raise ValueError(f"split {value!r}: train, val or test expected{mend}")


def _writable(text: str) -> str:
    """Without halves of surrogate pairs, which no UTF-8 file can hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def has_text(caption: str) -> bool:
    """Whether a caption has a word: "-", "..." or an emoji alone would be trained as the empty caption."""
    return bool(split_words(caption))


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file (byte order mark and line ends taken off).

    A byte that is not UTF-8 comes as a lone surrogate U+DC80 to U+DCFF (Python's `surrogateescape`), so that the
    caller can list the line by its number; nothing is guessed.
    """
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError(f"{path}, line 1: UTF-8 expected, UTF-16 found: save the file as UTF-8")
    lines = data.removeprefix(b"\xef\xbb\xbf").splitlines()
    return [line.decode("utf-8", "surrogateescape") for line in lines]


def foreign_byte(text: str) -> str | None:
    """What is wrong with a line that `read_lines` could not decode; None where it could."""
    found = BYTE_OF_ANOTHER_ENCODING.search(text)
    if found is None:
        return None
    return f"byte 0x{ord(found.group()) - 0xDC00:02x} at character {found.start() + 1}: save the file as UTF-8"


def find_images(folder: Path) -> Path:
    """The folder of the pictures of a data set in `folder`: one of the usual names, or the folder itself."""
    for name in IMAGE_FOLDERS:
        if (folder / name).is_dir():
            nested = folder / name / name  # as one of the published archives unpacks
            return nested if nested.is_dir() else folder / name
    return folder


def find_flickr8k(folder: Path) -> Path | None:
    """The caption file of a Flickr8k (or Flickr30k) folder: the token file, or `captions.txt` with its header."""
    for name in TOKEN_FILES:
        for text_folder in TEXT_FOLDERS:
            if (folder / text_folder / name).is_file():
                return folder / text_folder / name
    path = folder / "captions.txt"
    if path.is_file():
        with open(path, "rb") as file:
            head = file.readline(200).removeprefix(b"\xef\xbb\xbf").strip().lower().replace(b" ", b"")
        if head == b"image,caption":
            return path
    return None


def read_flickr8k(folder: Path) -> Parts:
    """Flickr8k: `Flickr8k.token.txt` (`name.jpg#0<TAB>caption`) or `captions.txt` (`image,caption`), with split lists.

    `Flickr_8k.trainImages.txt`, `devImages` and `testImages` give the splits; any may be missing. Beside a train
    list, a picture that no list names is rejected; without one it is for training; without any list the split is left
    open.
    """
    caption_file = find_flickr8k(folder)
    if caption_file is None:
        raise FileNotFoundError(f"{folder}: neither {TOKEN_FILES[0]} nor a captions.txt that begins with image,caption")
    collected = Collector(find_images(folder))
    listed, list_files = _split_lists(collected, folder)
    with_token = caption_file.name in TOKEN_FILES
    for line, text in enumerate(read_lines(caption_file), start=1):
        if not text.strip() or (line == 1 and not with_token):
            continue
        name, key, caption, problem = _token_row(text) if with_token else _comma_row(text)
        kind = "not UTF-8" if foreign_byte(text) else "malformed row"
        problem = foreign_byte(text) or problem
        if problem:
            collected.reject(kind, problem, caption_file, line, name, "captions")
            continue
        if name not in collected.pictures and name not in collected.refused:
            split = listed.get(name, "train" if listed and "train" not in list_files else None)
            if not name.lower().endswith(PICTURE_ENDINGS):
                ending = f"{name!r} has no picture's ending ({', '.join(PICTURE_ENDINGS[:3])}, ...)"
                collected.refuse_picture(name, "malformed row", ending, caption_file, line)
            elif list_files and split is None:
                lists = ", ".join(sorted(path.name for path in list_files.values()))
                collected.refuse_picture(name, "in no split list", f"{name!r} is not in {lists}", caption_file, line)
            else:
                collected.add_picture(name, [name], split, caption_file, line, "")
        collected.add_caption(name, caption, caption_file, line, key=key)
    for name, split in listed.items():
        if name not in collected.pictures and name not in collected.refused:
            collected.add_picture(name, [name], split, list_files[split], None, "")
    return collected.parts()


def _split_lists(collected: Collector, folder: Path) -> tuple[dict[str, str], dict[str, Path]]:
    listed: dict[str, str] = {}
    list_files: dict[str, Path] = {}
    # Test first: a picture in two lists stays out of training.
    for split, word in (("test", "test"), ("val", "dev"), ("train", "train")):
        places = (folder / text_folder / f"Flickr_8k.{word}Images.txt" for text_folder in TEXT_FOLDERS)
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            continue
        list_files[split] = path
        for line, text in enumerate(read_lines(path), start=1):
            name, problem = text.strip(), foreign_byte(text)
            if problem:
                collected.reject("not UTF-8", problem, path, line, name, "pictures")
            elif name in listed:
                where = f"{name!r} is in the {listed[name]} list already"
                collected.reject("duplicate picture", where, path, line, name, "pictures")
            elif name:
                listed[name] = split
    return listed, list_files


def _token_row(text: str) -> tuple[str, object, str, str | None]:
    label, tab, caption = text.partition("\t")
    name, _, number = label.strip().partition("#")
    problem = None if tab and name else "name.jpg#0, a tab and the caption expected: put one tab between them"
    return name, number, caption, problem


def _comma_row(text: str) -> tuple[str, object, str, str | None]:
    """`name,caption`; everything after the first comma is the caption, for some editions do not quote it."""
    name, comma, caption = text.partition(",")
    problem = (
        None if comma and name.strip() else "file name, a comma and the caption expected: put a comma between them"
    )
    if len(caption) > 1 and caption.startswith('"') and caption.endswith('"'):
        try:
            fields = next(csv.reader([caption], strict=True), [])
        except csv.Error:
            fields = []
        caption = fields[0] if len(fields) == 1 else caption
    return name.strip().strip('"'), None, caption, problem


def read_json(path: Path) -> Any:
    """The contents of a UTF-8 JSON file; ValueError names the file and the line."""
    data = path.read_bytes()
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line}: UTF-8 expected, byte 0x{data[error.start]:02x} found: save it as UTF-8"
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}, line {error.lineno}: not JSON ({error.msg}): truncated, or another format?"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON that can be read ({error})") from None


def _member(path: Path, holder: Any, where: str, key: str, *kinds: type) -> Any:
    """`holder[key]`, of one of `kinds`, or ValueError naming the file and the place in it."""
    names = " or ".join({"int": "a whole number", "str": "text", "list": "a list"}[kind.__name__] for kind in kinds)
    place = f"{where}.{key}" if where else key
    if not isinstance(holder, dict):
        raise ValueError(
            f"{path}, {where or 'top level'}: an object with {key!r} expected, {type(holder).__name__} found"
        )
    if key not in holder:
        raise ValueError(f"{path}, {place}: {names} expected, nothing found")
    value = holder[key]
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise ValueError(f"{path}, {place}: {names} expected, {type(value).__name__} found")
    return value


def _items(path: Path, contents: Any, where: str, key: str) -> Iterator[tuple[str, Any]]:
    items = _member(path, contents, where, key, list)
    return ((f"{where}.{key}[{i}]" if where else f"{key}[{i}]", item) for i, item in enumerate(items))


def read_coco(json_files: list[Path], images: Path) -> Parts:
    """COCO captions: `images[].id`, `.file_name`; `annotations[].image_id`, `.caption`. Ids become text.

    Several files (train and val) give the splits by whole words of their names ("captions_train2014.json"); a single
    one, and one whose name has none or several of these words, leaves the split open. Pictures are
    looked for in `images` and in its subfolder of the file's year (`train2014`).
    """
    collected = Collector(images)
    integers: list[bool] = []
    for path in json_files:
        contents = read_json(path)
        years = list(re.finditer(SPLIT_AND_YEAR, path.stem.lower()))
        words = {SPLIT_NAMES[year.group(1)] for year in years}
        year = years[0] if len(words) == 1 else None
        split = words.pop() if year and len(json_files) > 1 else None
        for where, item in _items(path, contents, "", "images"):
            image_id = _member(path, item, where, "id", int, str)
            name = _member(path, item, where, "file_name", str)
            names = [name] if year is None else [name, f"{year.group()}/{name}"]
            integers.append(isinstance(image_id, int))
            collected.add_picture(str(image_id), names, split, path, None, f"{where}: ")
        for where, item in _items(path, contents, "", "annotations"):
            image_id = str(_member(path, item, where, "image_id", int, str))
            caption = _member(path, item, where, "caption", str)
            collected.add_caption(image_id, caption, path, None, f"{where}: ", key=str(item.get("id")))
    return collected.parts(integer_ids=bool(integers) and all(integers))


def read_karpathy(path: Path, images: Path) -> Parts:
    """Karpathy and Fei-Fei's split files (`dataset_flickr8k.json`, `dataset_coco.json`); `restval` is for training.

    The id is `cocoid` where there is one, else the file name.
    """
    collected = Collector(images)
    integers: list[bool] = []
    for where, item in _items(path, read_json(path), "", "images"):
        name = _member(path, item, where, "filename", str)
        split = _member(path, item, where, "split", str)
        if split not in SPLIT_NAMES:
            raise ValueError(f"{path}, {where}.split: train, restval, val or test expected, {split!r} found")
        below = _member(path, item, where, "filepath", str) if "filepath" in item else ""
        coco_id = _member(path, item, where, "cocoid", int) if "cocoid" in item else None
        image_id = name if coco_id is None else str(coco_id)
        integers.append(coco_id is not None)
        repeated = image_id in collected.pictures
        names = [f"{below}/{name}", name] if below else [name]
        collected.add_picture(image_id, names, SPLIT_NAMES[split], path, None, f"{where}: ")
        for place, sentence in _items(path, item, where, "sentences"):
            caption = _member(path, sentence, place, "raw", str)
            if repeated:
                collected.reject(
                    "duplicate picture", f"{place}: of a repeated picture", path, None, image_id, "captions"
                )
            else:
                collected.add_caption(image_id, caption, path, None, f"{place}: ", key=str(sentence.get("sentid")))
    return collected.parts(integer_ids=bool(integers) and all(integers))
