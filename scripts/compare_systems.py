"""Compares trained runs, retrieval and two baselines on the same held-out pictures: a table, a figure, paired tests.

    python scripts/compare_systems.py --data flickr8k:flickr8k --split dev --layer mixed8 \\
        --attention runs/attention --show-and-tell runs/show_and_tell --beam-width 5 --out which_one.json

Runs must have been trained on the same training split. A system without a run is named below the table.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="SPEC", help="as for attncap train")
    parser.add_argument(
        "--facts", metavar="SPEC", help="attributes:FILE:IMAGES: what captions claim is checked against this table"
    )
    parser.add_argument("--split", default="test", help="the held-out pictures (default test; dev is val)")
    parser.add_argument("--weights", default="imagenet", help="of the embedding's encoder (default imagenet)")
    parser.add_argument("--layer", help="of the embedding's encoder (default: the weights' own)")
    parser.add_argument("--features", metavar="DIR", help="folder of feature stores (default: cache)")
    for name in ("attention", "show-and-tell", "attributes"):
        parser.add_argument(f"--{name}", metavar="RUN", help="run folder or .keras file")
    parser.add_argument("--beam-width", type=int, default=3, metavar="K", help="of the captioners (default 3)")
    parser.add_argument("--length-penalty", type=float, default=0.7, metavar="A", help="exponent (default 0.7)")
    parser.add_argument("--bits", type=int, default=64, help="of the difference hash (default 64)")
    parser.add_argument("--neighbors", type=int, metavar="K", help="that are to agree (default: leave-one-out)")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N held-out pictures only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, metavar="JSON", help="everything but the captions")
    parser.add_argument("--predictions", type=Path, metavar="DIR", help="COCO results JSON of every system")
    parser.add_argument("--plot", type=Path, metavar="PNG")
    options = parser.parse_args()

    import pandas as pd

    from attncap._files import replacing
    from attncap.attributes.tables import load_attributes
    from attncap.data.load import load
    from attncap.metrics.coco_json import write_predictions
    from attncap.reports.comparison import compare_systems, plot_comparison
    from attncap.reports.systems import all_systems

    try:
        systems, held_out, absent = all_systems(
            load(options.data, seed=options.seed),
            split=options.split,
            attention=options.attention,
            show_and_tell=options.show_and_tell,
            attributes=options.attributes,
            weights=options.weights,
            layer=options.layer,
            features=options.features,
            bits=options.bits,
            k=options.neighbors,
            limit=options.limit,
            seed=options.seed,
            decoding={"beam_width": options.beam_width, "length_penalty": options.length_penalty},
        )
        if options.facts:
            facts = load_attributes(options.facts)
            table = pd.DataFrame(facts.labels, columns=list(facts.names))
            table.insert(0, "image_id", facts.pictures["image_id"])
            held_out = replace(held_out, attributes=table[table["image_id"].isin(held_out.pictures["image_id"])])
        comparison = compare_systems(systems, held_out, absent=absent, seed=options.seed)
    except (ValueError, OSError) as error:
        print(f"compare_systems: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(comparison.to_markdown(), end="\n\n")
    print(comparison.tests_text())
    if options.out:
        with replacing(options.out) as temporary:
            temporary.write_text(json.dumps(comparison.to_json_dict(), indent=2) + "\n", encoding="utf-8")
    if options.predictions:
        options.predictions.mkdir(parents=True, exist_ok=True)
        for number, (_, captions) in enumerate(comparison.captions.items(), start=1):
            write_predictions(options.predictions / f"system_{number}.json", captions)
    if options.plot:
        plot_comparison(comparison).savefig(options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
