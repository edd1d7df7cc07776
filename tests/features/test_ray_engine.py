"""Features by Ray's workers: as those of one process, with workers killed on the way and pictures that kill."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from attncap.cli.main import main
from attncap.features import ray_cluster
from attncap.features import ray_engine as ray_features
from attncap.features.extractor import FeatureExtractor
from attncap.features.ray_engine import RayEngine, Result, Task
from attncap.features.store import FeatureStore
from tests.features.test_store import FakeExtractor, draw, spoil

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (2, 3, 5)
DEADLY = 7  # grey of a picture that ends the worker which computes it


class NoWeights:
    def __init__(self, value: float) -> None:
        self.value = value

    def get_weights(self) -> list[np.ndarray]:
        return [np.full(3, self.value, np.float32)]

    def set_weights(self, weights: list[np.ndarray]) -> None:
        self.value = float(weights[0][2])


class CarriedExtractor:
    """An extractor with a quick network that says in a folder which process computed; in Ray's workers as well."""

    layer, feature_shape, image_size = "mixed9", SHAPE, 30

    def __init__(self, folder: str, value: float = 2.0, seconds: float = 0.0, home: int = 0) -> None:
        self.folder, self.seconds, self.home = folder, seconds, home or os.getpid()
        self.network = NoWeights(value)
        self._quick = FakeExtractor()

    def get_config(self) -> dict[str, Any]:
        return {"folder": self.folder, "seconds": self.seconds, "home": self.home}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> CarriedExtractor:
        return cls(value=0.0, **config)

    def fingerprint(self) -> str:
        return f"carried{self.network.value}"

    def preprocess(self, picture: Any) -> np.ndarray:
        return self._quick.preprocess(picture)

    def network_for_pixels(self) -> CarriedExtractor:
        return self

    def predict_on_batch(self, pixels: np.ndarray) -> np.ndarray:
        Path(self.folder, str(os.getpid())).touch()
        time.sleep(self.seconds)
        if os.getpid() != self.home and (pixels == DEADLY).all(axis=(1, 2, 3)).any():
            os.kill(os.getpid(), signal.SIGKILL)
        return self._quick.predict_on_batch(pixels) * self.network.value


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A Ray of this machine with two cores, so that it is started once; no process of it outlives the tests."""
    import ray

    with pytest.MonkeyPatch.context() as patched:  # of the workers
        patched.setenv("KERAS_BACKEND", "numpy")  # imports in half the time
        patched.setenv("PYTHONPATH", os.pathsep.join(map(str, [ROOT])))
        with ray_cluster.connected(ray_cluster.import_ray(), "local", 2):
            yield ray
    assert not ray.is_initialized()


def new_store(folder: Path, name: str, **settings: Any) -> FeatureStore:
    (folder / f"{name} processes").mkdir()
    return FeatureStore(folder / name, CarriedExtractor(str(folder / f"{name} processes"), **settings))


def processes(store: FeatureStore) -> list[int]:
    return [int(file.name) for file in Path(store.extractor.folder).iterdir()]


class Killer(threading.Thread):
    """Kills a worker once two of them compute."""

    def __init__(self, store: FeatureStore) -> None:
        super().__init__(daemon=True)
        self.store, self.killed, self.stop = store, 0, False
        self.start()

    def run(self) -> None:
        while not self.stop and len(processes(self.store)) < 2:
            time.sleep(0.02)
        if not self.stop:
            self.killed = processes(self.store)[0]
            assert self.killed != os.getpid()
            os.kill(self.killed, signal.SIGKILL)


# ---------------------------------------------------------------- a local Ray


@pytest.mark.slow
def test_two_workers_one_killed_give_the_store_of_one_process(tmp_path: Path, ray: Any) -> None:
    paths = draw(tmp_path / "pictures", 47)
    spoiled = spoil(paths)
    shutil.copyfile(paths[11], paths[11] + ".copy.png")
    odd = str(tmp_path / "no text \udcff.png")  # a name that is not UTF-8
    shutil.copyfile(paths[12], odd)
    paths += [paths[11] + ".copy.png", odd, "a NUL \0 in a name", paths[20]]
    here, by_ray = new_store(tmp_path, "here"), new_store(tmp_path, "ray", seconds=0.25)
    expected = here.extract(paths, batch_size=3, progress=False)
    assert len(expected) == len(spoiled) + 1 and processes(here) == [os.getpid()]

    killer = Killer(by_ray)
    rejects = by_ray.extract(paths, batch_size=3, progress=False, engine=RayEngine(workers=2, cores=1))
    killer.stop = True
    assert killer.killed and os.getpid() not in processes(by_ray)
    assert rejects.values.tolist() == expected.values.tolist()
    assert len(by_ray) == len(here) == 44
    good = [path for path in paths if path not in set(rejects["path"])]
    np.testing.assert_array_equal(by_ray.get(good), here.get(good))
    # Whoever goes on, here or with Ray, finds all of it done.
    by_ray.extractor.predict_on_batch = None
    assert by_ray.extract(good, progress=False).empty
    shutil.rmtree(by_ray.extractor.folder)
    more = draw(tmp_path / "pictures", 2, first=100)
    Path(by_ray.extractor.folder).mkdir()
    engine = RayEngine(workers=2, cores=1)
    assert by_ray.extract([*paths, *more], mirrored=False, progress=False, engine=engine).equals(rejects)
    assert len(processes(by_ray)) == 1 and len(by_ray) == 46  # one batch was left
    here.close()
    by_ray.close()


@pytest.mark.slow
def test_a_picture_that_ends_its_workers_is_a_reject_and_no_other_is(tmp_path: Path, ray: Any) -> None:
    from PIL import Image

    paths = draw(tmp_path / "pictures", 7)
    deadly = str(tmp_path / "pictures" / "deadly.png")
    Image.new("RGB", (42, 35), (DEADLY,) * 3).save(deadly)
    paths.insert(2, deadly)
    store, here = new_store(tmp_path, "ray"), new_store(tmp_path, "here")
    engine = RayEngine(workers=2, cores=1)
    rejects = store.extract(paths, batch_size=2, progress=False, engine=engine)
    reason = "2 workers ended with it alone: too large for their memory, or harmful"
    assert rejects.values.tolist() == [[deadly, reason]]
    paths.remove(deadly)
    here.extract(paths, batch_size=2, progress=False)
    np.testing.assert_array_equal(store.get(paths), here.get(paths))
    ended = len(processes(store))
    store.extract([deadly], progress=False, engine=engine)  # not tried again until the file changes
    assert len(processes(store)) == ended
    store.close()
    here.close()


@pytest.mark.slow
def test_workers_with_another_encoder_are_refused(tmp_path: Path, ray: Any) -> None:
    store = new_store(tmp_path, "ray")
    store.extractor.network.set_weights = None  # not carried: the class is
    store.extractor.fingerprint = lambda: "another"  # type: ignore[method-assign]
    with pytest.raises(
        RuntimeError, match=r"3 workers of Ray in a row ended before .*another encoder than the store's"
    ):
        store.extract(draw(tmp_path / "pictures", 2), progress=False, engine=RayEngine(workers=1, cores=1))
    assert len(store) == 0
    store.close()


@pytest.mark.slow
def test_a_full_disk_stops_ray_too_and_what_was_there_stays(
    tmp_path: Path, ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store(tmp_path, "ray")
    paths = draw(tmp_path / "pictures", 4)
    store.extract(paths[:2], batch_size=2, progress=False)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store._rows, "write", full)
    with pytest.raises(OSError, match="features cannot be written: disk full"):
        store.extract(paths, batch_size=2, progress=False, engine=RayEngine(workers=1, cores=1))
    assert store.get(paths[:2]).shape == (2, *SHAPE)
    store.close()


@pytest.mark.slow
def test_the_real_encoder_goes_to_the_workers_with_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    ray.shutdown()  # the workers of the other tests have another backend
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    paths = draw(tmp_path / "pictures", 13)
    extractor = FeatureExtractor("mixed0", "random", image_size=75, dtype="float32")
    here, by_ray = FeatureStore(tmp_path / "here", extractor), FeatureStore(tmp_path / "ray", extractor)
    here.extract(paths, batch_size=4, progress=False)
    by_ray.extract(paths, batch_size=4, progress=False, engine=RayEngine(workers=2, cores=1))
    np.testing.assert_allclose(by_ray.get(paths).astype(float), here.get(paths).astype(float), rtol=2e-3, atol=1e-4)
    here.close()
    by_ray.close()


@pytest.mark.slow
def test_a_machine_lost_on_the_way_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    monkeypatch.setenv("KERAS_BACKEND", "numpy")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, [ROOT])))
    paths = draw(tmp_path / "pictures", 40)
    store, here = new_store(tmp_path, "ray", seconds=0.5), new_store(tmp_path, "here")
    memory = {"object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **memory})
    try:
        cluster.add_node(num_cpus=1, **memory)
        other = cluster.add_node(num_cpus=1, **memory)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        lost = []

        def lose() -> None:
            while len(processes(store)) < 2:
                time.sleep(0.05)
            cluster.remove_node(other, allow_graceful=False)
            lost.append(len(store))

        threading.Thread(target=lose, daemon=True).start()
        assert store.extract(paths, batch_size=2, progress=False, engine=RayEngine(workers=2, cores=1)).empty
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert lost and lost[0] < 40 and len(processes(store)) == 2  # there was no room for a third worker
    here.extract(paths, batch_size=2, progress=False)
    np.testing.assert_array_equal(store.get(paths), here.get(paths))
    store.close()
    here.close()


# ---------------------------------------------------------------- a scripted Ray: who is blamed


class Lost(Exception):
    """Stands for Ray's errors: a worker, or its machine, is gone."""


