"""BLEU, ROUGE-L, CIDEr by hand, and against pycocoevalcap and sacrebleu on random and awkward captions."""

import math
import random
from types import SimpleNamespace

import numpy as np
import pytest

from attncap.metrics.bleu import Bleu, bleu_from_sums
from attncap.metrics.cider import Cider
from attncap.metrics.references import Candidates, References
from attncap.metrics.rouge_l import RougeL

AWKWARD = {
    "empty prediction": (["", "a dog runs fast today"], [["a dog"], ["a dog runs fast today"]]),
    "all predictions empty": (["", ""], [["a dog"], ["a cat", "the cat"]]),
    "one word": (["dog", "cat"], [["dog"], ["a cat sits"]]),
    "no common 4-gram": (["a dog runs", "the cat sat on"], [["a dog runs"], ["the cat sat by"]]),
    "nothing in common": (["x y z x y"], [["a b c d e"]]),
    "tie in reference length": (["a b c d"], [["a b c d e", "a b c"]]),
    "one reference": (["a b c d e f", "g h"], [["a b c d e x"], ["g h i"]]),
    "different numbers of references": (["a b c d", "c d e f g"], [["a b c d"], ["c d e", "e f g h", "c d e f", "x"]]),
    "empty reference": (["a b", ""], [["", "a b c"], [""]]),
    "repeated words": (["the the the the the", "a a b b"], [["the cat", "the the"], ["a b a b", "b b"]]),
    "one picture": (["a red car"], [["a red car", "red car"]]),
    "no-break space inside a word": (["1\u00a01/2 cups of tea", "a cup"], [["1\u00a01/2 cups", "cups of"], ["a cup"]]),
}


class Index:
    """References that are tokenized already, and what each image contributes to the scores."""

    def __init__(self, references: list[list[str]]) -> None:
        self.references = References({str(n): own for n, own in enumerate(references)}, tokenize=str)

    def statistics(self, predictions: list[str], use: np.ndarray | None = None) -> SimpleNamespace:
        captions = Candidates(self.references, predictions, predictions, use)
        rows, cider = Bleu().rows(captions), Cider().rows(captions)
        return SimpleNamespace(
            captions=captions,
            matches=rows[:, :4].astype(int),
            totals=rows[:, 4:8].astype(int),
            length=rows[:, 8].astype(int),
            closest=rows[:, 9].astype(int),
            shortest=Bleu("shortest").rows(captions)[:, 9].astype(int),
            rouge_l=RougeL().rows(captions)[:, 0],
            cider_d=cider[:, 0],
            cider_plain=cider[:, 1],
        )


def corpus_bleu(statistics: SimpleNamespace, brevity: str = "closest") -> np.ndarray:
    rows = Bleu(brevity).rows(statistics.captions)
    return Bleu(brevity).scores(rows.sum(axis=0), np.array(len(rows)))


def random_case(seed: int) -> tuple[list[str], list[list[str]]]:
    rng = random.Random(seed)
    words = [f"w{i}" for i in range(rng.choice([3, 11, 41]))]
    pictures = rng.choice([1, 2, 5, 19])
    references = [
        [" ".join(rng.choices(words, k=rng.choice([1, 2, 5, 9, 14]))) for _ in range(rng.choice([1, 2, 5]))]
        for _ in range(pictures)
    ]
    predictions = [
        rng.choice(own)
        if rng.random() < 0.4
        else " ".join(rng.choices([*words, "new"], k=rng.choice([0, 1, 2, 3, 5, 9, 14])))
        for own in references
    ]
    return predictions, references


CASES = [*AWKWARD.values(), *(random_case(seed) for seed in range(100))]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_agrees_with_pycocoevalcap(case: int) -> None:
    bleu = pytest.importorskip("pycocoevalcap.bleu.bleu", reason="needs pycocoevalcap")
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    predictions, references = CASES[case]
    theirs = dict(enumerate(references)), {i: [prediction] for i, prediction in enumerate(predictions)}
    statistics = Index(references).statistics(predictions)
    ours = corpus_bleu(statistics)
    corpus, per_picture = bleu.Bleu(4).compute_score(*theirs, verbose=0)
    np.testing.assert_allclose(ours[:4], corpus, rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        Bleu().scores(Bleu().rows(statistics.captions), np.ones(len(references))),
        np.transpose(per_picture),
        rtol=0,
        atol=1e-12,
    )
    for mine, scorer in ((statistics.rouge_l, Rouge()), (statistics.cider_d, Cider())):
        mean, each = scorer.compute_score(*theirs)
        np.testing.assert_allclose(mine, each, rtol=0, atol=1e-12)
        assert mine.mean() == pytest.approx(mean, abs=1e-12)


