"""`References`: reference captions, tokenized and counted once; `Candidates`: captions to score against them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import Any

import numpy as np

from attncap._messages import quoted
from attncap.metrics.cider_d import CiderD
from attncap.metrics.ngrams import LargestCounts, word_positions
from attncap.metrics.ptb_tokenizer import tokenize as coco_tokenize


class References:
    """Reference captions, tokenized and counted once, to score any number of predictions against.

    Args:
        references: image_id -> the image's human captions, as written; at least one each. Ids are strings or integers.
        tokenize: text -> tokens joined by blanks; default the COCO tools' tokens. Give another one for a language
            without blanks between words.

    Raises:
        ValueError: when there is no image, an image has no caption, or a caption is not a string.

    Example:
        >>> references = References({"7": ["A dog runs.", "A brown dog."]})
        >>> bleu({"7": "a dog runs"}, references).round(3)[:2].tolist()
        [1.0, 1.0]
    """

    def __init__(self, references: Mapping[str, Sequence[str]], tokenize: Callable[[str], str] = coco_tokenize) -> None:
        references = by_image_id(references, "references", "captions")
        if not references:
            raise ValueError("scores need at least one image with references, got none")
        for image_id, captions in references.items():
            if isinstance(captions, str) or not all(isinstance(caption, str) for caption in captions):
                raise ValueError(
                    f"references of {quoted(image_id)}: expected a list of strings, got {quoted(captions)}"
                )
            if not len(captions):
                raise ValueError(f"references of {quoted(image_id)}: expected at least one caption, got none")
        self.tokenize = tokenize
        self.captions = {image_id: list(captions) for image_id, captions in references.items()}
        self.image_ids = list(self.captions)
        self.tokenized = [[tokenize(caption) for caption in captions] for captions in self.captions.values()]
        self.image_of = np.repeat(np.arange(len(self)), [len(captions) for captions in self.tokenized])  # (R,)

    def __len__(self) -> int:
        return len(self.image_ids)

    @cached_property
    def cider(self) -> CiderD:
        """The n-grams of all references with their document frequencies."""
        return CiderD([[caption.split() for caption in captions] for captions in self.tokenized])

    @cached_property
    def largest_counts(self) -> LargestCounts:
        """The largest count of each n-gram in one reference of an image, which clips BLEU's matches."""
        return LargestCounts(self.cider.vocabulary.counts, self.image_of, len(self))

    @cached_property
    def word_positions(self) -> list[tuple[dict[str, int], int]]:
        """Of each reference the positions of its words, for ROUGE-L."""
        return [word_positions(caption) for captions in self.tokenized for caption in captions]

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each reference, shape (R,)."""
        return self.cider.vocabulary.lengths

    def candidates(self, predictions: Mapping[str, str]) -> Candidates:
        """Return one caption per image, ready to score; ValueError where ids or types do not fit."""
        predictions = by_image_id(predictions, "predictions", "caption")
        check_ids(predictions, self.captions)
        for image_id, caption in predictions.items():
            if not isinstance(caption, str):
                raise ValueError(f"prediction of {quoted(image_id)}: expected a string, got {quoted(caption)}")
        texts = [predictions[image_id] for image_id in self.image_ids]
        return Candidates(self, texts, [self.tokenize(text) for text in texts])


class Candidates:
    """One caption per image, with the references to score it against.

    Args:
        references: the references of N images.
        texts: N captions, as written.
        tokenized: the same, tokens joined by blanks.
        use: bool array, shape (R,): the references to score against, at least one per image; None for all. Document
            frequencies stay those of all references.

    Attributes:
        counts: for n = 1..4 how often each caption has each n-gram, sparse, shape (N, V_n).
        lengths: tokens of each caption, shape (N,).
    """

    def __init__(
        self, references: References, texts: Sequence[str], tokenized: Sequence[str], use: np.ndarray | None = None
    ) -> None:
        self.references, self.texts, self.tokenized, self.use = references, list(texts), list(tokenized), use
        self.counts, self.lengths = references.cider.vocabulary.count([caption.split() for caption in tokenized])

    def __len__(self) -> int:
        return len(self.texts)

    def against(self, use: np.ndarray) -> Candidates:
        """Return the same captions against some of the references, without counting them again."""
        other = copy(self)
        other.use = use
        return other

    @property
    def kept(self) -> np.ndarray:
        """Which references are scored against: bool, shape (R,)."""
        return np.ones(len(self.references.image_of), bool) if self.use is None else self.use

    def texts_and_references(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each caption with the references that it is scored against, all as written."""
        start = 0
        for text, captions in zip(self.texts, self.references.captions.values(), strict=True):
            kept = self.kept[start : start + len(captions)]
            yield text, [caption for caption, used in zip(captions, kept, strict=True) if used]
            start += len(captions)


def by_image_id(captions: Any, name: str, what: str) -> dict[str, Any]:
    """Return a mapping by string ids; integers become strings, as in the files.

    Raises:
        ValueError: it is no mapping, an id is neither string nor integer, or two ids are one as strings.
    """
    if not isinstance(captions, Mapping):
        raise ValueError(f"{name}: expected a mapping image_id -> {what}, got {quoted(captions)}")
    found: dict[str, Any] = {}
    for image_id, value in captions.items():
        if isinstance(image_id, bool) or not isinstance(image_id, str | int | np.integer):
            raise ValueError(f"{name}: image_id {quoted(image_id)}: expected a string or an integer")
        if str(image_id) in found:
            raise ValueError(
                f"{name}: image_id {quoted(str(image_id))} is there as a string and as an integer; keep one"
            )
        found[str(image_id)] = value
    return found


def check_ids(
    predictions: Mapping[str, Any],
    references: Mapping[str, Any],
    predictions_name: str = "predictions",
    references_name: str = "references",
) -> None:
    """Refuse predictions that are not one per image of the references.

    Args:
        predictions: image_id -> caption.
        references: image_id -> captions.
        predictions_name: what to call them in the message; a file name, where they come from a file.
        references_name: the same for the references.

    Raises:
        ValueError: when ids are missing or extra; the message names both sides and the first ids.
    """
    missing = [image_id for image_id in references if image_id not in predictions]
    extra = [image_id for image_id in predictions if image_id not in references]
    if missing:
        raise ValueError(
            f"{predictions_name}: no caption for {len(missing)} of the {len(references)} images of "
            f"{references_name}, {_some(missing)}; caption every image, or score against the split that was captioned"
        )
    if extra:
        raise ValueError(
            f"{predictions_name}: captions for {len(extra)} images that {references_name} do not have, "
            f"{_some(extra)}; leave them out, or score against the references that have them"
        )


def _some(ids: list[str]) -> str:
    return "first " + ", ".join(map(repr, ids[:3])) + (", ..." if len(ids) > 3 else "")
