"""Integrated gradients: attribute the log-probability of a word to the cells of the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from attncap.decoding.compilation import compiled_for_each_shape, filled, to_numpy
from attncap.explain.occlusion import Baseline, baseline_of
from attncap.models.captioner import CaptionerState, forbidden_logits
from attncap.tokenizers import START


def compiled_gradient(function: Callable[..., Any], model: Any = None) -> Callable[..., np.ndarray]:
    """Return a function that computes the gradient of a scalar function with the current Keras backend.

    `keras.ops` has no function for gradients, so this function calls the one of the backend. TensorFlow and JAX compile
    it once for each shape of the arguments.

    Args:
        function: takes a tensor and further tensors, and returns a scalar tensor. It uses only `keras.ops` and Keras
            layers.
        model: whose variables the function reads, see `compiled`.

    Returns:
        gradient: takes the arrays of the arguments, the first in float32, and returns the gradient with respect to the
            first: float32, its shape. It is 0 if the function does not depend on it.

    Raises:
        ValueError: the backend is not tensorflow, jax or torch.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        def gradient(values: Any, *others: Any) -> Any:
            values = tf.convert_to_tensor(values)
            with tf.GradientTape() as tape:
                tape.watch(values)
                result = function(values, *others)
            return tape.gradient(result, values, unconnected_gradients="zero")
    elif backend == "jax":
        import jax

        gradient = jax.grad(function)
    elif backend == "torch":
        import torch

        def gradient(values: Any, *others: Any) -> Any:
            values = torch.tensor(values, requires_grad=True)
            (found,) = torch.autograd.grad(function(values, *others), values, allow_unused=True)
            return torch.zeros_like(values) if found is None else found
    else:
        raise ValueError(f"gradients need the backend tensorflow, jax or torch, got {backend}: take method='occlusion'")
    run = compiled_for_each_shape(gradient, model)
    return lambda *arguments: to_numpy([run(*arguments)])[0]


def integrated_gradients(
    gradient: Callable[[np.ndarray, np.ndarray], np.ndarray],
    features: np.ndarray,
    count: int,
    baseline: Baseline = "mean",
    steps: int = 16,
    batch_size: int = 64,
) -> np.ndarray:
    """Attribute the outputs of a model to the cells of its features by integrated gradients.

    The gradients are averaged along the straight line from a baseline F' to the features F:

        r(l) = sum_d (F - F')_{l,d} * 1/m sum_{k=1..m}  d f / d F_{l,d}  at  F' + (k - 1/2)/m (F - F')

    This is the midpoint rule. As m grows, the sum of r over all cells approaches f(F) - f(F') ("completeness").

    Args:
        gradient: takes n features, shape (n, rows, cols, D), and the numbers of n outputs, and returns the gradient of
            each output with respect to its features, see `compiled_gradient`. n is always `batch_size`.
        features: F, shape (rows, cols, D).
        count: W, number of outputs.
        baseline: F', see `baseline_of`.
        steps: m, number of points on the line.
        batch_size: n, gradients per pass. The last batch is filled up with zeros and output 0.

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
    outputs, points = np.divmod(np.arange(count * steps), steps)  # (W m,) each
    back = (1 - (points + 0.5) / steps)[:, None, None, None]  # how far before F
    for start in range(0, count * steps, batch_size):
        part = slice(start, start + batch_size)
        several = (features - back[part] * difference).astype(np.float32)  # (n, rows, cols, D)
        found = gradient(filled(several, batch_size), filled(outputs[part], batch_size))[: len(several)]
        np.add.at(total, outputs[part], (found * difference).sum(axis=-1))  # (n, rows, cols) to (W, rows, cols)
    return total / steps


def word_score(captioner: Any) -> Callable[[Any, Any, Any], Any]:
    """Build the function whose gradient explains words: the log-probabilities of tokens of a caption, summed.

    The decoding steps run in `ops.scan`, because JAX cannot differentiate the loop of `replay` in reverse mode.

    Args:
        captioner: a captioner of any kind, or an `Ensemble`.

    Returns:
        score: takes n features, shape (n, rows, cols, D), the tokens of one caption without `<start>`, int of shape
            (T,), and which of them count, float32 of shape (n, T). It returns a scalar tensor: the sum over i of the
            log-probabilities of the i-th row's tokens, computed from the i-th features.
    """

    def score(features: Any, token_ids: Any, chosen: Any) -> Any:
        def step(carry: Any, read: Any) -> tuple[Any, Any]:
            recurrent, total = carry
            previous, target, weight = read
            token = ops.broadcast_to(previous, (batch, 1))
            logits, after, _ = captioner.step(token, CaptionerState(state.memory, recurrent))
            logits = ops.cast(logits, "float32") + forbidden_logits(logits.shape[-1])
            log_probs = ops.take(ops.log_softmax(logits[:, 0], axis=-1), target, axis=-1)  # (n,)
            return (after.recurrent, total + ops.sum(log_probs * weight)), None

        batch = ops.shape(features)[0]
        state = captioner.init_state(features, captions=1)
        token_ids = ops.cast(token_ids, "int32")
        inputs = ops.concatenate([ops.full((1,), START, dtype="int32"), token_ids[:-1]])
        reads = (inputs, token_ids, ops.transpose(chosen))  # (T,), (T,), (T, n)
        (_, total), _ = ops.scan(step, (state.recurrent, ops.zeros(())), reads)
        return total

    return score
