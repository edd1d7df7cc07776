"""What the figures share: one style, figures that Jupyter shows, text that fits, pictures of a size to draw."""

from __future__ import annotations

import os
import unicodedata
from functools import lru_cache
from io import BytesIO
from math import ceil, isnan
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from PIL import Image

# Scripts that DejaVu Sans (which comes with matplotlib) lacks are drawn where one of the others is installed.
FALLBACK_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Emoji")
INK, MUTED, RULE = "#1a1a1a", "#555555", "#d9d9d9"
# Okabe and Ito's colors, told apart by people with any color vision; yellow left out, too pale on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
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

SCORE_COLORS = LinearSegmentedColormap.from_list("score", ["#A84300", "#5A5A5A", "#005A94"])  # dark on white all
MISSING = "\u25a1"  # a box
PANEL_PIXELS, LARGE_PIXELS = 400, 1000  # a picture is drawn no finer than this: 40 panels of a photograph fit in memory
MARGIN, GAP, LINE = 0.18, 0.14, 1.25 / 72  # inches; LINE is the height of a line of text per point of its size

Picture = Image.Image | np.ndarray | str | os.PathLike[str]


class SheetFigure(Figure):
    """A figure that pyplot does not know, and that Jupyter shows all the same, once."""

    def _repr_png_(self) -> bytes:
        return _png(self)


class PanelAxes(Axes):
    """Axes that Jupyter shows as their figure, when they are what a cell ends with."""

    def _repr_png_(self) -> bytes:
        return _png(cast(Figure, self.get_figure(root=True)))


def _png(figure: Figure) -> bytes:
    contents = BytesIO()
    figure.savefig(contents, format="png")
    return contents.getvalue()


def place_axes(fig: Figure | SubFigure, left: float, top: float, width: float, height: float) -> Axes:
    """New axes at a place in inches from the figure's top left corner, without ticks and frame."""
    across, down = size_inches(fig)
    where = (left / across, 1 - (top + height) / down, width / across, height / down)
    ax = fig.add_axes(where, axes_class=PanelAxes)
    bare(ax)
    return ax


def bare(ax: Axes) -> None:
    """Takes ticks and frame away, which mean nothing around a picture."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def size_inches(part: Figure | SubFigure | Axes) -> tuple[float, float]:
    """(width, height) of a figure or of axes as they stand now."""
    dpi = part.get_figure(root=True).dpi  # type: ignore[union-attr]
    box = part.bbox
    return float(box.width / dpi), float(box.height / dpi)


def place_text(fig: Figure | SubFigure, left: float, top: float, lines: list[str], size: float, **look: Any) -> Text:
    """Lines of text with their upper left corner at a place in inches from the figure's top left corner."""
    across, down = size_inches(fig)
    return fig.text(left / across, 1 - top / down, "\n".join(lines), va="top", fontsize=size, parse_math=False, **look)


@lru_cache(maxsize=1)
def _drawable_characters() -> frozenset[int]:
    characters: set[int] = set()
    for name in STYLE["font.family"]:
        faces = (get_font(findfont(FontProperties(family=name, weight=weight))) for weight in ("normal", "bold"))
        characters |= set.intersection(*(set(face.get_charmap()) for face in faces))  # bold faces know fewer
    return frozenset(characters)


def drawable(text: str) -> str:
    """Text on one line, with a box for each character that no font here has (matplotlib would warn at every draw)."""
    known = _drawable_characters()
    characters = []
    for character in " ".join(text.split()):
        category = unicodedata.category(character)
        if category == "Cc" or (ord(character) not in known and category in ("Mn", "Me", "Cf")):
            continue  # controls, and marks such as emoji variants, that are nothing to see by themselves
        characters.append(character if ord(character) in known else MISSING)
    return "".join(characters)


@lru_cache(maxsize=4096)
def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Width in inches of one line."""
    font = FontProperties(family=STYLE["font.family"], weight=weight, size=size)
    width = float(text_to_path.get_text_width_height_descent(text, font, False)[0]) / 72
    return width * 1.04  # letters fall on whole pixels, so that a drawn line is up to that much longer


def wrap(text: str, width: float, size: float, weight: str = "normal") -> list[str]:
    """Lines no wider than `width` inches; only a word that is wider by itself is broken within."""
    lines = [""]
    for word in drawable(text).split(" "):
        joined = f"{lines[-1]} {word}".strip()
        if text_width(joined, size, weight) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for character in word:
            if lines[-1] and text_width(lines[-1] + character, size, weight) > width:
                lines.append("")
            lines[-1] += character
    return lines


def bulleted(text: str, width: float, size: float) -> list[str]:
    """`wrap`, with a bullet before the first line and the others set in below it."""
    first, *others = wrap(text or "(empty)", width - text_width("• ", size), size)
    return [f"• {first}", *(f"\u2002 {line}" for line in others)]


def fit_word(word: str, width: float, size: float, smallest: float, weight: str) -> tuple[list[str], float]:
    """A word's lines and size in points: smaller where it is too wide, and broken where it still is."""
    text = drawable(word) or " "
    wanted = text_width(text, size, weight)
    if wanted > width:
        size = max(smallest, size * width / wanted * 0.99)
    return wrap(text, width, size, weight), size


def balanced_columns(panels: int, most: int) -> int:
    """The number of columns, at most `most`, with which the rows are about equally full."""
    return ceil(panels / ceil(panels / most))


def short_number(value: float) -> str:
    """Three digits, as a reader compares scores: 0.223, 22.3, 101."""
    if isnan(value):
        return "?"
    return f"{value:.3f}" if abs(value) < 9.9995 else f"{value:.1f}" if abs(value) < 99.95 else f"{value:.0f}"


def read_picture(picture: Picture, longest: int) -> tuple[np.ndarray, tuple[int, int]]:
    """A picture to draw and its true size.

    Args:
        picture: Pillow picture, uint8 array of shape (height, width, 3), or path.
        longest: pixels along the longer side, at most, of what is returned.

    Returns:
        uint8 array, shape (height', width', 3), and (width, height) of the picture itself.

    Raises:
        ValueError: an array of another shape or type, or a file that is no picture.
    """
    if isinstance(picture, (str, os.PathLike)):
        from attncap.images import open_image

        picture = open_image(picture)
    if not isinstance(picture, Image.Image):
        array = np.asarray(picture)
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or not array.size:
            raise ValueError(
                f"picture needs uint8 of shape (height, width, 3), got {array.dtype} of {array.shape}: scale to 0..255"
            )
        picture = Image.fromarray(array)
    if picture.has_transparency_data:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
    size = picture.size
    scale = min(longest / max(size), 1.0)
    shown = picture.convert("RGB")
    if scale < 1:
        small = (max(round(size[0] * scale), 1), max(round(size[1] * scale), 1))
        shown = shown.resize(small, Image.Resampling.LANCZOS)
    return np.asarray(shown), size


def show_photo(ax: Axes, photo: np.ndarray, size: tuple[int, int]) -> None:
    """Draws a picture in its own pixel coordinates, however coarse `photo` is."""
    bare(ax)
    ax.imshow(photo, extent=picture_extent(size), origin="upper", aspect="equal", interpolation="antialiased")


def picture_extent(size: tuple[int, int]) -> tuple[float, float, float, float]:
    """What imshow needs to draw an array of any size in the picture's pixel coordinates."""
    return (-0.5, size[0] - 0.5, size[1] - 0.5, -0.5)  # pixel centers at whole numbers, y downward
