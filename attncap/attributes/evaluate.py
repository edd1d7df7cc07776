"""`evaluate_attributes`: evaluate the classifier of a run on one of its splits, such as the test images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from attncap._messages import quoted
from attncap.attributes.classifier import AttributeClassifier, load_classifier
from attncap.attributes.metrics import AttributeReport, report
from attncap.attributes.predict import readable_images, stored_logits
from attncap.attributes.statements import statement_targets
from attncap.attributes.tables import AttributeData
from attncap.attributes.thresholds import tune_thresholds
from attncap.data.dataset import SPLITS
from attncap.features.store import FeatureStore
from attncap.training.run_folder import read_object


def splits_of_run(run: str | Path) -> dict[str, str]:
    """Read the split of every image of a run from its `split.csv`: image_id -> "train", "val" or "test".

    Raises:
        FileNotFoundError: the folder has no `split.csv`, so it is not a run of `attncap attributes train`.
        ValueError: the file is damaged.
    """
    file = Path(run) / "split.csv"
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file: the run folder of `attncap attributes train` expected")
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
        known = dict(zip(table["image_id"], table["split"], strict=True))
    except (ValueError, KeyError) as error:  # pandas raises ValueErrors that do not name the file
        reason = " ".join(str(error).split())
        raise ValueError(f"{file}: columns image_id and split expected ({reason}): restore a copy") from None
    unknown = set(known.values()) - set(SPLITS)
    if unknown:
        raise ValueError(f"{file}: {', '.join(SPLITS)} expected as splits, found {quoted(sorted(unknown)[0])}")
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
    """Evaluate the classifier of a run on one of its splits.

    An image that is not listed in the run belongs to the test split. A classifier of statements is compared with what
    the texts state, which is not the same as what is true.

    Args:
        run: the run folder.
        data: labels and images, as in training. The split is read from the run.
        split: "test", "val" or "train".
        aim: tune the thresholds again for this aim, on the validation images of the run. None: use the thresholds of
            the classifier.
        features: folder of feature stores, as in training.
        classifier: the classifier of the run, if it is already loaded.

    Returns:
        report: the measures. The majority class is computed from the training images of the run.
        probs: DataFrame with `file` and one column of probabilities per attribute.
        measured: the readable images of the split, with their labels.

    Raises:
        FileNotFoundError: the folder is not a run of `attncap attributes train`.
        ValueError: the data lack an attribute of the classifier, the split is empty, or a file of the run is damaged.
    """
    known = splits_of_run(run)
    classifier = classifier or load_classifier(run)
    assert classifier.encoder is not None  # train_attributes gives it one
    names = classifier.names
    data = data.select(names) if classifier.statements is None else statement_targets(data, names)
    splits = [known.get(image_id, "test") for image_id in data.pictures["image_id"]]
    data = replace(data, pictures=data.pictures.assign(split=splits))
    store = FeatureStore(features, classifier.encoder)

    def answers(part: AttributeData) -> tuple[np.ndarray, AttributeData]:
        part = readable_images(part, store, classifier.mirror)
        return classifier.calibrated(stored_logits(classifier, store, list(part.pictures["path"]))), part

    if not len(data.split(split).pictures):
        raise ValueError(f"{data.name}: no {split} images of the run {run}: name another --split or another table")
    thresholds = classifier.thresholds
    if aim is not None:
        tuning, on = answers(data.split("val"))
        thresholds = tune_thresholds(tuning, on.labels, aim)
    probs, measured = answers(data.split(split))
    share = read_object(Path(run) / "manifest.json").get("train_share")
    if not isinstance(share, list) or len(share) != len(classifier.names):
        raise ValueError(
            f"{Path(run) / 'manifest.json'}: train_share with one number per attribute expected: is it of another run?"
        )
    table = pd.DataFrame(probs, columns=list(classifier.names))
    table.insert(0, "file", list(measured.pictures["image_id"]))
    return report(probs, measured.labels, classifier.names, thresholds, np.array(share) > 0.5), table, measured
