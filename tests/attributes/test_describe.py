"""Descriptions: which claims are worth saying, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from attncap.attributes.classifier import AttributeClassifier, load_classifier
from attncap.attributes.config import AttributeConfig
from attncap.attributes.describe import describe
from attncap.attributes.tables import AttributeData, load_attributes
from attncap.attributes.training import train_attributes
from attncap.cli.describe import WHAT_IT_MEANS
from attncap.cli.main import main

SMALL = AttributeConfig(
    head="grid",
    weights="faces", layers="mixed0@3,mixed2@2", image_size=75, projection_units=5, members=1, mirror=False,
    batch_size=16, epochs=6, learning_rate=5e-3, dropout=0.1,
)  # fmt: skip


def stated_faces() -> AttributeData:
    """Drawn faces of which each text names a third of what is there, and at times that there are no glasses."""
    data = load_attributes("faces:150", columns=("glasses=sunglasses", "hair=long", "mouth=smile"))
    rng = np.random.default_rng(0)
    labels = np.where((data.labels == 1) & (rng.random(data.labels.shape) < 0.6), 1.0, np.nan)
    labels[:, 0] = np.where((data.labels[:, 0] == 0) & (rng.random(len(labels)) < 0.15), 0.0, labels[:, 0])
    return AttributeData("faces", data.pictures, ("sunglasses", "long hair", "smile"), labels.astype(np.float32))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("describe")
    phrases = {("sunglasses", 1): "shades"}
    config = replace(SMALL, head="auto", epochs=12)
    train_attributes(stated_faces(), place / "run", config, phrases=phrases, features=place / "features", verbose=0)
    return place / "run"


def test_a_run_on_statements_describes_images_in_the_users_words(run: Path) -> None:
    classifier = load_classifier(run)
    assert classifier.names == ("sunglasses", "no sunglasses", "long hair", "smile")
    assert classifier.statements is not None and classifier.statements.phrases[0] == "shades"
    assert len(classifier.statements.typical) == 4 and len(set(classifier.slopes)) == 1
    history = pd.read_csv(run / "history.csv")
    assert {"loss", "val_loss", "val_map"} <= set(history) and history["val_loss"].argmin() > 0
    assert [type(head).__name__ for head in classifier.heads] == ["AttentionHead"]
    paths = list(load_attributes("faces:150").split("test").pictures["path"])
    descriptions = describe(classifier, paths, most=2)
    assert all(len(one.claims) <= 2 for one in descriptions) and any(one.claims for one in descriptions)
    said = {claim.phrase for one in descriptions for claim in one.claims}
    assert said <= {"shades", "no sunglasses", "long hair", "smile"}
    assert not any({"shades", "no sunglasses"} <= {claim.phrase for claim in one.claims} for one in descriptions)
    assert all(claim.probability > claim.usual for one in descriptions for claim in one.claims)
    assert sum(one.familiar for one in descriptions) >= len(descriptions) - 2


def test_noise_is_unlike_the_training_images(run: Path, tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (75, 75, 3), np.uint8))
    face = load_attributes("faces:150").pictures["path"][0]
    assert [one.familiar for one in describe(run, [noise, face])] == [False, True]
    with pytest.raises(TypeError, match="a list of images expected"):
        describe(run, face)
    with pytest.raises(ValueError, match="most must be at least 1"):
        describe(run, [face], most=0)


def test_a_classifier_of_truth_does_not_describe() -> None:
    with pytest.raises(ValueError, match="trained on a table without silence"):
        describe(AttributeClassifier(["a"], grids=[(1, 1, 3)]), ["x.png"])


def test_the_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    face = load_attributes("faces:150").pictures["path"][0]
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    Image.open(face).save(tmp_path / "face.png")
    assert main(["describe", "--run", str(run), str(tmp_path), "--json"]) == 0
    captured = capsys.readouterr()
    content = json.loads(captured.out)
    assert [Path(entry["image"]).name for entry in content] == ["broken.jpg", "face.png"]
    assert "error" in content[0] and set(content[1]) == {"image", "text", "claims", "familiar", "distance"}
    assert "broken.jpg" in captured.err
    assert main(["describe", "--run", str(run), face, "--most", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0][0].isupper() and "of people would say" in lines[1] and lines[-1] == WHAT_IT_MEANS
    assert main(["describe", "--run", str(run), str(tmp_path / "broken.jpg")]) == 2
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "face.png").write_bytes((tmp_path / "face.png").read_bytes())
    capsys.readouterr()
    assert main(["describe", "--run", str(run), str(tmp_path / "face.png"), str(tmp_path / "b"), "--json"]) == 0
    images = [entry["image"] for entry in json.loads(capsys.readouterr().out)]
    assert images == [str(tmp_path / "face.png"), str(tmp_path / "b" / "face.png")]


@pytest.mark.slow
def test_a_killed_training_is_refused_and_resumes_to_the_same_classifier(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, phrases, small = stated_faces(), {("sunglasses", 1): "shades"}, replace(SMALL, head="attention", epochs=3)
    features = run.parent / "features"

    import attncap.attributes.fit as fit

    save, saved = fit.RunFolder.save_state, []

    def stop_after_one(self: object, arrays: object, history: object) -> None:
        save(self, arrays, history)  # type: ignore[arg-type]
        saved.append(1)
        if len(saved) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(fit.RunFolder, "save_state", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        train_attributes(data, tmp_path / "run", small, phrases=phrases, features=features, verbose=0)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="its training did not finish.*--resume"):
        load_classifier(tmp_path / "run")
    fewer = data.rows(np.arange(len(data.pictures)) > 5)
    with pytest.raises(ValueError, match="cannot be resumed: train of the data or the encoder changed"):
        train_attributes(fewer, tmp_path / "run", phrases=phrases, features=features, resume=True, verbose=0)
    again, _ = train_attributes(data, tmp_path / "run", features=features, resume=True, verbose=0)
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    whole, _ = train_attributes(data, tmp_path / "whole", small, phrases=phrases, features=features, verbose=0)
    expected = pd.read_csv(tmp_path / "whole" / "history.csv")
    np.testing.assert_allclose(history["val_loss"], expected["val_loss"], rtol=1e-4)
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-4)
    np.testing.assert_allclose(again.slopes, whole.slopes, rtol=1e-3)
    assert again.statements is not None and again.statements.phrases[0] == "shades"
    assert again.finished and load_classifier(tmp_path / "run").names == whole.names
