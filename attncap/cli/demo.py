"""`attncap demo`: draw faces, train on them, score held-out faces, draw heatmaps."""

from __future__ import annotations

import argparse
from typing import Any

from attncap.cli import options as cli
from attncap.cli.outputs import OutputFolder


def add_commands(commands: Any) -> None:
    """Declare `demo`."""
    parser = cli.add_command(commands, "demo", _demo)
    out, help_text = OutputFolder("runs/demo"), "folder to write to (default runs/demo)"
    parser.add_argument("--out", default=out, type=OutputFolder, metavar="DIR", help=help_text)
    parser.add_argument("--seed", type=int, default=0, help="seed of faces and training (default 0)")
    parser.add_argument("--pictures", type=int, metavar="N", help="number of faces to draw (default 3000)")


def _demo(options: argparse.Namespace) -> None:
    """Draw faces, train on them, score, draw heatmaps.

    Example:
        attncap demo --out runs/demo
    """
    from attncap.reports.demo import demo

    demo(options.out, seed=options.seed, pictures=options.pictures)
