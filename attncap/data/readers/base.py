"""What the readers of data sets share: the tables they return, collecting rows and rejects, splits, folders.

A row of a file that cannot be used is listed in `rejects`, and reading goes on: every caption row that was read is in
`captions` or in `rejects`. A file that is not in its format at all raises `ValueError`, which names file and place.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attncap._messages import quoted
from attncap.paths import HALF_CHARACTER, inside_folder
from attncap.words import split_words

if TYPE_CHECKING:  # pandas takes half a second: only what reads data imports it, not the help of the commands
    import pandas as pd

REJECT_COLUMNS = ["source", "line", "image_id", "reason", "kind", "table"]
IMAGE_FOLDERS = ("images", "Images", "Flicker8k_Dataset", "Flickr8k_Dataset", "flickr30k-images", "flickr30k_images")
SPLIT_NAMES = {
    **{name: name for name in ("train", "val", "test")},
    **{"dev": "val", "valid": "val", "validation": "val", "restval": "train", "training": "train", "testing": "test"},
}
SPLIT_COLUMNS = ("split", "partition")
CELEBA_COLUMN = "partition"  # a column of this name holds CelebA's numbers
CELEBA_SPLITS = {"0": "train", "1": "val", "2": "test"}


def no_rejects() -> pd.DataFrame:
    """Return an empty table of rejects."""
    return reject_table([])


@dataclass(frozen=True)
class Parts:
    """What a reader returns.

    Args:
        images: DataFrame (image_id, path, split); split is None where the source gives none.
        captions: DataFrame (image_id, caption).
        rejects: what was left out, with the columns REJECT_COLUMNS.
        name: of the data set, for titles.
        integer_ids: the source's ids are whole numbers, as COCO's.
        attributes, boxes: as in `CaptionData`.
    """

    images: pd.DataFrame
    captions: pd.DataFrame
    rejects: pd.DataFrame = field(default_factory=no_rejects)
    name: str = ""
    integer_ids: bool = False
    attributes: pd.DataFrame | None = None
    boxes: pd.DataFrame | None = None


class Collector:
    """Collects the rows of one source; rejects duplicates, empty captions, and names outside the folder of images.

    Args:
        images: the folder that file names are in.

    Example:
        >>> collected = Collector(Path("photographs"))
        >>> collected.add("a.jpg", "a red hat", "captions.txt", line=1)
        >>> collected.add("../b.jpg", "a blue hat", "captions.txt", line=2)
        >>> len(collected.parts("mine").captions), len(collected.rejects)
        (1, 2)
    """

    def __init__(self, images: Path) -> None:
        self.images = images
        self.paths: dict[str, tuple[str, str | None]] = {}  # image_id -> path, split
        self.refused: dict[str, str] = {}  # image_id -> kind of reason
        self.captions: list[tuple[str, str]] = []
        self.rejects: list[tuple[str, int | None, str, str, str, str]] = []
        self._seen: set[tuple[str, object, str]] = set()

    def add(
        self, name: str, caption: object, source: Path | str, line: int | None = None, split: str | None = None
    ) -> None:
        """Add a caption, and its image where it is new.

        Args:
            name: file name of the image below the folder; it becomes the image_id.
            caption: text; anything else is listed as a reject.
            source, line: where it was read, for the rejects.
            split: "train", "val" or "test" of the image; None leaves it open.
        """
        if name not in self.paths and name not in self.refused:
            self.add_image(name, [name], split, source, line)
        self.add_caption(name, caption, source, line)

    def reject(
        self,
        kind: str,
        why: str,
        source: Path | str,
        line: int | None = None,
        image_id: str = "",
        table: str = "captions",
    ) -> None:
        """List a row that cannot be used.

        Args:
            kind: of reason, in two or three words that many rows share ("malformed row").
            why: what is wrong with this row.
            source, line, image_id: where it was read, and of which image.
            table: "captions", or "pictures" for an image.
        """
        reason = " ".join(f"{kind}: {why}".split()) if why else kind
        self.rejects.append((str(source), line, image_id, reason, kind, table))

    def add_image(
        self,
        image_id: str,
        names: Iterable[str],
        split: str | None,
        source: Path | str,
        line: int | None,
        where: str = "",
    ) -> bool:
        """Add an image whose file has one of `names` below the folder; the first of them where none is there.

        Returns:
            added: whether the image can be used; if not, it is listed in `rejects`.
        """
        if image_id in self.paths or image_id in self.refused:
            self.reject("duplicate image", f"{where}{quoted(image_id)} again", source, line, image_id, "pictures")
            return False
        if HALF_CHARACTER.search(image_id):  # such an id cannot be written to predictions or reports
            why = f"{where}half of a surrogate pair in the id {quoted(image_id)}: write another id"
            return self.refuse_image(image_id, "not UTF-8", why, source, line)
        try:
            paths = [inside_folder(self.images, name) for name in names]
        except ValueError as error:
            return self.refuse_image(image_id, "path leaves the folder", f"{where}{error}", source, line)
        path = next((path for path in paths if os.path.isfile(path)), paths[0])
        self.paths[image_id] = (str(path), split)
        return True

    def refuse_image(self, image_id: str, kind: str, why: str, source: Path | str, line: int | None) -> bool:
        """List an image that cannot be used, and return False; its captions will be listed too."""
        self.refused[image_id] = kind
        self.reject(kind, why, source, line, image_id, "pictures")
        return False

    def add_caption(
        self, image_id: str, caption: object, source: Path | str, line: int | None, where: str = "", key: object = None
    ) -> None:
        """Add a caption of an image; `key` is the source's own id of the row: two people may write the same."""

        def reject(kind: str, why: str) -> None:
            self.reject(kind, f"{where}{why}" if why else where.rstrip(": "), source, line, image_id)

        if image_id in self.refused:
            reject("caption of a rejected image", self.refused[image_id])
        elif image_id not in self.paths:
            reject("caption without image", f"no image has the id {quoted(image_id)}")
        elif is_missing(caption):
            reject("empty caption", "")
        elif not isinstance(caption, str):
            reject("malformed row", f"a caption of text expected, {type(caption).__name__} found")
        elif not has_text(caption):
            reject("empty caption", "")
        elif HALF_CHARACTER.search(caption):
            reject("not UTF-8", "half of a surrogate pair in the caption: save the file as UTF-8")
        elif (image_id, key, caption) in self._seen:
            reject("duplicate caption", "the same row is there already")
        else:
            self._seen.add((image_id, key, caption))
            self.captions.append((image_id, caption))

    def parts(self, name: str = "", integer_ids: bool = False) -> Parts:
        """Return what was collected."""
        import pandas as pd

        images = pd.DataFrame(
            {
                "image_id": pd.Series(list(self.paths), dtype=str),
                # Not text for pandas: where pyarrow is installed, a folder's name that is not UTF-8 would be an error.
                "path": pd.Series([path for path, _ in self.paths.values()], dtype=object),
                "split": pd.Series([split for _, split in self.paths.values()], dtype=object),
            }
        )
        captions = pd.DataFrame(self.captions, columns=["image_id", "caption"]).astype(str)
        return Parts(images, captions, reject_table(self.rejects), name, integer_ids)


