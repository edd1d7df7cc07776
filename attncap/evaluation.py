"""How good captions are: the field's scores on the field's scales, from predictions and references alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from attncap import ngram_metrics
from attncap.coco_json import read_predictions, read_references, write_predictions, write_references
from attncap.ngram_metrics import NgramIndex
from attncap.ptb import tokenize

__all__ = ["References", "bleu", "read_predictions", "read_references", "write_predictions", "write_references"]


class References:
    """Reference captions, tokenised and counted once, to score any number of predictions against.

    Args:
        references: image_id -> the picture's human captions, as written; at least one each.

    Raises:
        ValueError: when there is no picture, a picture has no caption, or a caption is not a string.

    Example:
        >>> references = References({"7": ["A dog runs.", "A brown dog."]})
        >>> bleu({"7": "a dog runs"}, references).round(3)[0]
        np.float64(1.0)
    """

    def __init__(self, references: Mapping[str, Sequence[str]]) -> None:
        if not references:
            raise ValueError("scores need at least one picture with references, got none")
        for image_id, captions in references.items():
            if isinstance(captions, str) or not all(isinstance(caption, str) for caption in captions):
                raise ValueError(f"references of {image_id!r}: expected a list of strings, got {captions!r:.80}")
            if not captions:
                raise ValueError(f"references of {image_id!r}: expected at least one caption, got none")
        self.captions = {image_id: list(captions) for image_id, captions in references.items()}
        self.image_ids = list(self.captions)
        self.tokenized = [[tokenize(caption) for caption in captions] for captions in self.captions.values()]
        self.index = NgramIndex(self.tokenized)

    def __len__(self) -> int:
        return len(self.image_ids)

    def tokenize_predictions(self, predictions: Mapping[str, str]) -> list[str]:
        """Tokenised predictions in the references' order; ValueError where ids or types do not fit."""
        missing = [image_id for image_id in self.image_ids if image_id not in predictions]
        extra = [image_id for image_id in predictions if image_id not in self.captions]
        for what, ids in (("have no prediction", missing), ("have a prediction but no reference", extra)):
            if ids:
                shown = ", ".join(map(repr, ids[:3])) + (", ..." if len(ids) > 3 else "")
                raise ValueError(
                    f"{len(ids)} of {len(self)} pictures {what}: {shown}; give one caption to each picture"
                )
        for image_id, caption in predictions.items():
            if not isinstance(caption, str):
                raise ValueError(f"prediction of {image_id!r}: expected a string, got {caption!r:.80}")
        return [tokenize(predictions[image_id]) for image_id in self.image_ids]


def bleu(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]] | References, brevity: str = "closest"
) -> np.ndarray:
    """Corpus BLEU-1..4 with several references, the number the COCO tools print.

    Args:
        predictions: image_id -> caption.
        references: image_id -> captions, or `References` (prepared once where this is called often).
        brevity: "closest" (of two reference lengths equally close, the shorter), "shortest" or "none".

    Returns:
        float64 array, shape (4,), in [0, 1].

    Raises:
        ValueError: when ids are missing or extra, a caption is not a string, or brevity is another word.

    Example:
        >>> bleu({"7": "a dog"}, {"7": ["a dog runs"]}, brevity="none").round(3)[0]
        np.float64(1.0)

    Reference: Papineni et al. 2002; pycocoevalcap's bleu_scorer.
    """
    prepared = references if isinstance(references, References) else References(references)
    return ngram_metrics.bleu_of(prepared.index.statistics(prepared.tokenize_predictions(predictions)), brevity)
