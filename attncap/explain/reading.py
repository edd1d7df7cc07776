"""Log-probabilities and attention maps of given captions, computed from changed features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from attncap._messages import quoted
from attncap.captions import WHOLE_IMAGE, Caption
from attncap.decoding.replay import LENGTH_STEP, CompiledReplay
from attncap.tokenizers import END, UNK, pad_token_ids

GridBox = tuple[float, float, float, float]


def as_caption(captioner: Any, caption: Caption | str) -> Caption:
    """Convert a text to a `Caption` with the captioner's tokenizer, or add missing token ids to a `Caption`.

    Raises:
        TypeError: neither a text nor a `Caption`.
        ValueError: the token ids of a `Caption` do not match its words.
    """
    tokenizer = captioner.tokenizer
    if isinstance(caption, str):
        return Caption(tuple(tokenizer.split(caption)), tuple(tokenizer.tokenize(caption)), 0.0)
    if not isinstance(caption, Caption):
        raise TypeError(f"a caption is a Caption or a text, got {quoted(caption)}")
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
    """Add an end token to each of N captions, and pad to a multiple of `LENGTH_STEP`: int32, shape (N, T)."""
    return pad_token_ids([[[*row, END] for row in token_ids]], length=1, multiple_of=LENGTH_STEP)[0]


def stored_grid(captioner: Any) -> tuple[int, int, GridBox]:
    """Return the grid of the captioner's input features: rows, columns, and the part of the image that they cover.

    If the captioner contains trained encoder blocks, this is not the grid of its attention maps.
    """
    rows, cols = captioner.feature_shape[:2]
    place = captioner if captioner.encoder is None and getattr(captioner, "tail", None) is None else captioner.encoder
    return int(rows), int(cols), getattr(place, "grid_box", WHOLE_IMAGE)


class WordReader:
    """Compute log-probabilities and attention maps of given captions, each from its own features.

    Args:
        captioner: a captioner or an `Ensemble`.
        batch_size: captions per pass.

    Example:
        >>> log_probs, maps = WordReader(captioner)(features, padded([caption.token_ids] * len(features)))
    """

    def __init__(self, captioner: Any, batch_size: int = 32):
        self.captioner = captioner
        self._read = CompiledReplay(captioner, batch_size=batch_size)

    def __call__(self, features: np.ndarray, token_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Compute the log-probabilities and maps of N captions.

        Args:
            features: shape (N, rows, cols, D).
            token_ids: int, shape (N, T), without `<start>`, see `padded`.

        Returns:
            log_probs: float32, shape (N, T), of each token given those before it; 0 for padding, -inf for `<unk>`.
            maps: float32, shape (N, T, L). None if the captioner has no attention.
        """
        log_probs, maps = self._read(np.asarray(features), token_ids[:, None])
        found = np.where(token_ids == UNK, -np.inf, log_probs[:, 0])
        return found.astype(np.float32), None if maps is None else maps[:, 0]


def of_words(log_probs: np.ndarray, groups: Sequence[Sequence[int]]) -> np.ndarray:
    """Sum the log-probabilities of the tokens of each word.

    Args:
        log_probs: log-probabilities of tokens, shape (..., T).
        groups: for each of the W words, the positions of its tokens; see `token_groups`.

    Returns:
        log_probs: log-probabilities of words, shape (..., W).
    """
    if not groups:
        return np.zeros((*log_probs.shape[:-1], 0), log_probs.dtype)
    return np.stack([log_probs[..., where].sum(axis=-1) for where in map(list, groups)], axis=-1)
