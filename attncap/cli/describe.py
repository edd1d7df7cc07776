"""`attncap describe`: say what people would say of images, each claim with its probability."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from attncap.cli import options as cli

WHAT_IT_MEANS = "(people leave most things unsaid: a phrase is more often true than said)"


def add_commands(commands: Any) -> None:
    """Declare `describe`."""
    parser = cli.add_command(commands, "describe", _describe)
    cli.add_images(parser)
    cli.add_classifier(parser)
    output = cli.group(parser, "output")
    output.add_argument("--most", type=int, default=5, metavar="N", help="claims per image (default 5)")
    cli.add_json(parser, "print JSON: claims, probabilities, distance")


def _describe(options: argparse.Namespace) -> None:
    """Say what is likely and worth saying of images, with the probability that a person would say it.

    Worth saying is what a person would say more often of this image than of any other. A probability is the share of
    people who would say the phrase, not the probability that it is true: people leave out most of what they see, so
    that a phrase with 30% is usually true.

    Example:
        attncap describe --run runs/faces me.jpg
    """
    from attncap.attributes.describe import describe
    from attncap.paths import find_images

    images, rejects = find_images(options.images)
    descriptions = describe(options.run_folder, images["path"].tolist(), most=options.most)
    if options.json:
        print(json.dumps([description.to_json_dict() for description in descriptions], indent=2, ensure_ascii=False))
    else:
        for description in descriptions:
            if description.error is None:
                name = f"{description.image}: " if len(descriptions) > 1 else ""
                print(name + "\n".join(description.lines()))
        if any(description.claims for description in descriptions):
            print(WHAT_IT_MEANS)
    unread = [*(rejects["path"] + ": " + rejects["reason"])]
    unread += [f"{one.image}: {one.error}" for one in descriptions if one.error is not None]
    if len(unread) == len(descriptions) + len(rejects):
        raise ValueError("; ".join(unread))
    for line in unread:
        print(line, file=sys.stderr)
