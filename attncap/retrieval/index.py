"""`ImageIndex`: labeled images in a database, and nearest-neighbor search among them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from attncap._files import check_list
from attncap.images import AnyImage, UnreadableImage
from attncap.paths import image_ids as ids_of
from attncap.retrieval.adding import add_files, check_labels, code_bytes, stored_codes
from attncap.retrieval.database import Entry, ImageDatabase, in_words
from attncap.retrieval.difference_hash import DifferenceHash, ImageEncoder
from attncap.retrieval.hnsw import NeighborGraph
from attncap.retrieval.search import CosineSearch, HashSearch

__all__ = ["DifferenceHash", "Neighbor", "ImageIndex"]


@dataclass(frozen=True)
class Neighbor:
    """An image of the index, near a queried one.

    Args:
        image_id: its name.
        labels: its labels or captions, as given.
        distance: `hash_distance` in bits, or 1 - `cosine_similarity`; 0 for equal codes, lower is nearer.
    """

    image_id: str
    labels: tuple[str, ...]
    distance: float


class ImageIndex:
    """Labeled images in a database file, with nearest-neighbor search by a difference hash or an embedding.

    Every change is in the file when the call returns. Several processes may use one file and see each other's entries.
    Codes are read into memory at the first query.

    Args:
        file: the database, created where there is none; None keeps it in memory (`save` writes it).
        encoder: `DifferenceHash(64)`, `attncap.retrieval.embeddings.PooledEmbedding(...)`, or any `ImageEncoder`.

    Raises:
        ValueError: the file is not an image index, is damaged, or holds codes of another encoder.
        OSError: it cannot be written, or another process keeps it locked.

    Example:
        >>> index = ImageIndex("people.db", DifferenceHash(64))
        >>> rejects = index.add(["a.jpg", "b.jpg"], [["Big nose"], ["Curly hair"]])
        >>> index.threshold = 10
        >>> index.label("copy_of_a.jpg")
        ('Big nose',)
    """

    def __init__(self, file: str | os.PathLike[str] | None, encoder: ImageEncoder) -> None:
        self._use(ImageDatabase(file, encoder.describe(), create=True), encoder)

    @classmethod
    def load(cls, file: str | os.PathLike[str], encoder: ImageEncoder | None = None) -> ImageIndex:
        """Open an existing index; its encoder may be left out if it is a difference hash.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or holds codes of another encoder or of an embedding (give that encoder).
        """
        database = ImageDatabase(file, None if encoder is None else encoder.describe())
        if encoder is None:
            if database.encoder.get("encoder") != "dhash":
                database.close()
                raise ValueError(
                    f"{file}: holds embeddings of {in_words(database.encoder)}: pass that encoder (PooledEmbedding)"
                )
            encoder = DifferenceHash(database.encoder["bits"])
        index = cls.__new__(cls)
        index._use(database, encoder)
        return index

    def _use(self, database: ImageDatabase, encoder: ImageEncoder) -> None:
        self._database, self.encoder = database, encoder
        self._is_hash = encoder.measure == "hash_distance"
        self._bytes = code_bytes(encoder)
        self._seen: tuple[int, int] | None = None
        self._ids, self._codes = np.empty(0, np.int64), np.empty((0, self._bytes), np.uint8)
        self._search: HashSearch | CosineSearch | None = None
        self._graph: NeighborGraph | None = None

    def __len__(self) -> int:
        return len(self._database)

    def __enter__(self) -> ImageIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write a copy of the whole index to another file; the index's own file is always up to date."""
        self._database.copy_to(file)

    @property
    def threshold(self) -> float | None:
        """Largest distance at which a neighbor's label is given; stored in the file. None: no limit."""
        return self._database.about("threshold")

    @threshold.setter
    def threshold(self, value: float | None) -> None:
        if value is not None and not np.isfinite(value):
            raise ValueError(f"threshold {value}: a number expected; -1 never gives a label, None always gives one")
        self._database.set_about("threshold", None if value is None else float(value))

    # -- entries ---------------------------------------------------------------------------------------------------

    def add(
        self,
        images: Sequence[str | os.PathLike[str]],
        labels: Sequence[Sequence[str]],
        image_ids: Sequence[str] | None = None,
        progress: bool = True,
        source: str | None = None,
    ) -> pd.DataFrame:
        """Encode image files and store them with their labels, COMMIT_EVERY at a time.

        A file that is in the index under its image_id, with the same bytes, is not encoded again; with other bytes or
        other labels, its entry is replaced. An interrupted call can be repeated and continues where it stopped.

        Args:
            images: files.
            labels: for each, its labels or captions: one or several, or none.
            image_ids: names, each once; default those of `attncap.paths.image_ids`.
            progress: show a bar with images/s.
            source: name of the list that these images are from. The index remembers the list: images that an earlier
                call with this source added, and that are no longer on it, are removed. None removes nothing.

        Returns:
            rejects: DataFrame (image_id, path, reason) of files that cannot be read. They are not in the index; an
                entry of the same image_id from before the file broke is removed.

        Raises:
            ValueError: lists of different lengths, an image_id twice, or labels that are one string.
        """
        check_list(images, "images")
        names = ids_of(images) if image_ids is None else list(image_ids)
        check_labels(names, labels, len(images))
        rejected = add_files(self._database, self.encoder, images, names, labels, progress)
        self._database.remove([name for name, _, _ in rejected])
        if source is not None:
            self._sync(source, names)
        return pd.DataFrame(rejected, columns=["image_id", "path", "reason"], dtype=object)

    def remove(self, image_ids: Sequence[str]) -> int:
        """Remove the entries of these names; return how many there were."""
        return self._database.remove(image_ids)

    def _sync(self, source: str, names: Sequence[str]) -> None:
        """Remove entries that an earlier call added from this source and that no source lists any more."""
        sources = self._database.about("sources") or {}
        gone = set(sources.get(source, ())).difference(names)
        sources[source] = list(names)
        self._database.remove(sorted(gone.difference(*sources.values())))
        self._database.set_about("sources", sources)

    @property
    def without_content(self) -> list[str]:
        """Names of the images whose hash has no bit set: they are plain, and match every other plain image."""
        if not self._is_hash:
            return []
        self._refresh()
        plain = np.flatnonzero(~self._codes.any(axis=1))
        return [image_id for image_id, _ in self.entries(plain)] if len(plain) else []

    def add_codes(self, image_ids: Sequence[str], labels: Sequence[Sequence[str]], codes: np.ndarray) -> None:
        """Store codes that were computed before, in one transaction.

        Args:
            image_ids: names, each once; entries of these names are replaced.
            labels: for each, its labels.
            codes: uint8, shape (N, ceil(bits / 8)), or float, shape (N, D): scaled to unit length and stored in
                half precision.
        """
        check_labels(image_ids, labels, len(codes))
        stored = stored_codes(self.encoder, codes)
        self._database.add([Entry(*row) for row in zip(image_ids, map(tuple, labels), stored, strict=True)])

    @property
    def codes(self) -> np.ndarray:
        """All codes by row: uint8 (N, bytes), or float16 unit vectors (N, D)."""
        self._refresh()
        return self._codes if self._is_hash else self._codes.view("<f2")

    def entries(self, rows: Sequence[int] | np.ndarray | None = None) -> list[tuple[str, tuple[str, ...]]]:
        """Return (image_id, labels) of some rows, or of all."""
        self._refresh()
        if rows is None:
            return [(image_id, labels) for image_id, (_, labels) in self._database.known().items()]
        return self._database.entries(self._ids[np.asarray(rows, np.int64)].tolist())

    # -- queries ---------------------------------------------------------------------------------------------------

    def query(self, image: AnyImage, k: int = 1, approximate: bool = False) -> list[Neighbor]:
        """Return the k nearest images, nearest first, at any distance.

        Args:
            image: a file, or a PIL image.
            k: how many; if there are fewer, all.
            approximate: search the graph (`build_graph`).

        Raises:
            UnreadableImage: the file cannot be decoded.
            ValueError: the index is empty, or k below 1.
        """
        rows, distances = self.nearest(self._encoded(image)[None], k, approximate)
        found = zip(self.entries(rows[0]), distances[0].tolist(), strict=True)
        return [Neighbor(image_id, labels, distance) for (image_id, labels), distance in found]

    def label(self, image: AnyImage) -> tuple[str, ...] | None:
        """Return the labels of the nearest image, or None for "no matching label".

        None where the nearest image is farther away than the threshold, and for an image whose hash has no bit set: a
        plain image matches every other plain image.
        """
        code = self._encoded(image)
        if not self.has_content(code):
            return None
        rows, distances = self.nearest(code[None])
        limit = self.threshold
        return self.entries(rows[0])[0][1] if limit is None or distances[0, 0] <= limit else None

    def has_content(self, code: np.ndarray) -> bool:
        """Return whether a code can tell images apart: False for a hash without a bit set (a plain image)."""
        return not self._is_hash or bool(code.any())

    def _encoded(self, image: AnyImage) -> np.ndarray:
        code = self.encoder.encode([image])[0]
        if isinstance(code, UnreadableImage):
            raise code
        return code

    def nearest(self, codes: np.ndarray, k: int = 1, approximate: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and distances of the k nearest entries of each code, both (Q, k)."""
        search = self._ready(k)
        return (self._load_graph() if approximate else search).nearest(codes, k)

    def nearest_others(self, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Return for each entry rows and distances of the k nearest other entries (leave-one-out), both (N, k)."""
        search = self._ready(k, 2)
        return search.nearest(self.codes, k, without=np.arange(len(search)))

    def build_graph(self) -> Path | None:
        """Build the graph for approximate search and save it beside the database; build it again after adding entries.

        Returns:
            The file, `FILE.graph`; None for an index in memory.
        """
        self._graph = NeighborGraph.build(self._ready(1), self.codes)
        if self._graph_file is not None:
            self._graph.save(self._graph_file, self._digest())
        return self._graph_file

    @property
    def _graph_file(self) -> Path | None:
        file = self._database.file
        return None if file is None else file.with_name(f"{file.name}.graph")

    def _load_graph(self) -> NeighborGraph:
        if self._graph is None:
            if self._graph_file is None:
                raise ValueError("no graph for approximate search of these entries; build it first (build_graph)")
            assert self._search is not None
            self._graph = NeighborGraph.load(self._graph_file, self._search, self._digest())
        return self._graph

    def _digest(self) -> str:
        return hashlib.blake2b(self._codes.data, digest_size=16).hexdigest()

    def _ready(self, k: int, least: int = 1) -> HashSearch | CosineSearch:
        if k < 1:
            raise ValueError(f"k is 1 or more, got {k}")
        self._refresh()
        if len(self._ids) < least:
            where = "the index" if self._database.file is None else str(self._database.file)
            raise ValueError(f"{where}: {len(self._ids)} images in it, at least {least} needed; add images first")
        if self._search is None:
            self._search = HashSearch(self._codes) if self._is_hash else CosineSearch(self.codes)
        return self._search

    def _refresh(self) -> None:
        """Read what this process or another committed since; everything if entries were replaced or removed."""
        state = self._database.state
        if state == self._seen:
            return
        after = int(self._ids[-1]) if len(self._ids) else 0
        ids, codes = self._database.codes(after, self._bytes)
        if len(self._ids) and len(self._ids) + len(ids) != len(self._database):
            ids, codes = self._database.codes(0, self._bytes)
        elif len(self._ids):
            ids, codes = np.concatenate([self._ids, ids]), np.concatenate([self._codes, codes])
        if not np.array_equal(ids, self._ids):
            self._ids, self._codes, self._search, self._graph = ids, codes, None, None
        self._seen = state
