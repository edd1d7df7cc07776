"""Captioners: a step equals teacher forcing, state and picture matter, training learns, files hold everything."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import attncap
from attncap.decoding.decoder import Decoder
from attncap.features.extractor import FeatureExtractor
from attncap.models.attention_captioner import AttentionCaptioner
from attncap.models.captioner import Captioner, CaptionerState, forbidden_logits
from attncap.models.losses import MaskedCrossentropy, doubly_stochastic_penalty
from attncap.models.saving import load_captioner, save_captioner
from attncap.tokenizers import END, NEVER_GENERATED, PAD, SPECIAL_TOKENS, START, WordTokenizer

B, K, T, ROWS, COLS, D = 2, 3, 5, 7, 11, 13
E, H, D2, A, V = 17, 19, 23, 29, 31
L = ROWS * COLS
WORDS = [f"word{i}" for i in range(V - len(SPECIAL_TOKENS))]


def make_captioner(seed: int = 0, **options: Any) -> AttentionCaptioner:
    keras.utils.set_random_seed(seed)
    settings: dict[str, Any] = {
        "feature_shape": (ROWS, COLS, D),
        "embedding_units": E,
        "hidden_units": H,
        "projection_units": D2,
        "attention_units": A,
    }
    return AttentionCaptioner(WordTokenizer([*SPECIAL_TOKENS, *WORDS]), **{**settings, **options})


def numpy_of(tensor: Any) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def steps(captioner: Captioner, features: Any, token_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Teacher forcing a word at a time: logits (B, K, T, V) and attention weights (B, K, T, L)."""
    state = captioner.init_state(features, captions=token_ids.shape[1])
    logits, weights = [], []
    for t in range(token_ids.shape[2]):
        step_logits, state, step_weights = captioner.step(token_ids[:, :, t], state)
        logits.append(numpy_of(step_logits))
        weights.append(numpy_of(step_weights))
    return np.stack(logits, axis=2), np.stack(weights, axis=2)


@pytest.fixture(scope="module")
def batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    token_ids = rng.integers(END + 2, V, size=(B, K, T)).astype(np.int32)
    token_ids[:, :, 0] = START
    token_ids[1, 2, 3:] = PAD
    return {"features": rng.normal(size=(B, ROWS, COLS, D)).astype(np.float32), "token_ids": token_ids}


@pytest.fixture(scope="module")
def captioner() -> AttentionCaptioner:
    return make_captioner()


@pytest.fixture(scope="module")
def logits(captioner: AttentionCaptioner, batch: dict[str, np.ndarray]) -> np.ndarray:
    return numpy_of(captioner(batch))


# -- one step and all steps ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context_gate", [True, False])
def test_steps_equal_teacher_forcing(context_gate: bool, batch: dict[str, np.ndarray]) -> None:
    captioner = make_captioner(context_gate=context_gate)
    expected = numpy_of(captioner(batch))
    assert expected.shape == (B, K, T, V)
    by_steps, weights = steps(captioner, batch["features"], batch["token_ids"])
    np.testing.assert_allclose(by_steps, expected, atol=1e-5)
    assert np.abs(expected).max() > 0.05  # not all zeros
    assert weights.shape == (B, K, T, L)
    np.testing.assert_allclose(weights.sum(-1), np.ones((B, K, T)), atol=1e-5)
    assert (weights >= 0).all()
    gates = [weight for weight in captioner.weights if "/gate/" in weight.path]
    assert len(gates) == (2 if context_gate else 0)


def test_the_gate_scales_the_context(batch: dict[str, np.ndarray]) -> None:
    gated, plain = make_captioner(), make_captioner(context_gate=False)
    open_gate = {weight.path: weight for weight in gated.weights}
    for weight in plain.weights:
        weight.assign(open_gate[weight.path.replace(plain.name, gated.name)])
    kernel, bias = gated.gate_dense.weights
    kernel.assign(np.zeros(kernel.shape))
    bias.assign(np.full(bias.shape, 100.0))  # sigmoid(100) = 1: wide open
    np.testing.assert_allclose(numpy_of(gated(batch)), numpy_of(plain(batch)), atol=1e-5)
    bias.assign(np.full(bias.shape, -100.0))  # shut: the picture enters through the first state alone
    state = gated.init_state(batch["features"], captions=K)
    _, state, _ = gated.step(batch["token_ids"][:, :, 0], state)
    np.testing.assert_array_equal(numpy_of(state.recurrent["context"]), np.zeros((B, K, D2)))


