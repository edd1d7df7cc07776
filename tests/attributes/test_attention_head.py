"""AttentionHead: its equation by hand, what its weights are, saving, and learning where to look."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import erf, softmax

from attncap.attributes.attention_head import AttentionHead
from attncap.attributes.classifier import AttributeClassifier, load_classifier, save_classifier

GRIDS = [(2, 3, 5), (1, 7, 11)]
SIZE = 2 * 3 * 5 + 7 * 11


@pytest.fixture()
def head() -> AttentionHead:
    """A head of 13 statements and 17 units with random weights and batch statistics."""
    head = AttentionHead(GRIDS, outputs=13, units=17)
    head.build((None, SIZE))
    rng = np.random.default_rng(0)
    head.set_weights([np.abs(rng.normal(size=weight.shape)) + 0.1 for weight in head.weights])
    for kernel in (*head.queries, *head.values, *head.positions, head.bias):
        kernel.assign(rng.normal(size=kernel.shape))
    return head


@pytest.fixture()
def features() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(4, SIZE)).astype(np.float32)


def test_the_equation_by_hand(head: AttentionHead, features: np.ndarray) -> None:
    expected, start = np.asarray(head.bias, float), 0
    weights_by_hand = []
    for at, (rows, cols, size) in enumerate(GRIDS):
        regions = features[:, start : start + rows * cols * size].reshape(4, rows * cols, size).astype(float)
        start += rows * cols * size
        norm = head.norms[at]
        regions = (regions - np.asarray(norm.moving_mean)) / np.sqrt(np.asarray(norm.moving_variance) + norm.epsilon)
        projected = regions @ np.asarray(head.projections[at].kernel) + np.asarray(head.projections[at].bias)
        hidden = 0.5 * projected * (1 + erf(projected / np.sqrt(2)))  # gelu
        scores = hidden @ np.asarray(head.queries[at]) + np.asarray(head.positions[at])
        weights_by_hand.append(softmax(scores, axis=1))
        contexts = np.einsum("blk,blu->bku", weights_by_hand[-1], hidden)
        expected = expected + np.einsum("bku,uk->bk", contexts, np.asarray(head.values[at]))
    np.testing.assert_allclose(head(features), expected, rtol=1e-3, atol=1e-3)
    for weights, by_hand in zip(head.attention_weights(features), weights_by_hand, strict=True):
        np.testing.assert_allclose(weights, by_hand, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(np.asarray(weights).sum(axis=1), 1, rtol=1e-5)
    added = sum(np.asarray(part).sum(axis=1) for part in head.contributions(features))
    np.testing.assert_allclose(np.asarray(head.bias) + added, expected, rtol=1e-3, atol=1e-3)


def test_a_query_is_of_one_statement_and_moves_its_attention_alone(head: AttentionHead, features: np.ndarray) -> None:
    before, weights_before = np.asarray(head(features)), np.asarray(head.attention_weights(features)[0])
    queries = ops.convert_to_numpy(head.queries[0]).copy()
    queries[:, 5] += 1.0
    head.queries[0].assign(queries)
    weights = np.asarray(head.attention_weights(features)[0])
    others = np.arange(13) != 5
    assert not np.allclose(weights[..., 5], weights_before[..., 5])
    np.testing.assert_allclose(weights[..., others], weights_before[..., others], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(head(features))[:, others], before[:, others], rtol=1e-5)


def test_without_queries_and_positions_attention_is_the_mean(head: AttentionHead, features: np.ndarray) -> None:
    for kernel in (*head.queries, *head.positions):
        kernel.assign(np.zeros(kernel.shape))
    first, second = head.attention_weights(features)
    np.testing.assert_allclose(first, np.full((4, 6, 13), 1 / 6), rtol=1e-5)
    np.testing.assert_allclose(second, np.full((4, 7, 13), 1 / 7), rtol=1e-5)


def test_it_starts_at_the_shares() -> None:
    head = AttentionHead([(2, 2, 3)], outputs=2, units=5)
    head.build((None, 12))
    head.start_at(np.array([0.2, 0.0]))
    head.projections[0].kernel.assign(np.zeros((3, 5)))  # no evidence in any image
    logits = np.asarray(head(np.ones((1, 12), np.float32)))
    np.testing.assert_allclose(logits, [[np.log(0.2 / 0.8), np.log(1e-4 / (1 - 1e-4))]], rtol=1e-4)


def test_dropout_drops_a_unit_in_all_regions() -> None:
    keras.utils.set_random_seed(0)
    head = AttentionHead([(3, 3, 7)], outputs=2, units=19, dropout=0.5)
    head.build((None, 63))
    features = np.random.default_rng(0).normal(size=(11, 63)).astype(np.float32)
    hidden = np.asarray(next(head._hidden(features, training=True)))
    dropped = (hidden == 0).all(axis=1)  # (B, U)
    assert 0.3 < dropped.mean() < 0.7
    np.testing.assert_array_equal(hidden == 0, np.repeat(dropped[:, None], 9, axis=1))


def test_it_learns_where_to_look() -> None:
    """The first statement is seen in cell 2, the second in cell 7; the other cells are noise."""
    keras.utils.set_random_seed(0)
    cells = np.random.default_rng(0).normal(size=(600, 9, 4)).astype(np.float32)
    features, labels = cells.reshape(600, -1), (cells[:, [2, 7], 0] > 0).astype(np.float32)
    head = AttentionHead([(3, 3, 4)], outputs=2, units=8, dropout=0.0)
    model = keras.Sequential([keras.Input((36,)), head])
    model.compile(keras.optimizers.Adam(3e-2), keras.losses.BinaryCrossentropy(from_logits=True))
    model.fit(features, labels, epochs=30, batch_size=60, verbose=0)
    assert ((ops.convert_to_numpy(head(features)) > 0) == labels).mean(axis=0).min() > 0.9
    weights = ops.convert_to_numpy(head.attention_weights(features)[0]).mean(axis=0)  # (9, 2)
    assert weights.argmax(axis=0).tolist() == [2, 7] and weights.max(axis=0).min() > 0.5


def test_a_classifier_of_attention_heads_is_saved_with_them(tmp_path: Path, features: np.ndarray) -> None:
    classifier = AttributeClassifier(
        ["a", "b", "c"], grids=GRIDS, members=2, projection_units=7, dropout=0.25, attention=True
    )
    logits = np.asarray(classifier(features))
    assert logits.shape == (4, 2, 3) and not np.allclose(logits[:, 0], logits[:, 1])
    np.testing.assert_allclose(classifier.mean_logits(features), logits.mean(axis=1), rtol=1e-5)
    save_classifier(classifier, tmp_path / "attention.keras")
    again = load_classifier(tmp_path / "attention.keras")
    assert [(type(one).__name__, one.units, one.dropout_rate) for one in again.heads] == [
        ("AttentionHead", 7, 0.25)
    ] * 2
    np.testing.assert_allclose(again(features), logits, rtol=1e-5)
