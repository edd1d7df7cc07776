"""Every setting of a training is checked when `TrainConfig` is made, before the backend is imported."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import Field, fields
from typing import Any

import pytest

from attncap.cli.main import main
from attncap.training.config import CHOICES, TrainConfig, describe_setting, kinds_of

SETTINGS = {setting.name: setting for setting in fields(TrainConfig)}
KINDS = kinds_of(TrainConfig)
NUMBERS = [name for name in SETTINGS if KINDS[name][0] in (int, float)]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_value_of_another_type_is_refused(name: str) -> None:
    kind = KINDS[name][0]
    others = {bool: [1, "true"], int: [True, 2.5, "3", [3]], float: [False, "0.1", {}], str: [7, ["words"], b"words"]}
    for value in others[kind]:
        with pytest.raises(ValueError, match=rf"^{name} is of type {kind.__name__}, got "):
            TrainConfig(**{name: value})


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_outside_its_range_is_refused(name: str) -> None:
    setting: Field[Any] = SETTINGS[name]
    low, high = setting.metadata["low"], setting.metadata["high"]
    assert low is not None, f"{name}: say the least value in config.py"
    step = 1 if KINDS[name][0] is int else 1e-3
    with pytest.raises(ValueError, match=rf"^{name} must be at least {low}, got "):
        TrainConfig(**{name: low - step})
    if high is not None:
        with pytest.raises(ValueError, match=rf"^{name} must be at most {high}, got "):
            TrainConfig(**{name: high + step})
    for value in (math.nan, math.inf, -math.inf) if KINDS[name][0] is float else ():
        with pytest.raises(ValueError, match=rf"^{name} is a finite number, got "):
            TrainConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("learning_rate", -1, "at least 0"),
        ("label_smoothing", 2, "at most 0.99"),
        ("warmup", 2, "at most 1"),
        ("patience", 0, "at least 1"),
        ("clip_norm", math.nan, "a finite number"),
        ("batch_size", 0, "at least 1"),
        ("image_size", 10, "at least 75"),
    ],
)
def test_the_values_that_were_once_taken(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} .*{message}"):
        TrainConfig(**{name: value})


def test_the_least_image_size_is_that_of_inception_v3_alone() -> None:
    assert TrainConfig(backbone="MobileNetV3Small", image_size=64).image_size == 64
    with pytest.raises(ValueError, match="image_size must be at least 1, got 0"):
        TrainConfig(backbone="MobileNetV3Small", image_size=0)


@pytest.mark.parametrize("name", CHOICES)
def test_a_word_that_is_no_choice_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} is .*, got 'other'"):
        TrainConfig(**{name: "other"})
    for value in CHOICES[name]:
        assert getattr(TrainConfig(**{name: value}), name) == value


def test_the_help_says_what_each_setting_is_and_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for title in ("data:", "model:", "training:", "score:", "output:"):
        assert f" {title} " in shown
    for name, setting in SETTINGS.items():
        option = "--from" if name == "start" else f"--{name.replace('_', '-')}"
        assert f" {option} " in shown or f" {option}, " in shown  # Python 3.13 names the argument once: "--a, --b N"
        said = describe_setting(setting)
        assert "default:" in said, f"{name}: say its default in config.py"


def without_backend(program: str) -> None:
    """Run a program in a fresh process, which must not have imported a backend at its end."""
    program += "\nassert not {'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", f"import sys\n{program}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_backend_is_imported_to_check_settings_and_arguments() -> None:
    without_backend(
        "from attncap.training.config import TrainConfig\n"
        "from attncap.cli.main import main\n"
        "assert TrainConfig(hidden_units=7, epochs=3).model == 'attention'\n"
        "assert TrainConfig(model='transformer').dropout is None\n"
        "for wrong in (['--model', 'gru'], ['--warmup', '2'], ['--learning-rate', '-1'], ['--clip-norm', 'nan'],\n"
        "              ['--data', 'nowhere', '--epochs', '3'], ['--set', 'patience=0'], ['--set', 'hiden_units=3']):\n"
        "    assert main(['train', '--data', 'faces:9', '--run', 'no-run', *wrong]) == 2, wrong\n"
        "assert main(['train', '--run', 'no-run']) == 2\n"
        "assert main(['train', '--data', 'faces:9', '--run', 'no-run', '--resume']) == 2"
    )
