"""Import what registers captioners, readers, metrics and commands: modules of a folder, installed packages, files."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType


def import_modules(package: str) -> list[ModuleType]:
    """Import and return every module in the folder of a package."""
    folder = importlib.import_module(package).__path__
    return [importlib.import_module(f"{package}.{found.name}") for found in pkgutil.iter_modules(folder)]


@cache
def import_entry_points(group: str) -> None:
    """Import the modules that installed packages name under an entry point, once."""
    for entry in entry_points(group=group):
        entry.load()


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
