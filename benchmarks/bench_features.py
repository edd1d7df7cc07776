"""Speed of feature extraction, from JPEG files to features on disk: this package and the public tutorials' way.

    python benchmarks/bench_features.py --pictures 128 --repeats 3 --json features.json

The rival reads, decodes and resizes with `tf.data`, calls `model(batch)` on 16 images at a time and saves one float32
`.npy` per image, as "Image captioning with visual attention" and its many copies teach. Both cut InceptionV3 at the
same layer, with the same (random) weights; both are timed after their graphs were compiled. "network alone" is the time
without decoding and writing. The ceiling is this machine's rate of matrix products in the same rounds, divided by the
operations of the convolutions up to the layer. The images are those of Flickr8k if ATTNCAP_DATA names a folder with it,
else drawn ones of 500x375.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import itertools
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from drawn import photographs
from timing import arguments, ceiling_runs, finish, flickr8k, interleaved, medians, table

RIVAL, OURS = "rival: eager batches of 16, one .npy per image", "attncap: JPEG files to the store"
ALONE = "attncap: the network alone"


def operations_of(network: Any) -> float:
    """Floating-point operations per image: two for each multiplication of a convolution."""
    total = 0.0
    for layer in network.layers:
        if "Conv2D" in type(layer).__name__:
            _, rows, cols, channels = layer.output.shape
            height, width, given, _ = layer.kernel.shape
            total += 2.0 * rows * cols * channels * height * width * given
    return total


def tutorial(paths: list[str], layer: str, image_size: int, weights: list[np.ndarray], folder: Path) -> Callable:
    """Return the rival, in float32, with the weights of the other network."""
    import keras
    import tensorflow as tf

    whole = keras.applications.InceptionV3(include_top=False, weights=None, input_shape=(image_size, image_size, 3))
    names = [item.name for item in whole.layers if item.name.startswith("mixed") and "_" not in item.name]
    model = keras.Model(whole.input, whole.get_layer(names[int(layer.removeprefix("mixed"))]).output)
    model.set_weights(weights)

    def load_image(path: Any) -> tuple[Any, Any]:
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        image = tf.image.resize(image, (image_size, image_size))
        return keras.applications.inception_v3.preprocess_input(image), path

    def run() -> None:
        images = tf.data.Dataset.from_tensor_slices(paths).map(load_image, num_parallel_calls=tf.data.AUTOTUNE)
        for batch, batch_paths in images.batch(16):
            features = model(batch)
            features = tf.reshape(features, (features.shape[0], -1, features.shape[3]))
            for one, path in zip(features, batch_paths, strict=True):
                name = Path(path.numpy().decode()).stem
                np.save(folder / f"{name}.npy", one.numpy())

    return run


def main(argv: list[str] | None = None) -> dict:
    """Run the benchmark: print times and, with --json, write them to a file."""
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("--layer", default="mixed10")
    parser.add_argument("--image-size", type=int, default=299)
    parser.add_argument("--batch-size", type=int, default=32, help="images per batch of the store; the rival has 16")
    parser.add_argument("--ceiling-size", type=int, default=2048, help="size of the square matrices for the ceiling")
    parser.add_argument("--drawn", action="store_true", help="use drawn images even if ATTNCAP_DATA is set")
    settings = parser.parse_args(argv)
    import keras

    from attncap.features.extractor import FeatureExtractor
    from attncap.features.store import FeatureStore

    keras.utils.set_random_seed(settings.seed)
    extractor = FeatureExtractor(settings.layer, "random", settings.image_size)
    network = extractor.network_for_pixels()
    extractor.network_for_pixels = lambda: network  # compiled once, as that of the rival
    operations = operations_of(extractor.network)

    with tempfile.TemporaryDirectory(prefix="attncap-bench-") as name:
        folder = Path(name)
        real = None if settings.drawn else flickr8k()
        if real is None:
            (folder / "pictures").mkdir()
            paths = photographs(folder / "pictures", settings.pictures, settings.seed)
        else:
            paths = list(real.pictures["path"].head(settings.pictures))
        source = "drawn, 500x375" if real is None else "Flickr8k's"
        rounds = itertools.count()
        (folder / "npy").mkdir()
        rival = tutorial(paths, settings.layer, settings.image_size, extractor.network.get_weights(), folder / "npy")

        def ours() -> None:
            place = folder / f"store{next(rounds)}"
            store = FeatureStore(place, extractor)
            rejects = store.extract(paths, batch_size=settings.batch_size, progress=False)
            assert rejects.empty and len(store) == len(paths)
            store.close()
            if place.name != "store0":  # the first is kept, to compare features
                shutil.rmtree(place)

        blank = np.zeros((settings.batch_size, settings.image_size, settings.image_size, 3), np.uint8)

        def alone() -> None:
            for _ in range(-(-len(paths) // settings.batch_size)):
                network.predict_on_batch(blank)

        start = time.perf_counter()
        network.predict_on_batch(blank)
        compiling = time.perf_counter() - start
        ours()  # each once before timing
        rival()
        ceiling, matrix_operations = ceiling_runs(settings.ceiling_size)
        seconds = interleaved({OURS: ours, ALONE: alone, RIVAL: rival, **ceiling}, settings.repeats)
        kept = FeatureStore(folder / "store0", extractor)
        stored = kept.get(paths).reshape(len(paths), -1).astype(np.float32)
        kept.close()
        saved = np.stack([np.load(folder / "npy" / f"{Path(path).stem}.npy").ravel() for path in paths])
        correlation = float(np.corrcoef(stored.ravel(), saved.ravel())[0, 1])
        bytes_each = {
            "attncap": stored.shape[1] * 2,
            "rival": (folder / "npy" / f"{Path(paths[0]).stem}.npy").stat().st_size,
        }

    middle = medians(seconds)
    rates = {run: len(paths) / middle[run] for run in (RIVAL, OURS)}
    alone_images = settings.batch_size * -(-len(paths) // settings.batch_size)
    rates[ALONE] = alone_images / middle[ALONE]
    gflops = {run: matrix_operations[run] / middle[run] / 1e9 for run in ceiling}
    policy = extractor.dtype_policy.name
    own = "matrix products, bfloat16" if "bfloat16" in policy else "matrix products, float32"
    share = {run: rate * operations / 1e9 / gflops[own] for run, rate in rates.items()}
    print(
        f"Features of {len(paths)} JPEG files ({source}) at {settings.layer}, {operations / 1e9:.2f} GFLOP per image; "
        f"median of {settings.repeats} rounds"
    )
    ratios = table(rates, "images/s", RIVAL)
    table(gflops, "GFLOP/s", digits=0)
    for run, part in share.items():
        print(f"  {run}: {part:.2f} of the ceiling ({own.split(', ')[1]})")
    added = rates[ALONE] / rates[OURS] - 1
    print(f"  decoding and writing add {added:.1%} to the network's time")
    print(f"  compiled in {compiling:.1f} s before; arithmetic {policy}; correlation of features {correlation:.4f}")
    return finish(
        settings,
        images=source,
        seconds=seconds,
        rates=rates,
        ratios=ratios,
        gflops=gflops,
        ceiling_share=share,
        gflop_per_image=operations / 1e9,
        correlation=correlation,
        bytes_per_image=bytes_each,
        added_to_network=added,
        compiling=compiling,
    )


if __name__ == "__main__":
    main()
