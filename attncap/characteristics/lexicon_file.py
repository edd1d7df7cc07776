"""Read and write characteristics.csv, the table that a person edits in a spreadsheet."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from attncap._files import write_csv
from attncap._messages import listed, quoted
from attncap.data.readers.files import read_sound_lines
from attncap.data.readers.table import read_strictly

COLUMNS = ("characteristic", "phrase", "count", "sign", "proposal")
SIGNS = {
    **dict.fromkeys(("", "present", "1", "+1", "1.0", "+", "yes", "true"), 1),
    **dict.fromkeys(("absent", "-1", "-1.0", "-", "0", "no", "false"), -1),
}


@dataclass(frozen=True)
class Entry:
    """One phrase and what it states.

    Args:
        characteristic: what the phrase is about; "" for a phrase that is known and states nothing.
        phrase: as people write it.
        count: number of texts that say it.
        sign: 1 where the phrase states that the characteristic is present, -1 where it states that it is absent.
        proposal: why mining put the phrase here, or where it might belong; for the person who edits the file.
    """

    characteristic: str
    phrase: str
    count: int = 0
    sign: int = 1
    proposal: str = ""


def read_entries(path: str | os.PathLike[str]) -> list[Entry]:
    """Read characteristics.csv; columns by name in any order, `count`, `sign` and `proposal` may be missing.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a missing column, a row that cannot be read, an unknown sign, or a phrase in two rows that
            disagree; the message names file and line.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file: write one with `attncap characteristics mine`")
    header, rows = read_strictly(read_sound_lines(file), file)
    names = [name.lower() for name in header]
    for column in COLUMNS[:2]:
        if column not in names:
            raise ValueError(f"{file}, line 1: a column {column!r} expected, found {listed(header)}")
    entries: list[Entry] = []
    lines_of: dict[str, tuple[int, Entry]] = {}
    for number, row in rows:
        cells = dict(zip(names, row, strict=True))
        if not any(cells.values()):
            continue
        entry = _entry(cells, f"{file}, line {number}")
        first_line, first = lines_of.setdefault(entry.phrase.lower(), (number, entry))
        if (first.characteristic, first.sign) != (entry.characteristic, entry.sign):
            raise ValueError(
                f"{file}, line {number}: the phrase {quoted(entry.phrase)} states {_said(entry)} here and "
                f"{_said(first)} in line {first_line}: delete one of the two rows"
            )
        if first is entry:
            entries.append(entry)
    return entries


def write_entries(path: str | os.PathLike[str], entries: Iterable[Entry]) -> None:
    """Write characteristics.csv as UTF-8 with a byte order mark, so that spreadsheets show accents."""
    rows = [
        (entry.characteristic, entry.phrase, entry.count, "present" if entry.sign > 0 else "absent", entry.proposal)
        for entry in entries
    ]
    write_csv(path, pd.DataFrame(rows, columns=list(COLUMNS)), mark=True)


def _entry(cells: dict[str, str], place: str) -> Entry:
    phrase = cells["phrase"]
    if not phrase:
        raise ValueError(f"{place}: a phrase expected, the cell is empty: write one, or delete the row")
    count, sign = cells.get("count", ""), cells.get("sign", "").lower()
    if sign not in SIGNS:
        raise ValueError(f"{place}: sign {quoted(sign)}: present or absent expected")
    try:
        number = int(float(count or 0))
    except (ValueError, OverflowError):
        raise ValueError(f"{place}: count {quoted(count)}: a number expected") from None
    return Entry(cells["characteristic"], phrase, number, SIGNS[sign], cells.get("proposal", ""))


def _said(entry: Entry) -> str:
    if not entry.characteristic:
        return "nothing"
    return f"{quoted(entry.characteristic)} {'present' if entry.sign > 0 else 'absent'}"
