"""The page of the command line: options in its texts are code, and an example wraps at spaces, not inside an option."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes

CODE = re.compile(r"`([^`]+)`|(?<![\w-])(--[a-z][\w-]*)")


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("doctree-read", _mark_up)
    return {"parallel_read_safe": True}


def _mark_up(app: Any, doctree: Any) -> None:
    if app.env.docname != "command_line":
        return
    for block in list(doctree.findall(nodes.literal_block)):
        parts = block.astext().strip().split("\n\n")
        if parts[0].startswith("example:") and len(parts) == 1:
            block["language"] = "sh"  # the words and spaces of a command are then elements of their own
        elif not parts[0].startswith(("example:", "attncap ")):  # a description of several paragraphs
            block.replace_self([nodes.paragraph("", nodes.Text(part)) for part in parts])
    for text in list(doctree.findall(nodes.Text)):
        if isinstance(text.parent, nodes.paragraph) and CODE.search(text):
            text.parent.replace(text, _with_code(str(text)))
        elif isinstance(text.parent, nodes.inline) and CODE.fullmatch(text):  # by sphinx-argparse-cli, in plain type
            text.parent.replace_self(nodes.literal(str(text), str(text)))


def _with_code(text: str) -> list[nodes.Node]:
    """Return a text as nodes, with its options and what stands in backticks as code."""
    parts: list[nodes.Node] = []
    end = 0
    for found in CODE.finditer(text):
        code = found[1] or found[2]
        parts += [nodes.Text(text[end : found.start()]), nodes.literal(code, code)]
        end = found.end()
    return [*parts, nodes.Text(text[end:])]
