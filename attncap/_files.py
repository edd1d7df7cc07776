"""`replacing`: write a file so that whoever reads it sees the old one or the new one, never half of one."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
