"""A caption's maps, word by word: what the panels hold and how they are laid out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

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
    draw,
    one_hot,
    plot_attention,
    plot_word,
)


def test_a_panel_for_the_picture_and_each_word() -> None:
    caption = caption_of("a bald man with glasses")
    assert caption.attention_weights is not None
    figure = plot_attention(PHOTO, caption)
    picture, *words, scale = figure.axes
    assert [ax.get_title() for ax in words] == list(caption.words)
    assert picture.get_title() == "image" and len(picture.images) == 1
    np.testing.assert_array_equal(picture.images[0].get_array(), PHOTO)
    for ax, weights in zip(words, caption.attention_weights, strict=True):
        photo, overlay = ax.images
        assert photo.get_extent() == overlay.get_extent() == [-0.5, WIDTH - 0.5, HEIGHT - 0.5, -0.5]
        expected = upsample_attention(weights, (HEIGHT, WIDTH)) * ROWS * COLS
        np.testing.assert_allclose(overlay.get_array(), expected, rtol=1e-5)
        assert overlay.get_clim() == pytest.approx((0, max(weights.max() * ROWS * COLS, 2.0)), rel=1e-3)
        assert ax.get_xlabel() == f"p 0.25 · max {weights.max() * ROWS * COLS:.1f}×"
        box = ax.get_window_extent()
        assert box.width / box.height == pytest.approx(WIDTH / HEIGHT, rel=0.01)
    assert [label.get_text() for label in scale.get_xticklabels()] == ["0", "map's max"]
    said = " ".join(text.get_text().replace("\n", " ") for text in figure.texts)
    assert caption.sentence in said and "own maximum" in said
    assert_nothing_cut_off(figure)


def test_the_peak_is_drawn_over_the_right_pixels() -> None:
    caption = Caption(("nose",), (1,), -1.0, one_hot(3, 1)[None])
    figure = plot_attention(np.zeros((HEIGHT, WIDTH, 3), np.uint8), caption, cmap="gray", alpha=1.0)
    ax = figure.axes[1]
    pixels = draw(figure)[..., 0].astype(float)
    left, bottom, right, top = (int(round(edge)) for edge in ax.get_window_extent().extents)
    seen = pixels[len(pixels) - top : len(pixels) - bottom, left:right]
    y, x = np.unravel_index(seen.argmax(), seen.shape)
    assert y / len(seen) == pytest.approx(3.5 / ROWS, abs=0.03) and x / seen.shape[1] == pytest.approx(
        1.5 / COLS, abs=0.03
    )


@pytest.mark.parametrize(("count", "columns"), [(1, None), (2, 1), (13, 4), (40, None)])
def test_short_and_long_captions_are_laid_out_apart(count: int, columns: int | None) -> None:
    figure = plot_attention(PHOTO, caption_of(" ".join(["word"] * count)), columns=columns)
    panels = figure.axes[:-1]
    assert len(panels) == count + 1
    boxes = [ax.get_window_extent() for ax in panels]
    assert all(not a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[n + 1 :])
    assert figure.get_size_inches()[0] <= 12.5
    if columns:
        assert len({round(box.x0) for box in boxes}) == columns
    if count < 40:
        assert_nothing_cut_off(figure)


def test_a_long_word_is_made_smaller_then_broken_never_cut() -> None:
    word = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerk"
    shorter = "counterrevolutionary"
    figure = plot_attention(PHOTO, caption_of(f"a {word} {shorter}"))
    size, long, short = (figure.axes[n].title for n in (1, 2, 3))
    assert long.get_text().replace("\n", "") == word and "\n" in long.get_text()
    assert short.get_text() == shorter and short.get_fontsize() < size.get_fontsize()
    draw(figure)
    for title, ax in ((long, figure.axes[2]), (short, figure.axes[3])):
        assert title.get_window_extent().width <= ax.get_window_extent().width + 2


@pytest.mark.parametrize("size", [(1000, 100), (100, 1000), (1, 1)])
def test_any_shape_of_picture(size: tuple[int, int]) -> None:
    figure = plot_attention(Image.new("RGB", size, "teal"), caption_of("a wide b tall"))
    width, height = figure.get_size_inches().tolist()
    assert width < 14 and height < 14
    assert_nothing_cut_off(figure)


def test_large_photographs_are_drawn_small_in_their_own_coordinates() -> None:
    ax = plot_attention(Image.new("RGB", (3001, 1999)), caption_of("a b")).axes[1]
    assert ax.images[0].get_array().shape[1] == 400
    assert ax.images[1].get_extent() == [-0.5, 3000.5, 1998.5, -0.5]


def test_a_caption_without_maps_says_so() -> None:
    says = r"has no attention maps.*: take one of `attncap train --model attention`, or draw .* with plot_predictions$"
    with pytest.raises(ValueError, match=says):
        plot_attention(PHOTO, caption_of("a man", maps=False))
    with pytest.raises(ValueError, match=says):
        plot_word(PHOTO, caption_of("a man", maps=False), 1)


def test_an_empty_caption_draws_the_picture() -> None:
    (ax,) = plot_attention(PHOTO, Caption((), (), 0.0, np.zeros((0, ROWS, COLS)))).axes
    assert "empty caption" in ax.get_xlabel() and len(ax.images) == 1


def test_attention_fills_a_given_subfigure() -> None:
    whole: Any = Figure(figsize=(12, 5))
    left, right = whole.subfigures(1, 2)
    assert plot_attention(PHOTO, caption_of("a b c"), fig=right) is whole
    assert not left.axes and len(right.axes) == 5
    assert all(right.bbox.x0 <= ax.get_window_extent().x0 for ax in right.axes)
    assert_nothing_cut_off(whole)


def test_maps_that_do_not_sum_to_one_are_refused() -> None:
    maps = np.full((2, 3, 5), 1 / 15)
    maps[1] *= 4
    photo = Image.new("RGB", (50, 30), "gray")
    with pytest.raises(ValueError, match=r"map of word 1 \('hat'\) sums to 4; each map must sum to 1, with no value"):
        plot_attention(photo, Caption(("a", "hat"), (4, 5), -1.0, maps))
