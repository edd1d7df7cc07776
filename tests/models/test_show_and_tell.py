"""Show and Tell: its equations, the picture read once, what it refuses for want of maps; from faces to captions."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from attncap.captions import as_sentence
from attncap.cli.main import main
from attncap.data.dataset import CaptionData
from attncap.data.load import load
from attncap.decoding.decoder import Decoder
from attncap.decoding.predict import caption_images, caption_stored
from attncap.decoding.replay import replay_captions
from attncap.features.store import FeatureStore
from attncap.grounding.probes import uniform_attention
from attncap.models.captioner import CaptionerState, forbidden_logits
from attncap.models.losses import MaskedCrossentropy
from attncap.models.saving import load_captioner, save_captioner
from attncap.models.show_and_tell import ShowAndTell
from attncap.plotting.attention import plot_attention
from attncap.reports.grounding import ground
from attncap.tokenizers import END, PAD, SPECIAL_TOKENS, START, WordTokenizer
from attncap.training import building
from attncap.training.callbacks import RunRecorder
from attncap.training.config import TrainConfig
from attncap.training.train import train

B, K, T, ROWS, COLS, D = 2, 3, 5, 7, 11, 13
E, H, V = 17, 19, 31
WORDS = [f"word{i}" for i in range(V - len(SPECIAL_TOKENS))]


def make_captioner(seed: int = 0, **options: Any) -> ShowAndTell:
    keras.utils.set_random_seed(seed)
    settings: dict[str, Any] = {"feature_shape": (ROWS, COLS, D), "embedding_units": E, "hidden_units": H}
    return ShowAndTell(WordTokenizer([*SPECIAL_TOKENS, *WORDS]), **{**settings, **options})


def numpy_of(tensor: Any) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


@pytest.fixture(scope="module")
def batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    token_ids = rng.integers(END + 2, V, size=(B, K, T)).astype(np.int32)
    token_ids[:, :, 0] = START
    token_ids[1, 2, 3:] = PAD
    return {"features": rng.normal(size=(B, ROWS, COLS, D)).astype(np.float32), "token_ids": token_ids}


@pytest.fixture(scope="module")
def captioner() -> ShowAndTell:
    return make_captioner()


@pytest.fixture(scope="module")
def logits(captioner: ShowAndTell, batch: dict[str, np.ndarray]) -> np.ndarray:
    return numpy_of(captioner(batch))


# ---------------------------------------------------------------- equations, one step and all steps


def test_it_is_the_equation_of_the_docstring(captioner: ShowAndTell, batch: dict[str, np.ndarray]) -> None:
    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    kernel, recurrent_kernel, bias = (numpy_of(weight) for weight in captioner.cell.weights)

    def lstm(x: np.ndarray, hidden: np.ndarray, carry: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        into, forget, new, out = np.split(x @ kernel + hidden @ recurrent_kernel + bias, 4)
        carry = sigmoid(forget) * carry + sigmoid(into) * np.tanh(new)
        return sigmoid(out) * np.tanh(carry), carry

    picture_kernel, picture_bias = (numpy_of(weight) for weight in captioner.picture_dense.weights)
    picture = batch["features"][1].mean(axis=(0, 1)) @ picture_kernel + picture_bias
    picture = (picture - picture.mean()) / np.sqrt(picture.var() + captioner.picture_norm.epsilon)
    words = numpy_of(captioner.embedding.embeddings)
    hidden, carry = lstm(picture, np.zeros(H), np.zeros(H))
    state = captioner.init_state(batch["features"], captions=K)
    np.testing.assert_allclose(numpy_of(state.recurrent["hidden"])[1, 2], hidden, atol=1e-5)
    np.testing.assert_allclose(numpy_of(state.recurrent["carry"])[1, 2], carry, atol=1e-5)

    for token_id in (START, 7):
        hidden, carry = lstm(words[token_id], hidden, carry)
        logits, state, attention_weights = captioner.step(np.full((B, K), token_id, np.int32), state)
        assert attention_weights is None
        np.testing.assert_allclose(numpy_of(state.recurrent["carry"])[1, 2], carry, atol=1e-5)
        expected = hidden @ numpy_of(captioner.logits_dense.kernel) + numpy_of(captioner.logits_dense.bias)
        assert np.abs(expected).max() > 0.05  # not all zeros
        np.testing.assert_allclose(numpy_of(logits)[1, 2], expected, atol=1e-5)


def test_one_number_by_hand() -> None:
    captioner = make_captioner(feature_shape=(1, 2, 1), embedding_units=1, hidden_units=1)
    captioner.picture_norm.beta.assign([2.0])  # one unit, normalized, is 0: the picture's word is 2
    kernel, recurrent_kernel, bias = captioner.cell.weights
    kernel.assign([[0.0, 0.0, 0.5, 0.0]])  # gates: in, forget, new, out
    recurrent_kernel.assign([[0.0, 0.0, 1.0, 0.0]])
    bias.assign([0.0, 0.0, 0.0, 0.0])  # gates are half open
    captioner.embedding.embeddings.assign(np.full((V, 1), 3.0))
    # carry tanh(1) / 2 = 0.380797; hidden tanh(0.380797) / 2 = 0.181703
    state = captioner.init_state(np.ones((1, 1, 2, 1), np.float32))
    assert numpy_of(state.recurrent["carry"]).item() == pytest.approx(0.380797, abs=1e-5)
    assert numpy_of(state.recurrent["hidden"]).item() == pytest.approx(0.181703, abs=1e-5)
    # carry 0.380797 / 2 + tanh(1.5 + 0.181703) / 2 = 0.656939; hidden tanh(0.656939) / 2 = 0.288162
    _, state, _ = captioner.step(np.array([[START]], np.int32), state)
    assert numpy_of(state.recurrent["carry"]).item() == pytest.approx(0.656939, abs=1e-5)
    assert numpy_of(state.recurrent["hidden"]).item() == pytest.approx(0.288162, abs=1e-5)


def test_pooled_features_are_standardized_and_the_statistics_are_saved(
    batch: dict[str, np.ndarray], tmp_path: Path
) -> None:
    plain, standardized = make_captioner(), make_captioner()
    mean, deviation = np.linspace(-3.0, 3.0, D), np.linspace(0.5, 2.0, D)
    standardized.standardize(mean, deviation)
    shifted = {**batch, "features": batch["features"] * deviation.astype(np.float32) + mean.astype(np.float32)}
    np.testing.assert_allclose(numpy_of(standardized(shifted)), numpy_of(plain(batch)), atol=1e-4)
    assert np.abs(numpy_of(plain(shifted)) - numpy_of(plain(batch))).max() > 1e-3
    assert len(standardized.trainable_variables) == len(plain.trainable_variables)
    save_captioner(standardized, tmp_path / "standardized.keras")
    loaded = load_captioner(tmp_path / "standardized.keras")
    np.testing.assert_array_equal(numpy_of(loaded(shifted)), numpy_of(standardized(shifted)))
    with pytest.raises(ValueError, match=r"shape \(13,\) expected, the deviation above 0; got \(11,\), \(13,\)"):
        plain.standardize(mean[:11], deviation)
    with pytest.raises(ValueError, match="the deviation above 0"):
        plain.standardize(mean, 0 * deviation)


class Stored:
    feature_shape = (1, 2, 3)

    def get(self, paths: list[str]) -> np.ndarray:
        # Pooled: 0, 2, 4, ... in the first feature, always 5 in the second, 1 and -1 by turns in the third.
        return np.array(
            [[[[2 * int(p) - 1, 5, 0], [2 * int(p) + 1, 5, 2 * (-1) ** int(p)]]] for p in paths], np.float16
        )


@pytest.mark.parametrize("part", [64, 3])
def test_statistics_of_the_training_pictures(part: int) -> None:
    mean, deviation = building.pooled_statistics(Stored(), list("0123"), part)  # type: ignore[arg-type]
    np.testing.assert_allclose(mean, [3, 5, 0])
    np.testing.assert_allclose(deviation, [np.sqrt(5), 1, 1])  # 9 + 1 + 1 + 9 over 4; never varies; by turns


def test_steps_equal_teacher_forcing(captioner: ShowAndTell, batch: dict[str, np.ndarray], logits: np.ndarray) -> None:
    assert logits.shape == (B, K, T, V)
    state = captioner.init_state(batch["features"], captions=K)
    for t in range(T):
        step_logits, state, _ = captioner.step(batch["token_ids"][:, :, t], state)
        np.testing.assert_allclose(numpy_of(step_logits), logits[:, :, t], atol=1e-5)


def test_captions_of_a_picture_do_not_meet(
    captioner: ShowAndTell, batch: dict[str, np.ndarray], logits: np.ndarray
) -> None:
    for k in range(K):
        alone = captioner({"features": batch["features"], "token_ids": batch["token_ids"][:, k : k + 1]})
        np.testing.assert_allclose(numpy_of(alone)[:, 0], logits[:, k], atol=1e-5)


def test_words_before_the_last_are_remembered_and_later_ones_unknown(
    captioner: ShowAndTell, batch: dict[str, np.ndarray], logits: np.ndarray
) -> None:
    token_ids = batch["token_ids"].copy()
    token_ids[:, :, 1] = 4 + (token_ids[:, :, 1] + 1) % (V - 4)
    after = numpy_of(captioner({**batch, "token_ids": token_ids}))
    np.testing.assert_allclose(after[:, :, 0], logits[:, :, 0], atol=1e-6)
    assert (np.abs(after[:, :, 1:3] - logits[:, :, 1:3]).max(axis=-1) > 1e-4).all()


# ---------------------------------------------------------------- the state and the picture matter


@pytest.mark.parametrize("part", ["hidden", "carry"])
def test_the_state_changes_the_logits(part: str, captioner: ShowAndTell, batch: dict[str, np.ndarray]) -> None:
    state = captioner.init_state(batch["features"], captions=K)
    token_ids = batch["token_ids"][:, :, 1]
    plain, after, _ = captioner.step(token_ids, state)
    changed = {**state.recurrent, part: state.recurrent[part] + 0.5}
    other, _, _ = captioner.step(token_ids, CaptionerState(state.memory, changed))
    assert np.abs(numpy_of(other) - numpy_of(plain)).max() > 1e-2
    again, _, _ = captioner.step(token_ids, after)  # handed on, not begun anew
    assert np.abs(numpy_of(again) - numpy_of(plain)).max() > 1e-3


def test_the_picture_is_the_mean_of_its_grid(
    captioner: ShowAndTell, batch: dict[str, np.ndarray], logits: np.ndarray
) -> None:
    features = batch["features"].copy()
    features[1, 2, 3] += 20.0  # one region of the second picture
    after = numpy_of(captioner({**batch, "features": features}))
    np.testing.assert_allclose(after[0], logits[0], atol=1e-5)
    assert (np.abs(after[1] - logits[1]).max(axis=-1) > 1e-4).all()
    moved = batch["features"][:, ::-1, ::-1]  # where a thing is does not matter
    np.testing.assert_allclose(numpy_of(captioner({**batch, "features": moved})), logits, atol=1e-5)
    spread = np.broadcast_to(batch["features"].mean(axis=(1, 2), keepdims=True), batch["features"].shape)
    np.testing.assert_allclose(numpy_of(captioner({**batch, "features": spread})), logits, atol=1e-5)


def test_the_picture_enters_through_the_first_state_alone(captioner: ShowAndTell, batch: dict[str, np.ndarray]) -> None:
    state = captioner.init_state(batch["features"], captions=K)
    assert state.memory == {} and set(state.recurrent) == {"hidden", "carry"}
    for tensor in state.recurrent.values():
        assert tuple(tensor.shape) == (B, K, H)
        values = numpy_of(tensor)
        np.testing.assert_array_equal(values, np.broadcast_to(values[:, :1], values.shape))  # K captions share it
        assert np.abs(values[0] - values[1]).max() > 1e-3


def test_features_of_another_grid_are_refused(captioner: ShowAndTell, batch: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"features need shape \(B, 7, 11, 13\), got \(2, 11, 7, 13\)"):
        captioner.init_state(batch["features"].reshape(B, COLS, ROWS, D))
    with pytest.raises(ValueError, match=r"give an encoder, or the feature_shape \(rows, cols, D\)"):
        make_captioner(feature_shape=None)


# ---------------------------------------------------------------- training


def test_dropout_in_training_alone(captioner: ShowAndTell, batch: dict[str, np.ndarray], logits: np.ndarray) -> None:
    assert captioner.dropout_rate == 0.5
    np.testing.assert_array_equal(numpy_of(captioner(batch)), logits)
    shaken = [numpy_of(captioner(batch, training=True)) for _ in range(2)]
    assert np.abs(shaken[0] - shaken[1]).max() > 1e-2
    assert captioner.losses == []
    steady = make_captioner(dropout=0.0)
    np.testing.assert_allclose(numpy_of(steady(batch, training=True)), numpy_of(steady(batch)), atol=1e-6)


def test_scheduled_sampling_reads_the_models_own_words(batch: dict[str, np.ndarray]) -> None:
    captioner = make_captioner(dropout=0.0, scheduled_sampling=1.0)
    state = captioner.init_state(batch["features"], captions=K)
    own = (numpy_of(captioner(batch)) + numpy_of(forbidden_logits(V))).argmax(-1)[:, :, :-1]
    expected = batch["token_ids"].copy()
    inner = (batch["token_ids"][:, :, 1:] > END) & (own > END)
    expected[:, :, 1:][inner] = own[inner]
    assert (expected != batch["token_ids"]).any()
    np.testing.assert_array_equal(numpy_of(captioner._mix_in_own_words(batch["token_ids"], state)), expected)


def test_one_batch_can_be_learned_by_heart() -> None:
    captioner = make_captioner(dropout=0.0, feature_shape=(2, 3, D))
    features = np.random.default_rng(0).normal(size=(3, 2, 3, D)).astype(np.float32)
    captions = ["word1 word2 word3", "word1 word5 word2 word2", "word7"]
    packed = captioner.tokenizer.pack(captions, max_length=9)[:, None]  # (3, 1, T + 1)
    captioner.compile(keras.optimizers.Adam(0.02), loss=MaskedCrossentropy())
    inputs = {"features": features, "token_ids": packed[:, :, :-1]}
    history = captioner.fit(inputs, packed[:, :, 1:], epochs=60, verbose=0).history["loss"]
    # The floor of smoothed cross-entropy: the target keeps 0.9 + 0.1 / V, every other token has 0.1 / V.
    kept, other = 0.9 + 0.1 / V, 0.1 / V
    floor = -kept * math.log(kept) - (V - 1) * other * math.log(other)
    assert history[0] > 3.0
    assert floor - 1e-4 < history[-1] < floor + 0.05
    for width in (1, 3):
        found = Decoder(captioner, beam_width=width, max_length=7)(features)
        assert [caption.text for caption in found] == captions
        assert all(caption.attention_weights is None for caption in found)
        assert all(len(caption.word_log_probs) == len(caption.words) for caption in found)


def test_mixed_bfloat16_is_near_float32(
    captioner: ShowAndTell, batch: dict[str, np.ndarray], logits: np.ndarray
) -> None:
    fast = make_captioner(dtype="mixed_bfloat16")
    for weight, exact in zip(fast.weights, captioner.weights, strict=True):
        weight.assign(exact)
    # bfloat16 has 8 bits of mantissa: a relative step of 0.4 %, a few of which add up.
    assert 0 < np.abs(numpy_of(fast(batch)) - logits).max() < 0.05 * np.abs(logits).max()


# ---------------------------------------------------------------- saving


def test_a_saved_captioner_gives_equal_logits(
    captioner: ShowAndTell, batch: dict[str, np.ndarray], logits: np.ndarray, tmp_path: Path
) -> None:
    save_captioner(captioner, tmp_path / "best.keras")
    for path in (tmp_path / "best.keras", tmp_path):  # a run folder too
        again = load_captioner(path)
        np.testing.assert_array_equal(numpy_of(again(batch)), logits)
    assert isinstance(again, ShowAndTell)
    assert again.tokenizer.get_vocabulary() == [*SPECIAL_TOKENS, *WORDS]


def test_config_round_trip() -> None:
    captioner = make_captioner(dropout=0.25, scheduled_sampling=0.125, dtype="mixed_bfloat16")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(captioner))
    assert isinstance(again, ShowAndTell) and again.get_config() == captioner.get_config()
    assert (again.embedding_units, again.hidden_units, again.feature_shape) == (E, H, (ROWS, COLS, D))
    assert (again.dropout_rate, again.scheduled_sampling) == (0.25, 0.125)
    assert again.cell.dtype_policy.name == "mixed_bfloat16"


# ---------------------------------------------------------------- settings


def test_each_model_has_its_own_defaults() -> None:
    assert TrainConfig().model == "attention"
    config = TrainConfig(model="show-and-tell").with_model_defaults()
    assert (config.dropout, config.learning_rate) == (0.5, 1e-3)
    transformer = TrainConfig(model="transformer").with_model_defaults()
    assert (transformer.dropout, transformer.learning_rate) == (0.3, 5e-4)
    assert TrainConfig(model="show-and-tell", dropout=0.125).with_model_defaults().dropout == 0.125
    assert TrainConfig.from_dict(asdict(config)) == config
    with pytest.raises(ValueError, match="model is one of .*attention, .*show-and-tell.*, got 'gru'"):
        TrainConfig(model="gru")


@pytest.mark.parametrize("name", ["attention_penalty", "attention_supervision"])
def test_settings_of_maps_are_refused(name: str) -> None:
    with pytest.raises(
        ValueError,
        match=rf"^{name} is 0\.5, but the model show-and-tell has no attention maps: leave {name} out",
    ):
        TrainConfig.from_dict({"model": "show-and-tell", name: 0.5})


# ---------------------------------------------------------------- from pictures to captions

FACES = 17
CONFIG = TrainConfig(
    model="show-and-tell",
    weights="faces",
    min_count=1,
    embedding_units=E,
    hidden_units=H,
    dropout=0.1,
    scheduled_sampling=0.25,
    batch_size=4,
    epochs=2,
    learning_rate=0.02,
    validation_images=2,
    seed=5,
)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> CaptionData:
    return load(f"faces:{FACES}", seed=5, folder=tmp_path_factory.mktemp("faces"))


@pytest.fixture(scope="module")
def folder(faces: CaptionData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed, and its features."""
    folder = tmp_path_factory.mktemp("show_and_tell")
    train(faces, folder / "run", CONFIG, features=folder / "features", verbose=0)
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> ShowAndTell:
    found = load_captioner(folder / "run")
    assert isinstance(found, ShowAndTell)
    return found


