"""Names of captioners, known without importing Keras: wrong arguments are refused before the backend loads."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

ENTRY_POINTS = "attncap.captioners"
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
    """Refuse a name that no captioner has; imports Keras only where a plugin or an entry point could know the name.

    Raises:
        ValueError: no such captioner.
    """
    if name in own_captioners():
        return
    if "attncap.models.registry" in sys.modules or entry_points(group=ENTRY_POINTS):
        from attncap.models.registry import captioner_class

        captioner_class(name)
        return
    raise ValueError(unknown_captioner(name, own_captioners()))


def unknown_captioner(name: str, known: Iterable[str]) -> str:
    """Return the message that refuses the name of a captioner, beside the names that are known."""
    return f"model is one of {', '.join(sorted(known))}, got {name!r}; a captioner of your own comes with --plugin FILE"
