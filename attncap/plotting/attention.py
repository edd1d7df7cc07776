"""Draws captions and their attention maps, predictions, training curves and scores: arrays in, Axes or a Figure out.

Figures are made without pyplot, so none piles up in its list and nothing is shown by itself; JupyterLab shows the one
that a cell ends with. Panels (`plot_word`, `plot_scores`) take `ax` and return it, sheets return their Figure.
"""

from __future__ import annotations

from math import ceil, exp, sqrt
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from PIL import Image

from attncap.captions import WHOLE_PICTURE, Caption
from attncap.plotting.scores import plot_history, plot_predictions, plot_scores
from attncap.plotting.style import (
    GAP,
    INK,
    LARGE_PIXELS,
    LINE,
    MARGIN,
    MUTED,
    PANEL_PIXELS,
    STYLE,
    Picture,
    SheetFigure,
    balanced_columns,
    fit_word,
    picture_extent,
    place_axes,
    place_text,
    read_picture,
    show_photo,
    size_inches,
    wrap,
)

__all__ = [
    "STYLE",
    "plot_attention",
    "plot_history",
    "plot_predictions",
    "plot_scores",
    "plot_word",
    "upsample_attention",
]

NO_MAPS = (
    "the caption has no attention maps, for its captioner has no attention: "
    "take one of `attncap train --model attention`, or draw the caption alone with plot_predictions"
)


def upsample_attention(
    weights: np.ndarray,
    size: tuple[int, int],
    smooth: bool = True,
    grid_box: tuple[float, float, float, float] = WHOLE_PICTURE,
) -> np.ndarray:
    """Enlarges an attention map to the size of the picture that it was computed from.

    The cells tile grid_box: for the whole picture, cell (r, c) of R x C covers the pixels from r H/R to (r+1) H/R and
    from c W/C to (c+1) W/C. Smooth: bicubic interpolation, which keeps each cell's value at its center, clipped to the
    map's own range, so that no dark ring (or negative weight) surrounds a peak. The map's border values go on to the
    picture's edge.

    Args:
        weights: array, shape (rows, cols), any unit, finite.
        size: (height, width) of the result, in pixels.
        smooth: False gives every pixel the weight of its cell.
        grid_box: `Caption.grid_box`, the part of the picture that the cells tile.

    Returns:
        float32 array, shape (height, width), within [weights.min(), weights.max()].

    Raises:
        ValueError: weights that are not two-dimensional, empty or not finite, or a size below 1.

    Example:
        >>> upsample_attention(np.eye(2), (4, 4), smooth=False)[0]
        array([1., 1., 0., 0.], dtype=float32)
    """
    weights = np.asarray(weights, dtype=np.float32)
    height, width = size
    if weights.ndim != 2 or not weights.size:
        raise ValueError(f"weights needs shape (rows, cols), got {weights.shape}: give the map of one word")
    if not np.isfinite(weights).all():
        raise ValueError("weights needs finite numbers, got NaN or infinity")
    if height < 1 or width < 1:
        raise ValueError(f"size needs (height, width) of at least 1 pixel each, got {size}")
    rows, cols = weights.shape
    left, top, right, bottom = grid_box
    per_row, per_col = rows / (bottom - top), cols / (right - left)  # cells a picture, were they to go on to its edges
    if not smooth:
        row_of = ((np.arange(height) + 0.5) / height - top) * per_row  # the cell that a pixel's center lies in
        col_of = ((np.arange(width) + 0.5) / width - left) * per_col
        row_of, col_of = (np.clip(np.floor(at), 0, n - 1).astype(int) for at, n in ((row_of, rows), (col_of, cols)))
        return weights[row_of][:, col_of]  # (height, width)
    beyond = max(left * per_col, top * per_row, (1 - right) * per_col, (1 - bottom) * per_row)
    border = 3 + ceil(beyond)  # cells; Pillow's kernel would otherwise be cut, and renormalized, at the edge
    bordered = Image.fromarray(np.pad(weights, border, mode="edge"))
    x, y = border - left * per_col, border - top * per_row
    box = (x, y, x + per_col, y + per_row)
    enlarged = bordered.resize((width, height), Image.Resampling.BICUBIC, box=box)
    return np.clip(np.asarray(enlarged), weights.min(), weights.max())  # (height, width)


