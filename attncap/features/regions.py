"""`Regions`: features, mask and boxes of a batch of images, computed elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from attncap._messages import quoted
from attncap.captions import WHOLE_IMAGE
from attncap.features.external_files import numbers


class Regions(NamedTuple):
    """The result of a function for a batch of B images."""

    features: Any  # (B, L, D) or (B, rows, cols, D)
    mask: Any = None  # (B, L), True where there is a region; of every batch or of none
    boxes: Any = None  # (B, L, 4): left, top, right, bottom, as fractions of the image


def checked_regions(features: Any, mask: Any, boxes: Any, ids: Sequence[str], count: int | None, name: str) -> Regions:
    """Return regions as arrays of the shapes and types of `Regions`.

    The boxes of padding become the whole image, whatever was given there.

    Args:
        features, mask, boxes: as given; None where there are none.
        ids: the B images of the batch, for messages.
        count: L, number of regions; None takes that of the features.
        name: of the features, for messages.

    Raises:
        ValueError: a mask or boxes of another shape, an image without any region in its mask, or boxes that are not
            fractions of the image.
    """
    if features is not None:
        features = numbers(np.asarray(features))
        features = features.reshape(len(ids), int(np.prod(features.shape[1:-1])), features.shape[-1])  # (B, L, D)
        count = features.shape[1]
    for what, given, expected in (("mask", mask, (len(ids), count)), ("boxes", boxes, (len(ids), count, 4))):
        if given is not None and np.shape(given) != expected:
            raise ValueError(f"{name}: {what} of shape {expected} expected, got {np.shape(given)}")
    if mask is not None:
        mask = np.asarray(mask).astype(bool)
        if not mask.any(axis=1).all():
            raise ValueError(f"{name}: {quoted(ids[int(np.argmin(mask.any(axis=1)))])} has no region in its mask")
    if boxes is not None:
        boxes = numbers(np.asarray(boxes)).astype(np.float32)
        if mask is not None:
            boxes = np.where(mask[:, :, None], boxes, np.array(WHOLE_IMAGE, np.float32))
        sound = ((boxes >= -1e-4) & (boxes <= 1.0001)).all(axis=2) & (boxes[..., 2:] >= boxes[..., :2]).all(axis=2)
        if not sound.all():
            row, region = np.argwhere(~sound)[0]
            wrong = np.round(boxes[row, region].astype(float), 3).tolist()
            raise ValueError(
                f"{name}: boxes are left, top, right, bottom as fractions of the image, 0 to 1; got {wrong} for "
                f"{quoted(ids[row])}: divide pixels by the width and height of the image, and give a mask where a row "
                "is padding"
            )
    return Regions(features, mask, boxes)
