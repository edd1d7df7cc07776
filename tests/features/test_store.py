"""The feature store: half precision, killed at any moment, two processes at once, damage and full disks named."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
from PIL import Image

from attncap.features import pipeline
from attncap.features.extractor import FeatureExtractor
from attncap.features.preprocessing import preprocess
from attncap.features.store import FeatureStore
from attncap.images import UnreadableImage

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (2, 3, 5)
SIZE = 30

# What the store knows of an extractor, with a network that is quick, counts what passes through it, and can be slow.
# Written as text because worker processes need it as well, and they start faster without TensorFlow's graph.
FAKE = """
import time
import numpy as np
from attncap.features.preprocessing import preprocess

class FakeExtractor:
    layer, feature_shape, image_size = "mixed9", (2, 3, 5), 30

    def __init__(self, weight=1.0, seconds=0.0):
        self.weight, self.seconds, self.passed = weight, seconds, 0

    def fingerprint(self):
        return f"fake{self.weight}"

    def preprocess(self, picture):
        return preprocess(picture, self.image_size)

    def network_for_pixels(self):
        return self

    def predict_on_batch(self, pixels):
        time.sleep(self.seconds)
        assert pixels.dtype == np.uint8 and pixels.shape[1:] == (30, 30, 3)
        self.passed += int((pixels != 0).any(axis=(1, 2, 3)).sum())
        cells = pixels.reshape(-1, 2, 15, 3, 10, 3).astype("float32").mean(axis=(2, 4))  # (B, 2, 3, 3)
        return np.concatenate([cells, cells[..., :2] ** 1.5], axis=-1) * self.weight / 7.0
