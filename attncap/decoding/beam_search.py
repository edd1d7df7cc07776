"""`beam_search`: the best captions of each image by beam search; width 1 is greedy decoding.

The search finds token ids only. `replay` computes probabilities and attention maps afterwards, at one step per word of
the returned captions; storing the maps of every beam would cost more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from attncap.decoding.logits import LogitsProcessor, processed
from attncap.models.captioner import CaptionerState
from attncap.tokenizers import END, PAD, START

Step = Callable[[Any, CaptionerState], tuple[Any, CaptionerState, Any]]


def beam_search(
    step: Step,
    state: CaptionerState,
    *,
    beam_width: int = 3,
    max_length: int = 40,
    length_penalty: float = 0.7,
    logits_processors: Sequence[LogitsProcessor] = (),
) -> tuple[Any, Any]:
    """Find the beam_width best captions of each image, all images at once, inside the graph.

    A caption of n tokens (its `<end>` counted) is ranked by

        log p(caption) / n ** length_penalty

    At each step every live beam is extended by every token and the best beam_width of an image are kept. A finished
    beam is only extended by `<pad>`, at no cost, and keeps its rank until a better beam displaces it.
    The search stops when all beams are finished, or at max_length.

    Args:
        step: (token_ids (B, K), state) -> logits (B, K, V), state, attention_weights.
        state: from `init_state(features, captions=beam_width)`.
        beam_width: K; 1 is greedy decoding.
        max_length: most tokens of a caption, `<end>` included.
        length_penalty: exponent; 0 prefers short captions, 1 ranks by the mean log-probability of a token.
        logits_processors: applied to the logits of every step, see `attncap.decoding.logits`.

    Returns:
        token_ids: int32, shape (B, K, max_length), best first; `<end>` and then `<pad>` after the last word.
        log_probs: float32, shape (B, K), natural log-probability of each caption; below -1e8 if there are fewer than K
            captions of max_length tokens.
    """
    batch = ops.shape(next(iter(state.recurrent.values())))[0]
    beams = ops.arange(beam_width)
    live_from_start = ops.where(beams == 0, 0.0, -1e9)  # all beams are equal at first, so only beam 0 is live
    log_probs = ops.broadcast_to(ops.cast(live_from_start, "float32"), (batch, beam_width))
    token_ids = ops.full((batch, beam_width, max_length), PAD, dtype="int32")
    last = ops.full((batch, beam_width), START, dtype="int32")
    finished = ops.zeros((batch, beam_width), dtype="bool")
    lengths = ops.zeros((batch, beam_width), dtype="float32")

    def unfinished(index: Any, *loop: Any) -> Any:
        return ops.logical_not(ops.all(loop[3]))

    def extend(
        index: Any, token_ids: Any, log_probs: Any, last: Any, finished: Any, lengths: Any, recurrent: Any
    ) -> Any:
        logits, after, _ = step(last, CaptionerState(state.memory, recurrent))
        kept = min(beam_width, logits.shape[-1])
        logits = processed(logits_processors, token_ids, ops.cast(logits, "float32"))
        # No word below the best `kept` of its beam is among the best of the image: all that follows is of these alone.
        word_log_probs, words = ops.top_k(ops.log_softmax(logits, axis=-1), kept)  # (B, K, kept)
        only_pad = ops.where(ops.arange(kept) == 0, 0.0, -1e9)
        word_log_probs = ops.where(finished[:, :, None], only_pad, word_log_probs)
        words = ops.where(finished[:, :, None], PAD, ops.cast(words, "int32"))
        candidates = log_probs[:, :, None] + word_log_probs  # (B, K, kept)
        longer = lengths + ops.cast(ops.logical_not(finished), "float32")
        ranks = candidates / ops.expand_dims(ops.power(longer, length_penalty), -1)
        _, best = ops.top_k(ops.reshape(ranks, (-1, beam_width * kept)), beam_width)  # (B, K) of K kept
        best = ops.cast(best, "int32")
        parent = best // kept
        word = ops.take_along_axis(ops.reshape(words, (-1, beam_width * kept)), best, axis=1)
        log_probs = ops.take_along_axis(ops.reshape(candidates, (-1, beam_width * kept)), best, axis=1)
        token_ids = ops.take_along_axis(token_ids, parent[:, :, None], axis=1)
        token_ids = ops.where(ops.arange(max_length) == index, word[:, :, None], token_ids)
        finished = ops.take_along_axis(finished, parent, axis=1)
        lengths = ops.take_along_axis(longer, parent, axis=1)
        finished = ops.logical_or(finished, word == END)
        recurrent = {name: _of_parents(values, parent) for name, values in after.recurrent.items()}
        return index + 1, token_ids, log_probs, word, finished, lengths, recurrent

    loop = (ops.zeros((), "int32"), token_ids, log_probs, last, finished, lengths, state.recurrent)
    loop = ops.while_loop(unfinished, extend, loop, maximum_iterations=max_length)
    return loop[1], loop[2]


def _of_parents(values: Any, parent: Any) -> Any:
    # values (B, K, ...), parent (B, K): row k of the result is the row of beam k's parent. Rows are taken whole: a
    # Transformer's state has tens of thousands of numbers per caption.
    batch, beams = ops.shape(parent)
    rows = parent + beams * ops.arange(batch, dtype="int32")[:, None]  # (B, K) of B K
    return ops.take(ops.reshape(values, (-1, *ops.shape(values)[2:])), rows, axis=0)
