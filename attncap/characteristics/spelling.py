"""Spelling of words: close known words of an unknown word, and guards against changing its meaning."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from rapidfuzz import process
from rapidfuzz.distance import OSA

SHORTEST, LONG = 4, 8  # letters of a word with one error, and with two
_PLURALS = ("s", "es")
_RARE_SHARE = 0.05  # a misspelling is at most this share of the word that it stands for


def distance_allowed(word: str) -> int:
    """How many letters of a word may be wrong: 0 below four letters, 1 below eight, else 2."""
    return 0 if len(word) < SHORTEST else 1 if len(word) < LONG else 2


def plural_of_same(first: str, second: str) -> bool:
    """Whether two words are equal but for a plural ending, "hat" and "hats"."""
    short, long = sorted((first, second), key=len)
    return len(short) >= 3 and any(long == short + ending for ending in _PLURALS)


def is_misspelling(word: str, known: str) -> bool:
    """Whether `word` can be `known` with typing errors.

    One error (a letter missing, added, replaced, or two swapped) from four letters on, two from eight. The first letter
    is the same, unless both words have six letters: "chat" is not "hat".
    """
    allowed = min(distance_allowed(word), distance_allowed(known))
    if allowed == 0 or (word[0] != known[0] and min(len(word), len(known)) < 6):
        return False
    return OSA.distance(word, known, score_cutoff=allowed) <= allowed


def close_words(word: str, known: Collection[str]) -> list[str]:
    """Known words that an unknown word can be a plural of, or else a misspelling with the fewest errors."""
    plural = next((other for other in known if plural_of_same(word, other)), None)
    if plural is not None:
        return [plural]
    near = _misspelt(word, list(known))
    least = min((errors for _, errors in near), default=0)
    return sorted(other for other, errors in near if errors == least)


def corrections(counts: Mapping[str, int]) -> dict[str, str]:
    """Map rare words to the frequent words that they misspell.

    A word is corrected where a word at least twenty times as frequent is close (`is_misspelling`). Of several such
    words the closest is chosen, then the most frequent. Words that both are frequent are never changed into each other.

    Args:
        counts: number of occurrences of every word.

    Example:
        >>> corrections({"glasses": 200, "glases": 3, "grasses": 40})
        {'glases': 'glasses'}
    """
    frequent = sorted(word for word, count in counts.items() if count * _RARE_SHARE >= 1 and len(word) >= SHORTEST)
    found: dict[str, str] = {}
    for word, count in counts.items():
        candidates = [
            (errors, -counts[other], other)
            for other, errors in _misspelt(word, frequent)
            if other != word and count <= _RARE_SHARE * counts[other]
        ]
        if candidates:
            found[word] = min(candidates)[2]
    return found


def _misspelt(word: str, known: list[str]) -> list[tuple[str, int]]:
    """Return the known words that a word can be with typing errors, and the number of errors."""
    allowed = distance_allowed(word)
    found = process.extract(word, known, scorer=OSA.distance, score_cutoff=allowed, limit=None) if allowed else []
    return [(other, int(errors)) for other, errors, _ in found if is_misspelling(word, other)]
