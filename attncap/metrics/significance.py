"""Bootstrap intervals over images, and paired tests between two systems.

Each score is a function of sums over images (see `attncap.metrics.registry.Metric`). A resample is then a row of
weights, and a thousand resamples are one matrix product. Images are resampled, not captions, because the captions of
one image are not independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

ScoresFromSums = Callable[[np.ndarray], np.ndarray]
_CHUNK = 4_000_000  # weights held at a time: 32 MB
_ROUNDING = 1e-12


def bootstrap(columns: np.ndarray, scores_from_sums: ScoresFromSums, samples: int = 1000, seed: int = 0) -> np.ndarray:
    """Compute the scores of resampled sets of images: each sample draws N of the N images, with replacement.

    The same seed draws the same images as in sacrebleu. Quantities that are not sums stay fixed: CIDEr uses the
    document frequencies of the whole reference set in every sample.

    Args:
        columns: float array, shape (N, C), one row of sums per image.
        scores_from_sums: maps sums, shape (S, C), to scores, shape (S, K).
        samples: S, number of resamples.
        seed: seed of NumPy's default generator. The same seed draws the same images for every system.

    Returns:
        float64 array, shape (S, K).

    Raises:
        ValueError: when samples is less than 1 or there is no image.

    Example:
        >>> rows = np.array([[0.2, 1.0], [0.4, 1.0]])  # a score and a count
        >>> means = bootstrap(rows, lambda sums: sums[:, :1] / sums[:, 1:], samples=100)
        >>> bool(means.min() >= 0.2 and means.max() <= 0.4)
        True

    Reference: Efron and Tibshirani 1993, chapter 13; Koehn 2004 for BLEU.
    """
    sums = [weights @ columns for weights in _resampled(len(columns), samples, seed)]
    return scores_from_sums(np.concatenate(sums))


def interval(scores: np.ndarray, level: float = 0.95) -> np.ndarray:
    """Compute the percentile interval of bootstrap scores.

    Args:
        scores: float array, shape (S, K).
        level: share of the samples inside the interval.

    Returns:
        float64 array, shape (K, 2): lower and upper end.

    Raises:
        ValueError: when level is not between 0 and 1.

    Example:
        >>> interval(np.arange(101.0)[:, None]).round(6).tolist()
        [[2.5, 97.5]]
    """
    if not 0 < level < 1:
        raise ValueError(f"level is a share between 0 and 1, got {level!r}")
    return np.quantile(scores, [(1 - level) / 2, (1 + level) / 2], axis=0).T  # (K, 2)


def with_intervals(
    names: Sequence[str], columns: np.ndarray, scores_from_sums: ScoresFromSums, samples: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Return the scores of all images with their 95% bootstrap intervals, as a row of a table.

    Args:
        names: names of the K scores.
        columns, scores_from_sums, samples, seed: see `bootstrap`.

    Returns:
        row: NAME, NAME_low and NAME_high for each name.
    """
    means = scores_from_sums(columns.sum(axis=0)[None])[0]
    ends = interval(bootstrap(columns, scores_from_sums, samples, seed))
    row: dict[str, float] = {}
    for name, mean, (low, high) in zip(names, means, ends, strict=True):
        row |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    return row


