"""Files from strangers: cut off, changed, of another kind, of a later version, or made to do harm: refused by name.

What a file is loaded with here is what the commands load it with. Nothing in a file is run, and nothing wrong is taken
for right: a changed file is refused, or answers as before.
"""

from __future__ import annotations

import functools
import io
import json
import pickle
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from attncap.attributes.classifier import load_classifier, save_classifier
from attncap.attributes.evaluate import splits_of_run
from attncap.features.store import FeatureStore
from attncap.metrics.coco_json import read_predictions, write_predictions
from attncap.models.saving import load_captioner, save_captioner
from attncap.retrieval.index import DifferenceHash, ImageIndex
from attncap.training.config import TrainConfig
from attncap.training.manifest import check_or_write, same_settings
from attncap.training.run_folder import RunFolder, read_object
from tests.attributes.test_classifier import classifier_of_arrays
from tests.features.test_store import FakeExtractor, draw
from tests.models.test_captioner import make_captioner

STATE = {"weight_0": np.arange(30, dtype=np.float32).reshape(2, 3, 5), "optimizer_0": np.array(7, np.int64)}
HISTORY = [{"epoch": 0, "loss": 2.5, "val_bleu_4": 0.125}]
MANIFEST = {"data": "faces", "vocabulary_digest": "0a1b", "validation_digest": "4e5f", "encoder_fingerprint": "2c3d"}


def load_config(file: Path) -> Any:
    run = RunFolder(file.parent, resume=True)
    try:
        return asdict(same_settings(run, TrainConfig()))
    finally:
        run.close()


def load_state(file: Path) -> Any:
    run = RunFolder(file.parent, resume=True)
    try:
        arrays, history = run.load_state()
        return {name: values.tolist() for name, values in arrays.items()}, history
    finally:
        run.close()


def load_index(file: Path) -> Any:
    with ImageIndex.load(file) as index:
        return [(found.image_id, found.labels, found.distance) for found in index.query(Image.new("L", (9, 9)), k=9)]


def load_store(file: Path) -> Any:
    """All features of the store in a folder, by the paths of `draw`."""
    store = FeatureStore(file.parent.parent, FakeExtractor())
    try:
        paths = [str(file.parents[2] / "pictures" / f"{number}.png") for number in range(5)]
        return store.get(paths).tolist()
    finally:
        store.close()


def weights(model: keras.Model) -> Any:
    kept = [variable for variable in model.variables if variable.name != "seed_generator_state"]
    return [keras.ops.convert_to_numpy(variable).tolist() for variable in kept]


LOADERS: dict[str, Callable[[Path], Any]] = {
    "captioner.keras": lambda file: weights(load_captioner(file)),
    "classifier.keras": lambda file: weights(load_classifier(file)),
    "index.db": load_index,
    "store/features/mixed9-fake1.0.features/index.sqlite": load_store,
    "run/config.json": load_config,
    "run/manifest.json": lambda file: read_object(file),
    "run/state.npz": load_state,
    "run/split.csv": lambda file: splits_of_run(file.parent),
    "predictions.json": read_predictions,
}
WITH_SUMS = ["captioner.keras", "classifier.keras", "run/state.npz"]  # test_retrieval.py has the index


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    save_captioner(make_captioner(), folder / "captioner.keras")
    save_classifier(classifier_of_arrays(), folder / "classifier.keras")
    with ImageIndex(folder / "index.db", DifferenceHash(64)) as index:
        codes = np.random.default_rng(3).integers(0, 256, (7, 8)).astype(np.uint8)
        index.add_codes([f"{n}.png" for n in range(7)], [[f"label {n}"] for n in range(7)], codes)
    store = FeatureStore(folder / "store" / "features", FakeExtractor())
    store.extract(draw(folder / "store" / "pictures", 5), progress=False)
    store.close()
    run = RunFolder(folder / "run")
    run.write_json(run.config_file, asdict(TrainConfig()))
    run.write_json(run.manifest_file, MANIFEST)
    run.save_state(STATE, HISTORY)
    run.close()
    (folder / "run" / "split.csv").write_text("image_id,split\na.jpg,train\nb.jpg,val\n")
    write_predictions(folder / "predictions.json", {"1": "a dog", "2": "a cat"})
    return folder


