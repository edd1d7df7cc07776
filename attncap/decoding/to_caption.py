"""`caption_of`: make a `Caption` of token ids, log-probabilities and attention maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np

from attncap.captions import WHOLE_IMAGE, Caption
from attncap.models.captioner import grid_of_maps
from attncap.tokenizers import END, PAD, CaptionTokenizer

SUMS_TO_1 = 1e-4  # rounding changes the sum of a map by less


def caption_of(
    tokenizer: CaptionTokenizer,
    token_ids: np.ndarray,
    log_probs: np.ndarray,
    attention_weights: np.ndarray | None,
    grid: tuple[int, int],
    image_id: str | None = None,
    grid_box: tuple[float, float, float, float] = WHOLE_IMAGE,
    *,
    keep_repeated: bool = True,
) -> Caption:
    """Make a `Caption` of one row of `replay`: token_ids (T,), log_probs (T,), attention_weights (T, L).

    Without keep_repeated, items of a list that repeat an earlier one are left out; `log_prob` stays that of all tokens.

    A word of several pieces has the product of their probabilities and the mean of their maps. A map that does not sum
    to 1 comes from a model that may look away from the image: its sum becomes `extras["looked"]`.
    """
    real = [(place, int(token_id)) for place, token_id in enumerate(token_ids) if token_id not in (PAD, END)]
    separator = getattr(tokenizer, "separator_id", None)
    if separator is not None and not keep_repeated:
        real = without_repeated_items(real, separator)
    places, kept = [place for place, _ in real], [token_id for _, token_id in real]
    words = tokenizer.words(kept)
    positions = [np.array([places[index] for index in where]) for _, where in words]
    maps, extras = None, {}
    if attention_weights is not None:
        rows = [attention_weights[where].mean(axis=0).reshape(grid) for where in positions]  # (rows, cols) each
        maps = np.array(rows, np.float32).reshape(-1, *grid)
        looked = maps.sum(axis=(1, 2), dtype=np.float64)
        looks_away = np.abs(looked - 1.0) > SUMS_TO_1
        maps[looks_away] /= np.maximum(looked[looks_away], 1e-30)[:, None, None]
        if looks_away.any():
            extras["looked"] = np.where(looks_away, looked, 1.0).astype(np.float32)
    return Caption(
        words=tuple(word for word, _ in words),
        token_ids=tuple(kept),
        log_prob=float(log_probs.sum()),
        attention_weights=maps,
        extras=extras,
        word_log_probs=np.array([log_probs[where].sum() for where in positions], np.float32),
        image_id=image_id,
        grid_box=grid_box,
    )


def captions_of(
    captioner: Any,
    token_ids: np.ndarray,
    log_probs: np.ndarray,
    attention_weights: np.ndarray | None,
    image_ids: Sequence[Any] | None = None,
    *,
    keep_repeated: bool = True,
) -> list[list[Caption]]:
    """Make the `Caption`s of B images, K of each, from what `replay` returned for them.

    Args:
        captioner: whose tokens and maps they are.
        token_ids: shape (B, K, T).
        log_probs, attention_weights: shapes (B, K, T) and (B, K, T, L), or with further rows, which are left out.
        image_ids: of the images; None, or an id that is None, for captions without one.
        keep_repeated: see `caption_of`.
    """
    names = [None] * len(token_ids) if image_ids is None else [i if i is None else str(i) for i in image_ids]
    grid, place = grid_of_maps(captioner)
    captions: list[list[Caption]] = []
    for row, name in enumerate(names):
        maps = [None] * token_ids.shape[1] if attention_weights is None else attention_weights[row]
        captions.append([])
        for one in zip(token_ids[row], log_probs[row], maps, strict=True):  # (T,), (T,), (T, L) or None
            caption = caption_of(captioner.tokenizer, *one, grid, name, place, keep_repeated=keep_repeated)
            captions[-1].append(caption)
    return captions


def with_boxes(captions: Sequence[Any], boxes: np.ndarray | None) -> list[Any]:
    """Return the captions of N images with the boxes of their regions, (N, L, 4); without boxes, as they are.

    An item of captions may be a list of captions of one image.
    """
    if boxes is None:
        return list(captions)
    return [
        replace(item, boxes=own) if isinstance(item, Caption) else [replace(caption, boxes=own) for caption in item]
        for item, own in zip(captions, boxes, strict=True)
    ]


def without_repeated_items(tokens: Sequence[tuple[int, int]], separator: int) -> list[tuple[int, int]]:
    """Return (position, token id) pairs of a list without empty items and items that were said before."""
    kept: list[tuple[int, int]] = []
    said: set[tuple[int, ...]] = set()
    between: list[tuple[int, int]] = []  # the last separator before an item
    for separates, group in groupby(tokens, key=lambda pair: pair[1] == separator):
        pairs = list(group)
        row = tuple(token_id for _, token_id in pairs)
        if separates:
            between = pairs[-1:]
        elif row not in said:
            kept += [*between, *pairs] if kept else pairs
            said.add(row)
    return kept