"""
_names: dict[str, Any] = {}
exec(FAKE, _names)
FakeExtractor = _names["FakeExtractor"]


def draw(folder: Path, number: int, first: int = 0) -> list[str]:
    """Small pictures, no two alike."""
    folder.mkdir(exist_ok=True)
    paths = []
    for index in range(first, first + number):
        colors = np.random.default_rng(index).integers(1, 256, (5, 7, 3), np.uint8)
        path = folder / f"{index}.png"
        Image.fromarray(colors).resize((42, 35)).save(path)
        paths.append(str(path))
    return paths


def expected_features(paths: list[str], **settings) -> np.ndarray:
    pixels = np.stack([preprocess(Image.open(path).convert("RGB"), SIZE) for path in paths])
    return FakeExtractor(**settings).predict_on_batch(pixels).astype(np.float16)


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    return draw(tmp_path / "pictures", 11)


def new_store(tmp_path: Path, **settings) -> FeatureStore:
    return FeatureStore(tmp_path / "features", FakeExtractor(**settings))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeatureStore]:
    made = new_store(tmp_path)
    yield made
    made.close()


def quietly(store: FeatureStore, paths: list[str], batch_size: int = 3):
    return store.extract(paths, batch_size=batch_size, progress=False)


# ---------------------------------------------------------------- round trip


def test_features_come_back_in_half_precision_in_any_order(store: FeatureStore, paths: list[str]) -> None:
    rejects = quietly(store, paths)
    assert rejects.empty and list(rejects.columns) == ["path", "reason"]
    assert len(store) == 11 and paths[4] in store and "elsewhere.png" not in store
    asked = [paths[index] for index in (7, 2, 2, 10, 0)]
    found = store.get(asked)
    assert found.dtype == np.float16 and found.shape == (5, *SHAPE)
    np.testing.assert_array_equal(found, expected_features(asked))
    assert store.get([]).shape == (0, *SHAPE)


def test_with_the_real_extractor(tmp_path: Path, paths: list[str]) -> None:
    extractor = FeatureExtractor("mixed0", "random", image_size=75, dtype="float32")
    store = FeatureStore(tmp_path / "features", extractor)
    quietly(store, paths, batch_size=4)
    found = store.get(paths)
    pixels = np.stack([extractor.preprocess(Image.open(path).convert("RGB")) for path in paths])
    expected = np.asarray(extractor(pixels))
    assert found.shape == (11, 7, 7, 256)
    # Half precision keeps 11 bits: relative error below 2^-11, and an absolute one in the smallest numbers.
    np.testing.assert_allclose(found.astype(np.float32), expected, rtol=6e-4, atol=1e-5)
    assert np.linalg.norm(found[0] - found[1]) > 0
    store.close()


def test_a_picture_without_features_is_named(store: FeatureStore, paths: list[str]) -> None:
    quietly(store, paths[:3])
    with pytest.raises(KeyError, match=r"pictures/7\.png: no features in .*fake1\.0\.features; call extract first"):
        store.get([paths[0], paths[7]])


def test_nothing_is_computed_twice(store: FeatureStore, paths: list[str]) -> None:
    quietly(store, paths[:5])
    quietly(store, paths)
    quietly(store, paths)
    quietly(store, [*paths, *paths])
    assert store.extractor.passed == 11


def test_the_store_is_found_again_by_a_new_object(tmp_path: Path, paths: list[str]) -> None:
    first = new_store(tmp_path)
    quietly(first, paths)
    while_open = new_store(tmp_path)  # a notebook whose cell is run again
    assert len(while_open) == 11
    quietly(while_open, draw(tmp_path / "pictures", 2, first=50))
    assert len(first) == 13
    first.close()
    first.close()
    np.testing.assert_array_equal(while_open.get(paths), expected_features(paths))
    while_open.close()
    reopened = new_store(tmp_path)
    assert quietly(reopened, paths).empty and reopened.extractor.passed == 0
    reopened.close()


def test_paths_are_the_same_from_any_folder(store: FeatureStore, paths: list[str], monkeypatch) -> None:
    quietly(store, paths)
    monkeypatch.chdir(Path(paths[0]).parent)
    np.testing.assert_array_equal(store.get(["3.png"]), expected_features([paths[3]]))


def test_mirrored_pictures_are_kept_beside_the_others(store: FeatureStore, paths: list[str]) -> None:
    quietly(store, paths)
    with pytest.raises(KeyError, match=r"3\.png: no features"):
        store.get([paths[3]], [True])
    store.extract(paths[2:5], batch_size=2, progress=False, mirrored=True)
    store.extract(paths[2:5], batch_size=2, progress=False, mirrored=True)
    assert store.extractor.passed == 11 + 3
    found = store.get([paths[3], paths[3], paths[7]], [False, True, False])
    turned = preprocess(Image.open(paths[3]).convert("RGB"), SIZE)[None, :, ::-1]
    np.testing.assert_array_equal(found[[0, 2]], expected_features([paths[3], paths[7]]))
    np.testing.assert_array_equal(found[1], FakeExtractor().predict_on_batch(turned)[0].astype(np.float16))
    assert (found[1] != found[0]).any()


# ---------------------------------------------------------------- which encoder, which picture


def test_another_encoder_has_another_file(tmp_path: Path, paths: list[str]) -> None:
    one, two = new_store(tmp_path), new_store(tmp_path, weight=2.0)
    assert one.path != two.path
    quietly(one, paths[:4])
    assert len(two) == 0
    quietly(two, paths)
    np.testing.assert_array_equal(two.get(paths), expected_features(paths, weight=2.0))
    np.testing.assert_array_equal(one.get(paths[:4]), expected_features(paths[:4]))
    one.close()
    two.close()


def test_a_changed_picture_is_computed_again(store: FeatureStore, paths: list[str]) -> None:
    quietly(store, paths)
    before = store.get([paths[3]])
    shutil.copyfile(paths[5], paths[3] + ".new")
    os.replace(draw(Path(paths[3]).parent / "other", 1, first=99)[0], paths[3])
    quietly(store, paths)
    assert store.extractor.passed == 12
    after = store.get([paths[3]])
    assert (after != before).any()
    np.testing.assert_array_equal(after, expected_features([paths[3]]))


def test_a_touched_copied_or_renamed_picture_is_not(store: FeatureStore, paths: list[str]) -> None:
    quietly(store, paths)
    os.utime(paths[1], (1, 1))
    copied, renamed = paths[2] + ".copy.png", paths[4] + ".renamed.png"
    shutil.copyfile(paths[2], copied)
    os.rename(paths[4], renamed)
    assert quietly(store, [paths[1], copied, renamed]).empty
    assert store.extractor.passed == 11
    np.testing.assert_array_equal(store.get([copied, renamed]), store.get([paths[2], paths[4]]))


def test_equal_pictures_of_a_batch_pass_once(store: FeatureStore, paths: list[str]) -> None:
    copies = []
    for number in range(4):
        copies.append(f"{paths[0]}.{number}.png")
        shutil.copyfile(paths[0], copies[-1])
    quietly(store, copies, batch_size=5)
    assert store.extractor.passed == 1 and len(store) == 4
    np.testing.assert_array_equal(store.get(copies), expected_features([paths[0]] * 4))


# ---------------------------------------------------------------- rejects


def spoil(paths: list[str]) -> dict[str, str]:
    """Spoils some pictures; path -> what the reason says."""
    whole = Path(paths[1]).read_bytes()
    Path(paths[1]).write_bytes(whole[: len(whole) // 2])
    Path(paths[2]).write_bytes(b"")
    os.remove(paths[3])
    os.remove(paths[4])
    os.mkdir(paths[4])
    os.remove(paths[5])
    os.mkfifo(paths[5])  # opening it would wait for ever
    return {
        paths[1]: "truncated",
        paths[2]: "empty file",
        paths[3]: "no such file",
        paths[4]: "a folder",
        paths[5]: "not a regular file",
    }


def test_unreadable_pictures_are_listed_with_reasons_and_the_rest_is_done(store, paths: list[str]) -> None:
    reasons = spoil(paths)
    rejects = quietly(store, paths)
    assert rejects["path"].tolist() == list(reasons)
    for path, reason in rejects.itertuples(index=False):
        assert reasons[path] in reason
        assert path not in reason  # it has a column of its own
    good = [path for path in paths if path not in reasons]
    assert len(store) == len(good) == 6
    np.testing.assert_array_equal(store.get(good), expected_features(good))
    assert store.rejects(good).empty
    with pytest.raises(KeyError, match=r"1\.png: no features"):
        store.get([paths[1]])


def test_a_reject_is_tried_again_when_its_file_changes_and_not_before(store, paths: list[str], monkeypatch) -> None:
    spoil(paths)
    quietly(store, paths)
    tried: list[str] = []
    decode = pipeline.decode_file

    def noting(path: str, **more: Any) -> Any:
        tried.append(path)
        return decode(path, **more)

    monkeypatch.setattr(pipeline, "decode_file", noting)
    quietly(store, paths)
    assert not {paths[1], paths[2], paths[3]} & set(tried)
    for number in (2, 3):
        draw(Path(paths[number]).parent, 1, first=number)
    rejects = quietly(store, paths)
    assert rejects["path"].tolist() == [paths[1], paths[4], paths[5]]
    np.testing.assert_array_equal(store.get(paths[2:4]), expected_features(paths[2:4]))


def test_a_picture_that_becomes_unreadable_loses_its_features(store: FeatureStore, paths: list[str]) -> None:
    quietly(store, paths)
    Path(paths[6]).write_bytes(b"not a picture")
    assert quietly(store, paths)["path"].tolist() == [paths[6]]
    assert paths[6] not in store and len(store) == 10


def test_a_picture_that_may_not_be_read_is_tried_again_once_it_may(store, paths: list[str], monkeypatch) -> None:
    def refuse(path: str) -> bytes:
        raise UnreadableImage(path, "cannot be opened: Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "image_bytes", refuse)
        assert quietly(store, paths[:2])["reason"].tolist() == ["cannot be opened: Permission denied"] * 2
    assert quietly(store, paths[:2]).empty and len(store) == 2


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("value", [7e4, np.nan])
def test_what_half_precision_cannot_hold_is_a_reject(tmp_path: Path, paths: list[str], value: float) -> None:
    store = new_store(tmp_path)
    compute = store.extractor.predict_on_batch

    def overflowing(pixels: np.ndarray) -> np.ndarray:
        features = compute(pixels)
        features[1, 0, 2, 4] = value
        return features

    store.extractor.predict_on_batch = overflowing
    rejects = quietly(store, paths[:3])
    assert rejects["path"].tolist() == [paths[1]]
    assert "features of mixed9 overflow half precision" in rejects["reason"][0]
    assert np.isfinite(store.get([paths[0], paths[2]])).all() and len(store) == 2
    store.close()


# ---------------------------------------------------------------- kills, and two at once

WORKERS = (
    FAKE
    + """
