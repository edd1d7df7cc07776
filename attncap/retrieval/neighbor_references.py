"""`LookAlikes`: captions of the labeled images that are most similar to a new one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from attncap.features.extractor import FeatureExtractor
from attncap.retrieval.database import encoder_of, same_encoder
from attncap.retrieval.embeddings import PooledEmbedding, pooled
from attncap.retrieval.index import ImageIndex
from attncap.retrieval.search import CosineSearch


class LookAlikes:
    """Find the captions of the n most similar images of an index, by the features that the captioner reads.

    Similarity is the cosine of pooled features. Each of the D numbers is standardized over the index first, because a
    few large ones would dominate otherwise.

    Args:
        index: an `ImageIndex` of `PooledEmbedding` with the captioner's own encoder, captions as labels; of training
            images only, because an image in the index finds its own captions.
        captioner: with that encoder inside.
        n: how many images.

    Raises:
        ValueError: the index is of another encoder than the captioner's, or has no captions; n below 1.

    Example:
        >>> index = ImageIndex.load("train.db", PooledEmbedding(captioner.encoder))
        >>> LookAlikes(index, captioner)(features)[0][0]
        'a brown dog runs through the grass .'

    Reference: Devlin et al. 2015, "Exploring nearest neighbor approaches for image captioning"; as a gain for captions
    of a decoder: Mao et al. 2015, "Deep captioning with multimodal recurrent neural networks", section 8.
    """

    def __init__(self, index: ImageIndex, captioner: Any, n: int = 10) -> None:
        if n < 1:
            raise ValueError(f"neighbors: at least 1 expected, got {n}")
        _checked(index.encoder.describe(), getattr(captioner, "encoder", None))
        entries = index.entries()
        rows = [row for row, (_, captions) in enumerate(entries) if captions]
        if not rows:
            raise ValueError("the index has no captions: build it of a data set with captions")
        self._captions = [entries[row][1] for row in rows]
        self._n = n
        codes = index.codes[rows].astype(np.float32)  # (N, D)
        self._mean, deviation = codes.mean(0), codes.std(0)
        self._deviation = np.where(deviation > 1e-6, deviation, 1.0)
        self._search = CosineSearch(self._standardized(codes))

    def __call__(self, features: np.ndarray) -> list[list[str]]:
        """Return, for each image of the captioner's features (B, ...), all captions of the n nearest images."""
        rows, _ = self._search.nearest(self._standardized(pooled(np.asarray(features))), self._n)
        return [[caption for row in near for caption in self._captions[row]] for near in rows]

    def _standardized(self, codes: np.ndarray) -> np.ndarray:
        return (codes - self._mean) / self._deviation


def index_for(file: str | Path, captioner: Any) -> ImageIndex:
    """Open an index that was built with the encoder of a captioner.

    Raises:
        FileNotFoundError: there is none.
        ValueError: damaged, or of another encoder.
    """
    described, encoder = encoder_of(file), getattr(captioner, "encoder", None)
    try:
        return ImageIndex.load(file, PooledEmbedding(_checked(described, encoder)))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _checked(described: dict[str, Any], encoder: FeatureExtractor | None) -> FeatureExtractor:
    if encoder is not None and same_encoder(PooledEmbedding(encoder).describe(), described):
        return encoder
    if encoder is None:
        raise ValueError(
            "the captioner reads features computed elsewhere, and an index compares images by an encoder: neighbors "
            "cannot be used (leave --neighbors out)"
        )
    reads = f"{encoder.layer} of {encoder.image_size} pixels"
    raise ValueError(
        f"the index holds codes of {described.get('encoder')}, and the captioner reads {reads}: build one with the "
        "captioner's layer and weights (attncap index build --encoder LAYER --weights FILE)"
    )
