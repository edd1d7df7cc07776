"""`train_attributes`: train an attribute classifier on a table of attributes, and save it in a run folder."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from attncap._files import write_csv
from attncap.attributes.calibration import calibrate
from attncap.attributes.classifier import AttributeClassifier, load_classifier, save_classifier
from attncap.attributes.config import AttributeConfig
from attncap.attributes.encoder import GridEncoder
from attncap.attributes.evaluate import splits_of_run
from attncap.attributes.familiarity import Familiarity
from attncap.attributes.finetuning import fine_tune
from attncap.attributes.fit import StoredImages, fit_head
from attncap.attributes.losses import MISSING
from attncap.attributes.metrics import AttributeReport, report
from attncap.attributes.predict import readable_images, stored_logits
from attncap.attributes.statements import Statements, holds_statements, to_statements
from attncap.attributes.tables import AttributeData
from attncap.attributes.thresholds import tune_thresholds
from attncap.features.store import FeatureStore
from attncap.training.run_folder import RunFolder, cleared_on_error, environment, read_object

PHRASES = "phrases.json"  # file in the run folder with the words of the statements
TYPICAL = 0.99  # quantile for `Statements.typical`


def train_attributes(
    data: AttributeData,
    run: str | Path,
    config: AttributeConfig | None = None,
    *,
    phrases: dict[tuple[str, int], str] | None = None,
    features: str | Path | None = None,
    resume: bool = False,
    verbose: Any = "auto",
) -> tuple[AttributeClassifier, AttributeReport]:
    """Train an attribute classifier, and save it in a run folder.

    The steps are: compute the features of the images, train the heads, choose the best epoch on the validation images,
    fine-tune the encoder (optional), calibrate the probabilities, and tune the thresholds.

    Args:
        data: from `load_attributes`. The heads are trained on "train". The epoch, the calibration and the thresholds
            are chosen on "val". "test" is not used. A table of statements (more than half of the cells are empty) is
            converted by `to_statements`; the setting `silence` can change this.
        run: run folder. It will contain `best.keras`, `config.json`, `manifest.json`, `history.csv`, `split.csv`,
            `rejects.csv` and other files.
        config: settings. With `resume`, the settings of the run are used instead.
        phrases: words of each statement, from `read_phrases`. None with `resume`: the phrases of the run.
        features: folder of feature stores, which several runs can share. None: `features` in the cache folder.
        resume: continue the run in the folder, with its settings and its split.
        verbose: 0 prints no progress, 2 prints a row per epoch, other values also show a progress bar.

    Returns:
        classifier: the classifier that is saved in `best.keras`.
        report: its measures on the validation images. They are optimistic: the thresholds were tuned on these images.

    Raises:
        ValueError: there are no training or validation images; an attribute has only one class; the folder already
            contains a run; or, with `resume`, it contains no run or a run with other data.
        FloatingPointError: the loss is NaN or infinite.
    """
    folder = RunFolder(run, resume)
    with cleared_on_error(folder, resume):
        if resume:
            config, data, phrases = _begun(folder, data, phrases)
        config = config or AttributeConfig()
        keras.utils.set_random_seed(config.seed)
        for split in ("train", "val"):
            if not len(data.split(split).pictures):
                raise ValueError(f"{data.name}: no {split} images: use a larger table, or another split")
        data, statements = _targets(data, config, phrases)
        config = config.with_head(statements is not None)
        check_classes(data.split("train"))
        layers = [name for name in config.layers.split(",") if name.strip()] or None
        encoder = GridEncoder(layers, config.weights, config.image_size or None, config.backbone)
        store = FeatureStore(features, encoder)
        if not resume:  # first, because computing features is slow: a run killed there can be resumed
            folder.write_json(folder.config_file, asdict(config))
            write_csv(folder.path / "split.csv", data.pictures[["image_id", "split"]])
            words = [[name, value, phrase] for (name, value), phrase in (phrases or {}).items()]
            folder.write_json(folder.path / PHRASES, {"phrases": words})
        wanted = data.rows(data.pictures["split"].isin(["train", "val"]).to_numpy())
        readable = readable_images(wanted, store, config.mirror, folder.rejects_file)
        images = StoredImages(readable.split("train"), readable.split("val"), store)
        check_classes(images.training)
        _check_or_write(folder, _manifest(data, images))
        best = fit_head(_build(images, config, statements), images, config, folder, verbose)
        classifier, logits = _best(folder, images, config, best)
        labels = images.validation.labels
        probs = settle(classifier, logits, labels, config.aim)
        classifier.finished = True
        save_classifier(classifier, folder.best_file)
        majority = np.nanmean(images.training.labels, axis=0) > 0.5
        return classifier, report(probs, labels, data.names, classifier.thresholds, majority)


def settle(classifier: AttributeClassifier, logits: np.ndarray, labels: np.ndarray, aim: str) -> np.ndarray:
    """Calibrate a classifier and tune its thresholds.

    All statements share one slope and one offset, because each statement occurs in few held-out texts. On other texts,
    the negative log-likelihood was 0.1919 with separate slopes and offsets and 0.1898 with shared ones.

    Args:
        classifier: changed in place.
        logits: uncalibrated logits of labeled images, shape (N, A).
        labels: shape (N, A): 1, 0, or NaN (unknown; ignored).
        aim: see `tune_thresholds`.

    Returns:
        probs: calibrated probabilities of the images, float64, shape (N, A).
    """
    slopes, offsets = calibrate(logits, labels, shared=classifier.statements is not None)
    classifier.set_answers(slopes=list(slopes), offsets=list(offsets))
    probs = classifier.calibrated(logits)
    classifier.set_answers(list(tune_thresholds(probs, labels, aim)))
    if classifier.statements is not None:
        typical = tuple(round(float(value), 6) for value in np.quantile(probs, TYPICAL, axis=0))
        classifier.statements = replace(classifier.statements, typical=typical)
    return probs


def check_classes(data: AttributeData) -> None:
    """Raise ValueError if the known labels of an attribute have only one class: it cannot be learned."""
    for name, labels in zip(data.names, data.labels.T, strict=True):
        known = labels[np.isfinite(labels)]
        if len(np.unique(known)) < 2:
            found = f"all {len(known):,} known labels are {known[0]:.0f}" if len(known) else "no label is known"
            raise ValueError(
                f"{data.name}: attribute {name!r} has one class only among {len(data.pictures):,} training images "
                f"({found}): leave the column out, or add images of the other class"
            )


def _begun(
    folder: RunFolder, data: AttributeData, phrases: dict[tuple[str, int], str] | None
) -> tuple[AttributeConfig, AttributeData, dict[tuple[str, int], str] | None]:
    """Read the settings of a resumed run, apply its split to the data, and read its phrases if none are given."""
    if phrases is None and (folder.path / PHRASES).exists():
        listed = read_object(folder.path / PHRASES)["phrases"]
        phrases = {(str(name), int(value)): str(phrase) for name, value, phrase in listed}
    known = splits_of_run(folder.path)
    splits = [known.get(name, "") for name in data.pictures["image_id"]]
    config = AttributeConfig.from_dict(read_object(folder.config_file))
    return config, replace(data, pictures=data.pictures.assign(split=splits)), phrases


def _targets(
    data: AttributeData, config: AttributeConfig, phrases: dict[tuple[str, int], str] | None
) -> tuple[AttributeData, Statements | None]:
    silent = holds_statements(data)
    if config.silence == "unknown" or (config.silence == "auto" and not silent):
        return data, None
    share = np.isnan(data.labels).mean()
    data, statements, warnings = to_statements(data, phrases)
    print(
        f"{share:.0%} of the cells are empty: this is a table of statements, and the classifier learns what people "
        "would say, not what is true (--set silence=unknown for a table with missing labels)",
        file=sys.stderr,
    )
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr)
    return data, statements


def _build(images: StoredImages, config: AttributeConfig, statements: Statements | None) -> AttributeClassifier:
    """Build the untrained classifier, with initial biases of attention heads and a fitted `Familiarity` layer."""
    encoder = images.store.extractor
    classifier = AttributeClassifier(
        images.training.names,
        encoder,
        members=config.members,
        projection_units=config.projection_units,
        hidden_units=config.hidden_units,
        dropout=config.dropout,
        attention=config.head == "attention",
        mirror=config.mirror,
        statements=None if statements is None else statements.to_config(),
        familiarity={"size": encoder.grids[-1][-1], "components": 1},
        finished=False,
        dtype=config.dtype,
    )
    if classifier.attention:
        for head in classifier.heads:
            head.start_at(np.nanmean(images.training.labels, axis=0))

    def embeddings(data: AttributeData) -> np.ndarray:
        paths = list(data.pictures["path"])
        parts = [classifier.embeddings(images.store.get(paths[at : at + 256])) for at in range(0, len(paths), 256)]
        return np.concatenate(parts)

    classifier.familiarity = Familiarity.fit(embeddings(images.training), embeddings(images.validation))
    return classifier


def _best(
    folder: RunFolder, images: StoredImages, config: AttributeConfig, best: float
) -> tuple[AttributeClassifier, np.ndarray]:
    """Load the classifier of the best epoch, fine-tune it if set, and return it with its validation logits."""
    classifier = load_classifier(folder.best_file, unfinished=True)
    if not config.fine_tune_blocks or classifier.finished:
        return classifier, stored_logits(classifier, images.store, list(images.validation.pictures["path"]))
    return fine_tune(classifier, images.training, images.validation, config, best)


def _manifest(data: AttributeData, images: StoredImages) -> dict[str, Any]:
    return {
        "data": data.summary(),
        "attributes": list(data.names),
        "train": _digest(images.training),
        "val": _digest(images.validation),
        "train_share": [round(float(share), 6) for share in np.nanmean(images.training.labels, axis=0)],
        "features": images.store.fingerprint,
        **environment(),
    }


def _check_or_write(folder: RunFolder, manifest: dict[str, Any]) -> None:
    """Write the manifest of a new run. For a resumed run, check that data and encoder have not changed.

    Raises:
        ValueError: the data or the encoder of a resumed run have changed.
    """
    if not folder.manifest_file.exists():
        folder.write_json(folder.manifest_file, manifest)
        return
    before = read_object(folder.manifest_file)
    for name in ("attributes", "train", "val", "features"):
        if before.get(name) != manifest[name]:
            raise ValueError(
                f"{folder.path}: cannot be resumed: {name} of the data or the encoder changed since the run began; "
                "use the same table, images and weights, or start anew in another folder"
            )


def _digest(data: AttributeData) -> dict[str, Any]:
    digest = hashlib.blake2b(digest_size=16)
    digest.update("\0".join(data.pictures["image_id"]).encode("utf-8", "surrogatepass"))
    digest.update(np.nan_to_num(data.labels, nan=MISSING).astype("<f4").tobytes())
    return {"pictures": len(data.pictures), "digest": digest.hexdigest()}
