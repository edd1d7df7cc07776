"""Logits processors: forbid, require or reweight words at every step of decoding.

A processor is any function `(token_ids, logits) -> logits`, as in transformers: token_ids (B, K, T) holds the tokens of
each caption so far, `<pad>` at the places that are still to come; logits (B, K, V) are those of the next token. It is
compiled with the decoding, so it uses `keras.ops`. `Caption.log_prob` stays the log-probability of the caption without
processors.

Example:
    >>> processors = [ForbiddenWords(captioner.tokenizer, ["hat"]), RepetitionPenalty(1.2)]
    >>> attncap.caption(captioner, "face.png", logits_processors=processors).text
    'a smiling person with a brown ponytail and pointed ears'
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from attncap._files import check_list
from attncap.models.captioner import forbidden_logits
from attncap.tokenizers import END, PAD, SPECIAL_TOKENS, UNK, CaptionTokenizer

LogitsProcessor = Callable[[Any, Any], Any]  # (token_ids (B, K, T), logits (B, K, V)) -> logits (B, K, V)
NEVER = -1e9  # the logit of a forbidden token


def processed(processors: Sequence[LogitsProcessor], token_ids: Any, logits: Any) -> Any:
    """Return logits (B, K, V) after all processors, in order; those of `<pad>`, `<start>` and `<unk>` are very low."""
    forbidden = forbidden_logits(logits.shape[-1])
    for processor in processors:
        before = tuple(logits.shape)
        logits = processor(token_ids, logits + forbidden)
        _check_shape(processor, logits, before)
    return logits + forbidden


def check_processors(processors: Sequence[LogitsProcessor], max_length: int) -> None:
    """Refuse logits processors that cannot all be followed.

    Raises:
        TypeError: not a list of functions; a class in place of its instance.
        ValueError: a word that is required and forbidden; more required words than `max_length`.
    """
    if callable(processors) or not all(callable(one) and not isinstance(one, type) for one in processors):
        raise TypeError(f"logits_processors is a list of functions (token_ids, logits), got {processors!r}")
    required = {
        token: word for one in processors if isinstance(one, RequiredWords) for token, word in one.words.items()
    }
    forbidden = {token for one in processors if isinstance(one, ForbiddenWords) for token in one.single_tokens}
    both = [word for token, word in required.items() if token in forbidden]
    if both:
        raise ValueError(f"logits_processors: {both[0]!r} is required and forbidden")
    if len(required) > max_length:
        raise ValueError(f"logits_processors: {len(required)} required words do not fit into max_length={max_length}")


class Temperature:
    """Divide logits by a temperature: below 1 the most probable words gain, above 1 they lose.

    Args:
        temperature: above 0. It changes beam search and sampling, and leaves greedy decoding as it is.

    Raises:
        ValueError: a temperature that is not a finite number above 0.
    """

    def __init__(self, temperature: float):
        self.temperature = _positive("temperature", temperature)

    def __call__(self, token_ids: Any, logits: Any) -> Any:
        return logits / self.temperature


class RepetitionPenalty:
    """Make tokens that the caption has already less likely: positive logits are divided by the penalty, negative ones
    multiplied.

    Args:
        penalty: above 0; 1 changes nothing, 1.2 is usual. It applies to every token, also to "a" and "with".

    Raises:
        ValueError: a penalty that is not a finite number above 0.

    Reference: Keskar et al. 2019, "CTRL: A Conditional Transformer Language Model for Controllable Generation",
    section 4.1.
    """

    def __init__(self, penalty: float = 1.2):
        self.penalty = _positive("penalty", penalty)

    def __call__(self, token_ids: Any, logits: Any) -> Any:
        penalized = ops.where(logits > 0, logits / self.penalty, logits * self.penalty)
        return ops.where(tokens_said(token_ids, logits.shape[-1]), penalized, logits)


class ForbiddenWords:
    """Keep words out of captions.

    A word of several pieces (WordPiece) is stopped at its last piece. A word of one piece also forbids longer words
    that begin with this piece. Words outside the vocabulary are never generated anyway.

    Args:
        tokenizer: of the captioner.
        words: such as ["hat", "glasses"].

    Raises:
        TypeError: one text in place of a list; a word that is no text.
    """

    def __init__(self, tokenizer: CaptionTokenizer, words: Sequence[str]):
        _check_words(words)
        pieces = [tokenizer.tokenize(word) for word in words]
        self._pieces = [row for row in pieces if row and UNK not in row]
        self.single_tokens = [row[0] for row in self._pieces if len(row) == 1]

    def __call__(self, token_ids: Any, logits: Any) -> Any:
        vocabulary = logits.shape[-1]
        if self.single_tokens:
            logits = ops.where(_marked(self.single_tokens, vocabulary), NEVER, logits)
        for *before, last in (row for row in self._pieces if len(row) > 1):
            here = _ends_with(token_ids, before)[:, :, None]  # (B, K, 1)
            logits = ops.where(ops.logical_and(here, _marked([last], vocabulary)), NEVER, logits)
        return logits


class RequiredWords:
    """Require words: a caption that would end, or has no room left, without one of them continues with it.

    Args:
        tokenizer: of the captioner.
        words: such as ["hat", "glasses"]; each is one token of the vocabulary.

    Raises:
        TypeError: one text in place of a list; a word that is no text.
        ValueError: a word that is not one token of the vocabulary.
    """

    def __init__(self, tokenizer: CaptionTokenizer, words: Sequence[str]):
        _check_words(words)
        self.words: dict[int, str] = {}  # by token
        for word in words:
            pieces = tokenizer.tokenize(word)
            if len(pieces) != 1 or pieces[0] < len(SPECIAL_TOKENS):
                raise ValueError(f"required word {word!r}: not one token of the captioner's vocabulary")
            self.words[pieces[0]] = word

    def __call__(self, token_ids: Any, logits: Any) -> Any:
        if not self.words:
            return logits
        vocabulary, length = logits.shape[-1], token_ids.shape[-1]
        required = _marked(list(self.words), vocabulary)
        missing = ops.logical_and(required, ops.logical_not(tokens_said(token_ids, vocabulary)))  # (B, K, V)
        count = ops.sum(ops.cast(missing, "int32"), axis=-1)  # (B, K)
        left = length - ops.sum(ops.cast(token_ids != PAD, "int32"), axis=-1)
        now = ops.logical_or(ops.argmax(logits, axis=-1) == END, left <= count)
        now = ops.logical_and(now, count > 0)[:, :, None]
        without_end = ops.where(_marked([END], vocabulary), NEVER, logits)
        going_on = ops.where((count > 0)[:, :, None], without_end, logits)
        return ops.where(now, ops.where(missing, logits, NEVER), going_on)


def tokens_said(token_ids: Any, vocabulary_size: int) -> Any:
    """Return which tokens each caption has already: bool, (B, K, V), of token_ids (B, K, T)."""
    batch, captions, steps = ops.shape(token_ids)
    rows = ops.repeat(ops.arange(batch * captions, dtype="int32"), steps)  # (B K T,)
    indices = ops.stack([rows, ops.reshape(ops.cast(token_ids, "int32"), (-1,))], axis=-1)  # (B K T, 2)
    counts = ops.scatter(indices, ops.ones_like(rows), (batch * captions, vocabulary_size))
    said = ops.reshape(counts > 0, (batch, captions, vocabulary_size))
    return ops.logical_and(said, ops.arange(vocabulary_size) != PAD)


def _check_shape(processor: LogitsProcessor, logits: Any, expected: tuple[int | None, ...]) -> None:
    found = tuple(logits.shape) if hasattr(logits, "shape") else None
    # A graph may know some sizes only when it runs: None.
    if (
        found is None
        or len(found) != len(expected)
        or any(None not in pair and pair[0] != pair[1] for pair in zip(found, expected, strict=True))
    ):
        name = getattr(processor, "__name__", type(processor).__name__)
        what = type(logits).__name__ if found is None else f"shape {found}"
        raise ValueError(f"logits processor {name}: logits of shape {expected} expected back, got {what}")


def _check_words(words: Sequence[str]) -> None:
    check_list(words, "words", "words")
    wrong = next((word for word in words if not isinstance(word, str)), None)
    if wrong is not None or None in words:
        raise TypeError(f"words: a list of words expected, it holds {wrong!r}")


def _marked(tokens: Sequence[int], vocabulary_size: int) -> Any:
    return ops.any(ops.arange(vocabulary_size)[:, None] == ops.array(list(tokens), "int32"), axis=-1)  # (V,)


def _ends_with(token_ids: Any, tokens: Sequence[int]) -> Any:
    """Return whether the tokens that a caption has so far end with some tokens: bool, (B, K)."""
    said = ops.sum(ops.cast(token_ids != PAD, "int32"), axis=-1, keepdims=True)  # (B, K, 1): how many
    places = said - len(tokens) + ops.arange(len(tokens), dtype="int32")  # (B, K, n)
    last = ops.take_along_axis(token_ids, ops.maximum(places, 0), axis=-1)
    same = ops.logical_and(last == ops.array(list(tokens), token_ids.dtype), places >= 0)
    return ops.all(same, axis=-1)


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is a finite number above 0, got {value}")
    return float(value)
