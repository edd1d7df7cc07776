"""Measure what docs/scale.md scales: bytes a row of the tables, of token ids, of the store; inserts and queries.

    python scripts/measure_scale.py tables batches index store --rows 1000000

Each part is a process of its own, on made-up rows; nothing is read but what it writes into a temporary folder. Seconds
are processor time, so that a busy machine does not show.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
WORDS = 5000
SHAPE = (1, 1, 4)  # features so small that what a picture costs besides them shows


def resident() -> int:
    """Memory of this process that is no file's, bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def names(number: int) -> list[str]:
    return [f"COCO_train2014_{n:012d}.jpg" for n in range(number)]


def say(what: str, value: float, unit: str) -> None:
    print(f"  {what:62}{value:12,.1f} {unit}", flush=True)


def tables(rows: int, folder: Path) -> None:
    """A CSV of `rows` captions of rows / 5 pictures, read as `attncap train` reads it."""
    import pandas as pd
    from drawn import captions

    from attncap.data.load import load_table

    pictures = rows // 5
    texts = captions(pictures, 5, WORDS - 4, 0)
    with open(folder / "captions.csv", "w", encoding="utf-8") as file:
        file.write("file,caption\n")
        for name, five in zip(names(pictures), texts, strict=True):
            file.writelines(f"{name},{text}\n" for text in five)
    say("bytes of a row of the CSV file", (folder / "captions.csv").stat().st_size / rows, "bytes")
    del texts, five
    pd.Series(["a"]).str.len()  # loads what pandas loads late
    before, start = resident(), time.process_time()
    data = load_table(folder / "captions.csv", folder)
    say("reading and checking", (time.process_time() - start) * 1e6 / rows, "s a million captions")
    kept = resident() - before
    say("memory after reading, all tables", kept / rows, "bytes a caption")
    for name in ("captions", "pictures"):
        frame = getattr(data, name)
        say(f"{name} table, as pandas counts it", frame.memory_usage(deep=True).sum() / len(frame), "bytes a row")


def batches(rows: int, folder: Path) -> None:
    """Token ids of `rows` captions, as a training holds them."""
    from drawn import captions, vocabulary

    from attncap.tokenizers import WordTokenizer
    from attncap.training.batches import CaptionBatches

    pictures = rows // 5
    ids = names(pictures)
    texts = dict(zip(ids, captions(pictures, 5, WORDS - 4, 0), strict=True))
    tokenizer = WordTokenizer(vocabulary(WORDS))
    paths = {name: f"photographs/{name}" for name in ids}
    before, start = resident(), time.process_time()
    made = CaptionBatches(lambda asked: np.zeros((len(asked), *SHAPE), np.float16), paths, texts, tokenizer)
    say("tokenizing and the first order", (time.process_time() - start) * 1e6 / rows, "s a million captions")
    say("memory of the batches beside the texts", (resident() - before) / rows, "bytes a caption")
    assert len(made) == -(-pictures // 32)


def index(rows: int, folder: Path) -> None:
    """An index of `rows` hashes of 64 bits in SQLite, and a query."""
    from attncap.retrieval.index import DifferenceHash, ImageIndex
    from attncap.retrieval.search import HashSearch

    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (rows, 8), dtype=np.uint8)
    ids, file = names(rows), folder / "index.db"
    start = time.process_time()
    with ImageIndex(file, DifferenceHash(64)) as made:
        for at in range(0, rows, 1000):
            part = slice(at, at + 1000)
            made.add_codes(ids[part], [["a label"]] * len(ids[part]), codes[part])
    say("inserting, 1,000 a transaction", time.process_time() - start, "s")
    say("index file", file.stat().st_size / rows, "bytes an entry")
    before, start = resident(), time.process_time()
    with ImageIndex.load(file) as made:
        made.nearest(codes[:1], 10)
        say("opening, and the first query, which reads all codes", time.process_time() - start, "s")
        say("memory then", (resident() - before) / rows, "bytes an entry")
        spent = [query(made.nearest, codes[n : n + 1]) for n in range(20)]
        say("a query, the 10 nearest, median", 1000 * float(np.median(spent)), "ms")
    many = rng.integers(0, 256, (10 * rows, 8), dtype=np.uint8)
    search = HashSearch(many)
    spent = [query(search.nearest, many[n : n + 1]) for n in range(10)]
    say(f"a query of {10 * rows:,} hashes in memory, median", 1000 * float(np.median(spent)), "ms")


def query(nearest: Any, code: np.ndarray) -> float:
    start = time.process_time()
    nearest(code, 10)
    return time.process_time() - start


def store(rows: int, folder: Path) -> None:
    """A store of `rows` pictures with features of 8 bytes, written without decoding; then opened in a new process."""
    from drawn import DrawnEncoder

    from attncap.features.pipeline import Decoded
    from attncap.features.store import FeatureStore

    made = FeatureStore(folder, DrawnEncoder(SHAPE))
    features = np.ones((1000, *SHAPE), np.float16)
    start = time.process_time()
    for at in range(0, rows, 1000):
        batch = [
            Decoded(f"photographs/{name}", [1, 2], n.to_bytes(8, "big") * 2, None)
            for n, name in enumerate(names_from(at, 1000), at)
        ]
        made._write(batch, batch, features)
    say("writing, 1,000 a transaction", time.process_time() - start, "s")
    say(
        "of the store's file",
        sum(file.stat().st_blocks for file in made.path.iterdir()) * 512 / rows,
        "bytes a picture",
    )
    code = (
        "import sys, time; sys.path.insert(0, 'benchmarks'); from drawn import DrawnEncoder; "
        "from attncap.features.store import FeatureStore; start = time.process_time(); "
        f"FeatureStore({str(folder)!r}, DrawnEncoder({SHAPE})); print(time.process_time() - start)"
    )
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True, check=True)
    say("opening", float(done.stdout), "s")


def names_from(start: int, number: int) -> list[str]:
    return [f"COCO_train2014_{n:012d}.jpg" for n in range(start, start + number)]


PARTS = {"tables": tables, "batches": batches, "index": index, "store": store}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=list(PARTS))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", help="for temporary files; default the system's")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for part in options.parts:
        if options.inside:
            PARTS[part](options.rows, Path(options.folder))
            return
        print(f"{part}, {options.rows:,} rows", flush=True)
        with tempfile.TemporaryDirectory(prefix="attncap-scale-", dir=options.folder) as folder:
            command = [sys.executable, __file__, part, "--rows", str(options.rows), "--folder", folder, "--inside"]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
