"""`sample`: draw captions with a keras-nlp sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from attncap.decoding.beam_search import Step
from attncap.decoding.logits import LogitsProcessor, processed
from attncap.models.captioner import CaptionerState
from attncap.tokenizers import END, PAD, START


def sample(
    step: Step,
    state: CaptionerState,
    sampler: Any,
    *,
    max_length: int = 40,
    model: Any = None,
    logits_processors: Sequence[LogitsProcessor] = (),
) -> Any:
    """Draw one caption per row with a keras-nlp sampler (`TopKSampler`, `TopPSampler`, `RandomSampler`, ...).

    Args:
        step, state: as in `beam_search`, of K captions per image.
        sampler: a `keras_nlp.samplers.Sampler`; its seed makes the draw repeatable.
        max_length: most tokens of a caption, `<end>` included.
        model: whose weights `step` reads; only the JAX backend needs it, inside a compiled function. Anything but a
            Keras model is left out.
        logits_processors: applied to the logits of every step, see `attncap.decoding.logits`.

    Returns:
        token_ids: int32, shape (B, K, max_length); `<end>` and then `<pad>` after the last word.
    """
    batch, captions = ops.shape(next(iter(state.recurrent.values())))[:2]

    def next_logits(prompt: Any, recurrent: Any, index: Any) -> tuple[Any, None, Any]:
        last = ops.reshape(ops.take(prompt, index - 1, axis=1), (batch, captions))
        logits, after, _ = step(last, CaptionerState(state.memory, recurrent))
        before = ops.reshape(prompt[:, 1:], (batch, captions, max_length))
        logits = processed(logits_processors, before, ops.cast(logits, "float32"))
        logits = ops.reshape(logits, (-1, logits.shape[-1]))  # (B K, V): keras-nlp's one batch axis
        return logits, None, after.recurrent

    prompt = ops.full((batch * captions, max_length + 1), PAD, dtype="int32")
    prompt = ops.where(ops.arange(max_length + 1) == 0, START, prompt)
    model = model if isinstance(model, keras.Model) else None
    drawn = sampler(next_logits, prompt, cache=state.recurrent, index=1, stop_token_ids=(END,), model=model)
    token_ids = ops.reshape(drawn[:, 1:], (batch, captions, max_length))
    ended = ops.cumsum(ops.cast(token_ids == END, "int32"), axis=-1)
    after_end = ended - ops.cast(token_ids == END, "int32") > 0  # rows continue until the last one ends
    return ops.where(after_end, PAD, token_ids)
