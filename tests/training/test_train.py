"""Training from picture files to a run folder: what it writes, how it stops, that a killed run goes on unchanged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from attncap.data.load import CaptionData
from attncap.decoding.decoder import Decoder
from attncap.features import extractor as features
from attncap.features.extractor import FeatureExtractor
from attncap.features.store import FeatureStore
from attncap.metrics.evaluate import bleu
from attncap.models.attention_captioner import AttentionCaptioner
from attncap.models.captioner import Captioner
from attncap.models.losses import MaskedCrossentropy
from attncap.models.saving import load_captioner
from attncap.tokenizers import SPECIAL_TOKENS, WordTokenizer
from attncap.training import features as training_features
from attncap.training import train as training
from attncap.training.batches import CaptionBatches
from attncap.training.callbacks import averaged_weights
from attncap.training.config import TrainConfig
from attncap.training.fit import optimizer_of
from attncap.training.run_folder import RunFolder
from attncap.training.train import recorder_of, train
from attncap.training.validation import Validator

ROOT = Path(__file__).resolve().parents[2]
COLORS = {"red": (230, 30, 30), "green": (30, 200, 40), "blue": (40, 40, 230)}
QUICK = ("mixed0", 75)  # layer and picture size of random weights in these tests
# Dropout and scheduled sampling are on: a resumed run must draw what the run never stopped would have drawn.
CONFIG = TrainConfig(
    weights="random",
    min_count=2,
    embedding_units=32,
    hidden_units=32,
    projection_units=32,
    attention_units=16,
    dropout=0.1,
    scheduled_sampling=0.25,
    batch_size=3,
    epochs=3,
    learning_rate=0.03,
    patience=5,
    monitor="bleu_4",
    lists=False,
    seed=7,
)


def squares(folder: Path) -> CaptionData:
    """18 drawn squares to train on (one of them a broken file), 7 to validate, 2 to test; each with two captions."""
    folder.mkdir(exist_ok=True)
    pictures, captions = [], []
    for number in range(27):
        color = list(COLORS)[number % 3]
        place = ("left", "right", "top")[number // 3 % 3]
        split = "train" if number < 18 else "val" if number < 25 else "test"
        path = folder / f"{number}.png"
        if number == 4:
            path.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
        else:
            picture = Image.new("RGB", (80, 60), (235, 235, 225 + number))
            left, top = {"left": (10, 25), "right": (50, 25), "top": (30, 5)}[place]
            picture.paste(COLORS[color], (left, top, left + 20, top + 20))
            picture.save(path)
        pictures.append((str(number), str(path), split))
        captions.append((str(number), f"A {color} square at the {place}."))
        captions.append((str(number), f"the {place} has a {color} {'cuboid' if split == 'val' else 'square'}"))
    return CaptionData(
        "squares",
        pd.DataFrame(pictures, columns=["image_id", "path", "split"]),
        pd.DataFrame(captions, columns=["image_id", "caption"]),
        rejects=pd.DataFrame(
            [("captions.txt", 99, "elsewhere.png", "empty caption", "empty caption", "captions")],
            columns=["source", "line", "image_id", "reason", "kind", "table"],
        ).astype({"line": "Int64"}),
    )


@dataclass
class Run:
    data: CaptionData
    folder: Path
    store: Path
    captioner: Captioner

    def history(self) -> list[dict[str, float]]:
        return history_of(self.folder)


def history_of(run: Path) -> list[dict[str, float]]:
    return json.loads(str(np.load(run / "state.npz")["history"]))


@pytest.fixture(scope="module", autouse=True)
def small_random_encoder() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(features.DEFAULTS, "random", QUICK)
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nothing disturbed, made by the front door alone."""
    folder = tmp_path_factory.mktemp("undisturbed")
    data = squares(folder / "pictures")
    captioner = train(data, folder / "run", CONFIG, features=folder / "features", verbose=0)
    return Run(data, folder / "run", folder / "features", captioner)


@pytest.fixture
def encoder(undisturbed: Run, monkeypatch: pytest.MonkeyPatch) -> FeatureExtractor:
    """The encoder of the undisturbed run, used again by later ones: building the network takes seconds."""
    found = undisturbed.captioner.encoder
    assert found is not None
    monkeypatch.setattr(training_features, "new_encoder", lambda config: found)
    return found


