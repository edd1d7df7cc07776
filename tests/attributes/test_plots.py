"""Figures of attributes: what they draw, against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from attncap.attributes.plots import plot_average_precision, plot_calibration, plot_precision_recall

# Three attributes of five pictures. The first: ones ranked 1 and 3, average precision (1 + 2/3) / 2 = 5/6. The second
# is perfect, with one label that is not known. The third has one class only.
PROBS = np.array([[0.9, 0.8, 0.5], [0.6, 0.1, 0.5], [0.4, 0.7, 0.5], [0.3, 0.2, 0.5], [0.1, 0.9, 0.5]])
LABELS = np.array([[1, 1, 0], [0, 0, 0], [1, 1, 0], [0, 0, 0], [0, np.nan, 0]])
NAMES = ["big_nose", "hat", "never"]


def lines(ax: Any) -> list[Any]:
    return list(ax.get_lines())


def test_precision_and_recall_of_each_attribute_with_both_classes() -> None:
    figure = plot_precision_recall(PROBS, LABELS, NAMES, thresholds=[0.35, 0.75, 0.5])
    hard, easy = figure.axes
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["big nose", "hat"]
    assert "average precision 0.83" in hard.texts[0].get_text() and "1" in easy.texts[0].get_text()
    curve, prevalence, threshold = lines(hard)
    # All five called: 2 of 5 right; down to the first alone: 1 of 1, half of the ones.
    assert curve.get_xdata().tolist() == [1, 1, 1, 0.5, 0.5, 0]
    assert curve.get_ydata() == pytest.approx([2 / 5, 1 / 2, 2 / 3, 1 / 2, 1, 1])
    assert prevalence.get_ydata() == pytest.approx([0.4, 0.4])
    assert (threshold.get_xdata()[0], threshold.get_ydata()[0]) == pytest.approx((1, 2 / 3))
    # 0.75 calls one of the two that are known to have a hat; the unknown one, above it, does not count.
    assert (lines(easy)[2].get_xdata()[0], lines(easy)[2].get_ydata()[0]) == pytest.approx((0.5, 1))
    assert lines(easy)[1].get_ydata()[0] == pytest.approx(0.5)
    wrong_first = plot_precision_recall(PROBS[:, :1], 1 - LABELS[:, :1], NAMES[:1]).axes[0]
    assert lines(wrong_first)[0].get_ydata() == pytest.approx(
        [3 / 5, 2 / 4, 1 / 3, 1 / 2, 0, 0]
    )  # no rise to 1 at the end


def test_of_many_attributes_both_ends_are_shown_and_no_threshold_need_be_given() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((211, 13)) < 0.3).astype(float)
    # The higher the number, the less noise: the order of average precision is the order of the names.
    probs = np.clip(labels * 0.5 + rng.random((211, 13)) * np.linspace(1.9, 0.3, 13), 0, 2) / 2.5
    figure = plot_precision_recall(probs, labels, [f"a{n}" for n in range(13)], most=5, columns=3)
    hard = plot_precision_recall(probs, labels, [f"a{n}" for n in range(13)], most=5, columns=3, hardest=True)
    precisions, spaced = ([float(ax.texts[0].get_text().split()[-1]) for ax in drawn.axes] for drawn in (hard, figure))
    assert precisions == sorted(precisions) and len(precisions) == 5 and precisions[-1] < spaced[2]
    assert hard.get_suptitle() == "Precision and recall of the 5 hardest attributes"
    shown = [ax.get_title(loc="left") for ax in figure.axes]
    assert len(shown) == 5 and shown[0] in ("a0", "a1", "a2") and shown[-1] in ("a10", "a11", "a12")
    assert [len(lines(ax)) for ax in figure.axes] == [2] * 5


def test_the_hardest_attributes_come_first_beside_their_prevalence() -> None:
    table = pd.DataFrame(
        {
            "attribute": ["a", "b_c", "d", "one class"],
            "average_precision": [0.9, 0.2, 0.7, np.nan],
            "prevalence": [0.5, 0.25, 0.1, 0.0],
        }
    )
    ax = plot_average_precision(table, most=2)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["b c", "d"]
    values, shares = lines(ax)
    assert list(values.get_xdata()) == [0.2, 0.7] and list(shares.get_xdata()) == [0.25, 0.1]
    assert ax.get_title(loc="left") == "The 2 hardest of 3 attributes: average precision"
    assert plot_average_precision(table).get_title(loc="left") == "All attributes: average precision"
    with pytest.raises(ValueError, match="nothing to plot"):
        plot_average_precision(table.tail(1))


def test_calibration_by_bins_with_unknown_labels_left_out() -> None:
    probs = np.array([[0.1, 0.4], [0.3, 0.9], [0.8, 0.9]])
    labels = np.array([[0, 1], [0, 1], [1, np.nan]])
    ax = plot_calibration({"one": probs, "other": np.full((3, 2), 0.25)}, labels, bins=2)
    diagonal, one, other = lines(ax)
    assert list(diagonal.get_xdata()) == [0, 1] == list(diagonal.get_ydata())
    # Below one half: 0.1, 0.4, 0.3, one of three true; above: 0.9 and 0.8, both true.
    assert one.get_xdata() == pytest.approx([0.8 / 3, 0.85]) and one.get_ydata() == pytest.approx([1 / 3, 1])
    # |1 - 0.8| + |2 - 1.7| over five answers
    assert one.get_label() == "one\n(calibration error 0.100)"
    assert other.get_xdata() == pytest.approx([0.25]) and other.get_ydata() == pytest.approx([3 / 5])


def test_what_cannot_be_drawn_says_so() -> None:
    with pytest.raises(ValueError, match=r"shape \(N, 3\) expected, got \(5, 2\) and \(5, 3\)"):
        plot_precision_recall(PROBS[:, :2], LABELS, NAMES)
    with pytest.raises(ValueError, match="no attribute has both classes"):
        plot_precision_recall(PROBS[:, 2:], LABELS[:, 2:], NAMES[2:])
    with pytest.raises(ValueError, match="at least one name"):
        plot_calibration({}, LABELS)
    with pytest.raises(ValueError, match="of one shape"):
        plot_calibration({"short": PROBS[:2]}, LABELS)
