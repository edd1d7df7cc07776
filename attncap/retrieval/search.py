"""Exact nearest neighbors: of packed bits by popcount, of unit vectors by matrix products and a bound that prunes.

Equal distances are answered in the order of the rows, so that an answer never depends on how it was found.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

HEAD, MIDDLE = 128, 384  # leading directions whose products bound the whole product, and those of a second bound
BOUND_FROM = 10_000  # rows from which a single query is worth the bound
FEW_QUERIES = 8  # from here on one matrix product for all of them costs less
QUERY_BLOCK = 64  # queries a product: 25 MB of products at 100,000 rows
SLACK = 1e-5  # more than the rounding of a float32 product of unit vectors


class Search(Protocol):
    """Rows to search among; distances are float32, lower is nearer."""

    def __len__(self) -> int: ...

    def distances(self, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the distances of one query to some rows."""

    def nearest(self, queries: np.ndarray, k: int, without: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows and distances of the k nearest, both (Q, k); `without`: a row that each query leaves out."""


class HashSearch:
    """Hamming distance to packed hashes: exclusive or, then `bitwise_count`, 64 bits at a time.

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
        return self._bits(_words(query[None])[:, 0], self._words[:, rows]).astype(np.float32)

    def nearest(self, queries: np.ndarray, k: int, without: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
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
    """Cosine distance, 1 - cosine similarity, to vectors.

    Many queries: one blocked matrix product. A single query on many rows: with an orthonormal basis P of the rows'
    leading directions, x.q <= Px.Pq + |x - P'Px| |q - P'Pq| (Cauchy and Schwarz). Rows whose bound is below the k-th
    best product found cannot be among the answers. HEAD directions cost a tenth of the product and leave a few rows
    in a hundred (of pooled features of photographs), for which MIDDLE more directions leave a few in a thousand; those
    are computed in full. The answer is exact, whatever the vectors; where too many rows remain, all are computed.

    Args:
        codes: float16 or float32, shape (N, D), of any length but 0; kept as float32 of length 1, 4 D bytes a row and
            2 KB more for the bounds (in half precision the products would wait for the conversion).

    Raises:
        ValueError: a row that is zero or not finite.

    Example:
        >>> search = CosineSearch(np.array([[1, 0], [0, 1]], np.float16))
        >>> search.nearest(np.array([[0, 2]], np.float32), 1)
        (array([[1]]), array([[0.]], dtype=float32))
    """

    def __init__(self, codes: np.ndarray) -> None:
        self._rows = np.array(codes, np.float32)
        lengths = np.sqrt(np.einsum("nd,nd->n", self._rows, self._rows))
        bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
        if len(bad):
            raise ValueError(f"embedding of row {bad[0]}: finite values, not all zero, expected")
        self._rows /= lengths[:, None]
        self._head: np.ndarray | None = None  # (N, HEAD)
        self._middle = np.empty((0, 0), np.float32)  # (N, MIDDLE)
        self._rests: list[np.ndarray] = []  # twice (N,): lengths outside the head, and outside head and middle
        self.basis = np.empty((0, 0), np.float32)  # (D, HEAD)
        self._middle_basis = np.empty((0, 0), np.float32)  # (D, MIDDLE)

    def __len__(self) -> int:
        return len(self._rows)

    def distances(self, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return self._distance(self._rows[rows] @ _unit(query[None])[0])

    def nearest(self, queries: np.ndarray, k: int, without: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        k = min(k, len(self) - (without is not None))
        queries = _unit(queries)
        if without is None and len(queries) < FEW_QUERIES and len(self) >= BOUND_FROM and queries.shape[1] > 2 * HEAD:
            answers = [self._bounded(query, k) for query in queries]
        else:
            answers = []
            for start in range(0, len(queries), QUERY_BLOCK):
                part = queries[start : start + QUERY_BLOCK]
                products = part @ self._rows.T  # (Q, N)
                if without is not None:
                    products[np.arange(len(part)), without[start : start + QUERY_BLOCK]] = -np.inf
                answers += [_highest(row, k) for row in products]
        rows = np.array([rows for rows, _ in answers], np.int64).reshape(len(queries), k)
        return rows, self._distance(np.array([best for _, best in answers], np.float32).reshape(len(queries), k))

    def projected(self) -> np.ndarray:
        """Return the rows on the leading directions, float32, shape (N, min(HEAD, D)); computed at the first call."""
        if self._head is None:
            sample = self._rows[:: max(1, len(self) // 4096)]
            _, vectors = np.linalg.eigh(sample.T @ sample)  # ascending
            leading = np.ascontiguousarray(vectors[:, : -HEAD - MIDDLE - 1 : -1])
            self.basis, self._middle_basis = leading[:, :HEAD].copy(), leading[:, HEAD:].copy()
            self._head, self._middle = self._rows @ self.basis, self._rows @ self._middle_basis
            inside = np.einsum("nh,nh->n", self._head, self._head)
            self._rests = [np.sqrt(np.maximum(0, 1 - inside))]
            inside += np.einsum("nm,nm->n", self._middle, self._middle)
            self._rests.append(np.sqrt(np.maximum(0, 1 - inside)))
        return self._head

    def _bounded(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        head, own, middle = self.projected(), query @ self.basis, query @ self._middle_basis
        outside = 1.0 - float(own @ own)
        first, second = (np.float32(max(0.0, left) ** 0.5 + SLACK) for left in (outside, outside - middle @ middle))
        products = head @ own
        bound = products + self._rests[0] * first
        likely = min(len(self), max(4 * k, 64))
        near = np.argpartition(bound, len(self) - likely)[len(self) - likely :]
        reached = np.sort(self._rows[near] @ query)[-k] - SLACK
        rows = np.flatnonzero(bound >= reached)
        if len(rows) < len(self) * 3 // 4:
            bound = products[rows] + self._middle[rows] @ middle + self._rests[1][rows] * second
            rows = rows[bound >= reached]
        if len(rows) > len(self) // 4:
            return _highest(self._rows @ query, k)
        at, best = _highest(self._rows[rows] @ query, k)
        return rows[at], best

    def _distance(self, products: np.ndarray) -> np.ndarray:
        return np.maximum(0, 1 - products)


def _words(codes: np.ndarray) -> np.ndarray:
    width = -codes.shape[1] % 8
    padded = np.pad(np.asarray(codes, np.uint8), ((0, 0), (0, width)))
    return np.ascontiguousarray(padded.view(np.uint64).T)  # (W, N)


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise ValueError("query embedding: finite values, not all zero, expected")
    return vectors / lengths


def _highest(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    reached = np.partition(values, len(values) - k)[len(values) - k]
    rows = np.flatnonzero(values >= reached)
    rows = rows[np.lexsort((rows, -values[rows]))[:k]]
    return rows, values[rows]
