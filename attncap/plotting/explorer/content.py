"""The contents of the explorer page as JSON: captions, maps, probabilities, scores and images."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import Colormap
from PIL import Image

from attncap.captions import Caption
from attncap.images import AnyImage
from attncap.paths import inside_folder
from attncap.plotting.predictions import words_in_no_reference

Wrong = Mapping[str, Collection[str]] | Callable[[Caption], Collection[int]]  # see `explore`
Weighed = Sequence[Sequence[tuple[str, float]]]  # of T words each: (word, log-probability), the likeliest first

# Labels of columns of `Scores.per_image`; other columns keep their names.
SCORE_LABELS = {
    "cider_d": "CIDEr-D",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "meteor": "METEOR",
}
NOT_SHOWN = {"words", "bleu_1", "bleu_2", "bleu_3", "cider_plain"}  # columns that repeat another one


def grouped(captions: Caption | Sequence[Caption | Sequence[Caption]]) -> list[list[Caption]]:
    listed = [captions] if isinstance(captions, Caption) else captions
    groups = [[item.on_grid()] if isinstance(item, Caption) else [one.on_grid() for one in item] for item in listed]
    if not groups or not all(groups):
        raise ValueError("captions needs at least one caption per image, got none: caption some images first")
    return groups


def grouped_alternatives(alternatives: Any, captions: Any, groups: list[list[Caption]]) -> list[list[Weighed | None]]:
    if alternatives is None:
        return [[None] * len(group) for group in groups]
    listed = [captions] if isinstance(captions, Caption) else captions
    alternatives = [alternatives] if isinstance(captions, Caption) else alternatives
    if len(alternatives) != len(groups):
        raise ValueError(f"alternatives needs one entry per image, {len(groups)}, got {len(alternatives)}")
    own = [
        [entry] if isinstance(item, Caption) else list(entry) for item, entry in zip(listed, alternatives, strict=True)
    ]
    for number, (group, entry) in enumerate(zip(groups, own, strict=True)):
        expected, found = [len(caption.words) for caption in group], [len(words) for words in entry]
        if expected != found:
            raise ValueError(f"alternatives of image {number + 1}: lists for {expected} words expected, got {found}")
    return own


def image_of(images: Any, number: int, name: str, count: int) -> AnyImage:
    if isinstance(images, Mapping):
        if name not in images:
            raise ValueError(f"images has none for image_id {name!r}: give image_id -> image for every caption")
        return images[name]
    single = isinstance(images, (str, os.PathLike))
    if isinstance(images, (Image.Image, np.ndarray)) or (single and not Path(images).is_dir()):
        if count != 1:
            raise ValueError(f"images needs a folder, a mapping or {count} images, got one: {str(images)[:200]}")
        return images
    if images is not None and not single:
        if len(images) != count:
            raise ValueError(f"images needs one image per caption, {count}, got {len(images)}")
        return images[number]
    if not name:
        raise ValueError(f"caption {number + 1} has no image_id: give the images themselves, in the captions' order")
    return name if images is None else inside_folder(images, name)


def score_table(scores: pd.DataFrame | None) -> tuple[dict[str, dict[str, float]], list[list[str]]]:
    if scores is None:
        return {}, []
    if "image_id" not in scores.columns:
        raise ValueError(f"scores needs a column image_id, got {', '.join(map(str, scores.columns))}")
    numbers = scores.select_dtypes("number").drop(columns=[*NOT_SHOWN, "image_id"], errors="ignore")
    order = list(SCORE_LABELS)
    columns = sorted(map(str, numbers.columns), key=lambda name: order.index(name) if name in order else len(order))
    table: dict[str, dict[str, float]] = {}
    for image_id, row in zip(scores["image_id"], numbers.to_dict("records"), strict=True):
        table[str(image_id)] = {str(name): _number(value) for name, value in row.items()}  # type: ignore[misc]
    return table, [[name, SCORE_LABELS.get(name, name)] for name in columns]


def beam_entry(caption: Caption, weighed: Weighed | None) -> dict[str, Any]:
    given = caption.word_log_probs
    probabilities = None if given is None else [_probability(value) for value in given]
    alternatives = None
    if weighed is not None:
        alternatives = [[[str(word), _probability(value)] for word, value in words] for words in weighed]
    return {
        "words": list(caption.words),
        "p": probabilities,
        "log_prob": _number(caption.log_prob),
        "maps": _maps(caption),
        "alternatives": alternatives,
    }


def box_entries(phrases: Sequence[Any], caption: Caption) -> list[list[Any]]:
    """Return phrases with boxes as lists: first word, word after the last, name, boxes."""
    found = []
    for phrase in phrases:
        if not 0 <= phrase.start < phrase.end <= len(caption.words):
            raise ValueError(
                f"phrases of {caption.image_id!r}: words {phrase.start} to {phrase.end} are not in the caption "
                f"{caption.text!r}: give the phrases of the best caption"
            )
        if len(phrase.boxes):
            boxes = np.round(np.asarray(phrase.boxes, float), 4).tolist()
            found.append([phrase.start, phrase.end, str(phrase.type).replace("_", " "), boxes])
    return found


def _maps(caption: Caption) -> dict[str, Any] | None:
    maps = caption.attention_weights
    if maps is None:
        return None
    caption.check_maps()
    count, rows, cols = maps.shape
    if not rows or not cols:
        where = f"attention_weights of {caption.image_id!r}"
        raise ValueError(f"{where}: shape (T, rows, cols) with cells in it expected, got {maps.shape}")
    peaks = maps.reshape(count, rows * cols).max(axis=1)  # (T,)
    steps = np.rint(maps / np.maximum(peaks, 1e-30)[:, None, None] * 255).astype(np.uint8)
    return {
        "rows": rows,
        "cols": cols,
        "box": list(map(float, caption.grid_box)),
        "most": [float(f"{peak * rows * cols:.4g}") for peak in peaks],  # times uniform
        "steps": base64.b64encode(steps.tobytes()).decode("ascii"),
    }


def _probability(log_prob: float) -> float | None:
    return None if math.isnan(log_prob) else float(f"{math.exp(min(log_prob, 0.0)):.4g}")


def _number(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None  # JSON knows no infinity


def jpeg_of(photo: np.ndarray, quality: int) -> str:
    contents = BytesIO()
    Image.fromarray(photo).save(contents, "JPEG", quality=quality, optimize=True)
    return base64.b64encode(contents.getvalue()).decode("ascii")


def wrong_places(
    caption: Caption,
    name: str,
    wrong: Wrong | None,
    references: Mapping[str, Sequence[str]] | None,
) -> list[int]:
    """Return the positions of the words to mark."""
    if callable(wrong):
        return list(wrong(caption))
    if wrong is not None:
        marked = set(wrong.get(name, ()))
    elif references and references.get(name):
        marked = words_in_no_reference(caption, references[name])
    else:
        return []
    return [place for place, word in enumerate(caption.words) if word in marked]


def color_table(cmap: Colormap) -> str:
    table = cmap(np.arange(256) / 255)  # (256, 4)
    return base64.b64encode(np.rint(table * 255).astype(np.uint8).tobytes()).decode("ascii")
