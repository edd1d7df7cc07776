"""Time and memory as the number of images grows: the feature store, the input pipeline, training, search.

    python benchmarks/bench_growth.py --sizes 1000 10000 100000 --json growth.json

Everything around the network is measured: images are tiny JPEG files that all differ, features are random, and each
image has five captions of made-up words. Each part runs at each size in its own process, so that its peak of memory is
its own. "peak" is the largest memory of the process (`getrusage`), including pages of the mapped store, which the
system can take back; "own" excludes these pages (Linux only) and what the process had after its imports. Training takes
a fixed number of steps, the batch with the longest captions first; with --full it has the sizes of `train`, including
InceptionV3, and ends with reading all features, validation and saving.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from drawn import DrawnEncoder, captions, tiny_pictures, vocabulary
from timing import arguments, finish

PARTS = ("store", "pipeline", "training", "search")
FULL_SHAPE = (8, 8, 2048)


class OwnMemory(threading.Thread):
    """Track the memory of the process without mapped files, in MB; 0 if the system does not report it."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.most = self.now()
        self.start()

    def now(self) -> float:
        try:
            lines = Path("/proc/self/status").read_text().splitlines()
        except OSError:
            return 0.0
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), 0.0)

    def run(self) -> None:
        while True:
            self.most = max(self.most, self.now())
            time.sleep(0.02)


