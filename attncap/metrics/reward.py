"""`CaptionReward`: CIDEr-D, and BLEU-4, of sampled captions, for training on the score."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from attncap.metrics.cider_d import CiderD
from attncap.metrics.ngrams import MAX_ORDER

Ngram = tuple[int, ...]


class CaptionReward:
    """CIDEr-D of captions given as token ids; with a weight, smoothed BLEU-4 added.

        reward(c) = mean over references r of CIDEr-D(c, r) + bleu * BLEU-4(c)

    BLEU-4 is that of the one caption. For n > 1 one is added to matches and n-grams (Lin and Och 2004), because most
    samples have no 4-gram right. Its brevity penalty takes the closest reference. CIDEr-D alone makes captions short.

    Args:
        references: image_id -> the token ids of each of its captions, without `<start>`, with `<end>`. The document
            frequencies of CIDEr-D come from these captions.
        bleu: weight of BLEU-4, which is in [0, 1], beside CIDEr-D, which is in [0, 10].

    Raises:
        ValueError: no references.

    Example:
        >>> reward = CaptionReward({"a": [[4, 5, 2]], "b": [[6, 2]]})
        >>> reward(["a"], [[[4, 5, 2]]]).shape
        (1, 1)

    Reference: Vedantam et al. 2015; Rennie et al. 2017, section 4.
    """

    def __init__(self, references: Mapping[str, Sequence[Sequence[int]]], bleu: float = 0.0) -> None:
        self._cider = CiderD(references.values())
        self._rows = {image_id: np.flatnonzero(self._cider.image_of == n) for n, image_id in enumerate(references)}
        self._bleu = bleu
        self._most = {image_id: _most(captions) for image_id, captions in references.items()} if bleu else {}

    def __call__(self, image_ids: Sequence[str], captions: Sequence[Sequence[Sequence[int]]]) -> np.ndarray:
        """Score K captions of each of B images.

        Args:
            image_ids: B images among the references'.
            captions: for each image K captions as token ids, without `<start>` and `<pad>`.

        Returns:
            rewards: float32 array, shape (B, K), in [0, 10 + bleu].
        """
        rewards = self.cider_d(image_ids, captions).astype(np.float64)
        if self._bleu:
            for row, image_id, own in zip(rewards, image_ids, captions, strict=True):
                lengths = self._cider.vocabulary.lengths[self._rows[image_id]].tolist()
                row += [self._bleu * _bleu_4(self._most[image_id], lengths, token_ids) for token_ids in own]
        return rewards.astype(np.float32)

    def cider_d(self, image_ids: Sequence[str], captions: Sequence[Sequence[Sequence[int]]]) -> np.ndarray:
        """Score as a call does, but without BLEU-4: float64 array, shape (B, K), in [0, 10].

        With the ids of other images it measures how well a caption fits any image.
        """
        rows = [self._rows[image_id] for image_id in image_ids]
        scores = self._cider.against_references(
            [token_ids for own in captions for token_ids in own], np.concatenate(rows)
        )
        ends = np.cumsum([len(own) for own in rows])
        samples = np.cumsum([len(own) for own in captions])
        return np.array(
            [
                scores[last - len(own) : last, end - len(of_image) : end].mean(axis=1)
                for own, last, of_image, end in zip(captions, samples, rows, ends, strict=True)
            ]
        )


def _bleu_4(most: Mapping[Ngram, int], reference_lengths: Sequence[int], token_ids: Sequence[int]) -> float:
    matches = [0] * MAX_ORDER
    for ngram, count in Counter(_ngrams(token_ids)).items():
        matches[len(ngram) - 1] += min(count, most.get(ngram, 0))
    length = len(token_ids)
    if not matches[0]:
        return 0.0
    log_precisions = math.log(matches[0] / length)
    for order in range(1, MAX_ORDER):
        log_precisions += math.log((matches[order] + 1) / (max(length - order, 0) + 1))
    closest = min(reference_lengths, key=lambda size: (abs(size - length), size))
    return math.exp(log_precisions / MAX_ORDER + min(0.0, 1 - closest / length))


def _most(captions: Sequence[Sequence[int]]) -> dict[Ngram, int]:
    """Return the largest count of each n-gram in one caption."""
    most: Counter[Ngram] = Counter()
    for token_ids in captions:
        most |= Counter(_ngrams(token_ids))
    return dict(most)


def _ngrams(token_ids: Sequence[int]) -> list[Ngram]:
    row = tuple(token_ids)
    return [row[at : at + n] for n in range(1, MAX_ORDER + 1) for at in range(len(row) - n + 1)]
