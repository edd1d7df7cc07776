"""What was said of the pictures that look most like one: which those are, by hand, and what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from attncap.features.extractor import FeatureExtractor
from attncap.features.grids import join_features, split_features
from attncap.features.joined_features import JoinedEncoder
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


def test_of_an_ensemble_the_features_of_the_index_are_taken(encoder: FeatureExtractor, features: np.ndarray) -> None:
    other = FeatureExtractor("mixed1", "random", 75, dtype="float32")
    drawn = np.random.default_rng(1).normal(size=(3, *other.feature_shape)).astype(np.float32)
    both = SimpleNamespace(encoder=JoinedEncoder([other, encoder]))
    index = filled(encoder, features)
    found = LookAlikes(index, both, n=2)(join_features([drawn, features[1:4]]))
    assert found == LookAlikes(index, SimpleNamespace(encoder=encoder), n=2)(features[1:4])
    assert [captions[0] for captions in found] == ["first of 1", "first of 2", "first of 3"]


def test_of_several_layers_that_of_the_index_is_taken(encoder: FeatureExtractor, features: np.ndarray) -> None:
    two = FeatureExtractor("mixed2+mixed0", "random", 75, dtype="float32")
    deeper, own = two.each_layer()
    assert (deeper.feature_shape, own.feature_shape) == (two.grids[0].shape, two.grids[1].shape)
    pixels = np.random.default_rng(2).integers(0, 255, (2, 75, 75, 3)).astype(np.uint8)
    for alone, part in zip((deeper, own), split_features(two(pixels), [g.shape for g in two.grids]), strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(alone(pixels)), ops.convert_to_numpy(part), atol=1e-5)
    drawn = np.random.default_rng(1).normal(size=(3, *deeper.feature_shape)).astype(np.float32)
    found = LookAlikes(filled(own, features), SimpleNamespace(encoder=two), n=1)(join_features([drawn, features[1:4]]))
    assert [captions[0] for captions in found] == ["first of 1", "first of 2", "first of 3"]
    assert encoder.each_layer() == [encoder]


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
    with pytest.raises(FileNotFoundError, match=r"none\.db: no such picture index"):
        index_for(tmp_path / "none.db", captioner)


def test_what_is_refused(encoder: FeatureExtractor, features: np.ndarray) -> None:
    index = filled(encoder, features)
    with pytest.raises(ValueError, match="neighbors: at least 1 expected, got 0"):
        LookAlikes(index, SimpleNamespace(encoder=encoder), n=0)
    with pytest.raises(ValueError, match="the captioner reads no encoder"):
        LookAlikes(index, SimpleNamespace(encoder=None))
    bare = ImageIndex(None, PooledEmbedding(encoder))
    bare.add_codes(["p"], [[]], pooled(features[:1]))
    with pytest.raises(ValueError, match="the index has no captions"):
        LookAlikes(bare, SimpleNamespace(encoder=encoder))
