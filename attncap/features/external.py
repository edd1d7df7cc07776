"""`ExternalFeatures`: features that were computed elsewhere, read by image_id from arrays, a file or a function.

CLIP or DINO patches, region features of a detector (bottom-up attention), features of a PyTorch network: whatever gives
L vectors of D numbers per image. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ENDINGS = (".npy", ".npz", ".h5", ".hdf5", ".safetensors")
PARTS = ("features", "image_ids", "mask", "boxes")
LAYOUT = (
    "arrays 'features' (N, L, D) or (N, rows, cols, D) and 'image_ids' (N,), with 'mask' (N, L) and 'boxes' (N, L, 4) "
    "where there are any; or one array (L, D) per image, named by its image_id"
)


class Regions(NamedTuple):
    """What a function gives for a batch of B images."""

    features: Any  # (B, L, D) or (B, rows, cols, D)
    mask: Any = None  # (B, L), True where there is a region
    boxes: Any = None  # (B, L, 4): left, top, right, bottom, as fractions of the image


class ExternalFeatures:
    """Features computed elsewhere, by image_id, with the reading interface of `FeatureStore`.

    Args:
        features: array (N, L, D) or (N, rows, cols, D); anything that is sliced like one will do, such as a dataset of
            h5py. Or a mapping image_id -> array (L, D), L from image to image. Or a function of a list of image_ids
            that returns an array or `Regions`.
        image_ids: N names, for arrays. Numbers are taken as text.
        mask: (N, L), True where a row holds a region, False where it is padding; None: all hold one.
        boxes: (N, L, 4), where each region lies: left, top, right, bottom, as fractions of the image, 0 to 1. Or a
            mapping image_id -> (L, 4).

    Attributes:
        feature_shape: (rows, cols, D) of a grid, (1, L, D) of regions.
        grid: (rows, cols) where the regions are a grid over the whole image, row by row; else None.
        image_ids: the names, None of a function.

    Raises:
        ValueError: other shapes, a name twice, boxes outside the image.

    Example:
        >>> features = ExternalFeatures.read("clip_patches.npz")
        >>> features.get(["1000268201_693b08cb0e.jpg"]).shape
        (1, 196, 768)
    """

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
        self._function: Callable[[list[str]], Any] | None = None
        self._lock = threading.Lock()  # files of h5py and safetensors are read by one thread at a time
        self._digest: str | None = None
        if isinstance(features, Mapping):
            self._of_mapping(features, boxes)
        elif callable(features) and not hasattr(features, "shape"):
            self._of_function(features)
        else:
            self._of_arrays(features, image_ids, mask, boxes)

    @classmethod
    def read(cls, file: str | os.PathLike[str], image_ids: Sequence[Any] | None = None) -> ExternalFeatures:
        """Open a file of features: NumPy (.npy, .npz), HDF5 (.h5, .hdf5) or safetensors.

        A file holds arrays `features` and `image_ids`, with `mask` and `boxes` where there are any, or one array per
        image, named by its image_id. A .npy file holds `features` alone. Where a file has no `image_ids` (.npy, and
        safetensors, which holds no text), they stand one per line in a text file beside it, NAME.ids.txt.

        Args:
            file: its ending says the format.
            image_ids: names in place of those of the file.

        Raises:
            FileNotFoundError: no such file.
            ValueError: another format, damaged, or without names.
        """
        path = Path(file)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file of features")
        try:
            parts = _open(path)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        except Exception as error:  # whatever the readers raise on damaged files
            raise ValueError(f"{path}: cannot be read as features: damaged? ({error})") from error
        names = path.with_suffix(".ids.txt")
        if "features" not in parts:
            made = cls(parts, name=str(path))
        else:
            if image_ids is None and "image_ids" in parts:
                image_ids = [_text(value) for value in np.asarray(parts["image_ids"][:]).tolist()]
            elif image_ids is None and names.is_file():
                image_ids = names.read_text(encoding="utf-8").splitlines()
            if image_ids is None:
                raise ValueError(f"{path}: no image_ids in it: write them to {names}, one per line")
            made = cls(parts["features"], image_ids, mask=parts.get("mask"), boxes=parts.get("boxes"), name=str(path))
        made._file = path
        return made

    _file: Path | None = None

    # -- what is given -------------------------------------------------------------------------------------------

    def _of_arrays(self, features: Any, image_ids: Sequence[Any] | None, mask: Any, boxes: Any) -> None:
        shape = tuple(features.shape)
        if len(shape) not in (3, 4) or 0 in shape:
            raise ValueError(f"{self.name}: shape (N, L, D) or (N, rows, cols, D) expected, got {shape}; {LAYOUT}")
        if image_ids is None or isinstance(image_ids, str):
            raise ValueError(f"{self.name}: image_ids expected, a list of {shape[0]} names, one per row")
        ids = [str(image_id) for image_id in image_ids]
        if len(ids) != shape[0]:
            raise ValueError(f"{self.name}: {shape[0]:,} rows of features and {len(ids):,} image_ids")
        self._at = {image_id: at for at, image_id in enumerate(ids)}
        if len(self._at) < len(ids):
            twice = next(image_id for at, image_id in enumerate(ids) if self._at[image_id] != at)
            raise ValueError(f"{self.name}: image_id {twice!r} is there twice")
        self.image_ids: list[str] | None = ids
        self._set_shape(shape[1:])
        count = self.feature_shape[0] * self.feature_shape[1]
        for what, array, expected in (("mask", mask, (shape[0], count)), ("boxes", boxes, (shape[0], count, 4))):
            if array is not None and tuple(array.shape) != expected:
                raise ValueError(f"{self.name}: {what} of shape {expected} expected, got {tuple(array.shape)}")
        self._features, self._mask, self._boxes = features, mask, boxes

    def _of_mapping(self, features: Mapping[str, Any], boxes: Mapping[str, Any] | None) -> None:
        if not features:
            raise ValueError(f"{self.name}: no features; {LAYOUT}")
        shapes = {str(image_id): tuple(array.shape) for image_id, array in features.items()}
        size = next(iter(shapes.values()))[-1]
        for image_id, shape in shapes.items():
            if len(shape) != 2 or shape[1] != size or not shape[0]:
                raise ValueError(f"{self.name}: {image_id!r} has shape {shape}, (L, {size}) expected; {LAYOUT}")
        self.image_ids = list(shapes)
        self._set_shape((max(shape[0] for shape in shapes.values()), size))
        self._features, self._mask, self._boxes = features, None, boxes
        self._at = {}
        self._ragged = len({shape[0] for shape in shapes.values()}) > 1

    def _of_function(self, function: Callable[[list[str]], Any]) -> None:
        self._function, self.image_ids, self._at = function, None, {}
        self._features = self._mask = self._boxes = None

    _ragged = False
    feature_shape: tuple[int, int, int]
    grid: tuple[int, int] | None

    def _set_shape(self, shape: Sequence[int]) -> None:
        self.grid = (int(shape[0]), int(shape[1])) if len(shape) == 3 else None
        self.feature_shape = (*(self.grid or (1, int(shape[0]))), int(shape[-1]))

    # -- reading -------------------------------------------------------------------------------------------------

    def get(self, image_ids: Sequence[str]) -> np.ndarray:
        """Return the features of images: float16 or float32, shape (B, L, D); rows of padding are zeros.

        Raises:
            KeyError: an image without features.
            ValueError: features that are not finite.
        """
        ids = self._checked(image_ids)
        features = self._regions(ids).features
        if not np.isfinite(features).all():
            at = int(np.argmin(np.isfinite(features).all(axis=(1, 2))))
            raise ValueError(f"{self.name}: the features of {ids[at]!r} are not all finite")
        return features

    def mask(self, image_ids: Sequence[str]) -> np.ndarray | None:
        """Return which regions there are: bool, shape (B, L), False for padding; None where all are."""
        return self._regions(self._checked(image_ids), ("mask",)).mask

    def boxes(self, image_ids: Sequence[str]) -> np.ndarray | None:
        """Return where regions lie: float32, shape (B, L, 4), left, top, right, bottom, 0 to 1; None where not known.

        Raises:
            ValueError: a box outside the image, or without an area.
        """
        return self._regions(self._checked(image_ids), ("boxes",)).boxes

    def __contains__(self, image_id: str) -> bool:
        return self.image_ids is None or str(image_id) in (self._at or self._features)

    def __len__(self) -> int:
        return len(self.image_ids or ())

    def fingerprint(self) -> str:
        """Return a digest of the file, or of the name of a function: another file has another one."""
        if self._digest is None:
            if self._file is not None:
                with open(self._file, "rb") as file:
                    self._digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=12)).hexdigest()
            else:
                described = json.dumps([self.name, self.image_ids, getattr(self._function, "__qualname__", None)])
                self._digest = hashlib.blake2b(described.encode(), digest_size=12).hexdigest()
        return self._digest

    def _checked(self, image_ids: Sequence[str]) -> list[str]:
        if isinstance(image_ids, str):
            raise TypeError(f"a list of image_ids expected, got one: write [{image_ids[:60]!r}]")
        ids = [str(image_id) for image_id in image_ids]
        for image_id in ids:
            if image_id not in self:
                raise KeyError(f"{image_id}: no features of it in {self.name}")
        return ids

    def _regions(self, ids: list[str], parts: Sequence[str] = ("features",)) -> Regions:
        with self._lock:
            if self._function is not None:
                return self._from_function(ids)
            if self._at:
                rows = [self._at[image_id] for image_id in ids]
                given = {
                    part: None if array is None else _rows(array, rows)
                    for part, array in (("features", self._features), ("mask", self._mask), ("boxes", self._boxes))
                    if part in parts
                }
            else:
                given = {part: self._padded(ids, part) for part in parts}
        return _regions(given.get("features"), given.get("mask"), given.get("boxes"), len(ids), self.name)

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
        self._set_shape(shape[1:])
        return _regions(np.asarray(given.features), given.mask, given.boxes, len(ids), self.name)

    def _padded(self, ids: list[str], part: str) -> np.ndarray | None:
        longest, size = self.feature_shape[1:]
        counts = [self._features[image_id].shape[0] for image_id in ids]
        if part == "mask":
            return np.arange(longest) < np.array(counts)[:, None] if self._ragged else None
        if part == "boxes" and self._boxes is None:
            return None
        source = self._features if part == "features" else self._boxes
        arrays = [_numbers(np.asarray(source[image_id][:])) for image_id in ids]
        width = size if part == "features" else 4
        padded = np.zeros((len(ids), longest, width), np.result_type(np.float16, *arrays))
        if part == "boxes":
            padded[..., 2:] = 1.0  # of padding: the whole image, which is a box as well
        for row, array, count, image_id in zip(padded, arrays, counts, ids, strict=True):
            if array.shape != (count, width):
                raise ValueError(f"{self.name}: {part} of {image_id!r}: ({count}, {width}) expected, got {array.shape}")
            row[:count] = array
        return padded


def _regions(features: Any, mask: Any, boxes: Any, number: int, name: str) -> Regions:
    if features is not None:
        features = _numbers(np.asarray(features))
        features = features.reshape(number, int(np.prod(features.shape[1:-1])), features.shape[-1])  # (B, L, D)
    if mask is not None:
        mask = np.asarray(mask).astype(bool)
        if not mask.any(axis=1).all():
            raise ValueError(f"{name}: an image without any region in its mask")
    if boxes is not None:
        boxes = _numbers(np.asarray(boxes)).astype(np.float32)
        sound = (boxes >= -1e-4) & (boxes <= 1.0001)
        if not sound.all() or not (boxes[..., 2:] >= boxes[..., :2]).all():
            raise ValueError(
                f"{name}: boxes are left, top, right, bottom as fractions of the image, 0 to 1; got values from "
                f"{boxes.min():g} to {boxes.max():g}: divide pixels by the width and height of the image"
            )
    return Regions(features, mask, boxes)


def _numbers(array: np.ndarray) -> np.ndarray:
    """Return float16 or float32 of an array of numbers; bfloat16, which NumPy saves as two raw bytes, as float32."""
    if array.dtype.name == "bfloat16" or (array.dtype.kind == "V" and array.dtype.itemsize == 2):
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"numbers expected, got an array of {array.dtype}")
    return array if array.dtype in (np.float16, np.float32) else array.astype(np.float32)


def _rows(array: Any, rows: list[int]) -> np.ndarray:
    """Return rows of an array or a dataset in any order; h5py wants them sorted, each once."""
    if isinstance(array, np.ndarray):
        return array[rows]
    distinct = sorted(set(rows))
    read = array.rows(distinct) if isinstance(array, _Sliced) else np.asarray(array[distinct])
    place = {row: at for at, row in enumerate(distinct)}
    return read[[place[row] for row in rows]]


class _Sliced:
    """A tensor of a file that is read row by row: of safetensors, or of a .npy file without a memory map."""

    def __init__(self, shape: Sequence[int], row: Callable[[int], np.ndarray]):
        self.shape, self._row = tuple(shape), row

    def rows(self, rows: Sequence[int]) -> np.ndarray:
        return np.stack([self._row(at) for at in rows]) if rows else np.empty((0, *self.shape[1:]), np.float16)

    def __getitem__(self, key: Any) -> np.ndarray:
        return self.rows(range(*key.indices(self.shape[0])) if isinstance(key, slice) else key)


def _open(path: Path) -> dict[str, Any]:
    ending = path.suffix.lower()
    if ending == ".npy":
        return {"features": _npy(path)}
    if ending == ".npz":
        with np.load(path, allow_pickle=False) as file:  # in memory whole: zip files have no rows
            return {name: file[name] for name in file.files}
    if ending in (".h5", ".hdf5"):
        import h5py

        file = h5py.File(path, "r")
        if any(isinstance(item, h5py.Group) for item in file.values()):
            raise ValueError(f"groups in it; {LAYOUT}")
        return dict(file.items())
    if ending == ".safetensors":
        return _safetensors(path)
    raise ValueError(f"features of another format: {', '.join(ENDINGS)} expected")


def _npy(path: Path) -> _Sliced:
    file = open(path, "rb")  # noqa: SIM115 - kept open for reading rows; closed with the object
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    start, each = file.tell(), dtype.itemsize * int(np.prod(shape[1:]))
    if dtype.hasobject or fortran or len(shape) < 2:
        raise ValueError("an array of numbers (N, L, D) or (N, rows, cols, D) in C order expected")
    if os.path.getsize(path) < start + each * shape[0]:
        raise ValueError("cut off: copy it again")

    def row(at: int) -> np.ndarray:
        data = os.pread(file.fileno(), each, start + at * each)
        if len(data) < each:
            raise ValueError(f"{path}: cut off: copy it again")
        return np.frombuffer(data, dtype).reshape(shape[1:])

    return _Sliced(shape, row)


def _safetensors(path: Path) -> dict[str, Any]:
    try:
        from safetensors import safe_open
    except ImportError:
        raise ValueError("reading it takes the package safetensors: pip install safetensors") from None
    file = safe_open(path, framework="numpy")

    def sliced(name: str) -> _Sliced:
        part = file.get_slice(name)
        return _Sliced(part.get_shape(), lambda at: np.asarray(part[at : at + 1])[0])

    parts: dict[str, Any] = {name: sliced(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    names = (file.metadata() or {}).get("image_ids")
    if names is not None:
        parts["image_ids"] = np.array(json.loads(names))
    return parts


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
