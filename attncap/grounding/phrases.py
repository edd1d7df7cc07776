"""Phrases that name a region of an image, and the geometry of regions on an attention grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from attncap.captions import WHOLE_IMAGE, Caption

GridBox = tuple[float, float, float, float]


class NamedRegion(NamedTuple):
    """Tokens of a caption that name a region: `tokenizer.tokenize(caption)[start:end]`, and its cells.

    Args:
        start, end: tokens, `<start>` not counted.
        cover: float, shape (L,): how much of each cell of the attention grid, row by row, the region covers.
    """

    start: int
    end: int
    cover: np.ndarray


@dataclass(frozen=True, eq=False)
class Phrase:
    """Words of a caption that name a region of its image, and where that region is.

    Args:
        image_id: the image.
        start, end: the phrase is `caption.words[start:end]`.
        type: what kind of thing it names ("people", "clothing", "hat"), for the table by type.
        boxes: float array, shape (n, 4): left, top, right, bottom as fractions of the image's width and height.
            Several boxes are one region, their union. n = 0: the phrase has no region (a scene, or something not
            visible).

    Raises:
        ValueError: no word in it, or a box that is empty or leaves the image.
    """

    image_id: str
    start: int
    end: int
    type: str
    boxes: np.ndarray

    def __post_init__(self) -> None:
        where = f"phrase {self.start}:{self.end} ({self.type}) of image {self.image_id!r}"
        if not 0 <= self.start < self.end:
            raise ValueError(f"{where}: expected 0 <= start < end, so that it holds a word")
        boxes = np.asarray(self.boxes, np.float64)
        boxes = boxes if boxes.size else np.zeros((0, 4))
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"{where}: boxes need shape (n, 4), left, top, right, bottom, got {boxes.shape}")
        inside = (boxes >= 0).all() and (boxes <= 1).all()  # NaN is neither
        if not (inside and (boxes[:, :2] < boxes[:, 2:]).all()):
            raise ValueError(
                f"{where}: boxes are fractions with 0 <= left < right <= 1 and 0 <= top < bottom <= 1, "
                f"got {boxes.tolist()}; divide pixels by the image's width and height"
            )
        object.__setattr__(self, "boxes", boxes)


def cell_edges(cells: int, first: float, last: float) -> np.ndarray:
    """Return where cells begin and end along a side: `cells` of one size from first to last, the outer two drawn out to
    the image's edges, since no other cell is nearer to what lies there. Shape (cells + 1,), from 0 to 1."""
    edges = first + (last - first) * np.arange(cells + 1) / cells
    edges[0], edges[-1] = 0.0, 1.0
    return edges


def cell_cover(boxes: np.ndarray, rows: int, cols: int, grid_box: GridBox = WHOLE_IMAGE) -> np.ndarray:
    """Return how much of each grid cell the union of boxes covers, computed exactly.

    The cells' edges and the boxes' edges cut the image into rectangles that lie in one cell each and are covered
    wholly or not at all; their areas are summed by cell.

    Args:
        boxes: shape (n, 4), left, top, right, bottom as fractions.
        rows, cols: the attention grid.
        grid_box: the part of the image that the grid tiles, see `Caption`; its border cells reach to the edges.

    Returns:
        cover: float64, shape (rows, cols), each in [0, 1]; its mean is the mass that a uniform map has in the region
            (with the default grid_box, the region's share of the image).

    Example:
        >>> cell_cover(np.array([[0.0, 0.0, 0.75, 1.0]]), rows=1, cols=2)
        array([[1. , 0.5]])
    """
    left, top, right, bottom = grid_box
    edges_x, edges_y = cell_edges(cols, left, right), cell_edges(rows, top, bottom)
    xs = np.unique(np.concatenate([edges_x, boxes[:, 0], boxes[:, 2]]))
    ys = np.unique(np.concatenate([edges_y, boxes[:, 1], boxes[:, 3]]))
    mid_x, mid_y = (xs[1:] + xs[:-1]) / 2, (ys[1:] + ys[:-1]) / 2
    across = (boxes[:, :1] < mid_x) & (mid_x < boxes[:, 2:3])  # (n, X)
    down = (boxes[:, 1:2] < mid_y) & (mid_y < boxes[:, 3:4])  # (n, Y)
    covered = (down[:, :, None] & across[:, None, :]).any(axis=0)  # (Y, X)
    areas = covered * np.diff(ys)[:, None] * np.diff(xs)
    cover = np.zeros((rows, cols))
    row_of, col_of = (np.searchsorted(edges, middle) - 1 for edges, middle in ((edges_y, mid_y), (edges_x, mid_x)))
    np.add.at(cover, (row_of[:, None], col_of), areas)
    return np.clip(cover / (np.diff(edges_y)[:, None] * np.diff(edges_x)), 0.0, 1.0)


