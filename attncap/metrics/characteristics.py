"""Score what captions state: precision and recall of characteristics, truth against a table, contradictions.

Metrics of word order and n-grams prefer a false characteristic in the usual place to a true one in another place. Here
a caption is the set of what it states, in any order and wording.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from attncap.characteristics.lexicon import Lexicon
from attncap.characteristics.text import join, segments
from attncap.data.label_table import LABEL_WORDS, read_text
from attncap.metrics.references import Candidates
from attncap.metrics.registry import Metric, register_metric

Claim = tuple[str, bool]
_RANDOM_DRAWS = 20


def claims_of(texts: Iterable[str], lexicon: Lexicon | None = None) -> frozenset[Claim]:
    """Return all that several texts state: (characteristic, present); a contradiction counts as two claims.

    Args:
        texts: of one image.
        lexicon: what phrases state; None splits the texts at separators, and each part is a characteristic.

    Example:
        >>> sorted(claims_of(["Big nose, curly hair", "curly hair"]))
        [('big nose', True), ('curly hair', True)]
    """
    if lexicon is not None:
        return frozenset((s.characteristic, s.present) for text in texts for s in lexicon.read_text(text))
    return frozenset((join(part), True) for text in texts for part in segments(text))


class Facts:
    """A table of what is true of images.

    Args:
        table: index image_id, a column per characteristic, values 1 (true), 0 or -1 (false), missing (not known).
            Names are compared without case, blanks and underscores.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        self._known = {_plain(str(column)): table[column].dropna() > 0 for column in table.columns}
        self.image_ids = set(table.index)
        self.table = table

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Facts:
        """Read a CSV (first column: file name) or CelebA's text of attributes.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a cell that is no number.
        """
        table = read_text(Path(path))
        table = table.set_index(table.columns[0]).drop(columns="split", errors="ignore")
        try:
            return cls(table.map(lambda cell: LABEL_WORDS.get(cell.lower(), cell)).apply(pd.to_numeric))
        except ValueError as error:
            raise ValueError(f"{path}: 1, 0, -1 or nothing expected in every column after the first: {error}") from None

    def knows(self, characteristic: str) -> bool:
        """Whether the table has a column of this name."""
        return _plain(characteristic) in self._known

    def is_true(self, image_id: str, claim: Claim) -> bool | None:
        """Return whether a claim is true of an image; None if the table does not say."""
        known = self._known.get(_plain(claim[0]))
        if known is None or image_id not in known.index:
            return None
        return bool(known[image_id]) == claim[1]

    def share(self, claim: Claim) -> float | None:
        """Return the share of images for which a claim is true; None if the table does not say."""
        known = self._known.get(_plain(claim[0]))
        if known is None or not len(known):
            return None
        return float((known == claim[1]).mean())


@register_metric("characteristics")
class Characteristics(Metric):
    """Precision, recall and F1 of stated characteristics against the references, over all images.

    A caption's claims are compared with everything that the references of its image state. References are silent on
    much that is true, so precision is a lower bound; `facts` says what is true. A caption without claims adds nothing.

    Args:
        lexicon: what phrases state; None splits texts at separators.
        facts: what is true of the images, for the share of true claims; None leaves it out.

    Example:
        >>> from attncap.metrics.evaluate import evaluate
        >>> scores = evaluate({"7": "hat, beard"}, {"7": ["beard, glasses"]}, metrics=[Characteristics()], bootstrap=0)
        >>> scores.values["claim_precision"], scores.values["claim_recall"]
        (0.5, 0.5)
    """

    def __init__(self, lexicon: Lexicon | None = None, facts: Facts | None = None) -> None:
        self.lexicon, self.facts = lexicon, facts
        self.labels = {
            "claim_precision": "claims in the references",
            "claim_recall": "references' claims found",
            "claim_f1": "F1 of claims",
            "claims_per_caption": "claims per caption",
            "claims_contradicted": "claims that references or the caption deny",
            **({"claims_true": "claims true by the table"} if facts is not None else {}),
        }

    def rows(self, candidates: Candidates) -> np.ndarray:
        ids = candidates.references.image_ids
        pairs = candidates.texts_and_references()
        return np.stack(
            [
                _row(image_id, claims_of([text], self.lexicon), claims_of(references, self.lexicon), self.facts)
                for image_id, (text, references) in zip(ids, pairs, strict=True)
            ]
        )

    def scores(self, sums: np.ndarray, images: np.ndarray) -> np.ndarray:
        claims, hits, said, denied, judged, true = np.moveaxis(np.asarray(sums, float), -1, 0)
        found = [
            _ratio(hits, claims),
            _ratio(hits, said),
            _ratio(2 * hits, claims + said),
            _ratio(claims, np.asarray(images, float)),
            _ratio(denied, claims),
        ]
        if self.facts is not None:
            found.append(_ratio(true, judged))
        return np.stack(found, axis=-1)


def _row(image_id: str, stated: frozenset[Claim], said: frozenset[Claim], facts: Facts | None) -> np.ndarray:
    """Count claims stated, hits, claims said, denied claims, and what `_judged` counts."""
    denied = sum((name, not present) in said | stated for name, present in stated)
    return np.array([len(stated), len(stated & said), len(said), denied, *_judged(image_id, stated, facts)], float)


