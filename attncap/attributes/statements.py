"""Positive-unlabeled learning: training targets from what people state about images.

In a table of statements, 1 means that the text of an image states an attribute. 0 means that the text states that the
attribute is absent ("no glasses"). An empty cell means that the text does not mention the attribute. The attribute can
still be present, because most texts do not mention most of what is true.
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

MOST = 5  # largest number of claims in a description
NOTHING = "nothing certain"
CERTAIN = 0.25  # a statement is certain from this fraction of `Statements.typical`; 0.5 lowered recall by 17%
SILENT_SHARE = 0.5  # a table with a larger share of empty cells is a table of statements
FEWEST = 5  # statements with fewer training texts are left out
RARE = 30  # with fewer training texts, the probability of a statement is uncertain

UNCERTAIN = f"stated in fewer than {RARE} training texts, so that probabilities are uncertain"
LEFT_OUT = f"left out, stated in fewer than {FEWEST} training texts"


@dataclass(frozen=True)
class Statements:
    """The statements that the outputs of a classifier stand for.

    Args:
        phrases: words of each output, such as "big nose" or "no glasses".
        usual: for each output, the share of the training texts that make the statement.
        contradictions: pairs of outputs that a description must not combine: an attribute and its absence, and
            statements that training texts almost never make together (see `kept_apart`).
        typical: for each output, the 99th percentile of its probability on held-out images. It is the probability that
            the classifier predicts when it is sure.
    """

    phrases: tuple[str, ...]
    usual: tuple[float, ...]
    contradictions: tuple[tuple[int, int], ...] = ()
    typical: tuple[float, ...] = ()

    def to_config(self) -> dict[str, Any]:
        """Convert to a dictionary of lists, for a Keras configuration. `from_config` is the inverse."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Statements:
        pairs = tuple((int(first), int(second)) for first, second in config["contradictions"])
        return cls(tuple(config["phrases"]), tuple(config["usual"]), pairs, tuple(config["typical"]))


def holds_statements(data: AttributeData) -> bool:
    """Check whether a table is a table of statements: more than half of its cells are empty."""
    return bool(np.isnan(data.labels).mean() > SILENT_SHARE)


def to_statements(
    data: AttributeData, phrases: dict[tuple[str, int], str] | None = None
) -> tuple[AttributeData, Statements, list[str]]:
    """Convert a table of statements to training targets: 1 if a text makes the statement, 0 if it does not.

    An attribute can give two statements: that it is present, and that it is absent. Statements with fewer than 5
    training texts are left out. A classifier trained on these targets learns the probability that a person would make
    the statement about an image. This probability is lower than the probability that the statement is true:
    P(stated) = P(stated | true) P(true), if people state only what is true.

    Args:
        data: labels 1, 0 and NaN. Only the training split is counted.
        phrases: (attribute, 1 or 0) -> words of the statement. Default: the name of the attribute for 1, and "no "
            before the name for 0.

    Returns:
        data: labels without NaN, one column per statement.
        statements: phrases, shares and contradictions, but no `typical`.
        warnings: up to two lines: the statements that are rare, and the statements that are left out.

    Raises:
        ValueError: no statement is made in at least 5 training texts.

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
    """Compute the targets for the statements of a trained classifier: 1 if a text makes the statement, else 0.

    Args:
        data: the table that the classifier was trained on, or another table with the same attributes.
        names: names of the statements, from `to_statements`.

    Raises:
        ValueError: the table does not have the attribute of a statement.
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
    """Choose the statements for the description of one image.

    The most probable statements that meet these conditions are chosen:

    * The statement is certain: its probability is at least a quarter of `Statements.typical`.
    * The statement is more probable than for an average image (`Statements.usual`).
    * It does not contradict a more probable statement that was chosen.

    Args:
        probs: calibrated probabilities, shape (A,).
        statements: the statements of the classifier.
        most: largest number of statements.

    Returns:
        indices: indices of the chosen statements, the most probable first.
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
    """Find the pairs of statements that occur in the same text much less often than expected by chance.

    Such pairs are opposites ("man" and "woman") or synonyms. A description needs only one of the two. The condition is
    that at most a tenth of the expected number of texts make both statements, and that a number as small as this has a
    probability below 0.001 if the statements are independent (Poisson distribution).

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
    """Read the most frequent phrase of each characteristic from the CSV of `attncap characteristics mine`.

    Args:
        file: a CSV with the columns characteristic, phrase, count and sign.

    Returns:
        phrases: (characteristic, 1 if stated as present or 0 if stated as absent) -> phrase.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is malformed; the message names the file and the line.
    """
    best: dict[tuple[str, int], tuple[int, str]] = {}
    for entry in read_entries(file):
        key = (entry.characteristic, int(entry.sign > 0))
        if entry.characteristic and entry.count > best.get(key, (-1, ""))[0]:
            best[key] = (entry.count, entry.phrase)
    return {key: phrase for key, (_, phrase) in best.items()}
