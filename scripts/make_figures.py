"""Draws figures/ from a finished demo and the other four systems, trained beside it: `make figures`.

Nothing is drawn that was not measured on the demo's held-out faces; seeds are fixed. What is trained stays in the
demo's folder, so that a second call only draws. The face of `heatmap.png` is the first held-out one, in order of names,
whose caption has ten words or more and is true in all that it states; that of `mistake.png` the first whose caption
states something false.
"""

from __future__ import annotations

import argparse
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from systems_map import plot_systems

from attncap.attributes.classifier import AttributeClassifier, load_classifier
from attncap.attributes.config import AttributeConfig
from attncap.attributes.plots import plot_precision_recall
from attncap.attributes.predict import predict_images
from attncap.attributes.tables import AttributeData, characteristics_as_labels, faces_columns
from attncap.attributes.training import train_attributes
from attncap.data.dataset import CaptionData
from attncap.data.faces.claims import true_share
from attncap.data.load import load
from attncap.decoding.predict import caption_images
from attncap.features.extractor import FeatureExtractor
from attncap.features.store import FeatureStore
from attncap.grounding.plots import plot_grounding
from attncap.models.saving import load_captioner
from attncap.plotting.attention import plot_attention
from attncap.reports.comparison import compare_systems, plot_comparison
from attncap.reports.demo import BEAM_WIDTH, CONFIG, PICTURES, ground_faces
from attncap.reports.systems import all_systems, build_index
from attncap.retrieval.embeddings import PooledEmbedding
from attncap.retrieval.index import DifferenceHash
from attncap.retrieval.plots import plot_threshold_curves
from attncap.retrieval.robustness import changed_copies
from attncap.retrieval.thresholds import tune_threshold
from attncap.training.train import train

POOLED_LAYER = "mixed2"  # what is averaged over the image is read deeper than what is attended to: notebook 07
COPIES = 100  # images that are changed, each in every way, to tune what is the same image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=Path("runs/demo"), help="folder of the demo")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder of the figures")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="faces that the demo drew")
    options = parser.parse_args()
    demo, out = options.demo, options.out
    out.mkdir(parents=True, exist_ok=True)
    faces = load(f"faces:{options.pictures}", folder=demo / "faces")
    draw_maps(faces.split("test"), demo, out)
    for name in ("training.png", "predictions.png"):
        shutil.copy(demo / name, out / name)
    show_and_tell, attributes, classifier = train_others(faces, demo)
    draw_attributes(faces.split("test"), classifier, out)
    draw_thresholds(faces, demo, out)
    draw_systems(faces, demo, show_and_tell, attributes, out)


def draw_maps(held_out: CaptionData, demo: Path, out: Path) -> None:
    """Draw `heatmap.png`, `mistake.png` and `grounding.png`."""
    paths = dict(zip(held_out.pictures["image_id"], held_out.pictures["path"], strict=True))
    captioner = load_captioner(demo / "run")
    captions, _ = caption_images(captioner, list(paths.values()), list(paths), beam_width=BEAM_WIDTH)
    assert held_out.attributes is not None
    wanted = {"heatmap.png", "mistake.png"}
    for caption in captions:
        share, _ = true_share({caption.image_id: caption.text}, held_out.attributes)
        name = "heatmap.png" if share == 1 else "mistake.png"
        if name in wanted and len(caption.words) >= 10:
            plot_attention(paths[caption.image_id], caption).savefig(out / name)
            wanted.remove(name)
    plot_grounding(ground_faces(captions, held_out)).figure.savefig(out / "grounding.png")


def train_others(faces: CaptionData, demo: Path) -> tuple[Path, Path, AttributeClassifier]:
    """Train Show and Tell and the classifier of attributes where they are not yet."""
    features, show_and_tell, attributes = demo / "features", demo / "show_and_tell", demo / "attributes"
    config = replace(CONFIG, model="show-and-tell", layer=POOLED_LAYER)
    config = replace(config, epochs=2 * CONFIG.epochs, learning_rate=2 * CONFIG.learning_rate)
    train(faces, show_and_tell, config, resume=(show_and_tell / "config.json").exists(), features=features, verbose=2)
    if not (attributes / "best.keras").exists():
        shutil.rmtree(attributes, ignore_errors=True)  # of a training that did not end
        assert faces.attributes is not None
        facts = faces.attributes.set_index("image_id").loc[list(faces.pictures["image_id"])].reset_index()
        table = AttributeData(
            faces.name, faces.pictures, faces_columns(), characteristics_as_labels(facts), facts=facts
        )
        settings = AttributeConfig(weights="faces", mirror=False, epochs=12)
        train_attributes(table, attributes, settings, features=features, verbose=2)
    return show_and_tell, attributes, load_classifier(attributes)


