"""Set-up of notebooks in one line, and tables of scores and captions."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Collection, Mapping, Sequence
from html import escape
from importlib import import_module
from importlib.metadata import version
from itertools import groupby
from typing import Any

import pandas as pd

from attncap._quiet import quiet_start
from attncap.metrics.ptb_tokenizer import tokenize
from attncap.metrics.report import Comparison, Scores
from attncap.plotting.style import INK

SHARED = "#cfe5f5"  # background of n-grams that caption and reference share
ORANGE = "#fbd9c3"  # background of words that no reference has
# Jupyter's own style breaks a printed line that is too long inside a word, and in a narrow window "BLEU-4" in two.
WRAP = """<style>
.jp-Notebook .jp-OutputArea-output pre {word-break: normal; overflow-wrap: anywhere}
@media (max-width: 800px) {.jp-Notebook .jp-OutputArea-output :is(thead th, tbody th + th) {white-space: nowrap}}
</style>"""


def notebook_setup(*, seed: int = 0, dpi: float | None = None, style: bool = True) -> None:
    """Prepare a notebook: load Keras and TensorFlow quietly, set seeds and the style of figures, print versions.

    Args:
        seed: of Python, NumPy and the Keras backend.
        dpi: resolution of figures in dots per inch; lower keeps the notebook's file small. Default: matplotlib's.
        style: False leaves matplotlib's settings as they are.

    Tables of pandas show long texts in full, and printed lines wrap between words.

    Raises:
        RuntimeError: a package was reinstalled after this kernel had loaded it, as can happen on Colab.

    Example:
        >>> import attncap
        >>> attncap.notebook_setup()
        attncap 0.1.0, keras 3.15.0, tensorflow 2.21.0, numpy 2.4.0, pandas 3.1.0, matplotlib 3.11.0
    """
    _check_loaded({name: module for name, module in sys.modules.items() if name in ("numpy", "pandas", "matplotlib")})
    quiet_start()
    warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, where Jupyter's widgets are missing
    import keras
    import matplotlib

    from attncap.plotting.style import STYLE

    keras.utils.set_random_seed(seed)
    if style:
        matplotlib.rcParams.update(STYLE)
    pd.set_option("display.max_colwidth", None)  # captions in tables are shown in full
    if dpi is not None:
        matplotlib.rcParams.update({"figure.dpi": dpi, "savefig.dpi": dpi})
    names = ["attncap", "keras", keras.backend.backend(), "numpy", "pandas", "matplotlib"]
    modules: list[Any] = [import_module(name) for name in names]
    print(", ".join(f"{name} {module.__version__}" for name, module in zip(names, modules, strict=True)))
    _wrap_between_words()


def _wrap_between_words() -> None:
    """Give the notebook's page the style WRAP; outside a notebook do nothing."""
    running = sys.modules.get("IPython")
    if running is not None and running.get_ipython() is not None:
        import_module("IPython.display").display({"text/html": WRAP, "text/plain": ""}, raw=True)


def _check_loaded(modules: Mapping[str, Any]) -> None:
    """Raise RuntimeError if the loaded version of a package is not the installed one."""
    for name, module in modules.items():
        installed = version(name)
        if module.__version__ != installed:
            raise RuntimeError(
                f"{name} {module.__version__} is loaded, but {installed} is installed: "
                "restart the kernel, then run the notebook from the top"
            )


def _words(text: str) -> list[str]:
    return tokenize(text).split()


def score_table(result: Scores | Comparison) -> pd.DataFrame:
    """Return scores, or the comparison of two systems, as a table with one row per score.

    Args:
        result: of `attncap.metrics.evaluate.evaluate` or `compare`.

    Returns:
        table: indexed by the score's name, numbers as text with three digits. Columns of scores: "score", then, where
            they were computed, "95% interval", "one person" (against the other people) and "system" (against as many
            references). Columns of a comparison: "A", "B", "A - B", "95% interval", "p".

    Example:
        >>> score_table(evaluate(predictions, references))
    """
    labels = {name: label for metric in result.metrics for name, label in metric.labels.items()}
    columns: dict[str, dict[str, str]] = {}
    if isinstance(result, Comparison):
        columns["A"] = {name: f"{result.values_a[name]:.3f}" for name in labels}
        columns["B"] = {name: f"{result.values_b[name]:.3f}" for name in labels}
        columns["A - B"] = {name: f"{result.differences[name]:+.3f}" for name in labels}
        between = {name: "{:+.3f} to {:+.3f}".format(*result.intervals[name]) for name in labels}
        columns |= {"95% interval": between, "p": {name: f"{result.p_values[name]:.4f}" for name in labels}}
        return pd.DataFrame(columns).rename(index=labels)
    columns["score"] = {name: f"{result.values[name]:.3f}" for name in labels}
    if result.intervals is not None:
        ends = result.intervals
        columns["95% interval"] = {name: "{:.3f} to {:.3f}".format(*ends[name]) for name in labels}
    if result.human is not None:
        columns["one person"] = {name: f"{result.human[name]:.3f}" for name in labels}
        columns["system"] = {name: f"{result.human['system'][name]:.3f}" for name in labels}
    table = pd.DataFrame(columns).rename(index=labels)
    if result.meteor is not None:
        table.loc["METEOR", "score"] = f"{result.meteor:.3f}"
    return table.fillna("")