def test_one_step_is_the_equation_of_the_docstring(captioner: AttentionCaptioner, batch: dict[str, np.ndarray]) -> None:
    def dense(layer: Any, x: np.ndarray) -> np.ndarray:
        kernel, *bias = (numpy_of(weight) for weight in layer.weights)
        return x @ kernel + (bias[0] if bias else 0.0)

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    regions = dense(captioner.value_dense, batch["features"][0].reshape(L, D))
    centered = regions - regions.mean(-1, keepdims=True)
    values = centered / np.sqrt((regions.var(-1, keepdims=True)) + captioner.value_norm.epsilon)
    hidden = np.tanh(dense(captioner.initial_dense, values.mean(0)))
    attention = captioner.attention
    scores = dense(
        attention.score_dense, np.tanh(dense(attention.query_dense, hidden) + dense(attention.key_dense, values))
    )
    weights = np.exp(scores[:, 0]) / np.exp(scores[:, 0]).sum()
    context = sigmoid(dense(captioner.gate_dense, hidden)) * (weights @ values)
    word = numpy_of(captioner.embedding.embeddings)[START]
    kernel, recurrent_kernel, bias = (numpy_of(weight) for weight in captioner.cell.weights)
    of_input = np.split(np.concatenate([word, context]) @ kernel + bias[0], 3)
    of_state = np.split(hidden @ recurrent_kernel + bias[1], 3)
    update, reset = sigmoid(of_input[0] + of_state[0]), sigmoid(of_input[1] + of_state[1])
    after = update * hidden + (1 - update) * np.tanh(of_input[2] + reset * of_state[2])
    deep = np.tanh(word + dense(captioner.hidden_dense, after) + dense(captioner.context_dense, context))
    expected = dense(captioner.logits_dense, deep)

    logits, state, step_weights = captioner.step(
        np.full((B, 1), START, np.int32), captioner.init_state(batch["features"])
    )
    np.testing.assert_allclose(numpy_of(step_weights)[0, 0], weights, atol=1e-5)
    np.testing.assert_allclose(numpy_of(state.recurrent["hidden"])[0, 0], after, atol=1e-5)
    np.testing.assert_allclose(numpy_of(logits)[0, 0], expected, atol=1e-5)


def test_captions_of_a_picture_do_not_meet(
    captioner: AttentionCaptioner, batch: dict[str, np.ndarray], logits: np.ndarray
) -> None:
    for k in range(K):
        alone = captioner({"features": batch["features"], "token_ids": batch["token_ids"][:, k : k + 1]})
        np.testing.assert_allclose(numpy_of(alone)[:, 0], logits[:, k], atol=1e-5)


def test_a_later_word_does_not_change_earlier_logits(
    captioner: AttentionCaptioner, batch: dict[str, np.ndarray], logits: np.ndarray
) -> None:
    token_ids = batch["token_ids"].copy()
    token_ids[:, :, 3] = 4 + (token_ids[:, :, 3] + 1) % (V - 4)
    after = numpy_of(captioner({**batch, "token_ids": token_ids}))
    np.testing.assert_allclose(after[:, :, :3], logits[:, :, :3], atol=1e-5)
    assert (np.abs(after[:, :, 3:] - logits[:, :, 3:]).max(axis=(2, 3)) > 1e-3).all()


# -- the state and the picture matter --------------------------------------------------------------------------------


