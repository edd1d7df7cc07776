"""Several metrics side by side: additive rows per image, whose sums give the scores; the human line from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attncap.metrics.references import Candidates
from attncap.metrics.registry import Metric


class MetricRows:
    """The additive rows of several metrics side by side, with the scores of their sums."""

    def __init__(self, metrics: Sequence[Metric], candidates: Candidates) -> None:
        self.metrics = metrics
        parts = [metric.rows(candidates) for metric in metrics]
        for metric, part in zip(metrics, parts, strict=True):
            if part.ndim != 2 or len(part) != len(candidates):
                raise ValueError(
                    f"{type(metric).__name__}.rows: expected shape ({len(candidates)}, C), got {part.shape}"
                )
        self.columns = np.concatenate([*parts, np.ones((len(candidates), 1))], axis=1)  # (N, C)
        self._ends = np.cumsum([part.shape[1] for part in parts])

    def scores(self, sums: np.ndarray) -> np.ndarray:
        """Return the scores of sums, shape (..., C): shape (..., K)."""
        parts = np.split(sums, self._ends, axis=-1)
        found = [metric.scores(part, parts[-1][..., 0]) for metric, part in zip(self.metrics, parts, strict=False)]
        return np.concatenate(found, axis=-1)

    @property
    def values(self) -> np.ndarray:
        """Scores of all images together: float64, shape (K,)."""
        return self.scores(self.columns.sum(axis=0))

    def named(self, values: np.ndarray) -> dict[str, Any]:
        """Return score name -> value, or (low, high), of an array of shape (K,) or (K, 2)."""
        names = [name for metric in self.metrics for name in metric.labels]
        return dict(zip(names, values.tolist(), strict=True))


def human_line(candidates: Candidates, metrics: Sequence[Metric]) -> dict[str, Any] | None:
    """Score each human against the others, and the system against the same others; means over who was left out.

    Round r leaves out the r-th reference of each image (r modulo their number, if it has fewer). Images with one
    reference are not used.
    """
    references = candidates.references
    counts = np.bincount(references.image_of)
    several = counts > 1
    if not several.any():
        return None
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    scores: dict[str, list[np.ndarray]] = {"human": [], "system": []}
    for turn in range(int(counts.max())):
        position = turn % counts
        use = np.ones(len(references.image_of), bool)
        use[(starts + position)[several]] = False
        left_out = [
            [captions[at] for captions, at in zip(texts, position, strict=True)]
            for texts in (references.captions.values(), references.tokenized)
        ]
        humans = Candidates(references, left_out[0], left_out[1], use)
        system = candidates.against(use)
        for who, captions in (("human", humans), ("system", system)):
            rows = MetricRows(metrics, captions)
            scores[who].append(rows.scores(rows.columns[several].sum(axis=0)))
    human, of_system = (rows.named(np.mean(scores[who], axis=0)) for who in ("human", "system"))
    return {**human, "system": of_system, "n": int(several.sum()), "rounds": int(counts.max())}
