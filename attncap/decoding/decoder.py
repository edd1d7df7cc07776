"""`Decoder`: a captioner with its decoding settings, compiled once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Generic, Literal, TypedDict, TypeVar, Unpack, overload

import numpy as np

from attncap.captions import Caption
from attncap.decoding.beam_search import beam_search
from attncap.decoding.compilation import compiled, filled, to_numpy
from attncap.decoding.logits import LogitsProcessor, check_processors
from attncap.decoding.replay import replay
from attncap.decoding.sampling import sample
from attncap.decoding.to_caption import captions_of


class SearchSettings(TypedDict, total=False):
    """Keywords of `Decoder`, which explains them; n_best is apart, since it changes the type of the result."""

    beam_width: int
    length_penalty: float | None
    max_length: int
    sampler: Any
    logits_processors: Sequence[LogitsProcessor]


Decoded = TypeVar("Decoded", Caption, list[Caption])  # what there is for each image: with n_best above 1 a list


class Decoder(Generic[Decoded]):
    """A captioner's decoding with its settings, compiled once and used for many batches.

    Args:
        captioner: anything with `init_state`, `step`, `tokenizer` and `feature_shape`.
        beam_width: K of `beam_search`; 1 decodes greedily.
        length_penalty: see `beam_search`; default 0.7, and 1.5 for a captioner of lists: every item costs probability,
            so that a smaller exponent would give one item per image.
        max_length: most tokens of a caption, `<end>` included.
        n_best: how many captions per image to return, best first; at most beam_width.
        sampler: None, or a keras-nlp sampler, which draws n_best captions in place of beam search.
        logits_processors: functions (token_ids, logits) -> logits, applied at every step, such as `ForbiddenWords`; see
            `attncap.decoding.logits`.
        batch_size: images at a time.

    Raises:
        ValueError: n_best above beam_width, a width or a length below 1, a length_penalty that is not finite; image_ids
            that are not one per image.
            Logits processors that contradict each other.
        TypeError: a count that is no whole number; a sampler that is not a keras-nlp sampler, such as its name, or that
            searches beams; logits_processors that are no functions.

    Example:
        >>> captions = Decoder(captioner, beam_width=5)(features)
        >>> captions[0].text
        'a woman with curly red hair and round glasses'
    """

    @overload
    def __init__(
        self: Decoder[Caption],
        captioner: Any,
        *,
        n_best: Literal[1] = 1,
        batch_size: int = 64,
        **settings: Unpack[SearchSettings],
    ) -> None: ...

    @overload
    def __init__(
        self: Decoder[list[Caption]],
        captioner: Any,
        *,
        n_best: int,
        batch_size: int = 64,
        **settings: Unpack[SearchSettings],
    ) -> None: ...

    def __init__(
        self,
        captioner: Any,
        *,
        beam_width: int = 3,
        length_penalty: float | None = None,
        max_length: int = 40,
        n_best: int = 1,
        sampler: Any = None,
        logits_processors: Sequence[LogitsProcessor] = (),
        batch_size: int = 64,
    ) -> None:
        counts = {"beam_width": beam_width, "n_best": n_best, "max_length": max_length, "batch_size": batch_size}
        for name, count in counts.items():
            if not isinstance(count, Integral):
                raise TypeError(f"{name} is a whole number, got {count!r}")
        if beam_width < 1 or n_best < 1 or (sampler is None and n_best > beam_width):
            raise ValueError(f"1 <= n_best <= beam_width is needed, got n_best={n_best}, beam_width={beam_width}")
        if max_length < 1 or batch_size < 1:
            raise ValueError(f"at least 1 is needed, got max_length={max_length}, batch_size={batch_size}")
        if sampler is not None and (not callable(sampler) or hasattr(sampler, "num_beams")):
            raise TypeError(
                f"sampler is a keras-nlp sampler, such as keras_nlp.samplers.TopKSampler(k=5), got {sampler!r}; "
                "for beam search give beam_width"
            )
        check_processors(logits_processors, max_length)
        if length_penalty is not None and not math.isfinite(length_penalty):
            raise ValueError(f"length_penalty is a finite number, got {length_penalty}")
        if length_penalty is None:
            length_penalty = 0.7 if getattr(captioner.tokenizer, "separator_id", None) is None else 1.5
        self.captioner = captioner
        self.n_best = n_best
        self.batch_size = batch_size
        both: dict[str, Any] = {"max_length": max_length, "logits_processors": logits_processors}

        def decode(features: Any) -> tuple[Any, ...]:
            if sampler is None:
                state = captioner.init_state(features, captions=beam_width)
                token_ids, _ = beam_search(
                    captioner.step, state, beam_width=beam_width, length_penalty=length_penalty, **both
                )
                token_ids = token_ids[:, :n_best]
            else:
                state = captioner.init_state(features, captions=n_best)
                token_ids = sample(captioner.step, state, sampler, model=captioner, **both)
            outputs: tuple[Any, ...] = replay(
                captioner.step, captioner.init_state(features, captions=n_best), token_ids
            )
            return token_ids, *outputs

        self._decode = compiled(decode, captioner, sampler)

    def __call__(self, features: np.ndarray, image_ids: Sequence[str] | None = None) -> list[Decoded]:
        """Decode features (N, rows, cols, D) to N captions (lists of n_best captions when n_best > 1)."""
        captions: list[Any] = []
        if image_ids is not None and len(image_ids) != len(features):
            raise ValueError(f"one image_id per image is needed, got {len(image_ids)} for {len(features)} images")
        for start in range(0, len(features), self.batch_size):
            batch = features[start : start + self.batch_size]
            ids = None if image_ids is None else image_ids[start : start + len(batch)]
            read = self._decode(filled(batch, min(self.batch_size, len(features))))
            token_ids, log_probs, maps = to_numpy(read)
            best = captions_of(self.captioner, token_ids[: len(batch)], log_probs, maps, ids, keep_repeated=False)
            captions += best if self.n_best > 1 else [own[0] for own in best]
        return captions
