"""`fast_recurrence`: a faster training pass of `AttentionCaptioner` on TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from keras import ops

from attncap.models.attention import BahdanauAttention, masked_scores
from attncap.models.attention_captioner import AttentionCaptioner
from attncap.models.captioner import Captioner, CaptionerState


@contextmanager
def fast_recurrence(captioner: Captioner) -> Iterator[None]:
    """Train a captioner faster inside the `with` block. The general pass differentiates `ops.scan`; this one

    - leaves the scores w . tanh(W_q q + keys) and their gradient to XLA, which stores no tanh and computes it again;
    - computes the gradient of a weight after the loop, as one matrix product over all words, not one at each word;
    - multiplies all words by their part of the GRU's weights at once, before the loop.

    Sums are in another order, so that results differ from those of the general pass by rounding.

    Raises:
        ValueError: another captioner than `AttentionCaptioner`.
    """
    if type(captioner) is not AttentionCaptioner or type(captioner.attention) is not BahdanauAttention:
        raise ValueError(f"fast_recurrence is of AttentionCaptioner, got {type(captioner).__name__}: leave it out")

    def run(state: CaptionerState, embedded: Any, training: bool = False) -> dict[str, Any]:
        if training:
            return _run(captioner, state, embedded)
        return AttentionCaptioner.run(captioner, state, embedded)

    captioner.run = run  # type: ignore[method-assign]
    try:
        yield
    finally:
        del captioner.run


def _run(captioner: AttentionCaptioner, state: CaptionerState, embedded: Any) -> dict[str, Any]:
    dtype, captions, size = captioner.compute_dtype, embedded.shape[1], embedded.shape[-1]
    units = 3 * captioner.hidden_units
    values, keys, mask = state.memory["values"], state.memory["keys"], state.memory.get("mask")
    attention, cell, gate = captioner.attention, captioner.cell, captioner.gate_dense
    score = ops.cast(ops.squeeze(_tensor(attention.score_dense.kernel), -1), dtype)
    kernel, bias = _tensor(cell.kernel), ops.cast(_tensor(cell.bias), dtype)  # bias (2, 3 H): of input and state
    # What the state is multiplied by, side by side: one product at each word.
    of_hidden = [_tensor(cell.recurrent_kernel), _tensor(attention.query_dense.kernel)]
    biases = [bias[1], ops.zeros(captioner.attention_units, dtype)]
    if captioner.context_gate:
        of_hidden.append(_tensor(gate.kernel))
        biases.append(ops.cast(_tensor(gate.bias), dtype))
    of_hidden = ops.concatenate(of_hidden, axis=1)  # (H, 3 H + A + D')

    steps = ops.transpose(embedded, (2, 0, 1, 3))  # (T, B, K, E)
    length, batch = ops.shape(steps)[:2]
    words = ops.matmul(ops.reshape(steps, (-1, size)), ops.cast(kernel[:size], dtype))
    words = ops.reshape(words, (length, batch, captions, units)) + bias[0]
    read: dict[str, Any] = {}  # what the weights of the loop were multiplied by, (T, B, K, ...): known after the loop
    of_context = _late(kernel[size:], (length, batch, captions), read, "context", dtype)
    late = _late(of_hidden, (length, batch, captions), read, "hidden", dtype) + ops.concatenate(biases)
    given = ops.concatenate([words + of_context, late], axis=-1)  # Keras's scan takes one tensor of unknown length
    kernel, of_hidden = (tf.stop_gradient(tf.cast(weight, dtype)) for weight in (kernel[size:], of_hidden))

    def product(inputs: Any, weight: Any) -> Any:
        rows = ops.matmul(ops.reshape(inputs, (-1, inputs.shape[-1])), weight)
        return ops.reshape(rows, (-1, captions, rows.shape[-1]))  # (B, K, units)

    def body(before: dict[str, Any], given: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        hidden = before["hidden"]  # (B, K, H)
        of_state, query, *gates = ops.split(
            product(hidden, of_hidden) + given[..., units:], [units, units + captioner.attention_units], axis=-1
        )
        scores = additive_scores(query, keys, score)  # (B, K, L)
        weights = ops.softmax(masked_scores(scores, values, mask), axis=-1)
        context = ops.matmul(ops.cast(weights, dtype), values)  # (B, K, D')
        if captioner.context_gate:
            context = context * ops.sigmoid(gates[0])
        # The equations of `keras.layers.GRUCell` with reset_after, its default.
        new_update, new_reset, new = ops.split(product(context, kernel) + given[..., :units], 3, axis=-1)
        old_update, old_reset, old = ops.split(of_state, 3, axis=-1)
        update = ops.sigmoid(new_update + old_update)
        candidate = ops.tanh(new + ops.sigmoid(new_reset + old_reset) * old)
        hidden = update * hidden + (1 - update) * candidate
        after = {"hidden": hidden, "context": context, "attention_weights": weights}
        return after, after

    _, stacked = ops.scan(body, state.recurrent, given)
    read["context"] = stacked["context"]
    read["hidden"] = ops.concatenate([state.recurrent["hidden"][None], stacked["hidden"][:-1]], axis=0)
    return {name: ops.moveaxis(outputs, 0, 2) for name, outputs in stacked.items()}  # (B, K, T, ...)


def _tensor(variable: Any) -> Any:
    return ops.convert_to_tensor(variable.value)  # in its own precision, in which its gradient is summed


def _late(weight: Any, rows: tuple[Any, ...], read: dict[str, Any], name: str, dtype: str) -> Any:
    """Return zeros (*rows, units) to add to the products with a weight (..., units) that the loop holds fixed.

    Their gradient is that of the products, so that the weight's is one matrix product with all that was read.
    """

    @tf.custom_gradient
    def zeros(weight: Any) -> tuple[Any, Callable[[Any], Any]]:
        def gradient(upstream: Any) -> Any:
            inputs, outputs = (tf.reshape(tensor, (-1, tensor.shape[-1])) for tensor in (read[name], upstream))
            return tf.cast(tf.matmul(inputs, outputs, transpose_a=True), weight.dtype)

        return tf.zeros((*rows, weight.shape[-1]), dtype), gradient

    return zeros(weight)


@tf.custom_gradient
def additive_scores(query: Any, keys: Any, weight: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Return weight . tanh(query + keys), float32, (B, K, L), of query (B, K, A), keys (B, L, A) and weight (A,)."""

    def gradient(upstream: Any) -> Any:
        return _scores_gradient(query, keys, weight, upstream)

    return _scores(query, keys, weight), gradient


