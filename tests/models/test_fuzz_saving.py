"""Fuzzing of `.keras` files: whatever is changed in them, a loader answers, or refuses the file in one line.

A child process loads changed files until the time is over. No case may raise anything but a refusal that names the
file, take a minute of the processor, or bring the process above 2 GB. Run it alone for longer:

    ATTNCAP_FUZZ_SECONDS=3600 python -m pytest tests/models/test_fuzz_saving.py -n0 -s

A case is a seed: `python -m tests.models.test_fuzz_saving FOLDER 0 SEED` runs it again.
"""

from __future__ import annotations

import copy
import faulthandler
import json
import os
import random
import subprocess
import sys
import threading
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SECONDS = float(os.environ.get("ATTNCAP_FUZZ_SECONDS", "60"))
MEMORY = 2 << 30  # bytes
SECONDS_OF_A_CASE = 60.0  # of the processor: the machine may have other work
ROOT = Path(__file__).resolve().parents[2]
DEEP = "something nested deeply"  # stands in a configuration for it, until the text is made
MEMBERS = ("metadata.json", "config.json", "model.weights.h5")


@pytest.mark.slow
def test_changed_keras_files_are_loaded_or_refused(tmp_path: Path) -> None:
    seed = str(random.SystemRandom().randrange(2**31)) if SECONDS > 60 else "0"
    done = subprocess.run(
        [sys.executable, "-m", "tests.models.test_fuzz_saving", str(tmp_path), str(SECONDS), seed],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    print(done.stdout[-3000:])
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
    counted = json.loads(done.stdout.strip().splitlines()[-1])
    assert counted["refused"] > 10 and counted["loaded"] > 0, counted


# ---------------------------------------------------------------- the child process


def originals(folder: Path) -> dict[str, tuple[Path, Callable[[Path], Any]]]:
    """Small files of every kind, each with what loads it."""
    from attncap.attributes.classifier import load_classifier, save_classifier
    from attncap.features.extractor import FeatureExtractor
    from attncap.models.saving import load_captioner, save_captioner
    from attncap.models.show_and_tell import ShowAndTell
    from attncap.models.transformer_captioner import TransformerCaptioner
    from attncap.tokenizers import SPECIAL_TOKENS, WordTokenizer
    from attncap.training.config import TrainConfig
    from tests.attributes.test_classifier import classifier_of_arrays
    from tests.features.test_backbones import own, vit
    from tests.models.test_captioner import make_captioner

    tokenizer = WordTokenizer([*SPECIAL_TOKENS, "a", "dog", "runs"])
    sizes = {"embedding_units": 8, "hidden_units": 8}
    transformer = {"hidden_units": 8, "heads": 2, "feedforward_units": 8, "window": 4}
    models = {
        "attention": make_captioner(),
        "show_and_tell": ShowAndTell(tokenizer, (2, 3, 5), **sizes),
        "transformer": TransformerCaptioner(tokenizer, (2, 3, 5), **transformer),
        "inception": ShowAndTell(tokenizer, encoder=FeatureExtractor("mixed0", "random", 75), **sizes),
        "own_network": ShowAndTell(
            tokenizer, encoder=FeatureExtractor("grid", backbone=own(32), scaling="0..1"), **sizes
        ),
        "keras_hub": ShowAndTell(tokenizer, encoder=FeatureExtractor(backbone=vit(32), scaling="-1..1"), **sizes),
    }
    files: dict[str, tuple[Path, Callable[[Path], Any]]] = {}
    for name, model in models.items():
        save_captioner(model, folder / f"{name}.keras")
        files[name] = folder / f"{name}.keras", load_captioner
    save_classifier(classifier_of_arrays(), folder / "classifier.keras")
    files["classifier"] = folder / "classifier.keras", load_classifier
    files["start"] = folder / "show_and_tell.keras", lambda file: TrainConfig(start=str(file))
    return files


def odd_values(rng: random.Random) -> Any:
    """A value that has no place where it is put."""
    numbers = [0, -1, 1, 2, 7, 255, 2**16, 2**31, 2**63, -(2**63), 10**30, 0.5, -1e308, float("nan"), float("inf")]
    texts = ["", "a", "x" * 5000, "/etc/passwd", "..", "imagenet", "float64", "mixed_bfloat16", "\0", "\ud800", "ñ"]
    classes = ["Dense", "Lambda", "StringLookup", "TFSMLayer", "Sequential", "Functional", "InputLayer", "Conv2D"]
    modules = ["keras.layers", "keras", "os", "attncap.models.captioner", "builtins", "keras.models", "keras.utils"]
    ours = ["attncap>WordTokenizer", "attncap>FeatureExtractor", "attncap>ShowAndTell", "attncap>AttributeClassifier"]
    thing = {
        "module": rng.choice(modules),
        "class_name": rng.choice(classes + [name.partition(">")[2] for name in ours]),
        "config": {rng.choice(["units", "layers", "vocabulary", "filepath", "name", "dtype"]): rng.choice(numbers)},
        "registered_name": rng.choice([None, *ours, "Dense", 3]),
    }
    others = [None, True, False, [], {}, [[]], thing, [thing] * 3, [1] * 10_000, {"value": thing}, DEEP]
    return rng.choice([rng.choice(numbers), rng.choice(texts), rng.choice(others), rng.randrange(10**6)])


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (container, key) of everything inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from places(inner)


def changed_json(text: bytes, rng: random.Random) -> bytes:
    content = json.loads(text)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        every = list(places(content))
        if not every:
            break
        container, key = rng.choice(every)
        what = rng.randrange(6)
        if what < 3:
            container[key] = odd_values(rng)
        elif what == 3:
            del container[key]
        elif what == 4:  # something of another place
            other, at = rng.choice(every)
            if at in other if isinstance(other, dict) else at < len(other):
                container[key] = copy.deepcopy(other[at])
        elif isinstance(container, dict):
            container[rng.choice(["layers", "units", "tail", "encoder", "dtype", "name", "more"])] = odd_values(rng)
    depth = rng.choice([3, 200, 3000, 100_000])
    deep = "[" * depth + "]" * depth if rng.random() < 0.5 else '{"a":' * depth + "1" + "}" * depth
    return json.dumps(content).replace(f'"{DEEP}"', deep).encode()


def changed_bytes(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        at = rng.randrange(max(1, len(changed)))
        what = rng.randrange(5)
        if what == 0:
            changed[at : at + 1] = bytes([rng.randrange(256)])
        elif what == 1:
            size = rng.choice([2, 4, 8])
            changed[at : at + size] = rng.choice([b"\xff", b"\0", b"\x7f", b"\x01"]) * size
        elif what == 2:
            del changed[at : at + rng.choice([1, 8, 1000])]
        elif what == 3:
            changed[at:at] = rng.randbytes(rng.choice([1, 8, 1000]))
        else:
            begin = rng.randrange(max(1, len(changed)))
            changed[at : at + 16] = changed[begin : begin + 16]
    return bytes(changed[: rng.randrange(len(changed) + 1)] if rng.random() < 0.1 else changed)


def changed_file(file: Path, rng: random.Random) -> bytes:
    """The bytes of a file with something changed: in the archive, or in a member whose sums are then right again."""
    whole = file.read_bytes()
    what = rng.choice(["bytes", "config", "config", "config", "metadata", "weights", "archive"])
    if what == "bytes":
        return changed_bytes(whole, rng)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in MEMBERS}
    methods = dict.fromkeys(MEMBERS, zipfile.ZIP_STORED)
    if what == "config":
        members["config.json"] = changed_json(members["config.json"], rng)
    elif what == "metadata":
        members["metadata.json"] = rng.choice([changed_json, changed_bytes])(members["metadata.json"], rng)
    elif what == "weights":
        members["model.weights.h5"] = changed_bytes(members["model.weights.h5"], rng)
    else:
        name = rng.choice(MEMBERS)
        kind = rng.choice(["method", "missing", "more", "zeros"])
        if kind == "method":
            methods[name] = rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
        elif kind == "missing":
            del members[name]
        elif kind == "more":
            members[rng.choice(["../x", "assets/a.txt", "model.weights.npz", "config.json/"])] = b"x"
        else:
            members[name] = bytes(50_000_000)
            methods[name] = rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
    target = file.with_name("packed.zip")
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content, compress_type=methods.get(name, zipfile.ZIP_STORED))
    return target.read_bytes()


