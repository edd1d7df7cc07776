"""Sheets of images with captions above and references below."""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from attncap import plotting
from attncap.captions import Caption
from attncap.plotting.style import WRONG
from tests.plotting.drawing import (
    PHOTO,
    assert_nothing_cut_off,
    assert_texts_apart,
    caption_of,
    draw,
    plot_predictions,
)


def test_a_sheet_of_predictions() -> None:
    texts: list[Any] = ["a man", caption_of("a woman with a very long caption " + "that goes on " * 5), "", "x", "y"]
    references = [["one", "two " * 20], ["three"], [], [""], ["z"]]
    figure = plot_predictions([PHOTO] * 5, texts, references, scores=[0.1, 0.9, 0.5, float("nan"), 0.2])
    assert len(figure.axes) == 5
    titles = [ax.get_title(loc="left").replace("\n", " ") for ax in figure.axes]
    assert titles == ["a man", texts[1].sentence.strip(), "(empty caption)", "x", "y"]
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
    assert figure.texts[0].get_text() == "The model's caption above each image, what people wrote below"
    assert plot_predictions([PHOTO], ["a"], [[]]).texts[0].get_text() == "The model's caption above each image"


def test_sections_begin_rows_of_their_own() -> None:
    texts, references = [f"caption {n}" for n in range(5)], [["people wrote this"]] * 5
    figure = plot_predictions([PHOTO] * 5, texts, references, sections=[("Best", 2), ("Worst", 3)], columns=2)
    assert_nothing_cut_off(figure)
    assert_texts_apart(figure)
    tops = [round(ax.get_position().y1, 3) for ax in figure.axes]
    assert tops[0] == tops[1] > tops[2] == tops[3] > tops[4]
    lefts = [round(ax.get_position().x0, 3) for ax in figure.axes]
    assert lefts[0] == lefts[2] == lefts[4] < lefts[1] == lefts[3]
    assert [text.get_text() for text in figure.texts[1:]] == ["Best", "Worst"]
    with pytest.raises(ValueError, match=r"sections need all 5 images, at least one each, got \[\('Best', 2\)\]"):
        plot_predictions([PHOTO] * 5, texts, references, sections=[("Best", 2)])


def test_predictions_refuse() -> None:
    with pytest.raises(ValueError, match=r"one entry per image, got \[1, 2, 1\]"):
        plot_predictions([PHOTO], ["a", "b"], [["c"]])
    with pytest.raises(ValueError, match="list of captions for each image"):
        plot_predictions([PHOTO], ["a"], ["b"])


def test_wrong_words_are_underlined_and_one_score_is_neither_best_nor_worst() -> None:
    figure = plot_predictions([PHOTO], ["a man with red hat"], [["a man in a hat"]], [0.4], wrong=[{"red"}])
    (mark,) = [line for line in (*figure.lines, *figure.artists) if line.get_gid() == "wrong"]
    assert "underlined" in figure.texts[0].get_text().replace("\n", " ")
    draw(figure)
    title = figure.axes[0]._left_title.get_window_extent()
    at = mark.get_window_extent()
    assert title.x0 < at.x0 < at.x1 < title.x1 and title.y0 - 5 < at.y0 < title.y1
    red, _, blue = matplotlib.colors.to_rgb(figure.axes[0]._left_title.get_color())
    assert red == pytest.approx(blue, abs=0.02)  # gray
    with pytest.raises(ValueError, match=r"got \[1, 1, 1, 2\]"):
        plot_predictions([PHOTO], ["a"], [["a"]], wrong=[{"a"}, set()])


@pytest.mark.parametrize(("wrong", "underlined"), [([0, 4], ["A", "hat,"]), ([6], ["red"]), ({"red"}, ["red,", "red"])])
def test_words_are_also_marked_by_place(wrong: list[int] | set[str], underlined: list[str]) -> None:
    caption = Caption(("a", "man", "red", ",", "hat", ",", "red"), tuple(range(7)), 0.0)
    figure = plot_predictions([PHOTO], [caption], [["x"]], wrong=[wrong])
    titles = [mark._title for mark in figure.artists if mark.get_gid() == "wrong"]
    assert [line[start:end] for _, line, _, start, end in titles] == underlined


@pytest.mark.parametrize("dpi", [61, 100, 150])
def test_the_line_is_as_wide_as_its_word(dpi: int) -> None:
    text = "A serious man with bald hair"
    figure = plot_predictions([np.full_like(PHOTO, 200)], [text], [["x"]], wrong=[{"bald"}])
    file = BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    file.seek(0)
    pixels = plt.imread(file)[..., :3]
    line = np.argwhere(np.abs(pixels - matplotlib.colors.to_rgb(WRONG)).max(axis=-1) < 0.05)
    above = pixels[line[:, 0].min() - dpi // 8 : line[:, 0].min() - 1]  # the letters of the line of text
    inked = np.flatnonzero((above < 0.8).all(axis=-1).any(axis=0))
    words = np.split(inked, np.flatnonzero(np.diff(inked) > dpi / 30) + 1)  # blanks are wider than gaps in a word
    assert len(words) == len(text.split())
    bald = words[4]
    assert [line[:, 1].min(), line[:, 1].max()] == pytest.approx([bald[0], bald[-1]], abs=dpi / 40)


def test_the_line_stays_below_its_word_where_jupyter_cuts_off_margins() -> None:
    green = np.full((40, 40, 3), (0, 255, 0), np.uint8)
    figure = plot_predictions([green], ["a man with red hat"], [["a man in a hat", "x"]], wrong=[{"red"}])

    def place_of_line(**options: Any) -> list[int]:
        """Of the line from the image's upper left corner, in pixels."""
        file = BytesIO()
        figure.savefig(file, format="png", dpi=100, **options)
        file.seek(0)
        pixels = plt.imread(file)[..., :3]
        line = np.argwhere(np.abs(pixels - matplotlib.colors.to_rgb(WRONG)).max(axis=-1) < 0.05)
        photo = np.argwhere(np.abs(pixels - (0, 1, 0)).max(axis=-1) < 0.05)
        return [*(line.min(axis=0) - photo.min(axis=0)), *(line.max(axis=0) - photo.min(axis=0))]

    np.testing.assert_allclose(place_of_line(bbox_inches="tight"), place_of_line(), atol=1)


def test_words_in_no_reference_by_hand() -> None:
    assert plotting.words_in_no_reference("A man with Red hat.", ["a man, in a hat"]) == {"Red"}
    assert plotting.words_in_no_reference(caption_of("a red hat"), ["red hats"]) == {"hat"}
