"""`FeatureStore`: the features of many pictures on disk, computed once, read at memory-map speed.

The store is an LMDB file: memory-mapped reads without a copy of the whole, transactions that survive a kill at any
moment, readers that never wait for the writer. HDF5 and plain arrays have no transactions, and Zarr's chunk files cost
a decompression a read. A picture is known by the digest of its bytes, so a renamed or copied picture is not computed
again and a changed one is.
"""

from __future__ import annotations

import hashlib
import json
import weakref
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import filelock
import lmdb
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from attncap.features.extractor import FeatureExtractor
from attncap.features.lmdb_pages import check_pages
from attncap.features.pipeline import Computed, Decoded, Engine, ahead, in_batches, through_network
from attncap.images import UnreadableImage, image_bytes, open_image

FORMAT_VERSION = 1
DAMAGE = (
    lmdb.BadDbiError,
    lmdb.CorruptedError,
    lmdb.IncompatibleError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.VersionMismatchError,
)
SLACK_PAGES = 4  # LMDB may leave the last pages of a sound file unwritten: those that the last write freed again
# LMDB forbids opening a file twice in a process; a notebook that runs a cell again does. By device and inode.
_OPENED: weakref.WeakValueDictionary[tuple[int, int], lmdb.Environment] = weakref.WeakValueDictionary()