@pytest.mark.slow
def test_stopped_and_resumed_it_is_the_run_that_was_never_stopped(
    folder: Path, faces: CaptionData, trained: ShowAndTell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trained.encoder is not None
    monkeypatch.setattr("attncap.training.features.new_encoder", lambda config: trained.encoder)
    ended = RunRecorder.on_epoch_end

    def end_and_stop(self: RunRecorder, epoch: int, logs: Any = None) -> None:
        ended(self, epoch, logs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunRecorder, "on_epoch_end", end_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(faces, tmp_path / "run", CONFIG, features=folder / "features", verbose=0)
    with pytest.raises(ValueError, match="the run to resume has other settings: hidden_units$"):
        other = TrainConfig(model="show-and-tell", weights="faces", hidden_units=7)
        train(faces, tmp_path / "run", other, resume=True, features=folder / "features")
    train(faces, tmp_path / "run", resume=True, features=folder / "features", verbose=0)
    state, expected = (np.load(run / "state.npz") for run in (tmp_path / "run", folder / "run"))
    assert state.files == expected.files
    for name in expected.files:
        np.testing.assert_array_equal(state[name], expected[name], err_msg=name)


def test_stored_features_and_picture_files_give_the_same_captions(
    folder: Path, faces: CaptionData, trained: ShowAndTell
) -> None:
    assert trained.encoder is not None
    pictures = faces.split("val").pictures
    store = FeatureStore(folder / "features", trained.encoder)
    stored = caption_stored(trained, store, pictures, beam_width=3, max_length=11)
    read, rejects = caption_images(
        trained, list(pictures["path"]), list(pictures["image_id"]), progress=False, beam_width=3, max_length=11
    )
    assert rejects.empty and len(stored) == len(pictures) > 0
    for one, other in zip(stored, read, strict=True):
        assert (one.image_id, one.text) == (other.image_id, other.text)
        assert one.log_prob == pytest.approx(other.log_prob, abs=0.05)
        assert one.attention_weights is None and other.attention_weights is None
    replayed = replay_captions(trained, store, pictures, faces.references())
    for captions in replayed.values():
        assert all(caption.attention_weights is None and caption.log_prob < 0 for caption in captions)


def test_the_command_line(folder: Path, faces: CaptionData, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = faces.split("val").pictures
    listed = tmp_path / "pictures.txt"
    listed.write_text("\n".join(pictures["path"]))
    run = ["--run", str(folder / "run")]
    assert main(["predict", *run, "--images", str(listed), "--out", str(tmp_path / "out.json")]) == 0
    predicted = {row["image_id"]: row["caption"] for row in json.loads((tmp_path / "out.json").read_text())}
    assert len(predicted) == len(pictures)
    capsys.readouterr()
    picture = Path(pictures["path"].iloc[0])
    assert main(["caption", *run, str(picture)]) == 0
    assert capsys.readouterr().out.strip() == as_sentence(predicted[picture.name])

    assert main(["caption", *run, str(picture), "--heatmap", str(tmp_path / "map.png")]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and not (tmp_path / "map.png").exists()
    assert "run: holds a ShowAndTell, which has no attention maps to draw: leave --heatmap out, or take" in said.err

    train_faces = ["train", "--data", f"faces:{FACES}", "--run", str(tmp_path / "new"), "--model"]
    for more, says in (
        (["lstm"], "model is one of adaptive-attention, attention, "),
        (["show-and-tell", "--set", "attention_penalty=1.0"], "attention_penalty is 1.0, but the model show-and-tell"),
        (
            ["show-and-tell", "--boxes", "faces"],
            "boxes 'faces' are given, but the model show-and-tell has no attention maps for them to supervise: leave",
        ),
    ):
        assert main([*train_faces, *more]) == 2
        assert says in capsys.readouterr().err
        assert not (tmp_path / "new" / "config.json").exists()


def test_train_standardizes_with_the_training_pictures(faces: CaptionData, trained: ShowAndTell) -> None:
    assert np.abs(numpy_of(trained.picture_mean)).max() > 0.01
    assert 0 < numpy_of(trained.picture_deviation).min() < 0.9


def test_what_needs_maps_says_that_there_are_none(faces: CaptionData, trained: ShowAndTell) -> None:
    picture = faces.pictures["path"].iloc[0]
    captions, _ = caption_images(trained, [picture], progress=False, max_length=7)
    with pytest.raises(ValueError, match="has no attention maps.*take one of `attncap train --model attention`"):
        plot_attention(picture, captions[0])
    with pytest.raises(ValueError, match="^ShowAndTell has no attention, .*no maps to measure: take a run of"):
        ground(trained, faces, "faces")
    with (
        pytest.raises(ValueError, match="^ShowAndTell has no attention to make uniform: take an attention captioner"),
        uniform_attention(trained),
    ):
        pass
