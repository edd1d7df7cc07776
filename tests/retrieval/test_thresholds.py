"""Thresholds, changed copies, captions by neighbors and their figures, on numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from attncap.retrieval.captions import CaptionNeighbors, neighbor_captions
from attncap.retrieval.index import DifferenceHash, ImageIndex
from attncap.retrieval.plots import plot_robustness, plot_threshold, plot_threshold_curves
from attncap.retrieval.robustness import CHANGES, changed_copies, robustness_table
from attncap.retrieval.thresholds import NEVER, parse_match, same_label, similar_captions, tune_threshold

# ---------------------------------------------------------------- thresholds


def test_the_sweep_by_hand() -> None:
    curve = tune_threshold([3, 1, 5, 3, 9], [True, True, False, False, True], whole=True)
    assert curve.table["threshold"].tolist() == [NEVER, 1, 3, 5, 9]
    assert curve.table["answered"].tolist() == [0, 1, 3, 4, 5]
    assert curve.table["wrong"].tolist() == [0, 0, 1, 2, 2]
    assert curve.table["missed"].tolist() == [3, 2, 1, 1, 0]
    assert curve.table["errors"].tolist() == [3, 2, 2, 3, 2]
    assert curve.table["precision"].tolist()[1:] == pytest.approx([1, 2 / 3, 2 / 4, 3 / 5])
    assert curve.table["recall"].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 2 / 3, 1])
    assert curve.threshold == 3  # 2 errors from 1 up to 5, and from 9 on: the longer stretch's middle
    assert curve.best["errors"] == 2 and curve.held_out_errors is None
    assert (
        "threshold 3" in curve.to_text()
        and "5 queries: 3 answered, 1 of them wrong; 1 matches missed" in curve.to_text()
    )


def test_a_wrong_label_may_weigh_more_than_a_missed_one() -> None:
    distances, matched = [0.1, 0.2, 0.3, 0.4], [True, False, True, True]
    assert tune_threshold(distances, matched).threshold == 0.4
    heavy = tune_threshold(distances, matched, wrong_weight=5)
    assert heavy.threshold == pytest.approx(0.15) and heavy.best["errors"] == 2


def test_where_nothing_matches_no_label_is_best() -> None:
    curve = tune_threshold([1, 2, 3], [False, False, False])
    assert curve.threshold == NEVER and curve.best["errors"] == 0
    assert "none is good, give no label" in curve.to_text()


@given(
    st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=40), st.sampled_from([0.5, 1.0, 3.0])
)
@settings(max_examples=80, deadline=None)
def test_no_other_threshold_has_fewer_errors(answers: list[tuple[int, bool]], weight: float) -> None:
    distances, matched = np.array([d for d, _ in answers]), np.array([m for _, m in answers])

    def errors(threshold: float) -> float:
        near = distances <= threshold
        return weight * (near & ~matched).sum() + (~near & matched).sum()

    curve = tune_threshold(distances, matched, wrong_weight=weight, whole=True)
    assert errors(curve.threshold) == curve.best["errors"] == min(map(errors, range(-1, 13)))


def test_the_error_to_expect_is_of_queries_that_were_not_tuned_on() -> None:
    rng = np.random.default_rng(0)
    curve = tune_threshold(rng.random(200), rng.random(200) < 0.5)
    assert curve.held_out_errors is not None
    assert curve.best["errors"] / 200 < curve.held_out_errors < 0.65  # chance: 0.5, and tuning finds luck
    apart = tune_threshold([*np.linspace(0, 1, 50), *np.linspace(3, 4, 50)], [True] * 50 + [False] * 50)
    assert apart.held_out_errors == 0 and apart.threshold == pytest.approx(2)


@pytest.mark.parametrize(
    ("distances", "matched", "weight", "said"),
    [
        ([], [], 1, "a distance and a match for each query"),
        ([1, 2], [True], 1, "a distance and a match"),
        ([1, np.nan], [True, True], 1, "distances: finite"),
        ([1], [True], 0, "wrong_weight above 0 expected, got 0"),
    ],
)
def test_bad_input_to_the_sweep(distances: list[float], matched: list[bool], weight: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tune_threshold(distances, matched, wrong_weight=weight)


# ---------------------------------------------------------------- what matches


def test_matches() -> None:
    assert same_label(["Big  nose", "x"], ["big nose"]) and not same_label(["Big nose"], ["Curly hair", ""])
    queries, neighbors = [["a dog runs", "one dog"], ["a red car"]], [["A dog runs ."], ["the blue sky"]]
    assert similar_captions(queries, neighbors, 0.99, "rouge_l").tolist() == [True, False]
    assert similar_captions(queries, neighbors, 0.5, "bleu_1").tolist() == [True, False]
    assert parse_match("cider_d:0.1")(queries, neighbors).tolist() == [True, False]
    assert parse_match("label")(queries, [["one dog"], ["car"]]).tolist() == [True, False]
    with pytest.raises(ValueError, match="neighbor of query 1 has no caption"):
        similar_captions(queries, [["a"], []], 0.5)
    for text in ("labels", "cider_d", "cider_d:x", "spice:1"):
        with pytest.raises(ValueError, match=f"match '{text}': label, or cider_d"):
            parse_match(text)


# ---------------------------------------------------------------- changed copies


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageIndex, list[Path], list[str]]:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(7)
    files = []
    for n in range(13):
        coarse = rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)
        files.append(folder / f"{n}.png")
        Image.fromarray(coarse).resize((110, 90), Image.Resampling.BICUBIC).save(files[-1])
    index = ImageIndex(None, DifferenceHash(256))
    index.add(files, [[file.stem] for file in files], progress=False)
    return index, files, [file.name for file in files]


def test_changed_copies_are_looked_for(faces: tuple[ImageIndex, list[Path], list[str]]) -> None:
    index, files, names = faces
    copies = changed_copies(index, files, names, progress=False)
    assert len(copies) == 13 * len(CHANGES)
    same = copies[copies["change"] == "the same file"]
    assert (same["distance"] == 0).all() and same["found"].all()
    table: Any = robustness_table(copies, [50.0, 100.0], [0, 60]).set_index("change")
    assert table.loc["the same file", ["within 0", "within 60"]].tolist() == [1, 1]
    assert table.loc["JPEG, quality 75", "within 60"] == 1
    assert table.loc["mirrored", "within 0"] == 0
    assert table.loc["not in the index"].tolist() == [75, 0, 0.5]
    assert list(table.index) == [*CHANGES, "not in the index"]


def test_every_change_changes_what_it_says() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 200, (53, 101, 3), dtype=np.uint8))
    sizes = {name: change(picture).size for name, change in CHANGES.items()}
    assert sizes["half the size"] == (50, 26) and sizes["height x 0.8"] == (101, 42)
    assert sizes["cropped 10% a side"] == (81, 43) and sizes["rotated 90 degrees"] == (53, 101)
    assert np.array_equal(np.asarray(CHANGES["mirrored"](picture)), np.asarray(picture)[:, ::-1])
    brighter = np.asarray(CHANGES["brightness x 1.3"](picture), float).mean() / np.asarray(picture, float).mean()
    assert brighter == pytest.approx(1.3, abs=0.03)
    assert (np.asarray(CHANGES["white band over a tenth"](picture))[48:] == 255).all()
    for name, change in CHANGES.items():
        assert change(picture).mode == "RGB", name
        assert (name == "the same file") == (change(picture) == picture), name


# ---------------------------------------------------------------- captions


def captioned_index(labels: list[list[str]]) -> ImageIndex:
    index = ImageIndex(None, DifferenceHash(64))
    codes = np.packbits(np.tri(len(labels), 64, -1, dtype=np.uint8), axis=1)  # row n is n bits from row 0
    index.add_codes([str(n) for n in range(len(labels))], labels, codes)
    return index


def test_consensus_leaves_outliers_out() -> None:
    index = captioned_index(
        [
            ["an odd caption of nothing"],
            ["a dog runs fast", "a brown dog runs"],
            ["a dog runs here"],
            ["the red car stops"],
        ]
    )
    query = np.zeros((1, 8), np.uint8)
    assert neighbor_captions(index, query, ["q"]) == {"q": "an odd caption of nothing"}
    assert neighbor_captions(index, query, ["q"], k=3) == {"q": "a dog runs fast"}
    captions = CaptionNeighbors(index)
    assert captions.captions(query, 1, without=np.array([0])) == ["a dog runs fast"]  # leave-one-out


def test_consensus_by_hand() -> None:
    index = captioned_index([["cat"], ["dog"], ["dog"], ["cow"]])
    assert CaptionNeighbors(index).captions(np.zeros((1, 8), np.uint8), k=4, agree_with=0.25) == ["dog"]


def test_entries_without_captions_are_passed_over() -> None:
    index = captioned_index([[], [], ["a dog"], ["a cat"]])
    assert neighbor_captions(index, np.zeros((1, 8), np.uint8), ["q"]) == {"q": "a dog"}
    with pytest.raises(ValueError, match="no image of the index has a label"):
        neighbor_captions(captioned_index([[], []]), np.zeros((1, 8), np.uint8), ["q"])
    with pytest.raises(ValueError, match="a name for each code expected: 1 codes, 2 names"):
        neighbor_captions(index, np.zeros((1, 8), np.uint8), ["q", "r"])
    with pytest.raises(ValueError, match="agree_with is a share.*got 0"):
        neighbor_captions(index, np.zeros((1, 8), np.uint8), ["q"], k=2, agree_with=0)


# ---------------------------------------------------------------- figures


def test_the_threshold_figure_draws_the_table() -> None:
    curve = tune_threshold([3, 1, 5, 3, 9], [True, True, False, False, True], whole=True)
    ax = plot_threshold(curve.table, curve.threshold, curve.queries)
    lines: list[Any] = list(ax.get_lines())
    wrong, missed, both, chosen = lines
    assert wrong.get_ydata()[:4] == pytest.approx([0, 0.2, 0.4, 0.4]) and wrong.get_xdata()[:4].tolist() == [1, 3, 5, 9]
    assert missed.get_ydata()[:4] == pytest.approx([0.4, 0.2, 0.2, 0])
    assert both.get_ydata()[:4] == pytest.approx([0.4, 0.4, 0.6, 0.4])
    assert list(chosen.get_xdata()) == [3, 3]
    with pytest.raises(ValueError, match="at least one query"):
        plot_threshold(curve.table, 1.0, 0)


def test_threshold_curves_side_by_side() -> None:
    found = tune_threshold([3, 1, 5, 3, 9], [True, True, False, False, True], whole=True)
    never = tune_threshold([2, 7], [False, False])
    figure = plot_threshold_curves({"hash": found, "embedding": never}, ["bits", "cosine"])
    first, second = figure.axes
    assert first.get_ylim() == second.get_ylim()  # one scale
    assert first.get_title(loc="left") == "hash: threshold 3" and first.get_xlabel() == "threshold (bits)"
    assert second.get_title(loc="left") == "embedding: no threshold is good"
    wrong: Any = second.get_lines()[0]
    assert wrong.get_ydata()[:2] == pytest.approx([0.5, 1])
    assert [ax.get_legend() for ax in figure.axes] == [None, None]
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "chosen threshold"
    with pytest.raises(ValueError, match="2 curves, 1 measures"):
        plot_threshold_curves({"hash": found, "embedding": never}, ["bits"])


def test_the_robustness_figure_draws_the_tables() -> None:
    table = pd.DataFrame({"change": ["grey", "mirrored"], "median_distance": [1, 30], "within 5": [0.9, 0.1]})
    ax = plot_robustness({"hash": table, "embedding": table.assign(**{"within 5": [1.0, 0.8]})})
    widths = [[bar.get_width() for bar in bars] for bars in ax.containers]
    assert widths == [[0.9, 0.1], [1.0, 0.8]]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["grey", "mirrored"]
    with pytest.raises(ValueError, match="of the same changes"):
        plot_robustness({"a": table, "b": table[::-1]})
    with pytest.raises(ValueError, match="at least one table"):
        plot_robustness({})
