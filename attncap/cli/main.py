"""The command line: find the commands in this folder, run one, and print errors in one line.

A command is a module of this folder with a function `add_commands(commands)`, which declares one or more commands with
`attncap.cli.options.add_command`. Adding a file adds a command. Modules import heavy parts inside the functions that
run, so that `attncap --help` and wrong arguments are answered before TensorFlow loads.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import attncap
from attncap._quiet import quiet_start
from attncap.cli.outputs import check_outputs
from attncap.cli.terminal import Stopped, plain_streams, signals_as_exceptions
from attncap.plugins import import_modules, load_plugins


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status: 0; 2 after an error that the user can correct; 130 when interrupted; 143 or 129 after SIGTERM
        or SIGHUP; 141 when the reader of a pipe is gone.
    """
    with plain_streams(), signals_as_exceptions():
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> int:
    parsed, unknown = _parser().parse_known_args(arguments)
    if unknown:  # told by the parser of the command, whose usage lists its options
        parsed.usage_error(f"unrecognized arguments: {' '.join(unknown)}")
    quiet_start()
    try:
        if getattr(parsed, "plugins", None):
            load_plugins(parsed.plugins)
        check_outputs(parsed)
        parsed.run(parsed)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that no later flush fails
        return 141
    except (ValueError, OSError, RuntimeError, FloatingPointError, MemoryError) as error:
        _say(f"attncap {parsed.command}: {_one_line(error)}")
        return 2
    except KeyboardInterrupt:
        _say(f"attncap {parsed.command}: interrupted")
        return 130
    except Stopped as stopped:
        _say(f"attncap {parsed.command}: stopped by {stopped}")
        return stopped.status
    return 0


def _say(message: str) -> None:
    """Write a line to standard error; progress bars that are still open there end before it."""
    from tqdm import tqdm

    for bar in list(getattr(tqdm, "_instances", ())):
        bar.close()
    print(message, file=sys.stderr)


def _one_line(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="attncap", description="Image captions, with a map of where the model looked for every word."
    )
    parser.add_argument("--version", action="version", version=f"attncap {attncap.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in import_modules("attncap.cli"):
        if hasattr(module, "add_commands"):
            module.add_commands(commands)
    return parser
