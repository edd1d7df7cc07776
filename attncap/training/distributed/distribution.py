"""Training shared by processes, machines or devices: each reads its part of a batch, and the loss is that of all.

On the JAX backend processes share a training (`keras.distribution.DataParallel`): the batch is one array over all their
devices, so that the loss is the whole batch's mean over real tokens and the random masks are the whole batch's. On
TensorFlow the devices of one machine do (`MirroredStrategy`). What one device did alone stays as it was: the captioner
that is validated and saved lives on one device, and gets the replicas' weights after every epoch.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np

from attncap.models.captioner import Captioner
from attncap.training.batches import CaptionBatches
from attncap.training.callbacks import RunRecorder
from attncap.training.config import TrainConfig
from attncap.training.distributed.shares import LossOfRealPictures, MirroredShares, Shares
from attncap.training.fit import fit
from attncap.training.run_folder import RunFolder

HEARTBEAT_SECONDS = 60  # a process that is silent for so long is lost, and all others end
START_SECONDS = 600  # machines are started by hand: the first waits so long for the last
END_SECONDS = 60  # between the first that is done and the last
LOST = re.compile("gloo|nccl|unavailable|deadline_exceeded|coordination|heartbeat|connection (closed|reset)", re.I)
CLUSTERS = ("SLURM_STEP_NUM_NODES", "OMPI_COMM_WORLD_SIZE")  # set where JAX can tell the processes by itself


class SharedTraining:
    """A training that replicas share, in this process alone; a context manager, for `train(..., distribution=)`.

    Attributes:
        process: number of this process; only process 0 writes the run folder.
        processes: how many there are.
        replicas: how many devices, of all processes, share a batch. A batch that they do not divide is filled up with
            pictures without captions, which count for nothing: neither loss nor weights see them.
    """

    process = 0
    processes = 1
    replicas = 1
    own = range(1)  # the replicas of this process

    def __enter__(self) -> SharedTraining:
        return self

    def __exit__(self, *error: Any) -> None: ...

    def check(self, config: TrainConfig) -> None:
        """Raise ValueError where the settings cannot be trained by several."""
        if config.objective == "cider":
            raise ValueError(
                "objective cider samples captions one process at a time and cannot be shared: train with --distributed "
                "on cross-entropy first, then go on alone with --from RUN --objective cider"
            )

    def run_folder(self, run: str | Path, resume: bool) -> RunFolder:
        """Return the run folder; of a process that is not the first, a copy that is thrown away."""
        return RunFolder(run, resume)

    def check_same(self, manifest: dict[str, Any], config: TrainConfig) -> None:
        """Raise ValueError, in all processes, where one has other data, settings or encoder."""
        same = re.compile("digest|fingerprint|pictures|backend")
        what: dict[str, Any] = {name: value for name, value in manifest.items() if same.search(name)}
        elsewhere = {"weights": None, "start": None}  # paths may differ between machines: digests tell
        seen = self.gather(what | asdict(config) | elsewhere)
        for process, other in enumerate(seen):
            names = [name for name in seen[0] if other.get(name) != seen[0][name]]
            if names:
                own, first = other.get(names[0]), seen[0][names[0]]
                raise ValueError(
                    f"process {process} has another {names[0]} ({own}) than process 0 ({first}): start all processes "
                    "with the same data, settings and weights"
                )

    def gather(self, value: Any) -> list[Any]:
        """Return what every process gave, in their order; each gives something that JSON can hold."""
        return [value]

    def fit(
        self,
        captioner: Captioner,
        batches: CaptionBatches,
        recorder: RunRecorder,
        config: TrainConfig,
        *,
        optimizer: keras.optimizers.Optimizer | None = None,
        loss: Any = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        verbose: Any = "auto",
    ) -> None:
        """Do as `objectives.fit`, with a replica of the captioner on every device."""
        shares = self.shares(batches)
        real_loss = LossOfRealPictures(shares)
        validate = recorder.validate
        with self.scope():
            replica = self._replica(captioner)
            pairs = list(zip(_own_variables(captioner), _own_variables(replica), strict=True))

            def on_one_device(_: Captioner) -> Captioner:
                for variable, replicated in pairs:
                    variable.assign(keras.ops.convert_to_numpy(replicated))
                return captioner

            def validate_aside(now: Captioner) -> dict[str, float]:
                with self.aside():
                    return {**validate(now), **real_loss.corrected()}

            recorder.on_one_device = on_one_device
            recorder.validate = validate_aside
            verbose = verbose if self.process == 0 else 0
            every = [real_loss, *callbacks]
            fit(replica, shares, recorder, config, optimizer=optimizer, loss=loss, callbacks=every, verbose=verbose)

    def shares(self, batches: CaptionBatches) -> Shares:
        return Shares(batches, self.replicas, self.own)

    def scope(self) -> AbstractContextManager[Any]:
        """Inside it what is made is made for every device."""
        return nullcontext()

    def aside(self) -> AbstractContextManager[Any]:
        """Inside it this process computes alone again."""
        return nullcontext()

    def _replica(self, captioner: Captioner) -> Captioner:
        # Without the encoder, which has no part in training and would be copied to every device.
        replica = type(captioner).from_config({**captioner.get_config(), "encoder": None})
        if captioner.tail is not None and replica.tail is not None:
            replica.tail.trainable = captioner.tail.trainable
        values = [keras.ops.convert_to_numpy(variable) for variable in _own_variables(captioner)]
        for variable, value in zip(_own_variables(replica), self._of_first(values), strict=True):
            variable.assign(value)
        return replica

    def _of_first(self, arrays: Any) -> Any:
        return arrays


class MirroredTraining(SharedTraining):
    """Training on several devices of one machine with TensorFlow's `MirroredStrategy`.

    Each device draws its own dropout masks; all else, and with dropout 0 everything, is as on one device.

    Args:
        devices: names, as "GPU:0"; None takes every GPU, or every logical CPU where there is no GPU.
    """

    def __init__(self, devices: Sequence[str] | None = None):
        import tensorflow as tf

        found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        self.strategy = tf.distribute.MirroredStrategy(list(devices or (device.name for device in found)))
        self.replicas = self.strategy.num_replicas_in_sync
        self.own = range(self.replicas)

    def check(self, config: TrainConfig) -> None:
        super().check(config)
        for name in ("attention_penalty", "attention_supervision"):
            if getattr(config, name) and self.replicas > 1:
                raise ValueError(
                    f"{name} is {getattr(config, name)}: TensorFlow's devices would each take the mean over their own "
                    "maps, not the batch's: train with KERAS_BACKEND=jax, or on one device without --distributed"
                )

    def scope(self) -> AbstractContextManager[Any]:
        return self.strategy.scope()

    def shares(self, batches: CaptionBatches) -> Shares:
        return MirroredShares(batches, self.replicas, self.own)


class ProcessTraining(SharedTraining):
    """Training of several processes, on one machine or many, with `keras.distribution` on the JAX backend.

    Every process loads the same data and computes the features of all pictures, where its folder of features does not
    have them. Where one process ends, all end with an error: at once where the connection shows it, else after
    `HEARTBEAT_SECONDS`. `resume` goes on, with any number of processes.

    Args:
        coordinator: host and port where process 0 listens; None: of the environment, see `shared_training`.
        processes: how many there are; 1 shares the work among this machine's devices alone.
        process: which one this is, from 0.

    Raises:
        ValueError: the processes have different numbers of devices.
        RuntimeError: it cannot listen or connect; where the others do not come within `START_SECONDS`, it ends.
    """

    def __init__(self, coordinator: str | None, processes: int | None, process: int | None):
        import jax

        if processes != 1:
            # Else SIGTERM would be a notice to save and not the end.
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
                raise RuntimeError(f"{who}: cannot begin ({_first_line(error)})") from error
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
                f"({_first_line(error)}): start all again with --resume"
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
        # What a resumed run goes on from is with process 0 alone.
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
        # A barrier of the coordinator waits as long as it takes, as for a machine that still computes features; the
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


def shared_training(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> SharedTraining:
    """Join the processes that train together, or take this machine's devices; call it before anything is computed.

    Args:
        coordinator: HOST:PORT of process 0; else of KERAS_DISTRIBUTION_JOB_ADDRESSES (its first address).
        processes: how many; else of KERAS_DISTRIBUTION_NUM_PROCESSES.
        process: which this is, from 0; else of KERAS_DISTRIBUTION_PROCESS_ID. Where none of the three is given, Slurm's
            and Open MPI's own variables are read; where there are none either, the devices of this machine are taken.

    Returns:
        training: `ProcessTraining` on JAX, `MirroredTraining` on TensorFlow.

    Raises:
        ValueError: another backend, processes on TensorFlow, or not all three.

    Example:
        >>> with shared_training("10.0.0.1:1234", 2, 0) as distribution:
        ...     train(data, "runs/mine", distribution=distribution)
    """
    given = {"coordinator": coordinator, "processes": processes, "process-id": process}
    backend = keras.backend.backend()
    if backend == "tensorflow":
        extra = [name for name, value in given.items() if value is not None]
        if extra:
            raise ValueError(
                f"--{extra[0]}: on the TensorFlow backend the devices of one machine share a training; for several "
                "processes set KERAS_BACKEND=jax in the environment"
            )
        return MirroredTraining()
    if backend != "jax":
        raise ValueError(f"the {backend} backend trains in one process: set KERAS_BACKEND=jax (or tensorflow)")
    addresses = coordinator or os.environ.get("KERAS_DISTRIBUTION_JOB_ADDRESSES")
    given["coordinator"] = addresses.split(",")[0] if addresses else None
    for name, variable in (("processes", "NUM_PROCESSES"), ("process-id", "PROCESS_ID")):
        text = os.environ.get(f"KERAS_DISTRIBUTION_{variable}")
        if given[name] is None and text:
            if not text.isdigit():
                raise ValueError(f"KERAS_DISTRIBUTION_{variable} is {text!r}: a number expected")
            given[name] = int(text)
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if len(missing) == 3:
        return ProcessTraining(None, None if any(name in os.environ for name in CLUSTERS) else 1, None)
    if missing:
        raise ValueError(f"{', '.join(missing)} missing: every process needs --coordinator, --processes, --process-id")
    host, processes, process = str(given["coordinator"]), int(str(given["processes"])), int(str(given["process-id"]))
    if not re.fullmatch(r".+:\d+", host):
        raise ValueError(f"--coordinator {host}: HOST:PORT of process 0 expected, as 10.0.0.1:1234")
    if not 0 <= process < processes:
        raise ValueError(f"--process-id {process}: 0 to {processes - 1} expected, as there are {processes} processes")
    return ProcessTraining(host, processes, process)


def _own_variables(captioner: Captioner) -> list[Any]:
    encoder = captioner.encoder
    others = set() if encoder is None else {id(variable) for variable in encoder.variables}
    return [variable for variable in captioner.variables if id(variable) not in others]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _give_up(message: str) -> None:
    print(f"attncap: {message}", file=sys.stderr)
    _leave()


def _leave() -> None:  # JAX would wait, at the end of the program, for processes that may be gone, and then abort
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(2)
