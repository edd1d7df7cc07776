"""The project as a whole: its two dependency lists, the layers of its modules, its import time, what is committed."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import attncap

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "attncap"

# ---------------------------------------------------------------- the layers

# A module imports from lower layers only; a new module must be placed here. Layer 0 knows no TensorFlow.
LAYERS: list[set[str]] = [
    {"captions", "pictures", "files", "lmdb_pages"}
    | {"readers", "table_reader", "caption_data", "check", "data", "faces", "faces_drawing", "faces_captions"}
    | {
        "evaluation",
        "ngram_metrics",
        "ptb",
        "coco_json",
        "uncertainty",
        "score_report",
        "grounding",
        "regions",
        "entities",
        "repetition",
    }
    | {"attribute_tables", "attribute_split", "attribute_report", "attribute_words", "attribute_charts"}
    | {"retrieval", "difference_hash", "picture_database", "vector_search", "neighbour_graph", "neighbour_captions"}
    | {"thresholds", "robustness", "retrieval_charts"}
    | {"plotting", "charts", "drawing", "explorer", "beam_tree"},
    {"text", "features", "feature_store", "joined_features", "layers", "losses", "attribute_encoder", "keras_files"}
    | {"folding", "grids", "picture_batches", "ray_features", "receptive_fields"}
    | {"encoder_tail"},
    {"captioner", "captioners", "averaging", "attributes", "embeddings", "look_alikes"}
    | {"attention_captioner", "adaptive_attention", "transformer", "show_and_tell"},
    {"decoding", "batches", "boxes", "run_folder", "train_config", "recipes", "recorder", "predict", "ensemble"}
    | {"cider_reward", "self_critical", "objectives", "finetuning", "distribution", "shares", "consensus"}
    | {"attribute_predict", "attribute_tuning"}
    | {"alternatives"},
    {"training", "probes", "attribute_training", "attribute_evaluation", "systems"},
    {"demo", "ground", "comparison"},
    {"cli_features"} | {"cli", "cli_parts", "cli_index", "cli_attributes", "cli_explore", "cli_ensemble", "cli_train"},
]
LAYER_OF = {module: number for number, modules in enumerate(LAYERS) for module in modules}

# Inside a layer a module imports only these; anyone may import these three.
FOUNDATIONS = {"captions", "pictures", "files"}
NEIGHBOURS: dict[str, set[str]] = {
    "alternatives": {"decoding"},
    "attribute_charts": {"attribute_report", "drawing"},
    "attribute_encoder": {"features"},
    "attribute_split": {"caption_data"},
    "attribute_tables": {"attribute_split", "caption_data", "data", "faces_captions", "readers", "table_reader"},
    "attribute_tuning": {"attribute_predict"},
    "attribute_words": {"faces_captions"},
    "averaging": {"captioner", "captioners"},
    "beam_tree": {"drawing"},
    "boxes": {"batches"},
    "caption_data": {"readers"},
    "adaptive_attention": {"attention_captioner", "captioner"},
    "attention_captioner": {"captioner"},
    "captioners": {"adaptive_attention", "attention_captioner", "captioner", "show_and_tell", "transformer"},
    "show_and_tell": {"captioner"},
    "transformer": {"captioner"},
    "charts": {"drawing"},
    "consensus": {"cider_reward", "decoding"},
    "cli": {"cli_attributes", "cli_ensemble", "cli_explore", "cli_features", "cli_index", "cli_parts", "cli_train"},
    "cli_attributes": {"cli_parts"},
    "cli_ensemble": {"cli_parts"},
    "cli_explore": {"cli_parts"},
    "cli_features": {"cli_parts"},
    "check": {"caption_data", "readers"},
    "data": {"caption_data", "check", "readers", "table_reader", "faces"},
    "distribution": {"batches", "objectives", "recorder", "run_folder", "shares", "train_config"},
    "encoder_tail": {"features"},
    "ensemble": {"decoding"},
    "entities": {"regions"},
    "explorer": {"drawing"},
    "evaluation": {"ngram_metrics", "ptb", "coco_json", "uncertainty", "score_report"},
    "faces": {"faces_captions", "faces_drawing"},
    "faces_drawing": {"faces_captions"},
    "features": {"folding", "grids", "receptive_fields"},
    "feature_store": {"features", "picture_batches"},
    "grounding": {"regions"},
    "joined_features": {"feature_store", "features", "grids"},
    "cli_index": {"cli_parts"},
    "cli_train": {"cli_parts"},
    "look_alikes": {"embeddings"},
    "losses": {"text"},
    "neighbour_captions": {"ngram_metrics", "ptb", "retrieval"},
    "neighbour_graph": {"vector_search"},
    "retrieval": {"difference_hash", "neighbour_graph", "picture_database", "vector_search"},
    "retrieval_charts": {"drawing"},
    "robustness": {"retrieval"},
    "thresholds": {"evaluation", "ngram_metrics"},
    "ngram_metrics": {"ptb"},
    "objectives": {"batches", "finetuning", "recorder", "self_critical", "train_config"},
    "plotting": {"charts", "drawing"},
    "predict": {"decoding", "ensemble"},
    "ray_features": {"feature_store", "picture_batches"},
    "recipes": {"train_config"},
    "recorder": {"batches", "run_folder", "train_config"},
    "score_report": {"ngram_metrics", "ptb", "uncertainty"},
    "self_critical": {"batches", "cider_reward", "decoding"},
    "shares": {"batches"},
    "table_reader": {"readers"},
    "uncertainty": {"ngram_metrics", "ptb"},
}

# Written in keras.ops and keras.layers, so that the JAX and torch backends run them too: a backend may be imported
# inside a function, where that backend is the one in use, and nowhere else.
ANY_BACKEND = {
    "attribute_encoder",
    "layers",
    "losses",
    "captioner",
    "captioners",
    "encoder_tail",
    "attention_captioner",
    "adaptive_attention",
    "transformer",
    "show_and_tell",
    "attributes",
    "decoding",
    "ensemble",
    "joined_features",
    "grids",
    "receptive_fields",
    "averaging",
    "alternatives",
}

MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem not in {"__init__", "__main__"})


def imported_by(module: str, at_top: bool = False) -> tuple[set[str], set[str]]:
    """The package's modules, and the other packages, that a module imports: anywhere in it, or outside functions."""
    own: set[str] = set()
    others: set[str] = set()
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    for node in tree.body if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, ["attncap" if node.level else "", node.module]))
            names = [f"attncap.{alias.name}" for alias in node.names] if base == "attncap" else [base]
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            if top == "attncap":
                own.add(rest.partition(".")[0])
            else:
                others.add(top)
    return own, others