class FeatureStore:
    """Features of pictures under one encoder configuration, half precision, on disk.

    Args:
        folder: where stores live; each encoder configuration has a file of its own in it, named by fingerprint.
        extractor: the encoder. Another layer, weights, size or arithmetic has another fingerprint, hence another file.

    Raises:
        ValueError: the file is not a feature store, is damaged, or was written by another version.
        OSError: the file cannot be opened or written: permissions, a full disk.

    Example:
        >>> store = FeatureStore("features", FeatureExtractor("mixed8"))
        >>> rejects = store.extract(pictures["path"])
        >>> store.get(pictures["path"][:32]).shape
        (32, 8, 8, 1280)
    """

    def __init__(self, folder: str | Path, extractor: FeatureExtractor):
        self.extractor = extractor
        self.feature_shape = extractor.feature_shape
        self.fingerprint = extractor.fingerprint()
        self.path = Path(folder) / f"{extractor.layer}-{self.fingerprint}.lmdb"
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._environment = self._open()
            self._features = self._environment.open_db(b"features")  # digest -> float16 bytes
            self._pictures = self._environment.open_db(b"pictures")  # path -> stamp, digest, check sum of the features
            self._rejects = self._environment.open_db(b"rejects")  # path -> stamp and reason
            self._check_header()
        except DAMAGE as error:
            reason = str(error).removeprefix(f"{self.path}: ")
            raise ValueError(
                f"{self.path}: not a feature store, or damaged ({reason}): delete it to start anew"
            ) from error
        except lmdb.Error as error:
            reason = str(error).removeprefix(f"{self.path}: ")
            raise OSError(f"{self.path}: the feature store cannot be opened ({reason})") from error

    def extract(
        self,
        paths: Sequence[str],
        batch_size: int = 32,
        progress: bool = True,
        mirrored: bool = False,
        engine: Engine | None = None,
    ) -> pd.DataFrame:
        """Compute and keep the features of every picture that is not in the store yet.

        Interrupted at any moment, a later call goes on: a batch is in the store whole or not at all. A second process
        on the same store waits for the first, and then finds its work done.

        Args:
            paths: picture files.
            batch_size: pictures a pass through the network.
            progress: show a bar with pictures/s.
            mirrored: of the pictures as a mirror shows them, which are kept beside the others.
            engine: what decodes the pictures and runs the network; default this process. Only this process writes.

        Returns:
            rejects: DataFrame (path, reason) of the pictures among `paths` that cannot be read.

        Raises:
            OSError: the store cannot be written, as when the disk is full; what was in it before stays readable.
        """
        with filelock.FileLock(self.path / "extract.lock"):
            todo = [path for path in dict.fromkeys(map(str, paths)) if not self._is_current(path, mirrored)]
            if todo:
                try:
                    self._grow(len(todo))
                    self._extract(todo, batch_size, progress, mirrored, engine or self._here)
                except lmdb.Error as error:
                    raise OSError(
                        f"{self.path}: features cannot be written: disk full? ({error}) What was there before is "
                        "intact: make room and start again"
                    ) from error
        return self.rejects(paths, mirrored)

    def get(self, paths: Sequence[str], mirrored: Sequence[bool] | None = None) -> np.ndarray:
        """Return the features of pictures: float16, shape (len(paths), rows, cols, D).

        Args:
            paths: picture files.
            mirrored: for each, whether it is to be as a mirror shows it; None: none of them.

        Raises:
            KeyError: a picture whose features are not in the store.
        """
        features = np.empty((len(paths), *self.feature_shape), np.float16)
        with self._reading() as transaction:
            for row, path, flipped in zip(features, paths, mirrored or [False] * len(paths), strict=True):
                known = transaction.get(_key(path, flipped), db=self._pictures)
                stored = None if known is None else transaction.get(bytes(known)[16:32], db=self._features)
                if stored is None:
                    raise KeyError(f"{path}: no features in {self.path}; call extract first")
                self._check(path, bytes(known), stored)
                row[...] = np.frombuffer(stored, np.float16).reshape(self.feature_shape)
        return features

    def rejects(self, paths: Sequence[str], mirrored: bool = False) -> pd.DataFrame:
        """Return DataFrame (path, reason): which of `paths` have no features, and why."""
        found = []
        with self._reading() as transaction:
            for path in map(str, paths):
                entry = transaction.get(_key(path, mirrored), db=self._rejects)
                if entry is not None:
                    found.append((path, json.loads(bytes(entry))["reason"]))
        return pd.DataFrame(found, columns=["path", "reason"])

    def __contains__(self, path: str) -> bool:
        with self._reading() as transaction:
            return transaction.get(_key(path), db=self._pictures) is not None

    def __len__(self) -> int:
        with self._reading() as transaction:
            return int(transaction.stat(self._pictures)["entries"])

    def close(self) -> None:
        """Let go of the file; it is closed when no other store of this process has it open."""
        for name in ("_features", "_pictures", "_rejects", "_environment"):
            self.__dict__.pop(name, None)

    # -- the work ------------------------------------------------------------------------------------------------

    def _extract(self, todo: list[str], batch_size: int, progress: bool, mirrored: bool, engine: Engine) -> None:
        with (
            closing(engine(self.extractor, todo, batch_size, mirrored)) as batches,
            ThreadPoolExecutor(1, "write") as writer,
            tqdm(
                total=len(todo),
                unit=" pictures",
                desc="mirrored features" if mirrored else "features",
                disable=not progress,
            ) as bar,
        ):
            written: Future[None] | None = None
            for done in batches:
                if written is not None:
                    written.result()  # a full disk stops here, with what was written before intact
                written = writer.submit(self._write, *done)
                bar.update(len(done.batch))
            if written is not None:
                written.result()

    def _here(
        self, extractor: Any, todo: list[str], batch_size: int, mirrored: bool
    ) -> Generator[Computed, None, None]:
        network = extractor.network_for_pixels()
        decode = partial(self._decode, mirrored=mirrored)
        with ThreadPoolExecutor(4, "decode") as decoders:
            for batch in in_batches(ahead(decoders, decode, todo, 3 * batch_size), batch_size):
                yield through_network(network, extractor, batch, batch_size)

    def _decode(self, path: str, mirrored: bool) -> Decoded:
        return decode_picture(path, self.extractor, mirrored, self._has_features)

    def _has_features(self, digest: bytes) -> bool:
        with self._reading() as transaction:
            return transaction.get(digest, db=self._features) is not None

    def _write(self, batch: list[Decoded], fresh: list[Decoded], features: np.ndarray) -> None:
        overflowed = {
            item.digest: f"features of {self.extractor.layer} overflow half precision"
            for item, row in zip(fresh, features, strict=True)
            if not np.isfinite(row).all()
        }
        with self._environment.begin(write=True) as transaction:
            for item, row in zip(fresh, features, strict=True):
                if item.digest not in overflowed:
                    # What is there stays: the check sums of other pictures with these bytes are of it.
                    value = np.ascontiguousarray(row).tobytes()
                    transaction.put(item.digest, value, db=self._features, overwrite=False)
            for item in batch:
                reason = item.reason or overflowed.get(item.digest)
                if reason:
                    entry = json.dumps({"stamp": item.stamp, "reason": reason, "path": item.path})
                    transaction.put(_key(item.path, item.mirrored), entry.encode(), db=self._rejects)
                    transaction.delete(_key(item.path, item.mirrored), db=self._pictures)
                else:
                    stored = transaction.get(item.digest, db=self._features)
                    known = np.array(item.stamp, np.int64).tobytes() + item.digest + _check_sum(stored)
                    transaction.put(_key(item.path, item.mirrored), known, db=self._pictures)
                    transaction.delete(_key(item.path, item.mirrored), db=self._rejects)

    # -- the file ------------------------------------------------------------------------------------------------

    def _is_current(self, path: str, mirrored: bool) -> bool:
        stamp = file_stamp(path)
        with self._reading() as transaction:
            known = transaction.get(_key(path, mirrored), db=self._pictures)
            if known is not None:
                return np.frombuffer(bytes(known)[:16], np.int64).tolist() == stamp
            rejected = transaction.get(_key(path, mirrored), db=self._rejects)
            return rejected is not None and json.loads(bytes(rejected))["stamp"] == stamp

    def _open(self) -> lmdb.Environment:
        file = self.path / "data.mdb"
        identity = _identity(file)
        opened = None if identity is None else _OPENED.get(identity)
        if opened is not None:
            return opened
        environment = lmdb.open(str(self.path), max_dbs=3, map_size=self._size_on_disk() + 2**24)
        environment.reader_check()  # readers that were killed hold old pages, and a place in the table of readers
        pages = environment.info()["last_pgno"] + 1 - SLACK_PAGES
        if pages * environment.stat()["psize"] > self._size_on_disk():  # reading what is not there would be SIGBUS
            raise ValueError(f"{self.path}: damaged (data.mdb is cut off): delete it to start anew")
        try:
            while True:
                try:
                    with environment.begin() as transaction:
                        if check_pages(file, transaction.id()):
                            break
                except lmdb.MapResizedError:  # another process made the file grow
                    environment.set_mapsize(0)
        except ValueError as error:
            environment.close()
            raise ValueError(
                f"{self.path}: not a feature store, or damaged ({error}): delete it to start anew"
            ) from None
        identity = _identity(file)
        if identity is not None:
            _OPENED[identity] = environment
        return environment

    def _check_header(self) -> None:
        header = {"attncap": "feature store", "version": FORMAT_VERSION, "feature_shape": list(self.feature_shape)}
        expected = json.dumps(header).encode()
        with self._read() as transaction:  # most often enough, and does not wait for another process that writes
            entry = transaction.get(b"header", db=self._rejects)
            found = None if entry is None else bytes(entry)
        if found is None:
            with self._environment.begin(write=True, db=self._rejects) as transaction:
                transaction.put(b"header", expected, overwrite=False)
        elif found != expected:
            found_text = found.decode(errors="replace")
            raise ValueError(
                f"{self.path}: a store of another version or shape: {found_text}; expected {expected.decode()}"
            )

    def _grow(self, pictures: int) -> None:
        bytes_each = 2 * int(np.prod(self.feature_shape)) + 2 * 4096  # values lie on whole pages
        needed = self._size_on_disk() + int(1.1 * pictures * bytes_each) + 2**24
        if needed > self._environment.info()["map_size"]:
            self._environment.set_mapsize(needed)

    def _size_on_disk(self) -> int:
        file = self.path / "data.mdb"
        return file.stat().st_size if file.exists() else 0

    def _check(self, path: str, known: bytes, stored: Any) -> None:
        # Entries of 32 bytes are of stores from before there were check sums.
        if len(stored) != 2 * int(np.prod(self.feature_shape)) or known[32:] not in (b"", _check_sum(stored)):
            raise ValueError(f"{self.path}: damaged (features of {path} are not those written): delete it")

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        try:
            with self._read() as transaction:
                yield transaction
        except DAMAGE as error:
            raise ValueError(f"{self.path}: damaged ({error}): delete it to start anew") from error

    def _read(self) -> Any:
        try:
            return self._environment.begin(buffers=True)
        except lmdb.MapResizedError:  # another process made the file grow
            self._environment.set_mapsize(0)
            return self._environment.begin(buffers=True)


