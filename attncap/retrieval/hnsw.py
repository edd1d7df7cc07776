"""`NeighborGraph`: approximate nearest neighbors by faiss's HNSW graphs, stored in a file, re-ranked exactly.

faiss is maintained, installs as a wheel, and has graphs over bits as well as over vectors. It is an extra
(`attncap[index]`): below 100,000 images exact search is fast enough without it.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from attncap._files import replacing
from attncap.retrieval.search import CosineSearch, HashSearch

LINKS = 32  # neighbors a node of the graph keeps
BUILD_EFFORT, QUERY_EFFORT = 120, 128  # candidates held while adding, and while searching
DIRECTIONS = 128  # leading directions of the vectors that the graph is built on
CANDIDATES = 64  # re-ranked exactly, or 4 k where that is more
MAGIC = b"attncap neighbor graph 1\n"


class NeighborGraph:
    """A graph of near neighbors over the rows of a search; of vectors it uses the leading DIRECTIONS.

    Args:
        search: the rows; it computes the exact distances of the answers.
        graph: faiss's index.
        basis: float32 array, shape (D, DIRECTIONS), that vectors are projected on; empty for hashes.
        effort: candidates held while searching; more give a higher recall and take longer.

    Raises:
        RuntimeError: faiss is not installed; the message says how to install it.

    Example:
        >>> graph = NeighborGraph.build(CosineSearch(vectors), vectors)
        >>> rows, distances = graph.nearest(queries, k=10)

    Reference: Malkov and Yashunin 2018, "Efficient and robust approximate nearest neighbor search using HNSW graphs".
    """

    def __init__(self, search: HashSearch | CosineSearch, graph: Any, basis: np.ndarray, effort: int = QUERY_EFFORT):
        self._search, self._graph, self._basis = search, graph, basis
        self.effort = effort

    def __len__(self) -> int:
        return int(self._graph.ntotal)

    @classmethod
    def build(cls, search: HashSearch | CosineSearch, codes: np.ndarray) -> NeighborGraph:
        """Build the graph of all rows; `codes` (N, bytes) uint8 or (N, D) as the search has them."""
        faiss = _faiss()
        if isinstance(search, HashSearch):
            graph = faiss.IndexBinaryHNSW(8 * codes.shape[1], LINKS)
            rows, basis = codes, np.empty((0, 0), np.float32)
        else:
            basis = _leading_directions(search.rows)
            rows = search.rows @ basis  # (N, DIRECTIONS)
            graph = faiss.IndexHNSWFlat(rows.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = BUILD_EFFORT
        graph.add(np.ascontiguousarray(rows))
        return cls(search, graph, basis)

    def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows and distances of about the k nearest, (Q, k), k at most the number of rows in the graph."""
        k = min(k, len(self))
        wanted = min(len(self), max(CANDIDATES, 4 * k))
        self._graph.hnsw.efSearch = max(self.effort, wanted)
        asked = queries if not self._basis.size else np.asarray(queries, np.float32) @ self._basis
        _, candidates = self._graph.search(np.ascontiguousarray(asked), wanted)
        rows, found = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        for n, query in enumerate(queries):
            near = np.sort(candidates[n][candidates[n] >= 0])
            distances = self._search.distances(query, near)
            best = np.argsort(distances, kind="stable")[:k]
            if len(best) < k:  # a graph in several parts does not reach all rows
                rows[n], found[n] = (part[0] for part in self._search.nearest(query[None], k))
            else:
                rows[n], found[n] = near[best], distances[best]
        return rows, found

    def save(self, file: str | os.PathLike[str], of: str) -> None:
        """Write the graph to a file that ends with a check sum; `of` is a digest of the rows that it is built on."""
        body = _faiss().serialize_index_binary if not self._basis.size else _faiss().serialize_index
        head = json.dumps({"of": of, "rows": len(self), "basis": self._basis.shape}).encode() + b"\n"
        digest = hashlib.blake2b()
        with replacing(file) as temporary, open(temporary, "wb") as written:
            for part in (MAGIC, head, self._basis.tobytes(), body(self._graph).data):
                digest.update(part)
                written.write(part)
            written.write(digest.digest())

    @classmethod
    def load(cls, file: str | os.PathLike[str], search: HashSearch | CosineSearch, of: str) -> NeighborGraph:
        """Read a graph that was built on the rows whose digest is `of`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or of other rows. faiss does not check what it reads, so we do.
        """
        path = Path(file)
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no graph for approximate search; build it first (attncap index build --graph)"
            )
        content = path.read_bytes()
        body, digest = content[:-64], content[-64:]
        if not content.startswith(MAGIC) or hashlib.blake2b(body).digest() != digest:
            raise ValueError(f"{path}: not a neighbor graph, or damaged; build it again (attncap index build --graph)")
        start = body.index(b"\n", len(MAGIC)) + 1
        head = json.loads(body[len(MAGIC) : start])
        if head["of"] != of:
            raise ValueError(
                f"{path}: the graph was built on other entries than the index holds now; build it again "
                "(attncap index build --graph)"
            )
        end = start + 4 * int(np.prod(head["basis"]))
        basis = np.frombuffer(body[start:end], np.float32).reshape(head["basis"])
        read = _faiss().deserialize_index_binary if not basis.size else _faiss().deserialize_index
        return cls(search, read(np.frombuffer(body[end:], np.uint8)), basis)


def _leading_directions(rows: np.ndarray) -> np.ndarray:
    """Return an orthonormal basis of the directions in which rows are longest: float32, (D, min(DIRECTIONS, D))."""
    sample = rows[:: max(1, len(rows) // 4096)]
    _, vectors = np.linalg.eigh(sample.T @ sample)  # ascending
    return np.ascontiguousarray(vectors[:, : -DIRECTIONS - 1 : -1])


def _faiss() -> Any:
    try:
        import faiss
    except ModuleNotFoundError:
        raise RuntimeError(
            'approximate search needs faiss: pip install "attncap[index]" (or faiss-cpu); exact search does not'
        ) from None
    return faiss
