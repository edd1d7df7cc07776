"""Attributes in a sentence."""

from __future__ import annotations

import numpy as np
import pandas as pd

from attncap.attribute_tables import characteristics_as_labels, faces_columns
from attncap.attribute_words import to_sentence
from attncap.faces import sample_attributes
from attncap.faces_captions import stated_characteristics, usual_caption


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
        claims = stated_characteristics(sentence)
        assert len(claims) >= 4 and all(face[name] == value for name, value, _ in claims)


def test_a_sentence_of_uncertain_faces_still_reads() -> None:
    names = faces_columns()
    for seed in range(20):
        probs = np.random.default_rng(seed).random(len(names))
        assert stated_characteristics(to_sentence(names, probs, np.full(len(names), 0.5)))
    nothing = to_sentence(names, np.zeros(len(names)), np.full(len(names), 0.5))
    assert stated_characteristics(nothing)
