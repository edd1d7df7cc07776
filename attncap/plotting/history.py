"""Training curves: loss and validation scores by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from attncap.plotting.layout import ink_of, label_graph, legends_above, short_number, side_by_side
from attncap.plotting.style import COLORS, MARKERS, STYLE, root_figure


@matplotlib.rc_context(STYLE)
def plot_history(history: Any, *, axes: Sequence[Axes] | None = None, best: str = "val_bleu_4") -> Figure:
    """Draw training curves: the loss, and the BLEU of the validation split, with the best epoch marked.

    Args:
        history: DataFrame (or what makes one) with `epoch` and any of `loss`, `val_loss`, `val_bleu_1` .. `val_bleu_4`;
            NaN where an epoch was not validated. Epochs are drawn from 1, also those
            that are counted from 0, as in `history.csv` and by Keras's `CSVLogger`.
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
    if table["epoch"].min() == 0:
        table = table.assign(epoch=table["epoch"] + 1)
    if axes is None:
        axes = side_by_side(len(panels), 5.2 * len(panels), 4.2)
    elif len(axes) != len(panels):
        raise ValueError(f"axes needs {len(panels)} (for {panels}), got {len(axes)}")
    found = best in table and table[best].notna().any()
    best_row: Any = table.iloc[int(np.nanargmax(table[best].to_numpy(float)))] if found else None
    for ax, names in zip(axes, panels, strict=True):
        ink, muted, _ = ink_of(ax)
        for n, name in enumerate(names):
            known = table[table[name].notna()]
            look: dict[str, Any] = {"color": COLORS[n], "marker": MARKERS[n] if len(table) <= 40 else None}
            ax.plot(known["epoch"], known[name], **look, markersize=5, label=_curve_name(name))
        only = _curve_name(names[0]) if len(names) == 1 else "BLEU"
        title, unit = ("Loss by epoch", "loss") if names is losses else (f"Validation {only} by epoch", only)
        if best_row is not None:
            line = ax.axvline(best_row["epoch"], color=muted, linewidth=1.2, linestyle="--", zorder=1, label="_best")
            if names is losses:
                line.set_label("best epoch")
        if best_row is not None and best in names:
            title = f"Best validation {_curve_name(best)} {short_number(best_row[best])}, epoch {best_row['epoch']:.0f}"
            ring: dict[str, Any] = {
                "color": "none",
                "markeredgecolor": ink,
                "markeredgewidth": 1.8,
                "markersize": 13,
            }
            ax.plot([best_row["epoch"]], [best_row[best]], marker="o", **ring, label="_best")
        label_graph(ax, title, "epoch", unit)
        ax.margins(y=0.08)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        if len(table) == 1:
            ax.set_xlim(table["epoch"].iloc[0] - 1, table["epoch"].iloc[0] + 1)
    legends_above(axes)
    return root_figure(axes[0])


def _curve_name(column: str) -> str:
    names = {"loss": "training", "val_loss": "validation"}
    return names.get(column, column.replace("val_bleu_", "BLEU-"))
