"""Sources of features, stores and `ExternalFeatures` alike: what a caller gives, and reading it in parts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from attncap.features.external import ExternalFeatures
from attncap.features.external_files import ENDINGS


def as_features(given: Any) -> Any:
    """Return `ExternalFeatures` of a file of features, a mapping or a function; anything else as it is."""
    if isinstance(given, str | os.PathLike):
        path = Path(given)
        return ExternalFeatures.read(path) if path.suffix.lower() in ENDINGS and not path.is_dir() else given
    function = callable(given) and not hasattr(given, "preprocess")  # an encoder, as a Keras layer, is callable too
    return ExternalFeatures(given) if isinstance(given, Mapping) or function else given


def key_column(store: Any) -> str:
    """Return the column of a table of images that a store's `get` takes: "path", or "image_id" of outside features."""
    return str(getattr(store, "keyed_by", "path"))


def in_parts(
    store: Any, pictures: pd.DataFrame, part: int, label: str, progress: bool = True
) -> Iterator[tuple[list[str], np.ndarray, np.ndarray | None]]:
    """Yield the image_ids, features and boxes of images, a part of them in memory at a time. A terminal shows a bar.

    Args:
        store: with the features of all of `pictures`.
        pictures: DataFrame with `image_id` and `path`.
        part: images in memory at a time.
        label: of the bar.
        progress: show it.
    """
    with tqdm(total=len(pictures), desc=label, unit=" images", disable=None if progress else True) as bar:
        for start in range(0, len(pictures), part):
            rows = pictures.iloc[start : start + part]
            keys = list(rows[key_column(store)])
            yield list(rows["image_id"]), store.get(keys), store.boxes(keys) if hasattr(store, "boxes") else None
            bar.update(len(rows))