# ---------------------------------------------------------------- from pictures to a run folder


@pytest.mark.slow
def test_larger_pictures_give_more_regions(tmp_path: Path) -> None:
    data = squares(tmp_path / "pictures")
    config = replace(CONFIG, epochs=1, image_size=107, scheduled_sampling=0.0)
    captioner = train(data, tmp_path / "run", config, features=tmp_path / "features", verbose=0)
    assert captioner.encoder is not None and captioner.encoder.image_size == 107
    assert captioner.feature_shape == (11, 11, 256)  # 7 x 7 at 75 pixels
    loaded = load_captioner(tmp_path / "run")
    assert loaded.encoder is not None and loaded.encoder.fingerprint() == captioner.encoder.fingerprint()
    resumed = train(data, tmp_path / "run", resume=True, features=tmp_path / "features", verbose=0)
    assert resumed.feature_shape == (11, 11, 256)
    onward = replace(config, start=str(tmp_path / "run"), image_size=75)
    with pytest.raises(ValueError, match="image_size is 75, but .*run was trained at 107: leave image_size out"):
        train(data, tmp_path / "onward", onward, features=tmp_path / "features", verbose=0)
    assert not (tmp_path / "onward" / "config.json").exists()
    after = train(
        data, tmp_path / "onward", replace(onward, image_size=None), features=tmp_path / "features", verbose=0
    )
    assert after.feature_shape == (11, 11, 256)


def test_the_run_folder_is_whole(undisturbed: Run) -> None:
    names = sorted(path.name for path in undisturbed.folder.iterdir())
    expected = ["best.keras", "config.json", "history.csv", "manifest.json", "rejects.csv", "run.lock", "state.npz"]
    assert [name for name in names if name != "run.lock"] == [name for name in expected if name != "run.lock"]
    assert TrainConfig.from_dict(json.loads((undisturbed.folder / "config.json").read_text())) == CONFIG
    manifest = json.loads((undisturbed.folder / "manifest.json").read_text())
    assert manifest["data"] == "squares" and manifest["seed"] == 7
    assert manifest["images"] == {"train": 17, "val": 7}
    assert manifest["captions"] == {"train": 34, "val": 14}
    assert manifest["backend"] == keras.backend.backend()
    assert manifest["environment"]["versions"]["keras"] == keras.__version__


def test_history_has_a_row_an_epoch(undisturbed: Run) -> None:
    history = pd.read_csv(undisturbed.folder / "history.csv", float_precision="round_trip")
    scores = [*(f"val_bleu_{n}" for n in (1, 2, 3, 4)), "val_cider_d", "val_loss"]
    assert list(history.columns) == ["epoch", "loss", *scores]
    assert history["val_loss"].iloc[-1] < history["val_loss"].iloc[0]
    assert history["epoch"].tolist() == [0, 1, 2]
    assert history["loss"].iloc[-1] < history["loss"].iloc[0] - 0.1
    assert history.to_dict("records") == undisturbed.history()


def test_the_vocabulary_is_that_of_the_training_split(undisturbed: Run) -> None:
    vocabulary = undisturbed.captioner.tokenizer.get_vocabulary()
    known = ["a", "at", "blue", "green", "has", "left", "red", "right", "square", "the", "top"]
    assert sorted(vocabulary[4:]) == known
    assert "cuboid" not in vocabulary  # all validation pictures have it, and no training picture
    manifest = json.loads((undisturbed.folder / "manifest.json").read_text())
    assert manifest["vocabulary_size"] == len(vocabulary) == 15
    assert manifest["vocabulary_digest"] == undisturbed.captioner.tokenizer.digest()


