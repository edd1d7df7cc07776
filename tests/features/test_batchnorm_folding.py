"""Batch normalization folded into convolutions: the same function, by hand and in InceptionV3."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from attncap.features.batchnorm_folding import folded
from attncap.features.extractor import FeatureExtractor

RNG = np.random.default_rng(0)


def normalized(given, filters: int, scale: bool = False):
    after = keras.layers.Conv2D(filters, 2, use_bias=False)(given)
    return keras.layers.BatchNormalization(scale=scale, epsilon=1e-3)(after)


def randomize(network: keras.Model) -> None:
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            values = {name: RNG.normal(size=layer.moving_mean.shape) for name in ("beta", "moving_mean")}
            values |= {name: RNG.uniform(0.5, 2, layer.moving_mean.shape) for name in ("moving_variance", "gamma")}
            for name, value in values.items():
                if getattr(layer, name) is not None:
                    getattr(layer, name).assign(value)


def test_a_folded_convolution_by_hand() -> None:
    start = keras.Input((1, 1, 1))
    convolution = keras.layers.Conv2D(1, 1, use_bias=False)
    network = keras.Model(start, keras.layers.BatchNormalization(epsilon=0.0)(convolution(start)))
    convolution.set_weights([np.full((1, 1, 1, 1), 3.0)])
    network.layers[-1].set_weights([np.array([value]) for value in (5.0, 7.0, 2.0, 4.0)])  # gamma beta mean variance
    kernel, bias = folded(network).layers[1].get_weights()
    assert kernel.ravel() == pytest.approx([3 * 5 / 2])
    assert bias.ravel() == pytest.approx([7 - 2 * 5 / 2])


@pytest.mark.parametrize("scale", [False, True])
def test_branches_activations_and_pools_are_as_they_were(scale: bool) -> None:
    start = keras.Input((7, 5, 3))
    left = keras.layers.ReLU()(normalized(start, 2, scale))
    right = keras.layers.AveragePooling2D(2, 1)(start)
    joined = keras.layers.Concatenate()([left, right])
    network = keras.Model(start, keras.layers.Conv2D(4, 1)(joined))
    randomize(network)
    pictures = RNG.normal(size=(2, 7, 5, 3)).astype(np.float32)
    quick = folded(network)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in quick.layers)
    np.testing.assert_allclose(quick(pictures), network(pictures, training=False), rtol=1e-4, atol=1e-5)


def test_folding_leaves_the_network_alone() -> None:
    start = keras.Input((7, 5, 3))
    network = keras.Model(start, normalized(start, 2))
    before = [weight.copy() for weight in network.get_weights()]
    folded(network).layers[1].kernel.assign(np.zeros((2, 2, 3, 2)))
    assert all(np.array_equal(a, b) for a, b in zip(before, network.get_weights(), strict=True))


def test_what_cannot_be_folded_is_refused() -> None:
    start = keras.Input((7, 5, 3))
    alone = keras.Model(start, keras.layers.BatchNormalization(name="alone")(start))
    with pytest.raises(ValueError, match="alone does not read a convolution of its own: it cannot be folded"):
        folded(alone)
    shared = keras.layers.Conv2D(2, 1, use_bias=False)(start)
    twice = [keras.layers.BatchNormalization()(shared) for _ in range(2)]
    with pytest.raises(ValueError, match="does not read a convolution of its own"):
        folded(keras.Model(start, keras.layers.Add()(twice)))
    also_read = keras.layers.Add()([shared, keras.layers.BatchNormalization()(shared)])
    with pytest.raises(ValueError, match="does not read a convolution of its own"):
        folded(keras.Model(start, also_read))


def test_inception_folded_is_inception() -> None:
    extractor = FeatureExtractor("mixed0", weights="random", image_size=75, dtype="float32")
    randomize(extractor.network)
    pixels = RNG.integers(0, 256, (2, 75, 75, 3), np.uint8)
    exact = np.asarray(extractor(pixels))
    quick = extractor.network_for_pixels().predict_on_batch(pixels)
    assert np.linalg.norm(quick - exact) < 1e-5 * np.linalg.norm(exact)
    half = FeatureExtractor("mixed0", weights="random", image_size=75, dtype="mixed_bfloat16")
    half.network.set_weights(extractor.network.get_weights())
    errors = [
        np.linalg.norm(np.asarray(features, np.float32) - exact)
        for features in (half.network_for_pixels().predict_on_batch(pixels), half(pixels))
    ]
    assert errors[0] < 1.2 * errors[1]  # kernels are rounded after folding, activations less often


def test_the_drawn_faces_network_is_not_folded() -> None:
    faces = FeatureExtractor(weights="faces", image_size=75, dtype="float32")
    assert len(faces.network_for_pixels().weights) == len(faces.network.weights)
    other = FeatureExtractor("mixed0", weights="random", image_size=75, dtype="float32")
    convolutions = sum(isinstance(layer, keras.layers.Conv2D) for layer in other.network.layers)
    assert len(other.network_for_pixels().weights) == 2 * convolutions  # kernel and bias
