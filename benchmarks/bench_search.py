"""Speed of image search: this package, scikit-learn, faiss and comparing all pairs, on the same codes, in one run.

    python benchmarks/bench_search.py --entries 100000 --dimensions 1280 2048 --json search.json

One query at a time on one core, as in an application. Processor time of the thread is measured, so that other work on
the machine matters less; every tool answers each query in turn. "all pairs" is how imagededup compares hashes: a Python
loop over Hamming distances of integers. Hashes are random. Embeddings are random around a mean, with a spectrum that
decays like that of pooled `mixed8` features of photographs (--decay; 0.55 was measured), or your own from a .npy file
(--embeddings). The recall of the approximate index is the share of the exact k nearest distances that it reaches.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core for each tool; set before NumPy is imported
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from attncap.metrics.coco_json import write_json
from attncap.retrieval.hnsw import NeighborGraph
from attncap.retrieval.search import CosineSearch, HashSearch

Runs = dict[str, Callable[[int], Any]]


def embeddings(entries: int, dimensions: int, decay: float, rng: np.random.Generator) -> np.ndarray:
    """Draw unit vectors around a common mean; the i-th direction has standard deviation i^-decay."""
    vectors = rng.standard_normal((entries, dimensions), np.float32)
    scales = np.arange(1, dimensions + 1) ** -decay
    vectors *= scales.astype(np.float32)
    if decay:
        vectors[:, 0] += 1.8 * np.linalg.norm(scales)  # features after a rectifier share a direction
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def hash_runs(codes: np.ndarray, queries: np.ndarray, k: int) -> tuple[Runs, dict[str, float]]:
    """Return the functions to time on hashes, by name, the recall of the approximate index and its build seconds."""
    search = HashSearch(codes)
    runs: Runs = {"attncap, exact": lambda n: search.nearest(queries[n : n + 1], k)}
    integers = [int.from_bytes(code.tobytes()) for code in codes]
    asked = [int.from_bytes(code.tobytes()) for code in queries]
    runs["all pairs in Python"] = lambda n: sorted((asked[n] ^ one).bit_count() for one in integers)[:k]
    bits = np.unpackbits(codes, axis=1)
    try:
        from sklearn.neighbors import NearestNeighbors
    except ImportError:
        print("scikit-learn is not installed: left out")
    else:
        tree = NearestNeighbors(metric="hamming", algorithm="brute", n_jobs=1).fit(bits.astype(bool))
        asked_bits = np.unpackbits(queries, axis=1).astype(bool)
        runs["scikit-learn, exact"] = lambda n: tree.kneighbors(asked_bits[n : n + 1], k)
    return runs, _graph(search, codes, queries, k, runs)


def embedding_runs(vectors: np.ndarray, queries: np.ndarray, k: int) -> tuple[Runs, dict[str, float]]:
    """Return the functions to time on embeddings, by name, recall and build seconds of the approximate index."""
    search = CosineSearch(vectors)
    runs: Runs = {
        "attncap, exact": lambda n: search.nearest(queries[n : n + 1], k),
        "one matrix product": lambda n: np.argpartition(-(vectors @ queries[n]), k)[:k],
    }
    try:
        from sklearn.neighbors import NearestNeighbors
    except ImportError:
        print("scikit-learn is not installed: left out")
    else:
        brute = NearestNeighbors(metric="cosine", algorithm="brute", n_jobs=1).fit(vectors)
        runs["scikit-learn, exact"] = lambda n: brute.kneighbors(queries[n : n + 1], k)
    return runs, _graph(search, vectors, queries, k, runs)


def _graph(search: Any, codes: np.ndarray, queries: np.ndarray, k: int, runs: Runs) -> dict[str, float]:
    if not GRAPH:
        return {}
    try:
        start = time.thread_time()
        graph = NeighborGraph.build(search, codes)
    except RuntimeError as error:
        print(error)
        return {}
    built = time.thread_time() - start
    exact, found = search.nearest(queries, k)[1], graph.nearest(queries, k)[1]
    runs["attncap, approximate"] = lambda n: graph.nearest(queries[n : n + 1], k)
    return {"recall": float((found <= exact[:, -1:] + 1e-6).mean()), "build": built}


def measure(name: str, runs: Runs, extra: dict[str, float], queries: int, slow: int) -> dict[str, Any]:
    """Time each function on each query; print medians, the slowest answer, and ratios to the exact search."""
    milliseconds: dict[str, list[float]] = {run: [] for run in runs}
    for n in range(queries):
        for run, answer in runs.items():
            if n < slow or run.startswith("attncap"):
                start = time.thread_time()
                answer(n)
                milliseconds[run].append(1000 * (time.thread_time() - start))
    print(f"{name}: milliseconds a query, median of {queries} ({slow} of the others'), and the slowest")
    medians = {run: statistics.median(times) for run, times in milliseconds.items()}
    for run, median in medians.items():
        ratio = median / medians["attncap, exact"]
        print(f"  {run:22}{median:10.3f}{max(milliseconds[run]):10.3f}{ratio:9.1f} times the exact search")
    if extra:
        print(f"  recall of the approximate index {extra['recall']:.4f}; built in {extra['build']:.0f} s")
    return {"median": medians, "slowest": {run: max(times) for run, times in milliseconds.items()}, **extra}


GRAPH = True


def main() -> None:
    """Run the benchmark: print times and, with --json, write them to a file."""
    global GRAPH
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--bits", type=int, nargs="*", default=[64, 256], help="multiples of 8")
    parser.add_argument("--dimensions", type=int, nargs="*", default=[1280])
    parser.add_argument("--decay", type=float, default=0.55, help="decay of the spectrum of random embeddings")
    parser.add_argument("--embeddings", metavar="NPY", help="your embeddings, (N, D); the last rows are the queries")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--slow-queries", type=int, default=10, help="queries for the slow tools")
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument(
        "--no-graph", action="store_true", help="leave out the approximate index, which takes minutes to build"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="PATH", help="file to write the results to")
    settings = parser.parse_args()
    GRAPH = not settings.no_graph
    rng = np.random.default_rng(settings.seed)
    queries, slow, k = settings.queries, min(settings.slow_queries, settings.queries), settings.k
    print(f"{settings.entries:,} entries, {k} nearest")
    results = {}

    def run(name: str, made: tuple[Runs, dict[str, float]]) -> None:
        results[name] = measure(name, *made, queries, slow)

    for bits in settings.bits:
        codes = rng.integers(0, 256, (settings.entries, bits // 8), dtype=np.uint8)
        flips = np.packbits(rng.random((queries, bits)) < 0.1, axis=1)  # changed copies: one bit in ten
        run(f"hash, {bits} bits", hash_runs(codes, codes[:queries] ^ flips, k))
    kinds = {f"{d} wide": (d, settings.decay) for d in settings.dimensions}
    for name, (dimensions, decay) in kinds.items():
        vectors = embeddings(settings.entries + queries, dimensions, decay, rng)
        run(f"embedding, {name}", embedding_runs(vectors[:-queries], vectors[-queries:], k))
    if settings.embeddings:
        vectors = np.load(settings.embeddings).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors[-settings.entries - queries :]
        name = f"embedding, {len(vectors) - queries:,} of your own, {vectors.shape[1]} wide"
        run(name, embedding_runs(vectors[:-queries], vectors[-queries:], k))
    if settings.json:
        machine = f"{platform.machine()}, {os.cpu_count()} cores, one used; Python {platform.python_version()}"
        content = {"settings": vars(settings), "machine": machine, "milliseconds": results}
        write_json(settings.json, content, indent=2)


if __name__ == "__main__":
    main()