def test_validation_is_greedy_decoding_with_the_saved_weights(undisturbed: Run) -> None:
    """The scores of the best epoch are those of the captioner in best.keras: averaged weights, decoded, not taught."""
    best = max(undisturbed.history(), key=lambda row: row["val_bleu_4"])
    captioner = load_captioner(undisturbed.folder)
    validation = undisturbed.data.split("val")
    store = FeatureStore(undisturbed.store, undisturbed.captioner.encoder)  # type: ignore[arg-type]
    image_ids = validation.pictures["image_id"].tolist()
    captions = Decoder(captioner, beam_width=1)(store.get(validation.pictures["path"].tolist()), image_ids)
    scores = bleu({caption.image_id: caption.text for caption in captions}, validation.references())
    np.testing.assert_allclose(scores, [best[f"val_bleu_{n}"] for n in (1, 2, 3, 4)], rtol=1e-6)
    assert scores[0] > 0.2  # it has learned words, whatever their order


def test_test_pictures_are_not_looked_at(undisturbed: Run) -> None:
    store = FeatureStore(undisturbed.store, undisturbed.captioner.encoder)  # type: ignore[arg-type]
    assert len(store) == 17 + 7  # training and validation
    assert not any(path in store for path in undisturbed.data.split("test").pictures["path"])


def test_unreadable_pictures_are_listed_with_their_captions(undisturbed: Run) -> None:
    rejects = pd.read_csv(undisturbed.folder / "rejects.csv", dtype={"image_id": str}).astype({"line": "Int64"})
    assert list(rejects.columns) == ["source", "line", "image_id", "reason", "kind", "table"]
    broken = undisturbed.data.pictures["path"][4]
    assert rejects[["source", "image_id", "kind", "table"]].to_numpy().tolist() == [
        ["captions.txt", "elsewhere.png", "empty caption", "captions"],  # the reader's
        [broken, "4", "unreadable image", "pictures"],
        ["squares", "4", "caption of a rejected image", "captions"],
        ["squares", "4", "caption of a rejected image", "captions"],
    ]
    assert rejects["line"].tolist() == [99, pd.NA, pd.NA, pd.NA]
    assert rejects["reason"][1].startswith("unreadable image: not an image")


# ---------------------------------------------------------------- killed and resumed

KILLED_IN_EPOCH_2 = """
import os, signal, sys
sys.path.insert(0, ".")
from tests.training import test_train as tests
from attncap.features import extractor as features
from attncap.training import callbacks as recorder
features.DEFAULTS["random"] = tests.QUICK

def or_die(self, batch, logs=None):
    if self.batches.epoch == 1 and batch == 2:
        os.kill(os.getpid(), signal.SIGKILL)

recorder.RunRecorder.on_train_batch_end = or_die
folder = tests.Path(sys.argv[1])
tests.train(tests.squares(folder / "pictures"), folder / "run", tests.CONFIG, features=folder / "features", verbose=0)
"""


def refused_fit(*_: object, **__: object) -> None:
    raise AssertionError("nothing is left to fit")


