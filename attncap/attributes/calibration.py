"""`calibrate`: from logits to calibrated probabilities (Platt scaling), and the error that is left."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression


def calibrate(logits: np.ndarray, labels: np.ndarray, shared: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Fit the slope and offset of each attribute that calibrate its probabilities (Platt scaling).

    P(label) = sigmoid(slope * logit + offset), by logistic regression on these images. Targets lie a little inside 0
    and 1, as in Platt's paper, so that a perfect ranking does not need an infinite slope.

    Args:
        logits: shape (N, A), of images that were not trained on.
        labels: shape (N, A): 1, 0 or NaN, which is left out.
        shared: fit one slope and offset for all attributes: better where each has few ones.

    Returns:
        slopes, offsets: float64, shape (A,); 1 and 0 where only one class is labeled, or the ranking is upside down.

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
    """Return the expected calibration error over all known labels: |share of ones - mean probability|, by bins.

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
    """Raise ValueError unless both have one shape (N, A)."""
    if probs.ndim != 2 or probs.shape != labels.shape:
        raise ValueError(f"probabilities and labels of one shape (N, A) expected, got {probs.shape} and {labels.shape}")


def _platt(logit: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    known = np.isfinite(label)
    logit, truth = np.asarray(logit[known], float), label[known] > 0.5
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return 1.0, 0.0
    target = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    # A target t between 0 and 1 is an image of class 1 with weight t and one of class 0 with weight 1 - t.
    regression = LogisticRegression(C=np.inf, solver="newton-cholesky", max_iter=200)
    classes = np.repeat([1, 0], len(logit))
    regression.fit(np.tile(logit, 2)[:, None], classes, sample_weight=np.concatenate([target, 1 - target]))
    slope, offset = float(regression.coef_[0, 0]), float(regression.intercept_[0])
    return (slope, offset) if slope > 0 else (1.0, 0.0)
