"""Tables of attributes: one row per image, with 0, 1 or nothing for each attribute; and their splits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from attncap._messages import listed, quoted
from attncap.attributes.splits import stratified_split
from attncap.data.dataset import count_images, in_split
from attncap.data.faces.captions import CHARACTERISTICS, UNSTATED
from attncap.data.label_table import read_labels, read_text
from attncap.data.load import load
from attncap.data.readers.base import SPLIT_COLUMNS, Collector, Parts, image_id_of, no_rejects, split_of
from attncap.data.readers.registry import Spec
from attncap.data.readers.table import FILE_COLUMNS, find_column

FORMS = "attributes:FILE:IMAGES (CSV, or CelebA's list_attr text), attributes:FILE, faces, or faces:NUMBER"


@dataclass(frozen=True, eq=False, repr=False)
class AttributeData:
    """Images and their attributes.

    Args:
        name: of the data set.
        pictures: `image_id`, `path`, `split` ("train", "val" or "test"); one row per image.
        names: of the A attributes.
        labels: float32, shape (N, A), in the order of `pictures`: 1, 0, or NaN where not known.
        rejects: what was left out: `source`, `line` (from 1), `image_id`, `reason`, `kind`, `table`.
        facts: for the drawn faces, the table of characteristics that sentences are checked against.

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
    rejects: pd.DataFrame = field(default_factory=no_rejects)
    facts: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError(f"{self.name}: no attribute: at least one column of 0 and 1 expected")
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ValueError(f"{self.name}: the attribute {quoted(twice[0])} occurs twice: give each its own name")
        if self.labels.shape != (len(self.pictures), len(self.names)):
            expected = (len(self.pictures), len(self.names))
            raise ValueError(f"{self.name}: labels of shape {expected} expected, found {self.labels.shape}")

    def summary(self) -> str:
        """One line: images by split, attributes, missing labels, rejects."""
        missing = int(np.isnan(self.labels).sum())
        return (
            f"{self.name}: {count_images(self.pictures)}, {len(self.names)} attributes, "
            f"{missing:,} labels missing, {len(self.rejects):,} rejects"
        )

    def rows(self, keep: np.ndarray) -> AttributeData:
        """Return the images where `keep`, shape (N,), is true."""
        pictures = self.pictures[keep].reset_index(drop=True)
        return replace(self, pictures=pictures, labels=self.labels[keep])

    def split(self, name: str) -> AttributeData:
        """Return the images of one split; "dev" is another name of "val"."""
        return self.rows(in_split(self.pictures, name).to_numpy())

    def select(self, names: Sequence[str]) -> AttributeData:
        """Return the data with these attributes only, in this order.

        Raises:
            ValueError: an unknown name; the message lists the known ones.
        """
        unknown = [name for name in names if name not in self.names]
        if unknown:
            raise ValueError(f"{self.name}: no attribute {quoted(unknown[0])}: known are {', '.join(self.names)}")
        return replace(self, names=tuple(names), labels=self.labels[:, [self.names.index(name) for name in names]])


