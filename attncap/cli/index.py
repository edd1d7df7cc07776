"""`attncap index build|query|tune`: nearest-neighbor search among labeled images, from the command line."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from attncap.cli import options as cli
from attncap.cli.index_tune import codes_of, make_encoder, open_index, tune
from attncap.cli.outputs import report_rejects

ENCODER_HELP = (
    "dhash (64 bits), dhash:BITS (n^2 or 2 n^2, such as 128 or 256), or a layer of the backbone, such as mixed8, whose "
    "features are averaged (default dhash; with --backbone its last layer)"
)


def add_commands(commands: Any) -> None:
    """Declare `attncap index` and its three commands."""
    family = commands.add_parser(
        "index",
        help="nearest-neighbor search among labeled images: build, query, tune",
        description="Build a database of labeled images, find the images nearest to a new one, tune the threshold.",
    )
    own = family.add_subparsers(dest="index_command", required=True, metavar="COMMAND")
    build = cli.add_command(own, "build", _build)
    cli.add_data(build, what="images and captions")
    _add_db(build, "the index to make or to extend, an SQLite file")
    model = cli.group(build, "model")
    model.add_argument("--encoder", metavar="E", help=ENCODER_HELP)
    help_text = "side of the images in pixels, as in train (default: that of the weights; not for dhash)"
    model.add_argument("--image-size", type=int, metavar="I", help=help_text)
    _add_encoder(build)
    help_text = "also build the graph for approximate search, for more than 100,000 images"
    cli.group(build, "output").add_argument("--graph", action="store_true", help=help_text)

    query = cli.add_command(own, "query", _query)
    cli.add_images(query, "*")
    cli.add_folder(cli.group(query, "data"), "caption many images and write --out", dest="folder")
    _add_db(query, "the index to search")
    _add_encoder(query)
    search = cli.group(query, "search")
    help_text = "number of neighbors (default 1); with --images, of K captions take the one closest to the others"
    search.add_argument("-k", type=_count, default=1, metavar="K", help=help_text)
    search.add_argument("--approximate", action="store_true", help="search the graph that index build --graph made")
    cli.add_output(query, "JSON", "with --images: COCO results JSON to write")
    cli.add_json(query, "print JSON, one list per image")

    tuning = cli.add_command(own, "tune", tune)
    what = "labeled images to query with (default: each image of the index against the others)"
    cli.add_data(tuning, required=False, what=what)
    data = cli.group(tuning, "data")
    help_text = "with --match copies: the data set that the index was built from"
    data.add_argument("--index-data", metavar="SPEC", help=help_text)
    help_text = "with --match copies: number of images to change (default 300)"
    data.add_argument("--sample", type=int, default=300, metavar="N", help=help_text)
    _add_db(tuning, "the index, which keeps the threshold")
    _add_encoder(tuning)
    search = cli.group(tuning, "threshold")
    search.add_argument(
        "--match",
        default="label",
        metavar="M",
        help="what counts as a match: label (default; one label in common), cider_d:0.5, bleu_4:0.3, rouge_l:0.5 (the "
        "neighbor's caption scores at least this against the image's own), or copies (changed copies of images find "
        "the image; the images of --data are not in the index)",
    )
    help_text = "cost of a wrong label; a missed label costs 1 (default 1.0)"
    search.add_argument("--wrong-weight", type=float, default=1.0, metavar="W", help=help_text)
    search.add_argument("--keep", action="store_true", help="only print: leave the threshold of the index as it is")
    cli.add_output(tuning, "PNG", "figure to write: errors at each threshold", option="--plot")
    cli.add_output(tuning, "CSV", "table to write: the curve, one row per threshold")
    cli.add_json(tuning, "print JSON instead of text")


def _add_db(parser: argparse.ArgumentParser, what: str) -> None:
    cli.group(parser, "index").add_argument("--db", required=True, metavar="FILE", help=what)


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {value}")
    return value


def _add_encoder(parser: argparse.ArgumentParser) -> None:
    help_text = "as in train (default inception_v3; later that of the index, but a preset of keras-hub is named again)"
    cli.group(parser, "model").add_argument("--backbone", metavar="B", help=help_text)
    help_text = "imagenet, faces, random, or a weights file (not for dhash)"
    cli.group(parser, "model").add_argument("--weights", metavar="W", help=help_text)
    cli.add_features(parser, "nothing is stored; not for dhash")


def _build(options: argparse.Namespace) -> None:
    """Put images with their captions into an index; a second call adds new images and removes those that are gone.

    Example:
        attncap index build --data table:captions.csv:photographs --db people.db --encoder dhash:64
    """
    from attncap.retrieval.index import ImageIndex

    data = cli.data_of(options)
    references = data.references()
    pictures = data.pictures
    encoder = make_encoder(options.encoder, options.weights, options.features, options.image_size, options.backbone)
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
        if options.graph and len(index):
            print(f"approximate index: {index.build_graph()}")
    report_rejects(options.db, rejects)
    if len(rejects) == len(pictures):
        raise ValueError(f"{options.data}: none of its {len(pictures)} images can be put into an index")


def _query(options: argparse.Namespace) -> None:
    """Print the nearest images and their labels, or caption a folder of images by their nearest neighbors.

    Example:
        attncap index query --db people.db me.jpg -k 5
    """
    if bool(options.images) == bool(options.folder) or bool(options.folder) != bool(options.out):
        raise ValueError("give images, or --images FOLDER together with --out JSON")
    from attncap.paths import find_images

    images, rejects = find_images(options.folder or options.images)
    for _, path, reason in rejects.itertuples(index=False):
        print(f"{path}: {reason}", file=sys.stderr)
    with open_index(options) as index:
        if options.folder:
            _caption(options, index, images, len(rejects))
            return
        answers: dict[str, Any] = {}
        plain: list[str] = []
        for path in images["path"]:
            answers[path] = index.query(path, options.k, options.approximate)
            if not index.has_content(index.encoder.encode([path])[0]):
                plain.append(path)
        limit = index.threshold
    for path in plain:
        print(f"{path}: a plain image: no bit of its hash is set, so its label is not given", file=sys.stderr)
    if options.json:
        content = {name: [vars(neighbor) for neighbor in found] for name, found in answers.items()}
        print(json.dumps({"threshold": limit, "plain_images": plain, "neighbors": content}, indent=2))
        return
    rows = [["image", "distance", "nearest", "label"]]
    for path, found in answers.items():
        for neighbor in found:
            far = path in plain or (limit is not None and neighbor.distance > limit)
            label = "no matching label" if far else " | ".join(neighbor.labels) or "(no label)"
            rows.append([path, f"{neighbor.distance:.4g}", neighbor.image_id, label])
    rows = rows if len(answers) > 1 else [row[1:] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _caption(options: argparse.Namespace, index: Any, images: Any, rejected: int) -> None:
    from attncap.metrics.coco_json import write_predictions
    from attncap.retrieval.captions import neighbor_captions

    image_ids, codes = codes_of(index, images, options.folder)
    captions = neighbor_captions(index, codes, image_ids, options.k)
    write_predictions(options.out, captions)
    print(f"{len(captions)} captions in {options.out}")
    missing = rejected + len(images) - len(image_ids)
    if missing:
        print(f"{missing} images cannot be read and have no caption", file=sys.stderr)
