"""Does the model look at what it names? Attention maps against the boxes of the phrases that name them.

Two measures, each compared with two trivial baselines: a uniform map, and the average of all maps, which is centered
because photographers aim. The input is `Caption`s with maps and `Phrase`s with boxes; no model is needed.

The map of a word was computed *before* the word was chosen, from the state that the words before it left (`shift=0`:
the word's own step). `shift=1` reads the map of the following step, the first one computed with the word known;
`shift=-1` reads one step earlier.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from attncap.captions import WHOLE_IMAGE, Caption
from attncap.grounding.phrases import Phrase, cell_cover, point_in_boxes
from attncap.metrics.significance import bootstrap, interval

MEASURES = (
    "attention_correctness",
    "mean_correctness",
    "uniform",
    "center",
    "pointing_game",
    "pointing_uniform",
    "pointing_center",
)
PointingWords = Literal["strongest", "last", "any"]


@dataclass(frozen=True, eq=False)
class Grounding:
    """Agreement of maps and boxes: means over phrases, each between 0 and 1.

    Attributes:
        attention_correctness: mass of the map inside the region, the largest over the phrase's words.
        mean_correctness: the mean over the phrase's words in place of the largest; this one can be compared with the
            baselines, since noise does not raise it.
        uniform, center: the same mass of a uniform map (all cells weigh the same; the region's share of the image
            where the cells do) and of the average map. Of maps on regions (`Caption.boxes`) the uniform one gives all
            regions of the image, without padding, the same weight: detectors put boxes where things are.
        pointing_game: share of phrases whose maximum falls into the region; `pointing_uniform`, `pointing_center`
            likewise for the two baselines.
        n_phrases: number of phrases measured, in `n_pictures` images.
        n_without_box: phrases left out because their region has no box.
        n_without_map: phrases left out because the caption has no map `shift` steps away.
        shift: 0, the maps of the words' own steps; 1, one step later; -1, one earlier.
        tolerance: of the pointing game and its baselines, as a fraction of the image's sides.
        intervals: measure -> (low, high), bootstrap over images; also of `correctness_over_uniform`.
        per_type: DataFrame, one row per type with the measures and `n_phrases`, most frequent first.
        phrases: DataFrame, one row per measured phrase (`image_id`, `caption` its place in the input, `start`, `end`,
            `type` and the measures), for sorting.
    """

    attention_correctness: float
    mean_correctness: float
    uniform: float
    center: float
    pointing_game: float
    pointing_uniform: float
    pointing_center: float
    n_phrases: int
    n_pictures: int
    n_without_box: int
    n_without_map: int
    shift: int
    tolerance: float
    intervals: dict[str, tuple[float, float]] = field(repr=False)
    per_type: pd.DataFrame = field(repr=False)
    phrases: pd.DataFrame = field(repr=False)

    @property
    def correctness_over_uniform(self) -> float:
        """Mass in the region relative to a uniform map."""
        return self.attention_correctness / self.uniform if self.n_phrases else math.nan

    def mean_over_types(self) -> dict[str, float]:
        """The measures averaged over types; each type counts once."""
        return {name: float(self.per_type[name].mean()) for name in MEASURES}

    def to_json_dict(self) -> dict[str, Any]:
        """Return numbers, strings and None (nothing was measured), for `json.dumps`."""
        counts = ("n_phrases", "n_pictures", "n_without_box", "n_without_map", "shift", "tolerance")
        per_type = {
            str(kind): {**{name: _number(row[name]) for name in MEASURES}, "n_phrases": int(row["n_phrases"])}
            for kind, row in self.per_type.iterrows()
        }
        return {
            **{name: _number(getattr(self, name)) for name in (*MEASURES, "correctness_over_uniform")},
            **{name: getattr(self, name) for name in counts},
            "intervals": {name: [_number(low), _number(high)] for name, (low, high) in self.intervals.items()},
            "mean_over_types": {name: _number(value) for name, value in self.mean_over_types().items()},
            "per_type": per_type,
        }

    def shown(self) -> pd.DataFrame:
        """Return the table that is shown: one row per type, then "all"; the measures and `n_phrases`."""
        everything = pd.DataFrame({name: [getattr(self, name)] for name in (*MEASURES, "n_phrases")}, index=["all"])
        return pd.concat([self.per_type, everything])

    def to_text(self) -> str:
        """Return a table as text: one row per type, then all phrases, then `intervals_text`."""
        table = self.shown()
        width = max([12, *(len(str(kind)) for kind in table.index)])
        head = ("phrases", "correct.", "mean", "uniform", "center", "pointing", "uniform", "center")
        rows = [f"{'type':<{width}}" + "".join(f"{name:>10}" for name in head)]
        for kind, row in table.iterrows():
            values = "".join(f"{row[name]:>10.3f}" for name in MEASURES)
            rows.append(f"{kind!s:<{width}}{row['n_phrases']:>10.0f}{values}")
        return "\n".join([*rows, self.intervals_text()])

    def intervals_text(self) -> str:
        """Return lines of text: the measures of all phrases with their intervals, and what was left out."""
        rows = [
            f"{name.replace('_', ' ')}: {getattr(self, name):.3f} [{low:.3f}, {high:.3f}]"
            for name, (low, high) in self.intervals.items()
        ]
        step = {0: "of the words' own steps", 1: "one step later", -1: "one step earlier"}
        rows.append(
            f"maps {step.get(self.shift, f'{self.shift:+d} steps away')}; {self.n_pictures} images; left out: "
            f"{self.n_without_box} phrases without box, {self.n_without_map} without map"
            + (f"; pointing within {self.tolerance:.0%} of the image's side" if self.tolerance else "")
        )
        return "\n".join(rows)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def measure_grounding(
    captions: Sequence[Caption],
    phrases: Sequence[Sequence[Phrase]],
    *,
    shift: int = 0,
    pointing_words: PointingWords = "strongest",
    upsample: int = 1,
    tolerance: float = 0.0,
    comparable_with: Sequence[int] = (),
    n_bootstrap: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Grounding:
    """Measure attention correctness and the pointing game of maps against the boxes of phrases.

    Attention correctness of a phrase: max over its words t of the sum of alpha[t + shift] inside the region, where
    each map alpha sums to 1 and a cell that the region cuts counts by the area inside. The baselines have one map for
    all words, so that the maximum does not raise them. It raises every map that changes from word to word, even noise
    (on the dev phrases of Flickr8k, noise around the center reaches 0.40, its average map 0.37, a uniform map 0.30).
    `mean_correctness` does not have this bias.

    Args:
        captions: N captions with maps, all of one grid; human ones fed in, or generated ones. Maps on regions
            (`Caption.boxes`) are measured with each region's weight spread evenly over its box.
        phrases: N lists, one per caption.
        shift: 0 reads the map of the word's own step, 1 the following step's, -1 the step before.
        pointing_words: the words whose maximum counts. "strongest": the largest weight of all the phrase's maps
            (default: does
            not use the box); "last": the map of the last word, as a rule the noun;
            "any": one word that points into the region is enough, the analogue of the maximum above.
        upsample, tolerance: see `attncap.grounding.phrases.point_in_boxes`.
        comparable_with: further shifts at which a phrase must have a map, so that a table's rows have the same phrases.
        n_bootstrap: resamples of images for the intervals; 0 gives none.
        confidence: of the intervals.
        seed: of the resampling.

    Returns:
        grounding: means, intervals and tables; NaN (None in JSON) if no phrase has both a box and a map.

    Raises:
        ValueError: captions and phrases do not match, a caption has no maps or another grid, a map is not one.

    Example:
        >>> caption = Caption(("a", "hat"), (4, 5), -1.0, np.array([[[1.0, 0.0]], [[0.2, 0.8]]]))
        >>> hat = Phrase("face.png", 0, 2, "hat", np.array([[0.5, 0.0, 1.0, 1.0]]))
        >>> measure_grounding([caption], [[hat]], n_bootstrap=0).attention_correctness
        0.8

    Reference: Liu et al. 2017, "Attention Correctness in Neural Image Captioning", section 4; Zhang et al. 2016,
        "Top-down Neural Attention by Excitation Backprop", section 4.1.
    """
    if len(captions) != len(phrases):
        raise ValueError(
            f"expected one list of phrases per caption, got {len(captions)} captions, {len(phrases)} lists"
        )
    equal = [_equal_regions(caption) for caption in captions]
    captions = [caption.on_grid() for caption in captions]  # maps on boxes become grids
    maps = [_checked_maps(caption) for caption in captions]
    grids = sorted({array.shape[1:] for array in maps})
    if len(grids) > 1:
        raise ValueError(f"expected maps of one grid, got {grids}: measure each captioner by itself")
    rows, cols = grids[0] if grids else (1, 1)
    n_maps = sum(map(len, maps))
    average = sum((array.sum(axis=0) for array in maps), np.zeros((rows, cols))) / max(n_maps, 1)
    flat = np.full((rows, cols), 1 / (rows * cols))

    measured: list[dict[str, Any]] = []
    n_without_box = n_without_map = 0
    for number, (caption, alphas, regions, own_phrases) in enumerate(zip(captions, maps, equal, phrases, strict=True)):
        even = flat if regions is None else regions
        for phrase in own_phrases:
            if phrase.end > len(caption.words):
                raise ValueError(
                    f"phrase {phrase.start}:{phrase.end} of image {phrase.image_id!r} leaves its caption of "
                    f"{len(caption.words)} words ({caption.text!r}): split it the way the captioner splits captions"
                )
            steps = [_steps(phrase, step, len(alphas)) for step in (shift, *comparable_with)]
            if not len(phrase.boxes):
                n_without_box += 1
            elif not all(map(len, steps)):
                n_without_map += 1
            else:
                place = caption.grid_box
                cover = cell_cover(phrase.boxes, rows, cols, place)
                own = alphas[steps[0].start : steps[0].stop]  # (words, rows, cols)
                masses = (own * cover).sum(axis=(1, 2))  # (words,)
                points = {"strongest": own.max(axis=0)[None], "last": own[-1:], "any": own}[pointing_words]
                measured.append(
                    {
                        "image_id": phrase.image_id,
                        "caption": number,
                        "start": phrase.start,
                        "end": phrase.end,
                        "type": phrase.type,
                        "attention_correctness": float(masses.max()),
                        "mean_correctness": float(masses.mean()),
                        "uniform": float(cover.mean() if regions is None else (even * cover).sum()),
                        "center": float((average * cover).sum()),
                        "pointing_game": max(
                            point_in_boxes(point, phrase.boxes, upsample, place, tolerance) for point in points
                        ),
                        "pointing_uniform": point_in_boxes(even, phrase.boxes, 1, place, tolerance),
                        "pointing_center": point_in_boxes(average, phrase.boxes, upsample, place, tolerance),
                    }
                )
    table = pd.DataFrame(measured, columns=["image_id", "caption", "start", "end", "type", *MEASURES])
    table[list(MEASURES)] = table[list(MEASURES)].astype(float)
    per_type = table.groupby("type")[list(MEASURES)].mean()
    per_type["n_phrases"] = table.groupby("type").size()
    return Grounding(
        **{name: float(table[name].mean()) for name in MEASURES},
        n_phrases=len(table),
        n_pictures=table["image_id"].nunique(),
        n_without_box=n_without_box,
        n_without_map=n_without_map,
        shift=shift,
        tolerance=tolerance,
        intervals=_intervals(table, n_bootstrap, confidence, seed),
        per_type=per_type.sort_values("n_phrases", ascending=False, kind="stable"),
        phrases=table,
    )


def measure_at_shifts(
    captions: Sequence[Caption], phrases: Sequence[Sequence[Phrase]], shifts: Sequence[int] = (-1, 0, 1), **options: Any
) -> dict[int, Grounding]:
    """Measure at each shift, on phrases that have a map at all shifts; `options` are those of `measure_grounding`."""
    return {
        shift: measure_grounding(captions, phrases, shift=shift, comparable_with=shifts, **options) for shift in shifts
    }


def _equal_regions(caption: Caption) -> np.ndarray | None:
    """Return the map on a grid that gives all regions of a caption's image the same weight; None for other maps.

    Padding has the whole image as its box (see `ExternalFeatures.boxes`) and no weight in any map.
    """
    weights, boxes = caption.attention_weights, caption.boxes
    if weights is None or boxes is None:
        return None
    there = (boxes != WHOLE_IMAGE).any(axis=1) | (weights > 0).any(axis=(0, 1))  # (L,)
    even = np.broadcast_to(there / max(there.sum(), 1), (1, 1, len(boxes)))
    spread = replace(caption, words=("",), attention_weights=even, word_log_probs=None, extras={}).on_grid()
    return np.asarray(spread.attention_weights)[0]


def _steps(phrase: Phrase, shift: int, n_steps: int) -> range:
    """Return the steps whose maps are read: those of the words, moved by shift, inside the caption."""
    return range(max(phrase.start + shift, 0), max(min(phrase.end + shift, n_steps), 0))


def _checked_maps(caption: Caption) -> np.ndarray:
    """Return the maps of a caption, each summing to 1: float64, (T, rows, cols)."""
    if caption.attention_weights is None:
        raise ValueError(f"the caption of image {caption.image_id!r} has no attention maps: its captioner has none")
    maps = np.asarray(caption.attention_weights, np.float64)
    totals = maps.sum(axis=(1, 2), keepdims=True)
    if not (maps >= 0).all() or not ((totals > 0) & np.isfinite(totals)).all():
        raise ValueError(
            f"the attention maps of image {caption.image_id!r} hold negative, infinite or missing weights, or only "
            "zeros: expected non-negative weights"
        )
    return maps / totals


def _intervals(table: pd.DataFrame, n_bootstrap: int, confidence: float, seed: int) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap over images: the phrases of one image depend on each other."""
    if table.empty or not n_bootstrap:
        return {}
    wanted = ("attention_correctness", "correctness_over_uniform", "mean_correctness", "pointing_game")

    def scores(sums: np.ndarray) -> np.ndarray:
        means = dict(zip(MEASURES, (sums[:, :-1] / sums[:, -1:]).T, strict=True))
        means["correctness_over_uniform"] = means["attention_correctness"] / means["uniform"]
        return np.stack([means[name] for name in wanted], axis=1)

    by_image = table.groupby("image_id")
    columns = np.column_stack([by_image[list(MEASURES)].sum(), by_image.size()])  # (images, measures + 1)
    ends = interval(bootstrap(columns, scores, n_bootstrap, seed), confidence)
    return {name: (float(low), float(high)) for name, (low, high) in zip(wanted, ends, strict=True)}