def test_the_state_changes_the_logits(captioner: AttentionCaptioner, batch: dict[str, np.ndarray]) -> None:
    state = captioner.init_state(batch["features"], captions=K)
    token_ids = batch["token_ids"][:, :, 1]
    plain, after, _ = captioner.step(token_ids, state)
    changed = {**state.recurrent, "hidden": state.recurrent["hidden"] + 0.5}
    other, _, _ = captioner.step(token_ids, CaptionerState(state.memory, changed))
    assert np.abs(numpy_of(other) - numpy_of(plain)).max() > 1e-2
    # The state is handed on, not begun anew: the same word, one step later, gives other logits.
    again, _, _ = captioner.step(token_ids, after)
    assert np.abs(numpy_of(again) - numpy_of(plain)).max() > 1e-3


def test_words_before_the_last_are_remembered(
    captioner: AttentionCaptioner, batch: dict[str, np.ndarray], logits: np.ndarray
) -> None:
    token_ids = batch["token_ids"].copy()
    token_ids[:, :, 1] = 4 + (token_ids[:, :, 1] + 1) % (V - 4)
    after = numpy_of(captioner({**batch, "token_ids": token_ids}))
    assert (np.abs(after[:, :, 2] - logits[:, :, 2]).max(axis=-1) > 1e-4).all()  # one word on, same last word


def test_the_picture_changes_the_logits(
    captioner: AttentionCaptioner, batch: dict[str, np.ndarray], logits: np.ndarray
) -> None:
    features = batch["features"].copy()
    features[1, 2, 3] += 20.0  # one region of the second picture
    after = numpy_of(captioner({**batch, "features": features}))
    np.testing.assert_allclose(after[0], logits[0], atol=1e-5)
    assert (np.abs(after[1] - logits[1]).max(axis=-1) > 1e-4).all()


def test_memory_is_of_the_picture_alone(captioner: AttentionCaptioner, batch: dict[str, np.ndarray]) -> None:
    state = captioner.init_state(batch["features"], captions=K)
    assert {name: tuple(tensor.shape) for name, tensor in state.memory.items()} == {
        "values": (B, L, D2),
        "keys": (B, L, A),
    }
    assert all(tuple(tensor.shape)[:2] == (B, K) for tensor in state.recurrent.values())
    _, after, _ = captioner.step(batch["token_ids"][:, :, 0], state)
    for name, tensor in state.memory.items():
        assert after.memory[name] is tensor  # handed on, not computed again
    assert set(after.recurrent) == set(state.recurrent)


def test_features_of_another_grid_are_refused(captioner: AttentionCaptioner, batch: dict[str, np.ndarray]) -> None:
    # As many numbers, other axes: a reshape alone would take them.
    for wrong in ((B, COLS, ROWS, D), (B, D, ROWS, COLS), (1, B * ROWS, COLS, D)):
        with pytest.raises(ValueError, match=r"features need shape \(B, 7, 11, 13\), got "):
            captioner.init_state(batch["features"].reshape(wrong))


def test_neither_encoder_nor_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"give an encoder, or the feature_shape \(rows, cols, D\)"):
        make_captioner(feature_shape=None)


def test_help_shows_the_arguments_that_every_captioner_takes() -> None:
    from attncap.models.registry import captioner_classes

    for cls in captioner_classes().values():
        assert list(inspect.signature(cls).parameters)[:3] == ["tokenizer", "feature_shape", "encoder"], cls


def test_forbidden_logits() -> None:
    row = numpy_of(forbidden_logits(V))
    assert NEVER_GENERATED == (0, 1, 3)  # <pad>, <start>, <unk>; <end> may be said
    assert (row[[0, 1, 3]] <= -1e9).all()
    assert (np.delete(row, [0, 1, 3]) == 0).all()


# -- training --------------------------------------------------------------------------------------------------------


def test_dropout_in_training_alone(batch: dict[str, np.ndarray]) -> None:
    captioner = make_captioner(dropout=0.5, attention_penalty=0.0)
    calm = [numpy_of(captioner(batch, training=False)) for _ in range(2)]
    np.testing.assert_array_equal(calm[0], calm[1])
    shaken = [numpy_of(captioner(batch, training=True)) for _ in range(2)]
    assert np.abs(shaken[0] - shaken[1]).max() > 1e-2
    assert np.abs(shaken[0] - calm[0]).max() > 1e-2
    steady = make_captioner(dropout=0.0, attention_penalty=0.0)
    np.testing.assert_allclose(numpy_of(steady(batch, training=True)), numpy_of(steady(batch)), atol=1e-6)