class Failed(Lost):
    """Stands for an error that code in a worker raised."""


class ScriptedRay:
    """What `_Crew` uses of Ray, in this process: what is asked of a worker is answered in the order of asking."""

    exceptions = SimpleNamespace(RayError=Lost, RayTaskError=Failed)

    def __init__(self, deadly: str = "", starts: list[str] | None = None) -> None:
        self.deadly, self.starts = deadly, starts or []
        self.made: list[ScriptedWorker] = []

    def create(self) -> ScriptedWorker:
        fate = self.starts.pop(0) if self.starts else "begins"
        self.made.append(ScriptedWorker(self, fate))
        return self.made[-1]

    def wait(self, references: list[Any], timeout: float | None) -> tuple[list[Any], list[Any]]:
        assert references
        answered = [each for each in references if each.worker.fate != "waits"]
        return answered[:1], references

    def get(self, reference: Any) -> Any:
        return reference.answer()

    def kill(self, worker: Any) -> None:
        worker.dead = True


class ScriptedWorker:
    def __init__(self, ray: ScriptedRay, fate: str) -> None:
        self.ray, self.fate, self.dead = ray, fate, False
        self.asked: list[list[str]] = []
        self.ready = SimpleNamespace(remote=lambda: Reference(self, self._begin))
        self.compute = SimpleNamespace(remote=self._ask)

    def _begin(self) -> bool:
        if self.fate == "fails":
            raise Lost("The worker died in its creation task\nMemoryError: no room")
        return True

    def _ask(self, names: list[bytes]) -> Any:
        paths = [ray_features._path(name) for name in names]
        self.asked.append(paths)
        self.dead = self.dead or self.ray.deadly in paths
        return Reference(self, lambda: self._compute(paths))

    def _compute(self, paths: list[str]) -> Result:
        if self.dead:
            raise Lost("gone")
        fresh = [place for place, _ in enumerate(paths)]
        pictures = [(path.encode(), None, os.path.getsize(path)) for path in paths]
        return Result("here", pictures, fresh, np.zeros((len(paths), *SHAPE), np.float16))


