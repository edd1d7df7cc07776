"""Ensembles: the mean of probabilities by hand, one member equal to itself, maps, the command line."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import keras
import keras_nlp
import numpy as np
import pandas as pd
import pytest
from keras import ops
from PIL import Image

import attncap
from attncap.cli.main import main
from attncap.decoding.decoder import Decoder
from attncap.decoding.predict import caption_images, caption_stored
from attncap.decoding.replay import CaptionReplay, MemberReplay
from attncap.features.extractor import FeatureExtractor
from attncap.features.store import FeatureStore
from attncap.grounding.probes import uniform_attention
from attncap.models.adaptive_attention_captioner import AdaptiveAttentionCaptioner
from attncap.models.attention_captioner import AttentionCaptioner
from attncap.models.captioner import Captioner
from attncap.models.ensemble import Ensemble, mean_of_probabilities
from attncap.models.saving import load_captioner, save_captioner
from attncap.models.show_and_tell import ShowAndTell
from attncap.models.transformer_captioner import TransformerCaptioner
from attncap.tokenizers import END, PAD, SPECIAL_TOKENS, START, UNK, WordPieceTokenizer, WordTokenizer
from tests.decoding.test_decoder import FakeCaptioner
from tests.plotting.explorer.test_page import stored

WORDS = WordTokenizer([*SPECIAL_TOKENS, *"abcdefghi"])
V = WORDS.vocabulary_size()
SMALL: dict[str, Any] = {"embedding_units": 7, "hidden_units": 11}
LOOKS: dict[str, Any] = {**SMALL, "projection_units": 13, "attention_units": 17}


def made(kind: Any, shape: tuple[int, int, int] | None = (2, 3, 5), seed: int = 0, **settings: Any) -> Captioner:
    """A captioner that was never trained, with large weights: each picture has words of its own."""
    keras.utils.set_random_seed(seed)
    captioner = kind(WORDS, shape, **(LOOKS if kind is AttentionCaptioner else SMALL), **settings)
    for weight in captioner.trainable_variables:
        weight.assign(3.0 * weight)
    return captioner


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def first() -> Captioner:
    return made(AttentionCaptioner)


@pytest.fixture(scope="module")
def second() -> Captioner:
    return made(AttentionCaptioner, seed=1)


# ------------------------------------------------------------------------------------------ the mean of probabilities


def test_the_mean_of_two_by_hand() -> None:
    # 1/4, 3/4 and 1/2, 1/2: 3/8, 5/8; the mean of the logits would give other numbers.
    mean = mean_of_probabilities([ops.array([[0.0, math.log(3)]]), ops.array([[7.0, 7.0]])])
    np.testing.assert_allclose(ops.convert_to_numpy(mean), np.log([[3 / 8, 5 / 8]]), atol=1e-6)


def test_probabilities_that_are_too_small_for_a_float_keep_their_order() -> None:
    mean = ops.convert_to_numpy(mean_of_probabilities([ops.array([0.0, -2000.0]), ops.array([0.0, -1000.0])]))
    np.testing.assert_allclose(mean, [0.0, -1000 - math.log(2)], rtol=1e-6, atol=1e-6)


def test_decoding_goes_by_the_mean_of_probabilities() -> None:
    members = [FakeCaptioner(pictures=3, seed=seed) for seed in (0, 1)]
    features = members[0].features()
    captions = Decoder(Ensemble(members), beam_width=3, max_length=5)(features)
    said = {caption.token_ids for caption in captions}
    assert len(said) > 1 and said != {caption.token_ids for caption in Decoder(members[0], max_length=5)(features)}
    for picture, caption in enumerate(captions):
        expected, code = 0.0, 0
        tokens = [*caption.token_ids, END][:5]
        for read, token in zip([START, *tokens], tokens, strict=False):
            code = (code * 7 + read) % 101
            tables = [member.table[picture, code].astype(float) for member in members]
            mean = np.mean([np.exp(table) / np.exp(table).sum() for table in tables], axis=0)
            mean[[PAD, START, UNK]] = 0.0  # never said
            expected += math.log(mean[token] / mean.sum())
        assert caption.log_prob == pytest.approx(expected, abs=1e-4)


def decoder(captioner: Any, how: str) -> Decoder:
    if how == "sampling":
        return Decoder(captioner, sampler=keras_nlp.samplers.TopKSampler(k=5, seed=3), n_best=2, max_length=5)
    return Decoder(captioner, beam_width=3, n_best=2, max_length=7)


@pytest.mark.parametrize("how", ["beam", "sampling"])
@pytest.mark.parametrize("kind", [AttentionCaptioner, ShowAndTell])
def test_an_ensemble_of_one_is_its_member_to_the_bit(kind: Any, how: str) -> None:
    member = made(kind)
    ensemble = Ensemble([member])
    features = drawn(5, 2, 3, 5)
    states = [captioner.init_state(features, captions=2) for captioner in (ensemble, member)]
    token_ids = np.full((5, 2), START)
    logits = [
        ops.convert_to_numpy(c.step(token_ids, state)[0]) for c, state in zip((ensemble, member), states, strict=True)
    ]
    np.testing.assert_array_equal(*logits)
    one, alone = (np.ravel(decoder(captioner, how)(features)) for captioner in (ensemble, member))
    for caption, expected in zip(one, alone, strict=True):
        assert caption.token_ids == expected.token_ids and caption.log_prob == expected.log_prob
        np.testing.assert_array_equal(caption.word_log_probs, expected.word_log_probs)
        np.testing.assert_array_equal(caption.attention_weights, expected.attention_weights)


def test_a_model_beside_itself_says_what_it_says_alone(first: Captioner) -> None:
    features = drawn(5, 2, 3, 5)
    both, alone = (np.ravel(decoder(captioner, "beam")(features)) for captioner in (Ensemble([first, first]), first))
    for caption, expected in zip(both, alone, strict=True):
        assert caption.token_ids == expected.token_ids
        np.testing.assert_allclose(caption.word_log_probs, expected.word_log_probs, atol=1e-4)
        np.testing.assert_allclose(caption.attention_weights, expected.attention_weights, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------------- maps


def test_the_caption_has_the_mean_map_and_each_member_its_own(first: Captioner, second: Captioner) -> None:
    ensemble = Ensemble([first, made(ShowAndTell), second])
    features = drawn(5, 2, 3, 5)
    captions = Decoder(ensemble, max_length=7)(features, list("pqrst"))
    read = MemberReplay(ensemble)(features, captions)
    assert [[caption.words for caption in own] for own in read] == [[caption.words for caption in captions]] * 3
    assert sum(len(caption.words) for caption in captions) > 5
    for caption, one, blind, two in zip(captions, *read, strict=True):
        assert blind.attention_weights is None and two.image_id == caption.image_id
        assert np.abs(one.attention_weights - two.attention_weights).max(initial=1.0) > 1e-3
        mean = (one.attention_weights + two.attention_weights) / 2
        np.testing.assert_allclose(caption.attention_weights, mean, atol=1e-5)
        alone = CaptionReplay(second)(features[[captions.index(caption)]], [[caption.text]])[0][0]
        np.testing.assert_allclose(two.attention_weights, alone.attention_weights, atol=1e-5)
        np.testing.assert_allclose(two.word_log_probs, alone.word_log_probs, atol=1e-4)
    assert MemberReplay(ensemble)(features[:0], []) == [[], [], []]
    with pytest.raises(ValueError, match="one caption per image is needed, got 5 for 2 images"):
        MemberReplay(ensemble)(features[:2], captions)


def test_members_of_every_kind_speak_as_one() -> None:
    shape = (2, 3, 5)
    members = [
        AttentionCaptioner(WORDS, shape, **LOOKS),
        AdaptiveAttentionCaptioner(WORDS, shape, **LOOKS),
        TransformerCaptioner(WORDS, shape, hidden_units=8, heads=2, feedforward_units=11),
        ShowAndTell(WORDS, shape, **SMALL),
    ]
    for member in members:
        for weight in member.trainable_variables:
            weight.assign(2.0 * weight)
    ensemble, features = Ensemble(members), drawn(3, *shape)
    captions = Decoder(ensemble, beam_width=2, max_length=7)(features)
    read = MemberReplay(ensemble)(features, captions)
    assert sum(len(caption.words) for caption in captions) > 3
    for caption, *own in zip(captions, *read, strict=True):
        # Of a member that may look away, a map counts for the share that it read of the picture.
        always = np.ones(len(caption.words))
        maps = [one.attention_weights * one.extras.get("looked", always)[:, None, None] for one in own[:3]]
        mean = np.mean(maps, axis=0)
        np.testing.assert_allclose(caption.extras.get("looked", always), mean.sum(axis=(1, 2)), atol=1e-4)
        np.testing.assert_allclose(caption.attention_weights, mean / mean.sum(axis=(1, 2), keepdims=True), atol=1e-4)


def test_members_without_attention_have_no_maps_together() -> None:
    ensemble = Ensemble([made(ShowAndTell), made(ShowAndTell, seed=1)])
    assert not ensemble.has_attention and Ensemble([made(ShowAndTell), made(AttentionCaptioner)]).has_attention
    assert {caption.attention_weights for caption in Decoder(ensemble, max_length=5)(drawn(3, 2, 3, 5))} == {None}


def test_uniform_attention_reaches_every_member(first: Captioner, second: Captioner) -> None:
    ensemble = Ensemble([first, made(ShowAndTell), second])
    before = [ops.convert_to_numpy(member.attention.score_dense.kernel).copy() for member in (first, second)]
    with uniform_attention(ensemble):
        captions = Decoder(ensemble, max_length=5)(drawn(3, 2, 3, 5))
    maps = np.concatenate([caption.attention_weights for caption in captions])
    np.testing.assert_allclose(maps, np.full((len(maps), 2, 3), 1 / 6), atol=1e-6)
    assert len(maps)
    for member, kernel in zip((first, second), before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(member.attention.score_dense.kernel).copy(), kernel)


# ------------------------------------------------------------------------------------------------------ what is refused


def test_members_of_two_vocabularies_are_refused_by_name(first: Captioner, tmp_path: Path) -> None:
    def of(*words: str) -> Captioner:
        return AttentionCaptioner(WordTokenizer([*SPECIAL_TOKENS, *words]), (2, 3, 5), **LOOKS)

    save_captioner(of(*"abxdefghi"), tmp_path / "x.keras")
    with pytest.raises(
        ValueError, match=r"x\.keras: .*not that of member 1: word 6 is 'x' in place of 'c' \(13 words in"
    ):
        Ensemble([first, tmp_path / "x.keras"])
    with pytest.raises(ValueError, match=r"member 3: .*member 1: word 12 is missing in place of 'i' \(12 words in"):
        Ensemble([first, first, of(*"abcdefgh")])
    pieces = AttentionCaptioner(WordPieceTokenizer(WORDS.vocabulary), (2, 3, 5), **LOOKS)
    with pytest.raises(ValueError, match="member 2: .*WordPieceTokenizer in place of WordTokenizer"):
        Ensemble([first, pieces])
    with pytest.raises(ValueError, match=r"member 2: reads features of shape \(4, 3, 2\), member 1 of .*998"):
        Ensemble([first, made(AttentionCaptioner, (4, 3, 2))])
    with pytest.raises(ValueError, match="at least one member"):
        Ensemble([])
    with pytest.raises(FileNotFoundError, match="nowhere: no such captioner"):
        Ensemble([first, tmp_path / "nowhere"])


# ----------------------------------------------------------------------------------- picture files and the command line


@pytest.fixture(scope="module")
def encoders() -> list[FeatureExtractor]:
    keras.utils.set_random_seed(0)
    return [FeatureExtractor("mixed0", "faces", image_size=size, dtype="float32") for size in (75, 91)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, encoders: list[FeatureExtractor]) -> Path:
    """Four captioners with their encoders, the last one at another image size; and images."""
    folder = tmp_path_factory.mktemp("members")
    for name, kind, encoder, seed in (
        ("a", AttentionCaptioner, 0, 0),
        ("b", ShowAndTell, 0, 1),
        ("c", AttentionCaptioner, 0, 2),
        ("d", AttentionCaptioner, 1, 3),
    ):
        save_captioner(made(kind, None, seed, encoder=encoders[encoder]), folder / f"{name}.keras")
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 256, (40 + number, 50, 3)).astype(np.uint8)
        Image.fromarray(noise).resize((100, 90)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(autouse=True)
def files_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file holds InceptionV3, which takes a second to build."""
    monkeypatch.setattr("attncap.models.ensemble.load_captioner", LOADED)


