"""What holds of each kind of captioner, whatever is inside: the new ones here; and the settings that belong to one."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops

from attncap.cli.main import main
from attncap.data.dataset import CaptionData
from attncap.data.load import load
from attncap.decoding.alternatives import top_alternatives
from attncap.decoding.decoder import Decoder
from attncap.features.extractor import FeatureExtractor
from attncap.grounding.probes import uniform_attention
from attncap.models.adaptive_attention_captioner import AdaptiveAttentionCaptioner
from attncap.models.attention_captioner import AttentionCaptioner
from attncap.models.captioner import Captioner
from attncap.models.losses import MaskedCrossentropy
from attncap.models.registry import captioner_class, captioner_classes, captioner_name, readers_of, settings_of
from attncap.models.saving import load_captioner, model_name, save_captioner
from attncap.models.show_and_tell import ShowAndTell
from attncap.models.transformer_captioner import TransformerCaptioner
from attncap.tokenizers import END, PAD, SPECIAL_TOKENS, START, UNK, WordTokenizer
from attncap.training.config import TrainConfig
from attncap.training.train import train

B, K, T, ROWS, COLS, D, V = 2, 3, 5, 7, 11, 13, 31
L = ROWS * COLS
WORDS = [f"word{i}" for i in range(V - len(SPECIAL_TOKENS))]
ADAPTIVE: dict[str, Any] = {"embedding_units": 17, "hidden_units": 19, "projection_units": 23, "attention_units": 29}
TRANSFORMER: dict[str, Any] = {"hidden_units": 21, "heads": 3, "feedforward_units": 19}
NEW: dict[Any, dict[str, Any]] = {AdaptiveAttentionCaptioner: ADAPTIVE, TransformerCaptioner: TRANSFORMER}
each_new = pytest.mark.parametrize("kind", NEW, ids=["adaptive-attention", "transformer"])


def make(kind: Any, words: list[str] = WORDS, grid: tuple[int, int] = (ROWS, COLS), **options: Any) -> Captioner:
    keras.utils.set_random_seed(0)
    return kind(WordTokenizer([*SPECIAL_TOKENS, *words]), (*grid, D), **{**NEW[kind], "dropout": 0.0, **options})


def numpy_of(tensor: Any) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


@pytest.fixture(scope="module")
def batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    token_ids = rng.integers(END + 2, V, size=(B, K, T)).astype(np.int32)
    token_ids[:, :, 0] = START
    token_ids[1, 2, 3:] = PAD
    return {"features": rng.normal(size=(B, ROWS, COLS, D)).astype(np.float32), "token_ids": token_ids}


MODELS = {  # every captioner of the package
    "adaptive-attention": AdaptiveAttentionCaptioner,
    "attention": AttentionCaptioner,
    "show-and-tell": ShowAndTell,
    "transformer": TransformerCaptioner,
}
WITH_MAPS = ("adaptive-attention", "attention", "transformer")
READ_BY: dict[str, tuple[str, ...]] = {  # settings that not every model reads -> the models that do
    "embedding_units": ("adaptive-attention", "attention", "show-and-tell"),
    "projection_units": ("adaptive-attention", "attention"),
    "attention_units": ("adaptive-attention", "attention"),
    "context_gate": ("attention",),
    "decoder_layers": ("transformer",),
    "heads": ("transformer",),
    "feedforward_units": ("transformer",),
    "attention_penalty": WITH_MAPS,
    "attention_supervision": WITH_MAPS,
}


def test_the_registry_finds_every_captioner_and_its_settings() -> None:
    classes = captioner_classes()
    assert {name: classes[name] for name in MODELS} == MODELS
    assert all(captioner_name(kind) == name for name, kind in MODELS.items())
    for name, readers in READ_BY.items():
        assert tuple(sorted(set(readers_of(name)) & set(MODELS))) == readers, name


@pytest.mark.parametrize("model", MODELS)
def test_defaults_of_the_constructor_are_those_of_the_configuration(model: str) -> None:
    config, captioner = TrainConfig(model=model).with_model_defaults(), captioner_class(model)
    settings = settings_of(captioner)
    assert {"hidden_units", "dropout", "scheduled_sampling"} <= set(settings)
    shared = [name for name in settings if hasattr(config, name)]
    assert {name: getattr(config, name) for name in shared} == {name: settings[name] for name in shared}
    assert config.learning_rate == captioner.default_learning_rate
    made = captioner(WordTokenizer([*SPECIAL_TOKENS, *WORDS]), (2, 3, D)).get_config()
    assert {name: made[name] for name in shared} == {name: settings[name] for name in shared}


@each_new
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_steps_equal_teacher_forcing(kind: Any, dtype: str, batch: dict[str, np.ndarray]) -> None:
    exact = make(kind)
    logits = numpy_of(exact(batch))
    assert logits.shape == (B, K, T, V) and np.abs(logits).max() > 0.05
    captioner = make(kind, dtype=dtype)
    for weight, same in zip(captioner.weights, exact.weights, strict=True):
        weight.assign(same)
    # bfloat16 has 8 bits of mantissa: a relative step of 0.4 %, a few of which add up.
    near = 1e-5 if dtype == "float32" else 0.06 * np.abs(logits).max()
    np.testing.assert_allclose(numpy_of(captioner(batch)), logits, atol=near)
    state = captioner.init_state(batch["features"], captions=K)
    assert all(tuple(tensor.shape)[:2] == (B, K) for tensor in state.recurrent.values())
    assert all(tensor.shape[0] == B for tensor in state.memory.values())
    for t in range(T):
        step_logits, after, weights = captioner.step(batch["token_ids"][:, :, t], state)
        assert all(after.memory[name] is tensor for name, tensor in state.memory.items())  # not computed again
        assert set(after.recurrent) == set(state.recurrent)
        state = after
        np.testing.assert_allclose(numpy_of(step_logits), logits[:, :, t], atol=near)
        shares = numpy_of(weights)
        assert shares.shape == (B, K, L) and (shares >= 0).all()
        if kind is TransformerCaptioner:
            np.testing.assert_allclose(shares.sum(-1), np.ones((B, K)), atol=1e-5)
        else:
            assert ((shares.sum(-1) > 0.5) & (shares.sum(-1) < 1 - 1e-3)).all()  # near L / (L + 1)


@each_new
def test_captions_do_not_meet_and_later_words_and_other_pictures_do_not_matter(
    kind: Any, batch: dict[str, np.ndarray]
) -> None:
    captioner = make(kind)
    logits = numpy_of(captioner(batch))
    alone = numpy_of(captioner({**batch, "token_ids": batch["token_ids"][:, 1:2]}))
    np.testing.assert_allclose(alone[:, 0], logits[:, 1], atol=1e-5)
    token_ids = batch["token_ids"].copy()
    token_ids[:, :, 2] = 4 + (token_ids[:, :, 2] + 1) % (V - 4)
    after = numpy_of(captioner({**batch, "token_ids": token_ids}))
    np.testing.assert_allclose(after[:, :, :2], logits[:, :, :2], atol=1e-5)
    assert (np.abs(after - logits)[:, :, 2:].max(axis=(2, 3)) > 1e-3).all()
    # Padding comes last: words before it do not see how much of it there is.
    longer = np.concatenate([batch["token_ids"], np.zeros((B, K, 3), np.int32)], axis=2)
    np.testing.assert_allclose(numpy_of(captioner({**batch, "token_ids": longer}))[:, :, :T], logits, atol=1e-5)
    features = batch["features"].copy()
    features[1, 2, 3] += 20.0
    after = numpy_of(captioner({**batch, "features": features}))
    np.testing.assert_allclose(after[0], logits[0], atol=1e-5)
    assert (np.abs(after[1] - logits[1]).max(axis=-1) > 1e-4).all()


@each_new
def test_dropout_in_training_alone(kind: Any, batch: dict[str, np.ndarray]) -> None:
    captioner = make(kind, dropout=0.5, attention_penalty=0.0)
    calm, shaken = ([numpy_of(captioner(batch, training=on)) for _ in range(2)] for on in (False, True))
    np.testing.assert_array_equal(calm[0], calm[1])
    assert np.abs(shaken[0] - shaken[1]).max() > 1e-2
    steady = make(kind, scheduled_sampling=0.0, attention_penalty=0.0)
    np.testing.assert_allclose(numpy_of(steady(batch, training=True)), numpy_of(steady(batch)), atol=1e-6)
    mixed = make(kind, scheduled_sampling=1.0, attention_penalty=0.5)
    plain = numpy_of(mixed(batch))
    assert mixed.losses == []
    assert np.abs(numpy_of(mixed(batch, training=True)) - plain)[:, :, 1:].max() > 1e-4
    (penalty,) = mixed.losses
    assert float(penalty) > 0.05


@each_new
def test_a_file_holds_everything(kind: Any, batch: dict[str, np.ndarray], tmp_path: Path) -> None:
    captioner = make(kind, dropout=0.25, attention_penalty=0.5, scheduled_sampling=0.125)
    save_captioner(captioner, tmp_path / "best.keras")
    again = load_captioner(tmp_path)
    assert type(again) is kind and again.get_config() == captioner.get_config()
    np.testing.assert_array_equal(numpy_of(again(batch)), numpy_of(captioner(batch)))
    assert again.tokenizer.get_vocabulary() == [*SPECIAL_TOKENS, *WORDS]
    assert MODELS[model_name(tmp_path)] is kind
    for name, value in {**NEW[kind], "dropout_rate": 0.25, "attention_penalty": 0.5}.items():
        assert getattr(again, name) == value, name


@each_new
def test_one_batch_can_be_learned_by_heart(kind: Any) -> None:
    less: dict[str, Any] = {"decoder_layers": 1} if kind is TransformerCaptioner else {}
    captioner = make(kind, grid=(2, 3), attention_penalty=0.0, **less)
    features = np.random.default_rng(0).normal(size=(3, 2, 3, D)).astype(np.float32)
    captions = ["word1 word2 word3", "word1 word5 word2 word2", "word7"]
    packed = captioner.tokenizer.pack(captions, max_length=9)[:, None]  # (3, 1, T + 1)
    jit = "auto" if keras.backend.backend() == "jax" else False
    captioner.compile(keras.optimizers.Adam(0.03), loss=MaskedCrossentropy(), jit_compile=jit)
    inputs = {"features": features, "token_ids": packed[:, :, :-1]}
    history = captioner.fit(inputs, packed[:, :, 1:], epochs=25, verbose=0).history["loss"]
    assert history[0] > 3.0 > 1.2 > history[-1]  # the floor of smoothed cross-entropy is 0.67
    said = numpy_of(captioner(inputs)).argmax(-1)
    np.testing.assert_array_equal(np.where(packed[:, :, 1:] == PAD, PAD, said), packed[:, :, 1:])


@each_new
def test_a_wide_beam_is_exhaustive_search(kind: Any) -> None:
    captioner = make(kind, words=["a", "b"], grid=(2, 3))
    for weight in captioner.trainable_variables:
        weight.assign(2.0 * weight)  # untrained, it says much the same of every picture
    length = 3
    features = np.random.default_rng(0).normal(size=(5, 2, 3, D)).astype(np.float32)
    # Every caption of at most three tokens: those that end, and those that are cut.
    rows = [[*words, END] for n in range(length) for words in itertools.product((4, 5), repeat=n)]
    rows += [list(words) for words in itertools.product((4, 5), repeat=length)]
    targets = np.array([row + [PAD] * (length - len(row)) for row in rows], np.int32)  # (15, 3)
    inputs = np.concatenate([np.full((len(rows), 1), START, np.int32), targets[:, :-1]], axis=1)
    tiled = np.broadcast_to(inputs, (5, *inputs.shape))
    logits = numpy_of(captioner({"features": features, "token_ids": tiled})).astype(np.float64)
    logits[..., [PAD, START, UNK]] = -np.inf
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen = np.take_along_axis(log_probs, np.broadcast_to(targets, tiled.shape)[..., None], axis=-1)[..., 0]
    totals = np.where(targets == PAD, 0.0, chosen).sum(-1)  # (5, 15)
    assert np.exp(totals).sum(axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    ranks = totals / (targets != PAD).sum(-1) ** 0.7
    order = np.argsort(-ranks, axis=1)

    decode = Decoder(captioner, beam_width=15, n_best=3, max_length=length, length_penalty=0.7)
    best = decode(features)
    for picture, captions in enumerate(best):
        for place, caption in enumerate(captions):
            expected = order[picture, place]
            assert list(caption.token_ids) == [token for token in rows[expected] if token != END]
            assert caption.log_prob == pytest.approx(totals[picture, expected], abs=1e-4)
            assert caption.attention_weights is not None
            np.testing.assert_allclose(caption.attention_weights.sum(axis=(1, 2)), 1.0, atol=1e-5)
            if kind is TransformerCaptioner or not caption.words:
                assert caption.extras == {}
            else:
                looked = caption.extras["looked"]
                assert ((looked > 0.1) & (looked < 0.999)).all()
    # What else could have been said: of three tokens, the three likeliest are all, with their probabilities.
    picture = next(number for number, captions in enumerate(best) if captions[0].words)
    (others,) = top_alternatives(captioner, features[picture : picture + 1], [best[picture][0]], top=3)
    first = dict(zip(("<end>", "a", "b"), log_probs[picture, 0, 0, [END, 4, 5]], strict=True))
    assert dict(others[0]) == pytest.approx(first, abs=1e-4)


@each_new
def test_uniform_attention(kind: Any, batch: dict[str, np.ndarray]) -> None:
    captioner = make(kind, hidden_units=21)
    before = numpy_of(captioner(batch))
    state = captioner.init_state(batch["features"], captions=K)
    with uniform_attention(captioner):
        _, _, weights = captioner.step(batch["token_ids"][:, :, 0], state)
        expected = 1 / L if kind is TransformerCaptioner else 1 / (L + 1)  # the sentinel has as much as a region
        np.testing.assert_allclose(numpy_of(weights), expected, atol=1e-7)
    np.testing.assert_array_equal(numpy_of(captioner(batch)), before)


# ---------------------------------------------------------------- from drawn faces to captions

FACES = 20
SMALL: dict[str, Any] = {"weights": "faces", "min_count": 1, "hidden_units": 32, "dropout": 0.0, "label_smoothing": 0.0}
SMALL |= {"batch_size": 4, "epochs": 5, "learning_rate": 0.005, "validation_images": 2, "seed": 5}


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> CaptionData:
    return load(f"faces:{FACES}", seed=5, folder=tmp_path_factory.mktemp("faces"))


@pytest.fixture(scope="module")
def folder(faces: CaptionData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each new model."""
    folder = tmp_path_factory.mktemp("runs")
    extractor = FeatureExtractor(None, "faces")
    with pytest.MonkeyPatch.context() as patched:  # made once
        patched.setattr("attncap.training.features.new_encoder", lambda config: extractor)
        for model in ("adaptive-attention", "transformer"):
            train(faces, folder / model, TrainConfig(model=model, **SMALL), features=folder / "features", verbose=0)
    return folder


