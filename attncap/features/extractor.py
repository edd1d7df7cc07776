"""`FeatureExtractor`: picture in, InceptionV3 features out; one preprocessing for training and inference."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pandas as pd
from keras import ops
from PIL import Image

from attncap.features.batchnorm_folding import folded
from attncap.features.receptive_fields import places

PREPROCESSING_VERSION = 1  # part of every feature store's key: raise it when `preprocess` changes
FACES_WEIGHTS = "faces_mixed2.weights.h5"
# For each kind of weights: the layer cut at and the picture size. For faces the earliest block: its regions see little
# beyond themselves, so that a map has to be where the thing is (at `mixed2`, two cells away will do as well).
DEFAULTS = {"imagenet": ("mixed10", 299), "faces": ("mixed0", 150)}


def preprocess(picture: Image.Image, image_size: int) -> np.ndarray:
    """Turn an RGB picture into the network's input: the whole picture, squashed to a square.

    Squashing, not cropping, keeps every region of the picture on the attention map, and the map lies back over the
    picture by stretching. Scaling to [-1, 1] happens inside the extractor.

    Args:
        picture: PIL image in mode RGB, from `open_image`.
        image_size: side of the square, pixels.

    Returns:
        pixels: uint8, shape (image_size, image_size, 3).
    """
    square = picture.resize((image_size, image_size), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(square, np.uint8)


@cache
def best_dtype_policy() -> str:
    """Return "mixed_bfloat16" where the processor multiplies bfloat16 natively, else "float32"."""
    if keras.backend.backend() != "tensorflow" or platform.system() != "Linux":
        return "float32"
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "float32"
    return "mixed_bfloat16" if "avx512_bf16" in flags or "amx_bf16" in flags else "float32"


@keras.saving.register_keras_serializable("attncap")
class FeatureExtractor(keras.layers.Layer):
    """InceptionV3 up to a named layer, as a grid of region features.

    Args:
        layer: name of the InceptionV3 layer to stop at, `mixed0` to `mixed10`; default `mixed10` for imagenet and for
            files, `mixed0` for faces.
        weights: "imagenet" (downloaded by Keras), "faces" (ships with the package, for the drawn faces), "random", or
            the path of a Keras weights file of `InceptionV3(include_top=False)`.
        image_size: side of the input square, at least 75; default 299 (150 for faces).
        pool: average pooling of pool x pool cells after the layer; default 1.
        dtype: Keras dtype policy; None takes bfloat16 arithmetic where the processor has it, else float32.

    Call arguments:
        pixels: uint8 or float, shape (B, image_size, image_size, 3), 0 to 255.

    Returns:
        features: shape (B, rows, cols, D), `self.feature_shape` without the batch.

    Attributes:
        grid_box: left, top, right, bottom, as fractions of the image, of the square that the cells cover: each cell's
            center is the center of its receptive field. InceptionV3's first convolutions have no padding, so the grid
            does not reach the edges of the image: at `mixed8` and 299 pixels, cells of 32 pixels cover pixels 21.5 to
            277.5. A map stretched over the whole image is off by a sixth of the distance from the center.
        receptive_field: side, in pixels of the input square, of what can change a cell at all;
            what changes it noticeably is a good deal smaller (Luo et al. 2016).

    Raises:
        ValueError: no such layer; a weights file that does not fit, is truncated or damaged.
        FileNotFoundError: the weights file is not there.
        RuntimeError: imagenet weights cannot be downloaded.

    Example:
        >>> extractor = FeatureExtractor(layer="mixed8", weights="inception_v3.weights.h5")
        >>> extractor(extractor.preprocess(open_image("me.jpg"))[None]).shape
        (1, 8, 8, 1280)

    Reference: Szegedy et al. 2016, "Rethinking the Inception architecture".
    """

    def __init__(
        self,
        layer: str | None = None,
        weights: str | Path = "imagenet",
        image_size: int | None = None,
        pool: int = 1,
        dtype: Any = None,
        **kwargs: Any,
    ):
        super().__init__(dtype=dtype or best_dtype_policy(), **kwargs)
        defaults = DEFAULTS.get(str(weights), DEFAULTS["imagenet"])
        self.layer = layer or defaults[0]
        self.image_size = defaults[1] if image_size is None else image_size
        self.pool = pool
        self.weights_source = str(weights)
        with _global_dtype(self.dtype_policy):
            whole = _inception(self.image_size, "imagenet" if self.weights_source == "imagenet" else None)
            # Keras numbers the other layers anew in each network of a process: a saved model would not find them again.
            _check_layer(self.layer, [item.name for item in whole.layers])
            self.network = keras.Model(whole.input, whole.get_layer(self.layer).output, name="inception_v3")
        _load_weights(self.weights_source, whole, self.network)
        self.network.trainable = False
        place = places(self.network)[self.network.output.name]
        rows, cols, size = self.network.output.shape[1:]
        self.feature_shape: tuple[int, int, int] = (rows // self.pool, cols // self.pool, size)
        self.grid_box = place.box(self.feature_shape[0], self.image_size, self.pool)
        self.receptive_field = int(place.field + (self.pool - 1) * place.step)
        self.built = True

    def call(self, pixels: Any) -> Any:
        return self._features(pixels, self.network)

    def _features(self, pixels: Any, network: keras.Model) -> Any:
        scaled = ops.cast(pixels, "float32") / 127.5 - 1.0  # InceptionV3 was trained on [-1, 1]
        output = network(scaled, training=False)
        return ops.average_pool(output, self.pool, self.pool) if self.pool > 1 else output

    def preprocess(self, picture: Image.Image) -> np.ndarray:
        """Return `preprocess(picture, self.image_size)`: uint8, shape (image_size, image_size, 3)."""
        return preprocess(picture, self.image_size)

    def network_for_pixels(self) -> keras.Model:
        """Return a compiled model from uint8 pixels to features, for `predict_on_batch`; of the weights of now."""
        pixels = keras.Input((self.image_size, self.image_size, 3), dtype="uint8")
        features = self._features(pixels, folded(self.network)) if self._folds else self(pixels)
        network = keras.Model(pixels, features)
        # On a processor XLA's convolutions are slower than oneDNN's; on other backends Keras decides.
        network.compile(jit_compile=False if keras.backend.backend() == "tensorflow" else "auto")
        return network

    @property
    def _folds(self) -> bool:
        # Not the drawn faces' network: at their size it is quick, and what was published of them stays to the digit.
        return self.weights_source != "faces"

    def fingerprint(self) -> str:
        """Return a digest of everything that the features depend on: layer, sizes, arithmetic, and every weight."""
        digest = hashlib.blake2b(digest_size=12)
        described: tuple[Any, ...] = (self.layer, self.image_size, self.pool, self.dtype_policy.name)
        described += (PREPROCESSING_VERSION, "folded") if self._folds else (PREPROCESSING_VERSION,)
        digest.update(repr(described).encode())
        for variable in self.network.weights:
            digest.update(np.ascontiguousarray(ops.convert_to_numpy(variable)).tobytes())
        return digest.hexdigest()

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], *self.feature_shape)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        # Only the name of a weights file is kept: a saved model says nothing of its maker's disk.
        source = self.weights_source if self.weights_source in _NAMED else Path(self.weights_source).name
        config.update(layer=self.layer, weights=source, image_size=self.image_size, pool=self.pool)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FeatureExtractor:
        # The weights come from the saved model itself: nothing is downloaded or opened here.
        config = dict(config)
        source = config.pop("weights")
        extractor = cls(weights="random", **config)
        extractor.weights_source = source
        return extractor


_NAMED = ("imagenet", "faces", "random")


def _check_layer(layer: str, names: list[str]) -> None:
    known = [name for name in names if re.fullmatch(r"mixed\d+", name)]
    if "+" in layer:
        raise ValueError(
            f"layer {layer!r}: two grids at once were removed. Use an attncap of commit 998f5d3, or train a run of one "
            "layer"
        )
    if layer not in known:
        raise ValueError(f"InceptionV3 has no layer {layer!r}: choose one of {', '.join(known)}")


@contextmanager
def _global_dtype(policy: Any) -> Iterator[None]:
    # keras.applications takes its dtype from the global policy alone.
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _load_weights(source: str, whole: keras.Model, cut: keras.Model) -> None:
    if source in ("random", "imagenet"):
        return
    if source == "faces":
        with resources.as_file(resources.files("attncap.features") / FACES_WEIGHTS) as path:
            _load_file(path, whole, cut)
    else:
        _load_file(Path(source), whole, cut)


def _inception(image_size: int, weights: str | None) -> keras.Model:
    try:
        return keras.applications.InceptionV3(
            include_top=False, weights=weights, input_shape=(image_size, image_size, 3)
        )
    except ValueError:
        raise  # a size that InceptionV3 does not take: Keras's message says which
    except Exception as error:  # whatever the network raises: the mend is the same
        name = "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
        place = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models" / name
        raise RuntimeError(
            f"ImageNet weights cannot be downloaded ({str(error).splitlines()[0]}). Put that file at {place}, or name "
            "a weights file (weights='path/to/inception_v3.weights.h5'), or use 'faces' (drawn faces) or 'random'"
        ) from None


def _load_file(path: Path, whole: keras.Model, cut: keras.Model) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights file; other choices: {', '.join(_NAMED)}")
    try:
        model = whole if _count_convolutions(path) == _convolutions(whole) else cut
        model.load_weights(path)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{path}: not the weights of InceptionV3(include_top=False), or truncated ({reason})"
        ) from error
    for variable in cut.weights:
        values = ops.convert_to_numpy(variable)
        if not np.isfinite(values).all():
            raise ValueError(f"{path}: {variable.path} holds values that are not finite: the file is damaged")
        if variable.name == "kernel" and (values == 0).mean() > 0.02:
            share = (values == 0).mean()
            raise ValueError(
                f"{path}: {share:.0%} of {variable.path} is exactly zero: the file is damaged there; "
                "stop at an earlier layer, or take another file"
            )


def layer_table(image_size: int = 299) -> pd.DataFrame:
    """List the layers that `FeatureExtractor` can stop at, and what a region is there.

    Args:
        image_size: side of the input square, at least 75; default InceptionV3's own.

    Returns:
        layers: DataFrame, a row a layer, first to last: layer; rows, cols, size (D); step and receptive_field, pixels
            of the input square; kilobytes, of the grid in half precision (1 KB = 1,024 bytes).

    Raises:
        ValueError: a size that InceptionV3 does not take.

    Example:
        >>> layer_table(299).iloc[-1].tolist()
        ['mixed10', 8, 8, 2048, 32, 1311, 256.0]
    """
    network = _inception(image_size, None)
    found = places(network)
    rows = []
    for layer in network.layers:
        if re.fullmatch(r"mixed\d+", layer.name):
            place, shape = found[layer.output.name], tuple(layer.output.shape[1:])
            rows.append((layer.name, *shape, int(place.step), int(place.field), 2 * math.prod(shape) / 1024))
    columns = ["layer", "rows", "cols", "size", "step", "receptive_field", "kilobytes"]
    return pd.DataFrame(rows, columns=columns)


def _convolutions(model: keras.Model) -> int:
    return sum(isinstance(layer, keras.layers.Conv2D) for layer in model.layers)


def _count_convolutions(path: Path) -> int:
    with h5py.File(path, "r") as file:
        groups = file.get("layers", file)  # Keras 3's layout, or the legacy one
        return sum(name.startswith("conv2d") for name in groups)
