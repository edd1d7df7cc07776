"""Tables of attributes: a picture a row, 0 or 1 (or nothing) for each attribute; and their splits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from attncap.attributes.splits import stratified_split
from attncap.data.dataset import SPLITS
from attncap.data.faces.captions import CHARACTERISTICS, UNSTATED
from attncap.data.load import load
from attncap.data.readers.base import (
    REJECT_COLUMNS,
    SPLIT_COLUMNS,
    SPLIT_NAMES,
    foreign_byte,
    image_folder,
    read_lines,
    split_of,
)
from attncap.data.readers.table import FILE_COLUMNS, column_names, read_header, read_rows
from attncap.images import inside_folder

WORDS = {
    **{word: 1.0 for word in ("1", "1.0", "true", "yes")},
    **{word: 0.0 for word in ("0", "0.0", "false", "no")},
    **{word: -1.0 for word in ("-1", "-1.0")},
    **{word: np.nan for word in ("", "nan", "na", "n/a", "none", "null", "<na>", "?")},
}
FORMS = "attributes:FILE:IMAGES (CSV, or CelebA's list_attr text), attributes:FILE, faces, or faces:NUMBER"


@dataclass(frozen=True, eq=False, repr=False)
class AttributeData:
    """Pictures and their attributes.

    Args:
        name: of the data set.
        pictures: `image_id`, `path`, `split` ("train", "val" or "test"); one row a picture.
        names: of the A attributes.
        labels: float32, shape (number of pictures, A), in the order of `pictures`: 1, 0, or NaN where not known.
        rejects: what was left out: `source`, `line` (from 1), `image_id`, `reason`, `kind`, `table`.
        facts: for the drawn faces, their table of characteristics, against which sentences are checked.

    Raises:
        ValueError: no attribute, a name twice, or labels of another shape.

    Example:
        >>> data = load_attributes("attributes:list_attr_celeba.txt:images")
        >>> data.labels.shape, data.names[15]
        ((8000, 40), 'Eyeglasses')
    """

    name: str
    pictures: pd.DataFrame
    names: tuple[str, ...]
    labels: np.ndarray
    rejects: pd.DataFrame = field(
        default_factory=lambda: pd.DataFrame(columns=REJECT_COLUMNS).astype({"line": "Int64"})
    )
    facts: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError(f"{self.name}: no attribute: at least one column of 0 and 1 expected")
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ValueError(f"{self.name}: the attribute {twice[0]!r} comes twice: give each column its own name")
        if self.labels.shape != (len(self.pictures), len(self.names)):
            expected = (len(self.pictures), len(self.names))
            raise ValueError(f"{self.name}: labels of shape {expected} expected, found {self.labels.shape}")

    def summary(self) -> str:
        """One line: pictures by split, attributes, missing labels, rejects."""
        counts = self.pictures["split"].value_counts()
        splits = ", ".join(f"{split} {counts.get(split, 0):,}" for split in SPLITS)
        missing = int(np.isnan(self.labels).sum())
        return (
            f"{self.name}: {len(self.pictures):,} pictures ({splits}), {len(self.names)} attributes, "
            f"{missing:,} labels missing, {len(self.rejects):,} rejects"
        )

    def rows(self, keep: np.ndarray) -> AttributeData:
        """The pictures where `keep`, shape (number of pictures,), is true."""
        pictures = self.pictures[keep].reset_index(drop=True)
        return replace(self, pictures=pictures, labels=self.labels[keep])

    def split(self, name: str) -> AttributeData:
        """The pictures of one split; "dev" is another name of "val"."""
        split = SPLIT_NAMES.get(name.lower())
        if split is None:
            raise ValueError(f"no split {name!r}: known are {', '.join(SPLITS)}; dev is another name of val")
        return self.rows((self.pictures["split"] == split).to_numpy())

    def select(self, names: Sequence[str]) -> AttributeData:
        """These attributes alone, in this order.

        Raises:
            ValueError: an unknown name; the message lists the known ones.
        """
        unknown = [name for name in names if name not in self.names]
        if unknown:
            raise ValueError(f"{self.name}: no attribute {unknown[0]!r}: known are {', '.join(self.names)}")
        return replace(self, names=tuple(names), labels=self.labels[:, [self.names.index(name) for name in names]])


def load_attributes(
    spec: str | os.PathLike[str],
    *,
    seed: int = 0,
    val: float = 0.1,
    test: float = 0.1,
    columns: Sequence[str] | None = None,
) -> AttributeData:
    """Reads a table of attributes from its one-string form.

    Args:
        spec: `attributes:FILE:IMAGES`, FILE a CSV with a column of file names and columns of 0/1, or CelebA's text;
            IMAGES may be left out where the pictures are in `images` beside the file; `faces` or `faces:NUMBER`.
        seed: of the split that the table leaves open, and of the faces.
        val, test: shares of the pictures below 1, or numbers of pictures; see `stratified_split`.
        columns: the attributes wanted; None takes all columns but those of files and splits.

    Returns:
        The data; pictures are not opened.

    Raises:
        FileNotFoundError: a file or folder of the spec is missing.
        ValueError: an unknown form, an unknown column, a cell that is not 0, 1, -1 or empty.

    Example:
        >>> load_attributes("attributes:list_attr_celeba.txt:images", test=1000, val=1000).summary()
        'list_attr_celeba: 8,000 pictures (train 6,000, val 1,000, test 1,000), 40 attributes, 0 labels missing, ...'
    """
    spec = os.fspath(spec)
    scheme, _, rest = spec.partition(":")
    if scheme == "faces":
        data = _faces(spec, seed)
        return data if columns is None else data.select(columns)
    if scheme != "attributes" or not rest:
        raise ValueError(f"{spec!r}: not of the form {FORMS}")
    pieces = rest.split(":")  # a colon may be in a name, as in C:\table.csv
    for count in range(1, len(pieces) + 1):
        file, folder = ":".join(pieces[:count]), ":".join(pieces[count:])
        if os.path.isfile(file):
            if folder and not os.path.isdir(folder):
                raise FileNotFoundError(f"{spec!r}: {folder!r} is no folder: name the folder of the pictures")
            images = Path(folder) if folder else image_folder(Path(file).parent)
            return read_attributes(Path(file), images, columns=columns, seed=seed, val=val, test=test)
    raise FileNotFoundError(f"{spec!r}: {pieces[0]!r} is no file: write {FORMS}")


def read_attributes(
    table: str | os.PathLike[str] | pd.DataFrame,
    images: str | os.PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    file_column: str | None = None,
    name: str | None = None,
    seed: int = 0,
    val: float = 0.1,
    test: float = 0.1,
) -> AttributeData:
    """Reads a table with a row a picture and a column an attribute.

    A cell is 1 or 0, 1 or -1 (a column has one of the two ways), true or false, yes or no; empty, NaN, NA or ? is a
    label that is not known, which training and measures leave out. A column `split` is kept; what it leaves open is
    drawn by `stratified_split`.

    Args:
        table: a CSV or TSV with a header, CelebA's text (a line with the number of pictures, a line of names, then a
            file name and 1 or -1 for each name), or a DataFrame.
        images: the folder that the file names are in.
        columns: the attributes; None takes all columns but those of files and splits.
        file_column: the column of file names; guessed from usual names when None.
        name: of the data set; default the file's name.
        seed, val, test: of the split; see `stratified_split`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an unknown column, or a cell that is no label; the message names file, line and column.

    Example:
        >>> frame = pd.DataFrame({"file": ["a.jpg", "b.jpg"], "big nose": [1, 0], "glasses": [None, True]})
        >>> read_attributes(frame, "photographs").labels.tolist()
        [[1.0, nan], [0.0, 1.0]]
    """
    if isinstance(table, pd.DataFrame):
        source, frame = "table", table.set_axis(np.arange(1, len(table) + 1))
    else:
        path = Path(table)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file: a CSV, or CelebA's list_attr text, expected")
        source = str(path)
        frame = _read_text(path)
    name = name or ("table" if isinstance(table, pd.DataFrame) else Path(table).stem)
    frame = frame.rename(columns=str)
    file_at = _file_column(source, list(frame.columns), file_column)
    lower = {column.lower(): column for column in frame.columns if column != file_at and column not in (columns or ())}
    split_at = next((lower[usual] for usual in SPLIT_COLUMNS if usual in lower), None)
    for column in (file_at, split_at):
        if column is not None and (frame.columns == column).sum() > 1:
            raise ValueError(f"{source}: the column {column!r} comes twice: give each its own name")
    if columns is None:
        columns = [column for column in frame.columns if column not in (file_at, split_at)]
    for column in columns:
        if column not in frame.columns:
            known = [column for column in frame.columns if column != file_at]
            raise ValueError(f"{source}: a column {column!r} expected, found: {column_names(known)}")
        if (frame.columns == column).sum() > 1:
            raise ValueError(f"{source}: the column {column!r} comes twice: give each its own name")
    if not len(columns):
        raise ValueError(f"{source}: no attribute: at least one column of 0 and 1 expected beside the file names")
    labels = np.stack([_labels(frame[column], source, column) for column in columns], axis=1)
    pictures, kept, rejects = _pictures(frame, file_at, split_at, Path(images), source)
    labels = labels[kept]
    pictures["split"] = stratified_split(labels, seed, val=val, test=test, given=list(pictures["split"]))
    return AttributeData(name, pictures, tuple(columns), labels, rejects)


def faces_columns() -> tuple[str, ...]:
    """The drawn faces' attributes: "hair=curly", one for each value that can be seen."""
    return tuple(
        f"{name}={value}" for name, values in CHARACTERISTICS.items() for value in values if value not in UNSTATED
    )