@matplotlib.rc_context(STYLE)
def plot_attention(
    picture: Picture,
    caption: Caption,
    *,
    columns: int | None = None,
    fig: Figure | SubFigure | None = None,
    cmap: str = "inferno",
    alpha: float = 0.6,
    smooth: bool = True,
    title: str | None = None,
) -> Figure:
    """A caption's attention maps, word by word: the picture, then a panel for each word.

    Each map is colored from 0 to its own maximum. Below it stand that maximum in times uniform (weight * rows * cols:
    1x is a look at everything alike) and the word's probability, which tell what the colors cannot; and, of a model
    that may look away, how much of what it read came from the picture (`Caption.visual_probs`).

    Args:
        picture: Pillow picture, uint8 array of shape (height, width, 3), or path: all of what the encoder saw.
        caption: with T words and their maps.
        columns: panels in a row; default: as many as keep the rows about equal, and the figure at most 12 inches wide.
        fig: a Figure or SubFigure to fill; default: a new one, as large as the panels need.
        cmap: matplotlib's name of the colors, from little to much attention.
        alpha: opacity of the map over the picture, from 0 to 1.
        smooth: False shows the grid's cells.
        title: default: the caption.

    Returns:
        The figure; its axes are the picture, T words in order, and the color bar.

    Raises:
        ValueError: a caption without maps, columns below 1, or a picture or map that cannot be drawn.

    Example:
        >>> figure = plot_attention("photograph.jpg", caption)
        >>> figure.savefig("attention.png")

    Reference: Xu et al. 2015, figures 2, 3 and 5.
    """
    if columns is not None and columns < 1:
        raise ValueError(f"columns needs at least 1, got {columns}")
    maps = caption.attention_weights
    if maps is None:
        raise ValueError(NO_MAPS)
    photo, (width, height) = read_picture(picture, PANEL_PIXELS)
    if not caption.words:
        why = "an empty caption: no word, no map"
        return _plot_without_maps(photo, (width, height), caption.text if title is None else title, why, fig)
    ratio, panels = min(max(width / height, 0.3), 5.0), len(caption.words) + 1
    note = "Each map is colored from 0 to its own maximum, so colors do not compare between words; max says how large"
    note += " that is, in times uniform (1×: all places alike)."
    note += "" if caption.word_log_probs is None else " p: the word's probability."
    looked = None if caption.visual_probs is None or (caption.visual_probs == 1).all() else caption.visual_probs
    note += "" if looked is None else " looked: how much of what was read for the word came from the picture."
    if fig is None:
        box_width = min(max(1.75 * sqrt(ratio), 1.35), 2.8)
        columns = columns or balanced_columns(panels, max(int(12 // (box_width + GAP)), 1))
        sheet_width = max(columns * (box_width + GAP) - GAP + 2 * MARGIN, 5.0)
    else:
        sheet_width, sheet_height = size_inches(fig)
        room = max(sheet_height - 1.4, 0.5)
        columns = columns or max(
            range(1, panels + 1), key=lambda n: min(sheet_width / n, ratio * (room / ceil(panels / n) - 0.5))
        )
        box_width = (sheet_width - 2 * MARGIN - (columns - 1) * GAP) / columns
    rows = ceil(panels / columns)
    heading = wrap(caption.text if title is None else title, sheet_width - 2 * MARGIN, 13, "bold")
    legend = wrap(note, max(sheet_width - 2 * MARGIN - 2.2, 1.0), 10)
    words = [fit_word(word, box_width, 12, 9, "bold") for word in ("picture", *caption.words)]
    titles = [
        max(size * LINE * len(lines) for lines, size in words[n : n + columns]) for n in range(0, panels, columns)
    ]
    above = np.array(titles) + 0.08  # inches over each row's pictures
    below = 9.5 * LINE * (1 if looked is None else 2) + 0.12
    top = MARGIN + len(heading) * 13 * LINE + 0.12
    bottom = max(len(legend) * 10 * LINE, 0.4) + MARGIN + 0.1
    box_height = box_width / ratio
    if fig is None:
        sheet_height = top + above.sum() + rows * (box_height + below) + bottom
        fig = SheetFigure(figsize=(sheet_width, sheet_height))
    else:
        box_height = max(min(box_height, (sheet_height - top - bottom - above.sum()) / rows - below), 0.1)
    place_text(fig, MARGIN, MARGIN, heading, 13, fontweight="bold")
    left = (sheet_width - columns * (box_width + GAP) + GAP) / 2
    for panel, (lines, size) in enumerate(words):
        row, column = divmod(panel, columns)
        down = top + above[: row + 1].sum() + row * (box_height + below)
        ax = place_axes(fig, left + column * (box_width + GAP), down, box_width, box_height)
        ax.set_title("\n".join(lines), fontsize=size, pad=4, color=INK if panel else MUTED, parse_math=False)
        if panel == 0:
            ax.set_label("picture")
            ax.title.set(fontstyle="italic", fontweight="normal")
            show_photo(ax, photo, (width, height))
            continue
        ax.set_label(f"word {panel - 1}")
        look: dict[str, Any] = {"smooth": smooth, "grid_box": caption.grid_box, "cmap": cmap, "alpha": alpha}
        _overlay(ax, photo, (width, height), maps[panel - 1], maximum=None, **look)
        probability = [] if caption.word_log_probs is None else [f"p {exp(caption.word_log_probs[panel - 1]):.2f}"]
        peak = f"max {_times(float(maps[panel - 1].max()) * maps[panel - 1].size)}"
        share = "" if looked is None else f"\nlooked {looked[panel - 1]:.0%}"
        ax.set_xlabel(" · ".join([*probability, peak]) + share, fontsize=9.5, labelpad=3, color=MUTED)
    down = sheet_height - bottom + 0.1
    _draw_scale(place_axes(fig, MARGIN + 0.1, down + 0.02, 1.7, 0.16), cmap, alpha)
    place_text(fig, MARGIN + 2.2, down, legend, 10, color=MUTED)
    return fig.get_figure(root=True)


@matplotlib.rc_context(STYLE)
def plot_word(
    picture: Picture,
    caption: Caption,
    index: int,
    *,
    ax: Axes | None = None,
    cmap: str = "inferno",
    alpha: float = 0.6,
    smooth: bool = True,
    maximum: float | None = None,
) -> Axes:
    """One word's attention map, large, with a color bar in times uniform.

    Drawn are weight * rows * cols: 1 where the model looks as much as at any place, 0 where it does not look.

    Args:
        picture, cmap, alpha, smooth: as in `plot_attention`.
        caption: with T words and their maps.
        index: which word, from 0; negative from the end.
        ax: where to draw; default: a new figure's.
        maximum: the color bar's end, in times uniform, to compare words; default: the map's own maximum, at
            least 2, for an even map is to look even.

    Returns:
        The axes; images[0] is the picture, images[1] the map, in the picture's pixel coordinates.

    Raises:
        ValueError: a caption without maps, or an index beyond it.

    Example:
        >>> plot_word("photograph.jpg", caption, 3).figure.savefig("word.png")
    """
    count = len(caption.words)
    if not -count <= index < count:
        raise ValueError(f"index needs to lie from 0 to {count - 1}, got {index}: the caption has {count} words")
    index %= count
    if caption.attention_weights is None:
        raise ValueError(NO_MAPS)
    photo, (width, height) = read_picture(picture, LARGE_PIXELS)
    about = [f"word {index + 1} of {count}"]
    if caption.word_log_probs is not None:
        about.append(f"probability {exp(caption.word_log_probs[index]):.2f}")
    sentence = "“" + " ".join(caption.words) + "”"
    ratio = min(max(width / height, 0.3), 5.0)
    box_width = min(max(4.6 * sqrt(ratio), 3.0), 7.0) if ax is None else size_inches(ax)[0]
    lines = [", ".join(about), *wrap(sentence, box_width, 11)]
    word, size = fit_word(caption.words[index], box_width, 18, 12, "bold")
    if ax is None:
        top, bottom = len(word) * size * LINE + 0.3, len(lines) * 11 * LINE + 0.3
        figure = SheetFigure(figsize=(MARGIN + box_width + 1.25, top + box_width / ratio + bottom))
        ax = place_axes(figure, MARGIN, top, box_width, box_width / ratio)
    ax.set_title("\n".join(word), fontsize=size, parse_math=False)
    weights = caption.attention_weights[index]
    peak = float(weights.max()) * weights.size
    look: dict[str, Any] = {"cmap": cmap, "alpha": alpha, "smooth": smooth, "grid_box": caption.grid_box}
    image = _overlay(ax, photo, (width, height), weights, maximum=maximum or max(peak, 2.0), **look)
    ax.set_xlabel("\n".join(lines), parse_math=False)
    cax = ax.inset_axes((1.03, 0.0, 0.045, 1.0), label="scale")
    cax.set_facecolor("0.5")  # the picture behind the map, on average
    bar = ax.figure.colorbar(image, cax=cax, extend="max" if maximum and maximum < peak else "neither")
    bar.set_label("attention\n(times uniform)", fontsize=11)
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(nbins=6)
    cax.tick_params(labelsize=11, labelcolor=INK, color=MUTED)
    return ax


def _overlay(
    ax: Axes,
    photo: np.ndarray,
    size: tuple[int, int],
    weights: np.ndarray,
    *,
    maximum: float | None,
    smooth: bool,
    grid_box: tuple[float, float, float, float],
    **look: Any,
) -> AxesImage:
    show_photo(ax, photo, size)
    height, width = photo.shape[:2]
    times_uniform = upsample_attention(weights, (height, width), smooth, grid_box) * weights.size  # (height, width)
    top = float(times_uniform.max()) if maximum is None else maximum
    look |= {"vmin": 0.0, "vmax": top if top > 0 else 1.0}
    return ax.imshow(times_uniform, extent=picture_extent(size), origin="upper", aspect="equal", **look)


def _draw_scale(ax: Axes, cmap: str, alpha: float) -> None:
    ax.set_label("scale")
    ax.set_facecolor("0.5")  # the picture behind the maps, on average
    ax.imshow(np.linspace(0, 1, 256)[None], extent=(0, 1, 0, 1), aspect="auto", cmap=cmap, alpha=alpha)  # (1, 256)
    ax.set_xticks([0, 1], ["0", "map's max"], fontsize=10, color=INK)
    ax.get_xticklabels()[1].set_horizontalalignment("right")
    ax.tick_params(length=0, pad=3)


def _times(value: float) -> str:
    return f"{value:.0f}×" if value >= 9.95 else f"{value:.1f}×"


def _plot_without_maps(
    photo: np.ndarray, size: tuple[int, int], title: str, why: str, fig: Figure | SubFigure | None
) -> Figure:
    ratio = min(max(size[0] / size[1], 0.3), 5.0)
    sheet_width, sheet_height = (4.4 * sqrt(ratio) + 2 * MARGIN, 0.0) if fig is None else size_inches(fig)
    width = sheet_width - 2 * MARGIN
    heading = wrap(title or "(empty caption)", width, 13, "bold")
    reason = wrap(why, width, 11)
    top, bottom = MARGIN + len(heading) * 13 * LINE + 0.1, MARGIN + len(reason) * 11 * LINE + 0.1
    sheet_height = sheet_height or top + width / ratio + bottom
    fig = SheetFigure(figsize=(sheet_width, sheet_height)) if fig is None else fig
    place_text(fig, MARGIN, MARGIN, heading, 13, fontweight="bold")
    ax = place_axes(fig, MARGIN, top, width, max(sheet_height - top - bottom, 0.1))
    ax.set_label("picture")
    show_photo(ax, photo, size)
    ax.set_xlabel("\n".join(reason), fontstyle="italic", color=MUTED)
    return fig.get_figure(root=True)
