"""Equations as MathML, which browsers draw by themselves: the pages load nothing from outside."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
    return {"parallel_read_safe": True}


def _inline(writer: Any, node: nodes.Node) -> None:
    writer.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.Node) -> None:
    for equation in node.astext().split("\n\n"):
        writer.body.append(convert(equation, display="block"))
    raise nodes.SkipNode
