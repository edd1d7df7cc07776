"""`attncap evaluate`: score captions against references, from the command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attncap.cli.options import SPEC_HELP, add_command


def add_commands(commands: Any) -> None:
    """Declare `attncap evaluate`."""
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
    parser.add_argument("--against", metavar="JSON", help="results of a second system, for a paired test")
    parser.add_argument(
        "--metrics",
        metavar="NAMES",
        help="comma-separated names of metrics (default bleu,rouge_l,cider)",
    )
    parser.add_argument("--plugin", metavar="FILE", action="append", help="Python file that registers metrics")
    parser.add_argument(
        "--brevity",
        choices=("closest", "shortest", "none"),
        default="closest",
        help="reference length of BLEU's brevity penalty (default closest)",
    )
    parser.add_argument("--meteor", action="store_true", help="also METEOR (needs pycocoevalcap and Java)")
    parser.add_argument("--seed", type=int, default=0, help="seed of splits and resampling (default 0)")
    parser.add_argument("--out", metavar="CSV", help="write the scores of each image")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _evaluate(options: argparse.Namespace) -> None:
    from attncap.metrics.evaluate import check_ids, compare, evaluate, read_predictions

    inputs = [options.predictions, options.references, *([options.against] if options.against else [])]
    if options.out and any(_same_file(options.out, name) for name in inputs):
        raise ValueError(f"--out {options.out}: is an input file; name another file")
    for file in options.plugin or ():
        _run_plugin(file)
    predictions = read_predictions(options.predictions)
    against = None if options.against is None else read_predictions(options.against)
    references, training = _references(options, predictions)
    check_ids(predictions, references, options.predictions, options.references)
    metrics = options.metrics.split(",") if options.metrics else None
    scores = evaluate(
        predictions,
        references,
        metrics=metrics,
        brevity=options.brevity,
        seed=options.seed,
        train_captions=training,
        meteor=options.meteor,
    )
    difference = None
    if against is not None:
        check_ids(against, references, options.against, options.references)
        difference = compare(
            predictions, against, references, metrics=metrics, brevity=options.brevity, seed=options.seed
        )
    if options.out:
        from attncap._files import replacing

        with replacing(options.out) as temporary:
            scores.per_image.to_csv(temporary, index=False)
    if options.json:
        content = scores.to_json_dict()
        if difference is not None:
            content["against"] = difference.to_json_dict()
        print(json.dumps(content, indent=2))
        return
    print(scores.table())
    if difference is not None:
        print(difference.table())


def _references(
    options: argparse.Namespace, predictions: Mapping[str, str]
) -> tuple[dict[str, list[str]], list[str] | None]:
    """Return the references, and the training captions where the data set has some.

    Images without a prediction that cannot be read are left out: `attncap predict` could not caption them.
    """
    from attncap.data.load import load
    from attncap.images import UnreadableImage, open_image
    from attncap.metrics.evaluate import read_references

    if Path(options.references).is_file():
        return read_references(options.references), None
    data = load(options.references, seed=options.seed)
    references = data.references(options.split)
    paths = dict(zip(data.pictures["image_id"], data.pictures["path"], strict=True))
    unreadable = []
    for image_id in [image_id for image_id in references if image_id not in predictions]:
        try:
            open_image(paths[image_id])
        except UnreadableImage:
            unreadable.append(image_id)
            del references[image_id]
    if unreadable:
        print(
            f"{len(unreadable)} images cannot be read and have no prediction (first {unreadable[0]}): left out",
            file=sys.stderr,
        )
    training = list(data.split("train").captions["caption"])
    return references, training or None


def _same_file(first: str, second: str) -> bool:
    return Path(first).exists() and Path(second).exists() and Path(first).samefile(second)


def _run_plugin(file: str) -> None:
    import runpy

    if not Path(file).is_file():
        raise FileNotFoundError(f"--plugin {file}: no such file")
    runpy.run_path(file)
