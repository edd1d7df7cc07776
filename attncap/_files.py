"""Write files whole, find files below a folder, and refuse one text or path where a list is expected."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

SYSTEM_FOLDERS = ("__MACOSX",)  # of archives packed on a Mac: previews named as the images are


@contextmanager
def replacing(file: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `file`; on success it takes the place of `file`, on any error it is deleted.

    The bytes are on the disk before the name points to them, so that a power cut leaves the old file or the new one.
    What is no regular file (`/dev/stdout`, a named pipe) is written to directly: it must not be replaced by a file.

    Args:
        file: what is to be written; its folder is made where missing.

    Returns:
        temporary: a path with the same ending, for writers that choose the format by it.

    Raises:
        OSError: the folder cannot be written to, or the disk is full; `file` is then as it was.

    Example:
        >>> with replacing("scores.json") as temporary:
        ...     temporary.write_text("{}", encoding="utf-8")
    """
    target = Path(file)
    if target.exists() and not target.is_file() and not target.is_dir():
        yield target
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.{target.name}")
    try:
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: str | os.PathLike[str]) -> None:
    """Delete the temporary files that killed processes left in `folder`; call it where nobody else writes there."""
    for path in Path(folder).iterdir():
        if re.fullmatch(r"\.\d+-[0-9a-f]{8}\..+", path.name) and path.is_file():
            path.unlink(missing_ok=True)


def check_list(values: Any, argument: str, items: str = "texts") -> None:
    """Refuse one text, path or image where a list of them is expected: a text would be read letter by letter.

    Args:
        values: what the caller was given.
        argument: its name, for the message.
        items: what the list should hold, for the message.

    Raises:
        TypeError: one text, path or image, or a mapping.

    Example:
        >>> check_list("A dog runs.", "captions")
        Traceback (most recent call last):
        TypeError: captions: a list of texts expected, got one: write ['A dog runs.']
    """
    if isinstance(values, Mapping):
        raise TypeError(f"{argument}: a list of {items} expected, got a mapping: give its values")
    one_image = isinstance(values, np.ndarray) and values.ndim in (2, 3) and values.dtype.kind in "uifb"
    if isinstance(values, str | bytes | os.PathLike) or one_image or not isinstance(values, Iterable):
        shown = "image" if one_image else repr(str(values)[:60])
        raise TypeError(f"{argument}: a list of {items} expected, got one: write [{shown}]")


def files_below(folder: str | os.PathLike[str]) -> list[Path]:
    """List the files in a folder and its folders, sorted; links are followed, hidden files and folders left out.

    Hidden is what begins with a period (`.ipynb_checkpoints`, `._photo.jpg`), and `__MACOSX`. A link that leads back
    to a folder on the way to it is not followed again.
    """
    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in SYSTEM_FOLDERS)
        paths = (Path(place, name) for name in files if not name.startswith("."))
        found += (path for path in paths if path.is_file())
    return sorted(found)


def cache_folder() -> Path:
    """Return the folder of what can be made again (drawn faces, features): ATTNCAP_CACHE, else the user's cache."""
    named = os.environ.get("ATTNCAP_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attncap"
