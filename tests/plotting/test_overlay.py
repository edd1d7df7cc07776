"""Attention maps over photographs: where the cells lie, and what each mode draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from attncap.plotting import upsample_attention
from attncap.plotting.overlay import CONTOUR_MASS, MODES, draw_attention, scale_maximum
from tests.plotting.drawing import (
    COLS,
    HEIGHT,
    PHOTO,
    ROWS,
    WIDTH,
    one_hot,
)


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("row", range(ROWS))
@pytest.mark.parametrize("col", range(COLS))
def test_a_one_hot_map_peaks_in_its_own_cell(row: int, col: int, smooth: bool) -> None:
    enlarged = upsample_attention(one_hot(row, col), (HEIGHT, WIDTH), smooth)
    assert enlarged.shape == (HEIGHT, WIDTH) and enlarged.dtype == np.float32
    ys, xs = np.nonzero(enlarged >= enlarged.max() - 1e-6)
    assert (ys + 0.5).min() >= row * HEIGHT / ROWS and (ys + 0.5).max() <= (row + 1) * HEIGHT / ROWS
    assert (xs + 0.5).min() >= col * WIDTH / COLS and (xs + 0.5).max() <= (col + 1) * WIDTH / COLS
    if 0 < row < ROWS - 1 or not smooth:
        assert ys.mean() + 0.5 == pytest.approx((row + 0.5) * HEIGHT / ROWS, abs=0.6)
    if 0 < col < COLS - 1 or not smooth:
        assert xs.mean() + 0.5 == pytest.approx((col + 0.5) * WIDTH / COLS, abs=0.6)


def test_smooth_maps_keep_cell_centers_and_range() -> None:
    weights = np.random.default_rng(1).random((3, 5)).astype(np.float32)
    enlarged = upsample_attention(weights, (3 * 11, 5 * 13))  # odd cell sizes: each center is a pixel
    np.testing.assert_allclose(enlarged[5::11, 6::13], weights, atol=1e-5)
    assert enlarged.min() >= weights.min() and enlarged.max() <= weights.max()


def test_no_ringing_around_a_peak_on_an_even_ground() -> None:
    weights = np.ones((17, 17), np.float32)
    weights[8, 8] = 10
    assert upsample_attention(weights, (299, 299)).min() == 1.0
    assert upsample_attention(one_hot(2, 3), (HEIGHT, WIDTH)).min() == 0.0


def test_an_even_map_stays_even_to_the_edges() -> None:
    np.testing.assert_allclose(upsample_attention(np.full((8, 8), 1 / 64), (53, 71)), 1 / 64, rtol=1e-5)


def test_a_peak_at_the_border_goes_on_to_the_edge() -> None:
    enlarged = upsample_attention(one_hot(0, 3), (HEIGHT, WIDTH))
    assert enlarged[0, WIDTH // 2] == pytest.approx(1) and enlarged[-1].max() == 0


def test_cells_by_hand() -> None:
    cells = upsample_attention(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), (4, 6), smooth=False)
    np.testing.assert_array_equal(cells[0], [1, 1, 2, 2, 3, 3])  # repeated in place, not cycled as np.resize does
    np.testing.assert_array_equal(cells[:, 0], [1, 1, 4, 4])


@pytest.mark.parametrize("smooth", [True, False])
def test_cells_lie_where_the_grid_lies(smooth: bool) -> None:
    place = (0.2, 0.1, 0.8, 0.9)  # 3 columns of 20 pixels from 20 on, 2 rows of 40 from 10 on
    enlarged = upsample_attention(np.array([[0, 0, 1.0], [0, 0, 0]]), (100, 100), smooth, grid_box=place)
    assert enlarged[30, 70] == pytest.approx(1, abs=0.05)  # the cell's center
    assert enlarged[5, 95] == pytest.approx(1, abs=0.05)  # its value goes on to the edges
    assert enlarged[70, 70] == pytest.approx(0, abs=0.05) and enlarged[30, 50] == pytest.approx(0, abs=0.05)
    if not smooth:
        assert (enlarged == 1).sum() == 50 * 40


@pytest.mark.parametrize(
    ("weights", "size", "message"),
    [
        (np.zeros(5), (3, 3), r"weights needs shape \(rows, cols\), got \(5,\)"),
        (np.zeros((0, 5)), (3, 3), r"got \(0, 5\)"),
        (np.array([[1.0, np.nan]]), (3, 3), "finite"),
        (np.ones((2, 2)), (0, 3), r"size needs .* got \(0, 3\)"),
    ],
)
def test_upsample_refuses(weights: np.ndarray, size: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        upsample_attention(weights, size)


PLACE = (0.2, 0.1, 0.8, 0.9)


def drawn(mode: Any, weights: np.ndarray, photo: np.ndarray = PHOTO) -> Any:
    ax = Figure(figsize=(4, 4)).add_subplot()
    draw_attention(ax, photo, (photo.shape[1], photo.shape[0]), weights, mode=mode, grid_box=PLACE)
    return ax


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_drawn_outside_the_box_of_the_grid(mode: Any) -> None:
    photo = np.full((100, 100, 3), 90, np.uint8)
    weights = np.random.default_rng(2).dirichlet(np.ones(6)).reshape(2, 3)
    ax = drawn(mode, weights, photo)
    for image in ax.images[1:]:
        assert image.get_extent() == pytest.approx([19.5, 79.5, 89.5, 9.5])
    assert ax.get_xlim() == (-0.5, 99.5) and ax.get_ylim() == (99.5, -0.5)
    for lines in ax.collections:
        for path in lines.get_paths():
            if len(path.vertices):
                assert path.vertices.min(0)[0] >= 19.5 and path.vertices.max(0)[0] <= 79.5


def test_heat_leaves_the_photograph_where_the_model_did_not_look() -> None:
    photo = np.full((100, 100, 3), 90, np.uint8)
    ax = drawn("heat", np.array([[0, 0, 1.0], [0, 0, 0]]), photo)
    under, over = ax.images
    assert (under.get_array() > 90).all()  # paled
    colors = over.cmap(over.norm(over.get_array()))
    assert colors[70, 5, 3] == 0 and colors[20, 50, 3] > 0.6  # opacity follows attention


def test_reveal_shows_color_where_the_model_looked() -> None:
    photo = np.zeros((100, 100, 3), np.uint8)
    photo[..., 0] = 200
    ax = drawn("reveal", np.array([[0, 0, 1.0], [0, 0, 0]]), photo)
    ground, _, window = ax.images
    assert np.ptp(ground.get_array(), axis=-1).max() == 0  # gray
    assert (window.get_array()[..., 0] == 200).all() and window.get_array()[20, 50, 3] == 255
    assert window.get_array()[70, 5, 3] == 0


def test_contours_enclose_their_shares_of_the_attention() -> None:
    weights = np.random.default_rng(4).dirichlet(np.full(63, 0.3)).reshape(7, 9)
    ax = drawn("contour", weights)
    values = ax.images[1].get_array()
    levels = sorted({float(lines.levels[0]) for lines in ax.collections})
    for mass, level in zip(CONTOUR_MASS, levels, strict=True):
        assert values[values > level].sum() / values.sum() == pytest.approx(mass, abs=0.02)
    assert not drawn("contour", np.full((3, 4), 1 / 12)).collections  # an even map has no contour


def test_an_even_map_looks_even() -> None:
    assert scale_maximum(np.full((5, 7), 1 / 35)) == 2.0
    assert scale_maximum(np.eye(3) / 3) == pytest.approx(3.0)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="mode is one of heat, reveal, contour, got 'fog'"):
        drawn("fog", np.eye(2) / 2)
