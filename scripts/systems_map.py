"""The map of the five systems: what each reads of an image, what it does with it, and what it says of that image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from PIL import Image

from attncap.plotting.layout import wrap
from attncap.plotting.style import COLORS, INK, MUTED, STYLE, PanelAxes, SheetFigure
from attncap.retrieval.index import DifferenceHash

WIDTH, HEIGHT = 13.0, 8.0  # inches; places below are inches from the upper left corner
ROW, TOP = 1.36, 0.62
SIDE = 1.25  # of the small images


class Shown(NamedTuple):
    """A system of the map."""

    name: str
    how: str
    reads: int  # 0: regions, 1: one vector, 2: bits
    answer: str  # its name in the comparison


SYSTEMS = (
    Shown("Attention captioner", "a GRU looks at the regions anew for every word", 0, "attention captioner"),
    Shown(
        "Attributes",
        "a probability for each; those above their threshold, in a sentence",
        0,
        "attributes in a sentence",
    ),
    Shown("Show and Tell", "an LSTM reads the vector once, then its own words", 1, "Show and Tell"),
    Shown("Nearest embedding", "the text of the training image with the most similar vector", 1, "nearest embedding"),
    Shown("Difference hash", "the text of the training image with the fewest bits apart", 2, "nearest hash, 64 bits"),
)
READINGS = ("a grid of regions", "their mean: one vector", "64 bits: is the right neighbor brighter?")


@matplotlib.rc_context(STYLE)
def plot_systems(
    image: str, vector: np.ndarray, answers: Mapping[str, str], marks: Mapping[str, str], regions: int = 16
) -> Figure:
    """Draw the map.

    Args:
        image: file of the image that all five describe.
        vector: its pooled features, shape (D,).
        answers: name of a system in the comparison -> what it says of the image.
        regions: of a side of the grid that the attention captioner reads.
        marks: the same names -> a short line below the answer, such as its score.
    """
    figure = SheetFigure(figsize=(WIDTH, HEIGHT))
    page = _axes(figure, 0, 0, WIDTH, HEIGHT)
    page.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0))
    for x, text in ((0.3, "the image"), (2.65, "what is read of it"), (5.2, "the system"), (8.75, "what it says")):
        page.text(x, 0.3, text, weight="bold", size=13, va="center")
    photo = Image.open(image).convert("RGB")
    middles = [TOP + ROW * (n + 0.5) for n in range(len(SYSTEMS))]
    readings = [np.mean([y for y, shown in zip(middles, SYSTEMS, strict=True) if shown.reads == n]) for n in range(3)]
    side = 1.8
    _axes(figure, 0.3, HEIGHT / 2 - side / 2, side, side).imshow(photo)
    for n, (y, said) in enumerate(zip(readings, READINGS, strict=True)):
        _draw_reading(_axes(figure, 2.65, y - SIDE / 2 - 0.08, SIDE, SIDE), n, photo, vector, regions)
        page.text(2.65, y + SIDE / 2 - 0.02, "\n".join(wrap(said, 2.1, 10)), size=10, color=MUTED, va="top")
        _arrow(page, (0.3 + side + 0.05, HEIGHT / 2), (2.58, y), COLORS[n])
    for y, shown in zip(middles, SYSTEMS, strict=True):
        color = COLORS[shown.reads]
        _arrow(page, (2.65 + SIDE + 0.08, float(readings[shown.reads])), (5.1, y), color)
        box = FancyBboxPatch(
            (5.2, y - 0.52), 3.05, 1.04, boxstyle="round,pad=0,rounding_size=0.08", fc="white", ec=color
        )
        box.set_linewidth(2)
        page.add_patch(box)
        page.text(5.34, y - 0.28, shown.name, weight="bold", size=12.5, va="center")
        page.text(5.34, y + 0.16, "\n".join(wrap(shown.how, 2.85, 10.5)), size=10.5, va="center", color=INK)
        _arrow(page, (8.3, y), (8.66, y), color)
        lines = wrap(answers[shown.answer], WIDTH - 8.75 - 0.2, 11)
        page.text(8.75, y - 0.12, "\n".join(lines), size=11, va="center")
        page.text(8.75, y + 0.44, marks[shown.answer], size=10, va="center", color=MUTED)
    return figure


def _axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    place = (left / WIDTH, 1 - (top + height) / HEIGHT, width / WIDTH, height / HEIGHT)
    ax = figure.add_axes(place, axes_class=PanelAxes)
    ax.set_axis_off()
    ax.set_facecolor("none")
    return ax


def _draw_reading(ax: Axes, which: int, photo: Image.Image, vector: np.ndarray, regions: int) -> None:
    if which == 0:
        ax.imshow(photo, extent=(0, regions, regions, 0))
        for at in range(regions + 1):
            ax.axhline(at, color="white", linewidth=0.7)
            ax.axvline(at, color="white", linewidth=0.7)
    elif which == 1:
        ax.bar(range(24), vector[np.linspace(0, len(vector) - 1, 24).astype(int)], color=COLORS[1], width=0.8)
    else:
        bits = np.unpackbits(DifferenceHash(64).encode([photo])[0]).reshape(8, 8)
        ax.imshow(bits, cmap="gray", interpolation="nearest")
        ax.add_patch(Rectangle((-0.5, -0.5), 8, 8, fill=False, edgecolor=MUTED, linewidth=1.5))


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str) -> None:
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, color=color, lw=1.8))
