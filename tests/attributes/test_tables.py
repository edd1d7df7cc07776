"""Reading tables of attributes: each way to write a label, each way to get one wrong, and the split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from attncap.attributes.splits import stratified_split
from attncap.attributes.tables import (
    AttributeData,
    characteristics_as_labels,
    faces_columns,
    load_attributes,
    read_attributes,
)
from attncap.data.faces.dataset import sample_attributes

NAN = np.nan


def write(folder: Path, text: str, name: str = "table.csv") -> Path:
    (folder / "images").mkdir(exist_ok=True)
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_every_way_to_write_a_label(tmp_path: Path) -> None:
    file = write(tmp_path, "image,a,b,c,d\nx.jpg,1,-1,True,\ny.jpg,0,1,false,yes\nz.jpg,1.0,,NA,no\n")
    data = load_attributes(f"attributes:{file}:{tmp_path / 'images'}", val=0, test=0)
    assert data.names == ("a", "b", "c", "d") and data.pictures["image_id"].tolist() == ["x.jpg", "y.jpg", "z.jpg"]
    np.testing.assert_array_equal(data.labels, [[1, 0, 1, NAN], [0, 1, 0, 1], [1, NAN, NAN, 0]])
    assert data.labels.dtype == np.float32
    assert data.pictures["path"][0] == str(tmp_path / "images" / "x.jpg")
    assert data.summary() == "table: 3 images (train 3, val 0, test 0), 4 attributes, 3 labels missing, 0 rejects"
    assert load_attributes(f"attributes:{file}", val=0, test=0).labels.shape == (3, 4)  # images beside the file


def test_a_data_frame_of_real_types(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"file": ["x", "y", "z"], "nose": [True, False, None], "hair": [1, 0, pd.NA], "hat": [-1, 1, 1]}
    )
    data = read_attributes(frame, tmp_path, val=0, test=0)
    np.testing.assert_array_equal(data.labels, [[1, 1, 0], [0, 0, 1], [NAN, NAN, 1]])


def test_celebas_text(tmp_path: Path) -> None:
    file = write(
        tmp_path, "3\nBig_Nose Wavy_Hair \n000001.jpg -1  1 \n000002.jpg  1 1\n000003.jpg 1 -1\n\n", "list.txt"
    )
    data = load_attributes(f"attributes:{file}:{tmp_path / 'images'}", val=0, test=0)
    assert data.names == ("Big_Nose", "Wavy_Hair") and data.name == "list"
    assert data.labels.tolist() == [[0, 1], [1, 1], [1, 0]]
    file.write_text("4\nBig_Nose\n1.jpg 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="list.txt, line 1: 4 images announced, 1 rows found"):
        load_attributes(f"attributes:{file}:{tmp_path / 'images'}")
    file.write_text("1\nBig_Nose Wavy_Hair\n1.jpg 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="list.txt, line 3: 3 columns expected as in the header, 2 found"):
        load_attributes(f"attributes:{file}:{tmp_path / 'images'}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,a\nx.jpg,1\ny.jpg,maybe\n", r"table.csv, line 3, column 'a': 0, 1, -1, true.*found 'maybe'"),
        ("image,a\nx.jpg,1\ny.jpg,2\n", r"line 3, column 'a': .*found '2'"),
        ("image,a\nx.jpg,-1\ny.jpg,1\nz.jpg,0\n", r"line 4, column 'a': 0 in a column that has -1 too"),
        ("image,a\nx.jpg,1,0\n", r"line 2: 2 columns expected as in the header, 3 found"),
        ("who,a\nx.jpg,1\n", r"no file name column \(looked for filename, .*found: who, a"),
        ("image,a,a\nx.jpg,1,1\n", r"the column 'a' occurs twice"),
        ("image,a\0,a\0\nx.jpg,1,1\n", r"the column 'a\\x00' occurs twice"),
        ("image,a,split\nx.jpg,1,tomorrow\n", r"line 2: split 'tomorrow': train, val or test expected"),
        ("image\nx.jpg\n", r"no attribute: at least one column of 0 and 1"),
        ("", r"table.csv, line 1: a header line expected, nothing found"),
    ],
)
def test_a_table_that_cannot_be_used_is_named_to_the_cell(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_attributes(f"attributes:{write(tmp_path, text)}:{tmp_path / 'images'}", val=0, test=0)


def test_columns_that_are_wanted(tmp_path: Path) -> None:
    file = write(tmp_path, "image,a,note,b\nx.jpg,1,a text,0\ny.jpg,0,,1\n")
    spec = f"attributes:{file}:{tmp_path / 'images'}"
    data = load_attributes(spec, columns=["b", "a"], val=0, test=0)
    assert data.names == ("b", "a") and data.labels.tolist() == [[0, 1], [1, 0]]
    with pytest.raises(ValueError, match=r"a column 'c' expected, found: a, note, b"):
        load_attributes(spec, columns=["c"])
    with pytest.raises(ValueError, match="line 2, column 'note': .*found 'a text'"):
        load_attributes(spec)
    with pytest.raises(ValueError, match="no attribute 'c': known are b, a"):
        data.select(["c"])


def test_pictures_that_cannot_be_used_are_rejected_and_the_labels_stay_beside_theirs(tmp_path: Path) -> None:
    file = write(tmp_path, "image,a\nx.jpg,1\n../y.jpg,0\nx.jpg,0\n,1\nz.jpg,0\n")
    data = load_attributes(f"attributes:{file}:{tmp_path / 'images'}", val=0, test=0)
    assert data.pictures["image_id"].tolist() == ["x.jpg", "z.jpg"] and data.labels.tolist() == [[1], [0]]
    assert data.rejects["line"].tolist() == [3, 4, 5]
    assert data.rejects["kind"].tolist() == ["path leaves the folder", "duplicate image", "malformed row"]


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("attributes:", ValueError, "not of the form attributes:FILE:IMAGES"),
        ("table:x.csv", ValueError, "not of the form attributes:FILE:IMAGES"),
        ("attributes:no.csv:there", FileNotFoundError, "'no.csv' is no file"),
    ],
)
def test_specs_that_say_nothing(spec: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_attributes(spec)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="'nowhere' is no folder"):
        load_attributes(f"attributes:{write(tmp_path, 'image,a')}:nowhere")


def test_the_split_has_the_share_of_every_attribute_in_each_part() -> None:
    rng = np.random.default_rng(5)
    labels = (rng.random((700, 7)) < np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.9])).astype(float)
    labels[3, 2] = NAN
    splits = np.array(stratified_split(labels, seed=1, val=70, test=0.2))
    assert {name: int((splits == name).sum()) for name in ("train", "val", "test")} == {
        "train": 490,
        "val": 70,
        "test": 140,
    }
    counts = np.stack([np.nansum(labels[splits == name], axis=0) for name in ("train", "val", "test")])
    wanted = np.array([0.7, 0.1, 0.2])[:, None] * np.nansum(labels, axis=0)
    assert np.abs(counts - wanted).max() < 1.5  # to the picture; by chance it is about ten


def test_the_split_is_of_the_seed_and_keeps_what_is_given() -> None:
    labels = (np.random.default_rng(0).random((60, 3)) < 0.3).astype(float)
    first = stratified_split(labels, seed=1, val=6, test=11)
    assert stratified_split(labels, seed=1, val=6, test=11) == first
    assert stratified_split(labels, seed=2, val=6, test=11) != first
    given = ["test"] * 7 + [None] * 53
    kept = stratified_split(labels, seed=1, val=6, test=5, given=given)
    assert kept[:7] == ["test"] * 7 and kept[7:].count("test") == 5 and kept.count("val") == 6
    with pytest.raises(ValueError, match="val=30 and test=30 leave none of 60 images for training"):
        stratified_split(labels, val=30, test=30)


def test_faces_become_columns(tmp_path: Path) -> None:
    face = sample_attributes(np.random.default_rng(7))
    names = faces_columns()
    assert "hair=curly" in names and not any(name.endswith(("=none", "=hidden")) for name in names)
    labels = characteristics_as_labels(pd.DataFrame([face]))
    assert {name for name, label in zip(names, labels[0], strict=True) if label} == {
        f"{name}={value}" for name, value in face.items() if value not in ("none", "hidden")
    }


def test_faces_as_a_spec() -> None:
    data = load_attributes("faces:5", columns=["hair=bald", "mouth=smile"])
    assert data.labels.shape == (5, 2) and data.facts is not None
    assert data.facts["image_id"].tolist() == data.pictures["image_id"].tolist()
    np.testing.assert_array_equal(data.labels[:, 1], data.facts["mouth"] == "smile")


def test_data_of_the_wrong_shape() -> None:
    pictures = pd.DataFrame({"image_id": ["a"], "path": ["a"], "split": ["train"]})
    with pytest.raises(ValueError, match=r"labels of shape \(1, 2\) expected, found \(2, 2\)"):
        AttributeData("x", pictures, ("a", "b"), np.zeros((2, 2), np.float32))
    with pytest.raises(ValueError, match="the attribute 'a' occurs twice"):
        AttributeData("x", pictures, ("a", "a"), np.zeros((1, 2), np.float32))
    with pytest.raises(ValueError, match="no split 'later'"):
        AttributeData("x", pictures, ("a",), np.zeros((1, 1), np.float32)).split("later")


def test_celebas_partition_is_the_split_and_no_attribute() -> None:
    frame = pd.DataFrame({"file": ["a.jpg", "b.jpg", "c.jpg"], "hat": [1, -1, 1], "partition": [0, 1, 2]})
    data = read_attributes(frame, "images")
    assert data.names == ("hat",) and data.pictures["split"].tolist() == ["train", "val", "test"]
    with pytest.raises(ValueError, match="line 2: split -1: train, val or test expected"):
        read_attributes(frame.assign(partition=[1, -1, 1]), "images")


@pytest.mark.parametrize("splits", [[0, 1, 2], [True, False, True], [np.int64(0), np.int64(1), np.int64(1)]])
def test_a_split_that_is_not_text_is_refused(splits: list[object]) -> None:
    frame = pd.DataFrame({"file": ["a.jpg", "b.jpg", "c.jpg"], "hat": [1, 0, 1], "split": splits})
    with pytest.raises(ValueError, match="line 1: split .*: train, val or test expected"):
        read_attributes(frame, "images")


@pytest.mark.parametrize("share", [float("inf"), float("nan"), -0.1])
def test_shares_that_are_no_shares(share: float) -> None:
    frame = pd.DataFrame({"file": ["a.jpg", "b.jpg", "c.jpg"], "hat": [1, 0, 1]})
    with pytest.raises(ValueError, match="val=.*: a share below 1, or a number of images, expected"):
        read_attributes(frame, "images", val=share)
