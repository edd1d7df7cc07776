"""`RepetitionCost`: how unlike people it is to say the words of a caption again, "a black hat and hat"."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np


class RepetitionCost:
    """The surprise, in nats, of the words that a caption says more than once; people say "a" again, but not "hat".

        cost(y) = sum_w (n_w - 1) * -log r(w),    r(w) = (again(w) + 1/2) / (once(w) + 1), at most 1

    over the words w of the caption, each said n_w times; once(w) is the number of people's captions that have w,
    again(w) how often these say it after the first time. Learned from captions, so that it knows no language.

    Args:
        captions: token ids of people's captions.

    Example:
        >>> RepetitionCost([[4, 5, 4], [4, 5]])([[5, 4, 5], [4, 5, 4]]).round(2)
        array([1.79, 0.69])
    """

    def __init__(self, captions: Iterable[Sequence[int]]) -> None:
        once: Counter[int] = Counter()
        again: Counter[int] = Counter()
        for caption in captions:
            said = Counter(caption)
            once.update(said.keys())
            again.update({word: times - 1 for word, times in said.items()})
        self._cost = {word: -math.log(min((again[word] + 0.5) / (once[word] + 1), 1.0)) for word in once}

    def __call__(self, captions: Sequence[Sequence[int]]) -> np.ndarray:
        """Return the cost of each caption, token ids: float, shape (N,), 0 where nothing is said twice."""
        return np.array([self._of(caption) for caption in captions])

    def _of(self, caption: Sequence[int]) -> float:
        unheard = math.log(2.0)  # r of a word that nobody said: (0 + 1/2) / (0 + 1)
        return sum((times - 1) * self._cost.get(word, unheard) for word, times in Counter(caption).items() if times > 1)
