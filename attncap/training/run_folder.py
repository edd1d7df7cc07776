"""`RunFolder`: the files of one training; a kill at any moment loses at most one epoch."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pandas as pd

from attncap._files import remove_unfinished, replacing, write_csv

VERSIONED = ("attncap", "tensorflow", "keras", "keras-nlp", "jax", "numpy", "pandas", "pillow")


class RunFolder:
    """A folder with `config.json`, `manifest.json`, `rejects.csv`, `history.csv`, `best.keras` and `state.npz`.

    Every file is written to a temporary file and then moved, so that a reader sees the old or the new file, never a
    part. `state.npz` (weights, optimizer, history) is written last and marks the epoch as complete.

    Args:
        path: the folder; made when missing.
        resume: continue the run in the folder.

    Raises:
        ValueError: the folder holds a run and resume is False, or holds none and resume is True.
        RuntimeError: another process is training in it.
    """

    def __init__(self, path: str | Path, resume: bool = False):
        self.path = Path(path)
        check_free(self.path, resume)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = filelock.FileLock(self.path / "run.lock", blocking=False)
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise RuntimeError(f"{self.path}: another process is training in this folder") from None
        remove_unfinished(self.path)

    config_file = property(lambda self: self.path / "config.json")
    manifest_file = property(lambda self: self.path / "manifest.json")
    history_file = property(lambda self: self.path / "history.csv")
    rejects_file = property(lambda self: self.path / "rejects.csv")
    best_file = property(lambda self: self.path / "best.keras")
    state_file = property(lambda self: self.path / "state.npz")

    def clear(self) -> None:
        """Delete the files of a training whose first epoch is not complete, so that another one can begin here."""
        for file in (self.config_file, self.manifest_file, self.rejects_file, self.history_file, self.best_file):
            file.unlink(missing_ok=True)

    def close(self) -> None:
        """Let other processes train here."""
        self._lock.release()

    def write_json(self, file: Path, content: Any) -> None:
        with replacing(file) as temporary:
            temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def save_state(self, arrays: dict[str, np.ndarray], history: list[dict[str, float]]) -> None:
        """Commit an epoch: `arrays` by name, and the history up to it."""
        write_csv(self.history_file, pd.DataFrame(history))
        with replacing(self.state_file) as temporary, open(temporary, "wb") as file:
            np.savez(file, history=np.array(json.dumps(history)), **arrays)  # type: ignore[arg-type]

    def load_state(self) -> tuple[dict[str, np.ndarray], list[dict[str, float]]]:
        """Return the arrays and the history of `save_state`; ({}, []) before the end of the first epoch.

        Raises:
            ValueError: the file is damaged.
        """
        if not self.state_file.exists():
            return {}, []
        try:
            with zipfile.ZipFile(self.state_file) as archive:  # a few packed bytes can take any amount of memory
                packed = [item.filename for item in archive.infolist() if item.compress_type != zipfile.ZIP_STORED]
            if packed:
                raise ValueError(f"{packed[0]!r} in it is compressed")
            with np.load(self.state_file, allow_pickle=False) as saved:
                arrays = {name: saved[name] for name in saved.files}
            history = json.loads(str(arrays.pop("history")))
            if not isinstance(history, list) or not all(_is_epoch(row) for row in history):
                raise ValueError("a history of numbers by epoch expected")
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(f"{self.state_file}: damaged ({reason}); start anew in another folder") from error
        return arrays, history


@contextmanager
def cleared_on_error(folder: RunFolder, resume: bool, shared: bool = False) -> Iterator[None]:
    """Close a run folder after a training; one that fails before its first epoch is complete leaves it empty.

    The folder is then free for the next try. A killed training (KeyboardInterrupt is no Exception) can be resumed.

    Args:
        folder: of the training.
        resume: whether the training resumes a run, which stays.
        shared: whether processes share the training: only an error in data or settings, before it begins, clears.
    """
    try:
        yield
    except Exception as error:
        begun = (folder.manifest_file if shared else folder.state_file).exists()
        if not resume and not begun and (not shared or isinstance(error, ValueError)):
            folder.clear()
        raise
    finally:
        folder.close()


def check_free(path: str | Path, resume: bool) -> None:
    """Raise ValueError if the folder holds a run and resume is False, or holds none and resume is True."""
    path = Path(path)
    begun = (path / "config.json").exists()
    if resume and not begun:
        raise ValueError(f"{path}: no run to resume (config.json is missing)")
    if not resume and begun:
        raise ValueError(f"{path}: holds a run already; resume it (--resume) or name another folder")


def read_object(file: Path) -> dict[str, Any]:
    """Return the object that a JSON file of a run holds.

    Raises:
        ValueError: the file is missing or damaged; the message names it.
    """
    try:
        content = json.loads(file.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{file}: no such file: a run folder has one; restore a copy, or start anew") from None
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file}: damaged ({reason}); restore a copy, or start anew in another folder") from None
    if not isinstance(content, dict):
        found = type(content).__name__
        raise ValueError(f"{file}: damaged (an object expected, {found} found); restore a copy, or start anew")
    return content


def _is_epoch(row: Any) -> bool:
    return isinstance(row, dict) and all(isinstance(value, int | float) for value in row.values())


def environment() -> dict[str, Any]:
    """Return the environment of a run: versions, git commit of the working directory, machine, command line."""
    versions = {}
    for name in VERSIONED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "versions": versions,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def _git_commit() -> str | None:
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None  # a run needs neither git nor a repository
    return done.stdout.strip()


def run_name(what: str, data: str, config: Any) -> str:
    """Return a name for a run folder that differs if data or any setting differs, so that runs can be shared.

    Args:
        what: beginning of the name, as "captioner".
        data: SPEC of the data set, as "faces:3000".
        config: a dataclass of settings, such as `TrainConfig`.

    Returns:
        name: letters, digits, `-` and `_`: what, the last 40 characters of data, and 8 hexadecimal digits of a digest.

    Example:
        run = folder / run_name("captioner", "faces:3000", config)  # captioner-faces-3000-d30eb3f7
    """
    content = json.dumps([data, asdict(config)], sort_keys=True, default=str)
    digest = hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{what}-{re.sub(r'[^0-9A-Za-z_]+', '-', data)[-40:].strip('-')}-{digest}"
