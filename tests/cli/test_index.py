"""Pooled embeddings, and `attncap index` from end to end on drawn faces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from attncap.cli.main import main
from attncap.data.load import load
from attncap.images import UnreadableImage
from attncap.retrieval.database import encoder_of


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("faces")
    data = load("faces:60", folder=folder)
    table = data.captions.drop_duplicates("image_id").merge(data.pictures, on="image_id")
    table["file"] = [Path(path).name for path in table["path"]]
    table[["file", "caption", "split"]].to_csv(folder / "captions.csv", index=False)
    return folder, f"table:{folder / 'captions.csv'}:{folder / 'images'}", table


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["index", *arguments])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_build_query_tune(faces: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, spec, table = faces
    train = table[table["split"] == "train"]
    db = str(tmp_path / "faces.db")
    for _ in range(2):  # the second adds nothing
        status, out, _ = run(capsys, "build", "--data", spec, "--split", "train", "--db", db)
        assert status == 0 and f"{len(train)} images in" in out
    first = train.iloc[0]
    status, out, _ = run(capsys, "query", "--db", db, first["path"], "-k", "3")
    heads, *rows = out.splitlines()
    assert status == 0 and len(rows) == 3
    at = heads.index("label")
    assert heads.split() == ["distance", "nearest", "label"] and rows[0].split()[:2] == ["0", first["file"]]
    assert rows[0][at:] == first["caption"] and all(row[at - 2 : at] == "  " and row[at] != " " for row in rows)
    status, out, _ = run(
        capsys, "tune", "--db", db, "--match", "copies", "--index-data", spec, "--data", spec, "--split", "test",
        "--sample", "7", "--plot", str(tmp_path / "curve.png"), "--out", str(tmp_path / "curve.csv"), "--json",
    )  # fmt: skip
    tuned = json.loads(out)
    assert status == 0 and 0 < tuned["best"]["threshold"] < 30
    assert tuned["copies"][0]["change"] == "the same file" and tuned["copies"][-1]["change"] == "not in the index"
    assert (pd.read_csv(tmp_path / "curve.csv")["errors"].min()) == tuned["best"]["errors"]
    with Image.open(tmp_path / "curve.png") as figure:
        assert figure.width > 400
    status, out, _ = run(capsys, "query", "--db", db, first["path"], "--json")
    assert json.loads(out)["threshold"] == tuned["best"]["threshold"]
    status, out, _ = run(capsys, "tune", "--db", db, "--match", "rouge_l:0.3", "--keep")
    assert status == 0 and out.startswith("threshold")
    status, out, _ = run(
        capsys, "query", "--db", db, "--images", str(folder / "images"), "--out", str(tmp_path / "p.json")
    )
    predictions = {entry["image_id"]: entry["caption"] for entry in json.loads((tmp_path / "p.json").read_text())}
    assert len(predictions) == 60 and predictions[first["file"]] == first["caption"]


def test_mistakes_are_said_in_one_line(faces: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, spec, table = faces
    db = str(tmp_path / "m.db")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "bad.png").write_bytes(b"no picture")
    (tmp_path / "bad.csv").write_text("file,caption\nbad.png,nothing\n")
    status, out, err = run(capsys, "build", "--data", f"table:{tmp_path / 'bad.csv'}:{tmp_path / 'images'}", "--db", db)
    assert status == 2 and "none of its 1 images can be put into an index" in err
    assert "1 images cannot be read" in err and "bad.png: not an image" in err
    picture = table["path"].iloc[0]
    cases = [
        (("query", "--db", db, picture), r"m.db: 0 images in it, at least 1 needed"),
        (("query", "--db", str(tmp_path / "no.db"), picture), "no.db: no such image index"),
        (("query", "--db", db), "give images, or --images FOLDER together with --out JSON"),
        (("tune", "--db", db, "--match", "color"), "match 'color': label, or cider_d"),
        (("tune", "--db", db, "--match", "copies"), "--match copies needs --index-data"),
        (
            ("build", "--data", spec, "--db", db, "--encoder", "dhash:256"),
            "m.db: holds codes of encoder dhash, bits 64",
        ),
        (("build", "--data", spec, "--db", db, "--encoder", "dhash:many"), "expected a number of bits after dhash"),
        (("build", "--data", spec, "--db", db, "--image-size", "150"), "--image-size 150: is for layers of networks"),
        (
            ("build", "--data", spec, "--db", db, "--encoder", "dhash", "--backbone", "resnet50"),
            "--backbone resnet50: is for layers of networks",
        ),
        (("build", "--data", spec, "--db", str(folder / "captions.csv")), "captions.csv: not an image index"),
    ]
    for arguments, said in cases:
        status, _, err = run(capsys, *arguments)
        assert status == 2 and said in err and "Traceback" not in err, (arguments, err)
        assert len(err.strip().splitlines()) == 1, err


def test_rows_that_are_gone_leave_the_index_and_plain_images_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    for name, color in (("red", "red"), ("blue", "blue"), ("other", "green")):
        Image.new("RGB", (20, 20), color).save(tmp_path / "images" / f"{name}.png")
    Image.linear_gradient("L").rotate(90).save(tmp_path / "images" / "ramp.png")
    table, db = tmp_path / "captions.csv", str(tmp_path / "i.db")
    spec = f"table:{table}:{tmp_path / 'images'}"
    table.write_text("file,caption\nred.png,a red one\nblue.png,a blue one\nramp.png,a ramp\n")
    status, out, err = run(capsys, "build", "--data", spec, "--db", db)
    assert status == 0 and "3 images in" in out and "2 plain images (first red.png)" in err
    table.write_text("file,caption\nred.png,a red one\nramp.png,a ramp\n")
    status, out, _ = run(capsys, "build", "--data", spec, "--db", db)
    assert status == 0 and "2 images in" in out and "1 images removed: no longer in" in out
    plain = str(tmp_path / "images" / "other.png")
    status, out, err = run(capsys, "query", "--db", db, plain)
    assert status == 0 and out.splitlines()[1].split() == ["0", "red.png", "no", "matching", "label"]
    assert f"{plain}: a plain image: no bit of its hash is set" in err
    with pytest.raises(SystemExit):
        run(capsys, "query", "--db", db, plain, "-k", "0")
    assert "argument -k: expected 1 or more, got 0" in capsys.readouterr().err


def test_equal_names_in_two_folders_and_beside_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, db = tmp_path / "images", str(tmp_path / "i.db")
    names = ["a/1.png", "b/1.png", "me.jpg", "me.png"]
    for turn, name in enumerate(names):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        blocks = np.random.default_rng(turn).integers(0, 256, (9, 9), np.uint8)
        Image.fromarray(blocks).resize((90, 90), Image.Resampling.BICUBIC).save(images / name)
    table = tmp_path / "captions.csv"
    table.write_text("file,caption\n" + "".join(f"{name},ramp {at}\n" for at, name in enumerate(names)))
    (tmp_path / "i.rejects.csv").write_text("of a call before\n")
    status, out, _ = run(capsys, "build", "--data", f"table:{table}:{images}", "--db", db)
    assert status == 0 and "4 images in" in out and not (tmp_path / "i.rejects.csv").exists()
    (tmp_path / "list.txt").write_text("".join(f"images/{name}\n" for name in names[:2]), encoding="utf-8")
    for where, expected in ((images, names), (tmp_path / "list.txt", names[:2])):
        status, _, _ = run(capsys, "query", "--db", db, "--images", str(where), "--out", str(tmp_path / "p.json"))
        rows = json.loads((tmp_path / "p.json").read_text())
        assert status == 0 and [row["image_id"] for row in rows] == expected
        assert [row["caption"] for row in rows] == [f"ramp {names.index(name)}" for name in expected]
    files = [str(images / name) for name in names]
    status, out, _ = run(capsys, "query", "--db", db, *files)
    heads, *rows = out.splitlines()
    assert status == 0 and heads.split() == ["image", "distance", "nearest", "label"]
    assert [(row.split()[0], row.split()[2]) for row in rows] == list(zip(files, names, strict=True))
    status, _, err = run(capsys, "query", "--db", db, "--images", str(images), "--out", db)
    assert status == 2 and "is the input" in err


def test_an_index_keeps_the_size_that_its_encoder_reads(
    faces: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, spec, table = faces
    first, db = table[table["split"] == "test"].iloc[0], str(tmp_path / "m.db")
    layer = ("--encoder", "mixed0", "--weights", "faces", "--image-size", "81")
    status, out, _ = run(capsys, "build", "--data", spec, "--split", "test", "--db", db, *layer)
    assert status == 0 and encoder_of(db)["image_size"] == 81
    status, out, _ = run(capsys, "query", "--db", db, first["path"])
    assert status == 0 and float(out.split()[3]) == pytest.approx(0, abs=2e-3) and first["caption"] in out


def test_an_index_by_another_backbone(faces: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, spec, table = faces
    first, db = table[table["split"] == "test"].iloc[0], str(tmp_path / "m.db")
    network = ("--backbone", "MobileNetV3Small", "--encoder", "expanded_conv_2_add", "--weights", "random")
    keras.utils.set_random_seed(0)
    status, out, _ = run(capsys, "build", "--data", spec, "--split", "test", "--db", db, *network, "--image-size", "64")
    described = encoder_of(db)
    assert (
        status == 0
        and described["encoder"] == "pooled MobileNetV3Small expanded_conv_2_add"
        and described["scaling"] == "0..255"
    )
    keras.utils.set_random_seed(0)  # the same random weights again
    status, out, _ = run(capsys, "query", "--db", db, first["path"])
    assert status == 0 and float(out.split()[3]) == pytest.approx(0, abs=2e-3) and first["caption"] in out


def test_pooled_embeddings(faces: Any, tmp_path: Path) -> None:
    from attncap.features.extractor import FeatureExtractor
    from attncap.features.store import FeatureStore
    from attncap.retrieval.embeddings import PooledEmbedding
    from attncap.retrieval.index import ImageIndex

    _, _, table = faces
    paths = table["path"].tolist()[:5]
    extractor = FeatureExtractor("mixed0", weights="random", image_size=75)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    direct = PooledEmbedding(extractor)
    computed = direct.encode([paths[0], tmp_path / "bad.png", Image.open(paths[1])])
    stored = PooledEmbedding(extractor, FeatureStore(tmp_path, extractor)).encode([paths[0], tmp_path / "bad.png"])
    for codes in (computed, stored):
        assert isinstance(codes[0], np.ndarray)
        assert isinstance(codes[1], UnreadableImage)
        assert np.linalg.norm(codes[0]) == pytest.approx(1) and codes[0].shape == (256,)
        grid = np.asarray(extractor(extractor.preprocess(Image.open(paths[0]).convert("RGB"))[None]), np.float32)
        pooled = grid.mean((1, 2))[0]
        assert codes[0] @ pooled / np.linalg.norm(pooled) == pytest.approx(1, abs=1e-3)
    with ImageIndex(tmp_path / "e.db", direct) as index:
        assert index.add(paths, [[path] for path in paths], progress=False).empty
        assert index.query(paths[3])[0].labels == (paths[3],)
    float32 = FeatureExtractor("mixed0", weights="random", image_size=75, dtype="float32")
    float32.network.set_weights(extractor.network.get_weights())
    with ImageIndex.load(tmp_path / "e.db", PooledEmbedding(float32)) as again:  # other arithmetic, same codes
        assert again.query(paths[3])[0].distance == pytest.approx(0, abs=2e-3)
    float32.network.set_weights([value + 1 for value in extractor.network.get_weights()])
    with pytest.raises(ValueError, match=r"e\.db: holds codes of encoder pooled InceptionV3 mixed0.* was asked for"):
        ImageIndex.load(tmp_path / "e.db", PooledEmbedding(float32))
