"""Captioners by hand, whose probabilities and maps can be computed on paper; shared by several test files."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pandas as pd
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


def pictures_of(count: int) -> pd.DataFrame:
    """A table of images whose paths are the rows of a `Store`."""
    names = [str(number) for number in range(count)]
    return pd.DataFrame({"image_id": [f"{name}.jpg" for name in names], "path": names})


class LooksAtOneCell(Captioner):
    """A captioner by hand: it attends to the brightest cell alone, and log p(dog) grows with that cell's feature.

    Function words have the same probability whatever is seen.
    """

    has_attention = True

    def __init__(self) -> None:
        super().__init__(TOKENIZER, (ROWS, COLS, D), embedding_units=3, hidden_units=5)

    def init_state(self, features: Any, captions: int = 1, training: bool = False) -> Any:
        seen = ops.reshape(ops.cast(features, "float32")[..., 0], (-1, L))  # (B, L)
        batch = ops.shape(seen)[0]
        return CaptionerState({"seen": seen}, {"attention_weights": ops.zeros((batch, captions, L), "float32")})

    def step(self, token_ids: Any, state: Any) -> Any:
        seen = state.memory["seen"]
        weights = ops.one_hot(ops.argmax(seen, axis=-1), L)[:, None, :]  # (B, 1, L)
        weights = ops.broadcast_to(weights, ops.shape(state.recurrent["attention_weights"]))
        brightest = ops.max(seen, axis=-1)[:, None, None]  # (B, 1, 1)
        # p(a) = 1/2 always; the other half is shared by dog and the rest, by what is seen.
        dog = 0.5 * ops.sigmoid(brightest)
        after_dog = ops.one_hot(TOKENIZER.token_to_id("dog"), TOKENIZER.vocabulary_size()) * dog
        a = ops.one_hot(TOKENIZER.token_to_id("a"), TOKENIZER.vocabulary_size()) * 0.5
        end = ops.one_hot(2, TOKENIZER.vocabulary_size()) * (0.5 - dog)
        logits = ops.log(after_dog + a + end + 1e-12)
        logits = ops.broadcast_to(logits, (*ops.shape(token_ids), TOKENIZER.vocabulary_size()))
        return logits, type(state)(state.memory, {"attention_weights": weights}), weights


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


class CountingCaptioner:
    """At each step, log-probabilities that depend on the last token alone: 0.5, 0.3, 0.2 for the next three tokens."""

    feature_shape = (1, 1, 1)

    class tokenizer:
        vocabulary = ("<pad>", "<start>", "<end>", "<unk>", "a", "b", "c", "d")

        @staticmethod
        def words(token_ids: Any) -> list[tuple[str, list[int]]]:
            return [(CountingCaptioner.tokenizer.vocabulary[i], [at]) for at, i in enumerate(token_ids)]

    def init_state(self, features: Any, captions: int = 1) -> Any:
        shift = ops.cast(ops.reshape(features, (-1, 1)), "int32")  # (B, 1): the picture decides where counting begins
        return CaptionerState({}, {"shift": ops.broadcast_to(shift, (ops.shape(features)[0], captions))})

    def step(self, token_ids: Any, state: Any) -> Any:
        nexts = [(token_ids + state.recurrent["shift"] + i) % 4 + 4 for i in range(3)]  # (B, K) each, of a to d
        chances = sum(p * ops.one_hot(token, 8) for p, token in zip((0.5, 0.3, 0.2), nexts, strict=True))
        return ops.log(ops.maximum(chances, 1e-20)), state, None
