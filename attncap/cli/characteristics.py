"""`attncap characteristics mine|label`: from free texts to a table of attributes."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from attncap._messages import listed
from attncap.cli import options as cli

SHOWN = 30  # characteristics that `label` lists


def add_commands(commands: Any) -> None:
    """Declare `characteristics` and its commands."""
    family = commands.add_parser(
        "characteristics",
        help="characteristics that texts state: mine, label",
        description="Find the characteristics that free texts state, and turn the texts into a table of attributes.",
    )
    own = family.add_subparsers(dest="characteristics_command", required=True, metavar="COMMAND")
    mine = cli.add_command(own, "mine", _mine)
    cli.add_data(mine, split=False, seed="seed of the splits; test texts are not read")
    cli.add_features(mine)
    cli.add_output(mine, "CSV", "phrases to write; edit them in a spreadsheet", required=True)
    mine.add_argument(
        "--weights",
        metavar="W",
        help="compare images too, with this encoder: imagenet, faces, random, or a weights file (default: texts only)",
    )
    mine.add_argument(
        "--layers", metavar="L", help="layers with the sides of their grids, as in attributes train (default: the same)"
    )
    help_text = "fewest texts that say a phrase (default: one in 2,000, at least 3)"
    mine.add_argument("--min-count", type=int, metavar="N", help=help_text)
    labels = cli.add_command(own, "label", _label)
    cli.add_data(labels, split=False)
    labels.add_argument("--characteristics", required=True, metavar="CSV", help="phrases and what they state")
    cli.add_output(labels, "CSV", "table to write", required=True)
    labels.add_argument(
        "--silence",
        choices=("unknown", "no"),
        default="unknown",
        help="what a text says of a characteristic that it does not name: unknown (empty cell) or no (0); "
        "default unknown",
    )


def _mine(options: argparse.Namespace) -> None:
    """Find the phrases of free texts and propose which state the same characteristic.

    Example:
        attncap characteristics mine --data table:captions.csv:photographs --weights imagenet --out characteristics.csv
    """
    from attncap.characteristics.mining import mine

    data = cli.data_of(options)
    kept = data.pictures["image_id"][data.pictures["split"] != "test"]
    data = data.only(kept)
    embeddings = None
    if options.weights:
        data, embeddings = _embed(data, options)
    texts = data.captions["caption"].tolist()
    mined = mine(texts, embeddings=embeddings, min_count=options.min_count)
    mined.lexicon.write(options.out)
    entries = mined.lexicon.entries
    open_proposals = len({entry.characteristic for entry in entries if entry.proposal.startswith("the same as")})
    print(f"{len(texts):,} texts, those of the test split left out")
    print(
        f"{len(entries)} phrases, {len(mined.lexicon.characteristics)} characteristics in {options.out}; "
        f"{open_proposals} proposals to decide; {mined.left_out} phrases too rare"
    )
    if embeddings is None:
        print("only wording was compared: with --weights, phrases whose images look alike are merged too")


def _embed(data: Any, options: argparse.Namespace) -> tuple[Any, Any]:
    """Leave out images that cannot be read, and return an embedding for each text."""
    import numpy as np

    from attncap.attributes.encoder import GridEncoder, last_layer_means
    from attncap.features.store import FeatureStore

    encoder = GridEncoder(options.layers.split(",") if options.layers else None, options.weights)
    store = FeatureStore(options.features, encoder)
    unreadable = set(store.extract(data.pictures["path"].tolist())["path"])
    if unreadable:
        print(f"{len(unreadable)} images cannot be read and are left out", file=sys.stderr)
    data = data.only(data.pictures["image_id"][~data.pictures["path"].isin(unreadable)])
    if not len(data.pictures):
        raise ValueError(f"{options.data}: no image can be read")
    path_of = dict(zip(data.pictures["image_id"], data.pictures["path"], strict=True))
    paths = [path_of[image_id] for image_id in data.captions["image_id"]]
    parts = [last_layer_means(store.get(paths[at : at + 256]), encoder.grids) for at in range(0, len(paths), 256)]
    return data, np.concatenate(parts)


def _label(options: argparse.Namespace) -> None:
    """Turn texts into a table of attributes: 1 stated present, 0 stated absent, empty not stated.

    Example:
        attncap characteristics label --data table:captions.csv:photographs --characteristics characteristics.csv
            --out table.csv
    """
    from attncap._files import write_csv
    from attncap.characteristics.labels import RARE, count_statements, label, rare_characteristics
    from attncap.characteristics.lexicon import Lexicon

    lexicon = Lexicon.read(options.characteristics)
    if not lexicon.characteristics:
        raise ValueError(f"{options.characteristics}: no characteristic: fill the first column for at least one phrase")
    data = cli.data_of(options)
    stated = label(data, lexicon)
    table = stated if options.silence == "unknown" else label(data, lexicon, silence="no")
    write_csv(options.out, table)
    counts = count_statements(stated)
    print(counts.head(SHOWN).to_string(index=False))
    if len(counts) > SHOWN:
        print(f"and {len(counts) - SHOWN} more, each present in at most {counts['present'][SHOWN]:,} images")
    silent = int(stated.drop(columns=["file", "split"]).isna().all(axis=1).sum())
    print(f"{len(table):,} images, {len(lexicon.characteristics)} characteristics in {options.out}")
    if silent:
        print(f"the texts of {silent:,} images state none of the characteristics", file=sys.stderr)
    rare = rare_characteristics(counts)
    if rare:
        print(
            f"stated of fewer than {RARE} images, too rare: {listed(rare, 10)}: merge them with others or clear their "
            f"first column in {options.characteristics}",
            file=sys.stderr,
        )
