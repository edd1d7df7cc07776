"""Does attention matter, and are its maps faithful? Two probes that change the model or the image.

`uniform_attention` makes attention uniform: the loss in quality shows what attention contributes.
`measure_faithfulness` blanks the cell with the maximum of a word's map: if the map is faithful, this lowers the
probability of the word more than blanking another cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from attncap.captions import WHOLE_IMAGE, Caption
from attncap.decoding.predict import caption_stored
from attncap.decoding.replay import CaptionReplay
from attncap.features.external import ExternalFeatures
from attncap.features.sources import key_column
from attncap.features.store import FeatureStore
from attncap.grounding.phrases import Phrase, cell_cover
from attncap.metrics.evaluate import Comparison, compare
from attncap.metrics.significance import bootstrap, interval
from attncap.models.captioner import Captioner, regions_there, restored
from attncap.models.ensemble import Ensemble

# Words that language predicts; none of them names something with a place in the image.
_WRITTEN_OUT = (
    "a an the this that these those of in on at to from with by for into onto over through while as and or but is are "
    "was were be being been has have his her its their who which there it he she they him them"
)
FUNCTION_WORDS = frozenset(_WRITTEN_OUT.split())


@contextmanager
def uniform_attention(captioner: Captioner | Ensemble) -> Iterator[None]:
    """Make every map exactly uniform inside the block: each region has the weight 1 / L.

    Variables of the scores (the kernel w of w . tanh(...); in a Transformer, the query kernels of all layers) are set
    to zero, so that all scores are 0. They are restored at the end of the block, also after an error. A visual sentinel
    also scores 0 and gets the weight 1 / (L + 1).

    Args:
        captioner: with attention; in an ensemble all members that have it.

    Raises:
        ValueError: a captioner without attention.

    Example:
        >>> with uniform_attention(captioner):
        ...     blind = caption_stored(captioner, store, pictures)
    """
    if not captioner.has_attention:
        raise ValueError(f"{type(captioner).__name__} has no attention to make uniform: take an attention captioner")
    members: list[Any] = captioner.members if isinstance(captioner, Ensemble) else [captioner]
    variables = [variable for member in members if member.has_attention for variable in member.score_variables()]
    with restored(variables):
        for variable in variables:
            variable.assign(np.zeros(variable.shape))
        yield


def compare_with_uniform(
    captioner: Captioner | Ensemble,
    store: FeatureStore | ExternalFeatures,
    pictures: pd.DataFrame,
    references: Mapping[str, list[str]],
    *,
    seed: int = 0,
    **decoding: Any,
) -> Comparison:
    """Score a captioner against itself with uniform attention, on the same images: a paired test.

    The model was trained with attention: this measures its loss without, not the quality of a model without attention.

    Args:
        captioner, store, pictures: as in `caption_stored`.
        references: image_id -> human captions.
        seed: of the test.
        decoding: settings of `Decoder`.

    Returns:
        comparison: A is the captioner, B has uniform attention.
    """
    attends = caption_stored(captioner, store, pictures, **decoding)
    with uniform_attention(captioner):
        uniform = caption_stored(captioner, store, pictures, **decoding)
    first, second = ({str(c.image_id): c.text for c in captions} for captions in (attends, uniform))
    return compare(first, second, {image_id: references[image_id] for image_id in first}, seed=seed)


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Change of words' log-probabilities when a cell of the image is blanked.

    Attributes:
        words: DataFrame, one row per word: `image_id`, `caption` and `position` (in the input), `word`, `kind`
            ("region", "content" or "function"), `log_prob`, and the changes `attended` and `random`, in nats, negative
            where blanking makes the word less probable.
        per_kind: DataFrame, one row per kind: `n_words`, the means `attended` and `random`, `difference` (attended -
            random) with `low` and `high` (95% bootstrap over images), and `attended_worse`, the share of words that
            blanking the attended cell hurts more than blanking the random one.
        radius: cells around the blanked one that were blanked with it.
    """

    words: pd.DataFrame = field(repr=False)
    per_kind: pd.DataFrame
    radius: int

    def to_json_dict(self) -> dict[str, Any]:
        """Return numbers only, for `json.dumps`."""
        return {
            "radius": self.radius,
            "per_kind": {
                str(kind): {name: int(row[name]) if name == "n_words" else float(row[name]) for name in row.index}
                for kind, row in self.per_kind.iterrows()
            },
        }

    def to_text(self) -> str:
        """A table for people."""
        side = 2 * self.radius + 1
        lines = [
            f"change of a word's log-probability (nats) when {side}x{side} cells are blanked",
            f"{'words that':<20}{'words':>7}{'attended':>10}{'random':>10}{'difference':>12}{'95% interval':>20}"
            f"{'attended worse':>16}",
        ]
        names = {"region": "name a region", "content": "are content words", "function": "are function words"}
        for kind, row in self.per_kind.iterrows():
            interval = f"{row['low']:+.4f} to {row['high']:+.4f}"
            lines.append(
                f"{names[str(kind)]:<20}{int(row['n_words']):>7}{row['attended']:>10.4f}{row['random']:>10.4f}"
                f"{row['difference']:>12.4f}{interval:>20}{row['attended_worse']:>16.1%}"
            )
        return "\n".join(lines)


