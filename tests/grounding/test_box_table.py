"""Boxes of words from a table: fixed for all images, or for each; what is damaged is named with its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from attncap.captions import Caption
from attncap.data.load import CaptionData
from attncap.grounding.annotations import load_phrases, phrases_in
from attncap.grounding.box_table import match_words, read_box_table

HEAD = "image_id,phrase,left,top,right,bottom\n"


def table(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "boxes.csv"
    file.write_text(text, encoding="utf-8")
    return file


def caption(text: str, image_id: str = "a.png") -> Caption:
    return Caption(tuple(text.split()), (), 0.0, image_id=image_id)


def test_fixed_boxes_hold_for_every_image(tmp_path: Path) -> None:
    rows = ",hair,0.1,0,0.9,0.3\nb.png,nose,0.4,0.4,0.6,0.6\nb.png,nose,0.4,0.6,0.5,0.7\nelsewhere.png,nose,0,0,1,1\n"
    boxes = read_box_table(table(tmp_path, HEAD + rows), ["a.png", "b.png"])
    assert boxes["image_id"].tolist() == ["a.png", "b.png", "b.png", "b.png"]
    assert boxes["phrase"].tolist() == ["hair", "hair", "nose", "nose"]
    without = read_box_table(table(tmp_path, "phrase,left,top,right,bottom\nnose,0,0,1,0.5\n"), ["a.png", "b.png"])
    assert without["image_id"].tolist() == ["a.png", "b.png"] and without["bottom"].tolist() == [0.5, 0.5]


def test_the_longest_phrase_is_matched_wherever_it_stands(tmp_path: Path) -> None:
    rows = "phrase,left,top,right,bottom\nhair,0,0,1,0.5\nRed hair,0,0,0.5,0.5\nbig nose,0,0,0.1,0.1\n"
    boxes = read_box_table(table(tmp_path, rows), ["a.png"])
    [first, second, other] = match_words(
        [caption("red hair and a nose"), caption("hair on red hair"), caption("hair", "z.png")], boxes
    )
    assert [(p.start, p.end, p.type) for p in first] == [(0, 2, "red hair")]
    assert [(p.start, p.end, p.type) for p in second] == [(0, 1, "hair"), (2, 4, "red hair")]
    assert other == [] and first[0].boxes.tolist() == [[0, 0, 0.5, 0.5]]


def test_it_is_a_source_of_boxes(tmp_path: Path) -> None:
    pictures = pd.DataFrame({"image_id": ["a.png", "b.png"], "path": ["a.png", "b.png"], "split": "test"})
    captions = pd.DataFrame([("a.png", "A big nose."), ("b.png", "Hair!")], columns=["image_id", "caption"])
    data = CaptionData("made", pictures, captions)
    file = table(tmp_path, HEAD + "a.png,nose,0.25,0.25,0.75,0.75\n")
    annotated, phrases = load_phrases(f"table:{file}", data)
    assert annotated.pictures["image_id"].tolist() == ["a.png"]
    assert annotated.rejects["image_id"].tolist() == ["b.png"]
    [[phrase]] = phrases["a.png"]
    assert (phrase.start, phrase.end) == (2, 3)
    [own] = phrases_in([caption("the nose")], annotated, phrases)
    np.testing.assert_allclose(own[0].boxes, [[0.25, 0.25, 0.75, 0.75]])
    with pytest.raises(ValueError, match=r"has boxes of none of the images of made, such as 'a\.png'"):
        load_phrases(f"table:{table(tmp_path, HEAD + 'x.png,nose,0,0,1,1')}", data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,word,left,top,right\na,b,0,0,1\n", "has no column phrase, bottom"),
        (HEAD, "has no box"),
        (HEAD + "a,nose,0,0,1,1\na,nose,10,20,30,40\n", "line 3: the box is 10, 20, 30, 40: expected fractions"),
        (HEAD + "a,nose,0,zero,1,1\n", "line 2: the box is 0, zero, 1, 1: expected four numbers"),
        (HEAD + "a,!,0,0,1,1\n", "line 2: phrase is '!': expected at least one word"),
        (HEAD + "a,nose,0,0,1,1\na,nose,0,0,1,1,7,8\n", "not a CSV file of boxes"),
    ],
)
def test_what_is_damaged_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_box_table(table(tmp_path, text), ["a"])


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such table of boxes"):
        read_box_table(tmp_path / "none.csv", ["a"])
