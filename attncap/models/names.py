"""Names of captioners, known without importing Keras, so that a wrong name is refused before the backend loads."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from attncap.plugins import import_entry_points

ENTRY_POINTS = "attncap.captioners"
REGISTERED: dict[str, type] = {}  # name -> class, filled by `register_captioner` as modules are imported
_DECORATOR = re.compile(r'^@register_captioner\("([a-z0-9-]+)"\)', re.MULTILINE)


@cache
def own_captioners() -> dict[str, str]:
    """Return name -> module of the captioners in this folder, read from the text of its files."""
    found = {}
    for file in sorted(Path(__file__).parent.glob("*.py")):
        for name in _DECORATOR.findall(file.read_text(encoding="utf-8")):
            found[name] = f"attncap.models.{file.stem}"
    return found


def check_captioner_name(name: str) -> None:
    """Refuse a name that no captioner has; imports Keras only where an entry point may know the name.

    Raises:
        ValueError: no such captioner.
    """
    if name in own_captioners() or name in REGISTERED:
        return
    import_entry_points(ENTRY_POINTS)
    if name not in REGISTERED:
        raise ValueError(unknown_captioner(name, {**own_captioners(), **REGISTERED}))


def unknown_captioner(name: str, known: Iterable[str]) -> str:
    """Return the message for a name that no captioner has, with the names that are known."""
    return f"model is one of {', '.join(sorted(known))}, got {name!r}; a captioner of your own comes with --plugin FILE"
