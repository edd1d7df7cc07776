"""`plot_beam_tree`: the beams of a search after each word, as a tree."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from typing import Any

import matplotlib
from matplotlib.axes import Axes

from attncap.plotting.layout import bare, drawable, text_width
from attncap.plotting.style import COLORS, INK, MUTED, RULE, STYLE, PanelAxes, SheetFigure

Beam = tuple[Sequence[str], float]  # the words so far, and the log-probability of all of them
ROW, GAP, SIZE = 0.33, 0.35, 10.0  # inches a word, inches between columns, points


@matplotlib.rc_context(STYLE)
def plot_beam_tree(
    steps: Sequence[Sequence[Beam]], *, end: str = "<end>", ax: Axes | None = None, title: str | None = None
) -> Axes:
    """Draw the beams of one image, one row per word: the parent of each beam, and the dropped ones.

    A beam is a column; the further left, the better its rank after that word. Each word has its probability given those
    before it. The path to the best caption is drawn in color; beams that were dropped before the last row are gray. A
    dotted line continues below a finished caption while it is kept; the log-probabilities of kept captions are at the
    bottom.

    Args:
        steps: for each step the beams kept, best first: a beam is its words so far and their log-probability. A
            finished beam ends with `end` and stays as it is in later steps.
        end: the token that finishes a caption.
        ax: where to draw; default: a new figure's, as large as the words need.
        title: default: the best caption.

    Returns:
        The axes; a word of step t (from 1) and rank k (from 0) is the text at x = k, y = t.

    Raises:
        ValueError: no step, a step without beams, or a beam that grows from none of the step before.

    Example:
        >>> plot_beam_tree([[(["a"], -0.1), (["the"], -2.3)], [(["a", "dog"], -0.9), (["a", "cat"], -1.2)]])
    """
    if not steps or not all(steps):
        raise ValueError("a tree needs at least one step, and a beam in each")
    beams = [[(tuple(words), log_prob) for words, log_prob in step] for step in steps]
    parents = [_parents(number, beams, end) for number in range(len(beams))]
    best = _ancestors(parents, {0})
    kept = _ancestors(parents, set(range(len(beams[-1]))))
    last = " ".join(word for word in beams[-1][0][0] if word != end)
    columns = max(map(len, beams))
    labels = [
        [_label(beam, number, beams, parents) for beam in range(len(beams[number]))] for number in range(len(beams))
    ]
    if ax is None:
        widest = max(text_width(label, SIZE, "bold") for row in labels for label in row)
        size = (columns * (widest + GAP) + 0.3, (len(beams) + 2) * ROW + 0.5)
        ax = SheetFigure(figsize=size, layout="constrained").add_subplot(axes_class=PanelAxes)
    bare(ax)
    ax.set(xlim=(-0.5, columns - 0.5), ylim=(len(beams) + 1.5, -0.5))
    ax.set_title(drawable(title if title is not None else last), loc="left", parse_math=False, wrap=True)
    box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none"}
    middle: dict[str, Any] = {"ha": "center", "va": "center", "bbox": box}
    ax.text((columns - 1) / 2, 0, "<start>", fontsize=SIZE, color=MUTED, **middle)
    for number, row in enumerate(labels):
        for rank, label in enumerate(row):
            parent = parents[number][rank]
            from_x = (columns - 1) / 2 if number == 0 else parent
            on_best, alive = rank in best[number], rank in kept[number]
            color = COLORS[0] if on_best else INK if alive else "#8a8a8a"
            frozen = not label
            line: dict[str, Any] = {"linestyle": ":" if frozen else "-", "linewidth": 2.4 if on_best else 1.2}
            ax.plot([from_x, rank], [number, number + 1], color=color if alive else RULE, zorder=1.5 + on_best, **line)
            if not frozen:
                look: dict[str, Any] = {"color": color, "fontweight": "bold" if on_best else "normal", "zorder": 3}
                ax.text(rank, number + 1, drawable(label), fontsize=SIZE, **look, **middle)
    for rank, (_, log_prob) in enumerate(beams[-1]):
        sum_of_logs = f"log p {log_prob:.2f}".replace("-", "\u2212")
        ax.text(rank, len(beams) + 1, sum_of_logs, fontsize=SIZE, color=INK, **middle)
    return ax


def _parents(number: int, beams: list[list[tuple[tuple[str, ...], float]]], end: str) -> list[int]:
    if number == 0:
        return [0] * len(beams[0])
    before = [words for words, _ in beams[number - 1]]
    found = []
    for words, _ in beams[number]:
        grown_from = words if words in before and words[-1:] == (end,) else words[:-1]
        if grown_from not in before:
            raise ValueError(f"step {number + 1}: {' '.join(words)!r} grows from none of the beams of the step before")
        found.append(before.index(grown_from))
    return found


def _ancestors(parents: list[list[int]], ranks: set[int]) -> list[set[int]]:
    found = [ranks]
    for row in reversed(parents[1:]):
        found.append({row[rank] for rank in found[-1]})
    return found[::-1]


def _label(rank: int, number: int, beams: list[list[tuple[tuple[str, ...], float]]], parents: list[list[int]]) -> str:
    words, log_prob = beams[number][rank]
    if number and words == beams[number - 1][parents[number][rank]][0]:
        return ""  # finished before
    before = beams[number - 1][parents[number][rank]][1] if number else 0.0
    return f"{words[-1]} {exp(min(0.0, log_prob - before)):.2f}"
