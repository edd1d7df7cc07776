"""What notebooks show: the set-up, tables of scores, and captions with shared n-grams and wrong words marked."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest

from attncap.metrics.evaluate import compare, evaluate
from attncap.reports.notebook import WRAP, CaptionTable, notebook_setup, score_table
from tests.browser import resize

PREDICTIONS = {"1": "a red cat", "2": "two dogs run", "3": "a bird"}
REFERENCES = {
    "1": ["a red cat sits", "the red cat"],
    "2": ["two dogs run", "dogs running"],
    "3": ["a small bird sings", "a bird"],
}


def test_set_up_seeds_prints_versions_and_shows_long_texts(capsys: pytest.CaptureFixture[str]) -> None:
    with matplotlib.rc_context(), pd.option_context("display.max_colwidth", 50):
        notebook_setup(seed=7, dpi=61)
        assert matplotlib.rcParams["figure.dpi"] == matplotlib.rcParams["savefig.dpi"] == 61
        first = np.random.random()
        long = "word " * 40
        assert long.strip() in pd.DataFrame({"caption": [long]}).to_html()
        notebook_setup(seed=7)
        assert np.random.random() == first
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == printed[1]
    assert re.match(r"attncap \S+, keras \S+, \w+ \S+, numpy \S+, pandas \S+, matplotlib \S+$", printed[0])


def test_in_a_notebook_printed_lines_wrap_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    monkeypatch.setitem(
        sys.modules, "IPython.display", SimpleNamespace(display=lambda data, raw: shown.append((data, raw)))
    )
    with matplotlib.rc_context(), pd.option_context("display.max_colwidth", 50):
        notebook_setup()
        assert shown == []  # a program, or a test, that has imported IPython
        monkeypatch.setattr(sys.modules["IPython"], "get_ipython", object)
        notebook_setup()
    assert shown == [({"text/html": WRAP, "text/plain": ""}, True)]


@pytest.mark.parametrize("width", [1440, 390])
def test_the_style_reaches_what_a_notebook_prints(browser: Any, tmp_path: Path, width: int) -> None:
    nbformat, nbconvert = pytest.importorskip("nbformat"), pytest.importorskip("nbconvert")
    line = "counterrevolutionary eyebrows " * 30
    v4 = nbformat.v4
    style = v4.new_output("display_data", {"text/html": WRAP, "text/plain": ""})
    cell = v4.new_code_cell(
        "print(line)", outputs=[v4.new_output("stream", name="stdout", text=line)], execution_count=1
    )
    wide = pd.DataFrame({f"BLEU-{n}": ["0.940 to 0.956"] for n in range(1, 20)}).to_html()
    table = v4.new_code_cell("wide", outputs=[v4.new_output("display_data", {"text/html": wide})], execution_count=2)
    notebook = v4.new_notebook(cells=[v4.new_code_cell("setup()", outputs=[style], execution_count=1), table, cell])
    page = tmp_path / "page.html"
    page.write_text(nbconvert.HTMLExporter().from_notebook_node(notebook)[0], encoding="utf-8")
    resize(browser, width, 900)
    browser.get(page.as_uri())
    pieces = browser.execute_script(
        """
        const text = [...document.querySelectorAll(".jp-OutputArea-output pre")].at(-1).firstChild;
        const range = document.createRange(), tops = [];
        for (const word of text.data.matchAll(/\\S+/g)) {
            range.setStart(text, word.index);
            range.setEnd(text, word.index + word[0].length);
            tops.push(new Set([...range.getClientRects()].map((box) => box.top)).size);
        }
        return tops;
        """
    )
    heads = "return [...document.querySelectorAll('thead th')].slice(1).map((th) => th.offsetHeight)"
    height, *others = browser.execute_script(heads)
    resize(browser)
    assert len(pieces) == 60 and set(pieces) == {1}  # each word lies on one line
    if width < 800:
        assert height < 40 and set(others) == {height}  # "BLEU-4" on one line


def test_a_kernel_that_holds_an_older_package_is_to_be_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pd, "__version__", "1.5.3")
    with pytest.raises(RuntimeError, match=r"pandas 1\.5\.3 is loaded, but \S+ is installed: restart the kernel"):
        notebook_setup()


def test_scores_as_a_table_with_the_human_line() -> None:
    scores = evaluate(PREDICTIONS, REFERENCES, bootstrap=20)
    table = score_table(scores)
    assert list(table.columns) == ["score", "95% interval", "one person", "system"]
    assert table.loc["BLEU-1", "score"] == f"{scores.values['bleu_1']:.3f}"
    low, high = scores.intervals["rouge_l"]  # type: ignore[index]
    assert table.loc["ROUGE-L", "95% interval"] == f"{low:.3f} to {high:.3f}"
    assert table.loc["BLEU-1", "system"] == f"{scores.human['system']['bleu_1']:.3f}"  # type: ignore[index]
    short = score_table(evaluate(PREDICTIONS, REFERENCES, bootstrap=0, human=False))
    assert list(short.columns) == ["score"]


def test_a_comparison_as_a_table() -> None:
    other = {**PREDICTIONS, "2": "a dog"}
    result = compare(PREDICTIONS, other, REFERENCES, samples=20)
    table = score_table(result)
    assert list(table.columns) == ["A", "B", "A - B", "95% interval", "p"]
    assert float(table.loc["BLEU-1", "A"]) - float(table.loc["BLEU-1", "B"]) == pytest.approx(
        float(table.loc["BLEU-1", "A - B"]), abs=0.0015
    )
    assert table.loc["BLEU-1", "p"] == f"{result.p_values['bleu_1']:.4f}"


def test_shared_ngrams_and_wrong_words_are_marked() -> None:
    table = CaptionTable(
        {"beam": "A green cat with a <hat>.", "greedy": "a sad cat"}, ["this cat with a hat", "a small cat"], n=3
    )
    assert repr(table).splitlines() == [
        "beam         a *green* [cat with a] *<hat>*",
        "greedy       a *sad* cat",
        "reference 1  this [cat with a] hat",
        "reference 2  a small cat",
    ]
    page = table._repr_html_()
    assert page.count("<tr>") == 4 and "&lt;hat&gt;" in page and "<hat>" not in page
    assert ">cat with a</span>" in page and "underline" in page


def test_overlapping_ngrams_are_marked_as_one() -> None:
    table = CaptionTable({"beam": "a b c d"}, ["a b x", "b c d"], n=2)
    assert repr(table).splitlines()[0].split() == ["beam", "[a", "b", "c", "d]"]


@pytest.mark.parametrize(("captions", "n"), [({}, 4), ({"beam": "a"}, 0)])
def test_nothing_to_show_is_refused(captions: dict[str, str], n: int) -> None:
    with pytest.raises(ValueError, match="captions is empty|n needs to be at least 1, got 0"):
        CaptionTable(captions, ["a"], n=n)
