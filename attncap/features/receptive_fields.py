"""Receptive fields: which part of the image each cell of a layer's grid belongs to."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras

GridBox = tuple[float, float, float, float]  # left, top, right, bottom, as fractions of the image


class Place(NamedTuple):
    """The positions of the cells of a layer in the image, and how much of it they can see."""

    step: float  # pixels from one cell's center to the next one's
    first: float  # pixels from the image's edge to the first cell's center
    height: float  # of the receptive field, pixels
    width: float

    @property
    def field(self) -> float:
        """Side of the receptive field, the longer one, pixels."""
        return max(self.height, self.width)

    def box(self, cells: int, image_size: int, pool: int = 1) -> GridBox:
        """Return left, top, right, bottom, as fractions of the image, of the square that a side of `cells` covers.

        Args:
            cells: a side of the grid, after pooling.
            image_size: side of the image, pixels.
            pool: cells of the layer that are averaged into one, per side.
        """
        first, step = self.first + (pool - 1) / 2 * self.step, self.step * pool
        low, high = (first - step / 2) / image_size, (first + (cells - 0.5) * step) / image_size
        return low, low, high, high


def places(network: keras.Model) -> dict[str, Place]:
    """Return the place of each layer of a convolutional network, by the name of its output.

    With kernels of k pixels and strides s, layer by layer: receptive field += (k - 1) * step, then step *= s. Where
    branches are joined the widest one counts. Gates over channels (squeeze and excitation) see the whole image and are
    ignored. Layers whose cells cannot be placed, and layers that read only such layers, are not in the table.

    Reference: Araujo et al. 2019, "Computing receptive fields of convolutional neural networks".
    """
    found = {network.inputs[0].name: Place(1.0, 0.5, 1.0, 1.0)}
    for layer in network.layers[1:]:
        branches = [found[tensor.name] for tensor in keras.tree.flatten(layer.input) if tensor.name in found]
        if not branches or isinstance(layer.output, list | dict):
            continue
        place = _after(layer, max(branches, key=lambda place: place.field))
        if place is not None:
            found[layer.output.name] = place
    return found


def _after(layer: Any, before: Place) -> Place | None:
    step, first, height, width = before
    if isinstance(layer, keras.layers.ZeroPadding2D | keras.layers.Cropping2D):
        border = (layer.padding if isinstance(layer, keras.layers.ZeroPadding2D) else layer.cropping)[0][0]
        moved = -border if isinstance(layer, keras.layers.ZeroPadding2D) else border
        return before._replace(first=first + moved * step)
    kernel = getattr(layer, "kernel_size", getattr(layer, "pool_size", None))
    shape, after = _cells(layer.input), _cells(layer.output)
    if kernel is None:
        return before if shape is not None and shape == after else None
    if shape is None or after is None:
        return None
    dilation = getattr(layer, "dilation_rate", (1, 1))
    kernel = tuple((side - 1) * wide + 1 for side, wide in zip(kernel, dilation, strict=True))
    stride = tuple(getattr(layer, "strides", (1, 1)))
    padded = 0
    if layer.padding == "same":
        padded = max((after[0] - 1) * stride[0] + kernel[0] - shape[0], 0) // 2
    first += ((kernel[0] - 1) / 2 - padded) * step
    return Place(step * stride[0], first, height + (kernel[0] - 1) * step, width + (kernel[1] - 1) * step)


def _cells(tensor: Any) -> tuple[int, int] | None:
    """Return rows and cols of a tensor (B, rows, cols, D), of several the largest; None for another shape."""
    shapes = [tuple(each.shape) for each in keras.tree.flatten(tensor)]
    return max((shape[1:3] for shape in shapes if len(shape) == 4 and None not in shape[1:3]), default=None)
