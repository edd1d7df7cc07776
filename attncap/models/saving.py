"""`load_keras`: a `.keras` file of ours, or a refusal by name. Nothing that a stranger wrote into it is run.

Keras's safe mode refuses code that is stored in a file, and names of modules outside Keras. Here a file is looked at
before Keras reads it, and only objects of this package, of the caller's own registered classes, and a few of Keras that
hold settings alone may be named in it: a layer of Keras can read other files, or ask for any amount of memory.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}
MAX_CONFIG_BYTES = 1 << 26  # a vocabulary of a million words has about 20 MB
SETTINGS_ALONE = ("dtype_policies", "initializers", "losses", "metrics", "optimizers", "regularizers")
FREE_BYTES, BYTES_TO_A_BYTE = 1 << 26, 64  # what weights may take in memory, by their size in the file


def load_keras(path: str | Path, kind: type, what: str) -> Any:
    """Load a model of a kind, in Keras's safe mode, after a look at what the file says of itself.

    Args:
        path: a `.keras` file, or a run folder, whose `best.keras` is taken.
        kind: the class that it must be of.
        what: the kind in words, for messages.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, damaged, of a newer Keras, of another class, or with what is not ours inside.

    Example:
        >>> load_keras("runs/demo/run", Captioner, "captioner").name
        'attention_captioner'
    """
    path = Path(path)
    file = path / "best.keras" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such {what}: a run folder or a .keras file expected")
    try:
        _look_at(file, kind, what)
        loaded = keras.saving.load_model(file, compile=False, safe_mode=True)
    except _Refused as refusal:
        raise ValueError(f"{file}: {refusal}") from None
    except Exception as error:  # whatever the archive, the configuration and the weights raise
        cause = error.__cause__ or error  # where Keras gives advice alone, what went wrong is in the cause
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0][:200]
        raise ValueError(f"{file}: cannot be loaded as a {what} ({reason}): damaged, or of another version") from error
    if not isinstance(loaded, kind):
        raise ValueError(f"{file}: {_holds(type(loaded).__name__)}, not a {what}")
    return loaded


class _Refused(Exception):
    """What is wrong with a file, without its name."""


def _look_at(file: Path, kind: type, what: str) -> None:
    if file.suffix != ".keras":  # Keras takes other endings for other formats, which have no safe mode
        raise _Refused(f"cannot be loaded as a {what} (a file that ends in .keras expected)")
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if set(names) != MEMBERS or len(names) != len(MEMBERS):
            found = ", ".join(repr(name[:60]) for name in names[:6])
            raise _Refused(f"cannot be loaded as a {what} (it holds {found}; {', '.join(sorted(MEMBERS))} expected)")
        for name in ("metadata.json", "config.json"):
            if archive.getinfo(name).file_size > MAX_CONFIG_BYTES:
                raise _Refused(f"cannot be loaded as a {what} (its {name} has more than {MAX_CONFIG_BYTES:,} bytes)")
        weights = archive.getinfo("model.weights.h5").compress_size
        metadata, config = (json.loads(archive.read(name)) for name in ("metadata.json", "config.json"))
    _check_version(metadata)
    root = config.get("registered_name") or config.get("class_name")
    known = keras.saving.get_registered_object(root)
    if known is None or not issubclass(known, kind):
        raise _Refused(f"{_holds(str(config.get('class_name'))[:60])}, not a {what}")
    for item in _objects(config["config"]):
        if not _is_ours(item):
            named = f"{item.get('module')}.{item.get('class_name')}"
            raise _Refused(f"cannot be loaded as a {what} (it names {named[:90]}, which has no place in one)")
    sizes = sorted(_whole_numbers(config["config"]))[-2:]
    if len(sizes) == 2 and 4 * sizes[0] * sizes[1] > FREE_BYTES + BYTES_TO_A_BYTE * weights:
        raise _Refused(
            f"cannot be loaded as a {what} (sizes of {sizes[0]:,} and {sizes[1]:,} in it do not go with {weights:,} "
            "bytes of weights)"
        )


def _holds(name: str) -> str:
    return f"holds {'an' if name[:1] in 'AEIOU' else 'a'} {name}"


def _check_version(metadata: dict[str, Any]) -> None:
    written = str(metadata.get("keras_version", ""))[:40]
    major = written.partition(".")[0]
    if major.isascii() and major.isdigit() and int(major) > int(keras.__version__.partition(".")[0]):
        raise _Refused(f"written by Keras {written}, this is Keras {keras.__version__}: install that version")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object that Keras would make of a configuration."""
    if isinstance(value, dict):
        if "class_name" in value:
            yield value
        for inner in value.values():
            yield from _objects(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _objects(inner)


def _is_ours(item: dict[str, Any]) -> bool:
    name, module = item["class_name"], item.get("module")
    registered = item.get("registered_name")
    if registered and keras.saving.get_registered_object(registered) is not None:
        return True
    if module == "keras" or name == "__tuple__":
        return name in ("DTypePolicy", "__tuple__")
    return isinstance(module, str) and module.removeprefix("keras.").split(".")[0] in SETTINGS_ALONE


def _whole_numbers(value: Any) -> Iterator[int]:
    if isinstance(value, int) and not isinstance(value, bool):
        yield abs(value)
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _whole_numbers(inner)
