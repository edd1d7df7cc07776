"""`attncap explore`: a page of images and captions on which every word shows where the model looked."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from attncap.cli.options import (
    OutputFile,
    add_boxes,
    add_command,
    add_data,
    add_decoding,
    add_folder,
    add_run,
    captioner_of,
    data_of,
    decoding,
    group,
)


def add_commands(commands: Any) -> None:
    """Declare `explore`."""
    parser = add_command(
        commands,
        "explore",
        _explore,
        "write one HTML page to explore captions: each word shows its map over the image",
        "attncap explore --run runs/mine --images photographs --out explore.html --beam-width 5",
    )
    add_run(parser)
    data = group(parser, "data")
    add_folder(data, "images to show (default: those of --data)")
    add_data(parser, required=False, what="data set with the references, by image_id")
    add_boxes(parser, "with --data, boxes to draw where a word names one")
    data.add_argument("--limit", type=int, default=200, metavar="N", help="show the first N images (default 200)")
    group(parser, "model").add_argument(
        "--against", metavar="DIR", help="another run, shown beside, with the differences marked"
    )
    output = group(parser, "output")
    output.add_argument("--out", required=True, type=OutputFile, metavar="HTML", help="page to write")
    output.add_argument("--top", type=int, default=5, metavar="N", help="alternatives shown for a word (default 5)")
    output.add_argument("--title", default="Where the captioner looked", metavar="TEXT", help="heading of the page")
    add_decoding(parser)


def _explore(options: argparse.Namespace) -> None:
    import numpy as np

    from attncap.decoding.alternatives import explore_features
    from attncap.decoding.predict import encoded_images
    from attncap.grounding.annotations import load_phrases, phrases_in
    from attncap.models.saving import load_captioner
    from attncap.paths import find_images

    if options.images is None and options.data is None:
        raise ValueError("--images or --data is needed: which images to show")
    if options.split is not None and options.data is None:
        raise ValueError("--split needs --data: it names a part of that data set")
    if options.limit < 1 or options.top < 1:
        raise ValueError(f"--limit and --top need at least 1, got {options.limit} and {options.top}")
    if options.boxes is not None and options.data is None:
        raise ValueError("--boxes needs --data: the boxes are those of its images")
    references = None
    rejects: list[tuple[str, str, str]] = []
    if options.data is not None:
        data = data_of(options)
        named: Any = None
        if options.boxes is not None:
            boxed, known = load_phrases(options.boxes, data)
            named = partial(phrases_in, data=boxed, phrases=known)
        references = data.references()
    if options.images is not None:
        images, unnamed = find_images(options.images)
        rejects += unnamed.itertuples(index=False, name=None)
    else:
        images = data.pictures
    paths, image_ids = images["path"].tolist(), images["image_id"].tolist()
    if references is not None:
        _say_what_is_missing(image_ids, references, options.data)
    left_out = max(0, len(paths) - options.limit)
    paths, image_ids = paths[: options.limit], image_ids[: options.limit]
    path_of = dict(zip(image_ids, paths, strict=True))
    captioner = captioner_of(options)
    encoded = list(encoded_images(captioner, paths, image_ids, rejects))
    for _, path, reason in rejects:
        print(f"left out: {path}: {reason}", file=sys.stderr)
    if not encoded:
        raise ValueError(f"{options.images or options.data}: none of its {len(paths)} images can be read")
    shown = [image_id for kept, _ in encoded for image_id in kept]
    against: Any = None
    if options.against is not None:
        other = load_captioner(options.against)
        its = list(encoded_images(other, [path_of[name] for name in shown], shown, []))
        against = (other, np.concatenate([features for _, features in its]))
    explorer = explore_features(
        captioner,
        np.concatenate([features for _, features in encoded]),
        shown,
        path_of,
        references,
        top=options.top,
        title=options.title,
        against=against,
        runs=(Path(options.runs[0]).name, Path(options.against or "").name),
        phrases=named if options.data is not None else None,
        **decoding(options),
    )
    out = explorer.save(options.out)
    print(f"{explorer.n_images} images in {out}, {out.stat().st_size / 1e6:.1f} MB: open it in a browser")
    if left_out:
        print(f"{left_out} more images are left out: see --limit", file=sys.stderr)


def _say_what_is_missing(image_ids: list[str], references: dict[str, list[str]], spec: str) -> None:
    known = sum(image_id in references for image_id in image_ids)
    if not known:
        raise ValueError(
            f"{spec}: references for none of the {len(image_ids)} images, such as {image_ids[0]!r} (its own are such "
            f"as {next(iter(references), '')!r}): give the folder that the data's file names are relative to, or "
            "leave --images out"
        )
    if known < len(image_ids):
        print(f"{len(image_ids) - known} images have no references in {spec}: no scores to sort by", file=sys.stderr)