def test_killed_and_resumed_it_is_the_run_that_was_never_killed(
    undisturbed: Run, encoder: FeatureExtractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED_IN_EPOCH_2, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    run = tmp_path / "run"
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(history_of(run)) == 1
    (run / ".4711-0badcafe.state.npz").write_bytes(b"half of a state that a kill left")
    data = squares(tmp_path / "pictures")
    # A kill between the two writes of a commit leaves a history that is ahead of the state.
    (run / "history.csv").write_bytes((undisturbed.folder / "history.csv").read_bytes())

    captioner = train(data, run, resume=True, features=tmp_path / "features", verbose=0)
    assert sorted(os.listdir(run)) == sorted(os.listdir(undisturbed.folder))
    assert (run / "config.json").read_bytes() == (undisturbed.folder / "config.json").read_bytes()
    state, expected = (np.load(folder / "state.npz") for folder in (run, undisturbed.folder))
    assert state.files == expected.files
    assert history_of(run) == undisturbed.history()
    assert (run / "history.csv").read_bytes() == (undisturbed.folder / "history.csv").read_bytes()
    for name in expected.files:
        np.testing.assert_array_equal(state[name], expected[name], err_msg=name)
    for found, wanted in zip(weights_of(captioner), weights_of(undisturbed.captioner), strict=True):
        np.testing.assert_array_equal(found, wanted)

    # Resumed once more, it has nothing to do.
    monkeypatch.setattr(AttentionCaptioner, "fit", refused_fit)
    before = (run / "state.npz").read_bytes()
    train(data, run, CONFIG, resume=True, features=tmp_path / "features", verbose=0)
    assert (run / "state.npz").read_bytes() == before


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_run_killed_while_it_read_images_can_be_resumed(
    undisturbed: Run, encoder: FeatureExtractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(FeatureStore, "extract", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(undisturbed.data, tmp_path / "run", CONFIG, features=undisturbed.store)
    monkeypatch.setattr(training, "training_batches", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(undisturbed.data, tmp_path / "run", resume=True, features=undisturbed.store)
    folders = (tmp_path / "run", undisturbed.folder)
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in folders]
    for manifest in manifests:
        del manifest["environment"]
    assert manifests[0] == manifests[1]


def with_caption(data: CaptionData, row: int, caption: str) -> CaptionData:
    captions = data.captions.copy()
    captions.loc[row, "caption"] = caption
    return replace(data, captions=captions)


def with_split(data: CaptionData, row: int, split: str) -> CaptionData:
    pictures = data.pictures.copy()
    pictures.loc[row, "split"] = split
    return replace(data, pictures=pictures)


@pytest.mark.parametrize(
    ("change", "digest"),
    [
        (lambda data: with_split(data, 2, "val"), "split_digest"),
        (lambda data: with_caption(data, 5, "a square"), "captions_digest"),
        (lambda data: with_caption(data, 40, "a square"), "validation_digest"),
    ],
)
def test_other_data_is_not_resumed(
    undisturbed: Run, encoder: FeatureExtractor, change: Callable[[CaptionData], CaptionData], digest: str
) -> None:
    before = {path.name: path.read_bytes() for path in undisturbed.folder.iterdir()}
    data = replace(change(undisturbed.data), rejects=undisturbed.data.rejects.head(0))
    with pytest.raises(ValueError, match=rf"run: cannot resume: {digest} is [0-9a-f]+, the run began with [0-9a-f]+"):
        train(data, undisturbed.folder, resume=True, features=undisturbed.store)
    assert {path.name: path.read_bytes() for path in undisturbed.folder.iterdir()} == before


def test_another_encoder_is_not_resumed(
    undisturbed: Run, encoder: FeatureExtractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "fingerprint", lambda: "0123")
    with pytest.raises(ValueError, match=r"run: cannot resume: encoder_fingerprint is 0123, the run began with \w+"):
        train(undisturbed.data, undisturbed.folder, resume=True, features=tmp_path / "features")


def test_other_settings_are_not_resumed(undisturbed: Run) -> None:
    config = replace(CONFIG, hidden_units=64, epochs=9)
    with pytest.raises(ValueError, match=r"run: the run to resume has other settings: hidden_units, epochs$"):
        train(undisturbed.data, undisturbed.folder, config, resume=True)


def test_tensorboard_that_is_not_installed_is_said_before_the_work(
    undisturbed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="package tensorboard, which is not installed: pip install tensorboard"):
        train(undisturbed.data, tmp_path / "run", CONFIG, features=undisturbed.store, tensorboard=True)
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_not_begun_again(undisturbed: Run) -> None:
    with pytest.raises(ValueError, match="holds a run already"):
        train(undisturbed.data, undisturbed.folder, CONFIG)


# ---------------------------------------------------------------- unfit data leaves the folder free


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_captions_is_named(
    undisturbed: Run, encoder: FeatureExtractor, tmp_path: Path, split: str
) -> None:
    gone = undisturbed.data.split(split).pictures["image_id"]
    captions = undisturbed.data.captions[~undisturbed.data.captions["image_id"].isin(gone)]
    data = replace(undisturbed.data, captions=captions)
    with pytest.raises(ValueError, match=f"squares: no readable image with a caption in the split '{split}'"):
        train(data, tmp_path / "run", CONFIG, features=undisturbed.store)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_mistaken_setting_can_be_mended_in_the_same_folder(
    undisturbed: Run, encoder: FeatureExtractor, tmp_path: Path
) -> None:
    for _ in range(2):  # not "holds a run already" the second time
        with pytest.raises(ValueError, match="no word occurs 500 times .*: lower min_count"):
            train(undisturbed.data, tmp_path / "run", replace(CONFIG, min_count=500), features=undisturbed.store)


def test_a_validation_picture_without_caption_is_left_out_of_the_score(
    undisturbed: Run, encoder: FeatureExtractor
) -> None:
    validation = undisturbed.data.split("val")
    first = validation.pictures["image_id"].iloc[0]
    data = replace(validation, captions=validation.captions[validation.captions["image_id"] != first])
    validate = Validator(CONFIG, FeatureStore(undisturbed.store, encoder), data)
    assert validate(undisturbed.captioner).keys() == {
        *(f"val_bleu_{n}" for n in (1, 2, 3, 4)),
        "val_cider_d",
        "val_loss",
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"tokenizer": "letters"}, "tokenizer is 'words' or 'wordpiece', got 'letters'"),
        ({"epoch": 3}, "unknown settings epoch; known: model, weights, backbone, "),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_dict(settings)
    assert TrainConfig.from_dict(asdict(CONFIG)) == CONFIG


# ---------------------------------------------------------------- the recorder, on a captioner without pictures

TOKENIZER = WordTokenizer([*SPECIAL_TOKENS, "a", "b", "c"])
GRID = (2, 3, 5)


def grids(paths: Sequence[str]) -> np.ndarray:
    return np.stack([np.random.default_rng(int(path)).normal(size=GRID) for path in paths]).astype(np.float16)


def tiny(config: TrainConfig, get: Any = grids) -> tuple[AttentionCaptioner, CaptionBatches]:
    keras.utils.set_random_seed(config.seed)
    captioner = AttentionCaptioner(
        TOKENIZER,
        GRID,
        embedding_units=3,
        hidden_units=5,
        projection_units=7,
        attention_units=2,
        dropout=0.0,
        dtype="float32",
    )
    captions = {str(number): ["a b", "c b a"] for number in range(6)}
    batches = CaptionBatches(get, {name: name for name in captions}, captions, TOKENIZER, batch_size=config.batch_size)
    captioner.compile(optimizer_of(config, len(batches)), loss=MaskedCrossentropy(), jit_compile=False)
    captioner.optimizer.build(captioner.trainable_variables)
    return captioner, batches


def weights_of(captioner: Captioner) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable).copy() for variable in captioner.trainable_variables]