def paired_bootstrap(scores_a: np.ndarray, scores_b: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """Compute the two-sided p-value of the paired bootstrap test. The null hypothesis is that A and B score the same.

    p = (1 + #{|a_s - b_s| - mean of |a - b| > |difference|}) / (S + 1). This is the test of sacrebleu's `--paired-bs`,
    except that two systems with equal scores get p = 1.

    Args:
        scores_a: float array, shape (S, K), `bootstrap` of system A.
        scores_b: float array, shape (S, K), `bootstrap` of system B with the same seed.
        difference: float array, shape (K,), between the scores on the whole set.

    Returns:
        float64 array, shape (K,), in [1/(S+1), 1].

    Reference: Koehn 2004; sacrebleu's significance.py.
    """
    apart = np.abs(scores_a - scores_b)
    return _p_value(apart - apart.mean(axis=0), np.abs(difference))


def paired_randomization(
    columns_a: np.ndarray,
    columns_b: np.ndarray,
    scores_from_sums: ScoresFromSums,
    samples: int = 10_000,
    seed: int = 0,
) -> np.ndarray:
    """Compute the two-sided p-value of the paired randomization test. The null hypothesis: A and B score the same.

    For each image, the captions of the two systems are swapped with probability 1/2.
    p = (1 + #{|difference of the shuffled systems| > |difference|}) / (S + 1). This is the test of sacrebleu's
    `--paired-ar`, except that two systems with equal scores get p = 1.

    Args:
        columns_a: float array, shape (N, C), rows of system A.
        columns_b: float array, shape (N, C), rows of system B for the same images.
        scores_from_sums: maps sums, shape (S, C), to scores, shape (S, K).
        samples: S, number of shuffles; default 10,000, as sacrebleu's.
        seed: of numpy's default generator.

    Returns:
        float64 array, shape (K,), in [1/(S+1), 1].

    Raises:
        ValueError: when the systems have different numbers of images, samples is less than 1 or there is no image.

    Reference: Riezler and Maxwell 2005; sacrebleu's significance.py.
    """
    if columns_a.shape != columns_b.shape:
        raise ValueError(f"a paired test needs the same images twice, got {columns_a.shape} and {columns_b.shape}")
    total, apart = columns_a.sum(axis=0) + columns_b.sum(axis=0), []
    rng = np.random.default_rng(seed)
    for size in _sizes(len(columns_a), samples):
        keep = rng.integers(2, size=(size, len(columns_a)), dtype=bool)
        sums = keep @ columns_a + ~keep @ columns_b
        apart.append(np.abs(scores_from_sums(sums) - scores_from_sums(total - sums)))
    difference = scores_from_sums(columns_a.sum(axis=0)) - scores_from_sums(columns_b.sum(axis=0))
    return _p_value(np.concatenate(apart), np.abs(difference))


@dataclass(frozen=True, eq=False)
class PairedTest:
    """The difference between two systems.

    Args:
        differences: float64 array, shape (K,): A - B.
        intervals: float64 array, shape (K, 2): 95% bootstrap interval of A - B.
        p_values: float64 array, shape (K,): two-sided, of "A and B score the same".
        samples: of the test.
    """

    differences: np.ndarray
    intervals: np.ndarray
    p_values: np.ndarray
    samples: int


def paired_test(
    columns_a: np.ndarray,
    columns_b: np.ndarray,
    scores_from_sums: ScoresFromSums,
    *,
    method: str = "randomization",
    samples: int | None = None,
    seed: int = 0,
) -> PairedTest:
    """Compare two systems: the differences, their bootstrap intervals, and p-values.

    Args:
        columns_a: float array, shape (N, C), rows of system A.
        columns_b: float array, shape (N, C), rows of system B for the same images.
        scores_from_sums: maps sums, shape (S, C), to scores, shape (S, K).
        method: of the p-values, "randomization" or "bootstrap".
        samples: of the p-values; default 10,000 for randomization, 1,000 for the bootstrap.
        seed: of both.

    Returns:
        The test; intervals come from 1,000 bootstrap samples, or from those of the p-values.

    Raises:
        ValueError: as `paired_randomization`, or another method.
    """
    if method not in ("bootstrap", "randomization"):
        raise ValueError(f"method is bootstrap or randomization, got {method!r}")
    differences = scores_from_sums(columns_a.sum(axis=0)) - scores_from_sums(columns_b.sum(axis=0))
    samples = samples or (1000 if method == "bootstrap" else 10_000)
    resamples = samples if method == "bootstrap" else 1000
    boot_a, boot_b = (bootstrap(rows, scores_from_sums, resamples, seed) for rows in (columns_a, columns_b))
    if method == "bootstrap":
        p_values = paired_bootstrap(boot_a, boot_b, differences)
    else:
        p_values = paired_randomization(columns_a, columns_b, scores_from_sums, samples, seed)
    return PairedTest(differences, interval(boot_a - boot_b), p_values, samples)


def _resampled(n: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield weights, a chunk of samples at a time, shape (s, n): how often each image was drawn."""
    rng = np.random.default_rng(seed)
    for size in _sizes(n, samples):
        drawn = rng.choice(n, size=(size, n), replace=True) + n * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(float)  # (s, n)


def _sizes(n: int, samples: int) -> list[int]:
    if samples < 1:
        raise ValueError(f"samples is at least 1, got {samples}")
    if n < 1:
        raise ValueError("resampling needs at least one image, got none")
    size = max(1, _CHUNK // n)
    return [min(size, samples - start) for start in range(0, samples, size)]


def _p_value(statistic: np.ndarray, observed: np.ndarray) -> np.ndarray:
    # A sample that equals what was observed must not exceed it by rounding.
    p = (1 + (statistic > observed + _ROUNDING).sum(axis=0)) / (len(statistic) + 1)
    # sacrebleu gives 1/(S+1) here, as if a system differed significantly from itself.
    return np.where(observed <= _ROUNDING, 1.0, p)
