"""Boxes of phrases from Entities and from drawn faces, in the words and tokens of a captioner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from attncap.captions import Caption
from attncap.data.load import CaptionData
from attncap.grounding.annotations import load_phrases, named_regions, phrases_in
from attncap.tokenizers import SPECIAL_TOKENS, WordPieceTokenizer, WordTokenizer

SENTENCES = """[/EN#11/people A man] holds [/EN#12/other a T-shirt] in [/EN#0/notvisual front] of [/EN#13/scene a sea] .
Look : " [/EN#14/animals two dogs] ! "
"""
ANNOTATION = """<annotation><size><width>200</width><height>100</height></size>
<object><name>11</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>100</xmax><ymax>100</ymax></bndbox></object>
<object><name>12</name><bndbox><xmin>101</xmin><ymin>1</ymin><xmax>150</xmax><ymax>50</ymax></bndbox></object>
<object><name>14</name><bndbox><xmin>1</xmin><ymin>51</ymin><xmax>50</xmax><ymax>100</ymax></bndbox></object>
<object><name>14</name><bndbox><xmin>151</xmin><ymin>51</ymin><xmax>200</xmax><ymax>100</ymax></bndbox></object>
</annotation>"""


def data_of(image_ids: list[str], captions: list[tuple[str, str]], boxes: pd.DataFrame | None = None) -> CaptionData:
    pictures = pd.DataFrame({"image_id": image_ids, "path": image_ids, "split": "train"})
    return CaptionData("made", pictures, pd.DataFrame(captions, columns=["image_id", "caption"]), boxes=boxes)


@pytest.fixture
def entities(tmp_path: Path) -> str:
    for folder, name, text in (("Sentences", "7.txt", SENTENCES), ("Annotations", "7.xml", ANNOTATION)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text)
    return f"entities:{tmp_path}"


def test_entities_give_their_sentences_and_list_what_they_lack(entities: str) -> None:
    data = data_of(["5_x.jpg", "7_abc.jpg"], [("5_x.jpg", "five"), ("7_abc.jpg", "another sentence")])
    annotated, phrases = load_phrases(entities, data)
    assert annotated.pictures["image_id"].tolist() == ["7_abc.jpg"]
    assert annotated.references() == {
        "7_abc.jpg": ["A man holds a T-shirt in front of a sea .", 'Look : " two dogs ! "']
    }
    assert annotated.rejects[["image_id", "kind", "reason", "table"]].to_numpy().tolist() == [
        ["5_x.jpg", "image without boxes", "not annotated", "pictures"]
    ]
    first, second = phrases["7_abc.jpg"]
    # a man holds a t-shirt in front of a sea | look two dogs: punctuation is no word
    assert [(p.start, p.end, p.type, len(p.boxes)) for p in first] == [
        (0, 2, "people", 1),
        (3, 5, "other", 1),
        (6, 7, "notvisual", 0),
        (8, 10, "scene", 0),
    ]
    assert [(p.start, p.end, len(p.boxes)) for p in second] == [(1, 3, 2)]
    np.testing.assert_allclose(first[1].boxes, [[0.5, 0.0, 0.75, 0.5]])


def test_named_regions_count_tokens_and_cover_cells(entities: str) -> None:
    annotated, phrases = load_phrases(entities, data_of(["7_abc.jpg"], []))
    words = WordTokenizer([*SPECIAL_TOKENS, "a", "man", "dogs"])  # the other words are <unk>, and keep their places
    first, second = named_regions(annotated, phrases, words, rows=1, cols=4)["7_abc.jpg"]
    assert [(region.start, region.end) for region in first] == [(0, 2), (3, 5)]  # nothing for what has no box
    np.testing.assert_allclose([region.cover for region in first], [[1, 1, 0, 0], [0, 0, 0.5, 0]])
    assert [(region.start, region.end) for region in second] == [(1, 3)]
    np.testing.assert_allclose(second[0].cover, [0.5, 0, 0, 0.5])
    pieces = WordPieceTokenizer(
        [*SPECIAL_TOKENS, "a", "m", "##an", "holds", "t", "##-", "##shirt", "look", "two", "dog", "##s"]
    )
    first, second = named_regions(annotated, phrases, pieces, rows=1, cols=4)["7_abc.jpg"]
    # a m ##an holds a t ##- ##shirt ... | look two dog ##s
    assert [(region.start, region.end) for region in (*first, *second)] == [(0, 3), (4, 8), (1, 4)]


def test_generated_captions_by_head_noun(entities: str) -> None:
    annotated, phrases = load_phrases(entities, data_of(["7_abc.jpg"], []))
    caption = Caption(("dogs", "and", "a", "man"), (4, 5, 6, 7), -1.0, image_id="7_abc.jpg")
    [found] = phrases_in([caption], annotated, phrases)
    assert [(p.start, p.end, p.type) for p in found] == [(0, 1, "animals"), (3, 4, "people")]


@pytest.fixture
def faces() -> CaptionData:
    rows = [("1.png", "hat", 0.0, 0.0, 1.0, 0.25), ("1.png", "hat_color", 0.0, 0.0, 1.0, 0.25)]
    boxes = pd.DataFrame(rows, columns=["image_id", "label", "left", "top", "right", "bottom"])
    captions = [("1.png", "A person with a red cap."), ("2.png", "A person."), ("1.png", "A red cap, a beard")]
    return data_of(["2.png", "1.png"], captions, boxes)


def test_faces_by_stated_characteristic(faces: CaptionData) -> None:
    boxed, phrases = load_phrases("faces", faces)
    assert boxed.pictures["image_id"].tolist() == ["1.png"] and boxed.rejects["image_id"].tolist() == ["2.png"]
    assert boxed.references()["1.png"] == ["A person with a red cap.", "A red cap, a beard"]
    stated = [[(p.start, p.end, p.type, len(p.boxes)) for p in own] for own in phrases["1.png"]]
    assert stated == [
        [(4, 5, "hat_color", 1), (5, 6, "hat", 1)],
        [(1, 2, "hat_color", 1), (2, 3, "hat", 1), (4, 5, "beard", 0)],
    ]
    caption = Caption(("a", "red", "cap"), (4, 5, 6), -1.0, image_id="1.png")
    [found] = phrases_in([caption], boxed, phrases)
    assert [(p.start, p.type) for p in found] == [(1, "hat_color"), (2, "hat")]


def test_errors_name_what_is_wrong(faces: CaptionData, entities: str, tmp_path: Path) -> None:
    for spec in ("boxes.csv", "entities", "entities:", "faces:9", ""):
        with pytest.raises(ValueError, match=r"boxes are entities:FOLDER_OR_ZIP .* or faces"):
            load_phrases(spec, faces)
    plain = data_of(["1.png"], [("1.png", "a face")])
    with pytest.raises(ValueError, match=r"made: has no boxes of its own.*entities:FOLDER_OR_ZIP"):
        load_phrases("faces", plain)
    with pytest.raises(ValueError, match="none of its images has a box"):
        load_phrases("faces", faces.only(["2.png"]))
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder or zip"):
        load_phrases(f"entities:{tmp_path / 'nowhere'}", plain)
    with pytest.raises(FileNotFoundError, match=r"for 1 of 1 images, such as '1\.png'"):
        load_phrases(entities, plain)
    with pytest.raises(ValueError, match="no images to load the boxes 'faces' for"):
        load_phrases("faces", faces.only([]))
