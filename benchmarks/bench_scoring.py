"""Speed of scoring: this package, pycocoevalcap and sacrebleu on the same synthetic captions, interleaved, in one run.

    python benchmarks/bench_scoring.py --pictures 1000 --references 5 --repeats 5 --json scoring.json

Each round runs every tool once, so that a slow moment of the machine affects all of them; medians and ratios are
printed. pycocoevalcap gets tokenized captions; its own tokenizer needs Java and is timed apart, if Java is installed.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one core for each tool; set before NumPy is imported
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from attncap.metrics import ptb_tokenizer as ptb
from attncap.metrics.coco_json import write_json
from attncap.metrics.evaluate import References, bleu, evaluate, score_images


def synthetic(pictures: int, references: int, seed: int) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Make captions of 8 to 15 words with natural frequencies; captions of one image share half of their words."""
    rng = np.random.default_rng(seed)
    letters = "abcdefghijklmnopqrst"
    words = np.array([letters[i % 20] + "a" + letters[i // 20 % 20] + "e" + letters[i // 400] for i in range(5000)])
    chance = 1 / np.arange(1, 5001)
    chance /= chance.sum()

    def caption(theme: np.ndarray) -> str:
        own = rng.choice(words, size=rng.integers(8, 16), p=chance)
        shared = rng.random(len(own)) < 0.5
        return " ".join(["A", *np.where(shared, np.resize(theme, len(own)), own)]) + " ."

    themes = rng.choice(words, size=(pictures, 11), p=chance)
    captions = {str(i): [caption(theme) for _ in range(references)] for i, theme in enumerate(themes)}
    return {str(i): caption(theme) for i, theme in enumerate(themes)}, captions


def contenders(
    predictions: dict[str, str], references: dict[str, list[str]], samples: int
) -> dict[str, Callable[[], Any]]:
    """Return the functions to time, by name; tools that are not installed are left out."""
    prepared = References(references)
    tokenized = {key: [ptb.tokenize(predictions[key])] for key in references}
    tokenized_references = dict(zip(references, prepared.tokenized, strict=True))

    def all_scores_from_text() -> Any:
        ptb.tokenize.cache_clear()
        return evaluate(predictions, references, bootstrap=samples)

    def tokens_only() -> Any:
        ptb.tokenize.cache_clear()
        return [ptb.tokenize(caption) for captions in references.values() for caption in captions]

    def scores_of_tokens() -> Any:
        of_tokens = References(tokenized_references, tokenize=str)
        return score_images({key: caption for key, (caption,) in tokenized.items()}, of_tokens)

    found: dict[str, Callable[[], Any]] = {
        f"attncap: all scores, human line, {samples} bootstrap samples, from text": all_scores_from_text,
        "attncap: BLEU against prepared references": lambda: bleu(predictions, prepared),
        "attncap: BLEU, ROUGE-L, CIDEr of tokens": scores_of_tokens,
        "attncap: tokens of the references": tokens_only,
    }
    try:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
    except ImportError:
        print("pycocoevalcap is not installed: left out")
    else:

        def coco_scores() -> Any:
            scorers = (Bleu(4), Rouge(), Cider())
            options: tuple[dict[str, int], ...] = ({"verbose": 0}, {}, {})
            return [
                s.compute_score(tokenized_references, tokenized, **o) for s, o in zip(scorers, options, strict=True)
            ]

        found["pycocoevalcap: BLEU, ROUGE-L, CIDEr of tokens"] = coco_scores
        if shutil.which("java"):
            entries = {key: [{"caption": caption} for caption in captions] for key, captions in references.items()}
            found["pycocoevalcap: tokens of the references (Java)"] = lambda: PTBTokenizer().tokenize(entries)
    try:
        from sacrebleu.metrics import BLEU
    except ImportError:
        print("sacrebleu is not installed: left out")
    else:
        hypotheses = [caption for (caption,) in tokenized.values()]
        streams = [list(stream) for stream in zip(*tokenized_references.values(), strict=True)]
        ready = BLEU(tokenize="none", force=True, references=streams)
        found["sacrebleu: BLEU against prepared references"] = lambda: ready.corpus_score(hypotheses, None)
        found["sacrebleu: BLEU of tokens"] = lambda: BLEU(tokenize="none", force=True).corpus_score(hypotheses, streams)
        found[f"sacrebleu: BLEU of tokens, {samples} bootstrap samples"] = lambda: BLEU(
            tokenize="none", force=True
        ).corpus_score(hypotheses, streams, n_bootstrap=samples)
    return found


RATIOS = (
    ("attncap: BLEU, ROUGE-L, CIDEr of tokens", "pycocoevalcap: BLEU, ROUGE-L, CIDEr of tokens"),
    ("attncap: tokens of the references", "pycocoevalcap: tokens of the references (Java)"),
    ("attncap: BLEU against prepared references", "sacrebleu: BLEU against prepared references"),
)


def main() -> None:
    """Run the benchmark: print times and, with --json, write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--references", type=int, default=5, help="captions per image")
    parser.add_argument("--samples", type=int, default=1000, help="bootstrap samples")
    parser.add_argument("--repeats", type=int, default=5, help="rounds; the median is reported")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="PATH", help="file to write the results to")
    settings = parser.parse_args()

    predictions, references = synthetic(settings.pictures, settings.references, settings.seed)
    runs = contenders(predictions, references, settings.samples)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(settings.repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    width = max(map(len, medians))
    print(f"{settings.pictures} images, {settings.references} references each; median of {settings.repeats} rounds")
    for name, median in medians.items():
        print(f"{name:{width}}  {median:8.3f} s")
    ratios = {f"{slow} / {fast}": medians[slow] / medians[fast] for fast, slow in RATIOS if slow in medians}
    for name, ratio in ratios.items():
        print(f"{ratio:5.1f} times as long: {name}")
    if settings.json:
        machine = f"{platform.machine()}, {os.cpu_count()} cores, one used; Python {platform.python_version()}"
        write_json(
            settings.json,
            {"settings": vars(settings), "machine": machine, "seconds": seconds, "median": medians, "ratios": ratios},
            indent=2,
        )


if __name__ == "__main__":
    main()
