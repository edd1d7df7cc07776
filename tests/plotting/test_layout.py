"""Text that fits, images to draw, and what drawing leaves behind (nothing)."""

from __future__ import annotations

import subprocess
import sys
import warnings
from io import BytesIO
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from PIL import Image

from attncap.plotting.layout import read_image, text_width, wrap
from attncap.plotting.style import save_figure
from tests.plotting.drawing import (
    HEIGHT,
    ODD_WORDS,
    PHOTO,
    WIDTH,
    caption_of,
    draw,
    plot_attention,
    plot_history,
    plot_predictions,
    plot_scores,
    plot_word,
)
from tests.plotting.test_history import HISTORY
from tests.plotting.test_scores import SYSTEMS


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
        array, size = read_image(picture, 400)
        np.testing.assert_array_equal(array, PHOTO)
        assert size == (WIDTH, HEIGHT)
    clear, _ = read_image(Image.new("RGBA", (2, 3), (0, 0, 0, 0)), 400)
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


@pytest.mark.parametrize(("name", "begins"), [("map.png", b"\x89PNG"), ("map", b"\x89PNG"), ("map.SVG", b"<?xml")])
def test_a_figure_is_written_whole_or_not_at_all(name: str, begins: bytes, tmp_path: Path) -> None:
    figure = plot_attention(PHOTO, caption_of("a hat"))
    for drawn in (figure, figure.axes[0]):
        save_figure(drawn, tmp_path / name)
        assert [path.name for path in tmp_path.iterdir()] == [name]
        assert (tmp_path / name).read_bytes().startswith(begins)
    with pytest.raises(ZeroDivisionError):
        figure.axes[0].add_artist(Broken())
        save_figure(figure, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes().startswith(begins)


class Broken(Artist):
    """It cannot be drawn."""

    def draw(self, renderer: object) -> None:
        raise ZeroDivisionError
