"""Measures maps of several methods: where they point, whether they are faithful, whether they depend on the weights.

    python scripts/measure_explanations.py --run runs/demo/run --data faces:3000 --boxes faces --split test --limit 60

The captioner's own captions are explained. Words that name a region with a box are measured; cells are hidden with the
mean features of the images of the split, the same for all methods. Tables are printed in Markdown, and written as JSON
with --out; --plot writes the figure.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from attncap.data.load import cache_folder, load
from attncap.decoding.predict import caption_stored
from attncap.explain.faithfulness import measure_maps
from attncap.explain.interventions import measure_interventions, measure_randomization
from attncap.explain.layers import layer_maps
from attncap.explain.methods import METHODS
from attncap.explain.plots import plot_faithfulness
from attncap.explain.words import Explainer
from attncap.features.store import FeatureStore
from attncap.grounding.annotations import load_phrases, phrases_in
from attncap.grounding.measures import measure_grounding
from attncap.models.saving import load_captioner
from attncap.models.transformer_captioner import TransformerCaptioner


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--folder", help="of drawn faces that are there already")
    parser.add_argument("--boxes", default="faces")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, default=60, help="images")
    parser.add_argument("--random-weights", type=int, default=8, metavar="N", help="images of the randomized weights")
    parser.add_argument("--method", action="append", choices=METHODS, dest="methods")
    parser.add_argument("--steps", type=int, default=8, help="of integrated gradients")
    parser.add_argument("--window", type=int, help="of occlusion, in cells")
    parser.add_argument("--beam-width", type=int, default=3)
    parser.add_argument("--features", type=Path, help="folder of feature stores")
    parser.add_argument("--out", type=Path, help="JSON to write")
    parser.add_argument("--plot", type=Path, help="PNG to write")
    options = parser.parse_args()
    captioner = load_captioner(options.run)
    methods = options.methods or [name for name in METHODS if name != "attention" or captioner.has_attention]
    data = load(options.data, **({"folder": options.folder} if options.folder else {})).split(options.split)
    data, phrases = load_phrases(options.boxes, data)
    data = data.only(list(data.pictures["image_id"])[: options.limit])
    store = FeatureStore(options.features or cache_folder() / "features", captioner.encoder)
    store.extract(list(data.pictures["path"]))
    features = store.get(list(data.pictures["path"]))
    captions = caption_stored(captioner, store, data.pictures, beam_width=options.beam_width)
    named = phrases_in(captions, data, phrases)
    baseline = features.astype(np.float32).mean(axis=(0, 1, 2))  # (D,)
    explained: dict[str, Any] = {}
    seconds = {}
    for method in methods:
        began = time.monotonic()
        settings = {"baseline": baseline, "steps": options.steps, "window": options.window}
        explained[method] = Explainer(captioner, method, **settings)(features, captions)
        seconds[method] = (time.monotonic() - began) / len(captions)
        print(f"{method}: {seconds[method]:.2f} s per caption", flush=True)

    content: dict[str, Any] = {"seconds_per_caption": seconds}
    pointing = {name: measure_grounding(own, named) for name, own in explained.items()}
    print(_pointing_table(pointing), flush=True)
    content["pointing"] = {name: found.to_json_dict() for name, found in pointing.items()}

    words = [(number, p.end - 1) for number, own in enumerate(named) for p in own if len(p.boxes)]
    faithful = measure_maps(captioner, features, explained, words, baseline=baseline)
    print(faithful.to_markdown(), flush=True)
    print(f"{faithful.n_words} words of {faithful.n_images} images", flush=True)
    content["faithfulness"] = faithful.to_json_dict()
    if options.plot:
        plot_faithfulness(faithful).savefig(options.plot)
    if isinstance(captioner, TransformerCaptioner):
        heads = {name: measure_grounding(own, named) for name, own in layer_maps(captioner, features, captions).items()}
        print(_pointing_table(heads), flush=True)
        content["layers"] = {name: found.to_json_dict() for name, found in heads.items()}
    if captioner.has_attention:
        changed = measure_interventions(captioner, features, captions)
        print(changed.round(3).to_string(), flush=True)
        content["interventions"] = changed.to_dict("index")
    some = slice(0, options.random_weights)
    if options.random_weights:
        table = measure_randomization(
            captioner, features[some], captions[some], methods, baseline=baseline, steps=options.steps
        )
        print(_wide(table).to_string(), flush=True)
        content["randomized"] = table.to_dict("records")
    if options.out:
        options.out.write_text(json.dumps(content, indent=2, default=float) + "\n", encoding="utf-8")


def _pointing_table(pointing: dict[str, Any]) -> str:
    lines = ["| maps | pointing game | attention correctness |", "| --- | ---: | ---: |"]
    for name, found in pointing.items():
        cells = []
        for measure in ("pointing_game", "attention_correctness"):
            low, high = found.intervals[measure]
            cells.append(f"{getattr(found, measure):.3f} [{low:.3f}, {high:.3f}]")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    any_one = next(iter(pointing.values()))
    lines.append(f"| uniform | {any_one.pointing_uniform:.3f} | {any_one.uniform:.3f} |")
    return "\n".join(lines) + f"\n{any_one.n_phrases} words of {any_one.n_pictures} images"


def _wide(table: pd.DataFrame) -> pd.DataFrame:
    cells = table.assign(cell=[f"{r.correlation:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in table.itertuples()])
    return cells.pivot(index=["layers", "layer"], columns="method", values="cell")


if __name__ == "__main__":
    main()
