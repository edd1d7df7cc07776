"""ROUGE-L: the longest common subsequence of a caption and its references."""

from __future__ import annotations

import numpy as np

from attncap.metrics.references import Candidates
from attncap.metrics.registry import Metric, register_metric

ROUGE_BETA = 1.2  # weight of recall in the F measure, as in the COCO tools


@register_metric("rouge_l")
class RougeL(Metric):
    """ROUGE-L: F of the best precision and the best recall over the references of an image, averaged over images.

    Reference: Lin 2004; pycocoevalcap's rouge.
    """

    labels = {"rouge_l": "ROUGE-L"}

    def rows(self, candidates: Candidates) -> np.ndarray:
        # The COCO tools split at single blanks, by which an empty caption is one empty word.
        words = [caption.split(" ") for caption in candidates.tokenized]
        references = candidates.references.word_positions
        best = np.zeros((2, len(candidates)))
        for at in np.flatnonzero(candidates.kept):
            image = candidates.references.image_of[at]
            masks, size = references[at]
            common = common_subsequence(words[image], masks, size)
            best[0, image] = max(best[0, image], common / len(words[image]))
            best[1, image] = max(best[1, image], common / size)
        precision, recall = best
        both = (precision > 0) & (recall > 0)
        weighted = recall + ROUGE_BETA**2 * precision
        scores = np.zeros(len(candidates))
        np.divide((1 + ROUGE_BETA**2) * precision * recall, weighted, out=scores, where=both)
        return scores[:, None]


def common_subsequence(words: list[str], masks: dict[str, int], size: int) -> int:
    """Return the length of the longest common subsequence, a row of the table at a time as bits (Hyyro 2004)."""
    full = (1 << size) - 1
    row = full
    for word in words:
        matched = row & masks.get(word, 0)
        row = ((row + matched) | (row - matched)) & full
    return size - row.bit_count()
