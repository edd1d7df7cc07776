"""explain_attribute: a classifier whose weights are set by hand looks where its weights are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import attncap
from attncap.attributes.classifier import AttributeClassifier
from attncap.attributes.explain import explain_attribute
from attncap.plotting.attention import plot_attention

GRIDS = [(4, 4, 3), (2, 2, 5)]


class ByHand(AttributeClassifier):
    """Logits: hat = 3 times the first number of cell (0, 1) of the fine grid; beard = that of cell (1, 1) of the
    coarse one."""

    def call(self, features: Any, training: bool = False) -> Any:
        from keras import ops

        flat = ops.reshape(ops.cast(features, "float32"), (-1, self.feature_size))
        hat = 3.0 * flat[:, 1 * 3]
        beard = flat[:, 4 * 4 * 3 + 3 * 5]
        return ops.stack([hat, beard], axis=-1)[:, None]  # (B, 1, 2)


@pytest.fixture(scope="module")
def classifier() -> AttributeClassifier:
    return ByHand(["hat", "beard"], grids=GRIDS)


def features_with(hat: float, beard: float) -> np.ndarray:
    flat = np.zeros(4 * 4 * 3 + 2 * 2 * 5, np.float32)
    flat[3], flat[4 * 4 * 3 + 15] = hat, beard
    return flat.reshape(1, 1, -1)


@pytest.mark.parametrize("method", ["occlusion", "gradient"])
def test_the_map_is_where_the_weights_are(classifier: AttributeClassifier, method: Any) -> None:
    explained = explain_attribute(classifier, features_with(2.0, 1.0), ["hat", "beard"], method, baseline="zero")
    assert explained.words == ("hat", "beard") and explained.attention_weights is not None
    hat, beard = explained.attention_weights
    assert hat[0, 1] == pytest.approx(1.0)
    np.testing.assert_allclose(beard[2:, 2:], 0.25, rtol=1e-5)  # a coarse cell is four fine ones
    assert beard.sum() == pytest.approx(1.0) and explained.word_log_probs is not None
    np.testing.assert_allclose(
        np.exp(explained.word_log_probs), [1 / (1 + np.exp(-6)), 1 / (1 + np.exp(-1))], rtol=1e-5
    )
    plot_attention(np.zeros((16, 16, 3), np.uint8), explained)


def test_default_names_are_those_that_the_image_has(classifier: AttributeClassifier) -> None:
    assert explain_attribute(classifier, features_with(2.0, -1.0)).words == ("hat",)
    assert explain_attribute(classifier, features_with(-2.0, -1.0)).words == ()


def test_what_is_refused(classifier: AttributeClassifier) -> None:
    features = features_with(1.0, 1.0)
    with pytest.raises(ValueError, match="'nose' is no attribute of this classifier: choose of hat, beard"):
        explain_attribute(classifier, features, "nose")
    with pytest.raises(ValueError, match="method is one of occlusion, gradient, attention, got 'lime'"):
        explain_attribute(classifier, features, "hat", "lime")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has no attention: take method='occlusion' or method='gradient'"):
        explain_attribute(classifier, features, "hat", "attention")
    with pytest.raises(ValueError, match="holds no encoder: give features of 68 numbers"):
        explain_attribute(classifier, "me.jpg", "hat")


def test_attention_of_a_statement_is_what_regions_add_to_its_logit() -> None:
    trained = AttributeClassifier(["hat", "beard"], grids=GRIDS, attention=True, projection_units=1)
    head = trained.heads[0]
    for grid, (fine_or_coarse, place) in enumerate([("fine", 1), ("coarse", 3)]):
        positions = np.zeros(head.positions[grid].shape, np.float32)
        positions[place] = 50.0  # both statements look at cell (0, 1) of the fine grid and (1, 1) of the coarse one
        head.positions[grid].assign(positions)
        head.queries[grid].assign([[0.0, 0.0]])
        head.projections[grid].kernel.assign(np.zeros(head.projections[grid].kernel.shape))
        head.projections[grid].bias.assign([10.0])  # gelu(10) = 10 in every region
        head.values[grid].assign([[0.3, -0.1]] if fine_or_coarse == "fine" else [[0.1, 0.2]])
    features = np.zeros((1, 1, 68), np.float32)
    np.testing.assert_allclose(trained.mean_logits(features), [[3.0 + 1.0, -1.0 + 2.0]], rtol=1e-5)
    explained = explain_attribute(trained, features, ["beard", "hat"], "attention")
    assert explained.words == ("beard", "hat") and explained.attention_weights is not None
    beard, hat = explained.attention_weights
    expected = np.zeros((4, 4))
    expected[2:, 2:] = 1 / 4  # what speaks against the beard is left out
    np.testing.assert_allclose(beard, expected, rtol=1e-4, atol=1e-6)
    expected[2:, 2:] = 1 / 4 / 4
    expected[0, 1] = 3 / 4
    np.testing.assert_allclose(hat, expected, rtol=1e-4, atol=1e-6)
    plot_attention(np.zeros((16, 16, 3), np.uint8), explained)


def test_it_is_exported_and_takes_a_trained_head() -> None:
    assert attncap.explain_attribute is explain_attribute
    trained = AttributeClassifier(["hat", "beard", "nose"], grids=GRIDS, members=2, projection_units=3, dropout=0.0)
    features = np.random.default_rng(0).normal(size=(1, 1, 68)).astype(np.float32)
    for method in ("occlusion", "gradient"):
        explained = explain_attribute(trained, features, ["nose"], method)  # type: ignore[arg-type]
        assert explained.attention_weights is not None and explained.attention_weights.shape == (1, 4, 4)
        assert np.ptp(explained.attention_weights) > 0
