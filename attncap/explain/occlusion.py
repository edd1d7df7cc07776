"""Occlusion: hide one part of the image at a time, and measure how much the probability of each word falls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Baseline = str | np.ndarray
SMALL_GRID = 100  # number of cells up to which a window is a single cell


def baseline_of(features: np.ndarray, baseline: Baseline = "mean", there: np.ndarray | None = None) -> np.ndarray:
    """Compute the features that replace hidden cells: float32, shape (rows, cols, D).

    Args:
        features: shape (rows, cols, D).
        baseline: "mean" (the mean over the cells of the image), "zero", or an array that broadcasts to
            (rows, cols, D), such as the mean features of a data set, shape (D,).
        there: bool, shape (rows, cols), False on padding, see `attncap.models.captioner.regions_there`. Padding stays
            zero, and the mean ignores it. None: no cell is padding.

    Raises:
        ValueError: `baseline` is another string, or an array that does not broadcast.
    """
    features = np.asarray(features, np.float32)
    there = np.ones(features.shape[:2], bool) if there is None else there
    if not isinstance(baseline, str):
        values = np.asarray(baseline, np.float32)
    elif baseline == "mean":
        values = features[there].mean(axis=0)
    elif baseline == "zero":
        values = np.zeros(features.shape[-1], np.float32)
    else:
        raise ValueError(f"baseline is 'mean', 'zero' or an array, got {baseline!r}")
    try:
        return np.broadcast_to(values, features.shape) * there[..., None]
    except ValueError:
        raise ValueError(
            f"baseline needs a shape that broadcasts to (rows, cols, D) = {features.shape}, got {values.shape}"
        ) from None


def hide(features: np.ndarray, cover: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Replace cells of features by a baseline: features + cover * (baseline - features).

    Args:
        features, baseline: shape (rows, cols, D).
        cover: shape (..., rows, cols), from 0 (unchanged) to 1 (hidden).

    Returns:
        hidden: float32, shape (..., rows, cols, D).
    """
    features = np.asarray(features, np.float32)
    return features + cover[..., None].astype(np.float32) * (baseline - features)  # (..., rows, cols, D)


def windows_of(rows: int, cols: int, window: int | None = None) -> np.ndarray:
    """Return the n windows that occlusion hides, one at a time: bool, shape (n, rows, cols).

    A window is a square of cells, cut off at the border of the grid. The centers of the windows are `window // 2`
    cells apart, at least 1.

    Args:
        rows, cols: size of the grid.
        window: side of a window in cells. None: 1 on grids of up to 100 cells and in a single row, which holds regions
            that are not a grid (neighbors in the row are not neighbors in the image), else 3.

    Raises:
        ValueError: `window` is below 1.
    """
    if window is None:
        window = 1 if rows == 1 or rows * cols <= SMALL_GRID else 3
    if window < 1:
        raise ValueError(f"window is a number of cells of at least 1, got {window}")
    spans = []
    for cells in (rows, cols):
        centers = np.arange(0, cells, max(window // 2, 1))[:, None]  # (n, 1)
        at = np.arange(cells)
        spans.append((at >= centers - (window - 1) // 2) & (at <= centers + window // 2))  # (n, cells)
    down, across = spans
    return (down[:, None, :, None] & across[None, :, None, :]).reshape(-1, rows, cols)


def occlusion_relevance(
    read: Callable[[np.ndarray], np.ndarray],
    features: np.ndarray,
    baseline: Baseline = "mean",
    window: int | None = None,
) -> np.ndarray:
    """Measure how much the outputs of a model fall when each part of the image is hidden.

        r(l) = mean over the windows w that contain cell l of  f(features) - f(features with the cells of w replaced)

    Args:
        read: takes features, shape (n, rows, cols, D), and returns outputs, shape (n, W), such as the
            log-probabilities of W words.
        features: shape (rows, cols, D).
        baseline: replacement of hidden cells, see `baseline_of`.
        window: side of a window in cells, see `windows_of`.

    Returns:
        relevance: float64, shape (W, rows, cols). It is positive where hiding the cell lowers the output. Changes that
            are NaN or infinite, such as those of a word outside the vocabulary, count as 0.

    Raises:
        ValueError: the baseline or the window is invalid.

    Reference: Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2. They hide
        pixels; here cells of the encoder's grid are hidden, because these are the input of the captioner.
    """
    rows, cols = features.shape[:2]
    windows = windows_of(rows, cols, window)
    hidden = hide(features, windows, baseline_of(features, baseline))  # (n, rows, cols, D)
    return mean_drops(read(np.concatenate([np.asarray(features, np.float32)[None], hidden])), windows)


def mean_drops(outputs: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Compute for each cell the mean fall of the outputs over the windows that contain the cell.

    Args:
        outputs: shape (1 + n, W): first of the whole image, then with each window hidden.
        windows: bool, shape (n, rows, cols), see `windows_of`.

    Returns:
        relevance: float64, shape (W, rows, cols). Falls that are NaN or infinite count as 0.
    """
    outputs = np.asarray(outputs, np.float64)
    with np.errstate(invalid="ignore"):
        drops = outputs[:1] - outputs[1:]  # (n, W)
    drops = np.where(np.isfinite(drops), drops, 0.0)
    return np.einsum("nw,nrc->wrc", drops, windows) / windows.sum(axis=0)


def to_maps(relevance: np.ndarray, there: np.ndarray | None = None) -> np.ndarray:
    """Convert relevance to maps: the positive part divided by its sum, or a uniform map if no cell is positive.

    Args:
        relevance: shape (W, rows, cols), any sign.
        there: bool, shape (rows, cols), False on padding, where maps are 0; None: no cell is padding.

    Returns:
        maps: float32, shape (W, rows, cols), non-negative, each summing to 1.

    Example:
        >>> to_maps(np.array([[[3.0, -1.0, 1.0]]]))
        array([[[0.75, 0.  , 0.25]]], dtype=float32)
    """
    cells = np.ones(relevance.shape[1:]) if there is None else there.astype(float)
    positive = np.maximum(np.asarray(relevance, np.float64), 0.0) * cells
    sums = positive.sum(axis=(1, 2), keepdims=True)
    uniform = cells / max(cells.sum(), 1)
    maps: Any = np.where(sums > 0, positive / np.where(sums > 0, sums, 1.0), uniform)
    return maps.astype(np.float32)
