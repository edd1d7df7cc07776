"""CIDEr-D: how much a caption shares with reference captions, rare n-grams counting more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from attncap.metrics.ngrams import MAX_ORDER, NgramVocabulary, Token

CIDER_SIGMA = 6.0  # words; the width of CIDEr-D's length penalty, as in the COCO tools


@dataclass(frozen=True, eq=False)
class CaptionVectors:
    """The tf-idf vectors of C captions.

    Args:
        counts: for n = 1..4 a sparse matrix, shape (C, V_n): how often each caption has each n-gram.
        weights: for n = 1..4 a sparse matrix, shape (C, V_n): the counts times the idf of the n-grams.
        norms: float64 array, shape (4, C): the length of each vector.
        lengths: int64 array, shape (C,): tokens of each caption.
    """

    counts: list[sparse.csr_matrix]
    weights: list[sparse.csr_matrix]
    norms: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(self, rows: np.ndarray) -> CaptionVectors:
        """Return the vectors of some captions, in the given order."""
        counts, weights = ([matrix[rows] for matrix in matrices] for matrices in (self.counts, self.weights))
        return CaptionVectors(counts, weights, self.norms[:, rows], self.lengths[rows])


class CiderD:
    """CIDEr-D between captions, with document frequencies from the captions of a data set.

        CIDEr-D(c, r) = 10 / 4 sum_n exp(-(|c| - |r|)^2 / (2 sigma^2)) <min(g_n(c), g_n(r)), g_n(r)> / |g_n(c)| |g_n(r)|

    g_n is the vector of n-gram counts times log(images / images whose captions have the n-gram); n = 1..4, sigma = 6.
    A caption's score is the mean over its references, as in the COCO tools, which call it "CIDEr".

    Tokens are words or token ids. For training and decoding, count `<end>` as a token of both sides: otherwise a
    caption that stops in mid-sentence ("a man in a") scores too well.

    Args:
        documents: for each image its captions, each a sequence of tokens.

    Raises:
        ValueError: no images.

    Example:
        >>> cider = CiderD([[["a", "red", "hat"]], [["a", "cat"]]])
        >>> cider.pairwise([["a", "red", "hat"]], [["a", "red", "hat"], ["a", "cat"]]).shape
        (1, 2)

    Reference: Vedantam et al. 2015, "CIDEr: Consensus-based image description evaluation", section 6.
    """

    def __init__(self, documents: Iterable[Sequence[Sequence[Token]]]) -> None:
        of_images = list(documents)
        if not of_images:
            raise ValueError("CIDEr-D needs reference captions, got none")
        self.image_of = np.repeat(np.arange(len(of_images)), [len(captions) for captions in of_images])  # (R,)
        self.vocabulary = NgramVocabulary([caption for captions in of_images for caption in captions])
        self._log_images = np.log(float(len(of_images)))
        self._idf = []  # for n = 1..4 an array, shape (V_n,)
        for counts in self.vocabulary.counts:
            ngrams_of_images = np.unique(self.image_of[_owners(counts)] * counts.shape[1] + counts.indices)
            frequency = np.bincount(ngrams_of_images % max(counts.shape[1], 1), minlength=counts.shape[1])
            self._idf.append(self._log_images - np.log(frequency))
        self.references = self.weighted(self.vocabulary.counts, self.vocabulary.lengths)

    def vectors(self, captions: Sequence[Sequence[Token]]) -> CaptionVectors:
        """Return the tf-idf vectors of captions; an n-gram that no document has counts as in one document."""
        return self.weighted(*self.vocabulary.count(captions))

    def pairwise(self, captions: Sequence[Sequence[Token]], others: Sequence[Sequence[Token]]) -> np.ndarray:
        """Score every caption against every one of some other captions.

        Args:
            captions: C captions as tokens.
            others: R captions as tokens, in place of references.

        Returns:
            scores: float64 array, shape (C, R), in [0, 10].
        """
        vectors = self.vectors([*captions, *others])  # in one call: n-grams that no document has match each other
        at = np.arange(len(vectors))
        return self._products(vectors.rows(at[: len(captions)]), vectors.rows(at[len(captions) :]))

    def against_references(self, captions: Sequence[Sequence[Token]], rows: np.ndarray) -> np.ndarray:
        """Score every caption against some of the documents' captions, given by row: (C, len(rows))."""
        return self._products(self.vectors(captions), self.references.rows(rows))

    def between_references(self, rows: np.ndarray) -> np.ndarray:
        """Score some of the documents' captions, given by row, against each other: (len(rows), len(rows))."""
        vectors = self.references.rows(rows)
        return self._products(vectors, vectors)

    def agreement(self, captions: Sequence[Sequence[Token]], others: Sequence[Sequence[Token]]) -> np.ndarray:
        """Score captions against other captions of the same image in place of references.

        Args:
            captions: C captions as tokens.
            others: at least one caption as tokens.

        Returns:
            agreement: float64 array, shape (C,), in [0, 10]: the mean over `others`.
        """
        return self.pairwise(captions, others).mean(axis=1)

    def one_per_image(self, captions: CaptionVectors, use: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Score one caption of each image against the image's own references.

        Args:
            captions: vectors of N captions, one per image of the documents.
            use: bool array, shape (R,): the references to score against, at least one per image; None for all.

        Returns:
            cider_d: float64 array, shape (N,), in [0, 10].
            cider_plain: the same without clipping and length penalty (CIDEr as first defined).
        """
        used = np.arange(len(self.image_of)) if use is None else np.flatnonzero(use)
        image, references = self.image_of[used], self.references.rows(used)
        products = np.zeros((2, MAX_ORDER, len(used)))
        for order in range(MAX_ORDER):
            own, theirs = captions.weights[order][image], references.weights[order]
            # Captions may have n-grams that no reference has, in columns beyond those of the references.
            theirs = sparse.csr_matrix((theirs.data, theirs.indices, theirs.indptr), shape=own.shape)
            norms = captions.norms[order, image] * references.norms[order]
            for at, shared in enumerate((own.minimum(theirs).multiply(theirs), own.multiply(theirs))):
                np.divide(_row_sums(shared.tocsr()), norms, out=products[at, order], where=norms != 0)
        products[0] *= _length_penalty(captions.lengths[image], references.lengths)
        n_references = np.bincount(image, minlength=len(captions))
        cider_d, cider_plain = (
            10.0 * np.bincount(image, product.mean(0), len(captions)) / n_references for product in products
        )
        return cider_d, cider_plain

    def _products(self, vectors: CaptionVectors, others: CaptionVectors) -> np.ndarray:
        total = np.zeros((len(vectors), len(others)))
        for order in range(MAX_ORDER):
            shared = _clipped_products(
                vectors.counts[order], vectors.weights[order], others.counts[order], others.weights[order]
            )
            norms = np.outer(vectors.norms[order], others.norms[order])
            total += np.divide(shared, norms, out=np.zeros_like(total), where=norms > 0)
        return 10.0 * total * _length_penalty(vectors.lengths[:, None], others.lengths[None]) / MAX_ORDER

    def weighted(self, counts: list[sparse.csr_matrix], lengths: np.ndarray) -> CaptionVectors:
        """Return the tf-idf vectors of captions whose n-grams are counted (`NgramVocabulary.count`)."""
        weights, norms = [], np.zeros((MAX_ORDER, len(lengths)))
        for order, matrix in enumerate(counts):
            weighted = matrix.copy()
            known = matrix.indices < len(self._idf[order])
            weighted.data[known] *= self._idf[order][matrix.indices[known]]
            weighted.data[~known] *= self._log_images
            weights.append(weighted)
            norms[order] = np.sqrt(np.bincount(_owners(weighted), weighted.data**2, len(lengths)))
        return CaptionVectors(counts, weights, norms, lengths)


def _clipped_products(
    counts: sparse.csr_matrix, weights: sparse.csr_matrix, counts_b: sparse.csr_matrix, weights_b: sparse.csr_matrix
) -> np.ndarray:
    """Return sum_w min(a_w, b_w) b_w of the tf-idf vectors of each caption a and each caption b, shape (A, B).

    With counts c and c', min(c, c') = sum over t >= 1 of [c >= t] [c' >= t]: one sparse product for each t.
    """
    # The n-grams that occur, as columns: the whole vocabulary would make a product of few captions slow.
    _, columns = np.unique(np.concatenate([counts.indices, counts_b.indices]), return_inverse=True)
    width, split = int(columns.max(initial=-1)) + 1, len(counts.indices)
    total = np.zeros((counts.shape[0], counts_b.shape[0]))
    for least in range(1, int(min(counts.data.max(initial=0), counts_b.data.max(initial=0))) + 1):
        idf = np.where(counts.data >= least, weights.data / counts.data, 0.0)
        left = sparse.csr_matrix((idf, columns[:split], counts.indptr), shape=(total.shape[0], width))
        right_weights = np.where(counts_b.data >= least, weights_b.data, 0.0)
        right = sparse.csr_matrix((right_weights, columns[split:], counts_b.indptr), shape=(total.shape[1], width))
        total += (left @ right.T).toarray()
    return total


def _length_penalty(lengths: np.ndarray, others: np.ndarray) -> np.ndarray:
    # The COCO tools' length is the number of bigrams; it differs from the words only for a caption without words.
    delta = np.maximum(lengths - 1, 0) - np.maximum(others - 1, 0)
    return np.exp(-(delta**2) / (2 * CIDER_SIGMA**2))


def _owners(matrix: sparse.csr_matrix) -> np.ndarray:
    """Return the row of each stored value."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def _row_sums(matrix: sparse.csr_matrix) -> np.ndarray:
    return np.bincount(_owners(matrix), matrix.data, matrix.shape[0]).astype(float)
