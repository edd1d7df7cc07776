"""`sample`: draw captions with a keras-nlp sampler."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from attncap.decoding.beam_search import Step
from attncap.models.captioner import CaptionerState, forbidden_logits
from attncap.tokenizers import END, PAD, START


def sample(
    step: Step,
    state: CaptionerState,
    sampler: Any,
    *,
    max_length: int = 40,
    model: keras.Model | None = None,
) -> Any:
    """Draw one caption a row with a keras-nlp sampler (`TopKSampler`, `TopPSampler`, `RandomSampler`, ...).

    Args:
        step, state: as in `beam_search`, of K captions a picture.
        sampler: a `keras_nlp.samplers.Sampler`; its seed makes the draw repeatable.
        max_length: most tokens of a caption, `<end>` included.
        model: whose weights `step` reads; only the JAX backend needs it, inside a compiled function.

    Returns:
        token_ids: int32, shape (B, K, max_length); `<end>` and then `<pad>` after the last word.
    """
    batch, captions = ops.shape(next(iter(state.recurrent.values())))[:2]

    def next_logits(prompt: Any, recurrent: Any, index: Any) -> tuple[Any, None, Any]:
        last = ops.reshape(ops.take(prompt, index - 1, axis=1), (batch, captions))
        logits, after, _ = step(last, CaptionerState(state.memory, recurrent))
        logits = ops.cast(logits, "float32") + forbidden_logits(logits.shape[-1])
        logits = ops.reshape(logits, (-1, logits.shape[-1]))  # (B K, V): keras-nlp's one batch axis
        return logits, None, after.recurrent

    prompt = ops.full((batch * captions, max_length + 1), PAD, dtype="int32")
    prompt = ops.where(ops.arange(max_length + 1) == 0, START, prompt)
    drawn = sampler(next_logits, prompt, cache=state.recurrent, index=1, stop_token_ids=(END,), model=model)
    token_ids = ops.reshape(drawn[:, 1:], (batch, captions, max_length))
    ended = ops.cumsum(ops.cast(token_ids == END, "int32"), axis=-1)
    after_end = ended - ops.cast(token_ids == END, "int32") > 0  # a row goes on until the last row of the batch ends
    return ops.where(after_end, PAD, token_ids)
