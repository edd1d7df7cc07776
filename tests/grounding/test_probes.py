"""The probes: uniform attention is exactly uniform and leaves no trace; blanking is felt where the model looks."""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np
import pytest

from attncap.captions import Caption
from attncap.decoding.predict import caption_stored
from attncap.decoding.replay import CaptionReplay, replay_captions
from attncap.grounding.phrases import Phrase
from attncap.grounding.probes import blank, compare_with_uniform, measure_faithfulness, uniform_attention
from attncap.models.attention_captioner import AttentionCaptioner
from attncap.models.captioner import Captioner
from tests.captioners import (
    COLS,
    ROWS,
    TOKENIZER,
    D,
    L,
    LooksAtOneCell,
    ReadsCells,
    Store,
    picture_with,
    pictures_of,
    sigmoid,
)


@pytest.fixture(scope="module")
def captioner() -> AttentionCaptioner:
    keras.utils.set_random_seed(0)
    return AttentionCaptioner(
        TOKENIZER, (ROWS, COLS, D), embedding_units=11, hidden_units=13, projection_units=17, attention_units=19
    )


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 2, (4, ROWS, COLS, D)).astype(np.float16)


# ------------------------------------------------------------------ captions fed in


def test_replay_keeps_the_words_that_people_wrote(captioner: AttentionCaptioner, features: np.ndarray) -> None:
    captions = {
        "0.jpg": ["A dog runs.", "Dog"],
        "2.jpg": ["a RED unicorn's hat", "!", "a a a a a a a a a a a a"],
        "3.jpg": [],
    }
    read = replay_captions(captioner, Store(features), pictures_of(4), captions, batch_size=1)  # type: ignore[arg-type]
    assert list(read) == ["0.jpg", "2.jpg"]
    assert [caption.words for caption in read["0.jpg"]] == [("a", "dog", "runs"), ("dog",)]
    odd, empty, long = read["2.jpg"]
    assert odd.words == ("a", "red", "unicorn's", "hat") and empty.words == () and len(long.words) == 12
    assert odd.attention_weights is not None and odd.attention_weights.shape == (4, ROWS, COLS)
    assert odd.word_log_probs is not None and np.isfinite(odd.word_log_probs).tolist() == [True, True, False, True]
    assert odd.log_prob == -np.inf and odd.image_id == "2.jpg"
    np.testing.assert_allclose(long.attention_weights.sum(axis=(1, 2)), 1.0, rtol=1e-5)  # type: ignore[union-attr]


def test_replay_is_the_same_alone_and_side_by_side(captioner: AttentionCaptioner, features: np.ndarray) -> None:
    captions = [["a dog", "a red hat runs"], ["cat"], ["a", "a dog", "red hat"], ["a cat runs"]]
    together = CaptionReplay(captioner, batch_size=3)(features, captions)
    for picture, own in enumerate(captions):
        for number, text in enumerate(own):
            [[alone]] = CaptionReplay(captioner, batch_size=1)(features[picture : picture + 1], [[text]])
            both = together[picture][number]
            np.testing.assert_allclose(both.word_log_probs, alone.word_log_probs, rtol=1e-4)
            np.testing.assert_allclose(both.attention_weights, alone.attention_weights, rtol=1e-4)
            assert both.log_prob == pytest.approx(alone.log_prob, rel=1e-4)
            # By the model's own steps: the map of word t is that of the step that emits it.
            state = captioner.init_state(features[picture : picture + 1])
            for t, token in enumerate([1, *TOKENIZER.tokenize(text)[:-1]]):
                _, state, weights = captioner.step(np.array([[token]]), state)
                row = keras.ops.convert_to_numpy(weights)[0, 0].reshape(ROWS, COLS)
                np.testing.assert_allclose(both.attention_weights[t], row, rtol=1e-3)  # type: ignore[index]


# ------------------------------------------------------------------ uniform attention


def test_maps_are_exactly_uniform_inside_and_weights_restored(
    captioner: AttentionCaptioner, features: np.ndarray
) -> None:
    before = [np.array(keras.ops.convert_to_numpy(weight)) for weight in captioner.weights]
    text = [["a red dog"]] * 4
    read = CaptionReplay(captioner)
    attends = read(features, text)[0][0].attention_weights
    assert attends is not None and np.ptp(attends) > 1e-3
    with uniform_attention(captioner):
        for (caption,) in read(features, text):
            np.testing.assert_array_equal(caption.attention_weights, np.full((3, ROWS, COLS), np.float32(1) / L))
    with pytest.raises(KeyError, match="in the block"), uniform_attention(captioner):
        raise KeyError("in the block")
    for weight, kept in zip(captioner.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), kept)


def test_uniform_attention_needs_attention() -> None:
    blind = Captioner(TOKENIZER, (ROWS, COLS, D), embedding_units=3, hidden_units=5)
    with pytest.raises(ValueError, match="Captioner has no attention"), uniform_attention(blind):
        pass


def test_comparison_has_the_attending_captioner_first(captioner: AttentionCaptioner, features: np.ndarray) -> None:
    pictures = pictures_of(4)
    own = CaptionReplay(captioner)  # warm, so that a stale graph would show
    own(features, [["a"]] * 4)
    store: Any = Store(features)
    said = {c.image_id: [c.text] for c in caption_stored(captioner, store, pictures, beam_width=1, max_length=5)}
    comparison = compare_with_uniform(captioner, store, pictures, said, beam_width=1, max_length=5).to_json_dict()
    assert comparison["n"] == 4
    assert comparison["a"]["rouge_l"] == pytest.approx(1.0)
    assert comparison["b"]["rouge_l"] < 0.99


