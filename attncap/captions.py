"""`Caption`: a generated caption with the attention map of each word."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from attncap._files import check_list

WHOLE_IMAGE = (0.0, 0.0, 1.0, 1.0)
SEPARATOR = (
    ","  # the token for any separator between the items of a list: "big nose; curly hair", "big nose & curly hair"
)


def join_words(words: Iterable[str]) -> str:
    """Join words by blanks; a separator follows the word before it: "big nose, curly hair"."""
    return " ".join(words).replace(f" {SEPARATOR}", SEPARATOR)


def box_shares(boxes: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """Return the share of each box (L, 4) that lies in each cell of a grid over the image: (L, rows, cols), sums 1.

    A box thinner than a thousandth of the image counts as that thin, so that a line has a place as well.
    """
    shares = []
    for low, high, cells in ((boxes[:, 1], boxes[:, 3], rows), (boxes[:, 0], boxes[:, 2], cols)):
        high = np.maximum(high, low + 1e-3)[:, None]
        low = np.minimum(low[:, None], 1 - 1e-3)
        edges = np.arange(cells + 1) / cells
        inside = np.clip(np.minimum(high, edges[1:]) - np.maximum(low, edges[:-1]), 0, None)  # (L, cells)
        shares.append(inside / inside.sum(axis=1, keepdims=True))
    return shares[0][:, :, None] * shares[1][:, None, :]  # (L, rows, cols)


def as_sentence(text: str) -> str:
    """Write a text as people do, for display: an initial capital, and a period unless it is a list with commas.

    Example:
        >>> as_sentence("a dog runs"), as_sentence("big nose, curly hair")
        ('A dog runs.', 'Big nose, curly hair')
    """
    text = text[:1].upper() + text[1:]
    return text if not text or SEPARATOR in text or text[-1] in ".!?。" else f"{text}."


@dataclass(frozen=True, eq=False)
class Caption:
    """A decoded caption: its words and, from a model with attention, a map for each word.

    Args:
        words: the T words in order, without `<start>` and `<end>`.
        token_ids: the decoder's ids behind the words (as many as words, or more with a subword tokenizer).
        log_prob: natural log-probability of the whole caption, its end included; not divided by length.
        attention_weights: array of numbers, shape (T, rows, cols); entry t is the map of the step that emitted
            word t, non-negative, summing to 1. None for a model without attention.
        word_log_probs: float array, shape (T,), natural log-probability of each word given those before it.
        image_id: the image's id, if it has one.
        grid_box: left, top, right, bottom, as fractions, of the part of the image that the maps' cells tile, from
            `FeatureExtractor.grid_box`; default the whole. What lies beyond belongs to the cells at its border.
        extras: further values per word: name -> float array, shape (T,), from 0 to 1. A captioner
            whose maps may sum to less than 1 gives "looked": the share of what was read that came from the image.
        boxes: float array, shape (L, 4): left, top, right, bottom, as fractions of the image, of each region, where the
            regions are boxes and not a grid; the maps then have shape (T, 1, L).

    Raises:
        TypeError: `words` is one text; maps that are no numbers.
        ValueError: the maps, the log-probabilities or the extras are not one per word; a `grid_box` that is none.
    """

    words: tuple[str, ...]
    token_ids: tuple[int, ...]
    log_prob: float
    attention_weights: np.ndarray | None = None
    word_log_probs: np.ndarray | None = None
    image_id: str | None = None
    grid_box: tuple[float, float, float, float] = WHOLE_IMAGE
    extras: Mapping[str, np.ndarray] = field(default_factory=dict)
    boxes: np.ndarray | None = None

    def __post_init__(self) -> None:
        check_list(self.words, "words", "words")
        if self.attention_weights is not None:  # also lists and tensors of other packages
            given = np.asarray(self.attention_weights)
            given = given.astype(np.float32) if given.dtype.kind == "V" else given  # bfloat16
            object.__setattr__(self, "attention_weights", given)
        if self.boxes is not None:
            object.__setattr__(self, "boxes", np.asarray(self.boxes))
        maps = self.attention_weights
        if maps is not None and maps.dtype.kind not in "fiub":
            raise TypeError(f"attention_weights needs numbers, got an array of {maps.dtype}")
        if len(self.grid_box) != 4 or not (self.grid_box[0] < self.grid_box[2] and self.grid_box[1] < self.grid_box[3]):
            raise ValueError(f"grid_box is (left, top, right, bottom), as fractions, got {self.grid_box}")
        if maps is not None and (maps.ndim != 3 or len(maps) != len(self.words)):
            raise ValueError(
                f"attention_weights needs shape (T, rows, cols) with T = {len(self.words)} words, got {maps.shape}"
            )
        for name, values in {"word_log_probs": self.word_log_probs, **self.extras}.items():
            if values is not None and np.shape(values) != (len(self.words),):
                raise ValueError(f"{name} needs shape ({len(self.words)},), one per word, got {np.shape(values)}")

        if self.boxes is not None and (
            self.boxes.shape[1:] != (4,) or (maps is not None and maps.shape[1:] != (1, len(self.boxes)))
        ):
            raise ValueError(
                f"boxes needs shape (L, 4) and maps of shape (T, 1, L), got {self.boxes.shape} and "
                f"{None if maps is None else maps.shape}"
            )

    def check_maps(self) -> None:
        """Refuse maps that are not non-negative or do not sum to 1, each of which a drawing would show wrongly.

        Raises:
            ValueError: such a map; the message names its word.
        """
        if self.attention_weights is None or not self.words:
            return
        maps = np.asarray(self.attention_weights, np.float64)
        sums = maps.sum(axis=(1, 2))
        wrong = ~(np.abs(sums - 1) <= 0.02) | (maps < 0).any(axis=(1, 2))  # NaN is wrong as well
        if wrong.any():
            word = int(wrong.argmax())
            of = "" if self.image_id is None else f" of {self.image_id!r}"
            values = f"sums to {sums[word]:.3g}" if not (maps[word] < 0).any() else "has values below 0"
            raise ValueError(
                f"the attention map of word {word} ({self.words[word]!r}){of} {values}; each map must sum to "
                "1, with no value below 0: divide it by its sum"
            )

    def on_grid(self, rows: int = 32, cols: int = 32) -> Caption:
        """Return the caption with maps (T, rows, cols): the weight of each region spread evenly over its box.

        A caption whose maps are a grid already, or that has none, comes back as it is.
        """
        if self.boxes is None or self.attention_weights is None:
            return self
        weights = self.attention_weights[:, 0]  # (T, L)
        spread = box_shares(self.boxes, rows, cols)  # (L, rows, cols)
        return replace(self, attention_weights=np.tensordot(weights, spread, axes=1).astype(np.float32), boxes=None)

    @property
    def text(self) -> str:
        """The words joined by blanks, a comma after the word before it: what metrics read."""
        return join_words(self.words)

    @property
    def sentence(self) -> str:
        """The text as people write it, for display; see `as_sentence`."""
        return as_sentence(self.text)
