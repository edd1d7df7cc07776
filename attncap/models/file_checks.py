"""Check a `.keras` file before Keras reads it.

Keras's safe mode refuses code stored in a file. The checks here also refuse classes that have no place in a model of
this package (a Keras layer can read other files) and sizes that the weights in the file do not have.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras

from attncap._messages import first_line, quoted
from attncap.features.backbones import nested, objects_in

MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}
MAX_CONFIG_BYTES = 1 << 26  # a vocabulary of a million words takes about 20 MB
FREE_BYTES = 1 << 20  # largest difference between the weights of a file and those of its model
# Two sizes of a configuration are refused, before anything is built, if a matrix of them would need more bytes.
FREE_MATRIX_BYTES, MATRIX_BYTES_PER_STORED_BYTE = 1 << 26, 64
# What a file may name beside classes of this package: settings, and the layers that image encoders are made of.
KERAS_SETTINGS = ("dtype_policies", "initializers", "losses", "metrics", "optimizers", "regularizers")
KERAS_LAYERS = frozenset(
    (
        *("Activation", "Add", "AveragePooling2D", "BatchNormalization", "Concatenate", "Conv2D", "Dense"),
        *("DepthwiseConv2D", "Dropout", "Flatten", "Functional", "GlobalAveragePooling2D", "GlobalMaxPooling2D"),
        *("InputLayer", "LayerNormalization", "MaxPooling2D", "MultiHeadAttention", "Multiply", "Normalization"),
        *("ReLU", "Rescaling", "Reshape", "SeparableConv2D", "Sequential", "ZeroPadding2D"),
    )
)


class Refused(Exception):
    """Why a file is refused, without its name."""


def reason_of(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return first_line(error.__cause__ or error)  # Keras's own message only gives advice; the cause is the error


def holds(name: str) -> str:
    """Return "holds a NAME"."""
    return f"holds {'an' if name[:1] in 'AEIOU' else 'a'} {name}"


def check_file(file: Path, kind: type, what: str, custom: dict[str, Any]) -> type:
    """Return the class of the model in a file; raise `Refused` for a file that must not be loaded."""
    cannot = f"cannot be loaded as a {what}"
    if file.suffix != ".keras":  # Keras takes other endings for other formats, which have no safe mode
        raise Refused(f"{cannot} (a file that ends in .keras expected)")
    with zipfile.ZipFile(file) as archive:
        _check_members(archive, cannot)
        metadata, config = (json.loads(archive.read(name)) for name in ("metadata.json", "config.json"))
        _check_version(metadata)
        root = _root_class(config, kind, what, custom)
        settings = _with_networks(config["config"])
        for item in objects_in(config["config"]):
            if not _is_allowed(item, custom):
                named = f"{item.get('module')}.{item.get('class_name')}"
                raise Refused(f"{cannot} (it names {named[:90]}, which has no place in one); {MEND}")
        with h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as weights:
            stored, count = _stored_weights(weights, archive.getinfo("model.weights.h5").file_size, cannot)
    size = file.stat().st_size
    sizes = sorted(_whole_numbers(settings))[-2:]
    if len(sizes) == 2 and 4 * sizes[0] * sizes[1] > FREE_MATRIX_BYTES + MATRIX_BYTES_PER_STORED_BYTE * size:
        raise Refused(
            f"{cannot} (sizes of {sizes[0]:,} and {sizes[1]:,} in it do not go with {size:,} bytes of weights)"
        )
    for name, layers in _layer_counts(root, settings):
        if layers > count:
            raise Refused(f"{cannot} ({name} of {layers:,} do not go with {count:,} arrays of weights)")
    _check_size(config, stored, custom, cannot)
    return root


MEND = "import the module that defines the class, or pass custom_objects={name: class}"


def _check_members(archive: zipfile.ZipFile, cannot: str) -> None:
    names = archive.namelist()
    if set(names) != MEMBERS or len(names) != len(MEMBERS):
        found = ", ".join(quoted(name) for name in names[:6])
        raise Refused(f"{cannot} (it holds {found}; {', '.join(sorted(MEMBERS))} expected)")
    for name in ("metadata.json", "config.json"):
        member = archive.getinfo(name)
        if member.file_size > MAX_CONFIG_BYTES:
            raise Refused(f"{cannot} (its {name} has more than {MAX_CONFIG_BYTES:,} bytes)")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # bz2 unpacks without a limit
            raise Refused(f"{cannot} (its {name} is compressed by a method that Keras does not use)")
    if archive.getinfo("model.weights.h5").compress_type != zipfile.ZIP_STORED:
        raise Refused(f"{cannot} (its weights are compressed; Keras stores them uncompressed)")


def _check_version(metadata: dict[str, Any]) -> None:
    written = str(metadata.get("keras_version", ""))[:40]
    major = written.partition(".")[0]
    if major.isascii() and major.isdigit() and int(major) > int(keras.__version__.partition(".")[0]):
        raise Refused(f"written by Keras {written}, this is Keras {keras.__version__}: install that version")


def _root_class(config: dict[str, Any], kind: type, what: str, custom: dict[str, Any]) -> type:
    name, registered = config.get("class_name"), config.get("registered_name")
    known = _resolved(registered or name, custom) or _resolved(name, custom)
    if known is None and registered and ">" in str(registered) and not str(registered).startswith("attncap>"):
        raise Refused(f"holds a {str(registered)[:60]}, a class that is not known here: {MEND}, or use --plugin FILE")
    if not (isinstance(known, type) and issubclass(known, kind)):
        raise Refused(f"{holds(str(name)[:60])}, not a {what}")
    return known


def _resolved(name: Any, custom: dict[str, Any]) -> Any:
    return None if not isinstance(name, str) else custom.get(name) or keras.saving.get_registered_object(name)


def _with_networks(value: Any) -> Any:
    """Return a configuration with the networks of encoders, which are JSON texts in it, as objects."""
    if isinstance(value, dict):
        return {
            name: json.loads(inner) if name == "network" and isinstance(inner, str) else _with_networks(inner)
            for name, inner in value.items()
        }
    return [_with_networks(inner) for inner in value] if isinstance(value, list) else value


def _layer_counts(root: type, settings: dict[str, Any]) -> Iterator[tuple[str, int]]:
    # Building takes time for every layer, also for layers without weights, of which a network has about as many.
    for name in getattr(root, "layer_counts", ()):
        yield name, _number_of(settings.get(name))
    yield "layers", sum(1 for item in objects_in(settings) if item.get("module") == "keras.layers") // 4 - 25
    encoder = settings.get("encoder")
    if isinstance(encoder, dict) and isinstance(encoder.get("config"), dict):
        backbone = encoder["config"].get("backbone")
        inner = backbone.get("settings") if isinstance(backbone, dict) else None
        for name, value in inner.items() if isinstance(inner, dict) else ():
            if any(word in name for word in ("layers", "blocks", "depth", "repeats", "stages")):
                yield name, sum(map(_number_of, value)) if isinstance(value, list) else _number_of(value)


def _number_of(value: Any) -> int:
    return len(value) if isinstance(value, list) else value if isinstance(value, int) else 0


def _is_allowed(item: dict[str, Any], custom: dict[str, Any]) -> bool:
    name, module, registered = item["class_name"], item.get("module"), item.get("registered_name")
    # Keras looks up both names among registered classes, and other packages register hundreds.
    found = [known for key in (name, registered) if (known := _resolved(key, custom)) is not None]
    if found:
        return all(_is_ours(known) or known in custom.values() for known in found)
    if name == "__tuple__":
        return True
    if not isinstance(module, str) or not isinstance(name, str) or module.partition(".")[0] != "keras":
        return False
    if module.removeprefix("keras.").split(".")[0] in KERAS_SETTINGS:
        return True
    return name == "DTypePolicy" or (module in ("keras", "keras.layers", "keras.models") and name in KERAS_LAYERS)


def _is_ours(known: Any) -> bool:
    """Whether a class belongs to this package, or extends one that does."""
    return isinstance(known, type) and any(base.__module__.partition(".")[0] == "attncap" for base in known.__mro__)


def _whole_numbers(settings: Any) -> Iterator[int]:
    for name, value in nested(settings):
        if type(value) is int and name != "shared_object_id":  # Keras's number of an object, an address in memory
            yield abs(value)


def _stored_weights(weights: h5py.File, file_size: int, cannot: str) -> tuple[int, int]:
    """Return how many numbers and how many arrays a weights file holds; refuse links and arrays that are not in it."""
    numbers, arrays, bytes_ = 0, 0, 0
    groups = [weights]
    while groups:
        group = groups.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise Refused(f"{cannot} (its weights link to another place)")
            item = group[name]
            if isinstance(item, h5py.Group):
                groups.append(item)
                continue
            if item.external or item.is_virtual or item.dtype.kind not in "biufV":
                raise Refused(f"{cannot} (an array of its weights is stored elsewhere, or is not of numbers)")
            numbers, arrays, bytes_ = numbers + math.prod(item.shape), arrays + 1, bytes_ + item.nbytes
            if bytes_ > file_size or arrays > file_size:  # arrays that unpack to more than the file, or a cycle
                raise Refused(f"{cannot} (its weights say that they take more than the {file_size:,} bytes there are)")
    return numbers, arrays


def _check_size(config: dict[str, Any], stored: int, custom: dict[str, Any], cannot: str) -> None:
    # Inside the scope, Keras makes variables without values: the model is built, counted and dropped. An encoder with a
    # name in keras.applications has the size that its name says and takes seconds to build, so it is left out.
    inside = dict(config["config"])
    if _is_named(inside.get("encoder")):
        inside["encoder"] = None
    try:
        with keras.StatelessScope(initialize_variables=False):
            model = keras.saving.deserialize_keras_object(
                {**config, "config": inside, "compile_config": None}, custom_objects=custom, safe_mode=True
            )
        needed = sum(math.prod(variable.shape) for variable in model.variables)
    finally:
        _forget_uninitialized()
    if 4 * needed > 4 * stored + FREE_BYTES:
        raise Refused(
            f"{cannot} (its sizes need {needed:,} numbers, which do not go with the {stored:,} of its weights)"
        )


def _is_named(encoder: Any) -> bool:
    """Whether an encoder is named, so that its file does not say how large it is."""
    settings = encoder.get("config") if isinstance(encoder, dict) else None
    if not isinstance(settings, dict):
        return False
    backbone = settings.get("backbone")
    of_name = backbone is None or (isinstance(backbone, dict) and backbone.get("kind") == "applications")
    return of_name and all(item.get("class_name") == "DTypePolicy" for item in objects_in(settings))


def _forget_uninitialized() -> None:
    # Keras would give every variable of the dropped model a value at the end of the next scope; it has no public way
    # to leave that out.
    from keras.src.backend.common import global_state

    global_state.set_global_attribute("uninitialized_variables", [])
