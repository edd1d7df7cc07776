"""Score captions: BLEU, ROUGE-L, CIDEr-D and other metrics, with intervals and paired tests.

    read_predictions, read_references -> evaluate -> Scores (.table(), .to_json_dict(), .per_image)
                                         compare  -> Comparison

BLEU, ROUGE-L and CIDEr-D agree with pycocoevalcap on the COCO tools' tokens, which `attncap.metrics.ptb_tokenizer`
makes without Java. BLEU agrees with sacrebleu too (smoothing "none", no tokenizer, on these tokens) wherever there is a
match of every order; without one, sacrebleu says 0 and the COCO tools, followed here, nearly 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from attncap.metrics import significance
from attncap.metrics.bleu import Bleu
from attncap.metrics.cautions import cautions
from attncap.metrics.coco_json import read_predictions, read_references, write_predictions, write_references
from attncap.metrics.meteor import MeteorError
from attncap.metrics.meteor import meteor as compute_meteor
from attncap.metrics.references import Candidates, References, check_ids
from attncap.metrics.registry import Metric, make_metrics
from attncap.metrics.report import Comparison, Scores
from attncap.metrics.rows import MetricRows, human_line

__all__ = [
    "Comparison",
    "References",
    "Scores",
    "bleu",
    "check_ids",
    "compare",
    "evaluate",
    "read_predictions",
    "read_references",
    "score_images",
    "write_predictions",
    "write_references",
]

AnyReferences = Mapping[str, Sequence[str]] | References
AnyMetric = str | Metric | Callable[[str, list[str]], float]


def bleu(predictions: Mapping[str, str], references: AnyReferences, brevity: str = "closest") -> np.ndarray:
    """Corpus BLEU-1..4 with several references, the number the COCO tools print.

    Args:
        predictions: image_id -> caption.
        references: image_id -> captions, or `References` (prepared once where this is called often).
        brevity: "closest" (of two reference lengths equally close, the shorter), "shortest" or "none".

    Returns:
        float64 array, shape (4,), in [0, 1].

    Raises:
        ValueError: when ids are missing or extra, a caption is not a string, or brevity is another word.

    Example:
        >>> bleu({"7": "a dog"}, {"7": ["a dog runs"]}, brevity="none").round(3)[:2].tolist()
        [1.0, 1.0]

    Reference: Papineni et al. 2002; pycocoevalcap's bleu_scorer.
    """
    metric = Bleu(brevity)
    return MetricRows([metric], _prepared(references).candidates(predictions)).values


def score_images(
    predictions: Mapping[str, str],
    references: AnyReferences,
    metrics: Sequence[AnyMetric] | None = None,
    brevity: str = "closest",
) -> pd.DataFrame:
    """Score each image alone; the mean of its BLEUs is not corpus BLEU.

    Args:
        predictions: image_id -> caption.
        references: image_id -> captions, or `References`.
        metrics: as in `evaluate`.
        brevity: BLEU's, as in `evaluate`.

    Returns:
        DataFrame, one row per image: image_id, prediction, words, and a column per score.
    """
    candidates = _prepared(references).candidates(predictions)
    return _per_image(candidates, MetricRows(_made(metrics, brevity), candidates))


def evaluate(
    predictions: Mapping[str, str],
    references: AnyReferences,
    *,
    metrics: Sequence[AnyMetric] | None = None,
    brevity: str = "closest",
    bootstrap: int = 1000,
    seed: int = 0,
    train_captions: Iterable[str] | None = None,
    human: bool = True,
    meteor: bool = False,
) -> Scores:
    """Score one system: all metrics, bootstrap intervals, the human line, and how varied its captions are.

    Intervals resample images. CIDEr's document frequencies stay those of the whole reference set, also in the human
    line.

    Args:
        predictions: image_id -> caption; ids are strings or integers.
        references: image_id -> captions, or `References`.
        metrics: names (`attncap.metrics.registry.metric_names`), `Metric` objects, or functions
            (caption, references) -> number; default BLEU, ROUGE-L and CIDEr.
        brevity: BLEU's reference length: "closest" (the COCO tools' way), "shortest" or "none".
        bootstrap: number of bootstrap samples; 0 for no intervals.
        seed: of the bootstrap.
        train_captions: captions that the system was trained on, for the share of novel ones; None leaves it out.
        human: score each human against the others, and the system against as many (images with two captions or more).
        meteor: also METEOR, by a Java program; where it cannot run, a note says why.

    Returns:
        The scores, with a table per image and notes on what makes them unreliable.

    Raises:
        ValueError: when ids are missing or extra, a caption is not a string, or brevity or a metric is unknown.

    Example:
        >>> scores = evaluate({"7": "a dog runs"}, {"7": ["A dog runs.", "A brown dog."]}, bootstrap=10)
        >>> scores.to_json_dict()["rouge_l"]
        1.0
    """
    prepared = _prepared(references)
    candidates = prepared.candidates(predictions)
    made = _made(metrics, brevity)
    rows = MetricRows(made, candidates)
    intervals = None
    if bootstrap:
        samples = significance.bootstrap(rows.columns, rows.scores, bootstrap, seed)
        intervals = rows.named(significance.interval(samples))
    per_image = _per_image(candidates, rows)
    meteor_score, notes = None, cautions(candidates, {name for metric in made for name in metric.labels})
    if meteor:
        try:
            meteor_score, per_image["meteor"] = compute_meteor(prepared.tokenized, candidates.tokenized)
        except MeteorError as error:
            notes.append(str(error))
    return Scores(
        values=rows.named(rows.values),
        metrics=made,
        bleu_policy=brevity,
        n=len(prepared),
        per_image=per_image,
        variety=_variety(candidates.tokenized, train_captions, prepared.tokenize),
        intervals=intervals,
        samples=bootstrap,
        seed=seed,
        human=human_line(candidates, made) if human else None,
        meteor=meteor_score,
        notes=notes,
    )


def compare(
    predictions_a: Mapping[str, str],
    predictions_b: Mapping[str, str],
    references: AnyReferences,
    *,
    metrics: Sequence[AnyMetric] | None = None,
    brevity: str = "closest",
    method: str = "randomization",
    samples: int | None = None,
    seed: int = 0,
) -> Comparison:
    """Test whether the scores of two systems differ by more than the choice of images explains.

    The same resamples serve all scores and both systems. The interval of the difference is a paired bootstrap's in
    either method; the p-value is the method's.

    Args:
        predictions_a: image_id -> caption of system A.
        predictions_b: image_id -> caption of system B.
        references: image_id -> captions, or `References`.
        metrics: as in `evaluate`; a function or `Metric` of your own is tested like the others.
        brevity: "closest", "shortest" or "none".
        method: "randomization" (sacrebleu's `--paired-ar`) or "bootstrap" (its `--paired-bs`). Default randomization:
            of equally good systems the bootstrap's p called 11% different at level 0.05, randomization 5% (simulated).
        samples: of the test; default as sacrebleu's: 1,000 for the bootstrap, 10,000 for randomization.
        seed: of both.

    Returns:
        Scores, difference A - B with its interval, and two-sided p-values.

    Raises:
        ValueError: when ids are missing or extra, a caption is not a string, or a word is none of those above.

    Example:
        >>> references = {"1": ["a dog runs", "the dog runs"], "2": ["a red car", "one car"]}
        >>> right, wrong = {"1": "a dog runs", "2": "a red car"}, {"1": "a cat", "2": "a bus"}
        >>> bool(compare(right, wrong, references, samples=100).to_json_dict()["difference"]["rouge_l"] > 0)
        True
    """
    prepared, made = _prepared(references), _made(metrics, brevity)
    a, b = (MetricRows(made, prepared.candidates(predictions)) for predictions in (predictions_a, predictions_b))
    tested = significance.paired_test(a.columns, b.columns, a.scores, method=method, samples=samples, seed=seed)
    return Comparison(
        values_a=a.named(a.values),
        values_b=a.named(b.values),
        intervals=a.named(tested.intervals),
        p_values=a.named(tested.p_values),
        metrics=made,
        method=method,
        bleu_policy=brevity,
        n=len(prepared),
        samples=tested.samples,
        seed=seed,
    )


def _prepared(references: AnyReferences) -> References:
    return references if isinstance(references, References) else References(references)


def _made(metrics: Sequence[AnyMetric] | None, brevity: str) -> list[Metric]:
    return make_metrics(metrics, {"bleu": {"brevity": brevity}})


def _per_image(candidates: Candidates, rows: MetricRows) -> pd.DataFrame:
    scores = rows.scores(rows.columns)  # (N, K)
    return pd.DataFrame(
        {
            "image_id": candidates.references.image_ids,
            "prediction": candidates.texts,
            "words": candidates.lengths,
            **{name: scores[:, at] for at, name in enumerate(name for m in rows.metrics for name in m.labels)},
        }
    )


def _variety(
    tokenized: list[str], train_captions: Iterable[str] | None, tokenize: Callable[[str], str]
) -> dict[str, Any]:
    """Count words, distinct and novel captions, lengths and the most repeated caption, after tokenizing."""
    counted = Counter(tokenized)
    lengths = np.array([len(caption.split()) for caption in tokenized])
    caption, times = counted.most_common(1)[0]
    known = None if train_captions is None else {tokenize(caption) for caption in train_captions}
    values, counts = np.unique(lengths, return_counts=True)
    return {
        "vocabulary": len({word for caption in counted for word in caption.split()}),
        "distinct_captions": len(counted),
        "distinct_share": len(counted) / len(tokenized),
        "novel_share": None if known is None else sum(caption not in known for caption in tokenized) / len(tokenized),
        "most_repeated": {"caption": caption, "count": times},
        "length": {
            "mean": float(lengths.mean()),
            "min": int(lengths.min()),
            "median": float(np.median(lengths)),
            "max": int(lengths.max()),
            "histogram": dict(zip(map(str, values.tolist()), counts.tolist(), strict=True)),
        },
    }
