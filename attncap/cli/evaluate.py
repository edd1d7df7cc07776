"""`attncap evaluate`: score captions against references, from the command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attncap._messages import listed
from attncap.cli import options as cli


def add_commands(commands: Any) -> None:
    """Declare `attncap evaluate`."""
    parser = cli.add_command(commands, "evaluate", _evaluate)
    data = cli.group(parser, "data")
    data.add_argument("--predictions", required=True, metavar="JSON", help="COCO results JSON")
    data.add_argument("--against", metavar="JSON", help="predictions of a second system, for a paired test")
    what = "COCO captions JSON, or a data set"
    cli.add_data(parser, option="--references", what=what, seed="seed of the splits and of resampling")
    measure = cli.group(parser, "measure")
    measure.add_argument("--metrics", metavar="NAMES", help="names, with commas between (default bleu,rouge_l,cider)")
    measure.add_argument(
        "--brevity",
        choices=("closest", "shortest", "none"),
        default="closest",
        help="reference length of BLEU's brevity penalty (default closest)",
    )
    measure.add_argument("--meteor", action="store_true", help="also METEOR (needs pycocoevalcap and Java)")
    measure.add_argument(
        "--characteristics",
        nargs="?",
        const="",
        metavar="CSV",
        help="also score the characteristics that texts state, by this file of `attncap characteristics`; without a "
        "file, texts are split at separators",
    )
    help_text = "CSV (first column: image_id) or CelebA's text: the share of claims that it confirms"
    measure.add_argument("--facts", metavar="TABLE", help=help_text)
    cli.add_output(parser, "CSV", "also write the scores of each image")
    cli.add_json(parser)


def _evaluate(options: argparse.Namespace) -> None:
    """Score captions against references: BLEU, ROUGE-L, CIDEr, and the characteristics that they state.

    Example:
        attncap evaluate --predictions predictions.json --references flickr8k:flickr8k --split dev
    """
    from attncap.metrics.evaluate import check_ids, compare, evaluate, read_predictions
    from attncap.metrics.registry import STANDARD_METRICS

    predictions = read_predictions(options.predictions)
    against = None if options.against is None else read_predictions(options.against)
    references, training = _references(options, predictions)
    check_ids(predictions, references, options.predictions, options.references)
    metrics: Any = options.metrics.split(",") if options.metrics else None
    stated = _characteristics(options, references)
    if stated is not None:
        metrics = [*(metrics or STANDARD_METRICS), stated]
    scored: dict[str, Any] = {"metrics": metrics, "brevity": options.brevity, "seed": options.seed}
    scores = evaluate(predictions, references, train_captions=training, meteor=options.meteor, **scored)
    difference = None
    if against is not None:
        check_ids(against, references, options.against, options.references)
        difference = compare(predictions, against, references, **scored)
    if options.out:
        from attncap._files import write_csv

        write_csv(options.out, scores.per_image)
    claims = None if stated is None else _claims(predictions, references, training, stated, options.seed)
    if options.json:
        content = scores.to_json_dict()
        if difference is not None:
            content["against"] = difference.to_json_dict()
        if claims is not None:
            content["characteristics"] = claims
        print(json.dumps(content, indent=2))
        return
    print(scores.table())
    if difference is not None:
        print(difference.table())
    if claims is not None:
        _print_claims(claims)


def _characteristics(options: argparse.Namespace, references: Mapping[str, Any]) -> Any:
    """Return the metric of --characteristics; None without the option."""
    if options.characteristics is None:
        if options.facts:
            raise ValueError("--facts: needs --characteristics, with or without a file")
        return None
    from attncap.characteristics.lexicon import Lexicon
    from attncap.metrics.characteristics import Characteristics, Facts

    lexicon = Lexicon.read(options.characteristics) if options.characteristics else None
    facts = Facts.read(options.facts) if options.facts else None
    if facts is not None and not facts.image_ids & set(references):
        raise ValueError(
            f"{options.facts}: no row for any image of {options.references}: first column image_id expected"
        )
    if facts is not None and lexicon is not None:
        unknown = [name for name in lexicon.characteristics if not facts.knows(name)]
        if len(unknown) == len(lexicon.characteristics):
            raise ValueError(f"{options.facts}: no column is named like a characteristic of {options.characteristics}")
        if unknown:
            print(f"{options.facts}: no column for {listed(unknown, 10)}: not judged", file=sys.stderr)
    return Characteristics(lexicon, facts)


def _claims(predictions: Any, references: Any, training: Any, metric: Any, seed: int) -> dict[str, Any]:
    from attncap.metrics.characteristics import baselines, per_characteristic
    from attncap.metrics.diversity import diversity
    from attncap.metrics.retrieval import retrieval

    lexicon, facts = metric.lexicon, metric.facts
    tables = {
        "baselines": baselines(predictions, references, training, lexicon, facts, seed),
        "per_characteristic": per_characteristic(predictions, references, lexicon, facts),
    }
    return {
        **{name: json.loads(table.to_json(orient="records")) for name, table in tables.items()},
        "retrieval": retrieval(predictions, references, lexicon),
        "diversity": diversity((predictions[image_id] for image_id in references), lexicon),
    }


def _print_claims(found: dict[str, Any], most: int = 20) -> None:
    import pandas as pd

    print("\nWhat captions state, compared with trivial baselines:")
    print(pd.DataFrame(found["baselines"]).round(3).to_string(index=False))
    kinds = pd.DataFrame(found["per_characteristic"])
    print(f"\nThe {min(most, len(kinds))} characteristics that references state most, of {len(kinds)}:")
    print(kinds.head(most).round(3).to_string(index=False))
    ranks, varied = found["retrieval"], found["diversity"]
    print(
        f"\nretrieval of the own text by the caption: R@1 {ranks['recall_at_1']:.3f}, "
        f"R@10 {ranks['recall_at_10']:.3f}, median rank {ranks['median_rank']:g} (chance {ranks['chance_rank']:g})"
    )
    print(
        f"diversity: {varied['distinct']:.3f} distinct, Div-1 {varied['div_1']:.3f}, Div-2 {varied['div_2']:.3f}; "
        f"the five most common claims are {varied['top_share']:.1%} of all"
    )


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
