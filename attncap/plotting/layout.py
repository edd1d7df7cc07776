"""Place axes and text on a figure in inches, fit text to a width, and read images to draw."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from math import ceil, isnan
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter
from PIL import Image

from attncap import images
from attncap.images import AnyImage
from attncap.plotting.style import INK, MISSING, MUTED, RULE, STYLE, PanelAxes, SheetFigure, root_figure


def place_axes(fig: Figure | SubFigure, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes at a place in inches from the figure's top left corner, without ticks and frame."""
    across, down = size_inches(fig)
    where = (left / across, 1 - (top + height) / down, width / across, height / down)
    ax = fig.add_axes(where, axes_class=PanelAxes)
    bare(ax)
    return ax


def bare(ax: Axes) -> None:
    """Remove ticks and frame, which have no meaning around an image."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def size_inches(part: Figure | SubFigure | Axes) -> tuple[float, float]:
    """Return the current (width, height) in inches of a figure or of axes."""
    dpi = root_figure(part).dpi
    box = part.bbox
    return float(box.width / dpi), float(box.height / dpi)


def place_text(fig: Figure | SubFigure, left: float, top: float, lines: list[str], size: float, **look: Any) -> Text:
    """Write lines of text with their upper left corner at a place in inches from the figure's top left corner."""
    across, down = size_inches(fig)
    return fig.text(left / across, 1 - top / down, "\n".join(lines), va="top", fontsize=size, parse_math=False, **look)


@lru_cache(maxsize=1)
def _drawable_characters() -> frozenset[int]:
    characters: set[int] = set()
    for name in STYLE["font.family"]:
        faces = (get_font(findfont(FontProperties(family=name, weight=weight))) for weight in ("normal", "bold"))
        characters |= set.intersection(*(set(face.get_charmap()) for face in faces))  # bold fonts have fewer characters
    return frozenset(characters)


def drawable(text: str) -> str:
    """Put text on one line, with a box for each character that no installed font has (matplotlib would warn)."""
    known = _drawable_characters()
    characters = []
    for character in " ".join(text.split()):
        category = unicodedata.category(character)
        if category == "Cc" or (ord(character) not in known and category in ("Mn", "Me", "Cf")):
            continue  # control characters, and marks such as emoji variants, that are not visible
        characters.append(character if ord(character) in known else MISSING)
    return "".join(characters)


@lru_cache(maxsize=4096)
def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Return the width of one line of text in inches."""
    font = FontProperties(family=STYLE["font.family"], weight=weight, size=size)
    width = float(text_to_path.get_text_width_height_descent(text, font, False)[0]) / 72
    return width * 1.04  # letters are placed on whole pixels, so that a line can be longer by this


def wrap(text: str, width: float, size: float, weight: str = "normal") -> list[str]:
    """Break text into lines of at most `width` inches; only wider words are broken."""
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
    """`wrap` with a bullet before the first line and the other lines indented."""
    first, *others = wrap(text or "(empty)", width - text_width("• ", size), size)
    return [f"• {first}", *(f"\u2002 {line}" for line in others)]


def fit_word(word: str, width: float, size: float, smallest: float, weight: str) -> tuple[list[str], float]:
    """Fit one word and return its lines and font size in points: reduce the size first, then break the word."""
    text = drawable(word) or " "
    wanted = text_width(text, size, weight)
    if wanted > width:
        size = max(smallest, size * width / wanted * 0.99)
    return wrap(text, width, size, weight), size


def balanced_columns(panels: int, most: int) -> int:
    """Return the number of columns, at most `most`, that fills the rows about equally."""
    return ceil(panels / ceil(panels / most))


def short_number(value: float) -> str:
    """Format a score with three digits: 0.223, 22.3, 101."""
    if isnan(value):
        return "?"
    return f"{value:.3f}" if abs(value) < 9.9995 else f"{value:.1f}" if abs(value) < 99.95 else f"{value:.0f}"


def read_image(image: AnyImage, longest: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Read an image to draw; return it with its true size.

    Args:
        image: path, Pillow image, or array as `attncap.images.read_image` takes it.
        longest: largest longer side, in pixels, of the returned image.

    Returns:
        uint8 array, shape (height', width', 3), and (width, height) of the image itself.

    Raises:
        ValueError: an array of another shape or type, or a file that is no image.
    """
    shown = images.read_image(image)
    size = shown.size
    scale = min(longest / max(size), 1.0)
    if scale < 1:
        small = (max(round(size[0] * scale), 1), max(round(size[1] * scale), 1))
        shown = shown.resize(small, Image.Resampling.LANCZOS)
    return np.asarray(shown), size


