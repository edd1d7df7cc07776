"""Text from files in messages: on one line, and never long."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Sized
from itertools import islice
from typing import Any

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80


def quoted(value: Any) -> str:
    """Quote a value as `repr` does, on one line; the middle of a long one is left out.

    Example:
        >>> quoted("a\\nb")
        "'a\\\\nb'"
    """
    return _REPR.repr(value).replace("\n", " ")  # the repr of a table has lines


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 200 letters; of an error without one, its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def listed(names: Iterable[Any], most: int = 30) -> str:
    """List names, such as those of columns, without quotation marks; those after the first 30 are counted.

    Example:
        >>> listed(["file", "caption"])
        'file, caption'
    """
    names = names if isinstance(names, Sized) else list(names)
    shown = [quoted(str(name))[1:-1] for name in islice(names, most)]
    return ", ".join([*shown, f"and {len(names) - most} more"] if len(names) > most else shown)
