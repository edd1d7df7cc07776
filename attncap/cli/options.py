"""Declare commands, and options that several commands have."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

from attncap.cli.outputs import OutputFigure, OutputFile, OutputFolder
from attncap.data.readers.registry import forms
from attncap.training.config import kinds_of

SPEC_HELP = f"{forms()}, or a folder whose format is guessed"
BOXES_HELP = (
    "entities:FOLDER_OR_ZIP (Flickr30k Entities), table:CSV (columns phrase, left, top, right, bottom as fractions, "
    "and image_id unless the boxes are those of every image), or faces (the drawn faces' own)"
)


def add_command(commands: Any, name: str, run: Any, notes: str = "") -> argparse.ArgumentParser:
    """Declare a command.

    Args:
        commands: where to add it, as `add_commands` gets it.
        name: of the command.
        run: its function, which takes the parsed options. Its docstring is the help text; the command line in its
            section "Example:" is printed below the options.
        notes: printed below the example.
    """
    description, _, example = (inspect.getdoc(run) or "").partition("\n\nExample:\n")
    what = description.partition("\n")[0].rstrip(".")
    parser = commands.add_parser(
        name,
        help=what[:1].lower() + what[1:].replace("%", "%%"),
        description=description,
        epilog=f"example:\n  {' '.join(example.split())}\n{notes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, usage_error=parser.error)
    parser.add_argument(
        "--plugin",
        action="append",
        dest="plugins",
        metavar="FILE",
        help="Python file to import first, which registers a captioner, a reader or the like of your own",
    )
    return parser


def group(parser: argparse.ArgumentParser, title: str) -> Any:
    """Return the group of options with this title, made where there is none."""
    known = next((known for known in parser._action_groups if known.title == title), None)
    return known or parser.add_argument_group(title)


def add_data(
    parser: argparse.ArgumentParser,
    *,
    what: str = "data set",
    option: str = "--data",
    forms: str = SPEC_HELP,
    required: bool = True,
    split: bool = True,
    seed: str | None = "seed of the splits",
    within: Any = None,
) -> None:
    """Declare `--data`, `--split` and `--seed`, which `data_of` reads.

    Args:
        parser: of the command.
        what: what the data set is for.
        option: name of the option, if not `--data`.
        forms: how the data set is written.
        required: whether `--data` must be given.
        split: whether the command takes a part of the data set.
        seed: what the seed is for; None: the command has no seed of its own.
        within: group of options of which one must be given, for `--data`.
    """
    data = group(parser, "data")
    (within or data).add_argument(option, required=required, metavar="SPEC", help=f"{what}: {forms}")
    if split:
        data.add_argument("--split", metavar="S", help=f"part of {option}: train, val (or dev) or test (default: all)")
    if seed is not None:
        data.add_argument("--seed", type=int, default=0, metavar="N", help=f"{seed} (default 0)")


def data_of(options: argparse.Namespace) -> Any:
    """Return the data set of `--data`, or the part of it that `--split` names."""
    from attncap.data.load import load

    data = load(options.data, seed=options.seed)
    part = getattr(options, "split", None)
    return data.split(part) if part else data


def add_images(parser: argparse.ArgumentParser, nargs: str = "+") -> None:
    """Declare the images that a command takes as its arguments."""
    parser.add_argument("images", nargs=nargs, metavar="IMAGE", help="image files, or folders of images")


def add_folder(where: Any, what: str, **settings: Any) -> None:
    """Declare `--images`, a folder or a list; `what` says what is done with its images."""
    help_text = f"{what}: a folder, or a text file with one path per line"
    where.add_argument("--images", metavar="FOLDER_OR_LIST", help=help_text, **settings)


def add_features(parser: argparse.ArgumentParser, default: str = "the cache") -> None:
    """Declare `--features`, the folder of feature stores; `default` says what is done without it."""
    help_text = f"folder of feature stores, shared by runs and commands (default: {default})"
    group(parser, "data").add_argument("--features", metavar="DIR", help=help_text)


def add_boxes(parser: argparse.ArgumentParser, what: str) -> None:
    """Declare `--boxes`; `what` says what they are for."""
    group(parser, "data").add_argument("--boxes", metavar="BOXES", help=f"{what}: {BOXES_HELP}")


def add_json(parser: argparse.ArgumentParser, what: str = "print JSON instead of a table") -> None:
    """Declare `--json`."""
    group(parser, "output").add_argument("--json", action="store_true", help=what)


def add_output(
    parser: argparse.ArgumentParser, metavar: str, what: str, *, option: str = "--out", required: bool = False
) -> None:
    """Declare a file to write, which `check_outputs` checks before the command runs; "PNG" stands for any figure."""
    kind = OutputFigure if metavar == "PNG" else OutputFile
    group(parser, "output").add_argument(option, required=required, type=kind, metavar=metavar, help=what)


def add_run_folder(parser: argparse.ArgumentParser) -> None:
    """Declare `--run` and `--resume` of a training."""
    output = group(parser, "output")
    help_text = "run folder, made by this command"
    output.add_argument("--run", required=True, dest="run_folder", type=OutputFolder, metavar="DIR", help=help_text)
    output.add_argument("--resume", action="store_true", help="continue from the last completed epoch of the run")


def add_set(parser: argparse.ArgumentParser, title: str, settings: str) -> None:
    """Declare `--set`, which `settings_from` reads; `settings` is the name of the dataclass."""
    help_text = f"any setting by its name in {settings}"
    group(parser, title).add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help=help_text)


def settings_from(options: argparse.Namespace, names: Iterable[str], settings: type) -> dict[str, Any]:
    """Return the settings that are given by options of these names or by `--set`, which wins."""
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    return given | dict(setting(text, settings) for text in options.set)


def setting(text: str, settings: type) -> tuple[str, Any]:
    """Read NAME=VALUE of `--set`; settings is a dataclass.

    Raises:
        ValueError: another form, an unknown name, or a value of another type.
    """
    name, equals, value = text.partition("=")
    names = [field.name for field in fields(settings)]
    if not equals or name not in names:
        raise ValueError(f"--set {text}: NAME=VALUE expected, NAME one of {', '.join(names)}")
    kind: Any = kinds_of(settings)[name][0]
    if kind is bool:
        if value.lower() not in ("true", "false"):
            raise ValueError(f"--set {text}: true or false expected")
        return name, value.lower() == "true"
    try:
        return name, kind(value) if kind in (int, float) else value
    except ValueError:
        raise ValueError(f"--set {text}: {kind.__name__} expected") from None


def add_run(parser: argparse.ArgumentParser) -> None:
    """Declare `--run`, which `captioner_of` reads."""
    group(parser, "model").add_argument(
        "--run",
        required=True,
        action="append",
        dest="runs",
        metavar="DIR",
        help="run folder or .keras file; given several times, the runs form an ensemble (mean of their probabilities)",
    )


def captioner_of(options: argparse.Namespace) -> Any:
    """Return the captioner of `--run`, or the ensemble of several."""
    if len(options.runs) == 1:
        from attncap.models.saving import load_captioner

        return load_captioner(options.runs[0])
    from attncap.models.ensemble import Ensemble

    return Ensemble(options.runs)


def add_classifier(
    parser: argparse.ArgumentParser, what: str = "run folder of attributes train, or .keras file"
) -> None:
    """Declare `--run` of a classifier of attributes."""
    group(parser, "model").add_argument("--run", required=True, dest="run_folder", metavar="DIR", help=what)


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """Declare the options that `decoding` reads."""
    options = group(parser, "decoding")
    options.add_argument(
        "--beam-width", type=beams, default=3, metavar="K", help="number of beams; 1 is greedy search (default 3)"
    )
    options.add_argument(
        "--length-penalty",
        type=finite,
        metavar="A",
        help="larger makes captions longer: beams are ranked by log-probability / length ** A (default: 0.7; 1.5 for "
        "captioners of lists)",
    )


def beams(text: str) -> int:
    """Read a number of beams, for argparse."""
    return _number(text, int, lambda value: value >= 1, "a whole number of at least 1")


def finite(text: str) -> float:
    """Read a finite number, for argparse."""
    return _number(text, float, math.isfinite, "a finite number")


def _number(text: str, kind: Any, allowed: Callable[[Any], bool], expected: str) -> Any:
    with contextlib.suppress(ValueError):
        value = kind(text)
        if allowed(value):
            return value
    raise argparse.ArgumentTypeError(f"{expected} expected, got {text!r}")


def decoding(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `add_decoding` as arguments of `Decoder`."""
    given = {"beam_width": options.beam_width, "length_penalty": options.length_penalty}
    return {name: value for name, value in given.items() if value is not None}


