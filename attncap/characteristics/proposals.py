"""Propose which phrases state the same characteristic, from several kinds of evidence.

Phrases are merged at once where the wording is a variant (spelling, plural, word order, one stem) and where one phrase
contains another ("wears glasses"). Groups are then merged by a score, the most alike first; after each merge the
evidence is computed again from all texts of the group:

    score = images look alike + 0.25 words are shared + 0.25 meanings are close + 0.15 never said together

Phrases that texts say together nearly as often as by chance are never merged: a text seldom says one thing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from attncap.characteristics.evidence import (
    Tokens,
    images_alike,
    said_together,
    same_wording,
    shared_words,
    unlike_all,
    whitened,
)

ACCEPTED = 0.8  # score of a merge that is made
SUGGESTED = 0.45  # score of a merge that is suggested to a person
_SHARED, _MEANING, _NEVER = 0.25, 0.25, 0.15
_ENOUGH_EXPECTED = 3.0  # from this many texts expected by chance to say both, their absence is full evidence
_OFTEN_TOGETHER = 0.35  # phrases are not merged from this share of the number expected by chance
_HEAD_PHRASES = 3  # phrases with different words around one phrase: it is the noun of all of them
_UNLIKE = 0.1  # images less alike than this speak against a merge by wording
_ENOUGH_IMAGES = 8
_MANY_IMAGES, _CHANCE = 300, 1.5  # images that are enough to tell, and what chance reaches in 1 of 15 phrases
CERTAIN_WORDING = ("written together or apart", "word order", "accents", "plural")


@dataclass
class Suggestion:
    """A merge for a person to decide: with the group of which phrase, the score, and the evidence in words."""

    phrase: int
    score: float
    evidence: str


@dataclass
class Group:
    """Phrases that state one characteristic.

    Args:
        members: indices of phrases, the most frequent first.
        reasons: why a phrase is here, by index; none for the first.
        suggestion: another group that may be the same.
        states_nothing: many texts say it, and their images are like all images ("I see", "in this image").
    """

    members: list[int]
    reasons: dict[int, str] = field(default_factory=dict)
    suggestion: Suggestion | None = None
    states_nothing: bool = False


@dataclass
class _Evidence:
    """The sizes of groups in texts, and matrices between groups, shape (G, G); None where there is none of a kind."""

    sizes: np.ndarray
    score: np.ndarray
    never: np.ndarray
    alike: np.ndarray | None
    shared: np.ndarray
    meaning: np.ndarray | None

    def words(self, a: int, b: int) -> str:
        """The evidence that two groups are the same, in words."""
        kinds = {
            "never said together": self.never,
            "images look alike": self.alike,
            "words are shared": self.shared,
            "meanings are close": self.meaning,
        }
        found = [name for name, matrix in kinds.items() if matrix is not None and matrix[a, b] >= 0.3]
        return ", ".join([*found, f"score {self.score[a, b]:.2f}"])


def propose_groups(
    phrases: Sequence[Tokens],
    texts: np.ndarray,
    *,
    embeddings: np.ndarray | None = None,
    meanings: np.ndarray | None = None,
) -> list[Group]:
    """Group phrases that state the same.

    Args:
        phrases: tokens of P phrases.
        texts: bool array, shape (P, N): phrase p is said in text n.
        embeddings: float array, shape (N, D): embedding of the image of each text; None leaves this evidence out, and
            phrases of different wording are then only suggested.
        meanings: float array, shape (P, E): sentence embedding of each phrase; None leaves this evidence out. It is
            never enough for a merge: such embeddings make opposites similar.

    Returns:
        groups: every phrase is in one, the most frequent group first.

    Raises:
        ValueError: another number of embeddings than texts.
    """
    if embeddings is not None and len(embeddings) != texts.shape[1]:
        raise ValueError(f"embeddings: {texts.shape[1]} rows expected, one per text, {len(embeddings)} found")
    if not phrases:
        return []
    white = None if embeddings is None else whitened(embeddings)
    groups = _merge_by_wording(phrases, texts, None if white is None else images_alike(texts, white))
    compare = partial(_compare, texts=texts, white=white, shared=shared_words(phrases), meanings=meanings)
    groups = _merge_by_score(groups, compare)
    if white is not None:
        for group in groups:
            images: np.ndarray = np.any(texts[group.members], axis=0)
            group.states_nothing = int(images.sum()) >= _MANY_IMAGES and unlike_all(images, white) < _CHANCE
    return groups


# ---------------------------------------------------------------- wording


def _merge_by_wording(phrases: Sequence[Tokens], texts: np.ndarray, alike: np.ndarray | None) -> list[Group]:
    counts = texts.sum(axis=1)
    observed, expected = said_together(texts)
    apart = (observed <= 1) | (observed <= _OFTEN_TOGETHER * expected)
    if alike is not None:
        enough = counts >= _ENOUGH_IMAGES
        apart &= (alike >= _UNLIKE) | ~(enough[:, None] & enough[None, :])
    parent = list(range(len(phrases)))
    reasons: dict[int, str] = {}

    def root(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    def merge(first: int, second: int, reason: str) -> None:
        a, b = root(first), root(second)
        if a == b:
            return
        if counts[a] < counts[b] or (counts[a] == counts[b] and a > b):
            a, b = b, a
        other = first if root(first) == a else second
        parent[b] = a
        reasons[b] = f"{reason}: {' '.join(phrases[other])}"

    order = [int(index) for index in np.argsort(-counts, kind="stable")]
    for position, i in enumerate(order):
        for j in order[:position]:
            reason = same_wording(phrases[i], phrases[j])
            if reason and (reason in CERTAIN_WORDING or apart[i, j]):
                merge(i, j, reason)
    for i, j in _contained(phrases, counts, apart, alike):
        merge(i, j, "longer form")
    members: dict[int, list[int]] = {}
    for index in order:
        members.setdefault(root(index), []).append(index)
    return [Group(found, {i: reasons[i] for i in found if i in reasons}) for found in members.values()]


def _contained(
    phrases: Sequence[Tokens], counts: np.ndarray, apart: np.ndarray, alike: np.ndarray | None
) -> list[tuple[int, int]]:
    """Pairs (longer, shorter): the longer phrase contains the shorter one, which is no head noun of many phrases."""
    longer_of: dict[int, list[int]] = {}
    for i, long in enumerate(phrases):
        for j, short in enumerate(phrases):
            # "young woman" is no longer form of "woman" where "young" is a phrase as well.
            if set(short) < set(long) and not any(set(other) <= set(long) - set(short) for other in phrases):
                longer_of.setdefault(j, []).append(i)
    pairs = []
    for j, longer in longer_of.items():
        head = len(longer) >= _HEAD_PHRASES and sum(counts[i] for i in longer) > counts[j]
        pairs += [
            (i, j) for i in longer if apart[i, j] and (not head or (alike is not None and alike[i, j] >= ACCEPTED))
        ]
    return sorted(pairs, key=lambda pair: -counts[pair[0]])


# ---------------------------------------------------------------- score


def _compare(
    groups: Sequence[Group],
    texts: np.ndarray,
    white: np.ndarray | None,
    shared: np.ndarray,
    meanings: np.ndarray | None,
) -> _Evidence:
    united = np.stack([texts[group.members].any(axis=0) for group in groups])
    observed, expected = said_together(united)
    never = np.clip(expected / _ENOUGH_EXPECTED, 0, 1) * (observed <= 0.2 * expected)
    by_group = np.stack([shared[group.members].max(axis=0) for group in groups])  # (G, P)
    in_common = np.stack([by_group[:, group.members].max(axis=1) for group in groups])
    score = _SHARED * in_common + _NEVER * never
    alike = meaning = None
    if white is not None:
        alike = images_alike(united, white)
        score += alike
    if meanings is not None:
        means = np.stack([np.mean(meanings[group.members], axis=0) for group in groups])
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        meaning = means @ means.T
        score += _MEANING * meaning
    score[(observed > 1) & (observed > _OFTEN_TOGETHER * expected)] = -np.inf
    np.fill_diagonal(score, -np.inf)
    return _Evidence(united.sum(axis=1), score, never, alike, in_common, meaning)


def _merge_by_score(groups: list[Group], compare: Callable[[list[Group]], _Evidence]) -> list[Group]:
    groups = list(groups)
    evidence = compare(groups)
    while evidence.alike is not None and len(groups) > 1:
        a, b = divmod(int(evidence.score.argmax()), len(groups))
        if evidence.score[a, b] < ACCEPTED:
            break
        if evidence.sizes[a] < evidence.sizes[b]:
            a, b = b, a
        reasons = {**groups[a].reasons, **groups[b].reasons, groups[b].members[0]: evidence.words(a, b)}
        groups[a] = Group([*groups[a].members, *groups[b].members], reasons)
        del groups[b]
        evidence = compare(groups)
    by_wording = _SHARED * 0.3 + (0 if evidence.meaning is None else _MEANING * 0.5)
    least = by_wording if evidence.alike is None else SUGGESTED
    sizes = evidence.sizes.tolist()
    for a, group in enumerate(groups):
        larger = [b for b in range(len(groups)) if (sizes[b], -b) > (sizes[a], -a)]
        b = max(larger, key=lambda other: evidence.score[a, other], default=a)
        if b != a and evidence.score[a, b] >= least:
            group.suggestion = Suggestion(groups[b].members[0], float(evidence.score[a, b]), evidence.words(a, b))
    return [groups[at] for at in np.argsort(-evidence.sizes, kind="stable")]
