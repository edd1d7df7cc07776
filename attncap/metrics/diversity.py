"""How varied captions are: distinct captions, distinct n-grams, and the share of the most common claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from attncap.characteristics.lexicon import Lexicon
from attncap.metrics.characteristics import claims_of
from attncap.metrics.ptb_tokenizer import tokenize


def diversity(captions: Iterable[str], lexicon: Lexicon | None = None, top: int = 5) -> dict[str, float]:
    """Measure how varied a system's captions are.

    Args:
        captions: one per image.
        lexicon: what phrases state; None splits texts at separators.
        top: number of claims in `top_share`.

    Returns:
        distinct: share of captions that differ from all others before them; div_1, div_2: different words and pairs
        of words over their number; top_share: share of the most common claims among all claims; kinds: number of
        different claims.

    Example:
        >>> diversity(["a hat", "a hat", "a cap"])["div_1"]
        0.5

    Reference: Shetty et al. 2017 for Div-1 and Div-2, here over all captions of a system.
    """
    texts = list(captions)
    words = [tokenize(text).split() for text in texts]
    claims = Counter(claim for text in texts for claim in claims_of([text], lexicon))
    total = sum(claims.values())
    return {
        "distinct": len({" ".join(caption) for caption in words}) / max(len(texts), 1),
        "div_1": _share(word for caption in words for word in caption),
        "div_2": _share(pair for caption in words for pair in zip(caption, caption[1:], strict=False)),
        "top_share": sum(count for _, count in claims.most_common(top)) / max(total, 1),
        "kinds": len(claims),
    }


def _share(items: Iterable[object]) -> float:
    found = list(items)
    return len(set(found)) / max(len(found), 1)
