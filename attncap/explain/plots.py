"""Plots of explanations: the maps of several methods, and deletion and insertion curves."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, exp, sqrt
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from attncap.captions import Caption
from attncap.explain.faithfulness import RANDOM, MapFaithfulness
from attncap.images import AnyImage
from attncap.plotting.layout import fit_word, label_graph, place_axes, place_text, read_image, side_by_side, wrap
from attncap.plotting.overlay import NO_MAPS, Mode, check_mode, draw_attention, draw_scale, peak_label
from attncap.plotting.regions import MAP_CELLS
from attncap.plotting.style import COLORS, GAP, INK, LINE, MARGIN, MUTED, PANEL_PIXELS, STYLE, SheetFigure, root_figure

PER_ROW = 7  # words side by side


@matplotlib.rc_context(STYLE)
def plot_explanations(
    image: AnyImage, explained: Mapping[str, Caption], *, mode: Mode = "heat", title: str | None = None
) -> Figure:
    """Plot the maps of several methods for the words of one caption, one row per method.

    Args:
        image: Pillow image, uint8 array of shape (height, width, 3), or path.
        explained: name of a method -> caption with maps, from `explain_word`. All captions must have the same words.
        mode: "heat", "reveal" or "contour", see `attncap.plotting.overlay.draw_attention`.
        title: title of the figure. None: the caption.

    Returns:
        The figure. The axes of a map have the label "METHOD word N"; N counts from 0.

    Raises:
        ValueError: there is no method or no word, a caption has no maps, or the captions differ.

    Example:
        >>> plot_explanations("me.jpg", {m: explain_word(captioner, "me.jpg", said, m) for m in METHODS})
    """
    check_mode(mode)
    if not explained:
        raise ValueError("explained needs at least one method: give its name and a caption with maps")
    explained = {name: caption.on_grid(MAP_CELLS, MAP_CELLS) for name, caption in explained.items()}
    first = next(iter(explained.values()))
    for name, caption in explained.items():
        if caption.words != first.words:
            raise ValueError(f"{name}: other words, {caption.text!r}, than {first.text!r}: explain the same caption")
        if caption.attention_weights is None:
            raise ValueError(f"{name}: {NO_MAPS}")
    if not first.words:
        raise ValueError("the caption is empty: there is no word to explain")
    photo, size = read_image(image, PANEL_PIXELS)
    ratio = min(max(size[0] / size[1], 0.3), 5.0)
    box_width = min(max(1.5 * sqrt(ratio), 1.2), 2.4)
    columns = ceil(len(first.words) / ceil(len(first.words) / PER_ROW))
    side = 1.1  # inches, for the names of methods
    sheet_width = max(side + columns * (box_width + GAP) - GAP + 2 * MARGIN, 4.5)
    heading = wrap(first.text if title is None else title, sheet_width - 2 * MARGIN, 13, "bold")
    note = "Color and opacity follow each map's own scale; its end is in times uniform (1×: all places alike)."
    note += "" if first.word_log_probs is None else " p: the word's probability."
    legend = wrap(note, max(sheet_width - 2 * MARGIN - 2.2, 1.0), 10)
    words = [fit_word(word, box_width, 12, 9, "bold") for word in first.words]
    blocks = [range(start, min(start + columns, len(words))) for start in range(0, len(words), columns)]
    above = [max(words[n][1] * LINE * len(words[n][0]) for n in block) + 0.1 for block in blocks]
    box_height, below = box_width / ratio, 9 * LINE + 0.1
    top, bottom = MARGIN + len(heading) * 13 * LINE + 0.12, max(len(legend) * 10 * LINE, 0.4) + MARGIN + 0.1
    block_height = len(explained) * (box_height + below) + 0.1
    height = top + sum(above) + len(blocks) * block_height + bottom
    fig = SheetFigure(figsize=(sheet_width, height))
    place_text(fig, MARGIN, MARGIN, heading, 13, fontweight="bold")
    down = top
    for block, titles in zip(blocks, above, strict=True):
        down += titles
        for row, (name, caption) in enumerate(explained.items()):
            assert caption.attention_weights is not None
            y = down + row * (box_height + below)
            label = wrap(name, side - 0.1, 10)
            place_text(fig, MARGIN, y + (box_height - len(label) * 10 * LINE) / 2, label, 10, color=MUTED)
            for column, n in enumerate(block):
                ax = place_axes(fig, MARGIN + side + column * (box_width + GAP), y, box_width, box_height)
                ax.set_label(f"{name} word {n}")
                weights = caption.attention_weights[n]
                draw_attention(ax, photo, size, weights, mode=mode, grid_box=caption.grid_box)
                if row == 0:
                    lines, points = words[n]
                    ax.set_title("\n".join(lines), fontsize=points, pad=4, color=INK, parse_math=False)
                parts = [peak_label(weights)]
                if row == 0 and caption.word_log_probs is not None:
                    parts.insert(0, f"p {exp(caption.word_log_probs[n]):.2f}")
                ax.set_xlabel(" · ".join(parts), fontsize=9, labelpad=2, color=MUTED)
        down += block_height
    draw_scale(place_axes(fig, MARGIN + 0.1, height - bottom + 0.12, 1.7, 0.16), mode, INK)
    place_text(fig, MARGIN + 2.2, height - bottom + 0.1, legend, 10, color=MUTED)
    return fig


@matplotlib.rc_context(STYLE)
def plot_faithfulness(measured: MapFaithfulness, *, title: str | None = None) -> Figure:
    """Plot deletion and insertion curves: the mean probability of the words against the share of hidden or shown cells.

    Args:
        measured: from `measure_maps`.
        title: title of the figure. None: no title.

    Returns:
        The figure. Each of its two axes has one line per method; the line of random maps is dashed.

    Example:
        >>> plot_faithfulness(measure_maps(captioner, features, explained)).savefig("faithfulness.png")
    """
    axes = side_by_side(2, 9.0, 3.7)
    figure = root_figure(axes[0])
    if title is not None:
        figure.suptitle(title, fontweight="bold", fontsize=12)
    panels = (
        ("deletion", "Deletion: lower is better", "share of the cells that are hidden"),
        ("insertion", "Insertion: higher is better", "share of the cells that are shown"),
    )
    for ax, (kind, what, across) in zip(axes, panels, strict=True):
        for n, (method, own) in enumerate(measured.curves.groupby("method", sort=False)):
            chance = method == RANDOM
            look: dict[str, Any] = {"linestyle": "--", "color": MUTED} if chance else {"color": COLORS[n % len(COLORS)]}
            ax.plot(own["fraction"], own[kind], label=f"{method} maps" if chance else method, **look)
        label_graph(ax, what, across, "mean probability of the word")
        ax.set_xlim(0, 1)
        ax.set_ylim(0, float(np.ceil(10 * measured.curves[["deletion", "insertion"]].max().max()) / 10))
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5))
    return figure
