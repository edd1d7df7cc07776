"""What an evaluation found, as tables for a person and dictionaries for JSON; no score is computed here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

# Rows of the tables, in the order of `ngram_metrics.SCORE_NAMES`.
_LABELS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", 'CIDEr-D (the COCO tools\' "CIDEr")', "CIDEr, plain")


def named(values: np.ndarray) -> dict[str, Any]:
    """Seven scores, or seven intervals of shape (7, 2), under the names that the JSON uses.

    `cider` is what the COCO tools print as "CIDEr", which is CIDEr-D; so `cider` and `cider_d` are one number. CIDEr as
    first defined, without clipping and length penalty, is `cider_plain`.

    Args:
        values: array, shape (7,) or (7, 2), in the order of `ngram_metrics.SCORE_NAMES`.

    Returns:
        {"bleu": four values, "rouge_l", "cider", "cider_d", "cider_plain"}, plain Python numbers.
    """
    *bleu, rouge_l, cider_d, cider_plain = np.asarray(values).tolist()
    return {"bleu": bleu, "rouge_l": rouge_l, "cider": cider_d, "cider_d": cider_d, "cider_plain": cider_plain}


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of one system on N pictures.

    Args:
        values: float64 array, shape (7,): BLEU-1..4 and ROUGE-L in [0, 1], CIDEr-D and plain CIDEr in [0, 10].
        bleu_policy: "closest", "shortest" or "none": the reference length of BLEU's brevity penalty.
        n: number of pictures.
        per_picture: DataFrame, a row for each picture: image_id, prediction, words, and its own bleu_1..bleu_4 (same
            policy; their mean is not corpus BLEU), rouge_l, cider_d, cider_plain.
        variety: vocabulary, novelty, lengths and repetition of the predictions.
        intervals: float64 array, shape (7, 2), or None where no bootstrap was asked for.
        samples: number of bootstrap samples; 0 without.
        seed: of the bootstrap.
        human: leave-one-out scores of the humans and of the system, or None.
        meteor: METEOR in [0, 1] by pycocoevalcap, or None.
        notes: what a reader should know beside the numbers.
    """

    values: np.ndarray
    bleu_policy: str
    n: int
    per_picture: pd.DataFrame
    variety: dict[str, Any]
    intervals: np.ndarray | None = None
    samples: int = 0
    seed: int = 0
    human: dict[str, Any] | None = None
    meteor: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def bleu(self) -> np.ndarray:
        """BLEU-1..4, shape (4,)."""
        return self.values[:4]

    def to_json_dict(self) -> dict[str, Any]:
        """Everything but the per-picture table, for `json.dumps`; scores on the COCO tools' scales."""
        scores = named(self.values)
        return {
            "bleu": scores.pop("bleu"),
            "bleu_policy": self.bleu_policy,
            **scores,
            "meteor": self.meteor,
            "intervals": None if self.intervals is None else named(self.intervals),
            "bootstrap": {"samples": self.samples, "seed": self.seed, "level": 0.95},
            "n": self.n,
            "variety": self.variety,
            "human": self.human,
            "notes": self.notes,
        }

    def table(self) -> str:
        """A table for the terminal: score, interval, and the human line where there is one."""
        head = f"{self.n} pictures; BLEU with brevity policy '{self.bleu_policy}'"
        if self.intervals is not None:
            head += f"; 95% intervals from {self.samples} bootstrap samples of pictures, seed {self.seed}"
        columns = ["", "score"] + (["95% interval"] if self.intervals is not None else [])
        if self.human:
            columns += ["human, one left out", "system, same references"]
            humans, systems = _flat(self.human), _flat(self.human["system"])
        rows = []
        for i, label in enumerate(_LABELS):
            row = [label, f"{self.values[i]:.3f}"]
            if self.intervals is not None:
                row.append(f"{self.intervals[i, 0]:.3f} to {self.intervals[i, 1]:.3f}")
            if self.human:
                row += [f"{humans[i]:.3f}", f"{systems[i]:.3f}"]
            rows.append(row)
        if self.meteor is not None:
            rows.append(["METEOR", f"{self.meteor:.3f}"])
        v = self.variety
        novel = "" if v["novel_share"] is None else f", {v['novel_share']:.1%} not in the training captions"
        text = [
            f"{v['distinct_captions']} distinct captions ({v['distinct_share']:.1%}){novel}",
            f"{v['vocabulary']} different words used",
            "{mean:.1f} words a caption ({min} to {max}, median {median:g})".format(**v["length"]),
            f"most repeated ({v['most_repeated']['count']} times): {v['most_repeated']['caption']!r}",
        ]
        return "\n".join([head, _grid(columns, rows), *text, *self.notes])


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two systems on the same pictures.

    Args:
        values_a: float64 array, shape (7,), scores of A.
        values_b: float64 array, shape (7,), scores of B.
        intervals: float64 array, shape (7, 2): bootstrap interval of A - B.
        p_values: float64 array, shape (7,): two-sided, of "A and B score the same".
        method: "bootstrap" or "randomization".
        bleu_policy: "closest", "shortest" or "none".
        n: number of pictures.
        samples: of the test.
        seed: of the test.
    """

    values_a: np.ndarray
    values_b: np.ndarray
    intervals: np.ndarray
    p_values: np.ndarray
    method: str
    bleu_policy: str
    n: int
    samples: int
    seed: int

    def to_json_dict(self) -> dict[str, Any]:
        """For `json.dumps`; the difference is A - B."""
        return {
            "a": named(self.values_a),
            "b": named(self.values_b),
            "difference": named(self.values_a - self.values_b),
            "intervals": named(self.intervals),
            "p_values": named(self.p_values),
            "method": f"paired {self.method}",
            "bleu_policy": self.bleu_policy,
            "samples": self.samples,
            "seed": self.seed,
            "n": self.n,
        }

    def table(self) -> str:
        """A table for the terminal."""
        head = (
            f"{self.n} pictures; BLEU with brevity policy '{self.bleu_policy}'; "
            f"paired {self.method}, {self.samples} samples, seed {self.seed}"
        )
        rows = [
            [label, f"{a:.3f}", f"{b:.3f}", f"{a - b:+.3f}", f"{low:+.3f} to {high:+.3f}", f"{p:.4f}"]
            for label, a, b, (low, high), p in zip(
                _LABELS, self.values_a, self.values_b, self.intervals, self.p_values, strict=True
            )
        ]
        return "\n".join([head, _grid(["", "A", "B", "A - B", "95% interval", "p"], rows)])


def _flat(scores: dict[str, Any]) -> list[float]:
    return [*scores["bleu"], scores["rouge_l"], scores["cider_d"], scores["cider_plain"]]


def _grid(columns: list[str], rows: list[list[str]]) -> str:
    """Columns aligned: text on the left, numbers on the right."""
    widths = [max(len(line[i]) for line in [columns, *rows] if i < len(line)) for i in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=False))
        )
        for line in [columns, *rows]
    )
