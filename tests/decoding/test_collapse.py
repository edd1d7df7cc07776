"""Warnings of collapsed captions: few distinct, one word, maps alike; none for varied ones."""

from __future__ import annotations

import numpy as np

from attncap.captions import Caption
from attncap.decoding.collapse import collapse_warnings


def captions(texts: list[str], maps: np.ndarray | None = None) -> list[Caption]:
    found = []
    for number, text in enumerate(texts):
        words = tuple(text.split())
        weights = None if maps is None else np.repeat(maps[number][None], len(words), axis=0)
        found.append(Caption(words, (), 0.0, weights))
    return found


def test_few_distinct_captions_and_short_ones() -> None:
    few, short = collapse_warnings(captions(["woman"] * 39 + ["man"]))
    assert few.startswith("The captions have collapsed: 2 distinct captions for 40 images ('woman' 39 times)")
    assert short.startswith("40 of 40 captions have at most one word")


def test_maps_that_are_alike() -> None:
    texts = [f"a dog number {n}" for n in range(30)]
    uniform = np.full((30, 3, 5), 1 / 15)
    [alike] = collapse_warnings(captions(texts, uniform))
    assert "attention maps of all images are alike (they differ by 0.0%)" in alike
    varied = np.random.default_rng(0).dirichlet(np.ones(15), 30).reshape(30, 3, 5)
    assert collapse_warnings(captions(texts, varied)) == []


def test_a_few_images_say_nothing() -> None:
    assert collapse_warnings(captions(["woman"] * 19)) == []
