"""Lay an attention map over a photograph: as heat, as a reveal, or as contours.

In each mode the photograph stays visible where the model did not look, and nothing is drawn outside the box that the
grid of regions covers (`Caption.grid_box`).
"""

from __future__ import annotations

from math import ceil
from typing import Any, Literal, get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.image import AxesImage
from PIL import Image

from attncap.captions import WHOLE_IMAGE
from attncap.plotting.layout import show_photo

Mode = Literal["heat", "reveal", "contour"]
MODES: tuple[Mode, ...] = get_args(Mode)

# Orange to dark red; opacity grows with attention, so that places without attention stay visible.
HEAT = LinearSegmentedColormap.from_list(
    "attention", [(0.0, (1.0, 0.72, 0.1, 0.0)), (0.5, (0.93, 0.3, 0.05, 0.4)), (1.0, (0.6, 0.0, 0.15, 0.72))]
)
PALE = 0.35  # share of white that is mixed into the photograph under the map
CONTOUR_MASS = (0.8, 0.5)  # shares of the attention that the two contours enclose
CONTOUR_COLORS = ("#56B4E9", "#D55E00")

NO_MAPS = (
    "the caption has no attention maps, for its captioner has no attention: "
    "take one of `attncap train --model attention`, or draw the caption alone with plot_predictions"
)


def upsample_attention(
    weights: np.ndarray,
    size: tuple[int, int],
    smooth: bool = True,
    grid_box: tuple[float, float, float, float] = WHOLE_IMAGE,
) -> np.ndarray:
    """Enlarge an attention map to the size of the image that it was computed from.

    The cells tile grid_box: for the whole image, cell (r, c) of R x C covers the pixels from r H/R to (r+1) H/R and
    from c W/C to (c+1) W/C. Smooth: bicubic interpolation, which keeps each cell's value at its center, clipped to the
    map's own range, so that no dark ring (or negative weight) surrounds a peak. Outside grid_box the border values
    continue to the edge of the image; figures do not draw that part.

    Args:
        weights: array, shape (rows, cols), any unit, finite.
        size: (height, width) of the result, in pixels.
        smooth: False gives every pixel the weight of its cell.
        grid_box: `Caption.grid_box`, the part of the image that the cells tile: (left, top, right, bottom) from 0 to 1.

    Returns:
        float32 array, shape (height, width), within [weights.min(), weights.max()].

    Raises:
        ValueError: weights that are not two-dimensional, empty or not finite, or a size below 1.

    Example:
        >>> upsample_attention(np.eye(2), (4, 4), smooth=False)[0]
        array([1., 1., 0., 0.], dtype=float32)
    """
    weights = np.asarray(weights, dtype=np.float32)
    height, width = size
    if weights.ndim != 2 or not weights.size:
        raise ValueError(f"weights needs shape (rows, cols), got {weights.shape}: give the map of one word")
    if not np.isfinite(weights).all():
        raise ValueError("weights needs finite numbers, got NaN or infinity")
    if height < 1 or width < 1:
        raise ValueError(f"size needs (height, width) of at least 1 pixel each, got {size}")
    rows, cols = weights.shape
    left, top, right, bottom = grid_box
    per_row, per_col = rows / (bottom - top), cols / (right - left)  # cells per image, if they continued to its edges
    if not smooth:
        row_of = ((np.arange(height) + 0.5) / height - top) * per_row  # the cell that a pixel's center lies in
        col_of = ((np.arange(width) + 0.5) / width - left) * per_col
        row_of, col_of = (np.clip(np.floor(at), 0, n - 1).astype(int) for at, n in ((row_of, rows), (col_of, cols)))
        return weights[row_of][:, col_of]  # (height, width)
    beyond = max(left * per_col, top * per_row, (1 - right) * per_col, (1 - bottom) * per_row)
    border = 3 + ceil(max(beyond, 0))  # cells; Pillow's kernel would otherwise be cut, and renormalized, at the edge
    bordered = Image.fromarray(np.pad(weights, border, mode="edge"))
    x, y = border - left * per_col, border - top * per_row
    box = (x, y, x + per_col, y + per_row)
    enlarged = bordered.resize((width, height), Image.Resampling.BICUBIC, box=box)
    return np.clip(np.asarray(enlarged), weights.min(), weights.max())  # (height, width)


