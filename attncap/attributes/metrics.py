"""What probabilities of attributes are worth: calibration, thresholds, measures beside the majority's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

MEASURES = ("average_precision", "roc_auc", "f1", "balanced_accuracy", "precision", "recall", "accuracy")
AIMS = 'f1, balanced_accuracy, accuracy, or "precision:0.9" (the most recall with precision of at least 0.9)'


def calibrate(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit for each attribute the line that turns logits into those of honest probabilities (Platt scaling).

    P(label) = sigmoid(slope * logit + offset), by Newton's method on the cross-entropy of these pictures, with targets
    a little inside 0 and 1 as Platt has them, so that a perfect ranking does not ask for an infinite slope.

    Args:
        logits: shape (N, A), of pictures that were not trained on.
        labels: shape (N, A): 1, 0 or NaN, which is left out.

    Returns:
        slopes, offsets: float64, shape (A,); 1 and 0 where only one class is labeled, or the ranking is upside down.

    Example:
        >>> slopes, offsets = calibrate(logits, labels)
        >>> probs = 1 / (1 + np.exp(-(slopes * logits + offsets)))

    Reference: Platt 1999; Lin, Lin and Weng 2007, "A note on Platt's probabilistic outputs".
    """
    _check(logits, labels)
    fits = [_platt(logits[:, at], labels[:, at]) for at in range(logits.shape[1])]
    return np.array([slope for slope, _ in fits]), np.array([offset for _, offset in fits])


def calibration_error(probs: np.ndarray, labels: np.ndarray, bins: int = 10) -> float:
    """Return the expected calibration error over all known labels: |share of ones - mean probability|, by bins.

    Example:
        >>> calibration_error(np.full((4, 1), 0.75), np.array([[1], [1], [1], [0]]))
        0.0
    """
    _check(probs, labels)
    known = np.isfinite(labels)
    prob, truth = probs[known], labels[known]
    place = np.minimum((prob * bins).astype(int), bins - 1)
    gap = np.bincount(place, truth - prob, minlength=bins)
    return float(np.abs(gap).sum() / max(1, len(prob)))


def tune_thresholds(probs: np.ndarray, labels: np.ndarray, aim: str = "f1") -> np.ndarray:
    """Choose for each attribute the threshold that serves the aim best on these pictures.

    A picture has the attribute where its probability is at least the threshold. A threshold lies midway between two
    probabilities that were seen, so that the last digit decides nothing; equal scores take the one nearest to 0.5.

    Args:
        probs: shape (N, A), 0 to 1.
        labels: shape (N, A): 1, 0 or NaN, which is left out.
        aim: "f1", "balanced_accuracy", "accuracy" or "precision:P". Where no threshold has precision P, the one with
            the highest precision is taken.

    Returns:
        thresholds: float64, shape (A,). 0.5 where only one class is labeled: there is nothing to choose by.

    Raises:
        ValueError: an unknown aim, or shapes that differ.

    Example:
        >>> tune_thresholds(np.array([[0.1], [0.3], [0.4], [0.9]]), np.array([[0], [0], [1], [1]]), "f1")
        array([0.35])
    """
    _check(probs, labels)
    wanted = _parse_aim(aim)
    return np.array([_threshold(probs[:, at], labels[:, at], *wanted) for at in range(probs.shape[1])])