def test_the_penalty_is_added_in_training_alone(batch: dict[str, np.ndarray]) -> None:
    captioner = make_captioner(dropout=0.0, attention_penalty=3.0)
    _, weights = steps(captioner, batch["features"], batch["token_ids"])
    captioner(batch, training=True)
    (loss,) = captioner.losses
    expected = 3.0 * float(doubly_stochastic_penalty(weights, batch["token_ids"]))
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    assert expected > 0.1
    quiet = make_captioner(dropout=0.0, attention_penalty=3.0)
    quiet(batch)
    assert quiet.losses == []


def test_scheduled_sampling_reads_the_models_own_words(batch: dict[str, np.ndarray], logits: np.ndarray) -> None:
    token_ids = batch["token_ids"].copy()
    token_ids[0, 0, 3] = END
    token_ids[0, 0, 4] = PAD
    captioner = make_captioner(dropout=0.0, attention_penalty=0.0, scheduled_sampling=1.0)
    state = captioner.init_state(batch["features"], captions=K)
    mixed = numpy_of(captioner._mix_in_own_words(token_ids, state)).astype(int)
    # The word that the model would have said after the words before it, where both are words.
    plain = numpy_of(captioner({**batch, "token_ids": token_ids}))
    own = (plain + numpy_of(forbidden_logits(V))).argmax(-1)[:, :, :-1]
    expected = token_ids.copy()
    inner = (token_ids[:, :, 1:] > END) & (own > END)
    expected[:, :, 1:][inner] = own[inner]
    np.testing.assert_array_equal(mixed, expected)
    assert (mixed != token_ids).any()
    # Lengths stay: <start>, <end> and padding are where they were, and no token is replaced by one.
    np.testing.assert_array_equal(mixed <= END, token_ids <= END)

    y = np.concatenate([token_ids[:, :, 1:], np.zeros((B, K, 1), np.int32)], axis=2)
    loss = MaskedCrossentropy()
    trained = captioner({**batch, "token_ids": token_ids}, training=True)
    assert tuple(trained.shape) == (B, K, T, V)
    assert abs(float(loss(y, trained)) - float(loss(y, plain))) > 1e-4
    # A share of the words; none outside training.
    half = make_captioner(dropout=0.0, attention_penalty=0.0, scheduled_sampling=0.5)
    replaced = np.mean(
        [(numpy_of(half._mix_in_own_words(token_ids, state)) != token_ids)[mixed != token_ids] for _ in range(20)]
    )
    assert 0.35 < replaced < 0.65
    np.testing.assert_allclose(numpy_of(half({**batch, "token_ids": token_ids})), plain, atol=1e-6)


def test_one_batch_can_be_learned_by_heart() -> None:
    captioner = make_captioner(dropout=0.0, attention_penalty=0.0, feature_shape=(2, 3, D))
    features = np.random.default_rng(0).normal(size=(3, 2, 3, D)).astype(np.float32)
    captions = ["word1 word2 word3", "word1 word5 word2 word2", "word7"]
    packed = captioner.tokenizer.pack(captions, max_length=9)[:, None]  # (3, 1, T + 1)
    captioner.compile(keras.optimizers.Adam(0.02), loss=MaskedCrossentropy())
    history = captioner.fit(
        {"features": features, "token_ids": packed[:, :, :-1]}, packed[:, :, 1:], epochs=40, verbose=0
    ).history["loss"]
    # The floor of smoothed cross-entropy: the target keeps 0.9 + 0.1 / V, every other token has 0.1 / V.
    kept, other = 0.9 + 0.1 / V, 0.1 / V
    floor = -kept * math.log(kept) - (V - 1) * other * math.log(other)
    assert history[0] > 3.0
    assert floor - 1e-4 < history[-1] < floor + 0.05
    assert [caption.text for caption in Decoder(captioner, beam_width=1, max_length=7)(features)] == captions
    inputs = {"features": features, "token_ids": packed[:, :, :-1]}
    predicted = captioner.predict(inputs, verbose=0)
    np.testing.assert_allclose(predicted, numpy_of(captioner(inputs)), atol=1e-4)