class Reference:
    def __init__(self, worker: ScriptedWorker, answer: Any) -> None:
        self.worker, self.answer = worker, answer


def computed_by(ray: ScriptedRay, paths: list[str], workers: int = 2, batch_size: int = 3) -> list[Any]:
    crew = ray_features._Crew(ray, ray.create, workers)
    done = ray_features._computed(crew, SimpleNamespace(feature_shape=SHAPE), paths, batch_size, mirrored=False)
    return [item for computed in done for item in computed.batch]


@pytest.mark.parametrize("place", [0, 4, 12])
def test_only_the_picture_that_ends_its_workers_is_blamed(tmp_path: Path, place: int) -> None:
    paths = draw(tmp_path, 13)  # the last is a batch of its own
    ray = ScriptedRay(deadly=paths[place])
    items = computed_by(ray, paths)
    assert sorted(item.path for item in items) == sorted(paths)  # each once
    reasons = {item.path: item.reason for item in items if item.reason}
    assert reasons == {paths[place]: "2 workers ended with it alone: too large for their memory, or harmful"}
    rejected = next(item for item in items if item.reason)
    assert rejected.stamp == ray_features.file_stamp(paths[place])  # not tried again until the file changes
    given = [batch for worker in ray.made for batch in worker.asked if paths[place] in batch]
    # Twice among others, then twice alone; the last picture is alone from the first.
    assert [len(batch) for batch in given] == ([1, 1, 1] if place == 12 else [3, 3, 1, 1])
    for worker in ray.made:  # beside it in the end there was nothing
        if [paths[place]] in worker.asked and place != 12:
            assert worker.asked[-1] == [paths[place]]


