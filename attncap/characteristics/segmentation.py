"""Split texts into the phrases that state something, by where phrases stand alone and where they stand inside others.

    "a very young woman with curly hair and no glasses" -> young | woman | curly hair | no: glasses

Separators and conjunctions divide a text into items. An item that others contain is a phrase; an item that consists of
phrases is divided into them. A word that stands before many different phrases and never alone ("very", "wearing")
states nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from attncap.characteristics.function_words import NEGATIONS_AFTER, FunctionWords, function_words_of
from attncap.characteristics.spelling import corrections
from attncap.characteristics.text import segments

Tokens = tuple[str, ...]
_ROUNDS = 4
_LEAST_KNOWN = 3  # texts in which an item stands alone before others are divided by it
_ALONE_SHARE = 0.03  # a word that states nothing stands alone at most this often
_EXPLAINED_SHARE = 0.5  # of the items with such a word are phrases without it
_LEAST_CONTEXTS = 5.0  # different phrases (as a perplexity) that such a word stands before
_PART_SHARE = 0.3  # a part of a divided item stands alone at least this often per occurrence of the item
_LONGEST_PHRASE = 5


@dataclass(frozen=True)
class Item:
    """A phrase as one text has it."""

    tokens: Tokens
    negated: bool = False


@dataclass
class SegmentedTexts:
    """Texts as lists of items, and what was learned on the way.

    Args:
        items: items of each text.
        empty_words: words that state nothing, and the number of their occurrences.
        surfaces: the usual wording of each phrase, articles included.
    """

    items: list[list[Item]]
    empty_words: dict[str, int]
    surfaces: dict[Tokens, Tokens] = field(default_factory=dict)


def segment_texts(texts: Sequence[str]) -> SegmentedTexts:
    """Split texts into items, learning phrases and empty words from all of them.

    Args:
        texts: as people wrote them.
    """
    split = [segments(text) for text in texts]
    counts = Counter(token for text in split for segment in text for token in segment)
    corrected = corrections(counts)
    split = [[[corrected.get(token, token) for token in segment] for segment in text] for text in split]
    words = function_words_of([token for segment in text for token in segment] for text in split)
    words = words.without(_content_words(split, words))
    surfaces: dict[Tokens, Counter[Tokens]] = defaultdict(Counter)
    rough = [[item for segment in text for item in _items(segment, words, surfaces)] for text in split]
    empty: set[str] = set()
    items = rough
    for _ in range(_ROUNDS):
        alone = Counter(item.tokens for text in items for item in text)
        learned = empty | _empty_words(items, alone, words)
        divided = _divided(rough, alone, learned)
        if learned == empty and divided == items:
            break
        empty, items = learned, divided
    counts = Counter(token for text in split for segment in text for token in segment)
    return SegmentedTexts(
        items,
        {word: counts[word] for word in sorted(empty, key=lambda word: -counts[word])},
        {tokens: max(found, key=lambda form: (found[form], -len(form))) for tokens, found in surfaces.items()},
    )


def _content_words(split: Sequence[Sequence[Sequence[str]]], words: FunctionWords) -> set[str]:
    """Function words that often are a whole segment here, so that they state something."""
    total = Counter(token for text in split for segment in text for token in segment)
    alone = Counter(segment[0] for text in split for segment in text if len(segment) == 1)
    return {word for word in words.all if alone[word] >= 3 and alone[word] >= 0.1 * total[word]}


def _items(segment: Sequence[str], words: FunctionWords, surfaces: dict[Tokens, Counter[Tokens]]) -> list[Item]:
    found: list[Item] = []
    part: list[str] = []
    negated = False

    def close() -> None:
        nonlocal part
        while part and part[0] in words.articles:
            part = part[1:]
        while part and part[-1] in words.articles:
            part = part[:-1]
        after = next((a for a in NEGATIONS_AFTER if len(part) > len(a) and tuple(part[-len(a) :]) == a), ())
        kept = part[: len(part) - len(after)]
        tokens = tuple(token for token in kept if token not in words.articles)
        if tokens:
            surfaces[tokens][tuple(kept)] += 1
            found.append(Item(tokens, negated != bool(after)))
        part = []

    for token in segment:
        if token in words.negations:
            close()
            negated = True
        elif token in words.connectives:
            held = bool(part)
            close()
            negated = negated and (token in words.alternatives or not held)
        else:
            part.append(token)
    close()
    return found


def _empty_words(items: Sequence[Sequence[Item]], alone: Mapping[Tokens, int], words: FunctionWords) -> set[str]:
    """Words that stand before or among many different phrases and hardly ever alone."""
    known = {tokens: count for tokens, count in alone.items() if count >= _LEAST_KNOWN}
    perplexity = _perplexity(list(known.values()))
    least = max(_LEAST_CONTEXTS, 0.1 * perplexity)
    occurrences: Counter[str] = Counter()
    rests: dict[str, Counter[Tokens]] = defaultdict(Counter)
    for tokens, count in alone.items():
        for index, token in enumerate(tokens):
            occurrences[token] += count
            rest = tokens[:index] + tokens[index + 1 :]
            # The rest has to be the usual form, or a rarer word would take meaning from a phrase that depends on it.
            if rest and known.get(rest, 0) >= count:
                rests[token][rest] += count
    return {
        word
        for word, found in rests.items()
        if alone.get((word,), 0) <= _ALONE_SHARE * occurrences[word]
        and sum(found.values()) >= _EXPLAINED_SHARE * occurrences[word]
        and _perplexity(list(found.values())) >= least
    }


def _divided(rough: Sequence[Sequence[Item]], alone: Mapping[Tokens, int], empty: set[str]) -> list[list[Item]]:
    known = {tokens: count for tokens, count in alone.items() if count >= _LEAST_KNOWN and len(tokens) <= 8}
    for tokens in list(known):
        if len(tokens) == 1 and tokens[0] in empty:
            del known[tokens]
    reordered = {tuple(sorted(tokens)): tokens for tokens in sorted(known, key=lambda t: known[t])}
    for tokens in sorted(known, key=len):  # a phrase that divides into others is no part of a longer item
        if len(tokens) > 1 and len(_divide(tokens, known[tokens], known, reordered)) > 1:
            del known[tokens]
    reordered = {bag: tokens for bag, tokens in reordered.items() if tokens in known}
    cache: dict[Tokens, list[Tokens]] = {}

    def parts(tokens: Tokens) -> list[Tokens]:
        if tokens not in cache:
            kept = tuple(token for token in tokens if token not in empty)
            count = alone.get(kept, 0)
            cache[tokens] = _divide(kept, count, known, reordered) if kept else []
        return cache[tokens]

    return [
        [
            Item(part, item.negated and index == 0)  # "not smiling woman": the woman is there
            for item in text
            for index, part in enumerate(parts(item.tokens))
        ]
        for text in rough
    ]


def _divide(
    tokens: Tokens, count: int, known: Mapping[Tokens, int], reordered: Mapping[Tokens, Tokens]
) -> list[Tokens]:
    """Divide an item into known phrases; where words remain between them, those words are a phrase of their own."""
    if len(tokens) == 1:
        return [tokens]
    least = max(_LEAST_KNOWN, _PART_SHARE * count)
    size = len(tokens)
    # Best reading of the first n tokens: (tokens not understood, number of parts), and the parts.
    best: list[tuple[tuple[float, float], list[tuple[Tokens, bool]]]] = [((0.0, 0.0), [])]
    for end in range(1, size + 1):
        options = []
        for start in range(max(0, end - 8), end):
            part = tokens[start:end]
            (missing, number), before = best[start]
            if len(part) == size and count >= _LEAST_KNOWN:
                continue  # the item as a whole competes below
            found = part if known.get(part, 0) >= least else reordered.get(tuple(sorted(part)))
            if found is not None and known.get(found, 0) >= least:
                frequency = -0.001 * float(np.log(known[found]))
                options.append(((missing, number + 1 + frequency), [*before, (found, True)]))
            elif len(part) == 1:
                joined = before[:-1] + [((*before[-1][0], *part), False)] if before and not before[-1][1] else None
                options.append(((missing + 1, number + 1), joined or [*before, (part, False)]))
        best.append(min(options, key=lambda option: option[0]))
    (missing, _), found_parts = best[size]
    if missing == size or (missing and count >= _LEAST_KNOWN and size <= _LONGEST_PHRASE):
        return [tokens]
    return [part for part, _ in found_parts]


def _perplexity(counts: Sequence[float]) -> float:
    if not counts:
        return 0.0
    shares = np.array(counts, float) / sum(counts)
    return float(np.exp(-(shares * np.log(shares)).sum()))
