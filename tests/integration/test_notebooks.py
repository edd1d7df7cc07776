"""The notebooks: each runs from top to bottom without a word on stderr, keeps the form, and is committed executed."""

from __future__ import annotations

import ast
import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from tests.plotting.explorer.test_page import stored

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
MOST_LINES = 15  # of a code cell
TIMEOUT = 300  # seconds for a cell; a whole notebook takes under a minute on idle cores
# Written with brackets so that no test of the repository finds itself.
MACHINE = re.compile(
    r"(?<![\w.])/(?:ho[m]e|Us[e]rs|wo[r]k|t[m]p|ro[o]t|mn[t]|va[r])/|[A-Z]:\\Us[e]rs|pythonhos[t]ed|pypi\.o[r]g|"
    r"file://|extra-index-u[r]l|https?://(?:local[h]ost|127\.)"
)

# Numbers of "What was seen" that are computed from numbers of the outputs.
DERIVED = {
    "01": {"72,894": "14591 + 14542 + 14578 + 14576 + 14607", "97": "101 - 4"},
    "06": {"5": "115.1 - 110.2", "10": "(176.0 - 12.2) / 16", "11": "17.3 - 6.0"},
    "10": {"2.1": "0.021 * 100", "1.0": "0.010 * 100", "3.3": "0.033 * 100", "14.3": "0.143 * 100"},
}
NUMBER = re.compile(r"(?<![\w.,/-])(-?\d+(?:,\d{3})*(?:\.\d+)?)(?:e([+-]\d+))?(%?)(?![\w/]|-\w|\.\d)")

