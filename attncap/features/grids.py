"""Grids of regions: several of them as one array, and a map on one laid over another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

Shape = tuple[int, int, int]
GridBox = tuple[float, float, float, float]


class Grid(NamedTuple):
    """A grid of regions of a picture.

    Args:
        shape: rows, cols, D.
        box: left, top, right, bottom, as fractions, of the part of the picture that its cells tile.
    """

    shape: Shape
    box: GridBox


def finest(grids: Sequence[Grid]) -> Grid:
    """Return the grid of the most cells, the first of equals: the one that maps of all are laid on."""
    return max(grids, key=lambda grid: math.prod(grid.shape[:2]))


def joined_shape(shapes: Sequence[Shape]) -> Shape:
    """Return the shape, without the batch, of features of these shapes side by side: that of one, or (1, 1, sum)."""
    return shapes[0] if len(shapes) == 1 else (1, 1, sum(map(math.prod, shapes)))


def join_features(parts: Sequence[Any]) -> Any:
    """Lay features (B, rows, cols, D), arrays or tensors, side by side: (B, 1, 1, sum of rows cols D); one stays."""
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate([part.reshape(len(part), 1, 1, -1) for part in parts], axis=-1)  # (B, 1, 1, N)
    flat = [ops.reshape(part, (-1, 1, 1, math.prod(part.shape[1:]))) for part in parts]
    return ops.concatenate(flat, axis=-1)  # (B, 1, 1, N)


def split_features(features: Any, shapes: Sequence[Shape]) -> list[Any]:
    """Undo `join_features`: features of each shape (rows, cols, D), (B, rows, cols, D) each.

    Raises:
        ValueError: features that are not those shapes' side by side.
    """
    if len(shapes) == 1:
        return [features]
    joined = joined_shape(shapes)
    if tuple(features.shape[1:]) != joined:
        raise ValueError(f"features of {list(shapes)} side by side, {('B', *joined)}, expected, got {features.shape}")
    parts, start = [], 0
    for shape in shapes:
        part = features[:, 0, 0, start : start + math.prod(shape)]
        parts.append(ops.reshape(part, (-1, *shape)))  # (B, rows, cols, D)
        start += math.prod(shape)
    return parts


def map_between(
    shape: tuple[int, int], box: GridBox, onto_shape: tuple[int, int], onto_box: GridBox
) -> np.ndarray | None:
    """Return the matrix (L, L') that lays a map (..., L) of one grid on another; None where the grids are one.

    Each cell's weight is spread evenly over its area, and goes to the cells that lie there; beyond the grid they are
    those at its border. Rows sum to 1, so that a map that sums to 1 still does.

    Args:
        shape, box: rows and cols of the grid that the map is on, and the part of the picture that they tile.
        onto_shape, onto_box: of the grid to lay it on.
    """
    if (shape, box) == (onto_shape, onto_box):
        return None
    down = _overlap(shape[0], box[1], box[3], onto_shape[0], onto_box[1], onto_box[3])  # (rows, rows')
    across = _overlap(shape[1], box[0], box[2], onto_shape[1], onto_box[0], onto_box[2])  # (cols, cols')
    return np.kron(down, across).astype(np.float32)  # (rows cols, rows' cols')


def map_onto_finest(grids: Sequence[Grid]) -> np.ndarray | None:
    """Return the matrix (sum of L, L') that lays a map over the regions of all grids on the finest; None for one grid.

    A region's weight is added to what the finest grid's own regions have there, so that rows still sum to 1.
    """
    if len(grids) == 1:
        return None
    onto = finest(grids)
    cells = math.prod(onto.shape[:2])
    each = [map_between(grid.shape[:2], grid.box, onto.shape[:2], onto.box) for grid in grids]
    return np.concatenate([np.eye(cells, dtype=np.float32) if matrix is None else matrix for matrix in each])


def _overlap(cells: int, low: float, high: float, onto: int, onto_low: float, onto_high: float) -> np.ndarray:
    # Which share of each of the cells lies in each of the cells to lay them on.
    edges = np.linspace(low, high, cells + 1)
    onto_edges = np.linspace(onto_low, onto_high, onto + 1)
    onto_edges[0], onto_edges[-1] = -np.inf, np.inf
    begins = np.maximum(edges[:-1, None], onto_edges[None, :-1])  # (cells, onto)
    ends = np.minimum(edges[1:, None], onto_edges[None, 1:])
    return np.maximum(ends - begins, 0.0) / (edges[1:] - edges[:-1])[:, None]
