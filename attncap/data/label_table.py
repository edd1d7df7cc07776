"""Read a table of labels from a CSV, a TSV or CelebA's text, with messages that name file, line and column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from attncap._messages import quoted
from attncap.data.readers.base import is_missing
from attncap.data.readers.files import read_sound_lines
from attncap.data.readers.table import read_strictly

LABEL_WORDS = {
    **{word: 1.0 for word in ("1", "1.0", "true", "yes")},
    **{word: 0.0 for word in ("0", "0.0", "false", "no")},
    **{word: -1.0 for word in ("-1", "-1.0")},
    **{word: np.nan for word in ("", "nan", "na", "n/a", "none", "null", "<na>", "?")},
}


def read_text(path: Path) -> pd.DataFrame:
    """Read the cells of a CSV, a TSV or CelebA's text as text; the index is the line where each row begins."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file: a CSV, or CelebA's list_attr text, expected")
    lines = read_sound_lines(path)
    while lines and not lines[-1].strip():
        lines.pop()
    celeba = len(lines) > 1 and lines[0].strip().isdecimal()
    header, rows = _celeba(path, lines) if celeba else read_strictly(lines, path)
    return pd.DataFrame([row for _, row in rows], columns=header, index=[line for line, _ in rows], dtype=str)


def _celeba(path: Path, lines: list[str]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    header = ["file", *lines[1].split()]
    rows = [(number, line.split()) for number, line in enumerate(lines[2:], start=3)]
    announced = int(lines[0].strip()[:15])  # Python refuses to read thousands of digits
    if announced != len(rows):
        raise ValueError(
            f"{path}, line 1: {announced:,} images announced, {len(rows):,} rows found: the file is cut off, "
            "or its first line is not the number of images"
        )
    for line, row in rows:
        if len(row) != len(header):
            raise ValueError(f"{path}, line {line}: {len(header)} columns expected as in the header, {len(row)} found")
    return header, rows


def read_labels(column: pd.Series, source: str, name: str) -> np.ndarray:
    """Turn a column of cells into labels: float32, shape (N,), with 1, 0 or NaN where not known."""
    values = np.array([_label(value) for value in column], np.float32)
    bad = np.flatnonzero(np.isinf(values))
    if len(bad):
        at = int(bad[0])
        raise ValueError(
            f"{source}, line {column.index[at]}, column {quoted(name)}: 0, 1, -1, true, false or nothing expected, "
            f"found {quoted(str(column.iloc[at]))}: correct it, or name the columns to read"
        )
    if (values == -1).any():
        if (values == 0).any():
            at = int(np.flatnonzero(values == 0)[0])
            raise ValueError(
                f"{source}, line {column.index[at]}, column {quoted(name)}: 0 in a column that has -1 too: write 0 and "
                "1, or -1 and 1, and leave empty what is not known"
            )
        values[values == -1] = 0
    return values


def _label(value: Any) -> float:
    """Return 1, 0 or -1, NaN where missing, infinity for anything else."""
    if is_missing(value):
        return np.nan
    return LABEL_WORDS.get(str(value).strip().lower(), np.inf)
