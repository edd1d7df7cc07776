"""How good captions are: the field's scores on the field's scales, from predictions and references alone.

    read_predictions, read_references -> evaluate -> Scores (.table(), .to_json_dict(), .per_picture)
                                         compare  -> Comparison

BLEU, ROUGE-L and CIDEr-D agree with pycocoevalcap on the COCO tools' tokens, which `attncap.metrics.ptb_tokenizer`
makes without Java.
BLEU agrees with sacrebleu too (smoothing "none", no tokenizer, on these tokens) wherever there is a match of every
order; without one, sacrebleu says 0 and the COCO tools, followed here, nearly 0.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from attncap.metrics import ngrams as ngram_metrics
from attncap.metrics import significance as uncertainty
from attncap.metrics.coco_json import read_predictions, read_references, write_predictions, write_references
from attncap.metrics.ngrams import NgramIndex, PictureStatistics
from attncap.metrics.ptb_tokenizer import tokenize
from attncap.metrics.report import Comparison, Scores, named

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
    "report",
    "write_predictions",
    "write_references",
]

METEOR_MISSING = (
    "METEOR was not computed: it needs Java (8 or later, on the PATH) and `pip install pycocoevalcap`; "
    "no other METEOR gives the COCO tools' number."
)


class References:
    """Reference captions, tokenized and counted once, to score any number of predictions against.

    Args:
        references: image_id -> the picture's human captions, as written; at least one each.

    Raises:
        ValueError: when there is no picture, a picture has no caption, or a caption is not a string.

    Example:
        >>> references = References({"7": ["A dog runs.", "A brown dog."]})
        >>> bleu({"7": "a dog runs"}, references).round(3)[:2].tolist()
        [1.0, 1.0]
    """

    def __init__(self, references: Mapping[str, Sequence[str]]) -> None:
        if not references:
            raise ValueError("scores need at least one picture with references, got none")
        for image_id, captions in references.items():
            if isinstance(captions, str) or not all(isinstance(caption, str) for caption in captions):
                raise ValueError(f"references of {image_id!r}: expected a list of strings, got {captions!r:.80}")
            if not len(captions):
                raise ValueError(f"references of {image_id!r}: expected at least one caption, got none")
        self.captions = {image_id: list(captions) for image_id, captions in references.items()}
        self.image_ids = list(self.captions)
        self.tokenized = [[tokenize(caption) for caption in captions] for captions in self.captions.values()]
        self.index = NgramIndex(self.tokenized)

    def __len__(self) -> int:
        return len(self.image_ids)

    def tokenize_predictions(self, predictions: Mapping[str, str]) -> list[str]:
        """Tokenized predictions in the references' order; ValueError where ids or types do not fit."""
        check_ids(predictions, self.captions)
        for image_id, caption in predictions.items():
            if not isinstance(caption, str):
                raise ValueError(f"prediction of {image_id!r}: expected a string, got {caption!r:.80}")
        return [tokenize(predictions[image_id]) for image_id in self.image_ids]


AnyReferences = Mapping[str, Sequence[str]] | References


def check_ids(
    predictions: Mapping[str, Any],
    references: Mapping[str, Any],
    predictions_name: str = "predictions",
    references_name: str = "references",
) -> None:
    """Refuse predictions that are not one to each picture of the references.

    Args:
        predictions: image_id -> caption.
        references: image_id -> captions.
        predictions_name: what to call them in the message; a file name, where they come from a file.
        references_name: the same for the references.

    Raises:
        ValueError: when ids are missing or extra; the message names both sides and the first ids.
    """
    missing = [image_id for image_id in references if image_id not in predictions]
    extra = [image_id for image_id in predictions if image_id not in references]
    if missing:
        raise ValueError(
            f"{predictions_name}: no caption for {len(missing)} of the {len(references)} pictures of "
            f"{references_name}, {_some(missing)}; caption every picture, or score against the split that was captioned"
        )
    if extra:
        raise ValueError(
            f"{predictions_name}: captions for {len(extra)} pictures that {references_name} do not have, "
            f"{_some(extra)}; leave them out, or score against the references that have them"
        )


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
    return _values(_prepared(references), predictions, brevity)[:4]