def fit(captioner: Captioner, batches: CaptionBatches, config: TrainConfig, *callbacks: keras.callbacks.Callback):
    captioner.fit(batches.for_fit(), epochs=config.epochs, callbacks=list(callbacks), shuffle=False, verbose=0)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    made = RunFolder(tmp_path / "run")
    yield made
    made.close()


def test_it_stops_by_patience_and_keeps_the_best(folder: RunFolder) -> None:
    config = replace(CONFIG, epochs=20, patience=2)
    captioner, batches = tiny(config)
    scores = iter([0.1, 0.3, 0.2, 0.4, 0.4, 0.39, 0.9])
    averaged: list[list[np.ndarray]] = []

    def validate(model: Captioner) -> dict[str, float]:
        averaged.append(weights_of(model))
        return {f"val_bleu_{n}": score for score in [next(scores)] for n in (1, 2, 3, 4)}

    recorder = recorder_of(folder, config, validate, batches)
    assert not recorder.finished()
    fit(captioner, batches, config, recorder)
    # An equal score is no better: the fourth epoch stays the best, and two epochs later patience is at its end.
    assert [row["val_bleu_4"] for row in recorder.history] == [0.1, 0.3, 0.2, 0.4, 0.4, 0.39]
    assert recorder.best_epoch() == 3 and recorder.finished()
    for found, expected in zip(weights_of(load_captioner(folder.best_file)), averaged[3], strict=True):
        np.testing.assert_array_equal(found, expected)
    resumed = recorder_of(folder, config, validate, batches)
    other, _ = tiny(replace(config, seed=8))
    resumed.restore(other)
    assert resumed.finished() and resumed.history == recorder.history
    assert int(other.optimizer.iterations) == 12


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="on JAX a model has no weights within an epoch")
def test_the_average_is_that_computed_by_hand(folder: RunFolder) -> None:
    config = replace(CONFIG, batch_size=3, epochs=1, ema_epochs=5.0)  # 2 steps an epoch: horizon 10 steps
    captioner, batches = tiny(config)
    steps: list[list[np.ndarray]] = []
    note = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(weights_of(captioner)))
    seen: list[list[np.ndarray]] = []

    def validate(model: Captioner) -> dict[str, float]:
        seen.append(weights_of(model))
        return {"val_bleu_4": 0.5}

    fit(captioner, batches, config, note, recorder_of(folder, config, validate, batches))
    assert len(steps) == 2
    momentum = 1 - 1 / 10
    for first, second, found in zip(*steps, seen[0], strict=True):
        np.testing.assert_allclose(found, momentum * first + (1 - momentum) * second, rtol=1e-5, atol=1e-7)
    assert any((first != second).any() for first, second in zip(*steps, strict=True))
    # What is committed is the weights that training goes on from, not their average.
    arrays, _ = folder.load_state()
    for index, second in enumerate(steps[1]):
        np.testing.assert_array_equal(arrays[f"weight_{index}"], second)


