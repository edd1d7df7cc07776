"""Specs, splits and the check: every row is in the clean tables or in the rejects, once."""

import json
import os
import re
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import attncap.data.dataset
from attncap.data.load import (
    CaptionData,
    cache_folder,
    check,
    check_summary,
    guess_format,
    leave_out,
    load,
    load_table,
    split_images,
)


def picture(path: Path, shade: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (7, 5), (shade, 2 * shade % 251, 31)).save(path)


def made(pictures: list[tuple[str, str, str]], captions: list[tuple[str, str]], **more: object) -> CaptionData:
    return CaptionData(
        "made",
        pd.DataFrame(pictures, columns=["image_id", "path", "split"]),
        pd.DataFrame(captions, columns=["image_id", "caption"]),
        **more,  # type: ignore[arg-type]
    )


SMALL = made(
    [("a", "a.png", "train"), ("b", "b.png", "val"), ("c", "c.png", "test"), ("d", "d.png", "train")],
    [("a", "one"), ("b", "two"), ("a", "three"), ("c", "four"), ("b", "five")],
    attributes=pd.DataFrame({"image_id": ["a", "b"], "hat": ["cap", "none"]}),
    boxes=pd.DataFrame(
        [("b", "hat", 0.1, 0.2, 0.3, 0.4)], columns=["image_id", "label", "left", "top", "right", "bottom"]
    ),
)


# ------------------------------------------------------------------------------------------------ CaptionData


def test_split_takes_the_rows_of_every_table() -> None:
    val = SMALL.split("dev")
    assert val.pictures["image_id"].tolist() == ["b"]
    assert val.captions["caption"].tolist() == ["two", "five"]
    assert val.attributes is not None and val.attributes["hat"].tolist() == ["none"]
    assert val.boxes is not None and len(val.boxes) == 1
    train = SMALL.split("train")
    assert train.boxes is not None and train.boxes.empty
    assert train.pictures.index.tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"no split 'holdout': known are train \(2 images\), val \(1 .*dev is another"):
        SMALL.split("holdout")


def test_references_keep_order_and_leave_out_pictures_without() -> None:
    assert SMALL.references() == {"a": ["one", "three"], "b": ["two", "five"], "c": ["four"]}
    assert SMALL.references("dev") == {"b": ["two", "five"]}


def test_summary_says_counts() -> None:
    assert repr(SMALL) == "CaptionData(made: 4 images (train 2, val 1, test 1), 5 captions, 0 rejects)"


def test_tables_without_their_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="captions needs the columns image_id, caption; it lacks caption"):
        CaptionData("x", SMALL.pictures, pd.DataFrame({"image_id": []}))
    with pytest.raises(ValueError, match=r"pictures\.split: train, val, test expected, found \['dev'\]"):
        made([("a", "a.png", "dev")], [])


def test_ids_are_checked_when_the_data_is_made() -> None:
    with pytest.raises(ValueError, match=r"pictures\.image_id: 'a' has 2 rows, in the splits train, test: one row per"):
        made([("a", "a.png", "train"), ("b", "b.png", "val"), ("a", "a.png", "test")], [])
    with pytest.raises(ValueError, match=r"captions\.image_id: 2 captions of unknown images, the first of 'z'"):
        made([("a", "a.png", "train")], [("a", "x"), ("z", "y"), ("y", "y")])
    with pytest.raises(ValueError, match=r"pictures\.image_id: text expected, 7 \(int\) found: write pictures"):
        made([(7, "a.png", "train")], [])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"captions\.image_id: text expected, 7 \(int\) found"):
        made([("7", "a.png", "train")], [(7, "x")])  # type: ignore[list-item]


SPLIT_CELLS = [
    ("split", ["Train", " DEV ", np.str_("test")], ["train", "val", "test"]),
    ("partition", [0, 1, 2], ["train", "val", "test"]),
    ("partition", np.array([2, 0, 1], np.int8), ["test", "train", "val"]),
    ("Partition", ["1", "0", 2.0], ["val", "train", "test"]),
]


@pytest.mark.parametrize(("column", "cells", "expected"), SPLIT_CELLS)
@pytest.mark.parametrize("named", [True, False])
def test_split_columns_of_a_data_frame(
    tmp_path: Path, column: str, cells: object, expected: list[str], named: bool
) -> None:
    frame = pd.DataFrame({"file": ["a.jpg", "b.jpg", "c.jpg"], "caption": ["x", "y", "z"], column: cells})
    data = load_table(frame, tmp_path, split_column=column if named else None)
    assert data.pictures["split"].tolist() == expected and data.rejects.empty


