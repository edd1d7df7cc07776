"""Training shared by two processes (JAX) or two devices (TensorFlow): what one alone gives, also after a kill."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from attncap.cli.main import main
from attncap.data.load import load
from attncap.decoding.predict import caption_images
from attncap.features import extractor as features
from attncap.models.saving import load_captioner
from attncap.training.config import TrainConfig
from attncap.training.distributed.distribution import SharedTraining, shared_training
from attncap.training.distributed.shares import LossOfRealImages, Shares

ROOT = Path(__file__).resolve().parents[3]
DATA = "faces:40"  # 26 pictures to train on
SETTINGS = {
    "weights": "random",
    "min_count": 2,
    "max_length": 12,  # few lengths, few graphs to compile
    "embedding_units": 16,
    "hidden_units": 17,
    "batch_size": 13,  # 2 batches an epoch: two replicas have 7 rows each, one of them of no picture
    "epochs": 2,
    "learning_rate": 0.03,
    "validation_images": 5,
    "dtype": "float32",
    "seed": 7,
}
# The small model has a third of the variables, each of which takes JAX a while to begin with.
OF_MODEL: dict[str, dict[str, Any]] = {
    "show-and-tell": {},
    "attention": {"projection_units": 13, "attention_units": 11, "attention_penalty": 0.5},
}
MODELS = ["show-and-tell", pytest.param("attention", marks=pytest.mark.slow)]


def tiny(image_size: int, weights: Any) -> keras.Model:
    """In place of InceptionV3, which takes seconds to build: cells of mean colors, and 7 numbers of each."""
    pixels = keras.Input((image_size, image_size, 3))
    cells = keras.layers.AveragePooling2D(image_size // 4, padding="same")(pixels)
    return keras.Model(pixels, keras.layers.Conv2D(7, 1, activation="tanh", name="mixed0")(cells))


def train_arguments(model: str, run: Path, *more: str, **settings: Any) -> list[str]:
    pairs = {"model": model, **SETTINGS, **OF_MODEL[model], **settings}.items()
    set_options = [option for name, value in pairs for option in ("--set", f"{name}={value}")]
    places = ["--run", str(run), "--features", str(run.parent / "features"), "--data", DATA]
    return ["train", *places, *set_options, *more]


# ---------------------------------------------------------------- processes that train

BEGIN = """
import json, os, sys, time
sys.path.insert(0, ".")
import attncap.cli.main, attncap.data.load, attncap.training.distributed.processes, attncap.training.train
from tests.training.distributed import test_distribution as tests
from attncap.features import extractor as features

features.inception = tests.tiny
features.DEFAULTS["random"] = ("mixed0", 64)
"""
# Each order, a line of JSON, is a process of its own, forked from one that has imported everything: that takes seconds.
# It says what `attncap` is to do, where to print, and after which batch of which epoch to stand still.
FORKING = f"""{BEGIN}
class StandStill(attncap.training.train.RunRecorder):
    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        if [len(self.history), batch] == order.get("stand_still"):
            print("stands still", flush=True)
            time.sleep(600)

