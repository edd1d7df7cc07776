"""Features computed elsewhere: every file format gives the same arrays; regions with boxes and a mask; refusals."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from attncap.decoding.predict import check_shape
from attncap.features.external import ExternalFeatures
from attncap.features.regions import Regions

N, ROWS, COLS, D = 5, 2, 3, 7
IDS = ["a.jpg", "b.jpg", "ç.png", "1", "e"]
GRID = np.random.default_rng(0).normal(size=(N, ROWS, COLS, D)).astype(np.float16)
COUNTS = {"a.jpg": 3, "b.jpg": 5, "ç.png": 1, "1": 5, "e": 2}
RAGGED = {name: np.random.default_rng(n).normal(size=(n, D)).astype(np.float32) for name, n in COUNTS.items()}


def write(path: Path, features: np.ndarray) -> None:
    """The features with their image_ids, in the format of the ending."""
    if path.suffix == ".npy":
        np.save(path, features)
        path.with_suffix(".ids.txt").write_text("\n".join(IDS) + "\n", encoding="utf-8")
    elif path.suffix == ".npz":
        np.savez(path, features=features, image_ids=np.array(IDS))
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["features"], file["image_ids"] = features, IDS
    else:
        save_file({"features": features}, path, metadata={"image_ids": json.dumps(IDS)})


def write_each(path: Path) -> None:
    """One array per image."""
    if path.suffix == ".npz":
        np.savez(path, **RAGGED)  # type: ignore[arg-type]
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file.update(RAGGED)
    else:
        save_file(RAGGED, path)


@pytest.mark.parametrize("ending", ["npy", "npz", "h5", "safetensors"])
def test_files_give_the_rows_of_image_ids(tmp_path: Path, ending: str) -> None:
    write(tmp_path / f"f.{ending}", GRID)
    read = ExternalFeatures.read(tmp_path / f"f.{ending}")
    assert (read.feature_shape, read.grid, len(read), read.image_ids) == ((ROWS, COLS, D), (ROWS, COLS), N, IDS)
    asked = ["ç.png", "a.jpg", "ç.png", "e"]
    found = read.get(asked)
    assert found.dtype == np.float16 and found.shape == (4, ROWS, COLS, D) and not read.masked
    np.testing.assert_array_equal(found, GRID[[2, 0, 2, 4]])
    assert read.mask(asked) is None and read.boxes(asked) is None and "e" in read and "f" not in read
    assert read.get([]).shape == (0, ROWS, COLS, D)
    lacking = read.extract(["f.jpg", "a.jpg"])
    assert lacking["image_id"].tolist() == ["f.jpg"] and lacking["reason"][0].startswith("no features of it in")
    with pytest.raises(KeyError, match=rf"f\.jpg: no features of it in .*f\.{ending}"):
        read.get(["a.jpg", "f.jpg"])
    with pytest.raises(TypeError, match=r"a list of image_ids expected, got one: write \['a.jpg'\]"):
        read.get("a.jpg")
    assert read.fingerprint == ExternalFeatures.read(tmp_path / f"f.{ending}").fingerprint
    before = read.fingerprint
    write(tmp_path / f"other.{ending}", GRID + 1)
    assert ExternalFeatures.read(tmp_path / f"other.{ending}").fingerprint != before


@pytest.mark.parametrize("ending", ["npz", "h5", "safetensors"])
def test_regions_of_different_numbers_are_padded_and_masked(tmp_path: Path, ending: str) -> None:
    write_each(tmp_path / f"f.{ending}")
    read = ExternalFeatures.read(tmp_path / f"f.{ending}")
    assert read.feature_shape == (1, 5, D) and read.grid is None and sorted(read.image_ids or ()) == sorted(IDS)
    found, mask = read.get(["e", "1", "ç.png"]), read.mask(["e", "1", "ç.png"])
    assert found.shape == (3, 1, 5, D) and read.masked and mask is not None and mask.dtype == bool
    assert mask.tolist() == [[True] * 2 + [False] * 3, [True] * 5, [True] + [False] * 4]
    for row, own, name in zip(found[:, 0], mask, ["e", "1", "ç.png"], strict=True):
        np.testing.assert_array_equal(row[own], RAGGED[name])
        assert not row[~own].any()


def test_boxes_and_masks_of_arrays_and_mappings(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    corners = np.sort(rng.uniform(size=(N, 6, 2, 2)), axis=2)
    boxes = corners.reshape(N, 6, 4).astype(np.float32)  # left, top, right, bottom
    mask = np.arange(6) < rng.integers(1, 7, (N, 1))
    features = GRID.reshape(N, 6, D)
    np.savez(tmp_path / "f.npz", features=features, image_ids=np.array(IDS), boxes=boxes, mask=mask)
    read = ExternalFeatures.read(tmp_path / "f.npz")
    whole = np.where(mask[:, :, None], boxes, [0, 0, 1, 1]).astype(np.float32)  # where there is padding
    np.testing.assert_array_equal(read.boxes(["e", "b.jpg"]), whole[[4, 1]])
    np.testing.assert_array_equal(read.mask(["e", "b.jpg"]), mask[[4, 1]])
    np.testing.assert_array_equal(read.get(["e", "b.jpg"])[:, 0], features[[4, 1]] * mask[[4, 1], :, None])
    assert read.grid is None and read.feature_shape == (1, 6, D)
    own = {name: boxes[0, :1].repeat(n, axis=0) for name, n in COUNTS.items()}
    ragged = ExternalFeatures(RAGGED, boxes=own)
    found = ragged.boxes(["a.jpg", "b.jpg"])
    assert found is not None and found.shape == (2, 5, 4) and found.dtype == np.float32
    np.testing.assert_array_equal(found[0, :3], own["a.jpg"])
    np.testing.assert_array_equal(found[0, 3:], [[0, 0, 1, 1]] * 2)
    with pytest.raises(ValueError, match=r"fractions of the image, 0 to 1; got \[10.*200.0\] for 'e': divide pixels"):
        ExternalFeatures(features, IDS, boxes=np.full((N, 6, 4), [10, 10, 200, 200])).boxes(["e"])
    with pytest.raises(ValueError, match="boxes are left, top, right, bottom"):
        ExternalFeatures(features, IDS, boxes=boxes[..., [2, 1, 0, 3]]).boxes(["e"])
    with pytest.raises(ValueError, match="'e' has no region in its mask"):
        ExternalFeatures(features, IDS, mask=np.zeros((N, 6), bool)).mask(["e"])


@pytest.mark.parametrize("fill", [-1.0, np.nan, 640.0])
def test_boxes_of_padding_may_hold_anything(fill: float) -> None:
    mask = np.arange(6) < np.array([[1], [6], [3], [2], [5]])
    boxes = np.where(mask[:, :, None], np.array([0.1, 0.2, 0.5, 0.6]), fill)
    features = np.where(mask[:, :, None], GRID.reshape(N, 6, D), fill)
    arrays = ExternalFeatures(features, IDS, mask=mask, boxes=boxes)
    function = ExternalFeatures(lambda ids: Regions(*(a[[IDS.index(i) for i in ids]] for a in (features, mask, boxes))))
    for read in (arrays, function):
        assert read.extract(IDS).empty
        found = read.boxes(IDS)
        assert found is not None
        np.testing.assert_allclose(found[mask], [[0.1, 0.2, 0.5, 0.6]] * mask.sum())
        np.testing.assert_array_equal(found[~mask], [[0, 0, 1, 1]] * (~mask).sum())
        assert not read.get(IDS)[:, 0][~mask].any()
    # Without a mask the row may be a region; refused before a training begins, not after its first epoch.
    with pytest.raises(ValueError, match=r"got \[.*\] for 'a.jpg': divide .* and give a mask where a row is padding"):
        ExternalFeatures(GRID.reshape(N, 6, D), IDS, boxes=boxes).extract(IDS)


def test_a_function_is_asked_for_the_images_of_a_batch() -> None:
    asked: list[list[str]] = []

    def compute(image_ids: list[str]) -> Regions:
        asked.append(image_ids)
        rows = [IDS.index(image_id) for image_id in image_ids]
        return Regions(GRID[rows], np.ones((len(rows), 6), bool))

    read = ExternalFeatures(compute)
    np.testing.assert_array_equal(read.get(["1", "e"]), GRID[3:])
    assert (
        asked == [["1", "e"]] and read.masked and read.grid == (ROWS, COLS) and read.image_ids is None and "any" in read
    )
    mask = read.mask(["1"])
    assert mask is not None and mask.shape == (1, 6)
    wrong = ExternalFeatures(lambda image_ids: GRID)
    with pytest.raises(ValueError, match=r"features of 2 images, .* expected of the function, got \(5, 2, 3, 7\)"):
        wrong.get(["1", "e"])
    growing = ExternalFeatures(lambda image_ids: np.ones((len(image_ids), 2 * len(image_ids), D)))
    growing.get(["1"])
    with pytest.raises(ValueError, match=r"gave features of \(1, 4, 7\) after \(1, 2, 7\): give all images the same"):
        growing.get(["1", "e"])


def test_padding_without_a_mask_is_no_region() -> None:
    features = np.where(np.arange(6) < np.array([[6], [6], [4], [6], [6]]), 1.0, 0.0)[:, :, None].repeat(D, axis=2)
    with pytest.raises(ValueError, match="region 4 of 'ç.png' is all zeros, and there is no mask: give a mask"):
        ExternalFeatures(features, IDS).extract(IDS)
    assert ExternalFeatures(features, IDS, mask=features.any(axis=2)).extract(IDS).empty
    grid = ExternalFeatures(features.reshape(GRID.shape), IDS)  # a dark cell of a grid is a part of the image
    assert grid.extract(IDS).empty and not grid.masked


def test_a_function_gives_a_mask_always_or_never() -> None:
    """A captioner is made masked or not by the first images: a mask that came later would be dropped."""
    count = {"a.jpg": 6, "b.jpg": 6, "1": 2}

    def compute(image_ids: list[str]) -> Regions:
        mask = np.arange(6) < np.array([[count[image_id]] for image_id in image_ids])
        return Regions(np.ones((len(image_ids), 6, D)), None if mask.all() else mask)

    read = ExternalFeatures(compute)
    read.get(["a.jpg", "b.jpg"])
    assert not read.masked
    with pytest.raises(ValueError, match="gave a mask with padding for '1' and none for its first images: give one"):
        read.get(["a.jpg", "1"])
    read = ExternalFeatures(compute)
    assert read.get(["1"]).any(axis=3).sum() == 2 and read.masked and read.get(["a.jpg"]).all() and read.masked


def test_what_a_function_gives_is_checked() -> None:
    ones = np.ones((2, 6, D))
    attempts: list[tuple[Regions, str]] = [
        (Regions(ones, np.ones((2, 5), bool)), r"mask of shape \(2, 6\) expected, got \(2, 5\)"),
        (Regions(ones, boxes=np.zeros((2, 4, 6))), r"boxes of shape \(2, 6, 4\) expected, got \(2, 4, 6\)"),
        (Regions(ones, np.eye(2, 6)[[0, 0]] * [[1], [0]]), "'b.jpg' has no region in its mask"),
    ]
    for given, message in attempts:
        with pytest.raises(ValueError, match=message):
            ExternalFeatures(lambda image_ids, given=given: given).get(["a.jpg", "b.jpg"])


def test_lists_and_names_that_are_numbers() -> None:
    boxes = {1: [[0.1, 0.1, 0.2, 0.2]], 2: [[0.3, 0.3, 0.4, 0.4]] * 2}
    read = ExternalFeatures({1: [[1.0, 2.0]], 2: [[3.0, 4.0]] * 2}, boxes=boxes)
    found = read.boxes(["1", "2"])
    assert read.masked and found is not None
    np.testing.assert_allclose(found[0], [[0.1, 0.1, 0.2, 0.2], [0, 0, 1, 1]])
    masked = ExternalFeatures([[[1.0, 2.0], [3.0, 4.0]]], [7], mask=[[True, False]]).get(["7"])
    assert masked.tolist() == [[[[1, 2], [0, 0]]]]


def test_a_mapping_is_filled_up_to_the_regions_of_a_captioner() -> None:
    """A captioner trained on at most 8 regions an image reads a mapping of one image with 3."""
    captioner = SimpleNamespace(feature_shape=(1, 8, D), masked=True)
    boxes = {name: np.tile([0.1, 0.1, 0.2, 0.2], (n, 1)) for name, n in COUNTS.items()}
    for names in (["a.jpg"], IDS):
        read = ExternalFeatures({name: RAGGED[name] for name in names}, boxes={name: boxes[name] for name in names})
        check_shape(captioner, read)
        mask, found = read.mask(names), read.boxes(names)
        assert mask is not None and mask.sum(axis=1).tolist() == [COUNTS[name] for name in names]
        assert (
            read.get(names).shape == (len(names), 1, 8, D) and found is not None and found.shape == (len(names), 8, 4)
        )
    many = ExternalFeatures({"1": np.ones((9, D))})
    with pytest.raises(ValueError, match=r"shape \(1, 9, 7\) .*, and the captioner was trained on \(1, 8, 7\)"):
        check_shape(captioner, many)
    with pytest.raises(ValueError, match=r"shape \(1, 3, 7\)"):
        check_shape(SimpleNamespace(feature_shape=(1, 8, D), masked=False), ExternalFeatures({"a": RAGGED["a.jpg"]}))


def test_fingerprints_of_arrays_follow_their_numbers() -> None:
    other = {**RAGGED, "e": RAGGED["e"] + 1}
    digests = {ExternalFeatures(given).fingerprint for given in (RAGGED, dict(RAGGED), other)}
    digests |= {ExternalFeatures(given, IDS).fingerprint for given in (GRID, GRID.copy(), GRID + 1)}
    assert len(digests) == 4


def test_a_mapping_of_two_types_is_read_in_one() -> None:
    mixed = ExternalFeatures({"a": np.ones((2, D), np.float16), "b": np.ones((2, D))})
    assert mixed.get(["a"]).dtype == mixed.get(["b"]).dtype == np.float32


@pytest.mark.parametrize("kind", ["float64", "int16", "bfloat16", "float16", "float32"])
def test_numbers_come_as_float16_or_float32(tmp_path: Path, kind: str) -> None:
    values = np.round(GRID * 8).astype(ml_dtypes.bfloat16 if kind == "bfloat16" else kind)
    np.save(tmp_path / "f.npy", values)  # of bfloat16, NumPy reads back raw bytes, |V2
    found = ExternalFeatures.read(tmp_path / "f.npy", image_ids=IDS).get(IDS)
    assert found.dtype == (np.float16 if kind == "float16" else np.float32)
    np.testing.assert_array_equal(found.reshape(GRID.shape), values.astype(np.float32))


def test_threads_may_read_one_file(tmp_path: Path) -> None:
    write(tmp_path / "f.h5", GRID)
    read, failed = ExternalFeatures.read(tmp_path / "f.h5"), []

    def reading(at: int) -> None:
        for _ in range(50):
            if not np.array_equal(read.get([IDS[at]])[0], GRID[at]):
                failed.append(at)

    threads = [threading.Thread(target=reading, args=(at,)) for at in range(N)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def refused(tmp_path: Path, name: str, content: bytes) -> str:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError) as refusal:
        ExternalFeatures.read(tmp_path / name).get(["1"])
    message = str(refusal.value)
    assert message.startswith(str(tmp_path / name)) and "\n" not in message.strip()
    return message


@pytest.mark.parametrize("ending", ["npy", "npz", "h5", "safetensors"])
def test_damaged_files_are_refused_by_name(tmp_path: Path, ending: str) -> None:
    write(tmp_path / f"f.{ending}", GRID)
    whole = (tmp_path / f"f.{ending}").read_bytes()
    for end in (0, 5, 40, len(whole) // 2):
        refused(tmp_path, f"f.{ending}", whole[:end])
    refused(tmp_path, f"f.{ending}", b"garbage " * 99)


def test_what_is_refused(tmp_path: Path) -> None:
    attempts: list[tuple[Any, dict[str, Any], str]] = [
        (GRID[0, 0], {}, r"shape \(N, L, D\) or \(N, rows, cols, D\) expected, got \(3, 7\)"),
        (GRID, {}, "image_ids expected, a list of 5 names"),
        (GRID, {"image_ids": IDS[:4]}, "5 rows of features and 4 image_ids"),
        (GRID, {"image_ids": [*IDS[:4], "a.jpg"]}, "image_id 'a.jpg' is there twice"),
        (GRID, {"image_ids": IDS, "mask": np.ones((N, 5))}, r"mask of shape \(5, 6\) expected, got \(5, 5\)"),
        ({}, {}, "no features"),
        (GRID, {"image_ids": IDS, "boxes": {}}, r"boxes of shape \(5, 6, 4\) expected, got a mapping"),
        (RAGGED, {"mask": np.ones((N, 5))}, "mask is for arrays .*, and the features are a mapping .*: leave it out"),
        (RAGGED, {"boxes": np.ones((N, 5, 4))}, "boxes as a mapping image_id -> .* expected"),
        (RAGGED, {"boxes": {"a.jpg": np.zeros((3, 4))}}, r"boxes of 'b.jpg': \(5, 4\) expected, got none"),
        (lambda ids: None, {"boxes": GRID}, "boxes is for arrays .*, and the features are a function"),
        ({"a": GRID[0, 0], "b": GRID[0, 0, :, :5]}, {}, r"'b' has shape \(3, 5\), \(L, 7\) expected"),
    ]
    for features, settings, message in attempts:
        with pytest.raises(ValueError, match=message):
            ExternalFeatures(features, **settings)
    spoilt = GRID.copy()
    spoilt[3, 1, 2, 4] = np.nan
    with pytest.raises(ValueError, match="the features of '1' are not all finite"):
        ExternalFeatures(spoilt, IDS).get(["a.jpg", "1"])
    empty = {**RAGGED, "1": np.zeros((4, D), np.float32)}
    with pytest.raises(ValueError, match="'1' has no region: its features are all zeros"):
        ExternalFeatures(empty).get(["a.jpg", "1"])
    with pytest.raises(FileNotFoundError, match=r"none\.npz: no such file of features"):
        ExternalFeatures.read(tmp_path / "none.npz")
    np.save(tmp_path / "f.npy", GRID)
    with pytest.raises(ValueError, match=r"f\.npy: no image_ids in it: write them to .*f\.ids\.txt, one per line"):
        ExternalFeatures.read(tmp_path / "f.npy")
    np.save(tmp_path / "o.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"o\.npy: an array of numbers"):
        ExternalFeatures.read(tmp_path / "o.npy", image_ids=IDS[:2])
    np.savez(tmp_path / "o.npz", features=np.array([{}, []], dtype=object))
    with pytest.raises(ValueError, match=r"o\.npz: .*pickle"):
        ExternalFeatures.read(tmp_path / "o.npz")
    (tmp_path / "f.txt").write_text("x")
    with pytest.raises(ValueError, match=r"f\.txt: features of another format: \.npy, \.npz, .* expected"):
        ExternalFeatures.read(tmp_path / "f.txt")


def test_a_mapping_of_grids_is_a_grid() -> None:
    read = ExternalFeatures(dict(zip(IDS, GRID, strict=True)))
    assert (read.feature_shape, read.grid, read.masked) == ((ROWS, COLS, D), (ROWS, COLS), False)
    np.testing.assert_array_equal(read.get(["1", "a.jpg"]), GRID[[3, 0]])
    read.pad_to(99)
    assert read.feature_shape == (ROWS, COLS, D)
    with pytest.raises(ValueError, match=r"'b' has shape \(3, 3, 7\), \(2, 3, 7\) expected; arrays"):
        ExternalFeatures({"a": GRID[0], "b": np.zeros((3, 3, 7))})
    with pytest.raises(ValueError, match=r"'b' has shape \(2, 3, 7\), \(L, 7\) expected; arrays"):
        ExternalFeatures({"a": GRID[0, 0], "b": GRID[0]})
