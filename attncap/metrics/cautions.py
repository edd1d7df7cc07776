"""Notes on what makes scores unreliable, for the reader of an evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from attncap.metrics.references import Candidates
from attncap.words import has_no_spaces

FEW_IMAGES = 100  # below it CIDEr's document frequencies are mostly 1
LEAST_VARIETY = 20  # fewest images to judge variety from
FEW_DISTINCT = 0.05  # share of distinct captions below which captions are called collapsed
SHORT_SHARE = 0.5  # of the texts shorter than n words


def cautions(candidates: Candidates, scores: set[str]) -> list[str]:
    """Return what a reader should know about the scores of these captions, one sentence or two each.

    Args:
        candidates: captions and references.
        scores: names of the scores that are computed.
    """
    notes = []
    n = len(candidates)
    if n < FEW_IMAGES and "cider_d" in scores:
        notes.append(
            f"CIDEr is unreliable here: its document frequencies come from {n} images; use at least {FEW_IMAGES}."
        )
    short = [order for order in (2, 3, 4) if f"bleu_{order}" in scores and _short(candidates, order)]
    if short:
        names = ", ".join(f"BLEU-{order}" for order in short)
        notes.append(
            f"{names}: more than half of the captions, or of the references, have fewer than {short[0]} words. "
            "Such scores are mostly noise; read BLEU-1 and ROUGE-L."
        )
    collapsed = collapse_of(candidates.tokenized)
    if collapsed:
        notes.append(f"{collapsed}.")
    if _without_spaces(candidates):
        notes.append(
            "The references have no spaces between words, so that a whole text counts as one word: put spaces between "
            "the words of both sides, or give References a tokenizer of the language. Captioners of such texts are "
            "trained with word pieces (attncap train --set tokenizer=wordpiece)."
        )
    return notes


def collapse_of(captions: Sequence[str]) -> str | None:
    """Warn that a system repeats its captions; None if they vary or if there are too few images to tell.

    Args:
        captions: one per image.
    """
    counted = Counter(captions)
    if len(captions) < LEAST_VARIETY or len(counted) > max(1, FEW_DISTINCT * len(captions)):
        return None
    caption, times = counted.most_common(1)[0]
    distinct = f"{len(counted)} distinct caption{'s' * (len(counted) > 1)} for {len(captions)} images"
    return f"The captions have collapsed: {distinct} ({caption!r} {times} times)"


def _short(candidates: Candidates, order: int) -> bool:
    sides = (candidates.lengths, candidates.references.lengths)
    return any(float(np.mean(lengths < order)) > SHORT_SHARE for lengths in sides)


def _without_spaces(candidates: Candidates) -> bool:
    texts = [text for captions in candidates.references.captions.values() for text in captions]
    return sum(map(has_no_spaces, texts)) > SHORT_SHARE * len(texts)
