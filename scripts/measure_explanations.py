"""Measures maps of several methods: where they point, whether they are faithful, whether they depend on the weights.

    python scripts/measure_explanations.py --run runs/demo/run --data faces:3000 --boxes faces --split test --limit 60

The captioner's own captions are explained. Words that name a region with a box are measured; cells are hidden with the
mean features of the images of the split, the same for all methods. Several --boxes are measured one by one, such as the
parts of a face. Tables are printed in Markdown, and written as JSON with --out; --plot writes the figure.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from attncap.captions import Caption
from attncap.data.load import load
from attncap.decoding.predict import caption_stored
from attncap.explain.faithfulness import measure_maps
from attncap.explain.interventions import measure_interventions, measure_randomization
from attncap.explain.layers import layer_maps
from attncap.explain.methods import METHODS
from attncap.explain.plots import plot_faithfulness
from attncap.explain.words import Explainer
from attncap.features.store import FeatureStore
from attncap.grounding.annotations import load_phrases, phrases_in
from attncap.grounding.measures import Grounding, measure_grounding
from attncap.grounding.phrases import Phrase
from attncap.models.saving import load_captioner
from attncap.models.transformer_captioner import TransformerCaptioner

PARTS = ("pointing", "faithfulness", "layers", "interventions", "randomization")


def main() -> None:
    options = parse_options()
    captioner = load_captioner(options.run)
    methods = options.methods or [name for name in METHODS if name != "attention" or captioner.has_attention]
    whole = load(options.data, **({"folder": options.folder} if options.folder else {})).split(options.split)
    boxed = {spec: load_phrases(spec, whole) for spec in options.boxes or ["faces"]}
    annotated = set.intersection(*(set(data.pictures["image_id"]) for data, _ in boxed.values()))
    image_ids = [name for name in whole.pictures["image_id"] if name in annotated][: options.limit]
    pictures = whole.only(image_ids).pictures
    store = FeatureStore(options.features, captioner.encoder)
    store.extract(list(pictures["path"]))
    features = store.get(list(pictures["path"]))
    captions = caption_stored(captioner, store, pictures, beam_width=options.beam_width)
    named = {spec: phrases_in(captions, data.only(image_ids), phrases) for spec, (data, phrases) in boxed.items()}
    baseline = features.astype(np.float32).mean(axis=(0, 1, 2))  # (D,)
    settings = {"baseline": baseline, "steps": options.steps, "window": options.window}
    content: dict[str, Any] = {"seconds_per_caption": {}}
    explained: dict[str, list[Caption]] = {}
    for method in methods if {"pointing", "faithfulness"} & set(options.measures) else []:
        began = time.monotonic()
        explained[method] = Explainer(captioner, method, **settings)(features, captions)
        content["seconds_per_caption"][method] = (time.monotonic() - began) / len(captions)
        print(f"{method}: {content['seconds_per_caption'][method]:.2f} s per caption", flush=True)
    if "pointing" in options.measures:
        content["pointing"] = pointing(explained, named)
    if "faithfulness" in options.measures:
        words = sorted(
            {(n, p.end - 1) for own in named.values() for n, ps in enumerate(own) for p in ps if len(p.boxes)}
        )
        faithful = measure_maps(captioner, features, explained, words, baseline=baseline)
        print(f"{faithful.to_markdown()}\n{faithful.n_words} words of {faithful.n_images} images", flush=True)
        content["faithfulness"] = faithful.to_json_dict()
        if options.plot:
            plot_faithfulness(faithful).savefig(options.plot)
    if "layers" in options.measures and isinstance(captioner, TransformerCaptioner):
        content["layers"] = pointing(layer_maps(captioner, features, captions), named)
    if "interventions" in options.measures and captioner.has_attention:
        changed = measure_interventions(captioner, features, captions)
        print(changed.round(3).to_string(), flush=True)
        content["interventions"] = changed.to_dict("index")
    if "randomization" in options.measures:
        some = slice(0, options.random_weights)
        table = measure_randomization(captioner, features[some], captions[some], methods, **settings)
        print(_wide(table).to_string(), flush=True)
        content["randomized"] = table.to_dict("records")
    if options.out:
        options.out.write_text(json.dumps(content, indent=2, default=float) + "\n", encoding="utf-8")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--folder", help="of drawn faces that are there already")
    parser.add_argument("--boxes", action="append", help="default: faces; may be given several times")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, default=60, help="images")
    parser.add_argument("--measures", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument("--random-weights", type=int, default=8, metavar="N", help="images of the randomized weights")
    parser.add_argument("--method", action="append", choices=METHODS, dest="methods")
    parser.add_argument("--steps", type=int, default=8, help="of integrated gradients")
    parser.add_argument("--window", type=int, help="of occlusion, in cells")
    parser.add_argument("--beam-width", type=int, default=3)
    parser.add_argument("--features", type=Path, help="folder of feature stores")
    parser.add_argument("--out", type=Path, help="JSON to write")
    parser.add_argument("--plot", type=Path, help="PNG to write")
    return parser.parse_args()


def pointing(
    explained: Mapping[str, Sequence[Caption]], named: Mapping[str, Sequence[Sequence[Phrase]]]
) -> dict[str, dict[str, Any]]:
    """Print a table for each source of boxes; return the numbers."""
    content = {}
    for spec, phrases in named.items():
        found = {name: measure_grounding(captions, phrases) for name, captions in explained.items()}
        print(f"\n{spec}\n{_pointing_table(found)}", flush=True)
        content[spec] = {name: measured.to_json_dict() for name, measured in found.items()}
    return content


def words_with_boxes(named: Sequence[Sequence[Phrase]]) -> set[tuple[int, int]]:
    """The last word of each phrase that has a box, as (caption, word)."""
    return {(number, phrase.end - 1) for number, own in enumerate(named) for phrase in own if len(phrase.boxes)}


def _pointing_table(pointing: Mapping[str, Grounding]) -> str:
    lines = ["| maps | pointing game | attention correctness |", "| --- | ---: | ---: |"]
    for name, found in pointing.items():
        cells = []
        for measure in ("pointing_game", "attention_correctness"):
            low, high = found.intervals[measure]
            cells.append(f"{getattr(found, measure):.3f} [{low:.3f}, {high:.3f}]")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    name, first = next(iter(pointing.items()))
    lines.append(f"| average map of {name} | {first.pointing_center:.3f} | {first.center:.3f} |")
    lines.append(f"| uniform | {first.pointing_uniform:.3f} | {first.uniform:.3f} |")
    return "\n".join(lines) + f"\n{first.n_phrases} words of {first.n_pictures} images"


def _wide(table: pd.DataFrame) -> pd.DataFrame:
    cells = table.assign(cell=[f"{r.correlation:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in table.itertuples()])
    return cells.pivot(index=["layers", "layer"], columns="method", values="cell")


if __name__ == "__main__":
    main()
