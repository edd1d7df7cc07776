"""`RayEngine`: features computed on many machines with Ray, written by one.

Workers read the image files, decode them and run the network; their results come back to the process that has the
store open, which alone writes. The guarantees of the store hold as on one machine: a batch is stored whole or not at
all, an interrupted extraction continues, and a second process waits. The images must lie where every machine sees them
under the same path (a shared file system); the store need not.

Plain Ray actors are used, not Ray Data. Ray Data needs pyarrow, with which pandas 3 refuses text that is not UTF-8, as
file names can be. And a worker that dies for good keeps its place in the pool (ray issue 62746, open), so that an
extraction could wait forever.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from attncap.features.pipeline import Computed, Decoded, decode_file, file_stamp, through_network
from attncap.features.ray_cluster import connected, import_ray, last_line
from attncap.images import UnreadableImage, image_bytes

IN_FLIGHT = 2  # batches per worker: one is decoded while the network runs on the other
BATCH_KILLS = 2  # workers that may end with a batch before its images are tried one by one
IMAGE_KILLS = 2  # workers that may end with a single image before it is rejected
FAILED_STARTS = 3  # workers in a row that may end before they are ready
START_MINUTES = 10.0  # minutes without any worker before it is an error
THREADS = 4  # cores per worker, if a machine has as many: the network gains little from more


@dataclass(frozen=True)
class RayEngine:
    """Engine for `FeatureStore.extract`: decode and run the network in Ray's workers.

    The encoder is sent to the workers with its weights and loaded once in each; a worker whose copy has another
    fingerprint is refused. A worker that dies is replaced, and its images are given to another; an image
    that ends two workers when alone in them is a reject, tried again when its file changes.

    Args:
        address: "local" (starts a Ray on this machine, and ends it), "auto" (the cluster that this machine belongs to),
            HOST:PORT, or ray://HOST:PORT. If the process is connected to Ray already, that connection is used and left
            open.
        workers: processes with an encoder each; default as many as the cluster has cores for.
        cores: of each worker; default 4, or those of the smallest machine.
        gpus: of each worker; default none.

    Example:
        >>> store = FeatureStore("features", FeatureExtractor("mixed8"))
        >>> rejects = store.extract(images["path"], engine=RayEngine("auto"))
    """

    address: str = "local"
    workers: int | None = None
    cores: int | None = None
    gpus: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("workers", 1), ("cores", 1), ("gpus", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} of Ray: {value}, expected at least {least}")

    def __call__(
        self,
        extractor: Any,
        paths: list[str],
        batch_size: int,
        mirrored: bool,
        has_features: Callable[[bytes], bool] | None = None,
    ) -> Generator[Computed, None, None]:
        """Yield what the workers computed, in the order in which it is ready.

        `has_features` is not used: workers do not see the store, so equal images may be computed twice.

        Raises:
            ValueError: Ray is not installed, or the cluster has no room for a worker.
            OSError: no Ray at the address; a worker cannot see an image that this process sees, or sees another file.
            RuntimeError: workers end before they are ready, whatever the image; or a worker fails.
        """
        ray = import_ray()
        with connected(ray, self.address, (self.workers or 0) * (self.cores or 1)):
            workers, cores = self._sizes(ray, batches=-(-len(paths) // batch_size))
            packed = ray.put((type(extractor), extractor.get_config(), extractor.network.get_weights()))
            create = (
                ray.remote(Worker)
                .options(
                    num_cpus=cores,
                    num_gpus=self.gpus,
                    max_restarts=0,
                    max_task_retries=0,
                    max_concurrency=IN_FLIGHT + 1,
                    scheduling_strategy="SPREAD",
                )
                .remote
            )
            crew = _Crew(ray, partial(create, packed, extractor.fingerprint(), batch_size, mirrored, cores), workers)
            try:
                yield from _computed(crew, extractor, paths, batch_size, mirrored)
            finally:
                crew.dismiss()

    def _sizes(self, ray: Any, batches: int) -> tuple[int, int]:
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        if not machines:
            raise ValueError(f"the Ray at {self.address} has no cores to work on: add machines (ray start --address)")
        cores = self.cores or min(THREADS, int(min(machine["CPU"] for machine in machines)))
        room = sum(
            int(min(machine["CPU"] // cores, machine.get("GPU", 0) // self.gpus if self.gpus else np.inf))
            for machine in machines
        )
        if room == 0:
            raise ValueError(
                f"no machine of the Ray at {self.address} has {cores} cores and {self.gpus:g} GPUs for a worker: "
                "ask for fewer"
            )
        return min(self.workers or room, batches), cores


class Worker:
    """Worker in a Ray process: decode images and run a copy of the encoder on them."""

    def __init__(self, packed: Any, fingerprint: str, batch_size: int, mirrored: bool, cores: int) -> None:
        os.environ["TF_NUM_INTRAOP_THREADS"] = str(cores)  # read when TensorFlow computes for the first time
        kind, config, weights = packed
        self.extractor = kind.from_config(config)
        self.extractor.network.set_weights(weights)
        if self.extractor.fingerprint() != fingerprint:
            raise ValueError("another encoder than the store's came of the same settings: install the same versions")
        self.network = self.extractor.network_for_pixels()
        self.batch_size, self.mirrored = batch_size, mirrored
        self.decoders = ThreadPoolExecutor(cores, "decode")
        self.one_batch = threading.Lock()

    def ready(self) -> bool:
        """Answer as soon as the encoder is loaded."""
        return True

    def compute(self, names: list[bytes]) -> Result:
        """Return digest, error and size of each image, and the features of the `fresh` ones."""
        paths = [_path(name) for name in names]
        seen = {path: file_stamp(path) for path in paths}
        decode = partial(
            decode_file, extractor=self.extractor, mirrored=self.mirrored, has_features=lambda digest: False
        )
        batch = list(self.decoders.map(decode, paths))
        with self.one_batch:
            done = through_network(self.network, self.extractor, batch, self.batch_size)
        images = [(item.digest, item.reason, seen[item.path][0]) for item in batch]
        return Result(socket.gethostname(), images, [batch.index(item) for item in done.fresh], done.features)


class Result(NamedTuple):
    """What a worker sends back for a batch."""

    machine: str
    images: list[tuple[bytes, str | None, int]]  # of each: digest, why it cannot be read, bytes of the file
    fresh: list[int]  # places in the batch
    features: np.ndarray


@dataclass
class Task:
    """A batch of images that is to be computed, or is being computed."""

    paths: list[str]
    kills: int = 0  # workers that ended with it
    stamps: dict[str, list[int]] = field(default_factory=dict)  # as this machine saw the files, before they were read

    @property
    def alone(self) -> bool:
        return len(self.paths) == 1 and self.kills > 0


@dataclass
class _Crew:
    """The pool of workers: they are replaced when they end, and get tasks only when they are ready."""

    ray: Any
    create: Any
    size: int
    starting: dict[Any, Any] = field(default_factory=dict)  # reference of its answer -> worker
    running: dict[Any, tuple[Any, Task]] = field(default_factory=dict)  # reference of its result -> worker, task
    load: Counter[Any] = field(default_factory=Counter)  # worker that is ready -> tasks
    failed: int = 0  # starts, in a row

    def fill(self) -> None:
        while len(self.starting) + len(self.load) < self.size:
            worker = self.create()
            self.starting[worker.ready.remote()] = worker

    def give(self, task: Task) -> bool:
        """Return whether there was a worker for the task. A single image runs alone in its worker."""
        worker = min(self.load, key=self.load.__getitem__, default=None)
        if worker is None or self.load[worker] >= (1 if task.alone else IN_FLIGHT):
            return False
        self.load[worker] += IN_FLIGHT if task.alone else 1
        task.stamps = {path: file_stamp(path) for path in task.paths}
        self.running[worker.compute.remote([_name(path) for path in task.paths])] = (worker, task)
        return True

    def next(self) -> tuple[Task, Result | None] | None:
        """Wait until a task is done, its worker ended (None), or a worker began or failed."""
        ray = self.ray
        waiting = [*self.running, *self.starting]
        done, _ = ray.wait(waiting, timeout=None if self.load else 60 * START_MINUTES)
        if not done:
            raise RuntimeError(
                f"no worker was ready after {START_MINUTES:g} minutes: are there machines with room in the Ray cluster "
                "(ray status), and is attncap installed on them?"
            )
        if done[0] in self.starting:
            self._began(done[0])
            return None
        worker, task = self.running.pop(done[0])
        try:
            result: Result = ray.get(done[0])
        except ray.exceptions.RayTaskError as error:
            raise RuntimeError(f"a worker of Ray failed: {last_line(error)}") from None
        except ray.exceptions.RayError:  # it ended, or its machine did
            self._forget(worker)
            return task, None
        if worker in self.load:  # it may have ended since
            self.load[worker] -= IN_FLIGHT if task.alone else 1
        return task, result

    def _began(self, reference: Any) -> None:
        worker = self.starting.pop(reference)
        try:
            self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            self.failed += 1
            if self.failed >= FAILED_STARTS:
                raise RuntimeError(
                    f"{self.failed} workers of Ray in a row ended before they were ready ({last_line(error)}): "
                    "is the same attncap installed on every machine, and has each memory for the encoder?"
                ) from None
            return
        self.failed = 0
        self.load[worker] = 0

    def _forget(self, worker: Any) -> None:
        self.load.pop(worker, None)
        with suppress(Exception):  # it is dead already, most often
            self.ray.kill(worker)

    def dismiss(self) -> None:
        for worker in [*self.load, *self.starting.values()]:
            self._forget(worker)


def _computed(
    crew: _Crew, extractor: Any, paths: list[str], batch_size: int, mirrored: bool
) -> Generator[Computed, None, None]:
    tasks = (Task(paths[start : start + batch_size]) for start in range(0, len(paths), batch_size))
    waiting = deque(islice(tasks, 1))
    suspects: deque[Task] = deque()  # images to be tried alone, when nothing else is left
    while waiting or suspects or crew.running:
        crew.fill()
        for queue in (waiting, suspects):
            while queue and crew.give(queue[0]):
                queue.popleft()
                waiting.extend(islice(tasks, 0 if waiting else 1))
        happened = crew.next()
        if happened is None:
            continue
        task, result = happened
        if result is not None:
            yield _accepted(task, result, mirrored)
            continue
        task.kills += 1
        if len(task.paths) == 1 and task.kills > IMAGE_KILLS:  # the first of them may be that of a whole batch
            (path,) = task.paths
            reason = f"{IMAGE_KILLS} workers ended with it alone: too large for their memory, or harmful"
            nothing = np.empty((0, *extractor.feature_shape), np.float16)
            yield Computed([Decoded(path, task.stamps[path], b"", None, reason, mirrored)], [], nothing)
        elif len(task.paths) == 1:
            suspects.append(task)
        elif task.kills < BATCH_KILLS:
            waiting.append(task)
        else:
            suspects.extend(Task([path], kills=1) for path in task.paths)


def _accepted(task: Task, result: Result, mirrored: bool) -> Computed:
    batch = []
    for path, (digest, reason, size) in zip(task.paths, result.images, strict=True):
        stamp = task.stamps[path]
        if not digest:  # the worker could not read it: rejected only if this machine cannot read it either
            stamp, reason = [0, 0], _why_unreadable(path, result.machine, reason)
        elif size not in (stamp[0], file_stamp(path)[0]):
            raise OSError(
                f"{path}: a file of {size:,} bytes on {result.machine}, of {stamp[0]:,} here: every machine must see "
                "the same files; mount the same folder there"
            )
        batch.append(Decoded(path, stamp, digest, None, reason, mirrored))
    return Computed(batch, [batch[place] for place in result.fresh], result.features)


def _why_unreadable(path: str, machine: str, reason: str | None) -> str:
    try:
        image_bytes(path)
    except UnreadableImage as error:
        return error.reason
    raise OSError(
        f"{path}: this machine reads it, the worker on {machine} does not ({reason}): mount its folder there under the "
        "same path, readable for the worker"
    )


def _name(path: str) -> bytes:
    # Absolute, because workers have another working folder; bytes, because a file name need not be text.
    return os.path.abspath(path).encode("utf-8", "surrogatepass")


def _path(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")