def draw_attention(
    ax: Axes,
    photo: np.ndarray,
    size: tuple[int, int],
    weights: np.ndarray,
    *,
    mode: Mode = "heat",
    maximum: float | None = None,
    smooth: bool = True,
    grid_box: tuple[float, float, float, float] = WHOLE_IMAGE,
    cmap: str | Colormap | None = None,
    alpha: float | None = None,
) -> AxesImage:
    """Draw a photograph with one word's attention map over it.

    Args:
        ax: where to draw.
        photo: uint8 array, shape (height, width, 3), as `layout.read_image` returns it.
        size: (width, height) of the image itself, whose pixels are the coordinates of the axes.
        weights: array, shape (rows, cols), sums to 1.
        mode: "heat": color and opacity follow attention over a paled photograph; "reveal": the photograph in color
            where the model looked, and pale gray elsewhere; "contour": lines that enclose 50% and 80% of the attention.
        maximum: end of the color scale in times uniform (weight * rows * cols); default: the map's maximum, at least 2,
            so that a uniform map looks uniform.
        smooth: False draws the cells of the grid.
        grid_box: the part of the image that the cells tile; nothing is drawn outside it.
        cmap: colors of "heat"; default: orange to dark red, transparent at 0.
        alpha: constant opacity of "heat", from 0 to 1; default: opacity follows attention.

    Returns:
        The image of the map: its array holds times uniform, shape (height, width) of the box in pixels of `photo`.
    """
    check_mode(mode)
    shown = photo if mode == "contour" else _paled(photo, gray=mode == "reveal")
    show_photo(ax, shown, size)
    box, extent = _box_in_pixels(photo.shape[:2], size, grid_box)
    rows_of, cols_of = slice(box[1], box[3]), slice(box[0], box[2])
    times_uniform = upsample_attention(weights, photo.shape[:2], smooth, grid_box)[rows_of, cols_of] * weights.size
    top = scale_maximum(weights) if maximum is None else maximum
    look: dict[str, Any] = {"vmin": 0.0, "vmax": top, "extent": extent, "origin": "upper", "aspect": "equal"}
    if mode == "heat":
        image = ax.imshow(times_uniform, cmap=HEAT if cmap is None else cmap, alpha=alpha, **look)
    else:
        image = ax.imshow(times_uniform, cmap=HEAT, alpha=0.0, **look)  # keeps the values for the color bar and tests
    if mode == "reveal":
        opacity = np.clip(times_uniform / top, 0, 1)[..., None] * 255  # (height, width, 1)
        window = np.concatenate([photo[rows_of, cols_of], opacity.astype(np.uint8)], axis=-1)
        ax.imshow(window, extent=extent, origin="upper", aspect="equal")
    elif mode == "contour":
        _draw_contours(ax, times_uniform, extent)
    ax.set_xlim(-0.5, size[0] - 0.5)
    ax.set_ylim(size[1] - 0.5, -0.5)
    return image


def scale_maximum(weights: np.ndarray) -> float:
    """End of a map's color scale in times uniform: its maximum, at least 2, so that a uniform map looks uniform."""
    return max(float(np.max(weights)) * weights.size, 2.0)


def peak_label(weights: np.ndarray) -> str:
    """Say how large a map's maximum is in times uniform, such as "max 5.2×"."""
    peak = float(np.max(weights)) * weights.size
    return f"max {peak:.0f}×" if peak >= 9.95 else f"max {peak:.1f}×"