def report(
    probs: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    thresholds: np.ndarray | float = 0.5,
    majority: np.ndarray | None = None,
) -> AttributeReport:
    """Measure probabilities against labels.

    Args:
        probs: shape (N, A), 0 to 1.
        labels: shape (N, A): 1, 0 or NaN, which is left out.
        names: of the A attributes.
        thresholds: shape (A,), from `tune_thresholds` on other pictures.
        majority: shape (A,): what always-majority answers, 1 or 0, from the training pictures; None: from these
            pictures, which is kinder to it.

    Returns:
        The report; a measure that an attribute's labels do not define (one class only) is NaN, and its mean is over
        the others.

    Raises:
        ValueError: shapes that differ, or no label at all.
    """
    _check(probs, labels)
    if len(names) != probs.shape[1]:
        raise ValueError(f"{len(names)} names for {probs.shape[1]} columns of probabilities")
    if not np.isfinite(labels).any():
        raise ValueError("no label is known: nothing to measure against")
    limits = np.broadcast_to(np.asarray(thresholds, float), (probs.shape[1],))
    rows = []
    for at, name in enumerate(names):
        known = np.isfinite(labels[:, at])
        truth, prob = labels[known, at] > 0.5, probs[known, at]
        common = truth.mean() > 0.5 if majority is None and known.any() else majority is not None and majority[at] > 0.5
        rows.append(
            {
                "attribute": name,
                "pictures": int(known.sum()),
                "prevalence": float(truth.mean()) if known.any() else np.nan,
                "threshold": float(limits[at]),
                **_measures(truth, prob, prob >= limits[at]),
                "majority_accuracy": float((truth == common).mean()) if known.any() else np.nan,
            }
        )
    table = pd.DataFrame(rows)
    known = np.isfinite(labels)
    macro = table[[*MEASURES, "prevalence", "majority_accuracy"]].mean().to_dict()
    micro = _measures(labels[known] > 0.5, probs[known], (probs >= limits)[known])
    return AttributeReport(table, {str(key): float(value) for key, value in macro.items()}, micro)


class AttributeReport:
    """Measures of each attribute (`table`), their means (`macro`), and of all answers as one attribute (`micro`)."""

    def __init__(self, table: pd.DataFrame, macro: dict[str, float], micro: dict[str, float]):
        self.table, self.macro, self.micro = table, macro, micro

    def to_text(self, sort: str = "average_precision") -> str:
        """The tables, the hardest attribute first."""
        columns = ["prevalence", "threshold", *MEASURES, "majority_accuracy"]
        width = max(len("attribute"), *map(len, self.table["attribute"]))
        short = {"average_precision": "AP", "roc_auc": "AUC", "balanced_accuracy": "balanced"}
        short |= {"majority_accuracy": "majority", "prevalence": "share"}

        def line(name: str, values: Mapping[Any, Any]) -> str:
            cells = [f"{values[column]:>9.3f}" if column in values else " " * 9 for column in columns]
            return f"{name:<{width}} {' '.join(cells)}"

        lines = [f"{'attribute':<{width}} " + " ".join(f"{short.get(column, column):>9}" for column in columns)]
        ordered = self.table.sort_values(sort, na_position="first", kind="stable")
        lines += [line(str(row["attribute"]), row) for row in ordered.to_dict("records")]
        return "\n".join([*lines, line("macro", self.macro), line("micro", self.micro)])

    def to_json_dict(self) -> dict[str, Any]:
        """The same as plain numbers; NaN is null."""

        def plain(values: Mapping[Any, Any]) -> dict[str, Any]:
            missing = [key for key, value in values.items() if isinstance(value, float) and np.isnan(value)]
            return {str(key): value for key, value in values.items()} | {str(key): None for key in missing}

        attributes = [plain(row) for row in self.table.to_dict("records")]
        return {"macro": plain(self.macro), "micro": plain(self.micro), "attributes": attributes}


# ---------------------------------------------------------------- numbers


def _check(probs: np.ndarray, labels: np.ndarray) -> None:
    if probs.ndim != 2 or probs.shape != labels.shape:
        raise ValueError(f"probabilities and labels of one shape (N, A) expected, got {probs.shape} and {labels.shape}")


