"""`tune_thresholds`: choose the threshold of each attribute that maximizes a measure such as F1."""

from __future__ import annotations

import numpy as np

from attncap.attributes.calibration import check_shapes

AIMS = 'f1, balanced_accuracy, accuracy, or "precision:0.9" (the most recall with precision of at least 0.9)'


def tune_thresholds(probs: np.ndarray, labels: np.ndarray, aim: str = "f1") -> np.ndarray:
    """Choose for each attribute the threshold that is best for an aim on these images.

    An attribute is predicted if its probability is at least the threshold. The candidates are the midpoints between
    neighboring observed probabilities, half of the lowest one, and a value just above the highest one. If several are
    equally good, the one nearest to 0.5 is chosen.

    Args:
        probs: shape (N, A), 0 to 1.
        labels: shape (N, A): 1, 0, or NaN (unknown; ignored).
        aim: "f1", "balanced_accuracy", "accuracy" or "precision:P". "precision:P" maximizes the recall among the
            thresholds with a precision of at least P. If there is none, the threshold with the highest precision is
            chosen.

    Returns:
        thresholds: float64, shape (A,). 0.5 if the labels of an attribute have only one class.

    Raises:
        ValueError: the aim is unknown, or the shapes differ.

    Example:
        >>> tune_thresholds(np.array([[0.1], [0.3], [0.4], [0.9]]), np.array([[0], [0], [1], [1]]), "f1")
        array([0.35])
    """
    check_shapes(probs, labels)
    wanted = check_aim(aim)
    return np.array([_threshold(probs[:, at], labels[:, at], *wanted) for at in range(probs.shape[1])])


def check_aim(aim: str) -> tuple[str, float]:
    """Parse an aim: return its name and P (0 if it has none). Raise ValueError if the aim is unknown."""
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
    # For each candidate: number of images that are predicted positive, and number of true positives.
    last = np.flatnonzero(np.append(values[:-1] != values[1:], True))
    called = np.append(0, last + 1)
    right = np.append(0, np.cumsum(truth[order])[last])
    edges = np.append(values[last], 0.0)
    limits = np.append(min(1.0, np.nextafter(values[0], 2.0)) if values[0] < 1 else 1.0, (edges[:-1] + edges[1:]) / 2)
    if values[0] >= 1:  # a probability of 1 is always predicted positive
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
