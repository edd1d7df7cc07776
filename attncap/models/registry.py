"""Captioners by name: those of this folder, of installed packages and of plugin files."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from functools import cache
from typing import TypeVar

import keras

from attncap.models.captioner import Captioner, settings_of
from attncap.models.names import ENTRY_POINTS, REGISTERED, own_captioners, unknown_captioner
from attncap.plugins import import_entry_points

Kind = TypeVar("Kind", bound=type[Captioner])


def register_captioner(name: str) -> Callable[[Kind], Kind]:
    """Register a captioner class under the name that `attncap train --model` takes.

    A class that Keras does not know is registered with Keras too (package "attncap_plugin"), so that it can be saved.

    Args:
        name: lower-case letters, digits and hyphens.

    Raises:
        ValueError: another form of name, or a name that another class has.
        TypeError: the class is not a `Captioner`.

    Example:
        >>> @register_captioner("luong")
        ... class LuongCaptioner(AttendingCaptioner):
        ...     ...
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ValueError(f"the name of a captioner has lower-case letters, digits and hyphens, got {name!r}")

    def register(captioner_class: Kind) -> Kind:
        if not (isinstance(captioner_class, type) and issubclass(captioner_class, Captioner)):
            raise TypeError(f"{captioner_class!r} is not a subclass of attncap.models.captioner.Captioner")
        known = REGISTERED.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (
            captioner_class.__module__,
            captioner_class.__qualname__,
        ):
            raise ValueError(f"a captioner named {name!r} exists: {known.__module__}.{known.__qualname__}")
        if keras.saving.get_registered_name(captioner_class) == captioner_class.__name__:
            keras.saving.register_keras_serializable("attncap_plugin")(captioner_class)
        REGISTERED[name] = captioner_class
        return captioner_class

    return register


def captioner_classes() -> dict[str, type[Captioner]]:
    """Return name -> class of all captioners: of this folder, of entry points, and of loaded plugins."""
    _import_own()
    import_entry_points(ENTRY_POINTS)
    return dict(REGISTERED)


def captioner_class(name: str) -> type[Captioner]:
    """Return the captioner class with this name.

    Raises:
        ValueError: no such captioner.
    """
    classes = captioner_classes()
    if name not in classes:
        raise ValueError(unknown_captioner(name, classes))
    return classes[name]


def captioner_name(captioner_class: type) -> str:
    """Return the name under which a class is registered.

    Raises:
        ValueError: the class is not registered.
    """
    for name, registered in captioner_classes().items():
        if registered is captioner_class:
            return name
    raise ValueError(f"{captioner_class.__name__} has no name: decorate it with @register_captioner(NAME)")


def readers_of(setting: str) -> tuple[str, ...]:
    """Return the names of the captioners that have a setting; empty for a setting of no captioner."""
    return tuple(name for name, kind in captioner_classes().items() if setting in settings_of(kind))


@cache
def _import_own() -> None:
    for module in own_captioners().values():
        importlib.import_module(module)
