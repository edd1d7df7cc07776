"""n-grams of captions as sparse count matrices, which BLEU and CIDEr share; positions of words, for ROUGE-L."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np
from scipy import sparse

Token = Hashable  # a word, or a token id
MAX_ORDER = 4  # n-grams of 1 to 4 tokens


class NgramVocabulary:
    """The n-grams of a set of captions, n = 1..4, as the columns of sparse count matrices.

    Args:
        captions: R captions, each a sequence of tokens (words or token ids); their n-grams are the vocabulary.

    Attributes:
        counts: for n = 1..4 a sparse float64 matrix, shape (R, V_n): how often each caption has each n-gram.
        lengths: int64 array, shape (R,): tokens of each caption.

    Example:
        >>> NgramVocabulary([["a", "dog", "a"]]).counts[0].toarray()
        array([[2., 1.]])
    """

    def __init__(self, captions: Sequence[Sequence[Token]]) -> None:
        self._ids: dict[Token, int] = {}
        self._tables: list[np.ndarray] = []
        tokens, owner, self.lengths = _flattened(captions, self._ids)
        self.counts = [
            _count_matrix(owners, ngrams, len(captions), len(self._tables[order]))
            for order, (ngrams, owners) in enumerate(self._ngrams(tokens, owner, grow=True))
        ]

    def count(self, captions: Sequence[Sequence[Token]]) -> tuple[list[sparse.csr_matrix], np.ndarray]:
        """Count the n-grams of other captions.

        Returns:
            counts: as the attribute, (C, V_n + unseen): n-grams outside the vocabulary get columns of their own above
                it, equal n-grams the same column within this call.
            lengths: int64 array, shape (C,).
        """
        tokens, owner, lengths = _flattened(captions, dict(self._ids))
        counts = []
        for order, (ngrams, owners) in enumerate(self._ngrams(tokens, owner, grow=False)):
            width = max(len(self._tables[order]), int(ngrams.max(initial=-1)) + 1)
            counts.append(_count_matrix(owners, ngrams, len(captions), width))
        return counts, lengths

    def _ngrams(self, tokens: np.ndarray, owner: np.ndarray, grow: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (n-gram ids, owning caption) for n = 1..4; an n-gram is (id of its first n-1 tokens, last one).

        Ids below the table's size are n-grams of the vocabulary; others are numbered above it.
        """
        prefix, at = np.zeros(len(tokens), np.int64), np.arange(len(tokens))
        for order in range(MAX_ORDER):
            if order:  # extend only where the next token belongs to the same caption
                inside = at + 1 < len(tokens)
                inside[inside] = owner[at[inside] + 1] == owner[at[inside]]
                prefix, at = prefix[inside], at[inside] + 1
            keys = (prefix << 32) | tokens[at]
            if grow:
                table, prefix = np.unique(keys, return_inverse=True)
                self._tables.append(table)
            else:
                prefix = _look_up(self._tables[order], keys)
                unseen = prefix < 0
                prefix[unseen] = len(self._tables[order]) + np.unique(keys[unseen], return_inverse=True)[1]
            yield prefix, owner[at]


def _flattened(captions: Sequence[Sequence[Token]], ids: dict[Token, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the token ids of all captions end to end, the caption of each, and the captions' lengths."""
    lengths = np.array([len(caption) for caption in captions], np.int64)
    flat = [ids.setdefault(token, len(ids)) for caption in captions for token in caption]
    return np.array(flat, np.int64), np.repeat(np.arange(len(captions)), lengths), lengths


def _count_matrix(owner: np.ndarray, ngrams: np.ndarray, captions: int, width: int) -> sparse.csr_matrix:
    matrix = sparse.csr_matrix((np.ones(len(owner)), (owner, ngrams)), shape=(captions, width))
    matrix.sum_duplicates()
    return matrix


class LargestCounts:
    """The largest count of each n-gram in one caption of a group, for any choice of captions.

    Args:
        counts: for n = 1..4 a sparse matrix, shape (R, V_n), of `NgramVocabulary`.
        group_of: int array, shape (R,): the group of each caption, such as its image.
        groups: number of groups.
    """

    def __init__(self, counts: Sequence[sparse.csr_matrix], group_of: np.ndarray, groups: int) -> None:
        self._orders = []
        for matrix in counts:
            caption = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
            keys = group_of[caption] * matrix.shape[1] + matrix.indices
            order = np.argsort(keys, kind="stable")
            distinct, starts = np.unique(keys[order], return_index=True)
            width = max(matrix.shape[1], 1)
            ends = np.searchsorted(distinct // width, np.arange(groups + 1))
            shape = (groups, matrix.shape[1])
            self._orders.append((matrix.data[order], caption[order], starts, distinct % width, ends, shape))

    def of(self, kept: np.ndarray) -> list[sparse.csr_matrix]:
        """Return for n = 1..4 the largest counts in the captions that are kept: sparse, shape (groups, V_n).

        Args:
            kept: bool array, shape (R,).
        """
        found = []
        for data, caption, starts, columns, ends, shape in self._orders:
            most = np.maximum.reduceat(np.where(kept[caption], data, 0.0), starts) if len(starts) else data
            found.append(sparse.csr_matrix((most, columns, ends), shape=shape))
        return found


def _look_up(table: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Position of each key in a sorted table, -1 where it is not there."""
    if not len(table):
        return np.full(len(keys), -1)
    position = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return np.where(table[position] == keys, position, -1)


def word_positions(sentence: str) -> tuple[dict[str, int], int]:
    """Return for each word the positions where it stands, as bits of an integer; and the number of words."""
    words = sentence.split(" ")
    masks: dict[str, int] = {}
    for position, word in enumerate(words):
        masks[word] = masks.get(word, 0) | 1 << position
    return masks, len(words)
