"""The index of a feature store: an SQLite file that says which image has which row, and the checksum of each row."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FORMAT_VERSION = 2  # 1 was an LMDB file, up to commit 998f5d3
BUSY_SECONDS = 60.0  # another process holds the index for milliseconds, when it commits a batch
KEYS_AT_ONCE = 500  # SQLite takes at most 999 values in a statement on old systems
OF_THE_SYSTEM = tuple(  # errors of SQLite that have nothing to do with the contents of the file
    f"SQLITE_{name}"
    for name in ("BUSY", "CANTOPEN", "FULL", "IOERR", "LOCKED", "NOLFS", "PERM", "PROTOCOL", "READONLY")
)
SCHEMA = (
    "CREATE TABLE about (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE rows (row INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, checksum INTEGER NOT NULL)",
    "CREATE TABLE images (path BLOB PRIMARY KEY, size INTEGER NOT NULL, modified INTEGER NOT NULL, "
    "digest BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE rejects (path BLOB PRIMARY KEY, size INTEGER NOT NULL, modified INTEGER NOT NULL, "
    "reason TEXT NOT NULL) WITHOUT ROWID",
)


class StoreIndex:
    """One connection to the index of a store, used by one thread at a time.

    Args:
        folder: of the store; the index is `index.sqlite` in it.
        read_only: the folder or the index cannot be written.

    Raises:
        sqlite3.DatabaseError: the index is cut off.
    """

    def __init__(self, folder: Path, read_only: bool):
        self.folder = folder
        self.read_only = read_only
        self._lock = threading.RLock()
        file = folder / "index.sqlite"
        if file.is_file() and 0 < file.stat().st_size < 512:  # SQLite would take it for an empty file
            raise sqlite3.DatabaseError("index.sqlite is cut off")
        # The path as a URI, for the mode; `immutable` is not used: another machine may write on a shared disk.
        uri = f"{file.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        self._connection: sqlite3.Connection | None = sqlite3.connect(
            uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0", "synchronous = NORMAL"):
            self._connection.execute(f"PRAGMA {pragma}")

    def check(self, feature_shape: Sequence[int], count_rows: Callable[[], int]) -> None:
        """Create the tables of a new index; check those of an old one, and that its rows are there.

        Args:
            feature_shape: (rows, cols, D) of the features of an image.
            count_rows: how many rows the store has; called last, since another process may be adding some.

        Raises:
            ValueError: the index is of another version or feature shape.
            sqlite3.DatabaseError: other tables, or fewer rows in the store than the index names.
        """
        expected = json.dumps(
            {"attncap": "feature store", "version": FORMAT_VERSION, "feature_shape": list(feature_shape)}
        )
        if not self._schema() and not self.read_only:
            with self.changing() as index:
                if not self._schema():  # another process may have made it meanwhile
                    for statement in SCHEMA:
                        index.execute(statement)
                    index.execute("INSERT INTO about VALUES ('header', ?)", (expected,))
        if sorted(sql for sql in self._schema() if sql) != sorted(SCHEMA):
            raise sqlite3.DatabaseError("its index has other tables")
        with self.reading() as index:
            found = index.execute("SELECT value FROM about WHERE name = 'header'").fetchone()
            last = index.execute("SELECT max(row) FROM rows").fetchone()[0]
        if found is None or found[0] != expected:
            text = "no header" if found is None else str(found[0])[:200]
            raise ValueError(f"{self.folder}: a store of another version or shape: {text}; expected {expected}")
        if last is not None and not 0 <= last < count_rows():
            raise sqlite3.DatabaseError("rows.f16 is cut off")

    def _schema(self) -> list[str]:
        with self.reading() as index:
            return [row[0] for row in index.execute("SELECT sql FROM sqlite_master")]

    def lookup(self, select: str, keys: Sequence[bytes]) -> dict[bytes, tuple[Any, ...]]:
        """Return the rest of each row that a SELECT finds, by its first column, which is one of the keys."""
        found: dict[bytes, tuple[Any, ...]] = {}
        with self.reading() as index:
            for start in range(0, len(keys), KEYS_AT_ONCE):
                part = keys[start : start + KEYS_AT_ONCE]
                places = ", ".join("?" * len(part))
                found.update((row[0], row[1:]) for row in index.execute(f"{select} ({places})", part))
        return found

    def number(self, select: str) -> int:
        """Return the one number that a SELECT finds."""
        with self.reading() as index:
            return int(index.execute(select).fetchone()[0])

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Read within one transaction.

        Raises:
            ValueError: the index was closed.
        """
        with self._lock, naming_errors(self.folder, "the feature store cannot be read"):
            if self._connection is None:
                raise ValueError(f"{self.folder}: this store was closed")
            if self._connection.in_transaction:
                yield self._connection
                return
            self._connection.execute("BEGIN")
            with self._connection:  # which commits or rolls back
                yield self._connection

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """Change the index within one transaction: all changes are made, or none."""
        with self._lock:
            assert self._connection is not None
            self._connection.execute("BEGIN IMMEDIATE")
            with self._connection:  # which commits or rolls back
                yield self._connection

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None


@contextmanager
def naming_errors(folder: Path, what: str, writing: bool = False) -> Iterator[None]:
    """Turn errors of SQLite and of the system into errors that name the store and say what to do."""
    try:
        yield
    except (sqlite3.DatabaseError, OverflowError, UnicodeDecodeError) as error:
        name = getattr(error, "sqlite_errorname", "SQLITE_CORRUPT")  # some errors have no name: text that is not UTF-8
        if not name.startswith(OF_THE_SYSTEM):
            raise ValueError(f"{folder}: not a feature store, or damaged ({error}): delete it to start anew") from error
        if writing or name == "SQLITE_FULL":
            raise OSError(_why_not_written(folder, error)) from error
        raise OSError(f"{folder}: {what} ({error})") from error
    except OSError as error:
        if str(folder) in str(error) and error.errno is None:
            raise
        if writing and error.filename is None and error.errno is not None:
            raise OSError(_why_not_written(folder, error)) from error
        if writing:
            raise  # of an image, or of another machine
        raise OSError(f"{folder}: {what} ({error.strerror or error})") from error


def _why_not_written(folder: Path, error: Exception) -> str:
    return (
        f"{folder}: features cannot be written: disk full? ({error}) What was there before is intact: make room "
        "and start again"
    )
