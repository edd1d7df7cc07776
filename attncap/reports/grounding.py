"""`attncap ground`: measure the maps of a run against the boxes of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from attncap.captions import Caption
from attncap.data.load import CaptionData, leave_out
from attncap.decoding.predict import caption_stored, check_shape
from attncap.decoding.replay import replay_captions
from attncap.explain.methods import Method
from attncap.explain.words import Explainer, check_method
from attncap.features.external import ExternalFeatures
from attncap.features.sources import as_features, key_column
from attncap.features.store import FeatureStore
from attncap.grounding.annotations import load_phrases, phrases_in
from attncap.grounding.measures import Grounding, measure_at_shifts, measure_grounding
from attncap.grounding.phrases import Phrase
from attncap.grounding.probes import Faithfulness, compare_with_uniform, measure_faithfulness
from attncap.metrics.evaluate import Comparison
from attncap.models.captioner import Captioner
from attncap.models.ensemble import Ensemble


@dataclass(frozen=True, eq=False)
class GroundReport:
    """The results of `attncap ground`.

    Attributes:
        grounding: at shift 0 (or the first given shift), over all phrases with a map there; None without boxes.
        at_shifts: shift -> grounding, over the phrases that have a map at each of the shifts.
        fed: "human captions fed in" or "generated captions".
        n_left_out: images without annotation.
        n_unreadable: images that cannot be read.
        uniform, faithfulness: results of the probes, if asked for; faithfulness with one cell blanked and, on a grid,
            with 3 x 3.
        method: whose maps were measured, "attention" or another of `attncap.explain.methods.METHODS`.
    """

    grounding: Grounding | None
    at_shifts: dict[int, Grounding]
    fed: str
    n_left_out: int
    n_unreadable: int
    uniform: Comparison | None = None
    faithfulness: tuple[Faithfulness, ...] = ()
    method: str = "attention"

    def to_json_dict(self) -> dict[str, Any]:
        content: dict[str, Any] = {} if self.grounding is None else self.grounding.to_json_dict()
        content |= {
            "captions": self.fed,
            "maps": self.method,
            "pictures_without_boxes": self.n_left_out,
            "unreadable_pictures": self.n_unreadable,
            "shifts": {str(shift): measured.to_json_dict() for shift, measured in self.at_shifts.items()},
        }
        if self.faithfulness:
            content["probes"] = {"faithfulness": [blanked.to_json_dict() for blanked in self.faithfulness]}
            if self.uniform is not None:
                content["probes"]["uniform_attention"] = self.uniform.to_json_dict()
        return content

    def to_text(self) -> str:
        title = self.fed if self.method == "attention" else f"{self.fed}; maps of {self.method}"
        parts = [title if self.grounding is None else f"{title}\n{self.grounding.to_text()}"]
        if len(self.at_shifts) > 1:
            parts.append(self._shift_table())
        if self.uniform is not None:
            parts.append("A attends, B is the same captioner with uniform attention: " + self.uniform.table())
        parts += [blanked.to_text() for blanked in self.faithfulness]
        return "\n\n".join(parts)

    def _shift_table(self) -> str:
        shifts = list(self.at_shifts)
        first = self.at_shifts[shifts[0]]
        width = max([12, *(len(str(kind)) for kind in first.per_type.index)])
        head = "".join(f"{f'{shift:+d}' if shift else '0':>8}" for shift in shifts)
        lines = [
            f"the {first.n_phrases} phrases that have a map at each shift: map of the step before (-1) the words' own "
            "(0), after (+1)",
            f"{'':<{width}}{'':>8}  {'correctness':<{8 * len(shifts)}}  {'pointing game':<{8 * len(shifts)}}",
            f"{'type':<{width}}{'phrases':>8}  {head}  {head}",
        ]
        for kind in [*first.per_type.index, "all"]:
            cells = ["", ""]
            for place, measure in enumerate(("attention_correctness", "pointing_game")):
                for measured in self.at_shifts.values():
                    value = getattr(measured, measure) if kind == "all" else measured.per_type.loc[kind, measure]
                    cells[place] += f"{value:>8.3f}"
            count = first.n_phrases if kind == "all" else int(first.per_type.loc[kind, "n_phrases"])
            lines.append(f"{kind:<{width}}{count:>8}  {cells[0]}  {cells[1]}")
        return "\n".join(lines)


def ground(
    captioner: Captioner | Ensemble,
    data: CaptionData,
    boxes: str | None,
    *,
    split: str | None = None,
    generated: bool = False,
    method: Method = "attention",
    shifts: Sequence[int] | None = None,
    features: Any = None,
    limit: int | None = None,
    probes: bool = False,
    seed: int = 0,
    **decoding: Any,
) -> GroundReport:
    """Measure whether a captioner looks at what the words name.

    Args:
        captioner: with its encoder, from `load_captioner`; or an ensemble.
        data: images and captions.
        boxes: spec of `load_phrases`: `entities:FOLDER_OR_ZIP`, `table:CSV` or `faces`; None with `probes`, which then
            measure content words in place of words that name a region.
        split: of the data; None means all.
        generated: measure the captioner's own captions (phrases matched by head noun, of a table by the words
            themselves, for faces by stated characteristic); default: the human captions, fed in word by word.
        method: whose maps: "attention", or those of `attncap.explain_word`, "occlusion" or "gradient", which captioners
            without attention have as well.
        shifts: steps to read the maps at; see `measure_grounding`. Default: -1, 0 and 1 for attention, else 0.
        features: folder of feature stores, or features computed elsewhere, as in `train`.
        limit: measure only the first annotated images; None measures all.
        probes: also `compare_with_uniform` (of a captioner with attention) and `measure_faithfulness`.
        seed: of resampling.
        decoding: settings of `Decoder`, for generated captions and the probe.

    Returns:
        report: the measures and tables.

    Raises:
        ValueError: method "attention" for a captioner without attention, a captioner without encoder, an unknown split
            or spec,
            neither boxes nor probes.

    Example:
        >>> print(ground(captioner, load("flickr8k:flickr8k"), "entities:entities.zip", split="dev").to_text())
    """
    if method == "attention" and not captioner.has_attention:
        raise ValueError(
            f"{type(captioner).__name__} has no attention, so that there are no maps to measure: take a run of --model "
            "attention, or measure the maps of another method (--method occlusion)"
        )
    check_method(captioner, method)
    outside = as_features(features)
    if not isinstance(outside, ExternalFeatures) and captioner.encoder is None:
        raise ValueError(
            "this captioner holds no encoder, so that features of the images cannot be computed: give those that it "
            "reads (features=, or --features-file of the command)"
        )
    if shifts is None:
        shifts = (-1, 0, 1) if method == "attention" else (0,)
    if not shifts or (limit is not None and limit < 1):
        raise ValueError(f"at least one shift and one image are needed, got shifts={list(shifts)}, limit={limit}")
    if boxes is None and not probes:
        raise ValueError("without boxes only the probes can be measured: give boxes (--boxes), or probes (--probes)")
    data = data if split is None else data.split(split)
    before = len(data.pictures)
    phrases: dict[str, list[list[Phrase]]] = {}
    if boxes is not None:
        data, phrases = load_phrases(boxes, data)
    n_left_out = before - len(data.pictures)
    data = data.only(list(data.pictures["image_id"])[:limit])
    store = outside if isinstance(outside, ExternalFeatures) else FeatureStore(features, captioner.encoder)
    key = key_column(store)
    unreadable = store.extract(list(data.pictures[key]))
    path_of = dict(zip(data.pictures[key], data.pictures["path"], strict=True))
    data = leave_out(data, dict(zip(unreadable[key].map(path_of), unreadable["reason"], strict=True)))
    if isinstance(store, ExternalFeatures):
        check_shape(captioner, store)
        if boxes is not None:
            store.check_places(list(data.pictures["image_id"]))
    if data.captions.empty:
        raise ValueError(f"{data.name}: no readable image with {'boxes and ' if boxes else ''}a caption is left")
    named: list[list[Phrase]] | None = None
    if generated:
        captions = caption_stored(captioner, store, data.pictures, **decoding)
        named = None if boxes is None else phrases_in(captions, data, phrases)
    else:
        read = replay_captions(captioner, store, data.pictures, data.references())
        captions = [caption for own in read.values() for caption in own]
        if boxes is not None:
            named = [list(own) for image_id in read for own in phrases[image_id]]
    if method != "attention":
        captions = _explained(captioner, store, data, captions, method)
    grounding, at_shifts = None, {}
    if named is not None:
        grounding = measure_grounding(captions, named, shift=0 if 0 in shifts else shifts[0], seed=seed)
        at_shifts = measure_at_shifts(captions, named, list(dict.fromkeys(shifts)), seed=seed)
    uniform: Comparison | None = None
    faithfulness: tuple[Faithfulness, ...] = ()
    if probes:
        with_captions = data.pictures[data.pictures["image_id"].isin(data.captions["image_id"])]
        if captioner.has_attention:
            uniform = compare_with_uniform(captioner, store, with_captions, data.references(), seed=seed, **decoding)
        faithfulness = tuple(
            measure_faithfulness(captioner, store, data.pictures, captions, named, radius=radius, seed=seed)
            for radius in ((0,) if isinstance(store, ExternalFeatures) and store.grid is None else (0, 1))
        )
    fed = "generated captions" if generated else "human captions fed in"
    return GroundReport(grounding, at_shifts, fed, n_left_out, len(unreadable), uniform, faithfulness, method)


def _explained(
    captioner: Captioner | Ensemble,
    store: FeatureStore | ExternalFeatures,
    data: CaptionData,
    captions: Sequence[Caption],
    method: Method,
) -> list[Caption]:
    """Return the same captions with the maps of another method."""
    keys = dict(zip(data.pictures["image_id"], data.pictures[key_column(store)], strict=True))
    explainer = Explainer(captioner, method)
    explained: list[Caption] = []
    with tqdm(total=len(captions), desc=method, unit=" captions", disable=None) as bar:
        for image_id, own in groupby(captions, key=lambda caption: str(caption.image_id)):
            group = list(own)
            features = np.repeat(store.get([keys[image_id]]), len(group), axis=0)
            explained += explainer(features, group)
            bar.update(len(group))
    return explained