@pytest.mark.parametrize("option", ["shortest", "closest"])
def test_brevity_policies_agree_with_pycocoevalcap(option: str) -> None:
    scorer = pytest.importorskip("pycocoevalcap.bleu.bleu_scorer", reason="needs pycocoevalcap")
    for predictions, references in CASES:
        theirs = scorer.BleuScorer(n=4)
        for prediction, own in zip(predictions, references, strict=True):
            theirs += (prediction, own)
        ours = corpus_bleu(Index(references).statistics(predictions), option)
        np.testing.assert_allclose(ours[:4], theirs.compute_score(option=option)[0], rtol=0, atol=1e-12)


def test_agrees_with_sacrebleu_where_every_order_matches() -> None:
    sacrebleu = pytest.importorskip("sacrebleu", reason="needs sacrebleu")
    compared = 0
    for predictions, references in CASES:
        width = max(map(len, references))
        streams = [[own[i] if i < len(own) else None for own in references] for i in range(width)]
        theirs = sacrebleu.corpus_bleu(predictions, streams, tokenize="none", smooth_method="none", force=True)
        statistics = Index(references).statistics(predictions)
        ours = corpus_bleu(statistics)
        assert statistics.matches.sum(axis=0).tolist() == theirs.counts
        assert statistics.totals.sum(axis=0).tolist() == theirs.totals
        assert (statistics.length.sum(), statistics.closest.sum()) == (theirs.sys_len, theirs.ref_len)
        if min(theirs.counts) > 0:  # otherwise sacrebleu gives 0 and the COCO tools nearly 0
            compared += 1
            assert ours[3] == pytest.approx(theirs.score / 100, abs=1e-6)
    assert compared >= 40


def test_bleu_by_hand() -> None:
    """c = 7 words, r = 5 + 3; unigrams 6/7, bigrams 3/5, trigrams 1/3, 4-grams 0/1."""
    statistics = Index([["the black cat sat there"], ["a dog runs", "dog"]]).statistics(
        ["the black cat there", "a dog walks"]
    )
    assert statistics.matches.tolist() == [[4, 2, 1, 0], [2, 1, 0, 0]]
    assert statistics.totals.tolist() == [[4, 3, 2, 1], [3, 2, 1, 0]]
    penalty = math.exp(1 - 8 / 7)
    bleu = corpus_bleu(statistics)[:4]
    expected = [6 / 7, math.sqrt(6 / 7 * 3 / 5), (6 / 7 * 3 / 5 * 1 / 3) ** (1 / 3)]
    np.testing.assert_allclose(bleu[:3], penalty * np.array(expected), atol=1e-8)
    assert 0 < bleu[3] < 1e-3
    bare = corpus_bleu(statistics, "none")[:3]
    np.testing.assert_allclose(bare, expected, atol=1e-8)


def test_closest_length_takes_the_shorter_of_two() -> None:
    statistics = Index([["a b c d e", "a b c", "a b c d e f g"]]).statistics(["a b c d"])
    assert (statistics.closest.tolist(), statistics.shortest.tolist()) == ([3], [3])
    statistics = Index([["a", "a b c d e f g"]]).statistics(["a b c d e f"])
    assert (statistics.closest.tolist(), statistics.shortest.tolist()) == ([7], [1])


def test_clipping_is_by_the_largest_count_in_one_reference() -> None:
    statistics = Index([["the cat", "the the dog"]]).statistics(["the the the"])
    assert statistics.matches[0, 0] == 2


def test_rouge_l_by_hand() -> None:
    """Best precision 3/4 (first reference), best recall 1 (second): F with beta 1.2."""
    statistics = Index([["a b c x y", "a d"]]).statistics(["a b c d"])
    assert statistics.rouge_l[0] == pytest.approx((1 + 1.44) * 0.75 * 1 / (1 + 1.44 * 0.75))


