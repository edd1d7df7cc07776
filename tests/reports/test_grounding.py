"""`attncap train --boxes` and `attncap ground` from end to end on a few drawn faces; the plot of what they measure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from attncap.attributes.sentences import contradicted_words
from attncap.captions import Caption
from attncap.cli.main import main
from attncap.data.load import load
from attncap.grounding.plots import plot_grounding
from attncap.models.captioner import Captioner
from attncap.models.saving import load_captioner
from attncap.reports.grounding import ground
from attncap.tokenizers import SPECIAL_TOKENS, WordTokenizer
from tests.plotting.explorer.test_page import stored

# One epoch on a few faces: the maps mean nothing, all else is as in earnest.
FACES = ["--data", "faces:17", "--seed", "5"]
SMALL = ["embedding_units=7", "hidden_units=11", "projection_units=13", "attention_units=5", "validation_images=2"]


def settings(*more: str) -> list[str]:
    return [part for text in (*SMALL, *more) for part in ("--set", text)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was supervised, and its features."""
    folder = tmp_path_factory.mktemp("ground")
    train = ["train", *FACES, "--run", str(folder / "run"), "--features", str(folder / "features")]
    train += ["--weights", "faces", "--epochs", "1", "--min-count", "1", "--boxes", "faces"]
    assert main([*train, *settings("attention_supervision=1.0")]) == 0
    return folder


@pytest.fixture(scope="module")
def captioner(folder: Path) -> Captioner:
    return load_captioner(folder / "run")


def ground_command(folder: Path, *more: str) -> int:
    places = ["--run", str(folder / "run"), "--features", str(folder / "features")]
    return main(["ground", *FACES, *places, "--boxes", "faces", *more])


def test_supervised_training_is_written_down_and_resumed_with_its_boxes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = folder / "run"
    assert json.loads((run / "config.json").read_text())["attention_supervision"] == 1.0
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["boxes"] == "faces" and len(manifest["boxes_digest"]) == 32
    resume = ["train", *FACES, "--run", str(run), "--features", str(folder / "features"), "--resume"]
    resume += ["--weights", "faces", "--min-count", "1", *settings("attention_supervision=1.0")]
    assert main(resume) == 2
    assert "attention_supervision is 1.0, but there are no boxes: give --boxes" in capsys.readouterr().err


def test_boxes_without_supervision_leave_the_folder_free(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert main(["train", *FACES, "--run", str(tmp_path / "run"), "--weights", "faces", "--boxes", "faces"]) == 2
        assert "attention_supervision is 0: add --set attention_supervision=1.0" in capsys.readouterr().err


def test_ground_prints_json_and_draws(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ground_command(folder, "--json", "--limit", "3", "--plot", str(tmp_path / "plot.png")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["captions"] == "human captions fed in" and found["n_pictures"] == 3 and found["shift"] == 0
    for name in ("attention_correctness", "uniform", "center"):
        assert 0 < found[name] < 1
    assert found["pointing_game"] is not None
    assert found["n_phrases"] == sum(row["n_phrases"] for row in found["per_type"].values())
    assert "mouth" in found["per_type"]
    # The maps of a net that learned nothing are about uniform, and correctness is about the region's share.
    assert found["mean_correctness"] == pytest.approx(found["uniform"], rel=0.5)
    assert set(found["shifts"]) == {"-1", "0", "1"}
    assert len({measured["n_phrases"] for measured in found["shifts"].values()}) == 1
    assert [measured["shift"] for measured in found["shifts"].values()] == [-1, 0, 1]
    with Image.open(tmp_path / "plot.png") as figure:
        assert figure.width > 400 and np.asarray(figure.convert("L")).std() > 10


def test_generated_captions_and_probes(folder: Path, captioner: Captioner) -> None:
    faces = load("faces:17", seed=5)
    settings: dict[str, Any] = {"features": folder / "features", "limit": 3, "beam_width": 1, "max_length": 8}
    report = ground(captioner, faces, "faces", generated=True, shifts=[1], **settings)
    # A net that learned nothing repeats a word that may name nothing: then there is nothing to measure, and no error.
    assert report.fed == "generated captions" and report.grounding.shift == 1
    assert list(report.at_shifts) == [1] and report.to_json_dict()["n_phrases"] <= 3 * 8
    report = ground(captioner, faces, "faces", probes=True, shifts=[-1, 0], **settings)
    found = json.loads(json.dumps(report.to_json_dict()))
    assert found["probes"]["uniform_attention"]["n"] == 3
    assert [measured["radius"] for measured in found["probes"]["faithfulness"]] == [0, 1]
    assert all(set(measured["per_kind"]) == {"region", "function"} for measured in found["probes"]["faithfulness"])
    for part in ("human captions fed in", "correctness", "pointing game", "A attends, B is", "name a region"):
        assert part in report.to_text()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"split": "nowhere"}, "no split 'nowhere'"),
        ({"limit": 0}, "at least one shift and one image are needed"),
        ({"shifts": []}, "at least one shift and one image are needed"),
        ({"boxes": "cats"}, "'cats': boxes are entities:FOLDER_OR_ZIP"),
    ],
)
def test_errors_name_what_is_wrong(captioner: Captioner, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ground(captioner, load("faces:17", seed=5), **{"boxes": "faces", **asked})


def test_a_captioner_without_attention_has_nothing_to_measure() -> None:
    blind = Captioner(WordTokenizer([*SPECIAL_TOKENS, "a"]), (2, 3, 5), embedding_units=3, hidden_units=5)
    with pytest.raises(ValueError, match="Captioner has no attention, so that there are no maps to measure"):
        ground(blind, load("faces:17", seed=5), "faces")


def test_probes_need_no_boxes_and_other_methods_have_maps_too(
    folder: Path, captioner: Captioner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ground", *FACES, "--run", str(folder / "run")]) == 2
    assert "give boxes (--boxes), or probes (--probes)" in capsys.readouterr().err
    settings: dict[str, Any] = {"features": folder / "features", "limit": 2, "beam_width": 1, "max_length": 6}
    report = ground(captioner, load("faces:17", seed=5), None, probes=True, **settings)
    assert report.grounding is None and "are content words" in report.to_text()
    found = json.loads(json.dumps(report.to_json_dict()))
    kinds = [set(measured["per_kind"]) for measured in found["probes"]["faithfulness"]]
    assert kinds == [{"content", "function"}] * 2 and "n_phrases" not in found

    table = tmp_path / "boxes.csv"
    table.write_text("phrase,left,top,right,bottom\nnose,0.4,0.4,0.6,0.6\nhair,0.2,0.0,0.8,0.3\n")
    faces = load("faces:17", seed=5).only(list(load("faces:17", seed=5).pictures["image_id"])[:2])
    report = ground(captioner, faces, f"table:{table}", method="occlusion", **settings)
    assert report.method == "occlusion" and list(report.at_shifts) == [0] and report.grounding is not None
    assert set(report.grounding.per_type.index) <= {"nose", "hair"} and report.grounding.n_phrases > 0
    assert "maps of occlusion" in report.to_text()


# ------------------------------------------------------------------ the plot


def per_type() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "attention_correctness": [0.2, 0.5, 0.3],
            "mean_correctness": [0.1, 0.4, 0.3],
            "uniform": [0.25, 0.125, 0.0625],
            "center": [0.3, 0.2, 0.1],
            "pointing_game": [0.9, 0.1, 0.4],
            "pointing_uniform": [0.2, 0.1, 0.05],
            "pointing_center": [0.5, 0.0, 0.0],
            "n_phrases": [7, 1234, 5],
        },
        index=["hat_color", "mouth", "$x$"],
    )


def test_plot_grounding_draws_the_numbers_highest_first() -> None:
    ax: Any = plot_grounding(per_type())
    maps, average, uniform = ax.lines
    assert maps.get_xdata().tolist() == [0.5, 0.3, 0.2]
    assert average.get_xdata().tolist() == [0.2, 0.1, 0.3]
    assert uniform.get_xdata().tolist() == [0.125, 0.0625, 0.25]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["mouth (1,234)", "$x$ (5)", "hat color (7)"]
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["map of the word", "average map", "uniform map"]
    pointing: Any = plot_grounding(per_type(), measure="pointing_game")
    assert pointing.lines[0].get_xdata().tolist() == [0.9, 0.4, 0.1]
    assert "highest inside their region" in pointing.get_title(loc="left")


def test_plot_grounding_errors() -> None:
    table: Any = per_type()
    with pytest.raises(ValueError, match="measure is one of .*got 'uniform'"):
        plot_grounding(table, measure="uniform")
    with pytest.raises(ValueError, match="no phrase was measured"):
        plot_grounding(table.iloc[:0])


# ------------------------------------------------------------------ attncap explain


def test_explain_draws_methods_side_by_side(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(load("faces:17", seed=5).pictures["path"].iloc[0])
    command = ["explain", "--run", str(folder / "run"), path, "--out", str(tmp_path / "why.png")]
    assert main([*command, "--caption", "a smiling person", "--faithfulness"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("a smiling person\n") and "deletion (low)" in said and "\nrandom" in said
    with Image.open(tmp_path / "why.png") as figure:
        assert figure.width > 400 and np.asarray(figure.convert("L")).std() > 10
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    assert main(["explain", "--run", str(folder / "run"), str(broken), "--out", str(tmp_path / "b.png")]) == 2
    assert "broken.png" in capsys.readouterr().err and not (tmp_path / "b.png").exists()


def test_explore_shows_two_runs_and_boxes(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(folder / "run")
    page = tmp_path / "page.html"
    command = [
        "explore",
        "--run",
        run,
        "--against",
        run,
        *FACES,
        "--boxes",
        "faces",
        "--limit",
        "2",
        "--beam-width",
        "1",
    ]
    assert main([*command, "--out", str(page)]) == 0
    content = stored(page.read_text(encoding="utf-8"))
    assert content["runs"] == ["run", "run"] and len(content["images"]) == 2
    for picture in content["images"]:
        assert picture["other"]["words"] == picture["beams"][0]["words"] and "boxes" in picture["beams"][0]
    assert main(["explore", "--run", run, "--images", str(tmp_path), "--boxes", "faces", "--out", str(page)]) == 2
    assert "--boxes needs --data" in capsys.readouterr().err


def test_explore_marks_what_is_false_of_the_face_or_of_a_table(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, table = tmp_path / "page.html", tmp_path / "facts.csv"
    command = ["explore", "--run", str(folder / "run"), *FACES, "--limit", "6", "--out", str(page), "--beam-width", "1"]
    assert main(command) == 0
    data = load("faces:17", seed=5)
    assert data.attributes is not None
    facts = {face["image_id"]: face for face in data.attributes.to_dict("records")}
    content = stored(page.read_text(encoding="utf-8"))
    assert content["wrong_label"] == "known to be wrong"
    marked = 0
    for image in content["images"]:
        [beam] = image["beams"]
        caption = Caption(tuple(beam["words"]), tuple(range(len(beam["words"]))), -1.0, None)
        assert beam["wrong"] == contradicted_words(caption, facts[image["name"]])
        marked += len(beam["wrong"])
    assert marked
    said = next(word for image in content["images"] for word in image["beams"][0]["words"] if len(word) > 2)
    rows = [f"{image['name']},0" for image in content["images"]]
    table.write_text("\n".join([f"image_id,{said}", *rows]), encoding="utf-8")
    assert main([*command, "--facts", str(table)]) == 0
    for image in stored(page.read_text(encoding="utf-8"))["images"]:
        [beam] = image["beams"]
        assert beam["wrong"] == [at for at, word in enumerate(beam["words"]) if word == said]
    table.write_text("image_id,hat\nnobody.png,1", encoding="utf-8")
    assert main([*command, "--facts", str(table)]) == 2
    assert "no row for any image that is shown" in capsys.readouterr().err
