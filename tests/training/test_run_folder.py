"""The run folder: nothing half written, one process at a time, no pickle."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import fields, replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from attncap.training.config import TrainConfig
from attncap.training.run_folder import RunFolder, environment, run_name

ROOT = Path(__file__).resolve().parents[2]
# Awkward on purpose: a float that short printing would change, a tiny one, and one that CSV and JSON must both carry.
HISTORY = [
    {"epoch": 0.0, "loss": 0.1 + 0.2, "val_bleu_4": 5e-324},
    {"epoch": 1.0, "loss": float(np.float32(1 / 3)), "val_bleu_4": 0.7234567890123456},
]
ARRAYS: dict[str, np.ndarray] = {
    "weight_0": np.arange(2 * 3 * 5, dtype=np.float32).reshape(2, 3, 5),
    "optimizer_0": np.array(7, np.int64),
}


@pytest.fixture
def run(tmp_path: Path):
    folder = RunFolder(tmp_path / "run")
    yield folder
    folder.close()


def test_state_and_history_come_back_to_the_bit(run: RunFolder) -> None:
    assert run.load_state() == ({}, [])
    run.save_state(ARRAYS, HISTORY)
    arrays, history = run.load_state()
    assert history == HISTORY
    assert arrays.keys() == ARRAYS.keys()
    for name, expected in ARRAYS.items():
        assert arrays[name].dtype == expected.dtype
        np.testing.assert_array_equal(arrays[name], expected)
    assert pd.read_csv(run.history_file, float_precision="round_trip").to_dict("records") == HISTORY


def test_a_failed_save_keeps_the_state_before(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    run.save_state(ARRAYS, HISTORY[:1])

    def half(file, **arrays):
        file.write(b"PK half of an archive")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(OSError, match="no space left"):
        run.save_state(ARRAYS, HISTORY)
    assert run.load_state()[1] == HISTORY[:1]
    assert sorted(os.listdir(run.path)) == ["history.csv", "run.lock", "state.npz"]


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "no history"])
def test_a_damaged_state_is_refused_by_name(run: RunFolder, damage: str) -> None:
    run.save_state(ARRAYS, HISTORY)
    whole = run.state_file.read_bytes()
    if damage == "no history":
        np.savez(run.state_file, weight_0=np.zeros(3))
    else:
        run.state_file.write_bytes({"cut": whole[: len(whole) // 2], "garbage": b"x" * 999, "empty": b""}[damage])
    with pytest.raises(ValueError, match=r"state\.npz: damaged .*start anew in another folder"):
        run.load_state()


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("pickle-was-loaded",))


def test_no_pickle_is_loaded(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.path)
    np.savez(run.state_file, history=np.array(Bomb(), dtype=object))
    with pytest.raises(ValueError, match=r"state\.npz: damaged .*allow_pickle"):
        run.load_state()
    assert not Path("pickle-was-loaded").exists()


def test_an_existing_run_is_not_overwritten(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.write_json(run.config_file, {})
    run.close()
    with pytest.raises(ValueError, match=r"run: holds a run already; resume it \(--resume\) or name another folder"):
        RunFolder(tmp_path / "run")
    RunFolder(tmp_path / "run", resume=True).close()


def test_a_run_that_is_not_there_is_not_resumed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere: no run to resume \(config\.json is missing\)"):
        RunFolder(tmp_path / "nowhere", resume=True)
    assert not (tmp_path / "nowhere").exists()


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    code = (
        "import sys; from attncap.training.run_folder import RunFolder\n"
        "folder = RunFolder(sys.argv[1]); print('holds', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None and holder.stdout.readline() == "holds\n"
    (tmp_path / "run" / ".1-0123abcd.state.npz").write_text("the holder may be writing this")
    with pytest.raises(RuntimeError, match=r"run: another process is training in this folder"):
        RunFolder(tmp_path / "run")
    assert (tmp_path / "run" / ".1-0123abcd.state.npz").exists()
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    RunFolder(tmp_path / "run").close()  # a killed process holds nothing back
    assert not (tmp_path / "run" / ".1-0123abcd.state.npz").exists()


def test_a_second_folder_object_in_this_process_is_refused_too(run: RunFolder) -> None:
    with pytest.raises(RuntimeError, match="another process is training"):
        RunFolder(run.path)
    run.close()
    RunFolder(run.path).close()


def test_json_is_readable_text(run: RunFolder) -> None:
    run.write_json(run.manifest_file, {"data": "Gesichter à la carte", "seed": 3})
    text = run.manifest_file.read_text(encoding="utf-8")
    assert "Gesichter à la carte" in text and text.endswith("}\n")
    assert json.loads(text)["seed"] == 3


def test_environment_names_versions_and_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somebody/bin/attncap", "train", "--data", "faces"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    found = environment()
    assert found["git_commit"] is None  # not a repository
    assert found["command"] == ["attncap", "train", "--data", "faces"]
    assert found["versions"]["numpy"] == metadata.version("numpy")
    json.dumps(found)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert environment()["git_commit"] == head


def test_a_run_is_named_by_its_data_and_every_setting() -> None:
    config = TrainConfig()
    name = run_name("captioner", "faces:3000", config)
    assert re.fullmatch(r"captioner-faces-3000-[0-9a-f]{8}", name)
    assert run_name("captioner", "faces:3000", TrainConfig()) == name  # the same in another process: no hash()
    numbers = {field.name: getattr(config, field.name) for field in fields(config)}
    switches = [{key: not value} for key, value in numbers.items() if isinstance(value, bool)]
    # Half of it is another number that every setting allows.
    numbers = {key: value for key, value in numbers.items() if isinstance(value, int | float)}
    changed = [{key: value / 2 + 0.01 if type(value) is float else value + 1} for key, value in numbers.items()]
    others = [{"weights": "faces"}, {"layer": "mixed2"}, {"epochs": 3}, *switches]
    others += [one for one in changed if next(iter(one)) not in {next(iter(switch)) for switch in switches}]
    names = {run_name("captioner", "faces:3000", replace(config, **other)) for other in others}
    assert len(others) > 25 and len(names | {name}) == len(others) + 1
    # Only the end of a long path is in the name, all of it in the digest.
    long = [f"table:{letter}{'x' * 300}/captions.csv:photographs" for letter in "ab"]
    first, second = (run_name("captioner", data, config) for data in long)
    assert first != second and first[:-8] == second[:-8] and len(first) < 70
    assert re.fullmatch(r"[\w-]+", run_name("x", "coco:C:\\pictures\\été", config))
