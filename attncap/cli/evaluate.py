"""`attncap evaluate`: score predictions against references."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from attncap.cli.options import SPEC_HELP, add_command


def add_commands(commands: Any) -> None:
    """Declare `evaluate`."""
    parser = add_command(
        commands,
        "evaluate",
        _evaluate,
        "score predictions against references",
        "attncap evaluate --predictions predictions.json --references flickr8k:flickr8k --split dev",
    )
    parser.add_argument("--predictions", required=True, metavar="JSON", help="COCO results JSON")
    parser.add_argument("--references", required=True, metavar="REFS", help=f"COCO captions JSON, or {SPEC_HELP}")
    parser.add_argument("--split", metavar="S", help="train, val (or dev) or test of a SPEC (default: all)")
    parser.add_argument("--against", metavar="JSON", help="a second system's results, for a paired test")
    parser.add_argument("--brevity", choices=("closest", "shortest", "none"), default="closest", help="BLEU's policy")
    parser.add_argument("--meteor", action="store_true", help="also METEOR (needs pycocoevalcap and Java)")
    parser.add_argument("--seed", type=int, default=0, help="of splits and resampling (default 0)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _evaluate(options: argparse.Namespace) -> None:
    from attncap.metrics.evaluate import check_ids, compare, evaluate, read_predictions

    predictions = read_predictions(options.predictions)
    references, training = _references(options.references, options.split, options.seed)
    check_ids(predictions, references, options.predictions, options.references)
    against = None if options.against is None else read_predictions(options.against)
    scores = evaluate(
        predictions,
        references,
        brevity=options.brevity,
        seed=options.seed,
        train_captions=training,
        meteor=options.meteor,
    )
    difference = None if against is None else compare(predictions, against, references, seed=options.seed)
    if options.json:
        content = scores.to_json_dict()
        if difference is not None:
            content["against"] = difference.to_json_dict()
        print(json.dumps(content, indent=2))
        return
    print(scores.table())
    if difference is not None:
        print(difference.table())


def _references(where: str, split: str | None, seed: int) -> tuple[dict[str, list[str]], list[str] | None]:
    from attncap.data.load import load
    from attncap.metrics.evaluate import read_references

    if Path(where).is_file():
        return read_references(where), None
    data = load(where, seed=seed)
    training = list(data.split("train").captions["caption"])
    return data.references(split), training or None
