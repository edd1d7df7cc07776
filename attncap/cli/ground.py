"""`attncap ground`: measure whether the captioner looks at what the words name."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from attncap.cli import options as cli
from attncap.cli.outside_features import add_features_file, features_file_of
from attncap.explain.methods import METHODS


def add_commands(commands: Any) -> None:
    """Declare `ground`."""
    parser = cli.add_command(commands, "ground", _ground)
    cli.add_run(parser)
    cli.add_data(parser, seed="seed of the splits and of resampling")
    cli.add_boxes(parser, "boxes to measure against; needed unless --probes is given")
    cli.add_features(parser)
    add_features_file(parser)
    cli.group(parser, "data").add_argument("--limit", type=int, metavar="N", help="only the first N images")
    measure = cli.group(parser, "measure")
    measure.add_argument(
        "--method",
        choices=METHODS,
        default="attention",
        help="whose maps: those of attention, or of attncap explain, for captioners without attention as well (default "
        "attention)",
    )
    measure.add_argument(
        "--generated", action="store_true", help="the captioner's own captions (default: human captions fed in)"
    )
    measure.add_argument(
        "--shift",
        type=int,
        nargs="+",
        metavar="N",
        help="read a word's map at its own step (0), before (-1) or after (1) (default: -1 0 1, or 0 with --method)",
    )
    measure.add_argument(
        "--probes",
        action="store_true",
        help="also make attention uniform, and hide the cell that each map points at; works without --boxes",
    )
    cli.add_output(parser, "PNG", "figure to write: where the captioner looks, by type", option="--plot")
    cli.add_json(parser)
    cli.add_decoding(parser)


def _ground(options: argparse.Namespace) -> None:
    """Measure whether the captioner looks at what the words name, against boxes.

    Example:
        attncap ground --run runs/mine --data flickr8k:flickr8k --split dev --boxes entities:flickr30k_entities.zip
    """
    from attncap.data.load import load
    from attncap.reports.grounding import ground

    report = ground(
        cli.captioner_of(options),
        load(options.data, seed=options.seed),
        options.boxes,
        split=options.split,
        generated=options.generated,
        method=options.method,
        shifts=options.shift,
        features=features_file_of(options) or options.features,
        limit=options.limit,
        probes=options.probes,
        seed=options.seed,
        **cli.decoding(options),
    )
    for count, why in ((report.n_left_out, "have no boxes"), (report.n_unreadable, "cannot be read")):
        if count:
            print(f"{count} images {why} and are left out", file=sys.stderr)
    if options.plot and report.grounding is None:
        raise ValueError("--plot draws what is measured against boxes: add --boxes")
    if options.plot:
        from attncap.grounding.plots import plot_grounding
        from attncap.plotting.style import save_figure

        save_figure(plot_grounding(report.grounding), options.plot)
    print(json.dumps(report.to_json_dict(), indent=2) if options.json else report.to_text())
