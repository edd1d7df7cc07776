"""Receptive fields: which part of the picture each cell of a layer's grid belongs to."""

from __future__ import annotations

from typing import NamedTuple

import keras

GridBox = tuple[float, float, float, float]  # left, top, right, bottom, as fractions of the image


class Place(NamedTuple):
    """Where the cells of a layer lie in the picture, and how much of it they can see."""

    step: float  # pixels from one cell's center to the next one's
    first: float  # pixels from the picture's edge to the first cell's center
    height: float  # of the receptive field, pixels
    width: float

    @property
    def field(self) -> float:
        """Side of the receptive field, the longer one, pixels."""
        return max(self.height, self.width)

    def box(self, cells: int, image_size: int, pool: int = 1) -> GridBox:
        """Return left, top, right, bottom, as fractions of the picture, of the square that a side of `cells` tiles.

        Args:
            cells: a side of the grid, after pooling.
            image_size: side of the picture, pixels.
            pool: cells of the layer that are averaged into one, a side.
        """
        first, step = self.first + (pool - 1) / 2 * self.step, self.step * pool
        low, high = (first - step / 2) / image_size, (first + (cells - 0.5) * step) / image_size
        return low, low, high, high


def places(network: keras.Model) -> dict[str, Place]:
    """Return the place of each layer of a convolutional network, by the name of its output.

    With kernels of k pixels and strides s, layer by layer: receptive field += (k - 1) * step, then step *= s. Branches
    that are joined agree in step and center, and the widest one counts; padded kernels are odd, with stride 1.

    Reference: Araujo et al. 2019, "Computing receptive fields of convolutional neural networks".
    """
    found = {network.input.name: Place(1.0, 0.5, 1.0, 1.0)}
    for layer in network.layers[1:]:
        given = layer.input if isinstance(layer.input, list) else [layer.input]
        joined = [found[tensor.name] for tensor in given]
        step, first = joined[0].step, joined[0].first
        kernel = getattr(layer, "kernel_size", getattr(layer, "pool_size", (1, 1)))
        if getattr(layer, "padding", "same") == "valid":
            first += (kernel[0] - 1) / 2 * step
        height = max(place.height for place in joined) + (kernel[0] - 1) * step
        width = max(place.width for place in joined) + (kernel[1] - 1) * step
        found[layer.output.name] = Place(step * getattr(layer, "strides", (1,))[0], first, height, width)
    return found