import json, os, sys
from attncap.features.store import FeatureStore

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

# Importing takes seconds: import once, and fork the processes that work.
for line in sys.stdin:
    order = json.loads(line)
    children = []
    for _ in range(order["processes"]):
        children.append(os.fork())
        if children[-1] == 0:
            exec(order["code"])
            os._exit(0)
    say("ended", [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""
)

EXTRACT = """
extractor = FakeExtractor(seconds=order["seconds"])
store = FeatureStore(order["folder"], extractor)
store.extract(order["paths"], batch_size=3, progress=False)
say("passed", extractor.passed, "stored", len(store))
"""

EXTRACT_ALOUD = """
class Aloud(FakeExtractor):
    def predict_on_batch(self, pixels):
        say(os.getpid())
        return super().predict_on_batch(pixels)

FeatureStore(order["folder"], Aloud(seconds=0.02)).extract(order["paths"], batch_size=3, progress=False)
"""


class Workers:
    """Processes that extract features, to be killed or to race."""

    def __init__(self) -> None:
        self.server = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WORKERS],
            cwd=ROOT,
            env={**os.environ, "KERAS_BACKEND": "numpy"},  # imports in half the time
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(
        self, folder: Path, paths: list[str], code: str = EXTRACT, seconds: float = 0, processes: int = 1
    ) -> None:
        assert self.server.stdin is not None
        order = {"folder": str(folder), "paths": paths, "code": code, "seconds": seconds, "processes": processes}
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()

    def read(self) -> str:
        assert self.server.stdout is not None
        line = self.server.stdout.readline().strip()
        assert line, "the workers are gone"
        return line

    def rest(self) -> list[str]:
        lines = [self.read()]
        while not lines[-1].startswith("ended"):
            lines.append(self.read())
        return lines


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    made = Workers()
    yield made
    made.server.communicate(timeout=60)