@pytest.mark.parametrize(
    "cells", [[0, 1, 2], [True, False, True], [np.float32(0), np.int64(1), b"train"], ["0", 3, "x"]]
)
@pytest.mark.parametrize("named", [True, False])
def test_split_columns_that_are_not_text_are_refused(tmp_path: Path, cells: list[object], named: bool) -> None:
    column = "fold" if named else "split"
    frame = pd.DataFrame({"file": ["a.jpg", "b.jpg", "c.jpg"], "caption": ["x", "y", "z"], column: cells})
    data = load_table(frame, tmp_path, split_column=column if named else None)
    assert data.pictures.empty and len(data.rejects) == 3
    assert data.rejects["reason"].str.contains("train, val or test expected").all()


def test_rejects_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "captions.csv").write_bytes("image,caption\na.jpg,café, au lait\n".encode() + b"b.jpg,caf\xe9\n")
    data = load_table(tmp_path / "captions.csv", tmp_path)
    path = data.write_rejects(tmp_path / "new" / "rejects.csv")
    written = pd.read_csv(path, dtype={"line": "Int64"})
    assert written["line"].tolist() == [2, 3] and written["kind"].tolist() == ["malformed row", "not UTF-8"]
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(attncap.data.dataset.os, "replace", full)
    with pytest.raises(OSError, match="no space left on the disk"):
        SMALL.write_rejects(path)
    assert path.read_bytes() == before and os.listdir(path.parent) == ["rejects.csv"]


# ------------------------------------------------------------------------------------------------ splits


def test_splits_are_seeded_and_of_the_size_asked_for() -> None:
    ids = [f"{i}.jpg" for i in range(2003)]
    splits = split_images(ids, seed=3, val=0.2, test=0.1)
    counts = {name: splits.count(name) for name in ("train", "val", "test")}
    # binomial: 2003 * 0.2 = 401, deviation 18; 2003 * 0.1 = 200, deviation 13; four deviations allowed
    assert abs(counts["val"] - 401) < 72 and abs(counts["test"] - 200) < 54
    assert splits == split_images(ids, seed=3, val=0.2, test=0.1)
    assert splits != split_images(ids, seed=4, val=0.2, test=0.1)
    # blake2b("0\\0" + name) / 2^64 = 0.333, 0.497, 0.491, 0.242, 0.204: the same on every machine, in every version
    recorded = ["val", "val", "val", "test", "test"]
    assert split_images(["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"], seed=0, val=0.3, test=0.3) == recorded


def test_added_pictures_move_none() -> None:
    ids = [f"{i}.jpg" for i in range(499)]
    before = dict(zip(ids, split_images(ids), strict=True))
    more = [*(f"new {i}.jpg" for i in range(101)), *reversed(ids)]
    after = dict(zip(more, split_images(more), strict=True))
    assert {image_id: after[image_id] for image_id in ids} == before
    assert set(before.values()) == {"train", "val", "test"}


def test_given_splits_are_kept_and_shares_are_checked() -> None:
    assert split_images(["a", "b"], val=1.0, test=0.0, given=["test", None]) == ["test", "val"]
    with pytest.raises(ValueError, match=r"together at most 1; got val=0\.7, test=0\.4"):
        split_images(["a"], val=0.7, test=0.4)


# ------------------------------------------------------------------------------------------------ specs


def flickr8k(folder: Path) -> None:
    picture(folder / "Images" / "a.jpg")
    (folder / "captions.txt").write_text("image,caption\na.jpg,A dog , running .\n")


def test_load_flickr8k_by_spec_and_by_folder(tmp_path: Path) -> None:
    flickr8k(tmp_path / "set")
    assert guess_format(tmp_path / "set") == f"flickr8k:{tmp_path / 'set'}"
    for spec in (f"flickr8k:{tmp_path / 'set'}", str(tmp_path / "set"), tmp_path / "set"):
        data = load(spec)
        assert data.name == "set" and data.references() == {"a.jpg": ["A dog , running ."]}
        assert data.pictures["path"].tolist() == [str(tmp_path / "set" / "Images" / "a.jpg")]


