"""Paths of images: ids that differ, names inside their folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attncap import paths


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        (" ", "empty"),
        ("/etc/passwd", "absolute"),
        ("\\\\server\\share\\a.jpg", "absolute"),
        ("C:\\a.jpg", "absolute"),
        ("c:a.jpg", "absolute"),
        ("../a.jpg", r"'\.\.'"),
        ("a/../../b.jpg", r"'\.\.'"),
        ("a\\..\\..\\b.jpg", r"'\.\.'"),
        ("..", r"'\.\.'"),
        ("a\0.jpg", "NUL"),
        ("\ud800.jpg", "not a file name"),
        ("out/a.jpg", "link that leaves"),
        ("alias.jpg", "link that leaves"),
    ],
)
def test_a_name_that_leaves_the_folder_is_refused(name: str, why: str, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"x")
    (folder / "out").symlink_to(tmp_path)
    (folder / "alias.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(ValueError, match=why) as caught:
        paths.inside_folder(folder, name)
    assert str(folder) in str(caught.value)


def test_a_name_inside_is_joined(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.jpg").write_bytes(b"x")
    (tmp_path / "images").symlink_to(tmp_path / "disk")  # the folder itself may be a link
    (tmp_path / "disk" / "b.jpg").symlink_to(tmp_path / "disk" / "a.jpg")
    for name, joined in (
        ("a.jpg", "a.jpg"),
        ("b.jpg", "b.jpg"),
        ("x\\y.jpg", "x/y.jpg"),
        ("..jpg", "..jpg"),
        ("é.jpg", "é.jpg"),
    ):
        assert paths.inside_folder(tmp_path / "images", name) == tmp_path / "images" / joined


def test_names_match_in_composed_and_decomposed_unicode(tmp_path: Path) -> None:
    (tmp_path / "cafe\u0301.jpg").write_bytes(b"x")
    assert paths.inside_folder(tmp_path, "caf\u00e9.jpg") == tmp_path / "cafe\u0301.jpg"


def listing(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(folder / name)
    return folder


def test_ids_of_images_tell_them_apart() -> None:
    assert paths.image_ids(["june/1.jpg", Path("june/2.jpg")]) == ["1.jpg", "2.jpg"]
    assert paths.image_ids(["june/1.jpg", "july/1.jpg", "me.jpg"]) == ["june/1.jpg", "july/1.jpg", "me.jpg"]
    assert paths.image_ids(["/a/x/1.jpg", "/a/y/1.jpg"]) == ["x/1.jpg", "y/1.jpg"]
    assert paths.image_ids([Image.new("RGB", (3, 2)), np.zeros((4, 5), np.uint8)]) == ["image-1", "image-2"]
    with pytest.raises(ValueError, match=r"two images are called '1\.jpg': give each image once"):
        paths.image_ids(["june/1.jpg", "june/1.jpg"])


def test_images_of_a_folder_a_list_and_files(tmp_path: Path) -> None:
    folder = listing(tmp_path / "f", "me.jpg", "me.png", "june/1.jpg", "july/1.jpg", ".hidden/1.jpg")
    (folder / "notes.txt").write_text("no image")
    table, rejects = paths.find_images(folder)
    assert table["image_id"].tolist() == ["july/1.jpg", "june/1.jpg", "me.jpg", "me.png"] and rejects.empty
    assert table["path"].tolist() == [str(folder / image_id) for image_id in table["image_id"]]
    (tmp_path / "list.txt").write_text("f/june/1.jpg\n\nf/me.jpg\nf/../f/me.jpg\n", encoding="utf-8")
    table, _ = paths.find_images(tmp_path / "list.txt")
    assert table["image_id"].tolist() == ["1.jpg", "me.jpg"]  # a file that is listed twice is one image
    assert table["path"].tolist() == [str(tmp_path / "f" / "june" / "1.jpg"), str(tmp_path / "f" / "me.jpg")]
    table, _ = paths.find_images([str(folder / "june"), str(folder / "july" / "1.jpg"), str(folder / "me.jpg")])
    assert table["image_id"].tolist() == ["june/1.jpg", "july/1.jpg", "me.jpg"]
    assert paths.find_images(str(folder / "me.jpg"))[0]["image_id"].tolist() == ["me.jpg"]


def test_where_there_are_no_images(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere: neither a folder of images nor a list of them"):
        paths.find_images(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no images in it \(looked for \.apng"):
        paths.find_images(tmp_path)
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.png\n")
    with pytest.raises(ValueError, match=r"list\.txt: not UTF-8 text at byte 3; expected one path per line"):
        paths.find_images(tmp_path / "list.txt")


def test_names_that_are_not_utf_8_are_listed(tmp_path: Path) -> None:
    listing(tmp_path, "a.png")
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes((tmp_path / "a.png").read_bytes())
    table, rejects = paths.find_images(tmp_path)
    assert table["image_id"].tolist() == ["a.png"]
    assert rejects["image_id"].tolist() == ["caf\\udce9.png"]
    assert rejects["reason"].tolist() == ["the file name is not UTF-8: rename the file"]
