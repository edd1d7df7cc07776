"""`attncap demo`: drawn faces, from pixels to captions, scores and heatmaps, in a few minutes on two cores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from attncap.attributes.sentences import contradicted_words
from attncap.captions import Caption
from attncap.data.dataset import CaptionData
from attncap.data.faces.claims import true_share
from attncap.data.load import load
from attncap.decoding.alternatives import explore_features
from attncap.decoding.predict import caption_stored
from attncap.features.store import FeatureStore
from attncap.grounding.annotations import phrases_in
from attncap.grounding.measures import Grounding, measure_grounding
from attncap.metrics.coco_json import write_json
from attncap.metrics.evaluate import Scores, evaluate, write_predictions
from attncap.plotting import plot_history, plot_predictions
from attncap.plotting.attention import plot_attention
from attncap.plotting.predictions import words_in_no_reference
from attncap.plotting.style import save_figure
from attncap.training.config import TrainConfig
from attncap.training.recipe import read_recipe
from attncap.training.train import train

PICTURES = 3000
BEAM_WIDTH = 3
EXPLORED = 200  # faces on the page to explore: the first held-out ones
EXTREMES = 4  # best and worst captions in predictions.png
HEATMAPS = 6  # figures of single faces: the first held-out ones
TOLERANCE = 0.03  # of the second pointing game: the 15 pixels that Zhang et al. allow on images of about 500
CONFIG = TrainConfig.from_dict(read_recipe("faces"))


def demo(
    out: str | Path, *, seed: int = 0, pictures: int | None = None, config: TrainConfig = CONFIG
) -> dict[str, Any]:
    """Draw faces, train on them, caption held-out faces, score the captions, and draw where the model looked.

    Args:
        out: folder to write to: `faces/`, `run/`, `predictions.json`, `scores.json` and figures.
        seed: of faces, weights and training.
        pictures: faces to draw; default `PICTURES`.
        config: settings of the training.

    Returns:
        scores: what is in `scores.json`.

    Raises:
        ValueError: `out` holds a demo of another seed, size or settings.
    """
    began = time.monotonic()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    data = load(f"faces:{pictures or PICTURES}", seed=seed, folder=out / "faces")
    print(data.summary())
    run = out / "run"
    begun = (run / "config.json").exists()  # an interrupted demo continues; a finished one is scored and drawn again
    captioner = train(data, run, replace(config, seed=seed), resume=begun, features=out / "features", verbose=2)
    trained = time.monotonic()
    assert captioner.encoder is not None
    held_out = data.split("test")
    store = FeatureStore(out / "features", captioner.encoder)
    store.extract(list(held_out.pictures["path"]))
    captions = caption_stored(captioner, store, held_out.pictures, beam_width=BEAM_WIDTH)
    predictions = {str(caption.image_id): caption.text for caption in captions}
    write_predictions(out / "predictions.json", predictions)
    scores = evaluate(predictions, held_out.references(), train_captions=list(data.split("train").captions["caption"]))
    content = _summary(scores, captions, held_out)
    content["seconds"] = {"training": round(trained - began, 1), "all": round(time.monotonic() - began, 1)}
    write_json(out / "scores.json", content, indent=2)
    _draw(out, held_out, captions, scores)
    paths, image_ids = (list(held_out.pictures[name].head(EXPLORED)) for name in ("path", "image_id"))
    assert held_out.attributes is not None
    facts: dict[Any, Any] = {face["image_id"]: face for face in held_out.attributes.to_dict("records")}
    explorer = explore_features(
        captioner,
        store.get(paths),
        image_ids,
        paths,
        held_out.references(),
        beam_width=BEAM_WIDTH,
        wrong=lambda caption: contradicted_words(caption, facts[caption.image_id]),
    )
    explorer.save(out / "explore.html")
    print(_table(scores, content, out))
    return content


def _summary(scores: Scores, captions: Sequence[Caption], held_out: CaptionData) -> dict[str, Any]:
    assert held_out.attributes is not None
    share, stated = true_share({str(c.image_id): c.text for c in captions}, held_out.attributes)
    content = scores.to_json_dict()
    content["true_characteristics"] = {"share": share, "stated": stated}
    measured = ground_faces(captions, held_out).to_json_dict()
    content["grounding"] = {**measured, "per_characteristic": measured.pop("per_type")}
    near = ground_faces(captions, held_out, tolerance=TOLERANCE).to_json_dict()
    pointing = ("pointing_game", "pointing_uniform", "pointing_center")
    content["grounding"]["within_tolerance"] = {
        "tolerance": TOLERANCE,
        **{name: near[name] for name in pointing},
        "mean_over_types": {name: near["mean_over_types"][name] for name in pointing},
        "per_characteristic": {kind: {name: row[name] for name in pointing} for kind, row in near["per_type"].items()},
    }
    return content


def ground_faces(captions: Sequence[Caption], faces: CaptionData, **options: Any) -> Grounding:
    """Measure whether the maps of words that state a characteristic fall on its box.

    Args:
        captions: of faces, with maps.
        faces: their data, with boxes.
        options: of `measure_grounding`.
    """
    assert faces.boxes is not None
    return measure_grounding(captions, phrases_in(captions, faces, {}), **options)


def _draw(out: Path, held_out: CaptionData, captions: Sequence[Caption], scores: Scores) -> None:
    paths = dict(zip(held_out.pictures["image_id"], held_out.pictures["path"], strict=True))
    references = held_out.references()
    for number, caption in enumerate(captions[:HEATMAPS], start=1):
        save_figure(plot_attention(paths[str(caption.image_id)], caption), out / f"heatmap_{number}.png")
    save_figure(plot_history(pd.read_csv(out / "run" / "history.csv")), out / "training.png")
    ranked = scores.per_image.sort_values("cider_d")["image_id"].tolist()
    best, worst = ranked[-EXTREMES:][::-1], ranked[:EXTREMES]  # so that the page shows failures too
    sheet = [*best, *worst]
    by_id = {str(caption.image_id): caption for caption in captions}
    score_of = scores.per_image.set_index("image_id")["cider_d"]
    figure = plot_predictions(
        [paths[image_id] for image_id in sheet],
        [by_id[image_id] for image_id in sheet],
        [references[image_id] for image_id in sheet],
        [float(score_of[image_id]) for image_id in sheet],
        wrong=[words_in_no_reference(by_id[image_id], references[image_id]) for image_id in sheet],
        sections=[("Best", len(best)), ("Worst", len(worst))],
        columns=EXTREMES,
        title=f"The {EXTREMES} best and the {EXTREMES} worst captions of {len(captions)} held-out faces, by CIDEr-D; "
        "words that no reference contains are underlined",
    )
    save_figure(figure, out / "predictions.png")


def _table(scores: Scores, content: dict[str, Any], out: Path) -> str:
    return "\n".join(
        [
            "",
            f"Held-out faces, beam width {BEAM_WIDTH}:",
            scores.table(),
            *_claims(content["true_characteristics"], content["grounding"]),
            f"{content['seconds']['all']:.0f} s in all; scores, captions and figures are in {out}",
            f"see every word's map:  open {out / 'explore.html'} in a browser",
            f"caption an image of yours:  attncap caption --run {out / 'run'} face.png --heatmap heatmap.png",
        ]
    )


def _claims(true: dict[str, Any], grounding: dict[str, Any]) -> list[str]:
    if not true["stated"] or not grounding["n_phrases"]:
        return ["the captions state no characteristic: this model has learned too little"]
    near = grounding["within_tolerance"]
    mean, near_mean = grounding["mean_over_types"], near["mean_over_types"]
    lines = [
        f"{true['share']:.1%} of {true['stated']} stated characteristics are true of the face",
        f"attention correctness {grounding['attention_correctness']:.3f} (a uniform map: {grounding['uniform']:.3f}), "
        f"over {grounding['n_phrases']} words that name a region",
        f"pointing game {grounding['pointing_game']:.3f}, {mean['pointing_game']:.3f} averaged over characteristics "
        f"(the average map: {mean['pointing_center']:.3f}); within {near['tolerance']:.0%} of the image's side "
        f"{near['pointing_game']:.3f}, {near_mean['pointing_game']:.3f} ({near_mean['pointing_center']:.3f})",
        f"{'':<18}{'words':>7}{'correctness':>13}{'uniform':>9}{'pointing':>10}{'within':>8}",
    ]
    for name, row in grounding["per_characteristic"].items():
        lines.append(
            f"{name:<18}{row['n_phrases']:>7}{row['attention_correctness']:>13.3f}{row['uniform']:>9.3f}"
            f"{row['pointing_game']:>10.3f}{near['per_characteristic'][name]['pointing_game']:>8.3f}"
        )
    return lines
