"""`ImageDatabase`: the SQLite file that holds the names, labels and codes of images.

SQLite, because it is in Python's standard library, keeps each commit through a killed process and a power cut, and is
one file that can be copied. DuckDB and LanceDB are made for scans and vector search inside the database; here the codes
are searched in memory, where they fit (64 bits or 2.5 KB per image).
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from attncap._files import replacing
from attncap._messages import quoted

APPLICATION_ID = 0x61747063  # "atpc": SQLite's field for the program that a file belongs to
FORMAT_VERSION = 1
WAIT_SECONDS = 30.0  # how long to wait for another process that writes
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    # AUTOINCREMENT: an id is never used again, so that a reader who has read up to an id knows what is new.
    "CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY AUTOINCREMENT, image_id TEXT NOT NULL UNIQUE, "
    "labels TEXT NOT NULL, digest BLOB, code BLOB NOT NULL, crc INTEGER NOT NULL)",
)


class Entry(NamedTuple):
    """An image to be stored: its labels, the bytes of its code, and a digest of the file it was made from, if any."""

    image_id: str
    labels: tuple[str, ...]
    code: bytes
    digest: bytes | None = None


class ImageDatabase:
    """Entries of one encoder in an SQLite file; each `add` is one transaction, whole or not at all.

    SQLite has no checksums, so each entry has one, which is compared when the entry is read.

    Args:
        file: the database; None keeps it in memory.
        encoder: what the codes come from (`ImageEncoder.describe`); None opens a file of any encoder.
        create: create the file if there is none.

    Raises:
        FileNotFoundError: no such file, and create is False.
        ValueError: not such a database, damaged, of another version, or of another encoder.
        OSError: it cannot be opened or written; another process wrote for longer than WAIT_SECONDS.
    """

    def __init__(
        self, file: str | os.PathLike[str] | None, encoder: Mapping[str, Any] | None = None, create: bool = False
    ) -> None:
        self.file = None if file is None else Path(file)
        if self.file is not None and not create and not self.file.is_file():
            raise FileNotFoundError(f"{self.file}: no such image index: build it first (attncap index build)")
        with self._named():
            if self.file is None:
                self._sql = sqlite3.connect(":memory:", isolation_level=None)
            else:
                if create:
                    self.file.parent.mkdir(parents=True, exist_ok=True)
                where = f"{self.file.resolve().as_uri()}?mode={'rwc' if create else 'rw'}"
                self._sql = sqlite3.connect(where, timeout=WAIT_SECONDS, isolation_level=None, uri=True)
            try:
                self._open(None if encoder is None else dict(encoder), create)
            except BaseException:
                self._sql.close()
                raise

    def __len__(self) -> int:
        with self._named():
            return int(self._sql.execute("SELECT count(*) FROM entries").fetchone()[0])

    @property
    def state(self) -> tuple[int, int]:
        """Return a pair that changes with every commit, by this process or another."""
        with self._named():
            return int(self._sql.execute("PRAGMA data_version").fetchone()[0]), self._sql.total_changes

    def about(self, name: str) -> Any:
        """Return a stored setting, None where there is none."""
        with self._named():
            row = self._sql.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
        return None if row is None else self._json(row[0])

    def set_about(self, name: str, value: Any) -> None:
        """Store a setting: any value that JSON can hold."""
        with self._writing() as sql:
            sql.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, json.dumps(value)))

    def add(self, entries: Sequence[Entry]) -> None:
        """Store entries in one transaction; an image_id that is there already is replaced, and comes last.

        Raises:
            ValueError: an image_id that is not text (as half of a surrogate pair is not).
        """
        rows = []
        for image_id, labels, code, digest in entries:
            text = json.dumps(labels)
            try:
                rows.append((image_id, text, digest, code, _check_sum(image_id, text, code)))
            except UnicodeEncodeError:
                raise ValueError(f"image_id {image_id!r}: not text that a database can hold: rename the file") from None
        with self._writing() as sql:
            sql.executemany(
                "INSERT OR REPLACE INTO entries (image_id, labels, digest, code, crc) VALUES (?, ?, ?, ?, ?)", rows
            )

    def remove(self, image_ids: Sequence[str]) -> int:
        """Delete the entries of these names, in one transaction; return how many there were."""
        with self._writing() as sql:
            before = sql.total_changes
            sql.executemany("DELETE FROM entries WHERE image_id = ?", [(image_id,) for image_id in image_ids])
            return sql.total_changes - before

    def known(self) -> dict[str, tuple[bytes | None, tuple[str, ...]]]:
        """Return image_id -> digest of its file, labels."""
        with self._named():
            rows = self._sql.execute("SELECT image_id, digest, labels FROM entries ORDER BY id").fetchall()
        return {image_id: (digest, tuple(self._json(labels))) for image_id, digest, labels in rows}

    def codes(self, after: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return ids (N,) and codes (N, size), uint8, of the entries whose id is above `after`, by id.

        Raises:
            ValueError: an entry's check sum, or its size, is not what it should be.
        """
        ids, codes = [], []
        with self._named():
            select = "SELECT id, image_id, labels, code, crc FROM entries WHERE id > ? ORDER BY id"
            for number, image_id, labels, code, crc in self._sql.execute(select, (after,)):
                if len(code) != size or _check_sum(image_id, labels, code) != crc:
                    raise self._damaged(f"entry {image_id!r} is not what was written")
                ids.append(number)
                codes.append(code)
        return np.array(ids, np.int64), np.frombuffer(b"".join(codes), np.uint8).reshape(len(ids), size)

    def entries(self, ids: Sequence[int]) -> list[tuple[str, tuple[str, ...]]]:
        """Return (image_id, labels) of each id, in order."""
        found = []
        with self._named():
            for number in ids:
                row = self._sql.execute("SELECT image_id, labels FROM entries WHERE id = ?", (int(number),)).fetchone()
                if row is None:
                    raise ValueError(f"{self._name}: entry {number} was replaced by another process: ask again")
                found.append((row[0], tuple(self._json(row[1]))))
        return found

    def copy_to(self, file: str | os.PathLike[str]) -> None:
        """Write the whole database, as it is now, to another file, which appears whole or not at all."""
        with self._named(), replacing(file) as temporary, closing(sqlite3.connect(temporary)) as target:
            self._sql.backup(target)

    def close(self) -> None:
        """Close the file."""
        self._sql.close()

    # -- the file ------------------------------------------------------------------------------------------------

    def _open(self, encoder: dict[str, Any] | None, create: bool) -> None:
        owner = self._sql.execute("PRAGMA application_id").fetchone()[0]
        tables = self._sql.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not tables and encoder is not None and (create or self.file is None):
            header = {"version": FORMAT_VERSION, "encoder": encoder}
            with self._writing() as sql:  # if two processes create it at once, the second finds it there
                sql.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                for statement in _SCHEMA:
                    sql.execute(statement)
                sql.execute("INSERT OR IGNORE INTO about VALUES ('header', ?)", (json.dumps(header),))
        elif owner != APPLICATION_ID:
            what = "an empty file" if not tables and not owner else "the database of another program"
            raise ValueError(f"{self._name}: not an image index, but {what}: name another file")
        pages = self._sql.execute("PRAGMA page_count").fetchone()[0]
        size = pages * self._sql.execute("PRAGMA page_size").fetchone()[0]
        if self.file is not None and self.file.stat().st_size < size:
            raise self._damaged(f"{self.file.stat().st_size:,} bytes, {size:,} expected: cut off")
        # A view or a trigger in a file from a stranger would run when an entry is read, and might never end.
        inside = self._sql.execute("SELECT type, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall()
        if sorted(inside) != sorted(("table", made.replace("IF NOT EXISTS ", "")) for made in _SCHEMA):
            raise self._damaged("it has other tables than its own")
        found = self.about("header")
        if not isinstance(found, dict) or not isinstance(found.get("encoder"), dict):
            raise self._damaged("it has no header")
        if found.get("version") != FORMAT_VERSION:
            raise ValueError(
                f"{self._name}: an image index of version {found.get('version')}, {FORMAT_VERSION} expected: "
                "build it anew"
            )
        self.encoder: dict[str, Any] = found["encoder"]
        if encoder is not None and not same_encoder(encoder, self.encoder):
            raise ValueError(
                f"{self._name}: holds codes of {in_words(self.encoder)}; {in_words(encoder)} was asked for: take the "
                "same encoder, or another file"
            )

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._named():
            self._begin()
            with self._sql:  # which commits or rolls back
                yield self._sql

    def _begin(self) -> None:
        """Begin to write. If another process writes, wait for it here; tell the user after a second."""
        for seconds in (min(1.0, WAIT_SECONDS), WAIT_SECONDS):
            self._sql.execute(f"PRAGMA busy_timeout = {int(1000 * seconds)}")
            try:
                self._sql.execute("BEGIN IMMEDIATE")
                break
            except sqlite3.OperationalError as error:
                if seconds == WAIT_SECONDS or "locked" not in str(error):
                    raise
                print(f"{self._name}: another process writes to it; waiting until it is done", file=sys.stderr)
        self._sql.execute(f"PRAGMA busy_timeout = {int(1000 * WAIT_SECONDS)}")

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Turn errors of SQLite into errors that name the file and say what to do."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise OSError(
                    f"{self._name}: another process has been writing to it for {WAIT_SECONDS:.0f} s: "
                    "try again when it is done"
                ) from error
            if "no such" in str(error):  # a table of ours
                raise self._damaged(str(error)) from error
            raise OSError(f"{self._name}: cannot be read or written ({error}): disk full, or no permission?") from error
        except sqlite3.ProgrammingError as error:
            raise ValueError(f"{self._name}: {error}") from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise self._damaged(str(error)) from error

    @property
    def _name(self) -> str:
        return "image index in memory" if self.file is None else str(self.file)

    def _json(self, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            raise self._damaged(f"{quoted(text)} is not JSON") from None

    def _damaged(self, why: str) -> ValueError:
        return ValueError(f"{self._name}: not an image index, or damaged ({why}): restore a copy, or build it again")


def _check_sum(image_id: str, labels: str, code: bytes) -> int:
    return zlib.crc32(code, zlib.crc32(f"{image_id}\0{labels}\0".encode()))


def in_words(encoder: Mapping[str, Any]) -> str:
    """Return the description of an encoder as text."""
    return ", ".join(f"{key} {value}" for key, value in encoder.items())


def same_encoder(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether codes of two encoders can be compared, by their descriptions without file names."""
    first, second = ({key: value for key, value in told.items() if key != "name"} for told in (one, other))
    return first == second


def encoder_of(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the description of the encoder of a database, see `ImageEncoder.describe`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: not such a database, or damaged.
    """
    with closing(ImageDatabase(file)) as database:
        return database.encoder
