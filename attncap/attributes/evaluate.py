"""`evaluate_attributes`: a run's classifier on the pictures that its training held out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from attncap.attributes.classifier import AttributeClassifier, load_classifier
from attncap.attributes.metrics import AttributeReport, report
from attncap.attributes.predict import readable_pictures, stored_logits
from attncap.attributes.tables import AttributeData
from attncap.attributes.thresholds import tune_thresholds
from attncap.data.dataset import SPLITS
from attncap.data.load import cache_folder
from attncap.features.store import FeatureStore
from attncap.training.run_folder import read_object


def splits_of_run(run: str | Path) -> dict[str, str]:
    """Return the split of every picture that a run knew, from its `split.csv`.

    Raises:
        FileNotFoundError: no run of `attncap attributes train` there.
        ValueError: the file is damaged.
    """
    file = Path(run) / "split.csv"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file: the run folder of `attncap attributes train` expected")
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
        known = dict(zip(table["image_id"], table["split"], strict=True))
    except (ValueError, KeyError) as error:  # pandas's own errors are ValueErrors that do not name the file
        reason = " ".join(str(error).split())
        raise ValueError(f"{file}: columns image_id and split expected ({reason}): restore a copy") from None
    unknown = set(known.values()) - set(SPLITS)
    if unknown:
        raise ValueError(f"{file}: {', '.join(SPLITS)} expected as splits, found {sorted(unknown)[0][:60]!r}")
    return known


def evaluate_attributes(
    run: str | Path,
    data: AttributeData,
    split: str = "test",
    *,
    aim: str | None = None,
    features: str | Path | None = None,
    classifier: AttributeClassifier | None = None,
) -> tuple[AttributeReport, pd.DataFrame, AttributeData]:
    """Measure a run's classifier on a split as the run had it; a picture that the run did not know is "test".

    Args:
        run: the run folder.
        data: labels and pictures; its own split is not used.
        split: "test", "val" or "train".
        aim: thresholds are tuned anew for it, on the run's validation pictures; None: those in the run.
        features: folder of feature stores, as in training.
        classifier: the run's, where the caller has loaded it already.

    Returns:
        report: measures; the majority is that of the run's training pictures.
        probs: DataFrame with `file` and a column an attribute.
        measured: the pictures and labels of the split that could be read.

    Raises:
        ValueError: attributes that the classifier does not know or that are not in the data, or an empty split.
    """
    known = splits_of_run(run)
    classifier = classifier or load_classifier(run)
    assert classifier.encoder is not None  # train_attributes gives it one
    data = data.select(classifier.names)
    splits = [known.get(image_id, "test") for image_id in data.pictures["image_id"]]
    data = replace(data, pictures=data.pictures.assign(split=splits))
    store = FeatureStore(features or cache_folder() / "features", classifier.encoder)

    def answers(part: AttributeData) -> tuple[np.ndarray, AttributeData]:
        part = readable_pictures(part, store, classifier.mirror)
        return classifier.calibrated(stored_logits(classifier, store, list(part.pictures["path"]))), part

    if not len(data.split(split).pictures):
        raise ValueError(f"{data.name}: no {split} pictures of the run {run}: another --split, or another table")
    thresholds = classifier.thresholds
    if aim is not None:
        tuning, on = answers(data.split("val"))
        thresholds = tune_thresholds(tuning, on.labels, aim)
    probs, measured = answers(data.split(split))
    share = read_object(Path(run) / "manifest.json").get("train_share")
    if not isinstance(share, list) or len(share) != len(classifier.names):
        raise ValueError(
            f"{Path(run) / 'manifest.json'}: train_share with a number an attribute expected: another run's?"
        )
    table = pd.DataFrame(probs, columns=list(classifier.names))
    table.insert(0, "file", list(measured.pictures["image_id"]))
    return report(probs, measured.labels, classifier.names, thresholds, np.array(share) > 0.5), table, measured
