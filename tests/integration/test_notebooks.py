"""The notebooks: each runs from top to bottom without a word on stderr, keeps the form, and is committed executed."""

from __future__ import annotations

import ast
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

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
MOST_LINES = 15  # of a code cell
TIMEOUT = 300  # seconds for a cell; a whole notebook takes under a minute on idle cores
# Written with brackets so that no test of the repository finds itself.
MACHINE = re.compile(
    r"(?<![\w.])/(?:ho[m]e|Us[e]rs|wo[r]k|t[m]p|ro[o]t|mn[t]|va[r])/|[A-Z]:\\Us[e]rs|pythonhos[t]ed|pypi\.o[r]g|"
    r"file://|extra-index-u[r]l|https?://(?:local[h]ost|127\.)"
)

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


@every_notebook
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
    first, last = notebook.cells[0], notebook.cells[-1]
    assert first.cell_type == last.cell_type == "markdown"
    assert first.source.startswith(f"# {path.stem[:2]} ")
    for word in ("**Question.**", "**Needs**", "**Produces**", "minute", "2 cores"):
        assert word in first.source
    assert re.search(r"\d", last.source) and "read next" in last.source.lower(), "the end: what was seen, with numbers"
    markdown = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for phrase in ("$$", "**Look for**", "went wrong", "## Try this"):
        assert phrase in markdown
    sources = [cell.source for cell in code_cells(notebook)]
    assert 'find_spec("attncap")' in sources[0]
    settings = [source for source in sources if re.search(r"^(?:DATA|WEIGHTS|FAST)\b.*=", source, re.MULTILINE)]
    assert len(settings) == 1, "one cell of settings"
    assert {"DATA", "WEIGHTS", "FAST"} <= set(re.findall(r"^(\w+) =", settings[0], re.MULTILINE))
    assert "ATTNCAP_FAST" in settings[0]
    for source in sources:
        assert len(source.splitlines()) <= MOST_LINES, source
        assert max(map(len, source.splitlines())) <= 120, source
        tree = ast.parse(source)
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)], source


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
