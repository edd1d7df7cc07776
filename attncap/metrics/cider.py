"""`CiderReward`: CIDEr-D, and BLEU-4, of many sampled captions against references whose n-grams are prepared once.

`evaluation` scores a whole set once; training on the score asks for some hundred captions every second. So each
reference is turned into its tf-idf vector at the start, and a caption is compared with the n-grams that it shares.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from attncap.metrics.ngrams import CIDER_SIGMA, MAX_ORDER

Ngram = tuple[int, ...]


@dataclass(frozen=True)
class _Reference:
    weights: list[dict[Ngram, float]]  # for each order: count times idf of each n-gram
    norms: list[float]
    length: int


@dataclass(frozen=True)
class _Picture:
    references: list[_Reference]
    most: dict[Ngram, int]  # largest count of each n-gram in one reference


class CiderReward:
    """CIDEr-D of captions given as token ids, `<end>` counted as a word; with a weight, BLEU-4 added.

        reward(c) = 10 / (4 M) sum_m sum_n exp(-(|c| - |r_m|)^2 / 2 sigma^2) <min(g_n(c), g_n(r_m)), g_n(r_m)> / ...

    the cosine of tf-idf vectors of n-grams, clipped, averaged over the M references and n = 1..4, as the COCO tools
    compute it; `<end>` is a word of both sides, without which training on the score learns to stop in mid-sentence
    ("a man in a"). Document frequencies are those of the references given here, the training captions.

    BLEU-4 is that of the one caption, n-grams of n > 1 counted with one match more in one more (Lin and Och 2004),
    since most samples have no 4-gram right; its brevity penalty takes the closest reference. CIDEr-D alone makes
    captions short.

    Args:
        references: picture id -> the token ids of each of its captions, without `<start>`, with `<end>`.
        bleu: weight of BLEU-4, which is in [0, 1], beside CIDEr-D, which is in [0, 10].

    Raises:
        ValueError: no references.

    Example:
        >>> reward = CiderReward({"a": [[4, 5, 2]], "b": [[6, 2]]})
        >>> reward(["a"], [[[4, 5, 2]]]).shape
        (1, 1)

    Reference: Vedantam et al. 2015; Rennie et al. 2017, section 4.
    """

    def __init__(self, references: Mapping[str, Sequence[Sequence[int]]], bleu: float = 0.0):
        if not references:
            raise ValueError("a reward needs reference captions, got none")
        pictures_with: Counter[Ngram] = Counter()
        for of_picture in references.values():
            pictures_with.update({ngram for token_ids in of_picture for ngram in _ngrams(token_ids)})
        self._log_pictures = math.log(len(references))
        self._idf = {ngram: self._log_pictures - math.log(count) for ngram, count in pictures_with.items()}
        self._bleu = bleu
        self._pictures = {image_id: self._picture(of_picture) for image_id, of_picture in references.items()}
        width = np.arange(512)
        self._penalty = np.exp(-(width**2) / (2 * CIDER_SIGMA**2)).tolist()

    def __call__(self, image_ids: Sequence[str], captions: Sequence[Sequence[Sequence[int]]]) -> np.ndarray:
        """Score K captions of each of B pictures.

        Args:
            image_ids: B pictures among the references'.
            captions: for each picture K captions as token ids, without `<start>` and `<pad>`.

        Returns:
            rewards: float32 array, shape (B, K), in [0, 10 + bleu].
        """
        rows = [
            [self._score(self._pictures[image_id], token_ids) for token_ids in own]
            for image_id, own in zip(image_ids, captions, strict=True)
        ]
        return np.array(rows, np.float32)

    def cider_d(self, image_ids: Sequence[str], captions: Sequence[Sequence[Sequence[int]]]) -> np.ndarray:
        """As calling it, without BLEU-4: float32 array, shape (B, K), in [0, 10].

        Against the references of *other* pictures it tells how much a caption would say of any picture.
        """
        rows = [
            [self._cider_d(self._pictures[image_id].references, token_ids) for token_ids in own]
            for image_id, own in zip(image_ids, captions, strict=True)
        ]
        return np.array(rows, np.float32)

    def agreement(self, captions: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> np.ndarray:
        """CIDEr-D of captions against others of the same picture in place of references.

        Args:
            captions: C captions as token ids, `<end>` included.
            others: as captions, at least one.

        Returns:
            agreement: float64 array, shape (C,), in [0, 10].
        """
        references = [_Reference(*self._vectors(row), len(row)) for row in others]
        return np.array([self._cider_d(references, token_ids) for token_ids in captions])

    def _picture(self, of_picture: Sequence[Sequence[int]]) -> _Picture:
        most: Counter[Ngram] = Counter()
        for token_ids in of_picture:
            most |= Counter(_ngrams(token_ids))
        return _Picture([_Reference(*self._vectors(row), len(row)) for row in of_picture], dict(most))

    def _score(self, picture: _Picture, token_ids: Sequence[int]) -> float:
        cider = self._cider_d(picture.references, token_ids)
        return cider + self._bleu * _bleu_4(picture, token_ids) if self._bleu else cider

    def _cider_d(self, references: list[_Reference], token_ids: Sequence[int]) -> float:
        weights, norms = self._vectors(token_ids)
        total = 0.0
        for reference in references:
            cosines = 0.0
            for own, own_norm, theirs, their_norm in zip(
                weights, norms, reference.weights, reference.norms, strict=True
            ):
                if own_norm and their_norm:
                    shared = sum(
                        min(weight, theirs[ngram]) * theirs[ngram] for ngram, weight in own.items() if ngram in theirs
                    )
                    cosines += shared / (own_norm * their_norm)
            total += cosines * self._penalty[min(abs(len(token_ids) - reference.length), 511)]
        return 10.0 * total / (MAX_ORDER * len(references))

    def _vectors(self, token_ids: Sequence[int]) -> tuple[list[dict[Ngram, float]], list[float]]:
        weights: list[dict[Ngram, float]] = [{} for _ in range(MAX_ORDER)]
        for ngram, count in Counter(_ngrams(token_ids)).items():
            weights[len(ngram) - 1][ngram] = count * self._idf.get(ngram, self._log_pictures)
        return weights, [math.sqrt(sum(weight * weight for weight in own.values())) for own in weights]


def _bleu_4(picture: _Picture, token_ids: Sequence[int]) -> float:
    matches = [0] * MAX_ORDER
    for ngram, count in Counter(_ngrams(token_ids)).items():
        matches[len(ngram) - 1] += min(count, picture.most.get(ngram, 0))
    length = len(token_ids)
    if not matches[0]:
        return 0.0
    log_precisions = math.log(matches[0] / length)
    for order in range(1, MAX_ORDER):
        log_precisions += math.log((matches[order] + 1) / (max(length - order, 0) + 1))
    closest = min((reference.length for reference in picture.references), key=lambda size: (abs(size - length), size))
    return math.exp(log_precisions / MAX_ORDER + min(0.0, 1 - closest / length))


def _ngrams(token_ids: Sequence[int]) -> list[Ngram]:
    row = tuple(token_ids)
    return [row[at : at + n] for n in range(1, MAX_ORDER + 1) for at in range(len(row) - n + 1)]
