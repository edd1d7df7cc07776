"""`Lexicon`: which characteristics a text states as present or absent."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from attncap.characteristics.function_words import ALL_LANGUAGES, NEGATIONS_AFTER, NEGATIVE_SUFFIXES
from attncap.characteristics.lexicon_file import Entry, read_entries, write_entries
from attncap.characteristics.spelling import close_words
from attncap.characteristics.text import segments, tokens

# Preferences among readings of the same words; each counts less than one more token understood.
_PIECE, _REORDERED, _MISSPELT, _GAP = 0.01, 0.1, 0.2, 0.05


@dataclass(frozen=True)
class Statement:
    """One characteristic that a text states.

    Args:
        characteristic: its name.
        present: True where the text says that it is there, False where it says that it is not.
        phrase: the phrase of the lexicon that was recognized.
    """

    characteristic: str
    present: bool
    phrase: str


@dataclass(frozen=True)
class _Match:
    start: int
    end: int
    entry: Entry
    negated: bool
    score: float


class Lexicon:
    """Phrases and the characteristics that they state.

    Also recognized: another word order ("nose big"), articles inside ("bags under the eyes"), words written together
    or apart ("ear rings"), plurals, typing errors in words that the lexicon does not know, and negations ("no",
    "without", "-less", and those of other languages; see `function_words`).

    Args:
        entries: phrases; an entry whose characteristic is "" is known and states nothing.

    Example:
        >>> lexicon = Lexicon([Entry("glasses", "glasses"), Entry("hat", "hat"), Entry("beard", "beard")])
        >>> lexicon.statements("Hats & no glases or beard")
        {'hat': True, 'glasses': False, 'beard': False}
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = list(entries)
        self.characteristics = list(dict.fromkeys(e.characteristic for e in self.entries if e.characteristic))
        alone = {words[0] for e in self.entries if e.characteristic and len(words := tokens(e.phrase)) == 1}
        self._words = ALL_LANGUAGES.without(alone)
        self._skipped = self._words.articles | {
            words[0] for e in self.entries if not e.characteristic and len(words := tokens(e.phrase)) == 1
        }
        self._skipped -= self._words.negations | self._words.connectives | alone
        self._ordered: dict[tuple[str, ...], Entry] = {}
        self._together: dict[str, Entry] = {}
        bags: dict[tuple[str, ...], list[Entry]] = defaultdict(list)
        for entry in sorted(self.entries, key=lambda e: -e.count):
            parts = tuple(tokens(entry.phrase))
            if not parts:
                continue
            short = self._without_skipped(parts)
            for form in (parts, short):
                self._ordered.setdefault(form, entry)
                if len("".join(form)) >= 5:
                    self._together.setdefault("".join(form), entry)
            if 1 < len(short) <= 4:
                bags[tuple(sorted(short))].append(entry)
        # Words in another order mean the same, unless two phrases of the same words state different things.
        self._bags = {bag: e[0] for bag, e in bags.items() if len({(x.characteristic, x.sign) for x in e}) == 1}
        self._vocabulary = {part for parts in self._ordered for part in parts}
        self._longest = max(map(len, self._ordered), default=0) + 1
        self._close = lru_cache(maxsize=100_000)(self._close_words)
        self._frequency: dict[str, int] = defaultdict(int)
        for known, entry in self._ordered.items():
            for part in known:
                self._frequency[part] += entry.count

    def __repr__(self) -> str:
        return f"Lexicon({len(self.characteristics)} characteristics, {len(self.entries)} phrases)"

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Lexicon:
        """Read characteristics.csv (columns characteristic, phrase, count, sign, proposal).

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file cannot be understood; the message names file and line.
        """
        return cls(read_entries(path))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write characteristics.csv; see `attncap.characteristics.lexicon_file.write_entries`."""
        write_entries(path, self.entries)

    def read_text(self, text: str) -> list[Statement]:
        """Return all statements of a text in their order, contradictory ones included."""
        return [statement for segment in segments(text) for statement in self._read_segment(segment)]

    def statements(self, text: str) -> dict[str, bool]:
        """Return what a text states: characteristic -> True (present) or False (absent).

        A characteristic that the text states as present and as absent is left out; see `contradictions`.
        """
        return {name: True in signs for name, signs in self.signs([text]).items() if len(signs) == 1}

    def contradictions(self, text: str) -> list[str]:
        """Return the characteristics that a text states as present and as absent."""
        return [name for name, signs in self.signs([text]).items() if len(signs) == 2]

    def signs(self, texts: Iterable[str]) -> dict[str, set[bool]]:
        """Return what texts state together: characteristic -> {True}, {False}, or both where they disagree."""
        found: dict[str, set[bool]] = defaultdict(set)
        for text in texts:
            for statement in self.read_text(text):
                found[statement.characteristic].add(statement.present)
        return found

    # ------------------------------------------------------------ reading a segment

    def _read_segment(self, segment: Sequence[str]) -> list[Statement]:
        found: list[Statement] = []
        negated = False  # by a negation that was read and not used up
        fresh = False  # the negation is not used yet
        position = 0
        matches = {match.start: match for match in self._best_matches(segment)}
        while position < len(segment):
            match = matches.get(position)
            if match is None:
                token = segment[position]
                if token in self._words.negations:
                    negated = fresh = True
                elif token in self._words.alternatives:
                    fresh = negated
                elif token in self._words.conjunctions:
                    negated = fresh = negated and fresh
                position += 1
                continue
            position = match.end
            absent = match.negated != (negated and fresh)
            after = next((a for a in NEGATIONS_AFTER if tuple(segment[position : position + len(a)]) == a), None)
            if after is not None and not (negated and fresh) and position not in matches:
                absent, position = not absent, position + len(after)
            fresh = False
            if match.entry.characteristic:
                present = (match.entry.sign > 0) != absent
                found.append(Statement(match.entry.characteristic, present, match.entry.phrase))
        return found

    def _best_matches(self, segment: Sequence[str]) -> list[_Match]:
        """The matches, not overlapping, that explain most tokens; fewer and exact ones where that is equal."""
        size = len(segment)
        best: list[tuple[float, tuple[_Match, ...]]] = [(0.0, ())]
        for end in range(1, size + 1):
            options = [best[end - 1]]
            for start in range(max(0, end - self._longest), end):
                match = self._match(segment, start, end)
                if match is not None:
                    score, before = best[start]
                    options.append((score + match.score, (*before, match)))
            best.append(max(options, key=lambda option: option[0]))
        return list(best[size][1])

    def _match(self, segment: Sequence[str], start: int, end: int) -> _Match | None:
        window = tuple(segment[start:end])
        known, gaps = self._lookup(window), 0.0
        if known is None:
            if window[0] in self._skipped or window[-1] in self._skipped:
                return None  # the same match without these tokens is another window
            short = self._without_skipped(window)
            gaps = _GAP * (len(window) - len(short))
            known = self._lookup(short) if len(short) < len(window) else None
            if known is None and any(token in self._words.connectives for token in short):
                return None
            known = known or self._corrected(short)
        if known is not None:
            return _Match(start, end, known[0], False, len(window) - _PIECE - known[1] - gaps)
        entry = self._negated_word(window[0]) if len(window) == 1 else None
        return None if entry is None else _Match(start, end, entry, True, 1 - _PIECE)

    def _lookup(self, parts: tuple[str, ...]) -> tuple[Entry, float] | None:
        if parts in self._ordered:
            return self._ordered[parts], 0.0
        glued = self._together.get("".join(parts))
        if glued is not None:
            return glued, _GAP
        bag = tuple(sorted(parts))
        if bag in self._bags and not any(part in self._words.connectives for part in parts):
            return self._bags[bag], _REORDERED
        return None

    def _corrected(self, parts: tuple[str, ...]) -> tuple[Entry, float] | None:
        """Return the phrase that is meant when unknown words are replaced by close known ones; None if unsure."""
        unknown = [index for index, part in enumerate(parts) if not self._is_known(part)]
        if not unknown or len(unknown) > 2:
            return None
        readings = [parts]
        for index in unknown:
            near = self._close(parts[index])[:4]
            readings = [(*r[:index], word, *r[index + 1 :]) for r in readings for word in near]
        found = [(known[0], known[1]) for reading in readings if (known := self._lookup(reading)) is not None]
        if not found:
            return None
        stated = {(entry.characteristic, entry.sign) for entry, _ in found}
        if len(stated) > 1:  # two phrases are equally close: accept only a much more frequent one
            ordered = sorted(found, key=lambda item: -item[0].count)
            if ordered[0][0].count < 3 * max(1, ordered[1][0].count):
                return None
            found = ordered
        return found[0][0], found[0][1] + _MISSPELT * len(unknown)

    def _negated_word(self, token: str) -> Entry | None:
        """The phrase that a single word negates: "beardless", "nobeard" (of a hashtag)."""
        if self._is_known(token):
            return None
        stems = [token.removesuffix(suffix) for suffix in NEGATIVE_SUFFIXES if token.endswith(suffix)]
        stems += [
            token.removeprefix(word) for word in self._words.negations if len(word) > 1 and token.startswith(word)
        ]
        for stem in stems:
            for form in (stem, *self._close(stem)) if len(stem) >= 3 else ():
                entry = self._ordered.get((form,)) or self._together.get(form)
                if entry is not None and entry.characteristic:
                    return entry
        return None

    def _close_words(self, token: str) -> tuple[str, ...]:
        return tuple(sorted(close_words(token, self._vocabulary), key=lambda word: -self._frequency[word]))

    def _is_known(self, token: str) -> bool:
        return token in self._vocabulary or token in self._words.all

    def _without_skipped(self, parts: Sequence[str]) -> tuple[str, ...]:
        return tuple(part for part in parts if part not in self._skipped) or tuple(parts)