def add_consensus(parser: argparse.ArgumentParser) -> None:
    """Declare `--consensus` and `--neighbors`, which `decoder_of` reads."""
    options = group(parser, "decoding")
    options.add_argument(
        "--consensus",
        metavar="SPEC",
        help="minimum Bayes risk decoding: of the K beams (10 are good) return the one closest to 40 sampled captions; "
        "more varied captions, in about five times the time. SPEC is the data set of the training, from whose captions "
        "document frequencies are computed",
    )
    options.add_argument(
        "--neighbors",
        metavar="DB",
        help="with --consensus, also compare with the captions of the ten training images that look most alike. DB is "
        "an index made by attncap index build --split train --encoder LAYER, with layer and weights of the run",
    )


def decoder_of(options: argparse.Namespace, captioner: Any) -> Any:
    """Return the decoder that `add_decoding` and `add_consensus` ask for."""
    if options.consensus is None:
        if options.neighbors is not None:
            raise ValueError("--neighbors is for minimum Bayes risk decoding: add --consensus SPEC")
        from attncap.decoding.decoder import Decoder

        return Decoder(captioner, batch_size=32, **decoding(options))
    from attncap.data.load import load
    from attncap.decoding.mbr import ConsensusDecoder

    references = load(options.consensus).split("train").references()
    if not references:
        raise ValueError(f"--consensus {options.consensus}: has no captions of training images")
    neighbors = None if options.neighbors is None else _look_alikes(options.neighbors, captioner)
    return ConsensusDecoder(captioner, references, neighbors=neighbors, **decoding(options))


def _look_alikes(file: str, captioner: Any) -> Any:
    from attncap.retrieval.neighbor_references import LookAlikes, index_for

    with index_for(file, captioner) as index:
        return LookAlikes(index, captioner)
