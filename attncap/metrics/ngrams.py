"""BLEU, ROUGE-L, CIDEr-D and CIDEr from n-gram counts, a row of numbers for each picture.

Captions arrive tokenized, words joined by blanks (see `attncap.metrics.ptb_tokenizer`).
Words and n-grams become integers, so that
counting, clipping and looking up are array operations; corpus scores are functions of sums over pictures, so that a
bootstrap sample is a weighted sum of the same rows and costs no new counting.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

Token = Hashable  # a word, or a token id

BREVITY_POLICIES = ("closest", "shortest", "none")
SCORE_NAMES = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d", "cider_plain")
MAX_ORDER = 4
CIDER_SIGMA = 6.0  # words; the width of CIDEr-D's length penalty, as in the COCO tools
ROUGE_BETA = 1.2  # weight of recall in ROUGE-L's F, as in the COCO tools
# The COCO tools' constants: without a match p_n is 1e-15 over the n-grams, never exactly 0; without an n-gram 1e-6.
_TINY, _SMALL = 1e-15, 1e-9


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


@dataclass(frozen=True, eq=False)
class PictureStatistics:
    """What each of N pictures contributes to the scores; everything else follows from sums over rows.

    Args:
        matches: int64 array, shape (N, 4): n-grams of the prediction found in the references, clipped by the largest
            count in any one reference.
        totals: int64 array, shape (N, 4): n-grams of the prediction.
        length: int64 array, shape (N,): words of the prediction.
        closest: int64 array, shape (N,): length of the reference closest in length; of two, the shorter.
        shortest: int64 array, shape (N,): length of the shortest reference.
        rouge_l: float64 array, shape (N,), in [0, 1].
        cider_d: float64 array, shape (N,), in [0, 10]; the COCO tools call it "CIDEr".
        cider_plain: float64 array, shape (N,), in [0, 10]; CIDEr without clipping and without length penalty.
    """

    matches: np.ndarray
    totals: np.ndarray
    length: np.ndarray
    closest: np.ndarray
    shortest: np.ndarray
    rouge_l: np.ndarray
    cider_d: np.ndarray
    cider_plain: np.ndarray

    def __len__(self) -> int:
        return len(self.length)


def bleu_from_sums(
    matches: np.ndarray, totals: np.ndarray, length: np.ndarray, reference_length: np.ndarray | None
) -> np.ndarray:
    """BLEU-1..4 from n-gram counts that are already summed over the pictures of each set.

    BLEU-k = BP * (product of p_1..p_k)^(1/k), p_n = matches_n / totals_n, BP = min(1, exp(1 - r/c)). The COCO tools'
    constants are kept (1e-15 on counts, 1e-9 below the line): a set without a common 4-gram scores nearly 0 (1e-4 and
    less), where sacrebleu gives 0 or, by default, smooths.

    Args:
        matches: array, shape (..., 4), clipped matches.
        totals: array, shape (..., 4), n-grams predicted.
        length: array, shape (...), words predicted: c.
        reference_length: array, shape (...), r; None leaves the brevity penalty out.

    Returns:
        float64 array, shape (..., 4), in [0, 1].

    Example:
        >>> bleu_from_sums(np.array([3, 2, 1, 0]), np.array([3, 2, 1, 0]), np.array(3), np.array(3)).round(3)[:3]
        array([1., 1., 1.])

    Reference: Papineni et al. 2002, section 2.3; constants from pycocoevalcap.
    """
    precisions = (matches + _TINY) / (totals + _SMALL)
    scores = np.cumprod(precisions, axis=-1) ** (1.0 / np.arange(1, MAX_ORDER + 1))
    if reference_length is None:
        return scores
    ratio = (np.asarray(length) + _TINY) / (np.asarray(reference_length) + _SMALL)
    with np.errstate(over="ignore"):  # 1/ratio of an empty prediction is 1e16; exp(-1e16) is the 0 that is wanted
        penalty = np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)
    return scores * penalty[..., None]


def reference_lengths(statistics: PictureStatistics, brevity: str) -> np.ndarray | None:
    """The reference lengths that a brevity policy counts, shape (N,); None for "none"; ValueError for another word."""
    if brevity not in BREVITY_POLICIES:
        raise ValueError(f"brevity is one of {', '.join(BREVITY_POLICIES)}, got {brevity!r}")
    return {"closest": statistics.closest, "shortest": statistics.shortest, "none": None}[brevity]


def columns(statistics: PictureStatistics, brevity: str = "closest") -> np.ndarray:
    """A row of sums for each picture: weigh the rows, add them up and give the sums to `scores_from_sums`.

    Args:
        statistics: N pictures.
        brevity: "closest" (the COCO tools' way), "shortest" or "none".

    Returns:
        float64 array, shape (N, 14): 4 matches, 4 totals, length, reference length (without a penalty: the length
        again), ROUGE-L, CIDEr-D, plain CIDEr, 1.

    Raises:
        ValueError: when brevity is none of the three policies.
    """
    reference = reference_lengths(statistics, brevity)
    single = [
        statistics.length,
        statistics.length if reference is None else reference,
        statistics.rouge_l,
        statistics.cider_d,
        statistics.cider_plain,
        np.ones(len(statistics)),
    ]
    return np.concatenate([statistics.matches, statistics.totals, np.stack(single, axis=1)], axis=1)  # (N, 14)


def scores_from_sums(sums: np.ndarray, brevity: str = "closest") -> np.ndarray:
    """Corpus scores of one or many weighted sets of pictures.

    Args:
        sums: array, shape (..., 14): weighted sums of the rows of `columns`, which was given the same brevity.
        brevity: "closest", "shortest" or "none".

    Returns:
        float64 array, shape (..., 7): BLEU-1..4, ROUGE-L, CIDEr-D, plain CIDEr (`SCORE_NAMES`).

    Example:
        >>> index = NgramIndex([["a dog runs", "a dog"], ["a red car"]])
        >>> rows = columns(index.statistics(["a dog runs", "a red car"]))
        >>> scores_from_sums(rows.sum(axis=0)).round(3)[:3]
        array([1., 1., 1.])
    """
    bleu = bleu_from_sums(sums[..., :4], sums[..., 4:8], sums[..., 8], None if brevity == "none" else sums[..., 9])
    return np.concatenate([bleu, sums[..., 10:13] / sums[..., 13:]], axis=-1)


def bleu_per_picture(statistics: PictureStatistics, brevity: str = "closest") -> np.ndarray:
    """BLEU-1..4 of each picture alone, as in the COCO tools' per-picture list; their mean is not corpus BLEU.

    Args:
        statistics: N pictures.
        brevity: "closest", "shortest" or "none".

    Returns:
        float64 array, shape (N, 4).
    """
    reference = reference_lengths(statistics, brevity)
    return bleu_from_sums(statistics.matches, statistics.totals, statistics.length, reference)


class NgramIndex:
    """Reference captions of N pictures, counted once, against which predictions are scored any number of times.

    CIDEr weighs an n-gram by log(N) - log(number of pictures whose references have it). These document frequencies come
    from all references given here, and stay so when a picture is resampled or a reference is left out.

    Args:
        references: for each of N pictures its tokenized references, words joined by blanks; at least one each.

    Raises:
        ValueError: when there is no picture, or a picture without a reference.

    Example:
        >>> index = NgramIndex([["a dog runs", "a dog"], ["a red car"]])
        >>> index.statistics(["a dog", "a blue car"]).matches[:, 0]
        array([2, 2])

    Reference: Vedantam et al. 2015 (CIDEr, CIDEr-D); Lin 2004 (ROUGE-L).
    """

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        if not references:
            raise ValueError("scores need at least one picture with references, got none")
        empty = next((i for i, of_picture in enumerate(references) if not of_picture), None)
        if empty is not None:
            raise ValueError(f"every picture needs at least one reference; picture number {empty} has none")
        sentences = [sentence for of_picture in references for sentence in of_picture]
        self.n_pictures = len(references)
        self.picture_of = np.repeat(np.arange(self.n_pictures), [len(r) for r in references])  # (R,)
        self._word_ids: dict[str, int] = {}
        self._tables: list[np.ndarray] = []
        self._masks = [_word_masks(sentence.split(" ")) for sentence in sentences]
        tokens, sentence_of, self.lengths = self._encode(sentences)
        self._entries = []  # for each order: sentence, n-gram, count
        self._frequency = []  # for each order: log of the number of pictures whose references have the n-gram
        for ngrams, owner in self._ngrams(tokens, sentence_of, grow=True):
            sentence, ngram, count = _count(owner, ngrams)
            pictures = np.unique(ngram * self.n_pictures + self.picture_of[sentence]) // self.n_pictures
            self._entries.append((sentence, ngram, count))
            self._frequency.append(np.log(np.bincount(pictures, minlength=len(self._tables[len(self._entries) - 1]))))

    def statistics(self, predictions: Sequence[str], use: np.ndarray | None = None) -> PictureStatistics:
        """Score one tokenized prediction for each picture.

        Args:
            predictions: N tokenized captions, words joined by blanks, in the pictures' order; "" is a caption.
            use: None for all R references, or a bool array, shape (R,), of those to score against; the document
                frequencies stay those of all.

        Returns:
            The rows of the N pictures; a picture without any used reference must not occur.

        Raises:
            ValueError: when the number of predictions is not N.
        """
        if len(predictions) != self.n_pictures:
            raise ValueError(f"expected {self.n_pictures} predictions, one to a picture, got {len(predictions)}")
        kept = np.ones(len(self.picture_of), bool) if use is None else use
        tokens, sentence_of, length = self._encode(predictions)
        orders = list(self._ngrams(tokens, sentence_of, grow=False))
        matches = np.zeros((self.n_pictures, MAX_ORDER), np.int64)
        products = np.zeros((2, MAX_ORDER, len(kept)))  # clipped and plain products of tf-idf vectors, (2, 4, R)
        for order, (ngrams, owner) in enumerate(orders):
            matches[:, order], products[:, order] = self._compare(order, ngrams, owner, kept)
        # The COCO tools' length is the number of bigrams, which differs for captions of no word only.
        delta = np.maximum(length - 1, 0)[self.picture_of] - np.maximum(self.lengths - 1, 0)  # (R,)
        products[0] *= np.exp(-(delta**2) / (2 * CIDER_SIGMA**2))
        used = np.bincount(self.picture_of[kept], minlength=self.n_pictures)
        cider_d, cider_plain = (
            10.0 * np.bincount(self.picture_of, np.where(kept, product.mean(0), 0.0), self.n_pictures) / used
            for product in products
        )
        closest, shortest = self._reference_lengths(length, kept)
        return PictureStatistics(
            matches=matches,
            totals=np.maximum(length[:, None] - np.arange(MAX_ORDER), 0),
            length=length,
            closest=closest,
            shortest=shortest,
            rouge_l=self._rouge_l(predictions, kept),
            cider_d=cider_d,
            cider_plain=cider_plain,
        )

    def _encode(self, sentences: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Word ids of all sentences end to end, the sentence of each word, and the sentences' lengths in words."""
        split = [sentence.split() for sentence in sentences]
        lengths = np.array([len(words) for words in split], np.int64)
        # Words that no reference has get ids of their own too: they count in the norm of a prediction's vector.
        ids = self._word_ids if not self._tables else dict(self._word_ids)
        flat = [ids.setdefault(word, len(ids)) for words in split for word in words]
        return np.array(flat, np.int64), np.repeat(np.arange(len(split)), lengths), lengths

    def _ngrams(self, tokens: np.ndarray, owner: np.ndarray, grow: bool) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (n-gram ids, owning sentence) for n = 1..4; an n-gram is the pair (first n-1 words' id, last word).

        Ids below the table's size are n-grams of the references; others are numbered above it, equal for equal n-grams.
        """
        prefix, at = np.zeros(len(tokens), np.int64), np.arange(len(tokens))
        for order in range(MAX_ORDER):
            if order:  # extend only where the next word belongs to the same sentence
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

    def _compare(
        self, order: int, ngrams: np.ndarray, owner: np.ndarray, kept: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Clipped matches of each picture, shape (N,), and the two cosines with each reference, shape (2, R)."""
        sentence, ngram, count = self._entries[order]
        frequency = self._frequency[order]
        log_pictures = np.log(float(self.n_pictures))
        picture, predicted, predicted_count = _count(owner, ngrams)
        known = np.concatenate([frequency, np.zeros(max(0, int(ngrams.max(initial=-1)) + 1 - len(frequency)))])
        predicted_weight = predicted_count * (log_pictures - known[predicted])
        predicted_norm = np.sqrt(np.bincount(picture, predicted_weight**2, self.n_pictures))
        weight = count * (log_pictures - frequency[ngram])
        norm = np.sqrt(np.bincount(sentence, weight**2, len(kept)))
        # Each reference n-gram is looked up in the prediction for the same picture.
        stride = int(ngrams.max(initial=0)) + len(frequency) + 1
        found = _look_up(picture * stride + predicted, self.picture_of[sentence] * stride + ngram)
        hit = (found >= 0) & kept[sentence]
        row, at, ref_weight = found[hit], sentence[hit], weight[hit]
        best = np.zeros(len(picture), np.int64)
        np.maximum.at(best, row, count[hit])
        matches = np.bincount(picture, np.minimum(best, predicted_count), self.n_pictures).astype(np.int64)
        cosines = np.stack(
            [
                np.bincount(at, np.minimum(predicted_weight[row], ref_weight) * ref_weight, len(kept)),
                np.bincount(at, predicted_weight[row] * ref_weight, len(kept)),
            ]
        ).astype(float)  # np.bincount of nothing is an integer array, whatever the weights
        norms = predicted_norm[self.picture_of] * norm
        return matches, np.divide(cosines, norms, out=cosines, where=norms != 0)

    def _reference_lengths(self, length: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Length of each picture's closest (ties: shorter) and of its shortest used reference, shape (N,) each."""
        picture, lengths = self.picture_of[kept], self.lengths[kept]
        by_length = np.lexsort((lengths, picture))
        by_distance = np.lexsort((lengths, np.abs(lengths - length[picture]), picture))
        first = np.searchsorted(picture, np.arange(self.n_pictures))  # pictures are in order, so each starts here
        return lengths[by_distance][first], lengths[by_length][first]

    def _rouge_l(self, predictions: Sequence[str], kept: np.ndarray) -> np.ndarray:
        """ROUGE-L of each picture: F of the best precision and the best recall over its references, shape (N,)."""
        # The tools split at single blanks, by which an empty caption is one empty word.
        words = [prediction.split(" ") for prediction in predictions]
        scores, best = np.zeros(self.n_pictures), np.zeros((2, self.n_pictures))
        for reference in np.flatnonzero(kept):
            picture = self.picture_of[reference]
            masks, size = self._masks[reference]
            common = _common_subsequence(words[picture], masks, size)
            best[0, picture] = max(best[0, picture], common / len(words[picture]))
            best[1, picture] = max(best[1, picture], common / size)
        precision, recall = best
        both = (precision > 0) & (recall > 0)
        weighted = recall + ROUGE_BETA**2 * precision
        np.divide((1 + ROUGE_BETA**2) * precision * recall, weighted, out=scores, where=both)
        return scores


def _count(owner: np.ndarray, ngrams: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct (owner, n-gram) pairs, in that order, with their counts."""
    stride = int(ngrams.max(initial=0)) + 1
    pairs, counts = np.unique(owner * stride + ngrams, return_counts=True)
    return pairs // stride, pairs % stride, counts


def _look_up(table: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Position of each key in a sorted table, -1 where it is not there."""
    if not len(table):
        return np.full(len(keys), -1)
    position = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return np.where(table[position] == keys, position, -1)


def _word_masks(words: list[str]) -> tuple[dict[str, int], int]:
    """For each word the positions where it stands, as bits of an integer; and the number of words."""
    masks: dict[str, int] = {}
    for position, word in enumerate(words):
        masks[word] = masks.get(word, 0) | 1 << position
    return masks, len(words)


def _common_subsequence(words: list[str], masks: dict[str, int], size: int) -> int:
    """Length of the longest common subsequence, a row of the table at a time as bits (Hyyro 2004)."""
    full = (1 << size) - 1
    row = full
    for word in words:
        matched = row & masks.get(word, 0)
        row = ((row + matched) | (row - matched)) & full
    return size - row.bit_count()
