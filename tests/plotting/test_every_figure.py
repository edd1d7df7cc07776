"""Every figure with input that is hard to lay out: nothing is cut off, no text lies on another, given axes stay."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from attncap.attributes.plots import plot_average_precision, plot_calibration, plot_precision_recall
from attncap.grounding.plots import plot_grounding
from attncap.plotting.beam_tree import plot_beam_tree
from attncap.plotting.overlay import MODES
from attncap.retrieval.plots import plot_robustness, plot_threshold, plot_threshold_curves
from attncap.retrieval.thresholds import tune_threshold
from tests.plotting.drawing import (
    PHOTO,
    assert_nothing_cut_off,
    assert_numbers_beside_their_markers,
    assert_texts_apart,
    caption_of,
    contrast,
    plot_attention,
    plot_history,
    plot_predictions,
    plot_scores,
    plot_word,
)
from tests.plotting.test_history import HISTORY

LONG = "wearing a rather large pair of sunglasses"
SENTENCE = "a smiling person with counterrevolutionary eyebrows and a hat"
RNG = np.random.default_rng(0)
LABELS = (RNG.random((150, 13)) < 0.3).astype(float)
PROBS = np.clip(LABELS * 0.4 + RNG.random((150, 13)) * 0.6, 0, 1)
NAMES = [f"{LONG} {n}".replace(" ", "_") for n in range(13)]
# The last attribute is ranked worse than at random, so that its prevalence is right of its average precision.
PRECISIONS = pd.DataFrame(
    {"attribute": ["hat", LONG, "c_d", "e"], "average_precision": [0.9, 0.42, 0.41, 0.03], "prevalence": 0.4}
)
CHANGES = ["gray", "JPEG, quality 10", "cropped by 10% on each side", "mirrored", "not in the index"]
FOUND = {
    f"embedding of mixed{n}, half precision": pd.DataFrame(
        {"change": CHANGES, f"within 0.0{n}": [1, 0.97, 0.5, 0, 0.1]}
    )
    for n in range(1, 5)
}
CURVE = tune_threshold([3, 1, 5, 3, 9], [True, True, False, False, True], whole=True)
TYPES = pd.DataFrame(
    {
        "attention_correctness": [0.9, 0.5, 0.3, 0.05],
        "uniform": [0.1, 0.45, 0.2, 0.04],
        "center": [0.2, 0.49, 0.31, 0.06],
        "n_phrases": [7, 1234, 5, 20_000],
    },
    index=["hat_color", "mouth", LONG, "other"],
)
BEAMS = [
    [(["extraordinarily"], log(0.5)), (["a"], log(0.4)), (["the"], log(0.1))],
    [(["a", "cat"], log(0.2)), (["a", "counterrevolutionary"], log(0.1)), (["the", "dog"], log(0.05))],
]


def in_subfigure(size: tuple[float, float], words: str) -> Figure:
    whole = Figure(figsize=size)
    plot_attention(PHOTO, caption_of(words), fig=whole.subfigures(1, 2)[1])
    return whole


FIGURES: dict[str, Callable[[], Any]] = {
    "scores of nine systems": lambda: plot_scores(
        {f"a system with a rather long name, number {n}": {"BLEU-4": 0.1 * n, "CIDEr": 0.2} for n in range(9)},
        title="A title that is much longer than the axes are wide, and so has to wrap " * 2,
    ),
    "scores by long names": lambda: plot_scores({LONG: (0.3, 0.2, 0.4)}, title=f"Scores: {LONG}, and {LONG}"),
    "robustness of four systems": lambda: plot_robustness(FOUND),
    "threshold": lambda: plot_threshold(CURVE.table, 3, 5, measure=LONG, title=f"{LONG}: {LONG}, {LONG}"),
    "thresholds": lambda: plot_threshold_curves({LONG: CURVE, "hash": CURVE}, ["bits", LONG], title=f"{LONG} " * 4),
    "precision and recall, long names": lambda: plot_precision_recall(PROBS, LABELS, NAMES, thresholds=[0.5] * 13),
    "precision and recall, one attribute": lambda: plot_precision_recall(PROBS[:, :1], LABELS[:, :1], NAMES[:1]),
    "average precision": lambda: plot_average_precision(PRECISIONS, title=f"{LONG}, {LONG}"),
    "average precision, one attribute": lambda: plot_average_precision(PRECISIONS.head(1)),
    "calibration": lambda: plot_calibration({f"{LONG} {n}": PROBS for n in range(4)}, LABELS, title=f"{LONG} {LONG}"),
    "grounding": lambda: plot_grounding(TYPES),
    "history": lambda: plot_history(HISTORY),
    "predictions": lambda: plot_predictions(
        [PHOTO] * 7, [SENTENCE] * 7, [[SENTENCE, LONG]] * 7, np.linspace(0, 1, 7), wrong=[{"hat"}] * 7
    ),
    "beam tree": lambda: plot_beam_tree(BEAMS, title=LONG),
    "attention in a small subfigure": lambda: in_subfigure((7, 3.5), "a bald man"),
    "attention in a tall subfigure": lambda: in_subfigure((6, 9), SENTENCE),
    **{
        f"attention, {mode}": lambda mode=mode: plot_attention(PHOTO, caption_of(SENTENCE), mode=mode) for mode in MODES
    },
    **{f"word, {mode}": lambda mode=mode: plot_word(PHOTO, caption_of(SENTENCE), 4, mode=mode) for mode in MODES},
}


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_is_cut_off_and_no_text_lies_on_another(name: str) -> None:
    drawn = FIGURES[name]()
    figure = drawn if isinstance(drawn, Figure) else drawn.figure
    assert_nothing_cut_off(figure)
    assert_texts_apart(figure)


@pytest.mark.parametrize(
    "ax", [plot_grounding(TYPES), plot_average_precision(PRECISIONS)], ids=["grounding", "precision"]
)
def test_numbers_are_beside_their_markers(ax: Any) -> None:
    assert_numbers_beside_their_markers(ax, ax.lines[0])


ON_AXES: dict[str, Callable[[Axes], Any]] = {
    "scores": lambda ax: plot_scores({"beam": {"BLEU-4": (0.2, 0.1, 0.3)}, "greedy": {"BLEU-4": 0.1}}, ax=ax),
    "robustness": lambda ax: plot_robustness(FOUND, ax=ax),
    "threshold": lambda ax: plot_threshold(CURVE.table, 3, 5, ax=ax),
    "average precision": lambda ax: plot_average_precision(PRECISIONS, ax=ax),
    "calibration": lambda ax: plot_calibration({"as trained": PROBS}, LABELS, ax=ax),
    "grounding": lambda ax: plot_grounding(TYPES, ax=ax),
    "history": lambda ax: plot_history(HISTORY[["epoch", "loss"]], axes=[ax]),
    "word": lambda ax: plot_word(PHOTO, caption_of(SENTENCE), 2, ax=ax),
}


@pytest.mark.parametrize("name", ON_AXES)
def test_given_axes_keep_their_size_and_are_legible_on_black(name: str) -> None:
    with plt.style.context("dark_background"):
        figure = Figure(figsize=(7.5, 5.5))
        ax = figure.add_axes((0.3, 0.2, 0.4, 0.5))
        before = ax.get_position(original=True).bounds
        ON_AXES[name](ax)
        figure.canvas.draw()
    assert tuple(figure.get_size_inches()) == (7.5, 5.5) and ax.get_position(original=True).bounds == before
    black = figure.get_facecolor()
    texts: list[Any] = figure.findobj(lambda part: isinstance(part, Text) and bool(part.get_text().strip()))
    assert len(texts) > 2
    for text in texts:
        assert contrast(text.get_color(), black) > 4, text.get_text()
    for line in ax.lines:
        assert contrast(line.get_color(), black) > 2.5, line.get_label()