@pytest.mark.parametrize("model", ["adaptive-attention", "transformer"])
def test_it_learns(model: str, folder: Path) -> None:
    loss = pd.read_csv(folder / model / "history.csv")["loss"]
    assert loss.iloc[-1] < loss.iloc[0] - 0.8  # nats a word; 20 steps
    assert type(load_captioner(folder / model)) is MODELS[model]


@pytest.mark.slow
def test_training_on_the_score_goes_on_with_the_model_of_the_run(folder: Path, faces: CaptionData) -> None:
    new = folder / "scored"
    score: dict[str, Any] = {"cider_epochs": 1, "cider_samples": 2, "batch_size": 8, "validation_images": 2}
    config = TrainConfig(start=str(folder / "transformer"), objective="cider", **score)
    train(faces, new, config, features=folder / "features", verbose=0)
    assert json.loads((new / "config.json").read_text())["model"] == "transformer"
    assert isinstance(load_captioner(new), TransformerCaptioner)
    assert "reward" in pd.read_csv(new / "history.csv")


def test_another_model_than_the_run_to_start_from_is_refused(
    folder: Path, faces: CaptionData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TrainConfig(model="attention", start=str(folder / "transformer"), epochs=1)
    with pytest.raises(ValueError, match=r"^model is attention, but .*transformer holds a TransformerCaptioner: leave"):
        train(faces, tmp_path / "run", config, features=folder / "features", verbose=0)
    begun = ["train", "--data", f"faces:{FACES}", "--run", str(tmp_path / "run"), "--from"]
    assert main([*begun, str(folder / "transformer"), "--set", "attention_units=7"]) == 2
    assert "attention_units is 7, but the model transformer does not read it: leave" in capsys.readouterr().err
    assert main([*begun, str(tmp_path)]) == 2
    assert "best.keras: no such captioner" in capsys.readouterr().err
    (tmp_path / "text.keras").write_text("not a model")
    assert main([*begun, str(tmp_path / "text.keras")]) == 2
    assert "text.keras: cannot be loaded as a captioner" in capsys.readouterr().err
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]).save(tmp_path / "other.keras")
    assert main([*begun, str(tmp_path / "other.keras")]) == 2
    assert "other.keras: holds a Sequential, not a captioner" in capsys.readouterr().err


