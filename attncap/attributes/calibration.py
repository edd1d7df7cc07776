"""`calibrate`: turn logits into calibrated probabilities (Platt scaling). `calibration_error`: measure the result."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression


def calibrate(logits: np.ndarray, labels: np.ndarray, shared: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Fit one slope and one offset per attribute that calibrate its probabilities (Platt scaling).

    The model is P(label = 1) = sigmoid(slope * logit + offset), fitted by logistic regression. As in Platt's paper, the
    targets are slightly above 0 and slightly below 1. Without this, logits that separate the classes perfectly would
    give an infinite slope.

    Args:
        logits: shape (N, A). Use images that the classifier was not trained on.
        labels: shape (N, A): 1, 0, or NaN (unknown; ignored).
        shared: fit one slope and one offset for all attributes. This is better if the attributes have few positive
            labels.

    Returns:
        slopes, offsets: float64, shape (A,). An attribute gets 1 and 0 (no calibration) if its labels have only one
            class, or if the fitted slope is not positive.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> slopes, offsets = calibrate(logits, labels)
        >>> probs = 1 / (1 + np.exp(-(slopes * logits + offsets)))

    Reference: Platt 1999; Lin, Lin and Weng 2007, "A note on Platt's probabilistic outputs".
    """
    check_shapes(logits, labels)
    count = logits.shape[1]
    if shared:
        slope, offset = _platt(logits.ravel(), labels.ravel())
        return np.full(count, slope), np.full(count, offset)
    fits = [_platt(logits[:, at], labels[:, at]) for at in range(count)]
    return np.array([slope for slope, _ in fits]), np.array([offset for _, offset in fits])


def calibration_error(probs: np.ndarray, labels: np.ndarray, bins: int = 10) -> float:
    """Compute the expected calibration error over all known labels of all attributes.

    Each bin of probabilities contributes |share of positive labels - mean probability|, weighted by its number of
    labels.

    Args:
        probs: shape (N, A), 0 to 1.
        labels: shape (N, A): 1, 0, or NaN (unknown; ignored).
        bins: number of bins of equal width between 0 and 1.

    Example:
        >>> calibration_error(np.full((4, 1), 0.75), np.array([[1], [1], [1], [0]]))
        0.0
    """
    check_shapes(probs, labels)
    known = np.isfinite(labels)
    prob, truth = probs[known], labels[known]
    place = np.minimum((prob * bins).astype(int), bins - 1)
    gap = np.bincount(place, truth - prob, minlength=bins)
    return float(np.abs(gap).sum() / max(1, len(prob)))


def check_shapes(probs: np.ndarray, labels: np.ndarray) -> None:
    """Raise ValueError unless both arrays have the same shape (N, A)."""
    if probs.ndim != 2 or probs.shape != labels.shape:
        raise ValueError(f"probabilities and labels of one shape (N, A) expected, got {probs.shape} and {labels.shape}")


def _platt(logit: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    known = np.isfinite(label)
    logit, truth = np.asarray(logit[known], float), label[known] > 0.5
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return 1.0, 0.0
    target = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    # scikit-learn takes no targets between 0 and 1. Each image occurs twice: as class 1 with weight t, as class 0 with
    # weight 1 - t.
    regression = LogisticRegression(C=np.inf, solver="newton-cholesky", max_iter=200)
    classes = np.repeat([1, 0], len(logit))
    regression.fit(np.tile(logit, 2)[:, None], classes, sample_weight=np.concatenate([target, 1 - target]))
    slope, offset = float(regression.coef_[0, 0]), float(regression.intercept_[0])
    return (slope, offset) if slope > 0 else (1.0, 0.0)