def evaluate(
    predictions: Mapping[str, str],
    references: AnyReferences,
    *,
    brevity: str = "closest",
    bootstrap: int = 1000,
    seed: int = 0,
    train_captions: Iterable[str] | None = None,
    human: bool = True,
    meteor: bool = False,
) -> Scores:
    """All scores of one system, with intervals, the human line and how varied its captions are.

    Intervals resample pictures. CIDEr's document frequencies stay those of the whole reference set, also in the human
    line.

    Args:
        predictions: image_id -> caption.
        references: image_id -> captions, or `References`.
        brevity: "closest" (the COCO tools' way), "shortest" or "none".
        bootstrap: number of bootstrap samples; 0 for no intervals.
        seed: of the bootstrap.
        train_captions: captions that the system was trained on, for the share of novel ones; None leaves it out.
        human: score each human against the others, and the system against as many (pictures with two captions or more).
        meteor: METEOR through pycocoevalcap; where that or Java is missing, a note says how to get it.

    Returns:
        The scores, per-picture table included.

    Raises:
        ValueError: when ids are missing or extra, a caption is not a string, or brevity is another word.

    Example:
        >>> scores = evaluate({"7": "a dog runs"}, {"7": ["A dog runs.", "A brown dog."]}, bootstrap=10)
        >>> scores.to_json_dict()["rouge_l"]
        1.0
    """
    prepared = _prepared(references)
    tokenized = prepared.tokenize_predictions(predictions)
    statistics = prepared.index.statistics(tokenized)
    rows = ngram_metrics.columns(statistics, brevity)

    def scores_from_sums(sums: np.ndarray) -> np.ndarray:
        return ngram_metrics.scores_from_sums(sums, brevity)

    intervals = None
    if bootstrap:
        intervals = uncertainty.interval(uncertainty.bootstrap(rows, scores_from_sums, bootstrap, seed))
    per_picture = _per_picture(prepared, predictions, statistics, brevity)
    meteor_score, notes = None, []
    if meteor:
        by_meteor = _meteor(prepared.tokenized, tokenized)
        if by_meteor is None:
            notes.append(METEOR_MISSING)
        else:
            meteor_score, per_picture["meteor"] = by_meteor
    return Scores(
        values=scores_from_sums(rows.sum(axis=0)),
        bleu_policy=brevity,
        n=len(prepared),
        per_picture=per_picture,
        variety=_variety(tokenized, train_captions),
        intervals=intervals,
        samples=bootstrap,
        seed=seed,
        human=_human_line(prepared, tokenized, brevity) if human else None,
        meteor=meteor_score,
        notes=notes,
    )


