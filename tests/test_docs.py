"""README and docs: their commands exist, their links lead somewhere, their Python runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from attncap.cli import main as command_line

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, *languages: str) -> list[tuple[int, str]]:
    """Return the fenced blocks of a page, each with the number of its first line."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(rf"^```({'|'.join(languages)})\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return [(text[: match.start(2)].count("\n") + 1, match[2]) for match in found]


def commands(page: Path) -> list[tuple[int, list[str]]]:
    """Return every `attncap ...` line of a page's shell blocks, split into arguments."""
    return [
        (start + offset, shlex.split(line.partition("attncap ")[2], comments=True))
        for start, block in blocks(page, "sh")
        for offset, line in enumerate(block.splitlines())
        if re.match(r"([A-Z_]+=\S+ )?attncap ", line)
    ]


def title(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_readme_is_one_page_in_the_agreed_order() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert re.findall(r"^## (.*)$", text, flags=re.MULTILINE) == [
        "Two commands",
        "Caption an image",
        "Your own images",
        "Five systems",
        "Results",
        "Supported environments",
        "Limits",
        "Links",
    ]


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_commands_parse(page: Path) -> None:
    parser = command_line._parser()
    for line, arguments in commands(page):
        try:
            parser.parse_args(arguments)
        except SystemExit as refusal:
            pytest.fail(f"{title(page)}, line {line}: `attncap {shlex.join(arguments)}` is refused ({refusal.code})")


def test_commands_are_found() -> None:
    assert [arguments[0] for _, arguments in commands(ROOT / "README.md")] == [
        "check",
        "characteristics",
        "characteristics",
        "attributes",
        "describe",
        "train",
        "predict",
        "evaluate",
    ]


LINKED = [*PAGES, ROOT / "CHANGELOG.md", *sorted((ROOT / "notebooks").glob("*.ipynb"))]


def prose(page: Path) -> str:
    """Return the Markdown of a page or of a notebook, without its code."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells)
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`]*`", "", text)


def anchors(page: Path) -> set[str]:
    """Return the addresses of a page's headings, as GitHub and Sphinx make them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKED, ids=title)
def test_links_lead_somewhere(page: Path) -> None:
    made_by_the_build = {"drawn/way.svg", "drawn/rooms.svg"}
    for target in re.findall(r"\]\(\s*([^)\s]+)", prose(page)):
        if target.startswith("https://"):
            assert re.match(r"https://[\w.-]+\.[a-z]+(?:/\S*)?$", target), target
            continue
        if target in made_by_the_build:
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file) if file else page
        assert there.exists(), f"{title(page)} links to {target}, which does not exist"
        assert not anchor or anchor in anchors(there), f"{title(page)} links to {target}: no such heading"


@pytest.mark.parametrize("name", ["extending.md", pytest.param("from_python.md", marks=pytest.mark.slow)])
def test_python_of_a_page_runs(name: str, tmp_path: Path) -> None:
    page = ROOT / "docs" / name
    code = blocks(page, "python")
    assert len(code) >= 4
    program = tmp_path / f"{page.stem}.py"
    lines: list[str] = []  # every line keeps its number, so that a traceback names the line of the page
    for start, block in code:
        lines += [""] * (start - 1 - len(lines)) + block.splitlines()
    program.write_text("\n".join(lines) + "\n", encoding="utf-8")
    run = subprocess.run(
        [sys.executable, program], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-3000:]


def test_the_recipe_for_own_features_is_short() -> None:
    page = ROOT / "docs" / "from_python.md"
    code = next(block for _, block in blocks(page, "python") if "np.savez" in block)
    assert "features=" in code and len([line for line in code.splitlines() if line.strip()]) <= 15


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "ATTNCAP_CACHE": str(folder / "cache"), "TF_CPP_MIN_LOG_LEVEL": "2"}


def test_citation_and_changelog_name_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