def test_killed_at_any_moment_it_goes_on(tmp_path: Path, workers: Workers) -> None:
    paths = draw(tmp_path / "pictures", 67)
    moments = random.Random(23)
    stored = 0
    for _ in range(4):
        workers.start(tmp_path / "features", paths, code=EXTRACT_ALOUD)  # 23 batches
        for _ in range(moments.randint(3, 5)):
            process = int(workers.read())
        time.sleep(moments.uniform(0.0, 0.03))  # while a batch is computed or written
        os.kill(process, signal.SIGKILL)
        assert workers.rest()[-1] == "ended [-9]"
        store = new_store(tmp_path)
        assert stored < len(store) < len(paths)  # the batches before the last two are surely there
        stored = len(store)
        done = [path for path in paths if path in store]
        assert len(done) == stored
        np.testing.assert_array_equal(store.get(done), expected_features(paths)[[path in done for path in paths]])
        store.close()
    store = new_store(tmp_path)
    assert quietly(store, paths).empty
    assert store.extractor.passed == len(paths) - stored
    undisturbed = FeatureStore(tmp_path / "undisturbed", FakeExtractor())
    quietly(undisturbed, paths)
    np.testing.assert_array_equal(store.get(paths), undisturbed.get(paths))
    assert len(store) == len(undisturbed) == 67
    store.close()
    undisturbed.close()


def test_two_processes_at_once_share_the_work(tmp_path: Path, workers: Workers) -> None:
    paths = draw(tmp_path / "pictures", 31)
    workers.start(tmp_path / "features", paths, seconds=0.02, processes=2)
    lines = workers.rest()
    assert lines[-1] == "ended [0, 0]"
    counts = [line.split() for line in lines if line.startswith("passed")]
    assert len(counts) == 2
    assert sum(int(passed) for _, passed, _, _ in counts) == 31
    assert max(int(stored) for _, _, _, stored in counts) == 31
    store = new_store(tmp_path)
    assert len(store) == 31
    np.testing.assert_array_equal(store.get(paths), expected_features(paths))
    store.close()


def test_it_reads_what_another_process_added_meanwhile(tmp_path: Path, workers: Workers) -> None:
    store = new_store(tmp_path)
    quietly(store, draw(tmp_path / "pictures", 2))
    paths = draw(tmp_path / "pictures", 67)
    workers.start(tmp_path / "features", paths)
    assert workers.rest()[-1] == "ended [0]"
    np.testing.assert_array_equal(store.get(paths), expected_features(paths))
    more = draw(tmp_path / "pictures", 5, first=100)
    quietly(store, more)
    np.testing.assert_array_equal(store.get(more), expected_features(more))
    store.close()


def test_threads_read_while_this_process_and_another_extend(tmp_path: Path, workers: Workers) -> None:
    """With a memory map that had to grow, this was a SIGSEGV."""
    first, more = draw(tmp_path / "pictures", 7), draw(tmp_path / "pictures", 90, first=100)
    store = new_store(tmp_path, seconds=0.005)
    quietly(store, first)
    truth, done, failed, read = expected_features(first), threading.Event(), [], []

    def reading() -> None:
        while not done.is_set():
            try:
                np.testing.assert_array_equal(store.get(first), truth)
                read.append(len(store))
            except BaseException as error:
                failed.append(error)
                return

    threads = [threading.Thread(target=reading) for _ in range(3)]
    for thread in threads:
        thread.start()
    workers.start(tmp_path / "features", more[40:], seconds=0.005)
    quietly(store, more[:50])
    assert workers.rest()[-1] == "ended [0]"
    done.set()
    for thread in threads:
        thread.join()
    assert not failed and len(set(read)) > 3  # they saw it grow
    np.testing.assert_array_equal(store.get(more), expected_features(more))
    store.close()


