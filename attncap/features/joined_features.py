"""Features of several encoders as one array: what an ensemble reads whose members look at different layers.

A picture's features by each encoder lie side by side in one row of numbers, so that all that carries features (stores,
batches, decoders) carries them as it carries any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from attncap.features.extractor import FeatureExtractor
from attncap.features.grids import join_features, joined_shape
from attncap.features.store import FeatureStore


class JoinedEncoder:
    """Several encoders in the place of one, for what reads picture files.

    Args:
        encoders: two or more, each with its own layer, weights and picture size.
    """

    def __init__(self, encoders: Sequence[FeatureExtractor]):
        self.encoders = list(encoders)
        self.feature_shape = joined_shape([encoder.feature_shape for encoder in self.encoders])

    def preprocess(self, picture: Image.Image) -> np.ndarray:
        """Return what each encoder makes of the picture, side by side: uint8, shape (sum of size size 3,)."""
        return np.concatenate([encoder.preprocess(picture).reshape(-1) for encoder in self.encoders])

    def network_for_pixels(self) -> _JoinedNetwork:
        """Return what turns pixels of `preprocess`, (B, N), into features, by `predict_on_batch`."""
        return _JoinedNetwork(self.encoders)


class _JoinedNetwork:
    def __init__(self, encoders: Sequence[FeatureExtractor]):
        self._networks = [encoder.network_for_pixels() for encoder in encoders]
        self._sizes = [encoder.image_size for encoder in encoders]

    def predict_on_batch(self, pixels: np.ndarray) -> np.ndarray:
        ends = np.cumsum([3 * size * size for size in self._sizes])[:-1]
        parts = []
        for network, size, part in zip(self._networks, self._sizes, np.split(pixels, ends, axis=1), strict=True):
            own = part.reshape(-1, size, size, 3)  # (B, size, size, 3)
            parts.append(np.asarray(network.predict_on_batch(own), np.float16))
        return join_features(parts)


class JoinedStore:
    """The feature stores of several encoders, read as one.

    Args:
        folder: of feature stores; each encoder's features are shared with all that use it alone.
        encoder: several in one.
    """

    def __init__(self, folder: str | Path, encoder: JoinedEncoder):
        self.stores = [FeatureStore(folder, part) for part in encoder.encoders]
        self.feature_shape = encoder.feature_shape

    def extract(self, paths: Sequence[str]) -> pd.DataFrame:
        """Do as `FeatureStore.extract` in each store; rejects: DataFrame (path, reason), a picture once."""
        return pd.concat([store.extract(paths) for store in self.stores]).drop_duplicates("path", ignore_index=True)

    def get(self, paths: Sequence[str]) -> np.ndarray:
        """Return the features of pictures side by side: float16, shape (len(paths), 1, 1, N)."""
        return join_features([store.get(paths) for store in self.stores])


def store_of(folder: str | Path, encoder: FeatureExtractor | JoinedEncoder) -> FeatureStore | JoinedStore:
    """Return the store, or the stores read as one, of an encoder's features in a folder."""
    return JoinedStore(folder, encoder) if isinstance(encoder, JoinedEncoder) else FeatureStore(folder, encoder)