def test_mixed_bfloat16_is_near_float32(
    captioner: AttentionCaptioner, batch: dict[str, np.ndarray], logits: np.ndarray
) -> None:
    fast = make_captioner(dtype="mixed_bfloat16")
    for weight, exact in zip(fast.weights, captioner.weights, strict=True):
        weight.assign(exact)
    near = numpy_of(fast(batch))
    # bfloat16 has 8 bits of mantissa: a relative step of 0.4 %, a few of which add up.
    assert 0 < np.abs(near - logits).max() < 0.05 * np.abs(logits).max()
    step_logits, weights = steps(fast, batch["features"], batch["token_ids"])
    assert step_logits.dtype == np.float32
    np.testing.assert_allclose(weights.sum(-1), np.ones((B, K, T)), atol=1e-5)
    np.testing.assert_allclose(step_logits, logits, atol=0.05 * np.abs(logits).max())


# -- saving ----------------------------------------------------------------------------------------------------------


def test_config_round_trip() -> None:
    captioner = make_captioner(
        dropout=0.25, attention_penalty=0.5, scheduled_sampling=0.125, context_gate=False, dtype="mixed_bfloat16"
    )
    config = keras.saving.serialize_keras_object(captioner)
    again = keras.saving.deserialize_keras_object(config)
    assert isinstance(again, AttentionCaptioner)
    assert again.get_config() == captioner.get_config()
    assert again.tokenizer.get_vocabulary() == captioner.tokenizer.get_vocabulary()
    for name, value in {
        "feature_shape": (ROWS, COLS, D),
        "embedding_units": E,
        "hidden_units": H,
        "projection_units": D2,
        "attention_units": A,
        "dropout_rate": 0.25,
        "attention_penalty": 0.5,
        "scheduled_sampling": 0.125,
        "context_gate": False,
        "encoder": None,
    }.items():
        assert getattr(again, name) == value, name
    assert again.dtype_policy.name == again.attention.dtype_policy.name == "mixed_bfloat16"


def test_a_saved_captioner_gives_equal_logits(
    captioner: AttentionCaptioner, batch: dict[str, np.ndarray], logits: np.ndarray, tmp_path: Path
) -> None:
    save_captioner(captioner, tmp_path / "best.keras")
    for path in (tmp_path / "best.keras", tmp_path, str(tmp_path)):  # a run folder too
        again = load_captioner(path)
        np.testing.assert_array_equal(numpy_of(again(batch)), logits)
    assert isinstance(again, AttentionCaptioner)
    assert again.tokenizer.get_vocabulary() == [*SPECIAL_TOKENS, *WORDS]
    assert again.feature_shape == (ROWS, COLS, D)


def test_saving_leaves_the_optimizer_out_and_in_place(batch: dict[str, np.ndarray], tmp_path: Path) -> None:
    captioner = make_captioner()
    optimizer = keras.optimizers.Adam(1e-3)
    captioner.compile(optimizer, loss=MaskedCrossentropy())
    optimizer.build(captioner.trainable_variables)
    save_captioner(captioner, tmp_path / "without.keras")
    assert captioner.optimizer is optimizer
    captioner.save(tmp_path / "with.keras")
    assert (tmp_path / "with.keras").stat().st_size > 2 * (tmp_path / "without.keras").stat().st_size
    with pytest.raises(ValueError, match=r"\.keras"):
        save_captioner(captioner, tmp_path / "without.suffix")
    assert captioner.optimizer is optimizer
    np.testing.assert_array_equal(
        numpy_of(load_captioner(tmp_path / "without.keras")(batch)), numpy_of(captioner(batch))
    )


