"""Check a data set before training: decode every image, and list what is left out and why."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from attncap._messages import quoted
from attncap.data.dataset import CaptionData
from attncap.data.readers.base import REJECT_COLUMNS, has_text, reject_table
from attncap.images import IMAGE_ENDINGS, UnreadableImage, image_bytes, open_image

CHECKED_AT_ONCE = 1024  # images handed to the threads at a time, so that memory does not grow with the data set
DECODE_SIZE = (299, 299)  # every byte is read at any size; a large JPEG decodes faster at a smaller one
Finding = tuple[Any, ...]  # in the order of REJECT_COLUMNS


def check(data: CaptionData, workers: int | None = None, progress: bool = True) -> tuple[CaptionData, pd.DataFrame]:
    """Decode every image, and separate what can be used from what cannot.

    Left out, and listed in the clean data's `rejects`: images that are missing, unreadable or without caption;
    captions without a word, or of an image that is left out. Reported but kept: images with identical files (this
    matters most across splits) and a caption that an image has twice (two people may write the same). Image files that
    no row names are reported too. Rows that the reader rejected are reported as well.

    Every row of `data` is in the clean tables or in `rejects`, once.

    Args:
        data: from `load`, or made by hand.
        workers: threads that decode; default one per core, at most 8.
        progress: show a bar with images/s.

    Returns:
        clean: the data without what was left out, which is added to its `rejects`.
        report: one row per finding: the columns of `rejects`, and `rejected` (False for what is only reported).

    Example:
        >>> clean, report = check(load("flickr8k:flickr8k"))
        >>> print(check_summary(clean, report))
        >>> clean.write_rejects("rejects.csv")
    """
    if not isinstance(data, CaptionData):
        raise TypeError(f"data: a CaptionData expected, got {quoted(data)}: load it first (attncap.data.load.load)")
    found: list[Finding] = []
    notes: list[Finding] = []
    filled = [has_text(text) for text in data.captions["caption"]]
    captioned = set(data.captions.loc[filled, "image_id"])
    refused, images_kept = _check_images(data, captioned, workers, progress, found, notes)
    captions_kept = _check_captions(data, filled, refused, found, notes)
    notes += _unnamed_files(data)
    # As arrays: an empty list would choose no columns where there are no rows.
    pictures = data.pictures[np.array(images_kept, bool)].reset_index(drop=True)
    captions = data.captions[np.array(captions_kept, bool)]
    rejects = pd.concat([data.rejects, reject_table(found)], ignore_index=True) if found else data.rejects
    clean = replace(data.only(pictures["image_id"]), captions=captions.reset_index(drop=True), rejects=rejects)
    report = pd.concat([rejects.assign(rejected=True), reject_table(notes).assign(rejected=False)], ignore_index=True)
    return clean, report.astype({"rejected": bool})


def leave_out(data: CaptionData, reasons: Mapping[str, str]) -> CaptionData:
    """Leave out images that turned out to be unreadable after `check`, and list them and their captions.

    Args:
        data: the data.
        reasons: path of an image -> why it cannot be read; paths that are not in `data` are ignored.

    Returns:
        The data without these images; every row that was left out is in `rejects`, once.

    Example:
        >>> kept = leave_out(data, {"images/7.jpg": "empty file (0 bytes): copy it again"})
        >>> kept.rejects["kind"].tolist()
        ['unreadable image', 'caption of a rejected image', 'caption of a rejected image']
    """
    found: list[Finding] = []
    refused: dict[str, str] = {}
    for image_id, path in zip(data.pictures["image_id"], data.pictures["path"], strict=True):
        if path in reasons:
            refused[image_id] = _kind_of_unreadable(path)
            found.append(_finding(path, image_id, refused[image_id], reasons[path], "pictures"))
    if not found:
        return data
    for image_id in data.captions["image_id"]:
        if image_id in refused:
            kind = "caption of a rejected image"
            found.append(_finding(data.name, image_id, kind, refused[image_id], "captions"))
    kept = data.only(image_id for image_id in data.pictures["image_id"] if image_id not in refused)
    return replace(kept, rejects=pd.concat([data.rejects, reject_table(found)], ignore_index=True))


def check_summary(clean: CaptionData, report: pd.DataFrame, examples: int = 3) -> str:
    """Return the report in a few lines, for the command line: the count of every kind and its first examples."""
    lines = [clean.summary()]
    for (kind, rejected), rows in report.groupby(["kind", "rejected"], sort=False):
        lines.append(f"  {len(rows):>7,}  {kind}{'' if rejected else ' (only noted)'}")
        for source, line, image_id, reason in rows[REJECT_COLUMNS[:4]].head(examples).itertuples(index=False):
            place = source if pd.isna(line) else f"{source}, line {line}"
            lines.append(f"           {place}: {reason.removeprefix(kind).lstrip(': ') or image_id}")
        lines += ["           ..."] * (len(rows) > examples)
    return "\n".join(lines if len(report) else [*lines, "  nothing to report"])


def _kind_of_unreadable(path: str) -> str:
    return "unreadable image" if os.path.exists(path) else "missing image"


def _finding(source: str, image_id: str, kind: str, why: str, table: str) -> Finding:
    return source, pd.NA, image_id, f"{kind}: {why}" if why else kind, kind, table


def _check_images(
    data: CaptionData,
    captioned: set[str],
    workers: int | None,
    progress: bool,
    found: list[Finding],
    notes: list[Finding],
) -> tuple[dict[str, str], list[bool]]:
    """Return the refused images, image_id -> kind of reason, and which rows of the table stay."""
    refused: dict[str, str] = {}
    kept: list[bool] = []
    first_with: dict[bytes, tuple[str, str]] = {}
    rows = zip(data.pictures["image_id"], data.pictures["path"], data.pictures["split"], strict=True)
    for (image_id, path, split), (digest, problem) in zip(rows, _decoded(data, workers, progress), strict=True):
        kind, why = "", ""
        if problem is not None:
            kind, why = _kind_of_unreadable(path), problem
        elif image_id not in captioned:
            kind = "image without caption"
        kept.append(not kind)
        if kind:
            found.append(_finding(path, image_id, kind, why, "pictures"))
            refused[image_id] = kind
        else:
            twin, twin_split = first_with.setdefault(digest, (image_id, split))
            if twin != image_id:
                kind = "same contents in two splits" if split != twin_split else "same contents"
                notes.append(_finding(path, image_id, kind, f"{split}, as {quoted(twin)} in {twin_split}", "pictures"))
    return refused, kept


def _check_captions(
    data: CaptionData, filled: list[bool], refused: dict[str, str], found: list[Finding], notes: list[Finding]
) -> list[bool]:
    said: set[tuple[str, str]] = set()
    kept: list[bool] = []
    for image_id, caption, is_filled in zip(data.captions["image_id"], data.captions["caption"], filled, strict=True):
        kind, why = "", ""
        if not is_filled:
            kind = "empty caption"
        elif image_id in refused:
            kind, why = "caption of a rejected image", refused[image_id]
        elif (image_id, caption) in said:
            notes.append(_finding(data.name, image_id, "same caption twice", caption[:80], "captions"))
        said.add((image_id, caption))
        kept.append(not kind)
        if kind:
            found.append(_finding(data.name, image_id, kind, why, "captions"))
    return kept


def _decoded(data: CaptionData, workers: int | None, progress: bool) -> Iterator[tuple[bytes, str | None]]:
    """Yield (digest of the file, what is wrong with it or None) of every image, in the table's order."""

    def decode(path: str) -> tuple[bytes, str | None]:
        try:
            contents = image_bytes(path)
            open_image(path, contents, target_size=DECODE_SIZE)
            return hashlib.blake2b(contents, digest_size=16).digest(), None
        except UnreadableImage as error:
            return b"", error.reason

    paths = data.pictures["path"].tolist()
    bar = tqdm(total=len(paths), unit=" images", desc="checking", disable=not progress)
    with bar, ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as threads:
        for start in range(0, len(paths), CHECKED_AT_ONCE):
            for result in threads.map(decode, paths[start : start + CHECKED_AT_ONCE]):
                yield result
                bar.update()


def _unnamed_files(data: CaptionData) -> list[Finding]:
    named = {os.path.basename(image_id) for image_id in data.rejects["image_id"]}
    paths = data.pictures["path"].tolist()
    named.update(os.path.basename(path) for path in paths)
    notes = []
    for folder in sorted({os.path.dirname(path) for path in paths}):
        if not os.path.isdir(folder or "."):
            continue
        for name in sorted(os.listdir(folder or ".")):
            if name.lower().endswith(IMAGE_ENDINGS) and name not in named and not name.startswith("."):
                path = os.path.join(folder, name)
                notes.append(_finding(path, "", "file without caption", "no row of the data names it", "files"))
    return notes
