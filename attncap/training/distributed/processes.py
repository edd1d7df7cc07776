"""Several processes, on one machine or more, on the JAX backend: `keras.distribution.DataParallel`."""

from __future__ import annotations

import atexit
import json
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from attncap._messages import first_line
from attncap.training.distributed.base import SharedTraining
from attncap.training.run_folder import RunFolder

HEARTBEAT_SECONDS = 60  # a process that is silent for this long is lost, and all others end
START_SECONDS = 600  # machines are started by hand: the first waits this long for the last
END_SECONDS = 60  # between the first that is done and the last
LOST = re.compile("gloo|nccl|unavailable|deadline_exceeded|coordination|heartbeat|connection (closed|reset)", re.I)
CLUSTERS = ("SLURM_STEP_NUM_NODES", "OMPI_COMM_WORLD_SIZE")  # set where JAX can tell the processes by itself


class ProcessTraining(SharedTraining):
    """Training of several processes, on one machine or many, with `keras.distribution` on the JAX backend.

    Every process loads the same data and computes the features that its store lacks. When one process ends, all end
    with an error: at once if the connection shows it, or else after `HEARTBEAT_SECONDS`. The run
    can be resumed with any number of processes.

    Args:
        coordinator: host and port where process 0 listens; None: from the environment, see `shared_training`.
        processes: how many there are; 1 shares the work only among the devices of this machine.
        process: which one this is, from 0.

    Raises:
        ValueError: the processes have different numbers of devices.
        RuntimeError: it cannot listen or connect. When the others do not come within `START_SECONDS`, the process ends.
    """

    def __init__(self, coordinator: str | None, processes: int | None, process: int | None):
        import jax

        if processes != 1:
            # Otherwise SIGTERM would ask JAX to save its state and not end the process.
            jax.config.update("jax_enable_preemption_service", False)
            who = f"process {process} of {processes} at {coordinator}" if coordinator else "a process"
            print(f"{who} waits for the others", flush=True)
            late = f"{who}: the others did not come within {START_SECONDS} s: start all, with the same --coordinator"
            timer = threading.Timer(START_SECONDS, _give_up, [late])  # JAX's own time-out aborts with a stack trace
            timer.start()
            try:
                jax.distributed.initialize(
                    coordinator,
                    processes,
                    process,
                    cluster_detection_method="deactivate" if coordinator else None,
                    initialization_timeout=2 * START_SECONDS,
                    heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
                    shutdown_timeout_seconds=END_SECONDS,
                )
            except Exception as error:
                atexit.register(_leave)
                raise RuntimeError(f"{who}: cannot begin ({first_line(error)})") from error
            finally:
                timer.cancel()
        self.process, self.processes = jax.process_index(), jax.process_count()
        self._distribution = keras.distribution.DataParallel(auto_shard_dataset=False)
        self.replicas = jax.device_count()
        here = jax.local_device_count()
        self.own = range(self.process * here, (self.process + 1) * here)
        self._meetings = 0
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        if len(set(devices := self.gather(here))) > 1:
            atexit.register(_leave)
            raise ValueError(f"the processes have {devices} devices: give each the same number")

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        import jax

        if self._copy is not None:
            self._copy.cleanup()
        if self.processes == 1:
            return
        if error is None:
            jax.distributed.shutdown()
            return
        atexit.register(_leave)
        if isinstance(error, Exception) and LOST.search(str(error)):
            raise RuntimeError(
                f"process {self.process} of {self.processes}: another process ended or cannot be reached "
                f"({first_line(error)}): start all again with --resume"
            ) from error

    def run_folder(self, run: str | Path, resume: bool) -> RunFolder:
        if self.processes == 1:
            return RunFolder(run, resume)
        folder, refused = None, None
        if self.process == 0:
            try:
                folder = RunFolder(run, resume)
            except (ValueError, RuntimeError, OSError) as error:  # the others are told, and need not wait
                refused = error
        first, *others = self.gather([resume, str(refused or "")])
        if refused is not None:
            raise refused
        if first[1]:
            raise ValueError(f"process 0 refuses: {first[1]}")
        if any(other[0] != resume for other in others):
            raise ValueError("some processes were started with --resume and some without: start all alike")
        if folder is None:
            self._copy = tempfile.TemporaryDirectory(prefix="attncap-run-")
            if resume:
                self._copy_files(Path(self._copy.name), False)
            return RunFolder(self._copy.name, resume)
        if resume:
            self._copy_files(folder.path, True)
        return folder

    def _copy_files(self, folder: Path, give: bool) -> None:
        # Only process 0 has the state of the run to resume.
        names = ("config.json", "manifest.json", "rejects.csv", "best.keras", "state.npz")
        there = [name for name in names if (folder / name).exists()]
        for name, size in self.gather({name: (folder / name).stat().st_size for name in there})[0].items():
            file = folder / name
            content = self._of_first(np.fromfile(file, np.uint8) if give else np.zeros(size, np.uint8))
            if not give:
                file.write_bytes(content.tobytes())

    def gather(self, value: Any) -> list[Any]:
        if self.processes == 1:
            return [value]
        from jax.experimental import multihost_utils

        self._wait_for_all()
        content = np.frombuffer(json.dumps(value).encode(), np.uint8)
        sizes = multihost_utils.process_allgather(np.array(len(content), np.int32)).ravel()
        padded = np.zeros(sizes.max(), np.uint8)
        padded[: len(content)] = content
        rows = multihost_utils.process_allgather(padded)
        return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]

    def _wait_for_all(self) -> None:
        # A barrier of the coordinator waits without limit, for example for a machine that still computes features;
        # collective operations on the devices do not.
        from jax._src.distributed import global_state

        self._meetings += 1
        if global_state.client is not None:
            global_state.client.wait_at_barrier(f"attncap {self._meetings}", 7 * 24 * 3600 * 1000)

    def _of_first(self, arrays: Any) -> Any:
        from jax.experimental import multihost_utils

        return multihost_utils.broadcast_one_to_all(arrays)

    def scope(self) -> AbstractContextManager[Any]:
        return self._distribution.scope()

    @contextmanager
    def aside(self) -> Iterator[None]:
        keras.distribution.set_distribution(None)
        try:
            yield
        finally:
            keras.distribution.set_distribution(self._distribution)


def _give_up(message: str) -> None:
    print(f"attncap: {message}", file=sys.stderr)
    _leave()


def _leave() -> None:  # JAX would wait, at the end of the program, for processes that may be gone, and then abort
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(2)