def test_rouge_l_of_captions_longer_than_a_machine_word() -> None:
    words = [f"w{i}" for i in range(131)]
    statistics = Index([[" ".join(words)]]).statistics([" ".join(words[::2])])
    assert statistics.rouge_l[0] == pytest.approx((1 + 1.44) * 1 * (66 / 131) / (66 / 131 + 1.44))


def test_cider_by_hand() -> None:
    """Three pictures; "a" is in all (weight 0), the others in one (weight log 3); one bigram of two shared."""
    index = Index([["a dog runs"], ["a cat"], ["a car"]])
    statistics = index.statistics(["a dog dog", "a cat", "red"])
    # Unigrams: (dog 2) . (dog 1, runs 1) = 2 / (2 sqrt 2), clipped 1 / (2 sqrt 2); bigrams: 1 / (sqrt 2 sqrt 2).
    np.testing.assert_allclose(statistics.cider_plain, [10 * (1 / math.sqrt(2) + 1 / 2) / 4, 10 * 2 / 4, 0], atol=1e-12)
    np.testing.assert_allclose(statistics.cider_d, [10 * (1 / math.sqrt(8) + 1 / 2) / 4, 10 * 2 / 4, 0], atol=1e-12)


def test_cider_d_has_a_length_penalty_and_plain_cider_none() -> None:
    index = Index([["dog runs on grass"], ["a cat"]])
    same = index.statistics(["dog runs on grass", "a cat"])
    longer = index.statistics(["dog runs on grass dog runs on grass", "a cat"])
    assert same.cider_d[0] == pytest.approx(10) and same.cider_plain[0] == pytest.approx(10)
    assert longer.cider_d[0] < 0.8 * longer.cider_plain[0]
    one = Index([["dog"], ["cat"]]).statistics(["dog bus", "cat"])  # one word longer: exp(-1 / 72)
    assert one.cider_d[0] == pytest.approx(one.cider_plain[0] * math.exp(-1 / 72))


def test_leaving_references_out_keeps_document_frequencies() -> None:
    references = [["a dog runs", "the dog"], ["a cat", "one cat sits"], ["a red car", "the car"]]
    index = Index(references)
    use = np.array([True, False, False, True, True, False])
    predictions = ["the dog", "a cat sits", "a red car"]
    some = index.statistics(predictions, use)
    alone = Index([["a dog runs"], ["one cat sits"], ["a red car"]]).statistics(predictions)
    for name in ("matches", "totals", "closest", "shortest", "rouge_l"):
        np.testing.assert_array_equal(getattr(some, name), getattr(alone, name))
    assert some.cider_d[0] != pytest.approx(alone.cider_d[0])  # "dog" is rarer than "the" and "a" in the whole set only
    whole = index.statistics(predictions, np.ones(6, bool))
    np.testing.assert_array_equal(whole.cider_d, index.statistics(predictions).cider_d)


def test_scores_of_weighted_images_are_scores_of_repeated_images() -> None:
    predictions, references = random_case(3)
    assert len(predictions) > 1
    captions = Index(references).statistics(predictions).captions
    for metric in (Bleu(), RougeL(), Cider()):
        rows = metric.rows(captions)
        weights = np.arange(len(rows)) % 3
        repeated = np.repeat(rows, weights, axis=0)
        found = metric.scores(weights @ rows, weights.sum())
        np.testing.assert_allclose(found, metric.scores(repeated.sum(axis=0), np.array(len(repeated))), atol=1e-12)


def test_sums_of_many_sets_at_once() -> None:
    matches = np.array([[[5, 4, 3, 2]], [[5, 4, 3, 2]], [[0, 0, 0, 0]]])  # (3, 1, 4)
    scores = bleu_from_sums(matches, np.full((3, 1, 4), 5), np.array([[5], [4], [5]]), np.array([[5], [5], [5]]))
    assert scores.shape == (3, 1, 4)
    np.testing.assert_allclose(scores[:, 0, 0], [1, math.exp(1 - 5 / 4), 0], atol=1e-8)


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"brevity is one of closest, shortest, none, got 'average'"):
        Bleu("average")
