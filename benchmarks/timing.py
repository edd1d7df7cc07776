"""Shared parts of the benchmarks: interleaved rounds, medians, the machine, its rate of matrix products, JSON."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from attncap.metrics.coco_json import write_json

BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16", "amx_tile")


def arguments(description: str | None, repeats: int) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=repeats, help="rounds; the median is reported")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="PATH", help="file to write the results to")
    return parser


def interleaved(runs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each run in each round; a round runs each once, so that a slow moment affects all."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(times) for name, times in seconds.items()}


def hardware() -> dict[str, Any]:
    """Return the processor, its instructions for bfloat16, its cores, the load, and versions."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    flags = set(next((line for line in text.splitlines() if line.startswith("flags")), "").split())
    model = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "")
    found: dict[str, Any] = {
        "processor": model or platform.processor() or platform.machine(),
        "bfloat16": [flag for flag in BFLOAT16_FLAGS if flag in flags],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": os.getloadavg()[0],  # other work; at the end of a benchmark also its own
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    return found


def hardware_line(found: Mapping[str, Any]) -> str:
    native = ", ".join(found["bfloat16"]) or "none"
    return f"{found['processor']}, {found['cores']} cores, native bfloat16: {native}; load {found['load']:.1f}"


def matrix_product(size: int, dtype: str, times: int = 1) -> tuple[Callable[[], Any], float]:
    """Return a function that multiplies two square matrices `times` times, and its floating-point operations."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    left, right = (tf.cast(rng.standard_normal((size, size), np.float32), dtype) for _ in range(2))

    def run() -> Any:
        return [tf.linalg.matmul(left, right) for _ in range(times)][-1].numpy()

    return run, 2.0 * size**3 * times


def ceiling_runs(size: int, times: int = 4) -> tuple[dict[str, Callable[[], Any]], dict[str, float]]:
    """Return matrix products in float32 and bfloat16, to time between other runs, and their operations."""
    runs, operations = {}, {}
    for dtype in ("float32", "bfloat16"):
        name = f"matrix products, {dtype}"
        runs[name], operations[name] = matrix_product(size, dtype, times)
        runs[name]()
    return runs, operations


def table(rows: Mapping[str, float], unit: str, rival: str | None = None, digits: int = 1) -> dict[str, float]:
    """Print one line per rate with its ratio to the rate of the rival; return the ratios."""
    width = max(map(len, rows))
    ratios = {}
    for name, rate in rows.items():
        line = f"  {name:{width}}  {rate:10,.{digits}f} {unit}"
        if rival is not None and name != rival:
            ratios[name] = rate / rows[rival]
            line += f"  {ratios[name]:6.2f} times the rival"
        print(line, flush=True)
    return ratios


def finish(settings: argparse.Namespace, **content: Any) -> dict[str, Any]:
    """Print the machine, write the results if --json is given, and return them."""
    machine = hardware()
    print(f"  ({hardware_line(machine)})", flush=True)
    whole = {"settings": vars(settings), "machine": machine, **content}
    if settings.json:
        write_json(settings.json, whole, indent=2)
    return whole


def flickr8k(split: str = "train") -> Any:
    """Return a split of Flickr8k from the folder that ATTNCAP_DATA names, or None if it is not there."""
    folder = os.environ.get("ATTNCAP_DATA")
    if not folder or not (Path(folder) / "flickr8k").is_dir():
        return None
    from attncap.data.load import load

    return load(f"flickr8k:{Path(folder) / 'flickr8k'}").split(split)
