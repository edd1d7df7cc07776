"""Tune the distance threshold below which a nearest neighbor counts as a match."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from attncap.metrics.evaluate import score_images

NEVER = -1.0  # a threshold that no distance is within
SIMILARITIES = ("cider_d", "bleu_1", "bleu_4", "rouge_l")


@dataclass(frozen=True, eq=False)
class ThresholdCurve:
    """Errors at every threshold, where the label of the nearest image is given if its distance is within the threshold.

    Args:
        table: DataFrame, one row per threshold, ascending, the first NEVER: `threshold`; of N queries how many were
            `answered`, `wrong` (answered, and the neighbor is no match), `missed` (not answered, and it is one);
            `errors`, the weighted sum of the two; `precision` (NaN where nothing was answered) and `recall` of matches.
        threshold: the best one; NEVER where giving no label at all is best.
        queries: N.
        held_out_errors: mean weighted errors per query by five-fold cross-validation: what to expect on new images;
            None for fewer than 10 queries.
    """

    table: pd.DataFrame
    threshold: float
    queries: int
    held_out_errors: float | None

    @property
    def best(self) -> dict[str, float]:
        """Return the table's row at the threshold, with the threshold itself."""
        at = int(np.searchsorted(self.table["threshold"].to_numpy(), self.threshold, side="right")) - 1
        return {**{str(name): float(value) for name, value in self.table.iloc[at].items()}, "threshold": self.threshold}

    def to_text(self) -> str:
        """Return the best threshold and its errors, with those of always and never answering, as text."""
        best, always, never = self.best, self.table.iloc[-1], self.table.iloc[0]
        lines = [
            "threshold: none is good, give no label" if self.threshold == NEVER else f"threshold {self.threshold:.4g}",
            f"{self.queries:,} queries: {best['answered']:,.0f} answered, {best['wrong']:,.0f} of them wrong; "
            f"{best['missed']:,.0f} matches missed",
            f"errors per query: {best['errors'] / self.queries:.4f} "
            f"(never a label: {never['errors'] / self.queries:.4f}, "
            f"always the nearest: {always['errors'] / self.queries:.4f})",
        ]
        if self.held_out_errors is not None:
            lines.append(
                f"errors per query on images the threshold was not tuned on (5 folds): {self.held_out_errors:.4f}"
            )
        return "\n".join(lines)


def tune_threshold(
    distances: np.ndarray | Sequence[float],
    matched: np.ndarray | Sequence[bool],
    *,
    wrong_weight: float = 1.0,
    whole: bool = False,
    seed: int = 0,
) -> ThresholdCurve:
    """Find the threshold with the fewest errors, among all distances that occur.

    errors(t) = wrong_weight * #{d <= t, no match} + #{d > t, match}. If several intervals of thresholds are
    equally good, the middle of the longest one is taken.

    Args:
        distances: (N,), of each query's nearest neighbor.
        matched: (N,), whether that neighbor is a match; the user's choice: `same_label`, `similar_captions`, or that
            it is the image that the query was made from.
        wrong_weight: cost of a wrong label; a missed label costs 1.
        whole: round the threshold down: distances are bits.
        seed: of the folds of `held_out_errors`.

    Raises:
        ValueError: no queries, lists of different lengths, distances that are not finite, or a weight not above 0.

    Example:
        >>> tune_threshold([1, 2, 8, 9], [True, True, False, True], whole=True).threshold
        4.0
    """
    d, match = np.asarray(distances, float), np.asarray(matched, bool)
    if d.ndim != 1 or d.shape != match.shape or not len(d):
        raise ValueError(f"a distance and a match for each query expected, got shapes {d.shape} and {match.shape}")
    if not np.isfinite(d).all() or (d < 0).any():
        raise ValueError("distances: finite, 0 or more expected")
    if not wrong_weight > 0:
        raise ValueError(f"wrong_weight above 0 expected, got {wrong_weight}")
    table = _sweep(d, match, wrong_weight)
    held_out = None
    if len(d) >= 10:
        fold = np.random.default_rng(seed).permutation(len(d)) % 5
        held_out = 0.0
        for left_out in range(5):
            threshold = _best(_sweep(d[fold != left_out], match[fold != left_out], wrong_weight), whole)
            answered, truth = d[fold == left_out] <= threshold, match[fold == left_out]
            held_out += (wrong_weight * (answered & ~truth).sum() + (~answered & truth).sum()) / len(d)
        held_out = float(held_out)
    return ThresholdCurve(table, _best(table, whole), len(d), held_out)