attncap.training.train.RunRecorder = StandStill
for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        until = time.monotonic() + order["seconds"]
        while (ended := os.waitpid(order["wait"], os.WNOHANG))[0] == 0 and time.monotonic() < until:
            time.sleep(0.02)
        print(json.dumps(os.waitstatus_to_exitcode(ended[1]) if ended[0] else None), flush=True)
        continue
    child = os.fork()
    if not child:
        printed = os.open(order["printed"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(printed, 1), os.dup2(printed, 2)
        os.environ |= order["environment"]
        attncap.training.distributed.processes.START_SECONDS = int(os.environ.get("START_SECONDS", "600"))
        sys.exit(attncap.cli.main.main(order["arguments"]))
    print(child, flush=True)
"""


class Processes:
    """Processes that run `attncap` on the JAX backend, all forked from one."""

    def __init__(self, folder: Path):
        self.folder = folder
        # Graphs that run a few times take longer to optimize than to run.
        quick = {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
        quick["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        environment = {**os.environ, **quick, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
        self.server = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", FORKING],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=open(folder / "server.txt", "w"),  # noqa: SIM115
            text=True,
        )
        self.started: list[int] = []

    def _ask(self, **order: Any) -> Any:
        assert self.server.stdin is not None and self.server.stdout is not None
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        answer = self.server.stdout.readline()
        assert answer, (self.folder / "server.txt").read_text()
        return json.loads(answer)

    def start(
        self, printed: Path, arguments: list[str], stand_still: list[int] | None = None, **environment: str
    ) -> int:
        number = self._ask(printed=str(printed), arguments=arguments, stand_still=stand_still, environment=environment)
        self.started.append(number)
        return number

    def wait(self, number: int, seconds: float = 600) -> int | None:
        """Its exit status, negative where a signal ended it; None where it goes on after these seconds."""
        status = self._ask(wait=number, seconds=seconds)
        if status is not None:
            self.started.remove(number)
        return status

    def end(self) -> None:
        for number in self.started:
            os.kill(number, signal.SIGKILL)
        self.server.communicate(timeout=60)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    pytest.importorskip("jax")
    load(DATA)  # drawn once, into the cache that all processes share
    made = Processes(tmp_path_factory.mktemp("processes"))
    yield made
    made.end()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    return request.param


def start_pair(
    processes: Processes, model: str, *more: str, stand_still: list[int] | None = None
) -> tuple[list[int], list[Path]]:
    """Two processes of one training; the second is told by the environment what the first is told by options."""
    runs, coordinator = processes.folder / model, f"127.0.0.1:{free_port()}"
    printed = [processes.folder / f"{model}-{number}{''.join(more)}.txt" for number in range(2)]
    options = ["--distributed", "--coordinator", coordinator, "--processes", "2", "--process-id", "0", *more]
    first = processes.start(printed[0], train_arguments(model, runs / "shared", *options))
    environment = {"JOB_ADDRESSES": coordinator, "NUM_PROCESSES": "2", "PROCESS_ID": "1"}
    elsewhere = train_arguments(model, runs / "of another machine", "--distributed", *more)
    named = {f"KERAS_DISTRIBUTION_{name}": value for name, value in environment.items()}
    return [first, processes.start(printed[1], elsewhere, stand_still, **named)], printed


def finish(processes: Processes, numbers: list[int], printed: list[Path]) -> None:
    for number, file in zip(numbers, printed, strict=True):
        assert processes.wait(number) == 0, file.read_text()[-3000:]


def until_printed(processes: Processes, number: int, printed: Path, text: str, seconds: float = 600) -> None:
    until = time.monotonic() + seconds
    while text not in (printed.read_text() if printed.exists() else ""):
        assert processes.wait(number, 0) is None and time.monotonic() < until, printed.read_text()[-3000:]
        time.sleep(0.05)


@pytest.fixture(scope="module")
def alone(processes: Processes, model: str) -> Path:
    """The run of one process, which has every batch as a whole."""
    run, printed = processes.folder / model / "alone", processes.folder / f"{model}-alone.txt"
    finish(processes, [processes.start(printed, train_arguments(model, run))], [printed])
    return run


@pytest.fixture(scope="module")
def killed(processes: Processes, model: str, alone: Path) -> tuple[Path, float, str]:
    """The run of two processes of which the second was killed in the second epoch: what the first did, and when."""
    numbers, printed = start_pair(processes, model, stand_still=[1, 0])
    until_printed(processes, numbers[1], printed[1], "stands still")
    os.kill(numbers[1], signal.SIGKILL)
    began = time.monotonic()
    assert processes.wait(numbers[1]) == -signal.SIGKILL
    assert processes.wait(numbers[0]) == 2, printed[0].read_text()[-3000:]
    return alone.parent / "shared", time.monotonic() - began, printed[0].read_text()


@pytest.fixture(scope="module")
def resumed(processes: Processes, model: str, killed: tuple[Path, float, str]) -> Path:
    assert len(history_of(killed[0])) == 1
    finish(processes, *start_pair(processes, model, "--resume"))
    return killed[0]


def history_of(run: Path) -> list[dict[str, float]]:
    return json.loads(str(np.load(run / "state.npz")["history"]))


def assert_same_training(run: Path, other: Path, **tolerance: float) -> None:
    for row, expected in zip(history_of(run), history_of(other), strict=True):
        assert list(row) == list(expected)
        np.testing.assert_allclose(list(row.values()), list(expected.values()), **tolerance)
    state, others = np.load(run / "state.npz"), np.load(other / "state.npz")
    assert state.files == others.files
    for name in set(state.files) - {"history"}:
        np.testing.assert_allclose(state[name], others[name], err_msg=name, **tolerance)


@pytest.mark.parametrize("number", ["0", "1"])
def test_a_process_does_not_wait_for_ever_for_the_others(processes: Processes, number: str) -> None:
    coordinator, printed = f"127.0.0.1:{free_port()}", processes.folder / f"lonely-{number}.txt"
    options = ["--distributed", "--coordinator", coordinator, "--processes", "2", "--process-id", number]
    run = processes.folder / "lonely"
    lonely = processes.start(printed, train_arguments("show-and-tell", run, *options), START_SECONDS="2")
    assert processes.wait(lonely, 120) == 2
    expected = f"attncap: process {number} of 2 at {coordinator}: the others did not come within 2 s: start all"
    assert expected in printed.read_text() and not run.exists()


def test_where_one_is_killed_the_other_ends_with_an_error(killed: tuple[Path, float, str]) -> None:
    _, seconds, printed = killed
    assert seconds < 90  # HEARTBEAT_SECONDS, and time for a busy machine
    last = printed.strip().splitlines()[-1]
    expected = (
        r"attncap train: process 0 of 2: another process ended or cannot be reached \(.*\): start all again with "
    )
    assert re.search(expected + "--resume$", last), printed[-3000:]


def test_two_processes_train_as_one_also_after_a_kill(resumed: Path, alone: Path) -> None:
    """Dropout is on, as always: the masks of two processes are those of the whole batch."""
    losses = [row["loss"] for row in history_of(alone)]
    assert losses[-1] < losses[0] - 0.01  # it learns
    assert_same_training(resumed, alone, rtol=1e-4, atol=1e-5)
    assert sorted(path.name for path in resumed.iterdir()) == sorted(path.name for path in alone.iterdir())
    assert not (resumed.parent / "of another machine").exists()


def test_what_two_processes_trained_says_the_same_on_tensorflow(
    resumed: Path, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = sorted(Path(load(DATA).pictures["path"].iloc[0]).parent.glob("*.png"))[:12]
    (processes.folder / "pictures.txt").write_text("\n".join(map(str, pictures)))
    predictions, printed = processes.folder / "predictions.json", processes.folder / "predict.txt"
    places = ["--run", str(resumed), "--images", str(processes.folder / "pictures.txt"), "--out", str(predictions)]
    finish(processes, [processes.start(printed, ["predict", *places, "--beam-width", "1"])], [printed])
    monkeypatch.setattr(features, "inception", tiny)
    captions, _ = caption_images(load_captioner(resumed), pictures, beam_width=1, progress=False)
    on_jax = [row["caption"] for row in json.loads(predictions.read_text())]
    assert [caption.text for caption in captions] == on_jax
    assert len(set(on_jax)) > 1


# ---------------------------------------------------------------- devices of one machine

ON_TENSORFLOW = f"""{BEGIN}
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
for arguments in json.loads(sys.argv[1]):
    status = attncap.cli.main.main(arguments)
    if status:
        sys.exit(status)
"""


@pytest.mark.slow
@pytest.mark.parametrize("small", ["show-and-tell", "attention"])
def test_two_devices_train_as_one_on_tensorflow(small: str, tmp_path: Path) -> None:
    load(DATA)
    nothing = {"dropout": 0} | {name: 0 for name in OF_MODEL[small] if name == "attention_penalty"}
    orders = [train_arguments(small, tmp_path / "alone", **nothing)]
    orders += [train_arguments(small, tmp_path / "mirrored", "--distributed", **nothing)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ON_TENSORFLOW, json.dumps(orders)],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert_same_training(tmp_path / "mirrored", tmp_path / "alone", rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------- parts


class FiveBatches:
    """In place of `CaptionBatches`: batches of 5 pictures; everything of a picture is its number."""

    def image_ids(self, index: int) -> list[str]:
        return list("abcde")

    def part(self, index: int, own: slice) -> Any:
        numbers = np.arange(1, 6)[own]
        return {"features": numbers[:, None] * np.ones(2), "token_ids": numbers[:, None]}, numbers[:, None]


def test_every_process_reads_its_rows_and_the_last_is_filled_up() -> None:
    seen = [Shares(FiveBatches(), 4, range(2 * process, 2 * process + 2))[0] for process in range(2)]  # type: ignore[arg-type]
    assert [targets[:, 0].tolist() for _, targets in seen] == [[1, 2, 3, 4], [5, 0, 0, 0]]
    for inputs, targets in seen:
        np.testing.assert_array_equal(inputs["token_ids"], targets)
        np.testing.assert_array_equal(inputs["features"], targets * np.ones((1, 2)))


def test_the_loss_of_an_epoch_weighs_batches_by_their_pictures() -> None:
    class TwoSizes(FiveBatches):
        def image_ids(self, index: int) -> list[str]:
            return list("abcde" if index == 0 else "ab")

    mean = LossOfRealImages(Shares(TwoSizes(), 4, range(4)))  # type: ignore[arg-type]
    mean.on_epoch_begin(0)
    mean.on_train_batch_end(0, {"loss": 7.0})
    mean.on_train_batch_end(1, {"loss": (8 * 7.0 + 4 * 1.0) / 12})  # what Keras says after a batch of loss 1
    assert mean.corrected() == {"loss": pytest.approx((5 * 7.0 + 2 * 1.0) / 7)}
    whole = LossOfRealImages(Shares(TwoSizes(), 1, range(1)))  # type: ignore[arg-type]
    whole.on_epoch_begin(0)
    whole.on_train_batch_end(0, {"loss": 7.0})
    assert whole.corrected() == {}


class OfThree(SharedTraining):
    """What three processes gather when the last has other data, and this one gives `own`."""

    processes = 3

    def gather(self, value: Any) -> list[Any]:
        return [value, value, {**value, "split_digest": "ef"}]


def test_processes_of_other_data_are_refused_by_all() -> None:
    manifest = {"split_digest": "ab", "pictures": {"train": 3}, "environment": {"git_commit": "of no account"}}
    expected = (
        r"process 2 has another split_digest \(ef\) than process 0 \(ab\): start all processes with the same data"
    )
    with pytest.raises(ValueError, match=expected):
        OfThree().check_same(manifest, TrainConfig())
    SharedTraining().check_same(manifest, TrainConfig())


@pytest.mark.parametrize(
    ("backend", "given", "expected"),
    [
        ("tensorflow", {"processes": 2}, "--processes: on the TensorFlow backend .* set KERAS_BACKEND=jax"),
        ("torch", {}, "the torch backend trains in one process: set KERAS_BACKEND=jax"),
        ("jax", {"processes": 2}, "--coordinator, --process-id missing: every process needs"),
        ("jax", {"coordinator": "host", "processes": 2, "process": 0}, "--coordinator host: HOST:PORT of process 0"),
        ("jax", {"coordinator": "h:1", "processes": 2, "process": 2}, "--process-id 2: 0 to 1 expected"),
    ],
)
def test_what_does_not_tell_the_processes_is_refused(
    backend: str, given: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID"):
        monkeypatch.delenv(f"KERAS_DISTRIBUTION_{name}", raising=False)
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    with pytest.raises(ValueError, match=expected):
        shared_training(**given)


def test_a_number_of_the_environment_has_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setenv("KERAS_DISTRIBUTION_PROCESS_ID", "first")
    with pytest.raises(ValueError, match="KERAS_DISTRIBUTION_PROCESS_ID is 'first': a number expected"):
        shared_training("h:1", 2)


def test_the_command_line_refuses_what_cannot_be_shared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = ["train", "--data", "faces:9", "--run", str(tmp_path / "run")]
    assert main([*places, "--processes", "2"]) == 2
    assert "--processes requires --distributed" in capsys.readouterr().err
    with pytest.raises(ValueError, match="objective cider samples .* cannot be shared: train with --distributed"):
        SharedTraining().check(TrainConfig(objective="cider"))