def _platt(logit: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    known = np.isfinite(label)
    logit, truth = np.asarray(logit[known], float), label[known] > 0.5
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return 1.0, 0.0
    target = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    slope, offset = 1.0, 0.0

    def loss(slope: float, offset: float) -> float:
        z = slope * logit + offset
        return float((np.logaddexp(0, z) - target * z).sum())

    now = loss(slope, offset)
    for _ in range(100):
        prob = 0.5 * (1 + np.tanh((slope * logit + offset) / 2))
        gradient = np.array([((prob - target) * logit).sum(), (prob - target).sum()])
        weight = prob * (1 - prob)
        hessian = np.array(
            [[(weight * logit**2).sum(), (weight * logit).sum()], [(weight * logit).sum(), weight.sum()]]
        )
        step = np.linalg.solve(hessian + 1e-9 * np.eye(2), gradient)
        size = 1.0
        while size > 1e-6 and loss(slope - size * step[0], offset - size * step[1]) > now:
            size /= 2  # Newton's step may be too long far from the minimum
        slope, offset = slope - size * step[0], offset - size * step[1]
        before, now = now, loss(slope, offset)
        if before - now < 1e-10 * max(1.0, abs(now)):
            break
    return (float(slope), float(offset)) if slope > 0 else (1.0, 0.0)


def _parse_aim(aim: str) -> tuple[str, float]:
    name, colon, value = aim.partition(":")
    if name in ("f1", "balanced_accuracy", "accuracy") and not colon:
        return name, 0.0
    try:
        least = float(value)
    except ValueError:
        least = -1.0
    if name != "precision" or not 0 < least <= 1:
        raise ValueError(f"aim {aim!r}: expected {AIMS}")
    return name, least


def _threshold(prob: np.ndarray, label: np.ndarray, aim: str, least: float) -> float:
    known = np.isfinite(label)
    prob, truth = np.asarray(prob[known], float), label[known] > 0.5
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return 0.5
    order = np.argsort(-prob, kind="stable")
    values = prob[order]
    # After each run of equal probabilities: how many are called, and how many of them rightly.
    last = np.flatnonzero(np.append(values[:-1] != values[1:], True))
    called = np.append(0, last + 1)
    right = np.append(0, np.cumsum(truth[order])[last])
    edges = np.append(values[last], 0.0)
    limits = np.append(min(1.0, np.nextafter(values[0], 2.0)) if values[0] < 1 else 1.0, (edges[:-1] + edges[1:]) / 2)
    if values[0] >= 1:  # a probability of 1 is always called
        called, right, limits = called[1:], right[1:], limits[1:]
    recall, rejected = right / positives, 1 - (called - right) / negatives
    precision = np.where(called > 0, right / np.maximum(called, 1), 0.0)
    if aim == "f1":
        score = 2 * right / (called + positives)
    elif aim == "balanced_accuracy":
        score = (recall + rejected) / 2
    elif aim == "accuracy":
        score = recall * positives + rejected * negatives
    elif (precision >= least).any():
        score = np.where(precision >= least, recall, -1.0)
    else:
        score = precision
    best = np.flatnonzero(score >= score.max() - 1e-12)
    return float(limits[best[np.argmin(np.abs(limits[best] - 0.5))]])


def _measures(truth: np.ndarray, prob: np.ndarray, answer: np.ndarray) -> dict[str, float]:
    positives, negatives = int(truth.sum()), int((~truth).sum())
    right = int((truth & answer).sum())
    both = positives > 0 and negatives > 0
    recall = right / positives if positives else np.nan
    return {
        "average_precision": float(average_precision_score(truth, prob)) if both else np.nan,
        "roc_auc": float(roc_auc_score(truth, prob)) if both else np.nan,
        "f1": 2 * right / (int(answer.sum()) + positives) if positives else np.nan,
        "balanced_accuracy": (recall + float((~answer[~truth]).mean())) / 2 if both else np.nan,
        "precision": right / int(answer.sum()) if answer.any() else (0.0 if positives else np.nan),
        "recall": recall,
        "accuracy": float((truth == answer).mean()) if len(truth) else np.nan,
    }
