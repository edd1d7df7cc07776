"""Terminal input and output: control characters are escaped, streams may be closed, signals become exceptions."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from io import TextIOWrapper
from typing import Any

# Control characters of ASCII and Latin-1, and those that turn the direction of writing: in the name of a file they can
# hide text or command the terminal. What progress bars write passes: returns at the start, bold and colors, cursor up.
_UNSAFE = re.compile(r"\x1b\[(?:0|1|3[0-7])m|[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_BAR = re.compile(r"(?:\x1b\[A)+$|[\b\r]*")


class Stopped(BaseException):
    """SIGTERM or SIGHUP as an exception, so that unfinished work is cleaned up."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


class PlainStream:
    """A stream to a terminal that shows control characters as escapes."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text, its control characters as in `\\x1b`."""
        bar = _BAR.match(text)
        start = bar.end() if bar else 0
        self._stream.write(text[:start] + _UNSAFE.sub(_escaped, text[start:]))
        return len(text)


def _escaped(found: re.Match[str]) -> str:
    return found[0] if len(found[0]) > 1 else found[0].encode("unicode_escape").decode()


@contextlib.contextmanager
def plain_streams() -> Iterator[None]:
    """Let standard output and error show control characters as escapes."""
    _open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # do not stop at a caption that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    with contextlib.redirect_stdout(PlainStream(sys.stdout)), contextlib.redirect_stderr(PlainStream(sys.stderr)):
        yield


def _open_closed() -> None:
    """Give closed standard streams to the null device: the next file that is opened would take their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                os.fstat(number)
                continue  # another file has the number already
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


@contextlib.contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """Raise `Stopped` on SIGTERM and SIGHUP, where nobody else handles or ignores them."""

    def stop(number: int, frame: Any) -> None:
        raise Stopped(number)

    names = ("SIGTERM", "SIGHUP") if threading.current_thread() is threading.main_thread() else ()
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    mine = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in mine:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)
