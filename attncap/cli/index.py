"""`attncap index build|query|tune`: nearest-neighbor search among labeled images, from the command line."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from attncap.cli.options import SPEC_HELP, add_command

ENCODER_HELP = (
    "dhash (64 bits), dhash:BITS (n^2 or 2 n^2, such as 128 or 256), or an InceptionV3 layer, such as mixed8, whose "
    "features are averaged (default dhash)"
)


def add_commands(commands: Any) -> None:
    """Declare `attncap index` and its three commands."""
    family = commands.add_parser(
        "index",
        help="nearest-neighbor search among labeled images: build, query, tune",
        description="Build a database of labeled images, find the images nearest to a new one, tune the threshold.",
    )
    own = family.add_subparsers(dest="index_command", required=True, metavar="COMMAND")
    build = add_command(
        own,
        "build",
        _build,
        "put images with their captions into an index; a second call adds new images and removes those that are gone",
        "attncap index build --data table:captions.csv:photographs --db people.db --encoder dhash:64",
    )
    build.add_argument("--data", required=True, metavar="SPEC", help=SPEC_HELP)
    build.add_argument("--split", metavar="S", help="train, val (or dev) or test (default: all)")
    build.add_argument("--db", required=True, metavar="FILE", help="the index, an SQLite file")
    build.add_argument("--encoder", default="dhash", metavar="E", help=ENCODER_HELP)
    build.add_argument(
        "--image-size",
        type=int,
        metavar="I",
        help="side of the images in pixels, as in train (default: that of the weights; not for dhash)",
    )
    build.add_argument(
        "--graph", action="store_true", help="also build the graph for approximate search, for more than 100,000 images"
    )
    build.add_argument("--seed", type=int, default=0, help="seed of the splits (default 0)")
    _add_encoder(build)

    query = add_command(
        own,
        "query",
        _query,
        "print the nearest images and their labels, or caption a folder of images by their nearest neighbors",
        "attncap index query --db people.db me.jpg -k 5",
    )
    query.add_argument("--db", required=True, metavar="FILE", help="the index")
    query.add_argument("picture", nargs="*", metavar="PICTURE")
    query.add_argument(
        "-k", type=_count, metavar="K", help="number of neighbors (default 1; with --images, above 1: consensus)"
    )
    query.add_argument("--images", metavar="FOLDER_OR_LIST", help="caption these images and write --out")
    query.add_argument("--out", metavar="JSON", help="COCO results JSON to write (with --images)")
    query.add_argument("--approximate", action="store_true", help="search the graph that index build --graph made")
    query.add_argument("--json", action="store_true", help="print JSON, one list per image")
    _add_encoder(query)

    tune = add_command(
        own,
        "tune",
        _tune,
        "find the distance threshold with the fewest errors, and store it in the index",
        "attncap index tune --db people.db --match label --plot threshold.png",
    )
    tune.add_argument("--db", required=True, metavar="FILE", help="the index")
    tune.add_argument(
        "--match",
        default="label",
        metavar="M",
        help="what counts as a match: label (default; one label in common), cider_d:0.5, bleu_4:0.3, rouge_l:0.5 (the "
        "neighbor's caption scores at least this against the image's own), or copies (changed copies of images find "
        "the image; the images of --data are not in the index)",
    )
    tune.add_argument(
        "--data",
        metavar="SPEC",
        help=f"labeled images to query with (default: each image of the index against the others). {SPEC_HELP}",
    )
    tune.add_argument("--split", metavar="S", help="of --data: train, val (or dev) or test (default: all)")
    tune.add_argument(
        "--index-data", metavar="SPEC", help="with --match copies: the data set that the index was built from"
    )
    tune.add_argument(
        "--sample",
        type=int,
        default=300,
        metavar="N",
        help="with --match copies: number of images to change (default 300)",
    )
    tune.add_argument(
        "--wrong-weight",
        type=float,
        default=1.0,
        metavar="W",
        help="cost of a wrong label; a missed label costs 1 (default 1.0)",
    )
    tune.add_argument("--plot", metavar="PNG", help="write a figure: errors at each threshold")
    tune.add_argument("--out", metavar="CSV", help="write the curve, one row per threshold")
    tune.add_argument("--keep", action="store_true", help="only print: leave the threshold of the index as it is")
    tune.add_argument("--seed", type=int, default=0, help="seed of splits, sample and folds (default 0)")
    tune.add_argument("--json", action="store_true", help="print JSON instead of text")
    _add_encoder(tune)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {value}")
    return value


def _add_encoder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", metavar="W", help="imagenet, faces, random, or a weights file (not for dhash)")
    parser.add_argument("--features", metavar="DIR", help="folder of feature stores, as in train (not for dhash)")


def _build(options: argparse.Namespace) -> None:
    from attncap.data.load import load
    from attncap.retrieval.index import ImageIndex

    data = load(options.data, seed=options.seed)
    data = data.split(options.split) if options.split else data
    references = data.references()
    pictures = data.pictures
    encoder = _encoder(options.encoder, options.weights, options.features, options.image_size)
    source = json.dumps([options.data, options.split, options.seed if options.split else None])
    with ImageIndex(options.db, encoder) as index:
        before = {image_id for image_id, _ in index.entries()}
        rejects = index.add(
            pictures["path"].tolist(),
            [references.get(image_id, []) for image_id in pictures["image_id"]],
            pictures["image_id"].tolist(),
            source=source,
        )
        print(f"{len(index):,} images in {options.db}")
        removed = before.difference(image_id for image_id, _ in index.entries())
        if removed:
            print(f"{len(removed)} images removed: no longer in {options.data}, or no longer readable")
        plain = index.without_content
        if plain:
            print(
                f"{len(plain)} plain images (first {plain[0]}): no bit of their hash is set, so they match each other",
                file=sys.stderr,
            )
        if options.graph:
            print(f"approximate index: {index.build_graph()}")
    if len(rejects):
        first = rejects.iloc[0]
        listed = Path(options.db).with_suffix(".rejects.csv")
        _write_csv(listed, rejects)
        print(
            f"{len(rejects)} images cannot be read (first {first['path']}: {first['reason']}): see {listed}",
            file=sys.stderr,
        )


def _query(options: argparse.Namespace) -> None:
    if bool(options.picture) == bool(options.images) or bool(options.images) != bool(options.out):
        raise ValueError("give images, or --images FOLDER together with --out JSON")
    with _open(options) as index:
        if options.images:
            _caption(options, index)
            return
        answers: dict[str, Any] = {}
        plain: list[str] = []
        for picture in options.picture:
            answers[picture] = index.query(picture, options.k or 1, options.approximate)
            if not index.has_content(index.encoder.encode([picture])[0]):
                plain.append(picture)
        limit = index.threshold
    for picture in plain:
        print(f"{picture}: a plain image: no bit of its hash is set, so its label is not given", file=sys.stderr)
    if options.json:
        content = {name: [vars(neighbor) for neighbor in found] for name, found in answers.items()}
        print(json.dumps({"threshold": limit, "plain_images": plain, "neighbors": content}, indent=2))
        return
    for picture, found in answers.items():
        if len(answers) > 1:
            print(f"{picture}:")
        for neighbor in found:
            far = picture in plain or (limit is not None and neighbor.distance > limit)
            says = "no matching label" if far else " | ".join(neighbor.labels) or "(no label)"
            print(f"{neighbor.distance:.4g}  {neighbor.image_id}  {says}")


def _caption(options: argparse.Namespace, index: Any) -> None:
    import numpy as np

    from attncap.decoding.predict import find_pictures
    from attncap.images import UnreadableImage
    from attncap.metrics.coco_json import write_predictions
    from attncap.retrieval.captions import neighbor_captions

    paths = find_pictures(options.images)
    root = Path(options.images) if Path(options.images).is_dir() else None
    names = [path.relative_to(root).as_posix() if root else path.name for path in paths]
    path_of: dict[str, Path] = {}
    for name, path in zip(names, paths, strict=True):
        if name in path_of:
            raise ValueError(
                f"{options.images}: {path_of[name]} and {path} have one name; captions need names that differ"
            )
        path_of[name] = path
    codes = index.encoder.encode(paths, progress=True)
    kept = [n for n, code in enumerate(codes) if not isinstance(code, UnreadableImage)]
    for code in codes:
        if isinstance(code, UnreadableImage):
            print(code, file=sys.stderr)
    if not kept:
        raise ValueError(f"{options.images}: none of the {len(paths)} images can be read")
    captions = neighbor_captions(index, np.stack([codes[n] for n in kept]), [names[n] for n in kept], options.k or 1)
    write_predictions(options.out, captions)
    print(f"{len(captions)} captions in {options.out}")
    if len(kept) < len(paths):
        print(f"{len(paths) - len(kept)} images cannot be read and have no caption", file=sys.stderr)


def _tune(options: argparse.Namespace) -> None:
    from attncap.retrieval.thresholds import NEVER, parse_match, tune_threshold

    copies = options.match == "copies"
    if copies and not options.index_data:
        raise ValueError("--match copies needs --index-data SPEC, the data set that the index was built from")
    match = None if copies else parse_match(options.match)
    with _open(options) as index:
        if match is None:
            distances, matched, table = _of_copies(options, index)
        else:
            table = None
            distances, matched = _of_neighbors(options, index, match)
        curve = tune_threshold(
            distances,
            matched,
            wrong_weight=options.wrong_weight,
            whole=index.encoder.measure == "hash_distance",
            seed=options.seed,
        )
        if not options.keep:
            index.threshold = curve.threshold
        if table is not None:
            table = table([curve.threshold] if curve.threshold != NEVER else [0.0])
        measure = "hash distance, bits" if index.encoder.measure == "hash_distance" else "1 - cosine similarity"
    if options.out:
        _write_csv(options.out, curve.table)
    if options.plot:
        from attncap.retrieval.plots import plot_threshold

        figure = plot_threshold(curve.table, curve.threshold, curve.queries, measure=measure).get_figure(root=True)
        assert figure is not None
        figure.savefig(options.plot)
    if options.json:
        content = {"best": curve.best, "queries": curve.queries, "held_out_errors": curve.held_out_errors}
        print(json.dumps(content if table is None else {**content, "copies": table.to_dict("records")}, indent=2))
        return
    print(curve.to_text())
    if table is not None:
        print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))


def _of_neighbors(options: argparse.Namespace, index: Any, match: Any) -> tuple[Any, Any]:
    if options.data is None:
        rows, distances = index.nearest_others()
        of_query = [labels for _, labels in index.entries()]
    else:
        codes, of_query = _asked(options, index)
        rows, distances = index.nearest(codes)
    return distances[:, 0], match(of_query, [labels for _, labels in index.entries(rows[:, 0])])


def _of_copies(options: argparse.Namespace, index: Any) -> tuple[Any, Any, Any]:
    from functools import partial

    import numpy as np

    from attncap.data.load import load
    from attncap.retrieval.robustness import changed_copies, robustness_table

    pictures = load(options.index_data, seed=options.seed).pictures
    held = {image_id for image_id, _ in index.entries()}
    pictures = pictures[pictures["image_id"].isin(held)]
    if pictures.empty:
        raise ValueError(
            f"{options.index_data}: none of its images is in {options.db}; give the data set that it was built from"
        )
    pictures = pictures.sample(min(options.sample, len(pictures)), random_state=options.seed)
    copies = changed_copies(index, pictures["path"].tolist(), pictures["image_id"].tolist())
    strangers = np.empty(0)
    if options.data is not None:
        codes, _ = _asked(options, index)
        strangers = index.nearest(codes)[1][:, 0]
    distances = np.concatenate([copies["distance"].to_numpy(), strangers])
    matched = np.concatenate([copies["found"].to_numpy(bool), np.zeros(len(strangers), bool)])
    return distances, matched, partial(robustness_table, copies, strangers)


def _asked(options: argparse.Namespace, index: Any) -> tuple[Any, list[list[str]]]:
    """Return codes and labels of the images of --data that can be read."""
    import numpy as np

    from attncap.data.load import load
    from attncap.images import UnreadableImage

    data = load(options.data, seed=options.seed)
    data = data.split(options.split) if options.split else data
    references = data.references()
    codes = index.encoder.encode(data.pictures["path"].tolist(), progress=True)
    kept, labels = [], []
    for image_id, code in zip(data.pictures["image_id"], codes, strict=True):
        if isinstance(code, UnreadableImage):
            print(code, file=sys.stderr)
        else:
            kept.append(code)
            labels.append(references.get(image_id, []))
    if not kept:
        raise ValueError(f"{options.data}: no image can be read")
    return np.stack(kept), labels


def _encoder(text: str, weights: str | None, features: str | None, image_size: int | None) -> Any:
    name, _, bits = text.partition(":")
    if name == "dhash":
        from attncap.retrieval.index import DifferenceHash

        if image_size is not None:
            raise ValueError(
                f"--image-size {image_size}: is for InceptionV3 layers; the size of a hash is given as dhash:BITS"
            )
        if bits and not bits.isdecimal():
            raise ValueError(f"--encoder {text}: expected a number of bits after dhash, as in dhash:256")
        return DifferenceHash(int(bits or 64))
    from attncap.features.extractor import FeatureExtractor
    from attncap.features.store import FeatureStore
    from attncap.retrieval.embeddings import PooledEmbedding

    extractor = FeatureExtractor(name, weights or "imagenet", image_size)
    return PooledEmbedding(extractor, FeatureStore(features, extractor) if features else None)


def _open(options: argparse.Namespace) -> Any:
    """Open the index with the encoder it was built with; a weights file must be given again."""
    from attncap.retrieval.database import encoder_of
    from attncap.retrieval.index import ImageIndex

    described = encoder_of(options.db)
    if described["encoder"] == "dhash":
        return ImageIndex.load(options.db)
    layer = described["encoder"].split()[-1]
    weights = options.weights or described.get("name")
    return ImageIndex.load(options.db, _encoder(layer, weights, options.features, described["image_size"]))


def _write_csv(path: str | Path, table: Any) -> None:
    from attncap._files import replacing

    with replacing(path) as temporary:
        table.to_csv(temporary, index=False)
