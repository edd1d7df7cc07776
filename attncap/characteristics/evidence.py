"""Evidence that two phrases state the same: their wording, their texts and the images of these texts.

Each function compares all phrases at once and returns a matrix (P, P).
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

from attncap.characteristics.spelling import is_misspelling, plural_of_same

Tokens = tuple[str, ...]
_COMPONENTS = 128
_SHORTEST_STEM = 4


def same_wording(first: Tokens, second: Tokens) -> str:
    """Name the way in which two phrases are variants of one wording; "" if they are not.

    Variants are: written together or apart, another word order, accents, plurals, spelling, and words of one stem.
    """
    glued = "".join(first), "".join(second)
    if glued[0] == glued[1]:
        return "written together or apart"
    if sorted(first) == sorted(second):
        return "word order"
    if _plain(glued[0]) == _plain(glued[1]):
        return "accents"
    if plural_of_same(*glued):
        return "plural"
    if len(first) != len(second):
        return "spelling" if min(map(len, glued)) >= 8 and is_misspelling(*glued) else ""
    left, right = (list((Counter(a) - Counter(b)).elements()) for a, b in ((first, second), (second, first)))
    if len(left) != 1 or len(right) != 1:
        return ""
    if plural_of_same(left[0], right[0]):
        return "plural"
    if is_misspelling(left[0], right[0]):
        return "spelling"
    return "same stem" if _same_stem(left[0], right[0]) else ""


def shared_words(phrases: Sequence[Tokens]) -> np.ndarray:
    """Share of words that two phrases have in common, weighted by rarity: 1 for equal words, 0 for none."""
    number = {word: sum(word in phrase for phrase in phrases) for phrase in phrases for word in phrase}
    weight = {word: 1 / np.sqrt(count) for word, count in number.items()}
    shares = np.zeros((len(phrases), len(phrases)))
    for i, first in enumerate(phrases):
        for j, second in enumerate(phrases[:i]):
            common = sum(weight[word] for word in set(first) & set(second))
            total = sum(weight[word] for word in set(first) | set(second))
            shares[i, j] = shares[j, i] = common / total
    np.fill_diagonal(shares, 1.0)
    return shares


def said_together(texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the texts that say both phrases, and the number expected if phrases were chosen independently.

    Args:
        texts: bool array, shape (P, N): phrase p is in text n.

    Returns:
        observed, expected: float arrays, shape (P, P).
    """
    counts = texts.sum(axis=1).astype(float)
    observed = texts.astype(np.float32) @ texts.T.astype(np.float32)
    lengths = texts.sum(axis=0)
    # A text with k phrases has k - 1 more places beside a phrase; most texts have few.
    places = (texts * np.maximum(lengths - 1, 0)).sum(axis=1) / np.maximum(counts, 1)
    expected = counts[:, None] * places[:, None] * (counts / counts.sum())[None, :]
    return observed.astype(float), (expected + expected.T) / 2


def whitened(embeddings: np.ndarray) -> np.ndarray:
    """Center embeddings (N, D) and reduce them to K components of unit variance: float array, shape (N, K).

    K is 128, or less where there are few texts or dimensions.
    """
    centered = np.asarray(embeddings, np.float64) - np.mean(embeddings, axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(centered.T @ centered / len(centered))
    keep = min(_COMPONENTS, int((values > values[-1] * 1e-6).sum()), max(1, len(centered) // 20))
    return centered @ vectors[:, -keep:] / np.sqrt(values[-keep:])  # (N, D) to (N, K)


def images_alike(texts: np.ndarray, white: np.ndarray) -> np.ndarray:
    """Cosine similarity of the mean images of two phrases, corrected for noise, less one standard error.

    With m the mean and n the number of images of a phrase, |m|^2 is reduced by its expected noise K / n before it is
    used as the denominator, and

        variance of m_i . m_j = |m_i|^2 / n_j + |m_j|^2 / n_i + K / (n_i n_j)

    so that phrases of few images count as alike only where their images are very much alike.

    Args:
        texts: bool array, shape (P, N).
        white: float array, shape (N, K), as `whitened` returns, one row per text.

    Returns:
        similarities: float array, shape (P, P), within -1 and 1; negative where the images are not informative or
            differ.
    """
    keep = white.shape[1]
    counts = np.maximum(texts.sum(axis=1), 1).astype(float)
    means = (texts @ white) / counts[:, None]
    noise = keep / counts
    products = means @ means.T
    # Texts that say both phrases are in both means, so their noise is shared: take it out.
    products -= keep * (texts.astype(np.float32) @ texts.T.astype(np.float32)) / (counts[:, None] * counts[None, :])
    # A phrase whose signal does not exceed the spread of the noise gives no evidence.
    signal = np.maximum((means**2).sum(axis=1) - noise, 2 * noise * np.sqrt(2 / keep))
    length = np.sqrt(signal[:, None] * signal[None, :])
    variance = signal[:, None] / counts[None, :] + signal[None, :] / counts[:, None]
    variance += keep / (counts[:, None] * counts[None, :])
    return np.clip(np.minimum(products / length, 1) - np.sqrt(variance) / length, -1, 1)


def unlike_all(images: np.ndarray, white: np.ndarray) -> float:
    """Measure whether the images of a phrase differ from all images, in standard deviations of chance.

    The squared length of the mean of n random rows of K unit variances is K / n (1 - n / N) on average; n times it has
    a standard deviation of sqrt(2 K).

    Args:
        images: bool array, shape (N,): the texts that say the phrase.
        white: float array, shape (N, K), as `whitened` returns.
    """
    count, keep = int(images.sum()), white.shape[1]
    mean = white[images].mean(axis=0)  # (K,)
    left = max(1 - count / len(white), 1e-9)
    return float((count * (mean @ mean) / left - keep) / np.sqrt(2 * keep))


def _same_stem(first: str, second: str) -> bool:
    """Whether two words share a beginning of at least four letters, and differ by short endings only."""
    common = len(os.path.commonprefix([first, second]))
    return common >= _SHORTEST_STEM and max(len(first), len(second)) - common <= min(4, common - 1)


def _plain(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")
