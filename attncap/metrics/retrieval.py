"""Retrieval of images by captions: does a caption find its own image among others?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import sparse

from attncap.characteristics.lexicon import Lexicon
from attncap.metrics.characteristics import Claim, claims_of


def retrieval(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], lexicon: Lexicon | None = None
) -> dict[str, float]:
    """Rank the references of all images by their similarity to each caption; return the ranks of its own image.

    The similarity is the cosine of the claims, each weighted by log(N / number of images whose references state it).
    Texts of equal similarity share their ranks: R@k counts the share of a tie that is within the first k.

    Args:
        predictions: image_id -> caption.
        references: image_id -> texts, of the same images.
        lexicon: what phrases state; None splits texts at separators.

    Returns:
        recall_at_1, recall_at_10, median_rank (1 is best), and chance_rank, the expected rank of a random order.

    Example:
        >>> retrieval({"a": "hat", "b": "beard"}, {"a": ["hat"], "b": ["beard"]})["recall_at_1"]
        1.0
    """
    ids = list(references)
    said = [claims_of(references[image_id], lexicon) for image_id in ids]
    stated = [claims_of([predictions[image_id]], lexicon) for image_id in ids]
    frequency = Counter(claim for claims in said for claim in claims)
    column = {claim: at for at, claim in enumerate(frequency)}
    weight = np.log(len(ids) / np.array(list(frequency.values()), float)) + 1e-6
    similarity = _vectors(stated, column, weight) @ _vectors(said, column, weight).T
    rank_low, ties = np.empty(len(ids)), np.empty(len(ids))
    for row in range(len(ids)):
        values = np.round(similarity[row].toarray()[0], 12)
        rank_low[row] = (values > values[row]).sum()
        ties[row] = (values == values[row]).sum()
    found = {f"recall_at_{k}": float(np.clip((k - rank_low) / ties, 0, 1).mean()) for k in (1, 10)}
    median = float(np.median(rank_low + (ties + 1) / 2))
    return {**found, "median_rank": median, "chance_rank": (len(ids) + 1) / 2}


def _vectors(rows: Sequence[frozenset[Claim]], column: Mapping[Claim, int], weight: np.ndarray) -> sparse.csr_matrix:
    """Weighted claims of unit length, shape (N, number of claims)."""
    at = [(row, column[claim]) for row, claims in enumerate(rows) for claim in claims if claim in column]
    row_of, columns = np.array(at, int).reshape(-1, 2).T
    matrix = sparse.csr_matrix((weight[columns], (row_of, columns)), shape=(len(rows), len(column)))
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1))).ravel()
    return sparse.diags(1 / np.where(length > 0, length, 1)) @ matrix