def test_load_coco_and_karpathy(tmp_path: Path) -> None:
    one = {"images": [{"id": 5, "file_name": "a.jpg"}], "annotations": [{"image_id": 5, "caption": "x"}]}
    two = {"images": [{"id": 7, "file_name": "b.jpg"}], "annotations": [{"image_id": 7, "caption": "y"}]}
    folder = tmp_path / "a:colon"  # a colon in a path divides nothing when the path is there
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").mkdir()
    train, val = folder / "annotations" / "captions_train.json", folder / "annotations" / "captions_val.json"
    train.write_text(json.dumps(one))
    data = load(f"coco:{train}:{folder / 'images'}")
    assert data.integer_ids and data.references() == {"5": ["x"]}
    val.write_text(json.dumps(two))
    data = load(f"coco:{train}+{val}:{folder / 'images'}")
    assert data.pictures["split"].tolist() == ["train", "val"]
    assert guess_format(folder) == f"coco:{train}+{val}:{folder / 'images'}"
    assert load(folder).references("dev") == {"7": ["y"]}
    karpathy = folder / "dataset.json"
    karpathy.write_text(
        json.dumps({"images": [{"filename": "c.jpg", "split": "restval", "sentences": [{"raw": "z"}]}]})
    )
    assert guess_format(folder) == f"karpathy:{karpathy}:{folder / 'images'}"
    assert load(f"karpathy:{karpathy}").references("train") == {"c.jpg": ["z"]}


def test_load_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photographs").mkdir()
    path = tmp_path / "my words.csv"
    path.write_text("photo,words,fold\na.jpg,x,val\n")
    spec = f"table:{path}:{tmp_path / 'photographs'}"
    assert load(f"{spec}:photo:words:fold").references("val") == {"a.jpg": ["x"]}
    assert load(f"{spec}:photo:words").name == "my words"
    with pytest.raises(
        ValueError, match=r"table:CSV:IMAGES\[:FILE COLUMN:CAPTION COLUMN\[:SPLIT COLUMN\]\] expected, 'photo' found"
    ):
        load(f"{spec}:photo")
    with pytest.raises(ValueError, match=r"my words\.csv, line 1: no file name column"):
        load(spec)
    with pytest.raises(
        ValueError, match="no data set of a known format is in it: name format and file: flickr8k:FOLDER"
    ):
        load(tmp_path)
    path.write_text("image,caption\na.jpg,x\n")
    assert guess_format(tmp_path) == f"table:{path}:{tmp_path}"
    (tmp_path / "other.tsv").write_text("image\tcaption\n")
    with pytest.raises(
        ValueError, match=r"2 data sets are in it: name one: table:.*my words\.csv:.*, table:.*other\.tsv:"
    ):
        guess_format(tmp_path)
    data = load_table(pd.DataFrame({"image": ["b.jpg"], "caption": ["y"]}), tmp_path, name="mine")
    assert data.name == "mine" and data.references() == {"b.jpg": ["y"]}
    # A drive's colon divides nothing; on this system the name is one file's.
    monkeypatch.chdir(tmp_path)
    Path("C:\\captions.csv").write_text("image,caption\na.jpg,x\n")
    assert load("table:C:\\captions.csv:photographs").references() == {"a.jpg": ["x"]}


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("nowhere", ValueError, "'nowhere': no such folder, and not of the form flickr8k:FOLDER, karpathy:"),
        ("voc:somewhere", ValueError, "no such folder, and not of the form"),
        ("flickr8k:nowhere", FileNotFoundError, "'nowhere' is no folder"),
        ("flickr8k:", FileNotFoundError, "'' is no folder"),
        ("coco:", ValueError, "a file expected after coco:"),
        ("faces:99999999999999999999", ValueError, "a number of faces from 1 to 1,000,000 expected, '9{20}' found"),
        ("coco:no.json:images", FileNotFoundError, "'no.json' is no file"),
        ("coco:no.json+none.json:images", FileNotFoundError, "'no.json' is no file"),
        ("karpathy:C:\\no.json:D:\\images", FileNotFoundError, r"'C:\\\\no.json' is no file"),
        ("table:no.csv:images", FileNotFoundError, "'no.csv' is no file"),
        ("faces:many", ValueError, "'faces:many': a number of faces from 1 to 1,000,000 expected, 'many' found"),
        ("faces:0", ValueError, "a number of faces from 1 to 1,000,000 expected"),
        ("faces:-3", ValueError, "a number of faces from 1 to 1,000,000 expected"),
    ],
)
def test_specs_that_lead_nowhere(
    spec: str, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "attncap.data.faces.dataset", types.SimpleNamespace(make_faces=None))
    with pytest.raises(error, match=message):
        load(spec)


