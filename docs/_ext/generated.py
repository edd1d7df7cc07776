"""What the build makes: copies of the notebooks, a page of the API for each room of the package, and two drawings."""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import tomllib
from itertools import takewhile
from pathlib import Path
from typing import Any

from drawings import draw_rooms, draw_way

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "attncap"


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("config-inited", lambda app, _: make_pages(Path(app.srcdir)))
    app.connect("source-read", _link_to_copies)
    app.connect("source-read", _keep_numbers_together)
    app.connect("autodoc-process-docstring", _to_restructured_text, priority=100)  # before napoleon
    app.connect("autodoc-process-signature", _signature_of_init)
    return {"parallel_read_safe": True}


def make_pages(docs: Path) -> None:
    """Write notebooks/, api/ and drawn/ into the folder of the documentation."""
    for folder in ("notebooks", "api", "drawn"):
        (docs / folder).mkdir(exist_ok=True)
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text = notebook.read_text(encoding="utf-8").replace("](../docs/", "](../")
        _write(docs / "notebooks" / notebook.name, re.sub(r"\]\((\.\./)?README\.md\)", "](../index.md)", text))
    for room in rooms():
        _write(docs / "api" / f"{room}.rst", api_page(room))
    draw_rooms(PACKAGE, rooms(), docs / "drawn" / "rooms.svg")
    draw_way(docs / "drawn" / "way.svg")


def rooms() -> list[str]:
    """Name the rooms from the top floor down, as the import contract of pyproject.toml lists them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    floors = next(contract["layers"] for contract in contracts["contracts"] if contract["type"] == "layers")
    names = [name.strip("() ") for floor in floors for name in re.split("[:|]", floor)]
    return [name for name in names if (PACKAGE / name).is_dir()] + ["root"]


def api_page(room: str) -> str:
    """Return the page of a room: what its docstrings say of every public class and function."""
    if room == "root":
        files = sorted(file for file in PACKAGE.glob("*.py") if not file.name.startswith("__"))
    else:
        files = sorted((PACKAGE / room).rglob("*.py"))
    title = "attncap" if room == "root" else f"attncap.{room}"
    lines = [title, "=" * len(title), ""]
    for file in files:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if ast.get_docstring(tree) is None and file.name == "__init__.py":
            continue
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        heading = module.removeprefix(f"{title}.")
        if heading != title:
            lines += [heading, "-" * len(heading), ""]
        lines += [f".. automodule:: {module}", "   :members:", ""]
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line, for the page that is made of it."""
    from attncap.cli import main

    return main._parser()


# What stays on one line in a cell: "[0.1, 0.2]", "0.1 to 0.2", "1 / 2", "BLEU-4", "7.1e-11", dates; but code is left.
UNBROKEN = re.compile(r"`[^`]*`|(?<=\d)(?:,| to| /) (?=-?[\d.])|\bBLEU-(?=\d)|(?<=\d)e?-(?=\d)")


def _keep_numbers_together(_app: Any, _name: str, source: list[str]) -> None:
    """Let no line of a table's cell end inside a number, a score's name, or an interval."""

    def unbroken(found: re.Match[str]) -> str:
        return found[0] if found[0][0] == "`" else found[0].replace(" ", "\u00a0").replace("-", "\u2011")

    lines = source[0].split("\n")
    source[0] = "\n".join(UNBROKEN.sub(unbroken, line) if line.startswith("| ") else line for line in lines)


def _link_to_copies(_app: Any, _name: str, source: list[str]) -> None:
    # In the repository the pages link to ../notebooks; in the built documentation the copies lie below docs/.
    source[0] = source[0].replace("](../notebooks/", "](notebooks/")


SECTION = re.compile(r"(Args|Call arguments|Returns|Raises|Yields|Attributes|Notes?|Examples?|References?):$")
RETURNED = re.compile(r" {4}(\w[\w, ]*): (.*)")


def _to_restructured_text(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Make reStructuredText of a docstring, which is written to be read as it is in an editor.

    Code in single backticks becomes literal; stars, bars and underscores are no markup; a change of indentation begins
    a block of its own, or in a list of arguments goes on with the argument.
    """
    made: list[str] = []
    section, in_list, in_item, in_reference = "", False, False, False
    for number, line in enumerate(lines):
        text, indent = line.strip(), len(line) - len(line.lstrip())
        in_reference = bool(text) and (in_reference or text.startswith("Reference: "))
        if text and not indent:
            section = text if SECTION.fullmatch(text) else ""
            in_item = text.startswith("* ")
            following = list(takewhile(lambda line: line.startswith(" ") or not line, lines[number + 1 :]))
            in_list = text == "Returns:" and sum(RETURNED.match(line) is not None for line in following) > 1
        named = RETURNED.match(line) if in_list else None
        if named:  # several values: a list of them, in this order
            if made[-1].endswith("Returns:"):
                made += ["    in this order", ""]
            text, indent = f"* ``{named[1]}``: {_inline(named[2])}", 4
        elif in_reference:
            text, indent = _inline(text), 0
        elif (
            text and not section and indent and not in_item and not text.startswith("* ")
        ):  # an equation, or lines to keep as they are
            before = next((line for line in reversed(made) if line), "")
            if not before.startswith(" "):
                made += ["", "::", ""]
        elif text and not text.startswith((">>>", "...")):
            text = _inline(text)
        if in_list and not named and indent > 4:
            indent = 6
        if section and indent > 8:
            indent = 8
        if section == "Returns:" and not in_list and not text.startswith("* "):  # one value: its text goes on
            indent = min(indent, 4)
        if not section and text and not indent and made and made[-1].startswith(" "):
            made.append("")  # a literal block, or an item of a list, ends
        made.append(" " * indent + text)
    lines[:] = made


class _Annotation(str):
    """A type hint that is shown without quotation marks."""

    def __repr__(self) -> str:
        return str(self)


def _signature_of_init(_app: Any, what: str, _name: str, item: Any, *_: Any) -> tuple[str, None] | None:
    """Show a Keras layer's own arguments: Keras gives every layer a `__new__` of `(*args, **kwargs)`."""
    if what != "class" or not hasattr(item, "from_config"):
        return None
    signature = inspect.signature(item.__init__)
    parameters = [
        value.replace(annotation=_Annotation(value.annotation)) if isinstance(value.annotation, str) else value
        for name, value in signature.parameters.items()
        if name != "self"
    ]
    return str(signature.replace(parameters=parameters, return_annotation=signature.empty)), None


def _inline(text: str) -> str:
    parts = re.split(r"(``.+?``|`[^`]+`)", text)
    for i, part in enumerate(parts):
        if i % 2:
            after = parts[i + 1][:1]
            parts[i] = f"``{part.strip('`').strip()}``" + ("\\ " if after.isalnum() else "")
            if parts[i - 1][-1:].isalnum():
                parts[i] = "\\ " + parts[i]
        else:
            star = "* " if i == 0 and part.startswith("* ") else ""  # an item of a list
            rest = part[len(star) :].replace("\\", "\\\\")
            parts[i] = star + re.sub(r"([*|`]|_(?!\w))", r"\\\1", rest)
    return "".join(parts)


def _write(file: Path, text: str) -> None:
    if not file.exists() or file.read_text(encoding="utf-8") != text:  # an unchanged page is not built again
        file.write_text(text, encoding="utf-8")
