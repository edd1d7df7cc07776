"""`attncap characteristics mine|label`: from free texts to a table of attributes."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from attncap.cli.options import SPEC_HELP, add_command


def add_commands(commands: Any) -> None:
    """Declare `characteristics` and its commands."""
    family = commands.add_parser(
        "characteristics",
        help="characteristics that texts state: mine, label",
        description="Find the characteristics that free texts state, and turn the texts into a table of attributes.",
    )
    own = family.add_subparsers(dest="characteristics_command", required=True, metavar="COMMAND")
    labels = add_command(
        own,
        "label",
        _label,
        "turn texts into a table of attributes: 1 stated present, 0 stated absent, empty not stated",
        "attncap characteristics label --data table:captions.csv:photographs --characteristics characteristics.csv "
        "--out table.csv",
    )
    labels.add_argument("--data", required=True, metavar="SPEC", help=SPEC_HELP)
    labels.add_argument("--characteristics", required=True, metavar="CSV", help="phrases and what they state")
    labels.add_argument("--out", required=True, metavar="CSV", help="table to write")
    labels.add_argument(
        "--silence",
        choices=("unknown", "no"),
        default="unknown",
        help="what a text says of a characteristic that it does not name: unknown (empty cell) or no (0); "
        "default unknown",
    )
    labels.add_argument("--seed", type=int, default=0, help="of splits (default 0)")


def _label(options: argparse.Namespace) -> None:
    from attncap.characteristics.labels import RARE, count_statements, label, rare_characteristics, write_table
    from attncap.characteristics.lexicon import Lexicon
    from attncap.data.load import load

    lexicon = Lexicon.read(options.characteristics)
    if not lexicon.characteristics:
        raise ValueError(f"{options.characteristics}: no characteristic: fill the first column for at least one phrase")
    data = load(options.data, seed=options.seed)
    stated = label(data, lexicon)
    table = stated if options.silence == "unknown" else label(data, lexicon, silence="no")
    write_table(options.out, table)
    counts = count_statements(stated)
    print(counts.to_string(index=False))
    silent = int(stated.drop(columns=["file", "split"]).isna().all(axis=1).sum())
    print(f"{len(table):,} images, {len(lexicon.characteristics)} characteristics in {options.out}")
    if silent:
        print(f"the texts of {silent:,} images state none of the characteristics", file=sys.stderr)
    rare = rare_characteristics(counts)
    if rare:
        print(
            f"stated of fewer than {RARE} images, too rare to learn: {', '.join(rare)}: merge them with others or "
            f"clear their first column in {options.characteristics}",
            file=sys.stderr,
        )