def test_a_process_that_waits_says_so(tmp_path: Path, paths: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    store = new_store(tmp_path)
    with filelock.FileLock(store.path / "extract.lock") as held:
        waiting = threading.Thread(target=quietly, args=(store, paths))
        waiting.start()
        deadline, told = time.monotonic() + 30, ""
        while "waiting" not in told and time.monotonic() < deadline:
            told += capsys.readouterr().err
            time.sleep(0.01)
        assert "fake1.0.features: another process computes features here; waiting until it is done" in told
        assert len(store) == 0
        held.release()
    waiting.join()
    assert len(store) == 11
    quietly(store, paths)  # nothing to do: no lock is taken
    assert "waiting" not in capsys.readouterr().err
    store.close()


READ_ONLY = """
import pathlib
os.setgid(65534), os.setuid(65534)
store = FeatureStore(order["folder"], FakeExtractor())
say(float(store.get(order["paths"][:3]).sum()), len(store.extract(order["paths"][:3], progress=False)))
try:
    store.extract(order["paths"], progress=False)
except OSError as error:
    say(error)
try:
    FeatureStore(order["folder"], FakeExtractor(weight=2.0))
except OSError as error:
    say(error)
"""


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="to become another user takes root")
def test_a_complete_store_on_a_read_only_disk_is_read(workers: Workers) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = draw(folder / "pictures", 5)
        store = FeatureStore(folder / "features", FakeExtractor())
        quietly(store, paths[:3])
        store.close()
        for place in (folder, *folder.rglob("*")):
            place.chmod(0o755 if place.is_dir() else 0o644)
        workers.start(folder / "features", paths, code=READ_ONLY)
        read, incomplete, new, ended = workers.rest()
        assert ended == "ended [0]"
        assert read.split() == [str(float(expected_features(paths[:3]).sum())), "0"]
        assert "fake1.0.features: read-only, and 2 of 5 images have no features in it: name another" in incomplete
        assert "fake2.0.features: the feature store cannot be opened (Permission denied)" in new


def test_one_path_in_place_of_a_list_is_refused(store: FeatureStore, paths: list[str]) -> None:
    for call in (store.extract, store.get):
        with pytest.raises(TypeError, match=r"paths: a list of images expected, got one: write \['"):
            call(paths[0])  # type: ignore[operator]
    with pytest.raises(TypeError, match="a list of images expected"):
        store.extract(Path(paths[0]))  # type: ignore[arg-type]


# ---------------------------------------------------------------- damage, other versions, full disks


