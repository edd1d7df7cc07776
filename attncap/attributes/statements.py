"""Positive-unlabeled tables: what people stated of images, as training targets.

In such a table 1 means that the text of an image states an attribute, 0 that it states the attribute's absence ("no
glasses"), and an empty cell that it is silent. Silence is not a no: most texts leave out most of what is true.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import poisson

from attncap._messages import listed
from attncap.attributes.tables import AttributeData
from attncap.characteristics.lexicon_file import read_entries

MOST = 5  # claims of a description
NOTHING = "nothing certain"
CERTAIN = 0.25  # of the probability that a statement reaches where the classifier is sure; at 0.5 recall fell by 17%
SILENT_SHARE = 0.5  # with more empty cells than this, a table holds statements
FEWEST = 5  # a statement with fewer training texts has nothing to learn from
RARE = 30  # below this many training texts the probability of a statement is uncertain

UNCERTAIN = f"stated in fewer than {RARE} training texts, so that probabilities are uncertain"
LEFT_OUT = f"left out, stated in fewer than {FEWEST} training texts"


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
        return json.loads(json.dumps(asdict(self)))

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
        warnings: one line that names the rare statements, and one that names those that are left out.

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
    rare: list[str] = []
    too_few: list[str] = []
    for at, name in enumerate(data.names):
        first = len(names)
        for value, statement in ((1, name), (0, absence_of(name, data.names))):
            stated = data.labels[:, at] == value
            count = int(stated[training].sum())
            if count < FEWEST:
                if value == 1 or count:
                    too_few.append(f"{statement!r} ({count})")
                continue
            if count < RARE:
                rare.append(f"{statement!r} ({count})")
            names.append(statement)
            words.append(phrases.get((name, value), statement))
            columns.append(stated.astype(np.float32))
        if len(names) == first + 2:
            pairs.append((first, first + 1))
    warnings = [f"{what}: {listed(few, 10)}" for what, few in ((UNCERTAIN, rare), (LEFT_OUT, too_few)) if few]
    if not names:
        raise ValueError(f"{data.name}: no statement is made in at least {FEWEST} training texts: give more texts")
    labels = np.stack(columns, axis=1)  # (N, A)
    stated = labels[training]
    pairs += [pair for pair in kept_apart(stated) if pair not in pairs]
    usual = tuple(round(float(share), 6) for share in stated.mean(axis=0))
    return replace(data, names=tuple(names), labels=labels), Statements(tuple(words), usual, tuple(pairs)), warnings


def statement_targets(data: AttributeData, names: Sequence[str]) -> AttributeData:
    """Return a table's targets for the statements of a trained classifier: 1 where a text makes one, else 0.

    Args:
        data: the table that the classifier was trained on, or another with its attributes.
        names: of the statements, as `to_statements` named them.

    Raises:
        ValueError: a statement whose attribute the table does not have.
    """
    place = {absence_of(name, data.names): (at, 0.0) for at, name in enumerate(data.names)}
    place |= {name: (at, 1.0) for at, name in enumerate(data.names)}
    unknown = [name for name in names if name not in place]
    if unknown:
        raise ValueError(
            f"{data.name}: no attribute for the statement {unknown[0]!r}: give the table that the run was trained on"
        )
    columns = [data.labels[:, at] == value for at, value in (place[name] for name in names)]
    return replace(data, names=tuple(names), labels=np.stack(columns, axis=1).astype(np.float32))


def choose_claims(probs: np.ndarray, statements: Statements, most: int = MOST) -> list[int]:
    """Choose the statements worth saying of one image: the likeliest of those that are certain and not usual.

    A statement is certain where its probability reaches a quarter of what it is where the classifier is sure
    (`Statements.typical`), and worth saying where it is likelier than in any image (`Statements.usual`). Of two that
    contradict each other, the likelier one is chosen.

    Args:
        probs: calibrated, shape (A,).
        statements: of the classifier.
        most: at most so many.

    Returns:
        places: of the statements, the likeliest first.
    """
    usual, typical = np.array(statements.usual), np.array(statements.typical or statements.usual)
    worth = (probs > usual) & (probs >= CERTAIN * typical)
    opposite = {frozenset(pair) for pair in statements.contradictions}
    chosen: list[int] = []
    for at in np.argsort(-probs, kind="stable"):
        if len(chosen) == most:
            break
        if worth[at] and not any(frozenset((int(at), other)) in opposite for other in chosen):
            chosen.append(int(at))
    return chosen


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
