"""Distance of an image from the training images."""

from __future__ import annotations

import numpy as np
import pytest

from attncap.attributes.familiarity import Familiarity


def samples(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 17)) * np.linspace(3, 0.2, 17) + 5


def test_distance_is_one_on_average_and_grows_in_directions_of_little_variance() -> None:
    layer = Familiarity.fit(samples(2000, 0), samples(500, 1))
    distances = layer.distances(samples(1000, 2))
    assert np.mean(distances**2) == pytest.approx(1, abs=0.1)
    assert np.mean(distances <= layer.threshold) == pytest.approx(0.99, abs=0.015)
    along, across = np.full((1, 17), 5.0), np.full((1, 17), 5.0)
    along[0, 0] += 3  # one standard deviation
    across[0, 16] += 3  # fifteen
    assert layer.distances(along)[0] < 1 < layer.threshold < layer.distances(across)[0]


def test_by_hand() -> None:
    layer = Familiarity(2, 1)
    for weight, value in ((layer.mean, [1, 2]), (layer.axes, [[1, 0]]), (layer.variances, [4]), (layer.noise, 9)):
        weight.assign(value)
    assert layer.distances(np.array([[5.0, 5.0]]))[0] == pytest.approx(np.sqrt((16 / 4 + 9 / 9) / 2))


def test_few_images_are_enough() -> None:
    layer = Familiarity.fit(samples(3, 0), samples(2, 1))
    assert layer.components == 1 and np.isfinite(layer.distances(samples(2, 2))).all()
