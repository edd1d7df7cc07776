"""Faithfulness of maps, measured by deletion and insertion.

The maps of all methods are measured in the same way. The cells are ordered by their weight in the map. Then the cells
with the largest weights are hidden, or only these cells are shown. If the map is faithful, hiding them lowers the
probability of the word fast, and showing only them is enough for a high probability. Random maps are measured for
comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from attncap._messages import quoted
from attncap.captions import Caption
from attncap.explain.occlusion import Baseline, baseline_of, hide
from attncap.explain.reading import WordReader, as_caption, of_words, padded, stored_grid, token_groups
from attncap.metrics.significance import with_intervals
from attncap.models.captioner import regions_there

FRACTIONS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75)  # of the cells; 0 and 1 are always measured as well
MOST = 0.5  # comprehensiveness and sufficiency are averages over the fractions up to this one
MEASURES = ("deletion", "insertion", "comprehensiveness", "sufficiency")
RANDOM = "random"
Words = Sequence[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class MapFaithfulness:
    """Faithfulness of the maps of several methods, measured on the same words.

    Attributes:
        table: DataFrame with one row per method, `random` last. Each of `MEASURES` has a column with its mean and the
            columns `_low` and `_high` (95% bootstrap interval over images). `_over_random` is the difference from
            random maps, with `_over_random_low` and `_over_random_high`. Low deletion and sufficiency are good; high
            insertion and comprehensiveness are good.
        curves: DataFrame with `method`, `fraction`, `deletion` and `insertion`: the mean probability of the words when
            this fraction of the cells is hidden (deletion) or when only this fraction is shown (insertion).
        words: DataFrame with one row per word and method.
        n_words, n_images: number of words and images.
    """

    table: pd.DataFrame
    curves: pd.DataFrame = field(repr=False)
    words: pd.DataFrame = field(repr=False)
    n_words: int
    n_images: int

    def to_json_dict(self) -> dict[str, Any]:
        """Convert to a dictionary of numbers and strings that `json.dumps` accepts."""
        rows = {str(method): {str(k): float(v) for k, v in row.items()} for method, row in self.table.iterrows()}
        curves = self.curves.to_dict("records")
        return {"n_words": self.n_words, "n_images": self.n_images, "methods": rows, "curves": curves}

    def to_text(self) -> str:
        """Format the table as plain text: each measure with its 95% interval."""
        shown = self.shown()
        width = max(10, *(len(str(method)) for method in shown.index))
        lines = [f"{'maps':<{width}}" + "".join(f"{name:>25}" for name in shown.columns)]
        for method, row in zip(shown.index, shown.to_numpy(), strict=True):
            lines.append(f"{method!s:<{width}}" + "".join(f"{cell:>25}" for cell in row))
        lines.append(f"{self.n_words} words of {self.n_images} images; 95% intervals from a bootstrap over images")
        return "\n".join(lines)

    def to_markdown(self) -> str:
        """Format the table as Markdown."""
        shown = self.shown()
        lines = ["| maps | " + " | ".join(shown.columns) + " |", "| --- |" + " ---: |" * len(shown.columns)]
        lines += [
            f"| {method} | {' | '.join(row)} |" for method, row in zip(shown.index, shown.to_numpy(), strict=True)
        ]
        return "\n".join(lines)

    def shown(self) -> pd.DataFrame:
        """Return the table as text: each measure with its 95% interval."""
        methods = self.table.index
        return pd.DataFrame({_head(name): [self._cell(m, name) for m in methods] for name in MEASURES}, index=methods)

    def _cell(self, method: Any, name: str) -> str:
        value, low, high = (self.table.loc[method, f"{name}{end}"] for end in ("", "_low", "_high"))
        return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _head(name: str) -> str:
    return f"{name} ({'low' if name in ('deletion', 'sufficiency') else 'high'})"


def measure_maps(
    captioner: Any,
    features: np.ndarray,
    explained: Mapping[str, Sequence[Caption]],
    words: Words | None = None,
    *,
    baseline: Baseline = "mean",
    fractions: Sequence[float] = FRACTIONS,
    batch_size: int = 64,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> MapFaithfulness:
    """Measure the faithfulness of maps by deletion and insertion, compared with random maps.

    p(F) is the probability of a word, given features F and the words before it. The top fraction q are the cells with
    the largest weights in the map.

        deletion          area under p(F without the top q), q from 0 to 1        low is good
        insertion         area under p(F with only the top q), q from 0 to 1      high is good
        comprehensiveness mean over q <= 0.5 of p(F) - p(F without the top q)     high is good
        sufficiency       mean over q <= 0.5 of p(F) - p(F with only the top q)   low is good

    Deletion is low if the cells that are hidden first were necessary. Insertion is high if the cells that are shown
    first are sufficient. Hidden cells are replaced by a baseline. Cells with equal weights are in random order. A
    progress bar is shown in a terminal.

    Args:
        captioner: a captioner of any kind, or an `Ensemble`.
        features: shape (N, rows, cols, D).
        explained: name of a method -> N captions with maps, see `attncap.explain.words.Explainer`. The captions of all
            methods must have the same words. The grid of the maps may differ from the grid of the features.
        words: pairs (index of the caption, index of the word). None: all words in the vocabulary.
        baseline: replacement of hidden cells, the same for all methods; see `attncap.explain.occlusion.baseline_of`.
            Use the baseline of the explanations, or another one to see whether the result depends on it.
        fractions: fractions of the cells, increasing, above 0 and below 1.
        batch_size: changed copies of an image per pass through the captioner.
        n_bootstrap: number of bootstrap resamples of the images.
        seed: seed of the random maps, the order of equal weights, and the resamples.

    Returns:
        faithfulness: a `MapFaithfulness`, with a row `random` for random maps.

    Raises:
        ValueError: there is no method, or one is named `random`; the number of captions is wrong; a caption has no
            maps; the captions of two methods differ; there is no word to measure; the fractions are not increasing
            between 0 and 1.

    Example:
        >>> maps = {name: Explainer(captioner, name)(features, captions) for name in ("attention", "occlusion")}
        >>> print(measure_maps(captioner, features, maps).to_text())

    Reference: deletion and insertion: Petsiuk, Das and Saenko 2018, "RISE", section 4.3; comprehensiveness and
        sufficiency: DeYoung et al. 2020, "ERASER", section 4. A random map as the baseline: Jain and Wallace 2019.
    """
    first = _checked(captioner, features, explained)
    if list(fractions) != sorted(fractions) or not fractions or not 0 < fractions[0] <= fractions[-1] < 1:
        raise ValueError(f"fractions need to increase between 0 and 1, got {list(fractions)}")
    words = _known_words(captioner, first) if words is None else list(words)
    if not words:
        raise ValueError("no word to measure: give captions with words of the vocabulary")
    rng = np.random.default_rng(seed)
    rows, cols, box = stored_grid(captioner)
    shares = np.array([0.0, *fractions, 1.0])
    reader = WordReader(captioner, batch_size)
    records = []
    # Sort by position: words at similar positions need a similar number of decoding steps.
    ordered = sorted(words, key=lambda pair: pair[1])
    for number, word in tqdm(ordered, desc="faithfulness", unit=" words", disable=None):
        captions = {name: own[number] for name, own in explained.items()}
        there = regions_there(captioner, features[number])
        replaced = baseline_of(features[number], baseline, there)
        cells = np.flatnonzero(there)
        counts = np.rint(shares * len(cells)).astype(int)
        orders = {
            name: cells[_order(_on_grid(caption, word, rows, cols, box).reshape(-1)[cells], rng)]
            for name, caption in captions.items()
        }
        orders[RANDOM] = rng.permutation(cells)
        for name, (deleted, inserted) in _probabilities(
            reader, features[number], captions[next(iter(captions))], word, orders, counts, replaced
        ).items():
            measured = _measures(shares, deleted, inserted)
            who = {"method": name, "image_id": str(first[number].image_id or number), "caption": number}
            records.append(
                {**who, "position": word, "word": first[number].words[word], **measured}
                | {"deleted": deleted, "inserted": inserted}
            )
    table = pd.DataFrame(records)
    methods = [*explained, RANDOM]
    curves = []
    for name in methods:
        own = table[table["method"] == name]
        deletion, insertion = (np.mean(own[kind].tolist(), axis=0) for kind in ("deleted", "inserted"))
        curves.append({"method": name, "fraction": shares, "deletion": deletion, "insertion": insertion})
    table = table.drop(columns=["deleted", "inserted"])
    summary = _summary(table, methods, n_bootstrap, seed)
    drawn = pd.concat(map(pd.DataFrame, curves), ignore_index=True)
    return MapFaithfulness(summary, drawn, table, len(words), table["image_id"].nunique())


def _checked(captioner: Any, features: np.ndarray, explained: Mapping[str, Sequence[Caption]]) -> list[Caption]:
    if not isinstance(explained, Mapping):
        raise TypeError(f"explained maps names of methods to captions with maps, got {quoted(explained)}")
    if not explained or RANDOM in explained:
        raise ValueError(f"explained needs at least one method, none of them named {RANDOM!r}, got {list(explained)}")
    for name, captions in explained.items():
        if len(captions) != len(features):
            raise ValueError(f"{name}: {len(features)} captions expected, one per image, got {len(captions)}")
        for caption, other in zip(captions, next(iter(explained.values())), strict=True):
            if not isinstance(caption, Caption):
                raise TypeError(f"{name}: captions with maps expected, got {quoted(caption)}")
            if caption.attention_weights is None:
                raise ValueError(f"{name}: the caption of image {caption.image_id!r} has no maps")
            if caption.words != other.words:
                raise ValueError(f"{name}: {caption.text!r} is another caption than {other.text!r}: explain the same")
    return [as_caption(captioner, caption) for caption in next(iter(explained.values()))]


def _known_words(captioner: Any, captions: Sequence[Caption]) -> list[tuple[int, int]]:
    unknown = captioner.tokenizer.token_to_id("<unk>")
    return [
        (number, word)
        for number, caption in enumerate(captions)
        for word, where in enumerate(token_groups(captioner, caption))
        if unknown not in [caption.token_ids[at] for at in where]
    ]


def _on_grid(caption: Caption, word: int, rows: int, cols: int, box: tuple[float, float, float, float]) -> np.ndarray:
    """Sample the map of a word at the cell centers of another grid: shape (rows, cols)."""
    assert caption.attention_weights is not None
    weights = caption.attention_weights[word]
    if weights.shape == (rows, cols):
        return weights
    picked = []
    for axis, cells in ((1, rows), (0, cols)):
        centers = box[axis] + (box[axis + 2] - box[axis]) * (np.arange(cells) + 0.5) / cells
        low, high = caption.grid_box[axis], caption.grid_box[axis + 2]
        count = weights.shape[0 if axis == 1 else 1]
        picked.append(np.clip((centers - low) / (high - low) * count, 0, count - 1).astype(int))
    return weights[np.ix_(*picked)]


def _order(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sort cells from the largest weight to the smallest; equal weights are in random order."""
    return np.lexsort((rng.random(weights.size), -weights))