LOADED = cache(load_captioner)


@pytest.fixture
def several(folder: Path) -> Ensemble:
    return attncap.Ensemble([folder / f"{name}.keras" for name in "abc"])


def test_members_share_one_encoder_and_one_store(several: Ensemble, folder: Path, tmp_path: Path) -> None:
    paths = [str(folder / f"{number}.png") for number in range(3)]
    assert several.encoder is several.members[0].encoder
    store = FeatureStore(tmp_path, several.encoder)
    assert store.extract(paths).empty
    from_files, rejects = caption_images(several, paths, progress=False, max_length=7)
    settings: dict[str, Any] = {"max_length": 7, "batch_size": 32}
    from_store = caption_stored(several, store, pd.DataFrame({"image_id": list("pqr"), "path": paths}), **settings)
    assert rejects.empty and [c.token_ids for c in from_files] == [c.token_ids for c in from_store]
    assert {c.attention_weights.shape[1:] for c in from_files} == {several.members[2].feature_shape[:2]}
    assert {c.grid_box for c in from_files} == {several.encoder.grid_box}
    with pytest.raises(ValueError, match=r"member 2: has no encoder inside, .*a\.keras has one"):
        Ensemble([folder / "a.keras", made(ShowAndTell, several.members[0].feature_shape)])
    with pytest.raises(ValueError, match=r"d\.keras: reads features of mixed0 at 91 pixels .*a\.keras"):
        Ensemble([folder / "a.keras", folder / "d.keras"])


