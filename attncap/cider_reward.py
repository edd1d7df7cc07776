"""`CiderReward`: CIDEr-D of many sampled captions against references whose vectors are prepared once.

`evaluation` scores a whole set once; training on the score asks for some hundred captions every second. So each
reference is turned into its tf-idf vector at the start, and a caption is compared with the n-grams that it shares.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from attncap.ngram_metrics import CIDER_SIGMA, MAX_ORDER

Ngram = tuple[int, ...]


@dataclass(frozen=True)
class _Reference:
    weights: list[dict[Ngram, float]]  # for each order: count times idf of each n-gram
    norms: list[float]
    length: int


class CiderReward:
    """CIDEr-D of captions given as token ids, `<end>` counted as a word.

        reward(c) = 10 / (4 M) sum_m sum_n exp(-(|c| - |r_m|)^2 / 2 sigma^2) <min(g_n(c), g_n(r_m)), g_n(r_m)> / ...

    the cosine of tf-idf vectors of n-grams, clipped, averaged over the M references and n = 1..4, as the COCO tools
    compute it; `<end>` is a word of both sides, without which training on the score learns to stop in mid-sentence
    ("a man in a"). Document frequencies are those of the references given here, the training captions.

    Args:
        references: picture id -> the token ids of each of its captions, without `<start>`, with `<end>`.

    Raises:
        ValueError: no references.

    Example:
        >>> reward = CiderReward({"a": [[4, 5, 2]], "b": [[6, 2]]})
        >>> reward(["a"], [[[4, 5, 2]]]).shape
        (1, 1)

    Reference: Vedantam et al. 2015; Rennie et al. 2017, section 4.
    """

    def __init__(self, references: Mapping[str, Sequence[Sequence[int]]]):
        if not references:
            raise ValueError("a reward needs reference captions, got none")
        pictures_with: Counter[Ngram] = Counter()
        for of_picture in references.values():
            pictures_with.update({ngram for token_ids in of_picture for ngram in _ngrams(token_ids)})
        self._log_pictures = math.log(len(references))
        self._idf = {ngram: self._log_pictures - math.log(count) for ngram, count in pictures_with.items()}
        self._references = {
            image_id: [_Reference(*self._vectors(token_ids), len(token_ids)) for token_ids in of_picture]
            for image_id, of_picture in references.items()
        }
        width = np.arange(512)
        self._penalty = np.exp(-(width**2) / (2 * CIDER_SIGMA**2)).tolist()

    def __call__(self, image_ids: Sequence[str], captions: Sequence[Sequence[Sequence[int]]]) -> np.ndarray:
        """Score K captions of each of B pictures.

        Args:
            image_ids: B pictures among the references'.
            captions: for each picture K captions as token ids, without `<start>` and `<pad>`.

        Returns:
            rewards: float32 array, shape (B, K), in [0, 10].
        """
        rows = [
            [self._score(self._references[image_id], token_ids) for token_ids in own]
            for image_id, own in zip(image_ids, captions, strict=True)
        ]
        return np.array(rows, np.float32)

    def _score(self, references: list[_Reference], token_ids: Sequence[int]) -> float:
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


def _ngrams(token_ids: Sequence[int]) -> list[Ngram]:
    row = tuple(token_ids)
    return [row[at : at + n] for n in range(1, MAX_ORDER + 1) for at in range(len(row) - n + 1)]
