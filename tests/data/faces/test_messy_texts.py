"""Messy texts for the drawn faces: true, reproducible, and readable by what is mined from them."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from attncap.characteristics import mine
from attncap.data.dataset import CaptionData
from attncap.data.faces.captions import CHARACTERISTICS
from attncap.data.faces.dataset import sample_attributes
from attncap.data.faces.messy_texts import _WORDINGS, messy_text, with_messy_texts


def rows(number, seed=0):
    rng = np.random.default_rng(seed)
    return [sample_attributes(rng) for _ in range(number)]


def test_wordings_name_known_values():
    for name, value in _WORDINGS:
        assert value == "" or value in CHARACTERISTICS[name]


def test_texts_are_short_varied_and_true():
    rng = np.random.default_rng(1)
    faces = rows(600)
    texts = [messy_text(face, rng) for face in faces]
    assert all(text.strip() for text in texts)
    assert len(set(texts)) > 500
    said = {"bald": "hair", "freckles": "freckles", "sunglasses": "glasses"}
    for face, text in zip(faces, texts, strict=True):
        for word, name in said.items():
            if word in text.lower().replace(",", " ").split():
                assert face[name] in (word, "some")


def test_data_set_has_one_text_per_image():
    frame = pd.DataFrame(rows(20)).assign(image_id=[f"{i}.png" for i in range(20)])
    pictures = pd.DataFrame({"image_id": frame["image_id"], "path": frame["image_id"], "split": "train"})
    data = CaptionData("faces-20", pictures, pd.DataFrame({"image_id": ["0.png"], "caption": ["a face"]}), frame)
    first, again = with_messy_texts(data), with_messy_texts(data)
    assert first.captions.equals(again.captions)
    assert first.captions["image_id"].tolist() == pictures["image_id"].tolist()
    assert not with_messy_texts(data, seed=1).captions.equals(first.captions)
    with pytest.raises(ValueError, match="the drawn faces' table"):
        with_messy_texts(CaptionData("mine", pictures, data.captions))


def test_mining_reads_them():
    rng = np.random.default_rng(2)
    texts = [messy_text(face, rng) for face in rows(1500)]
    mined = mine(texts).lexicon
    stated = mined.statements("a person with big nose and no hat, bowtie")
    names = Counter({entry.phrase: entry.characteristic for entry in mined.entries})
    assert stated[names["big nose"]] is True
    assert stated[names["bow tie"]] is True
    assert {"very", "quite", "really"} <= {e.phrase for e in mined.entries if not e.characteristic}
