"""The two drawings of the architecture page, made from the package itself: its rooms, and the way of an image."""

from __future__ import annotations

import tempfile
from pathlib import Path

import grimp
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from attncap.plotting.style import COLORS, INK, MUTED, RULE, STYLE

ROUND = "round,pad=0,rounding_size=0.06"

# What a room holds, in the words of the page. A room that is missing here is drawn without a sentence.
HOLDS = {
    "cli": "the commands, one file each",
    "reports": "from runs to a table, a figure, a page",
    "attributes": "the multi-label classifier",
    "training": "train, resume, recipes, self-critical, distributed",
    "grounding": "attention maps against boxes",
    "explain": "occlusion and gradients beside attention",
    "retrieval": "difference hash, embeddings, index, neighbors",
    "decoding": "greedy, beam search, sampling, minimum Bayes risk",
    "models": "attention layers and the captioners",
    "features": "image to a grid of features; the store on disk",
    "characteristics": "from free texts to a table of characteristics",
    "plotting": "figures from arrays; the explorer page",
    "metrics": "BLEU, ROUGE-L, CIDEr-D, METEOR, significance",
    "data": "readers, checks, splits, the drawn faces",
    "root": "Caption, tokenizers, images, files",
}


@matplotlib.rc_context({**STYLE, "svg.hashsalt": "attncap"})
def draw_rooms(package: Path, rooms: list[str], out: Path) -> None:
    """Draw the floors and, right of them, which room imports which: a dot's number counts the imports."""
    graph = grimp.build_graph("attncap")
    imports = np.zeros((len(rooms), len(rooms)), int)
    for module in graph.modules - {"attncap", "attncap.__main__"}:
        for other in graph.find_modules_directly_imported_by(module):
            imports[rooms.index(_room(module, rooms)), rooms.index(_room(other, rooms))] += 1
    n, row = len(rooms), 0.42
    figure = Figure(figsize=(11.2, n * row + 1.5))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, 11.2), ylim=(n * row + 1.35, -0.15))
    axes.axis("off")
    left, column = 7.0, 4.0 / n
    for i, room in enumerate(rooms):
        y = 1.2 + i * row
        files = package.glob("*.py") if room == "root" else (package / room).rglob("*.py")
        count = sum(1 for file in files if not file.name.startswith("__"))
        axes.add_patch(
            FancyBboxPatch((0.15, y), 6.6, row - 0.09, boxstyle="round,pad=0,rounding_size=0.06", fc="#f3f6fa", ec=RULE)
        )
        axes.text(
            0.3, y + 0.17, room if room != "root" else "(root)", va="center", weight="bold", color=COLORS[0], size=11
        )
        axes.text(1.95, y + 0.17, HOLDS.get(room, ""), va="center", color=INK, size=10)
        axes.text(
            6.65, y + 0.17, f"{count} files" if count != 1 else "1 file", va="center", ha="right", color=MUTED, size=9
        )
        x = left + (i + 0.5) * column
        axes.text(
            x - 0.04,
            1.12,
            room if room != "root" else "(root)",
            rotation=55,
            ha="left",
            va="bottom",
            size=9,
            color=MUTED,
        )
        axes.plot([left, 11.1], [y + row - 0.045] * 2, color=RULE, lw=0.6)
        axes.add_patch(Rectangle((x - column / 2, y), column, row - 0.09, fc="#e4e4e4", ec="none"))
        for j in np.flatnonzero(imports[i]):
            if j == i:
                continue
            axes.plot(left + (j + 0.5) * column, y + 0.17, "o", ms=13, color=COLORS[0] if j > i else COLORS[1])
            axes.text(
                left + (j + 0.5) * column,
                y + 0.175,
                str(imports[i, j]),
                color="white",
                size=7.5,
                ha="center",
                va="center",
            )
    axes.text(0.15, 0.85, "rooms, top floor first", color=MUTED, size=10, va="bottom")
    axes.text(left - 0.15, 0.85, "imports from", color=MUTED, size=10, va="bottom", ha="right")
    figure.savefig(out, metadata={"Date": None})


def _room(module: str, rooms: list[str]) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in rooms else "root"


