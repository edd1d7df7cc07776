"""`attncap index build|query|tune`: find pictures by what they look like, from the command line."""

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
    """Declare `index` and what follows it."""
    family = commands.add_parser(
        "index",
        help="labeled pictures found by likeness: build, query, tune",
        description="A database of labeled pictures, asked which of them a picture is most like.",
    )
    own = family.add_subparsers(dest="index_command", required=True, metavar="COMMAND")
    build = add_command(
        own,
        "build",
        _build,
        "put pictures with their captions into an index; called again, it adds what is new",
        "attncap index build --data table:captions.csv:photographs --db people.db --encoder dhash:64",
    )
    build.add_argument("--data", required=True, metavar="SPEC", help=SPEC_HELP)
    build.add_argument("--split", metavar="S", help="train, val (or dev) or test (default: all)")
    build.add_argument("--db", required=True, metavar="FILE", help="the index, an SQLite file")
    build.add_argument("--encoder", default="dhash", metavar="E", help=ENCODER_HELP)
    build.add_argument(
        "--image-size", type=int, metavar="I", help="as in train (default: of the weights; not for dhash)"
    )
    build.add_argument(
        "--graph", action="store_true", help="also the approximate index, for more than 100,000 pictures"
    )
    build.add_argument("--seed", type=int, default=0, help="of splits (default 0)")
    _add_encoder(build)

    query = add_command(
        own,
        "query",
        _query,
        "print the nearest pictures and their labels, or caption a folder by its nearest neighbors",
        "attncap index query --db people.db me.jpg -k 5",
    )
    query.add_argument("--db", required=True, metavar="FILE", help="the index")
    query.add_argument("picture", nargs="*", metavar="PICTURE")
    query.add_argument(
        "-k", type=int, default=None, metavar="K", help="neighbors (default 1; captions: 1, no consensus)"
    )
    query.add_argument("--images", metavar="FOLDER_OR_LIST", help="caption these instead, into --out")
    query.add_argument("--out", metavar="JSON", help="COCO results JSON to write (with --images)")
    query.add_argument("--approximate", action="store_true", help="through the kept graph (index build --graph)")
    query.add_argument("--json", action="store_true", help="print JSON, a list for each picture")
    _add_encoder(query)

    tune = add_command(
        own,
        "tune",
        _tune,
        "find the threshold with the least errors, and keep it in the index",
        "attncap index tune --db people.db --match label --plot threshold.png",
    )
    tune.add_argument("--db", required=True, metavar="FILE", help="the index")
    tune.add_argument(
        "--match",
        default="label",
        metavar="M",
        help="what is right: label (one in common), cider_d:0.5, bleu_4:0.3, rouge_l:0.5 (the neighbor's caption so "
        "like the picture's own), or copies (changed copies find their picture; --data are strangers)",
    )
    tune.add_argument(
        "--data", metavar="SPEC", help=f"labeled pictures to ask about; default: leave-one-out. {SPEC_HELP}"
    )
    tune.add_argument("--split", metavar="S", help="of --data: train, val (or dev) or test (default: all)")
    tune.add_argument("--index-data", metavar="SPEC", help="--match copies: where the index's pictures are")
    tune.add_argument(
        "--sample", type=int, default=300, metavar="N", help="--match copies: pictures changed (default 300)"
    )
    tune.add_argument(
        "--wrong-weight", type=float, default=1.0, metavar="W", help="missed labels a wrong one is as bad as"
    )
    tune.add_argument("--plot", metavar="PNG", help="figure to write: errors at each threshold")
    tune.add_argument("--out", metavar="CSV", help="the curve, a row a threshold")
    tune.add_argument("--keep", action="store_true", help="only show: leave the index's threshold as it is")
    tune.add_argument("--seed", type=int, default=0, help="of splits, sample and folds (default 0)")
    tune.add_argument("--json", action="store_true", help="print JSON instead of text")
    _add_encoder(tune)


def _add_encoder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", metavar="W", help="imagenet, faces, random, or a weights file (not for dhash)")
    parser.add_argument("--features", metavar="DIR", help="folder of feature stores, shared with train (not for dhash)")


