"""Loads a captioned data set from its one-string form (`flickr8k:FOLDER`, `faces:4000`, ...) or from a table.

`CaptionData`, `split_pictures` and `check` are here too, for those who use them: one import for all of the data.
"""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from attncap.data.check import check, check_summary, leave_out
from attncap.data.dataset import CaptionData, split_pictures
from attncap.data.readers.base import (
    Parts,
    find_flickr8k,
    find_images,
    read_coco,
    read_flickr8k,
    read_karpathy,
)
from attncap.data.readers.table import has_caption_columns, read_table

__all__ = [
    "CaptionData",
    "cache_folder",
    "check",
    "check_summary",
    "guess_format",
    "leave_out",
    "load",
    "load_table",
    "split_pictures",
]

SCHEMES = ("flickr8k", "coco", "karpathy", "table", "faces")
DEFAULT_FACES = 2000
FORMS = "flickr8k:FOLDER, coco:JSON:IMAGES, karpathy:JSON:IMAGES, table:CSV:IMAGES, faces, faces:NUMBER, or a folder"


def cache_folder() -> Path:
    """Where drawn faces are kept: ATTNCAP_CACHE, else `attncap` in the user's cache folder."""
    named = os.environ.get("ATTNCAP_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attncap"


def load(spec: str | os.PathLike[str], *, seed: int = 0, folder: str | os.PathLike[str] | None = None) -> CaptionData:
    """Reads a data set from its one-string form.

    Args:
        spec: `flickr8k:FOLDER`, `coco:JSON[+JSON]:IMAGES`, `karpathy:JSON:IMAGES`,
            `table:CSV:IMAGES[:FILE COLUMN:CAPTION COLUMN[:SPLIT COLUMN]]`, `faces`, `faces:NUMBER`, or a folder whose
            format is guessed. IMAGES may be left out where the pictures are beside the file, or in `images` there.
        seed: of the splits that the source leaves open, and of the faces.
        folder: where faces are drawn; default a folder of `cache_folder()`.

    Returns:
        The data; rows that could not be used are in its `rejects`. Pictures are not opened: see `check`.

    Raises:
        FileNotFoundError: a file or folder of the spec is missing.
        ValueError: an unknown form, or a file not in its format; the message names file and place.

    Example:
        >>> load("table:captions.csv:photographs").summary()
        'captions: 13,000 pictures (train 10,391, val 1,310, test 1,299), 13,000 captions, 0 rejects'
    """
    spec = os.fspath(spec)
    scheme, colon, rest = spec.partition(":")
    if scheme not in SCHEMES or (not colon and scheme != "faces"):
        if not os.path.isdir(spec):
            raise ValueError(f"{spec!r}: no such folder, and not of the form {FORMS}")
        return load(guess_format(spec), seed=seed, folder=folder)
    if scheme == "faces":
        return _load_faces(rest, seed, folder)
    if scheme == "flickr8k":
        return _complete(read_flickr8k(_folder(rest, spec)), Path(rest).resolve().name, seed)
    if not rest:
        raise ValueError(f"{spec!r}: a file expected after {scheme}: write {FORMS}")
    files, after = _leading_files(rest, spec)
    if scheme == "table":
        images, columns = _leading_folder(after, files[0], spec)
        names = columns.split(":") if columns else []
        if len(names) not in (0, 2, 3):
            raise ValueError(f"{spec!r}: table:CSV:IMAGES:FILE COLUMN:CAPTION COLUMN expected, {columns!r} found")
        file_column, caption_column, split_column = (*names, None, None, None)[:3]
        return load_table(files[0], images, file_column, caption_column, split_column, seed=seed)
    images = _folder(after, spec) if after else find_images(files[0].parent)
    name = "+".join(file.stem for file in files)
    if scheme == "coco":
        return _complete(read_coco(files, images), name, seed)
    if len(files) > 1:
        raise ValueError(f"{spec!r}: one Karpathy JSON expected, {len(files)} found")
    return _complete(read_karpathy(files[0], images), name, seed)


def load_table(
    table: str | os.PathLike[str] | pd.DataFrame,
    images: str | os.PathLike[str],
    file_column: str | None = None,
    caption_column: str | None = None,
    split_column: str | None = None,
    *,
    name: str | None = None,
    seed: int = 0,
) -> CaptionData:
    """Reads a table with a row a caption: a CSV or TSV file, or a DataFrame.

    Args:
        table: the file or the DataFrame.
        images: the folder that the file names are in.
        file_column, caption_column: names of the columns; guessed from usual names when None.
        split_column: train, val or test of the picture, in any case; default `split`, or CelebA's `partition` (0 train,
            1 val, 2 test), where there is one. A row with anything else is rejected. Where the cell is empty, or there
            is no such column, the split is drawn (`split_pictures`).
        name: of the data set; default the file's name.
        seed: of the drawn splits.

    Example:
        >>> frame = pd.DataFrame({"photo": ["a.jpg"], "words": ["a woman with glasses"]})
        >>> data = load_table(frame, "photographs", "photo", "words")
        >>> data.captions.iloc[0].tolist()
        ['a.jpg', 'a woman with glasses']
    """
    folder = _folder(os.fspath(images), os.fspath(images))
    if isinstance(table, pd.DataFrame):
        return _complete(read_table(table, folder, file_column, caption_column, split_column), name or "table", seed)
    path = Path(table)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file: a CSV or TSV with a header line expected")
    return _complete(read_table(path, folder, file_column, caption_column, split_column), name or path.stem, seed)


def _complete(parts: Parts, name: str, seed: int) -> CaptionData:
    splits = split_pictures(parts.pictures["image_id"].tolist(), seed, given=parts.pictures["split"].tolist())
    pictures = parts.pictures.assign(split=pd.Series(splits, index=parts.pictures.index, dtype="str"))
    return CaptionData(name, pictures, parts.captions, rejects=parts.rejects, integer_ids=parts.integer_ids)


def _load_faces(number: str, seed: int, folder: str | os.PathLike[str] | None) -> CaptionData:
    from attncap.data.faces.dataset import make_faces

    if number and not (number.isascii() and number.isdigit() and int(number[:10]) > 0):
        raise ValueError(f"'faces:{number}': a number of faces expected, {number!r} found: write faces:{DEFAULT_FACES}")
    count = int(number) if number else DEFAULT_FACES
    place = Path(folder) if folder is not None else cache_folder() / f"faces-{count}-{seed}"
    pictures, captions, attributes, boxes = make_faces(count, place, seed)
    return CaptionData(f"faces-{count}", pictures, captions, attributes, boxes)


def _folder(text: str, spec: str) -> Path:
    if not text or not os.path.isdir(text):
        raise FileNotFoundError(f"{spec!r}: {text!r} is no folder: name the folder that the files are in")
    return Path(text)


def _pieces(text: str) -> list[str]:
    """Parts between colons; the colon of a drive (`C:\\pictures`) divides nothing."""
    pieces: list[str] = []
    for piece in text.split(":"):
        drive = bool(pieces) and len(pieces[-1].rpartition("+")[2]) == 1 and pieces[-1][-1].isalpha()
        if drive and piece.startswith(("\\", "/")):
            pieces[-1] += f":{piece}"
        else:
            pieces.append(piece)
    return pieces


def _leading_files(text: str, spec: str) -> tuple[list[Path], str]:
    """The file, or files joined by +, that the text begins with, and what follows the next colon."""
    pieces = _pieces(text)
    for count in range(1, len(pieces) + 1):
        front, after = ":".join(pieces[:count]), ":".join(pieces[count:])
        if os.path.isfile(front):
            return [Path(front)], after
        if all(os.path.isfile(name) for name in front.split("+")):
            return [Path(name) for name in front.split("+")], after
    missing = next(name for name in pieces[0].split("+") if not os.path.isfile(name))
    raise FileNotFoundError(f"{spec!r}: {missing!r} is no file: write {FORMS}")


def _leading_folder(text: str, file: Path, spec: str) -> tuple[Path, str]:
    if not text:
        return find_images(file.parent), ""
    pieces = _pieces(text)
    for count in range(len(pieces), 0, -1):
        if os.path.isdir(":".join(pieces[:count])):
            return Path(":".join(pieces[:count])), ":".join(pieces[count:])
    raise FileNotFoundError(f"{spec!r}: {pieces[0]!r} is no folder: name the folder that the pictures are in")


def guess_format(folder: str | os.PathLike[str]) -> str:
    """The spec of the data set in a folder: Flickr8k's files, a Karpathy or COCO JSON, or a table of captions.

    Raises:
        ValueError: nothing known is there, or more than one table; the message lists what was found.

    Example:
        >>> guess_format("flickr8k")
        'flickr8k:flickr8k'
    """
    place = Path(folder)
    if not place.is_dir():
        raise FileNotFoundError(f"{os.fspath(folder)!r} is no folder")
    if find_flickr8k(place) is not None:
        return f"flickr8k:{place}"
    files = sorted(file for below in (place, place / "annotations") if below.is_dir() for file in below.iterdir())
    kinds = {file: _json_kind(file) for file in files if file.suffix.lower() == ".json" and file.is_file()}
    images = find_images(place)
    karpathy = [file for file, kind in kinds.items() if kind == "karpathy"]
    coco = [str(file) for file, kind in kinds.items() if kind == "coco"]
    texts = [file for file in files if file.suffix.lower() in (".csv", ".tsv", ".txt") and file.is_file()]
    tables = [file for file in texts if has_caption_columns(file)]
    if len(karpathy) == 1:
        return f"karpathy:{karpathy[0]}:{images}"
    if not karpathy and coco:
        return f"coco:{'+'.join(coco)}:{images}"
    if not karpathy and len(tables) == 1:
        return f"table:{tables[0]}:{images}"
    candidates = [str(file.name) for file in (karpathy or tables)]
    found = f"several: {', '.join(candidates[:10])}" if candidates else "none of them"
    raise ValueError(
        f"{place}: a Flickr8k token file or captions.txt, a COCO or Karpathy JSON, or one CSV with file-name and "
        f"caption columns expected, found {found}: write {FORMS}"
    )


def _json_kind(path: Path) -> str | None:
    """By words in its head and tail: these files have hundreds of megabytes."""
    with open(path, "rb") as file:
        head = file.read(1 << 16)
        file.seek(max(0, path.stat().st_size - (1 << 16)))
        text = head + file.read()
    if b'"sentences"' in text and b'"filename"' in text:
        return "karpathy"
    return "coco" if b'"image_id"' in text and b'"caption"' in text and b'"images"' in text else None
