"""Attention of every layer and head of the Transformer, and rollout by hand."""

from __future__ import annotations

import numpy as np
import pytest

from attncap.explain.layers import attention_rollout, layer_maps
from attncap.explain.words import Explainer
from attncap.models.show_and_tell import ShowAndTell
from attncap.models.transformer_captioner import TransformerCaptioner
from tests.captioners import COLS, ROWS, D, seeded


def test_rollout_by_hand() -> None:
    # Two layers of one head, two words, two regions. In the second layer word 2 looks at word 1 alone.
    words = np.array([[[[1.0, 0], [0, 1]]], [[[1.0, 0], [1, 0]]]])
    weights = np.array([[[[1.0, 0], [0, 1]]], [[[0.5, 0.5], [0, 1]]]])
    # Layer 1: R = I, Q = C_1. Layer 2: R = [[1, 0], [1/2, 1/2]], Q = R C_1 + R C_2.
    first = np.array([1.0, 0]) + np.array([0.5, 0.5])
    second = np.array([0.5, 0.5]) + 0.5 * np.array([0.5, 0.5]) + 0.5 * np.array([0.0, 1])
    np.testing.assert_allclose(attention_rollout(words, weights), [first / first.sum(), second / second.sum()])


def test_the_last_layer_is_the_map_of_the_captioner() -> None:
    sizes = {"hidden_units": 12, "heads": 3, "feedforward_units": 7, "decoder_layers": 2, "dropout": 0.0}
    captioner = seeded(TransformerCaptioner, **sizes)
    features = np.random.default_rng(0).normal(0, 2, (3, ROWS, COLS, D)).astype(np.float32)
    texts = ["a red dog", "cat", "a hat runs a hat runs a hat"]
    maps = layer_maps(captioner, features, texts, batch_size=2)
    heads = [f"layer {n} head {h}" for n in (1, 2) for h in (1, 2, 3)]
    assert list(maps) == [*heads, "layer 1", "layer 2", "all layers", "rollout"]
    for own in maps.values():
        assert [caption.words for caption in own] == [tuple(text.split()) for text in texts]
        for caption in own:
            assert caption.attention_weights is not None
            np.testing.assert_allclose(caption.attention_weights.sum(axis=(1, 2)), 1, rtol=1e-4)
    for caption, stepped in zip(maps["layer 2"], Explainer(captioner, "attention")(features, texts), strict=True):
        np.testing.assert_allclose(caption.attention_weights, stepped.attention_weights, atol=1e-5)
    first, second = (maps[name][0].attention_weights for name in ("layer 1 head 1", "layer 1 head 2"))
    assert first is not None and second is not None and np.abs(first - second).max() > 1e-4


def test_other_captioners_have_no_layers() -> None:
    with pytest.raises(ValueError, match="ShowAndTell has no layers of attention: a TransformerCaptioner is needed"):
        layer_maps(seeded(ShowAndTell, embedding_units=3, hidden_units=5), np.zeros((1, ROWS, COLS, D)), ["a"])
