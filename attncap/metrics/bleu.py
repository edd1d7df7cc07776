"""Corpus BLEU-1..4 with several references."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from attncap.metrics.ngrams import MAX_ORDER
from attncap.metrics.references import Candidates
from attncap.metrics.registry import Metric, register_metric

BREVITY_POLICIES = ("closest", "shortest", "none")
# The COCO tools' constants: without a match p_n is 1e-15 over the n-grams, never exactly 0; without an n-gram 1e-6.
_TINY, _SMALL = 1e-15, 1e-9


@register_metric("bleu")
class Bleu(Metric):
    """BLEU-1..4 of a set of images, the numbers that the COCO tools print.

    A prediction's n-gram matches at most as often as the reference that has it most often.

    Args:
        brevity: the reference length of the brevity penalty: "closest" (of two equally close, the shorter; the COCO
            tools' way), "shortest" or "none" (no penalty).

    Raises:
        ValueError: brevity is none of the three.

    Reference: Papineni et al. 2002; pycocoevalcap's bleu_scorer.
    """

    labels = {f"bleu_{order}": f"BLEU-{order}" for order in range(1, MAX_ORDER + 1)}

    def __init__(self, brevity: str = "closest") -> None:
        if brevity not in BREVITY_POLICIES:
            raise ValueError(f"brevity is one of {', '.join(BREVITY_POLICIES)}, got {brevity!r}")
        self.brevity = brevity

    def rows(self, candidates: Candidates) -> np.ndarray:
        """Return matches and n-grams for n = 1..4, length, reference length: shape (N, 10)."""
        lengths = candidates.lengths
        largest = candidates.references.largest_counts.of(candidates.kept)
        matches = [
            np.asarray(counts[:, : most.shape[1]].minimum(most).sum(axis=1)).ravel()
            for counts, most in zip(candidates.counts, largest, strict=True)
        ]
        totals = [np.maximum(lengths - order, 0) for order in range(MAX_ORDER)]
        return np.stack([*matches, *totals, lengths, self._reference_lengths(candidates)], axis=1).astype(float)

    def scores(self, sums: np.ndarray, images: np.ndarray) -> np.ndarray:
        return bleu_from_sums(
            sums[..., :4], sums[..., 4:8], sums[..., 8], None if self.brevity == "none" else sums[..., 9]
        )

    def to_json(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {"bleu": [values[name] for name in self.labels]}

    def _reference_lengths(self, candidates: Candidates) -> np.ndarray:
        """Return the length of each image's closest (ties: shorter) or shortest used reference, shape (N,)."""
        if self.brevity == "none":
            return candidates.lengths
        kept = candidates.kept
        image, lengths = candidates.references.image_of[kept], candidates.references.lengths[kept]
        if self.brevity == "shortest":
            order = np.lexsort((lengths, image))
        else:
            order = np.lexsort((lengths, np.abs(lengths - candidates.lengths[image]), image))
        return lengths[order][np.searchsorted(image, np.arange(len(candidates)))]  # images are in order


def bleu_from_sums(
    matches: np.ndarray, totals: np.ndarray, length: np.ndarray, reference_length: np.ndarray | None
) -> np.ndarray:
    """BLEU-1..4 from n-gram counts that are already summed over the images of each set.

        BLEU-k = BP * (p_1 ... p_k)^(1/k),  p_n = matches_n / totals_n,  BP = min(1, exp(1 - r/c))

    The COCO tools' constants are kept (1e-15 on counts, 1e-9 below the line): a set without a common 4-gram scores
    nearly 0 (1e-4 and less), where sacrebleu gives 0 or, by default, smooths.

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
    with np.errstate(over="ignore"):  # for an empty prediction 1/ratio is 1e16, and exp(-1e16) gives the expected 0
        penalty = np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)
    return scores * penalty[..., None]
