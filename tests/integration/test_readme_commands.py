"""The README's commands for images of one's own, one after the other: check, train, predict, evaluate."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from attncap.cli.main import main
from attncap.data.faces.messy_texts import with_messy_texts
from attncap.data.load import load

SMALL = (
    "--layer", "mixed0", "--weights", "faces", "--image-size", "81", "--epochs", "1", "--min-count", "1",
    "--set", "hidden_units=16", "--set", "embedding_units=8", "--set", "attention_units=8",
)  # fmt: skip


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of images and a table with one text each, as a person has them."""
    folder = tmp_path_factory.mktemp("own")
    data = load("faces:60", folder=folder)
    table = data.captions.drop_duplicates("image_id").merge(data.pictures, on="image_id")
    table["file"] = [Path(path).name for path in table["path"]]
    table[["file", "caption", "split"]].to_csv(folder / "captions.csv", index=False)
    return f"table:{folder / 'captions.csv'}:{folder / 'images'}"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    status = main(list(arguments))
    said = capsys.readouterr()
    assert status == 0, said.err
    return said.out, said.err


def test_check_train_predict_evaluate(
    spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTNCAP_CACHE", str(tmp_path / "cache"))
    trained, predictions, scores = (str(tmp_path / name) for name in ("run", "predictions.json", "scores.csv"))
    run(capsys, "check", "--data", spec, "--out", str(tmp_path / "rejects.csv"))
    run(capsys, "train", "--data", spec, "--run", trained, "--features", str(tmp_path / "features"), *SMALL)
    held_out = load(spec).split("test").pictures
    broken = Path(held_out["path"].iloc[0])
    broken.write_bytes(b"not an image any more")  # after the training
    predict = ("predict", "--run", trained, "--data", spec, "--split", "test", "--out", predictions)
    out, err = run(capsys, *predict)
    assert out == f"{len(held_out) - 1} captions in {predictions}\n"
    assert "1 images cannot be read and have no caption: see" in err
    evaluate = ("evaluate", "--predictions", predictions, "--references", spec, "--split", "test")
    out, err = run(capsys, *evaluate, "--out", scores)
    assert f"1 images cannot be read and have no prediction (first {held_out['image_id'].iloc[0]}): left out" in err
    assert f"{len(held_out) - 1} images; BLEU" in out
    assert f"note: CIDEr is unreliable here: its document frequencies come from {len(held_out) - 1} images" in out
    written = pd.read_csv(scores)
    assert written["image_id"].tolist() == held_out["image_id"].tolist()[1:] and "cider_d" in written
    both, _ = run(capsys, *evaluate, "--against", predictions, "--metrics", "bleu,rouge_l", "--json")
    found = json.loads(both)
    assert found["against"]["difference"]["rouge_l"] == 0 and "cider" not in found


def test_texts_become_characteristics_a_classifier_and_descriptions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTNCAP_CACHE", str(tmp_path / "cache"))
    data = with_messy_texts(load("faces:150", folder=tmp_path))
    table = data.captions.merge(data.pictures, on="image_id")
    table["file"] = [Path(path).name for path in table["path"]]
    table[["file", "caption", "split"]].to_csv(tmp_path / "captions.csv", index=False)
    images, classifier = tmp_path / "images", str(tmp_path / "run")
    spec, phrases, attributes = (
        f"table:{tmp_path}/captions.csv:{images}",
        str(tmp_path / "c.csv"),
        tmp_path / "table.csv",
    )
    out, _ = run(capsys, "characteristics", "mine", "--data", spec, "--out", phrases, "--weights", "faces")
    assert "texts, those of the test split left out" in out and "only wording" not in out
    label = ("characteristics", "label", "--data", spec, "--characteristics", phrases, "--out", str(attributes))
    out, _ = run(capsys, *label)
    assert "150 images" in out
    attribute_spec = f"attributes:{attributes}:{images}"
    command = ("attributes", "train", "--data", attribute_spec, "--run", classifier, "--weights", "faces")
    out, err = run(capsys, *command, "--characteristics", phrases)
    assert "this is a table of statements" in err and "calibration error" in out
    described = str(tmp_path / "described.json")
    report = ("attributes", "report", "--run", classifier, "--data", attribute_spec, "--split", "val")
    out, _ = run(capsys, *report, "--captions", described, "--most", "3")
    assert out.startswith("how well the classifier predicts what texts state") and "calibration error" in out
    out, _ = run(capsys, "describe", "--run", classifier, str(data.pictures["path"].iloc[0]))
    assert "of people would say" in out or "Nothing certain" in out
    evaluate = ("evaluate", "--predictions", described, "--references", spec, "--split", "val")
    out, _ = run(capsys, *evaluate, "--characteristics", phrases)
    assert "claims in the references" in out and "median rank" in out


@pytest.mark.slow
def test_ids_of_coco_are_integers_on_both_sides(
    spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTNCAP_CACHE", str(tmp_path / "cache"))
    trained, predictions = str(tmp_path / "run"), tmp_path / "predictions.json"
    run(capsys, "train", "--data", spec, "--run", trained, "--features", str(tmp_path / "features"), *SMALL)
    images = load(spec).split("val").pictures
    content = {
        "images": [{"id": 700 + n, "file_name": Path(path).name} for n, path in enumerate(images["path"])],
        "annotations": [{"id": n, "image_id": 700 + n, "caption": "A face."} for n in range(len(images))],
    }
    references = tmp_path / "captions_val.json"
    references.write_text(json.dumps(content))
    coco = f"coco:{references}:{Path(images['path'].iloc[0]).parent}"
    run(capsys, "predict", "--run", trained, "--data", coco, "--out", str(predictions))
    written = json.loads(predictions.read_text())
    assert [entry["image_id"] for entry in written] == [700 + n for n in range(len(images))]
    out, _ = run(capsys, "evaluate", "--predictions", str(predictions), "--references", str(references))
    assert f"{len(images)} images; BLEU" in out


def test_an_output_that_is_an_input_is_refused(spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = tmp_path / "p.json"
    predictions.write_text("[]")
    arguments = ["evaluate", "--predictions", str(predictions), "--references", spec, "--out", str(predictions)]
    assert main(arguments) == 2
    assert f"--out {predictions} is the input: name another file" in capsys.readouterr().err
    assert predictions.read_text() == "[]"