def _build(options: argparse.Namespace) -> None:
    from attncap.data.load import load
    from attncap.retrieval.index import ImageIndex

    data = load(options.data, seed=options.seed)
    data = data.split(options.split) if options.split else data
    references = data.references()
    pictures = data.pictures
    encoder = _encoder(options.encoder, options.weights, options.features, options.image_size)
    with ImageIndex(options.db, encoder) as index:
        rejects = index.add(
            pictures["path"].tolist(),
            [references.get(image_id, []) for image_id in pictures["image_id"]],
            pictures["image_id"].tolist(),
        )
        print(f"{len(index):,} pictures in {options.db}")
        if options.graph:
            print(f"approximate index: {index.build_graph()}")
    if len(rejects):
        first = rejects.iloc[0]
        listed = Path(options.db).with_suffix(".rejects.csv")
        _write_csv(listed, rejects)
        print(
            f"{len(rejects)} pictures cannot be read (first {first['path']}: {first['reason']}): see {listed}",
            file=sys.stderr,
        )


def _query(options: argparse.Namespace) -> None:
    if bool(options.picture) == bool(options.images) or bool(options.images) != bool(options.out):
        raise ValueError("name pictures, or --images FOLDER with --out JSON")
    with _open(options) as index:
        if options.images:
            _caption(options, index)
            return
        answers = {}
        for picture in options.picture:
            found = index.query(picture, options.k or 1, options.approximate)
            answers[picture] = found
        limit = index.threshold
    if options.json:
        content = {name: [vars(neighbor) for neighbor in found] for name, found in answers.items()}
        print(json.dumps({"threshold": limit, "neighbors": content}, indent=2))
        return
    for picture, found in answers.items():
        if len(answers) > 1:
            print(f"{picture}:")
        for neighbor in found:
            far = limit is not None and neighbor.distance > limit
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
    codes = index.encoder.encode(paths, progress=True)
    kept = [n for n, code in enumerate(codes) if not isinstance(code, UnreadableImage)]
    for code in codes:
        if isinstance(code, UnreadableImage):
            print(code, file=sys.stderr)
    if not kept:
        raise ValueError(f"{options.images}: none of the {len(paths)} pictures can be read")
    captions = neighbor_captions(index, np.stack([codes[n] for n in kept]), [names[n] for n in kept], options.k or 1)
    write_predictions(options.out, captions)
    print(f"{len(captions)} captions in {options.out}")


def _tune(options: argparse.Namespace) -> None:
    from attncap.retrieval.thresholds import NEVER, parse_match, tune_threshold

    copies = options.match == "copies"
    if copies and not options.index_data:
        raise ValueError("--match copies needs --index-data SPEC: where the index's pictures are, to change them")
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
            f"{options.index_data}: none of its pictures is in {options.db}: name the data it was built from"
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
    """Codes and labels of the pictures of --data that can be read."""
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
        raise ValueError(f"{options.data}: no picture that can be read to ask about")
    return np.stack(kept), labels


def _encoder(text: str, weights: str | None, features: str | None, image_size: int | None) -> Any:
    name, _, bits = text.partition(":")
    if name == "dhash":
        from attncap.retrieval.index import DifferenceHash

        if image_size is not None:
            raise ValueError(f"--image-size {image_size}: of an InceptionV3 layer; dhash:BITS tells the size of a hash")
        if bits and not bits.isdecimal():
            raise ValueError(f"--encoder {text}: a number of bits expected after dhash, as in dhash:256")
        return DifferenceHash(int(bits or 64))
    from attncap.features.extractor import FeatureExtractor
    from attncap.features.store import FeatureStore
    from attncap.retrieval.embeddings import PooledEmbedding

    extractor = FeatureExtractor(name, weights or "imagenet", image_size)
    return PooledEmbedding(extractor, FeatureStore(features, extractor) if features else None)


def _open(options: argparse.Namespace) -> Any:
    """Open the index with the encoder that it names; a weights file must be given again."""
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
