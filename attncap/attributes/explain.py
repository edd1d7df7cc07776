"""Explain attributes: find the parts of the image that make an attribute probable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from keras import ops

from attncap.attributes.attention_head import AttentionHead
from attncap.attributes.classifier import AttributeClassifier
from attncap.attributes.encoder import split_grids
from attncap.captions import Caption
from attncap.explain.gradients import compiled_gradient, integrated_gradients
from attncap.explain.methods import METHODS, Method
from attncap.explain.occlusion import baseline_of, hide, mean_drops, to_maps, windows_of
from attncap.features.pipeline import encode_batch
from attncap.grounding.phrases import cell_cover
from attncap.images import AnyImage


def explain_attribute(
    classifier: AttributeClassifier,
    image: AnyImage,
    names: str | Sequence[str] | None = None,
    method: Method = "occlusion",
    *,
    baseline: Literal["mean", "zero"] = "mean",
    steps: int = 16,
) -> Caption:
    """Explain attributes of an image by maps: for each attribute, the parts of the image that make it probable.

    The features of a classifier are grids of several layers. A map has the cells of the finest grid.

    * "occlusion" hides one cell of the finest grid at a time, and the same part of the image in all other grids. It
      measures the fall of the calibrated log-odds.
    * "gradient" computes integrated gradients of the calibrated log-odds. The relevance of a coarse cell is divided
      among the cells of the finest grid that it covers, in proportion to the area.
    * "attention" needs a classifier with `AttentionHead`s. It shows how much each region adds to the logit: its
      attention weight times its value, see `AttentionHead.contributions`. The contributions of all regions and a bias
      add up to the logit, so the contributions of the grids can be added. Coarse cells are divided as above. Attention
      weights alone are also large in regions that are attended but add nothing: over the claims of 40 faces, the rank
      correlation with occlusion is 0.20 for the weights and 0.89 for the contributions.

    Args:
        classifier: from `load_classifier`.
        image: an image (file, Pillow image or array), or the features of one image, shape (1, 1, D).
        names: the attributes. None: the attributes whose probability reaches their threshold.
        method: "occlusion", "gradient" or "attention".
        baseline: for occlusion and gradient: replacement of hidden features, "mean" (over the cells of the image, in
            each grid) or "zero".
        steps: for gradient: number of points between the baseline and the features.

    Returns:
        caption: a `Caption` whose words are the attributes, so that `plot_attention`, `plot_word` and `explore` can
            show it. `attention_weights` are the maps, `word_log_probs` the logarithms of the probabilities.

    Raises:
        ValueError: an attribute or the method is unknown, the method is "attention" and the classifier has no
            attention heads, or `image` is an image and the classifier has no encoder.
        UnreadableImage: the file is not an image, or it is damaged.

    Example:
        >>> classifier = load_classifier("runs/attributes")
        >>> attncap.plot_attention("me.jpg", attncap.explain_attribute(classifier, "me.jpg", "Smiling"))

    Reference: Zeiler and Fergus 2014; Sundararajan et al. 2017; Kobayashi et al. 2020, "Attention is not only a
    weight".
    """
    if method not in METHODS:
        raise ValueError(f"method is one of {', '.join(METHODS)}, got {method!r}")
    if method == "attention" and not classifier.attention:
        raise ValueError("this classifier has no attention: take method='occlusion' or method='gradient'")
    given: Any = image
    if not (isinstance(image, np.ndarray) and image.size == classifier.feature_size):
        if classifier.encoder is None:
            raise ValueError(
                f"this classifier holds no encoder: give features of {classifier.feature_size} numbers, not an image"
            )
        given = encode_batch(classifier.encoder, [image])[0]
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
    elif method == "attention":
        relevance = _attention(classifier, flat, chosen)
    else:
        relevance = _gradient(classifier, flat, chosen, baseline, steps)
    log_probs = np.log(np.maximum(probs[chosen], 1e-30)).astype(np.float32)
    return Caption(tuple(names), (), float(log_probs.sum()), to_maps(relevance), log_probs)


def _occlusion(classifier: AttributeClassifier, flat: np.ndarray, chosen: list[int], baseline: str) -> np.ndarray:
    finest = _finest(classifier)
    windows = windows_of(*finest, 1)  # (n, rows, cols): single cells
    hidden = []
    for (rows, cols, size), cells in zip(classifier.grids, split_grids(flat[None], classifier.grids), strict=True):
        grid = cells.reshape(rows, cols, size)
        covers = np.stack([cell_cover(box, rows, cols) for box in _boxes(*finest)])  # (n, rows, cols)
        hidden.append(hide(grid, covers, baseline_of(grid, baseline)).reshape(len(windows), -1))  # (n, D of the grid)
    both = np.concatenate([flat[None], np.concatenate(hidden, axis=1)])  # (1 + n, D)
    logits = classifier.mean_logits(both[:, None, None])  # (1 + n, A)
    return mean_drops((classifier.slopes * logits + classifier.offsets)[:, chosen], windows)


def _attention(classifier: AttributeClassifier, flat: np.ndarray, chosen: list[int]) -> np.ndarray:
    finest = _finest(classifier)
    total = np.zeros((len(chosen), *finest))
    for head in classifier.heads:
        assert isinstance(head, AttentionHead)
        for grid, added in zip(classifier.grids, head.contributions(flat[None]), strict=True):
            own = np.asarray(ops.convert_to_numpy(added))[0].T[chosen]  # (W, L)
            total += _spread(own, grid, finest)
    return total


def _spread(relevance: np.ndarray, grid: Sequence[int], finest: tuple[int, int]) -> np.ndarray:
    """Divide the relevance, shape (W, L), of the cells of a grid among the cells of the finest grid, by area.

    Returns:
        relevance: shape (W, rows, cols).
    """
    rows, cols = grid[:2]
    shares = np.stack([cell_cover(box, rows, cols) for box in _boxes(*finest)])  # (n, rows, cols): of each coarse cell
    return np.einsum("wrc,nrc->wn", relevance.reshape(-1, rows, cols), shares).reshape(-1, *finest)


def _gradient(
    classifier: AttributeClassifier, flat: np.ndarray, chosen: list[int], baseline: str, steps: int
) -> np.ndarray:
    finest, grids = _finest(classifier), classifier.grids
    bases = [
        baseline_of(cells.reshape(grid), baseline).reshape(-1)
        for grid, cells in zip(grids, split_grids(flat[None], grids), strict=True)
    ]
    picked = np.zeros((len(chosen), len(classifier.names)), np.float32)
    picked[np.arange(len(chosen)), chosen] = np.asarray(classifier.slopes, np.float32)[chosen]

    def score(features: Any, picked: Any) -> Any:  # (n, 1, D, 1), (n, A)
        logits = ops.mean(ops.cast(classifier(ops.squeeze(features, -1)), "float32"), axis=1)  # (n, A)
        return ops.sum(logits * picked)

    compiled_score = compiled_gradient(score, classifier)

    def gradient(several: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        return compiled_score(several, picked[outputs])

    base = np.concatenate(bases)[None, :, None]  # (1, D, 1): each feature is treated as a cell with one channel
    relevance = integrated_gradients(gradient, flat[None, :, None], len(chosen), base, steps)[:, 0]  # (W, D)
    total = np.zeros((len(chosen), *finest))
    for grid, cells in zip(grids, split_grids(relevance, grids), strict=True):
        total += _spread(cells.sum(axis=-1), grid, finest)  # (W, L) to (W, rows, cols)
    return total


def _finest(classifier: AttributeClassifier) -> tuple[int, int]:
    rows, cols, _ = max(classifier.grids, key=lambda grid: grid[0] * grid[1])
    return rows, cols


def _boxes(rows: int, cols: int) -> list[np.ndarray]:
    """Return the cells of a grid, row by row, as boxes (left, top, right, bottom), 0 to 1, shape (1, 4) each."""
    return [
        np.array([[col / cols, row / rows, (col + 1) / cols, (row + 1) / rows]])
        for row in range(rows)
        for col in range(cols)
    ]
