"""Boxes of region features over an image, with the attention that each one got."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke

MAP_CELLS = 64  # rows and cols of the map that the regions' weights are spread over, see `Caption.on_grid`


def draw_boxes(
    ax: Axes, size: tuple[int, int], weights: np.ndarray, boxes: np.ndarray, top: int = 3, color: str = "#8B0026"
) -> list[Rectangle]:
    """Outline the regions that one word attends to most, each with its share of the attention.

    Args:
        ax: the axes that hold the image, in its pixels.
        size: (width, height) of the image.
        weights: array, shape (L,), sums to 1.
        boxes: array, shape (L, 4): left, top, right, bottom, as fractions of the image.
        top: how many regions at most; those below 1% of the attention are left out.
        color: of lines and text.

    Returns:
        The rectangles, the largest weight first.

    Example:
        >>> draw_boxes(ax, (640, 480), caption.attention_weights[2, 0], caption.boxes)
    """
    width, height = size
    drawn: list[Rectangle] = []
    for region in np.argsort(-weights, kind="stable")[:top]:
        if weights[region] < 0.01:
            break
        left, upper, right, lower = boxes[region] * (width, height, width, height) - 0.5
        line = 2.5 if not drawn else 1.2
        white = [Stroke(linewidth=line + 1.5, foreground="white"), Normal()]
        rectangle = Rectangle((left, upper), right - left, lower - upper, fill=False, edgecolor=color, linewidth=line)
        rectangle.set_path_effects(white)
        ax.add_patch(rectangle)
        drawn.append(rectangle)
        text = ax.text(left, upper, f" {weights[region]:.0%}", va="top", fontsize=8, color=color, clip_on=True)
        text.set_path_effects([Stroke(linewidth=2, foreground="white"), Normal()])
    return drawn