class Watch(threading.Thread):
    """Ends the process where a case takes too long or too much memory: then there is no exception to catch."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.case, self.since, self.highest = "start", time.process_time(), 0

    def run(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE")
        while True:
            time.sleep(0.02)
            used = int(Path("/proc/self/statm").read_text().split()[1]) * page
            self.highest = max(self.highest, used)
            took = time.process_time() - self.since
            if used > MEMORY or took > SECONDS_OF_A_CASE:
                print(f"{self.case}: {used:,} bytes, {took:.0f} s", flush=True)
                faulthandler.dump_traceback(all_threads=True)
                os._exit(3)


def run_case(files: dict[str, tuple[Path, Callable[[Path], Any]]], seed: int, folder: Path) -> str:
    """Load one changed file: "loaded", or "refused"; any other error goes through."""
    rng = random.Random(seed)
    name = rng.choice(sorted(files))
    original, load = files[name]
    case = folder / "case.keras"
    case.write_bytes(changed_file(original, rng))
    try:
        load(case)
    except (ValueError, FileNotFoundError) as error:
        message = str(error)
        assert type(error) in (ValueError, FileNotFoundError), f"{name}: {error!r}"
        assert "case.keras" in message and "\n" not in message and len(message) < 1500, f"{name}: {message}"
        return "refused"
    return "loaded"


def main(folder: Path, seconds: float, seed: int) -> int:
    import gc

    import keras

    faulthandler.enable()
    files = originals(folder)
    watch = Watch()
    watch.start()
    counted: Counter[str] = Counter()
    end = time.monotonic() + seconds
    failures = 0
    while True:
        watch.case, watch.since = f"case {seed}", time.process_time()
        (folder / "seed.txt").write_text(str(seed))
        try:
            counted[run_case(files, seed, folder)] += 1
        except Exception as error:
            failures += 1
            counted["failed"] += 1
            where = traceback.format_list(traceback.extract_tb(error.__traceback__)[-4:])
            print(f"case {seed}: {type(error).__name__}: {str(error)[:600]}\n{''.join(where)}", flush=True)
            if failures >= 20:
                break
        seed += 1
        if time.monotonic() > end:
            break
        if seed % 50 == 0:
            keras.backend.clear_session()  # what loading leaves behind is Keras's, and not of one file
            gc.collect()
        if seed % 500 == 0:
            print(json.dumps({**counted, "megabytes": watch.highest >> 20}), flush=True)
    print(json.dumps({**counted, "megabytes": watch.highest >> 20}), flush=True)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
