"""Decoding: from a captioner's `init_state` and `step` to captions. Greedy, beam search, sampling; one code for all.

Search finds token ids alone. Probabilities and attention maps are then read by replaying the finished captions through
`step`: one step a word for the captions that are kept, in place of carrying the maps of every beam along.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from attncap.captions import WHOLE_PICTURE, Caption
from attncap.models.captioner import CaptionerState, forbidden_logits
from attncap.tokenizers import END, PAD, START, CaptionTokenizer

SUMS_TO_1 = 1e-4  # what rounding takes from a map's sum, or adds, is less
Step = Callable[[Any, CaptionerState], tuple[Any, CaptionerState, Any]]


def beam_search(
    step: Step,
    state: CaptionerState,
    *,
    beam_width: int = 3,
    max_length: int = 40,
    length_penalty: float = 0.7,
) -> tuple[Any, Any]:
    """Find the beam_width best captions of each picture, all pictures at once, inside the graph.

    A caption of n tokens (its `<end>` counted) is ranked by

        log p(caption) / n ** length_penalty

    At each step every live beam is extended by every token and the best beam_width of a picture are kept. A finished
    beam is frozen: its one extension is `<pad>`, at no cost, so that it keeps its rank until a better one displaces it.
    The search stops when all beams are finished, or at max_length.

    Args:
        step: (token_ids (B, K), state) -> logits (B, K, V), state, attention_weights.
        state: from `init_state(features, captions=beam_width)`.
        beam_width: K; 1 is greedy decoding.
        max_length: most tokens of a caption, `<end>` included.
        length_penalty: exponent; 0 prefers short captions, 1 ranks by the mean log-probability of a token.

    Returns:
        token_ids: int32, shape (B, K, max_length), best first; `<end>` and then `<pad>` after the last word.
        log_probs: float32, shape (B, K), natural log-probability of each caption; below -1e8 where there are fewer than
            K captions of max_length tokens.
    """
    batch = ops.shape(next(iter(state.recurrent.values())))[0]
    beams = ops.arange(beam_width)
    live_from_start = ops.where(beams == 0, 0.0, -1e9)  # all beams start equal: let one of them speak
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
        vocabulary = logits.shape[-1]
        logits = ops.cast(logits, "float32") + forbidden_logits(vocabulary)
        word_log_probs = ops.log_softmax(logits, axis=-1)  # (B, K, V)
        only_pad = ops.where(ops.arange(vocabulary) == PAD, 0.0, -1e9)
        word_log_probs = ops.where(finished[:, :, None], only_pad, word_log_probs)
        candidates = log_probs[:, :, None] + word_log_probs  # (B, K, V)
        longer = lengths + ops.cast(ops.logical_not(finished), "float32")
        ranks = candidates / ops.expand_dims(ops.power(longer, length_penalty), -1)
        _, best = ops.top_k(ops.reshape(ranks, (-1, beam_width * vocabulary)), beam_width)  # (B, K) of K V
        best = ops.cast(best, "int32")
        parent, word = best // vocabulary, best % vocabulary
        log_probs = ops.take_along_axis(ops.reshape(candidates, (-1, beam_width * vocabulary)), best, axis=1)
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
    # Transformer's state has tens of thousands of numbers a caption.
    batch, beams = ops.shape(parent)
    rows = parent + beams * ops.arange(batch, dtype="int32")[:, None]  # (B, K) of B K
    return ops.take(ops.reshape(values, (-1, *ops.shape(values)[2:])), rows, axis=0)


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


def replay(step: Step, state: CaptionerState, token_ids: Any) -> tuple[Any, Any]:
    """Read finished captions through `step` again: the probability and the map of every token.

    Args:
        step, state: as in `beam_search`, of K captions a picture.
        token_ids: int, shape (B, K, T), without `<start>`.

    Returns:
        word_log_probs: float32, shape (B, K, T); among the tokens that decoding may emit; 0 on padding.
        attention_weights: float32, shape (B, K, T, L), or None for a captioner without attention.
    """
    token_ids = ops.cast(token_ids, "int32")

    def read(logits: Any, weights: Any, target: Any) -> list[Any]:
        log_probs = ops.log_softmax(logits, axis=-1)
        chosen = ops.squeeze(ops.take_along_axis(log_probs, target[:, :, None], axis=2), 2)
        return [chosen] if weights is None else [chosen, ops.cast(weights, "float32")]

    chosen, *weights = replay_each(step, state, token_ids, read)  # (B, K, T), (B, K, T, L)
    return ops.where(token_ids == PAD, 0.0, chosen), weights[0] if weights else None


def replay_each(step: Step, state: CaptionerState, token_ids: Any, read: Callable[..., list[Any]]) -> list[Any]:
    """Read finished captions through `step` again, and keep of each step what `read` makes of it; never its state.

    Args:
        step, state, token_ids: as in `replay`.
        read: (logits (B, K, V) with `forbidden_logits`, attention_weights (B, K, L) or None, the step's token (B, K))
            -> tensors of shape (B, K, ...).

    Returns:
        tensors: those of all steps, shape (B, K, T, ...); 0 after the last token of the longest caption.
    """
    batch, captions, steps = ops.shape(token_ids)
    longest = ops.sum(ops.cast(ops.any(token_ids != PAD, axis=(0, 1)), "int32"))  # the rest is padding: not read
    start = ops.full((batch, captions, 1), START, dtype="int32")
    inputs = ops.moveaxis(ops.concatenate([start, token_ids[:, :, :-1]], axis=2), 2, 0)  # (T, B, K)
    targets = ops.moveaxis(token_ids, 2, 0)  # (T, B, K)

    def one(index: Any, recurrent: Any) -> tuple[Any, list[Any]]:
        logits, after, weights = step(inputs[index], CaptionerState(state.memory, recurrent))
        logits = ops.cast(logits, "float32") + forbidden_logits(logits.shape[-1])
        return after.recurrent, read(logits, weights, targets[index])

    def store(tensors: Any, new: Any, index: Any) -> list[Any]:
        places = ops.arange(steps) == index
        return [
            ops.where(ops.reshape(places, (-1, *[1] * len(value.shape))), value, tensor)
            for tensor, value in zip(tensors, new, strict=True)
        ]

    recurrent, first = one(0, state.recurrent)
    nothing = [ops.zeros((steps, *ops.shape(value)), value.dtype) for value in first]

    def body(index: Any, recurrent: Any, tensors: Any) -> tuple[Any, Any, Any]:
        recurrent, new = one(index, recurrent)
        return index + 1, recurrent, store(tensors, new, index)

    # A loop in place of Keras's scan, which on TensorFlow stacks what has the form of the carry, and so every state.
    loop = (ops.ones((), "int32"), recurrent, store(nothing, first, 0))
    tensors = ops.while_loop(lambda index, *_: index < longest, body, loop)[2]
    return [ops.moveaxis(tensor, 0, 2) for tensor in tensors]


class Decoder:
    """A captioner's decoding with its settings, compiled once and used for many batches.

    Args:
        captioner: anything with `init_state`, `step`, `tokenizer` and `feature_shape`.
        beam_width: K of `beam_search`; 1 decodes greedily.
        length_penalty: see `beam_search`; default 0.7, and 1.5 for a captioner of lists, whose items each cost
            probability, so that a smaller exponent says one item of every image.
        max_length: most tokens of a caption, `<end>` included.
        n_best: how many captions a picture to return, best first; at most beam_width.
        sampler: None, or a keras-nlp sampler, which then draws n_best captions instead of the search.
        batch_size: pictures at a time.

    Raises:
        ValueError: n_best above beam_width, a width or a length below 1; image_ids that are not one to a picture.

    Example:
        >>> captions = Decoder(captioner, beam_width=5)(features)
        >>> captions[0].text
        'a woman with curly red hair and round glasses'
    """

    def __init__(
        self,
        captioner: Any,
        *,
        beam_width: int = 3,
        length_penalty: float | None = None,
        max_length: int = 40,
        n_best: int = 1,
        sampler: Any = None,
        batch_size: int = 64,
    ):
        if beam_width < 1 or n_best < 1 or (sampler is None and n_best > beam_width):
            raise ValueError(f"1 <= n_best <= beam_width is needed, got n_best={n_best}, beam_width={beam_width}")
        if max_length < 1 or batch_size < 1:
            raise ValueError(f"at least 1 is needed, got max_length={max_length}, batch_size={batch_size}")
        if length_penalty is None:
            length_penalty = default_length_penalty(captioner.tokenizer)
        exponent = length_penalty
        self.captioner = captioner
        self.n_best = n_best
        self.batch_size = batch_size

        def decode(features: Any) -> tuple[Any, ...]:
            if sampler is None:
                state = captioner.init_state(features, captions=beam_width)
                token_ids, _ = beam_search(
                    captioner.step,
                    state,
                    beam_width=beam_width,
                    max_length=max_length,
                    length_penalty=exponent,
                )
                token_ids = token_ids[:, :n_best]
            else:
                state = captioner.init_state(features, captions=n_best)
                token_ids = sample(captioner.step, state, sampler, max_length=max_length, model=model)
            outputs = replay(captioner.step, captioner.init_state(features, captions=n_best), token_ids)
            return token_ids, *outputs

        model = captioner if isinstance(captioner, keras.Model) else None
        self._decode = compiled(decode, model, sampler)

    def __call__(self, features: np.ndarray, image_ids: Sequence[str] | None = None) -> list[Any]:
        """Decode features (N, rows, cols, D) to N captions (lists of n_best captions when n_best > 1)."""
        captions: list[Any] = []
        if image_ids is not None and len(image_ids) != len(features):
            raise ValueError(f"one image_id a picture is needed, got {len(image_ids)} for {len(features)} pictures")
        for start in range(0, len(features), self.batch_size):
            batch = features[start : start + self.batch_size]
            outputs = self._decode(filled(batch, min(self.batch_size, len(features))))
            token_ids, log_probs = map(ops.convert_to_numpy, outputs[:2])
            weights = None if outputs[2] is None else ops.convert_to_numpy(outputs[2])
            for row in range(len(batch)):
                image_id = None if image_ids is None else str(image_ids[start + row])
                best = [
                    self._caption(
                        token_ids[row, k], log_probs[row, k], None if weights is None else weights[row, k], image_id
                    )
                    for k in range(self.n_best)
                ]
                captions.append(best if self.n_best > 1 else best[0])
        return captions

    def _caption(
        self, token_ids: np.ndarray, log_probs: np.ndarray, weights: np.ndarray | None, image_id: str | None
    ) -> Caption:
        rows, cols = getattr(self.captioner, "map_shape", self.captioner.feature_shape[:2])
        place = getattr(self.captioner, "grid_box", WHOLE_PICTURE)
        return caption_of(
            self.captioner.tokenizer, token_ids, log_probs, weights, (rows, cols), image_id, place, keep_repeated=False
        )


def default_length_penalty(tokenizer: CaptionTokenizer) -> float:
    """Return the exponent for captions of this vocabulary: larger where they are lists, see `Decoder`."""
    return 0.7 if getattr(tokenizer, "separator_id", None) is None else 1.5


def caption_of(
    tokenizer: CaptionTokenizer,
    token_ids: np.ndarray,
    log_probs: np.ndarray,
    attention_weights: np.ndarray | None,
    grid: tuple[int, int],
    image_id: str | None = None,
    grid_box: tuple[float, float, float, float] = WHOLE_PICTURE,
    *,
    keep_repeated: bool = True,
) -> Caption:
    """Make a `Caption` of one row of `replay`: token_ids (T,), log_probs (T,), attention_weights (T, L).

    Without keep_repeated, items of a list that repeat an earlier one are left out; `log_prob` stays that of all tokens.

    A word of several pieces has the product of their probabilities and the mean of their maps. A map that does not sum
    to 1 is that of a model which may look away: what it sums to are the caption's `visual_probs`.
    """
    real = [(place, int(token_id)) for place, token_id in enumerate(token_ids) if token_id not in (PAD, END)]
    separator = getattr(tokenizer, "separator_id", None)
    if separator is not None and not keep_repeated:
        real = without_repeated_items(real, separator)
    places, kept = [place for place, _ in real], [token_id for _, token_id in real]
    words = tokenizer.words(kept)
    positions = [np.array([places[index] for index in where]) for _, where in words]
    maps = visual_probs = None
    if attention_weights is not None:
        rows = [attention_weights[where].mean(axis=0).reshape(grid) for where in positions]  # (rows, cols) each
        maps = np.array(rows, np.float32).reshape(-1, *grid)
        visual_probs = maps.sum(axis=(1, 2), dtype=np.float64)
        looks_away = np.abs(visual_probs - 1.0) > SUMS_TO_1
        maps[looks_away] /= np.maximum(visual_probs[looks_away], 1e-30)[:, None, None]
        visual_probs = np.where(looks_away, visual_probs, 1.0).astype(np.float32)
    return Caption(
        words=tuple(word for word, _ in words),
        token_ids=tuple(kept),
        log_prob=float(log_probs.sum()),
        attention_weights=maps,
        visual_probs=visual_probs,
        word_log_probs=np.array([log_probs[where].sum() for where in positions], np.float32),
        image_id=image_id,
        grid_box=grid_box,
    )


def without_repeated_items(tokens: Sequence[tuple[int, int]], separator: int) -> list[tuple[int, int]]:
    """Return (position, token id) pairs of a list without empty items and items that were said before."""
    items: list[list[tuple[int, int]]] = [[]]
    separators: list[tuple[int, int]] = []
    for pair in tokens:
        if pair[1] == separator:
            items.append([])
            separators.append(pair)
        else:
            items[-1].append(pair)
    kept: list[tuple[int, int]] = []
    said: set[tuple[int, ...]] = set()
    for number, item in enumerate(items):
        row = tuple(token_id for _, token_id in item)
        if row and row not in said:
            kept += [separators[number - 1], *item] if kept else item
            said.add(row)
    return kept


def filled(rows: np.ndarray, size: int) -> np.ndarray:
    """Return the rows of a last batch with rows of zeros up to size: one shape, one compiled graph."""
    full = np.zeros((size, *rows.shape[1:]), rows.dtype)
    full[: len(rows)] = rows
    return full


def compiled(function: Callable[..., Any], model: keras.Model | None = None, sampler: Any = None) -> Callable[..., Any]:
    """Return the function compiled by the backend in use.

    JAX freezes the variables that a function reads at their values of the first call. Those of model (which may be
    trained on) and of sampler (the seed) go in as arguments instead, and the seed that follows comes out.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        # A partial: TensorFlow counts retraces by code, and would warn of a few decoders as of one traced ever anew.
        return tf.function(partial(function), reduce_retracing=True)
    if backend == "jax":
        import jax

        seeds = [] if sampler is None else list(sampler.variables)
        variables = seeds + ([] if model is None else list(model.variables))

        @jax.jit
        def pure(values: list[Any], *arguments: Any) -> tuple[Any, list[Any]]:
            with keras.StatelessScope(list(zip(variables, values, strict=True))) as scope:
                outputs = function(*arguments)
            return outputs, [scope.get_current_value(seed) for seed in seeds]

        def with_values_of_now(*arguments: Any) -> Any:
            outputs, next_seeds = pure([variable.value for variable in variables], *arguments)
            for seed, value in zip(seeds, next_seeds, strict=True):
                seed.assign(value)
            return outputs

        return with_values_of_now
    return function
