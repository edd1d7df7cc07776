"""Several systems on the same held-out images: scores with intervals, costs and paired tests, in one table."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from attncap.attributes.sentences import true_claims
from attncap.data.dataset import CaptionData
from attncap.data.faces.captions import CHARACTERISTICS
from attncap.data.faces.claims import stated_claims
from attncap.metrics import significance
from attncap.metrics.evaluate import References, compare, evaluate
from attncap.plotting.layout import legends_above
from attncap.plotting.scores import plot_scores
from attncap.plotting.style import STYLE, PanelAxes, SheetFigure
from attncap.reports.systems import System

BATCH = 32  # images per batch of a system
# What a table calls a score -> its name in `Scores.values`.
MEASURES = {
    "BLEU-1": "bleu_1",
    "BLEU-2": "bleu_2",
    "BLEU-3": "bleu_3",
    "BLEU-4": "bleu_4",
    "CIDEr": "cider_d",
    "ROUGE-L": "rouge_l",
}
TRUE = "true"  # share of stated characteristics that are true
STATED = "stated"  # characteristics that a caption states, on average
COSTS = {"seconds_per_image": "s per image", "training_seconds": "training, s", "megabytes": "MB"}


@dataclass(frozen=True, eq=False)
class SystemComparison:
    """Scores and costs of several systems on the same images.

    Args:
        title: data set, split and number of images.
        table: one row per system: BLEU-1..4, CIDEr (CIDEr-D, as the COCO tools' "CIDEr"), ROUGE-L, `true` and `stated`
            (share of stated characteristics that are true, how many a caption states; NaN without attributes),
            `seconds_per_image`, `training_seconds`, `megabytes`.
        intervals: one row per system and measure: `system`, `metric`, `score`, `low`, `high` (95%, by images).
        best: the system with the highest BLEU-4.
        tests: one row per measure and system other than the best: `system`, `metric`, `difference` (best minus system),
            `low`, `high`, `p` (two-sided, paired randomization).
        captions: system -> image_id -> caption.
        absent: system -> why it is not in the table.
    """

    title: str
    table: pd.DataFrame
    intervals: pd.DataFrame
    best: str
    tests: pd.DataFrame
    captions: dict[str, dict[str, str]]
    absent: Mapping[str, str] = field(default_factory=dict)

    def shown(self, intervals: bool = True) -> pd.DataFrame:
        """Return the table as text, scores with their intervals; "-" means not applicable."""
        ends = {(row.system, row.metric): (row.low, row.high) for row in self.intervals.itertuples()}
        rows = {}
        for system, row in self.table.iterrows():
            cells = {}
            for metric in [*MEASURES, TRUE]:
                if not math.isnan(row[metric]):
                    low, high = ends[str(system), metric]
                    cells[metric] = f"{row[metric]:.3f}" + (f" ({low:.3f} to {high:.3f})" if intervals else "")
            others = {STATED: STATED, **COSTS}
            cells |= {label: _number(row[name]) for name, label in others.items() if not math.isnan(row[name])}
            rows[system] = cells
        columns = [*MEASURES, *([TRUE, STATED] if self.table[STATED].notna().any() else []), *COSTS.values()]
        shown = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns)
        return shown.reindex([*shown.index, *self.absent]).astype(object).fillna("-")

    def to_markdown(self, intervals: bool = True) -> str:
        """Return the table in Markdown, followed by the absent systems with reasons."""
        shown = self.shown(intervals)
        lines = [f"| {self.title} | {' | '.join(shown.columns)} |", "| --- |" + " ---: |" * len(shown.columns)]
        lines += [
            f"| {system} | {' | '.join(row)} |" for system, row in zip(shown.index, shown.to_numpy(), strict=True)
        ]
        return "\n".join([*lines, "", *(f"{system}: {why}" for system, why in self.absent.items())]).rstrip()

    def tests_text(self, metrics: Sequence[str] = ("BLEU-4", "CIDEr", "ROUGE-L", TRUE)) -> str:
        """Return the paired tests as text: the lead of the best system over each other one, its interval and p."""
        lines = [f"{self.best} minus ...", f"{'':<32}{'':<9}{'lead':>8}{'95% interval':>20}{'p':>9}"]
        for row in self.tests[self.tests["metric"].isin(metrics)].itertuples():
            between = f"{row.low:+.3f} to {row.high:+.3f}"
            lines.append(f"{row.system:<32}{row.metric:<9}{row.difference:>+8.3f}{between:>20}{row.p:>9.4f}")
        return "\n".join(lines)

    def to_json_dict(self) -> dict[str, Any]:
        """Return everything but the captions, for `json.dumps`; None for NaN."""
        frames = {
            "table": self.table.reset_index(names="system"),
            "intervals": self.intervals,
            "tests": self.tests,
        }
        rows = {
            name: frame.astype(object).where(frame.notna(), None).to_dict("records") for name, frame in frames.items()
        }
        return {"title": self.title, "best": self.best, **rows, "absent": dict(self.absent)}


def compare_systems(
    systems: Sequence[System],
    held_out: CaptionData,
    *,
    absent: Mapping[str, str] | None = None,
    bootstrap: int = 1000,
    samples: int = 10_000,
    seed: int = 0,
    progress: bool = True,
) -> SystemComparison:
    """Caption the same image files with every system, measure the time, score the captions and test differences.

    Seconds per image are the median over batches of 32 without the first, in which networks are compiled.

    Args:
        systems: those of `attncap.reports.systems`, each name once.
        held_out: readable images with captions that no system was trained on. If it has a table of attributes (that of
            the drawn faces, or one of 0 and 1 with names such as those of CelebA), the claims of captions are checked
            with it.
        absent: systems that are not compared, and why; listed below the table.
        bootstrap: samples for the intervals.
        samples: of the paired tests.
        seed: of both.
        progress: show one bar per system.

    Returns:
        The comparison, systems in the order given.

    Raises:
        ValueError: no system, a name twice, or no image with a caption.

    Example:
        >>> found = compare_systems([most_common_system(train), random_system(train)], test, progress=False)
        >>> found.shown()
    """
    names = [system.name for system in systems]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"systems: at least one, and each name once, expected; got {', '.join(names) or 'none'}")
    references = References(held_out.references())
    pictures = held_out.pictures.set_index("image_id").loc[references.image_ids]
    rows, intervals, captions, claimed = {}, [], {}, {}
    for system in systems:
        said, seconds = _ask(system, list(pictures["path"]), progress)
        captions[system.name] = dict(zip(references.image_ids, said, strict=True))
        scores = evaluate(captions[system.name], references, bootstrap=bootstrap, seed=seed, human=False)
        assert scores.intervals is not None
        row = {metric: scores.values[name] for metric, name in MEASURES.items()}
        ends = {metric: scores.intervals[name] for metric, name in MEASURES.items()}
        row |= {TRUE: math.nan, STATED: math.nan}
        if held_out.attributes is not None:
            claimed[system.name] = _claims_by_image(captions[system.name], held_out.attributes)
            true, stated = claimed[system.name].sum(axis=0)
            row |= {TRUE: true / stated if stated else math.nan, STATED: stated / len(said)}
            ends[TRUE] = significance.interval(significance.bootstrap(claimed[system.name], _share, bootstrap, seed))[0]
        rows[system.name] = {
            **row,
            "seconds_per_image": seconds,
            "training_seconds": system.training_seconds,
            "megabytes": system.megabytes,
        }
        intervals += [(system.name, metric, row[metric], *map(float, low_high)) for metric, low_high in ends.items()]
    table = pd.DataFrame.from_dict(rows, orient="index")
    best = str(table["BLEU-4"].idxmax())
    tests = []
    for name in names:
        if name != best:
            tests += _tests(name, best, captions, references, claimed, samples, seed)
    return SystemComparison(
        title=f"{held_out.name}, {len(references):,} images",
        table=table,
        intervals=pd.DataFrame(intervals, columns=["system", "metric", "score", "low", "high"]),
        best=best,
        tests=pd.DataFrame(tests, columns=["system", "metric", "difference", "low", "high", "p"]),
        captions=captions,
        absent=dict(absent or {}),
    )


@matplotlib.rc_context(STYLE)
def plot_comparison(comparison: SystemComparison) -> Figure:
    """Draw BLEU-4, ROUGE-L, the share of true characteristics and CIDEr of every system, with their intervals.

    Example:
        >>> plot_comparison(comparison).savefig("which_one.png")
    """
    figure = SheetFigure(figsize=(12.5, 1.9 + 0.72 * len(comparison.table)), layout="constrained")
    left, right = (figure.add_subplot(1, 2, at, axes_class=PanelAxes) for at in (1, 2))
    names = {"BLEU-4": "BLEU-4", "ROUGE-L": "ROUGE-L", TRUE: "share of true characteristics"}
    found = comparison.intervals[comparison.intervals["score"].notna()]
    for ax, wanted, title in ((left, names, comparison.title), (right, {"CIDEr": "CIDEr"}, "CIDEr-D, 95% intervals")):
        rows = found[found["metric"].isin(wanted)]
        # One row per system and one color per measure: eight colors could not be told apart.
        turned = pd.DataFrame({"system": rows["metric"].map(wanted), "metric": rows["system"]})
        order = turned["system"].map({name: at for at, name in enumerate(wanted.values())})
        drawn = pd.concat([turned, rows[["score", "low", "high"]]], axis=1).loc[order.sort_values(kind="stable").index]
        plot_scores(drawn, ax=ax, title=title)
        ax.margins(x=0.2)  # room for the numbers
    legends_above([left, right])  # titles at one height, although one of the two has a legend
    right.set_yticklabels([])
    return figure


def _ask(system: System, paths: Sequence[str], progress: bool) -> tuple[list[str], float]:
    # All batches have one size, so that a network is compiled once: the last is filled up with its last image.
    size = max(1, min(BATCH, len(paths) // 3))
    said: list[str] = []
    seconds = []
    with tqdm(total=len(paths), desc=system.name, unit=" images", disable=not progress) as bar:
        for start in range(0, len(paths), size):
            part = list(paths[start : start + size])
            began = time.perf_counter()
            answers = system.answer(part + part[-1:] * (size - len(part)))
            seconds.append((time.perf_counter() - began) / size)
            said += answers[: len(part)]
            bar.update(len(part))
    return said, float(np.median(seconds[1:] or seconds))


def _tests(
    name: str,
    best: str,
    captions: Mapping[str, Mapping[str, str]],
    references: References,
    claimed: Mapping[str, np.ndarray],
    samples: int,
    seed: int,
) -> list[tuple[Any, ...]]:
    found = compare(captions[best], captions[name], references, samples=samples, seed=seed)
    rows: list[tuple[Any, ...]] = [
        (name, metric, found.differences[score], *found.intervals[score], found.p_values[score])
        for metric, score in MEASURES.items()
    ]
    if claimed and claimed[name][:, 1].any() and claimed[best][:, 1].any():
        tested = significance.paired_test(claimed[best], claimed[name], _share, samples=samples, seed=seed)
        low, high = tested.intervals[0].tolist()
        rows.append((name, TRUE, float(tested.differences[0]), low, high, float(tested.p_values[0])))
    return rows


def _claims_by_image(captions: Mapping[str, str], attributes: pd.DataFrame) -> np.ndarray:
    """Return the number of true claims and of claims of each image: float64, shape (N, 2)."""
    if not set(CHARACTERISTICS) <= set(attributes):
        return true_claims(captions, attributes)
    by_image = stated_claims(captions, attributes).groupby("image_id")["true"].agg(["sum", "size"])
    return by_image.reindex(list(captions), fill_value=0).to_numpy(float)


def _share(sums: np.ndarray) -> np.ndarray:
    return np.where(sums[..., 1:] > 0, sums[..., :1] / np.maximum(sums[..., 1:], 1), 0.0)  # (..., 1)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else "<0.001" if 0 < value < 0.001 else f"{value:.3g}"
