"""`Caption` of another model: maps of any kind of array, and what is refused."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from attncap.captions import Caption

MAPS = np.random.default_rng(0).dirichlet(np.ones(12), 2).reshape(2, 3, 4)


def made(maps: Any = MAPS, **settings: Any) -> Caption:
    return Caption(("a", "dog"), (), 0.0, attention_weights=maps, **settings)


def test_maps_may_be_lists_and_bfloat16() -> None:
    np.testing.assert_array_equal(made(MAPS.tolist()).attention_weights, MAPS)
    maps = made(MAPS.astype(ml_dtypes.bfloat16)).attention_weights
    assert maps is not None and maps.dtype == np.float32
    np.testing.assert_allclose(maps, MAPS, rtol=0.01)


@pytest.mark.parametrize("maps", [MAPS.astype(str), MAPS.astype(complex), np.array([MAPS[0], None], object)])
def test_maps_that_are_no_numbers_are_refused(maps: Any) -> None:
    with pytest.raises(TypeError, match="attention_weights needs numbers, got an array of"):
        made(maps)


@pytest.mark.parametrize("box", [(0.0, 0.0, 1.0), (1.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, float("nan"))])
def test_a_grid_box_that_is_none_is_refused(box: Any) -> None:
    with pytest.raises(ValueError, match=r"grid_box is \(left, top, right, bottom\), as fractions, got"):
        made(grid_box=box)


def test_maps_are_checked_before_they_are_drawn() -> None:
    made().check_maps()
    below = MAPS.copy()
    below[1, 0, 0] -= 1.0
    below[1, 2, 3] += 1.0  # sums to 1 still
    with pytest.raises(ValueError, match=r"word 1 \('dog'\) of 'a.png' has values below 0"):
        made(below, image_id="a.png").check_maps()
    for maps, total in ((np.full((2, 3, 4), np.nan), "nan"), ((MAPS * 100).astype(int), ".*"), (MAPS * 2, "2")):
        with pytest.raises(ValueError, match=rf"word 0 \('a'\) sums to {total}; each map must sum to 1"):
            made(maps).check_maps()