def point_in_boxes(
    weights: np.ndarray,
    boxes: np.ndarray,
    upsample: int = 1,
    grid_box: GridBox = WHOLE_IMAGE,
    tolerance: float = 0.0,
) -> float:
    """Return whether the map's maximum falls into the boxes: the pointing game of Zhang et al. 2016.

    The point is the center of the largest cell, or of the largest pixel after smooth (bicubic) upsampling. Where
    several cells share the maximum, the result is the share of them that falls into the boxes, the average of a random
    choice.

    Args:
        weights: shape (rows, cols).
        boxes: shape (n, 4), fractions; a point in any of them counts, its edge included.
        upsample: factor; 1 takes the grid as it is, 8 draws the map as the figures do.
        grid_box: the part of the image that the grid tiles, see `Caption`: that is where the cells' centers are.
        tolerance: how far outside a box a point may lie and still count, as a fraction of the image's sides; default
            0. The paper's 15 pixels are about 0.03 of its images' 500.

    Returns:
        hit: in [0, 1]; 0 or 1 where the maximum is a single one.
    """
    if upsample > 1:
        from PIL import Image

        rows, cols = weights.shape
        image = Image.fromarray(np.ascontiguousarray(weights, np.float32))
        weights = np.asarray(image.resize((cols * upsample, rows * upsample), Image.Resampling.BICUBIC))
    largest = weights.max()
    row, col = np.nonzero(weights >= largest - 1e-6 * abs(largest))
    left, top, right, bottom = grid_box
    y = top + (bottom - top) * (row + 0.5) / weights.shape[0]
    x = left + (right - left) * (col + 0.5) / weights.shape[1]
    left, top, right, bottom = boxes.T[:, :, None]  # each (n, 1)
    across = (left - tolerance <= x) & (x <= right + tolerance)
    down = (top - tolerance <= y) & (y <= bottom + tolerance)
    return float((across & down).any(axis=0).mean())


def faces_phrases(
    captions: Sequence[Caption], stated: Sequence[Sequence[tuple[str, str, int]]], boxes: pd.DataFrame
) -> list[list[Phrase]]:
    """Make phrases from the characteristics that captions of drawn faces state.

    Args:
        captions: N captions with an `image_id`.
        stated: N lists of (characteristic, value, index of the word that states it), as
            `attncap.data.faces.claims.stated_characteristics` gives for each caption.
        boxes: the data set's table of boxes, whose `label` is the characteristic; several rows are one region.

    Returns:
        phrases: N lists; phrases of one word, typed by characteristic, without box if the image does not show it.
    """
    corners = ["left", "top", "right", "bottom"]
    regions = {key: rows[corners].to_numpy(float) for key, rows in boxes.groupby(["image_id", "label"])}
    phrases = []
    for caption, statements in zip(captions, stated, strict=True):
        image_id = str(caption.image_id)
        phrases.append(
            [
                Phrase(image_id, word, word + 1, label, regions.get((image_id, label), np.zeros((0, 4))))
                for label, _, word in statements
            ]
        )
    return phrases
