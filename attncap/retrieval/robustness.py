"""Robustness of an image index: the share of changed copies that a search finds, for each distance threshold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageEnhance, ImageOps
from tqdm.auto import tqdm

from attncap.images import open_image
from attncap.retrieval.index import ImageIndex

Change = Callable[[Image.Image], Image.Image]


def reencoded(image: Image.Image, quality: int) -> Image.Image:
    """Encode as JPEG with this quality."""
    contents = BytesIO()
    image.save(contents, "JPEG", quality=quality)
    return Image.open(contents).convert("RGB")


def resized(image: Image.Image, across: float, down: float) -> Image.Image:
    """Multiply the width by `across` and the height by `down`."""
    return image.resize((max(1, round(image.width * across)), max(1, round(image.height * down))))


def cropped(image: Image.Image, share: float) -> Image.Image:
    """Cut off `share` of the width and height on every side."""
    across, down = round(image.width * share), round(image.height * share)
    return image.crop((across, down, image.width - across, image.height - down))


def rotated(image: Image.Image, degrees: float) -> Image.Image:
    """Rotate about the center, corners in the mean color; multiples of 90 degrees without loss."""
    if degrees % 90 == 0:
        return image.rotate(degrees, expand=True)
    mean = tuple(int(value) for value in np.asarray(image).mean((0, 1)))
    return image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=mean)


def brightened(image: Image.Image, factor: float) -> Image.Image:
    """Multiply the brightness by `factor`; below 1 is darker."""
    return ImageEnhance.Brightness(image).enhance(factor)


def captioned(image: Image.Image) -> Image.Image:
    """Cover the lowest tenth with a white band, as under a line of text."""
    copy = image.copy()
    copy.paste("white", (0, round(0.9 * image.height), image.width, image.height))
    return copy


CHANGES: dict[str, Change] = {
    "the same file": lambda image: image,
    "JPEG, quality 75": partial(reencoded, quality=75),
    "JPEG, quality 20": partial(reencoded, quality=20),
    "half the size": partial(resized, across=0.5, down=0.5),
    "height x 0.8": partial(resized, across=1, down=0.8),
    "cropped 2% a side": partial(cropped, share=0.02),
    "cropped 5% a side": partial(cropped, share=0.05),
    "cropped 10% a side": partial(cropped, share=0.10),
    "rotated 2 degrees": partial(rotated, degrees=2),
    "rotated 10 degrees": partial(rotated, degrees=10),
    "rotated 90 degrees": partial(rotated, degrees=90),
    "brightness x 1.3": partial(brightened, factor=1.3),
    "brightness x 0.6": partial(brightened, factor=0.6),
    "contrast x 0.6": lambda image: ImageEnhance.Contrast(image).enhance(0.6),
    "grey": lambda image: ImageOps.grayscale(image).convert("RGB"),
    "white band over a tenth": captioned,
    "mirrored": ImageOps.mirror,
}


def changed_copies(
    index: ImageIndex,
    images: Sequence[str | Path],
    image_ids: Sequence[str],
    changes: Mapping[str, Change] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Search an index for changed copies of its images.

    Args:
        index: an index that contains all of `image_ids`.
        images: the image files.
        image_ids: the names of the images in the index.
        changes: name -> function that changes a Pillow image. None: `CHANGES`.
        progress: show a progress bar.

    Returns:
        DataFrame with `image_id`, `change`, `distance` and `found`, one row per copy. `distance` is the distance of the
        nearest neighbor. `found` tells whether this neighbor is the image that the copy was made from.

    Raises:
        UnreadableImage: a file cannot be decoded.
    """
    changes = CHANGES if changes is None else changes
    rows = []
    with tqdm(total=len(images) * len(changes), desc="changed copies", unit=" copies", disable=not progress) as bar:
        for start in range(0, len(images), 16):
            opened = [open_image(path) for path in images[start : start + 16]]
            for name, change in changes.items():
                codes = [np.asarray(code) for code in index.encoder.encode([change(image) for image in opened])]
                near, distances = index.nearest(np.stack(codes))
                found = [image_id for image_id, _ in index.entries(near[:, 0])]
                for image_id, at, distance in zip(image_ids[start : start + 16], found, distances[:, 0], strict=True):
                    rows.append((image_id, name, float(distance), at == image_id))
                bar.update(len(opened))
    return pd.DataFrame(rows, columns=["image_id", "change", "distance", "found"])


def robustness_table(
    copies: pd.DataFrame, strangers: np.ndarray | Sequence[float], thresholds: Sequence[float]
) -> pd.DataFrame:
    """Compute the share of changed copies that are found, and of other images that are wrongly matched.

    Args:
        copies: from `changed_copies`.
        strangers: for images that are not in the index, the distance of the nearest neighbor. If empty, the row "not
            in the index" is omitted.
        thresholds: distances up to which a neighbor counts as a match.

    Returns:
        DataFrame with one row per change, and a last row "not in the index". The columns are `change`,
        `median_distance`, and `within T` for each threshold T: the share of the copies that are found, and in the last
        row the share of false matches.
    """
    table = []
    for name, part in copies.groupby("change", sort=False):
        near = {f"within {t:g}": float((part["found"] & (part["distance"] <= t)).mean()) for t in thresholds}
        table.append({"change": name, "median_distance": float(part["distance"].median()), **near})
    away = np.asarray(strangers, float)
    if len(away):
        false = {f"within {t:g}": float((away <= t).mean()) for t in thresholds}
        table.append({"change": "not in the index", "median_distance": float(np.median(away)), **false})
    return pd.DataFrame(table)
