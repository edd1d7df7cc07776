"""What was said of the pictures that look most like one: which those are, by hand, and what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from attncap.features.extractor import FeatureExtractor
from attncap.retrieval.difference_hash import DifferenceHash
from attncap.retrieval.embeddings import PooledEmbedding, pooled
from attncap.retrieval.index import ImageIndex
from attncap.retrieval.neighbor_references import LookAlikes, index_for

N, D = 23, 256


@pytest.fixture(scope="module")
def encoder() -> FeatureExtractor:
    keras.utils.set_random_seed(0)
    return FeatureExtractor("mixed0", "random", 75, dtype="float32")


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    drawn = np.random.default_rng(0).normal(size=(N, 7, 7, D)).astype(np.float32)
    drawn[..., :3] *= 50.0  # a few numbers that are much larger than the others
    return drawn


def captions_of(number: int) -> list[str]:
    return [f"first of {number}", f"second of {number}"] if number % 5 else []  # every fifth has none


def filled(encoder: Any, features: np.ndarray, file: Path | None = None) -> ImageIndex:
    index = ImageIndex(file, PooledEmbedding(encoder))
    index.add_codes([f"p{n}" for n in range(N)], [captions_of(n) for n in range(N)], pooled(features))
    return index


def test_the_nearest_by_standardized_features(encoder: FeatureExtractor, features: np.ndarray) -> None:
    found = LookAlikes(filled(encoder, features), SimpleNamespace(encoder=encoder), n=4)(features[:7] + 0.1)
    codes = pooled(features).astype(np.float64)
    codes = codes[[n for n in range(N) if captions_of(n)]]
    names = [n for n in range(N) if captions_of(n)]
    mean, deviation = codes.mean(0), codes.std(0)
    asked = (pooled(features[:7] + 0.1) - mean) / deviation
    codes = (codes - mean) / deviation
    cosine = asked @ codes.T / np.linalg.norm(asked, axis=1)[:, None] / np.linalg.norm(codes, axis=1)
    for row, own in zip(cosine, found, strict=True):
        nearest = [names[at] for at in np.argsort(-row)[:4]]
        assert own == [caption for number in nearest for caption in captions_of(number)]
    for number in (1, 2, 3, 4, 6):
        assert found[number][0] == f"first of {number}"
    plain = pooled(features[:7] + 0.1) @ pooled(features).T
    assert any(captions_of(n) and np.argsort(-plain[n])[1] != np.argsort(-cosine[n])[1] for n in range(7))


def test_an_index_file_is_opened_with_the_captioners_encoder(
    encoder: FeatureExtractor, features: np.ndarray, tmp_path: Path
) -> None:
    filled(encoder, features, tmp_path / "train.db").close()
    captioner = SimpleNamespace(encoder=encoder)
    with index_for(tmp_path / "train.db", captioner) as index:
        assert LookAlikes(index, captioner, n=1)(features[3:4]) == [["first of 3", "second of 3"]]
    renamed = FeatureExtractor("mixed0", "random", 75, dtype="float32")
    renamed.network.set_weights(encoder.network.get_weights())
    renamed.weights_source = "another/name.weights.h5"
    with index_for(tmp_path / "train.db", SimpleNamespace(encoder=renamed)) as index:  # the same weights
        assert len(index) == N
    message = r"train\.db: the index holds codes of pooled InceptionV3 mixed0, and the captioner reads mixed1 of 75"
    other = SimpleNamespace(encoder=FeatureExtractor("mixed1", "random", 75, dtype="float32"))
    with pytest.raises(ValueError, match=message):
        index_for(tmp_path / "train.db", other)
    ImageIndex(tmp_path / "hash.db", DifferenceHash(64)).close()
    with pytest.raises(ValueError, match="the index holds codes of dhash, and the captioner reads mixed0"):
        index_for(tmp_path / "hash.db", captioner)
    with pytest.raises(FileNotFoundError, match=r"none\.db: no such image index"):
        index_for(tmp_path / "none.db", captioner)


def test_what_is_refused(encoder: FeatureExtractor, features: np.ndarray) -> None:
    index = filled(encoder, features)
    with pytest.raises(ValueError, match="neighbors: at least 1 expected, got 0"):
        LookAlikes(index, SimpleNamespace(encoder=encoder), n=0)
    with pytest.raises(ValueError, match="the captioner reads features computed elsewhere, .*leave --neighbors out"):
        LookAlikes(index, SimpleNamespace(encoder=None))
    bare = ImageIndex(None, PooledEmbedding(encoder))
    bare.add_codes(["p"], [[]], pooled(features[:1]))
    with pytest.raises(ValueError, match="the index has no captions"):
        LookAlikes(bare, SimpleNamespace(encoder=encoder))
