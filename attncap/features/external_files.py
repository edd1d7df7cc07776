"""Files of features: NumPy, HDF5 and safetensors, opened without being read into memory. Nothing is unpickled."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attncap._messages import quoted

ENDINGS = (".npy", ".npz", ".h5", ".hdf5", ".safetensors")
LAYOUT = (
    "arrays 'features' (N, L, D) or (N, rows, cols, D) and 'image_ids' (N,), with 'mask' (N, L) and 'boxes' (N, L, 4) "
    "where there are any; or one array (L, D) or (rows, cols, D) per image, named by its image_id"
)


def open_features(path: Path) -> dict[str, Any]:
    """Return the arrays of a file by name; those of HDF5, safetensors and .npy are read row by row when asked for.

    Raises:
        ValueError: another format, or a layout that is not `LAYOUT`.
    """
    ending = path.suffix.lower()
    if ending == ".npy":
        return {"features": _npy(path)}
    if ending == ".npz":
        with np.load(path, allow_pickle=False) as file:  # read into memory: zip files cannot be read by row
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


def _npy(path: Path) -> SlicedTensor:
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

    return SlicedTensor(shape, dtype, row)


def _safetensors(path: Path) -> dict[str, Any]:
    try:
        from safetensors import safe_open
    except ImportError:
        raise ValueError("reading it takes the package safetensors: pip install safetensors") from None
    file = safe_open(path, framework="numpy")

    def sliced(name: str) -> SlicedTensor:
        part = file.get_slice(name)
        first = np.asarray(part[:1])  # safetensors has names of its own for types
        return SlicedTensor(part.get_shape(), first.dtype, lambda at: np.asarray(part[at : at + 1])[0])

    parts: dict[str, Any] = {name: sliced(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    names = (file.metadata() or {}).get("image_ids")
    if names is not None:
        parts["image_ids"] = np.array(json.loads(names))
    return parts


class SlicedTensor:
    """A tensor of a file that is read row by row: of safetensors, or of a .npy file without a memory map."""

    def __init__(self, shape: Sequence[int], dtype: Any, row: Callable[[int], np.ndarray]):
        self.shape, self.dtype, self._row = tuple(shape), np.dtype(dtype), row

    def rows(self, rows: Sequence[int]) -> np.ndarray:
        """Return some rows, in the order that is asked for."""
        return np.stack([self._row(at) for at in rows]) if rows else np.empty((0, *self.shape[1:]), self.dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        return self.rows(range(*key.indices(self.shape[0])) if isinstance(key, slice) else key)


def _is_bfloat16(dtype: np.dtype) -> bool:
    return dtype.name == "bfloat16" or (dtype.kind == "V" and dtype.itemsize == 2)  # NumPy saves it as two raw bytes


def read_dtype(dtype: Any) -> np.dtype:
    """Return the type in which numbers of a type are read: float16 as it is, anything else as float32."""
    return np.dtype(np.float16 if np.dtype(dtype) == np.float16 else np.float32)


def numbers(array: np.ndarray) -> np.ndarray:
    """Return an array of numbers as float16 or float32."""
    if _is_bfloat16(array.dtype):
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"numbers expected, got an array of {array.dtype}")
    return array.astype(read_dtype(array.dtype), copy=False)


def rows_of(array: Any, rows: list[int]) -> np.ndarray:
    """Return rows of an array or a dataset in any order; h5py wants them sorted, each once."""
    if isinstance(array, np.ndarray):
        return array[rows]
    distinct = sorted(set(rows))
    read = array.rows(distinct) if isinstance(array, SlicedTensor) else np.asarray(array[distinct])
    place = {row: at for at, row in enumerate(distinct)}
    return read[[place[row] for row in rows]]


def read_features(path: Path, image_ids: Sequence[Any] | None) -> tuple[dict[str, Any], Sequence[Any] | None]:
    """Open a file of features, and find its image_ids: see `ExternalFeatures.read`.

    Returns:
        parts: see `open_features`.
        image_ids: those given, or of the file, or of the text file next to it; None for one array per image.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another format, damaged, or without names.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of features")
    try:
        parts = open_features(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:  # readers raise nearly anything on damaged files
        raise ValueError(f"{path}: cannot be read as features: damaged? ({error})") from error
    if "features" not in parts or image_ids is not None:
        return parts, image_ids
    names = path.with_suffix(".ids.txt")
    if "image_ids" in parts:
        return parts, [_text(value) for value in np.asarray(parts["image_ids"][:]).tolist()]
    if not names.is_file():
        raise ValueError(f"{path}: no image_ids in it: write them to {names}, one per line")
    return parts, names.read_text(encoding="utf-8").splitlines()


def row_by_image(image_ids: Sequence[Any] | None, count: int, name: str) -> dict[str, int]:
    """Return image_id -> row of an array of features with `count` rows; each row needs a name of its own."""
    if image_ids is None or isinstance(image_ids, str):
        raise ValueError(f"{name}: image_ids expected, a list of {count} names, one per row")
    ids = [str(image_id) for image_id in image_ids]
    if len(ids) != count:
        raise ValueError(f"{name}: {count:,} rows of features and {len(ids):,} image_ids")
    row_of = {image_id: row for row, image_id in enumerate(ids)}
    if len(row_of) < len(ids):
        twice = next(image_id for row, image_id in enumerate(ids) if row_of[image_id] != row)
        raise ValueError(f"{name}: image_id {quoted(twice)} is there twice")
    return row_of


def boxes_by_image(boxes: Any, shapes: Mapping[str, tuple[int, ...]], name: str) -> dict[str, Any]:
    """Return the boxes of a mapping of features, checked against their shapes (L, D) by image_id."""
    if not isinstance(boxes, Mapping):
        raise ValueError(f"{name}: boxes as a mapping image_id -> (L, 4) expected, as the features are one")
    arrays = {str(image_id): as_array(own) for image_id, own in boxes.items()}
    for image_id, shape in shapes.items():
        found = tuple(arrays[image_id].shape) if image_id in arrays else "none"
        if found != (shape[0], 4):
            raise ValueError(f"{name}: boxes of {quoted(image_id)}: ({shape[0]}, 4) expected, got {found}")
    return arrays


def as_array(given: Any) -> Any:
    """Return a list or tuple as an array; anything else as it is: arrays, datasets of files, mappings, None."""
    return np.asarray(given) if isinstance(given, list | tuple) else given


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
