"""Positive-unlabeled tables: what people stated of images, as training targets.

In such a table 1 means that the text of an image states an attribute, 0 that it states the attribute's absence ("no
glasses"), and an empty cell that it is silent. Silence is not a no: most texts leave out most of what is true.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import poisson

from attncap.attributes.tables import AttributeData
from attncap.characteristics.lexicon_file import read_entries

SILENT_SHARE = 0.5  # with more empty cells than this, a table holds statements
FEWEST = 5  # a statement with fewer training texts has nothing to learn from
RARE = 30  # below this many training texts the probability of a statement is uncertain


@dataclass(frozen=True)
class Statements:
    """What the outputs of a classifier say, in the words of its users.

    Args:
        phrases: one per output, such as "big nose" or "no glasses".
        usual: share of the training texts that state each.
        contradictions: pairs of outputs that no description may hold together: an attribute and its absence, and
            statements that the training texts keep apart.
        typical: for each output the 99th percentile of its probability on held-out images: what the classifier says
            where it is sure.
    """

    phrases: tuple[str, ...]
    usual: tuple[float, ...]
    contradictions: tuple[tuple[int, int], ...] = ()
    typical: tuple[float, ...] = ()

    def to_config(self) -> dict[str, Any]:
        """Return plain lists for a configuration; `from_config` reads them."""
        return {
            "phrases": list(self.phrases),
            "usual": list(self.usual),
            "contradictions": [list(pair) for pair in self.contradictions],
            "typical": list(self.typical),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Statements:
        pairs = tuple((int(first), int(second)) for first, second in config["contradictions"])
        return cls(tuple(config["phrases"]), tuple(config["usual"]), pairs, tuple(config["typical"]))


def holds_statements(data: AttributeData) -> bool:
    """Return whether a table holds statements: more than half of its cells are empty."""
    return bool(np.isnan(data.labels).mean() > SILENT_SHARE)


def to_statements(
    data: AttributeData, phrases: dict[tuple[str, int], str] | None = None
) -> tuple[AttributeData, Statements, list[str]]:
    """Turn a table of statements into targets: 1 where a text makes the statement, 0 where it does not.

    Each attribute gives the statement that it is there and, where texts say so, the statement that it is absent.
    A classifier trained on these targets learns the probability that a person would make the statement of an image.
    That is lower than the probability that the statement is true: P(stated) = P(stated | true) P(true).

    Args:
        data: labels 1, 0 and NaN; "train" is counted.
        phrases: (attribute, 1 or 0) -> words; default the attribute's name, and "no " before it.

    Returns:
        data: labels without NaN, one column per statement.
        statements: phrases, shares and contradictions; without `typical`.
        warnings: one line for each statement that is left out or rare.

    Raises:
        ValueError: no statement is made in at least five training texts.

    Reference: Elkan and Noto 2008, "Learning classifiers from only positive and unlabeled data".
    """
    phrases = phrases or {}
    training = (data.pictures["split"] == "train").to_numpy()
    names: list[str] = []
    words: list[str] = []
    columns: list[np.ndarray] = []
    pairs: list[tuple[int, int]] = []
    warnings: list[str] = []
    for at, name in enumerate(data.names):
        first = len(names)
        for value, statement in ((1, name), (0, absence_of(name, data.names))):
            stated = data.labels[:, at] == value
            count = int(stated[training].sum())
            if count < FEWEST:
                if value == 1 or count:
                    warnings.append(
                        f"{statement!r} is stated in {count} training texts: left out (fewer than {FEWEST})"
                    )
                continue
            if count < RARE:
                warnings.append(f"{statement!r} is stated in {count} training texts: its probability is uncertain")
            names.append(statement)
            words.append(phrases.get((name, value), statement))
            columns.append(stated.astype(np.float32))
        if len(names) == first + 2:
            pairs.append((first, first + 1))
    if not names:
        raise ValueError(f"{data.name}: no statement is made in at least {FEWEST} training texts: give more texts")
    labels = np.stack(columns, axis=1)  # (N, A)
    stated = labels[training]
    pairs += [pair for pair in kept_apart(stated) if pair not in pairs]
    usual = tuple(round(float(share), 6) for share in stated.mean(axis=0))
    return replace(data, names=tuple(names), labels=labels), Statements(tuple(words), usual, tuple(pairs)), warnings


def absence_of(name: str, taken: tuple[str, ...] = ()) -> str:
    """Return the name of the statement that an attribute is absent.

    Example:
        >>> absence_of("glasses")
        'no glasses'
    """
    return f"no {name}" if f"no {name}" not in taken else f"absent: {name}"


def kept_apart(stated: np.ndarray) -> list[tuple[int, int]]:
    """Return the pairs of statements that texts make together far less often than chance would have it.

    Opposites (man and woman) and two words for one thing are both such pairs: a description needs one of the two.
    A pair is taken where at most a tenth of the expected number of texts hold both, and where so few have a
    probability below 0.001 if the two were independent.

    Args:
        stated: 1 or 0, shape (texts, A).

    Returns:
        pairs: (first, second), first < second.
    """
    together = stated.T @ stated  # (A, A)
    expected = np.outer(stated.sum(axis=0), stated.sum(axis=0)) / max(1, len(stated))
    apart = (together <= 0.1 * expected) & (poisson.cdf(together, np.maximum(expected, 1e-9)) < 1e-3)
    first, second = np.nonzero(np.triu(apart, 1))
    return [(int(a), int(b)) for a, b in zip(first, second, strict=True)]


def read_phrases(file: str | Path) -> dict[tuple[str, int], str]:
    """Return the most common phrase of each characteristic from the CSV of `attncap characteristics mine`.

    Args:
        file: a CSV with the columns characteristic, phrase, count and sign.

    Returns:
        phrases: (characteristic, 1 stated or 0 stated absent) -> phrase.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be understood; the message names file and line.
    """
    best: dict[tuple[str, int], tuple[int, str]] = {}
    for entry in read_entries(file):
        key = (entry.characteristic, int(entry.sign > 0))
        if entry.characteristic and entry.count > best.get(key, (-1, ""))[0]:
            best[key] = (entry.count, entry.phrase)
    return {key: phrase for key, (_, phrase) in best.items()}
