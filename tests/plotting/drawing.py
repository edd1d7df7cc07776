"""What the tests of figures share: a photograph, captions with maps, and drawing that turns warnings into errors."""

from __future__ import annotations

import warnings
from io import BytesIO
from math import log
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from PIL import Image

from attncap import plotting
from attncap.captions import Caption

# Typed loosely, because matplotlib's stubs know less of an Axes than the tests ask of it.
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


def texts_of(figure: Figure) -> list[Any]:
    """The visible texts that lie in the figure, titles, axis labels and tick labels among them."""
    canvas: Any = figure.canvas
    canvas.draw()
    drawn = figure.findobj(
        lambda artist: isinstance(artist, Text) and artist.get_visible() and artist.get_text().strip()
    )
    hidden = {label for ax in figure.axes if not ax.axison for label in ax.findobj(Text)}
    whole = figure.bbox
    kept = []
    for text in drawn:
        box = text.get_window_extent()
        ticks = text.axes is not None and text in [*text.axes.get_xticklabels(), *text.axes.get_yticklabels()]
        if text not in hidden and box.width and (not ticks or whole.overlaps(box)):
            kept.append(text)
    return kept


def assert_texts_apart(figure: Figure) -> None:
    """No two texts lie on each other, beyond a pixel and a half."""
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts_of(figure)]
    for n, (first, a) in enumerate(boxes):
        for second, b in boxes[n + 1 :]:
            across, down = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert across <= 1.5 or down <= 1.5, f"{first!r} and {second!r} overlap by {across:.0f} x {down:.0f} pixels"


def assert_numbers_beside_their_markers(ax: Axes, line: Line2D) -> None:
    """Each annotation, in order, is as near to the marker that it belongs to as to any other, and is close to it."""
    ax.figure.canvas.draw()
    markers = [other for other in ax.lines if other.get_marker() not in ("", "None", None)]
    own = ax.transData.transform(np.asarray(line.get_xydata()))
    every = np.concatenate([ax.transData.transform(np.asarray(other.get_xydata())) for other in markers])
    assert len(ax.texts) == len(own)
    for text, place in zip(ax.texts, own, strict=True):
        box = text.get_window_extent()
        nearest = np.clip(every, (box.x0, box.y0), (box.x1, box.y1))
        distance = float(np.hypot(*(np.clip(place, (box.x0, box.y0), (box.x1, box.y1)) - place)))
        assert distance <= 16, f"{text.get_text()} is {distance:.0f} pixels from its marker"
        assert distance <= np.hypot(*(nearest - every).T).min() + 1, f"{text.get_text()} is nearer to another marker"


def contrast(color: Any, background: Any) -> float:
    """The contrast of two colors from 1 to 21, as the Web Content Accessibility Guidelines define it."""

    def luminance(given: Any) -> float:
        channels = np.asarray(to_rgb(given))
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    brighter, darker = sorted((luminance(color), luminance(background)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)