def measure_faithfulness(
    captioner: Captioner | Ensemble,
    store: FeatureStore | ExternalFeatures,
    pictures: pd.DataFrame,
    captions: Sequence[Caption],
    phrases: Sequence[Sequence[Phrase]] | None = None,
    *,
    words_each: int = 500,
    radius: int = 0,
    batch_size: int = 32,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> Faithfulness:
    """Blank the cell with the maximum of a word's map, feed the caption in again, and compare probabilities.

        change = log p(y_t | y_<t, blanked image) - log p(y_t | y_<t, image)

    To blank a cell, its features (and those within `radius`) are replaced by the mean feature of the image. The whole
    caption is read from the blanked image, its first state included. The random cell is drawn among those whose
    blanking takes as many cells (at a border they are fewer). Padding of masked regions is neither drawn nor blanked.
    Where encoder blocks were trained with the captioner, the stored features lie on another grid than the maps: the
    part of each stored cell that the map's cell covers is blanked.

    Args:
        captioner: with attention, trained on the store's encoder.
        store: with the features of all of `pictures`.
        pictures: DataFrame with `image_id` and `path`.
        captions: N captions with maps, human ones fed in (`replay_captions`) or generated ones, without `n_best`.
        phrases: N lists. The last word of a phrase with boxes names a region; words of `FUNCTION_WORDS` are the others.
            None where there are no boxes: all words but those of `FUNCTION_WORDS` are content words.
        words_each: words of each kind, drawn at random.
        radius: cells around the one that are blanked with it; 1 blanks 3 x 3. 0 for regions, which have no neighbors.
        batch_size: captions per pass.
        n_bootstrap: resamples of images.
        seed: of draws and resamples.

    Returns:
        faithfulness: words outside the vocabulary are left out, because they have no probability.

    Raises:
        ValueError: captions without maps, no word of a known kind, or a radius on regions (`Caption.boxes`).

    Reference: erasure as Li et al. 2016, "Understanding Neural Networks through Representation Erasure"; whether
        attention explains, Jain and Wallace 2019.
    """
    if radius and any(caption.boxes is not None for caption in captions):
        raise ValueError(f"radius counts cells of a grid, and the maps are of regions: radius=0 expected, got {radius}")
    rng = np.random.default_rng(seed)
    words = pd.concat(
        [_drawn(kind, places, words_each, rng) for kind, places in _candidates(captions, phrases).items()],
        ignore_index=True,
    )
    if words.empty:
        raise ValueError("no word names a region and none is a function word: nothing to blank")
    paths = dict(zip(pictures["image_id"], pictures[key_column(store)], strict=True))
    read = CaptionReplay(captioner, batch_size)
    changes: dict[str, list[float]] = {"attended": [], "random": []}
    for start in tqdm(range(0, len(words), batch_size), desc="words blanked", unit=" batches", disable=None):
        part = words.iloc[start : start + batch_size]
        own = [captions[number] for number in part["caption"]]
        features = store.get([paths[str(caption.image_id)] for caption in own])
        points = [
            _points(caption, t, regions_there(captioner, image), radius, rng)
            for caption, t, image in zip(own, part["position"], features, strict=True)
        ]
        for name, which in (("attended", 0), ("random", 1)):
            blanked = np.stack(
                [blank_map_cell(captioner, f, at[which], radius) for f, at in zip(features, points, strict=True)]
            )
            again = read(blanked, [[caption.text] for caption in own])
            for (caption,), t, before in zip(again, part["position"], part["log_prob"], strict=True):
                assert caption.word_log_probs is not None
                changes[name].append(float(caption.word_log_probs[t]) - before)
    words = words.assign(**changes)
    return Faithfulness(words, _per_kind(words, n_bootstrap, seed), radius)


def blank_map_cell(
    captioner: Captioner | Ensemble, features: np.ndarray, cell: tuple[int, int], radius: int = 0
) -> np.ndarray:
    """Blank a cell (row, col) of the map, and those within radius, in stored features, whose grid may differ."""
    stored = tuple(features.shape[:2])
    rows, cols = getattr(captioner, "map_shape", stored)
    if (rows, cols) == stored:
        return blank(features, *cell, radius, regions_there(captioner, features))
    left, top, right, bottom = captioner.grid_box
    across, down = (right - left) / cols, (bottom - top) / rows
    row, col = cell
    box = np.array(
        [
            left + across * max(col - radius, 0),
            top + down * max(row - radius, 0),
            left + across * min(col + radius + 1, cols),
            top + down * min(row + radius + 1, rows),
        ]
    )
    place = getattr(captioner.encoder, "grid_box", WHOLE_IMAGE)
    cover = cell_cover(box.clip(0.0, 1.0)[None], stored[0], stored[1], place)[..., None].astype(
        np.float32
    )  # (rows, cols, 1)
    mean = features.mean(axis=(0, 1), dtype=np.float32)
    return (features + cover * (mean - features)).astype(features.dtype)


def blank(features: np.ndarray, row: int, col: int, radius: int = 0, there: np.ndarray | None = None) -> np.ndarray:
    """Return features (rows, cols, D) with the cells within radius of (row, col) replaced by their mean over all.

    Where `there`, bool (rows, cols), is False, a cell is padding: it stays, and does not count for the mean.
    """
    there = np.ones(features.shape[:2], bool) if there is None else there
    near = np.zeros(features.shape[:2], bool)
    near[max(row - radius, 0) : row + radius + 1, max(col - radius, 0) : col + radius + 1] = True
    blanked = features.copy()
    blanked[near & there] = features[there].mean(axis=0, dtype=np.float32)
    return blanked


def _candidates(captions: Sequence[Caption], phrases: Sequence[Sequence[Phrase]] | None) -> dict[str, list[Any]]:
    other = "content" if phrases is None else None
    found: dict[str, list[Any]] = {"content" if phrases is None else "region": [], "function": []}
    for number, (caption, own) in enumerate(zip(captions, phrases or [[]] * len(captions), strict=True)):
        if caption.attention_weights is None or caption.word_log_probs is None:
            raise ValueError(f"the caption of image {caption.image_id!r} has no maps or no log-probabilities")
        named = {phrase.end - 1 for phrase in own if len(phrase.boxes)}
        for position, (word, log_prob) in enumerate(zip(caption.words, caption.word_log_probs, strict=True)):
            kind = "region" if position in named else "function" if word in FUNCTION_WORDS else other
            if kind is not None and np.isfinite(log_prob):
                found[kind].append((str(caption.image_id), number, position, word, kind, float(log_prob)))
    return found


def _drawn(kind: str, places: list[Any], most: int, rng: np.random.Generator) -> pd.DataFrame:
    chosen = sorted(rng.permutation(len(places))[:most].tolist())
    columns = ["image_id", "caption", "position", "word", "kind", "log_prob"]
    return pd.DataFrame([places[index] for index in chosen], columns=columns)


def _points(
    caption: Caption, position: int, there: np.ndarray, radius: int, rng: np.random.Generator
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the cell with the maximum of a map, and a random cell, no padding, whose block is equally large."""
    assert caption.attention_weights is not None
    weights = caption.attention_weights[position]
    rows, cols = weights.shape
    down = _block_sizes(rows, radius)
    sizes = (down[:, None] * _block_sizes(cols, radius)).reshape(-1)  # (L,)
    attended = int(weights.argmax())
    # The maps of encoder blocks trained with the captioner have another grid than the features, and no padding.
    free = there.reshape(-1).copy() if there.shape == weights.shape else np.ones(sizes.size, bool)
    free[attended] = False
    others = np.flatnonzero(free & (sizes == sizes[attended]))
    if not others.size:  # a tiny grid
        others = np.flatnonzero(free)
    elsewhere = int(rng.choice(others)) if others.size else attended
    return divmod(attended, cols), divmod(elsewhere, cols)


def _block_sizes(cells: int, radius: int) -> np.ndarray:
    at = np.arange(cells)
    return np.minimum(at + radius, cells - 1) - np.maximum(at - radius, 0) + 1


def _per_kind(words: pd.DataFrame, n_bootstrap: int, seed: int) -> pd.DataFrame:
    rows = {}
    for kind in ("region", "content", "function"):
        own = words[words["kind"] == kind]
        if own.empty:
            continue
        difference = own["attended"] - own["random"]
        by_image = difference.groupby(own["image_id"])
        columns = np.column_stack([by_image.sum(), by_image.size()])  # (images, 2)
        means = bootstrap(columns, lambda sums: sums[:, :1] / sums[:, 1:], n_bootstrap, seed)
        low, high = interval(means)[0]
        rows[kind] = {
            "n_words": len(own),
            "attended": own["attended"].mean(),
            "random": own["random"].mean(),
            "difference": difference.mean(),
            "low": low,
            "high": high,
            "attended_worse": (difference < 0).mean(),
        }
    return pd.DataFrame(rows).T
