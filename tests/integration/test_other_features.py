"""One captioner each on drawn faces through other encoders and through features computed elsewhere.

Trained, saved, loaded in a fresh process, captioning an image file, its map drawn. Two files of features run in
`make test`; the encoders, which take a minute, are marked slow.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import attncap
from attncap.cli.main import _parser, main
from attncap.cli.outside_features import caption_with
from attncap.data.dataset import CaptionData
from attncap.decoding.predict import caption_features
from attncap.features.external import ExternalFeatures
from attncap.features.extractor import FeatureExtractor
from attncap.features.store import FeatureStore
from attncap.images import read_image
from attncap.models.attention_captioner import AttentionCaptioner
from attncap.tokenizers import SPECIAL_TOKENS, WordTokenizer
from attncap.training.config import TrainConfig
from attncap.training.run_folder import RunFolder
from attncap.training.train import train
from tests.plotting.explorer.test_page import stored

FACES = "faces:40"
SMALL: dict[str, Any] = {
    "min_count": 1,
    "embedding_units": 16,
    "hidden_units": 16,
    "projection_units": 16,
    "attention_units": 8,
    "batch_size": 8,
    "epochs": 2,
    "learning_rate": 0.02,
    "dropout": 0.0,
    "dtype": "float32",
}
ROOT = Path(__file__).parents[2]


def options_of(settings: dict[str, Any]) -> list[str]:
    return [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]


def in_a_fresh_process(*commands: list[str]) -> list[str]:
    """Run commands of attncap in one new process; return what each printed."""
    code = (
        "import contextlib, io, json, sys\n"
        "from attncap.cli.main import main\n"
        "printed = []\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "        assert main(command) in (None, 0), command\n"
        "    printed.append(out.getvalue())\n"
        "print(json.dumps(printed))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def faces() -> CaptionData:
    return attncap.load(FACES)


@pytest.fixture(scope="module")
def grids(faces: CaptionData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grid of colors of each face, computed with Pillow alone; the first of all faces has none."""
    file = tmp_path_factory.mktemp("grids") / "colors.npz"
    pictures = faces.pictures.iloc[1:]
    colors = [np.asarray(read_image(path).resize((5, 4)), np.float16) / 128 for path in pictures["path"]]
    np.savez(file, features=np.stack(colors), image_ids=pictures["image_id"].to_numpy(str))  # (N, 4, 5, 3)
    return file


