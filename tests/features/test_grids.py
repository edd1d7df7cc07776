"""Several grids of regions: side by side as one array, attended to at once, their maps on the finest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image

import attncap
from attncap.features import extractor as features
from attncap.features.extractor import FeatureExtractor
from attncap.features.grids import Grid, finest, join_features, map_onto_finest, split_features
from attncap.grounding.probes import check_one_grid
from attncap.models.captioner import AttendingCaptioner, save_captioner
from attncap.models.ensemble import Ensemble
from attncap.models.losses import doubly_stochastic_penalty
from attncap.models.registry import (
    AdaptiveAttentionCaptioner,
    AttentionCaptioner,
    ShowAndTell,
    TransformerCaptioner,
    load_captioner,
)
from attncap.retrieval.embeddings import PooledEmbedding
from attncap.tokenizers import END, SPECIAL_TOKENS, START, WordTokenizer
from attncap.training.config import TrainConfig
from attncap.training.train import train
from tests.training import test_train as test_training

B, K, T = 2, 3, 5
WHOLE = (0.0, 0.0, 1.0, 1.0)
SIZES: dict[Any, dict[str, Any]] = {
    AttentionCaptioner: {"embedding_units": 17, "hidden_units": 19, "projection_units": 23, "attention_units": 29},
    AdaptiveAttentionCaptioner: {"embedding_units": 17, "hidden_units": 19, "projection_units": 23},
    TransformerCaptioner: {"hidden_units": 21, "heads": 3, "feedforward_units": 19},
}
each_kind = pytest.mark.parametrize("kind", SIZES, ids=["attention", "adaptive-attention", "transformer"])


def numpy_of(tensor: Any) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


@pytest.fixture(scope="module")
def encoder() -> FeatureExtractor:
    """7 x 7 regions of `mixed0` and 3 x 3 of `mixed3`."""
    keras.utils.set_random_seed(0)
    return FeatureExtractor("mixed0+mixed3", "random", 75, dtype="float32")


def made(kind: Any, encoder: FeatureExtractor, **settings: Any) -> AttendingCaptioner:
    keras.utils.set_random_seed(1)
    tokenizer = WordTokenizer([*SPECIAL_TOKENS, *(f"word{n}" for n in range(27))])
    return kind(tokenizer, encoder=encoder, dtype="float32", **{**SIZES[kind], "dropout": 0.0, **settings})


@pytest.fixture(scope="module")
def batch(encoder: FeatureExtractor) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    token_ids = rng.integers(END + 2, 31, size=(B, K, T)).astype(np.int32)
    token_ids[:, :, 0] = START
    return {"features": rng.normal(size=(B, *encoder.feature_shape)).astype(np.float32), "token_ids": token_ids}


def test_a_map_over_two_grids_by_hand() -> None:
    coarse, fine = Grid((1, 2, 5), WHOLE), Grid((2, 2, 3), WHOLE)
    assert finest([coarse, fine]) is fine and finest([fine, coarse]) is fine
    onto = map_onto_finest([coarse, fine])
    # The left half of the picture is the left column of cells, half of its weight to each.
    expected = [[0.5, 0, 0.5, 0], [0, 0.5, 0, 0.5], *np.eye(4)]
    np.testing.assert_array_equal(onto, expected)
    assert map_onto_finest([fine]) is None


def test_tensors_are_joined_as_arrays_are() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(2, *shape)).astype(np.float32) for shape in ((3, 5, 7), (2, 2, 11))]
    joined = join_features(parts)
    assert joined.shape == (2, 1, 1, 3 * 5 * 7 + 2 * 2 * 11)
    np.testing.assert_array_equal(numpy_of(join_features([ops.convert_to_tensor(part) for part in parts])), joined)
    for part, again in zip(parts, split_features(joined, [part.shape[1:] for part in parts]), strict=True):
        np.testing.assert_array_equal(numpy_of(again), part)


def test_the_encoder_gives_each_layer_as_an_encoder_of_it_alone_does(encoder: FeatureExtractor) -> None:
    alone = [FeatureExtractor(layer, "random", 75, dtype="float32") for layer in ("mixed0", "mixed3")]
    assert [grid.shape for grid in encoder.grids] == [one.feature_shape for one in alone] == [(7, 7, 256), (3, 3, 768)]
    assert [grid.box for grid in encoder.grids] == [one.grid_box for one in alone]
    assert encoder.grid_box == alone[0].grid_box and encoder.receptive_field == alone[1].receptive_field
    assert encoder.feature_shape == (1, 1, 7 * 7 * 256 + 3 * 3 * 768)
    pixels = np.random.default_rng(0).integers(0, 255, (2, 75, 75, 3)).astype(np.uint8)
    found = encoder(pixels)
    for part, layer in zip(split_features(found, [one.feature_shape for one in alone]), alone, strict=True):
        until = keras.Model(encoder.network.input, encoder.network.get_layer(layer.layer).output)
        np.testing.assert_allclose(numpy_of(part), numpy_of(until(pixels / 127.5 - 1.0)), rtol=1e-5, atol=1e-5)
    folded = encoder.network_for_pixels().predict_on_batch(pixels)
    np.testing.assert_allclose(folded, numpy_of(found), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("mixed0+mixed11", "no layer 'mixed11'.*or several"),
        ("mixed0+", "no layer ''"),
        ("mixed3+mixed3", "a layer twice"),
    ],
)
def test_layers_that_are_not_there_are_refused(layer: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureExtractor(layer, "random", 75)


@each_kind
def test_steps_equal_teacher_forcing_and_maps_lie_on_the_finest_grid(
    kind: Any, encoder: FeatureExtractor, batch: dict[str, np.ndarray]
) -> None:
    captioner = made(kind, encoder)
    assert captioner.map_shape == (7, 7) and captioner.grid_box == encoder.grid_box
    logits = numpy_of(captioner(batch))
    state = captioner.init_state(batch["features"], captions=K)
    for t in range(T):
        found, state, weights = captioner.step(batch["token_ids"][:, :, t], state)
        np.testing.assert_allclose(numpy_of(found), logits[:, :, t], atol=1e-5)
        raw, shares = numpy_of(state.recurrent["attention_weights"]), numpy_of(weights)
        assert raw.shape == (B, K, 49 + 9) and shares.shape == (B, K, 49)
        np.testing.assert_allclose(shares.sum(-1), raw.sum(-1), atol=1e-5)
        assert (raw[..., 49:] > 0).all() and (raw[..., :49] > 0).all()
        np.testing.assert_allclose(shares, raw @ map_onto_finest(encoder.grids), atol=1e-6)


@each_kind
def test_both_grids_are_read(kind: Any, encoder: FeatureExtractor, batch: dict[str, np.ndarray]) -> None:
    captioner = made(kind, encoder)
    logits = numpy_of(captioner(batch))
    for part in (slice(0, 7 * 7 * 256), slice(7 * 7 * 256, None)):
        changed = batch["features"].copy()
        changed[..., part] += np.random.default_rng(1).normal(size=changed[..., part].shape)
        assert np.abs(numpy_of(captioner({**batch, "features": changed})) - logits).max() > 1e-3


def test_a_region_of_the_coarse_grid_shows_where_it_lies(encoder: FeatureExtractor) -> None:
    captioner = made(AttentionCaptioner, encoder)
    weights = np.zeros((1, 1, 49 + 9), np.float32)
    weights[..., 49] = 1.0  # the corner of the 3 x 3
    shown = numpy_of(captioner.map_of(weights)).reshape(7, 7)
    # From pixel 13.5 to 29.5, and the finer cells have 9.5 to 17.5 to 25.5 to 33.5.
    share = np.array([0.25, 0.5, 0.25, 0, 0, 0, 0])
    np.testing.assert_allclose(shown, np.outer(share, share), atol=1e-6)


def test_the_penalty_is_of_the_map(encoder: FeatureExtractor, batch: dict[str, np.ndarray]) -> None:
    captioner = made(AttentionCaptioner, encoder, attention_penalty=0.5)
    captioner(batch, training=True)
    state = captioner.init_state(batch["features"], captions=K)
    weights = captioner.run(state, captioner.embedding(batch["token_ids"]))["attention_weights"]
    expected = 0.5 * numpy_of(doubly_stochastic_penalty(captioner.map_of(weights), batch["token_ids"]))
    assert float(captioner.losses[0]) == pytest.approx(float(expected), rel=1e-5)


@each_kind
def test_a_saved_captioner_says_the_same(
    kind: Any, encoder: FeatureExtractor, batch: dict[str, np.ndarray], tmp_path: Path
) -> None:
    captioner = made(kind, encoder)
    save_captioner(captioner, tmp_path / "two.keras")
    loaded = load_captioner(tmp_path / "two.keras")
    assert loaded.encoder is not None and loaded.encoder.fingerprint() == encoder.fingerprint()
    np.testing.assert_array_equal(numpy_of(loaded(batch)), numpy_of(captioner(batch)))


def test_what_reads_one_grid_says_so(encoder: FeatureExtractor) -> None:
    tokenizer = WordTokenizer([*SPECIAL_TOKENS, "word"])
    with pytest.raises(ValueError, match="Show and Tell reads one grid, got 2"):
        ShowAndTell(tokenizer, encoder=encoder)
    with pytest.raises(ValueError, match=r"pools one layer, got mixed0\+mixed3"):
        PooledEmbedding(encoder)
    with pytest.raises(ValueError, match="several grids"):
        check_one_grid(made(AttentionCaptioner, encoder))
    with pytest.raises(ValueError, match=r"show-and-tell reads one grid, got layer mixed0\+mixed3"):
        TrainConfig(model="show-and-tell", layer="mixed0+mixed3")
    with pytest.raises(ValueError, match="finetune_to trains the blocks after one layer"):
        TrainConfig(layer="mixed0+mixed3", finetune_to="mixed4")


def test_two_grids_are_trained_on_and_loaded_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(features.DEFAULTS, "random", ("mixed0", 75))
    data = test_training.squares(tmp_path / "pictures")
    config = replace(test_training.CONFIG, layer="mixed0+mixed3", epochs=1, mirror=False, scheduled_sampling=0.0)
    train(data, tmp_path / "run", config, features=tmp_path / "features", verbose=0)
    run = load_captioner(tmp_path / "run")
    assert len(run.grids) == 2
    picture = tmp_path / "one.png"
    Image.new("RGB", (97, 61), "red").save(picture)
    caption = attncap.caption(run, picture)
    assert caption.attention_weights is not None and caption.attention_weights.shape[1:] == (7, 7)
    np.testing.assert_allclose(caption.attention_weights.sum((1, 2)), 1, atol=1e-3)
    # Beside a run of one grid, in an ensemble: each reads its own, and maps meet on the finest.
    coarse = FeatureExtractor("mixed3", "random", 75)
    both = Ensemble([run, AttentionCaptioner(run.tokenizer, encoder=coarse, **SIZES[AttentionCaptioner])])
    together = attncap.caption(both, picture)
    assert together.attention_weights is not None and together.attention_weights.shape[1:] == (7, 7)