def _judged(image_id: str, claims: Iterable[Claim], facts: Facts | None) -> tuple[int, int]:
    """Count the claims that the table knows about, and those that are true."""
    judged = [facts.is_true(image_id, claim) for claim in claims] if facts is not None else []
    known = [value for value in judged if value is not None]
    return len(known), sum(known)


def per_characteristic(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    lexicon: Lexicon | None = None,
    facts: Facts | None = None,
) -> pd.DataFrame:
    """Precision and recall of every claim.

    Args:
        predictions: image_id -> caption.
        references: image_id -> texts, of the same images.
        lexicon, facts: as in `Characteristics`.

    Returns:
        DataFrame, most said first: characteristic, present, in_references, in_captions, precision, recall, f1, and
        with facts true.
    """
    rows = []
    for image_id, texts in references.items():
        own, told = claims_of([predictions[image_id]], lexicon), claims_of(texts, lexicon)
        for claim in own | told:
            judged = _judged(image_id, [claim] if claim in own else [], facts)
            rows.append((*claim, claim in told, claim in own, claim in told and claim in own, *judged))
    counts = ["in_references", "in_captions", "hits", "judged", "judged_true"]
    table = pd.DataFrame(rows, columns=["characteristic", "present", *counts])
    table = table.groupby(["characteristic", "present"], as_index=False)[counts].sum()
    table = table.sort_values(["in_references", "characteristic", "present"], ascending=[False, True, True])
    table["precision"] = table["hits"] / table["in_captions"]  # NaN where nothing is stated
    table["recall"] = table["hits"] / table["in_references"]
    table["f1"] = 2 * table["hits"] / (table["in_captions"] + table["in_references"])
    table["true"] = table["judged_true"] / table["judged"]
    names = ["characteristic", "present", *counts[:2], "precision", "recall", "f1"]
    return table[[*names, *(["true"] if facts is not None else [])]].reset_index(drop=True)


def baselines(
    predictions: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    training: Sequence[str] | None = None,
    lexicon: Lexicon | None = None,
    facts: Facts | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare the claims of a system with trivial baselines.

    Rows: the system; its own claims applied to a random image (the exact expectation); the most common training caption
    for every image; a random training caption (mean of 20 draws).

    Args:
        predictions: image_id -> caption.
        references: image_id -> texts, of the same images.
        training: training captions; None leaves out the last two rows.
        lexicon, facts: as in `Characteristics`.
        seed: of the random captions.

    Returns:
        DataFrame: system, claims (per caption), precision, recall, f1, and with facts true.
    """
    said = {image_id: claims_of(texts, lexicon) for image_id, texts in references.items()}
    own = [claims_of([predictions[image_id]], lexicon) for image_id in said]
    rows = [("system", _measure(own, said, facts)), ("its claims, of a random image", _prior(own, said, facts))]
    if training:
        common = Counter(training).most_common(1)[0][0]
        rows.append((f"most common: {common!r:.40}", _measure([claims_of([common], lexicon)] * len(said), said, facts)))
        rng = np.random.default_rng(seed)
        claims = cache(lambda at: claims_of([training[at]], lexicon))
        draws = [rng.integers(len(training), size=len(said)).tolist() for _ in range(_RANDOM_DRAWS)]
        drawn = [_measure(map(claims, numbers), said, facts) for numbers in draws]
        rows.append(("random training caption", np.mean(drawn, axis=0)))
    names = ["claims", "precision", "recall", "f1", *(["true"] if facts is not None else [])]
    return pd.DataFrame([(name, *values[: len(names)]) for name, values in rows], columns=["system", *names])


def _measure(
    stated: Iterable[frozenset[Claim]], said: Mapping[str, frozenset[Claim]], facts: Facts | None
) -> np.ndarray:
    rows = [_row(image_id, own, said[image_id], facts) for image_id, own in zip(said, stated, strict=True)]
    claims, hits, told, _, judged, true = np.sum(rows, axis=0)
    return _five(claims, hits, told, len(said), true, judged)


def _prior(own: Iterable[frozenset[Claim]], said: Mapping[str, frozenset[Claim]], facts: Facts | None) -> np.ndarray:
    frequency = Counter(claim for claims in said.values() for claim in claims)
    stated = Counter(claim for claims in own for claim in claims)
    hits = sum(count * frequency[claim] / len(said) for claim, count in stated.items())
    shares = [(facts.share(claim), count) for claim, count in stated.items()] if facts is not None else []
    judged = sum(count for share, count in shares if share is not None)
    true = sum(share * count for share, count in shares if share is not None)
    return _five(sum(stated.values()), hits, sum(frequency.values()), len(said), true, judged)


def _five(claims: float, hits: float, said: float, images: int, true: float, judged: float) -> np.ndarray:
    parts, wholes = (hits, hits, 2 * hits, true), (claims, said, claims + said, judged)
    return np.array([claims / images, *_ratio(parts, wholes, empty=np.nan)])


def _ratio(part: ArrayLike, whole: ArrayLike, empty: float = 0.0) -> np.ndarray:
    """Return part / whole; for an empty whole 0, so that resamples can be compared, or another number."""
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.full(part.shape, empty), where=whole > 0)


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