@pytest.mark.slow
def test_several_runs_on_the_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [part for name in "abc" for part in ("--run", str(folder / f"{name}.keras"))]
    picture, heatmap = str(folder / "1.png"), tmp_path / "map.png"
    assert main(["caption", *runs, picture, "--heatmap", str(heatmap), "--beam-width", "2"]) == 0
    printed = capsys.readouterr()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.png", "map_run1.png", "map_run3.png"]
    assert f"heatmap of {folder / 'c.keras'}: {tmp_path / 'map_run3.png'}" in printed.err
    out = tmp_path / "predictions.json"
    assert main(["predict", *runs, "--images", str(folder), "--out", str(out), "--beam-width", "2"]) == 0
    said = {row["image_id"]: row["caption"] for row in json.loads(out.read_text())}
    assert sorted(said) == ["0.png", "1.png", "2.png"] and said["1.png"] == printed.out.strip()
    page = tmp_path / "page.html"
    assert main(["explore", *runs, "--images", str(folder), "--out", str(page), "--limit", "2"]) == 0
    assert "1.png" in str(stored(page.read_text(encoding="utf-8")))
    capsys.readouterr()
    blind = ["--run", str(folder / "b.keras")] * 2
    assert main(["caption", *blind, picture, "--heatmap", str(heatmap)]) == 2
    assert f"{folder / 'b.keras'}: are an ensemble, which has no attention maps to draw" in capsys.readouterr().err


def test_ground_measures_an_ensemble(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def ground(*names: str, more: tuple[str, ...] = ()) -> int:
        runs = [part for name in names for part in ("--run", str(folder / f"{name}.keras"))]
        data = ["--data", "faces:9", "--boxes", "faces", "--features", str(tmp_path), "--json", "--limit", "3"]
        return main(["ground", *runs, *data, *more])

    measured = []
    for names in ("cc", "ac", "aa"):
        assert ground(*names) == 0
        measured.append(json.loads(capsys.readouterr().out)["attention_correctness"])
    assert abs(measured[0] - measured[2]) > 1e-4
    assert measured[1] == pytest.approx((measured[0] + measured[2]) / 2, abs=1e-3)
    assert ground("a", "d") == 2
    assert "the members of an ensemble need one encoder" in capsys.readouterr().err
