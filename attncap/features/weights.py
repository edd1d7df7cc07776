"""Load weights of encoders: from Keras, from a file or from the package, each checked for damage."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import resources
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from keras import ops

from attncap._messages import first_line

NAMED = ("imagenet", "faces", "random")
FACES_WEIGHTS = "faces_mixed2.weights.h5"
MOST_ZEROS = 0.02  # share of a kernel that may be exactly zero before the file counts as damaged


@contextmanager
def global_dtype(policy: Any) -> Iterator[None]:
    """Build networks of `keras.applications` in a dtype policy: they only read the global one."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def with_imagenet(build: Callable[[], keras.Model], file: str) -> keras.Model:
    """Build a network that downloads its weights; an error says where to put the file by hand.

    Args:
        build: makes the network.
        file: name of the weights file in Keras's cache.

    Raises:
        ValueError: a size that the network does not take.
        RuntimeError: the weights cannot be downloaded.
    """
    try:
        return build()
    except ValueError:
        raise  # a size that the network does not take: Keras's message says which
    except Exception as error:  # networks raise various errors, with one remedy
        place = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models" / file
        raise RuntimeError(
            f"ImageNet weights cannot be downloaded ({first_line(error)}). Put that file at {place}, or name "
            "a weights file (weights='path/to/inception_v3.weights.h5'), or use 'faces' (drawn faces) or 'random'"
        ) from None


def load_weights(source: str, whole: keras.Model, cut: keras.Model, name: str) -> None:
    """Load weights into a network from "faces" or a file; "imagenet" and "random" are there already.

    Args:
        source: a name of `NAMED`, or a file.
        whole: the network to its end.
        cut: the network up to the layer that is used; a file may hold either.
        name: of the network, for messages.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file of another network, truncated or damaged.
    """
    if source in ("random", "imagenet"):
        return
    faces = resources.as_file(resources.files("attncap.features") / FACES_WEIGHTS)
    with faces if source == "faces" else nullcontext(Path(source)) as path:
        _load_file(path, whole, cut, name)


def _load_file(path: Path, whole: keras.Model, cut: keras.Model, name: str) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights file; other choices: {', '.join(NAMED)}")
    try:
        model = whole if _count_convolutions(path) == _convolutions(whole) else cut
        model.load_weights(path)
    except Exception as error:
        raise ValueError(
            f"{path}: not the weights of {name}(include_top=False), or truncated ({first_line(error)})"
        ) from error
    for variable in cut.weights:
        values = ops.convert_to_numpy(variable)
        if not np.isfinite(values).all():
            raise ValueError(f"{path}: {variable.path} holds values that are not finite: the file is damaged")
        if variable.name == "kernel" and (values == 0).mean() > MOST_ZEROS:
            share = (values == 0).mean()
            raise ValueError(
                f"{path}: {share:.0%} of {variable.path} is exactly zero: the file is damaged there; "
                "stop at an earlier layer, or take another file"
            )


def _convolutions(model: keras.Model) -> int:
    return sum(isinstance(layer, keras.layers.Conv2D) for layer in model.layers)


def _count_convolutions(path: Path) -> int:
    with h5py.File(path, "r") as file:
        groups = file.get("layers", file)  # Keras 3's layout, or the legacy one
        return sum(name.startswith("conv2d") for name in groups)
