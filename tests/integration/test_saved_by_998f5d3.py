"""What commit 998f5d3 saved: models, an index and a run load as they were; its feature store is refused in a sentence.

See tests/saved_by_998f5d3/README.md for how the files were made.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attncap.attributes.classifier import load_classifier
from attncap.data.load import CaptionData, load
from attncap.decoding.decoder import Decoder
from attncap.decoding.predict import caption
from attncap.features import extractor
from attncap.features.extractor import FeatureExtractor
from attncap.features.store import FeatureStore
from attncap.models.registry import captioner_name
from attncap.models.saving import load_captioner, model_name
from attncap.retrieval.index import ImageIndex
from attncap.training import features as training_features
from attncap.training.train import train

SAVED = Path(__file__).resolve().parents[1] / "saved_by_998f5d3" / "saved.zip"
MODELS = ("attention", "adaptive-attention", "transformer", "show-and-tell")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    with zipfile.ZipFile(SAVED) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def answers(saved: Path) -> dict[str, Any]:
    return json.loads((saved / "answers.json").read_text())


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> CaptionData:
    return load("faces:24", seed=0, folder=tmp_path_factory.mktemp("faces"))


@pytest.fixture(autouse=True)
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arithmetic of the files, whatever this processor has."""
    for module in (extractor, training_features):
        monkeypatch.setattr(module, "best_dtype_policy", lambda: "float32")


@pytest.mark.parametrize("name", MODELS)
def test_a_captioner_says_what_it_said(name: str, saved: Path, answers: dict[str, Any]) -> None:
    file = saved / f"{name}.keras"
    captioner = load_captioner(file)
    assert model_name(file) == captioner_name(type(captioner)) == name
    features = np.random.default_rng(0).normal(size=(3, 2, 3, 5)).astype(np.float32)
    captions = Decoder(captioner, beam_width=2, max_length=6)(features)
    assert [found.text for found in captions] == [text for text, _ in answers[name]]
    np.testing.assert_allclose([found.log_prob for found in captions], [p for _, p in answers[name]], rtol=1e-4)


def test_a_classifier_answers_as_it_did(saved: Path, answers: dict[str, Any]) -> None:
    classifier = load_classifier(saved / "classifier.keras")
    features = np.random.default_rng(0).normal(size=(3, 12)).astype(np.float32)
    np.testing.assert_allclose(classifier.probabilities(features), answers["classifier"], rtol=1e-4)
    assert classifier.names == ("hat", "beard") and classifier.thresholds.tolist() == [0.25, 0.75]


def test_an_index_finds_what_it_found(saved: Path, answers: dict[str, Any], faces: CaptionData) -> None:
    with ImageIndex.load(saved / "hash.db") as index:
        found = index.query(faces.pictures["path"][9], k=4)
    assert [[one.image_id, float(one.distance)] for one in found] == answers["index"]
    assert list(found[0].labels) == ["label 0"]


def test_a_feature_store_is_refused_in_a_sentence(
    saved: Path, answers: dict[str, Any], faces: CaptionData, tmp_path: Path
) -> None:
    encoder = FeatureExtractor("mixed0", saved / "encoder.weights.h5", 75)
    assert answers["store"] == f"mixed0-{encoder.fingerprint()}.lmdb"
    with pytest.raises(ValueError, match=r"mixed0-[0-9a-f]+\.lmdb: .*998f5d3") as caught:
        FeatureStore(saved / "features", encoder)
    assert "\n" not in str(caught.value)
    store = FeatureStore(tmp_path / "features", encoder)  # computed anew, the features are those of the old store
    path = faces.pictures["path"][0]
    assert store.extract([path], progress=False).empty
    values = store.get([path])[0].astype(np.float32).reshape(-1)[::997]
    np.testing.assert_allclose(values, answers["features"], rtol=2e-3, atol=1e-3)


def test_a_run_captions_a_file_and_goes_on_where_it_stopped(
    saved: Path, answers: dict[str, Any], faces: CaptionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(saved)  # its settings name a weights file that lies there
    captioner = load_captioner("run")
    assert captioner.encoder is not None and captioner.map_shape == (7, 7)
    assert caption(captioner, faces.pictures["path"][0], beam_width=2).attention_weights is not None
    train(faces, "run", resume=True, features=tmp_path / "features", verbose=0)
    history = json.loads(str(np.load("run/state.npz")["history"]))
    assert [row["epoch"] for row in history] == [0, 1, 2]
    assert history[:2] == answers["history"][:2]
    then = answers["history"][2]
    for name, value in then.items():  # the third epoch is that of the run that was not stopped
        assert history[2][name] == pytest.approx(value, rel=1e-3, abs=1e-6), name
