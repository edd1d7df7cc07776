"""`attncap train`: settings from a recipe, from options, from `--set`; the later ones win."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

from attncap.cli.options import BOXES_HELP, SPEC_HELP, add_command, setting
from attncap.training.config import TrainConfig, kinds_of
from attncap.training.recipe import OF_COMMAND, read_recipe, recipe_names

# Settings of `train` that have an option of their own name; the others are set with --set NAME=VALUE.
TRAIN_OPTIONS = (
    "model",
    "objective",
    "weights",
    "layer",
    "image_size",
    "epochs",
    "seed",
    "tokenizer",
    "min_count",
    "learning_rate",
    "batch_size",
    "dtype",
)
OTHER_CHOICE = {"model": "adaptive-attention, transformer, show-and-tell", "tokenizer": "wordpiece"}


def add_commands(commands: Any) -> None:
    """Declare `train`."""
    train = add_command(
        commands,
        "train",
        _train,
        "train a captioner; a run folder holds all about it",
        "attncap train --data table:captions.csv:photographs --run runs/mine --layer mixed8",
    )
    train.add_argument("--data", metavar="SPEC", help=SPEC_HELP)
    train.add_argument(
        "--config",
        metavar="RECIPE",
        help=f"settings to begin with, which the other options change: {', '.join(recipe_names())}, or a TOML file",
    )
    train.add_argument(
        "--run", required=True, dest="run_folder", metavar="DIR", help="run folder, made by this command"
    )
    train.add_argument("--resume", action="store_true", help="go on from the last completed epoch of the run")
    train.add_argument("--features", metavar="DIR", help="folder of feature stores, shared by runs (default: cache)")
    train.add_argument("--tensorboard", action="store_true", help="also write TensorBoard logs into the run folder")
    train.add_argument("--boxes", metavar="BOXES", help=f"{BOXES_HELP}, for --set attention_supervision=1.0")
    defaults, kinds = TrainConfig(), kinds_of(TrainConfig)
    for name in TRAIN_OPTIONS:
        value = getattr(defaults, name)
        train.add_argument(
            f"--{name.replace('_', '-')}",
            type=kinds[name][0],
            metavar=name[0].upper(),
            help=f"default {'of the weights' if value is None else value}"
            + (f"; or {OTHER_CHOICE[name]}" if name in OTHER_CHOICE else ""),
        )
    train.add_argument(
        "--from",
        dest="start",
        metavar="RUN",
        help="run folder or .keras file to go on from; with --objective cider in place of the cross-entropy epochs",
    )
    add_sharing(train)
    others = ", ".join(field.name for field in fields(TrainConfig) if field.name not in (*TRAIN_OPTIONS, "start"))
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"any setting of TrainConfig: {others}",
    )


def add_sharing(parser: argparse.ArgumentParser) -> None:
    """Declare the options that `sharing` reads."""
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="share the training: on the TensorFlow backend among the devices of this machine, on JAX "
        "(KERAS_BACKEND=jax) among processes, each started with the same command and its own --process-id; without a "
        "coordinator, among this machine's devices",
    )
    parser.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="where process 0 listens (default: KERAS_DISTRIBUTION_JOB_ADDRESSES, or what Slurm and Open MPI set)",
    )
    parser.add_argument(
        "--processes", type=int, metavar="N", help="how many (default: KERAS_DISTRIBUTION_NUM_PROCESSES)"
    )
    parser.add_argument(
        "--process-id",
        type=int,
        metavar="I",
        help="which this is, from 0; process 0 writes the run folder (default: KERAS_DISTRIBUTION_PROCESS_ID)",
    )


def sharing(options: argparse.Namespace) -> AbstractContextManager[Any]:
    """Return what shares the training that the options of `add_sharing` tell of, or a context of None."""
    of_processes = {
        "coordinator": options.coordinator,
        "processes": options.processes,
        "process-id": options.process_id,
    }
    if not options.distributed:
        given = [name for name, value in of_processes.items() if value is not None]
        if given:
            raise ValueError(f"--{given[0]} is of shared training: add --distributed")
        return nullcontext()
    from attncap.training.distributed.distribution import shared_training

    return shared_training(*of_processes.values())


def _train(options: argparse.Namespace) -> None:
    # First of all: processes have to meet before the backend computes anything.
    with sharing(options) as distribution:
        _train_with(options, distribution)


def _train_with(options: argparse.Namespace, distribution: Any) -> None:
    from attncap.data.load import load
    from attncap.training.train import train

    settings = read_recipe(options.config) if options.config else {}
    of_command = {name: getattr(options, name) or settings.get(name) for name in OF_COMMAND}
    settings = {name: value for name, value in settings.items() if name not in OF_COMMAND}
    settings |= {name: getattr(options, name) for name in TRAIN_OPTIONS if getattr(options, name) is not None}
    settings |= {"start": options.start} if options.start else {}
    settings |= dict(setting(text, TrainConfig()) for text in options.set)
    try:
        config = TrainConfig.from_dict(settings)
        config.refuse_unread(settings)
    except ValueError as error:
        where = f" (settings of {options.config} and of options)" if options.config else ""
        raise ValueError(f"{error}{where}") from None
    if of_command["data"] is None:
        raise ValueError("--data is needed: the pictures and captions to train on")
    data = load(of_command["data"], seed=config.seed)
    print(data.summary())
    train(
        data,
        options.run_folder,
        config,
        resume=options.resume,
        features=of_command["features"],
        tensorboard=options.tensorboard,
        boxes=of_command["boxes"],
        distribution=distribution,
    )
    if distribution is None or distribution.process == 0:
        print(f"the best captioner is {Path(options.run_folder) / 'best.keras'}")