# ---------------------------------------------------------------- settings of one model


@pytest.mark.parametrize("model", MODELS)
def test_a_setting_that_the_model_does_not_read_is_refused_by_name(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = {name for name, readers in READ_BY.items() if model not in readers}
    assert refused or model == "attention"
    default = TrainConfig(model=model)
    for name in refused:
        value = str(getattr(TrainConfig(), name)).lower()  # a default too, where it is said
        arguments = ["train", "--data", "faces:9", "--run", str(tmp_path / "run"), "--model", model]
        assert main([*arguments, "--set", f"{name}={value}"]) == 2
        said = capsys.readouterr().err
        why = "has no attention maps" if name in ("attention_penalty", "attention_supervision") else "does not"
        assert said.startswith(f"attncap train: {name} is ") and f"but the model {model} {why}" in said
        assert f"leave {name} out, or train with --model " in said and all(reader in said for reader in READ_BY[name])
    assert not (tmp_path / "run").exists()
    default.refuse_unread(set(asdict(default)) - refused)
    assert TrainConfig.from_dict(asdict(default)) == default  # a run's config.json has them all


def test_what_the_classes_take_is_what_the_table_says() -> None:
    tokenizer = WordTokenizer([*SPECIAL_TOKENS, *WORDS])
    for model, kind in MODELS.items():
        saved = kind(tokenizer, (2, 3, D)).get_config()
        assert {setting for setting in READ_BY if setting in saved} == {s for s, by in READ_BY.items() if model in by}
    assert isinstance(ShowAndTell(tokenizer, (2, 3, D)), Captioner)
