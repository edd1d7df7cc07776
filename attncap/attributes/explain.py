"""Explain attributes: which parts of the image speak for an attribute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from keras import ops

from attncap.attributes.classifier import AttributeClassifier
from attncap.captions import Caption
from attncap.explain.gradients import integrated_gradients
from attncap.explain.occlusion import baseline_of, hide, mean_drops, to_maps, windows_of
from attncap.explain.words import encode_image
from attncap.grounding.phrases import cell_cover
from attncap.images import AnyImage


def explain_attribute(
    classifier: AttributeClassifier,
    picture: AnyImage,
    names: str | Sequence[str] | None = None,
    method: Literal["occlusion", "gradient"] = "occlusion",
    *,
    baseline: Literal["mean", "zero"] = "mean",
    steps: int = 16,
) -> Caption:
    """Explain attributes of an image: for each, a map of the parts that speak for it.

    What is explained is the calibrated log-odds of the attribute. The features of a classifier are grids of several
    layers. "occlusion" hides, for each cell of the finest grid, the same part of the image in all grids; "gradient"
    gives a cell of a coarse grid to the finer cells below it, by area. Both as in `attncap.explain_word`.

    Args:
        classifier: from `load_classifier`.
        picture: features of one image, shape (1, 1, D), or an image: file, Pillow image, or array.
        names: the attributes; default: those that the classifier says the image has.
        method: "occlusion" (any part by itself) or "gradient" (integrated gradients).
        baseline: what stands in place of hidden features: "mean" of the image's own cells in each grid, or "zero".
        steps: of gradient: points between baseline and image.

    Returns:
        caption: a `Caption` whose words are the attributes, so that `plot_attention`, `plot_word` and `explore` draw
            it: `attention_weights` are the maps, `word_log_probs` the logarithms of the probabilities.

    Raises:
        ValueError: an unknown attribute or method, a classifier without encoder for an image.
        UnreadableImage: the file is no image, or damaged.

    Example:
        >>> classifier = load_classifier("runs/attributes")
        >>> attncap.plot_attention("me.jpg", attncap.explain_attribute(classifier, "me.jpg", "Smiling"))

    Reference: Zeiler and Fergus 2014; Sundararajan et al. 2017.
    """
    if method not in ("occlusion", "gradient"):
        raise ValueError(f"method is 'occlusion' or 'gradient', got {method!r}")
    given: Any = picture
    if not (isinstance(picture, np.ndarray) and picture.size == classifier.feature_size):
        if classifier.encoder is None:
            raise ValueError(
                f"this classifier holds no encoder: give features of {classifier.feature_size} numbers, not an image"
            )
        given = encode_image(classifier.encoder, picture)
    flat = np.asarray(given, np.float32).reshape(-1)  # (D,)
    probs = classifier.probabilities(flat[None, None, None])[0]
    if names is None:
        names = [name for name, has in zip(classifier.names, probs >= classifier.thresholds, strict=True) if has]
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if name not in classifier.names:
            raise ValueError(f"{name!r} is no attribute of this classifier: choose of {', '.join(classifier.names)}")
    chosen = [classifier.names.index(name) for name in names]
    if method == "occlusion":
        relevance = _occlusion(classifier, flat, chosen, baseline)
    else:
        relevance = _gradient(classifier, flat, chosen, baseline, steps)
    log_probs = np.log(np.maximum(probs[chosen], 1e-30)).astype(np.float32)
    return Caption(tuple(names), (), float(log_probs.sum()), to_maps(relevance), log_probs)


def _occlusion(classifier: AttributeClassifier, flat: np.ndarray, chosen: list[int], baseline: str) -> np.ndarray:
    finest = _finest(classifier)
    windows = windows_of(*finest, 1)  # (n, rows, cols): single cells
    parts = [flat[None]]
    hidden = []
    for (rows, cols, size), start in zip(classifier.grids, _starts(classifier), strict=True):
        grid = flat[start : start + rows * cols * size].reshape(rows, cols, size)
        covers = np.stack([cell_cover(box, rows, cols) for box in _boxes(*finest)])  # (n, rows, cols)
        hidden.append(hide(grid, covers, baseline_of(grid, baseline)).reshape(len(windows), -1))  # (n, D of the grid)
    parts.append(np.concatenate(hidden, axis=1))  # (n, D)
    logits = classifier.mean_logits(np.concatenate(parts)[:, None, None])  # (1 + n, A)
    return mean_drops((classifier.slopes * logits + classifier.offsets)[:, chosen], windows)


def _gradient(
    classifier: AttributeClassifier, flat: np.ndarray, chosen: list[int], baseline: str, steps: int
) -> np.ndarray:
    rows, cols = _finest(classifier)
    total = np.zeros((len(chosen), rows, cols))
    starts = _starts(classifier)
    bases = [
        baseline_of(flat[start : start + r * c * size].reshape(r, c, size), baseline).reshape(-1)
        for (r, c, size), start in zip(classifier.grids, starts, strict=True)
    ]
    slopes = np.asarray(classifier.slopes, np.float32)

    def score(features: Any) -> Any:  # (W, 1, D, 1)
        heads = ops.cast(classifier(ops.squeeze(features, -1)), "float32")  # (W, M, A)
        logits = ops.sum(heads * np.array(classifier.shares, np.float32)[:, None], axis=1)  # (W, A)
        picked = np.zeros((len(chosen), len(classifier.names)), np.float32)
        picked[np.arange(len(chosen)), chosen] = slopes[chosen]
        return ops.sum(logits * picked)

    base = np.concatenate(bases)[None, :, None]  # (1, D, 1): every feature is a cell of one number
    relevance = integrated_gradients(score, flat[None, :, None], len(chosen), base, steps)[:, 0]  # (W, D)
    for (r, c, size), start in zip(classifier.grids, starts, strict=True):
        own = relevance[:, start : start + r * c * size].reshape(-1, r, c, size).sum(axis=-1)  # (W, r, c)
        shares = np.stack([cell_cover(box, r, c) for box in _boxes(rows, cols)])  # (n, r, c): of each coarse cell
        total += np.einsum("wrc,nrc->wn", own, shares).reshape(-1, rows, cols)
    return total


def _finest(classifier: AttributeClassifier) -> tuple[int, int]:
    rows, cols, _ = max(classifier.grids, key=lambda grid: grid[0] * grid[1])
    return rows, cols


def _starts(classifier: AttributeClassifier) -> list[int]:
    """Where the numbers of each grid begin in the features."""
    sizes = [rows * cols * size for rows, cols, size in classifier.grids]
    return [sum(sizes[:at]) for at in range(len(sizes))]


def _boxes(rows: int, cols: int) -> list[np.ndarray]:
    """The cells of a grid, row by row, as boxes of fractions, each of shape (1, 4)."""
    return [
        np.array([[col / cols, row / rows, (col + 1) / cols, (row + 1) / rows]])
        for row in range(rows)
        for col in range(cols)
    ]
