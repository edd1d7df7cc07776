"""Encoder blocks trained with the decoder: the same network in two parts, what moves and what does not, whole runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image

import attncap
from attncap.decoding.decoder import Decoder
from attncap.features import extractor as features
from attncap.features.extractor import FeatureExtractor
from attncap.grounding.phrases import cell_cover
from attncap.grounding.probes import blank_map_cell
from attncap.models.attention_captioner import AttentionCaptioner
from attncap.models.captioner import Captioner
from attncap.models.ensemble import Ensemble
from attncap.models.losses import MaskedCrossentropy
from attncap.models.registry import captioner_class
from attncap.models.saving import load_captioner, save_captioner
from attncap.models.show_and_tell import ShowAndTell
from attncap.models.trainable_encoder import EncoderTail, split_encoder
from attncap.tokenizers import SPECIAL_TOKENS, START, WordTokenizer
from attncap.training import building
from attncap.training import train as training
from attncap.training.callbacks import RunRecorder
from attncap.training.config import TrainConfig
from attncap.training.finetuning import FinetuningAdamW, encoder_and_tail, with_tail
from attncap.training.fit import optimizer_of
from attncap.training.train import train
from tests.training.test_train import history_of, squares

SIZE = 75  # of pictures: mixed2 has 7 x 7 cells of 288 numbers, mixed3 3 x 3 of 768
WORDS = WordTokenizer([*SPECIAL_TOKENS, *"abcdefghi"])
V = WORDS.vocabulary_size()
SMALL: dict[str, dict[str, Any]] = {
    "attention": {"embedding_units": 7, "hidden_units": 11, "projection_units": 13, "attention_units": 17},
    "adaptive-attention": {"embedding_units": 7, "hidden_units": 11, "projection_units": 13, "attention_units": 17},
    "transformer": {"hidden_units": 12, "heads": 3, "feedforward_units": 19, "decoder_layers": 1},
    "show-and-tell": {"embedding_units": 7, "hidden_units": 11},
}


class Parts(NamedTuple):
    whole: FeatureExtractor
    head: FeatureExtractor
    tail: EncoderTail
    pixels: np.ndarray


def numpy_of(tensor: Any) -> np.ndarray:
    return np.array(ops.convert_to_numpy(ops.cast(tensor, "float32")))


def made(model: str, encoder: FeatureExtractor, tail: EncoderTail | None = None, **settings: Any) -> Captioner:
    """A captioner that was never trained, with large weights of its decoder: each picture has words of its own."""
    keras.utils.set_random_seed(0)
    kind = captioner_class(model)
    captioner = kind(WORDS, encoder=encoder, tail=tail, **{**SMALL[model], "dropout": 0.0, **settings})
    blocks = set() if tail is None else {id(weight) for weight in tail.weights}
    for weight in captioner.trainable_variables:
        if id(weight) not in blocks:
            weight.assign(3.0 * weight)
    return captioner


def batch_of(given: np.ndarray) -> dict[str, np.ndarray]:
    token_ids = np.random.default_rng(1).integers(4, V, size=(len(given), 2, 5)).astype(np.int32)
    token_ids[:, :, 0] = START
    return {"features": given, "token_ids": token_ids}


@pytest.fixture(scope="module")
def parts() -> Parts:
    """Of random weights: from mixed2 to mixed3, which has another grid."""
    keras.utils.set_random_seed(0)
    whole = FeatureExtractor("mixed3", "random", SIZE, dtype="float32")
    for weight in whole.network.weights:  # statistics as after a training; new ones would be 0 and 1
        if weight.path.endswith("moving_mean"):
            weight.assign(np.random.default_rng(0).normal(size=weight.shape) / 10)
    pixels = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3)).astype(np.uint8)
    return Parts(whole, *split_encoder(whole, "mixed2", "float32"), pixels)


# ------------------------------------------------------------------ one network in two parts


def test_two_parts_compute_what_the_whole_does(parts: Parts) -> None:
    whole, head, tail, pixels = parts
    assert head.layer == "mixed2" and head.feature_shape == tail.feature_shape == (7, 7, 288)
    assert tail.region_shape == whole.feature_shape == (3, 3, 768) and tail.grid_box == whole.grid_box != head.grid_box
    expected = numpy_of(whole(pixels))
    assert expected.std() > 0.01
    np.testing.assert_allclose(numpy_of(tail(head(pixels))), expected, atol=1e-5)
    stored = numpy_of(head(pixels)).astype(np.float16)
    np.testing.assert_allclose(numpy_of(tail(stored)), expected, atol=2e-3 * np.abs(expected).max())
    assert len(tail.trainable_variables) == 2 * 4  # mixed3: four convolutions, each with an offset
    assert head.trainable_variables == []


@pytest.mark.parametrize("model", ["attention", "adaptive-attention", "transformer", "show-and-tell"])
def test_every_captioner_reads_through_a_tail_and_is_the_captioner_without(model: str, parts: Parts) -> None:
    whole, head, tail, pixels = parts
    plain = made(model, whole)
    split = with_tail(plain, head, tail)
    assert type(split) is type(plain) and split.tail is tail and "tail" not in plain.get_config()
    assert split.feature_shape == (7, 7, 288) and split.map_shape == plain.map_shape == (3, 3)
    assert split.grid_box == plain.grid_box
    near, far = (batch_of(numpy_of(encoder(pixels))) for encoder in (whole, head))
    expected = numpy_of(plain(near))
    np.testing.assert_allclose(numpy_of(split(far)), expected, atol=1e-3 if split.compute_dtype == "float32" else 0.2)
    _, _, maps = split.step(far["token_ids"][:, :, 0], split.init_state(far["features"], captions=2))
    assert maps.shape == (3, 2, 3 * 3) if split.has_attention else maps is None
    with pytest.raises(ValueError, match=r"features need shape \(B, 7, 7, 288\), got \(3, 3, 3, 768\)"):
        split(near)


def test_a_file_holds_the_tail_and_captions_a_picture_file(parts: Parts, tmp_path: Path) -> None:
    captioner = made("attention", parts.head, parts.tail)
    for variable in parts.tail.trainable_variables:
        if variable.name == "kernel":  # as trained: no longer those that the encoder came with
            variable.assign(1.1 * numpy_of(variable))
    save_captioner(captioner, tmp_path / "best.keras")
    again = load_captioner(tmp_path)
    assert again.get_config() == captioner.get_config()
    assert again.tail is not None and (again.tail.after, again.tail.layer) == ("mixed2", "mixed3")
    given = batch_of(numpy_of(parts.head(parts.pixels)))
    np.testing.assert_array_equal(numpy_of(again(given)), numpy_of(captioner(given)))
    assert len(again.trainable_variables) == len(captioner.trainable_variables)
    Image.fromarray(parts.pixels[0]).save(tmp_path / "a.png")
    caption = attncap.caption(again, tmp_path / "a.png", beam_width=2, max_length=5)
    (expected,) = Decoder(captioner, beam_width=2, max_length=5)(given["features"][:1].astype(np.float16))
    assert caption.words == expected.words and len(caption.words) > 0
    assert caption.attention_weights is not None and caption.attention_weights.shape[1:] == (3, 3)
    assert caption.grid_box == parts.whole.grid_box

    # An ensemble of the two reads one store; a member whose maps have another grid is refused.
    ensemble = Ensemble([again, captioner])
    assert ensemble.feature_shape == (7, 7, 288) and ensemble.map_shape == (3, 3)
    with pytest.raises(ValueError, match="member 2: its maps have 7 x 7 regions, those of member 1 3 x 3: an ensemble"):
        Ensemble([again, made("attention", parts.head)])
    # Probes blank, in the stored features, what a cell of the map covers: here 7/3 x 7/3 cells.
    features = np.random.default_rng(0).normal(size=(7, 7, 288)).astype(np.float32)
    blanked = blank_map_cell(again, features, (0, 2))
    share = np.abs(blanked - features).sum(axis=-1) / np.abs(features - features.mean(axis=(0, 1))).sum(axis=-1)
    left, top, right, bottom = again.grid_box
    box = np.array([[left + (right - left) * 2 / 3, top, right, top + (bottom - top) / 3]])
    np.testing.assert_allclose(share, cell_cover(box.clip(0, 1), 7, 7, parts.head.grid_box), atol=1e-3)
    assert 0 < share.sum() < 3 * 3 and share[6].max() == 0


# ------------------------------------------------------------------ what moves


def test_slow_variables_make_a_part_of_the_step_and_do_not_decay() -> None:
    fast, slow = (keras.Variable(np.array([2.0, -2.0], np.float32)) for _ in range(2))
    optimizer = FinetuningAdamW(0.1, weight_decay=0.5, slow=[slow], factor=0.25)
    optimizer.build([fast, slow])
    gradients = [ops.convert_to_tensor(np.array([3.0, -0.1], np.float32))] * 2
    optimizer.apply(gradients, [fast, slow])  # Adam's first step is the learning rate, whatever the gradient's size
    np.testing.assert_allclose(numpy_of(fast), [2.0 - 0.1 * 0.5 * 2.0 - 0.1, -2.0 + 0.1 * 0.5 * 2.0 + 0.1], rtol=1e-5)
    np.testing.assert_allclose(numpy_of(slow), [2.0 - 0.025, -2.0 + 0.025], rtol=1e-5)
    optimizer.apply(gradients, [fast, slow])
    np.testing.assert_allclose(numpy_of(slow), [2.0 - 0.05, -2.0 + 0.05], rtol=1e-4)


def test_gradients_reach_kernels_and_offsets_and_leave_the_statistics(parts: Parts) -> None:
    _, tail = split_encoder(parts.whole, "mixed2", "float32")
    captioner = made("attention", parts.head, tail, dtype="float32", attention_penalty=0.5)
    inputs = batch_of(numpy_of(parts.head(parts.pixels)).astype(np.float16))
    targets = np.roll(inputs["token_ids"], -1, axis=2)
    trained = {id(weight) for weight in tail.trainable_variables}
    assert len(trained) == 8 and len(tail.weights) == 16
    for rate in (0.0, 0.5):
        config = TrainConfig(finetune_rate=rate, weight_decay=0.1, warmup=0.0)
        optimizer = optimizer_of(config, 3, tail=tail)
        captioner.compile(optimizer, loss=MaskedCrossentropy(), run_eagerly=True)  # compiling takes longer
        before = [numpy_of(weight) for weight in tail.weights]
        decoder = numpy_of(captioner.value_dense.kernel)
        captioner.fit(inputs, targets, epochs=2, verbose=0)
        for weight, values in zip(tail.weights, before, strict=True):
            moved = np.abs(numpy_of(weight) - values).max()
            assert (moved > 1e-5) == (rate > 0 and id(weight) in trained), weight.path
        assert np.abs(numpy_of(captioner.value_dense.kernel) - decoder).max() > 1e-4
    assert type(optimizer_of(config, 3)) is keras.optimizers.AdamW  # without a tail, what it was
    tail.trainable = False
    assert type(optimizer_of(config, 3, tail=tail)) is keras.optimizers.AdamW


# ------------------------------------------------------------------ whole runs

CONFIG = TrainConfig(
    weights="faces",
    layer="mixed1",
    finetune_to="mixed2",
    finetune_rate=0.5,
    min_count=2,
    embedding_units=16,
    hidden_units=16,
    projection_units=16,
    attention_units=8,
    dropout=0.1,
    batch_size=6,
    epochs=2,
    learning_rate=0.01,
    max_length=12,
    cider_epochs=1,
    cider_samples=2,
    seed=7,
)


class EqualScores:
    captions: list[Any] = []

    def __init__(self, *_: Any) -> None: ...

    def __call__(self, _: Any) -> dict[str, float]:
        return {f"val_bleu_{n}": 0.5 for n in (1, 2, 3, 4)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A run that nothing disturbed, with what trains it again: pictures, features, and what is quick to score."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(features.DEFAULTS, "faces", ("mixed0", SIZE))
        # Decoding after each epoch is tested elsewhere.
        patched.setattr(training, "Validator", EqualScores)
        folder = tmp_path_factory.mktemp("tail")
        data = squares(folder / "pictures")
        captioner = train(data, folder / "run", CONFIG, features=folder / "features", verbose=0)
        yield data, folder, captioner


def test_a_run_trains_the_tail_from_the_encoders_own_weights(run: Any) -> None:
    _, folder, captioner = run
    assert captioner.encoder.layer == "mixed1" and captioner.tail.layer == "mixed2"
    whole = FeatureExtractor("mixed2", "faces", dtype=captioner.encoder.dtype_policy)
    # Its store is that of any encoder with these weights.
    assert captioner.encoder.fingerprint() == FeatureExtractor("mixed1", "faces").fingerprint()
    assert captioner.encoder.weights_source == "faces"
    _, untrained = split_encoder(whole, "mixed1")
    assert captioner.tail.dtype_policy == untrained.dtype_policy and len(untrained.trainable_variables) == 2 * 7
    for weight, values in zip(captioner.tail.weights, untrained.weights, strict=True):
        moved = np.abs(numpy_of(weight) - numpy_of(values)).max()
        assert (1e-4 < moved < 0.1) if weight.name in ("kernel", "beta") else moved == 0.0, weight.path
    manifest = json.loads((folder / "run" / "manifest.json").read_text())
    assert manifest["encoder_fingerprint"] == captioner.encoder.fingerprint()
    assert manifest["tail_digest"] == whole.fingerprint()


@pytest.mark.slow
def test_killed_and_resumed_it_is_the_run_that_was_never_killed(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, folder, captioner = run
    whole = FeatureExtractor("mixed2", "faces")
    monkeypatch.setattr("attncap.training.features.new_encoder", lambda config: whole)  # building it takes seconds
    monkeypatch.setattr(training, "load_captioner", lambda path: None)

    def die(self: RunRecorder, batch: int, logs: Any = None) -> None:
        if self.batches.epoch == 1 and batch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunRecorder, "on_train_batch_end", die)
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "run", CONFIG, features=folder / "features", verbose=0)
    assert len(history_of(tmp_path / "run")) == 1
    train(data, tmp_path / "run", resume=True, features=folder / "features", verbose=0)
    assert history_of(tmp_path / "run") == history_of(folder / "run")
    state, expected = (np.load(where / "run" / "state.npz") for where in (tmp_path, folder))
    assert sorted(state.files) == sorted(expected.files)
    sizes = [expected[name].size for name in expected.files if name.startswith("weight_")]
    assert len(sizes) == len(captioner.trainable_variables)
    for name in state.files:
        np.testing.assert_array_equal(state[name], expected[name], err_msg=name)


@pytest.mark.slow
def test_training_on_the_score_goes_on_with_the_tail_or_leaves_it(run: Any, tmp_path: Path) -> None:
    data, folder, before = run
    config = replace(CONFIG, layer=None, start=str(folder / "run"), objective="cider")
    after = train(data, tmp_path / "run", config, features=folder / "features", verbose=0)
    assert after.tail is not None
    for weight, earlier in zip(after.tail.weights, before.tail.weights, strict=True):
        assert (np.abs(numpy_of(weight) - numpy_of(earlier)).max() > 0) == (weight.name in ("kernel", "beta"))
    assert after.encoder is not None
    left = building.continued(after, replace(config, finetune_to=None), after.encoder, None)
    assert left.tail is not None and left.tail.trainable_variables == []
    assert len(left.trainable_variables) == len(before.trainable_variables) - 2 * 7


def test_show_and_tell_is_standardized_by_what_comes_out_of_the_tail(parts: Parts) -> None:
    captioner = made("show-and-tell", parts.head, parts.tail)
    assert isinstance(captioner, ShowAndTell) and captioner.picture_mean.shape == (768,)
    stored = np.random.default_rng(0).random((5, 7, 7, 288)).astype(np.float16)

    class Store:
        def get(self, paths: list[str]) -> np.ndarray:
            return np.stack([stored[int(path)] for path in paths])

    mean, deviation = building.pooled_statistics(Store(), list("01234"), 2, parts.tail)  # type: ignore[arg-type]
    pooled = numpy_of(parts.tail(stored)).mean(axis=(1, 2))
    np.testing.assert_allclose(mean, pooled.mean(axis=0), rtol=1e-4, atol=1e-5)
    varies = pooled.std(axis=0) > 1e-3
    assert varies.any()
    np.testing.assert_allclose(deviation[varies], pooled.std(axis=0)[varies], rtol=1e-2)


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("after", "layer", "message"),
    [
        ("mixed5", "mixed3", r"blocks after 'mixed5' up to 'mixed3' .*expected, one of mixed0, mixed1, mixed2$"),
        ("mixed0", "mixed0", r"expected, and there is none$"),
        ("mixed0", "mixed12", r"InceptionV3 has no layer 'mixed12': choose one of mixed0,"),
    ],
)
def test_a_wrong_layer_is_named(after: str, layer: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EncoderTail(after, layer, SIZE)


def test_wrong_parts_are_named(parts: Parts) -> None:
    with pytest.raises(ValueError, match=r"the tail takes features of \(7, 7, 288\), got feature_shape \(3, 3, 768\)"):
        AttentionCaptioner(WORDS, encoder=parts.whole, tail=parts.tail)
    begun = made("attention", parts.head, parts.tail)
    assert encoder_and_tail(parts.head, None, "mixed3", begun) == (parts.head, parts.tail)
    assert encoder_and_tail(parts.head, None, None, begun) == (parts.head, None)
    with pytest.raises(ValueError, match=r"finetune_to is mixed4, but the captioner to go on from reads mixed3: name"):
        encoder_and_tail(parts.head, None, "mixed4", begun)
    with pytest.raises(ValueError, match=r"finetune_to is mixed3, but no layer is named, .*: add --layer"):
        encoder_and_tail(parts.whole, None, "mixed3")
    with pytest.raises(ValueError, match="finetune_rate must be at least 0, got -1"):
        TrainConfig(finetune_rate=-1.0)
