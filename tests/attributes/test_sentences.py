"""Attributes in a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from attncap.attributes.sentences import contradicted_words, stated_attributes, to_sentence, true_claims
from attncap.attributes.tables import characteristics_as_labels, faces_columns
from attncap.captions import Caption
from attncap.data.faces.captions import usual_caption
from attncap.data.faces.claims import stated_characteristics
from attncap.data.faces.dataset import sample_attributes


def test_a_sentence_of_celeba_names() -> None:
    names = ["Male", "Young", "No_Beard", "Big_Nose", "Wavy_Hair", "Eyeglasses", "Wearing_Lipstick", "Wearing_Hat"]
    say = lambda *probs, **more: to_sentence(names, np.array(probs), np.full(8, 0.5), **more)  # noqa: E731
    assert say(0.1, 0.9, 0.9, 0.1, 0.7, 0.6, 0.8, 0.1) == (
        "a young woman with wavy hair and eyeglasses, wearing lipstick"
    )
    assert say(0.9, 0.2, 0.9, 0.6, 0.1, 0.1, 0.1, 0.9) == "a man with a big nose, wearing a hat"
    assert say(0.1, 0.9, 0.9, 0.1, 0.7, 0.6, 0.8, 0.1, most=2) == "a young woman wearing lipstick"
    assert say(*[0.0] * 8) == "a woman"
    assert to_sentence(["big nose"], np.array([0.1]), np.array([0.5])) == "a person"
    assert to_sentence(["Attractive", "Big_Lips"], np.ones(2), np.ones(2)) == "an attractive person with big lips"


def test_the_thresholds_decide_what_is_said() -> None:
    assert to_sentence(["Big_Nose"], np.array([0.3]), np.array([0.3])) == "a person with a big nose"
    assert to_sentence(["Big_Nose"], np.array([0.9]), np.array([0.95])) == "a person"


def test_a_sentence_of_the_drawn_faces_says_what_is_there() -> None:
    names = faces_columns()
    for seed in range(40):
        face = sample_attributes(np.random.default_rng(seed))
        labels = characteristics_as_labels(pd.DataFrame([face]))[0]
        sentence = to_sentence(names, labels, np.full(len(names), 0.5))
        assert sentence == usual_caption(face)
        few = {
            name for name, _, _ in stated_characteristics(to_sentence(names, labels, np.full(len(names), 0.5), most=2))
        }
        things = {name.removesuffix("_color") for name in few}
        assert "mouth" in things and len(things) == 3
        claims = stated_characteristics(sentence)
        assert len(claims) >= 4 and all(face[name] == value for name, value, _ in claims)


def test_a_sentence_of_uncertain_faces_still_reads() -> None:
    names = faces_columns()
    for seed in range(20):
        probs = np.random.default_rng(seed).random(len(names))
        assert stated_characteristics(to_sentence(names, probs, np.full(len(names), 0.5)))
    nothing = to_sentence(names, np.zeros(len(names)), np.full(len(names), 0.5))
    assert stated_characteristics(nothing)


CELEBA = ["5_o_Clock_Shadow", "Attractive", "Bald", "Bangs", "Big_Nose", "Male", "Mouth_Slightly_Open", "No_Beard"]
CELEBA += ["Pale_Skin", "Pointy_Nose", "Smiling", "Wearing_Earrings", "Wearing_Necktie", "Young"]


def test_what_a_sentence_says_is_read_back() -> None:
    said = 0
    for seed in range(60):
        labels = np.random.default_rng(seed).integers(0, 2, len(CELEBA)).astype(float)
        stated = stated_attributes(CELEBA, to_sentence(CELEBA, labels, np.full(len(CELEBA), 0.5)))
        expected = np.where(labels == 1, 1.0, np.nan)
        expected[CELEBA.index("Male")] = labels[CELEBA.index("Male")]  # a woman is not Male
        expected[CELEBA.index("No_Beard")] = np.nan  # is not said
        np.testing.assert_array_equal(stated, expected)
        said += np.isfinite(stated).sum()
    assert said > 60 * 5
    assert np.isnan(stated_attributes(["Male", "Big_Nose"], "a person with a nose as big as a bigger nose")).all()


def test_claims_are_counted_against_the_table() -> None:
    table = pd.DataFrame({"image_id": ["b", "a"], "Male": [0, 1], "Bangs": [1, 0], "Big_Nose": [np.nan, 1]})
    captions = {"a": "A man with bangs and a big nose.", "b": "a man with bangs and a big nose", "a2": "a person"}
    # a: a man (true), bangs (false), big nose (true); b: a man (false), bangs (true), big nose (not known)
    np.testing.assert_array_equal(true_claims({name: captions[name] for name in "ab"}, table), [[2, 3], [1, 2]])
    assert true_claims({}, table).shape == (0, 2)
    with pytest.raises(KeyError):
        true_claims(captions, table)


def test_a_table_in_sentences_is_a_data_set_of_captions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from attncap.attributes.tables import load_attributes
    from attncap.cli.main import main
    from attncap.data.load import load

    (tmp_path / "images").mkdir()
    for n in range(20):
        Image.new("RGB", (8, 8), (n, 0, 0)).save(tmp_path / "images" / f"{n}.png")
    rows = "".join(f"{n}.png,{n % 2},{n % 3 == 0:d},\n" for n in range(20))
    (tmp_path / "table.csv").write_text("file,Male,Big_Nose,Bangs\n" + rows)
    spec, out = f"attributes:{tmp_path / 'table.csv'}:{tmp_path / 'images'}", tmp_path / "captions.csv"
    command = ["attributes", "texts", "--data", spec, "--val", "3", "--test", "4", "--out", str(out)]
    assert main(command) == 0
    assert "4 different texts" in capsys.readouterr().out
    told = load(f"table:{out}:{tmp_path / 'images'}")
    captions = dict(zip(told.captions["image_id"], told.captions["caption"], strict=True))
    assert captions["9.png"] == "a man with a big nose" and captions["4.png"] == "a woman"
    # Not known is not said, and the split is that of the table.
    own = load_attributes(spec, val=3, test=4).pictures.set_index("image_id")["split"].sort_index()
    assert told.pictures.set_index("image_id")["split"].sort_index().tolist() == own.tolist()
    assert (own == "test").sum() == 4


def caption_of(text: str) -> Caption:
    words = tuple(text.split(" "))
    return Caption(words, tuple(range(len(words))), -1.0, None)


def test_words_that_are_false_of_a_drawn_face() -> None:
    face = {**sample_attributes(np.random.default_rng(0)), "image_id": "a.png"}
    face |= {"hair": "curly", "hair_color": "brown", "eyes": "green", "mouth": "smile", "beard": "none", "nose": "big"}
    right = caption_of("a smiling person with curly brown hair , green eyes and a big nose")
    assert contradicted_words(right, face) == []
    # "brown" is true of the hair and false of the eyes; a comma is a word of the caption and none of the text.
    wrong = caption_of("a sad person with curly brown hair , brown eyes and a beard")
    assert [(at, wrong.words[at]) for at in contradicted_words(wrong, face)] == [
        (1, "sad"),
        (8, "brown"),
        (12, "beard"),
    ]


def test_words_that_a_table_contradicts() -> None:
    caption = caption_of("a young woman with a big nose , a five o'clock shadow and wavy hair , wearing lipstick")
    row = {"image_id": "1.jpg", "Male": -1, "Young": 0, "Big_Nose": 0, "5_o_Clock_Shadow": -1, "Wavy_Hair": 1}
    row |= {"Wearing_Lipstick": float("nan"), "Eyeglasses": 1}
    assert [caption.words[at] for at in contradicted_words(caption, row)] == [
        "young",
        "big",
        "nose",
        "five",
        "o'clock",
        "shadow",
    ]
    assert contradicted_words(caption, {**row, "Male": 1})[1] == 2  # woman
    assert contradicted_words(caption_of("a man"), row) == [1] and contradicted_words(caption, {}) == []
