"""`attncap caption`: print the captions of images, and draw where the model looked."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from attncap.cli.ensemble import save_member_heatmaps
from attncap.cli.options import (
    add_command,
    add_consensus,
    add_decoding,
    add_run,
    captioner_of,
    decoder_of,
    save_heatmap,
)


def add_commands(commands: Any) -> None:
    """Declare `caption`."""
    parser = add_command(
        commands,
        "caption",
        _caption,
        "print the caption of pictures, and draw where the model looked",
        "attncap caption --run runs/demo/run me.jpg --heatmap me_heatmap.png",
    )
    add_run(parser)
    parser.add_argument("picture", nargs="+", metavar="PICTURE")
    parser.add_argument("--heatmap", metavar="PNG", help="figure to write: the map of every word over the picture")
    add_decoding(parser)
    add_consensus(parser)


def _caption(options: argparse.Namespace) -> None:
    from attncap.decoding.predict import caption_pictures

    captioner = captioner_of(options)
    if options.heatmap and not captioner.has_attention:
        holds = f"holds a {type(captioner).__name__}" if len(options.runs) == 1 else "are an ensemble"
        raise ValueError(
            f"{', '.join(options.runs)}: {holds}, which has no attention maps to draw: "
            "leave --heatmap out, or take a run of --model attention"
        )
    pictures = options.picture
    decoder = decoder_of(options, captioner)
    captions, rejects = caption_pictures(captioner, pictures, pictures, progress=False, decoder=decoder)
    for caption in captions:
        print(f"{caption.image_id}: {caption.text}" if len(pictures) > 1 else caption.text)
        if options.heatmap:
            print(f"heatmap: {save_heatmap(caption, Path(options.heatmap), len(pictures) > 1)}", file=sys.stderr)
    if options.heatmap and len(options.runs) > 1:
        save_member_heatmaps(captioner, captions, Path(options.heatmap), len(pictures) > 1)
    if len(rejects):
        raise ValueError("; ".join(f"{row.path}: {row.reason}" for row in rejects.itertuples()))