def test_every_module_has_a_layer() -> None:
    unplaced = sorted(set(MODULES) - set(LAYER_OF))
    assert not unplaced, f"place these modules in LAYERS: {unplaced}"


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downward(module: str) -> None:
    own, _ = imported_by(module)
    layer = LAYER_OF.get(module, 0)
    allowed = {other for other in MODULES if LAYER_OF.get(other, layer) < layer}
    allowed |= NEIGHBOURS.get(module, set())
    if module not in FOUNDATIONS:
        allowed |= FOUNDATIONS
    # Not a module: a name of the package's front door, which stands above everything.
    assert own <= allowed, f"attncap.{module} may not import {sorted(own - allowed)}"


def test_neighbours_stay_in_their_layer_and_form_no_circle() -> None:
    for module, neighbours in NEIGHBOURS.items():
        assert {LAYER_OF[other] for other in neighbours} == {LAYER_OF[module]}, module
    graphlib.TopologicalSorter(NEIGHBOURS).prepare()  # raises CycleError


@pytest.mark.parametrize("module", [name for name in MODULES if LAYER_OF.get(name) == 0])
def test_layer_0_knows_no_tensorflow(module: str) -> None:
    _, others = imported_by(module)
    assert not others & {"tensorflow", "keras", "keras_nlp", "keras_hub", "jax", "torch"}


@pytest.mark.parametrize("module", [name for name in MODULES if name in ANY_BACKEND])
def test_model_code_runs_on_any_backend(module: str) -> None:
    _, others = imported_by(module, at_top=True)
    assert not others & {"tensorflow", "jax", "torch"}


def test_modules_stay_short() -> None:
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.glob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


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


def test_the_front_door_says_the_same_thing_three_times() -> None:
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
