"""Paths of images: list them with ids that differ, and keep file names inside their folder."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attncap._files import files_below
from attncap._messages import quoted
from attncap.images import IMAGE_ENDINGS, AnyImage, image_name

if TYPE_CHECKING:
    import pandas as pd

# Half of a surrogate pair: a byte of a file name that is not UTF-8, or an escape in JSON. No UTF-8 file can hold it.
HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def image_ids(images: Sequence[AnyImage]) -> list[str]:
    """Give images ids: their file names or, if two names are equal, their paths below the common folder.

    Args:
        images: files, Pillow images, arrays.

    Returns:
        One id per image, each once.

    Raises:
        ValueError: an image is given twice.

    Example:
        >>> image_ids(["june/1.jpg", "june/2.jpg"]), image_ids(["june/1.jpg", "july/1.jpg"])
        (['1.jpg', '2.jpg'], ['june/1.jpg', 'july/1.jpg'])
    """
    paths = [image_name(image, number) for number, image in enumerate(images)]
    names = [Path(path).name for path in paths]
    if len(set(names)) < len(names):
        whole = [os.path.abspath(path) for path in paths]
        shared = os.path.commonpath([os.path.dirname(path) for path in whole])
        names = [Path(os.path.relpath(path, shared)).as_posix() for path in whole]
    check_ids(names)
    return names


def check_ids(image_ids: Sequence[str]) -> None:
    """Refuse equal ids: one result would overwrite the other.

    Raises:
        ValueError: names the first that is there twice.
    """
    seen: set[str] = set()
    for image_id in image_ids:
        if image_id in seen:
            raise ValueError(f"two images are called {quoted(image_id)}: give each image once, and each its own id")
        seen.add(image_id)


def find_images(where: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """List image files, each with an id of its own.

    In a folder, the id is the path below the folder ("june/1.jpg"). Single files and lists get the ids of `image_ids`.
    A file that is given twice is listed once.

    Args:
        where: a folder with its subfolders; a text file with one path per line, from its folder; an image
            file; or several folders and image files.

    Returns:
        images: DataFrame (image_id, path), sorted by path in a folder, else in the order given.
        rejects: DataFrame (image_id, path, reason) of files whose names are not UTF-8.

    Raises:
        FileNotFoundError: neither a folder nor a file.
        ValueError: no image there, or a list that is not UTF-8 text.

    Example:
        >>> find_images("photographs")[0]["image_id"].tolist()
        ['june/1.jpg', 'june/1.png', 'me.jpg']
    """
    import pandas as pd

    one = isinstance(where, str | os.PathLike)
    given = [Path(where)] if isinstance(where, str | os.PathLike) else [Path(item) for item in where]
    if one and given[0].is_file() and given[0].suffix.lower() not in IMAGE_ENDINGS:
        found = _listed(given[0])
    elif one and not given[0].exists():
        raise FileNotFoundError(f"{given[0]}: neither a folder of images nor a list of them")
    else:
        found = [file for item in given for file in (_images_below(item) if item.is_dir() else [item])]
    found = list({os.path.abspath(path): path for path in reversed(found)}.values())[::-1]  # each once, the first
    if not found:
        named = ", ".join(map(str, given[:3]))
        raise ValueError(f"{named}: no images in it (looked for {', '.join(sorted(IMAGE_ENDINGS))})")
    below = len(given) == 1 and given[0].is_dir()
    ids = [path.relative_to(given[0]).as_posix() for path in found] if below else image_ids(found)
    images, rejects = [], []
    for image_id, path in zip(ids, map(str, found), strict=True):
        if not HALF_CHARACTER.search(image_id):
            images.append((image_id, path))
        else:
            escaped = (text.encode("utf-8", "backslashreplace").decode() for text in (image_id, path))
            rejects.append((*escaped, "the file name is not UTF-8: rename the file"))
    return (
        pd.DataFrame(images, columns=["image_id", "path"], dtype=object),
        pd.DataFrame(rejects, columns=["image_id", "path", "reason"], dtype=object),
    )


def _images_below(folder: Path) -> list[Path]:
    return [path for path in files_below(folder) if path.suffix.lower() in IMAGE_ENDINGS]


def _listed(file: Path) -> list[Path]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 text at byte {error.start}; expected one path per line") from None
    return [file.parent / line.strip() for line in lines if line.strip()]


def inside_folder(folder: str | os.PathLike[str], name: str) -> Path:
    """Join a folder and a name, and refuse a name that leaves the folder.

    A backslash counts as a separator on every system, so that lists written on Windows can be read everywhere. Links
    are followed: a name is refused when the file that it stands for lies outside. If no file has exactly this name, a
    file is taken whose name differs only in the encoding of accents (Unicode NFC or NFD).

    Args:
        folder: the folder of the images.
        name: a file name, or a path below the folder, as a data set's list has it.

    Returns:
        The joined path (the file need not exist).

    Raises:
        ValueError: an empty or absolute name, a drive letter, `..`, a NUL byte, half of a surrogate pair, or a link
            to somewhere outside; the message names the name and the folder.

    Example:
        >>> inside_folder("images", "train/cat.jpg").as_posix()
        'images/train/cat.jpg'
    """

    def refuse(why: str) -> ValueError:
        return ValueError(f"{quoted(name)}: {why}: name a file inside {os.fspath(folder)}")

    if not name.strip():
        raise refuse("empty file name")
    if "\0" in name:
        raise refuse("NUL byte in a file name")
    slashed = name.replace("\\", "/")
    if slashed.startswith("/") or re.match(r"[A-Za-z]:", slashed):
        raise refuse("absolute path")
    if ".." in slashed.split("/"):
        raise refuse("'..' in a file name")
    try:
        root = os.path.realpath(folder)  # Path.resolve takes half as long again (57 us a name, this 38)
        real = os.path.realpath(os.path.join(folder, slashed))
    except (OSError, UnicodeError) as error:  # names the file system cannot hold
        raise refuse(f"not a file name ({error})") from None
    if real != root and not real.startswith(root.rstrip(os.sep) + os.sep):
        raise refuse("a link that leaves the folder")
    path = Path(folder) / slashed
    if slashed.isascii() or os.path.lexists(path):
        return path
    # A Mac writes accents as characters of their own ("e" and an accent), other systems composed ("é").
    forms = (Path(folder) / unicodedata.normalize(form, slashed) for form in ("NFC", "NFD"))
    return next((form for form in forms if os.path.lexists(form)), path)
