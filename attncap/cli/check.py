"""`attncap check`: decode every image of a data set and list what is wrong."""

from __future__ import annotations

import argparse
from typing import Any

from attncap.cli import options as cli
from attncap.data.readers.registry import formats


def add_commands(commands: Any) -> None:
    """Declare `check`."""
    notes = f"\nforms of SPEC:\n{formats()}\n  FOLDER\n      the data set in this folder; its format is guessed\n"
    parser = cli.add_command(commands, "check", _check, notes)
    cli.add_data(parser)
    cli.add_output(parser, "CSV", "file to write: the rows and images that are left out, and why")


def _check(options: argparse.Namespace) -> None:
    """Decode every image of a data set, list what is wrong, and describe the captions.

    Example:
        attncap check --data flickr8k:flickr8k
    """
    from attncap.data.describe import describe_texts
    from attncap.data.load import check, check_summary

    clean, report = check(cli.data_of(options))
    print(check_summary(clean, report))
    profile = describe_texts(clean.captions["caption"].tolist(), len(clean.pictures))
    print("\n".join(["captions:", profile.table(), *(f"note: {line}" for line in profile.difficulties())]))
    if options.out:
        clean.write_rejects(options.out)
        print(f"rejects are listed in {options.out}")