@pytest.fixture(scope="module")
def regions(faces: CaptionData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The boxes of each face, 2 to 8 of them: the mean color inside, and where the box lies."""
    assert faces.boxes is not None
    features = np.zeros((len(faces.pictures), 8, 7), np.float32)  # (N, L, D)
    boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (len(features), 8, 1))
    mask = np.zeros(features.shape[:2], bool)
    for row, (image_id, path) in enumerate(faces.pictures[["image_id", "path"]].itertuples(index=False)):
        image = read_image(path)
        corners = faces.boxes.loc[faces.boxes["image_id"] == image_id, ["left", "top", "right", "bottom"]]
        for at, box in enumerate(corners.to_numpy(np.float32)[: 2 + row % 7]):
            pixels = tuple(box * (image.width, image.height, image.width, image.height))
            features[row, at, :3] = np.asarray(image.crop(pixels).resize((1, 1)))[0, 0] / 128
            features[row, at, 3:] = boxes[row, at] = box
            mask[row, at] = True
    features[~mask] = 9.0  # nobody may read what is masked
    file = tmp_path_factory.mktemp("regions") / "regions.npz"
    ids = faces.pictures["image_id"].to_numpy(str)
    np.savez(file, features=features, boxes=boxes, mask=mask, image_ids=ids)
    return file


def run_of(command: list[str]) -> None:
    """Run a command of attncap; an error that it would print is raised."""
    parsed = _parser().parse_args(command)
    parsed.run(parsed)


def first_test_image(faces: CaptionData) -> Any:
    return faces.split("test").pictures.iloc[0]


def trained(faces: CaptionData, file: Path, run: Path, **settings: Any) -> attncap.Captioner:
    main(["train", "--data", FACES, "--features-file", str(file), "--run", str(run), *options_of(SMALL | settings)])
    history = (run / "history.csv").read_text().splitlines()
    loss = [float(line.split(",")[history[0].split(",").index("val_loss")]) for line in history[1:]]
    assert len(loss) == 2 and loss[1] < loss[0]
    captioner = attncap.load_captioner(run)
    assert captioner.encoder is None
    return captioner


@pytest.fixture(scope="module")
def commands(faces: CaptionData, grids: Path, regions: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """Two trained captioners, a folder, and what the commands on their runs print in one fresh process."""
    folder = tmp_path_factory.mktemp("commands")
    captioners = {name: trained(faces, file, folder / name) for name, file in (("grids", grids), ("regions", regions))}
    image = first_test_image(faces)["path"]
    held_out, page = ["--data", FACES, "--split", "test"], str(folder / "page.html")
    printed = in_a_fresh_process(
        ["caption", "--run", str(folder / "grids"), image, "--heatmap", str(folder / "grids.png")],
        ["caption", "--run", str(folder / "regions"), image, "--heatmap", str(folder / "regions.png")],
        ["predict", "--run", str(folder / "grids"), *held_out, "--out", str(folder / "predictions.json")],
        ["ground", "--run", str(folder / "regions"), *held_out, "--boxes", "faces", "--probes", "--json"],
        ["explore", "--run", str(folder / "regions"), "--against", str(folder / "grids"), *held_out, "--out", page],
        ["explain", "--run", str(folder / "regions"), image, "--out", str(folder / "why.png"), "--faithfulness"],
    )
    return captioners, folder, printed


def test_a_numpy_file_of_grids(faces: CaptionData, grids: Path, commands: tuple) -> None:
    captioners, folder, printed = commands
    captioner = captioners["grids"]
    assert captioner.feature_shape == (4, 5, 3) and not captioner.masked
    assert f"no features of it in {grids}" in (folder / "grids" / "rejects.csv").read_text()
    image = first_test_image(faces)
    (caption,), rejects = caption_features(captioner, ExternalFeatures.read(grids), [image["image_id"]], beam_width=3)
    assert rejects.empty and caption.boxes is None and caption.attention_weights.shape[1:] == (4, 5)
    # The run knows the file that it was trained on; the image is known by its file name.
    assert printed[0].strip() == caption.sentence
    assert np.asarray(Image.open(folder / "grids.png")).std() > 10
    written = {row["image_id"]: row["caption"] for row in json.loads((folder / "predictions.json").read_text())}
    assert written[image["image_id"]] == caption.text and len(written) == len(faces.split("test").pictures)


def test_masked_regions_with_boxes(faces: CaptionData, regions: Path, commands: tuple) -> None:
    captioners, folder, printed = commands
    captioner = captioners["regions"]
    assert captioner.feature_shape == (1, 8, 7) and captioner.masked
    features = ExternalFeatures.read(regions)
    test = faces.split("test").pictures
    captions, _ = caption_features(captioner, features, list(test["image_id"]), beam_width=3)
    there = features.mask(list(test["image_id"]))
    assert there is not None and not there.all()
    for caption, own in zip(captions, there, strict=True):
        assert caption.boxes is not None and caption.attention_weights is not None and len(caption.words) > 0
        assert (caption.attention_weights[:, 0, ~own] == 0).all() and (caption.attention_weights[:, 0, own] > 0).all()
    assert printed[1].strip() == captions[0].sentence
    assert np.asarray(Image.open(folder / "regions.png")).std() > 10
    measured = json.loads(printed[3])
    assert [blanked["radius"] for blanked in measured["probes"]["faithfulness"]] == [0]  # regions have no neighbors
    assert measured["n_phrases"] > 0 and measured["attention_correctness"] > 0 and measured["uniform"] > 0


def test_explorer_and_explanations_of_regions(commands: tuple) -> None:
    _, folder, printed = commands
    assert printed[4].startswith("5 images in ")
    page = stored((folder / "page.html").read_text())
    assert len(page["runs"]) == 2 and all(image["other"]["words"] for image in page["images"])
    assert np.asarray(Image.open(folder / "why.png")).std() > 10
    faithfulness = printed[5].splitlines()
    assert {"occlusion", "attention", "random"} <= {line.split()[0] for line in faithfulness if line.split()}


@pytest.mark.slow
def test_a_killed_training_resumes_with_its_file(faces: CaptionData, regions: Path, tmp_path: Path) -> None:
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            raise KeyboardInterrupt

    config = TrainConfig(**SMALL)
    train(faces, tmp_path / "whole", config, features=str(regions), verbose=0)
    with pytest.raises(KeyboardInterrupt):
        train(
            faces, tmp_path / "killed", config, features=ExternalFeatures.read(regions), callbacks=[Stop()], verbose=0
        )
    main(["train", "--data", FACES, "--run", str(tmp_path / "killed"), "--resume"])
    histories = [(tmp_path / run / "history.csv").read_text() for run in ("whole", "killed")]
    assert histories[0] == histories[1]
    noted = json.loads((tmp_path / "killed" / "manifest.json").read_text())["features_file"]
    assert noted == str(regions.absolute())
    changed = dict(np.load(regions))
    np.savez(tmp_path / "changed.npz", **{**changed, "features": changed["features"] + 1})
    with pytest.raises(ValueError, match="cannot resume: encoder_fingerprint is"):
        train(faces, tmp_path / "killed", features=str(tmp_path / "changed.npz"), resume=True, verbose=0)


def test_what_does_not_go_with_features_from_a_file(faces: CaptionData, regions: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"features": str(regions), "verbose": 0}
    with pytest.raises(
        ValueError, match=r"layer is mixed8, but features are read from .*regions\.npz: leave layer out"
    ):
        train(faces, tmp_path / "run", TrainConfig(**SMALL, layer="mixed8"), **given)
    supervised = TrainConfig(**SMALL, attention_supervision=1.0)
    with pytest.raises(ValueError, match=r"boxes 'faces' supervise the maps of a grid, and .* has regions"):
        train(faces, tmp_path / "run", supervised, boxes="faces", **given)
    assert not RunFolder(tmp_path / "run").config_file.exists()
    captioner = AttentionCaptioner(WordTokenizer([*SPECIAL_TOKENS, "a"]), (4, 5, 3), hidden_units=8)
    with pytest.raises(
        ValueError, match=r"\(1, 8, 7\) \(rows, cols, D\), and the captioner was trained on \(4, 5, 3\)"
    ):
        caption_features(captioner, ExternalFeatures.read(regions), [faces.pictures["image_id"].iloc[0]])


def test_regions_without_boxes_have_no_place(
    faces: CaptionData, regions: Path, commands: tuple, tmp_path: Path
) -> None:
    """Their maps would be drawn, and measured, as stripes over the image."""
    _, folder, _ = commands
    arrays = dict(np.load(regions))
    arrays.pop("boxes")
    np.savez(tmp_path / "bare.npz", **arrays)
    given = ["--run", str(folder / "regions"), "--features-file", str(tmp_path / "bare.npz")]
    image, out = first_test_image(faces)["path"], ["--out", str(tmp_path / "out")]
    held_out = ["--data", FACES, "--split", "test"]
    for command in (
        ["caption", *given, image, "--heatmap", str(tmp_path / "map.png")],
        ["explain", *given, image, *out],
        ["ground", *given, *held_out, "--boxes", "faces"],
    ):
        with pytest.raises(ValueError, match=r"bare\.npz: holds regions without boxes, .* add boxes \(N, L, 4\)"):
            run_of(command)
    run_of(["caption", *given, image])
    run_of(["explore", *given, *held_out, "--out", str(tmp_path / "page.html")])
    page = stored((tmp_path / "page.html").read_text())
    assert all(beam["maps"] is None and beam["words"] for image in page["images"] for beam in image["beams"])


def test_images_without_features_are_named(faces: CaptionData, regions: Path, commands: tuple, tmp_path: Path) -> None:
    """By their own image_id and path, also where the file knows images by their file names."""
    _, folder, _ = commands
    test = faces.split("test").pictures
    table = pd.DataFrame({"image_id": [f"no {n}" for n in range(len(test))], "path": test["path"].tolist()})
    arrays = dict(np.load(regions))
    kept = arrays["image_ids"] != test["image_id"].iloc[1]
    np.savez(tmp_path / "some.npz", **{name: array[kept] for name, array in arrays.items()})
    options = argparse.Namespace(
        features_file=str(tmp_path / "some.npz"), runs=[str(folder / "regions")], consensus=None, neighbors=None,
        beam_width=1, length_penalty=None,
    )  # fmt: skip
    captioner = attncap.load_captioner(folder / "regions")
    captions, rejects = caption_with(options, captioner, table["path"].tolist(), table["image_id"].tolist())
    assert [caption.image_id for caption in captions] == ["no 0", *(f"no {n}" for n in range(2, len(test)))]
    assert rejects[["image_id", "path"]].to_numpy().tolist() == [["no 1", test["path"].iloc[1]]]


def test_an_ensemble_of_runs_on_regions(faces: CaptionData, commands: tuple, tmp_path: Path) -> None:
    _, folder, _ = commands
    run = str(folder / "regions")
    run_of(["caption", "--run", run, "--run", run, first_test_image(faces)["path"], "--heatmap", f"{tmp_path}/m.png"])
    mean, *members = (np.asarray(Image.open(tmp_path / f"m{end}.png")) for end in ("", "_run1", "_run2"))
    for member in members:  # two times the same captioner: the same boxes drawn
        np.testing.assert_array_equal(member, mean)


def test_members_trained_on_different_files_need_one_named(
    faces: CaptionData, regions: Path, commands: tuple, tmp_path: Path
) -> None:
    """Features of the same shape are not the same features."""
    _, folder, _ = commands
    other = shutil.copytree(folder / "regions", tmp_path / "other")
    file = shutil.copy(regions, tmp_path / "moved.npz")
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "features_file": str(file)}))
    runs = ["--run", str(folder / "regions"), "--run", str(other)]
    image = first_test_image(faces)["path"]
    with pytest.raises(ValueError, match=r"different files of features, .*regions\.npz and .*moved\.npz, .*: name"):
        run_of(["caption", *runs, image])
    run_of(["caption", *runs, image, "--features-file", str(regions)])


def test_a_captioner_of_ones_own_has_the_shape_of_the_features(
    faces: CaptionData, regions: Path, tmp_path: Path
) -> None:
    tokenizer = WordTokenizer([*SPECIAL_TOKENS, "a"])
    given: dict[str, Any] = {"features": str(regions), "verbose": 0}
    for settings, message in (
        ({"feature_shape": (4, 5, 3)}, r"features of shape \(1, 8, 7\) .* trained on \(4, 5, 3\)"),
        ({"feature_shape": (1, 8, 7)}, "has rows of padding, and the captioner was trained without any"),
    ):
        captioner = AttentionCaptioner(tokenizer, hidden_units=8, **settings)
        with pytest.raises(ValueError, match=message):
            train(faces, tmp_path / "run", TrainConfig(**SMALL), model=captioner, **given)


def vit() -> keras.Model:
    return keras_hub.models.ViTBackbone(
        image_shape=(96, 96, 3), patch_size=16, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=20
    )


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet50", "MobileNetV3Small", "ViT"])
def test_other_encoders(faces: CaptionData, tmp_path: Path, backbone: str) -> None:
    config = TrainConfig(**SMALL, **({} if backbone == "ViT" else {"weights": "random", "image_size": 96}))
    if backbone == "ViT":
        keras.utils.set_random_seed(0)
        encoder = FeatureExtractor(backbone=vit(), scaling="-1..1")
        features: Any = FeatureStore(tmp_path / "features", encoder)
        train(faces, tmp_path / "run", config, features=features, verbose=0)
    else:
        main(["train", "--data", FACES, "--run", str(tmp_path / "run"), "--features", str(tmp_path / "features"),
              *options_of(SMALL | {"backbone": backbone, "weights": "random", "image_size": 96})])  # fmt: skip
    captioner = attncap.load_captioner(tmp_path / "run")
    assert captioner.encoder is not None and captioner.feature_shape[:2] == ((6, 6) if backbone == "ViT" else (3, 3))
    image = first_test_image(faces)
    caption = attncap.caption(captioner, image["path"], beam_width=3)
    heatmap = str(tmp_path / "map.png")
    (printed,) = in_a_fresh_process(["caption", "--run", str(tmp_path / "run"), image["path"], "--heatmap", heatmap])
    assert printed.strip() == caption.sentence
    assert np.asarray(Image.open(heatmap)).std() > 10