def compare(
    predictions_a: Mapping[str, str],
    predictions_b: Mapping[str, str],
    references: AnyReferences,
    *,
    brevity: str = "closest",
    method: str = "randomization",
    samples: int | None = None,
    seed: int = 0,
) -> Comparison:
    """Whether A's scores differ from B's by more than the choice of pictures explains.

    The same resamples serve all scores and both systems. The interval of the difference is a paired bootstrap's in
    either method; the p-value is the method's.

    Args:
        predictions_a: image_id -> caption of system A.
        predictions_b: image_id -> caption of system B.
        references: image_id -> captions, or `References`.
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
    if method not in ("bootstrap", "randomization"):
        raise ValueError(f"method is bootstrap or randomization, got {method!r}")
    prepared = _prepared(references)
    rows_a, rows_b = (
        ngram_metrics.columns(prepared.index.statistics(prepared.tokenize_predictions(predictions)), brevity)
        for predictions in (predictions_a, predictions_b)
    )

    def scores_from_sums(sums: np.ndarray) -> np.ndarray:
        return ngram_metrics.scores_from_sums(sums, brevity)

    values_a, values_b = scores_from_sums(rows_a.sum(axis=0)), scores_from_sums(rows_b.sum(axis=0))
    samples = samples or (1000 if method == "bootstrap" else 10_000)
    resamples = samples if method == "bootstrap" else 1000
    boot_a, boot_b = (uncertainty.bootstrap(rows, scores_from_sums, resamples, seed) for rows in (rows_a, rows_b))
    if method == "bootstrap":
        p_values = uncertainty.paired_bootstrap(boot_a, boot_b, values_a - values_b)
    else:
        p_values = uncertainty.paired_randomization(rows_a, rows_b, scores_from_sums, samples, seed)
    return Comparison(
        values_a=values_a,
        values_b=values_b,
        intervals=uncertainty.interval(boot_a - boot_b),
        p_values=p_values,
        method=method,
        bleu_policy=brevity,
        n=len(prepared),
        samples=samples,
        seed=seed,
    )


def report(scores: Scores, comparison: Comparison | None = None) -> str:
    """The text that the command line prints.

    Args:
        scores: of one system.
        comparison: with another one, or None.

    Returns:
        One or two tables.
    """
    return scores.table() if comparison is None else f"{scores.table()}\n\n{comparison.table()}"


def _prepared(references: AnyReferences) -> References:
    return references if isinstance(references, References) else References(references)


def _values(prepared: References, predictions: Mapping[str, str], brevity: str) -> np.ndarray:
    statistics = prepared.index.statistics(prepared.tokenize_predictions(predictions))
    return ngram_metrics.scores_from_sums(ngram_metrics.columns(statistics, brevity).sum(axis=0), brevity)


def _per_picture(
    prepared: References, predictions: Mapping[str, str], statistics: PictureStatistics, brevity: str
) -> pd.DataFrame:
    by_order = ngram_metrics.bleu_per_picture(statistics, brevity)
    return pd.DataFrame(
        {
            "image_id": prepared.image_ids,
            "prediction": [predictions[image_id] for image_id in prepared.image_ids],
            "words": statistics.length,
            **{f"bleu_{order + 1}": by_order[:, order] for order in range(4)},
            "rouge_l": statistics.rouge_l,
            "cider_d": statistics.cider_d,
            "cider_plain": statistics.cider_plain,
        }
    )


def _human_line(prepared: References, tokenized: list[str], brevity: str) -> dict[str, Any] | None:
    """Each human against the others, and the system against the same others; means over who was left out.

    In round r the r-th reference of each picture is left out (of a picture with fewer, r modulo their number); pictures
    with one reference take no part.
    """
    counts = np.array([len(captions) for captions in prepared.tokenized])
    several = counts > 1
    if not several.any():
        return None
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    sums: dict[str, list[np.ndarray]] = {"human": [], "system": []}
    for turn in range(int(counts.max())):
        position = turn % counts
        use = np.ones(int(counts.sum()), bool)
        use[(starts + position)[several]] = False
        left_out = [captions[at] for captions, at in zip(prepared.tokenized, position, strict=True)]
        for who, captions in (("human", left_out), ("system", tokenized)):
            rows = ngram_metrics.columns(prepared.index.statistics(captions, use), brevity)
            sums[who].append(ngram_metrics.scores_from_sums(rows[several].sum(axis=0), brevity))
    human, system = (named(np.mean(sums[who], axis=0)) for who in ("human", "system"))
    return {**human, "system": system, "n": int(several.sum()), "rounds": int(counts.max())}


def _variety(tokenized: list[str], train_captions: Iterable[str] | None) -> dict[str, Any]:
    """How varied the captions are, after tokenizing: words, distinct and novel captions, lengths, the most repeated."""
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


def _meteor(references: list[list[str]], predictions: list[str]) -> tuple[float, list[float]] | None:
    """METEOR 1.5 of the set and of each picture, from the Java program in pycocoevalcap; None where it cannot run."""
    if shutil.which("java") is None:
        return None
    try:
        from pycocoevalcap.meteor.meteor import Meteor
    except ImportError:
        return None
    pictures = range(len(predictions))
    return Meteor().compute_score(
        {i: references[i] for i in pictures}, {i: [predictions[i]] for i in pictures}
    )  # corpus METEOR is not the mean of the pictures'


def _some(ids: list[str]) -> str:
    return "first " + ", ".join(map(repr, ids[:3])) + (", ..." if len(ids) > 3 else "")