def reject_table(rows: Iterable[tuple[Any, ...]]) -> pd.DataFrame:
    """Make a table of rejects, with the columns REJECT_COLUMNS; bytes that are not UTF-8 become escapes."""
    import pandas as pd

    plain = [tuple(_writable(cell) if isinstance(cell, str) else cell for cell in row) for row in rows]
    return pd.DataFrame(plain, columns=REJECT_COLUMNS).astype({"line": "Int64"})


def is_missing(cell: object) -> bool:
    """Whether a cell of a table is empty: None, NaN, or pandas' NA or NaT."""
    return cell is None or type(cell).__name__ in ("NAType", "NaTType") or (isinstance(cell, float) and cell != cell)


def image_id_of(cell: object) -> str:
    """Return the image_id that a cell with a file name stands for; "" where it holds none."""
    return os.fspath(cell).strip().replace("\\", "/") if isinstance(cell, str | os.PathLike) else ""


def split_of(value: object, column: str) -> str | None:
    """Read a cell of a split column: "train", "val" or "test"; None where the cell is empty.

    Args:
        value: text in any case ("Train", "dev", "restval"), or in a column named `partition` CelebA's 0, 1 or 2.
        column: name of the column.

    Raises:
        ValueError: anything else, such as 0, 1, 2 in a column of another name, True or False.

    Example:
        >>> split_of("Dev", "split"), split_of(2, "partition")
        ('val', 'test')
    """
    if is_missing(value):
        return None
    word = str(value).strip().lower()
    if isinstance(value, str) and (not word or word in SPLIT_NAMES):
        return SPLIT_NAMES.get(word)
    number = word.removesuffix(".0")
    if column.strip().lower() == CELEBA_COLUMN and number in CELEBA_SPLITS:
        return CELEBA_SPLITS[number]
    mend = f"; name the column {CELEBA_COLUMN!r} where they are CelebA's 0, 1, 2" if number in CELEBA_SPLITS else ""
    raise ValueError(f"split {quoted(value)}: train, val or test expected{mend}")


def _writable(text: str) -> str:
    """Without halves of surrogate pairs, which no UTF-8 file can hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def has_text(caption: str) -> bool:
    """Whether a caption has a word: "-", "..." or an emoji alone would be trained as the empty caption."""
    return bool(split_words(caption))


def image_folder(folder: Path) -> Path:
    """Return the folder of the images of a data set in `folder`: one of the usual names, or the folder itself."""
    for name in IMAGE_FOLDERS:
        if (folder / name).is_dir():
            nested = folder / name / name  # as one of the published archives unpacks
            return nested if nested.is_dir() else folder / name
    return folder