def decode_picture(path: str, extractor: Any, mirrored: bool, has_features: Callable[[bytes], bool]) -> Decoded:
    """Read a picture file; decode it unless features of its digest are there already."""
    stamp = file_stamp(path)  # before the bytes: a file that changes in between is looked at again next time
    try:
        data = image_bytes(path)
    except UnreadableImage as error:  # no stamp: a chmod mends it, and leaves no trace
        return Decoded(path, [0, 0], b"", None, error.reason, mirrored)
    digest = hashlib.blake2b(data, digest_size=16, person=b"mirrored" if mirrored else b"").digest()
    if has_features(digest):
        return Decoded(path, stamp, digest, None, None, mirrored)
    try:
        picture = open_image(path, data=data)
    except UnreadableImage as error:
        return Decoded(path, stamp, digest, None, error.reason, mirrored)
    pixels = extractor.preprocess(picture)
    return Decoded(path, stamp, digest, pixels[:, ::-1] if mirrored else pixels, None, mirrored)


def _check_sum(stored: Any) -> bytes:
    return zlib.crc32(stored).to_bytes(4, "little")


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _key(path: str, mirrored: bool = False) -> bytes:
    name = str(Path(path).absolute()).encode("utf-8", "surrogateescape")
    return hashlib.blake2b(name, digest_size=16, person=b"mirrored" if mirrored else b"").digest()


def file_stamp(path: str) -> list[int]:
    """Return size and modification time of a file, [0, 0] where it cannot be looked at."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):  # ValueError: not a file name at all
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]
