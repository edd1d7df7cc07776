"""Maps on boxes: weights spread over boxes, boxes outlined, the explorer and the measures on the same grid."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from attncap.captions import Caption, box_shares
from attncap.grounding.measures import measure_grounding
from attncap.grounding.phrases import Phrase
from attncap.plotting.attention import plot_attention
from attncap.plotting.explorer.page import explore
from attncap.plotting.regions import draw_boxes
from attncap.plotting.word import plot_word

BOXES = np.array([[0, 0, 0.5, 1], [0.5, 0, 1, 0.5], [0.25, 0.25, 0.75, 0.75], [0, 0, 1, 1]], np.float32)
WEIGHTS = np.array([[0.1, 0.7, 0.2, 0.0], [1.0, 0.0, 0.0, 0.0]], np.float32)
CAPTION = Caption(("red", "hat"), (4, 5), -1.0, WEIGHTS[:, None], image_id="a", boxes=BOXES)
PHOTO = np.full((60, 100, 3), 128, np.uint8)


def test_each_box_is_spread_over_the_cells_that_it_covers() -> None:
    shares = box_shares(BOXES, 4, 8)
    assert shares.shape == (4, 4, 8)
    np.testing.assert_allclose(shares.sum(axis=(1, 2)), 1.0)
    expected = np.zeros((4, 8))
    expected[:2, 4:] = 1 / 8
    np.testing.assert_allclose(shares[1], expected, atol=1e-6)
    half = box_shares(np.array([[0.0, 0.0, 0.1875, 1.0]]), 1, 8)  # one and a half cells wide
    np.testing.assert_allclose(half[0, 0], [2 / 3, 1 / 3, *[0] * 6], atol=1e-6)
    thin = box_shares(np.array([[1.0, 0.5, 1.0, 0.5], [0.0, 0.0, 0.0, 1.0]]), 4, 4)
    np.testing.assert_allclose(thin.sum(axis=(1, 2)), 1.0)
    assert thin[0, 2, 3] == pytest.approx(1.0)


def test_a_caption_of_boxes_on_a_grid() -> None:
    grid = CAPTION.on_grid(2, 4)
    assert grid.boxes is None and grid.attention_weights is not None
    np.testing.assert_allclose(grid.attention_weights[1], [[0.25, 0.25, 0, 0], [0.25, 0.25, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(grid.attention_weights[0, 0], [0.025, 0.025 + 0.05, 0.35 + 0.05, 0.35], atol=1e-6)
    assert grid.on_grid() is grid
    with pytest.raises(ValueError, match=r"boxes needs shape \(L, 4\) and maps of shape \(T, 1, L\), got \(3, 4\) and"):
        Caption(("red", "hat"), (4, 5), -1.0, WEIGHTS[:, None], boxes=BOXES[:3])


def test_the_strongest_boxes_are_outlined_in_pixels_of_the_image() -> None:
    ax = Figure().add_subplot()
    drawn = draw_boxes(ax, (100, 60), WEIGHTS[0], BOXES)
    extents = np.array([box.get_bbox().extents for box in drawn])
    expected = [[49.5, -0.5, 99.5, 29.5], [24.5, 14.5, 74.5, 44.5], [-0.5, -0.5, 49.5, 59.5]]
    np.testing.assert_allclose(extents, expected, atol=1e-4)
    assert [text.get_text().strip() for text in ax.texts] == ["70%", "20%", "10%"]
    assert len(draw_boxes(Figure().add_subplot(), (100, 60), WEIGHTS[1], BOXES)) == 1  # the others have no weight


def test_figures_of_a_caption_of_boxes() -> None:
    figure = plot_attention(PHOTO, CAPTION)
    panels = [ax for ax in figure.axes if ax.get_label().startswith("word ")]
    assert [sum(isinstance(patch, Rectangle) for patch in ax.patches) for ax in panels] == [3, 1]
    times_uniform = np.asarray(panels[1].images[1].get_array())  # over PHOTO's pixels
    np.testing.assert_allclose(times_uniform[:, :49], 2.0, atol=1e-4)  # all attention on half of the image
    np.testing.assert_allclose(times_uniform[:, 51:], 0.0, atol=1e-4)
    assert any("Boxes: the regions" in " ".join(text.get_text().split()) for text in figure.texts)
    ax = plot_word(PHOTO, CAPTION, 1)
    assert len(ax.patches) == 1 and np.asarray(ax.images[1].get_array()).max() == pytest.approx(2.0, abs=1e-4)
    assert explore([CAPTION], [PHOTO]).n_images == 1


def test_grounding_is_measured_on_boxes() -> None:
    phrase = Phrase("a", 0, 2, "hat", np.array([[0.5, 0.0, 1.0, 0.5]]))  # the second region exactly
    measured = measure_grounding([CAPTION], [[phrase]], n_bootstrap=0)
    # The first word: all of region 2's 0.7, and the quarter of region 3 that lies in the phrase's box: 0.05.
    assert measured.attention_correctness == pytest.approx(0.75, abs=1e-5)
    assert measured.pointing_game == 1.0
    assert measured.uniform == pytest.approx((0 + 1 + 0.25) / 3)  # of three regions, of which the third is the image
    assert measure_grounding([CAPTION], [[phrase]], pointing_words="last", n_bootstrap=0).pointing_game == 0.0
