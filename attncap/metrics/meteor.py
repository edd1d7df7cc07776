"""METEOR 1.5 by the Java program in pycocoevalcap, in a process that is stopped when it does not answer."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

# Seconds that METEOR may take: to load its tables, and for each image. It takes about 5 s and 0.01 s per image.
START_SECONDS, IMAGE_SECONDS = 120.0, 0.2


class MeteorError(RuntimeError):
    """METEOR cannot be computed here; the message says why and what to do."""


def meteor(
    references: Sequence[Sequence[str]], predictions: Sequence[str], seconds: float | None = None
) -> tuple[float, list[float]]:
    """Compute METEOR of a set of images and of each image.

    Args:
        references: for each of N images its tokenized references.
        predictions: N tokenized captions.
        seconds: when to give up; default START_SECONDS + N * IMAGE_SECONDS.

    Returns:
        score: of the set, in [0, 1]; it is not the mean of the images'.
        per_image: of each image.

    Raises:
        MeteorError: no Java or no pycocoevalcap, Java fails, or the time is up.

    Reference: Denkowski and Lavie 2014; pycocoevalcap's meteor.py, whose protocol this follows.
    """
    jar = _jar()
    limit = START_SECONDS + IMAGE_SECONDS * len(predictions) if seconds is None else seconds
    command = ["java", "-jar", "-Xmx2G", jar.name, "-", "-", "-stdio", "-l", "en", "-norm"]
    start = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command,
                cwd=jar.parent,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        except OSError as error:
            raise MeteorError(f"METEOR was not computed: Java cannot be started ({error}).") from error

        timer = threading.Timer(limit, _kill, [process])
        timer.start()
        try:
            return _talk(process, references, predictions)
        except (OSError, ValueError) as error:
            if time.monotonic() - start >= limit:
                why = f"Java gave no answer within {limit:.0f} s"
            else:
                _kill(process)
                why = f"Java ended without an answer ({_first_line(errors) or error})"
            raise MeteorError(f"METEOR was not computed: {why}. Check that `java -version` works.") from error
        finally:
            timer.cancel()
            _kill(process)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):  # what was not yet sent to a process that has ended
                        stream.close()
            process.wait()


def _jar() -> Path:
    found = importlib.util.find_spec("pycocoevalcap")
    if shutil.which("java") is None or found is None or not found.submodule_search_locations:
        raise MeteorError(
            "METEOR was not computed: it needs Java (8 or later, on the PATH) and `pip install pycocoevalcap`; "
            "no other METEOR gives the COCO tools' number."
        )
    jar = Path(next(iter(found.submodule_search_locations))) / "meteor" / "meteor-1.5.jar"
    if not jar.is_file():
        raise MeteorError(f"METEOR was not computed: pycocoevalcap has no {jar.name}; install it again.")
    return jar


def _talk(
    process: subprocess.Popen[bytes], references: Sequence[Sequence[str]], predictions: Sequence[str]
) -> tuple[float, list[float]]:
    statistics = []
    for captions, prediction in zip(references, predictions, strict=True):
        clean = prediction.replace("|||", "").replace("  ", " ")
        _send(process, " ||| ".join(["SCORE", *captions, clean]))
        statistics.append(_answer(process))
    _send(process, " ||| ".join(["EVAL", *statistics]))
    per_image = [float(_answer(process)) for _ in predictions]
    return float(_answer(process)), per_image


def _send(process: subprocess.Popen[bytes], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n".encode())
    process.stdin.flush()


def _answer(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise ValueError("no reason given")
    return line.decode(errors="replace").strip()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Stop the process and its children: Java started by a wrapper script would keep the pipes open."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def _first_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read(20_000).decode(errors="replace").strip().splitlines()
    # Java repeats the options that it takes from the environment before it says what is wrong.
    return next((line for line in lines if not line.startswith("Picked up")), "")[:200]
