"""`report`: evaluate attribute probabilities against labels, with the majority class as the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    precision_recall_fscore_support,
    roc_auc_score,
)

from attncap.attributes.calibration import calibration_error, check_shapes

MEASURES = ("average_precision", "roc_auc", "f1", "balanced_accuracy", "precision", "recall", "accuracy")


def report(
    probs: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    thresholds: np.ndarray | float = 0.5,
    majority: np.ndarray | None = None,
) -> AttributeReport:
    """Evaluate attribute probabilities against labels.

    Args:
        probs: shape (N, A), 0 to 1.
        labels: shape (N, A): 1, 0, or NaN (unknown; ignored).
        names: names of the A attributes.
        thresholds: one number, or shape (A,) from `tune_thresholds` on other images.
        majority: shape (A,): the majority class of each attribute, 1 or 0, in the training images. None: the majority
            class of these images, which makes the baseline look better.

    Returns:
        The report. A measure is NaN if it is not defined for the labels of an attribute, for example because they have
        only one class. Means ignore NaN.

    Raises:
        ValueError: the shapes differ, the number of names is wrong, or no label is known.
    """
    check_shapes(probs, labels)
    if len(names) != probs.shape[1]:
        raise ValueError(f"{len(names)} names for {probs.shape[1]} columns of probabilities")
    if not np.isfinite(labels).any():
        raise ValueError("no label is known: nothing to measure against")
    limits = np.broadcast_to(np.asarray(thresholds, float), (probs.shape[1],))
    rows = []
    for at, name in enumerate(names):
        known = np.isfinite(labels[:, at])
        truth, prob = labels[known, at] > 0.5, probs[known, at]
        common = truth.mean() > 0.5 if majority is None and known.any() else majority is not None and majority[at] > 0.5
        rows.append(
            {
                "attribute": name,
                "images": int(known.sum()),
                "prevalence": float(truth.mean()) if known.any() else np.nan,
                "threshold": float(limits[at]),
                **_measures(truth, prob, prob >= limits[at]),
                "majority_accuracy": float((truth == common).mean()) if known.any() else np.nan,
            }
        )
    table = pd.DataFrame(rows)
    known = np.isfinite(labels)
    means = table[[*MEASURES, "prevalence", "majority_accuracy"]].mean().to_dict()
    micro = _measures(labels[known] > 0.5, probs[known], (probs >= limits)[known])
    macro = {str(key): float(value) for key, value in means.items()}
    return AttributeReport(table, macro, micro, calibration_error(probs, labels))


def average_precisions(scores: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    """Compute the average precision of each attribute whose known labels have both classes.

    Args:
        scores: probabilities or logits, shape (N, A).
        labels: shape (N, A): 1, 0, or NaN (unknown; ignored).

    Returns:
        average_precisions: index of the attribute -> average precision.
    """
    found = {}
    for at, (score, label) in enumerate(zip(scores.T, labels.T, strict=True)):
        known = np.isfinite(label)
        if len(np.unique(label[known])) == 2:
            found[at] = float(average_precision_score(label[known] > 0.5, score[known]))
    return found


class AttributeReport:
    """Evaluation results of attribute probabilities, returned by `report`.

    Args:
        table: DataFrame with the measures of each attribute.
        macro: means of the measures over the attributes.
        micro: measures over the predictions of all attributes together.
        calibration_error: expected calibration error, see `attncap.attributes.calibration.calibration_error`.
    """

    def __init__(self, table: pd.DataFrame, macro: dict[str, float], micro: dict[str, float], calibration_error: float):
        self.table, self.macro, self.micro, self.calibration_error = table, macro, micro, calibration_error

    def to_text(self, sort: str = "average_precision", most: int | None = None) -> str:
        """Format the report as text, one line per attribute.

        Args:
            sort: column to sort by, the smallest value first.
            most: number of attributes to show, the most frequent ones. None: all.
        """
        columns = ["prevalence", "threshold", *MEASURES, "majority_accuracy"]
        width = max(len("attribute"), *map(len, self.table["attribute"]))
        short = {"average_precision": "AP", "roc_auc": "AUC", "balanced_accuracy": "balanced"}
        short |= {"majority_accuracy": "majority", "prevalence": "share"}

        def line(name: str, values: Mapping[Any, Any]) -> str:
            cells = [f"{values[column]:>9.3f}" if column in values else " " * 9 for column in columns]
            return f"{name:<{width}} {' '.join(cells)}"

        lines = [f"{'attribute':<{width}} " + " ".join(f"{short.get(column, column):>9}" for column in columns)]
        shown = self.table if most is None else self.table.nlargest(most, "prevalence")
        ordered = shown.sort_values(sort, na_position="first", kind="stable")
        lines += [line(str(row["attribute"]), row) for row in ordered.to_dict("records")]
        if len(shown) < len(self.table):
            lines.append(f"and {len(self.table) - len(shown)} less frequent ones")
        error = f"calibration error {self.calibration_error:.3f} (0: of all answers of 30%, 30% are right)"
        return "\n".join([*lines, line("macro", self.macro), line("micro", self.micro), error])

    def to_json_dict(self) -> dict[str, Any]:
        """Convert to a dictionary of plain numbers for JSON. NaN becomes None."""

        def plain(values: Mapping[Any, Any]) -> dict[str, Any]:
            missing = [key for key, value in values.items() if isinstance(value, float) and np.isnan(value)]
            return {str(key): value for key, value in values.items()} | {str(key): None for key in missing}

        attributes = [plain(row) for row in self.table.to_dict("records")]
        error = {"calibration_error": self.calibration_error}
        return {"macro": plain(self.macro), "micro": plain(self.micro), **error, "attributes": attributes}


def _measures(truth: np.ndarray, prob: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    if not len(truth):
        return dict.fromkeys(MEASURES, np.nan)
    precision, recall, f1, _ = precision_recall_fscore_support(truth, predicted, average="binary", zero_division=0)
    positive = bool(truth.any())
    both = bool(positive and not truth.all())
    undefined = 0.0 if positive else np.nan
    return {
        "average_precision": float(average_precision_score(truth, prob)) if both else np.nan,
        "roc_auc": float(roc_auc_score(truth, prob)) if both else np.nan,
        "f1": float(f1) if positive else np.nan,
        "balanced_accuracy": float(balanced_accuracy_score(truth, predicted)) if both else np.nan,
        "precision": float(precision) if predicted.any() else undefined,
        "recall": float(recall) if positive else np.nan,
        "accuracy": float(accuracy_score(truth, predicted)),
    }
