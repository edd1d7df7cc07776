"""The files of a feature store: rows of equal size, a lock for one writer, keys of images, checksums of rows."""

from __future__ import annotations

import hashlib
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import numpy as np


@contextmanager
def hold_alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a store; print a message while another process holds it."""
    lock = filelock.FileLock(folder / "extract.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"{folder}: another process computes features here; waiting until it is done", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def refuse_old(old: Path, folder: Path) -> None:
    """Raise ValueError where only a store of the former format is there."""
    if old.is_dir() and not folder.exists():
        raise ValueError(
            f"{old}: a feature store of an attncap up to commit 998f5d3, in a format that is no longer read. "
            "Delete it: the features are then computed again"
        )


def file_key(path: str | os.PathLike[str], mirrored: bool = False) -> bytes:
    """Return the key of a file: a digest of its absolute path."""
    name = str(Path(path).absolute()).encode("utf-8", "surrogateescape")
    return hashlib.blake2b(name, digest_size=16, person=b"mirrored" if mirrored else b"").digest()


def row_checksum(digest: bytes, row: np.ndarray) -> int:
    """Return a checksum of a row and its image, so that a row of another image does not pass."""
    return zlib.crc32(row.data.cast("B"), zlib.crc32(digest))


class RowFile:
    """A file of rows of equal size, read with `pread` and never mapped into memory.

    Args:
        path: the file; made where it is missing and may be written.
        row_bytes: size of a row.
        write: whether rows are written as well.
    """

    def __init__(self, path: Path, row_bytes: int, write: bool = False):
        flags = os.O_RDWR | os.O_CREAT if write else os.O_RDONLY
        self._file = os.open(path, flags | getattr(os, "O_CLOEXEC", 0), 0o666)
        self._row_bytes = row_bytes

    def count(self) -> int:
        """Return how many whole rows there are."""
        return os.fstat(self._file).st_size // self._row_bytes

    def read(self, row: int, into: np.ndarray) -> bool:
        """Read a row into an array; return whether it is there in full."""
        target = into.data.cast("B")
        done = 0
        while done < self._row_bytes:
            got = os.preadv(self._file, [target[done:]], row * self._row_bytes + done)
            if got == 0:
                return False
            done += got
        return True

    def write(self, first: int, rows: np.ndarray) -> None:
        """Write rows beginning at row `first`, and wait until they are on the disk."""
        data = rows.data.cast("B")
        done = 0
        while done < len(data):
            done += os.pwrite(self._file, data[done:], first * self._row_bytes + done)
        getattr(os, "fdatasync", os.fsync)(self._file)  # before the index names them

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
