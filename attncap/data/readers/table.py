"""Reader of a table of captions: CSV, TSV or a DataFrame, with columns of any name."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attncap._files import plain_cell
from attncap._messages import listed, quoted
from attncap.data.readers.base import SPLIT_COLUMNS, Collector, Parts, image_folder, image_id_of, split_of
from attncap.data.readers.files import files_beside, foreign_byte, read_lines
from attncap.data.readers.registry import Spec, register_reader
from attncap.images import IMAGE_ENDINGS

if TYPE_CHECKING:
    import pandas as pd

FILE_COLUMNS = ("filename", "file_name", "file", "image", "image_name", "image_id", "path", "picture")
RECORD_LINES = 100  # that a quoted row may span; without a limit every unclosed quote would read the rest of the file
CAPTION_COLUMNS = ("caption", "text", "description", "label", "comment")


def guess(folder: Path) -> list[str]:
    """Return each table of a folder whose first line names a column of files and one of captions."""
    tables = filter(has_caption_columns, files_beside(folder, ".csv", ".tsv", ".txt"))
    return [f"{file}:{image_folder(folder)}" for file in tables]


@register_reader("table", "table:CSV:IMAGES[:FILE COLUMN:CAPTION COLUMN[:SPLIT COLUMN]]", guess, order=40)
def load_from_table(spec: Spec) -> Parts:
    """A CSV or TSV with a row per caption; columns of file names and captions by usual names, or named."""
    files, images, more = spec.divide()
    columns = more.split(":") if more else []
    if len(files) > 1 or len(columns) not in (0, 2, 3):
        found = f"{len(files)} files" if len(files) > 1 else repr(more)
        raise ValueError(f"{spec.text!r}: {spec.form} expected, {found} found")
    return read_table(files[0], images, *columns)


def read_table(
    table: Path | pd.DataFrame,
    images: Path,
    file_column: str | None = None,
    caption_column: str | None = None,
    split_column: str | None = None,
) -> Parts:
    """Read a table with a row per caption, with a column of file names, one of captions, and perhaps one of splits.

    Columns that are not named are guessed from usual names (FILE_COLUMNS, CAPTION_COLUMNS, SPLIT_COLUMNS) in any case.
    """
    collected = Collector(images)
    rows: Iterable[tuple[int, Sequence[Any], str | None]]
    if isinstance(table, Path):
        source: Path | str = table
        lines = read_lines(table)
        delimiter, header = read_header(lines, table)
    else:
        source, header = "table", [str(name) for name in table.columns]
    file_at, caption_at, split_at = _columns(str(source), header, file_column, caption_column, split_column)
    if isinstance(table, Path):
        rows = read_rows(lines, delimiter, columns=len(header), file_at=file_at)
    else:
        rows = ((line, row, None) for line, row in enumerate(table.itertuples(index=False, name=None), start=1))
    splits: dict[str, tuple[str | None, int]] = {}
    for line, values, problem in rows:
        foreign = foreign_byte(" ".join(value for value in values if isinstance(value, str)))
        problem = foreign or problem
        name = values[file_at] if len(values) > file_at else ""
        image_id = image_id_of(name)
        if problem is None and len(values) != len(header):
            mend = "quote the caption" if len(values) > len(header) else "a column is missing"
            problem = f"{len(header)} columns expected, {len(values)} found: {mend}"
        if problem is None and not image_id:
            problem = f"a file name expected in column {quoted(header[file_at])}, {name!r} found"
        split: str | None = None
        if problem is None and split_at is not None:
            try:
                split = split_of(values[split_at], header[split_at]) or splits.get(image_id, (None, 0))[0]
            except ValueError as error:
                problem = str(error)
            if problem is None and image_id in splits and splits[image_id][0] != split:
                first, first_line = splits[image_id]
                problem = f"split {split} here, {first} in line {first_line}: one image belongs to one split"
        if problem:
            collected.reject("not UTF-8" if foreign else "malformed row", problem, source, line, image_id)
            continue
        splits.setdefault(image_id, (split, line))
        collected.add(image_id, values[caption_at], source, line, split)
    return collected.parts(Path(source).stem)


def has_caption_columns(path: Path) -> bool:
    """Whether the first line names a file column and a caption column, by usual names."""
    with open(path, "rb") as file:
        first = file.readline(1 << 16).removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").strip()
    try:
        _columns("", read_header([first], path)[1], None, None, None)
    except ValueError:
        return False
    return True


def read_header(lines: list[str], path: Path) -> tuple[str, list[str]]:
    """Return the delimiter and the names of the columns from the first line; ValueError where there is none."""
    if not lines or not lines[0].strip():
        raise ValueError(f"{path}, line 1: a header line expected, nothing found: name the columns in the first line")
    delimiter = max(("\t", ",", ";", "|"), key=lines[0].count)
    try:
        header = next(csv.reader(lines[:1], delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}, line 1: a header line expected, {quoted(lines[0])} found ({error})") from None
    return delimiter, [name.strip() for name in header]


def read_rows(
    lines: list[str], delimiter: str, *, columns: int = 0, file_at: int | None = None
) -> Iterator[tuple[int, list[Any], str | None]]:
    """Yield (first line, fields, problem) of every record after the header; a bad quote affects only its own line.

    Args:
        lines: of the file, the header first.
        delimiter: between the fields; quotes beside bars mean nothing (Flickr30k's results.csv).
        columns, file_at: number of columns, and place of the images' names. A quote that would make a line part of
            the record before it, though that line has an image's name at this place, is a stray quote.
    """
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "|" else csv.QUOTE_MINIMAL

    def is_row(line: str) -> bool:
        fields = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
        if file_at is None or len(fields) < max(columns, 2):
            return False
        return fields[file_at].strip().lower().endswith(IMAGE_ENDINGS)

    at = 1
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        rest = (line + "\n" for line in lines[at : at + RECORD_LINES])
        reader = csv.reader(rest, delimiter=delimiter, skipinitialspace=True, strict=True, quoting=quoting)
        try:
            fields = next(reader)
            if any(is_row(line) for line in lines[at + 1 : at + reader.line_num]):
                raise csv.Error("stray quote")
            yield at + 1, [plain_cell(field) for field in fields], None
            at += reader.line_num
        except csv.Error as error:
            problem = 'a quote is opened and not closed: write it twice ("") inside quotes'
            if "limit" in str(error):
                problem = f"more than {csv.field_size_limit():,} characters in a field: is a quote opened, not closed?"
            yield at + 1, [lines[at]], problem
            at += 1


def read_strictly(lines: list[str], path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header of a table whose rows must all be sound, and the line and the cells of each row.

    Raises:
        ValueError: a row that is not; the message names file and line.
    """
    delimiter, header = read_header(lines, path)
    usual = [at for name in FILE_COLUMNS for at, column in enumerate(header) if column.lower() == name]
    rows = []
    for line, row, problem in read_rows(lines, delimiter, columns=len(header), file_at=usual[0] if usual else None):
        if problem is None and len(row) != len(header):
            problem = f"{len(header)} columns expected as in the header, {len(row)} found"
        if problem:
            raise ValueError(f"{path}, line {line}: {problem}")
        rows.append((line, [cell.strip() for cell in row]))
    return header, rows


def find_column(header: list[str], named: str | None, usual: Sequence[str], what: str, source: str) -> int:
    """Return the place of the named column, or of the first with a usual name in any case.

    Raises:
        ValueError: there is none; the message lists the columns.
    """
    lower = [name.lower() for name in header]
    names, wanted = (lower, usual) if named is None else (header, (named,))
    for name in wanted:
        if name in names:
            return names.index(name)
    if named is not None:
        raise ValueError(f"{source}: a column {named!r} expected, found: {listed(header)}")
    looked = ", ".join(usual)
    raise ValueError(f"{source}: no {what} column (looked for {looked}), found: {listed(header)}: name the column")


def _columns(
    source: str, header: list[str], file_column: str | None, caption_column: str | None, split_column: str | None
) -> tuple[int, int, int | None]:
    place = f"{source}, line 1"
    file_at = find_column(header, file_column, FILE_COLUMNS, "file name", place)
    caption_at = find_column(header, caption_column, CAPTION_COLUMNS, "caption", place)
    if split_column is not None:
        return file_at, caption_at, find_column(header, split_column, (), "split", place)
    usual = [at for name in SPLIT_COLUMNS for at, column in enumerate(header) if column.lower() == name]
    return file_at, caption_at, next((at for at in usual if at not in (file_at, caption_at)), None)
