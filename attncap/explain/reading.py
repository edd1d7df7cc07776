"""Read captions through a captioner from changed features: the log-probability of each word, and the maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from attncap.captions import WHOLE_IMAGE, Caption
from attncap.decoding.replay import LENGTH_STEP, CompiledReplay
from attncap.tokenizers import END, UNK, pad_token_ids

GridBox = tuple[float, float, float, float]


def as_caption(captioner: Any, caption: Caption | str) -> Caption:
    """Return a caption with the token ids of its words; a text is split and tokenized as the captioner does it.

    Raises:
        ValueError: a `Caption` whose token ids are not those of its words.
    """
    tokenizer = captioner.tokenizer
    if isinstance(caption, str):
        return Caption(tuple(tokenizer.split(caption)), tuple(tokenizer.tokenize(caption)), 0.0)
    if not caption.token_ids and caption.words:
        return replace(caption, token_ids=tuple(tokenizer.tokenize(caption.text)))
    if len(tokenizer.words(caption.token_ids)) != len(caption.words):
        raise ValueError(
            f"the {len(caption.token_ids)} token ids of the caption {caption.text!r} are not those of its "
            f"{len(caption.words)} words: give the text alone"
        )
    return caption


def token_groups(captioner: Any, caption: Caption) -> list[list[int]]:
    """Return, for each word of a caption, the positions of its tokens."""
    return [where for _, where in captioner.tokenizer.words(caption.token_ids)]


def padded(token_ids: Sequence[Sequence[int]]) -> np.ndarray:
    """Return token ids, an end after each, padded to a multiple of `LENGTH_STEP`: int32, shape (N, T)."""
    return pad_token_ids([[[*row, END] for row in token_ids]], length=1, multiple_of=LENGTH_STEP)[0]


def stored_grid(captioner: Any) -> tuple[int, int, GridBox]:
    """Return the grid of the features that the captioner takes: rows, cols, and the part of the image they cover.

    With trained encoder blocks inside the captioner it is not the grid of the maps.
    """
    rows, cols = captioner.feature_shape[:2]
    place = captioner if captioner.encoder is None and getattr(captioner, "tail", None) is None else captioner.encoder
    return int(rows), int(cols), getattr(place, "grid_box", WHOLE_IMAGE)


class WordReader:
    """Reads captions through a captioner, each from features of its own.

    Args:
        captioner: anything with `init_state`, `step` and `tokenizer`.
        batch_size: captions at a time.

    Example:
        >>> log_probs, maps = WordReader(captioner)(features, padded([caption.token_ids] * len(features)))
    """

    def __init__(self, captioner: Any, batch_size: int = 32):
        self.captioner = captioner
        self._read = CompiledReplay(captioner, batch_size=batch_size)

    def __call__(self, features: np.ndarray, token_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Read N captions.

        Args:
            features: shape (N, rows, cols, D).
            token_ids: int, shape (N, T), without `<start>`, see `padded`.

        Returns:
            log_probs: float32, shape (N, T), of each token given those before it; 0 on padding, -inf for `<unk>`.
            maps: float32, shape (N, T, L); None for a captioner without attention.
        """
        log_probs, maps = self._read(np.asarray(features), token_ids[:, None])
        found = np.where(token_ids == UNK, -np.inf, log_probs[:, 0])
        return found.astype(np.float32), None if maps is None else maps[:, 0]


def of_words(log_probs: np.ndarray, groups: Sequence[Sequence[int]]) -> np.ndarray:
    """Sum the log-probabilities of tokens, (..., T), over the tokens of each word: (..., W)."""
    if not groups:
        return np.zeros((*log_probs.shape[:-1], 0), log_probs.dtype)
    return np.stack([log_probs[..., where].sum(axis=-1) for where in map(list, groups)], axis=-1)
