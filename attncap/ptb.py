"""Words of a caption as the COCO tools count them: Penn Treebank tokens, lower case, most punctuation left out."""

from __future__ import annotations

import re

_PIECE = re.compile(r"[a-z0-9]+(?=n't\b)|n't\b|'(?:s|m|d|ll|re|ve)\b|\w+(?:[-/&.]\w+)*|[^\s\w]")
_PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])


def tokenize(text: str) -> str:
    """Words joined by blanks."""
    return " ".join(token for token in _PIECE.findall(text.lower()) if token not in _PUNCTUATION)
