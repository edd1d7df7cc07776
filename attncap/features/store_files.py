"""What the feature store asks of its files: a lock for one writer, keys of files, checksums of rows, the old format."""

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
    """Hold the lock of a store; say so when another process holds it."""
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
            "Delete it: the features are then computed anew"
        )


def file_key(path: str | os.PathLike[str], mirrored: bool = False) -> bytes:
    """Return the key of a file: a digest of its absolute path."""
    name = str(Path(path).absolute()).encode("utf-8", "surrogateescape")
    return hashlib.blake2b(name, digest_size=16, person=b"mirrored" if mirrored else b"").digest()


def row_checksum(digest: bytes, row: np.ndarray) -> int:
    """Return a checksum of a row that also depends on the image: another image's row does not pass for it."""
    return zlib.crc32(row.data.cast("B"), zlib.crc32(digest))
