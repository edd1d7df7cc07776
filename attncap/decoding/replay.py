"""Feed given captions into a captioner: the probability and the attention map of each word."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops
from tqdm.auto import tqdm

from attncap._files import check_list
from attncap.captions import WHOLE_IMAGE, Caption
from attncap.decoding.beam_search import Step
from attncap.decoding.compilation import compiled, filled
from attncap.decoding.to_caption import boxes_of, caption_of, with_boxes
from attncap.features.external import ExternalFeatures, key_column
from attncap.features.store import FeatureStore
from attncap.models.captioner import Captioner, CaptionerState, forbidden_logits
from attncap.models.ensemble import Ensemble
from attncap.tokenizers import END, PAD, START, UNK, CaptionTokenizer, pad_token_ids


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

    round_length_to = 8  # few different shapes, few compiled graphs

    def __init__(self, captioner: Any, batch_size: int = 32):
        self.captioner = captioner
        self.batch_size = batch_size

        # One compiled function per shape: with two shapes TensorFlow would leave the length open, which Keras's scan
        # needs.
        self._reads: dict[tuple[int, ...], Any] = {}

    def _read(self, features: np.ndarray, token_ids: np.ndarray) -> tuple[Any, Any]:
        captioner, captions = self.captioner, token_ids.shape[1]

        def read(features: Any, token_ids: Any) -> tuple[Any, Any]:
            return replay(captioner.step, captioner.init_state(features, captions=captions), token_ids)

        if token_ids.shape not in self._reads:
            model = captioner if isinstance(captioner, keras.Model) else None
            self._reads[token_ids.shape] = compiled(read, model)
        return self._reads[token_ids.shape](features, token_ids)

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
        token_ids = pad_token_ids(
            rows, length=1, multiple_of=self.round_length_to, images=self.batch_size, captions_each=each
        )
        log_probs, weights = self._read(filled(features, self.batch_size), token_ids)
        log_probs = np.where(token_ids == UNK, -np.inf, np.asarray(keras.ops.convert_to_numpy(log_probs)))
        maps = None if weights is None else keras.ops.convert_to_numpy(weights)
        grid = getattr(self.captioner, "map_shape", tuple(self.captioner.feature_shape[:2]))
        read: list[list[Caption]] = []
        for image, own_captions in enumerate(captions):
            read.append([])
            for number, text in enumerate(own_captions):
                caption = caption_of(
                    tokenizer,
                    token_ids[image, number],
                    log_probs[image, number],
                    None if maps is None else maps[image, number],
                    grid,
                    None if image_ids is None else str(image_ids[image]),
                    getattr(self.captioner, "grid_box", WHOLE_IMAGE),
                )
                words = tuple(tokenizer.split(text)) if hasattr(tokenizer, "split") else ()
                read[-1].append(replace(caption, words=words) if len(words) == len(caption.words) else caption)
        return read


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
    with tqdm(total=len(pictures), desc="captions read", unit=" images", disable=None) as bar:
        for start in range(0, len(pictures), part):
            rows = pictures.iloc[start : start + part]
            image_ids = list(rows["image_id"])
            own = [captions[image_id] for image_id in image_ids]
            keys = list(rows[key_column(store)])
            several = reader(store.get(keys), own, image_ids)
            read.update(zip(image_ids, with_boxes(several, boxes_of(store, keys)), strict=True))
            bar.update(len(rows))
    return read


def member_captions(ensemble: Ensemble, features: Any, captions: Sequence[Caption]) -> list[list[Caption]]:
    """Feed finished captions into each member of an ensemble: its own probabilities and maps.

    Args:
        ensemble: that generated the captions.
        features: shape (N, *feature_shape).
        captions: N captions.

    Returns:
        captions: for each member, N captions of the same words; attention_weights None for one without attention.
    """
    if len(features) != len(captions):
        raise ValueError(f"one caption per image is needed, got {len(captions)} for {len(features)} images")
    if not captions:
        return [[] for _ in ensemble.members]
    token_ids = pad_token_ids([[[*caption.token_ids, END]] for caption in captions])  # (N, 1, T)
    return [_read_with(member, ensemble.tokenizer, features, token_ids, captions) for member in ensemble.members]


def _read_with(
    member: Any, tokenizer: CaptionTokenizer, features: Any, token_ids: np.ndarray, captions: Sequence[Caption]
) -> list[Caption]:
    def read(features: Any, token_ids: Any) -> tuple[Any, Any]:
        return replay(member.step, member.init_state(features, captions=1), token_ids)

    reader = compiled(read, member if isinstance(member, keras.Model) else None)
    log_probs, weights = reader(features, token_ids)
    log_probs = ops.convert_to_numpy(log_probs)
    maps = None if weights is None else ops.convert_to_numpy(weights)
    rows, cols = getattr(member, "map_shape", member.feature_shape[:2])
    return [
        caption_of(
            tokenizer,
            token_ids[row, 0],
            log_probs[row, 0],
            None if maps is None else maps[row, 0],
            (int(rows), int(cols)),
            caption.image_id,
            getattr(member, "grid_box", WHOLE_IMAGE),
        )
        for row, caption in enumerate(captions)
    ]
