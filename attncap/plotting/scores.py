"""Predictions beside references, training curves, scores with their intervals: tables in, Axes or a Figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, isnan, nan
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from attncap.captions import Caption
from attncap.plotting.style import (
    COLORS,
    INK,
    LINE,
    MARGIN,
    MARKERS,
    MUTED,
    PANEL_PIXELS,
    RULE,
    SCORE_COLORS,
    STYLE,
    PanelAxes,
    Picture,
    SheetFigure,
    balanced_columns,
    bulleted,
    drawable,
    place_axes,
    place_text,
    read_picture,
    short_number,
    show_photo,
    wrap,
)


class _Score(NamedTuple):
    system: str
    metric: str
    score: float
    low: float
    high: float


@matplotlib.rc_context(STYLE)
def plot_predictions(
    pictures: Sequence[Picture],
    captions: Sequence[Caption | str],
    references: Sequence[Sequence[str]],
    scores: Sequence[float] | None = None,
    *,
    columns: int | None = None,
    title: str = "The model's caption above each picture, what people wrote below",
) -> Figure:
    """A sheet of pictures with the model's caption above and the human references below.

    Args:
        pictures: N pictures, each as in `plot_attention`.
        captions: N predictions.
        references: N lists of human captions.
        scores: N numbers, higher is better; drawn on the picture and as the title's color, from orange-brown (the
            sheet's lowest) through grey to blue (its highest).
        columns: pictures in a row, default 2 to 4.
        title: the sheet's.

    Returns:
        The figure, an Axes a picture.

    Raises:
        ValueError: nothing to draw, or lists of different lengths.

    Example:
        >>> plot_predictions(["a.jpg"], ["a dog runs"], [["a brown dog running"]], scores=[0.41])
    """
    texts = [caption.text if isinstance(caption, Caption) else caption for caption in captions]
    lengths = [len(pictures), len(texts), len(references)] + ([] if scores is None else [len(scores)])
    if len(set(lengths)) > 1 or not texts:
        raise ValueError(f"pictures, captions, references and scores need one entry a picture, got {lengths}")
    if any(isinstance(lines, str) for lines in references):
        raise ValueError("references needs a list of captions for each picture, got one string")
    columns = columns or (balanced_columns(len(texts), 4) if len(texts) != 4 else 2)
    width, gap = 3.1, 0.3
    boxes = [read_picture(picture, PANEL_PIXELS) for picture in pictures]
    heights = [min(width * size[1] / size[0], width) for _, size in boxes]
    above = [wrap(text or "(empty caption)", width, 12, "bold") for text in texts]
    below = [[part for line in lines for part in bulleted(line, width, 10.5)] for lines in references]
    sheet_width = max(columns * (width + gap) - gap + 2 * MARGIN, 4.5)
    heading = wrap(title, sheet_width - 2 * MARGIN, 13, "normal")
    tops, down = [], MARGIN + len(heading) * 13 * LINE + 0.15
    for first in range(0, len(texts), columns):
        row = slice(first, first + columns)
        title_height, box_height = max(map(len, above[row])) * 12 * LINE + 0.1, max(heights[row])
        tops += [(down + title_height, box_height)] * len(texts[row])
        down += title_height + box_height + max(map(len, below[row])) * 10.5 * LINE + 0.4
    figure = SheetFigure(figsize=(sheet_width, down))
    place_text(figure, MARGIN, MARGIN, heading, 13, color=MUTED)
    finite = [score for score in scores or [] if not isnan(score)]
    norm = Normalize(min(finite, default=0.0), max(finite, default=1.0))
    left = (sheet_width - columns * (width + gap) + gap) / 2
    for n, (photo, size) in enumerate(boxes):
        ax = place_axes(figure, left + n % columns * (width + gap), tops[n][0], width, tops[n][1])
        ax.set_anchor("NW")
        show_photo(ax, photo, size)
        color: Any = INK if scores is None or isnan(scores[n]) else SCORE_COLORS(norm(scores[n]))
        ax.set_title("\n".join(above[n]), loc="left", pad=5, color=color, parse_math=False)
        ax.set_xlabel("\n".join(below[n]), loc="left", labelpad=5, fontsize=10.5, parse_math=False)
        ax.xaxis.label.set_multialignment("left")
        if scores is not None:
            badge = {"facecolor": color, "edgecolor": "white", "boxstyle": "round,pad=0.25"}
            place: dict[str, Any] = {"ha": "left", "va": "top", "transform": ax.transAxes}
            ax.text(0.02, 0.97, short_number(scores[n]), color="white", fontweight="bold", bbox=badge, **place)
    return figure


@matplotlib.rc_context(STYLE)
def plot_history(history: Any, *, axes: Sequence[Axes] | None = None, best: str = "val_bleu_4") -> Figure:
    """Training curves: the loss, and the validation split's BLEU, with the best epoch marked.

    Args:
        history: DataFrame (or what makes one) with `epoch` and any of `loss`, `val_loss`, `val_bleu_1` .. `val_bleu_4`;
            NaN where an epoch was not validated.
        axes: a pair (or one, where there is only loss or BLEU); default: a new figure's, side by side.
        best: the column whose highest value marks the best epoch (the first such).

    Returns:
        The figure; its axes are loss, then BLEU.

    Raises:
        ValueError: no epochs, no known column, or another number of axes.

    Example:
        >>> plot_history(pd.read_csv("run/history.csv")).savefig("curves.png")
    """
    table = pd.DataFrame(history)
    losses = [name for name in ("loss", "val_loss") if name in table]
    bleus = [name for name in (f"val_bleu_{n}" for n in (4, 3, 2, 1)) if name in table]
    panels = [names for names in (losses, bleus) if names]
    if "epoch" not in table or not panels or table.empty:
        raise ValueError(
            f"history needs rows with epoch and loss, val_loss or val_bleu_4, got {len(table)} rows of {list(table)}"
        )
    if axes is None:
        fig = SheetFigure(figsize=(5.2 * len(panels), 4.2), layout=_layout())
        axes = [fig.add_subplot(1, len(panels), n + 1, axes_class=PanelAxes) for n in range(len(panels))]
    elif len(axes) != len(panels):
        raise ValueError(f"axes needs {len(panels)} (for {panels}), got {len(axes)}")
    found = best in table and table[best].notna().any()
    best_row: Any = table.iloc[int(np.nanargmax(table[best].to_numpy(float)))] if found else None
    for ax, names in zip(axes, panels, strict=True):
        for n, name in enumerate(names):
            known = table[table[name].notna()]
            look: dict[str, Any] = {"color": COLORS[n], "marker": MARKERS[n] if len(table) <= 40 else None}
            ax.plot(known["epoch"], known[name], **look, markersize=5, label=_curve_name(name))
        only = _curve_name(names[0]) if len(names) == 1 else "BLEU"
        title, unit = ("Loss by epoch", "loss") if names is losses else (f"Validation {only} by epoch", only)
        if best_row is not None:
            line = ax.axvline(best_row["epoch"], color=MUTED, linewidth=1.2, linestyle="--", zorder=1, label="_best")
            if names is losses:
                line.set_label("best epoch")
        if best_row is not None and best in names:
            title = f"Best validation {_curve_name(best)} {short_number(best_row[best])}, epoch {best_row['epoch']:.0f}"
            ring: dict[str, Any] = {"color": "none", "markeredgecolor": INK, "markeredgewidth": 1.8, "markersize": 13}
            ax.plot([best_row["epoch"]], [best_row[best]], marker="o", **ring, label="_best")
        _graph(ax, title, "epoch", unit)
        ax.margins(y=0.08)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        if len(table) == 1:
            ax.set_xlim(table["epoch"].iloc[0] - 1, table["epoch"].iloc[0] + 1)
    _legends_above(axes, columns=4)
    return _figure_of(axes[0])


def _curve_name(column: str) -> str:
    names = {"loss": "training", "val_loss": "validation"}
    return names.get(column, column.replace("val_bleu_", "BLEU-"))


@matplotlib.rc_context(STYLE)
def plot_scores(scores: Any, *, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Scores as dots with their intervals, for one or several systems.

    Args:
        scores: DataFrame with `metric` and `score`, perhaps `low`, `high` and `system`; or a dict of metric to score or
            (score, low, high); or a dict of system to such a dict. Drawn in the order given, from the top.
        ax: where to draw; default: a new figure's.
        title: say the interval's level and the data here; default: that they are scores, with intervals where so.

    Returns:
        The axes: a line of dots for each system in `lines`, its intervals in `collections`.

    Raises:
        ValueError: nothing to draw, or an interval that ends below its start.

    Example:
        >>> plot_scores({"beam 5": {"BLEU-4": (0.223, 0.214, 0.232)}, "greedy": {"BLEU-4": (0.199, 0.190, 0.208)}})
    """
    rows = _score_rows(scores)
    systems, metrics = list(dict.fromkeys(r.system for r in rows)), list(dict.fromkeys(r.metric for r in rows))
    if ax is None:
        figure = SheetFigure(figsize=(8.0, 1.4 + len(metrics) * (0.3 * len(systems) + 0.2)), layout=_layout())
        ax = figure.add_subplot(axes_class=PanelAxes)
    step = 0.75 / len(systems)
    for n, system in enumerate(systems):
        own = [row for row in rows if row.system == system]
        values = np.array([row.score for row in own])
        places = np.array([metrics.index(row.metric) for row in own]) + step * (n - (len(systems) - 1) / 2)
        color, marker = COLORS[n % len(COLORS)], MARKERS[n % len(MARKERS)]
        ax.plot(values, places, marker, color=color, markersize=7, label=drawable(system) or "_")
        # Not error bars, which start from the score: a bootstrap interval may leave it out.
        low, high = np.array([(row.low, row.high) for row in own]).T
        ax.hlines(places, low, high, color=color, linewidth=2)
        for ends in (low, high):
            ax.plot(ends, places, "|", color=color, markersize=9, markeredgewidth=2, label="_")
        for row, place in zip(own, places, strict=True):
            end = row.score if isnan(row.high) else max(row.score, row.high)
            offset: dict[str, Any] = {"xytext": (8, 0), "textcoords": "offset points", "va": "center"}
            ax.annotate(short_number(row.score), (end, place), **offset, fontsize=10.5)
    known = any(not isnan(row.low) for row in rows)
    _graph(ax, title or ("Scores with their intervals" if known else "Scores"), "score", "")
    ax.margins(x=0.12)
    ax.set_ylim(len(metrics) - 0.5, -0.5)
    ax.set_yticks(range(len(metrics)), [drawable(metric) for metric in metrics], parse_math=False)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color=RULE, linewidth=0.8)
    ax.grid(visible=False, axis="y")
    if len(systems) > 1:
        _legends_above([ax], columns=3)
    return ax


