"""`FeatureStore`: the features of many images on disk, computed once, read batch by batch.

A store is a folder of two files. `rows.f16` holds the features, one row of equal size per distinct image; it is read
with `pread` and never mapped into memory: if another process truncates it, reading raises an error and cannot kill the
process. `index.sqlite` says which image has which row, with a checksum of each row: SQLite commits a
batch whole or not at all, and rows that no commit names are overwritten. An image is known by the digest of its bytes:
a renamed or copied image is not computed again, and a changed one is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from attncap._files import cache_folder, check_list
from attncap.features.pipeline import Decoded, Engine, compute_here, file_stamp
from attncap.features.store_files import RowFile, file_key, hold_alone, refuse_old, row_checksum
from attncap.features.store_index import StoreIndex, naming_errors


class FeatureStore:
    """Features of images under one encoder configuration, half precision, on disk.

    Any number of processes and threads may read a store while one process extends it.

    Args:
        folder: where stores live; each encoder configuration has a folder of its own in it, named by fingerprint. None:
            `features` in the cache folder.
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

    def __init__(self, folder: str | Path | None, extractor: Any):
        folder = Path(folder or cache_folder() / "features")
        self.extractor = extractor
        self.feature_shape: tuple[int, int, int] = extractor.feature_shape
        self.fingerprint: str = extractor.fingerprint()
        name = f"{extractor.layer}-{self.fingerprint}".replace(os.sep, "_")
        self.path = folder / f"{name}.features"
        refuse_old(folder / f"{name}.lmdb", self.path)
        self._row_bytes = 2 * int(np.prod(self.feature_shape))
        self._rows: RowFile | None = None
        with naming_errors(self.path, "the feature store cannot be opened"):
            with suppress(FileExistsError):
                self.path.mkdir(parents=True)
            self._open()

    def extract(
        self,
        paths: Sequence[str],
        batch_size: int = 32,
        progress: bool = True,
        mirrored: bool = False,
        engine: Engine | None = None,
    ) -> pd.DataFrame:
        """Compute and store the features of every image that is not in the store yet.

        If it is interrupted, a later call continues: a batch is stored whole or not at all. A second process on the
            same store prints that it waits for the first.

        Args:
            paths: image files.
            batch_size: images per pass through the network.
            progress: show a bar with images/s.
            mirrored: compute features of the mirror images, which are stored beside the others.
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
            if self._index.read_only:
                raise OSError(
                    f"{self.path}: read-only, and {len(self._todo(paths, mirrored)):,} of {len(paths):,} images have "
                    "no features in it: name another folder with --features"
                )
            with hold_alone(self.path), naming_errors(self.path, "features cannot be written", writing=True):
                todo = self._todo(paths, mirrored)  # another process may have done it meanwhile
                if todo:
                    self._extract(todo, batch_size, progress, mirrored, engine or compute_here)
        return self.rejects(paths, mirrored)

    def get(self, paths: Sequence[str], mirrored: Sequence[bool] | None = None) -> np.ndarray:
        """Return the features of images: float16, shape (len(paths), rows, cols, D).

        Args:
            paths: image files.
            mirrored: for each image, whether to return features of its mirror image; None: for none.

        Raises:
            KeyError: an image whose features are not in the store.
            ValueError: the store is damaged.
        """
        check_list(paths, "paths", "images")
        views = mirrored or [False] * len(paths)
        keys = [file_key(path, view) for path, view in zip(paths, views, strict=True)]
        found = self._index.lookup(
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

    def rejects(self, paths: Sequence[str], mirrored: bool = False) -> pd.DataFrame:
        """Return DataFrame (path, reason): which of `paths` have no features, and why."""
        keys = [file_key(path, mirrored) for path in paths]
        reasons = self._index.lookup("SELECT path, reason FROM rejects WHERE path IN", keys)
        rows = [(str(path), *reasons[key]) for path, key in zip(paths, keys, strict=True) if key in reasons]
        return pd.DataFrame(rows, columns=["path", "reason"], dtype=object)

    def __contains__(self, path: str) -> bool:
        return bool(self._index.lookup("SELECT path FROM images WHERE path IN", [file_key(path)]))

    def __len__(self) -> int:
        return self._index.number("SELECT count(*) FROM images")

    def close(self) -> None:
        """Close the files."""
        rows, self._rows = self._rows, None
        if rows is not None:
            rows.close()
        self._index.close()

    def __del__(self) -> None:
        with suppress(Exception):  # half made, or at the end of the interpreter
            self.close()

    # -- the work ------------------------------------------------------------------------------------------------

    def _todo(self, paths: Sequence[str], mirrored: bool) -> list[str]:
        distinct = list(dict.fromkeys(paths))
        keys = [file_key(path, mirrored) for path in distinct]
        stamps = self._index.lookup(
            "SELECT images.path, size, modified FROM images JOIN rows USING (digest) WHERE images.path IN", keys
        )
        stamps = self._index.lookup("SELECT path, size, modified FROM rejects WHERE path IN", keys) | stamps
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
        return bool(self._index.lookup("SELECT digest FROM rows WHERE digest IN", [digest]))

    def _write(self, batch: list[Decoded], fresh: list[Decoded], features: np.ndarray) -> None:
        finite = np.isfinite(features).all(axis=(1, 2, 3)) if len(features) else np.ones(0, bool)
        overflowed = {item.digest for item, fits in zip(fresh, finite, strict=True) if not fits}
        there = self._index.lookup("SELECT digest FROM rows WHERE digest IN", [item.digest for item in fresh])
        new = [at for at, item in enumerate(fresh) if item.digest not in overflowed and item.digest not in there]
        kept = np.ascontiguousarray(features[new])
        first = self._index.number("SELECT coalesce(max(row) + 1, 0) FROM rows")
        if new:
            assert self._rows is not None
            self._rows.write(first, kept)
        with self._index.changing() as index:
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

    def _open(self) -> None:
        rows, index = self.path / "rows.f16", self.path / "index.sqlite"
        read_only = not os.access(self.path, os.W_OK) or (index.exists() and not os.access(index, os.W_OK))
        if read_only and not index.exists():
            raise OSError("the folder is read-only and holds no complete store")
        self._rows = RowFile(rows, self._row_bytes, write=not read_only)
        self._index = StoreIndex(self.path, read_only)
        self._index.check(self.feature_shape, self._rows.count)