# ------------------------------------------------------------------ blanking


def test_blank_by_hand() -> None:
    features = np.arange(2 * 3, dtype=np.float16).reshape(2, 3, 1)  # mean 2.5
    np.testing.assert_array_equal(blank(features, 1, 2)[..., 0], [[0, 1, 2], [3, 4, 2.5]])
    np.testing.assert_array_equal(blank(features, 1, 2, radius=1)[..., 0], [[0, 2.5, 2.5], [3, 2.5, 2.5]])
    assert features[1, 2, 0] == 5
    there = np.array([[True, True, True], [True, False, False]])  # mean 1.5
    np.testing.assert_array_equal(blank(features, 0, 2, 1, there)[..., 0], [[0, 1.5, 1.5], [3, 4, 5]])


def test_padding_is_neither_drawn_nor_blanked() -> None:
    captioner = ReadsCells(dog=6, attends=3)  # looks at one cell and reads another
    captioner.masked = True
    features = np.concatenate([picture_with({3: 1.0, 6: 3.0})[None]] * 4)  # the other 13 of 15 cells are padding
    store: Any = Store(features)
    pictures = pictures_of(4)
    read = replay_captions(captioner, store, pictures, {image_id: ["dog"] for image_id in pictures["image_id"]})
    found = measure_faithfulness(captioner, store, pictures, [caption for [caption] in read.values()])
    assert (found.words["attended"] == 0).all()
    expected = np.log(sigmoid(2.0)) - np.log(sigmoid(3.0))  # the only other cell becomes the mean of the two
    np.testing.assert_allclose(found.words["random"], expected, rtol=1e-4)


def test_regions_have_no_neighbors_to_blank() -> None:
    caption = Caption(("dog",), (5,), -1.0, np.ones((1, 1, 1)), np.array([-1.0]), boxes=np.array([[0, 0, 1, 1.0]]))
    with pytest.raises(ValueError, match="radius counts cells of a grid, and the maps are of regions: radius=0"):
        measure_faithfulness(ReadsCells(attends=3), Store(np.zeros(0)), pictures_of(1), [caption], radius=1)  # type: ignore[arg-type]


def test_blanking_hurts_the_word_where_the_model_looks() -> None:
    features = np.zeros((4, ROWS, COLS, D), np.float16)
    for picture, cell in enumerate((0, 4, 7, 14)):
        features[picture].reshape(L, D)[cell, 0] = 3.0
    store: Any = Store(features)
    captioner: Any = LooksAtOneCell()
    pictures = pictures_of(4)
    texts = {image_id: ["a dog", "a unicorn"] for image_id in pictures["image_id"]}
    read = replay_captions(captioner, store, pictures, texts)
    captions = [caption for own in read.values() for caption in own]
    box = np.array([[0.0, 0.0, 1.0, 1.0]])
    phrases = [[Phrase(str(caption.image_id), 0, 2, "animals", box)] for caption in captions]
    found = measure_faithfulness(captioner, store, pictures, captions, phrases, batch_size=3)
    # The unicorn is outside the vocabulary: it has no probability to lose.
    assert found.words["word"].tolist() == ["dog"] * 4 + ["a"] * 8
    per_kind: Any = found.per_kind
    region, function = per_kind.loc["region"], per_kind.loc["function"]
    mean = 3.0 / L  # what the brightest cell becomes
    expected = np.log(1 / (1 + np.exp(-mean))) - np.log(1 / (1 + np.exp(-3.0)))
    assert region["attended"] == pytest.approx(expected, rel=1e-2)
    assert region["random"] == pytest.approx(0.0, abs=1e-3)
    assert region["attended_worse"] == 1.0 and region["low"] <= region["difference"] <= region["high"] < 0
    assert function["attended"] == pytest.approx(0.0, abs=1e-4) and function["n_words"] == 8
    assert "name a region" in found.to_text() and json.dumps(found.to_json_dict())

    few = measure_faithfulness(captioner, store, pictures, captions, phrases, words_each=2, radius=1)
    assert few.per_kind["n_words"].tolist() == [2, 2]
    assert few.to_json_dict()["radius"] == 1 and float(few.to_json_dict()["per_kind"]["region"]["attended"]) < -0.2


def test_blanking_errors() -> None:
    captioner: Any = LooksAtOneCell()
    nothing: Any = Store(np.zeros((1, ROWS, COLS, D), np.float16))
    maps, probs = np.full((1, ROWS, COLS), 1 / L, np.float32), np.zeros(1, np.float32)
    runs = Caption(("runs",), (8,), -1.0, maps, probs, "0.jpg")
    with pytest.raises(ValueError, match="nothing to blank"):
        measure_faithfulness(captioner, nothing, pictures_of(1), [runs], [[]])
    bare = Caption(("a",), (4,), -1.0, image_id="0.jpg")
    with pytest.raises(ValueError, match=r"'0\.jpg' has no maps or no log-probabilities"):
        measure_faithfulness(captioner, nothing, pictures_of(1), [bare], [[]])
