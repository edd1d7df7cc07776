"""Metrics by name: one file adds one, and metrics of one's own are scored, resampled and tested like the others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from attncap.metrics import registry
from attncap.metrics.evaluate import compare, evaluate, score_images
from attncap.metrics.references import Candidates
from attncap.metrics.registry import Metric, make_metrics, metric_names, register_metric

REFERENCES = {"1": ["A red hat.", "One hat"], "2": ["a dog"], "3": ["The cat sleeps here"]}
A = {"1": "a red hat", "2": "a dog runs", "3": "a cat"}
B = {"1": "a hat", "2": "a dog", "3": "a cat"}


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    metric_names()  # the files are imported once
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    yield


def share_known(caption: str, references: list[str]) -> float:
    words = " ".join(references).lower().split()
    return float(np.mean([word in words for word in caption.split()]))


def test_the_standard_metrics_are_registered() -> None:
    assert {"bleu", "rouge_l", "cider"} <= set(metric_names())
    names = [name for metric in make_metrics() for name in metric.labels]
    assert names == ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d", "cider_plain"]


def test_a_function_by_name_and_as_it_is() -> None:
    register_metric("known", label="known words")(share_known)
    by_name = evaluate(A, REFERENCES, metrics=["bleu", "known"], bootstrap=50)
    assert by_name.values["known"] == pytest.approx((1 + 2 / 3 + 0.5) / 3)
    assert by_name.to_json_dict()["known"] == by_name.values["known"]
    low, high = by_name.intervals["known"]  # type: ignore[index]
    assert 0.5 <= low < by_name.values["known"] < high <= 1
    assert "known words" in by_name.table() and "ROUGE-L  " not in by_name.table()
    assert by_name.human is not None and by_name.human["system"]["known"] == pytest.approx((1 / 3 + 2 / 3) / 2)
    found = score_images(A, REFERENCES, metrics=[share_known])
    assert found["share_known"].tolist() == pytest.approx([1, 2 / 3, 0.5])


def test_own_metric_in_compare() -> None:
    references = {f"{key}-{n}": texts for n in range(20) for key, texts in REFERENCES.items()}
    a, b = ({f"{key}-{n}": text for n in range(20) for key, text in texts.items()} for texts in (A, B))
    found = compare(a, b, references, metrics=["rouge_l", share_known], samples=300)
    assert list(found.differences) == ["rouge_l", "share_known"]
    assert found.differences["share_known"] == pytest.approx((1 + 2 / 3 + 0.5) / 3 - (1 + 1 + 0.5) / 3)
    low, high = found.intervals["share_known"]
    assert low <= found.differences["share_known"] <= high and 0 < found.p_values["share_known"] <= 1
    assert "share_known" in found.table()


def test_a_metric_that_is_no_mean() -> None:
    @register_metric("type_token")
    class WordsPerLetter(Metric):
        """Words over letters of the whole set."""

        labels = {"words_per_letter": "words / letters"}

        def rows(self, candidates: Candidates) -> np.ndarray:
            return np.array([[len(text.split()), len(text.replace(" ", ""))] for text in candidates.tokenized], float)

        def scores(self, sums: np.ndarray, images: np.ndarray) -> np.ndarray:
            return sums[..., :1] / sums[..., 1:]

    found = evaluate(B, REFERENCES, metrics=["type_token"], bootstrap=0, human=False)
    assert found.values == {"words_per_letter": 6 / (4 + 4 + 4)}


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"metric 'spice': expected one of .*bleu, .*cider.*, a Metric or a function"):
        evaluate(A, REFERENCES, metrics=["spice"])
    with pytest.raises(ValueError, match="two scores are called 'rouge_l'"):
        evaluate(A, REFERENCES, metrics=["rouge_l", "rouge_l"])
    with pytest.raises(TypeError, match=r"metrics: a list of metrics expected, got one: write \['bleu'\]"):
        evaluate(A, REFERENCES, metrics="bleu")

    def forgets_to_return(caption: str, references: list[str]) -> None:
        len(caption)

    with pytest.raises(ValueError, match="metric 'forgets_to_return': a number expected of each caption, got None"):
        evaluate(A, REFERENCES, metrics=[forgets_to_return])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="a metric 'bleu' is registered already"):
        register_metric("bleu")(share_known)
