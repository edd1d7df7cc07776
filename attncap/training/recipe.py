"""Recipes: the settings of a training in a TOML file, each line with its reason, for `attncap train --config`.

Recipes of attncap are in `attncap/training/recipes/` and are named; others are given by their path.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from attncap.training.config import RENAMED, TrainConfig, kinds_of

# Options of `attncap train` beside the settings of `TrainConfig`.
OF_COMMAND: dict[str, tuple[type, ...]] = dict.fromkeys(("data", "features", "features_file", "boxes"), (str,))


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with attncap."""
    return sorted(file.name.removesuffix(".toml") for file in _folder().iterdir() if file.name.endswith(".toml"))


def read_recipe(recipe: str | Path) -> dict[str, Any]:
    """Read a recipe: settings of `TrainConfig`, and `data`, `features`, `features_file` and `boxes` of `attncap train`.

    Args:
        recipe: name of one that comes with attncap, such as "flickr8k"; or the path of a TOML file, ending in `.toml`.

    Returns:
        settings: by name, of the types that `TrainConfig` has.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such recipe, not TOML, an unknown setting, a value of another type: with the file and the line.

    Example:
        >>> TrainConfig.from_dict(read_recipe("flickr8k")).layer
        'mixed8'
    """
    where, text = _text_of(recipe)
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{where}: not TOML: {error}; lines NAME = VALUE expected, texts in quotes") from error
    kinds = kinds_of(TrainConfig) | OF_COMMAND
    return {
        RENAMED.get(name, name): _checked(RENAMED.get(name, name), value, kinds, where, text, name)
        for name, value in settings.items()
    }


def _folder() -> Any:
    return resources.files("attncap.training") / "recipes"


def _text_of(recipe: str | Path) -> tuple[str, str]:
    if str(recipe).endswith(".toml"):
        path = Path(recipe)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such recipe file")
        try:
            return str(path), path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not UTF-8 text ({error})") from error
    names = recipe_names()
    if str(recipe) not in names:
        raise ValueError(
            f"no recipe is named {str(recipe)!r}{_nearest(str(recipe), names)}: choose one of {', '.join(names)}, or "
            "give the path of a file that ends in .toml"
        )
    name = f"{recipe}.toml"
    return f"attncap/recipes/{name}", (_folder() / name).read_text(encoding="utf-8")


def _checked(name: str, value: Any, kinds: dict[str, tuple[type, ...]], where: str, text: str, written: str) -> Any:
    place = f"{where}, {_line_of(written, text)}"
    if isinstance(value, dict):
        raise ValueError(f"{place}: [{name}] begins a table: plain lines NAME = VALUE expected, no tables")
    if name not in kinds:
        nearest = _nearest(name.replace("-", "_"), kinds)
        known = "" if nearest else f"; known are {', '.join(kinds)}"
        raise ValueError(f"{place}: no setting is named {name!r}{nearest}{known}")
    allowed = kinds[name]
    if type(value) in allowed:
        return value
    if float in allowed and type(value) is int:  # 2 for 2.0; true is no number
        return float(value)
    expected = " or ".join(_SAID[one] for one in allowed)
    found = _SAID.get(type(value), type(value).__name__)
    raise ValueError(f"{place}: {name} is {found} {value!r}; {expected} expected")


_SAID = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", list: "a list"}


def _line_of(name: str, text: str) -> str:
    # tomllib tells no lines: the first that sets the name, or begins the table of it.
    own = re.compile(rf"""\s*\[*\s*["']?{re.escape(name)}["']?\s*[=.\]]""")
    numbers = (number for number, line in enumerate(text.splitlines(), start=1) if own.match(line))
    return f"line {next(numbers, '?')}"


def _nearest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