def characteristics_as_labels(table: pd.DataFrame) -> np.ndarray:
    """Turn the drawn faces' table (a column a characteristic, values in words) into 0/1: float32, shape (N, A).

    What is not there or hidden is 0 in every column of its characteristic: it cannot be seen.

    Example:
        >>> characteristics_as_labels(data.attributes).sum(axis=1)  # as many ones as characteristics that show
    """
    pairs = [name.split("=", 1) for name in faces_columns()]
    return np.stack([(table[name] == value).to_numpy(np.float32) for name, value in pairs], axis=1)


def _faces(spec: str, seed: int) -> AttributeData:
    data = load(spec, seed=seed)
    assert data.attributes is not None  # the drawn faces have them
    table = data.attributes.set_index("image_id").loc[list(data.pictures["image_id"])].reset_index()
    return AttributeData(data.name, data.pictures, faces_columns(), characteristics_as_labels(table), facts=table)


# ---------------------------------------------------------------- reading


def _read_text(path: Path) -> pd.DataFrame:
    """The table, as text, of a CSV, a TSV or CelebA's text; its index is the line that each row begins in."""
    lines = read_lines(path)
    for number, line in enumerate(lines, start=1):
        foreign = foreign_byte(line)
        if foreign:
            raise ValueError(f"{path}, line {number}: {foreign}")
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines or not lines[0].strip():
        raise ValueError(f"{path}, line 1: a header line expected, nothing found: name the columns in the first line")
    if lines[0].strip().isdecimal() and len(lines) > 1:
        return _celeba(path, lines)
    delimiter, header = read_header(lines, path)
    rows = []
    usual = [at for name in FILE_COLUMNS for at, column in enumerate(header) if column.lower() == name]
    file_at = usual[0] if usual else None
    for number, row, problem in read_rows(lines, delimiter, columns=len(header), file_at=file_at):
        if problem:
            raise ValueError(f"{path}, line {number}: {problem}")
        rows.append((number, row))
    return _frame(path, header, rows)