def load_attributes(
    spec: str | os.PathLike[str],
    *,
    seed: int = 0,
    val: float = 0.1,
    test: float = 0.1,
    columns: Sequence[str] | None = None,
) -> AttributeData:
    """Read a table of attributes from its one-string form.

    Args:
        spec: `attributes:FILE:IMAGES`, FILE a CSV with a column of file names and columns of 0/1, or CelebA's text;
            IMAGES may be left out where the images are in a folder `images` beside the file; `faces` or `faces:NUMBER`.
        seed: of the split of images that have none in the table, and of the faces.
        val, test: shares of the images below 1, or numbers of images; see `stratified_split`.
        columns: the attributes to read; None: all columns except file names and splits.

    Returns:
        The data; images are not opened.

    Raises:
        FileNotFoundError: a file or folder of the spec is missing.
        ValueError: an unknown form, an unknown column, a cell that is not 0, 1, -1 or empty.

    Example:
        >>> load_attributes("attributes:list_attr_celeba.txt:images", test=1000, val=1000).summary()
        'list_attr_celeba: 8,000 images (train 6,000, val 1,000, test 1,000), 40 attributes, 0 labels missing, ...'
    """
    spec = os.fspath(spec)
    scheme, _, rest = spec.partition(":")
    if scheme == "faces":
        data = _faces(spec, seed)
        return data if columns is None else data.select(columns)
    if scheme != "attributes" or not rest:
        raise ValueError(f"{spec!r}: not of the form {FORMS}")
    file, images = Spec(spec, rest, FORMS).file_and_images()
    return read_attributes(file, images, columns=columns, seed=seed, val=val, test=test)


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
    """Read a table with one row per image and one column per attribute.

    A cell is 1 or 0, 1 or -1 (a column uses one of the two), true or false, yes or no. Empty, NaN, NA or ? means not
    known: training and measures leave it out. A column `split` is kept; images without a split get one by
    `stratified_split`.

    Args:
        table: a CSV or TSV with a header, CelebA's text (a line with the number of images, a line of names, then a
            file name and 1 or -1 for each name), or a DataFrame.
        images: the folder of the files.
        columns: the attributes to read; None: all columns except file names and splits.
        file_column: the column of file names; None: the first with a usual name, such as "file".
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
        source, frame = str(Path(table)), read_text(Path(table))
    frame = frame.rename(columns=str)
    header = list(frame.columns)
    file_at = header[find_column(header, file_column, FILE_COLUMNS, "file name", source)]
    lower = {column.lower(): column for column in frame.columns if column != file_at and column not in (columns or ())}
    split_at = next((lower[usual] for usual in SPLIT_COLUMNS if usual in lower), None)
    special = [column for column in (file_at, split_at) if column is not None]
    if columns is None:
        columns = [column for column in frame.columns if column not in special]
    for column in (*special, *columns):
        if column not in frame.columns:
            known = [column for column in frame.columns if column != file_at]
            raise ValueError(f"{source}: a column {quoted(column)} expected, found: {listed(known)}")
        if header.count(column) > 1:  # not `==` of pandas, which finds no "a\0"
            raise ValueError(f"{source}: the column {quoted(column)} occurs twice: give each its own name")
    if not len(columns):
        raise ValueError(f"{source}: no attribute: at least one column of 0 and 1 expected next to the file names")
    labels = np.stack([read_labels(frame[column], source, column) for column in columns], axis=1)
    parts, kept = _images(frame, file_at, split_at, Path(images), source)
    labels = labels[kept]
    splits = stratified_split(labels, seed, val=val, test=test, given=list(parts.images["split"]))
    pictures = parts.images.assign(split=splits)
    return AttributeData(name or Path(source).stem, pictures, tuple(columns), labels, parts.rejects)


def faces_columns() -> tuple[str, ...]:
    """Return the drawn faces' attributes, such as "hair=curly": one for each value that can be seen."""
    return tuple(
        f"{name}={value}" for name, values in CHARACTERISTICS.items() for value in values if value not in UNSTATED
    )


def characteristics_as_labels(table: pd.DataFrame) -> np.ndarray:
    """Turn the drawn faces' table (one column per characteristic, values in words) into 0/1: float32, shape (N, A).

    A characteristic that is absent or hidden is 0 in each of its columns.

    Example:
        >>> characteristics_as_labels(data.attributes).sum(axis=1)  # number of visible characteristics
    """
    pairs = [name.split("=", 1) for name in faces_columns()]
    return np.stack([(table[name] == value).to_numpy(np.float32) for name, value in pairs], axis=1)


def _faces(spec: str, seed: int) -> AttributeData:
    data = load(spec, seed=seed)
    assert data.attributes is not None  # the drawn faces have some
    table = data.attributes.set_index("image_id").loc[list(data.pictures["image_id"])].reset_index()
    return AttributeData(data.name, data.pictures, faces_columns(), characteristics_as_labels(table), facts=table)


def _images(
    frame: pd.DataFrame, file_at: str, split_at: str | None, images: Path, source: str
) -> tuple[Parts, list[int]]:
    """Return the images of a table, and the places of their rows."""
    collected = Collector(images)
    kept = []
    splits = [None] * len(frame) if split_at is None else list(frame[split_at])
    for at, (line, name, split) in enumerate(zip(frame.index, frame[file_at], splits, strict=True)):
        image_id = image_id_of(name)
        try:
            given = split_of(split, split_at or "")
        except ValueError as error:
            raise ValueError(f"{source}, line {line}: {error}") from None
        if not image_id:
            why = f"a file name expected in column {quoted(file_at)}, {name!r} found"
            collected.reject("malformed row", why, source, int(line), table="pictures")
        elif collected.add_image(image_id, [image_id], given, source, int(line)):
            kept.append(at)
    return collected.parts(), kept
