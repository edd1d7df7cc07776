"""Exact nearest neighbors: of packed bits by popcount, of unit vectors by blocked matrix products.

Rows at equal distances come in the order of the rows.
"""

from __future__ import annotations

import numpy as np

QUERY_BLOCK = 64  # queries per product: 25 MB of products at 100,000 rows


class HashSearch:
    """Hamming distance to packed hashes, by `np.bitwise_count` on 64 bits at a time.

    Args:
        codes: uint8, shape (N, bytes), as of `DifferenceHash`.

    Example:
        >>> search = HashSearch(np.array([[0b11110000], [0b00000001]], np.uint8))
        >>> search.nearest(np.array([[0b00000011]], np.uint8), 2)
        (array([[1, 0]]), array([[1., 6.]], dtype=float32))
    """

    def __init__(self, codes: np.ndarray) -> None:
        self._words = _words(codes)  # (W, N): a word of all rows lies together
        self._most = 64 * len(self._words)

    def __len__(self) -> int:
        return self._words.shape[1]

    def distances(self, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the distances of one query to some rows."""
        return self._bits(_words(query[None])[:, 0], self._words[:, rows]).astype(np.float32)

    def nearest(self, queries: np.ndarray, k: int, without: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows and distances (float32, lower is nearer) of the k nearest, both (Q, k).

        Args:
            queries: codes, one per row.
            k: how many; if there are fewer, all.
            without: int array, shape (Q,): for each query one row to leave out; None for none.
        """
        k = min(k, len(self) - (without is not None))
        rows, found = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        for n, query in enumerate(_words(queries).T):
            bits = self._bits(query, self._words)
            if without is not None:
                bits[without[n]] = self._most + 1
            if k == 1:
                rows[n] = bits.argmin()  # the first of equals
            else:
                farthest = np.searchsorted(np.bincount(bits).cumsum(), k)  # bits of the k-th
                near = np.flatnonzero(bits <= farthest)
                rows[n] = near[np.argsort(bits[near], kind="stable")[:k]]
            found[n] = bits[rows[n]]
        return rows, found

    def _bits(self, query: np.ndarray, words: np.ndarray) -> np.ndarray:
        bits = np.bitwise_count(words[0] ^ query[0])
        if self._most + 1 > np.iinfo(bits.dtype).max:
            bits = bits.astype(np.uint16)
        for word, of_query in zip(words[1:], query[1:], strict=True):
            bits += np.bitwise_count(word ^ of_query)
        return bits


class CosineSearch:
    """Cosine distance, 1 - cosine similarity, to vectors, by matrix products of QUERY_BLOCK queries at a time.

    Args:
        codes: float16 or float32, shape (N, D), of any length but 0; kept as float32 of length 1, 4 D bytes per row (in
            half precision the products would wait for the conversion).

    Raises:
        ValueError: a row that is zero or not finite.

    Example:
        >>> search = CosineSearch(np.array([[1, 0], [0, 1]], np.float16))
        >>> search.nearest(np.array([[0, 2]], np.float32), 1)
        (array([[1]]), array([[0.]], dtype=float32))
    """

    def __init__(self, codes: np.ndarray) -> None:
        self.rows = np.array(codes, np.float32)
        lengths = np.sqrt(np.einsum("nd,nd->n", self.rows, self.rows))
        bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
        if len(bad):
            raise ValueError(f"embedding of row {bad[0]}: finite values, not all zero, expected")
        self.rows /= lengths[:, None]

    def __len__(self) -> int:
        return len(self.rows)

    def distances(self, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the distances of one query to some rows."""
        return _distance(self.rows[rows] @ unit_vectors(query[None], "query embedding")[0])

    def nearest(self, queries: np.ndarray, k: int, without: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows and distances of the k nearest, see `HashSearch.nearest`."""
        k = min(k, len(self) - (without is not None))
        queries = unit_vectors(queries, "query embedding")
        rows, products = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
        for start in range(0, len(queries), QUERY_BLOCK):
            part = slice(start, start + QUERY_BLOCK)
            block = queries[part] @ self.rows.T  # (Q, N)
            if without is not None:
                block[np.arange(len(block)), without[part]] = -np.inf
            for n, row in enumerate(block, start=start):
                rows[n], products[n] = _highest(row, k)
        return rows, _distance(products)


def _distance(products: np.ndarray) -> np.ndarray:
    return np.maximum(0, 1 - products)


def _words(codes: np.ndarray) -> np.ndarray:
    width = -codes.shape[1] % 8
    padded = np.pad(np.asarray(codes, np.uint8), ((0, 0), (0, width)))
    return np.ascontiguousarray(padded.view(np.uint64).T)  # (W, N)


def unit_vectors(vectors: np.ndarray, what: str) -> np.ndarray:
    """Scale vectors (N, D) to unit length: float32.

    Raises:
        ValueError: a vector that is zero or not finite; the message says `what` it is, and which.
    """
    vectors = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(bad):
        raise ValueError(f"{what} {bad[0]}: expected finite values, not all zero")
    return vectors / lengths


def _highest(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    reached = np.partition(values, len(values) - k)[len(values) - k]
    rows = np.flatnonzero(values >= reached)
    rows = rows[np.lexsort((rows, -values[rows]))[:k]]
    return rows, values[rows]