def test_a_worker_that_is_not_ready_gets_nothing_and_one_lost_is_replaced(tmp_path: Path) -> None:
    paths = draw(tmp_path, 7)
    ray = ScriptedRay(starts=["waits", "begins", "fails", "fails", "begins"])
    items = computed_by(ray, paths, workers=2)
    assert [item.path for item in items] == paths and not any(item.reason for item in items)
    assert ray.made[0].asked == [] and len(ray.made) == 2


def test_workers_that_end_before_they_are_ready_are_an_error(tmp_path: Path) -> None:
    ray = ScriptedRay(starts=["fails"] * 9)
    with pytest.raises(
        RuntimeError, match=r"3 workers .* before they were ready \(MemoryError: no room\): is the same"
    ):
        computed_by(ray, draw(tmp_path, 3))
    with pytest.raises(RuntimeError, match=r"no worker was ready after 10 minutes: are there machines with room"):
        computed_by(ScriptedRay(starts=["waits"] * 9), draw(tmp_path, 3))


def test_an_error_of_the_code_is_no_death(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(worker: ScriptedWorker, paths: list[str]) -> Result:
        raise Failed("Traceback ...\nZeroDivisionError: in a worker\n")

    monkeypatch.setattr(ScriptedWorker, "_compute", fail)
    with pytest.raises(RuntimeError, match=r"^a worker of Ray failed: ZeroDivisionError: in a worker$"):
        computed_by(ScriptedRay(), draw(tmp_path, 3))


# ---------------------------------------------------------------- without Ray


def accepted(path: str, digest: bytes, reason: str | None, size: int) -> Any:
    task = Task([path], stamps={path: ray_features.file_stamp(path)})
    nothing = np.empty((0, *SHAPE), np.float16)
    return ray_features._accepted(task, Result("machine7", [(digest, reason, size)], [], nothing), mirrored=False)


def test_what_a_worker_cannot_see_and_this_machine_can_is_an_error(tmp_path: Path) -> None:
    (path,) = draw(tmp_path, 1)
    size = os.path.getsize(path)
    with pytest.raises(
        OSError, match=r"0\.png: this machine reads it, .* machine7 does not \(no such file\): mount its"
    ):
        accepted(path, b"", "no such file", 0)
    with pytest.raises(
        OSError, match=rf"0\.png: a file of 31 bytes on machine7, of {size:,} here: .*mount the same folder"
    ):
        accepted(path, b"digest", None, 31)
    assert accepted(path, b"digest", "truncated", size).batch[0].reason == "truncated"
    os.remove(path)
    gone = accepted(path, b"", "cannot be opened: Stale file handle", 0).batch[0]
    assert (gone.reason, gone.stamp) == ("no such file", [0, 0])  # what this machine finds


def test_without_the_package_the_mend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"needs the package ray: pip install 'attncap\[ray\]'"):
        list(RayEngine()(None, ["a.png"], 1, False))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:{port}", r"no Ray at 127\.0\.0\.1:\d+ \(.*refused\): start one there with `ray start --head`"),
        ("ray://127.0.0.1:{port}", r"no Ray at ray://127\.0\.0\.1:\d+ \(.*refused\): start one there"),
        ("127.0.0.1:here", r"no Ray at 127\.0\.0\.1:here \(local, auto, HOST:PORT or ray://HOST:PORT expected\)"),
    ],
)
def test_an_address_where_nothing_listens_is_named_at_once(address: str, message: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]  # not listened at
        nobody = SimpleNamespace(is_initialized=lambda: False, shutdown=lambda: None)
        with (
            pytest.raises(OSError, match=message),
            ray_cluster.connected(nobody, address.format(port=port), 1),
        ):
            pass


