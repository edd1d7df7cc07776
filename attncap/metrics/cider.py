"""CIDEr-D and CIDEr as first defined, as a metric of captions against references."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from attncap.metrics.registry import Metric, register_metric

if TYPE_CHECKING:
    from attncap.metrics.references import Candidates


@register_metric("cider")
class Cider(Metric):
    """CIDEr-D, which the COCO tools print as "CIDEr", and CIDEr as first defined; means over images.

    Document frequencies come from all references, also where some are left out.
    """

    labels = {"cider_d": 'CIDEr-D (the COCO tools\' "CIDEr")', "cider_plain": "CIDEr, plain"}

    def rows(self, candidates: Candidates) -> np.ndarray:
        cider = candidates.references.cider
        vectors = cider.weighted(candidates.counts, candidates.lengths)
        return np.stack(cider.one_per_image(vectors, candidates.use), axis=1)

    def to_json(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {"cider": values["cider_d"], "cider_d": values["cider_d"], "cider_plain": values["cider_plain"]}
