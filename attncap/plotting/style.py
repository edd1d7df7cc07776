"""The style of every figure: fonts, colors, sizes, and figures that Jupyter shows without pyplot."""

from __future__ import annotations

import os
from io import BytesIO
from typing import Any, cast

from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from attncap._files import replacing

# Fonts for scripts that DejaVu Sans (which comes with matplotlib) lacks; used if they are installed.
FALLBACK_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Emoji")
INK, MUTED, RULE = "#1a1a1a", "#555555", "#d9d9d9"
# Okabe and Ito's colors, which people with any color vision can distinguish; without yellow, which is too pale on
# white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
WRONG = "#D55E00"  # the mark under words that are known to be wrong
MARKERS = "osD^vPX*"

STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans", *sorted(set(FALLBACK_FONTS) & {font.name for font in fontManager.ttflist})],
    "font.size": 11.0,
    "text.color": INK,
    "text.parse_math": False,  # a caption may hold "$"
    "text.usetex": False,
    "figure.facecolor": "white",
    "figure.dpi": 100.0,
    "axes.facecolor": "white",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.labelsize": 11.0,
    "axes.titlesize": 12.0,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "legend.frameon": False,
    "legend.fontsize": 11.0,
    "lines.linewidth": 2.0,
}

SCORE_COLORS = LinearSegmentedColormap.from_list("score", ["#A84300", "#5A5A5A", "#005A94"])  # all dark enough on white
MISSING = "\u25a1"  # a box, for characters that no font has
PANEL_PIXELS, LARGE_PIXELS = 400, 1000  # the longer side of an image as drawn: 40 panels fit in memory
MARGIN, GAP, LINE = 0.18, 0.14, 1.25 / 72  # inches; LINE is the height of a line of text per point of its size


def root_figure(part: Any) -> Any:
    """Return the figure that holds axes or a subfigure, None for axes of none.

    Matplotlib's own `get_figure(root=True)` came with version 3.10.
    """
    return None if part.figure is None else part.figure.figure


class SheetFigure(Figure):
    """A figure without pyplot that Jupyter shows when it is the last value of a cell."""

    def _repr_png_(self) -> bytes:
        return png_of(self)


class PanelAxes(Axes):
    """Axes that Jupyter shows as their figure when they are the last value of a cell."""

    def _repr_png_(self) -> bytes:
        return png_of(cast(Figure, root_figure(self)))


def save_figure(drawn: Any, file: str | os.PathLike[str]) -> None:
    """Write a figure, or the figure of axes, to a file: whole, or not at all.

    Raises:
        ValueError: see `figure_format`.
        OSError: the file cannot be written, see `attncap._files.replacing`.
    """
    kind = figure_format(file)
    with replacing(file) as temporary:
        root_figure(drawn).savefig(temporary, format=kind)


def figure_format(file: str | os.PathLike[str]) -> str:
    """Return the format that the ending of a file tells, such as "svg"; without an ending, "png".

    Raises:
        ValueError: Matplotlib does not write this format.
    """
    kind = os.path.splitext(file)[1].removeprefix(".").lower() or "png"
    if kind not in FigureCanvasBase.get_supported_filetypes():
        raise ValueError(f"{os.fspath(file)}: figures are not written as {kind}: end the name with .png, .pdf or .svg")
    return kind


def png_of(figure: Figure, **settings: Any) -> bytes:
    """Return a figure as a PNG file, with settings of `savefig`."""
    contents = BytesIO()
    figure.savefig(contents, format="png", **settings)
    return contents.getvalue()
