"""Formats of data sets by name: `@register_reader` adds one, from any file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from attncap.data.readers.base import Parts, image_folder
from attncap.plugins import import_entry_points, import_modules

ENTRY_POINTS = "attncap.readers"
_READERS: dict[str, Reader] = {}


@dataclass(frozen=True)
class Spec:
    """What `load` was asked for, `FORMAT:REST`.

    Args:
        text: the whole string, for messages.
        rest: what follows the first colon.
        form: how it is written, for messages.
        seed, folder: as given to `load`.
    """

    text: str
    rest: str
    form: str
    seed: int = 0
    folder: str | os.PathLike[str] | None = None

    def directory(self) -> Path:
        """Return `rest` as a folder.

        Raises:
            FileNotFoundError: it is none.
        """
        return existing_folder(self.rest, self.text)

    def files_and_images(self) -> tuple[list[Path], Path]:
        """Read `rest` as FILE[+FILE...][:IMAGES].

        Returns:
            files: at least one.
            images: the folder of the images; default `images` beside the first file, or the folder of that file.

        Raises:
            FileNotFoundError: a file or folder that does not exist.
            ValueError: more after the folder.
        """
        files, images, more = self.divide()
        if more:
            raise ValueError(f"{self.text!r}: {more!r} is too much: write {self.form}")
        return files, images

    def file_and_images(self) -> tuple[Path, Path]:
        """Read `rest` as FILE[:IMAGES]; see `files_and_images`."""
        files, images = self.files_and_images()
        if len(files) > 1:
            raise ValueError(f"{self.text!r}: one file expected, {len(files)} found: write {self.form}")
        return files[0], images

    def divide(self) -> tuple[list[Path], Path, str]:
        """Read `rest` as FILE[+FILE...][:IMAGES][:MORE]; see `files_and_images`."""
        if not self.rest:
            raise ValueError(f"{self.text!r}: a file expected after {self.text}: write {self.form}")
        files, after = self._leading_files()
        if not after:
            return files, image_folder(files[0].parent), ""
        pieces = _pieces(after)
        for count in range(len(pieces), 0, -1):
            if os.path.isdir(":".join(pieces[:count])):
                return files, Path(":".join(pieces[:count])), ":".join(pieces[count:])
        raise FileNotFoundError(f"{self.text!r}: {pieces[0]!r} is no folder: name the folder that the images are in")

    def _leading_files(self) -> tuple[list[Path], str]:
        pieces = _pieces(self.rest)
        for count in range(1, len(pieces) + 1):
            front, after = ":".join(pieces[:count]), ":".join(pieces[count:])
            if os.path.isfile(front):
                return [Path(front)], after
            if all(os.path.isfile(name) for name in front.split("+")):
                return [Path(name) for name in front.split("+")], after
        missing = next(name for name in pieces[0].split("+") if not os.path.isfile(name))
        raise FileNotFoundError(f"{self.text!r}: {missing!r} is no file: write {self.form}")


@dataclass(frozen=True)
class Reader:
    """A format of data sets.

    Args:
        name: the part of a spec before the first colon.
        form: how a spec is written.
        help: what the format is, in one line.
        read: from a spec to tables.
        guess: from a folder to the `rest` of each data set of this format in it.
        order: formats with a smaller number are guessed first.
    """

    name: str
    form: str
    help: str
    read: Callable[[Spec], Parts]
    guess: Callable[[Path], list[str]]
    order: int


def register_reader(
    name: str, form: str, guess: Callable[[Path], list[str]] | None = None, order: int = 0
) -> Callable[[Callable[[Spec], Parts]], Callable[[Spec], Parts]]:
    """Register a reader, so that `load` and every `--data` know it by name.

    Args:
        name: lower-case letters, digits and hyphens; a spec begins with it and a colon.
        form: how a spec is written, as "jsonl:FILE:IMAGES".
        guess: function from a folder to the specs, without the name and the first colon, of the data sets of this
            format in it. Without it, a folder is never taken for this format.
        order: when a folder is given without a format, formats with a smaller number are asked first. Those of the
            package have 10 (the most exact) to 40 (any table).

    Returns:
        A decorator for a function from a `Spec` to `Parts`. The first line of its docstring is the format's help.

    Raises:
        ValueError: another form of name, or a name that another reader has.

    Example:
        >>> @register_reader("jsonl", "jsonl:FILE:IMAGES")
        ... def read_jsonl(spec: Spec) -> Parts:
        ...     ...
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+|[a-z0-9]{2,}", name):  # one letter is a drive, as in C:\images
        raise ValueError(f"the name of a reader has lower-case letters, digits and hyphens, at least 2, got {name!r}")

    def register(read: Callable[[Spec], Parts]) -> Callable[[Spec], Parts]:
        known = _READERS.get(name)
        if known is not None and known.read.__qualname__ != read.__qualname__:
            raise ValueError(f"a reader named {name!r} exists: {known.read.__module__}.{known.read.__qualname__}")
        help_line = (read.__doc__ or "").strip().partition("\n")[0]
        _READERS[name] = Reader(name, form, help_line, read, guess or (lambda folder: []), order)
        return read

    return register


def readers(installed: bool = True) -> list[Reader]:
    """Return all readers in the order of guessing: of this folder, of loaded plugins, and of installed packages.

    Args:
        installed: import what other packages offer under the entry point `attncap.readers`.
    """
    import_modules("attncap.data.readers")
    if installed:
        import_entry_points(ENTRY_POINTS)
    return sorted(_READERS.values(), key=lambda reader: reader.order)


def reader_of(text: str) -> tuple[Reader, str] | None:
    """Return the reader that a spec names, and the rest of the spec; None where it names none."""
    name, colon, rest = text.partition(":")
    known = (reader for installed in (False, True) for reader in readers(installed))
    reader = next((reader for reader in known if reader.name == name), None)
    if reader is None or (not colon and reader.form.startswith(f"{name}:")):
        return None
    return reader, rest


def guess_format(folder: str | os.PathLike[str]) -> str:
    """Find the spec of the data set in a folder.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no known format is there, or more than one data set; the message lists them.

    Example:
        >>> guess_format("flickr8k")
        'flickr8k:flickr8k'
    """
    place = Path(folder)
    if not place.is_dir():
        raise FileNotFoundError(f"{os.fspath(folder)!r} is no folder")
    for reader in readers():
        found = [f"{reader.name}:{rest}" for rest in reader.guess(place)]
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"{place}: {len(found)} data sets are in it: name one: {', '.join(found[:10])}")
    raise ValueError(f"{place}: no data set of a known format is in it: name format and file: {forms()}")


def forms() -> str:
    """Return how the specs of all formats are written, for messages and help."""
    return ", ".join(reader.form for reader in readers(installed=False))


def formats() -> str:
    """Return a line on each format, for help texts."""
    return "\n".join(f"  {reader.form}\n      {reader.help}" for reader in readers(installed=False))


def existing_folder(text: str, spec: str) -> Path:
    """Return a folder; FileNotFoundError where it is none."""
    if not text or not os.path.isdir(text):
        raise FileNotFoundError(f"{spec!r}: {text!r} is no folder: name the folder that the files are in")
    return Path(text)


def _pieces(text: str) -> list[str]:
    """Parts between colons; the colon of a drive (`C:\\images`) divides nothing."""
    pieces: list[str] = []
    for piece in text.split(":"):
        drive = bool(pieces) and len(pieces[-1].rpartition("+")[2]) == 1 and pieces[-1][-1].isalpha()
        if drive and piece.startswith(("\\", "/")):
            pieces[-1] += f":{piece}"
        else:
            pieces.append(piece)
    return pieces
