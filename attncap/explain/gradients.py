"""Integrated gradients: attribute a word's log-probability to the cells of the image."""

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
    """Return the gradient of a scalar function at values, with the backend in use.

    `keras.ops` has no gradient, so each backend's own is called here, and nowhere else in this room.

    Args:
        function: a tensor of the shape of values -> a scalar tensor; of `keras.ops` and Keras layers.
        values: float32.

    Returns:
        gradient: float32, the shape of values; 0 where the function does not depend on them.
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
    """Attribute outputs of a model to the cells of its features, along a straight line from a baseline.

        r(l) = sum_d (F - F')_{l,d} * 1/m sum_{k=1..m}  d f / d F_{l,d}  at  F' + (k - 1/2)/m (F - F')

    The midpoint rule; the sum of r over all cells approaches f(F) - f(F') as m grows ("completeness").

    Args:
        score: features (count, rows, cols, D) -> scalar: the sum over i of output i, read from the i-th features.
        features: F, shape (rows, cols, D).
        count: number of outputs, W.
        baseline: F', see `baseline_of`.
        steps: m.

    Returns:
        relevance: float64, shape (W, rows, cols).

    Raises:
        ValueError: steps below 1.

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
    """Return the function of features (W, rows, cols, D) that `integrated_gradients` takes: the sum over words w of
    the log-probability of word w, read from the w-th features.

    The steps are unrolled: JAX cannot differentiate the loop of `replay` backward.
    """
    chosen = np.zeros((len(groups), len(token_ids)), np.float32)  # (W, T): which tokens belong to which word
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