RUN_QUICKLY = {"01_data", "11_your_own_pictures"}  # the others run with the slow tests
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(str(path), as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def complaints(notebook: Any) -> list[str]:
    """What a newcomer should not have to read: errors, anything on stderr, warnings on stdout."""
    found = []
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            text = output.get("text", "")
            if output.output_type == "error":
                found.append(f"cell {number}: {output.ename}: {output.evalue}")
            elif output.output_type == "stream" and (output.name == "stderr" or "Warning" in text):
                found.append(f"cell {number}: {text}")
    return found


def test_there_are_notebooks() -> None:
    assert {"01_data", "03_attention_captioner"} <= {path.stem for path in NOTEBOOKS}


@pytest.fixture(scope="session")
def shared_captioners(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a notebook trains, the next one loads; nothing that an earlier version of the package left in the cache."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.mark.parametrize(
    "path",
    [path if path.stem in RUN_QUICKLY else pytest.param(path, marks=pytest.mark.slow) for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_runs_from_top_to_bottom(path: Path, tmp_path: Path, shared_captioners: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in ROOT.glob("notebooks/*")}
    notebook = read(path)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    environment = {
        **os.environ,
        "ATTNCAP_FAST": "1",
        "ATTNCAP_NOTEBOOKS": str(shared_captioners),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "PYTHONWARNINGS": "default::DeprecationWarning:__main__",
    }
    environment.pop("MPLBACKEND", None)  # Jupyter's own, which shows figures below the cell
    # In an empty folder: nothing may depend on where the notebook is started.
    client = nbclient.NotebookClient(
        notebook, timeout=TIMEOUT, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute(env=environment)
    assert complaints(notebook) == []
    committed = [figures_of(cell) for cell in code_cells(read(path))]
    assert [figures_of(cell) for cell in code_cells(notebook)] == committed  # FAST draws what the page shows
    assert list(tmp_path.iterdir()) == []  # files go to a temporary folder or to the cache
    assert {file: file.stat().st_mtime_ns for file in ROOT.glob("notebooks/*")} == before


def figures_of(cell: Any) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


def readable_text(notebook: Any) -> str:
    """All that a person can read: sources, and outputs other than pictures."""
    parts = [json.dumps(notebook.metadata)]
    for cell in notebook.cells:
        parts.append(cell.source)
        for output in cell.get("outputs", []):
            texts = [text for kind, text in output.get("data", {}).items() if not kind.startswith("image/")]
            parts += [str(output.get("text", "")), *map(str, texts)]
    return "\n".join(parts)


@every_notebook
def test_committed_outputs(path: Path) -> None:
    notebook = read(path)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert complaints(notebook) == []
    assert sum(map(figures_of, cells)) >= 1, "no figure is committed: execute the notebook before committing it"
    full_size = re.search(r'else "faces:(\d+)"', "\n".join(cell.source for cell in cells))
    assert full_size and any(f"faces-{full_size[1]}:" in str(cell.outputs) for cell in cells), "executed with FAST"
    for number, cell in enumerate(cells):
        printed = "".join(output.get("text", "") for output in cell.outputs)
        assert len(printed.splitlines()) <= 40, f"code cell {number} prints a wall of log"
    assert MACHINE.findall(readable_text(notebook)) == []
    assert path.stat().st_size < 5_000_000
    assert notebook.metadata.kernelspec.name == "python3"


@every_notebook
def test_form(path: Path) -> None:
    notebook = read(path)
    first = notebook.cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith(f"# {path.stem[:2]} ")
    for word in ("**Question.**", "**Needs**", "**Produces**", "minute", "2 cores"):
        assert word in first.source
    titles = [line for cell in notebook.cells for line in cell.source.splitlines() if line.startswith("## ")]
    end = titles.index("## What was seen")
    assert all(title.startswith("## Appendix ") for title in titles[end + 1 :])
    assert "**Read next:**" in next(c.source for c in notebook.cells if c.source.startswith("## What was seen"))
    markdown = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for phrase in ("$$", "**Look for**", "went wrong", "## Try this"):
        assert phrase in markdown
    sources = [cell.source for cell in code_cells(notebook)]
    assert 'find_spec("attncap")' in sources[0]
    assert "attncap.notebook_setup(" in sources[1]
    settings = [source for source in sources if re.search(r"^(?:DATA|WEIGHTS|FAST)\b.*=", source, re.MULTILINE)]
    assert len(settings) == 1, "one cell of settings"
    tagged = [cell.source for cell in code_cells(notebook) if "parameters" in cell.metadata.get("tags", [])]
    assert tagged == settings, "papermill puts the values that it is given after the cell with the tag `parameters`"
    assert {"DATA", "WEIGHTS", "FAST"} <= set(re.findall(r"^(\w+) =", settings[0], re.MULTILINE))
    assert "ATTNCAP_FAST" in settings[0]
    for source in sources:
        assert len(source.splitlines()) <= MOST_LINES, source
        assert max(map(len, source.splitlines())) <= 120, source
        tree = ast.parse(source)
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)], source


def findings(notebook: Any) -> str:
    """The answer at the top, if any, and the list under "What was seen", without code, equations and addresses."""
    cell = next(cell for cell in notebook.cells if cell.source.startswith("## What was seen"))
    items = re.findall(r"^\* .*(?:\n {2}.*)*", cell.source, flags=re.MULTILINE)
    assert items, "what was seen is a list"
    items += re.findall(r"\*\*Answer\.\*\*.*?\n\n", notebook.cells[0].source, flags=re.DOTALL)
    return re.sub(r"\]\([^)]*\)|`[^`]*`|\$[^$]*\$|95% interval", " ", "\n".join(items))


def numbers(text: str) -> list[tuple[str, float, float]]:
    """Return each number as written, its value and the half of its last digit; percentages as shares."""
    found = []
    for digits, exponent, percent in NUMBER.findall(text):
        scale = 10.0 ** int(exponent or 0) / (100 if percent else 1)
        half = 0.5 * 10.0 ** -len(digits.partition(".")[2]) * scale
        found.append((digits + percent, float(digits.replace(",", "")) * scale, half))
    return found


def printed_text(notebook: Any) -> str:
    """Everything that the outputs print or show as a table."""
    parts = []
    for cell in code_cells(notebook):
        for output in cell.outputs:
            data = output.get("data", {})
            parts.append(output.get("text", ""))
            parts.append(
                re.sub(r"<[^>]*>", " ", data["text/html"]) if "text/html" in data else data.get("text/plain", "")
            )
    return "\n".join(parts)


@every_notebook
def test_numbers_of_the_text_are_those_of_the_outputs(path: Path) -> None:
    notebook = read(path)
    shown = [value for _, value, _ in numbers(printed_text(notebook))]
    settings = {
        written for _, written in re.findall(r"(^|[^\w.])(\d+)\b", "\n".join(c.source for c in code_cells(notebook)))
    }
    derived = DERIVED.get(path.stem[:2], {})
    for written, terms in derived.items():
        assert written in findings(notebook)
        for term, value, _ in numbers(terms):
            known = any(abs(value - other) < 1e-9 for other in shown) or term in ("4", "16", "100")
            assert known, f"{written} = {terms}: no output has {term}"
        value = eval(terms, {})
        assert float(written.replace(",", "")) == pytest.approx(
            value, abs=0.5 * 10.0 ** -len(written.partition(".")[2])
        )
    missing = [
        written
        for written, value, half in numbers(findings(notebook))
        if written not in derived
        and written not in settings
        and not any(abs(abs(value) - abs(other)) <= half * (1 + 1e-6) for other in shown)  # "costs 0.8" for -0.8
    ]
    assert not missing, f"no output shows {', '.join(missing)}"


@every_notebook
def test_begins_with_a_picture(path: Path) -> None:
    assert figures_of(code_cells(read(path))[2]) == 1, "the first cell after the set-up shows no picture"


def test_the_explorer_in_06_holds_what_its_script_reads() -> None:
    outputs = [
        output for cell in code_cells(read(ROOT / "notebooks/06_attention_maps.ipynb")) for output in cell.outputs
    ]
    [frame] = [text for output in outputs if "srcdoc" in (text := output.get("data", {}).get("text/html", ""))]
    content = stored(html.unescape(frame))
    assert len(content["images"]) == 4
    for image in content["images"]:
        assert all(beam["maps"] and beam["alternatives"] for beam in image["beams"]) and len(image["beams"]) == 3


@every_notebook
def test_every_figure_has_an_alternative_text(path: Path) -> None:
    for cell in code_cells(read(path)):
        images = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        if images:
            text = cell.metadata.get("alt", "")
            assert len(text) > 30, cell.source
            assert cell.metadata["mystnb"]["image"]["alt"] == text  # for the page; `alt` is for nbconvert


@every_notebook
def test_the_first_cell_installs_where_the_package_is_missing(path: Path, tmp_path: Path) -> None:
    install = code_cells(read(path))[0].source
    # Run on its own, with the package out of sight and pip replaced by what prints its argument.
    code = (
        "import importlib.util, json, subprocess\n"
        "importlib.util.find_spec = lambda name: None\n"
        "subprocess.run = lambda command, check: print(json.dumps(command[1:]))\n"
        f"{install}"
    )

    def started_in(folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60)

    assert json.loads(started_in(ROOT / "notebooks").stdout) == ["-m", "pip", "install", "--quiet", str(ROOT)]
    alone = started_in(tmp_path)
    assert alone.stdout == ""  # never a package of that name from an index
    assert re.search(r"ModuleNotFoundError: attncap is not installed: give SOURCE", alone.stderr)
