"""Scores with their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tests.plotting.drawing import (
    assert_nothing_cut_off,
    draw,
    plot_scores,
)

SYSTEMS = {"beam_5 $k$": {"BLEU-1": (0.64, 0.62, 0.65), "BLEU-4": (0.22, 0.21, 0.24)}, "greedy": {"BLEU-4": 0.19}}


def test_scores_and_their_intervals() -> None:
    ax = plot_scores(SYSTEMS, title="dev")
    first, second = (line for line in ax.lines if not line.get_label().startswith("_"))
    np.testing.assert_allclose(first.get_xdata(), [0.64, 0.22])
    np.testing.assert_allclose(second.get_xdata(), [0.19])
    segments = ax.collections[0].get_segments()
    np.testing.assert_allclose([line[:, 0] for line in segments], [[0.62, 0.65], [0.21, 0.24]])
    np.testing.assert_allclose([line[:, 1] for line in segments], np.transpose([first.get_ydata()] * 2))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["BLEU-1", "BLEU-4"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(SYSTEMS)
    assert ax.get_ylim() == (1.5, -0.5) and [text.get_text() for text in ax.texts] == ["0.640", "0.220", "0.190"]
    assert_nothing_cut_off(ax.figure)


def test_scores_as_a_table_or_of_one_system() -> None:
    table = pd.DataFrame(
        {"metric": ["CIDEr-D", "BLEU-4"], "score": [1.1, 22.3], "low": [1.0, None], "high": [1.2, None]}
    )
    ax = plot_scores(table)
    assert [text.get_text() for text in ax.texts] == ["1.100", "22.3"] and ax.get_legend() is None
    assert ax.get_title(loc="left") == "Scores with their intervals"
    own = Figure().add_subplot()
    assert plot_scores({"BLEU-4": 0.2}, ax=own) is own and own.get_title(loc="left") == "Scores"


def test_an_interval_that_leaves_its_score_out_is_drawn_as_it_is() -> None:
    ax = plot_scores({"BLEU-4": (0.3, 0.31, 0.4)})
    np.testing.assert_allclose(ax.collections[0].get_segments()[0][:, 0], [0.31, 0.4])


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "empty"),
        ({"BLEU-4": (0.3, 0.5, 0.4)}, r"BLEU-4: the interval \(0.5, 0.4\) ends below its start"),
        ({"BLEU-4": (0.3, 0.4)}, r"score or \(score, low, high\), got \(0.3, 0.4\)"),
        (pd.DataFrame({"a": [1]}), r"columns metric and score, got \['a'\]"),
        ([1, 2], "a DataFrame or a dict, got list"),
    ],
)
def test_scores_refuse(scores: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot_scores(scores)


def test_legends_and_titles_of_many_systems_fit() -> None:
    many = {f"a system with a rather long name, number {n}": {"BLEU-4": 0.1 * n, "CIDEr": 0.2} for n in range(9)}
    ax = plot_scores(many, title="A title that is much longer than the axes are wide, and so has to wrap " * 2)
    assert "\n" in ax.get_title(loc="left")
    draw(ax.figure)
    inside = ax.figure.bbox
    for artist in (ax.get_legend(), ax._left_title):
        box = artist.get_window_extent()
        assert box.x0 >= inside.x0 and box.x1 <= inside.x1 and box.y1 <= inside.y1
    assert not ax.get_legend().get_window_extent().overlaps(ax._left_title.get_window_extent())
    looks = {(line.get_color(), line.get_marker()) for line in ax.lines if not line.get_label().startswith("_")}
    assert len(looks) == 9
