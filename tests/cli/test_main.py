"""The command line from end to end on a small demo: every command, its files, and its errors without a traceback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from attncap.captions import as_sentence
from attncap.cli.main import main
from tests.plotting.explorer.test_page import stored

PICTURES = 120
EPOCHS = 3


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A demo of few faces and epochs, through the function that the command calls."""
    from attncap.reports.demo import CONFIG, demo

    out = tmp_path_factory.mktemp("demo") / "out"
    demo(out, seed=3, pictures=PICTURES, config=replace(CONFIG, epochs=EPOCHS, batch_size=4))
    yield out


def test_demo_writes_scores_figures_and_a_run(demo_folder: Path) -> None:
    scores = json.loads((demo_folder / "scores.json").read_text())
    assert len(scores["bleu"]) == 4 and all(0 <= score <= 1 for score in scores["bleu"])
    assert scores["bleu"] == sorted(scores["bleu"], reverse=True)
    assert scores["bleu_policy"] == "closest"
    assert 0 <= scores["true_characteristics"]["share"] <= 1 and scores["true_characteristics"]["stated"] > 0
    assert set(scores["grounding"]) >= {"attention_correctness", "uniform", "pointing_game", "per_characteristic"}
    for name in ("heatmap_1.png", "training.png", "predictions.png"):
        with Image.open(demo_folder / name) as figure:
            assert figure.width > 400 and np.asarray(figure.convert("L")).std() > 10
    history = pd.read_csv(demo_folder / "run" / "history.csv")
    assert history["epoch"].tolist() == list(range(EPOCHS))
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]


@pytest.mark.slow
def test_a_second_demo_trains_nothing_and_finds_the_same(demo_folder: Path) -> None:
    from attncap.reports.demo import CONFIG, demo

    before = json.loads((demo_folder / "scores.json").read_text())
    state = (demo_folder / "run" / "state.npz").stat().st_mtime_ns
    again = demo(demo_folder, seed=3, pictures=PICTURES, config=replace(CONFIG, epochs=EPOCHS, batch_size=4))
    assert again["bleu"] == before["bleu"] and again["grounding"] == before["grounding"]
    assert (demo_folder / "run" / "state.npz").stat().st_mtime_ns == state
    with pytest.raises(ValueError, match="faces of .*seed.*expected, found"):
        demo(demo_folder, seed=4, pictures=PICTURES, config=replace(CONFIG, epochs=EPOCHS, batch_size=4))


def test_demo_predictions_are_of_held_out_faces_alone(demo_folder: Path) -> None:
    from attncap.data.load import load

    data = load(f"faces:{PICTURES}", seed=3, folder=demo_folder / "faces")
    predicted = {row["image_id"] for row in json.loads((demo_folder / "predictions.json").read_text())}
    assert predicted == set(data.split("test").pictures["image_id"])


