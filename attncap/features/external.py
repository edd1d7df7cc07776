"""`ExternalFeatures`: features that were computed elsewhere, read by image_id from arrays, a file or a function.

For example CLIP or DINO patches, or regions of a detector (bottom-up attention): L vectors of D numbers per image.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from attncap._files import check_list
from attncap._messages import quoted
from attncap.features.external_files import (
    LAYOUT,
    as_array,
    boxes_by_image,
    numbers,
    read_dtype,
    read_features,
    row_by_image,
    rows_of,
)
from attncap.features.regions import Regions, checked_regions


class ExternalFeatures:
    """Features computed elsewhere, by image_id, with the reading interface of `FeatureStore`.

    Args:
        features: array (N, L, D) or (N, rows, cols, D), or anything that is sliced like one, such as a dataset of h5py.
            Or a mapping image_id -> array (L, D), where L may differ, or (rows, cols, D). Or a function of a list of
            image_ids that returns an array or `Regions`, always of the same shape, and with a mask always or never.
        image_ids: N names, for arrays. Numbers are taken as text.
        mask: for arrays: (N, L), True where a row holds a region, False where it is padding; None: all hold one.
        boxes: for arrays: (N, L, 4), where each region lies: left, top, right, bottom, as fractions of the image, 0 to
            1; those of padding are not read. For a mapping: a mapping image_id -> (L, 4).
        name: of the features, for messages.

    Attributes:
        feature_shape: (rows, cols, D) of a grid, (1, L, D) of regions. For a function it is known after the first call.
        grid: (rows, cols) where the regions are a grid over the whole image, row by row; else None.
        masked: whether images have different numbers of regions; rows of zeros fill them up.
        image_ids: the names; None for a function.
        file: the file that they are read from, if any.

    Raises:
        ValueError: other shapes, a repeated name, an argument that does not go with such features, an image without
            boxes where others have some.

    Example:
        >>> features = ExternalFeatures.read("clip_patches.npz")
        >>> features.get(["1000268201_693b08cb0e.jpg"]).shape
        (1, 14, 14, 768)
    """

    keyed_by = "image_id"  # the column of a table of images that `get` takes

    def __init__(
        self,
        features: Any,
        image_ids: Sequence[Any] | None = None,
        *,
        mask: Any = None,
        boxes: Any = None,
        name: str = "features",
    ):
        self.name = name
        self.feature_shape: tuple[int, int, int] = (0, 0, 0)
        self.grid: tuple[int, int] | None = None
        self.masked = mask is not None
        self.image_ids: list[str] | None = None
        self.file: Path | None = None
        self._function: Callable[[list[str]], Any] | None = None
        self._row_of: dict[str, int] = {}
        self._lock = threading.Lock()  # files of h5py and safetensors are read by one thread at a time
        self._features, self._mask, self._boxes = features, as_array(mask), as_array(boxes)
        if isinstance(features, Mapping):
            self._refuse("a mapping image_id -> array", image_ids=image_ids, mask=mask)
            self._init_mapping(features)
        elif callable(features) and not hasattr(features, "shape"):
            self._refuse("a function, which returns Regions", image_ids=image_ids, mask=mask, boxes=boxes)
            self._function, self._dtype = features, np.dtype(np.float32)
        else:
            self._features = as_array(features)
            self._init_arrays(image_ids)

    @classmethod
    def read(cls, file: str | os.PathLike[str], image_ids: Sequence[Any] | None = None) -> ExternalFeatures:
        """Open a file of features: NumPy (.npy, .npz), HDF5 (.h5, .hdf5) or safetensors.

        A file holds arrays `features` and `image_ids`, with `mask` and `boxes` where there are any, or one array per
        image, named by its image_id. A .npy file holds `features` alone. Where a file has no `image_ids` (.npy, and
        safetensors, which holds no text), they are read from a text file next to it, NAME.ids.txt, with one id per
        line.

        Args:
            file: its ending gives the format.
            image_ids: names in place of those of the file.

        Raises:
            FileNotFoundError: no such file.
            ValueError: another format, damaged, or without names.
        """
        path = Path(file)
        parts, ids = read_features(path, image_ids)
        if "features" not in parts:
            made = cls(parts, ids, name=str(path))
        else:
            made = cls(parts["features"], ids, mask=parts.get("mask"), boxes=parts.get("boxes"), name=str(path))
        made.file = path
        return made

    # -- what is given -------------------------------------------------------------------------------------------

    def _refuse(self, kind: str, **given: Any) -> None:
        for what, value in given.items():
            if value is not None:
                raise ValueError(
                    f"{self.name}: {what} is for arrays (N, L, D), and the features are {kind}: leave it out"
                )

    def _init_arrays(self, image_ids: Sequence[Any] | None) -> None:
        shape = tuple(self._features.shape)
        if len(shape) not in (3, 4) or 0 in shape:
            raise ValueError(f"{self.name}: shape (N, L, D) or (N, rows, cols, D) expected, got {shape}; {LAYOUT}")
        self._row_of = row_by_image(image_ids, shape[0], self.name)
        self.image_ids = list(self._row_of)
        self._set_shape(shape[1:])
        count = self.feature_shape[0] * self.feature_shape[1]
        for what, array, last in (("mask", self._mask, ()), ("boxes", self._boxes, (4,))):
            expected = (shape[0], count, *last)
            given = "a mapping" if isinstance(array, Mapping) else np.shape(array)
            if array is not None and given != expected:
                raise ValueError(f"{self.name}: {what} of shape {expected} expected, got {given}")
        self._dtype = read_dtype(self._features.dtype)

    def _init_mapping(self, features: Mapping[str, Any]) -> None:
        if not features:
            raise ValueError(f"{self.name}: no features; {LAYOUT}")
        self._features = {str(image_id): as_array(array) for image_id, array in features.items()}
        shapes = {image_id: tuple(array.shape) for image_id, array in self._features.items()}
        first = next(iter(shapes.values()))
        grid, size = len(first) == 3, first[-1] if first else 0
        for image_id, shape in shapes.items():
            if (shape != first if grid else len(shape) != 2 or shape[1] != size) or 0 in shape:
                expected = first if grid else f"(L, {size})"
                raise ValueError(f"{self.name}: {quoted(image_id)} has shape {shape}, {expected} expected; {LAYOUT}")
        self.image_ids = list(shapes)
        self._set_shape(first if grid else (max(shape[0] for shape in shapes.values()), size))
        shapes = {image_id: (math.prod(shape[:-1]), size) for image_id, shape in shapes.items()}  # (L, D)
        self.masked = len({shape[0] for shape in shapes.values()}) > 1
        if self._boxes is not None:
            self._boxes = boxes_by_image(self._boxes, shapes, self.name)
        self._dtype = np.result_type(np.float16, *{read_dtype(array.dtype) for array in self._features.values()})

    def _set_shape(self, shape: Sequence[int]) -> None:
        self.grid = (int(shape[0]), int(shape[1])) if len(shape) == 3 else None
        self.feature_shape = (*(self.grid or (1, int(shape[0]))), int(shape[-1]))

    # -- reading -------------------------------------------------------------------------------------------------

    def extract(self, image_ids: Sequence[str], **unused: Any) -> pd.DataFrame:
        """Return DataFrame (image_id, reason): the images without features. Nothing is computed here.

        Raises:
            ValueError: as `boxes`, so that a training does not stop at them after its first epoch; or one of the first
                images has a region whose features are all zeros, and no mask says whether it is padding.
        """
        check_list(image_ids, "image_ids", "image_ids")
        if self._function is not None and len(image_ids):
            self._regions(list(image_ids[:1]))  # tells the shape
        lacking = [image_id for image_id in image_ids if image_id not in self]
        known = [str(image_id) for image_id in image_ids if image_id in self]
        for start in range(0, len(known) if self._boxes is not None else 0, 256):
            self.boxes(known[start : start + 256])
        if known and self.grid is None and not self.masked and self._function is None:
            there = self._regions(known[:256]).features.any(axis=2)  # (B, L)
            if not there.all():
                row, region = np.argwhere(~there)[0]
                raise ValueError(
                    f"{self.name}: region {region} of {quoted(known[row])} is all zeros, and there is no mask: give a "
                    "mask (N, L), False where a row is padding, else padding counts as a part of the image"
                )
        return pd.DataFrame({"image_id": lacking, "reason": [f"no features of it in {self.name}"] * len(lacking)})

    def get(self, image_ids: Sequence[str]) -> np.ndarray:
        """Return the features of images: float16 or float32, shape (B, rows, cols, D); rows of padding are zeros.

        Raises:
            KeyError: an image without features.
            ValueError: features that are not finite, or that are zero in every region.
        """
        ids = self._checked(image_ids)
        given = self._regions(ids)
        features = given.features.astype(self._dtype, copy=False)  # (B, L, D)
        if given.mask is not None:
            features = np.where(given.mask[:, :, None], features, np.zeros((), self._dtype))
        if not np.isfinite(features).all():
            at = int(np.argmin(np.isfinite(features).all(axis=(1, 2))))
            raise ValueError(f"{self.name}: the features of {quoted(ids[at])} are not all finite")
        if self.masked and not features.any(axis=(1, 2)).all():
            at = int(np.argmin(features.any(axis=(1, 2))))
            raise ValueError(f"{self.name}: {quoted(ids[at])} has no region: its features are all zeros")
        return features.reshape(len(ids), *self.feature_shape)  # (B, rows, cols, D)

    def mask(self, image_ids: Sequence[str]) -> np.ndarray | None:
        """Return which regions there are: bool, shape (B, L), False for padding; None where all are."""
        return self._regions(self._checked(image_ids), ("mask",)).mask

    def boxes(self, image_ids: Sequence[str]) -> np.ndarray | None:
        """Return where regions lie: float32, shape (B, L, 4), left, top, right, bottom, 0 to 1; None where not known.

        Raises:
            ValueError: a box outside the image, or whose right or bottom comes before its left or top.
        """
        return self._regions(self._checked(image_ids), ("mask", "boxes")).boxes

    def check_places(self, image_ids: Sequence[str]) -> None:
        """Raise ValueError if maps of these images can neither be drawn nor measured: no grid, and no boxes."""
        if self.grid is None and len(image_ids) and self.boxes(image_ids[:1]) is None:
            raise ValueError(
                f"{self.name}: holds regions without boxes, so that a map of them has no place in the image: add boxes "
                "(N, L, 4), see docs/extending.md"
            )

    def pad_to(self, count: int) -> None:
        """Fill images of a mapping up to `count` regions, the number that a masked captioner reads, with padding.

        Arrays, functions and grids stay as they are, and so does a mapping with an image of more regions.
        """
        if self._function is None and not self._row_of and self.grid is None:
            counts = {array.shape[0] for array in self._features.values()}
            if max(counts) <= count:
                self.feature_shape = (1, count, self.feature_shape[2])
                self.masked = counts != {count}

    def __contains__(self, image_id: str) -> bool:
        return self.image_ids is None or str(image_id) in (self._row_of or self._features)

    def __len__(self) -> int:
        return len(self.image_ids or ())

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the file, of all arrays, or of the name of a function; it differs for other features."""
        digest = hashlib.blake2b(digest_size=12)
        if self.file is not None:
            with open(self.file, "rb") as file:
                return hashlib.file_digest(file, lambda: digest).hexdigest()
        name = "" if self._function is None else getattr(self._function, "__qualname__", self.name)
        digest.update(repr((name, self.image_ids)).encode("utf-8", "surrogatepass"))
        for start in range(0, len(self), 256):
            part = self._regions((self.image_ids or [])[start : start + 256], ("features", "mask", "boxes"))
            for array in part:
                digest.update(b"" if array is None else np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def _checked(self, image_ids: Sequence[str]) -> list[str]:
        if isinstance(image_ids, str):
            raise TypeError(f"a list of image_ids expected, got one: write [{quoted(image_ids)}]")
        ids = [str(image_id) for image_id in image_ids]
        for image_id in ids:
            if image_id not in self:
                raise KeyError(f"{image_id}: no features of it in {self.name}")
        return ids

    def _regions(self, ids: list[str], parts: Sequence[str] = ("features", "mask")) -> Regions:
        with self._lock:
            if self._function is not None:
                return self._from_function(ids)
            if self._row_of:
                rows = [self._row_of[image_id] for image_id in ids]
                arrays = {"features": self._features, "mask": self._mask, "boxes": self._boxes}
                given = {part: None if arrays[part] is None else rows_of(arrays[part], rows) for part in parts}
            else:
                given = {part: self._padded(ids, part) for part in parts}
        count = self.feature_shape[0] * self.feature_shape[1]
        return checked_regions(given.get("features"), given.get("mask"), given.get("boxes"), ids, count, self.name)

    def _from_function(self, ids: list[str]) -> Regions:
        assert self._function is not None
        given = self._function(ids)
        given = given if isinstance(given, Regions) else Regions(given)
        shape = tuple(np.shape(given.features))
        if len(shape) not in (3, 4) or shape[0] != len(ids):
            raise ValueError(
                f"{self.name}: features of {len(ids)} images, ({len(ids)}, L, D) or ({len(ids)}, rows, cols, D), "
                f"expected of the function, got {shape}"
            )
        before = self.feature_shape
        self._set_shape(shape[1:])
        if before not in ((0, 0, 0), self.feature_shape):
            raise ValueError(
                f"{self.name}: the function gave features of {self.feature_shape} after {before}: give all images the "
                "same number of regions, with a mask where some are padding"
            )
        regions = checked_regions(np.asarray(given.features), given.mask, given.boxes, ids, None, self.name)
        if before == (0, 0, 0):
            self.masked = regions.mask is not None
        elif regions.mask is not None and not self.masked and not regions.mask.all():
            padded = ids[int(regions.mask.all(axis=1).argmin())]
            raise ValueError(
                f"{self.name}: the function gave a mask with padding for {quoted(padded)} and none for its first "
                "images: give one for every batch, True where there is no padding"
            )
        return regions

    def _padded(self, ids: list[str], part: str) -> np.ndarray | None:
        longest, size = math.prod(self.feature_shape[:2]), self.feature_shape[2]
        if part == "mask":
            counts = np.array([self._features[image_id].shape[0] for image_id in ids])
            return np.arange(longest) < counts[:, None] if self.masked else None
        if part == "boxes" and self._boxes is None:
            return None
        source = self._features if part == "features" else self._boxes
        width, dtype = (size, self._dtype) if part == "features" else (4, np.dtype(np.float32))
        padded = np.zeros((len(ids), longest, width), dtype)
        for row, image_id in zip(padded, ids, strict=True):
            own = numbers(np.asarray(source[image_id][:])).reshape(-1, width)
            row[: len(own)] = own
        return padded
