"""`Regions`: features, mask and boxes of a batch of images, computed elsewhere."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from attncap.features.external_files import numbers


class Regions(NamedTuple):
    """The result of a function for a batch of B images."""

    features: Any  # (B, L, D) or (B, rows, cols, D)
    mask: Any = None  # (B, L), True where there is a region
    boxes: Any = None  # (B, L, 4): left, top, right, bottom, as fractions of the image


def checked_regions(features: Any, mask: Any, boxes: Any, number: int, name: str) -> Regions:
    """Return regions as arrays of the shapes and types of `Regions`.

    Args:
        features, mask, boxes: as given; None where there are none.
        number: B, images in the batch.
        name: of the features, for messages.

    Raises:
        ValueError: an image without any region in its mask, or boxes that are not fractions of the image.
    """
    if features is not None:
        features = numbers(np.asarray(features))
        features = features.reshape(number, int(np.prod(features.shape[1:-1])), features.shape[-1])  # (B, L, D)
    if mask is not None:
        mask = np.asarray(mask).astype(bool)
        if not mask.any(axis=1).all():
            raise ValueError(f"{name}: an image without any region in its mask")
    if boxes is not None:
        boxes = numbers(np.asarray(boxes)).astype(np.float32)
        sound = (boxes >= -1e-4) & (boxes <= 1.0001)
        if not sound.all() or not (boxes[..., 2:] >= boxes[..., :2]).all():
            raise ValueError(
                f"{name}: boxes are left, top, right, bottom as fractions of the image, 0 to 1; got values from "
                f"{boxes.min():g} to {boxes.max():g}: divide pixels by the width and height of the image"
            )
    return Regions(features, mask, boxes)
