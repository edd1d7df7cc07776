"""Files that commands write: checked before the work, named after images, rejects beside them."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from attncap._files import check_output, check_output_folder, write_rejects


def report_rejects(out: str, rejects: Any, why: str | None = None) -> None:
    """List rejected images beside an output, in NAME.rejects.csv, and print how many there are, and why."""
    listed = Path(out).with_suffix(".rejects.csv")
    if write_rejects(listed, rejects):
        first = rejects.iloc[0]
        why = why or f"cannot be read (first {first['path']}: {first['reason']})"
        print(f"{len(rejects)} images {why}: see {listed}", file=sys.stderr)


def heatmap_files(out: Path, image_ids: Sequence[str]) -> list[Path]:
    """Name a figure for each image: `out` for a single one, else NAME_image.png; no two are equal.

    Example:
        >>> [str(file) for file in heatmap_files(Path("map.png"), ["a.jpg", "b.jpg", "b.png"])]
        ['map_a.png', 'map_b.jpg.png', 'map_b.png.png']
    """
    if len(image_ids) == 1:
        return [out]
    paths = list(map(PurePosixPath, image_ids))
    names = [image_id.replace("/", "_") for image_id in image_ids]
    for shorter in ([str(path.with_suffix("")).replace("/", "_") for path in paths], [path.stem for path in paths]):
        counts = Counter(name.lower() for name in shorter)  # on some systems upper and lower case are one name
        names = [new if counts[new.lower()] == 1 else old for new, old in zip(shorter, names, strict=True)]
    taken: set[str] = set()
    for at, name in enumerate(names):
        number = 2
        while names[at].lower() in taken:
            names[at], number = f"{name}_{number}", number + 1
        taken.add(names[at].lower())
    return [out.with_name(f"{out.stem}_{name}{out.suffix}") for name in names]


class OutputFile(str):
    """The value of an option that names a file to write: `type=OutputFile`; see `check_outputs`."""


class OutputFigure(OutputFile):
    """The value of an option that names a figure to write, in a format that its ending tells; see `check_outputs`."""


class OutputFolder(str):
    """The value of an option that names a folder to write to, made where it is missing; see `check_outputs`."""


def check_outputs(options: argparse.Namespace) -> None:
    """Refuse files and folders that cannot be written, and files that another option names as an input.

    Raises:
        ValueError: the output is an input, or a figure of an unknown format.
        OSError: it cannot be written.
    """
    given = vars(options)
    values = [value if isinstance(value, list) else [value] for value in given.values()]
    texts = [text for several in values for text in several if type(text) is str]  # outputs are of their own types
    parts = {part for text in texts for part in (text, *text.split(":"), *text.replace("+", ":").split(":"))}
    for name, out in given.items():
        option = f"--{name.removesuffix('_folder').replace('_', '-')}"
        if isinstance(out, OutputFolder):
            check_output_folder(out, option)
        elif isinstance(out, OutputFile):
            if os.path.exists(out) and any(os.path.isfile(part) and os.path.samefile(part, out) for part in parts):
                raise ValueError(f"{option} {out} is the input: name another file, it would be overwritten")
            check_output(out, option)
            if isinstance(out, OutputFigure):
                from attncap.plotting.style import figure_format

                figure_format(out)
