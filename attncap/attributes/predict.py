"""Predict attributes from image files or from stored features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from attncap._files import check_list, write_csv
from attncap.attributes.classifier import AttributeClassifier
from attncap.attributes.tables import AttributeData
from attncap.data.readers.base import reject_table
from attncap.features.pipeline import encode_images
from attncap.features.store import FeatureStore
from attncap.images import AnyImage, image_name
from attncap.paths import check_ids
from attncap.paths import image_ids as ids_of


def predict_images(
    classifier: AttributeClassifier,
    paths: Sequence[AnyImage],
    image_ids: Sequence[str] | None = None,
    *,
    batch_size: int = 32,
    progress: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predict the probability of every attribute for image files.

    Args:
        classifier: from `load_classifier`.
        paths: image files, Pillow images or arrays.
        image_ids: names of the images, for the column `file`. None: the file names.
        batch_size: images per pass through the network.
        progress: show a progress bar.

    Returns:
        probs: DataFrame with `file` and one column of probabilities per attribute; one row per readable image.
        rejects: DataFrame with `file`, `path` and `reason`, for the images that cannot be read.

    Raises:
        ValueError: the classifier has no encoder.

    Example:
        >>> probs, rejects = predict_images(load_classifier("runs/attributes"), ["me.jpg"])
        >>> round(probs["Eyeglasses"].item(), 2)
        0.97
    """
    check_list(paths, "paths", "images")
    names = ids_of(paths) if image_ids is None else list(image_ids)
    check_ids(names)
    logits, unreadable = image_logits(classifier, paths, batch_size=batch_size, progress=progress)
    table = pd.DataFrame(classifier.calibrated(logits), columns=list(classifier.names))
    table.insert(0, "file", [name for at, name in enumerate(names) if at not in unreadable])
    rejects = [(names[at], image_name(paths[at], at), reason) for at, reason in unreadable.items()]
    return table, pd.DataFrame(rejects, columns=["file", "path", "reason"], dtype=object)


def image_logits(
    classifier: AttributeClassifier,
    paths: Sequence[AnyImage],
    *,
    batch_size: int = 32,
    progress: bool = True,
) -> tuple[np.ndarray, dict[int, str]]:
    """Compute the uncalibrated logits of image files.

    Returns:
        logits: float32, shape (number of readable images, A), in order.
        unreadable: index in `paths` -> reason why the image cannot be read.

    Raises:
        ValueError: the classifier has no encoder.
    """
    encoder = classifier.encoder
    if encoder is None:
        raise ValueError("this classifier holds no encoder: it takes features, not image files")
    rows = [np.zeros((0, len(classifier.names)), np.float32)]
    unreadable: dict[int, str] = {}
    for batch in encode_images(encoder, paths, batch_size=batch_size, progress=progress, views=classifier.views):
        unreadable.update(batch.rejects)
        if batch.positions:
            rows.append(classifier.mean_logits(*batch.features))
    return np.concatenate(rows), unreadable


def stored_logits(
    classifier: AttributeClassifier, store: FeatureStore, paths: Sequence[str], *, batch_size: int = 256
) -> np.ndarray:
    """Compute the uncalibrated logits of images whose features are in a store: float32, shape (N, A).

    With `classifier.mirror`, the store must also contain the features of the mirrored images.
    """
    rows = [np.zeros((0, len(classifier.names)), np.float32)]
    for start in range(0, len(paths), batch_size):
        part = list(paths[start : start + batch_size])
        rows.append(classifier.mean_logits(*(store.get(part, [flip] * len(part)) for flip in classifier.views)))
    return np.concatenate(rows)


def attribute_captions(classifier: AttributeClassifier, probs: pd.DataFrame, most: int | None = None) -> dict[str, str]:
    """Convert predicted probabilities to captions, for `attncap.metrics.coco_json.write_predictions`.

    Args:
        classifier: the classifier that made the predictions.
        probs: DataFrame from `predict_images`.
        most: see `AttributeClassifier.sentence`.

    Returns:
        captions: file -> caption.
    """
    rows = probs[list(classifier.names)].to_numpy()
    return {str(file): classifier.sentence(row, most) for file, row in zip(probs["file"], rows, strict=True)}


def readable_images(
    data: AttributeData, store: FeatureStore, mirror: bool, rejects_file: Path | None = None
) -> AttributeData:
    """Compute the features that are missing in the store, and remove the images that cannot be read.

    Args:
        data: images and labels.
        store: feature store that is extended.
        mirror: also compute the features of the mirrored images.
        rejects_file: CSV file for the list of unreadable images and of `data.rejects`. None: write no list.

    Returns:
        data: the readable images.
    """
    paths = list(data.pictures["path"])
    unreadable = store.extract(paths)
    keep = ~data.pictures["path"].isin(unreadable["path"]).to_numpy()
    if mirror:
        flipped = store.extract([path for path, kept in zip(paths, keep, strict=True) if kept], mirrored=True)
        keep &= ~data.pictures["path"].isin(flipped["path"]).to_numpy()
        unreadable = pd.concat([unreadable, flipped], ignore_index=True)
    if rejects_file is not None:
        ids = dict(zip(data.pictures["path"], data.pictures["image_id"], strict=True))
        rows = zip(unreadable["path"], unreadable["reason"], strict=True)
        listed = reject_table((path, None, ids[path], reason, "unreadable image", "pictures") for path, reason in rows)
        write_csv(rejects_file, pd.concat([data.rejects, listed], ignore_index=True))
    return data.rows(keep)
