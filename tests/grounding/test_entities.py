"""The Flickr30k Entities reader, on small files made here, and the matching of generated captions."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from attncap.captions import Caption
from attncap.grounding.entities import Sentence, match_head_nouns, read_entities
from attncap.grounding.phrases import Phrase

SENTENCES = """[/EN#11/people Two men] ride [/EN#12/vehicles/scene a red bus] past [/EN#13/scene the sea] .
In [/EN#0/notvisual the end] , [/EN#14/people a man 's dog] sleeps
"""


def thing(names: str, *corners: int, more: str = "") -> str:
    box = "".join(
        f"<{edge}>{value}</{edge}>" for edge, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=False)
    )
    inner = f"<bndbox>{box}</bndbox>" if corners else more
    return f"<object>{''.join(f'<name>{name}</name>' for name in names.split())}{inner}</object>"


def annotation(*things: str, width: str = "200", height: str = "100") -> str:
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>7.jpg</filename>\n{size}\n{''.join(things)}</annotation>"


ANNOTATION = annotation(
    thing("11", 1, 1, 50, 100),
    thing("11 14", 101, 51, 200, 100),  # one box of two ids
    thing("12", 21, 11, 120, 60),
    thing("13", more="<scene>1</scene><nobndbox>0</nobndbox>"),
)


@pytest.fixture(params=["folder", "zip", "zip in a folder"])
def make_source(request: pytest.FixtureRequest, tmp_path: Path):
    """Write files, given by name, into a folder or a zip."""

    def write(files: dict[str, str | bytes]) -> Path:
        contents = {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
        if request.param == "folder":
            for name, content in contents.items():
                (tmp_path / name).parent.mkdir(exist_ok=True)
                (tmp_path / name).write_bytes(content)
            return tmp_path
        inside = "flickr30k_entities/" if request.param == "zip in a folder" else ""
        with zipfile.ZipFile(tmp_path / "entities.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(inside + name, content)
        return tmp_path / "entities.zip"

    return write


def picture(sentences: str | bytes = SENTENCES, boxes: str | bytes = ANNOTATION, entry: str = "7") -> dict:
    return {f"Sentences/{entry}.txt": sentences, f"Annotations/{entry}.xml": boxes}


def test_words_phrases_and_boxes(make_source) -> None:
    first, second = read_entities(make_source(picture()), ["7_0a1b2c.jpg"])["7_0a1b2c.jpg"]
    assert first.text == "Two men ride a red bus past the sea ."
    assert [(phrase.start, phrase.end, phrase.type) for phrase in first.phrases] == [
        (0, 2, "people"),
        (3, 6, "vehicles"),
        (7, 9, "scene"),
    ]
    assert {phrase.image_id for phrase in first.phrases} == {"7_0a1b2c.jpg"}
    men, bus, sea = first.phrases
    # Pixels count from 1 and the last one belongs to the box; 200 wide, 100 high.
    np.testing.assert_allclose(men.boxes, [[0, 0, 0.25, 1], [0.5, 0.5, 1, 1]])
    np.testing.assert_allclose(bus.boxes, [[0.1, 0.1, 0.6, 0.6]])
    assert sea.boxes.shape == (0, 4)
    assert [(phrase.start, phrase.end, phrase.type) for phrase in second.phrases] == [
        (1, 3, "notvisual"),
        (4, 8, "people"),
    ]
    assert second.phrases[0].boxes.shape == (0, 4)  # id 0 is never listed
    np.testing.assert_allclose(second.phrases[1].boxes, [[0.5, 0.5, 1, 1]])


def test_all_pictures_or_those_that_are_there(make_source) -> None:
    source = make_source({**picture(), **picture(entry="8")})
    assert sorted(read_entities(source)) == ["7", "8"]
    assert list(read_entities(source, ["8.jpg", "9_ff.jpg"], missing="skip")) == ["8.jpg"]
    with pytest.raises(FileNotFoundError, match=r"no Sentences/ID.txt with .* for 2 of 3 images, such as '9_ff.jpg'"):
        read_entities(source, ["8.jpg", "9_ff.jpg", "10.jpg"])
    with pytest.raises(FileNotFoundError, match="for 1 of 1 images"):
        read_entities(source, ["9.jpg"], missing="skip")  # nothing at all is no result


def test_boxes_are_kept_inside_the_picture(make_source) -> None:
    boxes = annotation(thing("12", 0, 0, 220, 100))
    sentence = read_entities(make_source(picture(boxes=boxes)))["7"][0]
    np.testing.assert_allclose(sentence.phrases[1].boxes, [[0, 0, 1, 1]])


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        ("a dog .\n[/EN#1/people A man sits .", r"line 2: expected .*got '\[/EN#1/people A man sits \.'"),
        ("A man] sits .", r"line 1: .*got '\] sits \.'"),
        ("[/EN#x/people A man] sits .", r"line 1: .*got '\[/EN#x/people A man\] sits \.'"),
        ("[/EN#1/people ] sits .", r"line 1: .*got '\[/EN#1/people \] sits \.'"),
        ("[/EN#1 A man] sits .", r"line 1: .*got '\[/EN#1 A man\] sits \.'"),
        ("[/EN#1/people [/EN#2/people A man]] sits .", r"line 1: .*got '\[/EN#1/people \[/EN#2"),
        (b"a dog .\n\na caf\xe9 .", r"line 3: byte 0xe9 is not UTF-8"),
    ],
)
def test_malformed_sentences_are_named(make_source, sentences: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=r"Sentences/7\.txt, " + message):
        read_entities(make_source(picture(sentences=sentences)))


BOMB = '<?xml version="1.0"?>\n<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]>\n' + ANNOTATION


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (BOMB, r", line 2: holds <!DOCTYPE, which no annotation has; do not trust it"),
        ("<a>\n<!entity b>" + ANNOTATION, r", line 2: holds <!entity"),
        (BOMB.encode("utf-16"), r", line 1: byte 0xff is not UTF-8"),
        ("<annotation>\n<size>", r", line 2: not well-formed XML"),
        ("<annotation/>", r": expected a whole number in <size/width>, got ''"),
        (annotation(width="2e9"), r": expected a whole number in <size/width>, got '2e9'"),
        (annotation(height="0"), r": expected the image's width and height in pixels, got 200 x 0"),
        (annotation(thing("12", 1, 2, 3)), r", object 12: expected a whole number in <ymax>, got ''"),
        (annotation(thing("12 13", 50, 2, 40, 9)), r", object 12 13: box without area in an image of 200 x 100"),
        (annotation(thing("12", 201, 2, 240, 9)), r", object 12: box without area"),
        ("<a>" + " " * 1_000_001, r"1,000,004 bytes, expected at most 1,000,000"),
    ],
)
def test_malformed_annotations_are_named(make_source, boxes: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_entities(make_source(picture(boxes=boxes)))
    assert "Annotations/7.xml" in str(caught.value).replace("\\", "/")


@pytest.mark.parametrize("image_id", ["../7.jpg", "/7.jpg", "", "a b.jpg", "..\\7"])
def test_an_image_id_that_is_no_file_name(make_source, image_id: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"image_id {image_id!r}: expected a file name")):
        read_entities(make_source(picture()), [image_id])


@pytest.mark.parametrize("name", ["../Sentences/9.txt", "/Sentences/9.txt", "a/../../b.txt", "..\\b.txt", "C:/b.txt"])
def test_a_zip_whose_names_leave_it_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "entities.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for own, text in picture().items():
            archive.writestr(own, text)
        archive.writestr(zipfile.ZipInfo(name), "x")
    with pytest.raises(ValueError, match=r"entities\.zip: holds '.*', a name that leaves its folder; do not trust it"):
        read_entities(path)


def test_damaged_missing_and_empty_sources(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder or zip; it should hold Annotations/"):
        read_entities(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no Sentences/\*\.txt in it"):
        read_entities(tmp_path)
    path = tmp_path / "entities.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for own, text in picture().items():
            archive.writestr(own, text)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(ValueError, match=r"entities\.zip: not a whole zip file"):
        read_entities(path)
    path.write_bytes(whole.replace(b"Two men] ride", b"Six men] ride"))  # the checksum no longer fits
    with pytest.raises(ValueError, match=r"entities\.zip: not a whole zip file \(Bad CRC-32"):
        read_entities(path)


# ------------------------------------------------- a captioner's own words


def split(word: str) -> list[str]:
    return re.findall(r"[a-z]+", word.lower())


def test_split_again_moves_phrases_and_drops_empty_ones() -> None:
    nowhere = np.zeros((0, 4))
    written = Sentence(
        "7.jpg",
        ('"', "Old", "-", "T-shirt", "men", "!", "wave"),
        (
            Phrase("7.jpg", 0, 4, "clothing", nowhere),
            Phrase("7.jpg", 2, 3, "other", nowhere),
            Phrase("7.jpg", 4, 6, "people", nowhere),
        ),
    )
    spoken = written.split_again(split)
    assert spoken.words == ("old", "t", "shirt", "men", "wave")
    assert [(phrase.start, phrase.end, phrase.type) for phrase in spoken.phrases] == [
        (0, 3, "clothing"),
        (3, 4, "people"),
    ]


def test_generated_captions_match_by_head_noun(make_source) -> None:
    sentences = {
        image_id: [sentence.split_again(split) for sentence in own]
        for image_id, own in read_entities(make_source(picture())).items()
    }
    words = ("red", "men", "near", "a", "bus", "and", "sea")
    captions = [
        Caption(words, tuple(range(7)), -1.0, image_id="7"),
        Caption(words, tuple(range(7)), -1.0, image_id="8"),
    ]
    matched, other_picture = match_head_nouns(captions, sentences)
    assert [(phrase.start, phrase.end, phrase.type) for phrase in matched] == [
        (1, 2, "people"),
        (4, 5, "vehicles"),
        (6, 7, "scene"),
    ]
    assert [len(phrase.boxes) for phrase in matched] == [2, 1, 0]
    assert other_picture == []


def test_a_head_noun_of_several_phrases_has_all_their_boxes() -> None:
    left, right = np.array([[0, 0, 0.5, 1.0]]), np.array([[0.5, 0, 1.0, 1.0]])
    own = [
        Sentence("7", ("a", "dog"), (Phrase("7", 0, 2, "other", np.zeros((0, 4))),)),
        Sentence("7", ("big", "dog"), (Phrase("7", 0, 2, "animals", left),)),
        Sentence("7", ("dog", "dog"), (Phrase("7", 0, 1, "animals", left), Phrase("7", 1, 2, "animals", right))),
    ]
    ((phrase,),) = match_head_nouns([Caption(("dog",), (4,), -1.0, image_id="7")], {"7": own})
    assert phrase.type == "animals"
    np.testing.assert_allclose(phrase.boxes, np.concatenate([left, right]))


@pytest.mark.real
def test_the_published_files_read_whole(shared_data: Path) -> None:
    listed = (shared_data / "flickr8k" / "Flickr_8k.devImages.txt").read_text().split()
    sentences = read_entities(shared_data / "flickr8k" / "flickr30k_entities.zip", listed)
    assert len(sentences) == 1000 and {len(own) for own in sentences.values()} == {5}
    with_boxes = [len(phrase.boxes) > 0 for own in sentences.values() for one in own for phrase in one.phrases]
    assert 0.6 < np.mean(with_boxes) < 0.95
