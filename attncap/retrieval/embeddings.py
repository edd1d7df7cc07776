"""`PooledEmbedding`: an image as the mean of its region features, for an index that compares by cosine."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from attncap._files import check_list
from attncap.features.extractor import FeatureExtractor, weights_digest
from attncap.features.inception import NAME
from attncap.features.pipeline import encode_images
from attncap.features.preprocessing import PREPROCESSING_VERSION
from attncap.features.store import FeatureStore
from attncap.images import AnyImage, UnreadableImage, image_name

BATCH = 32


class PooledEmbedding:
    """The mean over all regions of the features of an encoder: D numbers, compared by cosine similarity.

    Args:
        extractor: the encoder, a `FeatureExtractor` or one of your own.
        store: features of files are read from it, and missing ones are added; None computes them each time.

    Example:
        >>> encoder = PooledEmbedding(FeatureExtractor("mixed8", weights="inception_v3.weights.h5"))
        >>> ImageIndex("people.db", encoder).query("me.jpg", k=3)
    """

    measure = "cosine_similarity"

    def __init__(self, extractor: Any, store: FeatureStore | None = None) -> None:
        self.extractor, self.store = extractor, store
        self.size = int(extractor.feature_shape[2])
        self._network: Any = None
        self._weights = ""

    def describe(self) -> dict[str, Any]:
        """Return layer, sizes, scaling of pixels and a digest of the weights.

        The arithmetic is left out, since bfloat16 and float32 codes can be compared: an index may be built on one
        machine and searched on another."""
        extractor = self.extractor
        own = not isinstance(extractor, FeatureExtractor)
        if not self._weights:
            self._weights = extractor.fingerprint() if own else weights_digest(extractor.network, dtype=np.float32)
        if own:
            name = f"pooled {type(extractor).__name__} {extractor.layer}"
            return {"encoder": name, "size": self.size, "image_size": extractor.image_size, "weights": self._weights}
        inception = extractor.backbone == NAME
        default = inception and extractor.scaling == "-1..1"
        scaling = {} if default else {"scaling": json.loads(json.dumps(extractor.scaling))}
        return {
            **scaling,
            "encoder": f"pooled {'InceptionV3' if inception else extractor.backbone} {extractor.layer}",
            "size": self.size,
            "image_size": extractor.image_size,
            "pool": extractor.pool,
            "preprocessing": PREPROCESSING_VERSION,
            "weights": self._weights,
            "name": extractor.get_config()["weights"],
        }

    def encode(self, images: Sequence[AnyImage], progress: bool = False) -> list[np.ndarray | UnreadableImage]:
        """Return for each image float32, shape (D,), of unit length, or the `UnreadableImage`."""
        check_list(images, "images")
        files = [os.fspath(image) for image in images if isinstance(image, str | os.PathLike)]
        if self.store is None or len(files) < len(images):
            return self._computed(images, progress)
        rejects = self.store.extract(files, progress=progress)
        reasons = dict(zip(rejects["path"], rejects["reason"], strict=True))
        codes: list[np.ndarray | UnreadableImage] = []
        for start in range(0, len(files), BATCH):
            batch = files[start : start + BATCH]
            readable = [file for file in batch if file not in reasons]
            found = iter(_codes(readable, self.store.get(readable)) if readable else ())
            codes += [UnreadableImage(file, reasons[file]) if file in reasons else next(found) for file in batch]
        return codes

    def _computed(self, images: Sequence[AnyImage], progress: bool) -> list[np.ndarray | UnreadableImage]:
        if self._network is None:
            self._network = self.extractor.network_for_pixels()
        codes: dict[int, np.ndarray | UnreadableImage] = {}
        for batch in encode_images(self.extractor, images, batch_size=BATCH, progress=progress, network=self._network):
            if batch.positions:
                names = [image_name(images[at], at) for at in batch.positions]
                codes.update(zip(batch.positions, _codes(names, batch.features[0]), strict=True))
            for at, reason in batch.rejects:
                codes[at] = UnreadableImage(image_name(images[at], at), reason)
        return [codes[at] for at in range(len(images))]


def pooled(features: np.ndarray) -> np.ndarray:
    """Return the mean of features (B, rows, cols, D) over their regions: float32, (B, D), of unit length, or zeros."""
    vectors = features.astype(np.float32).mean((1, 2))  # (B, rows, cols, D) to (B, D)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _codes(names: Sequence[str], features: np.ndarray) -> list[np.ndarray | UnreadableImage]:
    return [
        vector if vector.any() else UnreadableImage(name, "its features are all zero: nothing to compare")
        for name, vector in zip(names, pooled(features), strict=True)
    ]