@pytest.fixture
def place(originals: Path, tmp_path: Path) -> Path:
    """A copy of all files, to be spoilt."""
    # The store knows its pictures by their paths, so they stay where they are.
    for name in LOADERS:
        if not name.startswith("store"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(originals / name, tmp_path / name)
    return tmp_path


@functools.cache
def answer(originals: Path, name: str) -> Any:
    return LOADERS[name](originals / name)


def refused_by_name(name: str, file: Path, load: Callable[[Path], Any]) -> str:
    """The message of the refusal; fails when there is none."""
    with pytest.raises((ValueError, OSError)) as caught:
        load(file)
    message = str(caught.value)
    assert type(caught.value) in (ValueError, FileNotFoundError, OSError), repr(caught.value)
    assert file_is_named(name or file.name, message), message
    return message


def file_is_named(name: str, message: str) -> bool:
    return Path(name).name in message and "\n" not in message and len(message) < 1200


@pytest.mark.parametrize("name", [name for name in LOADERS if not name.startswith("store")])
def test_a_file_that_is_cut_off_is_refused(name: str, place: Path, originals: Path) -> None:
    whole = (place / name).read_bytes()
    for end in {0, 1, 9, len(whole) // 10, len(whole) // 2, 9 * len(whole) // 10, len(whole) - 3}:
        (place / name).write_bytes(whole[:end])
        if name == "run/split.csv" and end > 15:  # a table that is cut off is a shorter table
            continue
        refused_by_name(name, place / name, LOADERS[name])


@pytest.mark.parametrize("name", WITH_SUMS)
def test_a_byte_changed_anywhere_is_refused_or_changes_nothing(name: str, place: Path, originals: Path) -> None:
    whole = (place / name).read_bytes()
    places = [0, 35, *np.linspace(200, len(whole) - 1, 11).astype(int).tolist()]
    refused = 0
    for at in places:
        changed = bytearray(whole)
        changed[at] ^= 0x55
        (place / name).write_bytes(changed)
        try:
            found = LOADERS[name](place / name)
        except ValueError as error:
            refused += 1
            assert file_is_named(name, str(error)), error
        else:
            assert found == answer(originals, name), at
    assert refused >= 3


@pytest.mark.parametrize("name", [name for name in LOADERS if not name.startswith("store")])
def test_a_file_of_another_kind_is_refused(name: str, place: Path, originals: Path) -> None:
    for other in LOADERS:
        if other != name and (name, other) != ("run/manifest.json", "run/config.json"):  # both are any object
            shutil.copy(originals / other, place / name)
            refused_by_name(name, place / name, LOADERS[name])


def test_the_files_themselves_are_taken(place: Path, originals: Path) -> None:
    for name in LOADERS:
        file = (originals if name.startswith("store") else place) / name
        assert LOADERS[name](file) == answer(originals, name)


# ---------------------------------------------------------------- .keras files made to do harm


def repacked(file: Path, **members: Any) -> None:
    """The archive again, with members replaced or added: `config` and `metadata` as JSON, others by name."""
    with zipfile.ZipFile(file) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    for name, value in members.items():
        if name in ("config", "metadata"):
            contents[f"{name}.json"] = json.dumps(value).encode()
        else:
            contents[name] = value
    with zipfile.ZipFile(file, "w") as archive:
        for name, value in contents.items():
            archive.writestr(name, value)


def config_of(file: Path) -> dict[str, Any]:
    with zipfile.ZipFile(file) as archive:
        return json.loads(archive.read("config.json"))


def thing(module: str, name: str, config: Any = None, registered: Any = None) -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": config or {}, "registered_name": registered}


TOUCH = "touched-by-a-stranger"
HARM: dict[str, dict[str, Any]] = {
    "a Lambda": thing("keras.layers", "Lambda", {"function": {"class_name": "__lambda__", "config": {"code": "x"}}}),
    "a shell": thing("os", "system", f"touch {TOUCH}"),
    "a function of another module": thing("posix", "system", f"touch {TOUCH}", "function"),
    "a process": thing("subprocess", "Popen", {"args": ["touch", TOUCH]}),
    "a download": thing("keras.utils", "get_file", {"fname": TOUCH, "origin": f"file://{__file__}"}),
    "a layer that reads a file": thing("keras.layers", "StringLookup", {"vocabulary": __file__}),
    "a model that reads a folder": thing("keras.layers", "TFSMLayer", {"filepath": "."}),
    "a switch": thing("keras.config", "enable_unsafe_deserialization"),
    "a huge layer": thing("keras.layers", "Dense", {"units": 10**9}),
    "code": {"class_name": "__lambda__", "config": {"value": "4wEAAAA="}},
    "a class of ours by another name": thing("attncap._files", "replacing", {"file": TOUCH}, "attncap>replacing"),
    "a class of the package, unregistered": thing("attncap.training.train", "train"),
    "no text for a name": thing("keras", ["DTypePolicy"]),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("what", HARM)
@pytest.mark.parametrize("where", ["tokenizer", "dtype", "deep inside", "the whole"])
def test_what_a_keras_file_may_not_name(
    what: str, where: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = place / "captioner.keras"
    config = config_of(file)
    if where == "the whole":
        config = HARM[what]
    elif where == "deep inside":
        config["config"]["tokenizer"]["config"]["vocabulary"] = [[{"a": HARM[what]}]]
    else:
        config["config"][where] = HARM[what]
    repacked(file, config=config)
    message = refused_by_name("captioner.keras", file, load_captioner)
    assert "captioner" in message and not (tmp_path / TOUCH).exists()


def test_members_that_have_no_place_in_a_keras_file(place: Path) -> None:
    whole = (place / "captioner.keras").read_bytes()
    bomb = io.BytesIO()
    np.savez(bomb, x=np.array([pickle.loads], dtype=object))
    for member in ("../evil.txt", "/etc/evil", "assets/vocabulary.txt", "model.weights.npz"):
        (place / "captioner.keras").write_bytes(whole)
        repacked(place / "captioner.keras", **{member: bomb.getvalue()})
        message = refused_by_name("captioner.keras", place / "captioner.keras", load_captioner)
        assert repr(member) in message


def test_other_formats_of_keras_are_not_tried(place: Path) -> None:
    shutil.copy(place / "captioner.keras", place / "model.h5")
    assert "ends in .keras expected" in refused_by_name("", place / "model.h5", load_captioner)


@pytest.mark.parametrize("name", ["captioner.keras", "classifier.keras"])
def test_a_file_of_a_later_keras_or_package_is_refused(name: str, place: Path) -> None:
    whole = (place / name).read_bytes()
    repacked(place / name, metadata={"keras_version": "4.1.0", "date_saved": "2031-01-01@00:00:00"})
    message = refused_by_name(name, place / name, LOADERS[name])
    assert f"written by Keras 4.1.0, this is Keras {keras.__version__}: install that version" in message
    (place / name).write_bytes(whole)
    config = config_of(place / name)
    config["config"]["of_a_later_version"] = 7
    repacked(place / name, config=config)
    message = refused_by_name(name, place / name, LOADERS[name])
    assert "of_a_later_version" in message and "of another version" in message
    for metadata in ([], {"keras_version": None}, {"keras_version": "x.y"}, {}):  # nothing that is later
        (place / name).write_bytes(whole)
        repacked(place / name, metadata=metadata)
        if metadata == []:
            refused_by_name(name, place / name, LOADERS[name])
        else:
            LOADERS[name](place / name)


def test_sizes_that_the_weights_do_not_bear_out_take_no_memory(place: Path) -> None:
    whole = (place / "captioner.keras").read_bytes()
    for setting, size in (("hidden_units", 10**6), ("embedding_units", 10**9), ("feature_shape", [7, 11, 10**9])):
        (place / "captioner.keras").write_bytes(whole)
        config = config_of(place / "captioner.keras")
        config["config"][setting] = size
        repacked(place / "captioner.keras", config=config)
        message = refused_by_name("captioner.keras", place / "captioner.keras", load_captioner)
        assert "do not go with" in message and "bytes of weights" in message


def test_weights_of_other_shapes_are_refused(place: Path) -> None:
    config = config_of(place / "captioner.keras")
    config["config"]["hidden_units"] += 1
    repacked(place / "captioner.keras", config=config)
    refused_by_name("captioner.keras", place / "captioner.keras", load_captioner)


# ---------------------------------------------------------------- run folders and indexes made to do harm


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([], "an object expected, list found"),
        ({"epochs": "many"}, "epochs is of type int, got 'many'"),
        ({"epochs": True}, "epochs is of type int, got 'True'"),
        ({"layer": ["mixed8"]}, "layer is of type"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"of_a_later_version": 1}, "unknown settings of_a_later_version; known: "),
    ],
)
def test_settings_of_a_run_that_cannot_be(content: Any, why: str, place: Path) -> None:
    (place / "run" / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=why) as caught:
        load_config(place / "run" / "config.json")
    assert str(place / "run" / "config.json") in str(caught.value)


def test_a_state_that_asks_for_memory_or_says_nonsense_is_refused(place: Path) -> None:
    file = place / "run" / "state.npz"
    np.savez_compressed(file, history=np.array("[]"), weight_0=np.zeros(2**22))
    assert "is compressed" in refused_by_name("", file, load_state)
    header = (
        np.lib.format.magic(1, 0) + b"v\0" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (9**14,), }".ljust(118)
    )
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("weight_0.npy", header.replace(b"9**14", str(9**14).encode()))
    refused_by_name("", file, load_state)
    for history in ("7", "[7]", '[{"epoch": "x"}]', "[" * 100_000):
        np.savez(file, history=np.array(history))
        refused_by_name("", file, load_state)


