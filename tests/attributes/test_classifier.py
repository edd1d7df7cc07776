"""The multi-label classifier: loss, head, encoder, saving, training, prediction, and the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np
import pandas as pd
import pytest
from keras import ops
from PIL import Image

from attncap.attributes.classifier import AttributeClassifier, load_classifier, save_classifier
from attncap.attributes.config import AttributeConfig
from attncap.attributes.encoder import GridEncoder, area_means
from attncap.attributes.evaluate import evaluate_attributes
from attncap.attributes.finetuning import fine_tune
from attncap.attributes.head import GridHead
from attncap.attributes.losses import MaskedBinaryCrossentropy
from attncap.attributes.predict import image_logits, predict_images, stored_logits
from attncap.attributes.tables import AttributeData, load_attributes
from attncap.attributes.training import check_classes, settle, train_attributes
from attncap.cli.main import main
from attncap.features.store import FeatureStore
from attncap.images import open_image

LAYERS = ("mixed0@3", "mixed2@2")
SMALL = AttributeConfig(
    weights="faces", layers=",".join(LAYERS), image_size=75, projection_units=5, hidden_units=11, members=1,
    batch_size=16, epochs=16, learning_rate=1e-2, dropout=0.1,
)  # fmt: skip
NAMES = ("glasses=sunglasses", "hair=long", "mouth=smile")


# ---------------------------------------------------------------- loss and head


def test_the_loss_by_hand_and_its_mask() -> None:
    labels = np.array([[1.0, 0.0, -1.0]], np.float32)
    logits = np.array([[[0.0, np.log(3), 50.0]]], np.float32)  # p = 1/2, 3/4, and one that is not known
    expected = (-np.log(1 / 2) - np.log(1 / 4)) / 2
    assert float(MaskedBinaryCrossentropy()(labels, logits)) == pytest.approx(expected, rel=1e-5)
    weighted = MaskedBinaryCrossentropy([3.0, 9.0, 9.0], [7.0, 5.0, 7.0])
    assert float(weighted(labels, logits)) == pytest.approx((-3 * np.log(1 / 2) - 5 * np.log(1 / 4)) / 2, rel=1e-5)
    focal = (-((1 / 2) ** 2) * np.log(1 / 2) - (3 / 4) ** 2 * np.log(1 / 4)) / 2
    assert float(MaskedBinaryCrossentropy(focal_gamma=2.0)(labels, logits)) == pytest.approx(focal, rel=1e-5)
    smooth = (-np.log(1 / 2) - 0.9 * np.log(1 / 4) - 0.1 * np.log(3 / 4)) / 2
    assert float(MaskedBinaryCrossentropy(label_smoothing=0.2)(labels, logits)) == pytest.approx(smooth, rel=1e-5)


def test_members_share_the_labels_and_nothing_known_is_no_loss() -> None:
    labels = np.array([[1.0, 0.0]], np.float32)
    two = np.array([[[0.0, 1.0], [2.0, -1.0]]], np.float32)
    each = [float(MaskedBinaryCrossentropy()(labels, two[:, [member]])) for member in (0, 1)]
    assert float(MaskedBinaryCrossentropy()(labels, two)) == pytest.approx(np.mean(each), rel=1e-5)
    assert float(MaskedBinaryCrossentropy()(-np.ones((1, 2), np.float32), two)) == 0.0


def test_the_head_keeps_layers_and_cells_apart() -> None:
    head = GridHead([(2, 3, 5), (1, 7, 11)], outputs=13, projection_units=17, hidden_units=19)
    head.build((None, 2 * 3 * 5 + 7 * 11))
    assert [projection.kernel.shape for projection in head.projections] == [(5, 17), (11, 17)]
    assert head.hidden.kernel.shape == ((6 + 7) * 17, 19)
    features = np.random.default_rng(0).normal(size=(4, 30 + 77)).astype(np.float32)
    before = np.asarray(head(features))
    assert before.shape == (4, 13)
    moved = features.copy()
    moved[:, :5], moved[:, 5:10] = features[:, 5:10], features[:, :5]  # two cells change places
    assert not np.allclose(np.asarray(head(moved)), before)


def classifier_of_arrays(**more: object) -> AttributeClassifier:
    return AttributeClassifier(["a", "b", "c"], grids=[(2, 2, 3), (1, 1, 5)], members=2, hidden_units=7, **more)


def test_the_classifier_answers_with_calibration_and_members() -> None:
    classifier = classifier_of_arrays()
    features = np.random.default_rng(0).normal(size=(4, 1, 1, 17)).astype(np.float32)
    logits = np.asarray(classifier(features))
    assert logits.shape == (4, 2, 3)
    mean = logits.mean(axis=1)
    np.testing.assert_allclose(classifier.probabilities(features), 1 / (1 + np.exp(-mean)), rtol=1e-5)
    classifier.set_answers(slopes=[2.0, 1.0, 1.0], offsets=[0.0, -1.0, 0.0])
    expected = 1 / (1 + np.exp(-(mean * [2, 1, 1] + [0, -1, 0])))
    np.testing.assert_allclose(classifier.probabilities(features), expected, rtol=1e-5)
    classifier.set_answers([0.1, 0.2, 0.3])  # thresholds alone keep the calibration
    assert classifier.slopes.tolist() == [2, 1, 1] and classifier.thresholds.tolist() == [0.1, 0.2, 0.3]
    with pytest.raises(ValueError, match="features of 17 numbers per image expected"):
        classifier(features[..., :16])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"names": []}, "names: at least one, and each once"),
        ({"names": ["a", "a"]}, "names: at least one, and each once"),
        ({"grids": None}, "give an encoder, or the grids"),
        ({"members": 0}, "members must be at least 1"),
        ({"thresholds": [0.5]}, "thresholds: 2 numbers expected, one per attribute, got 1"),
    ],
)
def test_a_classifier_that_makes_no_sense(settings: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"names": ["a", "b"], "grids": [(1, 1, 3)], **settings}
    with pytest.raises(ValueError, match=message):
        AttributeClassifier(**given)  # type: ignore[arg-type]


# ---------------------------------------------------------------- encoder


def test_area_means_drop_nothing() -> None:
    np.testing.assert_allclose(area_means(3, 2) * 3, [[2, 1, 0], [0, 1, 2]], rtol=1e-6)
    for length, cells in ((17, 6), (35, 7), (8, 4), (5, 5)):
        matrix = area_means(length, cells)
        np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-5)
        np.testing.assert_allclose(matrix.sum(0), cells / length, rtol=1e-5)
        np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-6)  # a mirror image has mirrored means


@pytest.fixture(scope="module")
def encoder() -> GridEncoder:
    return GridEncoder(LAYERS, "faces", 75)


def test_the_encoder_gives_each_layer_as_its_means(encoder: GridEncoder) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 75, 75, 3), np.uint8)
    features = np.asarray(encoder(pixels))
    assert encoder.grids == [(3, 3, 256), (2, 2, 288)] and features.shape == (2, 1, 1, 9 * 256 + 4 * 288)
    whole = keras.Model(
        encoder.network.input, [encoder.network.get_layer(name).output for name in ("mixed0", "mixed2")]
    )
    first, second = (np.asarray(output, np.float32) for output in whole(pixels / np.float32(127.5) - 1, training=False))
    assert first.shape == (2, 7, 7, 256)
    grid = features[:, 0, 0, : 9 * 256].reshape(2, 3, 3, 256)
    pools = area_means(7, 3)
    np.testing.assert_allclose(grid, np.einsum("yr,xc,brcd->byxd", pools, pools, first), atol=0.05, rtol=0.05)
    last = features[:, 0, 0, 9 * 256 :].reshape(2, 2, 2, 288)
    pools = area_means(7, 2)
    np.testing.assert_allclose(last, np.einsum("yr,xc,brcd->byxd", pools, pools, second), atol=0.05, rtol=0.05)


def test_other_grids_have_another_fingerprint(encoder: GridEncoder) -> None:
    assert encoder.fingerprint() == encoder.fingerprint() and encoder.layer == "mixed0@3+mixed2@2"
    other = GridEncoder(("mixed0@2", "mixed2@2"), "faces", 75)
    assert other.fingerprint() != encoder.fingerprint()
    same = GridEncoder(LAYERS, "faces", 75, "inception_v3")  # as `FeatureExtractor` spells it
    assert same.fingerprint() == encoder.fingerprint() and same.layer == encoder.layer


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": ["mixed11"]}, "no layer 'mixed11': choose one of mixed0 to mixed10"),
        ({"layers": ["mixed0@x"]}, "'mixed0@x': a layer, or a layer and the side of its grid"),
        ({"layers": ["mixed0@9"]}, "mixed0@9: a grid of 1 to 7 expected: mixed0 has 7x7"),
        ({"backbone": "InceptionV9"}, "backbone 'InceptionV9': neither a model of keras.applications .*MobileNetV2"),
        ({"backbone": "MobileNetV2", "layers": ["nowhere"]}, "MobileNetV2 has no layer 'nowhere'"),
    ],
)
def test_encoders_that_are_not_there(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GridEncoder(weights="random", image_size=75, **settings)  # type: ignore[arg-type]


def test_another_backbone_by_name(tmp_path: Path) -> None:
    mobile = GridEncoder(["block_3_expand_relu@2", "block_1_expand@3"], "random", 32, "MobileNetV2")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    assert np.asarray(mobile(pixels)).shape == (2, *mobile.feature_shape)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(mobile))
    assert again.layers == mobile.layers and again.grids == mobile.grids
    with pytest.raises(FileNotFoundError, match="no such weights file"):
        GridEncoder(None, tmp_path / "no.h5", 32, "MobileNetV2")


def test_a_preset_of_keras_hub_is_saved_whole(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"num_layers": 1, "num_heads": 2, "hidden_dim": 12, "mlp_dim": 20}
    network = keras_hub.models.ViTBackbone(image_shape=(32, 32, 3), patch_size=8, **sizes)
    network.save_to_preset(str(tmp_path / "preset"))
    keras_hub.layers.ImageConverter(image_size=(32, 32), scale=1 / 255).save_to_preset(str(tmp_path / "preset"))
    encoder = GridEncoder(backbone=str(tmp_path / "preset"))
    assert encoder.feature_shape == (1, 1, 4 * 4 * 12) and encoder.scaling == "0..1" and encoder.image_size == 32
    assert str(tmp_path) not in encoder.layer
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    tokens = np.asarray(network(pixels.astype(np.float32) / 255))[:, 1:]  # (B, 16, 12)
    np.testing.assert_allclose(encoder(pixels), tokens.reshape(2, 1, 1, -1), atol=1e-5)
    (tmp_path / "preset").rename(tmp_path / "gone")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(encoder))
    again.network.set_weights(encoder.network.get_weights())
    assert again.fingerprint() == encoder.fingerprint() and again.scaling == "0..1"
    np.testing.assert_allclose(again(pixels), encoder(pixels), atol=1e-5)
    coarse = GridEncoder([f"{encoder.layers[0]}@2"], backbone=network, scaling="0..1")
    assert coarse.feature_shape == (1, 1, 2 * 2 * 12) and coarse.weights_source == "own"


# ---------------------------------------------------------------- training, files, prediction


@pytest.fixture(scope="module")
def data() -> AttributeData:
    return load_attributes("faces:120", columns=NAMES)


@pytest.fixture(scope="module")
def trained(data: AttributeData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AttributeClassifier]:
    place = tmp_path_factory.mktemp("attributes")
    classifier, report = train_attributes(data, place / "run", SMALL, features=place / "features", verbose=0)
    assert report.table["attribute"].tolist() == list(NAMES)
    return place, classifier


def test_training_learns_and_leaves_a_run(trained: tuple[Path, AttributeClassifier], data: AttributeData) -> None:
    place, classifier = trained
    history = pd.read_csv(place / "run" / "history.csv")
    assert history["loss"].iloc[-1] < 0.8 * history["loss"].iloc[0]
    report, probs, measured = evaluate_attributes(place / "run", data, "train", features=place / "features")
    assert report.macro["roc_auc"] > 0.85 and len(probs) == len(measured.pictures) == len(data.split("train").pictures)
    manifest = json.loads((place / "run" / "manifest.json").read_text())
    assert manifest["attributes"] == list(NAMES) and manifest["val"]["pictures"] == len(data.split("val").pictures)
    assert classifier.mirror and not np.allclose(classifier.slopes, 1)


def test_the_file_answers_the_same_in_a_fresh_process_from_pictures(
    trained: tuple[Path, AttributeClassifier], data: AttributeData, tmp_path: Path
) -> None:
    place, classifier = trained
    paths = list(data.split("test").pictures["path"])[:3]
    here, _ = predict_images(classifier, paths, progress=False)
    code = (
        "import sys, json; from attncap.attributes.classifier import load_classifier;"
        "from attncap.attributes.predict import predict_images;"
        "c = load_classifier(sys.argv[1]); probs, _ = predict_images(c, sys.argv[2:], progress=False);"
        "print(json.dumps([c.names, c.thresholds.tolist(), probs[list(c.names)].to_numpy().tolist()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(place / "run"), *paths], capture_output=True, text=True, check=True
    )
    names, thresholds, probs = json.loads(done.stdout.splitlines()[-1])
    assert tuple(names) == NAMES and thresholds == pytest.approx(classifier.thresholds)
    np.testing.assert_allclose(probs, here[list(NAMES)], atol=1e-5)
    store = FeatureStore(place / "features", classifier.encoder)
    rows = [path in store for path in paths]
    if not all(rows):
        store.extract(paths, progress=False)
        store.extract(paths, progress=False, mirrored=True)
    np.testing.assert_allclose(classifier.calibrated(stored_logits(classifier, store, paths)), probs, atol=2e-2)


def test_a_mirrored_picture_has_the_same_probabilities(
    trained: tuple[Path, AttributeClassifier], data: AttributeData, tmp_path: Path
) -> None:
    _, classifier = trained
    path = data.pictures["path"][0]
    open_image(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "mirrored.png")
    logits, unreadable = image_logits(classifier, [path, tmp_path / "mirrored.png"], progress=False)
    assert not unreadable
    np.testing.assert_allclose(logits[0], logits[1], atol=0.05)


def test_an_attribute_with_one_class_only_is_named(data: AttributeData, tmp_path: Path) -> None:
    labels = data.labels.copy()
    labels[(data.pictures["split"] == "train").to_numpy(), 1] = 0
    broken = AttributeData("faces", data.pictures, data.names, labels)
    message = "attribute 'hair=long' has one class only among .* training images .all .* known labels are 0.: leave"
    with pytest.raises(ValueError, match=message):
        train_attributes(broken, tmp_path / "run", SMALL)
    assert not (tmp_path / "run" / "config.json").exists()
    labels[:, 1] = np.nan
    with pytest.raises(ValueError, match="'hair=long' has one class only .*no label is known"):
        check_classes(AttributeData("faces", data.pictures, data.names, labels))


def test_missing_labels_and_a_picture_that_does_not_decode(
    data: AttributeData, trained: tuple[Path, AttributeClassifier], tmp_path: Path
) -> None:
    place, _ = trained
    pictures, labels = data.pictures.copy(), data.labels.copy()
    row = int(np.flatnonzero(pictures["split"] == "train")[0])
    (tmp_path / "broken.png").write_bytes(b"no picture")
    pictures.loc[row, "path"] = str(tmp_path / "broken.png")
    labels[np.random.default_rng(0).random(labels.shape) < 0.2] = np.nan
    settings = AttributeConfig.from_dict({**vars(SMALL), "epochs": 1, "balance": "weights"})
    broken = AttributeData("faces", pictures, data.names, labels)
    _, report = train_attributes(broken, tmp_path / "run", settings, features=place / "features", verbose=0)
    rejects = pd.read_csv(tmp_path / "run" / "rejects.csv")
    assert rejects["image_id"].tolist() == [pictures["image_id"][row]] and "broken.png" in rejects["source"][0]
    assert report.table["images"].max() < len(data.split("val").pictures)
    assert np.isfinite(pd.read_csv(tmp_path / "run" / "history.csv")["loss"]).all()
    with pytest.raises(ValueError, match="holds a run already"):
        train_attributes(broken, tmp_path / "run", settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": float("nan")}, "learning_rate must be above 0 and finite"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"silence": "no"}, "silence is one of auto, unknown, statements"),
        ({"aim": "recall"}, "aim 'recall': expected f1"),
        ({"balance": "some"}, "balance is one of none, weights, focal, got 'some'"),
        ({"members": -1}, "members must be at least 0"),
        ({"layer": "mixed0"}, "unknown settings layer; known: weights, backbone, layers"),
    ],
)
def test_settings_that_are_not_there(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AttributeConfig.from_dict(settings)


def test_files_that_are_no_classifiers(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"best\.keras: no such classifier of attributes"):
        load_classifier(tmp_path)
    (tmp_path / "best.keras").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"best\.keras: cannot be loaded as a classifier of attributes \(.+\)"):
        load_classifier(tmp_path)
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]).save(tmp_path / "dense.keras")
    with pytest.raises(ValueError, match="holds a Sequential, not a classifier of attributes"):
        load_classifier(tmp_path / "dense.keras")


def test_a_classifier_of_arrays_is_saved_with_all_its_answers(tmp_path: Path) -> None:
    classifier = classifier_of_arrays()
    features = np.random.default_rng(0).normal(size=(50, 1, 1, 17)).astype(np.float32)
    labels = (np.random.default_rng(1).random((50, 3)) < 0.4).astype(float)
    probs = settle(classifier, classifier.mean_logits(features), labels, "balanced_accuracy")
    save_classifier(classifier, tmp_path / "arrays.keras")
    again = load_classifier(tmp_path / "arrays.keras")
    np.testing.assert_allclose(again.probabilities(features), probs, atol=1e-6)
    np.testing.assert_array_equal(again.thresholds, classifier.thresholds)
    with pytest.raises(ValueError, match="holds no encoder"):
        predict_images(again, ["x.png"])


def test_fine_tuning_changes_the_last_block_alone_and_keeps_the_best_epoch(
    data: AttributeData, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = GridEncoder(LAYERS, "faces", 75, dtype="float32")
    classifier = AttributeClassifier(NAMES, own, projection_units=3, hidden_units=5)
    with pytest.raises(ValueError, match="blocks: 1 to 2 of InceptionV3 can be fine-tuned, got 7"):
        own.unfreeze(7)
    few, tuned = data.rows(np.arange(len(data.pictures)) < 8), []
    before = {variable.path: ops.convert_to_numpy(variable).copy() for variable in own.network.weights}
    scores = iter([0.1, 0.9, 0.8])  # at the start, and after each epoch

    def score(logits: np.ndarray, labels: np.ndarray) -> float:
        tuned.append((logits, classifier.get_weights()))
        return next(scores)

    monkeypatch.setattr("attncap.attributes.finetuning.mean_average_precision", score)
    monkeypatch.setattr("attncap.attributes.finetuning.BATCH_SIZE", 4)
    config = AttributeConfig(fine_tune_blocks=1, fine_tune_epochs=2, fine_tune_rate=1e-3)
    _, logits = fine_tune(classifier, few, few.rows(np.arange(8) < 3), config, best=0.0)
    np.testing.assert_array_equal(logits, tuned[1][0])
    assert all(np.array_equal(a, b) for a, b in zip(classifier.get_weights(), tuned[1][1], strict=True))
    after = {variable.path: ops.convert_to_numpy(variable) for variable in own.network.weights}
    changed = {path for path, value in before.items() if not np.array_equal(value, after[path])}
    names = [layer.name for layer in own.network.layers]
    last = set(names[names.index("mixed1") + 1 :])
    assert changed and all(path.split("/")[-2] in last and path.endswith("kernel") for path in changed)
    assert not own.trainable_variables


# ---------------------------------------------------------------- the command line


def test_predict_and_report_from_the_command_line(
    trained: tuple[Path, AttributeClassifier], data: AttributeData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, classifier = trained
    (tmp_path / "in").mkdir()
    for number, path in enumerate(list(data.pictures["path"])[:2]):
        open_image(path).save(tmp_path / "in" / f"{number}.png")
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no picture")
    run = str(place / "run")
    out, sentences = tmp_path / "p.csv", tmp_path / "s.json"
    command = ["attributes", "predict", "--run", run, "--images", str(tmp_path / "in"), "--out", str(out)]
    assert main([*command, "--captions", str(sentences)]) == 0
    probs = pd.read_csv(out)
    assert probs.columns.tolist() == ["file", *NAMES] and probs["file"].tolist() == ["0.png", "1.png"]
    assert probs[list(NAMES)].to_numpy().min() >= 0 and probs[list(NAMES)].to_numpy().max() <= 1
    assert [entry["image_id"] for entry in json.loads(sentences.read_text())] == ["0.png", "1.png"]
    assert pd.read_csv(tmp_path / "p.rejects.csv")["file"].tolist() == ["broken.jpg"]
    assert "1 images cannot be read (first" in capsys.readouterr().err
    (tmp_path / "in" / "b").mkdir()
    (tmp_path / "in" / "1.png").rename(tmp_path / "in" / "b" / "0.png")  # a name in two folders
    (tmp_path / "list.txt").write_text("in/0.png\nin/b/0.png\n", encoding="utf-8")
    assert main([*command[:5], str(tmp_path / "list.txt"), *command[6:]]) == 0
    assert pd.read_csv(out)["file"].tolist() == ["0.png", "b/0.png"]
    assert not (tmp_path / "p.rejects.csv").exists()  # of the call before
    assert main([*command[:5], str(tmp_path / "list.txt"), "--out", str(tmp_path / "list.txt")]) == 2
    assert "is the input: name another file" in capsys.readouterr().err
    command = ["attributes", "report", "--run", run, "--data", "faces:120", "--features", str(place / "features")]
    assert main([*command, "--json", "--aim", "balanced_accuracy", "--captions", str(sentences)]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [row["attribute"] for row in content["attributes"]] == list(NAMES)
    assert 0 <= content["true_characteristics"]["share"] <= 1 and content["true_characteristics"]["stated"] > 0


def test_errors_of_the_command_line_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["attributes", "train", "--data", "faces:5", "--run", str(tmp_path / "r"), "--columns", "hair=blue"]) == 2
    )
    assert "no attribute 'hair=blue': known are hair=bald" in capsys.readouterr().err
    assert main(["attributes", "train", "--data", "faces:5", "--run", str(tmp_path / "r"), "--set", "layer=1"]) == 2
    assert "--set layer=1: NAME=VALUE expected, NAME one of weights" in capsys.readouterr().err
    other = ["--backbone", "mobilenet_v2", "--weights", "random", "--image-size", "32", "--layers", "mixed5"]
    other += ["--columns", ",".join(NAMES)]
    assert main(["attributes", "train", "--data", "faces:120", "--run", str(tmp_path / "r"), *other]) == 2
    assert "MobileNetV2 has no layer 'mixed5': the last are" in capsys.readouterr().err
    assert main(["attributes", "report", "--run", str(tmp_path / "r"), "--data", "faces:5"]) == 2
    assert "no such classifier of attributes: give a run folder or a .keras file" in capsys.readouterr().err