def test_predict_evaluate_and_caption(demo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, images = demo_folder / "run", tmp_path / "images"
    images.mkdir()
    faces = sorted((demo_folder / "faces").rglob("*.png"))[:5]
    for face in faces:
        (images / face.name).write_bytes(face.read_bytes())
    (images / "broken.png").write_bytes(faces[0].read_bytes()[:200])
    out = tmp_path / "predictions.json"
    assert main(["predict", "--run", str(run), "--images", str(images), "--out", str(out), "--beam-width", "2"]) == 0
    rows = json.loads(out.read_text())
    assert [row["image_id"] for row in rows] == [face.name for face in faces]
    assert pd.read_csv(tmp_path / "predictions.rejects.csv")["image_id"].tolist() == ["broken.png"]

    references = tmp_path / "references.json"
    captions = [{"id": n, "image_id": row["image_id"], "caption": row["caption"]} for n, row in enumerate(rows)]
    images_json = [{"id": row["image_id"], "file_name": row["image_id"]} for row in rows]
    references.write_text(json.dumps({"images": images_json, "annotations": captions}))
    capsys.readouterr()
    assert main(["evaluate", "--predictions", str(out), "--references", str(references), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bleu"] == pytest.approx([1.0] * 4)
    assert main(["evaluate", "--predictions", str(out), "--references", str(references), "--against", str(out)]) == 0
    assert "BLEU-4" in capsys.readouterr().out

    heatmap = tmp_path / "heatmap.png"
    assert main(["caption", "--run", str(run), str(faces[0]), "--beam-width", "2", "--heatmap", str(heatmap)]) == 0
    assert capsys.readouterr().out.strip() == as_sentence(rows[0]["caption"])
    db, agreed = str(tmp_path / "train.db"), ["--beam-width", "4", "--consensus", "faces:40", "--neighbors"]
    index = ["index", "build", "--data", "faces:40", "--split", "train", "--db", db, "--weights", "faces"]
    assert main([*index, "--encoder", "mixed0"]) == 0
    assert main(["caption", "--run", str(run), str(faces[0]), *agreed, db]) == 0
    assert len(capsys.readouterr().out.split()) > 1
    assert main(["caption", "--run", str(run), str(faces[0]), "--neighbors", db]) == 2
    assert "--neighbors is for minimum Bayes risk decoding: add --consensus" in capsys.readouterr().err
    other = ["index", "build", "--data", "faces:40", "--db", str(tmp_path / "other.db"), "--encoder", "dhash"]
    assert main(other) == 0
    assert main(["caption", "--run", str(run), str(faces[0]), *agreed, str(tmp_path / "other.db")]) == 2
    assert re.search(r"other\.db: .*the captioner reads mixed0 of 150", capsys.readouterr().err)
    with Image.open(heatmap) as figure:
        assert figure.width > 400


def test_training_resumes_and_refuses_a_second_run(demo_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "--data", "faces:20", "--run", str(demo_folder / "run"), "--weights", "faces"]
    assert main(arguments) == 2
    assert "holds a run already; resume it" in capsys.readouterr().err
    assert main([*arguments, "--resume", "--epochs", "7"]) == 2
    assert "other settings: epochs" in capsys.readouterr().err


def test_check_lists_rejects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (9, 7), "red").save(tmp_path / "red.png")
    (tmp_path / "captions.csv").write_text("file,caption\nred.png,a red picture\nblue.png,a blue picture\n")
    out = tmp_path / "rejects.csv"
    assert main(["check", "--data", f"table:{tmp_path / 'captions.csv'}:{tmp_path}", "--out", str(out)]) == 0
    assert "1 images" in capsys.readouterr().out
    assert "blue.png" in out.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "nowhere", "--run", "r"], r"nowhere.*no such folder"),
        (
            ["train", "--data", "faces:9", "--run", "r", "--set", "hiden_units=3"],
            r"hiden_units=3.*NAME one of.*hidden_units",
        ),
        (["train", "--data", "faces:9", "--run", "r", "--set", "dropout=much"], r"dropout=much: float expected"),
        (["train", "--data", "faces:9", "--run", "r", "--set", "image_size=big"], r"image_size=big: int expected"),
        (
            ["train", "--data", "faces:9", "--run", "r", "--weights", "random", "--image-size", "0"],
            r"image_size must be at least 75, got 0",
        ),
        (
            ["features", "--data", "faces:9", "--weights", "random", "--image-size", "40"],
            r"at least 75x75",
        ),
        (["train", "--data", "faces:9", "--run", "r", "--epochs", "0"], r"epochs must be at least 1"),
        (["train", "--data", "faces:9", "--run", "r", "--clip-norm", "nan"], r"clip_norm is a finite number"),
        (["caption", "--run", "no_run", "a.png"], r"no_run.*no such captioner"),
        (["predict", "--run", "r", "--images", "no_folder", "--out", "p.json"], r"no_folder.*neither a folder"),
        (["evaluate", "--predictions", "none.json", "--references", "faces:9"], r"none\.json"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import re

    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and error[0].startswith(f"attncap {arguments[0]}: ")
    assert re.search(message, error[0])


@pytest.mark.slow
def test_equal_names_in_two_folders_and_beside_each_other(
    demo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, folder = ["--run", str(demo_folder / "run")], tmp_path / "images"
    faces = sorted((demo_folder / "faces").rglob("*.png"))[:4]
    for face, name in zip(faces, ("a/1.png", "b/1.png", "me.jpg", "me.png"), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.open(face).save(folder / name)
    (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(faces[0].read_bytes())
    out, rejects = tmp_path / "p.json", tmp_path / "p.rejects.csv"
    ids = ["a/1.png", "b/1.png", "me.jpg", "me.png"]
    assert main(["predict", *run, "--images", str(folder), "--out", str(out), "--beam-width", "1"]) == 0
    assert [row["image_id"] for row in json.loads(out.read_text())] == ids
    assert pd.read_csv(rejects)["image_id"].tolist() == ["caf\\udce9.png"]
    (tmp_path / "list.txt").write_text("\n".join(f"images/{name}" for name in ids[:2]), encoding="utf-8")
    assert main(["predict", *run, "--images", str(tmp_path / "list.txt"), "--out", str(out), "--beam-width", "1"]) == 0
    assert [row["image_id"] for row in json.loads(out.read_text())] == ids[:2]
    assert not rejects.exists()  # of the call before

    capsys.readouterr()
    heatmap, files = tmp_path / "map.png", [str(folder / name) for name in ids]
    assert main(["caption", *run, *files, "--beam-width", "1", "--heatmap", str(heatmap)]) == 0
    assert [line.partition(": ")[0] for line in capsys.readouterr().out.splitlines()] == files
    drawn = sorted(path.name for path in tmp_path.glob("map*.png"))
    assert drawn == ["map_a_1.png", "map_b_1.png", "map_me.jpg.png", "map_me.png.png"]

    page = tmp_path / "page.html"
    assert main(["explore", *run, "--images", str(folder), "--out", str(page), "--beam-width", "1"]) == 0
    assert "4 images in" in capsys.readouterr().out
    held = str(stored(page.read_text(encoding="utf-8")))
    assert all(repr(image_id) in held for image_id in ids)


def test_a_heatmap_never_overwrites_its_image(demo_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    face = str(next((demo_folder / "faces").rglob("*.png")))
    before = Path(face).read_bytes()
    assert main(["caption", "--run", str(demo_folder / "run"), face, "--heatmap", face]) == 2
    assert "is the input: name another file, it would be overwritten" in capsys.readouterr().err
    assert Path(face).read_bytes() == before


def test_help_shows_an_example_and_imports_no_tensorflow() -> None:
    commands = ["demo", "train", "predict", "caption", "evaluate", "check", "explain", "ground", "describe"]
    program = (
        "import sys; from attncap.cli.main import main\n"
        "for command in sys.argv[1:]:\n"
        "    try: main([command, '--help'])\n"
        "    except SystemExit as end: assert not end.code, command\n"
        "    assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules, command"
    )
    done = subprocess.run([sys.executable, "-c", program, *commands], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in commands:
        assert f"example:\n  attncap {command}" in done.stdout


def test_an_unreadable_picture_is_named_once(
    demo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    assert main(["caption", "--run", str(demo_folder / "run"), str(broken)]) == 2
    error = capsys.readouterr().err
    assert error.count(str(broken)) == 1 and "empty" in error


@pytest.mark.parametrize("wrong", [["--length-penalty", "nan"], ["--length-penalty", "inf"], ["--beam-width", "0"]])
def test_a_number_of_decoding_is_refused_before_anything_is_loaded(
    wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["caption", "a.png"], ["predict", "--images", "a", "--out", "b.json"]):
        with pytest.raises(SystemExit):
            main([command[0], "--run", "r", *command[1:], *wrong])
        assert re.search(rf"{wrong[0]}: a (finite|whole) number .*expected, got '{wrong[1]}'", capsys.readouterr().err)


def test_an_option_of_another_command_is_told_by_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for command, options in (("caption", ["--run", "r", "a.png"]), ("index query", ["--db", "d"])):
        with pytest.raises(SystemExit) as stopped:
            main([*command.split(), *options, "--epochs=3"])
        error = capsys.readouterr().err
        assert stopped.value.code == 2 and f"attncap {command}: error: unrecognized arguments: --epochs=3" in error
        assert f"usage: attncap {command}" in error


def test_explain_names_words_outside_the_vocabulary(
    demo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    face = str(next((demo_folder / "faces" / "images").glob("*.png")))
    out = ["--out", str(tmp_path / "why.png"), "--method", "attention", "--caption"]
    assert main(["explain", "--run", str(demo_folder / "run"), face, *out, "a person with a zebra"]) == 0
    assert f"{face}: not in the vocabulary, so not explained: zebra\n" in capsys.readouterr().err
    assert main(["explain", "--run", str(demo_folder / "run"), face, *out, "a person"]) == 0
    assert "vocabulary" not in capsys.readouterr().err