def test_a_manifest_without_what_resuming_compares_is_no_match(place: Path) -> None:
    run = RunFolder(place / "run", resume=True)
    run.write_json(run.manifest_file, {"data": "faces"})
    with pytest.raises(ValueError, match=r"run: cannot resume: vocabulary_digest is 0a1b, the run began with None"):
        check_or_write(run, MANIFEST, resume=True)
    run.close()


def test_an_index_whose_tables_are_not_its_own_is_refused(place: Path) -> None:
    """A view can make SQLite compute without end, or read another table, where the package asks for entries."""
    whole = (place / "index.db").read_bytes()
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS id, 'a' AS image_id, "
    for statements in (
        (
            "DROP TABLE entries",
            f"CREATE VIEW entries AS {endless} '[]' AS labels, x'00' AS code, 0 AS crc FROM n",
        ),
        ("CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM entries; END",),
        ("ALTER TABLE entries ADD COLUMN more TEXT",),
        ("CREATE TABLE others (a)",),
    ):
        (place / "index.db").write_bytes(whole)
        with sqlite3.connect(place / "index.db") as opened:
            for statement in statements:
                opened.execute(statement)
        opened.close()
        assert "tables" in refused_by_name("index.db", place / "index.db", load_index)


def test_an_index_of_a_later_version_is_refused(place: Path) -> None:
    with sqlite3.connect(place / "index.db") as opened:
        header = json.loads(opened.execute("SELECT value FROM about WHERE name = 'header'").fetchone()[0])
        opened.execute("UPDATE about SET value = ? WHERE name = 'header'", (json.dumps({**header, "version": 99}),))
    opened.close()
    message = refused_by_name("index.db", place / "index.db", load_index)
    assert "an image index of version 99, 1 expected: build it anew" in message