def _sweep(d: np.ndarray, match: np.ndarray, wrong_weight: float) -> pd.DataFrame:
    thresholds, which = np.unique(d, return_inverse=True)
    right, wrong = (
        np.concatenate([[0], np.bincount(which, mask, len(thresholds)).cumsum()]).astype(int)
        for mask in (match, ~match)
    )
    answered, matches = right + wrong, int(match.sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        return pd.DataFrame(
            {
                "threshold": np.concatenate([[NEVER], thresholds]),
                "answered": answered,
                "wrong": wrong,
                "missed": matches - right,
                "errors": wrong_weight * wrong + (matches - right),
                "precision": right / answered,
                "recall": right / np.float64(matches),
            }
        )


def _best(table: pd.DataFrame, whole: bool) -> float:
    thresholds, errors = table["threshold"].to_numpy(), table["errors"].to_numpy()
    # A row is valid from its threshold up to the next one; the last one has no end and counts as a point.
    ends = np.append(thresholds[1:], thresholds[-1])
    changes = np.flatnonzero(np.diff(errors)) + 1
    first, last = np.append(0, changes), np.append(changes, len(errors)) - 1  # of each run of equal errors
    lengths = ends[last] - np.maximum(thresholds[first], 0)
    longest = np.where(np.isclose(errors[first], errors.min()), lengths, -1.0).argmax()
    low, high = thresholds[first[longest]], ends[last[longest]]
    if low == NEVER:
        return NEVER
    middle = (low + high) / 2
    return float(np.floor(middle)) if whole else float(middle)


# ---------------------------------------------------------------- what counts as a match


def same_label(query: Sequence[str], neighbor: Sequence[str]) -> bool:
    """Return whether two images have a label in common, ignoring case and blanks."""
    return not {_plain(label) for label in query}.isdisjoint(_plain(label) for label in neighbor)


def same_labels(queries: Sequence[Sequence[str]], neighbors: Sequence[Sequence[str]]) -> np.ndarray:
    """Return `same_label` of each pair: bool, shape (N,)."""
    return np.array([same_label(*pair) for pair in zip(queries, neighbors, strict=True)], bool)


def similar_captions(
    queries: Sequence[Sequence[str]], neighbors: Sequence[Sequence[str]], level: float, measure: str = "cider_d"
) -> np.ndarray:
    """Return for each pair whether the neighbor's first caption is similar to the query's own captions.

    Args:
        queries: for each of N images its own captions, one or more.
        neighbors: for each its nearest neighbor's captions, one or more.
        level: a match is a similarity of `level` or more.
        measure: cider_d (0 to 10), bleu_1, bleu_4 or rouge_l (0 to 1), of one caption against the image's own.

    Returns:
        bool array, shape (N,).

    Raises:
        ValueError: an image without a caption, another measure.
    """
    if measure not in SIMILARITIES:
        raise ValueError(f"similarity is one of {', '.join(SIMILARITIES)}, got {measure!r}")
    bare = next((n for n, captions in enumerate(neighbors) if not captions), None)
    if bare is not None:
        raise ValueError(f"neighbor of query {bare} has no caption: index images with captions")
    references = {str(n): list(captions) for n, captions in enumerate(queries)}
    first = {str(n): captions[0] for n, captions in enumerate(neighbors)}
    return score_images(first, references)[measure].to_numpy() >= level


def parse_match(text: str) -> Callable[[Any, Any], np.ndarray]:
    """Read "label", "cider_d:0.5" or another similarity with its level: a function of two lists of labels.

    Raises:
        ValueError: none of these.
    """
    name, _, level = text.partition(":")
    if text == "label":
        return same_labels
    try:
        least = float(level)
    except ValueError:
        least = float("nan")
    if name not in SIMILARITIES or not np.isfinite(least):
        raise ValueError(f"match {text!r}: label, or {' or '.join(SIMILARITIES)} with a level, as in cider_d:0.5")
    return lambda queries, neighbors: similar_captions(queries, neighbors, least, name)


def _plain(label: str) -> str:
    return " ".join(label.split()).casefold()
