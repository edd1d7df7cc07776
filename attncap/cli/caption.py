"""`attncap caption`: print the captions of images, and draw where the model looked."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from attncap.cli.ensemble import save_member_heatmaps
from attncap.cli.options import (
    OutputFile,
    add_command,
    add_consensus,
    add_decoding,
    add_images,
    add_run,
    captioner_of,
    group,
    heatmap_files,
    save_heatmap,
)
from attncap.cli.outside_features import add_features_file, captions_of


def add_commands(commands: Any) -> None:
    """Declare `caption`."""
    parser = add_command(
        commands,
        "caption",
        _caption,
        "print the captions of images, and draw where the model looked",
        "attncap caption --run runs/demo/run me.jpg --heatmap me_heatmap.png",
    )
    add_run(parser)
    add_features_file(parser)
    add_images(parser)
    group(parser, "output").add_argument(
        "--heatmap",
        type=OutputFile,
        metavar="PNG",
        help="figure to write: the map of every word over the image; of several images NAME_image.png",
    )
    add_decoding(parser)
    add_consensus(parser)


def _caption(options: argparse.Namespace) -> None:
    from attncap.paths import find_images

    captioner = captioner_of(options)
    if options.heatmap and not captioner.has_attention:
        holds = f"holds a {type(captioner).__name__}" if len(options.runs) == 1 else "are an ensemble"
        raise ValueError(
            f"{', '.join(options.runs)}: {holds}, which has no attention maps to draw: "
            "leave --heatmap out, or take a run of --model attention"
        )
    images, rejects = find_images(options.images)
    paths, image_ids = images["path"].tolist(), images["image_id"].tolist()
    captions, unreadable = captions_of(options, captioner, paths, image_ids, progress=False)
    path_of = dict(zip(image_ids, paths, strict=True))
    for caption in captions:
        print(f"{path_of[caption.image_id]}: {caption.sentence}" if len(path_of) > 1 else caption.sentence)
    if options.heatmap:
        file_of = dict(zip(image_ids, heatmap_files(Path(options.heatmap), image_ids), strict=True))
        for caption in captions:
            save_heatmap(path_of[caption.image_id], caption, file_of[caption.image_id])
            print(f"heatmap: {file_of[caption.image_id]}", file=sys.stderr)
        if len(options.runs) > 1 and captioner.encoder is not None:
            save_member_heatmaps(captioner, captions, path_of, file_of)
    reasons = [
        f"{path}: {reason}"
        for table in (rejects, unreadable)
        for path, reason in zip(table["path"], table["reason"], strict=True)
    ]
    if reasons:
        raise ValueError("; ".join(reasons))