def draw_attributes(held_out: CaptionData, classifier: AttributeClassifier, out: Path) -> None:
    """Draw `precision_recall.png`."""
    pictures = held_out.pictures
    probs, _ = predict_images(classifier, list(pictures["path"]), list(pictures["image_id"]))
    assert held_out.attributes is not None
    facts = held_out.attributes.set_index("image_id").loc[list(probs["file"])].reset_index()
    labels = pd.DataFrame(characteristics_as_labels(facts), columns=list(faces_columns()))
    names = list(classifier.names)
    figure = plot_precision_recall(
        probs[names].to_numpy(), labels[names].to_numpy(float), names, thresholds=classifier.thresholds, hardest=True
    )
    figure.savefig(out / "precision_recall.png")


def draw_thresholds(faces: CaptionData, demo: Path, out: Path) -> None:
    """Draw `thresholds.png`: from which distance on a changed copy cannot be told from another image."""
    extractor = FeatureExtractor(POOLED_LAYER, "faces")
    store = FeatureStore(demo / "features", extractor)
    known, strangers = faces.split("train"), list(faces.split("test").pictures["path"])
    sample = known.pictures.sample(min(COPIES, len(known.pictures)), random_state=0)
    curves = {}
    for name, encoder in (("hash, 64 bits", DifferenceHash(64)), ("embedding", PooledEmbedding(extractor, store))):
        index, _ = build_index(known, encoder)
        copies = changed_copies(index, list(sample["path"]), list(sample["image_id"]))
        codes = np.stack([np.asarray(code) for code in encoder.encode(strangers)])
        distances = np.concatenate([copies["distance"], index.nearest(codes)[1][:, 0]])
        same = np.concatenate([copies["found"], np.zeros(len(strangers), bool)])
        curves[name] = tune_threshold(distances, same, whole=encoder.measure == "hash_distance")
    title = "Is it a changed copy of a known image? Errors at each threshold"
    plot_threshold_curves(curves, ["bits", "1 - cosine similarity"], title=title).savefig(out / "thresholds.png")


def draw_systems(faces: CaptionData, demo: Path, show_and_tell: Path, attributes: Path, out: Path) -> None:
    """Draw `which_one.png` and `systems.png`, and print the table."""
    features = demo / "features"
    FeatureStore(features, FeatureExtractor(POOLED_LAYER, "faces")).extract(list(faces.pictures["path"]))
    systems, held_out, absent = all_systems(
        faces,
        attention=demo / "run",
        show_and_tell=show_and_tell,
        attributes=attributes,
        weights="faces",
        layer=POOLED_LAYER,
        features=features,
        decoding={"beam_width": BEAM_WIDTH},
    )
    comparison = compare_systems(systems, held_out, absent=absent)
    print(comparison.to_markdown(intervals=False), comparison.tests_text(), sep="\n\n")
    plot_comparison(comparison).savefig(out / "which_one.png")
    marks = {
        str(name): f"all {len(held_out.pictures)} faces: BLEU-4 {row['BLEU-4']:.3f}, {row['true']:.1%} of claims true"
        for name, row in comparison.table.iterrows()
    }
    # The face of heatmap.png, where the captioner is right: what do the others say of it?
    image_id = shown_face(comparison.captions["attention captioner"], held_out)
    path = held_out.pictures.set_index("image_id").loc[image_id, "path"]
    extractor = FeatureExtractor(POOLED_LAYER, "faces")
    vector = np.asarray(FeatureStore(features, extractor).get([path])[0], np.float32).mean(axis=(0, 1))
    answers = {name: said[image_id] for name, said in comparison.captions.items()}
    regions = load_captioner(demo / "run").map_shape[0]
    plot_systems(os.fspath(path), vector, answers, marks, regions).savefig(out / "systems.png")


def shown_face(captions: dict[str, str], held_out: CaptionData) -> str:
    """Return the first face whose caption has ten words or more and is true in all that it states."""
    assert held_out.attributes is not None
    for image_id, text in captions.items():
        if len(text.split()) >= 10 and true_share({image_id: text}, held_out.attributes)[0] == 1:
            return image_id
    raise ValueError("no caption of the demo is true in all that it states: train it for longer")


if __name__ == "__main__":
    main()
