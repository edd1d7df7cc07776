"""Threshold curves, and how many changed copies are found: tables in, Axes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from attncap.plotting.layout import drawable, ink_of, label_graph, legends_above, new_axes, side_by_side, wrap
from attncap.plotting.style import COLORS, STYLE, root_figure


@matplotlib.rc_context(STYLE)
def plot_threshold(
    table: pd.DataFrame,
    threshold: float,
    queries: int,
    *,
    measure: str = "hash distance, bits",
    title: str = "Errors at each threshold",
    ax: Axes | None = None,
) -> Axes:
    """Draw the errors at each threshold as shares of the queries (wrong, missed, both), the chosen one marked.

    Args:
        table: of a `ThresholdCurve`.
        threshold: the chosen one; negative for none.
        queries: number of queries.
        measure: what the distances are.
        title: of the axes.
        ax: where to draw; default new axes.

    Returns:
        The axes; its lines are wrong, missed, both.

    Raises:
        ValueError: no queries, or a table without a threshold.

    Example:
        >>> plot_threshold(curve.table, curve.threshold, curve.queries)
    """
    shown = table[table["threshold"] >= 0]
    if queries < 1 or shown.empty:
        raise ValueError("a threshold curve needs at least one query and one threshold")
    ax = new_axes(7.5, 4.2) if ax is None else ax
    ink, muted, _ = ink_of(ax)
    x = np.append(shown["threshold"].to_numpy(float), float(shown["threshold"].iloc[-1]) * 1.03 + 1e-9)
    columns = (("wrong", COLORS[1], "wrong label given"), ("missed", COLORS[0], "match missed"))
    ends = []
    for name, color, said in (*columns, ("errors", ink, "both (what is tuned)")):
        share = shown[name].to_numpy(float) / queries
        under: dict[str, Any] = (
            {"linewidth": 4.5, "zorder": 1.9} if name == "errors" else {}
        )  # visible if it is one of them
        ax.plot(x, np.append(share, share[-1]), drawstyle="steps-post", color=color, label=said, **under)
        ends.append(share.max())
    if threshold >= 0:
        ax.axvline(threshold, color=muted, linestyle="--", linewidth=1.5, label=f"threshold {threshold:.3g}")
    ax.set(xlim=(min(0.0, x[0]) if x[0] < 0.2 * x[-1] else x[0], x[-1]), ylim=(0, 1.05 * max(*ends, 1e-9)))
    if (shown["threshold"] % 1 == 0).all():  # bits
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    label_graph(ax, title, f"threshold ({measure})", "share of the queries")
    legends_above([ax])
    return ax


@matplotlib.rc_context(STYLE)
def plot_threshold_curves(
    curves: Mapping[str, Any], measures: Sequence[str], *, title: str = "Errors at each threshold"
) -> Figure:
    """Draw the threshold curves of several systems side by side, with one legend for all.

    Args:
        curves: name of a system -> its `ThresholdCurve`.
        measures: what each one's distances are.
        title: of the figure.

    Returns:
        The figure, one Axes per system, as `plot_threshold` draws it; each title names the threshold.

    Raises:
        ValueError: no curve, or not a measure for each.

    Example:
        >>> plot_threshold_curves({"hash": of_hash, "embedding": of_embedding}, ["bits", "1 - cosine similarity"])
    """
    if not curves or len(curves) != len(measures):
        raise ValueError(f"a measure for each threshold curve expected: {len(curves)} curves, {len(measures)} measures")
    axes = side_by_side(len(curves), 5.0 * len(curves), 4.4)
    for ax, (name, curve), measure in zip(axes, curves.items(), measures, strict=True):
        said = f"threshold {curve.threshold:.3g}" if curve.threshold >= 0 else "no threshold is good"
        plot_threshold(
            curve.table, curve.threshold, curve.queries, measure=measure, title=f"{drawable(name)}: {said}", ax=ax
        )
        legend = ax.get_legend()
        assert legend is not None
        legend.remove()
        ax.set_title(ax.get_title(loc="left"), loc="left", pad=6)
    top = max(ax.get_ylim()[1] for ax in axes)
    for ax in axes:
        ax.set_ylim(0, top)  # one scale, so that the systems can be compared
    for ax in axes[1:]:
        ax.set_ylabel("")
    found = [ax.get_legend_handles_labels() for ax in axes]
    handles, labels = max(found, key=lambda entries: len(entries[0]))
    labels = ["chosen threshold" if label.startswith("threshold ") else label for label in labels]
    heading = "\n".join(wrap(title, 5.0 * len(curves) - 0.2, 13))
    figure = root_figure(axes[0])
    figure.suptitle(heading, x=0.01, ha="left", fontsize=13, parse_math=False)
    figure.legend(handles, labels, loc="outside lower left", ncols=len(handles) if len(curves) > 1 else 2)
    return figure


@matplotlib.rc_context(STYLE)
def plot_robustness(
    tables: dict[str, pd.DataFrame], *, title: str = "Changed copies that are found", ax: Axes | None = None
) -> Axes:
    """Draw, for each change, the share of copies found by each system at its own (first) threshold.

    Args:
        tables: name of a system -> table of `robustness_table`, all with the same changes; the first `within` column
            is drawn.
        title: of the axes.
        ax: where to draw; default new axes.

    Returns:
        The axes; one container of bars per system, changes from top to bottom in the tables' order.

    Raises:
        ValueError: no table, or tables of different changes.

    Example:
        >>> plot_robustness({"hash": of_hash, "embedding": of_embedding})
    """
    if not tables:
        raise ValueError("a robustness figure needs at least one table")
    changes = next(iter(tables.values()))["change"].tolist()
    if any(table["change"].tolist() != changes for table in tables.values()):
        raise ValueError("robustness tables of the same changes, in the same order, expected")
    ax = new_axes(8.0, 1.5 + len(changes) * 0.2 * (len(tables) + 0.6)) if ax is None else ax
    muted = ink_of(ax)[1]
    height = 0.8 / len(tables)
    for n, (system, table) in enumerate(tables.items()):
        column = next(str(name) for name in table.columns if str(name).startswith("within "))
        place = np.arange(len(changes)) + (n - (len(tables) - 1) / 2) * height
        label = f"{drawable(system)}, within {float(column.removeprefix('within ')):.3g}"
        bars = ax.barh(place, table[column], height, color=COLORS[n % len(COLORS)], label=label)
        ax.bar_label(bars, [f"{share:.0%}" for share in table[column]], padding=2, fontsize=9, color=muted)
    ax.set_yticks(np.arange(len(changes)), [drawable(change) for change in changes], parse_math=False)
    ax.set_ylim(len(changes) - 0.5, -0.5)
    ax.set_xlim(0, 1.08)
    ax.xaxis.set_major_formatter("{x:.0%}")
    label_graph(ax, title, "share found; of images that are not in the index: share taken for one that is", "")
    legends_above([ax])
    return ax
