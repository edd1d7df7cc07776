"""Read tables of attributes: one row per image, and 0, 1 or an empty cell for each attribute."""

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
    """Data set of images with attribute labels.

    Args:
        name: name of the data set.
        pictures: DataFrame with `image_id`, `path` and `split` ("train", "val" or "test"), one row per image.
        names: names of the A attributes.
        labels: float32, shape (N, A), in the order of `pictures`: 1, 0, or NaN (unknown).
        rejects: DataFrame of the rows that were left out: `source`, `line` (from 1), `image_id`, `reason`, `kind`,
            `table`.
        facts: for the drawn faces, the table of their characteristics, for checking whether sentences are true.

    Raises:
        ValueError: there is no attribute, a name occurs twice, or the labels have the wrong shape.

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
        """Summarize the data in one line: number of images per split, attributes, missing labels, and rejects."""
        missing = int(np.isnan(self.labels).sum())
        return (
            f"{self.name}: {count_images(self.pictures)}, {len(self.names)} attributes, "
            f"{missing:,} labels missing, {len(self.rejects):,} rejects"
        )

    def rows(self, keep: np.ndarray) -> AttributeData:
        """Select the images for which `keep`, bool, shape (N,), is true."""
        pictures = self.pictures[keep].reset_index(drop=True)
        return replace(self, pictures=pictures, labels=self.labels[keep])

    def split(self, name: str) -> AttributeData:
        """Select the images of one split. "dev" is another name for "val"."""
        return self.rows(in_split(self.pictures, name).to_numpy())

    def select(self, names: Sequence[str]) -> AttributeData:
        """Select attributes, in the given order.

        Raises:
            ValueError: a name is unknown; the message lists the known names.
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
    """Load a data set of attributes from a string such as "attributes:FILE:IMAGES".

    Args:
        spec: "attributes:FILE:IMAGES", "faces" or "faces:NUMBER". FILE is a table that `read_attributes` accepts.
            IMAGES is the folder of the images; it can be omitted if the folder is called `images` and is next to FILE.
        seed: seed of the split of images without a split in the table, and of the drawn faces.
        val, test: share of the images (below 1), or number of images; see `stratified_split`.
        columns: attributes to read. None: all columns except file names and splits.

    Returns:
        The data. The images are not opened.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        ValueError: `spec` has an unknown form, a column is unknown, or a cell is not a label.

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

    A cell is 1 or 0, 1 or -1, true or false, or yes or no. A column must not contain both 0 and -1. An empty cell, NaN,
    NA or ? means that the label is unknown; training and metrics ignore it. Splits are read from a column `split`;
    images without a split get one by `stratified_split`.

    Args:
        table: a CSV or TSV with a header, CelebA's text (a line with the number of images, a line of names, then a
            file name and 1 or -1 for each name), or a DataFrame.
        images: folder of the image files.
        columns: attributes to read. None: all columns except file names and splits.
        file_column: column of the file names. None: the first column with a usual name, such as "file".
        name: name of the data set. None: the name of the table file.
        seed, val, test: see `stratified_split`.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: a column is unknown, or a cell is not a label; the message names the file, line and column.

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
    """List the attributes of the drawn faces, such as "hair=curly": one for each visible value of a characteristic."""
    return tuple(
        f"{name}={value}" for name, values in CHARACTERISTICS.items() for value in values if value not in UNSTATED
    )


def characteristics_as_labels(table: pd.DataFrame) -> np.ndarray:
    """Convert the characteristics of drawn faces to labels 0 and 1: float32, shape (N, A), see `faces_columns`.

    A characteristic that is absent or hidden is 0 in all of its columns.

    Args:
        table: DataFrame with one column per characteristic, whose values are words.

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
    """Collect the images of a table, and the indices of their rows."""
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
