"""`attncap predict`: caption many images into a COCO results JSON, from the command line."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from attncap.cli import options as cli
from attncap.cli.outputs import report_rejects
from attncap.cli.outside_features import add_features_file, caption_with


def add_commands(commands: Any) -> None:
    """Declare `attncap predict`."""
    parser = cli.add_command(commands, "predict", _predict)
    cli.add_run(parser)
    one_of = cli.group(parser, "data").add_mutually_exclusive_group(required=True)
    cli.add_data(parser, required=False, what="caption a data set, with its image ids", within=one_of)
    cli.add_folder(one_of, "caption other images")
    add_features_file(parser)
    help_text = "COCO results JSON to write; unreadable images are listed beside it in NAME.rejects.csv"
    cli.add_output(parser, "JSON", help_text, required=True)
    cli.add_decoding(parser)
    cli.add_consensus(parser)


def _predict(options: argparse.Namespace) -> None:
    """Caption the images of a data set or a folder into COCO results JSON.

    Example:
        attncap predict --run runs/mine --data flickr8k:flickr8k --split dev --out predictions.json
    """
    import pandas as pd

    from attncap.decoding.collapse import collapse_warnings
    from attncap.metrics.coco_json import write_predictions
    from attncap.paths import find_images

    if options.split and not options.data:
        raise ValueError(f"--split {options.split}: belongs to --data SPEC; --images captions every image")
    if options.data:
        images, rejects = cli.data_of(options).pictures, pd.DataFrame()
        if images.empty:
            part = f" in split {options.split}" if options.split else ""
            raise ValueError(f"{options.data}: has no images{part}")
    else:
        images, rejects = find_images(options.images)
    paths, image_ids = images["path"].tolist(), images["image_id"].tolist()
    captioner = cli.captioner_of(options)
    captions, unreadable = caption_with(options, captioner, paths, image_ids)
    # The COCO tools expect integers for the image ids of COCO.
    integers = bool(options.data) and all(
        image_id.isdecimal() and str(int(image_id)) == image_id for image_id in image_ids
    )
    write_predictions(options.out, {caption.image_id: caption.text for caption in captions}, integer_ids=integers)
    print(f"{len(captions)} captions in {options.out}")
    for warning in collapse_warnings(captions):
        print(f"warning: {warning}", file=sys.stderr)
    why = "have no caption" if captioner.encoder is None else "cannot be read and have no caption"
    report_rejects(options.out, pd.concat([rejects, unreadable], ignore_index=True), why)
