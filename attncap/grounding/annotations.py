"""Where the boxes of a data set's phrases come from, and what a captioner needs of them: one form for all sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from attncap._messages import quoted
from attncap.captions import WHOLE_IMAGE, Caption
from attncap.data.faces.claims import stated_characteristics
from attncap.data.load import CaptionData
from attncap.grounding.box_table import match_words, read_box_table
from attncap.grounding.entities import Sentence, match_head_nouns, read_entities
from attncap.grounding.phrases import GridBox, NamedRegion, Phrase, cell_cover, faces_phrases
from attncap.tokenizers import CaptionTokenizer
from attncap.words import split_words

FORMS = (
    "entities:FOLDER_OR_ZIP (Flickr30k Entities, for Flickr8k and Flickr30k), table:CSV (phrase, left, top, right, "
    "bottom, image_id) or faces (drawn faces)"
)
Phrases = Mapping[str, Sequence[Sequence[Phrase]]]  # image_id -> a list for each of its captions


def load_phrases(spec: str, data: CaptionData) -> tuple[CaptionData, dict[str, list[list[Phrase]]]]:
    """Load the phrases of captions that name a region, with its boxes.

    Args:
        spec: `entities:FOLDER_OR_ZIP`, Flickr30k Entities, whose images are found by the number before the `_` of
            Flickr8k's file names; `table:CSV`, boxes of words of one's own, see `read_box_table`; or `faces`, for data
            with boxes of its own: the words that state a characteristic.
        data: the images; one split of a data set, as a rule.

    Returns:
        data: the images that are annotated; the others are listed in `rejects` (kind "image without boxes"). With
            entities its captions are the sentences of Entities, a few of which differ from Flickr8k's.
        phrases: image_id -> a list of phrases for each of its captions, in the order of `data.references()`; start and
            end count the words of `attncap.words.split_words`.

    Raises:
        ValueError: an unknown spec, data without images or boxes, a damaged annotation.
        FileNotFoundError: no such source, or none of the images is annotated there.

    Example:
        >>> dev = load("flickr8k:flickr8k").split("dev")
        >>> annotated, phrases = load_phrases("entities:flickr30k_entities.zip", dev)
    """
    kind, colon, rest = spec.partition(":")
    if data.pictures.empty:
        raise ValueError(f"{data.name}: no images to load the boxes {spec!r} for")
    if kind == "entities" and rest:
        return _of_entities(rest, data)
    if kind == "table" and rest:
        return _of_table(rest, data)
    if spec != "faces":
        raise ValueError(f"{spec!r}: boxes are {FORMS}")
    if data.boxes is None:
        raise ValueError(
            f"{data.name}: has no boxes of its own, as 'faces' expects; for photographs of Flickr8k or Flickr30k "
            "write entities:FOLDER_OR_ZIP, for a table of boxes table:CSV"
        )
    boxed = set(data.boxes["image_id"])
    data = _leave_out(data, [i for i in data.pictures["image_id"] if i not in boxed], f"{data.name}: table of boxes")
    if data.pictures.empty:
        raise ValueError(f"{data.name}: none of its images has a box")
    return data, _phrases_of_references(data)


def _phrases_of_references(data: CaptionData) -> dict[str, list[list[Phrase]]]:
    references = data.references()
    captions = [
        Caption(tuple(split_words(text)), (), 0.0, image_id=image_id)
        for image_id, own in references.items()
        for text in own
    ]
    found = iter(phrases_in(captions, data, {}))
    return {image_id: list(islice(found, len(own))) for image_id, own in references.items()}


def _of_table(source: str, data: CaptionData) -> tuple[CaptionData, dict[str, list[list[Phrase]]]]:
    boxes = read_box_table(source, list(data.pictures["image_id"]))
    boxed = set(boxes["image_id"])
    if not boxed:
        raise ValueError(
            f"{source}: has boxes of none of the images of {data.name}, such as "
            f"{quoted(data.pictures['image_id'].iloc[0])}: write its image_ids as the data has them, or leave "
            "the column out for boxes of every image"
        )
    data = _leave_out(data, [i for i in data.pictures["image_id"] if i not in boxed], source)
    data = replace(data, boxes=boxes.assign(label=boxes["phrase"]))
    return data, _phrases_of_references(data)


def phrases_in(captions: Sequence[Caption], data: CaptionData, phrases: Phrases) -> list[list[Phrase]]:
    """Return the phrases of generated captions: what in them names a region that is known.

    Args:
        captions: N captions of images of `data`.
        data, phrases: from `load_phrases`. Words of a table of boxes are matched as they are, faces by stated
            characteristic, entities by head noun, see `attncap.grounding.entities.match_head_nouns`.

    Returns:
        phrases: N lists.
    """
    if data.boxes is not None and "phrase" in data.boxes.columns:
        return match_words(captions, data.boxes)
    if data.boxes is not None:
        return faces_phrases(captions, [stated_characteristics(caption.text) for caption in captions], data.boxes)
    sentences = {
        image_id: [
            Sentence(image_id, tuple(split_words(text)), tuple(named))
            for text, named in zip(own, phrases[image_id], strict=True)
        ]
        for image_id, own in data.references().items()
    }
    return match_head_nouns(captions, sentences)


def named_regions(
    data: CaptionData,
    phrases: Phrases,
    tokenizer: CaptionTokenizer,
    rows: int,
    cols: int,
    grid_box: GridBox = WHOLE_IMAGE,
) -> dict[str, list[list[NamedRegion]]]:
    """Turn phrases into what `CaptionBatches` takes for supervised attention.

    Args:
        data, phrases: from `load_phrases`.
        tokenizer: of the captioner; a word of several pieces names its region with each.
        rows, cols: the attention grid.
        grid_box: the part of the image that it tiles, `FeatureExtractor.grid_box`.

    Returns:
        regions: image_id -> a list for each caption; phrases without box name nothing.
    """
    covers: dict[bytes, np.ndarray] = {}  # the five captions of an image name the same few regions
    regions: dict[str, list[list[NamedRegion]]] = {}
    for image_id, own in data.references().items():
        regions[image_id] = []
        for text, named in zip(own, phrases.get(image_id, [[]] * len(own)), strict=True):
            regions[image_id].append([])
            places = [where for _, where in tokenizer.words(tokenizer.tokenize(text))] if named else []
            for phrase in named:
                if len(phrase.boxes):
                    key = phrase.boxes.tobytes()
                    if key not in covers:
                        covers[key] = (
                            cell_cover(phrase.boxes, rows, cols, grid_box).reshape(-1).astype(np.float32)
                        )  # (L,)
                    start, end = places[phrase.start][0], places[phrase.end - 1][-1] + 1
                    regions[image_id][-1].append(NamedRegion(start, end, covers[key]))
    return regions


def _of_entities(source: str, data: CaptionData) -> tuple[CaptionData, dict[str, list[list[Phrase]]]]:
    image_ids = list(data.pictures["image_id"])
    read = read_entities(Path(source), image_ids, missing="skip")
    data = _leave_out(data, [image_id for image_id in image_ids if not read.get(image_id)], source)
    rows = [(image_id, sentence.text) for image_id in data.pictures["image_id"] for sentence in read[image_id]]
    phrases = {
        image_id: [list(sentence.split_again(split_words).phrases) for sentence in read[image_id]]
        for image_id in data.pictures["image_id"]
    }
    return replace(data, captions=pd.DataFrame(rows, columns=["image_id", "caption"]), boxes=None), phrases


def _leave_out(data: CaptionData, image_ids: Sequence[str], source: str) -> CaptionData:
    if not image_ids:
        return data
    gone = pd.DataFrame({"source": source, "line": pd.NA, "image_id": list(image_ids)}).astype({"line": "Int64"})
    gone = gone.assign(reason="not annotated", kind="image without boxes", table="pictures")
    kept = data.only(set(data.pictures["image_id"]) - set(image_ids))
    return replace(kept, rejects=pd.concat([data.rejects, gone], ignore_index=True))
