"""Load a data set with captions from its one-string form (`flickr8k:FOLDER`, `faces:4000`, ...) or from a table.

The formats are the files of `attncap.data.readers`. `CaptionData`, `split_images` and `check` can be imported from
here too.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pandas as pd

from attncap._files import cache_folder
from attncap.data.check import check, check_summary, leave_out
from attncap.data.dataset import CaptionData, split_images
from attncap.data.readers.base import Parts
from attncap.data.readers.registry import Spec, existing_folder, forms, guess_format, reader_of
from attncap.data.readers.table import read_table

__all__ = [
    "CaptionData",
    "cache_folder",
    "check",
    "check_summary",
    "guess_format",
    "leave_out",
    "load",
    "load_table",
    "split_images",
]


def load(spec: str | os.PathLike[str], *, seed: int = 0, folder: str | os.PathLike[str] | None = None) -> CaptionData:
    """Load a data set from its one-string form.

    Args:
        spec: `flickr8k:FOLDER`, `coco:JSON[+JSON]:IMAGES`, `karpathy:JSON:IMAGES`,
            `table:CSV:IMAGES[:FILE COLUMN:CAPTION COLUMN[:SPLIT COLUMN]]`, `faces`, `faces:NUMBER`, a form of your own
            (`attncap.data.readers.registry.register_reader`), or a folder whose format is guessed. IMAGES may be left
            out where the images are beside the file, or in `images` there.
        seed: of the splits that the source leaves open, and of the faces.
        folder: where faces are drawn; default a folder of `cache_folder()`.

    Returns:
        The data; rows that could not be used are in its `rejects`. Images are not opened: see `check`.

    Raises:
        FileNotFoundError: a file or folder of the spec is missing.
        ValueError: an unknown form, or a file not in its format; the message names file and place.

    Example:
        >>> load("table:captions.csv:photographs").summary()
        'captions: 13,000 images (train 10,391, val 1,310, test 1,299), 13,000 captions, 0 rejects'
    """
    text = os.fspath(spec)
    found = reader_of(text)
    if found is None:
        if not os.path.isdir(text):
            raise ValueError(
                f"{text!r}: no such folder, and not of the form {forms()}, or a folder: a reader of your own comes "
                "with --plugin FILE"
            )
        text = guess_format(text)
        found = reader_of(text)
        assert found is not None  # guessed by a registered reader
    reader, rest = found
    return _complete(reader.read(Spec(text, rest, reader.form, seed, folder)), reader.name, seed)


def load_table(
    table: str | os.PathLike[str] | pd.DataFrame,
    images: str | os.PathLike[str],
    file_column: str | None = None,
    caption_column: str | None = None,
    split_column: str | None = None,
    *,
    name: str | None = None,
    seed: int = 0,
) -> CaptionData:
    """Load a table with a row per caption: a CSV or TSV file, or a DataFrame.

    Args:
        table: the file or the DataFrame.
        images: the folder that the file names are in.
        file_column, caption_column: names of the columns; guessed from usual names when None.
        split_column: train, val or test of the image, in any case; default `split`, or CelebA's `partition` (0 train,
            1 val, 2 test), where there is one. A row with anything else is rejected. Where the cell is empty, or there
            is no such column, the split is drawn (`split_images`).
        name: of the data set; default the file's name.
        seed: of the drawn splits.

    Example:
        >>> frame = pd.DataFrame({"photo": ["a.jpg"], "words": ["a woman with glasses"]})
        >>> data = load_table(frame, "photographs", "photo", "words")
        >>> data.captions.iloc[0].tolist()
        ['a.jpg', 'a woman with glasses']
    """
    folder = existing_folder(os.fspath(images), os.fspath(images))
    if not isinstance(table, pd.DataFrame):
        table = Path(table)
        if not table.is_file():
            raise FileNotFoundError(f"{table}: no such file: a CSV or TSV with a header line expected")
    parts = read_table(table, folder, file_column, caption_column, split_column)
    return _complete(replace(parts, name=name or parts.name), "table", seed)


def _complete(parts: Parts, name: str, seed: int) -> CaptionData:
    splits = split_images(parts.images["image_id"].tolist(), seed, given=parts.images["split"].tolist())
    images = parts.images.assign(split=pd.Series(splits, index=parts.images.index, dtype="str"))
    return CaptionData(
        parts.name or name,
        images,
        parts.captions,
        parts.attributes,
        parts.boxes,
        rejects=parts.rejects,
        integer_ids=parts.integer_ids,
    )
