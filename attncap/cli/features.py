"""`attncap features`: compute the features of all images of a data set, on one machine or many."""

from __future__ import annotations

import argparse
from typing import Any

from attncap.cli import options as cli


def add_commands(commands: Any) -> None:
    """Declare `features`."""
    features = cli.add_command(commands, "features", _features)
    cli.add_data(features)
    cli.add_features(features)
    model = cli.group(features, "model")
    model.add_argument("--weights", default="imagenet", metavar="W", help="as in train (default imagenet)")
    model.add_argument("--backbone", default="inception_v3", metavar="B", help="as in train (default inception_v3)")
    model.add_argument("--layer", metavar="L", help="as in train (default: of the weights)")
    model.add_argument("--image-size", type=int, metavar="I", help="as in train (default: of the weights)")
    cli.add_output(features, "CSV", "file to write: the images that cannot be read")
    engine = cli.group(features, "engine")
    engine.add_argument("--batch-size", type=int, default=32, metavar="N", help="images per batch (default 32)")
    engine.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="what computes: local (this process, default) or ray (Ray's workers on many machines, which need the "
        "images under the same paths); only this process writes",
    )
    engine.add_argument(
        "--ray-address",
        metavar="A",
        help="local (default: a Ray of this machine), auto (the cluster it belongs to), HOST:PORT or ray://HOST:PORT",
    )
    engine.add_argument(
        "--ray-workers", type=int, metavar="N", help="number of workers (default: as many as there are cores for)"
    )
    engine.add_argument("--ray-cores", type=int, metavar="N", help="cores of a worker (default 4, or all there are)")
    engine.add_argument("--ray-gpus", type=float, metavar="N", help="GPUs of a worker, or a part of one (default 0)")


def _features(options: argparse.Namespace) -> None:
    """Compute the features of all images, once for all runs; an interrupted call can be repeated.

    Example:
        attncap features --data table:captions.csv:photographs --layer mixed8 --engine ray --ray-address auto
    """
    given = {name: getattr(options, f"ray_{name}") for name in ("address", "workers", "cores", "gpus")}
    given = {name: value for name, value in given.items() if value is not None}
    if options.engine != "ray" and given:
        raise ValueError(f"--ray-{next(iter(given))} is for --engine ray")
    if options.batch_size < 1:
        raise ValueError(f"--batch-size {options.batch_size}: at least 1 expected")

    from attncap._files import write_csv
    from attncap.features.extractor import FeatureExtractor
    from attncap.features.store import FeatureStore

    engine = None
    if options.engine == "ray":
        from attncap.features.ray_engine import RayEngine

        engine = RayEngine(**given)
    paths = list(cli.data_of(options).pictures["path"])
    extractor = FeatureExtractor(options.layer, options.weights, options.image_size, backbone=options.backbone)
    store = FeatureStore(options.features, extractor)
    rejects = store.extract(paths, options.batch_size, engine=engine)
    print(f"features of {len(paths) - len(rejects):,} of {len(paths):,} images are in {store.path}")
    if options.out:
        write_csv(options.out, rejects)
    for path, reason in rejects.head(3).itertuples(index=False):
        print(f"not read: {path}: {reason}")
    if len(rejects) > 3:
        print(f"{len(rejects):,} images cannot be read{f': see {options.out}' if options.out else ''}")
