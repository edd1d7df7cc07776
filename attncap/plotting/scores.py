"""Scores of one or several systems, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan, nan
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from attncap.plotting.layout import drawable, ink_of, label_graph, legends_above, new_axes, short_number
from attncap.plotting.style import COLORS, MARKERS, STYLE


class _Score(NamedTuple):
    system: str
    metric: str
    score: float
    low: float
    high: float


@matplotlib.rc_context(STYLE)
def plot_scores(scores: Any, *, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Draw scores as dots with their intervals, for one or several systems.

    Args:
        scores: DataFrame with `metric` and `score`, perhaps `low`, `high` and `system`; or a dict of metric to score or
            (score, low, high); or a dict of system to such a dict. Drawn in the order given, from the top.
        ax: where to draw; default: a new figure's.
        title: should name the data and the level of intervals; default: "Scores", or "Scores with their intervals".

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
        height = 1.4 + 0.15 * len(systems) + len(metrics) * (0.3 * len(systems) + 0.2)
        ax = new_axes(8.0, height)
    ink = ink_of(ax)[0]
    step = 0.75 / len(systems)
    for n, system in enumerate(systems):
        own = [row for row in rows if row.system == system]
        values = np.array([row.score for row in own])
        places = np.array([metrics.index(row.metric) for row in own]) + step * (n - (len(systems) - 1) / 2)
        color, marker = COLORS[n % len(COLORS)], MARKERS[(n + 3 * (n // len(COLORS))) % len(MARKERS)]
        ax.plot(values, places, marker, color=color, markersize=7, label=drawable(system) or "_")
        # Not error bars, which start at the score: a bootstrap interval may not contain it.
        low, high = np.array([(row.low, row.high) for row in own]).T
        ax.hlines(places, low, high, color=color, linewidth=2)
        for ends in (low, high):
            ax.plot(ends, places, "|", color=color, markersize=9, markeredgewidth=2, label="_")
        for row, place in zip(own, places, strict=True):
            end = row.score if isnan(row.high) else max(row.score, row.high)
            offset: dict[str, Any] = {"xytext": (8, 0), "textcoords": "offset points", "va": "center"}
            ax.annotate(short_number(row.score), (end, place), **offset, fontsize=10.5, color=ink)
    known = any(not isnan(row.low) for row in rows)
    ax.margins(x=0.12)
    ax.set_ylim(len(metrics) - 0.5, -0.5)
    ax.set_yticks(range(len(metrics)), [drawable(metric) for metric in metrics], parse_math=False)
    label_graph(ax, title or ("Scores with their intervals" if known else "Scores"), "score", "")
    if len(systems) > 1:
        legends_above([ax])
    return ax


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
