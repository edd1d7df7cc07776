"""Save and load captioners and classifiers: one `.keras` file each, checked before Keras reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from attncap._files import replacing
from attncap.models.captioner import Captioner
from attncap.models.file_checks import Refused, check_file, holds, reason_of
from attncap.models.registry import captioner_classes, captioner_name


def load_captioner(path: str | Path, custom_objects: Mapping[str, Any] | None = None) -> Captioner:
    """Load a captioner from a run folder or a `.keras` file: vocabulary, preprocessing, encoder and weights.

    Args:
        path: a `.keras` file, or a run folder, whose `best.keras` is taken.
        custom_objects: name -> class, for classes in the file that are neither of this package nor of plugins.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a captioner, damaged, of a newer Keras, or refused by the checks of `load_keras`.

    Example:
        >>> load_captioner("runs/demo/run").name
        'attention_captioner'
    """
    captioner_classes()  # registers them with Keras
    return load_keras(path, Captioner, "captioner", custom_objects)


def save_captioner(captioner: Captioner, path: str | Path) -> None:
    """Save a captioner for use, without the optimizer's state; see `save_keras`."""
    save_keras(captioner, path)


def save_keras(model: keras.Model, path: str | Path) -> None:
    """Write a model to a `.keras` file, whole or not at all, without the optimizer's state (half of its size)."""
    with replacing(path) as temporary:
        optimizer = getattr(model, "optimizer", None)  # a model that was not compiled has none
        if optimizer is None:
            model.save(temporary)
            return
        model.optimizer = None
        try:
            model.save(temporary)
        finally:
            model.optimizer = optimizer


def model_file(path: str | Path, what: str = "captioner") -> Path:
    """Return the `.keras` file of a run folder (`best.keras`), or the file itself.

    Raises:
        FileNotFoundError: no such file.
    """
    path = Path(path)
    file = path / "best.keras" if path.is_dir() else path
    if not file.is_file():
        begun = file.name == "best.keras" and (file.parent / "config.json").is_file()
        mend = "its training has not finished an epoch" if begun else "give a run folder or a .keras file"
        raise FileNotFoundError(f"{file}: no such {what}: {mend}")
    return file


def model_name(path: str | Path) -> str:
    """Return the registered name of the captioner in a `.keras` file or run folder, without loading it.

    Raises:
        FileNotFoundError, ValueError: as `load_captioner`.
    """
    captioner_classes()
    file = model_file(path)
    with _refusals_of(file, "captioner"):
        return captioner_name(check_file(file, Captioner, "captioner", {}))


@contextmanager
def _refusals_of(file: Path, what: str) -> Iterator[None]:
    try:
        yield
    except Refused as refusal:
        raise ValueError(f"{file}: {refusal}") from None
    except Exception as error:  # damaged archives, configurations and weights raise nearly anything
        reason = f"{reason_of(error)}): damaged, or of another version"
        raise ValueError(f"{file}: cannot be loaded as a {what} ({reason}") from error


def load_keras(path: str | Path, kind: type, what: str, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """Load a model of a kind in Keras's safe mode, after checks of the file.

    A file is refused if it has other members than Keras writes or is compressed in another way, or if it names other
    classes than those of this package, of plugins, of `custom_objects` and a few of Keras. A file is also refused if
    its model is larger than the weights in the file.

    Args:
        path: a `.keras` file, or a run folder, whose `best.keras` is taken.
        kind: the class that the model must be an instance of.
        what: the kind in words, for messages.
        custom_objects: name -> further class that the file may name.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, damaged, of a newer Keras, of another class, or refused by a check.
    """
    file = model_file(path, what)
    custom = dict(custom_objects or {})
    with _refusals_of(file, what):
        check_file(file, kind, what, custom)
        loaded = keras.saving.load_model(file, custom_objects=custom, compile=False, safe_mode=True)
    if not isinstance(loaded, kind):
        raise ValueError(f"{file}: {holds(type(loaded).__name__)}, not a {what}")
    return loaded
