"""Read text and JSON files of data sets; errors name file and place."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BYTE_OF_ANOTHER_ENCODING = re.compile("[\udc80-\udcff]")


def read_lines(path: Path) -> list[str]:
    """Read the lines of a UTF-8 file, without byte order mark and line ends.

    A byte that is not UTF-8 comes as a lone surrogate U+DC80 to U+DCFF (Python's `surrogateescape`), so that the
    caller can list the line by its number; nothing is guessed.
    """
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError(f"{path}, line 1: UTF-8 expected, UTF-16 found: save the file as UTF-8")
    lines = data.removeprefix(b"\xef\xbb\xbf").splitlines()
    return [line.decode("utf-8", "surrogateescape") for line in lines]


def foreign_byte(text: str) -> str | None:
    """Say what is wrong with a line that `read_lines` could not decode; None where it could."""
    found = BYTE_OF_ANOTHER_ENCODING.search(text)
    if found is None:
        return None
    return f"byte 0x{ord(found.group()) - 0xDC00:02x} at character {found.start() + 1}: save the file as UTF-8"


def read_sound_lines(path: Path) -> list[str]:
    """Read the lines of a UTF-8 file as `read_lines` does; ValueError names the line with a byte that is not UTF-8."""
    lines = read_lines(path)
    for number, line in enumerate(lines, start=1):
        foreign = foreign_byte(line)
        if foreign:
            raise ValueError(f"{path}, line {number}: {foreign}")
    return lines


def read_json(path: Path) -> Any:
    """Read a UTF-8 JSON file; ValueError names the file and the line."""
    data = path.read_bytes()
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line}: UTF-8 expected, byte 0x{data[error.start]:02x} found: save it as UTF-8"
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}, line {error.lineno}: not JSON ({error.msg}): truncated, or another format?"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON that can be read ({error})") from None


def member(path: Path, holder: Any, where: str, key: str, *kinds: type) -> Any:
    """Return `holder[key]`, which is of one of `kinds`; ValueError names the file and the place in it."""
    names = " or ".join({"int": "a whole number", "str": "text", "list": "a list"}[kind.__name__] for kind in kinds)
    place = f"{where}.{key}" if where else key
    if not isinstance(holder, dict):
        raise ValueError(
            f"{path}, {where or 'top level'}: an object with {key!r} expected, {type(holder).__name__} found"
        )
    if key not in holder:
        raise ValueError(f"{path}, {place}: {names} expected, nothing found")
    value = holder[key]
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise ValueError(f"{path}, {place}: {names} expected, {type(value).__name__} found")
    return value


def items(path: Path, contents: Any, where: str, key: str) -> Iterator[tuple[str, Any]]:
    """Yield (place in the file, item) of the list `contents[key]`."""
    found = member(path, contents, where, key, list)
    return ((f"{where}.{key}[{i}]" if where else f"{key}[{i}]", item) for i, item in enumerate(found))


def json_files(folder: Path, *keys: str) -> list[Path]:
    """List the JSON files in a folder, and in `annotations` below it, that have all of these keys.

    The keys are looked for in the first and the last 64 KiB: these files have hundreds of megabytes.
    """

    def has_keys(path: Path) -> bool:
        with open(path, "rb") as file:
            text = file.read(1 << 16)
            file.seek(max(0, path.stat().st_size - (1 << 16)))
            text += file.read()
        return all(f'"{key}"'.encode() in text for key in keys)

    return [path for path in files_beside(folder, ".json") if has_keys(path)]


def files_beside(folder: Path, *endings: str) -> list[Path]:
    """List the files with these endings in a folder, and in `annotations` below it."""
    folders = [place for place in (folder, folder / "annotations") if place.is_dir()]
    return sorted(
        path
        for place in folders
        for path in place.iterdir()
        if path.suffix.lower() in endings and path.is_file() and not path.name.startswith(".")
    )
