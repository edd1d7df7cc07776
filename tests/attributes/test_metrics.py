"""Thresholds, measures and sentences of attributes, on numbers that were worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attncap.attributes.calibration import calibrate, calibration_error
from attncap.attributes.metrics import report
from attncap.attributes.thresholds import tune_thresholds

NAN = math.nan


def column(*values: float) -> np.ndarray:
    return np.array(values, float)[:, None]


PROBS = column(0.9, 0.8, 0.6, 0.4, 0.3, 0.2, 0.1)
LABELS = column(1, 1, 0, 1, 0, 0, 0)


def test_the_threshold_of_each_aim_by_hand() -> None:
    # Called: 1 2 3 4 ... rightly: 1 2 2 3; F1 = 2 right / (called + 3): .5 .8 .667 .857 .75 .667 .6
    assert tune_thresholds(PROBS, LABELS, "f1") == pytest.approx([0.35])
    # (recall + specificity) / 2: .667 .833 .708 .875 .75 .625 .5
    assert tune_thresholds(PROBS, LABELS, "balanced_accuracy") == pytest.approx([0.35])
    # Accuracy is 6/7 when two or four are called; (0.8 + 0.6) / 2 is further from 0.5 than (0.4 + 0.3) / 2.
    assert tune_thresholds(PROBS, LABELS, "accuracy") == pytest.approx([0.35])
    assert tune_thresholds(PROBS, LABELS, "precision:0.9") == pytest.approx([0.7])
    assert tune_thresholds(PROBS, LABELS, "precision:0.7") == pytest.approx([0.35])


def test_no_threshold_has_the_precision_then_the_highest_is_taken() -> None:
    # Precisions of 1 to 4 called: 0, 1/2, 2/3, 1/2.
    threshold = tune_thresholds(column(0.9, 0.8, 0.7, 0.2), column(0, 1, 1, 0), "precision:0.95")
    assert threshold == pytest.approx([0.45])


def test_equal_probabilities_are_called_together_and_missing_labels_left_out() -> None:
    probs, labels = column(0.7, 0.7, 0.2, 0.99), column(1, 0, 0, NAN)
    assert tune_thresholds(probs, labels, "balanced_accuracy") == pytest.approx([0.45])  # 0.75, where 0.7 splits
    assert tune_thresholds(column(0.7, 0.6), column(1, NAN), "f1") == pytest.approx([0.5])  # one class: no choice


@given(st.lists(st.tuples(st.integers(0, 10), st.booleans()), min_size=2, max_size=30))
@settings(max_examples=60, deadline=None)
def test_no_other_threshold_is_better(answers: list[tuple[int, bool]]) -> None:
    prob = np.array([value / 10 for value, _ in answers])
    truth = np.array([label for _, label in answers])
    if truth.all() or not truth.any():
        return

    def f1(threshold: float) -> float:
        called = prob >= threshold
        return 2 * (called & truth).sum() / (called.sum() + truth.sum())

    chosen = tune_thresholds(prob[:, None], truth[:, None].astype(float), "f1")[0]
    assert f1(chosen) == pytest.approx(max(f1(t) for t in np.linspace(0, 1.05, 43)))


@pytest.mark.parametrize("aim", ["recall", "precision", "precision:2", "f1:0.5", "precision:x"])
def test_unknown_aims(aim: str) -> None:
    with pytest.raises(ValueError, match=f"aim '{aim}': expected f1, balanced_accuracy"):
        tune_thresholds(PROBS, LABELS, aim)


def test_the_measures_by_hand() -> None:
    probs = np.hstack([PROBS, 1 - PROBS])
    labels = np.hstack([LABELS, LABELS])
    labels[6, 1] = NAN
    found = report(probs, labels, ["good", "bad"], np.array([0.5, 0.5]))
    good, bad = found.table.to_dict("records")
    assert good["prevalence"] == pytest.approx(3 / 7) and good["images"] == 7
    assert good["average_precision"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert good["roc_auc"] == pytest.approx(11 / 12)
    assert good["f1"] == pytest.approx(2 / 3)
    assert good["balanced_accuracy"] == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert good["precision"] == pytest.approx(2 / 3) and good["recall"] == pytest.approx(2 / 3)
    assert good["accuracy"] == pytest.approx(5 / 7) and good["majority_accuracy"] == pytest.approx(4 / 7)
    # Without the last row: order .8 .7 .6 .4 .2 .1, labels 0 0 1 0 1 1.
    assert bad["images"] == 6 and bad["roc_auc"] == pytest.approx(1 / 9)
    assert bad["average_precision"] == pytest.approx((1 / 3 + 2 / 5 + 3 / 6) / 3)
    assert found.macro["roc_auc"] == pytest.approx((11 / 12 + 1 / 9) / 2)
    assert found.micro["accuracy"] == pytest.approx((5 + 2) / 13)


def test_a_measure_that_is_not_defined_is_nan_and_null() -> None:
    probs = np.hstack([PROBS, PROBS])
    labels = np.hstack([LABELS, np.zeros((7, 1))])
    found = report(probs, labels, ["some", "never"], 0.5, majority=np.array([1, 0]))
    never = found.table.iloc[1]
    assert math.isnan(never["average_precision"]) and math.isnan(never["f1"]) and never["accuracy"] == 4 / 7
    assert found.macro["average_precision"] == pytest.approx((1 + 1 + 3 / 4) / 3)  # of the other alone
    assert found.table["majority_accuracy"].tolist() == pytest.approx([3 / 7, 1.0])  # as the training pictures say
    assert found.to_json_dict()["attributes"][1]["roc_auc"] is None
    assert found.to_text().splitlines()[1].startswith("never")
    short = found.to_text(most=1).splitlines()
    assert not short[1].startswith("never") and short[2] == f"and {len(found.table) - 1} less frequent ones"


def test_bad_shapes() -> None:
    with pytest.raises(ValueError, match=r"one shape \(N, A\) expected, got \(7, 1\) and \(6, 1\)"):
        report(PROBS, LABELS[:6], ["a"])
    with pytest.raises(ValueError, match="2 names for 1 columns"):
        report(PROBS, LABELS, ["a", "b"])
    with pytest.raises(ValueError, match="no label is known"):
        report(PROBS, LABELS * NAN, ["a"])


def test_calibration_recovers_the_line_that_made_the_labels() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 2))
    labels = (rng.random(logits.shape) < 1 / (1 + np.exp(-(np.array([0.5, 2.0]) * logits + [1.0, -0.5])))).astype(float)
    labels[:50, 0] = NAN
    slopes, offsets = calibrate(logits, labels)
    assert slopes == pytest.approx([0.5, 2.0], rel=0.06) and offsets == pytest.approx([1.0, -0.5], abs=0.06)
    raw, mended = 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(-(slopes * logits + offsets)))
    assert calibration_error(raw, labels) > 0.05 > 0.01 > calibration_error(mended, labels)


def test_calibration_of_a_perfect_one_class_and_reversed_ranking() -> None:
    logits = np.array([[-3.0, 1.0, 2.0], [-2.0, 2.0, 1.0], [2.0, 3.0, -1.0], [3.0, 4.0, -2.0]])
    labels = np.array([[0, 1, 0], [0, 1, 0], [1, 1, 1], [1, NAN, 1]], float)
    slopes, offsets = calibrate(logits, labels)
    assert np.isfinite(slopes).all() and 0 < slopes[0] < 1  # targets 3/4 and 1/4 at +-2.5
    assert slopes[1:].tolist() == [1, 1] and offsets[1:].tolist() == [0, 0]


def test_the_calibration_error_by_hand() -> None:
    # Bin of 0.1: one one in two, 0.8 too many; bin of 0.95: 1 in 1.
    assert calibration_error(column(0.1, 0.1, 0.95), column(1, 0, 1)) == pytest.approx((0.8 + 0.05) / 3)
