"""Attention maps of every layer and head of a Transformer, and attention rollout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from keras import ops

from attncap.captions import Caption
from attncap.explain.reading import as_caption, padded, token_groups
from attncap.models.transformer_captioner import TransformerCaptioner


def attention_rollout(words: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Combine the attention of all layers of a decoder into one map per token (attention rollout).

    W_n is the attention of layer n over the tokens, and C_n its attention over the regions; both are means over heads.
    The identity matrix I stands for the residual connection.

        R_0 = I,  Q_0 = 0
        R_n = 1/2 (I + W_n) R_{n-1},    Q_n = 1/2 (I + W_n) Q_{n-1} + R_n C_n

    The maps are the rows of Q_n of the last layer, each divided by its sum.

    Args:
        words: attention over the tokens, shape (layers, heads, T, T), see `TransformerCaptioner.attention_of_layers`.
        weights: attention over the regions, shape (layers, heads, T, L).

    Returns:
        maps: float64, shape (T, L). Each row sums to 1.

    Reference: Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers", section 3; with cross-attention as
        Chefer, Gur and Wolf 2021, "Generic Attention-model Explainability", section 3.1, without their gradients.
    """
    steps = words.shape[-1]
    carried, maps = np.eye(steps), np.zeros((steps, weights.shape[-1]))
    for own, looked in zip(words.mean(axis=1), weights.mean(axis=1), strict=True):  # (T, T), (T, L)
        mixed = 0.5 * (np.eye(steps) + own)
        carried = mixed @ carried
        maps = mixed @ maps + carried @ looked
    return maps / maps.sum(axis=-1, keepdims=True)


def layer_maps(
    captioner: TransformerCaptioner, features: np.ndarray, captions: Sequence[Caption | str], *, batch_size: int = 32
) -> dict[str, list[Caption]]:
    """Compute the attention maps of each head, of each layer and of the attention rollout, for the same captions.

    Args:
        captioner: a Transformer. The maps that it returns when it generates captions are those of its last layer,
            averaged over heads.
        features: shape (N, rows, cols, D).
        captions: N captions.
        batch_size: captions per pass.

    Returns:
        maps: name -> N captions with maps. The names are "layer 1 head 1" and so on, "layer 1" and so on (mean over
            heads), "all layers" (mean over layers and heads), and "rollout". `measure_grounding` and `measure_maps`
            accept these captions.

    Raises:
        ValueError: the captioner is not a `TransformerCaptioner`.

    Example:
        >>> maps = layer_maps(captioner, features, captions)
        >>> {name: measure_grounding(own, phrases).pointing_game for name, own in maps.items()}
    """
    if not isinstance(captioner, TransformerCaptioner):
        raise ValueError(f"{type(captioner).__name__} has no layers of attention: a TransformerCaptioner is needed")
    own = [as_caption(captioner, caption) for caption in captions]
    rows, cols = captioner.map_shape
    found: dict[str, list[Caption]] = {}
    for start in range(0, len(own), batch_size):
        part = own[start : start + batch_size]
        token_ids = padded([caption.token_ids for caption in part])
        read = captioner.attention_of_layers(np.asarray(features[start : start + batch_size]), token_ids)
        for caption, words, weights in zip(part, *map(_float64, read), strict=True):
            for name, maps in _named_maps(words, weights).items():
                groups = token_groups(captioner, caption)
                each = [maps[where].mean(axis=0) for where in groups]
                drawn = np.array(each, np.float32).reshape(-1, rows, cols)
                explained = replace(caption, attention_weights=drawn, extras={}, grid_box=captioner.grid_box)
                found.setdefault(name, []).append(explained)
    return found


def _named_maps(words: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Name the maps, shape (T, L), of one caption.

    Args:
        words: attention over the tokens, shape (layers, heads, T, T).
        weights: attention over the regions, shape (layers, heads, T, L).
    """
    layers, heads = weights.shape[:2]
    maps = {f"layer {n + 1} head {h + 1}": weights[n, h] for n in range(layers) for h in range(heads)}
    maps |= {f"layer {n + 1}": weights[n].mean(axis=0) for n in range(layers)}
    return maps | {"all layers": weights.mean(axis=(0, 1)), "rollout": attention_rollout(words, weights)}


def _float64(tensor: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(tensor), np.float64)