@matplotlib.rc_context(STYLE)
def plot_grounding(
    grounding: Any, *, measure: str = "attention_correctness", ax: Axes | None = None, title: str | None = None
) -> Axes:
    """How much of the maps lies where the words point, type by type, beside what it costs nothing to reach.

    Args:
        grounding: a `Grounding`, or its `per_type` table.
        measure: "attention_correctness", "mean_correctness" or "pointing_game".
        ax: where to draw; default: a new figure's.
        title: default: says the measure.

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
        figure = SheetFigure(figsize=(8.0, 1.7 + 0.34 * len(table)), layout=_layout())
        ax = figure.add_subplot(axes_class=PanelAxes)
    prefix = "pointing_" if measure == "pointing_game" else ""
    places = np.arange(len(table))
    ax.hlines(places, table[f"{prefix}uniform"], table[measure], color=MUTED, linewidth=1.2, zorder=1)
    hollow: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": MUTED, "markeredgewidth": 1.6}
    look: dict[str, Any] = {"linestyle": "none", "markersize": 8}
    ax.plot(table[measure], places, marker="o", color=COLORS[0], **look, label="map of the word", zorder=4)
    ax.plot(table[f"{prefix}center"], places, marker="|", color=INK, **look, markeredgewidth=2, label="average map")
    ax.plot(table[f"{prefix}uniform"], places, marker="o", **look, **hollow, label="uniform map")
    ends = table[[measure, f"{prefix}uniform", f"{prefix}center"]].max(axis=1)
    for place, (value, end) in enumerate(zip(table[measure], ends, strict=True)):
        offset: dict[str, Any] = {"xytext": (9, 0), "textcoords": "offset points", "va": "center"}
        ax.annotate(short_number(value), (end, place), **offset, fontsize=10.5)
    _graph(ax, title or words[measure], "share", "")
    ax.set_xlim(0, min(1.0, ends.max()) * 1.12)
    ax.set_ylim(len(table) - 0.5, -0.5)
    names = [f"{str(kind).replace('_', ' ')} ({count:,.0f})" for kind, count in table["n_phrases"].items()]
    ax.set_yticks(places, [drawable(name) for name in names], parse_math=False)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color=RULE, linewidth=0.8)
    ax.grid(visible=False, axis="y")
    _legends_above([ax], columns=3)
    return ax


def _graph(ax: Axes, title: str, across: str, up: str) -> None:
    ax.set_title(drawable(title), loc="left", parse_math=False)
    ax.set_xlabel(across)
    ax.set_ylabel(up)
    ax.grid(axis="y", color=RULE, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=11, labelcolor=INK, color=MUTED)  # not left to the settings at the time of drawing


def _score_rows(scores: Any) -> list[_Score]:
    rows = []
    if isinstance(scores, pd.DataFrame):
        if not {"metric", "score"} <= set(scores):
            raise ValueError(f"scores needs columns metric and score, got {list(scores)}")
        for row in scores.to_dict("records"):
            interval = (row["score"], row.get("low", nan), row.get("high", nan))
            rows.append(_score_row(str(row.get("system", "")), str(row["metric"]), interval))
    elif isinstance(scores, Mapping):
        nested = any(isinstance(value, Mapping) for value in scores.values())
        for system, table in (scores if nested else {"": scores}).items():
            rows += [_score_row(str(system), str(metric), value) for metric, value in table.items()]
    else:
        raise ValueError(f"scores needs a DataFrame or a dict, got {type(scores).__name__}")
    if not rows:
        raise ValueError("scores is empty: give at least one metric's score")
    return rows


def _score_row(system: str, metric: str, value: Any) -> _Score:
    parts = [float(part) for part in np.atleast_1d(value)]
    if len(parts) not in (1, 3):
        raise ValueError(f"{metric}: needs a score or (score, low, high), got {value!r}")
    score, low, high = parts if len(parts) == 3 else (parts[0], nan, nan)
    if low > high:
        raise ValueError(f"{metric}: the interval ({low}, {high}) ends below its start: give (score, low, high)")
    return _Score(system, metric, score, low, high)


def _legends_above(axes: Sequence[Axes], columns: int) -> None:
    """Legends between title and graph, where they cover no curve; the titles stay at one height."""
    entries = [len(ax.get_legend_handles_labels()[0]) for ax in axes]
    look: dict[str, Any] = {"handlelength": 1.4, "columnspacing": 1.2, "borderaxespad": 0.2, "borderpad": 0.2}
    for ax, count in zip(axes, entries, strict=True):
        if count > 1:
            ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, labelcolor=INK, **look)
        pad = 10 + 20 * ceil(max(entries) / columns) if max(entries) > 1 else 6
        ax.set_title(ax.get_title(loc="left"), loc="left", pad=pad)


def _layout() -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)  # inches around each panel


def _figure_of(ax: Axes) -> Figure:
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure
