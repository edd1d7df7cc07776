"""Systems side by side: hand-computed shares, the clock, the best and its lead, what is absent; real systems."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from attncap.data.dataset import CaptionData
from attncap.data.faces.claims import stated_claims, true_share
from attncap.data.load import load
from attncap.features.extractor import FeatureExtractor
from attncap.metrics.evaluate import bleu
from attncap.models.show_and_tell import ShowAndTell
from attncap.reports import comparison as module
from attncap.reports import systems as systems_module
from attncap.reports.comparison import MEASURES, SystemComparison, compare_systems, plot_comparison
from attncap.reports.systems import (
    System,
    all_systems,
    build_index,
    most_common_system,
    neighbor_system,
    random_system,
    seconds_of_run,
)
from attncap.retrieval.captions import choose_k
from attncap.retrieval.difference_hash import DifferenceHash
from attncap.tokenizers import WordTokenizer

N_FACES = 40


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> CaptionData:
    return load(f"faces:{N_FACES}", folder=tmp_path_factory.mktemp("faces"))


def system(name: str, say: Callable[[str], str], seconds: float = 1.0, megabytes: float = 2.0) -> System:
    return System(name, lambda paths: [say(Path(path).name) for path in paths], seconds, megabytes)


def human(data: CaptionData, number: int) -> Callable[[str], str]:
    references = data.references()
    return lambda image_id: references[image_id][number]


@pytest.fixture(scope="module")
def found(faces: CaptionData) -> SystemComparison:
    held_out = faces.split("train")
    systems = [
        system("a person", lambda _: "a person with a beard"),
        system("first", human(faces, 0), seconds=12.5),
        system("bald", lambda _: "a smiling bald person"),
    ]
    return compare_systems(systems, held_out, absent={"sixth": "no run"}, bootstrap=50, samples=99, progress=False)


def test_scores_are_those_of_evaluation_and_shares_those_of_the_faces(
    faces: CaptionData, found: SystemComparison
) -> None:
    held_out = faces.split("train")
    references = held_out.references()
    assert list(found.table.index) == ["a person", "first", "bald"]
    for name, row in found.table.iterrows():
        assert list(found.captions[str(name)]) == list(references)
        said = bleu(found.captions[str(name)], references)
        np.testing.assert_allclose([row[f"BLEU-{n}"] for n in (1, 2, 3, 4)], said)
        share, stated = true_share(found.captions[str(name)], held_out.attributes)
        assert row["true"] == pytest.approx(share)
        assert row["stated"] == pytest.approx(stated / len(references))
    assert found.table.loc["first", "BLEU-4"] == pytest.approx(1.0)
    assert found.table.loc["first", "true"] == 1.0
    assert found.table.loc["a person", "stated"] == 1.0  # the beard
    assert found.table.loc["a person", "true"] == pytest.approx((held_out.attributes["beard"] != "none").mean())
    assert found.table.loc["first", "training_seconds"] == 12.5
    assert 0 <= found.table.loc["first", "seconds_per_image"] < 1


def test_intervals_hold_the_score_and_tests_are_against_the_best(found: SystemComparison) -> None:
    measures = [*MEASURES, "true"]
    assert found.best == "first"
    assert found.intervals["metric"].tolist() == measures * 3
    assert (found.intervals["low"] <= found.intervals["score"] + 1e-9).all()
    assert (found.intervals["score"] <= found.intervals["high"] + 1e-9).all()
    assert found.tests["system"].tolist() == ["a person"] * 7 + ["bald"] * 7
    for row in found.tests.itertuples():
        lead = found.table.loc["first", row.metric] - found.table.loc[row.system, row.metric]
        assert row.difference == pytest.approx(lead)
        assert row.p == pytest.approx(0.01)  # no shuffle is as far apart: 1 in 99 + 1
        assert row.low > 0


def test_a_system_does_not_differ_from_its_double(faces: CaptionData) -> None:
    twins = [system("one", human(faces, 1)), system("other", human(faces, 1))]
    found = compare_systems(twins, faces.split("train"), bootstrap=20, samples=20, progress=False)
    assert found.best == "one"
    assert (found.tests["difference"] == 0).all()
    assert (found.tests["p"] == 1).all()


def test_tables_in_text_and_json(found: SystemComparison) -> None:
    lines = found.to_markdown().splitlines()
    assert lines[0].startswith(f"| faces-{N_FACES}, ")
    assert [line.split(" | ")[0] for line in lines[2:6]] == ["| a person", "| first", "| bald", "| sixth"]
    assert lines[-1] == "sixth: no run"
    assert len({line.count("|") for line in lines[:6]}) == 1
    assert re.search(r"1\.000 \(1\.000 to 1\.000\)", lines[3])
    assert set(lines[5].split(" | ")[1:-1]) == {"-"}
    shown = found.shown(intervals=False)
    assert shown.loc["first", ["BLEU-4", "true", "training, s", "MB"]].tolist() == ["1.000", "1.000", "12.5", "2"]
    text = found.tests_text(["BLEU-4"])
    assert text.splitlines()[0] == "first minus ..."
    assert len(text.splitlines()) == 4
    content = json.loads(json.dumps(found.to_json_dict()))
    assert content["best"] == "first" and content["absent"] == {"sixth": "no run"}
    assert [row["system"] for row in content["table"]] == ["a person", "first", "bald"]


def test_claims_are_checked_by_a_table_of_names(faces: CaptionData) -> None:
    held_out = faces.split("train")
    ids = list(held_out.pictures["image_id"])
    table = pd.DataFrame({"image_id": ids, "Male": [n % 2 for n in range(len(ids))], "Bald": 1})
    systems = [
        system("all", lambda name: "a bald man"),
        system("none", lambda name: "x"),
    ]
    found = compare_systems(systems, replace(held_out, attributes=table), bootstrap=20, samples=20, progress=False)
    assert found.table.loc["all", "true"] == pytest.approx((len(ids) + len(ids) // 2) / (2 * len(ids)))
    assert found.table.loc["all", "stated"] == 2
    assert found.table.loc["none", "stated"] == 0 and np.isnan(found.table.loc["none", "true"])


def test_without_attributes_nothing_is_said_of_truth(faces: CaptionData) -> None:
    photographs = replace(faces.split("train"), attributes=None)
    systems = [system("one", human(faces, 0)), system("other", human(faces, 1))]
    found = compare_systems(systems, photographs, bootstrap=20, samples=20, progress=False)
    assert found.table["true"].isna().all()
    assert "true" not in found.shown().columns
    assert "true" not in set(found.tests["metric"])
    assert found.to_json_dict()["table"][0]["true"] is None
    assert {axes.get_title(loc="left") for axes in plot_comparison(found).axes} == {
        found.title,
        "CIDEr-D, 95% intervals",
    }


def test_batches_have_one_size_and_the_first_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 100.0, 200.0, 204.0, 300.0, 306.0, 400.0, 408.0])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    asked: list[list[str]] = []

    def answer(paths: Sequence[str]) -> list[str]:
        asked.append(list(paths))
        return [path.upper() for path in paths]

    said, seconds = module._ask(System("s", answer, 0.0, 0.0), list("abcdefg"), progress=False)
    assert asked == [["a", "b"], ["c", "d"], ["e", "f"], ["g", "g"]]
    assert said == list("ABCDEFG")
    assert seconds == 3.0  # the median of 4, 6 and 8 seconds for two pictures; the first batch compiled


def test_claims_by_hand() -> None:
    table = pd.DataFrame([{"image_id": "x", "mouth": "smile", "hair": "bald", "beard": "none", "hair_color": "none"}])
    claims = stated_claims({"x": "a smiling person with black hair and a beard"}, table)
    assert claims.to_numpy().tolist() == [
        ["x", "mouth", "smile", True],
        ["x", "hair_color", "black", False],
        ["x", "beard", "present", False],
    ]
    assert stated_claims({"x": "nobody"}, table).empty
    with pytest.raises(ValueError, match=r"no row for image_id 'y' \(1 missing\): not these faces\?"):
        stated_claims({"y": "a beard"}, table)


def test_bad_input(faces: CaptionData) -> None:
    one = system("one", human(faces, 0))
    with pytest.raises(ValueError, match="each name once, expected; got one, one"):
        compare_systems([one, one], faces, progress=False)
    with pytest.raises(ValueError, match="got none"):
        compare_systems([], faces, progress=False)
    with pytest.raises(ValueError, match="at least one image with references"):
        compare_systems([one], faces.only([]), progress=False)
    with pytest.raises(ValueError, match=r"faces-40: no training image with a caption can be read"):
        build_index(faces.only([]), DifferenceHash(64))


# ---------------------------------------------------------------- the systems


def test_baselines_by_hand(faces: CaptionData) -> None:
    x, y = faces.pictures["image_id"].iloc[:2]
    captions = pd.DataFrame({"image_id": [x, x, y, y], "caption": ["b", "a", "a", "c"]})
    training = replace(faces, captions=captions)
    common = most_common_system(training)
    assert common.answer(["1", "2", "3"]) == ["a", "a", "a"]
    assert common.megabytes == 1e-6
    drawn = random_system(training, seed=3)
    many = drawn.answer(["1"] * 400)
    assert set(many) == {"a", "b", "c"}
    assert 0.4 < many.count("a") / 400 < 0.6  # as often as training has it
    assert random_system(training, seed=3).answer(["1"] * 400) == many


def test_the_nearest_picture_of_a_training_picture_is_itself(faces: CaptionData) -> None:
    training = faces.split("train")
    index, seconds = build_index(training, DifferenceHash(64))
    nearest = neighbor_system("nearest", index, training_seconds=seconds)
    first = training.pictures.head(5)
    references = training.references()
    assert nearest.answer(list(first["path"])) == [references[image_id][0] for image_id in first["image_id"]]
    assert nearest.training_seconds == seconds > 0
    texts = sum(len(caption) for caption in training.captions["caption"])
    assert nearest.megabytes == pytest.approx((8 * len(index) + texts) / 1e6)


class Dots:
    """Codes by file name, for indexes whose neighbors are known."""

    measure, size = "cosine_similarity", 2

    def __init__(self, angles: dict[str, float]) -> None:
        self.angles = angles

    def describe(self) -> dict[str, Any]:
        return {"encoder": "dots"}

    def encode(self, pictures: Sequence[Any], progress: bool = False) -> list[Any]:
        return [np.array([math.cos(a), math.sin(a)], np.float32) for a in (self.angles[Path(p).name] for p in pictures)]


def test_k_is_chosen_by_leave_one_out(faces: CaptionData) -> None:
    # In three groups of four, each with a sentence of its own that every other one of its captions says in other words:
    # the nearest alone is an outlier in half of the cases, three neighbors agree on the group's sentence.
    training = faces.split("train")
    pictures = training.pictures.head(12)
    names = list(pictures["image_id"])
    words = ["one two three four five", "red green blue black white", "north south east west up"]
    said = [words[at // 4] if at % 4 else f"{words[at // 4]} and nothing more of it at all {at}" for at in range(12)]
    data = replace(
        training, pictures=pictures, captions=pd.DataFrame({"image_id": names, "caption": said}), attributes=None
    )
    angles = {name: at // 4 + 0.01 * (at % 4) for at, name in enumerate(names)}
    index, _ = build_index(data, Dots(angles))
    k, scores = choose_k(index, (1, 3, 11, 12), sample=12)
    assert list(scores) == [1, 3, 11]  # a picture has no 12 others
    assert k == 3 and scores[3] > scores[1] and scores[3] > scores[11]
    with pytest.raises(ValueError, match="12 images: more than 20 needed for neighbors"):
        choose_k(index, (20,))


def test_seconds_of_a_run(tmp_path: Path) -> None:
    import os

    assert math.isnan(seconds_of_run(tmp_path))
    for name, when in (("manifest.json", 1000.0), ("history.csv", 1090.5)):
        (tmp_path / name).write_text("{}")
        os.utime(tmp_path / name, (when, when))
    assert seconds_of_run(tmp_path) == 90.5


def test_all_systems_from_files(faces: CaptionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = FeatureExtractor("mixed0", "random", 75)
    made = []
    # Built once: the network is the slow part.
    monkeypatch.setattr(systems_module, "FeatureExtractor", lambda *given: made.append(given) or encoder)
    tokenizer = WordTokenizer.from_captions(list(faces.split("train").captions["caption"]), min_count=1)
    ShowAndTell(tokenizer, encoder=encoder, embedding_units=17, hidden_units=19).save(tmp_path / "teller.keras")
    systems, held_out, absent = all_systems(
        faces,
        show_and_tell=tmp_path / "teller.keras",
        weights="random",
        layer="mixed0",
        features=tmp_path,
        k=3,
        limit=3,
        progress=False,
        decoding={"beam_width": 1, "max_length": 5},
    )
    assert [each.name for each in systems] == [
        "Show and Tell",
        "nearest hash, 64 bits",
        "nearest embedding",
        "3 nearest embeddings agree",
        "most common caption",
        "random training caption",
    ]
    assert absent == {
        "attention captioner": "no trained run was given",
        "attributes in a sentence": "no trained run was given",
    }
    found = compare_systems(systems, held_out, absent=absent, bootstrap=10, samples=10, progress=False)
    assert len(held_out.pictures) == 3
    training = set(faces.split("train").captions["caption"])
    for name in list(found.captions)[1:]:
        assert set(found.captions[name].values()) <= training
    teller = found.table.loc["Show and Tell"]
    assert teller["megabytes"] == pytest.approx((tmp_path / "teller.keras").stat().st_size / 1e6)
    assert math.isnan(teller["training_seconds"])
    assert found.table.loc["nearest embedding", "megabytes"] > found.table.loc["nearest hash, 64 bits", "megabytes"]
    assert made == [("mixed0", "random")]
    photographs = replace(faces, attributes=None)
    systems, _, absent = all_systems(photographs, limit=1, k=1, features=tmp_path, progress=False)
    assert len(systems) == 4  # k = 1 is the nearest embedding
    assert absent["attributes in a sentence"].startswith("does not apply")
    with pytest.raises(ValueError, match="faces-40: no readable image with a caption in the split 'train'"):
        all_systems(faces.only([]), features=tmp_path, progress=False)


def test_figure(found: SystemComparison) -> None:
    figure = plot_comparison(found)
    left, right = figure.axes
    figure.canvas.draw()
    heights = [ax._left_title.get_window_extent().y0 for ax in figure.axes]  # type: ignore[attr-defined]
    assert heights[0] == pytest.approx(heights[1], abs=1)  # titles at one height, with a legend or without
    assert isinstance(left, Axes)
    assert [text.get_text() for text in left.get_yticklabels()] == ["a person", "first", "bald"]
    points = {line.get_label(): line.get_xdata() for line in left.lines if not line.get_label().startswith("_")}
    assert list(points) == ["BLEU-4", "ROUGE-L", "share of true characteristics"]
    np.testing.assert_allclose(points["BLEU-4"], found.table["BLEU-4"])
    np.testing.assert_allclose(points["share of true characteristics"], found.table["true"])
    np.testing.assert_allclose(right.lines[0].get_xdata(), found.table["CIDEr"])
