"""Boxes of words from a table of one's own: a CSV file with the columns phrase, left, top, right, bottom, image_id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from attncap._messages import quoted
from attncap.captions import Caption
from attncap.grounding.phrases import Phrase
from attncap.words import split_words

SIDES = ["left", "top", "right", "bottom"]
NEEDED = ["phrase", *SIDES]


def read_box_table(path: str | Path, image_ids: Sequence[str]) -> pd.DataFrame:
    """Read a table of the boxes of words and phrases.

    Args:
        path: CSV file with a header. `phrase`: a word or several, as captions have them; `left`, `top`, `right`,
            `bottom`: fractions of the image's width and height, 0 to 1; `image_id`: the image, or the column is left
            out, or the cell empty: then the box holds for every image, as fixed boxes of aligned faces do. Several
            rows of one phrase and image are one region.
        image_ids: the images to give boxes to; rows of others are left out.

    Returns:
        boxes: DataFrame with `image_id`, `phrase` and the four sides, one row per image and box.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a missing column, no row, or a box that is none; the message names the line.

    Example:
        >>> boxes = read_box_table("face_boxes.csv", data.pictures["image_id"])  # phrase,left,top,right,bottom
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such table of boxes")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a CSV file of boxes: {error}") from None
    missing = [name for name in NEEDED if name not in table.columns]
    if missing:
        raise ValueError(
            f"{path}: the header has no column {', '.join(missing)}; expected {', '.join(NEEDED)} and, where boxes "
            "are not the same in every image, image_id"
        )
    if table.empty:
        raise ValueError(f"{path}: has no box: expected one row per box")
    for number, row in enumerate(table.itertuples(index=False), start=2):
        _check_row(f"{path}, line {number}", str(row.phrase), [str(getattr(row, side)) for side in SIDES])
    table[SIDES] = table[SIDES].astype(float)
    if "image_id" not in table.columns:
        table["image_id"] = ""
    everywhere = table[table["image_id"] == ""].drop(columns="image_id")
    every = pd.DataFrame({"image_id": list(image_ids)}).merge(everywhere, how="cross")
    own = table[table["image_id"].isin(set(image_ids))]
    return pd.concat([every, own], ignore_index=True)[["image_id", *NEEDED]]


def _check_row(where: str, phrase: str, sides: Sequence[str]) -> None:
    if not split_words(phrase):
        raise ValueError(f"{where}: phrase is {quoted(phrase)}: expected at least one word")
    try:
        left, top, right, bottom = map(float, sides)
    except ValueError:
        raise ValueError(f"{where}: the box is {', '.join(sides)}: expected four numbers") from None
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(
            f"{where}: the box is {', '.join(sides)}: expected fractions with 0 <= left < right <= 1 and "
            "0 <= top < bottom <= 1; divide pixels by the image's width and height"
        )


def match_words(captions: Sequence[Caption], boxes: pd.DataFrame) -> list[list[Phrase]]:
    """Return the phrases of captions that a table of boxes names: the same words in the same order.

    Where phrases overlap ("hair", "red hair"), the longest one is taken.

    Args:
        captions: N captions with an `image_id`.
        boxes: from `read_box_table`.

    Returns:
        phrases: N lists, in the order of the words; the type is the phrase.
    """
    regions: dict[str, dict[tuple[str, ...], np.ndarray]] = {}
    for (image_id, phrase), rows in boxes.groupby(["image_id", "phrase"], sort=False):
        regions.setdefault(str(image_id), {})[tuple(split_words(str(phrase)))] = rows[SIDES].to_numpy(float)
    found = []
    for caption in captions:
        image_id = str(caption.image_id)
        own = regions.get(image_id, {})
        taken = np.zeros(len(caption.words), bool)
        named = []
        for words in sorted(own, key=len, reverse=True):
            for start in range(len(caption.words) - len(words) + 1):
                end = start + len(words)
                if caption.words[start:end] == words and not taken[start:end].any():
                    taken[start:end] = True
                    named.append(Phrase(image_id, start, end, " ".join(words), own[words]))
        found.append(sorted(named, key=lambda phrase: phrase.start))
    return found
