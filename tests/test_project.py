"""The project as a whole: its two dependency lists, the layers of its modules, its import time, what is committed."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from pathlib import Path

import pytest

import attncap

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "attncap"

# --------------------------------------------- the rooms (their arrows: import-linter, in pyproject.toml)

# These rooms and files work without a deep learning framework: importing each of their modules loads none.
WITHOUT_TENSORFLOW = [
    "data",
    "metrics",
    "characteristics",
    "plotting",
    "captions",
    "images",
    "paths",
    "words",
    "_files",
    "_quiet",
]
# Written in keras.ops and keras.layers, so that the JAX and torch backends run them too: a backend may be imported
# inside a function, where that backend is the one in use, and nowhere else.
ANY_BACKEND = ["models", "decoding"]


def modules_of(*rooms: str) -> list[str]:
    """Name every module of these rooms or root files."""
    files = [file for room in rooms for file in (PACKAGE / room).rglob("*.py")]
    files += [PACKAGE / f"{room}.py" for room in rooms if (PACKAGE / f"{room}.py").exists()]
    return sorted(".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files)


def test_rooms_without_tensorflow_load_none() -> None:
    code = (
        f"import importlib, sys\nfor name in {modules_of(*WITHOUT_TENSORFLOW)!r}:\n    importlib.import_module(name)\n"
        "print(*sorted({'tensorflow', 'keras', 'keras_nlp', 'keras_hub', 'jax', 'torch'} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert loaded.split() == []


@pytest.mark.parametrize("module", modules_of(*ANY_BACKEND))
def test_model_code_runs_on_any_backend(module: str) -> None:
    path = ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    imported = {
        (name or "").partition(".")[0]
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not imported & {"tensorflow", "jax", "torch"}


def test_modules_stay_short() -> None:
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 330} == {}


# ------------------------------------------------------------------- the words


def prose_of(path: Path) -> str:
    """Comments and strings of several words; code examples and names in backticks left out."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        prose = [token.string for token in tokens if token.type in (tokenize.COMMENT, tokenize.STRING)]
        text = "\n".join(piece for piece in prose if " " in piece.strip("\"' "))
    return re.sub(r"`[^`]*`|^ *(>>>|\.\.\.) .*$|\{[^{}]*\}|--pictures", "", text, flags=re.MULTILINE)


def test_prose_says_image() -> None:
    # "pictures" stays the name of a table and of an option.
    table = re.compile(r'["\'.]pictures\b|\bpictures(:|\.\w| or drop)|, pictures:|to pictures, or drop')
    found = {}
    for path in sorted(file for kind in ("py", "toml", "html", "js") for file in PACKAGE.rglob(f"*.{kind}")):
        lines = [line.strip() for line in prose_of(path).splitlines() if re.search(r"\bpictures?\b", line, re.I)]
        lines = [line for line in lines if not table.search(line)]
        if lines:
            found[path.relative_to(PACKAGE).as_posix()] = lines
    assert found == {}


# ------------------------------------------------------------- the terminal


def test_every_progress_bar_says_what_it_counts() -> None:
    bars = [
        (path.name, node)
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "tqdm"
    ]
    assert len(bars) > 10
    for name, bar in bars:
        assert {"desc", "unit"} <= {keyword.arg for keyword in bar.keywords}, f"{name}, line {bar.lineno}"


# ------------------------------------------------------- the two dependency lists


def split_requirement(requirement: str) -> tuple[str, str]:
    match = re.fullmatch(r"([A-Za-z0-9._-]+)\s*(.*)", requirement)
    assert match, requirement
    return match[1].lower().replace("_", "-"), match[2].replace(" ", "")


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def environment() -> tuple[dict[str, str], dict[str, str]]:
    """The conda part and the pip part of environment.yml, read by indentation: the file is two flat lists."""
    conda: dict[str, str] = {}
    pip: dict[str, str] = {}
    section = ""
    for line in (ROOT / "environment.yml").read_text(encoding="utf-8").splitlines():
        text = line.split("#")[0].rstrip()
        if text and not text.startswith((" ", "-")):
            section = text
        elif section == "dependencies:" and text.strip() not in {"", "- pip:"}:
            name, versions = split_requirement(text.strip().removeprefix("- ").replace("-e .", "editable-self"))
            (pip if text.startswith("      - ") else conda)[name] = versions
    return conda, pip