# ---------------------------------------------------------------- feature stores


def spoilt_store(originals: Path, tmp_path: Path, contents: bytes) -> Path:
    file = tmp_path / "features" / "mixed9-fake1.0.features" / "index.sqlite"
    shutil.rmtree(file.parent, ignore_errors=True)
    file.parent.mkdir(parents=True)
    file.write_bytes(contents)
    shutil.copyfile(originals / "store/features/mixed9-fake1.0.features/rows.f16", file.with_name("rows.f16"))
    return file


def features_of(file: Path, originals: Path) -> Any:
    store = FeatureStore(file.parents[1], FakeExtractor())
    try:
        return store.get([str(originals / "store" / "pictures" / f"{number}.png") for number in range(5)]).tolist()
    finally:
        store.close()


def test_a_byte_changed_anywhere_in_a_store_kills_no_process_and_changes_no_feature(
    originals: Path, tmp_path: Path
) -> None:
    store = originals / "store/features/mixed9-fake1.0.features/index.sqlite"
    rows = store.with_name("rows.f16").read_bytes()
    whole, truth = store.read_bytes() + rows, features_of(store, originals)
    used = [at for at in range(len(whole)) if whole[at]]
    random = np.random.default_rng(7)
    outcomes = {"refused": 0, "not found": 0, "same": 0}
    for at in random.choice(used, 250, replace=False):
        changed = bytearray(whole)
        changed[at] ^= 1 << int(random.integers(8))
        file = spoilt_store(originals, tmp_path, bytes(changed[: -len(rows)]))
        file.with_name("rows.f16").write_bytes(changed[-len(rows) :])
        try:
            assert features_of(file, originals) == truth, at
            outcomes["same"] += 1
        except (ValueError, OSError) as error:
            assert str(error).count("mixed9-fake1.0.features: ") == 1 and "\n" not in str(error)
            outcomes["refused"] += 1
        except KeyError as error:  # a picture that is not known is computed again
            assert "mixed9-fake1.0.features; call extract first" in str(error)
            outcomes["not found"] += 1
    assert outcomes["refused"] > 30 and outcomes["same"] > 30, outcomes


def test_other_files_in_the_place_of_a_store_are_refused(originals: Path, tmp_path: Path) -> None:
    for name in LOADERS:
        if not name.startswith("store"):
            file = spoilt_store(originals, tmp_path, (originals / name).read_bytes())
            with pytest.raises(ValueError, match=r"mixed9-fake1\.0\.features: .*: delete it to start anew"):
                features_of(file, originals)
    whole = (originals / "store/features/mixed9-fake1.0.features/index.sqlite").read_bytes()
    for end in (1, 100, 4096, 8191, len(whole) // 2):
        file = spoilt_store(originals, tmp_path, whole[:end])
        with pytest.raises((ValueError, OSError), match=r"mixed9-fake1\.0\.features: "):
            features_of(file, originals)
