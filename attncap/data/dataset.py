"""`CaptionData`: a data set with captions as tables, whatever it was read from; and its splits."""

from __future__ import annotations

import hashlib
import numbers
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from attncap._files import write_csv
from attncap._messages import quoted
from attncap.data.readers.base import SPLIT_NAMES, no_rejects

SPLITS = ("train", "val", "test")
VAL_FRACTION = 0.1
TEST_FRACTION = 0.1


def _check_ids(table: str, ids: pd.Series) -> None:
    """Refuse ids that are not text: 7 and "7" would be two images."""
    odd = next((image_id for image_id in ids.tolist() if not isinstance(image_id, str)), None)
    if odd is not None or ids.isna().any():
        raise ValueError(
            f"{table}.image_id: text expected, {quoted(odd)} ({type(odd).__name__}) found: "
            f'write {table}["image_id"].astype(str)'
        )


def _check_unique(pictures: pd.DataFrame) -> None:
    repeated = pictures.loc[pictures["image_id"].duplicated(), "image_id"]
    if len(repeated):
        splits = pictures.loc[pictures["image_id"] == repeated.iloc[0], "split"].tolist()
        raise ValueError(
            f"pictures.image_id: {quoted(repeated.iloc[0])} has {len(splits)} rows, in the splits "
            f"{', '.join(map(str, splits))}: one row per image expected"
        )


@dataclass(frozen=True, eq=False, repr=False)
class CaptionData:
    """Images and their captions, in tables keyed by `image_id` (text).

    Args:
        name: of the data set, for titles and manifests.
        pictures: `image_id`, `path`, `split` ("train", "val" or "test"); one row per image.
        captions: `image_id`, `caption` as written; one row per caption.
        attributes: `image_id` and one column per characteristic; optional.
        boxes: `image_id`, `label`, `left`, `top`, `right`, `bottom` in fractions of width and height; optional.
        rejects: what was left out: `source` file, `line` (from 1; NA where there are no lines), `image_id`, `reason`,
            `kind` of the reason, and the `table` ("pictures" or "captions") that the row would have been in.
        integer_ids: the ids of the source are whole numbers (COCO); its results JSON needs them as numbers.

    Raises:
        ValueError: a table lacks a column, an unknown split, an id that is not text, an image with two rows in
            `pictures`, or a caption of an image that is not in `pictures`.

    Example:
        >>> data = load("flickr8k:flickr8k")
        >>> data.split("dev").references()["1.jpg"]
        ['A dog runs .', 'A brown dog .']
    """

    name: str
    pictures: pd.DataFrame
    captions: pd.DataFrame
    attributes: pd.DataFrame | None = None
    boxes: pd.DataFrame | None = None
    rejects: pd.DataFrame = field(default_factory=no_rejects)
    integer_ids: bool = False

    def __post_init__(self) -> None:
        needed = {
            "pictures": ("image_id", "path", "split"),
            "captions": ("image_id", "caption"),
            "attributes": ("image_id",),
            "boxes": ("image_id", "label", "left", "top", "right", "bottom"),
        }
        for table, columns in needed.items():
            frame = getattr(self, table)
            lacking = [name for name in columns if frame is not None and name not in frame.columns]
            if lacking:
                raise ValueError(f"{table} needs the columns {', '.join(columns)}; it lacks {', '.join(lacking)}")
        for table in needed:
            if getattr(self, table) is not None:
                _check_ids(table, getattr(self, table)["image_id"])
        _check_unique(self.pictures)
        of_unknown = self.captions.loc[~self.captions["image_id"].isin(self.pictures["image_id"]), "image_id"].tolist()
        if of_unknown:
            raise ValueError(
                f"captions.image_id: {len(of_unknown):,} captions of unknown images, the first of "
                f"{quoted(of_unknown[0])}: add the image to pictures, or drop these rows"
            )
        unknown = set(self.pictures["split"]) - set(SPLITS)
        if unknown:
            raise ValueError(f"pictures.split: {', '.join(SPLITS)} expected, found {sorted(map(str, unknown))}")

    def __repr__(self) -> str:
        return f"CaptionData({self.summary()})"

    def summary(self) -> str:
        """Return one line: images by split, captions, rejects."""
        return (
            f"{self.name}: {count_images(self.pictures)}, {len(self.captions):,} captions, "
            f"{len(self.rejects):,} rejects"
        )

    def split(self, name: str) -> CaptionData:
        """Return the rows of one split; "dev" is another name of "val". All `rejects` are kept."""
        return self.only(self.pictures.loc[in_split(self.pictures, name), "image_id"])

    def only(self, image_ids: Iterable[str]) -> CaptionData:
        """Return the rows of these images, in the tables' order."""
        wanted = set(image_ids)

        def rows(frame: pd.DataFrame) -> pd.DataFrame:
            return frame[frame["image_id"].isin(wanted)].reset_index(drop=True)

        return replace(
            self,
            pictures=rows(self.pictures),
            captions=rows(self.captions),
            attributes=None if self.attributes is None else rows(self.attributes),
            boxes=None if self.boxes is None else rows(self.boxes),
        )

    def references(self, split: str | None = None) -> dict[str, list[str]]:
        """Return image_id -> captions, in the tables' order; images without captions are left out."""
        data = self if split is None else self.split(split)
        references: dict[str, list[str]] = {}
        for image_id, caption in zip(data.captions["image_id"], data.captions["caption"], strict=True):
            references.setdefault(image_id, []).append(caption)
        return references

    def write_rejects(self, path: str | os.PathLike[str]) -> Path:
        """Write `rejects` as CSV, whole or not at all."""
        write_csv(path, self.rejects)
        return Path(path)