def _celeba(path: Path, lines: list[str]) -> pd.DataFrame:
    header = ["file", *lines[1].split()]
    rows = [(number, line.split()) for number, line in enumerate(lines[2:], start=3)]
    announced = int(lines[0].strip()[:15])  # Python refuses to read thousands of digits
    if announced != len(rows):
        raise ValueError(
            f"{path}, line 1: {announced:,} pictures announced, {len(rows):,} rows found: the file is cut off, "
            "or its first line is not the number of pictures"
        )
    return _frame(path, header, rows)


def _frame(path: Path, header: list[str], rows: list[tuple[int, list[str]]]) -> pd.DataFrame:
    kept = []
    for line, row in rows:
        if len(row) != len(header):
            raise ValueError(f"{path}, line {line}: {len(header)} columns expected as in the header, {len(row)} found")
        kept.append([value.strip() for value in row])
    return pd.DataFrame(kept, columns=header, index=[line for line, _ in rows], dtype=str)


def _file_column(source: str, header: list[str], named: str | None) -> str:
    if named is not None:
        if named not in header:
            raise ValueError(f"{source}: a column {named!r} of file names expected, found: {column_names(header)}")
        return named
    lower = [column.lower() for column in header]
    for usual in FILE_COLUMNS:
        if usual in lower:
            return header[lower.index(usual)]
    raise ValueError(
        f"{source}: no file name column (looked for {', '.join(FILE_COLUMNS)}), found: {column_names(header)}"
    )


