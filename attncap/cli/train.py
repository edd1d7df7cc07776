"""`attncap train`: settings from a recipe, from options, from `--set`; the later ones win."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

from attncap.cli import options as cli
from attncap.cli.outside_features import add_features_file
from attncap.training.config import TrainConfig, describe_setting, kinds_of
from attncap.training.recipe import OF_COMMAND, read_recipe, recipe_names
from attncap.training.run_folder import check_free

GROUPS = {  # title of a group of options -> what it is about
    "data": "What is trained on, and how images and texts are read.",
    "model": "The captioner.",
    "training": "How it is trained. Defaults that follow from the data are printed with their reasons.",
    "score": "Training on the score itself, with --objective cider.",
    "output": "Where results go, and how to continue.",
}
HIDDEN_NAMES = {"batch_size": ("--pictures",)}  # option names of earlier versions
METAVARS = {bool: "true|false", int: "N", float: "X"}  # by the type of a setting


def add_commands(commands: Any) -> None:
    """Declare `train`."""
    train = cli.add_command(commands, "train", _train)
    train.usage = "attncap train --data SPEC --run DIR [OPTION ...]"
    groups = {name: train.add_argument_group(name, what) for name, what in GROUPS.items()}
    cli.add_data(train, required=False, split=False, seed=None)
    cli.add_features(train)
    add_features_file(train, "with boxes and a mask for regions; --resume reads the same file")
    cli.add_boxes(train, "boxes for --attention-supervision 1.0")
    cli.add_run_folder(train)
    groups["output"].add_argument("--tensorboard", action="store_true", help="write TensorBoard logs as well")
    groups["training"].add_argument(
        "--config",
        metavar="RECIPE",
        help=f"settings to begin with, which the other options change: {', '.join(recipe_names())}, or a TOML file",
    )
    kinds = kinds_of(TrainConfig)
    for field in fields(TrainConfig):
        _add_setting(groups[field.metadata["group"]], field, kinds[field.name][0])
    add_sharing(train)
    cli.add_set(train, "training", "TrainConfig")


def _add_setting(group: Any, field: Any, kind: Any) -> None:
    name = "--from" if field.name == "start" else f"--{field.name.replace('_', '-')}"
    group.add_argument(
        name,
        *HIDDEN_NAMES.get(field.name, ()),
        dest=field.name,
        type=_truth if kind is bool else kind,
        metavar="RUN" if field.name == "start" else METAVARS.get(kind, "NAME"),
        help=describe_setting(field).replace("%", "%%"),
    )


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"true or false expected, got {text!r}")
    return text.lower() == "true"


def add_sharing(parser: argparse.ArgumentParser) -> None:
    """Declare the options that `sharing` reads."""
    group = parser.add_argument_group("distributed training")
    group.add_argument(
        "--distributed",
        action="store_true",
        help="train on several devices: on the TensorFlow backend those of this machine, on JAX (KERAS_BACKEND=jax) "
        "those of several processes, each started with the same command and its own --process-id",
    )
    group.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="where process 0 listens (default: KERAS_DISTRIBUTION_JOB_ADDRESSES, or what Slurm and Open MPI set)",
    )
    help_text = "how many (default: KERAS_DISTRIBUTION_NUM_PROCESSES)"
    group.add_argument("--processes", type=int, metavar="N", help=help_text)
    help_text = "which this is, from 0; process 0 writes the run folder (default: KERAS_DISTRIBUTION_PROCESS_ID)"
    group.add_argument("--process-id", type=int, metavar="I", help=help_text)


def sharing(options: argparse.Namespace) -> AbstractContextManager[Any]:
    """Return the distributed training that the options of `add_sharing` ask for, or a context of None."""
    of_processes = {name: getattr(options, name) for name in ("coordinator", "processes", "process_id")}
    if options.distributed:
        from attncap.training.distributed.distribution import shared_training

        return shared_training(*of_processes.values())
    for name, value in of_processes.items():
        if value is not None:
            raise ValueError(f"--{name.replace('_', '-')} requires --distributed")
    return nullcontext()


def _train(options: argparse.Namespace) -> None:
    """Train a captioner; a run folder holds all about it.

    Example:
        attncap train --data table:captions.csv:photographs --run runs/mine --layer mixed8
    """
    # First of all: processes have to meet before the backend computes anything.
    with sharing(options) as distribution:
        _train_with(options, distribution)


def _train_with(options: argparse.Namespace, distribution: Any) -> None:
    from attncap.data.load import load

    settings = read_recipe(options.config) if options.config else {}
    of_command = {name: getattr(options, name) or settings.get(name) for name in OF_COMMAND}
    settings = {name: value for name, value in settings.items() if name not in OF_COMMAND}
    settings |= cli.settings_from(options, (field.name for field in fields(TrainConfig)), TrainConfig)
    if of_command["data"] is None:
        raise ValueError("--data is needed: the images and captions to train on")
    try:
        config = TrainConfig.from_dict(settings)
        config.refuse_unread(settings)
    except ValueError as error:
        where = f" (settings of {options.config} and of options)" if options.config else ""
        raise ValueError(f"{error}{where}") from None
    if of_command["features_file"] is not None and of_command["features"] is not None:
        raise ValueError("--features-file and --features: give one of them, features are read or computed")
    if of_command["features_file"] is not None and not Path(of_command["features_file"]).is_file():
        raise FileNotFoundError(f"--features-file {of_command['features_file']}: no such file")
    if distribution is None:
        check_free(options.run_folder, options.resume)
    data = load(of_command["data"], seed=config.seed)
    print(data.summary())
    from attncap.training.train import train  # TensorFlow takes seconds: whatever can be refused was refused before

    train(
        data,
        options.run_folder,
        config,
        resume=options.resume,
        features=of_command["features_file"] or of_command["features"],
        tensorboard=options.tensorboard,
        boxes=of_command["boxes"],
        distribution=distribution,
    )
    if distribution is None or distribution.process == 0:
        print(f"the best captioner is {Path(options.run_folder) / 'best.keras'}")
