"""Signs that a captioner gives the same caption for every image, for warnings after training and prediction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attncap.captions import Caption
from attncap.metrics.cautions import LEAST_VARIETY, collapse_of

ALIKE = 0.05  # mean difference of attention maps of different images, 0 (equal) to 1 (apart)


def collapse_warnings(captions: Sequence[Caption]) -> list[str]:
    """Return warnings that captions have collapsed, one sentence each; none for varied captions.

    Args:
        captions: one per image; fewer than 20 give no warning.

    Returns:
        warnings: of few distinct captions, of captions of one word, and of equal attention maps for all images.
    """
    if len(captions) < LEAST_VARIETY:
        return []
    found = []
    collapsed = collapse_of([caption.text for caption in captions])
    if collapsed:
        found.append(f"{collapsed}. Train longer, lower dropout, or look at the data with attncap check")
    short = sum(len(caption.words) <= 1 for caption in captions)
    if short > 0.9 * len(captions):
        found.append(f"{short} of {len(captions)} captions have at most one word: raise --length-penalty")
    maps = [
        caption.attention_weights[0] for caption in captions if caption.attention_weights is not None and caption.words
    ]
    if len(maps) >= LEAST_VARIETY:
        stacked = np.stack([one.ravel() for one in maps])
        apart = float(np.abs(stacked - stacked.mean(axis=0)).sum(axis=1).mean() / 2)
        if apart < ALIKE:
            found.append(
                f"the attention maps of all images are alike (they differ by {apart:.1%}): the model does not use them"
            )
    return found