def _labels(column: pd.Series, source: str, name: str) -> np.ndarray:
    values = np.array([_label(value) for value in column], np.float32)
    bad = np.flatnonzero(np.isinf(values))
    if len(bad):
        at = int(bad[0])
        raise ValueError(
            f"{source}, line {column.index[at]}, column {name!r}: 0, 1, -1, true, false or nothing expected, found "
            f"{str(column.iloc[at])[:60]!r}: mend it, or name the attributes' columns"
        )
    if (values == -1).any():
        if (values == 0).any():
            at = int(np.flatnonzero(values == 0)[0])
            raise ValueError(
                f"{source}, line {column.index[at]}, column {name!r}: 0 in a column that has -1 too: write 0 and 1, or "
                "-1 and 1, and leave empty what is not known"
            )
        values[values == -1] = 0
    return values


def _label(value: Any) -> float:
    """1, 0, -1, NaN for missing; infinity for what is no label."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return np.nan
    return WORDS.get(str(value).strip().lower(), np.inf)


def _pictures(
    frame: pd.DataFrame, file_at: str, split_at: str | None, images: Path, source: str
) -> tuple[pd.DataFrame, list[int], pd.DataFrame]:
    found: dict[str, tuple[str, str | None]] = {}
    kept, rejects = [], []
    splits = [None] * len(frame) if split_at is None else list(frame[split_at])
    for at, (line, name, split) in enumerate(zip(frame.index, frame[file_at], splits, strict=True)):
        image_id = os.fspath(name).strip().replace("\\", "/") if isinstance(name, (str, os.PathLike)) else ""
        try:
            given = split_of(split, split_at or "")
        except ValueError as error:
            raise ValueError(f"{source}, line {line}: {error}") from None
        kind, why = "", ""
        if not image_id:
            kind, why = "malformed row", f"a file name expected in column {file_at!r}, {name!r} found"
        elif image_id in found:
            kind = "duplicate picture"
        else:
            try:
                found[image_id] = (str(inside_folder(images, image_id)), given)
                kept.append(at)
            except ValueError as error:
                kind, why = "path leaves the folder", str(error)
        if kind:
            rejects.append((source, int(line), image_id, f"{kind}: {why}" if why else kind, kind, "pictures"))
    pictures = pd.DataFrame(
        {
            "image_id": list(found),
            "path": [path for path, _ in found.values()],
            "split": pd.Series([split for _, split in found.values()], dtype=object),
        }
    )
    return pictures, kept, pd.DataFrame(rejects, columns=REJECT_COLUMNS).astype({"line": "Int64"})
