"""Plot of attention maps against the regions of words, by type of phrase."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from attncap.plotting.layout import drawable, ink_of, label_graph, legends_above, new_axes, short_number
from attncap.plotting.style import COLORS, STYLE


@matplotlib.rc_context(STYLE)
def plot_grounding(
    grounding: Any, *, measure: str = "attention_correctness", ax: Axes | None = None, title: str | None = None
) -> Axes:
    """Draw the share of maps inside the regions of words, by type, with two baselines that need no training.

    Args:
        grounding: a `Grounding`, or its `per_type` table.
        measure: "attention_correctness", "mean_correctness" or "pointing_game".
        ax: where to draw; default: a new figure's.
        title: default: the name of the measure.

    Returns:
        The axes: three lines of markers, the maps, the average map and the uniform one, the type with the highest
        measure on top.

    Raises:
        ValueError: another measure, or nothing measured.

    Example:
        >>> plot_grounding(measure_grounding(captions, phrases)).figure.savefig("grounding.png")
    """
    words = {
        "attention_correctness": "Share of the map inside the region that the word names",
        "mean_correctness": "Share of the map inside the region, mean over a phrase's words",
        "pointing_game": "Share of words whose map is highest inside their region",
    }
    if measure not in words:
        raise ValueError(f"measure is one of {', '.join(words)}, got {measure!r}")
    table = getattr(grounding, "per_type", grounding)
    if not len(table):
        raise ValueError("no phrase was measured: there is nothing to draw")
    table = table.sort_values(measure, ascending=False, kind="stable")
    if ax is None:
        ax = new_axes(8.0, 1.7 + 0.46 * len(table))
    prefix = "pointing_" if measure == "pointing_game" else ""
    ink, muted, _ = ink_of(ax)
    places = np.arange(len(table))
    ax.hlines(places, table[f"{prefix}uniform"], table[measure], color=muted, linewidth=1.2, zorder=1)
    hollow: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": muted, "markeredgewidth": 1.6}
    look: dict[str, Any] = {"linestyle": "none", "markersize": 8}
    ax.plot(table[measure], places, marker="o", color=COLORS[0], **look, label="map of the word", zorder=4)
    ax.plot(table[f"{prefix}center"], places, marker="|", color=ink, **look, markeredgewidth=2, label="average map")
    ax.plot(table[f"{prefix}uniform"], places, marker="o", **look, **hollow, label="uniform map")
    ends = table[[measure, f"{prefix}uniform", f"{prefix}center"]].max(axis=1)
    for place, value in enumerate(table[measure]):  # each number is next to its marker
        offset: dict[str, Any] = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center"}
        ax.annotate(short_number(value), (value, place), **offset, fontsize=9.5, color=COLORS[0])
    ax.set_xlim(0, min(1.0, ends.max()) * 1.12)
    ax.set_ylim(len(table) - 0.5, -0.7)
    names = [f"{str(kind).replace('_', ' ')} ({count:,.0f})" for kind, count in table["n_phrases"].items()]
    ax.set_yticks(places, [drawable(name) for name in names], parse_math=False)
    label_graph(ax, title or words[measure], "share", "")
    legends_above([ax])
    return ax
