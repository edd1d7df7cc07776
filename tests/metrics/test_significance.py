"""Bootstrap and paired tests: seeded, covering, and sacrebleu's own numbers from sacrebleu's own draws."""

import numpy as np
import pytest

from attncap.metrics.bleu import Bleu
from attncap.metrics.references import References
from attncap.metrics.significance import bootstrap, interval, paired_bootstrap, paired_randomization


def mean_of(sums: np.ndarray) -> np.ndarray:
    return sums[..., :1] / sums[..., 1:]


def rows_of(values: np.ndarray) -> np.ndarray:
    return np.stack([values, np.ones(len(values))], axis=1)


def noisy_captions(seed: int, noise: float, n: int = 67) -> tuple[list[str], list[list[str]]]:
    truth_rng, rng = np.random.default_rng(0), np.random.default_rng(seed)
    truths = [[f"w{i}" for i in truth_rng.integers(29, size=7)] for _ in range(n)]
    noisy = [[w if rng.random() > noise else f"w{rng.integers(29)}" for w in words] for words in truths]
    return [" ".join(words) for words in noisy], [[" ".join(words)] for words in truths]


def test_seeded() -> None:
    rows = rows_of(np.random.default_rng(0).normal(size=23))
    first, same, other = (bootstrap(rows, mean_of, 41, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, same)
    assert first.shape == (41, 1) and not np.array_equal(first, other)


def test_each_sample_draws_as_many_pictures_as_there_are() -> None:
    counts = bootstrap(rows_of(np.zeros(23)), lambda sums: sums, 41)
    assert (counts[:, 1] == 23).all()


def test_bootstrap_is_the_explicit_one() -> None:
    values = np.random.default_rng(1).normal(size=13)
    drawn = np.random.default_rng(7).choice(13, size=(19, 13), replace=True)
    np.testing.assert_allclose(bootstrap(rows_of(values), mean_of, 19, 7)[:, 0], values[drawn].mean(axis=1))


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(np.random.default_rng(2).normal(size=13))
    whole = bootstrap(rows, mean_of, 19, 3)
    monkeypatch.setattr("attncap.metrics.significance._CHUNK", 13 * 4)
    np.testing.assert_allclose(bootstrap(rows, mean_of, 19, 3), whole)


def test_interval_by_hand() -> None:
    scores = np.stack([np.arange(101.0), np.arange(101.0) * 2], axis=1)
    np.testing.assert_allclose(interval(scores, 0.9), [[5, 95], [10, 190]])


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    covered = 0
    for trial in range(200):
        ((low, high),) = interval(bootstrap(rows_of(rng.normal(1.0, 1.0, size=61)), mean_of, 200, trial))
        covered += low <= 1.0 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_p_is_small_for_a_clear_difference_and_large_for_noise() -> None:
    rng = np.random.default_rng(5)
    base = rng.normal(size=101)
    better, alike = rows_of(base + 0.5 + rng.normal(0, 0.3, 101)), rows_of(base + rng.normal(0, 0.3, 101) * 0.1)
    rows = rows_of(base)
    assert paired_randomization(rows, better, mean_of, 500)[0] == pytest.approx(1 / 501)
    assert paired_randomization(rows, alike, mean_of, 500)[0] > 0.05
    a, b, c = (bootstrap(r, mean_of, 500) for r in (rows, better, alike))
    assert paired_bootstrap(a, b, mean_of(rows.sum(0)) - mean_of(better.sum(0)))[0] == pytest.approx(1 / 501)
    assert paired_bootstrap(a, c, mean_of(rows.sum(0)) - mean_of(alike.sum(0)))[0] > 0.05


def test_randomization_rejects_as_often_as_it_says() -> None:
    rng = np.random.default_rng(6)
    pairs = rng.normal(size=(200, 2, 41))
    rejected = sum(
        paired_randomization(rows_of(a), rows_of(b), mean_of, 200, i)[0] < 0.05 for i, (a, b) in enumerate(pairs)
    )
    assert 2 <= rejected <= 20


def test_a_system_against_itself_is_not_different() -> None:
    rows = rows_of(np.random.default_rng(7).normal(size=11))
    scores = bootstrap(rows, mean_of, 50)
    assert paired_bootstrap(scores, scores, np.zeros(1))[0] == 1
    assert paired_randomization(rows, rows, mean_of, 50)[0] == 1


@pytest.mark.parametrize("test_type", ["bs", "ar"])
def test_p_values_are_sacrebleus(test_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sacrebleu", reason="needs sacrebleu")
    from sacrebleu.metrics import BLEU
    from sacrebleu.significance import PairedTest

    monkeypatch.setenv("SACREBLEU_SEED", "11")
    a, references = noisy_captions(1, 0.20)
    b, _ = noisy_captions(2, 0.27)
    streams = [[own[0] for own in references]]
    metric = BLEU(tokenize="none", smooth_method="none", force=True, references=streams)
    paired = PairedTest([("a", a), ("b", b)], {"BLEU": metric}, None, test_type=test_type, n_samples=300)
    theirs = paired()[1]["BLEU"][1]
    assert not isinstance(theirs, str)
    prepared = References({str(n): own for n, own in enumerate(references)})
    rows_a, rows_b = (
        Bleu().rows(prepared.candidates({str(n): text for n, text in enumerate(captions)})) for captions in (a, b)
    )

    def scores_from_sums(sums: np.ndarray) -> np.ndarray:
        return Bleu().scores(sums, np.ones(sums.shape[:-1]))

    difference = scores_from_sums(rows_a.sum(axis=0)) - scores_from_sums(rows_b.sum(axis=0))
    if test_type == "bs":
        scores_a, scores_b = (bootstrap(rows, scores_from_sums, 300, 11) for rows in (rows_a, rows_b))
        ours = paired_bootstrap(scores_a, scores_b, difference)
    else:
        ours = paired_randomization(rows_a, rows_b, scores_from_sums, 300, 11)
    assert scores_from_sums(rows_b.sum(axis=0))[3] == pytest.approx(theirs.score / 100, abs=1e-6)
    assert ours[3] == pytest.approx(theirs.p_value, abs=1.5 / 301)  # sacrebleu sums in single precision
    assert 1 / 301 < ours[3] < 0.9


def test_errors() -> None:
    rows = rows_of(np.zeros(3))
    with pytest.raises(ValueError, match=r"samples is at least 1, got 0"):
        bootstrap(rows, mean_of, 0)
    with pytest.raises(ValueError, match=r"at least one image"):
        bootstrap(rows[:0], mean_of, 5)
    with pytest.raises(ValueError, match=r"level is a share between 0 and 1, got 95"):
        interval(np.zeros((3, 1)), 95)
    with pytest.raises(ValueError, match=r"same images twice, got \(3, 2\) and \(2, 2\)"):
        paired_randomization(rows, rows[:2], mean_of)
