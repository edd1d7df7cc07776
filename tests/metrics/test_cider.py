"""CIDEr-D between captions, by hand and against the COCO tools' pairs."""

import math

import numpy as np
import pytest

from attncap.metrics.cider_d import CiderD


def words(*captions: str) -> list[list[str]]:
    return [caption.split() for caption in captions]


def test_captions_of_one_word_by_hand() -> None:
    """One of four n-gram orders exists: 10 / 4 for the same word, 0 for another."""
    cider = CiderD([words("cat"), words("dog"), words("dog"), words("cow")])
    found = cider.pairwise(words("cat", "dog", "cow", "bus"), words("cat", "dog", "bird"))
    np.testing.assert_allclose(found, [[2.5, 0, 0], [0, 2.5, 0], [0, 0, 0], [0, 0, 0]])
    assert CiderD([words("dog"), words("a dog")]).pairwise(words("dog"), words("dog"))[0, 0] == 0


def test_counts_are_clipped_and_lengths_penalized_by_hand() -> None:
    """Three images; "a" is in all (weight 0). Unigrams: (dog 2) . (dog 1, runs 1), clipped."""
    cider = CiderD([words("a dog runs"), words("a cat"), words("a car")])
    found = cider.pairwise(words("a dog dog", "a dog dog dog"), words("a dog runs"))
    assert found[0, 0] == pytest.approx(10 * (1 / math.sqrt(8) + 1 / 2) / 4)
    # "dog" three times; bigrams "a dog", "dog dog" twice: the first of norm sqrt 2 in the reference; one word longer.
    expected = 10 * (1 / math.sqrt(2) / 3 + 1 / (math.sqrt(5) * math.sqrt(2))) / 4 * math.exp(-1 / 72)
    assert found[1, 0] == pytest.approx(expected)
    both = cider.pairwise(words("dog dog dog"), words("dog dog runs"))[0, 0]  # clipped at 2
    unigrams, bigrams = 2 * 2 / (3 * math.sqrt(5)), 1 / (2 * math.sqrt(2))
    assert both == pytest.approx(10 * (unigrams + bigrams) / 4)


def test_pairs_are_the_scores_of_one_caption_per_image() -> None:
    rng = np.random.default_rng(0)

    def caption() -> list[int]:
        return rng.integers(0, 7, rng.integers(0, 14)).tolist()

    documents = [[caption() for _ in range(1 + n % 3)] for n in range(23)]
    captions = [caption() + [99] * (n % 2) for n in range(23)]
    cider = CiderD(documents)
    cider_d, _ = cider.one_per_image(cider.vectors(captions))
    pairs = cider.against_references(captions, np.arange(len(cider.image_of)))
    np.testing.assert_allclose(cider_d, [row[cider.image_of == n].mean() for n, row in enumerate(pairs)], atol=1e-12)
    assert cider_d.std() > 0.1
    rows = np.array([5, 2])
    references = [caption for of_image in documents for caption in of_image]
    chosen = [references[row] for row in rows]
    np.testing.assert_allclose(cider.between_references(rows), cider.pairwise(chosen, chosen))


def test_an_unknown_ngram_counts_in_the_norm() -> None:
    cider = CiderD([words("dog"), words("cat")])
    found = cider.against_references(words("dog bus"), np.array([0]))
    np.testing.assert_allclose(found, [[10 / 4 / math.sqrt(2) * math.exp(-1 / 72)]])


def test_ngrams_that_no_document_has_match_each_other() -> None:
    """In decoding, captions are compared with samples that may share words which no training caption has."""
    cider = CiderD([words("dog"), words("cat")])
    found = cider.pairwise(words("bus", "red bus"), words("bus", "red bus", "cat"))
    np.testing.assert_allclose(found[0, :2], [10 / 4, 10 / 4 / math.sqrt(2) * math.exp(-1 / 72)])
    np.testing.assert_allclose(found[1, 1:], [10 / 2, 0])


def test_no_documents() -> None:
    with pytest.raises(ValueError, match="CIDEr-D needs reference captions, got none"):
        CiderD([])
