"""`attncap explain`: draw which parts of an image made each word probable, by several methods side by side."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from attncap.cli import options as cli
from attncap.cli.outputs import heatmap_files
from attncap.cli.outside_features import add_features_file, features_file_of, features_of
from attncap.explain.methods import METHODS


def add_commands(commands: Any) -> None:
    """Declare `explain`."""
    parser = cli.add_command(commands, "explain", _explain)
    cli.add_run(parser)
    cli.add_images(parser)
    add_features_file(parser)
    cli.add_output(parser, "PNG", "figure to write; of several images, NAME_image.png for each", required=True)
    parser.add_argument(
        "--method",
        action="append",
        choices=METHODS,
        dest="methods",
        help="occlusion (hide parts of the image), gradient (integrated gradients) or attention; may be given several "
        "times (default: occlusion, and attention where the captioner has it)",
    )
    parser.add_argument("--caption", metavar="TEXT", help="explain this caption (default: the captioner's own)")
    parser.add_argument(
        "--faithfulness",
        action="store_true",
        help="also print how much the words lose when the parts that the maps point at are hidden",
    )
    cli.group(parser, "output").add_argument(
        "--mode", default="heat", choices=("heat", "reveal", "contour"), help="how maps are drawn (default heat)"
    )
    cli.add_json(parser, "print the numbers as JSON")
    cli.add_decoding(parser)


def _explain(options: argparse.Namespace) -> None:
    """Draw which parts of an image made each word probable, by several methods side by side.

    Example:
        attncap explain --run runs/demo/run me.jpg --out why.png --method occlusion --method attention
    """
    from attncap.decoding.decoder import Decoder
    from attncap.decoding.to_caption import with_boxes
    from attncap.explain.faithfulness import measure_maps
    from attncap.explain.plots import plot_explanations
    from attncap.explain.words import Explainer
    from attncap.paths import find_images
    from attncap.plotting.style import save_figure

    captioner = cli.captioner_of(options)
    methods = options.methods or ["occlusion", *(["attention"] if captioner.has_attention else [])]
    explainers = {method: Explainer(captioner, method, progress=True) for method in methods}
    images, unnamed = find_images(options.images)
    rejects = list(unnamed.itertuples(index=False, name=None))
    path_of = dict(zip(images["image_id"], images["path"], strict=True))
    file_of = dict(zip(path_of, heatmap_files(Path(options.out), list(path_of)), strict=True))
    image_ids, (features, _, boxes) = features_of(captioner, path_of, rejects, features_file_of(options), draws=True)
    if image_ids:
        if options.caption is None:
            captions = Decoder(captioner, batch_size=32, **cli.decoding(options))(features, image_ids)
        else:
            captions = [options.caption] * len(image_ids)
        explained = {
            method: with_boxes(explainer(features, captions), boxes) for method, explainer in explainers.items()
        }
        for number, image_id in enumerate(image_ids):
            path = path_of[image_id]
            own = {method: found[number] for method, found in explained.items()}
            text = next(iter(own.values())).text
            if not options.json:
                print(f"{path}: {text}" if len(path_of) > 1 else text)
            if not text:
                print(f"{path}: the caption is empty: nothing to explain", file=sys.stderr)
                continue
            first = next(iter(own.values()))
            unknown = [word for word, p in zip(first.words, first.word_log_probs, strict=True) if p == -math.inf]
            if unknown:
                print(f"{path}: not in the vocabulary, so not explained: {', '.join(unknown)}", file=sys.stderr)
            save_figure(plot_explanations(path, own, mode=options.mode), file_of[image_id])
            print(f"figure: {file_of[image_id]}", file=sys.stderr)
        if options.faithfulness:
            measured = measure_maps(captioner, features, explained)
            print(json.dumps(measured.to_json_dict(), indent=2) if options.json else measured.to_text())
    if rejects:
        raise ValueError("; ".join(f"{path}: {reason}" for _, path, reason in rejects))
