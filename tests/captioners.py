"""Captioners by hand, whose probabilities and maps can be computed on paper; shared by several test files."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from attncap.models.captioner import Captioner, CaptionerState
from attncap.tokenizers import SPECIAL_TOKENS, WordTokenizer

ROWS, COLS, D = 3, 5, 7
L = ROWS * COLS
TOKENIZER = WordTokenizer([*SPECIAL_TOKENS, "a", "dog", "red", "hat", "runs", "cat"])


class Store:
    """Features by path: what is asked of a feature store."""

    def __init__(self, features: np.ndarray):
        self.features = features

    def get(self, paths: Any) -> np.ndarray:
        return self.features[[int(path) for path in paths]]


class ReadsCells(Captioner):
    """log-odds of "dog" against "cat" are the first feature of one cell, those of "red" against "hat" of another.

    With `attends`, it looks at one cell at every step. After a dog or a cat, the other two words follow.
    """

    def __init__(self, dog: int = 6, red: int = 11, attends: int | None = None, scale: float = 1.0) -> None:
        super().__init__(TOKENIZER, (ROWS, COLS, D), embedding_units=3, hidden_units=5)
        self.dog, self.red, self.attends, self.scale = dog, red, attends, scale
        self.has_attention = attends is not None

    def init_state(self, features: Any, captions: int = 1, training: bool = False) -> CaptionerState:
        seen = ops.reshape(ops.cast(features, "float32")[..., 0], (-1, L))  # (B, L)
        odds = self.scale * ops.stack([seen[:, self.dog], seen[:, self.red]], axis=1)  # (B, 2)
        return CaptionerState({"odds": odds}, {"count": ops.zeros((ops.shape(seen)[0], captions), "int32")})

    def step(self, token_ids: Any, state: CaptionerState) -> tuple[Any, CaptionerState, Any]:
        count = state.recurrent["count"]  # (B, K)
        rows = []
        for which, words in enumerate((("dog", "cat"), ("red", "hat"))):
            yes = ops.sigmoid(state.memory["odds"][:, which])[:, None]  # (B, 1)
            hot = [ops.one_hot(TOKENIZER.token_to_id(word), len(TOKENIZER.vocabulary))[None] for word in words]
            rows.append(yes * hot[0] + (1 - yes) * hot[1])  # (B, V)
        second = ops.cast(count > 0, "float32")[:, :, None]  # (B, K, 1)
        probs = (1 - second) * rows[0][:, None] + second * rows[1][:, None]  # (B, K, V)
        maps = None
        if self.attends is not None:
            one = ops.one_hot(self.attends, L)[None, None]
            maps = ops.broadcast_to(one, (*ops.shape(token_ids), L))
        return ops.log(probs + 1e-12), CaptionerState(state.memory, {"count": count + 1}), maps


def picture_with(cells: dict[int, float]) -> np.ndarray:
    """Features (ROWS, COLS, D), 0 save the first feature of some cells."""
    features = np.zeros((L, D), np.float32)
    for cell, value in cells.items():
        features[cell, 0] = value
    return features.reshape(ROWS, COLS, D)


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def seeded(kind: Any, **settings: Any) -> Any:
    """A captioner of a kind with random weights, the same in every test."""
    keras.utils.set_random_seed(0)
    return kind(TOKENIZER, (ROWS, COLS, D), **settings)
