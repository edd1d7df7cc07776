"""The losses against numbers worked out by hand."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from keras import ops

from attncap.models.losses import MaskedCrossentropy, doubly_stochastic_penalty
from attncap.tokenizers import END, PAD


def test_crossentropy_by_hand() -> None:
    # V = 5. Step 1: probabilities 1/2, 1/8 x 4, target 0's neighbor 1; step 2: the target has 1/2; step 3 is padding.
    probs = np.array(
        [[1 / 2, 1 / 8, 1 / 8, 1 / 8, 1 / 8], [1 / 8, 1 / 8, 1 / 8, 1 / 2, 1 / 8], [1 / 5] * 5], np.float32
    )
    logits = np.log(probs)[None] + 7.0  # (1, T, V): a constant changes nothing
    targets = np.array([[1, 3, PAD]], np.int32)
    plain = float(MaskedCrossentropy(label_smoothing=0.0)(targets, logits))
    assert plain == pytest.approx((math.log(8) + math.log(2)) / 2, abs=1e-6)
    # Smoothed: 0.8 of that, and 0.2 of the mean over the vocabulary, (log 2 + 4 log 8) / 5, the same in both steps.
    smoothed = float(MaskedCrossentropy(label_smoothing=0.2)(targets, logits))
    assert smoothed == pytest.approx(0.8 * 2 * math.log(2) + 0.2 * 13 / 5 * math.log(2), abs=1e-6)


def test_crossentropy_smooths_by_a_tenth_by_default() -> None:
    logits = np.log(np.array([[[1 / 2, 1 / 8, 1 / 8, 1 / 8, 1 / 8]]], np.float32))
    expected = 0.9 * 3 * math.log(2) + 0.1 * 13 / 5 * math.log(2)
    assert float(MaskedCrossentropy()(np.array([[1]]), logits)) == pytest.approx(expected, abs=1e-6)


def test_padding_does_not_count() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 3, 5, 7)).astype(np.float32)  # (B, K, T, V)
    targets = rng.integers(1, 7, size=(2, 3, 5)).astype(np.int32)
    loss = MaskedCrossentropy()
    whole = float(loss(targets, logits))
    # More padding, whatever its logits, changes nothing: the divisor is the number of real tokens.
    wide_logits = np.concatenate([logits, 100 * rng.normal(size=(2, 3, 11, 7)).astype(np.float32)], axis=2)
    wide_targets = np.concatenate([targets, np.zeros((2, 3, 11), np.int32)], axis=2)
    assert float(loss(wide_targets, wide_logits)) == pytest.approx(whole, rel=1e-6)
    # Real tokens count, each as much as another: the mean of the tokens' own losses.
    tokens = [
        float(loss(targets[b, k, t].reshape(1, 1), logits[b, k, t].reshape(1, 1, 7))) for b, k, t in np.ndindex(2, 3, 5)
    ]
    assert whole == pytest.approx(np.mean(tokens), rel=1e-5)
    assert np.std(tokens) > 0.1


def test_nothing_but_padding_costs_nothing() -> None:
    assert float(MaskedCrossentropy()(np.zeros((2, 3), np.int32), np.ones((2, 3, 5), np.float32))) == 0.0


def test_crossentropy_of_bfloat16_logits_is_computed_in_float32() -> None:
    rng = np.random.default_rng(0)
    logits = ops.cast(rng.normal(size=(2, 5, 101)), "bfloat16")
    targets = rng.integers(1, 101, size=(2, 5)).astype(np.int32)
    loss = MaskedCrossentropy()
    assert float(loss(targets, logits)) == pytest.approx(float(loss(targets, ops.cast(logits, "float32"))), rel=1e-6)


def test_crossentropy_config_round_trip() -> None:
    loss = MaskedCrossentropy(label_smoothing=0.3)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert isinstance(again, MaskedCrossentropy)
    assert again.label_smoothing == 0.3


def test_penalty_by_hand() -> None:
    # B=1, K=2, T=4, L=3. The words read are <start>, 5, <end>, <pad>: the first two steps count.
    tokens = np.array([[[1, 5, END, PAD], [1, END, PAD, PAD]]], np.int32)
    first = [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [1, 0, 0], [1, 0, 0]]  # looked at: 0.5, 1, 0.5
    second = [[0.2, 0.2, 0.6], [0, 1, 0], [0, 1, 0], [0, 1, 0]]  # looked at: 0.2, 0.2, 0.6
    weights = np.array([[first, second]], np.float32)
    by_hand = ((0.25 + 0 + 0.25) / 3 + (0.64 + 0.64 + 0.16) / 3) / 2
    assert float(doubly_stochastic_penalty(weights, tokens)) == pytest.approx(by_hand, abs=1e-6)


def test_penalty_leaves_out_captions_that_are_all_padding() -> None:
    tokens = np.array([[[1, 5], [PAD, PAD], [PAD, PAD]]], np.int32)
    weights = np.full((1, 3, 2, 5), 0.2, np.float32)
    assert float(doubly_stochastic_penalty(weights, tokens)) == pytest.approx(0.36, abs=1e-6)  # (1 - 0.4)^2
    assert float(doubly_stochastic_penalty(weights, np.zeros_like(tokens))) == 0.0


def test_penalty_is_zero_when_each_region_is_looked_at_once() -> None:
    weights = np.eye(5, dtype=np.float32)[None, None]  # (1, 1, T=5, L=5)
    tokens = np.array([[[1, 5, 6, 7, 8]]], np.int32)
    assert float(doubly_stochastic_penalty(weights, tokens)) == 0.0
