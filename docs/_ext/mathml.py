"""Equations as MathML, which browsers draw by themselves: the pages load nothing from outside."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
    return {"parallel_read_safe": True}


def _names(equation: str) -> str:
    """Write a name of several letters as one text, not letter by letter as latex2mathml does."""
    return re.sub(r"\\(?:mathrm|text)\{([^{}]*)\}", lambda name: rf"\text{{{name[1]}}}".replace(r"\_", "_"), equation)


def _inline(writer: Any, node: nodes.Node) -> None:
    writer.body.append(convert(_names(node.astext())))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.Node) -> None:
    for equation in node.astext().split("\n\n"):
        writer.body.append(convert(_names(equation), display="block"))
    raise nodes.SkipNode
