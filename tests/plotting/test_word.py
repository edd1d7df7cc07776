"""One word's map, large."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from attncap.captions import Caption
from attncap.plotting import upsample_attention
from tests.plotting.drawing import (
    COLS,
    HEIGHT,
    PHOTO,
    ROWS,
    WIDTH,
    assert_nothing_cut_off,
    caption_of,
    plot_word,
)


def test_one_word_in_times_uniform() -> None:
    caption = caption_of("a man smiles")
    assert caption.attention_weights is not None
    ax = plot_word(PHOTO, caption, -1)
    assert ax.get_title() == "smiles" and ax.get_xlabel() == "word 3 of 3, probability 0.25\n“a man smiles”"
    values = ax.images[1].get_array()
    np.testing.assert_allclose(
        values, upsample_attention(caption.attention_weights[2], (HEIGHT, WIDTH)) * 35, rtol=1e-5
    )
    (bar,) = ax.child_axes
    assert bar.get_ylabel() == "attention\n(times uniform)"
    assert bar.get_ylim() == pytest.approx((0, max(2.0, caption.attention_weights[2].max() * 35)))
    assert_nothing_cut_off(ax.figure)


def test_an_even_map_does_not_glow() -> None:
    ax = plot_word(PHOTO, Caption(("even",), (1,), 0.0, np.full((1, ROWS, COLS), 1 / 35)), 0)
    np.testing.assert_allclose(ax.images[1].norm(ax.images[1].get_array()), 0.5, rtol=1e-4)
    assert plot_word(PHOTO, caption_of("a b"), 0, maximum=9.0).images[1].get_clim() == (0, 9)


@pytest.mark.parametrize("index", [3, -4])
def test_a_word_beyond_the_caption(index: int) -> None:
    with pytest.raises(ValueError, match=f"from 0 to 2, got {index}: the caption has 3 words"):
        plot_word(PHOTO, caption_of("a b c"), index)


def test_drawing_on_own_axes_leaves_their_figure_alone() -> None:
    figure = Figure(figsize=(6, 4))
    left, right = figure.subplots(1, 2)
    assert plot_word(PHOTO, caption_of("a b"), 1, ax=right) is right
    assert figure.axes == [left, right] and not left.images and tuple(figure.get_size_inches()) == (6, 4)