def draw_scale(ax: Axes, mode: Mode, ink: str, cmap: str | Colormap | None = None, alpha: float | None = None) -> None:
    """Draw the key of a mode: a bar of colors, or the two contours with their names."""
    ax.set_label("scale")
    if mode == "contour":
        for n, (mass, color) in enumerate(zip(CONTOUR_MASS, CONTOUR_COLORS, strict=True)):
            ax.plot([0.02 + 0.5 * n, 0.12 + 0.5 * n], [0.5, 0.5], color=color, linewidth=2.5)
            ax.text(0.16 + 0.5 * n, 0.5, f"{mass:.0%}", va="center", fontsize=10, color=ink)
        ax.set(xlim=(0, 1), ylim=(0, 1))
        return
    extent = (0.0, 1.0, 0.0, 1.0)
    if mode == "reveal":
        ramp = np.linspace(0.92, 0.35, 256)[None, :, None].repeat(3, axis=-1)  # (1, 256, 3)
        ax.imshow(ramp, extent=extent, aspect="auto")
    else:
        ax.set_facecolor(3 * (0.5 + 0.5 * PALE,))  # the paled photograph behind the maps, on average
        colors = HEAT if cmap is None else cmap
        ax.imshow(np.linspace(0, 1, 256)[None], extent=extent, aspect="auto", cmap=colors, alpha=alpha)  # (1, 256)
    ax.set_xticks([0, 1], ["0", "map's max"], fontsize=10, color=ink)
    ax.get_xticklabels()[1].set_horizontalalignment("right")
    ax.tick_params(length=0, pad=3)


def check_mode(mode: str) -> None:
    """Raise ValueError for a mode that does not exist."""
    if mode not in MODES:
        raise ValueError(f"mode is one of {', '.join(MODES)}, got {mode!r}")


def _paled(photo: np.ndarray, gray: bool) -> np.ndarray:
    colors = photo.astype(np.float32)
    if gray:
        colors = np.repeat((colors @ (0.299, 0.587, 0.114))[..., None], 3, axis=-1)  # (height, width, 3), luma
    white = PALE + 0.2 * gray
    return (colors * (1 - white) + 255 * white).astype(np.uint8)


def _box_in_pixels(
    shape: tuple[int, ...], size: tuple[int, int], grid_box: tuple[float, float, float, float]
) -> tuple[tuple[int, int, int, int], tuple[float, float, float, float]]:
    """Return the box of the grid in whole pixels of the drawn photo, and as an extent in pixels of the image."""
    height, width = shape[:2]
    left, top = (max(round(edge * n), 0) for edge, n in zip(grid_box[:2], (width, height), strict=True))
    right, bottom = (min(max(round(edge * n), 1), n) for edge, n in zip(grid_box[2:], (width, height), strict=True))
    left, top = min(left, right - 1), min(top, bottom - 1)
    x0, x1 = (edge * size[0] / width - 0.5 for edge in (left, right))
    y0, y1 = (edge * size[1] / height - 0.5 for edge in (top, bottom))
    return (left, top, right, bottom), (x0, x1, y1, y0)


def _draw_contours(ax: Axes, values: np.ndarray, extent: tuple[float, float, float, float]) -> None:
    """Draw lines around the smallest areas that hold 80% and 50% of the attention."""
    falling = np.sort(values, axis=None)[::-1]
    sums = np.cumsum(falling, dtype=np.float64)
    if min(values.shape) < 2 or falling[0] <= falling[-1] or sums[-1] <= 0:
        return  # a uniform map has no such line
    levels = {}
    for mass, color in zip(CONTOUR_MASS, CONTOUR_COLORS, strict=True):
        level = float(falling[np.searchsorted(sums, mass * sums[-1]).clip(max=falling.size - 1)])
        if falling[-1] < level < falling[0]:
            levels[level] = color
    rows, cols = values.shape
    x = extent[0] + (np.arange(cols) + 0.5) * (extent[1] - extent[0]) / cols
    y = extent[3] + (np.arange(rows) + 0.5) * (extent[2] - extent[3]) / rows
    for level, color in levels.items():
        ax.contour(x, y, values, levels=[level], colors="white", linewidths=4.0, alpha=0.7)
        ax.contour(x, y, values, levels=[level], colors=color, linewidths=2.0)