def show_photo(ax: Axes, photo: np.ndarray, size: tuple[int, int]) -> None:
    """Draw an image in its own pixel coordinates, at the resolution of `photo`."""
    bare(ax)
    extent = (-0.5, size[0] - 0.5, size[1] - 0.5, -0.5)  # pixel centers at whole numbers, y downward
    ax.imshow(photo, extent=extent, origin="upper", aspect="equal", interpolation="antialiased")


def ink_of(ax: Axes) -> tuple[str, str, str]:
    """Return colors of text, minor text and rules that are legible on the background of these axes."""
    figure = root_figure(ax)
    behind = to_rgba(figure.get_facecolor()) if figure is not None else (1.0, 1.0, 1.0, 1.0)
    red, green, blue, opacity = behind
    brightness = (0.299 * red + 0.587 * green + 0.114 * blue) * opacity + (1 - opacity)
    return (INK, MUTED, RULE) if brightness > 0.5 else ("#f2f2f2", "#c8c8c8", "#555555")


def label_graph(ax: Axes, title: str, across: str, up: str) -> None:
    """Title, axis names and a light grid behind the data, in colors that the background allows.

    Call `set_yticks` first where the y axis names categories: the title then has less room, and the grid's lines are
    vertical.
    """
    ink, muted, rule = ink_of(ax)
    lines = wrap(title, _room(ax), 12, "bold")
    ax.set_title("\n".join(lines), loc="left", color=ink, parse_math=False)
    ax.set_xlabel("\n".join(wrap(across, _room(ax), 11)), color=ink, parse_math=False)
    ax.set_ylabel(up, color=ink)
    named = _names_on_y(ax)
    ax.grid(axis="x" if named else "y", color=rule, linewidth=0.8)
    if named:
        ax.tick_params(axis="y", length=0)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=11, labelcolor=ink, color=muted)  # fixed now, not by the settings at the time of drawing


def legends_above(axes: Sequence[Axes], most_columns: int = 4) -> None:
    """Place legends between title and graph, in as many columns as fit; the titles of all axes stay at one height."""
    entries = [ax.get_legend_handles_labels()[1] for ax in axes]
    columns = [
        max((n for n in range(1, most_columns + 1) if _legend_width(labels, n) <= _room(ax)), default=1)
        for ax, labels in zip(axes, entries, strict=True)
    ]
    rows = max(ceil(len(labels) / n) if len(labels) > 1 else 0 for labels, n in zip(entries, columns, strict=True))
    look: dict[str, Any] = {"handlelength": 1.4, "columnspacing": 1.2, "borderaxespad": 0.2, "borderpad": 0.2}
    for ax, labels, n in zip(axes, entries, columns, strict=True):
        ink = ink_of(ax)[0]
        if len(labels) > 1:
            ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=n, fontsize=11, labelcolor=ink, **look)
        ax.set_title(ax.get_title(loc="left"), loc="left", pad=10 + 20 * rows if rows else 6, color=ink)


def _room(ax: Axes) -> float:
    """Return the width in inches available above axes: that of their grid cell, or of the axes without a grid."""
    cell = ax.get_subplotspec()
    if cell is None or root_figure(ax).get_layout_engine() is None:
        return max(size_inches(ax)[0], 1.0)
    part: Any = ax.figure
    share = len(cell.colspan) / cell.get_gridspec().ncols
    beside = max([0.5, *(text_width(name, 11) for name in _names_on_y(ax))]) + 0.4  # of the axis, and the padding
    return max(size_inches(part)[0] * share - beside, 1.0)


def _names_on_y(ax: Axes) -> list[str]:
    """Return the names of categories that `set_yticks` was given, none for an axis of numbers."""
    named = isinstance(ax.yaxis.get_major_formatter(), FuncFormatter)
    return [label.get_text() for label in ax.get_yticklabels()] if named else []


def _legend_width(labels: Sequence[str], columns: int) -> float:
    """Return the width in inches of a legend whose entries are filled column by column."""
    rows = ceil(len(labels) / columns)
    widest = [max(text_width(label, 11) for label in labels[n : n + rows]) for n in range(0, len(labels), rows)]
    gaps = len(widest) * (1.4 + 0.8) + (len(widest) - 1) * 1.2  # handle, its gap to the text, gap between columns
    return sum(widest) + gaps * 11 / 72


def constrained_layout(pad: float = 0.1) -> ConstrainedLayoutEngine:
    """A layout that leaves `pad` inches around each panel."""
    return ConstrainedLayoutEngine(w_pad=pad, h_pad=pad)


def new_axes(width: float, height: float) -> Axes:
    """Return the axes of a new figure of this size in inches."""
    return side_by_side(1, width, height)[0]


def side_by_side(panels: int, width: float, height: float) -> list[Axes]:
    """Return axes side by side in a new figure of this size in inches."""
    figure = SheetFigure(figsize=(width, height), layout=constrained_layout())
    return [figure.add_subplot(1, panels, n + 1, axes_class=PanelAxes) for n in range(panels)]
