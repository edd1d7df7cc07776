"""`attncap ground`: measure whether the captioner looks at what the words name."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from attncap.cli.options import (
    OutputFile,
    add_boxes,
    add_command,
    add_data,
    add_decoding,
    add_features,
    add_json,
    add_run,
    captioner_of,
    decoding,
    group,
)
from attncap.cli.outside_features import add_features_file, features_file_of
from attncap.explain.methods import METHODS


def add_commands(commands: Any) -> None:
    """Declare `ground`."""
    parser = add_command(
        commands,
        "ground",
        _ground,
        "measure whether the captioner looks at what the words name, against boxes",
        "attncap ground --run runs/mine --data flickr8k:flickr8k --split dev --boxes entities:flickr30k_entities.zip",
    )
    add_run(parser)
    add_data(parser, seed="seed of the splits and of resampling")
    add_boxes(parser, "boxes to measure against; needed unless --probes is given")
    add_features(parser)
    add_features_file(parser)
    group(parser, "data").add_argument("--limit", type=int, metavar="N", help="only the first N images")
    measure = group(parser, "measure")
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
    group(parser, "output").add_argument(
        "--plot", type=OutputFile, metavar="PNG", help="figure to write: where the captioner looks, by type"
    )
    add_json(parser)
    add_decoding(parser)


def _ground(options: argparse.Namespace) -> None:
    from attncap.data.load import load
    from attncap.reports.grounding import ground

    report = ground(
        captioner_of(options),
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
        **decoding(options),
    )
    for count, why in ((report.n_left_out, "have no boxes"), (report.n_unreadable, "cannot be read")):
        if count:
            print(f"{count} images {why} and are left out", file=sys.stderr)
    if options.plot and report.grounding is None:
        raise ValueError("--plot draws what is measured against boxes: add --boxes")
    if options.plot:
        from attncap.grounding.plots import plot_grounding
        from attncap.plotting.style import root_figure

        figure = root_figure(plot_grounding(report.grounding))
        assert figure is not None
        figure.savefig(options.plot)
    print(json.dumps(report.to_json_dict(), indent=2) if options.json else report.to_text())
