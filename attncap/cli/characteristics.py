"""`attncap characteristics mine|label`: from free texts to a table of attributes."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from attncap.cli.options import SPEC_HELP, OutputFile, add_command


def add_commands(commands: Any) -> None:
    """Declare `characteristics` and its commands."""
    family = commands.add_parser(
        "characteristics",
        help="characteristics that texts state: mine, label",
        description="Find the characteristics that free texts state, and turn the texts into a table of attributes.",
    )
    own = family.add_subparsers(dest="characteristics_command", required=True, metavar="COMMAND")
    mine = add_command(
        own,
        "mine",
        _mine,
        "find the phrases of free texts and propose which state the same characteristic",
        "attncap characteristics mine --data table:captions.csv:photographs --weights imagenet "
        "--out characteristics.csv",
    )
    mine.add_argument("--data", required=True, metavar="SPEC", help=SPEC_HELP)
    mine.add_argument(
        "--out", required=True, type=OutputFile, metavar="CSV", help="phrases to write; edit them in a spreadsheet"
    )
    mine.add_argument(
        "--weights",
        metavar="W",
        help="compare images too, with this encoder: imagenet, faces, random, or a weights file (default: texts only)",
    )
    mine.add_argument("--layer", metavar="L", help="layer of the encoder (default: of the weights)")
    mine.add_argument("--features", metavar="DIR", help="folder that keeps the encoder's features (default: none)")
    mine.add_argument(
        "--min-count",
        type=int,
        metavar="N",
        help="fewest texts that say a phrase (default: one in 2,000, at least 3)",
    )
    mine.add_argument("--seed", type=int, default=0, help="of splits; test texts are not read (default 0)")
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
    labels.add_argument("--out", required=True, type=OutputFile, metavar="CSV", help="table to write")
    labels.add_argument(
        "--silence",
        choices=("unknown", "no"),
        default="unknown",
        help="what a text says of a characteristic that it does not name: unknown (empty cell) or no (0); "
        "default unknown",
    )
    labels.add_argument("--seed", type=int, default=0, help="of splits (default 0)")


def _mine(options: argparse.Namespace) -> None:
    from attncap.characteristics.mining import mine
    from attncap.data.load import load

    data = load(options.data, seed=options.seed)
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

    from attncap.features.extractor import FeatureExtractor
    from attncap.features.store import FeatureStore
    from attncap.retrieval.embeddings import PooledEmbedding

    extractor = FeatureExtractor(options.layer, options.weights)
    encoder = PooledEmbedding(extractor, FeatureStore(options.features, extractor) if options.features else None)
    codes = encoder.encode(data.pictures["path"].tolist(), progress=True)
    found = {
        image_id: code
        for image_id, code in zip(data.pictures["image_id"], codes, strict=True)
        if isinstance(code, np.ndarray)
    }
    if len(found) < len(codes):
        print(f"{len(codes) - len(found)} images cannot be read and are left out", file=sys.stderr)
    data = data.only(found)
    if not found:
        raise ValueError(f"{options.data}: no image can be read")
    return data, np.stack([found[image_id] for image_id in data.captions["image_id"]])


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