@matplotlib.rc_context({**STYLE, "svg.hashsalt": "attncap"})
def draw_way(out: Path) -> None:
    """Draw how an image file becomes a caption with maps, and which room does each step."""
    import attncap

    with tempfile.TemporaryDirectory() as folder:
        attncap.load("faces:4", folder=folder)
        face = np.asarray(attncap.open_image(sorted(Path(folder).rglob("*.png"))[3]))
    figure = Figure(figsize=(11.2, 4.6))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, 11.2), ylim=(4.6, 0))
    axes.axis("off")
    steps = (
        (0.15, "data", "image file", "open_image:\nturned, RGB"),
        (2.4, "features", "grid of features", "InceptionV3, one layer\n(rows, cols, D) in a store"),
        (4.9, "models", "captioner", "init_state(features)\nstep(token_ids, state)"),
        (7.3, "decoding", "search", "greedy, beam search,\nsampling, minimum Bayes risk"),
        (9.75, "captions", "Caption", "words, log_prob,\nattention_weights"),
    )
    for x, room, title, text in steps:
        axes.text(x, 0.25, room, color=COLORS[0], weight="bold", size=11, va="center")
        axes.text(x, 0.55, title, color=INK, size=11, va="center")
        axes.text(x, 2.45, text, color=MUTED, size=9, va="top")
    for x in (1.85, 4.3, 6.65, 9.15):
        axes.add_patch(FancyArrowPatch((x, 1.5), (x + 0.42, 1.5), arrowstyle="-|>", mutation_scale=14, color=MUTED))
    _show(figure, face, 0.15, 0.8, 1.5)
    _show(figure, face, 2.4, 0.8, 1.5, grid=8)
    for k in range(5):  # the features of the grid, drawn as a block
        axes.add_patch(
            Rectangle((3.98 + 0.06 * k, 0.86 + 0.06 * k), 0.1, 1.2, fc=COLORS[0], ec="white", alpha=0.35 + 0.1 * k)
        )
    for k, word in enumerate(("<start>", "a", "woman")):
        x = 4.95 + 0.58 * k
        axes.add_patch(
            FancyBboxPatch((x, 1.25), 0.42, 0.5, boxstyle="round,pad=0,rounding_size=0.06", fc="#dbe9f4", ec=COLORS[0])
        )
        axes.text(x + 0.21, 1.98, word, ha="center", size=8, color=INK)
        axes.text(x + 0.21, 1.5, "GRU", ha="center", va="center", size=8, color=INK)
        if k < 2:
            axes.add_patch(
                FancyArrowPatch((x + 0.42, 1.5), (x + 0.58, 1.5), arrowstyle="-|>", mutation_scale=8, color=COLORS[0])
            )
        axes.plot([x + 0.21, x + 0.21], [0.92, 1.24], color=COLORS[1], lw=1.2)
    axes.text(5.74, 0.82, "attention: where to look", ha="center", size=8, color=COLORS[1])
    words = {(7.35, 1.5): "a", (8.0, 1.05): "woman", (8.0, 1.9): "man"}
    words |= {(8.75, 0.9): "with", (8.75, 1.3): "wearing", (8.75, 2.05): "with"}
    tree = {(7.35, 1.5): [(8.0, 1.05), (8.0, 1.9)], (8.0, 1.05): [(8.75, 0.9), (8.75, 1.3)], (8.0, 1.9): [(8.75, 2.05)]}
    for start, ends in tree.items():
        for end in ends:
            best = end[1] <= 1.1  # the upper beam
            line = {"lw": 1.6, "alpha": 1.0} if best else {"lw": 0.9, "alpha": 0.5}
            axes.plot([start[0], end[0]], [start[1], end[1]], color=COLORS[0], **line)
    for place, word in words.items():
        box = {"fc": "white", "ec": RULE, "boxstyle": "round,pad=0.25"}
        axes.text(*place, word, ha="center", va="center", size=8, bbox=box)
    axes.text(9.75, 1.15, "“a woman with\na red hat”", size=10, va="center", color=INK, style="italic")
    axes.text(9.75, 1.8, "(T, rows, cols) maps,\none per word", size=8, va="center", color=MUTED)
    axes.plot([0.15, 11.05], [3.25, 3.25], color=RULE, lw=1)
    axes.text(
        0.15,
        3.5,
        "From there on nothing sees a model: captions, references and arrays are enough.",
        color=INK,
        size=10.5,
        va="center",
    )
    for x, room, text in (
        (0.15, "metrics", "scores, intervals,\npaired tests"),
        (2.4, "plotting", "heatmaps, charts,\nthe explorer page"),
        (4.9, "grounding", "maps against boxes"),
        (7.3, "reports", "tables and pages\nof whole runs"),
    ):
        axes.text(x, 3.85, room, color=COLORS[0], weight="bold", size=11, va="center")
        axes.text(x, 4.02, text, color=MUTED, size=9, va="top")
    figure.savefig(out, metadata={"Date": None}, dpi=150)


def _show(figure: Figure, image: np.ndarray, x: float, y: float, side: float, grid: int = 0) -> Axes:
    width, height = figure.get_size_inches()
    axes = figure.add_axes((x / width, 1 - (y + side) / height, side / width, side / height))
    axes.imshow(image)
    axes.set(xticks=[], yticks=[])
    rows, columns = image.shape[:2]
    for k in range(1, grid):
        axes.axhline(k * rows / grid - 0.5, color="white", lw=0.8, alpha=0.8)
        axes.axvline(k * columns / grid - 0.5, color="white", lw=0.8, alpha=0.8)
    return axes