def test_wrong_files_are_refused(captioner: AttentionCaptioner, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.keras: no such captioner"):
        load_captioner(tmp_path / "nothing.keras")
    with pytest.raises(FileNotFoundError, match=r"best\.keras: no such captioner: give a run folder"):
        load_captioner(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"no such captioner: its training has not finished an epoch"):
        load_captioner(tmp_path)

    (tmp_path / "text.keras").write_text("not a model")
    with pytest.raises(ValueError, match=r"text\.keras: cannot be loaded as a captioner \(.+\)"):
        load_captioner(tmp_path / "text.keras")

    captioner.save(tmp_path / "whole.keras")
    whole = (tmp_path / "whole.keras").read_bytes()
    (tmp_path / "cut.keras").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cut\.keras: cannot be loaded as a captioner \(.+\)"):
        load_captioner(tmp_path / "cut.keras")

    keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match=r"other\.keras: holds a Sequential, not a captioner"):
        load_captioner(tmp_path / "other.keras")


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    touched = str(tmp_path / "touched")
    code = keras.layers.Lambda(lambda x: x if open(touched, "w") else x, output_shape=(2,))  # noqa: SIM115
    keras.Sequential([keras.Input((2,)), code]).save(tmp_path / "code.keras")
    Path(touched).unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"code\.keras: holds a Sequential, not a captioner"):
        load_captioner(tmp_path / "code.keras")
    assert not Path(touched).exists()


IN_A_FRESH_PROCESS = """
import sys
import numpy as np
import attncap
captioner = attncap.load_captioner(sys.argv[1])
inputs = np.load(sys.argv[2])
features = np.asarray(captioner.encoder(inputs["pixels"]), np.float32)
logits = captioner({"features": features, "token_ids": inputs["token_ids"]})
np.savez(
    sys.argv[3],
    features=features,
    logits=np.asarray(logits),
    words=captioner.tokenizer.get_vocabulary(),
    type=type(captioner).__name__,
    trainable=len(captioner.encoder.trainable_variables),
)
"""


def test_a_fresh_process_has_the_encoder_and_the_vocabulary_from_the_file(tmp_path: Path) -> None:
    encoder = FeatureExtractor("mixed0", weights="random", image_size=75, pool=3, dtype="float32")
    assert encoder.feature_shape == (2, 2, 256)
    with pytest.raises(ValueError, match=r"feature_shape is \(rows, cols, D\), got \(49, 768\): write \(1, L, D\) for"):
        make_captioner(feature_shape=(49, 768))
    with pytest.raises(ValueError, match=r"feature_shape \(7, 11, 13\) is not the encoder's \(2, 2, 256\)"):
        make_captioner(encoder=encoder)
    captioner = make_captioner(feature_shape=None, encoder=encoder)
    assert captioner.feature_shape == (2, 2, 256)
    assert not any("inception" in variable.path for variable in captioner.trainable_variables)
    pixels = np.random.default_rng(0).integers(0, 256, size=(B, 75, 75, 3)).astype(np.uint8)
    token_ids = np.array([[[START, 4, 5]], [[START, 6, 7]]], np.int32)
    features = numpy_of(encoder(pixels))
    logits = numpy_of(captioner({"features": features, "token_ids": token_ids}))
    save_captioner(captioner, tmp_path / "captioner.keras")
    np.savez(tmp_path / "inputs.npz", pixels=pixels, token_ids=token_ids)

    files = [str(tmp_path / name) for name in ("captioner.keras", "inputs.npz", "outputs.npz")]
    package = str(Path(attncap.__file__).parents[1])
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {package!r})\n{IN_A_FRESH_PROCESS}", *files],
        check=True,
        cwd=tmp_path,
    )
    outputs = np.load(tmp_path / "outputs.npz")
    np.testing.assert_allclose(outputs["features"], features, atol=1e-4)
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-4)
    assert outputs["words"].tolist() == [*SPECIAL_TOKENS, *WORDS]
    assert str(outputs["type"]) == "AttentionCaptioner"
    assert int(outputs["trainable"]) == 0
