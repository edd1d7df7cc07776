"""`Scores` and `Comparison`: the results of an evaluation, as tables for a person and dictionaries for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from attncap.metrics.registry import Metric


def _json(metrics: Sequence[Metric], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values under the names that the JSON uses.

    `cider` is what the COCO tools print as "CIDEr", which is CIDEr-D; so `cider` and `cider_d` are one number. CIDEr as
    first defined, without clipping and length penalty, is `cider_plain`.
    """
    return {key: value for metric in metrics for key, value in metric.to_json(values).items()}


def _labels(metrics: Sequence[Metric]) -> dict[str, str]:
    return {name: label for metric in metrics for name, label in metric.labels.items()}


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of one system on N images.

    Args:
        values: score name -> value: `bleu_1`..`bleu_4` and `rouge_l` in [0, 1], `cider_d` and `cider_plain` in
            [0, 10], and those of other metrics.
        metrics: what was computed, in the order of the tables.
        bleu_policy: "closest", "shortest" or "none": the reference length of BLEU's brevity penalty.
        n: number of images.
        per_image: DataFrame, one row per image: image_id, prediction, words, and its own scores (the mean of its BLEUs
            is not corpus BLEU).
        variety: vocabulary, novelty, lengths and repetition of the predictions.
        intervals: score name -> [low, high], 95%; None where no bootstrap was asked for.
        samples: number of bootstrap samples; 0 without.
        seed: of the bootstrap.
        human: leave-one-out scores of the humans and of the system, or None.
        meteor: METEOR in [0, 1] by pycocoevalcap's Java program, or None.
        notes: what makes the scores unreliable, or why one is missing.
    """

    values: dict[str, float]
    metrics: Sequence[Metric]
    bleu_policy: str
    n: int
    per_image: pd.DataFrame
    variety: dict[str, Any]
    intervals: dict[str, list[float]] | None = None
    samples: int = 0
    seed: int = 0
    human: dict[str, Any] | None = None
    meteor: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def bleu(self) -> np.ndarray:
        """BLEU-1..4, shape (4,)."""
        return np.array([self.values[f"bleu_{order}"] for order in range(1, 5)])

    def to_json_dict(self) -> dict[str, Any]:
        """Everything but the per-image table, for `json.dumps`; scores on the COCO tools' scales."""
        scores = _json(self.metrics, self.values)
        bleu = {name: scores.pop(name) for name in list(scores) if name == "bleu"}
        return {
            **bleu,
            "bleu_policy": self.bleu_policy,
            **scores,
            "meteor": self.meteor,
            "intervals": None if self.intervals is None else _json(self.metrics, self.intervals),
            "bootstrap": {"samples": self.samples, "seed": self.seed, "level": 0.95},
            "n": self.n,
            "variety": self.variety,
            "human": self._human_json(),
            "notes": self.notes,
        }

    def table(self) -> str:
        """A table for the terminal: score, interval, and the human line where there is one."""
        head = f"{self.n} images; BLEU with brevity policy '{self.bleu_policy}'"
        if self.intervals is not None:
            head += f"; 95% intervals from {self.samples} bootstrap samples of images, seed {self.seed}"
        columns = ["", "score"] + (["95% interval"] if self.intervals is not None else [])
        if self.human:
            columns += ["human, one left out", "system, same references"]
        rows = []
        for name, label in _labels(self.metrics).items():
            row = [label, f"{self.values[name]:.3f}"]
            if self.intervals is not None:
                low, high = self.intervals[name]
                row.append(f"{low:.3f} to {high:.3f}")
            if self.human:
                row += [f"{self.human[name]:.3f}", f"{self.human['system'][name]:.3f}"]
            rows.append(row)
        if self.meteor is not None:
            rows.append(["METEOR", f"{self.meteor:.3f}"])
        v = self.variety
        novel = "" if v["novel_share"] is None else f", {v['novel_share']:.1%} not in the training captions"
        text = [
            f"{v['distinct_captions']} distinct captions ({v['distinct_share']:.1%}){novel}",
            f"{v['vocabulary']} different words used",
            "{mean:.1f} words per caption ({min} to {max}, median {median:g})".format(**v["length"]),
            f"most repeated ({v['most_repeated']['count']} times): {v['most_repeated']['caption']!r}",
        ]
        return "\n".join([head, _grid(columns, rows), *text, *(f"note: {note}" for note in self.notes)])

    def _human_json(self) -> dict[str, Any] | None:
        if self.human is None:
            return None
        system = _json(self.metrics, self.human["system"])
        about = {"n": self.human["n"], "rounds": self.human["rounds"]}
        return {**_json(self.metrics, self.human), "system": system, **about}


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two systems on the same images.

    Args:
        values_a: score name -> score of A.
        values_b: score name -> score of B.
        intervals: score name -> [low, high]: bootstrap interval of A - B, 95%.
        p_values: score name -> two-sided p of "A and B score the same".
        metrics: what was computed, in the order of the tables.
        method: "bootstrap" or "randomization".
        bleu_policy: "closest", "shortest" or "none".
        n: number of images.
        samples: of the test.
        seed: of the test.
    """

    values_a: dict[str, float]
    values_b: dict[str, float]
    intervals: dict[str, list[float]]
    p_values: dict[str, float]
    metrics: Sequence[Metric]
    method: str
    bleu_policy: str
    n: int
    samples: int
    seed: int

    @property
    def differences(self) -> dict[str, float]:
        """Score name -> A - B."""
        return {name: self.values_a[name] - self.values_b[name] for name in self.values_a}

    def to_json_dict(self) -> dict[str, Any]:
        """For `json.dumps`; the difference is A - B."""
        return {
            "a": _json(self.metrics, self.values_a),
            "b": _json(self.metrics, self.values_b),
            "difference": _json(self.metrics, self.differences),
            "intervals": _json(self.metrics, self.intervals),
            "p_values": _json(self.metrics, self.p_values),
            "method": f"paired {self.method}",
            "bleu_policy": self.bleu_policy,
            "samples": self.samples,
            "seed": self.seed,
            "n": self.n,
        }

    def table(self) -> str:
        """A table for the terminal."""
        head = (
            f"{self.n} images; BLEU with brevity policy '{self.bleu_policy}'; "
            f"paired {self.method}, {self.samples} samples, seed {self.seed}"
        )
        rows = []
        for name, label in _labels(self.metrics).items():
            a, b, (low, high) = self.values_a[name], self.values_b[name], self.intervals[name]
            between = f"{low:+.3f} to {high:+.3f}"
            rows.append([label, f"{a:.3f}", f"{b:.3f}", f"{a - b:+.3f}", between, f"{self.p_values[name]:.4f}"])
        return "\n".join([head, _grid(["", "A", "B", "A - B", "95% interval", "p"], rows)])


def _grid(columns: list[str], rows: list[list[str]]) -> str:
    """Return aligned columns: text on the left, numbers on the right."""
    widths = [max(len(line[i]) for line in [columns, *rows] if i < len(line)) for i in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=False))
        )
        for line in [columns, *rows]
    )
