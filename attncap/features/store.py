"""`FeatureStore`: the features of many images on disk, computed once, read batch by batch.

A store is a folder of two files. `rows.f16` holds the features, one row of equal size per distinct image; it is read
with `pread` and never mapped into memory, so that a file that another process cuts off or extends can give an error and
cannot kill the process. `index.sqlite` says which image has which row, with a checksum of each row: SQLite commits a
batch whole or not at all, and rows that no commit names are written over. An image is known by the digest of its bytes:
a renamed or copied image is not computed again, and a changed one is.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from attncap._files import check_list
from attncap.features.pipeline import Decoded, Engine, compute_here, file_stamp
from attncap.features.store_files import (
    OF_THE_SYSTEM,
    SCHEMA,
    RowFile,
    file_key,
    hold_alone,
    refuse_old,
    row_checksum,
    why_not_written,
)

FORMAT_VERSION = 2  # 1 was an LMDB file, up to commit 998f5d3
BUSY_SECONDS = 60.0  # another process holds the index for milliseconds, when it commits a batch
KEYS_AT_ONCE = 500  # SQLite takes at most 999 values in a statement on old systems


class FeatureStore:
    """Features of images under one encoder configuration, half precision, on disk.

    Any number of processes and threads may read a store while one process extends it.

    Args:
        folder: where stores live; each encoder configuration has a folder of its own in it, named by fingerprint.
        extractor: the encoder. Another layer, weights, size or arithmetic has another fingerprint, hence another store.

    Raises:
        ValueError: not a feature store, damaged, or written by another version.
        OSError: the store cannot be opened or written: permissions, a full disk.

    Example:
        >>> store = FeatureStore("features", FeatureExtractor("mixed8"))
        >>> rejects = store.extract(images["path"])
        >>> store.get(images["path"][:32]).shape
        (32, 8, 8, 1280)
    """

    def __init__(self, folder: str | Path, extractor: Any):
        self.extractor = extractor
        self.feature_shape: tuple[int, int, int] = extractor.feature_shape
        self.fingerprint: str = extractor.fingerprint()
        name = f"{extractor.layer}-{self.fingerprint}".replace(os.sep, "_")
        self.path = Path(folder) / f"{name}.features"
        refuse_old(Path(folder) / f"{name}.lmdb", self.path)
        self._row_bytes = 2 * int(np.prod(self.feature_shape))
        self._lock = threading.RLock()  # one connection to the index, used by one thread at a time
        self._rows: RowFile | None = None
        self._index: sqlite3.Connection | None = None
        with self._named("the feature store cannot be opened"):
            with suppress(FileExistsError):
                self.path.mkdir(parents=True)
            self._open()
            self._check_header()

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and cols of the grid of regions."""
        return self.feature_shape[:2]

    def extract(
        self,
        paths: Sequence[str],
        batch_size: int = 32,
        progress: bool = True,
        mirrored: bool = False,
        engine: Engine | None = None,
    ) -> pd.DataFrame:
        """Compute and keep the features of every image that is not in the store yet.

        Interrupted at any moment, a later call goes on: a batch is in the store whole or not at all. A second process
        on the same store says that it waits for the first, and then finds its work done.

        Args:
            paths: image files.
            batch_size: images per pass through the network.
            progress: show a bar with images/s.
            mirrored: of the mirror images, which are kept beside the others.
            engine: what decodes the images and runs the network; default this process. Only this process writes.

        Returns:
            rejects: DataFrame (path, reason) of the images among `paths` that cannot be read.

        Raises:
            TypeError: one path in place of a list.
            OSError: the store cannot be written, as when the disk is full; what was in it before stays readable.
        """
        check_list(paths, "paths", "images")
        paths = [str(path) for path in paths]
        if self._todo(paths, mirrored):  # a complete store needs no lock, and may lie on a read-only disk
            if self._read_only:
                raise OSError(
                    f"{self.path}: read-only, and {len(self._todo(paths, mirrored)):,} of {len(paths):,} images have "
                    "no features in it: name another folder with --features"
                )
            with hold_alone(self.path), self._named("features cannot be written", writing=True):
                todo = self._todo(paths, mirrored)  # another process may have done it meanwhile
                if todo:
                    self._extract(todo, batch_size, progress, mirrored, engine or compute_here)
        return self.rejects(paths, mirrored)

    def get(self, paths: Sequence[str], mirrored: Sequence[bool] | None = None) -> np.ndarray:
        """Return the features of images: float16, shape (len(paths), rows, cols, D).

        Args:
            paths: image files.
            mirrored: for each, whether its mirror image is meant; None: none of them.

        Raises:
            KeyError: an image whose features are not in the store.
            ValueError: the store is damaged.
        """
        check_list(paths, "paths", "images")
        views = mirrored or [False] * len(paths)
        keys = [file_key(path, view) for path, view in zip(paths, views, strict=True)]
        found = self._lookup(
            "SELECT images.path, rows.row, rows.checksum, rows.digest FROM images JOIN rows USING (digest) "
            "WHERE images.path IN",
            keys,
        )
        features = np.empty((len(paths), *self.feature_shape), np.float16)
        for at, (path, key) in enumerate(zip(paths, keys, strict=True)):
            if key not in found:
                raise KeyError(f"{path}: no features in {self.path}; call extract first")
            row, checksum, digest = found[key]
            if self._rows is None:
                raise ValueError(f"{self.path}: this store was closed")
            if not self._rows.read(row, features[at]) or row_checksum(digest, features[at]) != checksum:
                raise ValueError(
                    f"{self.path}: damaged (features of {path} are not those written): delete it to start anew"
                )
        return features

    def mask(self, paths: Sequence[str]) -> None:
        """Return None: every region of a grid counts, see `ExternalFeatures.mask`."""

    def boxes(self, paths: Sequence[str]) -> None:
        """Return None: the regions are the cells of a grid, see `ExternalFeatures.boxes`."""

    def rejects(self, paths: Sequence[str], mirrored: bool = False) -> pd.DataFrame:
        """Return DataFrame (path, reason): which of `paths` have no features, and why."""
        keys = [file_key(path, mirrored) for path in paths]
        reasons = self._lookup("SELECT path, reason FROM rejects WHERE path IN", keys)
        rows = [(str(path), *reasons[key]) for path, key in zip(paths, keys, strict=True) if key in reasons]
        return pd.DataFrame(rows, columns=["path", "reason"], dtype=object)

    def __contains__(self, path: str) -> bool:
        return bool(self._lookup("SELECT path FROM images WHERE path IN", [file_key(path)]))

    def __len__(self) -> int:
        with self._reading() as index:
            return int(index.execute("SELECT count(*) FROM images").fetchone()[0])

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            if self._index is not None:
                self._index.close()
            if self._rows is not None:
                self._rows.close()
            self._index = self._rows = None

    def __del__(self) -> None:
        with suppress(Exception):  # half made, or at the end of the interpreter
            self.close()

    # -- the work ------------------------------------------------------------------------------------------------

    def _todo(self, paths: Sequence[str], mirrored: bool) -> list[str]:
        distinct = list(dict.fromkeys(paths))
        keys = [file_key(path, mirrored) for path in distinct]
        stamps = self._lookup(
            "SELECT images.path, size, modified FROM images JOIN rows USING (digest) WHERE images.path IN", keys
        )
        stamps = self._lookup("SELECT path, size, modified FROM rejects WHERE path IN", keys) | stamps
        return [path for path, key in zip(distinct, keys, strict=True) if list(stamps.get(key, ())) != file_stamp(path)]

    def _extract(self, todo: list[str], batch_size: int, progress: bool, mirrored: bool, engine: Engine) -> None:
        what = "mirrored features" if mirrored else "features"
        with (
            closing(engine(self.extractor, todo, batch_size, mirrored, self._has_features)) as batches,
            ThreadPoolExecutor(1, "write") as writer,
            tqdm(total=len(todo), unit=" images", desc=what, disable=not progress) as bar,
        ):
            written: Future[None] | None = None
            for done in batches:
                if written is not None:
                    written.result()  # a full disk stops here, with what was written before intact
                written = writer.submit(self._write, *done)
                bar.update(len(done.batch))
            if written is not None:
                written.result()

    def _has_features(self, digest: bytes) -> bool:
        return bool(self._lookup("SELECT digest FROM rows WHERE digest IN", [digest]))

    def _write(self, batch: list[Decoded], fresh: list[Decoded], features: np.ndarray) -> None:
        finite = np.isfinite(features).all(axis=(1, 2, 3)) if len(features) else np.ones(0, bool)
        overflowed = {item.digest for item, fits in zip(fresh, finite, strict=True) if not fits}
        there = self._lookup("SELECT digest FROM rows WHERE digest IN", [item.digest for item in fresh])
        new = [at for at, item in enumerate(fresh) if item.digest not in overflowed and item.digest not in there]
        kept = np.ascontiguousarray(features[new])
        with self._reading() as index:
            first = index.execute("SELECT coalesce(max(row) + 1, 0) FROM rows").fetchone()[0]
        if new:
            assert self._rows is not None
            self._rows.write(first, kept)
        with self._lock, self._changing() as index:
            index.executemany(
                "INSERT INTO rows VALUES (?, ?, ?)",
                [
                    (first + place, fresh[at].digest, row_checksum(fresh[at].digest, kept[place]))
                    for place, at in enumerate(new)
                ],
            )
            for item in batch:
                reason = item.reason
                if reason is None and item.digest in overflowed:
                    reason = f"features of {self.extractor.layer} overflow half precision"
                key = file_key(item.path, item.mirrored)
                known, other = ("images", "rejects") if reason is None else ("rejects", "images")
                value = item.digest if reason is None else reason
                index.execute(f"DELETE FROM {other} WHERE path = ?", (key,))
                index.execute(f"INSERT OR REPLACE INTO {known} VALUES (?, ?, ?, ?)", (key, *item.stamp, value))

    # -- the files -----------------------------------------------------------------------------------------------

    def _open(self) -> None:
        rows, index = self.path / "rows.f16", self.path / "index.sqlite"
        self._read_only = not os.access(self.path, os.W_OK) or (index.exists() and not os.access(index, os.W_OK))
        if not self._read_only:
            self._rows = RowFile(rows, self._row_bytes, write=True)
        elif index.exists():
            self._rows = RowFile(rows, self._row_bytes)
        else:
            raise OSError("the folder is read-only and holds no complete store")
        if index.is_file() and 0 < index.stat().st_size < 512:  # SQLite would take it for an empty file
            raise sqlite3.DatabaseError("index.sqlite is cut off")
        # The path as a URI, for the mode; `immutable` is not used: another machine may write on a shared disk.
        uri = f"{index.absolute().as_uri()}?mode={'ro' if self._read_only else 'rwc'}"
        self._index = sqlite3.connect(
            uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0", "synchronous = NORMAL"):
            self._index.execute(f"PRAGMA {pragma}")

    def _check_header(self) -> None:
        header = {"attncap": "feature store", "version": FORMAT_VERSION, "feature_shape": list(self.feature_shape)}
        expected = json.dumps(header)
        if not self._schema() and not self._read_only:
            with self._changing() as index:
                if not self._schema():  # another process may have made it meanwhile
                    for statement in SCHEMA:
                        index.execute(statement)
                    index.execute("INSERT INTO about VALUES ('header', ?)", (expected,))
        schema = self._schema()
        if sorted(sql for sql in schema if sql) != sorted(SCHEMA):
            raise sqlite3.DatabaseError("its index has other tables")
        with self._reading() as index:
            found = index.execute("SELECT value FROM about WHERE name = 'header'").fetchone()
            last = index.execute("SELECT max(row) FROM rows").fetchone()[0]
        if found is None or found[0] != expected:
            text = "no header" if found is None else str(found[0])[:200]
            raise ValueError(f"{self.path}: a store of another version or shape: {text}; expected {expected}")
        assert self._rows is not None
        if last is not None and not 0 <= last < self._rows.count():
            raise sqlite3.DatabaseError("rows.f16 is cut off")

    def _schema(self) -> list[str]:
        with self._reading() as index:
            return [row[0] for row in index.execute("SELECT sql FROM sqlite_master")]

    def _lookup(self, select: str, keys: Sequence[bytes]) -> dict[bytes, tuple[Any, ...]]:
        """Return the rest of each row that a SELECT finds, by its first column, which is one of the keys."""
        found: dict[bytes, tuple[Any, ...]] = {}
        with self._reading() as index:
            for start in range(0, len(keys), KEYS_AT_ONCE):
                part = keys[start : start + KEYS_AT_ONCE]
                places = ", ".join("?" * len(part))
                found.update((row[0], row[1:]) for row in index.execute(f"{select} ({places})", part))
        return found

    # -- errors and locks ----------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._named("the feature store cannot be read"):
            if self._index is None:
                raise ValueError(f"{self.path}: this store was closed")
            if self._index.in_transaction:
                yield self._index
                return
            self._index.execute("BEGIN")
            try:
                yield self._index
            finally:
                if self._index.in_transaction:
                    self._index.execute("COMMIT")

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        assert self._index is not None
        self._index.execute("BEGIN IMMEDIATE")
        try:
            yield self._index
            self._index.execute("COMMIT")
        except BaseException:
            if self._index.in_transaction:
                self._index.execute("ROLLBACK")
            raise

    @contextmanager
    def _named(self, what: str, writing: bool = False) -> Iterator[None]:
        """Turn errors of SQLite and of the system into errors that name the store and say what to do."""
        try:
            yield
        except (sqlite3.DatabaseError, OverflowError, UnicodeDecodeError) as error:
            name = getattr(error, "sqlite_errorname", "SQLITE_CORRUPT")  # some have none: text that is not UTF-8
            if not name.startswith(OF_THE_SYSTEM):
                raise ValueError(
                    f"{self.path}: not a feature store, or damaged ({error}): delete it to start anew"
                ) from error
            if writing or name == "SQLITE_FULL":
                raise OSError(why_not_written(self.path, error)) from error
            raise OSError(f"{self.path}: {what} ({error})") from error
        except OSError as error:
            if str(self.path) in str(error) and error.errno is None:
                raise
            if writing and error.filename is None and error.errno is not None:
                raise OSError(why_not_written(self.path, error)) from error
            if writing:
                raise  # of an image, or of another machine
            raise OSError(f"{self.path}: {what} ({error.strerror or error})") from error
