"""Write files whole or not at all, write tables as CSV, list folders; refuse one text where a list is expected."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attncap._messages import quoted

if TYPE_CHECKING:
    import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet evaluates a cell that begins with one of these
SYSTEM_FOLDERS = ("__MACOSX",)  # in archives packed on a Mac: previews with the names of the images


@contextmanager
def naming_full_disk(file: str | os.PathLike[str]) -> Iterator[None]:
    """Turn the error of a full disk, which names no file, into one that names `file` and says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        problem = "no space left on the disk; what was written before is intact: make room and start again"
        raise OSError(error.errno, problem, str(file)) from error


@contextmanager
def replacing(file: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `file`; on success it takes the place of `file`, on any error it is deleted.

    The bytes are on the disk before the name points to them, so that a power cut leaves the old file or the new one.
    A symbolic link stays, and the file that it points to is replaced. Anything but a regular file (`/dev/stdout`, a
    named pipe) is written to directly: it must not be replaced.

    Args:
        file: what is to be written; its folder is made where missing.

    Returns:
        temporary: a path with the same ending, for writers that choose the format by it.

    Raises:
        OSError: the folder cannot be written to, or the disk is full, see `naming_full_disk`; `file` is then as it was.

    Example:
        >>> with replacing("scores.json") as temporary:
        ...     temporary.write_text("{}", encoding="utf-8")
    """
    target = Path(file)
    if target.exists() and not target.is_file() and not target.is_dir():
        with naming_full_disk(file):
            yield target
        return
    target = Path(os.path.realpath(target)) if target.is_symlink() else target
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{os.getpid()}-{secrets.token_hex(4)}.{target.name}")
    try:
        with naming_full_disk(file):
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


def check_output(file: str | os.PathLike[str], name: str = "") -> None:
    """Refuse a file that cannot be written, before hours of work; nothing is left behind but its folder.

    Args:
        file: what will be written.
        name: of the argument, for the message.

    Raises:
        OSError: the folder cannot be made or written to, or `file` is a folder; the message names both.
    """
    target = Path(os.path.realpath(file))
    where = f"{name} {file}".strip()
    if target.is_dir():
        raise IsADirectoryError(f"{where}: is a folder: name a file")
    if target.exists() and not target.is_file():
        return  # a pipe or a device, which `replacing` writes to directly
    _try_to_write(target.parent, f"{where}: cannot be written", "name a file in a folder that you can write to")


def check_output_folder(folder: str | os.PathLike[str], name: str = "") -> None:
    """Refuse a folder that cannot be written to or made, before the work; it is not made yet.

    Args:
        folder: what will be written to.
        name: of the argument, for the message.

    Raises:
        OSError: the folder, or the nearest one above it that exists, is a file or cannot be written to.
    """
    target = Path(os.path.realpath(folder))
    there = next(path for path in (target, *target.parents) if path.exists())
    where = f"{name} {folder}".strip()
    if not there.is_dir():
        raise NotADirectoryError(f"{where}: {there} is a file: name a folder")
    _try_to_write(there, f"{where}: {there} cannot be written to", "name another folder")


def _try_to_write(folder: Path, problem: str, mend: str) -> None:
    trial = folder / f".{os.getpid()}-{secrets.token_hex(4)}.trial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise OSError(f"{problem} ({error.strerror or error}): {mend}") from None


def write_csv(file: str | os.PathLike[str], table: pd.DataFrame, *, mark: bool = False) -> None:
    """Write a table as CSV in UTF-8, whole or not at all.

    Text that a spreadsheet would take for a formula (it begins with = + - or @) gets an apostrophe in front, which
    `plain_cell` takes away. Bytes of names that are not UTF-8 are written as escapes.

    Args:
        file: what is written.
        table: any; its index is left out.
        mark: begin with a byte order mark, so that spreadsheets show accents.
    """

    def safe(cell: Any) -> Any:
        return "'" + cell if isinstance(cell, str) and cell.startswith((*FORMULA, "'")) else cell

    table = table.copy(deep=False)
    for at, kind in enumerate(table.dtypes):
        if kind.kind not in "biufc":
            table.isetitem(at, list(map(safe, table.iloc[:, at])))
    encoding = "utf-8-sig" if mark else "utf-8"
    with (
        replacing(file) as temporary,
        open(temporary, "w", encoding=encoding, errors="backslashreplace", newline="") as out,
    ):
        table.to_csv(out, index=False, header=list(map(safe, table.columns)), lineterminator="\n")


def plain_cell(cell: str) -> str:
    """Take away the apostrophe that `write_csv` put in front of what looks like a formula."""
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith((*FORMULA, "'")) else cell


def write_rejects(file: str | os.PathLike[str], rejects: pd.DataFrame) -> bool:
    """Write rejects as CSV; where there are none, remove those of an earlier call. Return whether there are any."""
    if len(rejects):
        write_csv(file, rejects)
    else:
        Path(file).unlink(missing_ok=True)
    return len(rejects) > 0


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
        shown = "image" if one_image else quoted(str(values))
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
    """Return the cache folder, for faces and features that can be made again: ATTNCAP_CACHE, or that of the user."""
    named = os.environ.get("ATTNCAP_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "attncap"
