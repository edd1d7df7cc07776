"""Training on the score: the reward against the evaluation's, the gradient by hand, and that rewards rise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from attncap.metrics.evaluate import References, score_images
from attncap.metrics.reward import CaptionReward
from attncap.models.attention_captioner import AttentionCaptioner
from attncap.models.captioner import Captioner, CaptionerState, forbidden_logits
from attncap.models.saving import load_captioner
from attncap.tokenizers import END, PAD, SPECIAL_TOKENS, UNK, WordTokenizer
from attncap.training.batches import CaptionBatches
from attncap.training.callbacks import RunRecorder
from attncap.training.config import TrainConfig
from attncap.training.self_critical import SelfCriticalTrainer, advantages
from attncap.training.train import train
from tests.training import test_train as test_training
from tests.training.test_train import small_random_encoder  # noqa: F401  (a fixture of the runs below)

WORDS = ["a", "b", "c", "d", "e", "f", "g"]
TOKENIZER = WordTokenizer([*SPECIAL_TOKENS, *WORDS])
V = TOKENIZER.vocabulary_size()
GRID = (2, 3, 5)


# ------------------------------------------------------------------ the reward


def test_the_reward_is_the_cider_d_of_the_evaluation() -> None:
    rng = np.random.default_rng(0)

    def caption(longest: int) -> list[int]:
        return [*rng.integers(4, 30, rng.integers(1, longest)).tolist(), END]

    references = {str(n): [caption(14) for _ in range(1 + n % 3)] for n in range(23)}
    captions = [[caption(17) for _ in range(5)] for _ in references]
    captions[0][0] = []  # stopped at once, before <end>
    captions[1][1] = [4] * 13
    captions[2][2] = [99, 98, END]  # no reference has these
    rewards = CaptionReward(references)(list(references), captions)
    told = References({n: [" ".join(map(str, row)) for row in own] for n, own in references.items()}, tokenize=str)
    for k in range(5):
        texts = {n: " ".join(map(str, own[k])) for n, own in zip(references, captions, strict=True)}
        expected = score_images(texts, told)["cider_d"]
        np.testing.assert_allclose(rewards[:, k], expected, atol=1e-5)
    assert rewards.std() > 0.1


def test_bleu_in_the_reward_is_that_of_sacrebleu() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    rng = np.random.default_rng(1)
    references = {str(n): [rng.integers(4, 9, rng.integers(3, 12)).tolist() for _ in range(3)] for n in range(17)}
    captions = [[rng.integers(4, 9, rng.integers(4, 14)).tolist() for _ in range(2)] for _ in references]
    both = CaptionReward(references, bleu=7.0)(list(references), captions)
    cider = CaptionReward(references)(list(references), captions)
    metric = sacrebleu.BLEU(smooth_method="add-k", smooth_value=1, effective_order=False, tokenize="none")
    for n, own in enumerate(references.values()):
        told = [" ".join(map(str, row)) for row in own]
        for k in range(2):
            expected = metric.sentence_score(" ".join(map(str, captions[n][k])), told).score / 100
            assert (both[n, k] - cider[n, k]) / 7 == pytest.approx(expected, abs=1e-5)
    reward = CaptionReward({"x": [[4, 5, 6, 7, END]], "y": [[8, END]]}, bleu=7.0)
    np.testing.assert_allclose(reward(["x", "x"], [[[4, 5, 6, 7, END]], [[9, 9]]]), [[17.0], [0.0]], rtol=1e-6)


def test_a_reference_itself_has_the_full_reward_and_pictures_may_come_in_any_order() -> None:
    reward = CaptionReward({"x": [[4, 5, 6, 7, END]], "y": [[8, 9, 10, 4, END]]})
    rewards = reward(["y", "x", "y"], [[[8, 9, 10, 4, END]], [[4, 5, 6, 7, END]], [[4, 5, 6, 7, END]]])
    np.testing.assert_allclose(rewards[:2], 10.0, rtol=1e-6)
    assert rewards[2, 0] < 0.1
    with pytest.raises(ValueError, match="needs reference captions"):
        CaptionReward({})


def test_advantages_by_hand() -> None:
    found = advantages(np.array([[1.0, 2.0, 6.0], [3.0, 3.0, 3.0]]))
    np.testing.assert_allclose(found, [[1 - 4, 2 - 3.5, 6 - 1.5], [0, 0, 0]])
    assert found.dtype == np.float32
    with pytest.raises(ValueError, match="at least 2 samples per image, got 1"):
        advantages(np.ones((3, 1)))


# ------------------------------------------------------------------ the gradient


class Unigram(Captioner):
    """A captioner that says every word with the same probability at every step: its logits are one bias."""

    def __init__(self) -> None:
        super().__init__(TOKENIZER, GRID, embedding_units=2, hidden_units=2, dropout=0.0, dtype="float32")
        self.build()
        self.logits_dense.kernel.assign(ops.zeros((2, V)))
        for layer in (self.embedding, self.logits_dense):
            layer.trainable = layer is self.logits_dense

    def init_state(self, features: Any, captions: int = 1, training: bool = False) -> CaptionerState:
        return CaptionerState({}, {"nothing": ops.zeros((ops.shape(features)[0], captions, 1))})

    def advance(self, embedded: Any, state: CaptionerState) -> dict[str, Any]:
        return {"nothing": state.recurrent["nothing"] * 1.0}

    def readout(self, embedded: Any, recurrent: dict[str, Any], training: bool = False) -> Any:
        return self.logits_dense(ops.zeros_like(embedded))


def grids(paths: Sequence[str]) -> np.ndarray:
    return np.stack([np.random.default_rng(int(path)).normal(size=GRID) for path in paths]).astype(np.float16)


def batches_of(captions: dict[str, list[str]], batch_size: int) -> CaptionBatches:
    return CaptionBatches(grids, {name: name for name in captions}, captions, TOKENIZER, batch_size=batch_size)


def softmax(logits: np.ndarray) -> np.ndarray:
    chances = np.exp(logits - logits.max())
    return chances / chances.sum()


@pytest.mark.parametrize("crossentropy", [0.0, 0.5])
def test_one_step_is_the_gradient_worked_out_by_hand(crossentropy: float, monkeypatch: pytest.MonkeyPatch) -> None:
    captions = {"0": ["a b c d"], "1": ["z d e f g"]}  # z is <unk>
    batches = batches_of(captions, batch_size=2)
    captioner = Unigram()
    bias = np.linspace(-1, 1, V).astype(np.float32)
    captioner.logits_dense.bias.assign(bias)
    trainer = SelfCriticalTrainer(
        captioner,
        keras.optimizers.SGD(1.0),
        batches,
        samples=3,
        bleu=0.0,
        crossentropy=crossentropy,
        seed=3,
    )
    a, b, c, d, e, f, g = (TOKENIZER.token_to_id(word) for word in WORDS)
    samples = {"0": [[a, b, c, END], [a, END], [c, e, f, c, c]], "1": [[d, e, f, g, END], [a, END], [e, f, END]]}
    longest = 5
    drawn = np.full((2, 3, longest), PAD, np.int32)
    for picture, image_id in enumerate(batches.image_ids(0)):
        for k, row in enumerate(samples[image_id]):
            drawn[picture, k, : len(row)] = row
    monkeypatch.setattr(trainer, "_draw", lambda features: drawn)
    loss, reward = trainer.train_step(0, np.random.default_rng(0))

    score = CaptionReward({"0": [[a, b, c, d, END]], "1": [[UNK, d, e, f, g, END]]})
    rewards = {image_id: score([image_id], [own])[0] for image_id, own in samples.items()}
    assert reward == pytest.approx(np.mean(list(rewards.values())), rel=1e-5)
    assert np.std(rewards["0"]) > 0.5 and np.std(rewards["1"]) > 0.5
    weighted = [
        (row, rewards[image_id][k] - (rewards[image_id].sum() - rewards[image_id][k]) / 2)
        for image_id, own in samples.items()
        for k, row in enumerate(own)
    ]
    if crossentropy:  # the reference's <unk> is no target
        weighted += [([a, b, c, d, END], crossentropy), ([d, e, f, g, END], crossentropy)]
    chances = softmax(bias + ops.convert_to_numpy(forbidden_logits(V)))
    tokens = sum(len(row) for row, _ in weighted)
    gradient = np.zeros(V)
    expected_loss = 0.0
    for row, weight in weighted:
        for token in row:
            gradient += weight * (chances - np.eye(V)[token]) / tokens
            expected_loss -= weight * np.log(chances[token]) / tokens
    assert loss == pytest.approx(expected_loss, rel=1e-4)
    found = bias - ops.convert_to_numpy(captioner.logits_dense.bias)
    np.testing.assert_allclose(found, gradient, atol=1e-5)
    # What bad samples lose does not flow to a token that is never sampled.
    assert found[UNK] == 0.0 and np.abs(found).max() > 0.05


def test_samples_are_those_of_the_model_and_rewards_rise() -> None:
    keras.utils.set_random_seed(5)
    captions = {str(n): [" ".join(WORDS[n % 3 : n % 3 + 4])] for n in range(6)}
    batches = batches_of(captions, batch_size=6)
    captioner = AttentionCaptioner(
        TOKENIZER,
        GRID,
        embedding_units=8,
        hidden_units=16,
        projection_units=8,
        attention_units=4,
        dropout=0.5,  # neither sampling nor the gradient has it
        dtype="float32",
    )
    trainer = SelfCriticalTrainer(captioner, keras.optimizers.Adam(0.02), batches, samples=13, max_length=7, seed=2)
    drawn = ops.convert_to_numpy(trainer._draw(batches.features(0)))
    assert drawn.shape == (6, 13, 7)
    assert not np.isin(drawn, [UNK, 1]).any()
    assert len({tuple(row) for row in drawn.reshape(-1, 7)}) > 50
    rng = np.random.default_rng(0)
    rewards = [trainer.train_step(0, rng)[1] for _ in range(60)]
    assert np.mean(rewards[-5:]) > 3 * np.mean(rewards[:5]), rewards


# ------------------------------------------------------------------ the run

CONFIG = replace(
    test_training.CONFIG,
    scheduled_sampling=0.0,
    epochs=2,
    objective="cider",
    cider_epochs=2,
    cider_samples=3,
    cider_learning_rate=0.003,
    cider_crossentropy=0.1,
)


@pytest.mark.slow
def test_cross_entropy_then_the_score_and_resumed_it_is_the_run_that_was_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = test_training.squares(tmp_path / "pictures")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(data, whole, CONFIG, features=tmp_path / "features", verbose=0)
    history = test_training.history_of(whole)
    assert [row["epoch"] for row in history] == [0, 1, 2, 3]
    assert ["loss" in row for row in history] == [True, True, False, False]
    assert ["reward" in row for row in history] == [False, False, True, True]

    commit = RunRecorder.on_epoch_end

    def commit_and_stop(self: RunRecorder, epoch: int, logs: Any = None) -> None:
        commit(self, epoch, logs)
        if epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunRecorder, "on_epoch_end", commit_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train(data, stopped, CONFIG, features=tmp_path / "features", verbose=0)
    train(data, stopped, resume=True, features=tmp_path / "features", verbose=0)
    one, other = (np.load(run / "state.npz") for run in (whole, stopped))
    assert (whole / "history.csv").read_bytes() == (stopped / "history.csv").read_bytes()
    for name in one.files:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.slow
def test_training_on_the_score_starts_from_another_run(tmp_path: Path) -> None:
    data = test_training.squares(tmp_path / "pictures")
    first, second = tmp_path / "first", tmp_path / "second"
    features = tmp_path / "features"
    trained = train(data, first, replace(CONFIG, objective="crossentropy"), features=features, verbose=0)
    config = replace(CONFIG, start=str(first), cider_epochs=1, cider_learning_rate=0.0, weight_decay=0.0)
    unchanged = train(data, second, config, features=features, verbose=0)
    assert len(test_training.history_of(second)) == 1  # no cross-entropy before it
    for found, expected in zip(unchanged.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    manifest = json.loads((second / "manifest.json").read_text())
    assert len(manifest["start_digest"]) == 32
    assert load_captioner(second).get_config()["dropout"] == CONFIG.dropout
    # The run that it began from has changed: what was begun cannot go on.
    (first / "best.keras").write_bytes((second / "best.keras").read_bytes())
    with pytest.raises(ValueError, match="cannot resume: start_digest"):
        train(data, second, resume=True, features=features, verbose=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "bleu"}, "objective is 'crossentropy' or 'cider', got 'bleu'"),
        ({"cider_samples": 1}, "cider_samples must be at least 2, got 1"),
        ({"cider_epochs": 0}, "cider_epochs must be at least 1, got 0"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)


@pytest.mark.slow
def test_cross_entropy_goes_on_from_another_run_with_its_own_attention_losses(tmp_path: Path) -> None:
    data = test_training.squares(tmp_path / "pictures")
    features = tmp_path / "features"
    base = replace(CONFIG, objective="crossentropy", epochs=1, attention_penalty=1.0)
    trained = train(data, tmp_path / "first", base, features=features, verbose=0)
    onward = replace(base, start=str(tmp_path / "first"), attention_penalty=0.25, learning_rate=1e-9, weight_decay=0.0)
    more = train(data, tmp_path / "second", onward, features=features, verbose=0)
    assert len(test_training.history_of(tmp_path / "second")) == 1
    assert trained.attention_penalty == 1.0 and more.attention_penalty == 0.25  # type: ignore[attr-defined]
    for found, expected in zip(more.get_weights(), trained.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
