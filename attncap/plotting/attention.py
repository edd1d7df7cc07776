"""A caption's attention maps, word by word."""

from __future__ import annotations

from math import ceil, exp, sqrt
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import Colormap
from matplotlib.figure import Figure, SubFigure

from attncap._messages import quoted
from attncap.captions import Caption
from attncap.images import AnyImage
from attncap.plotting.layout import (
    balanced_columns,
    fit_word,
    place_axes,
    place_text,
    read_image,
    show_photo,
    size_inches,
    text_width,
    wrap,
)
from attncap.plotting.overlay import NO_MAPS, Mode, check_mode, draw_attention, draw_scale, peak_label
from attncap.plotting.regions import MAP_CELLS, draw_boxes
from attncap.plotting.style import GAP, INK, LINE, MARGIN, MUTED, PANEL_PIXELS, STYLE, SheetFigure, root_figure

SMALL = 5.0  # inches: in a narrower or lower figure, fonts are smaller
NOTES = {
    "heat": "Color and opacity follow attention, from 0 to each map's own maximum",
    "reveal": "The photograph is shown in color where the model looked, up to each map's own maximum",
    "contour": "The lines enclose 80% and 50% of the attention",
}


@matplotlib.rc_context(STYLE)
def plot_attention(
    image: AnyImage,
    caption: Caption,
    *,
    columns: int | None = None,
    fig: Figure | SubFigure | None = None,
    mode: Mode = "heat",
    cmap: str | Colormap | None = None,
    alpha: float | None = None,
    smooth: bool = True,
    title: str | None = None,
) -> Figure:
    """Draw a caption's attention maps, word by word: the image, then one panel per word.

    Below each map are its maximum in times uniform (weight * rows * cols; 1x means equal attention everywhere) and the
    probability of the word. Each map has its own scale, which ends at its maximum or at twice uniform.

    Args:
        image: Pillow image, uint8 array of shape (height, width, 3), or path: all of what the encoder saw.
        caption: with T words and their maps. Maps on regions (`Caption.boxes`) are drawn as shaded, outlined boxes.
        columns: panels per row; default: as many as fill the rows about equally in a figure of at most 12 inches.
        fig: a Figure or SubFigure to fill; default: a new one, as large as the panels need.
        mode: "heat", "reveal" or "contour", see `attncap.plotting.overlay.draw_attention`.
        cmap: colors of "heat"; default: orange to dark red.
        alpha: constant opacity of "heat", from 0 to 1; default: opacity follows attention.
        smooth: False shows the grid's cells.
        title: default: the caption.

    Returns:
        The figure; its axes are the image, T words in order, and the scale.

    Raises:
        ValueError: a caption without maps, an unknown mode, columns below 1, or an image or map that cannot be drawn.

    Example:
        >>> figure = plot_attention("photograph.jpg", caption)
        >>> figure.savefig("attention.png")

    Reference: Xu et al. 2015, figures 2, 3 and 5.
    """
    if columns is not None and columns < 1:
        raise ValueError(f"columns needs at least 1, got {columns}")
    check_mode(mode)
    if not isinstance(caption, Caption):
        raise TypeError(f"caption: a Caption with maps expected, got {quoted(caption)}: take one of attncap.caption")
    if caption.attention_weights is None:
        raise ValueError(NO_MAPS)
    caption.check_maps()
    regions, boxes = caption.attention_weights, caption.boxes
    caption = caption.on_grid(MAP_CELLS, MAP_CELLS)
    maps, smooth = np.asarray(caption.attention_weights), smooth and boxes is None
    photo, (width, height) = read_image(image, PANEL_PIXELS)
    title = caption.sentence if title is None else title
    if not caption.words:
        return _plot_empty_caption(photo, (width, height), title, fig)
    ratio, panels = min(max(width / height, 0.3), 5.0), len(caption.words) + 1
    note = f"{NOTES[mode]}. max: that maximum in times uniform (1×: all places alike)."
    note += "" if boxes is None else " Boxes: the regions with the largest shares of the attention."
    note += "" if caption.word_log_probs is None else " p: the word's probability."
    note += "".join(f" {name}: a share that the captioner gives with each word." for name in caption.extras)
    sheet_height, part = 0.0, 1.0  # the part of the usual font sizes
    if fig is None:
        box_width = min(max(1.75 * sqrt(ratio), 1.35), 2.8)
        columns = columns or balanced_columns(panels, max(int(12 // (box_width + GAP)), 1))
        sheet_width = max(columns * (box_width + GAP) - GAP + 2 * MARGIN, SMALL)
    else:
        sheet_width, sheet_height = size_inches(fig)
        part = min(max(min(sheet_width, sheet_height) / SMALL, 0.7), 1.0)
    heading = wrap(title, sheet_width - 2 * MARGIN, 13 * part, "bold")
    top = MARGIN + len(heading) * 13 * part * LINE + 0.12
    note_left, note_down = (2.2, 0.0) if sheet_width >= SMALL else (0.0, 0.42)  # beside the scale, or below it
    legend = wrap(note, max(sheet_width - 2 * MARGIN - note_left, 1.0), 10 * part)
    bottom = max(note_down + len(legend) * 10 * part * LINE, 0.4) + MARGIN + 0.1
    if fig is not None and bottom > 0.4 * sheet_height:
        legend, bottom = [], 0.5 + MARGIN
    if fig is not None:
        room = max(sheet_height - top - bottom, 0.5)
        columns = columns or max(
            range(1, panels + 1), key=lambda n: min(sheet_width / n, ratio * (room / ceil(panels / n) - 0.5))
        )
        box_width = (sheet_width - 2 * MARGIN - (columns - 1) * GAP) / columns
    assert columns is not None
    rows = ceil(panels / columns)
    words = [fit_word(word, box_width, 12 * part, 9 * part, "bold") for word in ("image", *caption.words)]
    titles = [
        max(size * LINE * len(lines) for lines, size in words[n : n + columns]) for n in range(0, panels, columns)
    ]
    above = np.array(titles) + 0.08  # inches over each row's images
    numbers_size = 9.5 * part
    between = " · " if text_width("p 0.00 · max 000×", numbers_size) <= box_width + GAP else "\n"
    below = numbers_size * LINE * (1 + (between == "\n") + len(caption.extras)) + 0.12
    box_height = box_width / ratio
    if fig is None:
        sheet_height = top + above.sum() + rows * (box_height + below) + bottom
        fig = SheetFigure(figsize=(sheet_width, sheet_height))
    else:
        box_height = max(min(box_height, (sheet_height - top - bottom - above.sum()) / rows - below), 0.1)
    place_text(fig, MARGIN, MARGIN, heading, 13 * part, fontweight="bold")
    left = (sheet_width - columns * (box_width + GAP) + GAP) / 2
    for panel, (lines, size) in enumerate(words):
        row, column = divmod(panel, columns)
        down = top + above[: row + 1].sum() + row * (box_height + below)
        ax = place_axes(fig, left + column * (box_width + GAP), down, box_width, box_height)
        ax.set_title("\n".join(lines), fontsize=size, pad=4, color=INK if panel else MUTED, parse_math=False)
        if panel == 0:
            ax.set_label("image")
            ax.title.set(fontstyle="italic", fontweight="normal")
            show_photo(ax, photo, (width, height))
            continue
        ax.set_label(f"word {panel - 1}")
        look: dict[str, Any] = {"smooth": smooth, "grid_box": caption.grid_box, "cmap": cmap, "alpha": alpha}
        draw_attention(ax, photo, (width, height), maps[panel - 1], mode=mode, **look)
        if boxes is not None:
            draw_boxes(ax, (width, height), regions[panel - 1, 0], boxes)
        probability = [] if caption.word_log_probs is None else [f"p {exp(caption.word_log_probs[panel - 1]):.2f}"]
        share = "".join(f"\n{name} {values[panel - 1]:.0%}" for name, values in caption.extras.items())
        numbers = between.join([*probability, peak_label(maps[panel - 1])])
        ax.set_xlabel(numbers + share, fontsize=numbers_size, labelpad=3, color=MUTED)
    down = sheet_height - bottom + 0.1
    draw_scale(place_axes(fig, MARGIN + 0.1, down + 0.02, 1.7, 0.16), mode, INK, cmap, alpha)
    place_text(fig, MARGIN + note_left, down + note_down, legend, 10 * part, color=MUTED)
    return root_figure(fig)


def _plot_empty_caption(photo: np.ndarray, size: tuple[int, int], title: str, fig: Figure | SubFigure | None) -> Figure:
    ratio = min(max(size[0] / size[1], 0.3), 5.0)
    sheet_width, sheet_height = (4.4 * sqrt(ratio) + 2 * MARGIN, 0.0) if fig is None else size_inches(fig)
    width = sheet_width - 2 * MARGIN
    heading = wrap(title or "(empty caption)", width, 13, "bold")
    reason = wrap("an empty caption: no word, no map", width, 11)
    top, bottom = MARGIN + len(heading) * 13 * LINE + 0.1, MARGIN + len(reason) * 11 * LINE + 0.1
    sheet_height = sheet_height or top + width / ratio + bottom
    fig = SheetFigure(figsize=(sheet_width, sheet_height)) if fig is None else fig
    place_text(fig, MARGIN, MARGIN, heading, 13, fontweight="bold")
    ax = place_axes(fig, MARGIN, top, width, max(sheet_height - top - bottom, 0.1))
    ax.set_label("image")
    show_photo(ax, photo, size)
    ax.set_xlabel("\n".join(reason), fontstyle="italic", color=MUTED)
    return root_figure(fig)
