"""`mine`: from free texts to a lexicon of phrases, with proposals for a person to accept or change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from attncap.characteristics.function_words import NEGATIVE_SUFFIXES
from attncap.characteristics.lexicon import Lexicon
from attncap.characteristics.lexicon_file import Entry
from attncap.characteristics.proposals import Group, propose_groups
from attncap.characteristics.segmentation import SegmentedTexts, Tokens, segment_texts
from attncap.characteristics.text import join

EXAMPLES = 2
# Phrases whose words do not show that they deny something; the rest is learned or follows from negation words.
DENIALS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("clean", "shaven"): ("beard",),
    ("barefoot",): ("shoes",),
    ("hairless",): ("hair",),
}
EmbedPhrases = Callable[[list[str]], np.ndarray]


@dataclass
class Mined:
    """What `mine` found.

    Args:
        lexicon: phrases with their proposed characteristics; also the words and phrases that state nothing.
        examples: phrase -> texts that say it.
        left_out: number of different phrases that fewer than `min_count` texts say.
    """

    lexicon: Lexicon
    examples: dict[str, list[str]]
    left_out: int


def mine(
    texts: Sequence[str],
    *,
    embeddings: np.ndarray | None = None,
    embed_phrases: EmbedPhrases | None = None,
    min_count: int | None = None,
) -> Mined:
    """Find the phrases that texts use, and propose which of them state the same characteristic.

    Args:
        texts: N texts as people wrote them.
        embeddings: float array, shape (N, D): an embedding of the image of each text. Recommended: without it, only
            phrases of similar wording are merged.
        embed_phrases: maps phrases to sentence embeddings (P, E); further evidence, never enough for a merge.
        min_count: fewest texts that say a phrase; None: one in 2,000, at least 3.

    Returns:
        Mined: the lexicon is written to characteristics.csv with `lexicon.write`.

    Raises:
        ValueError: no text, or embeddings with another number of rows.

    Example:
        >>> mined = mine(texts, embeddings=embeddings)
        >>> mined.lexicon.write("characteristics.csv")
    """
    if not len(texts):
        raise ValueError("mining needs at least one text, got none")
    segmented = segment_texts(texts)
    least = max(3, round(len(texts) / 2000)) if min_count is None else min_count
    said: dict[Tokens, set[int]] = defaultdict(set)
    denied: dict[Tokens, set[int]] = defaultdict(set)
    for number, items in enumerate(segmented.items):
        for item in items:
            (denied if item.negated else said)[item.tokens].add(number)
    kept = [tokens for tokens, numbers in said.items() if len(numbers) >= least and tokens not in _denials(said)]
    kept.sort(key=lambda tokens: (-len(said[tokens]), tokens))
    membership = np.zeros((len(kept), len(texts)), bool)
    for row, tokens in enumerate(kept):
        membership[row, list(said[tokens])] = True
    meanings = None if embed_phrases is None or not kept else embed_phrases([join(tokens) for tokens in kept])
    groups = propose_groups(kept, membership, embeddings=embeddings, meanings=meanings)
    entries = _entries(groups, kept, said, segmented)
    entries += _denied_entries(denied, said, kept, groups, least, segmented)
    known = {entry.phrase for entry in entries}
    entries += [
        Entry("", word, count, 1, "left out: stands with many different phrases and states nothing")
        for word, count in segmented.empty_words.items()
        if word not in known
    ]
    left_out = sum(len(numbers) < least for numbers in said.values())
    return Mined(Lexicon(entries), _examples(segmented, texts, entries), left_out)


def _entries(
    groups: Sequence[Group], kept: Sequence[Tokens], said: dict[Tokens, set[int]], segmented: SegmentedTexts
) -> list[Entry]:
    entries = []
    for group in groups:
        name = _phrase(kept[group.members[0]], segmented)
        hint = ""
        if group.states_nothing:
            name, hint = "", "left out: its images are like those of all texts, so it states nothing"
        elif group.suggestion is not None:
            other = _phrase(kept[group.suggestion.phrase], segmented)
            hint = f"the same as {other!r}? {group.suggestion.evidence}"
        for index in group.members:
            reason = group.reasons.get(index, hint)
            entries.append(Entry(name, _phrase(kept[index], segmented), len(said[kept[index]]), 1, reason))
    return entries


def _denied_entries(
    denied: dict[Tokens, set[int]],
    said: dict[Tokens, set[int]],
    kept: Sequence[Tokens],
    groups: Sequence[Group],
    least: int,
    segmented: SegmentedTexts,
) -> list[Entry]:
    """Rows for what is denied: phrases of "no X", and single words such as "beardless"."""
    name_of = {kept[index]: _phrase(kept[group.members[0]], segmented) for group in groups for index in group.members}
    known = Lexicon([Entry(name, join(tokens), len(said[tokens])) for tokens, name in name_of.items()])
    entries = []
    for tokens, numbers in sorted(denied.items(), key=lambda item: -len(item[1])):
        if len(numbers) < least:
            continue
        phrase = _phrase(tokens, segmented)
        name = name_of.get(tokens) or next(iter(known.statements(phrase)), None)
        if name is None:  # "no hair": a phrase that is only denied is a characteristic of its own
            entries.append(Entry(f"no {phrase}", phrase, len(numbers), -1, "only said to be absent"))
        elif tokens not in name_of:
            entries.append(Entry(name, phrase, len(numbers), 1, "said with a negation"))
    for tokens, positive in _denials(said).items():
        if len(said[tokens]) >= least:
            name = name_of.get(positive, join(positive))
            entries.append(Entry(name, _phrase(tokens, segmented), len(said[tokens]), -1, f"denies {name!r}"))
    return entries


def _denials(said: dict[Tokens, set[int]]) -> dict[Tokens, Tokens]:
    """Phrases that deny another phrase: "beardless" where texts say "beard", and DENIALS."""
    found: dict[Tokens, Tokens] = {t: positive for t, positive in DENIALS.items() if t in said and positive in said}
    for tokens in said:
        if len(tokens) != 1:
            continue
        for suffix in NEGATIVE_SUFFIXES:
            stem = tokens[0].removesuffix(suffix)
            if stem != tokens[0] and len(stem) >= 3 and (stem,) in said:
                found[tokens] = (stem,)
    return found


def _phrase(tokens: Tokens, segmented: SegmentedTexts) -> str:
    return join(segmented.surfaces.get(tokens, tokens))


def _examples(segmented: SegmentedTexts, texts: Sequence[str], entries: Sequence[Entry]) -> dict[str, list[str]]:
    wanted = {entry.phrase for entry in entries}
    examples: dict[str, list[str]] = defaultdict(list)
    for items, text in zip(segmented.items, texts, strict=True):
        for phrase in {_phrase(item.tokens, segmented) for item in items} & wanted:
            if len(examples[phrase]) < EXAMPLES:
                examples[phrase].append(text)
    return dict(examples)