def _probabilities(
    reader: WordReader,
    features: np.ndarray,
    caption: Caption,
    word: int,
    orders: Mapping[str, np.ndarray],
    counts: np.ndarray,
    baseline: np.ndarray,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Compute the probability of a word with the first cells of each order hidden, and with only them shown.

    Returns:
        probabilities: name of the order -> (deleted, inserted), float64, shape (Q,) each, one value per count.
    """
    caption = as_caption(reader.captioner, caption)
    groups = token_groups(reader.captioner, caption)
    rows, cols = features.shape[:2]
    covers = []
    for order in orders.values():
        rank = np.full(rows * cols, rows * cols)
        rank[order] = np.arange(len(order))
        hidden = rank < counts[:, None]  # (Q, L)
        covers += [hidden, ~hidden]
    cover = np.concatenate(covers).reshape(-1, rows, cols)
    several = hide(features, cover, baseline)
    token_ids = padded([caption.token_ids[: groups[word][-1] + 1]])  # up to the word; later tokens do not matter
    token_ids = np.repeat(token_ids, len(several), axis=0)
    probs = np.exp(of_words(reader(several, token_ids)[0], [groups[word]])[:, 0].astype(np.float64))
    parts = probs.reshape(len(orders), 2, len(counts))
    return {name: (part[0], part[1]) for name, part in zip(orders, parts, strict=True)}


def _measures(shares: np.ndarray, deleted: np.ndarray, inserted: np.ndarray) -> dict[str, float]:
    some = (shares > 0) & (shares <= MOST)
    return {
        "deletion": float(np.trapezoid(deleted, shares)),
        "insertion": float(np.trapezoid(inserted, shares)),
        "comprehensiveness": float((deleted[0] - deleted[some]).mean()),
        "sufficiency": float((deleted[0] - inserted[some]).mean()),
    }


def _summary(table: pd.DataFrame, methods: Sequence[str], n_bootstrap: int, seed: int) -> pd.DataFrame:
    sums = {name: own.groupby("image_id")[list(MEASURES)].sum() for name, own in table.groupby("method")}
    sizes = table[table["method"] == RANDOM].groupby("image_id").size()
    rows = {}
    for name in methods:
        columns = np.column_stack([sums[name], sums[name] - sums[RANDOM], sizes])  # (images, 2 M + 1)
        labels = [*MEASURES, *(f"{measure}_over_random" for measure in MEASURES)]
        rows[name] = with_intervals(labels, columns, lambda sums: sums[:, :-1] / sums[:, -1:], n_bootstrap, seed)
    return pd.DataFrame(rows).T