@pytest.mark.parametrize(("setting", "value"), [("workers", 0), ("cores", -1), ("gpus", -0.5)])
def test_sizes_below_the_least_are_refused(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{setting} of Ray: {value}, expected at least [01]"):
        RayEngine(**{setting: value})


class Machines:
    """What `RayEngine` asks a cluster."""

    def __init__(self, *resources: dict[str, float]) -> None:
        self.resources = resources

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": each} for each in self.resources] + [{"Alive": False, "Resources": {}}]


@pytest.mark.parametrize(
    ("engine", "machines", "expected"),
    [
        (RayEngine(), Machines({"CPU": 2}), (1, 2)),
        (RayEngine(), Machines({"CPU": 17}, {"CPU": 5}, {"CPU": 0}), (5, 4)),
        (RayEngine(cores=2), Machines({"CPU": 7}, {"CPU": 5}), (5, 2)),
        (RayEngine(workers=3, cores=1), Machines({"CPU": 11}), (3, 1)),
        (RayEngine(workers=50, cores=1), Machines({"CPU": 11}), (13, 1)),  # no more than batches
        (RayEngine(gpus=0.5), Machines({"CPU": 32, "GPU": 1}, {"CPU": 32, "GPU": 2}, {"CPU": 32}), (6, 4)),
    ],
)
def test_workers_fit_into_the_machines(engine: RayEngine, machines: Machines, expected: tuple[int, int]) -> None:
    assert engine._sizes(machines, batches=13) == expected


def test_a_cluster_without_room_is_an_error() -> None:
    with pytest.raises(ValueError, match="at auto has no cores to work on"):
        RayEngine("auto")._sizes(Machines({"CPU": 0}), batches=13)
    with pytest.raises(ValueError, match=r"no machine of .* at local has 5 cores and 0 GPUs for a worker"):
        RayEngine(cores=5)._sizes(Machines({"CPU": 3}), batches=13)


# ---------------------------------------------------------------- the command line


@pytest.fixture
def spec(tmp_path: Path) -> str:
    paths = draw(tmp_path / "pictures", 5)
    Path(paths[3]).write_bytes(b"")
    rows = [f"{Path(path).name},a caption" for path in paths]
    (tmp_path / "captions.csv").write_text("\n".join(["file,caption", *rows]), encoding="utf-8")
    return f"table:{tmp_path / 'captions.csv'}:{tmp_path / 'pictures'}"


def test_the_command_fills_the_store_and_lists_rejects(
    tmp_path: Path, spec: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "processes").mkdir()
    monkeypatch.setattr(
        "attncap.features.extractor.FeatureExtractor",
        lambda *asked, backbone: CarriedExtractor(str(tmp_path / "processes")),
    )
    asked = ["features", "--data", spec, "--features", str(tmp_path / "features"), "--out", str(tmp_path / "out.csv")]
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert "features of 4 of 5 images are in " in said and "3.png: empty file" in said
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == "path,reason"
    assert "3.png,empty file" in (tmp_path / "out.csv").read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--ray-workers", "3"], "--ray-workers is for --engine ray"),
        (["--engine", "ray", "--ray-workers", "0"], "workers of Ray: 0, expected at least 1"),
        (["--batch-size", "0"], "--batch-size 0: at least 1 expected"),
    ],
)
def test_options_that_make_no_sense_are_refused(spec: str, more: list[str], message: str, capsys: Any) -> None:
    assert main(["features", "--data", spec, "--weights", "random", *more]) == 2
    assert capsys.readouterr().err == f"attncap features: {message}\n"