def peak_memory() -> float:
    """Return the largest memory that this process had, in MB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1024 if sys.platform != "darwin" else 1024**2)


# -- the parts, each in its own process --------------------------------------------------------------------------


def paths_of(folder: Path, pictures: int) -> list[str]:
    return [str(folder / "pictures" / f"{n:07d}.jpg") for n in range(pictures)]


def open_store(folder: Path, pictures: int, settings: argparse.Namespace) -> Any:
    from attncap.features.store import FeatureStore

    full = pictures == settings.full
    encoder = DrawnEncoder(FULL_SHAPE if full else tuple(settings.feature_shape), settings.seed)
    return FeatureStore(folder / f"store{pictures}", encoder)


def store_part(folder: Path, pictures: int, settings: argparse.Namespace) -> dict[str, float]:
    store = open_store(folder, pictures, settings)
    paths = paths_of(folder, pictures)
    memory, start = OwnMemory(), time.perf_counter()
    rejects = store.extract(paths, progress=False)
    seconds = time.perf_counter() - start
    assert rejects.empty and len(store) == pictures
    start = time.perf_counter()
    store.extract(paths, progress=False)  # everything is stored already: the time of a second run
    again = time.perf_counter() - start
    disk = sum(file.stat().st_blocks * 512 for file in store.path.iterdir()) / 1024**2
    return {"seconds": seconds, "again": again, "disk": disk, "own": memory.most - memory.before}


def training_batches(folder: Path, pictures: int, settings: argparse.Namespace) -> tuple[Any, Any, float]:
    """Return batches as `train` makes them, the store, and the seconds of tokenizing."""
    from attncap.tokenizers import WordTokenizer
    from attncap.training.batches import CaptionBatches

    store = open_store(folder, pictures, settings)
    image_ids = [str(n) for n in range(pictures)]
    paths = dict(zip(image_ids, paths_of(folder, pictures), strict=True))
    texts = dict(zip(image_ids, captions(pictures, 5, settings.vocabulary - 4, settings.seed), strict=True))
    tokenizer = WordTokenizer(vocabulary(settings.vocabulary))
    start = time.perf_counter()
    return CaptionBatches(store.get, paths, texts, tokenizer, seed=settings.seed), store, time.perf_counter() - start


def pipeline_part(folder: Path, pictures: int, settings: argparse.Namespace) -> dict[str, float]:
    import tensorflow as tf

    tf.constant(0.0)  # load the parts that TensorFlow loads on first use
    memory = OwnMemory()
    batches, _, tokenizing = training_batches(folder, pictures, settings)
    start = time.perf_counter()
    seen = sum(int(targets.shape[0]) for _, targets in batches.for_fit())
    seconds = time.perf_counter() - start
    assert seen == pictures
    return {"seconds": seconds, "start": tokenizing, "own": memory.most - memory.before}


def training_part(folder: Path, pictures: int, settings: argparse.Namespace) -> dict[str, float]:
    import keras
    import pandas as pd
    import tensorflow as tf

    from attncap.decoding.decoder import Decoder
    from attncap.decoding.predict import decode_stored
    from attncap.features.extractor import FeatureExtractor, best_dtype_policy
    from attncap.models.attention_captioner import AttentionCaptioner
    from attncap.models.losses import MaskedCrossentropy
    from attncap.models.saving import save_captioner
    from attncap.tokenizers import WordTokenizer
    from attncap.training.config import TrainConfig
    from attncap.training.fit import optimizer_of

    tf.constant(0.0)
    keras.utils.set_random_seed(settings.seed)
    full = pictures == settings.full
    memory = OwnMemory()
    batches, store, tokenizing = training_batches(folder, pictures, settings)
    order = batches._batches
    longest = max(order, key=lambda ids: max(len(row) for image_id in ids for row in batches._chosen[image_id]))
    order.insert(0, order.pop(order.index(longest)))
    config = TrainConfig(epochs=12)
    sizes = (config.embedding_units, config.projection_units, config.attention_units) if full else (64, 64, 32)
    captioner = AttentionCaptioner(
        WordTokenizer(vocabulary(settings.vocabulary)),
        store.feature_shape,
        FeatureExtractor("mixed10", "random") if full else None,
        embedding_units=sizes[0],
        hidden_units=sizes[0],
        projection_units=sizes[1],
        attention_units=sizes[2],
        attention_penalty=config.attention_penalty,
        dtype=best_dtype_policy(),
    )
    captioner.compile(optimizer_of(config, len(batches)), loss=MaskedCrossentropy(), jit_compile=False)
    captioner.fit(batches.for_fit().take(1), shuffle=False, verbose=0)  # traces the graph, on the longest captions
    start = time.perf_counter()
    captioner.fit(batches.for_fit().take(settings.steps), shuffle=False, verbose=0)
    seconds = time.perf_counter() - start
    if full:
        for n in range(len(batches)):  # read as in one epoch: every page of the store is then in memory
            batches.features(n)
        few = pd.DataFrame({"image_id": range(64), "path": paths_of(folder, pictures)[:64]}).astype(str)
        decode_stored(Decoder(captioner, beam_width=1), store, few)
        save_captioner(captioner, folder / "best.keras")
    return {"seconds": seconds, "start": tokenizing, "own": memory.most - memory.before}


def search_part(folder: Path, pictures: int, settings: argparse.Namespace) -> dict[str, float]:
    from attncap.retrieval.index import DifferenceHash, ImageIndex
    from attncap.retrieval.search import CosineSearch

    rng = np.random.default_rng(settings.seed)
    memory = OwnMemory()
    codes = rng.integers(0, 256, (pictures, 8), dtype=np.uint8)
    image_ids = [str(n) for n in range(pictures)]
    file = folder / f"index{pictures}-{os.getpid()}.db"  # a new file in each round
    start = time.perf_counter()
    with ImageIndex(file, DifferenceHash(64)) as index:
        for at in range(0, pictures, 1000):
            part = slice(at, at + 1000)
            index.add_codes(image_ids[part], [["a label"]] * len(image_ids[part]), codes[part])
        adding = time.perf_counter() - start
        index.nearest(codes[:1], 10)  # read the codes into memory
        start = time.perf_counter()
        for n in range(settings.queries):
            rows, _ = index.nearest(codes[n : n + 1], 10)
            assert rows[0, 0] == n
        hashes = (time.perf_counter() - start) / settings.queries
    vectors = rng.standard_normal((pictures, settings.dimensions), np.float32)
    vectors *= (np.arange(1, settings.dimensions + 1) ** -0.55).astype(np.float32)
    search = CosineSearch(vectors)
    queries = vectors[: settings.queries].copy()
    del vectors
    search.nearest(queries[:1], 10)  # compute the leading directions
    start = time.perf_counter()
    for n in range(settings.queries):
        rows, _ = search.nearest(queries[n : n + 1], 10)
        assert rows[0, 0] == n
    embeddings = (time.perf_counter() - start) / settings.queries
    return {
        "seconds": adding,
        "hash_milliseconds": 1000 * hashes,
        "embedding_milliseconds": 1000 * embeddings,
        "own": memory.most - memory.before,
    }


# -- the whole ---------------------------------------------------------------------------------------------------------


def in_own_process(part: str, pictures: int, folder: Path, argv: Sequence[str]) -> dict[str, float]:
    """Run a part of this script in a new process and return what it measured."""
    command = [
        sys.executable,
        __file__,
        *argv,
        "--part",
        part,
        "--part-pictures",
        str(pictures),
        "--folder",
        str(folder),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{part} at {pictures:,} images ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def show(part: str, pictures: int, found: dict[str, float]) -> None:
    extra = ""
    if part == "store":
        rate = pictures / found["seconds"]
        extra = f"{rate:,.0f} images/s; {found['disk']:,.0f} MB on disk; again {found['again']:.2f} s"
    elif part == "pipeline":
        extra = f"{pictures / found['seconds']:,.0f} images/s after {found['start']:.1f} s of tokenizing"
    elif part == "training":
        extra = f"after {found['start']:.1f} s of tokenizing"
    elif part == "search":
        extra = f"a query: hash {found['hash_milliseconds']:.2f} ms, embedding {found['embedding_milliseconds']:.2f} ms"
    memory = f"{found['peak']:8,.0f} MB peak{found['own']:8,.0f} MB own"
    print(f"  {part:9}{pictures:9,}{found['seconds']:9.2f} s{memory}  {extra}", flush=True)


def growth_of(results: dict[str, dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Return how much each part grows from its smallest to its largest size: ratios of images and seconds, memory."""
    growth = {}
    for part, sizes in results.items():
        few, many = min(sizes, key=int), max(sizes, key=int)
        if few != many:
            added = 1024**2 * (sizes[many]["own"] - sizes[few]["own"])
            growth[part] = {
                "images": int(many) / int(few),
                "seconds": sizes[many]["seconds"] / sizes[few]["seconds"],
                "own_bytes_per_image": added / (int(many) - int(few)),
            }
    return growth


