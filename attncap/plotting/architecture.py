"""Diagrams of the captioners, drawn from their sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch

from attncap.plotting.style import COLORS, INK, MUTED, RULE, STYLE, SheetFigure

Model = Literal["attention", "show-and-tell"]
MODELS: tuple[Model, ...] = get_args(Model)
FILLS = {"frozen": "#ececec", "once": "#dbe9f4", "word": "#fbe5d6", "token": "white"}
EDGES = {"frozen": MUTED, "once": COLORS[0], "word": COLORS[1], "token": RULE}
MEANINGS = {
    "frozen": "not trained",
    "once": "trained; computed once per image",
    "word": "trained; computed for each word",
}
WIDTH = 9.8  # inches
Point = tuple[float, float]


@matplotlib.rc_context(STYLE)
def plot_architecture(
    model: Model,
    *,
    layer: str,
    feature_shape: tuple[int, int, int],
    vocabulary: int,
    hidden_units: int = 512,
    embedding_units: int = 512,
    projection_units: int = 512,
    attention_units: int = 256,
    words: Sequence[str] = ("a", "smiling", "person"),
) -> Figure:
    """Draw a captioner as boxes and arrows, with the shape of what each box returns for one image.

    Args:
        model: "attention" or "show-and-tell".
        layer: of the encoder, as "mixed8".
        feature_shape: (rows, cols, D) of the encoder.
        vocabulary: number of tokens.
        hidden_units: H, size of the state.
        embedding_units: E, size of a word's vector.
        projection_units: D', size of the attended values; "attention" only.
        attention_units: A, size of the space of queries and keys; "attention" only.
        words: the first words of a caption; "show-and-tell" only.

    Returns:
        The figure, with one Axes in inches; its patches are the boxes.

    Raises:
        ValueError: an unknown model.

    Example:
        >>> plot_architecture("attention", layer="mixed8", feature_shape=(8, 8, 1280), vocabulary=3000)
    """
    rows, cols, size = feature_shape
    if model == "attention":
        ax = _sheet(5.1)
        _draw_attention_captioner(
            ax, layer, (rows * cols, size), vocabulary, hidden_units, embedding_units, projection_units, attention_units
        )
    elif model == "show-and-tell":
        ax = _sheet(4.9)
        _draw_show_and_tell(ax, layer, (rows * cols, size), vocabulary, hidden_units, embedding_units, words)
    else:
        raise ValueError(f"model needs to be one of {', '.join(MODELS)}, got {model!r}")
    handles = [Patch(facecolor=FILLS[kind], edgecolor=EDGES[kind], label=text) for kind, text in MEANINGS.items()]
    ax.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.005, 0.0), ncols=3, fontsize=9.5, borderaxespad=0.2)
    return ax.figure  # type: ignore[return-value]


def _draw_attention_captioner(
    ax: Axes,
    layer: str,
    regions: tuple[int, int],
    vocabulary: int,
    hidden: int,
    embedding: int,
    projection: int,
    attention: int,
) -> None:
    count, size = regions
    top, middle, low = 0.55, 2.2, 3.65
    values = "values: norm of $W_a a_l$\nkeys: $W_k$ values $+ b$"
    weights = "attention weights $\\alpha_t$\nand context $z_t$"
    _box(ax, "frozen", 0.2, top, 0.95, "image")
    _box(ax, "frozen", 1.55, top, 1.7, f"InceptionV3\nto {layer}", f"({count}, {size})")
    _box(ax, "once", 3.65, top, 2.45, values, f"({count}, {projection}), ({count}, {attention})")
    _box(ax, "word", 0.2, middle, 0.95, "state\n$h_{t-1}$", f"({hidden})")
    _box(ax, "word", 3.65, middle, 2.45, weights, f"({count}), ({projection})")
    _box(ax, "word", 6.5, middle, 0.95, "gate\n$\\beta_t \\odot z_t$", f"({projection})")
    _box(ax, "word", 7.85, middle, 0.75, "GRU\n$h_t$", f"({hidden})")
    _box(ax, "word", 8.95, middle, 0.7, "logits\nof $y_t$", f"({vocabulary})")
    _box(ax, "token", 2.0, low, 1.25, "word before\n$y_{t-1}$")
    _box(ax, "word", 3.65, low, 2.45, "embedding $E y_{t-1}$", f"({embedding})")
    _arrow(ax, (1.15, 1.05), (1.55, 1.05))
    _arrow(ax, (3.25, 1.05), (3.65, 1.05))
    _arrow(ax, (4.875, 1.55), (4.875, middle))
    _arrow(ax, (1.15, 2.7), (3.65, 2.7), text="query $W_q h_{t-1}$")
    for left, right in ((6.1, 6.5), (7.45, 7.85), (8.6, 8.95)):
        _arrow(ax, (left, 2.7), (right, 2.7))
    _arrow(ax, (3.25, 4.05), (3.65, 4.05))
    _arrow(ax, (6.1, 3.95), (8.1, 3.95), (8.1, 3.2))
    _arrow(ax, (6.1, 4.2), (9.3, 4.2), (9.3, 3.2))
    _arrow(ax, (7.65, 2.7), (7.65, 1.9), (9.3, 1.9), (9.3, middle))
    from_gru_to_state = (8.4, 3.2), (8.4, 3.45), (0.675, 3.45), (0.675, 3.2)
    _arrow(ax, *from_gru_to_state, dashed=True, text="the state is passed to the next word")


def _draw_show_and_tell(
    ax: Axes,
    layer: str,
    regions: tuple[int, int],
    vocabulary: int,
    hidden: int,
    embedding: int,
    words: Sequence[str],
) -> None:
    count, size = regions
    top, tokens, cells, out = 0.3, 2.05, 2.75, 3.75
    _box(ax, "frozen", 0.2, top, 0.95, "image")
    _box(ax, "frozen", 1.6, top, 1.7, f"InceptionV3\nto {layer}", f"({count}, {size})")
    _box(ax, "frozen", 3.75, top, 1.5, "mean of\nall regions", f"({size})")
    _box(ax, "frozen", 5.7, top, 1.5, "minus mean $m$,\nby deviation $s$", f"({size})")
    _box(ax, "once", 7.65, top, 1.9, "dense $W_p$\nand norm: $x_{-1}$", f"({embedding})")
    for left, right in ((1.15, 1.6), (3.3, 3.75), (5.25, 5.7), (7.2, 7.65)):
        _arrow(ax, (left, top + 0.5), (right, top + 0.5))
    read = ["<start>", *words]
    said = [*words, "..."]
    step = (WIDTH - 0.4) / (len(read) + 1)
    width = min(1.3, step - 0.35)
    for k in range(len(read) + 1):
        x = 0.2 + k * step
        center = x + width / 2
        _box(ax, "once" if k == 0 else "word", x, cells, width, "LSTM", f"$h, c$: ({hidden})", height=0.62)
        if k:
            _arrow(ax, (x - step + width, cells + 0.31), (x, cells + 0.31))
            _box(ax, "token", x, tokens, width, read[k - 1], height=0.36)
            _arrow(ax, (center, tokens + 0.36), (center, cells))
            _arrow(ax, (center, cells + 0.62), (center, out))
            _box(ax, "token", x, out, width, said[k - 1], height=0.36)
    first = 0.2 + width / 2  # the center of the first LSTM
    _arrow(ax, (8.6, top + 1.0), (8.6, 1.7), (first, 1.7), (first, cells), text="read once, before the words")
    ax.text(0.2, out + 0.18, f"softmax over\n{vocabulary:,} tokens", fontsize=9, color=MUTED, va="center")


def _sheet(height: float) -> Axes:
    figure = SheetFigure(figsize=(WIDTH, height))
    ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    ax.set(xlim=(0, WIDTH), ylim=(height, 0))  # inches, from the top left corner
    ax.axis("off")
    return ax


def _box(
    ax: Axes, kind: str, x: float, y: float, width: float, title: str, shape: str = "", height: float = 1.0
) -> None:
    """Draw a box with its title and, smaller, the shape of what it returns."""
    look: dict[str, Any] = {"boxstyle": "round,pad=0,rounding_size=0.06", "linewidth": 1.2, "zorder": 2}
    ax.add_patch(FancyBboxPatch((x, y), width, height, facecolor=FILLS[kind], edgecolor=EDGES[kind], **look))
    center, middle = x + width / 2, y + height / 2
    lift = (0.18 if height >= 1 else 0.12) if shape else 0.0
    text: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 3, "linespacing": 1.25}
    ax.text(center, middle - lift, title, fontsize=10, color=INK, parse_math=True, **text)
    if shape:
        below = y + height - (0.2 if height >= 1 else 0.17)
        ax.text(center, below, shape, fontsize=8.5, color=MUTED, parse_math=True, **text)


def _arrow(ax: Axes, *points: Point, dashed: bool = False, text: str = "") -> None:
    """Draw an arrow along points; the text stands above its first horizontal part."""
    line: dict[str, Any] = {"color": MUTED, "linewidth": 1.3, "linestyle": "--" if dashed else "-"}
    if len(points) > 2:
        ax.plot(*zip(*points[:-1], strict=True), zorder=1, solid_capstyle="butt", **line)
    style: dict[str, Any] = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, **line}
    ax.annotate("", xy=points[-1], xytext=points[-2], arrowprops=style, zorder=1)
    if text:
        (x0, y), (x1, _) = next((a, b) for a, b in zip(points, points[1:], strict=False) if a[1] == b[1])
        ax.text((x0 + x1) / 2, y - 0.06, text, fontsize=9, color=MUTED, ha="center", va="bottom", parse_math=True)