@tf.function(jit_compile=True, reduce_retracing=True)
def _scores(query: Any, keys: Any, weight: Any) -> Any:
    query, keys, weight = (tf.cast(tensor, "float32") for tensor in (query, keys, weight))
    added = tf.tanh(query[:, :, None] + keys[:, None])  # (B, K, L, A)
    captions, regions, units = added.shape[1:]
    return tf.reshape(tf.linalg.matvec(tf.reshape(added, (-1, units)), weight), (-1, captions, regions))


@tf.function(jit_compile=True, reduce_retracing=True)
def _scores_gradient(query: Any, keys: Any, weight: Any, upstream: Any) -> tuple[Any, Any, Any]:
    # XLA's processor code does not vectorize a reduction that it fuses, so that sums over captions, and over groups of
    # regions, are written out: each is then one pass over A, and computing the tanh twice costs less than storing it.
    dtypes = query.dtype, keys.dtype, weight.dtype
    query, keys, weight = (tf.cast(tensor, "float32") for tensor in (query, keys, weight))
    captions, regions, units = query.shape[1], keys.shape[1], query.shape[2]
    of_keys = 0.0
    for k in range(captions):
        added = tf.tanh(query[:, k, None] + keys)  # (B, L, A)
        of_keys += upstream[:, k, :, None] * (1.0 - added * added)
    group = next(size for size in (16, 14, 12, 10, 8, 7, 6, 5, 4, 3, 2, 1) if regions % size == 0)
    grouped = tf.reshape(keys, (-1, 1, regions // group, group, units))
    upstream = tf.reshape(upstream, (-1, captions, regions // group, group, 1))
    of_query = of_weight = 0.0
    for region in range(group):
        added = tf.tanh(query[:, :, None] + grouped[:, :, :, region])  # (B, K, L / group, A)
        term = upstream[:, :, :, region] * added
        of_weight += term
        of_query += upstream[:, :, :, region] - term * added
    gradients = weight * tf.reduce_sum(of_query, 2), weight * of_keys, tf.reduce_sum(of_weight, (0, 1, 2))
    return tuple(tf.cast(tensor, dtype) for tensor, dtype in zip(gradients, dtypes, strict=True))
