"""Integrated gradients: attribute the log-probability of a word to the cells of the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from attncap.explain.occlusion import Baseline, baseline_of
from attncap.models.captioner import CaptionerState, forbidden_logits
from attncap.tokenizers import START


def gradient_of(function: Callable[[Any], Any], values: np.ndarray) -> np.ndarray:
    """Compute the gradient of a scalar function with the current Keras backend.

    `keras.ops` has no function for gradients, so this function calls the one of the backend.

    Args:
        function: takes a tensor of the shape of `values` and returns a scalar tensor. It uses only `keras.ops` and
            Keras layers.
        values: float32, the point at which the gradient is computed.

    Returns:
        gradient: float32, the shape of `values`. It is 0 if the function does not depend on them.

    Raises:
        ValueError: the backend is not tensorflow, jax or torch.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        given = tf.convert_to_tensor(values)
        with tf.GradientTape() as tape:
            tape.watch(given)
            result = function(given)
        return tape.gradient(result, given, unconnected_gradients="zero").numpy()
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(function)(jax.numpy.asarray(values)))
    if backend == "torch":
        import torch

        given = torch.tensor(values, requires_grad=True)
        (found,) = torch.autograd.grad(function(given), given, allow_unused=True)
        return np.zeros_like(values) if found is None else found.detach().cpu().numpy()
    raise ValueError(f"gradients need the backend tensorflow, jax or torch, got {backend}: take method='occlusion'")


def integrated_gradients(
    score: Callable[[Any], Any], features: np.ndarray, count: int, baseline: Baseline = "mean", steps: int = 16
) -> np.ndarray:
    """Attribute the outputs of a model to the cells of its features by integrated gradients.

    The gradients are averaged along the straight line from a baseline F' to the features F:

        r(l) = sum_d (F - F')_{l,d} * 1/m sum_{k=1..m}  d f / d F_{l,d}  at  F' + (k - 1/2)/m (F - F')

    This is the midpoint rule. As m grows, the sum of r over all cells approaches f(F) - f(F') ("completeness").

    Args:
        score: takes features, shape (W, rows, cols, D), and returns a scalar tensor: the sum over i of output i,
            computed from the i-th features.
        features: F, shape (rows, cols, D).
        count: W, number of outputs.
        baseline: F', see `baseline_of`.
        steps: m, number of points on the line.

    Returns:
        relevance: float64, shape (W, rows, cols).

    Raises:
        ValueError: `steps` is below 1, or the baseline is invalid.

    Reference: Sundararajan, Taly and Yan 2017, "Axiomatic Attribution for Deep Networks", section 3.
    """
    if steps < 1:
        raise ValueError(f"steps needs at least 1, got {steps}")
    features = np.asarray(features, np.float32)
    difference = features - baseline_of(features, baseline)
    total = np.zeros((count, *features.shape[:2]))
    if not count:
        return total
    for k in range(steps):
        point = features - (1 - (k + 0.5) / steps) * difference
        gradient = gradient_of(score, np.repeat(point[None].astype(np.float32), count, axis=0))
        total += (gradient * difference).sum(axis=-1)  # (W, rows, cols)
    return total / steps


def word_scores(captioner: Any, token_ids: Sequence[int], groups: Sequence[Sequence[int]]) -> Callable[[Any], Any]:
    """Build the score function of a caption for `integrated_gradients`.

    The function is the sum over the words w of the log-probability of word w, computed from the w-th features. It runs
    the decoding steps in a Python loop, because JAX cannot differentiate the loop of `replay` in reverse mode.

    Args:
        captioner: a captioner of any kind, or an `Ensemble`.
        token_ids: the T tokens of the caption, without `<start>`.
        groups: for each of the W words, the positions of its tokens; see `token_groups`.

    Returns:
        score: takes features, shape (W, rows, cols, D), and returns a scalar tensor.
    """
    chosen = np.zeros((len(groups), len(token_ids)), np.float32)  # (W, T): 1 if the token belongs to the word
    for word, where in enumerate(groups):
        chosen[word, list(where)] = 1.0

    def score(features: Any) -> Any:
        state = captioner.init_state(features, captions=1)
        previous, total = START, 0.0
        for position, token_id in enumerate(token_ids):
            logits, after, _ = captioner.step(ops.full((len(groups), 1), previous, dtype="int32"), state)
            state = CaptionerState(state.memory, after.recurrent)
            logits = ops.cast(logits, "float32") + forbidden_logits(logits.shape[-1])
            log_probs = ops.log_softmax(logits, axis=-1)[:, 0, token_id]  # (W,)
            total = total + ops.sum(log_probs * chosen[:, position])
            previous = token_id
        return total

    return score