def test_faces_are_drawn_into_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, Path, int]] = []

    def make_faces(n: int, folder: Path, seed: int) -> tuple[pd.DataFrame | None, ...]:
        asked.append((n, folder, seed))
        return SMALL.pictures, SMALL.captions, SMALL.attributes, SMALL.boxes

    monkeypatch.setitem(sys.modules, "attncap.data.faces.dataset", types.SimpleNamespace(make_faces=make_faces))
    monkeypatch.setenv("ATTNCAP_CACHE", str(tmp_path))
    assert load("faces:31", seed=5).boxes is SMALL.boxes
    load("faces", folder=tmp_path / "here")
    assert asked == [(31, tmp_path / "faces-31-5", 5), (2000, tmp_path / "here", 0)]
    monkeypatch.delenv("ATTNCAP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "attncap"


# ------------------------------------------------------------------------------------------------ check


def test_names_of_files_and_folders_that_are_not_utf_8(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    for name in ("a.png", os.fsdecode(b"b\xe9.png")):
        picture(folder / name)
    (tmp_path / "t.csv").write_bytes(b"file,caption\na.png,a hat\nb\xe9.png,a cap\n")
    data = load(f"table:{tmp_path / 't.csv'}:{folder}")
    assert data.pictures["path"].dtype == object  # with pyarrow, pandas' own text refuses such a folder
    clean, report = check(data, progress=False)
    assert clean.pictures["image_id"].tolist() == ["a.png"]
    assert report["kind"].tolist() == ["not UTF-8", "file without caption"]
    assert report["image_id"][0] == "b\\udce9.png" and report["source"][1].endswith("caf\\udce9/b\\udce9.png")
    frame = pd.DataFrame({"file": pd.Series(["a.png", os.fsdecode(b"b\xe9.png")], dtype=object), "caption": "x"})
    assert load_table(frame, folder).rejects["kind"].tolist() == ["not UTF-8"]


def test_a_spec_or_a_seed_in_the_wrong_place_is_named() -> None:
    with pytest.raises(TypeError, match=r"data: a CaptionData expected, got 'faces:9': load it first"):
        check("faces:9")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a seed of 0 or more expected, found n=9, seed='x'"):
        load("faces:9", seed="x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="seed: a whole number expected, got 0.5"):
        split_images(["a"], seed=0.5)  # type: ignore[arg-type]


def test_check_finds_everything_and_every_row_is_accounted_for(tmp_path: Path) -> None:
    images = tmp_path / "images"
    for shade, name in enumerate(("a.png", "b.png", "c.png", "unnamed.png"), start=11):
        picture(images / name, shade)
    (images / "twin of a.png").write_bytes((images / "a.png").read_bytes())
    (images / "cut.png").write_bytes((images / "b.png").read_bytes()[:45])
    (images / "zero.png").write_bytes(b"")
    (images / "notes.txt").write_text("no picture")
    (images / "page.png").write_text("<html>")
    rows = [
        ("a.png", b"a face", "train"),
        ("a.png", b"a face", "train"),  # the same row: rejected by the reader
        ("a.png", b"", "train"),
        ("b.png", b"another face", "train"),
        ("twin of a.png", b"a face again", "test"),
        ("cut.png", b"cut", "train"),
        ("cut.png", b"cut off", "train"),
        ("zero.png", b"nothing", "val"),
        ("page.png", b"page", "val"),
        ("gone.png", b"gone", "val"),
        ("c.png", b"   ", "val"),
        ("../out.png", b"out", "val"),
        ("b.png", b"caf\xe9", "train"),
    ]
    lines = b"".join(b"%s,%s,%s\n" % (name.encode(), caption, split.encode()) for name, caption, split in rows)
    (tmp_path / "captions.csv").write_bytes(b"image,caption,split\n" + lines)
    data = load(f"table:{tmp_path / 'captions.csv'}:{images}")
    clean, report = check(data, workers=2, progress=False)
    assert clean.references() == {"a.png": ["a face"], "b.png": ["another face"], "twin of a.png": ["a face again"]}
    assert clean.pictures["image_id"].tolist() == ["a.png", "b.png", "twin of a.png"]

    tables = clean.rejects["table"]
    assert len(clean.captions) + (tables == "captions").sum() == len(rows)
    assert len(clean.pictures) + (tables == "pictures").sum() == len({name for name, _, _ in rows})
    assert report["rejected"].sum() == len(clean.rejects)
    assert report.loc[report["rejected"], "kind"].value_counts().to_dict() == {
        "caption of a rejected image": 6,
        "unreadable image": 3,
        "empty caption": 2,
        "duplicate caption": 1,
        "not UTF-8": 1,
        "path leaves the folder": 1,
        "missing image": 1,
        "image without caption": 1,
    }
    by_id = report[report["table"] == "pictures"].set_index("image_id")["reason"]
    assert re.search("truncated or damaged", by_id["cut.png"]) and "empty file" in by_id["zero.png"]
    assert "not an image" in by_id["page.png"] and "no such file" in by_id["gone.png"]
    assert by_id["twin of a.png"] == "same contents in two splits: test, as 'a.png' in train"
    noted = report[~report["rejected"]]
    assert noted["kind"].tolist() == ["same contents in two splits", "file without caption"]
    assert noted["source"].tolist()[1] == str(images / "unnamed.png")
    assert report.loc[report["kind"] == "not UTF-8", "line"].tolist() == [14]

    summary = check_summary(clean, report)
    assert summary.startswith("captions: 3 images (train 2, val 0, test 1), 3 captions, 16 rejects\n")
    assert "captions.csv, line 14: byte 0xe9" in summary and "1  file without caption (only noted)" in summary

    again, second = check(clean, workers=1, progress=False)
    assert again.rejects.equals(clean.rejects) and len(again.captions) == len(clean.captions)
    assert second["kind"].value_counts().equals(report["kind"].value_counts())


def test_check_of_tables_made_by_hand(tmp_path: Path) -> None:
    for shade, name in enumerate(("a.png", "b.png"), start=40):
        picture(tmp_path / name, shade)
    a, b = str(tmp_path / "a.png"), str(tmp_path / "b.png")
    data = made(
        [("a", a, "train"), ("b", b, "val")],
        [("a", "x"), ("a", "x"), ("b", "y"), ("b", "")],
        attributes=pd.DataFrame({"image_id": ["a", "b", "c"]}),
    )
    clean, report = check(data, progress=False)
    assert clean.references() == {"a": ["x", "x"], "b": ["y"]}
    assert clean.attributes is not None and clean.attributes["image_id"].tolist() == ["a", "b"]
    assert list(zip(report["kind"], report["rejected"], strict=True)) == [
        ("empty caption", True),
        ("same caption twice", False),
    ]


def test_check_with_nothing_to_report_shows_its_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(tmp_path / "a.png")
    data = made([("a", str(tmp_path / "a.png"), "train")], [("a", "x")])
    clean, report = check(data)
    assert check_summary(clean, report).endswith("nothing to report") and report.empty
    assert "images/s" in capsys.readouterr().err


def test_leaving_out_lists_pictures_and_captions_as_check_does(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.png" for name in "abc"}
    for name in "ac":
        picture(paths[name])
    paths["a"].write_bytes(b"")
    data = made(
        [(name, str(path), "train") for name, path in paths.items()],
        [("a", "one"), ("c", "two"), ("b", "three"), ("a", "four")],
        attributes=pd.DataFrame({"image_id": ["a", "c"], "hat": ["cap", "none"]}),
    )
    checked, _ = check(data, progress=False)
    reasons = {str(paths["a"]): "empty file (0 bytes): copy it again", str(paths["b"]): "no such file"}
    kept = leave_out(data, {**reasons, "elsewhere.png": "not of this data"})
    assert kept.pictures["image_id"].tolist() == ["c"] and kept.captions["caption"].tolist() == ["two"]
    assert kept.attributes is not None and kept.attributes["image_id"].tolist() == ["c"]
    pd.testing.assert_frame_equal(kept.rejects, checked.rejects)
    assert len(kept.rejects) == 5  # two pictures, three captions
    assert leave_out(data, {}) is data
