"""Speed limit of this machine: its rate of matrix products in float32 and in bfloat16, on TensorFlow.

    python benchmarks/bench_ceiling.py --sizes 1024 2048 4096 --repeats 7 --json ceiling.json

No network can be faster; the other benchmarks state their rates as shares of this one. Measured are square matrices
and, unless --no-shapes is given, the products of a training step: those of the word readout are large, those of the
recurrence are small and reach a lower rate in any code.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from typing import Any

import numpy as np
from timing import arguments, finish, interleaved, medians, table

# Rows, inner, columns: products of a training step of 64 captions (see bench_training.py).
SHAPES = {
    "values of 64 images": (64 * 64, 2048, 256),
    "keys of 64 images": (64 * 64, 256, 512),
    "recurrence, one step": (64, 512, 1536),
    "logits of 20 steps": (64 * 20, 256, 5000),
}


def main(argv: list[str] | None = None) -> dict:
    """Run the benchmark: print times and, with --json, write them to a file."""
    parser = arguments(__doc__, repeats=7)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 2048, 4096], help="sizes of square matrices")
    parser.add_argument("--no-shapes", action="store_true", help="leave out the products of a training step")
    parser.add_argument("--work", type=float, default=20.0, help="GFLOP per round; too few cannot be timed")
    settings = parser.parse_args(argv)
    import tensorflow as tf

    shapes = {f"{size} x {size} x {size}": (size, size, size) for size in settings.sizes}
    shapes |= {} if settings.no_shapes else SHAPES
    runs, operations = {}, {}
    rng = np.random.default_rng(settings.seed)
    for label, (rows, inner, columns) in shapes.items():
        for dtype in ("float32", "bfloat16"):
            left = tf.cast(rng.standard_normal((rows, inner), np.float32), dtype)
            right = tf.cast(rng.standard_normal((inner, columns), np.float32), dtype)
            each = 2.0 * rows * inner * columns
            times = max(1, round(1e9 * settings.work / each))

            def run(left: Any = left, right: Any = right, times: int = times) -> None:
                for _ in range(times - 1):
                    tf.linalg.matmul(left, right)
                tf.linalg.matmul(left, right).numpy()

            run()
            runs[f"{label}, {dtype}"], operations[f"{label}, {dtype}"] = run, each * times
    seconds = interleaved(runs, settings.repeats)
    rates = {name: operations[name] / median / 1e9 for name, median in medians(seconds).items()}
    print(f"Rate of matrix products, median of {settings.repeats} rounds (TensorFlow {tf.__version__})")
    table(rates, "GFLOP/s", digits=0)
    ratios = {label: rates[f"{label}, bfloat16"] / rates[f"{label}, float32"] for label in shapes}
    for label, ratio in ratios.items():
        print(f"  {label}: bfloat16 {ratio:.2f} times float32")
    square = [f"{size} x {size} x {size}" for size in settings.sizes]
    ceiling = {d: max(rates[f"{label}, {d}"] for label in square) for d in ("float32", "bfloat16")}
    print(f"  ceiling: {ceiling['float32']:.0f} GFLOP/s in float32, {ceiling['bfloat16']:.0f} in bfloat16")
    return finish(settings, seconds=seconds, gflops=rates, ratios=ratios, ceiling=ceiling)


if __name__ == "__main__":
    main()