def test_environment_and_pyproject_agree() -> None:
    conda, pip = environment()
    project = pyproject()
    assert conda.pop("python") == project["requires-python"]
    assert conda.pop("pip") == ""
    assert pip.pop("editable-self") == "", "environment.yml must install this package itself: `- -e .`"
    named = {**conda, **pip}
    assert set(named) == {"tensorflow", "keras-nlp", "matplotlib", "numpy", "pandas", "jupyterlab"}
    declared = dict(map(split_requirement, project["dependencies"] + project["optional-dependencies"]["lab"]))
    assert named == {name: declared[name] for name in named}


def test_every_requirement_is_a_tried_range() -> None:
    project = pyproject()
    requirements = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    for name, versions in map(split_requirement, requirements):
        if name != "attncap":
            assert re.fullmatch(r">=[\d.]+,<[\d.]+", versions), f"{name}: give an oldest tried and a next major release"


def test_a_package_named_twice_has_one_range() -> None:
    project = pyproject()
    ranges: dict[str, set[str]] = {}
    for requirement in [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]:
        if not requirement.startswith("attncap"):
            name, versions = split_requirement(requirement)
            ranges.setdefault(name, set()).add(versions)
    assert {name: versions for name, versions in ranges.items() if len(versions) > 1} == {}


# ------------------------------------------------------------ the front door


def test_import_is_quick_and_brings_no_tensorflow() -> None:
    code = (
        "import time, sys; start = time.perf_counter(); import attncap; spent = time.perf_counter() - start;"
        "dir(attncap); print(spent, *({'tensorflow', 'keras', 'matplotlib', 'pandas', 'numpy'} & set(sys.modules)))"
    )
    answers = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(3)
    ]
    assert [answer[1:] for answer in answers] == [[], [], []]
    assert min(float(answer[0]) for answer in answers) < 0.5


@pytest.mark.parametrize("name", attncap.__all__)
def test_every_re_exported_name_resolves(name: str) -> None:
    value = getattr(attncap, name)
    assert value.__module__.startswith("attncap.")
    assert name in dir(attncap)


def test_the_front_door_names_the_same_things_to_type_checkers_and_at_run_time() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    for_type_checkers = {
        alias.name: node.module.removeprefix("attncap.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("attncap.")
        for alias in node.names
    }
    assert for_type_checkers == attncap._HOME_OF
    assert attncap.__all__ == sorted(attncap._HOME_OF)


def test_version_and_unknown_names() -> None:
    assert attncap.__version__ in {pyproject()["version"], "0+source"}
    with pytest.raises(AttributeError, match="module 'attncap' has no attribute 'no_such_name'"):
        attncap.no_such_name  # noqa: B018


# ----------------------------------------------------------- what is committed


def committed_files() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: nothing to list")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listing.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_large_file_is_committed() -> None:
    sizes = {path.name: path.stat().st_size for path in committed_files()}
    assert {name: size for name, size in sizes.items() if size > 5_000_000} == {}


def test_no_machine_is_named() -> None:
    # Written with brackets so that this file does not find itself.
    machine = re.compile(
        r"(?<![\w.])/(?:ho[m]e|Us[e]rs)/\w+|(?<![\w.~])/ro[o]t/|(?<![\w./])/wo[r]k/|[A-Z]:\\Us[e]rs"
        r"|pythonhos[t]ed\.org|pypi\.o[r]g/simple|/opt/py[p]i|extra-index-u[r]l"
    )
    found = {}
    for path in committed_files():
        if path.suffix in {".py", ".md", ".toml", ".yml", ".ipynb", ".json", ".csv", ".txt", ""}:
            matches = machine.findall(path.read_text(encoding="utf-8", errors="replace"))
            if matches:
                found[path.name] = matches
    assert found == {}
