"""Recipes: those that come with attncap, files of one's own, what is wrong named with its line; `train --config`."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from attncap.cli.main import main
from attncap.training.config import TrainConfig
from attncap.training.recipe import read_recipe, recipe_names

NAMES = ["faces", "flickr8k", "flickr8k_crossentropy"]


def test_the_recipes_are_data_of_the_package() -> None:
    folder = resources.files("attncap.training") / "recipes"
    assert recipe_names() == sorted(Path(file.name).stem for file in folder.iterdir()) == NAMES
    root = Path(__file__).parents[2]
    packaged = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][
        "attncap.training"
    ]
    assert "recipes/*.toml" in packaged


@pytest.mark.parametrize("name", NAMES)
def test_every_line_of_a_recipe_has_its_reason(name: str) -> None:
    text = (resources.files("attncap.training") / "recipes" / f"{name}.toml").read_text(encoding="utf-8")
    settings = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert len(settings) == len(read_recipe(name)) > 5
    assert [line for line in settings if len(line.partition(" # ")[2].strip()) < 10] == []


def test_the_flickr8k_recipes_are_the_runs_of_the_results() -> None:
    scored, words = (TrainConfig.from_dict(read_recipe(name)) for name in ("flickr8k", "flickr8k_crossentropy"))
    own: dict[str, Any] = {"layer": "mixed8", "epochs": 10, "min_count": 5, "batch_size": 32}
    scores = TrainConfig(objective="cider", cider_epochs=1, cider_crossentropy=1.0, **own)
    assert scored.with_model_defaults() == scores.with_model_defaults()
    assert words.with_model_defaults() == TrainConfig(**own).with_model_defaults()


def test_the_demo_trains_by_the_recipe_for_faces() -> None:
    from attncap.reports.demo import CONFIG

    assert TrainConfig.from_dict(read_recipe("faces")) == CONFIG
    assert (CONFIG.weights, CONFIG.hidden_units, CONFIG.attention_penalty, CONFIG.epochs) == ("faces", 256, 0.0, 9)


def test_a_file_gives_values_of_the_settings_types(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    text = '# why\nepochs = 3  # quick\ndropout = 0\ncontext_gate = false\nlayer = "mixed7"\nboxes = "faces"\n'
    file.write_text(f"{text}image_size = 384\n")
    settings = read_recipe(file)
    assert settings == {
        "epochs": 3,
        "dropout": 0.0,
        "context_gate": False,
        "layer": "mixed7",
        "boxes": "faces",
        "image_size": 384,
    }
    assert [type(value) for value in settings.values()] == [int, float, bool, str, str, int]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "epochs = 3\n\nhiden_units = 5\n",
            r"mine\.toml, line 3: no setting is named 'hiden_units'; did you mean 'hidden_",
        ),
        ("min-count = 5\n", r"line 1: no setting is named 'min-count'; did you mean 'min_count'\?"),
        ("zzz = 5\n", r"line 1: no setting is named 'zzz'; known are model, weights, backbone, .*boxes"),
        ('# epochs = 2\nepochs = "3"\n', r"line 2: epochs is a text '3'; a whole number expected"),
        ("epochs = 3.5\n", r"line 1: epochs is a number 3\.5; a whole number expected"),
        ("epochs = true\n", r"line 1: epochs is true or false True; a whole number expected"),
        ("dropout = true\n", r"line 1: dropout is true or false True; a number expected"),
        ("context_gate = 1\n", r"line 1: context_gate is a whole number 1; true or false expected"),
        ("layer = 8\n", r"line 1: layer is a whole number 8; a text expected"),
        ("attention_penalty = [1]\n", r"line 1: attention_penalty is a list \[1\]; a number expected"),
        ("\n[train]\nepochs = 3\n", r"line 2: \[train\] begins a table: plain lines"),
        ("epochs = 3\nlayer = mixed8\n", r"mine\.toml: not TOML: .*line 2.*texts in quotes"),
        ("epochs = 3\nepochs = 4\n", r"mine\.toml: not TOML: .*line 2"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_recipe(file)


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.toml: no such recipe file"):
        read_recipe(tmp_path / "none.toml")
    with pytest.raises(
        ValueError, match=r"'flikr8k'; did you mean 'flickr8k'\?: choose one of faces, flickr8k, .*\.toml"
    ):
        read_recipe("flikr8k")
    (tmp_path / "latin.toml").write_bytes("# caf\xe9\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.toml: not UTF-8 text"):
        read_recipe(tmp_path / "latin.toml")


def test_options_win_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'data = "nowhere"\nfeatures = "of file"\nboxes = "of file"\nweights = "random"\nlayer = "mixed0"\nepochs = 2\n'
        "seed = 5\nembedding_units = 7\nhidden_units = 9\nattention_supervision = 1.0\n"
    )
    calls: list[Any] = []
    monkeypatch.setattr(
        "attncap.training.train.train", lambda data, run, config, **others: calls.append((config, others))
    )
    train = ["train", "--config", str(file), "--run", str(tmp_path / "run"), "--data", "faces:9"]
    assert (
        main([*train, "--features", "of option", "--epochs", "1", "--weights", "faces", "--set", "hidden_units=11"])
        == 0
    )
    ((config, others),) = calls
    assert config == TrainConfig(
        weights="faces", layer="mixed0", epochs=1, seed=5, embedding_units=7, hidden_units=11, attention_supervision=1.0
    )
    expected = {"features": "of option", "boxes": "of file", "resume": False, "tensorboard": False}
    assert others == {**expected, "distribution": None}


def test_errors_of_train_with_a_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("attention_supervision = 1.0\n")
    run = ["--run", str(tmp_path / "run")]
    assert main(["train", "--config", str(file), *run]) == 2
    assert "--data is needed" in capsys.readouterr().err
    assert main(["train", "--config", str(file), "--data", "faces:9", "--model", "show-and-tell", *run]) == 2
    error = capsys.readouterr().err
    assert "has no attention maps" in error and f"(settings of {file} and of options)" in error
    assert main(["train", "--config", "flickr9k", "--data", "faces:9", *run]) == 2
    assert "did you mean 'flickr8k'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_settings_of_old_runs_load_by_their_names_of_today() -> None:
    config = TrainConfig.from_dict({"pictures": 7, "mirror": False, "cider_contrast": 0.0})
    assert config.batch_size == 7
    with pytest.raises(ValueError, match="cider_contrast is 0.5, and this setting was removed: use .* commit 998f5d3"):
        TrainConfig.from_dict({"cider_contrast": 0.5})
