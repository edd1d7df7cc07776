"""From texts to a table of attributes: 1 where a text states a characteristic, 0 where it states its absence."""

from __future__ import annotations

import numpy as np
import pandas as pd

from attncap._messages import quoted
from attncap.characteristics.lexicon import Lexicon
from attncap.data.dataset import CaptionData
from attncap.data.readers.table import FILE_COLUMNS

RARE = 20  # with fewer statements a classifier learns little
SILENCE = ("unknown", "no")


def label(data: CaptionData, lexicon: Lexicon, *, silence: str = "unknown") -> pd.DataFrame:
    """Turn the texts of a data set into the table that `attncap attributes train` reads.

    Where the texts of one image disagree, the cell is unknown.

    Args:
        data: images with texts; an image without text has unknown cells.
        lexicon: what phrases state.
        silence: what a text that does not name a characteristic says of it: "unknown" (an empty cell) or "no" (0).

    Returns:
        table: one row per image in the order of `data.pictures`: `file` (its image_id), `split`, and a column of
            1, 0 or missing for each characteristic.

    Raises:
        ValueError: another word for silence, or a characteristic named like a column of files or splits.
    """
    if silence not in SILENCE:
        raise ValueError(f"silence={silence!r}: unknown or no expected")
    for name in lexicon.characteristics:
        if name.lower() in (*FILE_COLUMNS, "split"):
            raise ValueError(f"the characteristic {quoted(name)} has the name of a column of the table: rename it")
    references = data.references()
    rows = [
        _cells(references.get(image_id, []), lexicon, silence == "no" and image_id in references)
        for image_id in data.pictures["image_id"]
    ]
    cells = pd.DataFrame(rows, columns=lexicon.characteristics, dtype="Int8")
    return pd.concat([data.pictures[["image_id", "split"]].rename(columns={"image_id": "file"}), cells], axis=1)


def count_statements(table: pd.DataFrame) -> pd.DataFrame:
    """Count the statements of each characteristic.

    Args:
        table: as `label` returns with silence unknown.

    Returns:
        counts: DataFrame (characteristic, present, absent), most frequent first.
    """
    cells = table.drop(columns=["file", "split"], errors="ignore")
    counts = pd.DataFrame({"present": (cells == 1).sum(), "absent": (cells == 0).sum()}, dtype=int)
    counts = counts.rename_axis("characteristic").reset_index()
    return counts.sort_values("present", ascending=False, kind="stable", ignore_index=True)


def rare_characteristics(counts: pd.DataFrame, least: int = RARE) -> list[str]:
    """Return the characteristics that fewer than `least` images state as present."""
    return list(counts.loc[counts["present"] < least, "characteristic"])


def _cells(texts: list[str], lexicon: Lexicon, silent_no: bool) -> list[float]:
    silence = 0.0 if silent_no else np.nan
    stated = {name: float(True in found) if len(found) == 1 else np.nan for name, found in lexicon.signs(texts).items()}
    return [stated.get(name, silence) for name in lexicon.characteristics]