def test_averaged_weights_are_there_inside_the_block_alone() -> None:
    captioner, _ = tiny(CONFIG)
    for number, average in enumerate(captioner.optimizer._model_variables_moving_average):
        average.assign(np.full(average.shape, number, np.float32))
    before = weights_of(captioner)
    with pytest.raises(KeyError, match="in the block"), averaged_weights(captioner):
        for number, value in enumerate(weights_of(captioner)):
            assert (value == number).all()
        raise KeyError("in the block")
    for value, expected in zip(weights_of(captioner), before, strict=True):
        np.testing.assert_array_equal(value, expected)


def test_without_averaging_the_weights_stay() -> None:
    captioner, _ = tiny(replace(CONFIG, ema_epochs=0.0))
    before = weights_of(captioner)
    with averaged_weights(captioner):
        for value, expected in zip(weights_of(captioner), before, strict=True):
            np.testing.assert_array_equal(value, expected)


def test_a_loss_that_is_no_number_names_the_pictures(folder: RunFolder) -> None:
    def spoilt(paths: Sequence[str]) -> np.ndarray:
        return np.where(np.array([path == "4" for path in paths])[:, None, None, None], np.nan, grids(paths))

    config = replace(CONFIG, batch_size=2)
    captioner, batches = tiny(config, lambda paths: spoilt(paths).astype(np.float16))
    recorder = recorder_of(folder, config, lambda model: {"val_bleu_4": 0.0}, batches)
    with pytest.raises(FloatingPointError) as raised:
        fit(captioner, batches, config, recorder)
    index = next(index for index in range(len(batches)) if "4" in batches.image_ids(index))
    names = ", ".join(batches.image_ids(index))
    assert f"the loss is nan in batch {index} (images {names}, ...): lower learning_rate" == str(raised.value)
    assert not folder.state_file.exists()  # no epoch of it is committed


def test_the_state_of_another_model_is_refused(folder: RunFolder) -> None:
    folder.save_state({"weight_0": np.zeros((2, 3), np.float32)}, [{"epoch": 0, "val_bleu_4": 0.1}])
    captioner, batches = tiny(CONFIG)
    with pytest.raises(ValueError, match=r"state\.npz: the weights of another model"):
        recorder_of(folder, CONFIG, dict, batches).restore(captioner)


def test_the_schedule_warms_up_and_decays() -> None:
    config = replace(CONFIG, epochs=10, learning_rate=2e-3, warmup=0.1)
    optimizer = optimizer_of(config, steps_per_epoch=7)  # 70 steps, the first 7 to warm up
    rates = [float(optimizer._learning_rate(step)) for step in range(71)]
    assert rates[0] == 0.0
    np.testing.assert_allclose(rates[1:8], 2e-3 * np.arange(1, 8) / 7, rtol=1e-5)
    cosine = 2e-3 * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * np.arange(64) / 63)))
    np.testing.assert_allclose(rates[7:], cosine, rtol=1e-4)
    assert optimizer.ema_momentum == pytest.approx(1 - 1 / 7)
    assert optimizer.global_clipnorm == 5.0 and optimizer.weight_decay == 0.01
