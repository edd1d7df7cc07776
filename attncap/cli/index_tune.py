"""`attncap index tune`: find the distance threshold with the fewest errors. Also opens an index with its encoder."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from attncap.cli import options as cli


def tune(options: argparse.Namespace) -> None:
    """Find the distance threshold with the fewest errors, and store it in the index.

    Example:
        attncap index tune --db people.db --match label --plot threshold.png
    """
    from attncap._files import write_csv
    from attncap.retrieval.thresholds import NEVER, parse_match, tune_threshold

    copies = options.match == "copies"
    if copies and not options.index_data:
        raise ValueError("--match copies needs --index-data SPEC, the data set that the index was built from")
    match = None if copies else parse_match(options.match)
    with open_index(options) as index:
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
        write_csv(options.out, curve.table)
    if options.plot:
        from attncap.plotting.style import save_figure
        from attncap.retrieval.plots import plot_threshold

        ax = plot_threshold(curve.table, curve.threshold, curve.queries, measure=measure)
        save_figure(ax, options.plot)
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
    data = cli.data_of(options)
    image_ids, codes = codes_of(index, data.pictures, options.data)
    references = data.references()
    return codes, [references.get(image_id, []) for image_id in image_ids]


def codes_of(index: Any, images: Any, where: str) -> tuple[list[str], Any]:
    """Return the image_ids and the codes of the images that can be read; the others are printed."""
    import numpy as np

    from attncap.images import UnreadableImage

    codes = {}
    encoded = index.encoder.encode(images["path"].tolist(), progress=True)
    for image_id, code in zip(images["image_id"], encoded, strict=True):
        if isinstance(code, UnreadableImage):
            print(code, file=sys.stderr)
        else:
            codes[image_id] = code
    if not codes:
        raise ValueError(f"{where}: none of the {len(images)} images can be read")
    return list(codes), np.stack(list(codes.values()))


def make_encoder(
    text: str | None, weights: str | None, features: str | None, image_size: int | None, backbone: str | None = None
) -> Any:
    """Make the encoder that `--encoder` and `--backbone` name."""
    name, _, bits = (text or ("dhash" if backbone is None else "end")).partition(":")
    if name == "dhash":
        from attncap.retrieval.index import DifferenceHash

        if image_size is not None or backbone is not None:
            option = f"--backbone {backbone}" if image_size is None else f"--image-size {image_size}"
            raise ValueError(f"{option}: is for layers of networks; the size of a hash is given as dhash:BITS")
        if bits and not bits.isdecimal():
            raise ValueError(f"--encoder {text}: expected a number of bits after dhash, as in dhash:256")
        return DifferenceHash(int(bits or 64))
    from attncap.features.extractor import FeatureExtractor
    from attncap.features.inception import NAME
    from attncap.features.store import FeatureStore
    from attncap.retrieval.embeddings import PooledEmbedding

    layer = None if name == "end" else name
    extractor = FeatureExtractor(layer, weights or "imagenet", image_size, backbone=backbone or NAME)
    return PooledEmbedding(extractor, FeatureStore(features, extractor) if features else None)


def open_index(options: argparse.Namespace) -> Any:
    """Open the index with the encoder it was built with; a weights file and a preset must be given again."""
    from attncap.features.backbones import application_name
    from attncap.retrieval.database import encoder_of
    from attncap.retrieval.index import ImageIndex

    described = encoder_of(options.db)
    if described["encoder"] == "dhash":
        return ImageIndex.load(options.db)
    _, name, layer = described["encoder"].split()
    backbone = options.backbone or name
    if application_name(backbone) is None and options.backbone is None:
        raise ValueError(f"{options.db}: was built with a preset of keras-hub ({name}): name it with --backbone")
    weights = options.weights or described.get("name")
    encoder = make_encoder(layer, weights, options.features, described["image_size"], backbone)
    return ImageIndex.load(options.db, encoder)
