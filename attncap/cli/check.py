"""`attncap check`: decode every image of a data set and list what is wrong."""

from __future__ import annotations

import argparse
from typing import Any

from attncap.cli.options import SPEC_HELP, OutputFile, add_command


def add_commands(commands: Any) -> None:
    """Declare `check`."""
    parser = add_command(
        commands,
        "check",
        _check,
        "decode every picture and list what is wrong",
        "attncap check --data flickr8k:flickr8k",
    )
    parser.add_argument("--data", required=True, metavar="SPEC", help=SPEC_HELP)
    parser.add_argument("--out", type=OutputFile, metavar="CSV", help="list the rejects here")
    parser.add_argument("--seed", type=int, default=0, help="of splits (default 0)")


def _check(options: argparse.Namespace) -> None:
    from attncap.data.describe import describe_data
    from attncap.data.load import check, check_summary, load

    clean, report = check(load(options.data, seed=options.seed))
    print(check_summary(clean, report))
    profile = describe_data(clean)
    print("\n".join(["captions:", profile.table(), *(f"note: {line}" for line in profile.difficulties())]))
    if options.out:
        clean.write_rejects(options.out)
        print(f"rejects are listed in {options.out}")
