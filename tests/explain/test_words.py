"""explain_word: occlusion, integrated gradients and attention, by hand and for every captioner."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import attncap
from attncap.captions import Caption
from attncap.decoding.replay import CaptionReplay
from attncap.explain.occlusion import baseline_of, hide, occlusion_relevance, to_maps, windows_of
from attncap.explain.words import METHODS, Explainer, explain_word
from attncap.models.adaptive_attention_captioner import AdaptiveAttentionCaptioner
from attncap.models.attention_captioner import AttentionCaptioner
from attncap.models.ensemble import Ensemble
from attncap.models.show_and_tell import ShowAndTell
from attncap.models.transformer_captioner import TransformerCaptioner
from attncap.plotting.attention import plot_attention
from tests.captioners import COLS, ROWS, D, L, ReadsCells, picture_with, seeded, sigmoid

SMALL: dict[str, Any] = {"embedding_units": 11, "hidden_units": 13, "dropout": 0.0}
KINDS = {
    "attention": (AttentionCaptioner, {**SMALL, "projection_units": 17, "attention_units": 19}),
    "adaptive": (AdaptiveAttentionCaptioner, {**SMALL, "projection_units": 17, "attention_units": 19}),
    "show-and-tell": (ShowAndTell, SMALL),
    "transformer": (TransformerCaptioner, {"hidden_units": 12, "heads": 3, "feedforward_units": 7, "dropout": 0.0}),
}


def make(name: str) -> Any:
    if name == "ensemble":
        return Ensemble([make("attention"), make("show-and-tell")])
    kind, settings = KINDS[name]
    return seeded(kind, **settings)


# ------------------------------------------------------------------ by hand


def test_occlusion_is_the_drop_in_log_probability_by_hand() -> None:
    captioner = ReadsCells(dog=6, red=11)
    features = picture_with({6: 2.0, 11: -1.0, 3: 9.0})  # cell 3 is bright and read by nothing
    relevance = Explainer(captioner, baseline="zero").relevance(features, "dog red")
    expected = np.zeros((2, L))
    expected[0, 6] = np.log(sigmoid(2.0)) - np.log(0.5)
    expected[1, 11] = np.log(sigmoid(-1.0)) - np.log(0.5)  # negative: the cell speaks against "red"
    np.testing.assert_allclose(relevance.reshape(2, L), expected, atol=1e-5)

    explained = explain_word(captioner, features, "dog red", "occlusion", baseline="zero")
    assert explained.words == ("dog", "red") and explained.grid_box == (0.0, 0.0, 1.0, 1.0)
    assert explained.attention_weights is not None and explained.word_log_probs is not None
    maps = explained.attention_weights.reshape(2, L)
    np.testing.assert_array_equal(maps[0], np.eye(L)[6])
    np.testing.assert_allclose(maps[1], 1 / L)  # nothing speaks for "red": uniform
    np.testing.assert_allclose(explained.word_log_probs, np.log([sigmoid(2.0), sigmoid(-1.0)]), rtol=1e-5)


def test_integrated_gradients_are_complete_by_hand() -> None:
    captioner = ReadsCells(dog=6, red=11)
    features = picture_with({6: 2.0, 11: -1.0, 3: 9.0})
    explainer = Explainer(captioner, "gradient", baseline="zero", steps=24)
    relevance = explainer.relevance(features, "dog red").reshape(2, L)
    # One cell alone is read, so that it gets all of f(F) - f(F').
    np.testing.assert_allclose(relevance[0, 6], np.log(sigmoid(2.0)) - np.log(0.5), rtol=1e-3)
    np.testing.assert_allclose(relevance[1, 11], np.log(sigmoid(-1.0)) - np.log(0.5), rtol=1e-3)
    assert np.abs(relevance).sum() == pytest.approx(abs(relevance[0, 6]) + abs(relevance[1, 11]))


def test_attention_is_that_of_the_step() -> None:
    captioner = ReadsCells(attends=4)
    explained = explain_word(captioner, picture_with({6: 2.0}), "dog red", "attention")
    assert explained.attention_weights is not None
    np.testing.assert_array_equal(explained.attention_weights.reshape(2, L), np.eye(L)[[4, 4]])
    with pytest.raises(ValueError, match="ReadsCells has no attention maps: take method='occlusion'"):
        explain_word(ReadsCells(), picture_with({}), "dog", "attention")


def test_gradients_of_captions_of_different_lengths() -> None:
    captioner = ReadsCells(dog=6, red=11)
    features = picture_with({6: 2.0, 11: -1.0})
    explainer = Explainer(captioner, "gradient", baseline="zero", steps=3)
    texts = ["dog red", "dog " * 20, "cat " * 33, "red"]
    together = [explainer.relevance(features, text) for text in texts]
    for text, found in zip(texts, together, strict=True):
        alone = Explainer(captioner, "gradient", baseline="zero", steps=3).relevance(features, text)
        np.testing.assert_array_equal(found, alone)


def test_windows_cover_every_cell() -> None:
    single = windows_of(3, 5)
    assert single.shape == (15, 3, 5) and (single.sum(axis=0) == 1).all()
    large = windows_of(16, 16)
    assert large.sum(axis=(1, 2)).max() == 9 and large.any(axis=0).all()
    regions = windows_of(1, 120)  # no grid: neighbors in the row are not neighbors in the image
    assert regions.shape == (120, 1, 120) and (regions.sum(axis=2) == 1).all()
    for rows, cols, window in ((7, 11, 2), (7, 11, 5), (1, 13, 3), (2, 2, 9)):
        windows = windows_of(rows, cols, window)
        assert windows.any(axis=0).all() and windows.any(axis=(1, 2)).all()
    with pytest.raises(ValueError, match="window is a number of cells of at least 1, got 0"):
        windows_of(3, 3, 0)


def test_a_window_gives_its_drop_to_all_its_cells() -> None:
    features = picture_with({7: 1.0})[:, :, :1]

    def read(several: np.ndarray) -> np.ndarray:
        return several.reshape(len(several), L)[:, 7:8]  # (n, 1): the value of cell 7, in the middle

    relevance = occlusion_relevance(read, features, "zero", window=3)
    inside = windows_of(ROWS, COLS, 3).reshape(-1, L)
    expected = (inside * inside[:, 7:8]).sum(axis=0) / inside.sum(axis=0)  # the share of a cell's windows that hold 7
    np.testing.assert_allclose(relevance.reshape(L), expected)
    assert relevance.reshape(L)[7] == 1.0


def test_baselines_by_hand() -> None:
    padded = np.array([[[2.0], [4.0], [0.0]]])  # the last one is padding
    np.testing.assert_array_equal(baseline_of(padded, there=np.array([[True, True, False]]))[..., 0], [[3, 3, 0]])
    np.testing.assert_array_equal(
        baseline_of(padded)[..., 0], [[2, 2, 2]]
    )  # not padding: the encoder saw nothing there
    features = np.arange(1, 7, dtype=np.float16).reshape(2, 3, 1)
    assert (baseline_of(features) == 3.5).all() and (baseline_of(features, "zero") == 0).all()
    assert (baseline_of(features, np.array([7.0])) == 7).all()
    cover = np.array([[0.0, 1.0, 0.5], [0, 0, 0]])
    np.testing.assert_allclose(hide(features, cover, baseline_of(features))[..., 0], [[1, 3.5, 3.25], [4, 5, 6]])
    with pytest.raises(ValueError, match="baseline is 'mean', 'zero' or an array, got 'blur'"):
        baseline_of(features, "blur")
    with pytest.raises(ValueError, match=r"broadcasts to \(rows, cols, D\) = \(2, 3, 1\), got \(2, 2\)"):
        baseline_of(features, np.zeros((2, 2)))


def test_maps_of_relevance() -> None:
    np.testing.assert_allclose(
        to_maps(np.array([[[3.0, -1.0, 1.0]], [[-1.0, 0.0, -2.0]]])), [[[0.75, 0, 0.25]], [[1 / 3] * 3]]
    )
    assert to_maps(np.zeros((0, 2, 3))).shape == (0, 2, 3)
    there = np.array([[True, False, True]])
    np.testing.assert_allclose(
        to_maps(np.array([[[3.0, 2.0, 1.0]], [[-1.0, 0.0, -2.0]]]), there), [[[0.75, 0, 0.25]], [[0.5, 0, 0.5]]]
    )


@pytest.mark.parametrize("settings", [{}, {"method": "gradient", "steps": 2}, {"window": 3}])
def test_no_map_points_at_padding(settings: dict[str, Any]) -> None:
    captioner = ReadsCells(dog=6, red=11)
    captioner.masked = True
    features = picture_with({6: 3.0, 8: 1.0})  # the other cells are padding
    explainer = Explainer(captioner, **settings)
    [dog] = explainer(features[None], ["dog"])
    [same] = Explainer(captioner, baseline=features, **settings)(features[None], ["dog"])  # no cell matters: uniform
    assert dog.attention_weights is not None and same.attention_weights is not None
    weights = dog.attention_weights.reshape(L)
    assert weights[6] > 0 and np.delete(weights, [6, 8]).max() == 0
    np.testing.assert_allclose(same.attention_weights.reshape(L), np.eye(L)[[6, 8]].mean(axis=0))
    relevance = explainer.relevance(features, "dog").reshape(L)
    assert relevance[6] > 0 and not np.delete(relevance, [6, 8]).any()


# ------------------------------------------------------------------ every captioner


@pytest.mark.parametrize("name", [*KINDS, "ensemble"])
def test_every_captioner_is_explained(name: str) -> None:
    captioner = make(name)
    rng = np.random.default_rng(1)
    features = rng.normal(0, 1, (ROWS, COLS, D)).astype(np.float32)
    text = "red dog"
    methods = METHODS if captioner.has_attention else METHODS[:2]
    for method in methods:
        explained = explain_word(captioner, features, text, method, steps=2, batch_size=15)
        maps = explained.attention_weights
        assert maps is not None and maps.shape == (2, ROWS, COLS) and (maps >= 0).all()
        np.testing.assert_allclose(maps.sum(axis=(1, 2)), 1, rtol=1e-5)
        plot_attention(rng.integers(0, 255, (32, 32, 3)).astype(np.uint8), explained)
    [[replayed]] = CaptionReplay(captioner, batch_size=1)(features[None], [[text]])
    np.testing.assert_allclose(explained.word_log_probs, replayed.word_log_probs, rtol=1e-4)
    other = rng.normal(0, 1, (ROWS, COLS, D)).astype(np.float32)
    # Completeness: relevances of a word sum to what the whole image adds to the baseline's log-probability.
    relevance = Explainer(captioner, "gradient", baseline=other, steps=12).relevance(features, text)
    [[nothing]] = CaptionReplay(captioner, batch_size=1)(other[None], [[text]])
    gained = replayed.word_log_probs - nothing.word_log_probs
    np.testing.assert_allclose(relevance.sum(axis=(1, 2)), gained, atol=0.01 + 0.05 * np.abs(gained).max())
    assert np.abs(gained).max() > 0.01


def test_captions_are_read_by_their_token_ids_and_unknown_words_are_uniform() -> None:
    captioner = make("attention")
    features = np.random.default_rng(2).normal(0, 1, (2, ROWS, COLS, D)).astype(np.float32)
    generated = Caption(("a", "dog"), (4, 5), -1.0, image_id="1.jpg")
    first, second = Explainer(captioner)(features, [generated, "a unicorn"])
    assert first.image_id == "1.jpg" and first.words == ("a", "dog")
    assert second.words == ("a", "unicorn") and second.attention_weights is not None
    np.testing.assert_allclose(second.attention_weights[1], 1 / L)
    assert second.word_log_probs is not None and np.isneginf(second.word_log_probs[1])
    for method in METHODS:
        [again] = Explainer(captioner, method)(features[:1], [generated])
        np.testing.assert_allclose(again.word_log_probs, first.word_log_probs, rtol=1e-5)
        assert explain_word(captioner, features[0], "", method).words == ()


def test_gradients_are_compiled_once_and_do_not_depend_on_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    captioner = make("ensemble")
    features = np.random.default_rng(3).normal(0, 1, (2, ROWS, COLS, D)).astype(np.float32)
    explainer = Explainer(captioner, "gradient", steps=3, batch_size=4)  # 6 and 9 points: no whole number of batches
    texts = ["red dog", "a dog runs"]
    found = [explainer.relevance(one, text) for one, text in zip(features, texts, strict=True)]
    other = Explainer(captioner, "gradient", steps=3, batch_size=64)
    for one, text, relevance in zip(features, texts, found, strict=True):
        np.testing.assert_allclose(other.relevance(one, text), relevance, rtol=1e-4, atol=1e-6)
    if keras.backend.backend() != "torch":  # it compiles nothing

        def again(*_: Any, **__: Any) -> None:
            raise AssertionError("traced again for a caption of the same shape")

        monkeypatch.setattr(captioner, "init_state", again)
        np.testing.assert_array_equal(explainer.relevance(features[0], texts[0]), found[0])


def test_what_is_refused() -> None:
    captioner = make("attention")
    features = np.zeros((ROWS, COLS, D), np.float32)
    with pytest.raises(ValueError, match="method is one of occlusion, gradient, attention, got 'lime'"):
        explain_word(captioner, features, "a dog", "lime")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"holds no encoder: give features of shape \(3, 5, 7\)"):
        explain_word(captioner, "me.jpg", "a dog")
    with pytest.raises(ValueError, match=r"features need shape \(N, 3, 5, 7\)"):
        Explainer(captioner)(features[None, :2], ["a dog"])
    with pytest.raises(ValueError, match="one caption per image is needed, got 2 for 1 images"):
        Explainer(captioner)(features[None], ["a dog", "a cat"])
    with pytest.raises(ValueError, match="steps needs at least 1"):
        explain_word(captioner, features, "a dog", "gradient", steps=0)
    with pytest.raises(ValueError, match="batch_size needs at least 1, got 0"):
        explain_word(captioner, features, "a dog", batch_size=0)
    with pytest.raises(TypeError, match=r"steps is a whole number, got 2\.5"):
        explain_word(captioner, features, "a dog", "gradient", steps=2.5)
    with pytest.raises(TypeError, match=r"a caption is a Caption or a text, got \['a', 'dog'\]"):
        explain_word(captioner, features, ["a", "dog"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="attention has no sign"):
        Explainer(captioner, "attention").relevance(features, "a dog")
    with pytest.raises(ValueError, match="the 1 token ids of the caption 'a dog' are not those of its 2 words"):
        explain_word(captioner, features, Caption(("a", "dog"), (4,), -1.0))


def test_it_is_exported() -> None:
    assert attncap.explain_word is explain_word
