"""Hide TensorFlow's start-up messages; all other output still appears."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

TALKATIVE = {"tensorflow", "tensorflow_text", "keras", "keras_nlp", "keras_hub"}
# Messages about build and hardware that every start prints, below the level of an error.
_NOISE = re.compile(rb"WARNING: All log messages before absl|[IW]\d{4} \d\d:|To enable the following instructions:")


def quiet_start() -> None:
    """Hide start-up messages of TensorFlow in this process, from now on.

    TensorFlow's own level is set to fatal unless the environment names one, because it logs missing hardware as errors;
    what goes wrong in a computation is raised as an exception all the same. Does nothing when called again.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if not any(isinstance(finder, _QuietFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _QuietFinder())


class _QuietFinder(MetaPathFinder):
    """Import hook that loads a package with its start-up messages removed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in TALKATIVE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _QuietLoader(spec.loader)
        return spec


class _QuietLoader(Loader):
    def __init__(self, loader: Any):
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        with _without_noise():
            self._loader.exec_module(module)


@contextmanager
def _without_noise() -> Iterator[None]:
    """Collect what is written to the process's standard error, and write it there afterwards without the noise."""
    try:
        sys.stderr.flush()
        terminal = os.dup(2)
    except (AttributeError, OSError, ValueError):  # standard error is closed: there is nothing to keep quiet
        yield
        return
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            written.seek(0)
            rest = b"".join(line for line in written if not _NOISE.match(line))
            while rest:
                rest = rest[os.write(2, rest) :]
