"""Plots of attribute classifiers: precision and recall, average precision, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve

from attncap.attributes.calibration import calibration_error
from attncap.attributes.metrics import average_precisions
from attncap.plotting.layout import (
    constrained_layout,
    drawable,
    ink_of,
    label_graph,
    legends_above,
    new_axes,
    short_number,
    wrap,
)
from attncap.plotting.style import COLORS, MARKERS, MUTED, RULE, STYLE, PanelAxes, SheetFigure


@matplotlib.rc_context(STYLE)
def plot_precision_recall(
    probs: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    thresholds: np.ndarray | Sequence[float] | None = None,
    most: int = 12,
    columns: int = 4,
    hardest: bool = False,
    title: str | None = None,
) -> Figure:
    """Plot precision-recall curves, one panel per attribute, with the prevalence and the threshold of the attribute.

    The prevalence is the expected precision of a random order of the images.

    Args:
        probs: shape (N, A), 0 to 1.
        labels: shape (N, A): 1, 0, or NaN (unknown; ignored).
        names: names of the A attributes.
        thresholds: shape (A,), marked on the curves. None: not marked.
        most: largest number of attributes. They are evenly spaced in the order of average precision, from the lowest to
            the highest.
        columns: number of panels in a row.
        hardest: plot the `most` attributes with the lowest average precision instead.
        title: title of the figure. None: a title that describes the selection of the attributes.

    Returns:
        The figure, with one Axes per attribute. Each has up to three lines: curve, prevalence and threshold.

    Raises:
        ValueError: the shapes differ, or no attribute has both classes.

    Example:
        >>> plot_precision_recall(probs, labels, data.names, thresholds=classifier.thresholds).savefig("pr.png")
    """
    if probs.ndim != 2 or probs.shape != labels.shape or probs.shape[1] != len(names):
        raise ValueError(
            f"probabilities and labels of shape (N, {len(names)}) expected, got {probs.shape} and {labels.shape}"
        )
    scores = average_precisions(probs, labels)
    if not scores:
        raise ValueError("no attribute has both classes among these images: nothing to plot")
    ordered = sorted(scores, key=lambda at: scores[at])
    if title is None:
        title = "Precision and recall, from the hardest attribute to the easiest"
        title = f"Precision and recall of the {min(most, len(ordered))} hardest attributes" if hardest else title
    spaced = np.unique(np.linspace(0, len(ordered) - 1, most).round())
    shown = ordered[:most] if hardest else [ordered[int(place)] for place in spaced]
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    width = max(4.0, 2.7 * columns)
    panel = width / columns - 0.7  # inches
    figure = SheetFigure(figsize=(width, 2.75 * rows + 0.9), layout=constrained_layout(0.06))
    for place, at in enumerate(shown):
        ax = figure.add_subplot(rows, columns, place + 1, axes_class=PanelAxes)
        known = np.isfinite(labels[:, at])
        truth, prob = labels[known, at] > 0.5, probs[known, at]
        precision, recall, _ = precision_recall_curve(truth, prob)
        precision[-1] = precision[-2]  # scikit-learn adds a last point (0, 1) that has no threshold
        ax.plot(recall, precision, drawstyle="steps-post", color=COLORS[0], label="precision at each recall")
        ax.axhline(truth.mean(), color=MUTED, linestyle="--", linewidth=1.5, label="prevalence: a random order")
        if thresholds is not None:
            called = prob >= thresholds[at]
            right = float((called & truth).sum())
            spot = (right / truth.sum(), right / called.sum() if called.any() else np.nan)
            look: dict[str, Any] = {"color": COLORS[1], "markeredgecolor": "white", "markersize": 10}
            ax.plot(*([value] for value in spot), "o", **look, label="threshold of the attribute", zorder=5)
        ax.set(xlim=(0, 1.03), ylim=(0, 1.05), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        name = "\n".join(wrap(str(names[at]).replace("_", " "), panel, 12, "bold"))
        ax.set_title(name, loc="left", pad=20, parse_math=False)
        below: dict[str, Any] = {"xytext": (0, 5), "textcoords": "offset points", "fontsize": 10.5}
        ax.annotate(f"average precision {short_number(scores[at])}", (0, 1), xycoords="axes fraction", **below)
        ax.grid(color=RULE, linewidth=0.8)
        ax.set_axisbelow(True)
        if place % columns == 0:
            ax.set_ylabel("precision")
        if place + columns >= len(shown):
            ax.set_xlabel("recall")
    handles, said = figure.axes[0].get_legend_handles_labels()
    heading = "\n".join(wrap(title, width - 0.2, 13))
    figure.suptitle(heading, x=0.01, ha="left", fontsize=13, parse_math=False)
    figure.legend(handles, said, loc="outside lower left", ncols=3 if columns > 2 else 1)
    return figure


@matplotlib.rc_context(STYLE)
def plot_average_precision(
    table: pd.DataFrame, *, most: int = 24, ax: Axes | None = None, title: str | None = None
) -> Axes:
    """Plot the average precision and the prevalence of each attribute, the lowest average precision at the top.

    Args:
        table: table of an `AttributeReport`, or a DataFrame with the columns `attribute`, `average_precision` and
            `prevalence`.
        most: largest number of attributes; those with the lowest average precision are plotted.
        ax: axes to draw on. None: axes of a new figure.
        title: title of the axes. None: a title with the number of attributes.

    Returns:
        The axes, with two lines of markers: average precision and prevalence.

    Raises:
        ValueError: no attribute has an average precision.

    Example:
        >>> plot_average_precision(report.table).figure.savefig("average_precision.png")
    """
    known = table[table["average_precision"].notna()].sort_values("average_precision", kind="stable")
    if known.empty:
        raise ValueError("no attribute has an average precision: nothing to plot")
    shown = known.head(most)
    if ax is None:
        ax = new_axes(8.0, 1.7 + 0.27 * len(shown))
    muted = ink_of(ax)[1]
    places = np.arange(len(shown))
    values, shares = shown["average_precision"].to_numpy(float), shown["prevalence"].to_numpy(float)
    ax.hlines(places, np.minimum(values, shares), np.maximum(values, shares), color=muted, linewidth=1.2, zorder=1)
    hollow: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": muted, "markeredgewidth": 1.6}
    look: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 8}
    ax.plot(values, places, **look, color=COLORS[0], label="average precision", zorder=4)
    ax.plot(shares, places, **look, **hollow, label="prevalence: a random order", zorder=3)
    left = 0.0
    for place, (value, share) in enumerate(zip(values, shares, strict=True)):  # each number is next to its marker
        side: dict[str, Any] = (
            {"xytext": (9, 0), "ha": "left"} if value >= share else {"xytext": (-9, 0), "ha": "right"}
        )
        offset: dict[str, Any] = {"textcoords": "offset points", "va": "center", **side}
        ax.annotate(short_number(value), (value, place), **offset, fontsize=10.5, color=COLORS[0])
        left = min(left, value - 0.15) if value < share else left  # room for the number
    few = f"The {len(shown)} hardest of {len(known)} attributes" if len(shown) < len(known) else "All attributes"
    ax.set(xlim=(left, 1.08), ylim=(len(shown) - 0.4, -0.6))
    names = [drawable(str(name).replace("_", " ")) for name in shown["attribute"]]
    ax.set_yticks(places, names, parse_math=False)
    label_graph(ax, title or f"{few}: average precision", "share", "")
    legends_above([ax])
    return ax


@matplotlib.rc_context(STYLE)
def plot_calibration(
    probs: Mapping[str, np.ndarray],
    labels: np.ndarray,
    *,
    bins: int = 10,
    ax: Axes | None = None,
    title: str = "Calibration: predicted probability and observed share",
) -> Axes:
    """Plot calibration curves: the share of positive labels against the mean probability, in bins of equal width.

    A perfectly calibrated classifier lies on the diagonal.

    Args:
        probs: name -> probabilities of the same images, shape (N, A) each.
        labels: shape (N, A): 1, 0, or NaN (unknown; ignored). The labels of all attributes are pooled.
        bins: number of bins between 0 and 1.
        ax: axes to draw on. None: axes of a new figure.
        title: title of the axes.

    Returns:
        The axes, with the diagonal and one line per name. The legend shows the expected calibration errors.

    Raises:
        ValueError: there is nothing to plot, or the shapes differ.

    Example:
        >>> plot_calibration({"as trained": before, "calibrated": after}, labels)
    """
    known = np.isfinite(labels)
    if not probs or not known.any():
        raise ValueError("probabilities of at least one name, and at least one known label, expected")
    beside: dict[str, Any] = {"loc": "upper left", "fontsize": 9}  # a new figure has room next to the axes
    if ax is None:
        ax = new_axes(8.4, 4.6)
        beside = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5), "labelspacing": 0.9}
    ink, muted, rule = ink_of(ax)
    ax.plot([0, 1], [0, 1], color=muted, linestyle="--", linewidth=1.5, label="perfectly calibrated")
    for n, (name, given) in enumerate(probs.items()):
        error = calibration_error(given, labels, bins)  # checks the shapes
        prob, truth = given[known], labels[known]
        place = np.minimum((prob * bins).astype(int), bins - 1)
        count = np.bincount(place, minlength=bins)
        filled = count > 0
        mean, share = (np.bincount(place, of, bins)[filled] / count[filled] for of in (prob, truth))
        look: dict[str, Any] = {"color": COLORS[n % len(COLORS)], "marker": MARKERS[n % len(MARKERS)]}
        label = "\n".join([*wrap(name, 2.6, 11), f"(calibration error {error:.3f})"])
        ax.plot(mean, share, **look, markersize=7, label=label)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", anchor="W")
    label_graph(ax, title, "mean predicted probability in a bin", "share of ones")
    ax.grid(color=rule, linewidth=0.8)
    ax.legend(**beside, labelcolor=ink)
    return ax