class CaptionTable:
    """Table of the captions of one image, with words marked by comparison with the references.

    N-grams that a reference also has are on blue; words that no reference has are underlined, on orange. The references
    follow; in them, n-grams of the first caption are on blue.

    Args:
        captions: name of each row -> caption.
        references: human captions of the image.
        n: length of the n-grams.

    Raises:
        ValueError: no caption, or n below 1.

    Example:
        >>> CaptionTable({"beam 3": "a red hat"}, ["a red cap", "a person in a red hat"], n=2)
    """

    def __init__(self, captions: Mapping[str, str], references: Sequence[str], *, n: int = 4):
        if not captions:
            raise ValueError("captions is empty: give a mapping of names to captions")
        if n < 1:
            raise ValueError(f"n needs to be at least 1, got {n}")
        self.n = n
        cleaned = [_words(reference) for reference in references]
        known = {word for words in cleaned for word in words}
        shared = {gram for words in cleaned for gram in self._grams(words)}
        self.rows: list[tuple[str, list[tuple[str, str]]]] = []  # name, [(word, "" or "shared" or "wrong")]
        for name, text in captions.items():
            words = _words(text)
            marks = self._marks(words, shared)
            self.rows.append((name, [(w, mark or ("" if w in known else "wrong")) for w, mark in marks]))
        first = set(self._grams(_words(next(iter(captions.values())))))
        for number, words in enumerate(cleaned, start=1):
            self.rows.append((f"reference {number}", self._marks(words, first)))

    def _grams(self, words: Sequence[str]) -> list[tuple[str, ...]]:
        return [tuple(words[start : start + self.n]) for start in range(len(words) - self.n + 1)]

    def _marks(self, words: Sequence[str], wanted: Collection[tuple[str, ...]]) -> list[tuple[str, str]]:
        inside = [False] * len(words)
        for start, gram in enumerate(self._grams(words)):
            if gram in wanted:
                inside[start : start + self.n] = [True] * self.n
        return [(word, "shared" if shared else "") for word, shared in zip(words, inside, strict=True)]

    def __repr__(self) -> str:
        """Return plain text: shared n-grams in [brackets], wrong words between *stars*."""
        signs = {"shared": "[{}]", "wrong": "*{}*", "": "{}"}
        width = max(len(name) for name, _ in self.rows)
        return "\n".join(
            f"{name:{width}}  " + " ".join(signs[mark].format(word) for word, mark in words).replace("] [", " ")
            for name, words in self.rows
        )

    def _repr_html_(self) -> str:
        """Return the table for Jupyter, in colors that are legible on white and on black."""
        looks = {
            "shared": f"background:{SHARED};color:{INK}",
            "wrong": f"background:{ORANGE};color:{INK};text-decoration:underline",
        }
        lines = []
        for name, words in self.rows:
            spans = []
            for mark, group in groupby(words, key=lambda pair: pair[1]):
                text = escape(" ".join(word for word, _ in group))
                spans.append(f'<span style="{looks[mark]}">{text}</span>' if mark else text)
            lines.append(
                f'<tr><th style="text-align:left;white-space:nowrap;vertical-align:top">{escape(name)}</th>'
                f'<td style="text-align:left">{" ".join(spans)}</td></tr>'
            )
        legend = (
            f'<span style="{looks["shared"]}">n-grams of {self.n} words that are shared</span>; '
            f'<span style="{looks["wrong"]}">words that no reference has</span>'
        )
        return f"<table><caption>{legend}</caption><tbody>{''.join(lines)}</tbody></table>"
