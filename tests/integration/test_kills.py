"""Full disks at each writing step, and (slow) thirty kills at random moments of extraction and of training."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from attncap.features.store import FeatureStore
from tests.features.test_store import EXTRACT_ALOUD, FakeExtractor, Workers, draw

ROOT = Path(__file__).resolve().parents[2]
KILLS = 30

# ---------------------------------------------------------------- full disks

FULL = """
import json, os, resource, sys
from pathlib import Path
import numpy as np
import pandas as pd
sys.path.insert(0, ".")
from attncap.attributes.classifier import save_classifier
from attncap.models.saving import save_captioner
from attncap.metrics.coco_json import write_json, write_predictions, write_references
from attncap.data.load import CaptionData
from attncap._files import replacing
from attncap.retrieval.index import DifferenceHash, ImageIndex
from attncap.training.run_folder import RunFolder
from tests.attributes.test_classifier import classifier_of_arrays
from tests.models.test_captioner import make_captioner

place = Path(sys.argv[1])
many = {str(n): "a dog " * 9 for n in range(9999)}
none = pd.DataFrame({"image_id": [], "path": [], "split": [], "caption": []})
run = RunFolder(place / "run")
models = [make_captioner(), classifier_of_arrays()]
index = ImageIndex(place / "index.db", DifferenceHash(64))

def best(big):
    with replacing(run.best_file) as temporary:
        save_captioner(models[0], temporary)

def rejects(big):
    rows = [("f", 1, "a", "why", "kind", "captions")] * (9999 if big else 1)
    frame = pd.DataFrame(rows, columns=["source", "line", "image_id", "reason", "kind", "table"])
    CaptionData("d", none, none, rejects=frame).write_rejects(run.rejects_file)

def add(big):
    rng = np.random.default_rng(big)
    ids = [f"{big}-{n}" for n in range(9999 if big else 3)]
    index.add_codes(ids, [["label"]] * len(ids), rng.integers(0, 256, (len(ids), 8)).astype(np.uint8))

steps = {
    run.config_file: lambda big: run.write_json(run.config_file, many if big else {}),
    run.state_file: lambda big: run.save_state({"weight_0": np.zeros(10**5 if big else 1)}, [{"epoch": 0.0}]),
    run.history_file: lambda big: run.save_state({}, [{"epoch": 0.0}] * (10**5 if big else 1)),
    run.rejects_file: rejects,
    run.best_file: best,
    place / "classifier.keras": lambda big: save_classifier(models[1], place / "classifier.keras"),
    place / "predictions.json": lambda big: write_predictions(place / "predictions.json", many if big else {"1": "a"}),
    place / "references.json": lambda big: write_references(
        place / "references.json", {"1": list(many.values()) if big else ["a"]}
    ),
    place / "scores.json": lambda big: write_json(place / "scores.json", many if big else {}),
    place / "index.db": add,
}
for file, write in steps.items():
    write(0)
    before = file.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (60000, resource.RLIM_INFINITY))
    said = "nothing"
    try:
        write(1)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    left = [path.name for path in file.parent.iterdir() if path.name.startswith(".")]
    intact = len(index) == 3 if file.suffix == ".db" else file.read_bytes() == before
    print(json.dumps({"file": file.name, "said": said, "intact": intact, "left": left}), flush=True)
    write(1)
print(json.dumps({"entries": len(index)}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a limit of a file's size stands for the full disk")
def test_a_full_disk_at_any_writing_step_says_so_and_leaves_what_was_there(tmp_path: Path) -> None:
    environment = {**os.environ, "KERAS_BACKEND": "numpy"}  # imports in half the time
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FULL, str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *steps, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(steps) == 10 and last == {"entries": 3 + 9999}
    for step in steps:
        assert step["intact"] and not step["left"], step
        # What the command line prints in one line: an OSError with its reason.
        assert step["said"].startswith("OSError: "), step
        assert "File too large" in step["said"] or "disk full" in step["said"], step


# ---------------------------------------------------------------- thirty kills


@pytest.fixture(scope="module")
def processes() -> Iterator[Workers]:
    made = Workers()
    yield made
    made.server.communicate(timeout=60)


@pytest.mark.slow
def test_extraction_killed_thirty_times_is_the_extraction_never_killed(tmp_path: Path, processes: Workers) -> None:
    moments = random.Random(31)
    paths = draw(tmp_path / "pictures", 991)
    for _ in range(KILLS):
        processes.start(tmp_path / "features", paths, code=EXTRACT_ALOUD)  # 331 batches
        process = 0
        for _ in range(moments.randint(1, 9)):
            process = int(processes.read())
        time.sleep(moments.uniform(0.0, 0.03))  # while a batch is computed or written
        os.kill(process, signal.SIGKILL)
        assert processes.rest()[-1] == "ended [-9]"
    store = FeatureStore(tmp_path / "features", FakeExtractor())
    stored = len(store)
    assert 0 < stored < len(paths) and store.extract(paths, progress=False).empty
    assert store.extractor.passed == len(paths) - stored
    undisturbed = FeatureStore(tmp_path / "undisturbed", FakeExtractor())
    undisturbed.extract(paths, progress=False)
    np.testing.assert_array_equal(store.get(paths), undisturbed.get(paths))
    store.close()
    undisturbed.close()


TRAIN = """
import sys
sys.path.insert(0, ".")
from tests.training import test_train as tests
from attncap.features import extractor as features

features.DEFAULTS["random"] = tests.QUICK
folder = tests.Path(sys.argv[1])
print("begun", flush=True)
begun = (folder / "run" / "config.json").exists()
config = None if begun else tests.CONFIG
data = tests.squares(folder / "pictures")
tests.train(data, folder / "run", config, resume=begun, features=folder / "features", verbose=0)
print("ended", flush=True)
"""


def start_training(folder: Path) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    return process


def ends_within(process: subprocess.Popen[str], seconds: float | None) -> bool:
    """Whether it ended by itself; else it was killed."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return False
    assert process.stdout is not None and "ended" in process.stdout.read()
    return True


@pytest.mark.slow
def test_training_killed_thirty_times_is_the_training_never_killed(tmp_path: Path) -> None:
    moments = random.Random(37)
    began = time.monotonic()
    assert ends_within(start_training(tmp_path / "undisturbed"), None)
    whole = time.monotonic() - began
    expected = np.load(tmp_path / "undisturbed" / "run" / "state.npz")
    kills, number = 0, 0
    while kills < KILLS:
        number += 1
        folder = tmp_path / str(number)
        for attempt in range(10):  # kills of one run
            began = time.monotonic()
            if ends_within(start_training(folder), moments.uniform(0.0, whole)):
                if attempt == 0:  # other work may have slowed down the undisturbed run
                    whole = min(whole, time.monotonic() - began)
                break
            kills += 1
        else:
            assert ends_within(start_training(folder), None)
        state = np.load(folder / "run" / "state.npz")
        assert state.files == expected.files
        for name in expected.files:  # weights, optimizer and history
            np.testing.assert_array_equal(state[name], expected[name], err_msg=name)
        assert (folder / "run" / "history.csv").read_bytes() == (
            tmp_path / "undisturbed" / "run" / "history.csv"
        ).read_bytes()