def count_images(pictures: pd.DataFrame) -> str:
    """Return how many images a table has, and how many of each split, in words."""
    counts = pictures["split"].value_counts()
    splits = ", ".join(f"{split} {counts.get(split, 0):,}" for split in SPLITS)
    return f"{len(pictures):,} images ({splits})"


def in_split(pictures: pd.DataFrame, name: str) -> pd.Series:
    """Return which images are in a split, bool; "dev" is another name of "val".

    Raises:
        ValueError: no such split.
    """
    split = SPLIT_NAMES.get(name.lower())
    if split is None:
        counts = pictures["split"].value_counts()
        known = ", ".join(f"{known} ({counts.get(known, 0):,} images)" for known in SPLITS)
        raise ValueError(f"no split {quoted(name)}: known are {known}; dev is another name of val")
    return pictures["split"] == split


def split_images(
    image_ids: Sequence[str],
    seed: int = 0,
    val: float = VAL_FRACTION,
    test: float = TEST_FRACTION,
    given: Sequence[str | None] | None = None,
) -> list[str]:
    """Assign every image to train, val or test; images that are added later do not change the split of others.

    u(image_id) = blake2b(seed, image_id) / 2^64, uniform in [0, 1): test where u < test, val where u < test + val, else
    train. The shares hold on average; in a small data set a split may be empty.

    Args:
        image_ids: ids of the images.
        seed: of the draw.
        val, test: shares in [0, 1], together at most 1.
        given: splits that are kept, one per image; None where there is none.

    Returns:
        "train", "val" or "test", one per id.

    Raises:
        ValueError: shares out of range.

    Example:
        >>> split_images(["a.jpg", "b.jpg"], seed=0, val=0.0, test=0.0)
        ['train', 'train']
    """
    if min(val, test) < 0.0 or val + test > 1.0:
        raise ValueError(f"val and test are shares, together at most 1; got val={val}, test={test}")
    if not isinstance(seed, numbers.Integral):
        raise TypeError(f"seed: a whole number expected, got {seed!r}")
    fixed: Sequence[str | None] = [None] * len(image_ids) if given is None else given

    def drawn(image_id: str) -> str:
        digest = hashlib.blake2b(f"{seed}\0{image_id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
        uniform = int.from_bytes(digest, "big") / 2**64
        return "test" if uniform < test else "val" if uniform < test + val else "train"

    return [
        split if isinstance(split, str) else drawn(image_id) for image_id, split in zip(image_ids, fixed, strict=True)
    ]
