"""`load_plugins`: Python files of one's own that register captioners, readers, metrics and so on."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path


def load_plugins(paths: Iterable[str | Path]) -> None:
    """Run Python files that register captioners (or readers, metrics and so on); each file once.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file does not end in .py, or raises an error while it is imported.
    """
    for path in map(Path, paths):
        if path.suffix != ".py":
            raise ValueError(f"{path}: a plugin is a Python file, ending in .py")
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such plugin file")
        digest = hashlib.blake2b(str(path.resolve()).encode(), digest_size=6).hexdigest()
        name = f"attncap_plugin_{path.stem}_{digest}"
        if name in sys.modules:
            continue
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None  # of a .py file there are both
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            raise ValueError(f"{path}: the plugin raises {type(error).__name__}: {error}") from error
