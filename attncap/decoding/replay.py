"""Replay given captions through a captioner, for the probability and the attention map of each word."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from keras import ops

from attncap._files import check_list
from attncap.captions import Caption
from attncap.decoding.beam_search import Step
from attncap.decoding.compilation import compiled_for_each_shape, filled, to_numpy
from attncap.decoding.to_caption import captions_of, with_boxes
from attncap.features.external import ExternalFeatures
from attncap.features.sources import in_parts
from attncap.features.store import FeatureStore
from attncap.models.captioner import Captioner, CaptionerState, forbidden_logits
from attncap.models.ensemble import Ensemble
from attncap.tokenizers import END, PAD, START, UNK, pad_token_ids

LENGTH_STEP = 8  # captions are padded to multiples of it: few shapes, few compiled graphs


def replay(step: Step, state: CaptionerState, token_ids: Any) -> tuple[Any, Any]:
    """Feed finished captions through `step` again: the probability and the map of every token.

    Args:
        step, state: as in `beam_search`, of K captions per image.
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
    """Feed finished captions through `step` again, and stack what `read` returns for each step.

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

    # A loop in place of Keras's scan: on TensorFlow, scan would stack every state.
    loop = (ops.ones((), "int32"), recurrent, store(nothing, first, 0))
    tensors = ops.while_loop(lambda index, *_: index < longest, body, loop)[2]
    return [ops.moveaxis(tensor, 0, 2) for tensor in tensors]


class CompiledReplay:
    """Replay token ids through a captioner, with a function that is compiled once for each shape of the inputs.

    Args:
        captioner: anything with `init_state` and `step`.
        read: function (step, state, token_ids (B, K, T)) -> tensors, such as `replay`.
        batch_size: images per pass. The last batch is filled up with zeros. None: all images in one pass.
    """

    def __init__(self, captioner: Any, read: Callable[..., Sequence[Any]] = replay, batch_size: int | None = None):
        def of_images(features: Any, token_ids: Any) -> Sequence[Any]:
            state = captioner.init_state(features, captions=token_ids.shape[1])
            return read(captioner.step, state, token_ids)

        self._batch_size = batch_size
        self._read = compiled_for_each_shape(of_images, captioner)

    def __call__(self, features: np.ndarray, token_ids: np.ndarray) -> list[Any]:
        """Call `read` in batches, and return its results as NumPy arrays.

        Args:
            features: shape (N, rows, cols, D), N > 0.
            token_ids: int, shape (N, K, T), K captions per image.
        """
        size = self._batch_size or len(features)
        batches = [
            to_numpy(self._read(*(filled(rows[start : start + size], size) for rows in (features, token_ids))))
            for start in range(0, len(features), size)
        ]
        return [
            None if tensors[0] is None else np.concatenate(tensors)[: len(features)]
            for tensors in zip(*batches, strict=True)
        ]


class CaptionReplay:
    """Feed given captions into a captioner, word by word: the probability and the map of each word.

    Args:
        captioner: anything with `init_state`, `step`, `tokenizer` and `feature_shape`.
        batch_size: images at a time, with all their captions side by side.

    Example:
        >>> [[caption]] = CaptionReplay(captioner)(features[:1], [["A dog runs."]])
        >>> caption.words, caption.attention_weights.shape
        (('a', 'dog', 'runs'), (3, 8, 8))
    """

    def __init__(self, captioner: Any, batch_size: int = 32):
        self.captioner = captioner
        self.batch_size = batch_size
        self._read = CompiledReplay(captioner, batch_size=batch_size)

    def __call__(
        self, features: np.ndarray, captions: Sequence[Sequence[str]], image_ids: Sequence[str] | None = None
    ) -> list[list[Caption]]:
        """Read captions of N images.

        Args:
            features: shape (N, rows, cols, D).
            captions: N lists of captions as people wrote them, of any lengths.
            image_ids: for the `Caption`s.

        Returns:
            captions: N lists. The words are those of the text. A word outside the vocabulary keeps its place and map,
                with the log-probability -inf. If a tokenizer has other words than its `split` gives, they are the words
                of the tokens.
        """
        check_list(captions, "captions", "lists of captions")
        for number, own in enumerate(captions):
            check_list(own, f"captions[{number}]")
        read: list[list[Caption]] = []
        for start in range(0, len(features), self.batch_size):
            part = slice(start, start + self.batch_size)
            ids = None if image_ids is None else image_ids[part]
            read += self._batch(features[part], captions[part], ids)
        return read

    def _batch(
        self, features: np.ndarray, captions: Sequence[Sequence[str]], image_ids: Sequence[str] | None
    ) -> list[list[Caption]]:
        tokenizer = self.captioner.tokenizer
        rows = [[[*tokenizer.tokenize(caption), END] for caption in own] for own in captions]
        each = max(1, *map(len, rows))
        token_ids = pad_token_ids(rows, length=1, multiple_of=LENGTH_STEP, captions_each=each)
        log_probs, maps = self._read(features, token_ids)
        log_probs = np.where(token_ids == UNK, -np.inf, log_probs)
        read = captions_of(self.captioner, token_ids, log_probs, maps, image_ids)
        return [list(map(self._with_words_of, own, texts)) for own, texts in zip(read, captions, strict=True)]

    def _with_words_of(self, caption: Caption, text: str) -> Caption:
        tokenizer = self.captioner.tokenizer
        words = tuple(tokenizer.split(text)) if hasattr(tokenizer, "split") else ()
        return replace(caption, words=words) if len(words) == len(caption.words) else caption


def replay_captions(
    captioner: Captioner | Ensemble,
    store: FeatureStore | ExternalFeatures,
    pictures: pd.DataFrame,
    captions: Mapping[str, Sequence[str]],
    *,
    part: int = 256,
    batch_size: int = 32,
) -> dict[str, list[Caption]]:
    """Feed human captions into a captioner: the probability and the map of each of their words.

    A terminal shows a bar.

    Args:
        captioner: trained on the store's encoder.
        store: with the features of all of `pictures`.
        pictures: DataFrame with `image_id` and `path`.
        captions: image_id -> its captions; images without any are left out.
        part: images whose features are in memory at a time.
        batch_size: images per pass, with all their captions side by side.

    Returns:
        captions: image_id -> a `Caption` for each of its captions, in order; see `CaptionReplay`.

    Example:
        >>> maps = replay_captions(captioner, store, dev.pictures, dev.references())
    """
    reader = CaptionReplay(captioner, batch_size)
    pictures = pictures[[bool(captions.get(image_id)) for image_id in pictures["image_id"]]]
    read: dict[str, list[Caption]] = {}
    for image_ids, features, boxes in in_parts(store, pictures, part, "captions read"):
        several = reader(features, [captions[image_id] for image_id in image_ids], image_ids)
        read.update(zip(image_ids, with_boxes(several, boxes), strict=True))
    return read


class MemberReplay:
    """Replay captions through each member of an ensemble, for the probabilities and maps of each member.

    Args:
        ensemble: the ensemble that generated the captions.
    """

    def __init__(self, ensemble: Ensemble):
        self._readers = [(member, CompiledReplay(member)) for member in ensemble.members]

    def __call__(self, features: np.ndarray, captions: Sequence[Caption]) -> list[list[Caption]]:
        """Replay N captions.

        Args:
            features: shape (N, *feature_shape).
            captions: N captions.

        Returns:
            captions: for each member, N captions with the same words, and the boxes of the given ones.
                `attention_weights` is None if the member has no attention.

        Raises:
            ValueError: the numbers of features and captions differ.
        """
        if len(features) != len(captions):
            raise ValueError(f"one caption per image is needed, got {len(captions)} for {len(features)} images")
        if not captions:
            return [[] for _ in self._readers]
        token_ids = pad_token_ids([[[*caption.token_ids, END]] for caption in captions])  # (N, 1, T)
        image_ids = [caption.image_id for caption in captions]
        found = []
        for member, read in self._readers:
            log_probs, maps = read(features, token_ids)
            read_again = captions_of(member, token_ids, log_probs, maps, image_ids)
            found.append(
                [replace(own, boxes=caption.boxes) for [own], caption in zip(read_again, captions, strict=True)]
            )
        return found
