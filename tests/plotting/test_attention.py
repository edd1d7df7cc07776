"""Figures: what the returned Axes hold, where the maps lie, and what drawing leaves behind (nothing)."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from io import BytesIO
from math import log
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from PIL import Image

from attncap.captions import Caption
from attncap.plotting import attention as plotting
from attncap.plotting.attention import upsample_attention
from attncap.plotting.style import read_picture, text_width, wrap

# Typed loosely, for matplotlib's stubs know less of an Axes than is asked of it here.
plot_attention: Any = plotting.plot_attention
plot_history: Any = plotting.plot_history
plot_predictions: Any = plotting.plot_predictions
plot_scores: Any = plotting.plot_scores
plot_word: Any = plotting.plot_word

WIDTH, HEIGHT, ROWS, COLS = 131, 97, 5, 7
PHOTO = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
ODD_WORDS = (
    r"$x_1$",
    r"\frac{1}{0}",
    "<b>&amp;",
    "{",
    "a_b^",
    "$",
    "\U0001f9d1\u200d\U0001f680",
    "\u05e9\u05dc",
    "漢字",
    "\ud800",
)


def one_hot(row: int, col: int) -> np.ndarray:
    weights = np.zeros((ROWS, COLS), np.float32)
    weights[row, col] = 1
    return weights


def caption_of(text: str, maps: bool = True, probs: bool = True) -> Caption:
    words = tuple(text.split(" "))
    weights = np.random.default_rng(5).random((len(words), ROWS, COLS)).astype(np.float32)
    weights /= weights.sum((1, 2), keepdims=True)
    log_probs = np.full(len(words), log(0.25)) if probs else None
    return Caption(words, tuple(range(len(words))), -3.0, weights if maps else None, log_probs)


def draw(figure: Figure) -> np.ndarray:
    """Draws with every warning an error, and gives the pixels."""
    png = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(png, format="png")
    return np.asarray(Image.open(png).convert("RGB"))


def assert_nothing_cut_off(figure: Figure) -> None:
    """The outermost pixels are paper, and no text leaves the figure."""
    pixels = draw(figure)
    for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]):
        assert (edge == 255).all()


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


def test_a_panel_for_the_picture_and_each_word() -> None:
    caption = caption_of("a bald man with glasses")
    assert caption.attention_weights is not None
    figure = plot_attention(PHOTO, caption)
    picture, *words, scale = figure.axes
    assert [ax.get_title() for ax in words] == list(caption.words)
    assert picture.get_title() == "picture" and len(picture.images) == 1
    np.testing.assert_array_equal(picture.images[0].get_array(), PHOTO)
    for ax, weights in zip(words, caption.attention_weights, strict=True):
        photo, overlay = ax.images
        assert photo.get_extent() == overlay.get_extent() == [-0.5, WIDTH - 0.5, HEIGHT - 0.5, -0.5]
        expected = upsample_attention(weights, (HEIGHT, WIDTH)) * ROWS * COLS
        np.testing.assert_allclose(overlay.get_array(), expected, rtol=1e-5)
        assert overlay.get_clim() == pytest.approx((0, weights.max() * ROWS * COLS), rel=1e-3)
        assert ax.get_xlabel() == f"p 0.25 · max {weights.max() * ROWS * COLS:.1f}×"
        box = ax.get_window_extent()
        assert box.width / box.height == pytest.approx(WIDTH / HEIGHT, rel=0.01)
    assert [label.get_text() for label in scale.get_xticklabels()] == ["0", "map's max"]
    said = " ".join(text.get_text().replace("\n", " ") for text in figure.texts)
    assert caption.text in said and "its own maximum" in said
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


HISTORY = pd.DataFrame(
    {"epoch": [1, 2, 3, 4], "loss": [4.0, 3.0, 2.5, 2.2], "val_bleu_4": [0.11, np.nan, 0.223, 0.19], "val_bleu_1": 0.6}
)


def test_history_marks_the_best_epoch() -> None:
    loss, bleu = plot_history(HISTORY).axes
    np.testing.assert_array_equal(loss.lines[0].get_xydata(), HISTORY[["epoch", "loss"]].to_numpy())
    np.testing.assert_array_equal(bleu.lines[0].get_xydata(), [[1, 0.11], [3, 0.223], [4, 0.19]])
    assert bleu.get_title(loc="left") == "Best validation BLEU-4 0.223, epoch 3"
    assert [list(line.get_xdata()) for line in (loss.lines[-1], bleu.lines[-1])] == [[3, 3], [3]]
    assert [text.get_text() for text in bleu.get_legend().get_texts()] == ["BLEU-4", "BLEU-1"]
    assert_nothing_cut_off(loss.figure)


def test_history_of_one_epoch_of_loss_alone_and_on_given_axes() -> None:
    assert_nothing_cut_off(plot_history(HISTORY.head(1)))
    (ax,) = plot_history([{"epoch": 1, "loss": 2.0}]).axes
    assert ax.get_xlim() == (0, 2) and ax.get_ylabel() == "loss"
    own = Figure()
    axes = own.subplots(2)
    assert plot_history(HISTORY, axes=axes) is own and len(axes[1].lines) == 4
    unvalidated = plot_history(HISTORY.assign(val_bleu_4=np.nan))
    assert unvalidated.axes[1].get_title(loc="left") == "Validation BLEU by epoch"


def test_history_refuses() -> None:
    with pytest.raises(ValueError, match=r"needs rows with epoch .* got 2 rows of \['loss'\]"):
        plot_history({"loss": [1, 2]})
    with pytest.raises(ValueError, match="axes needs 2 .* got 1"):
        plot_history(HISTORY, axes=[Figure().add_subplot()])


def test_a_sheet_of_predictions() -> None:
    texts: list[Any] = ["a man", caption_of("a woman with a very long caption " + "that goes on " * 5), "", "x", "y"]
    references = [["one", "two " * 20], ["three"], [], [""], ["z"]]
    figure = plot_predictions([PHOTO] * 5, texts, references, scores=[0.1, 0.9, 0.5, float("nan"), 0.2])
    assert len(figure.axes) == 5
    titles = [ax.get_title(loc="left").replace("\n", " ") for ax in figure.axes]
    assert titles == ["a man", texts[1].text.strip(), "(empty caption)", "x", "y"]
    labels = [re.sub(r"\s+", " ", ax.get_xlabel()) for ax in figure.axes]
    assert labels[0] == "• one • " + ("two " * 20).strip() and labels[2:4] == ["", "• (empty)"]
    red, _, blue = matplotlib.colors.to_rgb(figure.axes[0]._left_title.get_color())
    assert red > blue  # the lowest score
    red, _, blue = matplotlib.colors.to_rgb(figure.axes[1]._left_title.get_color())
    assert blue > red  # the highest
    assert [ax.texts[0].get_text() for ax in figure.axes] == ["0.100", "0.900", "0.500", "?", "0.200"]
    draw(figure)
    lowest = figure.axes[0].xaxis.label.get_window_extent().y0
    assert lowest > figure.axes[3]._left_title.get_window_extent().y1
    assert_nothing_cut_off(figure)


def test_predictions_refuse() -> None:
    with pytest.raises(ValueError, match=r"one entry a picture, got \[1, 2, 1\]"):
        plot_predictions([PHOTO], ["a", "b"], [["c"]])
    with pytest.raises(ValueError, match="list of captions for each picture"):
        plot_predictions([PHOTO], ["a"], ["b"])


SYSTEMS = {"beam_5 $k$": {"BLEU-1": (0.64, 0.62, 0.65), "BLEU-4": (0.22, 0.21, 0.24)}, "greedy": {"BLEU-4": 0.19}}


def test_scores_and_their_intervals() -> None:
    ax = plot_scores(SYSTEMS, title="dev")
    first, second = (line for line in ax.lines if not line.get_label().startswith("_"))
    np.testing.assert_allclose(first.get_xdata(), [0.64, 0.22])
    np.testing.assert_allclose(second.get_xdata(), [0.19])
    segments = ax.collections[0].get_segments()
    np.testing.assert_allclose([line[:, 0] for line in segments], [[0.62, 0.65], [0.21, 0.24]])
    np.testing.assert_allclose([line[:, 1] for line in segments], np.transpose([first.get_ydata()] * 2))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["BLEU-1", "BLEU-4"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(SYSTEMS)
    assert ax.get_ylim() == (1.5, -0.5) and [text.get_text() for text in ax.texts] == ["0.640", "0.220", "0.190"]
    assert_nothing_cut_off(ax.figure)


def test_scores_as_a_table_or_of_one_system() -> None:
    table = pd.DataFrame(
        {"metric": ["CIDEr-D", "BLEU-4"], "score": [1.1, 22.3], "low": [1.0, None], "high": [1.2, None]}
    )
    ax = plot_scores(table)
    assert [text.get_text() for text in ax.texts] == ["1.100", "22.3"] and ax.get_legend() is None
    assert ax.get_title(loc="left") == "Scores with their intervals"
    own = Figure().add_subplot()
    assert plot_scores({"BLEU-4": 0.2}, ax=own) is own and own.get_title(loc="left") == "Scores"


def test_an_interval_that_leaves_its_score_out_is_drawn_as_it_is() -> None:
    ax = plot_scores({"BLEU-4": (0.3, 0.31, 0.4)})
    np.testing.assert_allclose(ax.collections[0].get_segments()[0][:, 0], [0.31, 0.4])


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "empty"),
        ({"BLEU-4": (0.3, 0.5, 0.4)}, r"BLEU-4: the interval \(0.5, 0.4\) ends below its start"),
        ({"BLEU-4": (0.3, 0.4)}, r"score or \(score, low, high\), got \(0.3, 0.4\)"),
        (pd.DataFrame({"a": [1]}), r"columns metric and score, got \['a'\]"),
        ([1, 2], "a DataFrame or a dict, got list"),
    ],
)
def test_scores_refuse(scores: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot_scores(scores)


def test_text_is_drawn_literally_whatever_it_holds() -> None:
    caption = caption_of(" ".join(ODD_WORDS))
    with matplotlib.rc_context({"text.parse_math": True, "text.usetex": False}):
        figure = plot_attention(PHOTO, caption)
        draw(figure)
        draw(plot_predictions([PHOTO], [caption], [list(ODD_WORDS)]))
        draw(plot_scores({word: {word: 0.5} for word in ODD_WORDS}, title="$\\frac").figure)
        for n in range(len(ODD_WORDS)):
            draw(plot_word(PHOTO, caption, n).figure)
    assert [ax.get_title() for ax in figure.axes[1:7]] == list(ODD_WORDS[:6])
    assert all(len(ax.get_title()) >= 1 for ax in figure.axes[1:-1])


def test_letters_that_the_bold_font_lacks_raise_no_warning() -> None:
    plain, bold = (
        set(get_font(findfont(FontProperties(family="DejaVu Sans", weight=weight))).get_charmap())
        for weight in ("normal", "bold")
    )
    lacking = "".join(chr(code) for code in sorted(plain - bold)[:20])
    assert lacking
    draw(plot_attention(PHOTO, caption_of(lacking)))


def test_wrapped_lines_fit_and_lose_nothing() -> None:
    text = "some words of several lengths, " * 3 + "x" * 90
    lines = wrap(text, 1.5, 11)
    assert all(text_width(line, 11) <= 1.5 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_pictures_as_arrays_pillow_and_paths(tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    for picture in (PHOTO, Image.fromarray(PHOTO), tmp_path / "photo.png", str(tmp_path / "photo.png")):
        array, size = read_picture(picture, 400)
        np.testing.assert_array_equal(array, PHOTO)
        assert size == (WIDTH, HEIGHT)
    clear, _ = read_picture(Image.new("RGBA", (2, 3), (0, 0, 0, 0)), 400)
    assert (clear == 255).all()
    with pytest.raises(ValueError, match=r"uint8 of shape .* got float64 of \(97, 131, 3\)"):
        plot_attention(PHOTO / 255, caption_of("a"))
    with pytest.raises(ValueError, match=r"nowhere\.jpg"):
        plot_word(tmp_path / "nowhere.jpg", caption_of("a"), 0)
    with pytest.raises(ValueError, match="columns needs at least 1, got 0"):
        plot_attention(PHOTO, caption_of("a"), columns=0)


def test_nothing_is_left_behind() -> None:
    settings, figures = dict(matplotlib.rcParams), plt.get_fignums()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(25):
            plot_word(PHOTO, caption_of("a b"), 0)
        plot_attention(PHOTO, caption_of("a"))
        plot_history(HISTORY)
        plot_predictions([PHOTO], ["a"], [["b"]])
        plot_scores(SYSTEMS)
        with pytest.raises(ValueError):
            plot_scores({})
    assert plt.get_fignums() == figures and dict(matplotlib.rcParams) == settings


def test_drawing_on_own_axes_leaves_their_figure_alone() -> None:
    figure = Figure(figsize=(6, 4))
    left, right = figure.subplots(1, 2)
    assert plot_word(PHOTO, caption_of("a b"), 1, ax=right) is right
    assert figure.axes == [left, right] and not left.images and tuple(figure.get_size_inches()) == (6, 4)


def test_jupyter_shows_what_is_returned() -> None:
    for shown in (plot_attention(PHOTO, caption_of("a")), plot_word(PHOTO, caption_of("a"), 0), plot_scores(SYSTEMS)):
        figure = shown if isinstance(shown, Figure) else shown.figure
        seen = np.asarray(Image.open(BytesIO(shown._repr_png_())).convert("RGB")).astype(int)
        assert np.abs(seen - draw(figure)).mean() < 0.01  # the layout moves by a hair between draws


def test_importing_needs_neither_tensorflow_nor_pyplot() -> None:
    code = (
        "import sys, attncap.plotting.attention; print({'tensorflow', 'keras', 'matplotlib.pyplot'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
