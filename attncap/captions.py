"""`Caption`: what every captioner says of a picture, with where it looked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from attncap._files import check_list

WHOLE_PICTURE = (0.0, 0.0, 1.0, 1.0)
SEPARATOR = ","  # the word for whatever separates the items of a list: "big nose; curly hair", "big nose & curly hair"


def join_words(words: Iterable[str]) -> str:
    """Join words by blanks; a separator follows the word before it: "big nose, curly hair"."""
    return " ".join(words).replace(f" {SEPARATOR}", SEPARATOR)


@dataclass(frozen=True, eq=False)
class Caption:
    """A decoded caption: its words and, of a model with attention, a map for each word.

    Args:
        words: the T words in order, without `<start>` and `<end>`.
        token_ids: the decoder's ids behind the words (as many as words, or more with a subword tokenizer).
        log_prob: natural log-probability of the whole caption, its end included; not divided by length.
        attention_weights: float array, shape (T, rows, cols); entry t is the map of the step that emitted
            word t, non-negative, summing to 1. None for a model without attention.
        word_log_probs: float array, shape (T,), natural log-probability of each word given those before it.
        image_id: the picture's id, where there is one.
        grid_box: left, top, right, bottom, as fractions, of the part of the picture that the maps' cells tile, from
            `FeatureExtractor.grid_box`; default the whole. What lies beyond belongs to the cells at its border.
        visual_probs: float array, shape (T,): the share, 0 to 1, of what was read for each word that came from the
            picture; 1 everywhere for a model that always looks, 1 - beta with a visual sentinel.

    Raises:
        TypeError: `words` is one text.
        ValueError: when the maps, the log-probabilities or the visual probabilities are not one to a word.
    """

    words: tuple[str, ...]
    token_ids: tuple[int, ...]
    log_prob: float
    attention_weights: np.ndarray | None = None
    word_log_probs: np.ndarray | None = None
    image_id: str | None = None
    grid_box: tuple[float, float, float, float] = WHOLE_PICTURE
    visual_probs: np.ndarray | None = None

    def __post_init__(self) -> None:
        check_list(self.words, "words", "words")
        maps = self.attention_weights
        if maps is not None and (maps.ndim != 3 or len(maps) != len(self.words)):
            raise ValueError(
                f"attention_weights needs shape (T, rows, cols) with T = {len(self.words)} words, got {maps.shape}"
            )
        for name in ("word_log_probs", "visual_probs"):
            values = getattr(self, name)
            if values is not None and values.shape != (len(self.words),):
                raise ValueError(f"{name} needs shape ({len(self.words)},), one to a word, got {values.shape}")

    @property
    def text(self) -> str:
        """The words joined by blanks, a comma after the word before it: what metrics read."""
        return join_words(self.words)

    @property
    def sentence(self) -> str:
        """The text as people write it, for display: an initial capital, and a period where it has no commas."""
        text = self.text[:1].upper() + self.text[1:]
        return text if not text or "," in text else f"{text}."