@pytest.mark.parametrize("damage", ["garbage", "cut in half", "no head", "rows cut in half", "rows gone"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    store = new_store(tmp_path)
    quietly(store, draw(tmp_path / "pictures", 67))
    path = store.path
    store.close()
    file = path / ("rows.f16" if damage.startswith("rows") else "index.sqlite")
    contents = file.read_bytes()
    if damage == "garbage":
        file.write_bytes(b"garbage " * 4096)
    elif damage == "rows gone":
        file.unlink()
    elif damage == "no head":
        file.write_bytes(bytes(100) + contents[100:])
    else:
        file.write_bytes(contents[: len(contents) // 2])
    with pytest.raises(ValueError, match=r"mixed9-fake1\.0\.features: .*damaged.*: delete it to start anew"):
        new_store(tmp_path).get(draw(tmp_path / "pictures", 67))
    shutil.rmtree(path)
    new_store(tmp_path).close()  # the mend that the message names


def test_a_file_that_is_cut_off_while_it_is_open_kills_no_process(tmp_path: Path, paths: list[str]) -> None:
    store = new_store(tmp_path)
    quietly(store, paths)
    os.truncate(store.path / "rows.f16", 3 * 2 * 30 + 1)  # under a memory map, reading the rest would be SIGBUS
    np.testing.assert_array_equal(store.get(paths[:3]), expected_features(paths[:3]))
    with pytest.raises(ValueError, match=r"fake1\.0\.features: damaged \(features of .*3\.png are not those written"):
        store.get(paths)
    os.truncate(store.path / "index.sqlite", 4096)
    with pytest.raises((ValueError, OSError, KeyError), match=r"fake1\.0\.features"):
        store.get(paths[:3])
    store.close()


def test_rows_of_another_image_do_not_pass(tmp_path: Path, paths: list[str]) -> None:
    store = new_store(tmp_path)
    quietly(store, paths)
    rows = (store.path / "rows.f16").read_bytes()
    each = len(rows) // 11
    (store.path / "rows.f16").write_bytes(rows[each : 2 * each] + rows[:each] + rows[2 * each :])
    np.testing.assert_array_equal(store.get(paths[2:]), expected_features(paths[2:]))
    for number in (0, 1):
        with pytest.raises(ValueError, match=rf"features of .*/{number}\.png are not those written\): delete it"):
            store.get([paths[number]])
    store.close()


def test_a_file_that_is_empty_is_begun_anew(tmp_path: Path, paths: list[str]) -> None:
    store = new_store(tmp_path)
    path = store.path
    store.close()
    (path / "index.sqlite").write_bytes(b"")
    store = new_store(tmp_path)
    assert quietly(store, paths).empty and len(store) == 11
    store.close()


@pytest.mark.parametrize("change", [{"version": 99}, {"feature_shape": [3, 2, 5]}, {"attncap": "something else"}])
def test_another_version_or_shape_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    store = new_store(tmp_path)
    store.close()
    with closing(sqlite3.connect(store.path / "index.sqlite")) as index, index:
        header = json.loads(index.execute("SELECT value FROM about").fetchone()[0])
        index.execute("UPDATE about SET value = ?", (json.dumps({**header, **change}),))
    with pytest.raises(ValueError, match=r"fake1\.0\.features: a store of another version or shape: .*; expected"):
        new_store(tmp_path)


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "features" / "mixed9-fake1.0.features"
    folder.mkdir(parents=True)
    with closing(sqlite3.connect(folder / "index.sqlite")) as index, index:
        index.execute("CREATE TABLE theirs (name TEXT)")
    with pytest.raises(ValueError, match=r"fake1\.0\.features: not a feature store, .*other tables.*: delete it"):
        new_store(tmp_path)


def test_a_store_of_lmdb_is_refused_by_a_sentence_that_says_what_to_do(tmp_path: Path, paths: list[str]) -> None:
    old = tmp_path / "features" / "mixed9-fake1.0.lmdb"  # as commit 998f5d3 names it: data.mdb, lock.mdb, extract.lock
    old.mkdir(parents=True)
    (old / "data.mdb").write_bytes(bytes(8192))
    with pytest.raises(ValueError, match=r"fake1\.0\.lmdb: a feature store of .*998f5d3, .*Delete it: the features"):
        new_store(tmp_path)
    shutil.rmtree(old)
    store = new_store(tmp_path)
    assert quietly(store, paths).empty
    store.close()


FULL_DISK = """
import resource
store = FeatureStore(order["folder"], FakeExtractor())
store.extract(order["paths"][:3], batch_size=3, progress=False)
limit = (store.path / order.get("file", "rows.f16")).stat().st_size + 600
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
try:
    store.extract(order["paths"], batch_size=3, progress=False)
except OSError as error:
    say(error)
say(len(store), float(store.get(order["paths"][:3]).sum()))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.extract(order["paths"], batch_size=3, progress=False)
say(len(store))
"""


def test_a_full_disk_says_so_and_what_was_there_still_reads(tmp_path: Path, workers: Workers) -> None:
    paths = draw(tmp_path / "pictures", 97)
    workers.start(tmp_path / "features", paths, code=FULL_DISK)
    message, before, after, ended = workers.rest()
    assert ended == "ended [0]"
    assert "fake1.0.features: features cannot be written: disk full?" in message
    assert "What was there before is intact: make room and start again" in message
    stored, total = before.split()
    assert 3 <= int(stored) < 97
    assert float(total) == float(expected_features(paths[:3]).sum())
    assert after == "97"


@pytest.mark.parametrize("place", ["a file", "a folder"])
def test_other_things_in_its_place_are_named(tmp_path: Path, place: str) -> None:
    path = tmp_path / "features" / "mixed9-fake1.0.features"
    path.parent.mkdir()
    if place == "a file":
        path.write_bytes(b"theirs")
    else:
        (path / "index.sqlite").mkdir(parents=True)
    with pytest.raises(OSError, match=r"fake1\.0\.features: the feature store cannot be opened \("):
        new_store(tmp_path)