def main(argv: Sequence[str] | None = None) -> dict:
    """Run the benchmark: print times and, with --json, write them to a file."""
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000], help="numbers of images")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--full", type=int, default=8000, help="images of training at full sizes, 2 GB on disk; 0: none"
    )
    parser.add_argument("--steps", type=int, default=20, help="training steps")
    parser.add_argument(
        "--feature-shape", type=int, nargs=3, default=[4, 4, 128], help="small: 100,000 images take 1 GB"
    )
    parser.add_argument("--vocabulary", type=int, default=5000)
    parser.add_argument("--dimensions", type=int, default=512, help="size of embeddings")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--folder", help="folder for temporary files (default: that of the system)")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--part-pictures", type=int, help=argparse.SUPPRESS)
    settings = parser.parse_args(argv)
    if settings.part:
        work = {"store": store_part, "pipeline": pipeline_part, "training": training_part, "search": search_part}
        found = work[settings.part](Path(settings.folder), settings.part_pictures, settings)
        print(json.dumps({**found, "peak": peak_memory()}), flush=True)
        return found

    if settings.full in settings.sizes:
        raise ValueError(f"--full {settings.full} is one of --sizes: stores of two shapes would have one name")
    given = list(sys.argv[1:] if argv is None else argv)
    results: dict[str, dict[str, dict[str, Any]]] = {part: {} for part in settings.parts}
    print("Growth: seconds and memory of each part, in a process of its own")
    with tempfile.TemporaryDirectory(prefix="attncap-bench-", dir=settings.folder) as name:
        folder = Path(name)
        (folder / "pictures").mkdir()
        tiny_pictures(folder / "pictures", max([settings.full, *settings.sizes]))
        for pictures in settings.sizes:
            # The parts pipeline and training read what the part store has written.
            parts = [
                p
                for p in PARTS
                if p in settings.parts or (p == "store" and {"pipeline", "training"} & set(settings.parts))
            ]
            for part in parts:
                rounds = []
                for _ in range(settings.repeats):
                    if part == "store":  # start empty: stored features are not computed again
                        shutil.rmtree(folder / f"store{pictures}", ignore_errors=True)
                    rounds.append(in_own_process(part, pictures, folder, given))
                found = {key: float(np.median([one[key] for one in rounds])) for key in rounds[0]}
                if part in settings.parts:
                    results[part][str(pictures)] = found
                    show(part, pictures, found)
            shutil.rmtree(folder / f"store{pictures}", ignore_errors=True)
        full = {}
        if settings.full:
            in_own_process("store", settings.full, folder, given)
            full = in_own_process("training", settings.full, folder, given)
            print(
                f"  training at full sizes, {settings.full:,} images, {settings.steps} steps of 160 captions: "
                f"{full['peak']:,.0f} MB peak, {full['own']:,.0f} MB own, {full['seconds']:.1f} s"
            )
    growth = growth_of(results)
    for part, found in growth.items():
        print(
            f"  {part}: {found['images']:.0f} times the images, {found['seconds']:.1f} times the seconds, "
            f"{found['own_bytes_per_image']:,.0f} bytes of own memory per image"
        )
    return finish(settings, results=results, full=full, growth=growth)


if __name__ == "__main__":
    main()
