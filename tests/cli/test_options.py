"""Commands and options: the help text of a command, options that several commands have, settings that win."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from attncap.cli import options as cli
from attncap.cli.outputs import OutputFile, report_rejects


def draw(options: argparse.Namespace) -> None:
    """Draw 100% of the faces.

    The folder is made.

    Example:
        attncap draw
            --out faces
    """


@pytest.fixture
def commands() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    parser = argparse.ArgumentParser(prog="attncap")
    return parser, cli.add_command(parser.add_subparsers(), "draw", draw, "\nsee also: demo")


def test_the_docstring_of_a_command_is_its_help(
    commands: tuple[argparse.ArgumentParser, argparse.ArgumentParser],
) -> None:
    family, command = commands
    assert "draw 100% of the faces\n" in family.format_help() and "The folder" not in family.format_help()
    text = command.format_help()
    assert "\nDraw 100% of the faces.\n\nThe folder is made.\n" in text
    assert text.endswith("example:\n  attncap draw --out faces\n\nsee also: demo\n")


def test_options_are_declared_in_groups_and_read_by_their_own_names(
    commands: tuple[argparse.ArgumentParser, argparse.ArgumentParser],
) -> None:
    _, command = commands
    cli.add_data(command, option="--references", what="captions", forms="JSON", seed=None)
    cli.add_features(command)
    cli.add_output(command, "PNG", "figure to write", option="--plot")
    cli.add_run_folder(command)
    titles = [group.title for group in command._action_groups]
    assert titles.count("data") == titles.count("output") == 1
    options = command.parse_args(["--references", "r.json", "--plot", "p.png", "--run", "runs/a"])
    assert (options.references, options.split, options.features, options.resume) == ("r.json", None, None, False)
    assert isinstance(options.plot, OutputFile) and options.run_folder == "runs/a" and not hasattr(options, "seed")


def test_set_wins_over_an_option_and_what_is_not_given_is_left_out() -> None:
    @dataclass
    class Settings:
        epochs: int = 1
        dropout: float = 0.5

    options = argparse.Namespace(epochs=3, dropout=None, set=["epochs=4"])
    assert cli.settings_from(options, ("epochs", "dropout"), Settings) == {"epochs": 4}
    with pytest.raises(ValueError, match="dropout=much: float expected"):
        cli.settings_from(argparse.Namespace(set=["dropout=much"]), (), Settings)


def test_rejects_are_listed_beside_the_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, listed = str(tmp_path / "p.json"), tmp_path / "p.rejects.csv"
    rejects = pd.DataFrame({"path": ["a.png", "b.png"], "reason": ["empty", "damaged"]})
    report_rejects(out, rejects)
    assert capsys.readouterr().err == f"2 images cannot be read (first a.png: empty): see {listed}\n"
    assert pd.read_csv(listed)["path"].tolist() == ["a.png", "b.png"]
    report_rejects(out, rejects.iloc[:0], "have no caption")
    assert capsys.readouterr().err == "" and not listed.exists()
