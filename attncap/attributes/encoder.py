"""`GridEncoder`: several layers of one pretrained network in one pass, each as a coarse grid, side by side."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from PIL import Image

from attncap.features.extractor import FeatureExtractor, best_dtype_policy
from attncap.features.preprocessing import PREPROCESSING_VERSION, preprocess

# Of aligned faces, fine parts (lips, lids) are in early layers and need a finer grid; hair and age are in late ones.
DEFAULT_LAYERS = ("mixed2@7", "mixed5@6", "mixed7@6", "mixed8@4")
FACES_LAYERS = ("mixed2@8",)  # the encoder of the drawn faces ends there
NAMED_WEIGHTS = ("imagenet", "faces", "random")


@keras.saving.register_keras_serializable("attncap")
class GridEncoder(keras.layers.Layer):
    """One vector a picture: the named layers of a network, each averaged over the cells of a coarse grid.

    One pass through the network gives all of them: three more layers cost next to nothing. It stands where a
    `FeatureExtractor` stands in a `FeatureStore`.

    Args:
        layers: names of layers, each with the side of its grid: "mixed7@6" is 6x6 averages of mixed7, "mixed8" is
            mixed8 as it is. None: `DEFAULT_LAYERS`, or `FACES_LAYERS` with the weights of the drawn faces, or the last
            layer of another backbone.
        weights: "imagenet" (downloaded by Keras), "faces" (ships with the package), "random", or a weights file.
        image_size: side of the input square; default 299 (150 for faces, 224 for another backbone).
        backbone: "InceptionV3", or the name of another model of `keras.applications`, such as "MobileNetV2".
        dtype: Keras dtype policy; None takes bfloat16 arithmetic where the processor has it, else float32.

    Call arguments:
        pixels: uint8 or float, shape (B, image_size, image_size, 3), 0 to 255.

    Returns:
        features: float32, shape (B, 1, 1, D): for each layer its cells row by row, channels innermost.

    Raises:
        ValueError: no such layer, grid or backbone; a weights file that does not fit or is damaged.
        FileNotFoundError: the weights file is not there.

    Example:
        >>> encoder = GridEncoder(["mixed7@4", "mixed8@4"], weights="inception_v3.weights.h5")
        >>> encoder.feature_shape
        (1, 1, 32768)
    """

    def __init__(
        self,
        layers: Sequence[str] | None = None,
        weights: str | Path = "imagenet",
        image_size: int | None = None,
        backbone: str = "InceptionV3",
        dtype: Any = None,
        **kwargs: Any,
    ):
        super().__init__(dtype=dtype or best_dtype_policy(), **kwargs)
        self.weights_source = str(weights)
        self.backbone = backbone
        inception = backbone == "InceptionV3"
        if layers is None and inception:
            layers = FACES_LAYERS if self.weights_source == "faces" else DEFAULT_LAYERS
        named = [_layer_and_grid(text) for text in layers or ()]
        if inception:
            self.extractor = _inception_to([name for name, _ in named], weights, image_size, self.dtype_policy)
            self.network, self.image_size = self.extractor.network, self.extractor.image_size
        else:
            self.image_size = image_size or 224
            self.network = _application(backbone, weights, self.image_size, [name for name, _ in named])
            named = named or [(self.network.layers[-1].name, None)]
        outputs = [self.network.get_layer(name).output for name, _ in named]
        # Kept out of Keras's sight: it shares every layer with `network`, which is what a saved model holds.
        object.__setattr__(self, "_outputs", keras.Model(self.network.input, outputs))
        self.network.trainable = False
        self.layers = tuple(name if grid is None else f"{name}@{grid}" for name, grid in named)
        self.grids: list[tuple[int, int, int]] = []
        self._pools: list[tuple[np.ndarray, np.ndarray] | None] = []
        for (name, grid), output in zip(named, outputs, strict=True):
            rows, cols, size = output.shape[1:]
            if grid is not None and not 1 <= grid <= min(rows, cols):
                raise ValueError(f"{name}@{grid}: a grid of 1 to {min(rows, cols)} expected: {name} has {rows}x{cols}")
            self.grids.append((grid or rows, grid or cols, size))
            self._pools.append(None if grid is None else (area_means(rows, grid), area_means(cols, grid)))
        self.feature_shape = (1, 1, sum(rows * cols * size for rows, cols, size in self.grids))
        self.built = True

    @property
    def layer(self) -> str:
        """All layers in one word, for the name of a store."""
        prefix = "" if self.backbone == "InceptionV3" else f"{self.backbone}-"
        return prefix + "+".join(self.layers)

    def call(self, pixels: Any) -> Any:
        outputs = self._outputs(self._scaled(pixels), training=False)
        pooled = []
        for output, pools in zip(outputs if isinstance(outputs, list) else [outputs], self._pools, strict=True):
            cells = ops.cast(output, "float32")
            if pools is not None:
                cells = ops.einsum("yr,brcd->bycd", pools[0], cells)  # (B, grid, cols, D)
                cells = ops.einsum("xc,bycd->byxd", pools[1], cells)  # (B, grid, grid, D)
            pooled.append(ops.reshape(cells, (-1, 1, 1, int(np.prod(cells.shape[1:])))))  # (B, 1, 1, cells * D)
        return ops.concatenate(pooled, axis=-1)

    def _scaled(self, pixels: Any) -> Any:
        pixels = ops.cast(pixels, "float32")
        if self.backbone == "InceptionV3":
            return pixels / 127.5 - 1.0
        return _preprocess_input(self.backbone)(pixels)

    def preprocess(self, picture: Image.Image) -> np.ndarray:
        """Return the picture as this network takes it: uint8, shape (image_size, image_size, 3)."""
        return preprocess(picture, self.image_size)

    def network_for_pixels(self) -> keras.Model:
        """Return a compiled model from uint8 pixels to features, for `predict_on_batch`."""
        pixels = keras.Input((self.image_size, self.image_size, 3), dtype="uint8")
        network = keras.Model(pixels, self(pixels))
        network.compile(jit_compile=False if keras.backend.backend() == "tensorflow" else "auto")
        return network

    def fingerprint(self) -> str:
        """Return a digest of everything that the features depend on."""
        digest = hashlib.blake2b(digest_size=12)
        described = (self.layer, self.image_size, self.dtype_policy.name, PREPROCESSING_VERSION)
        digest.update(repr(described).encode())
        for variable in self.network.weights:
            digest.update(np.ascontiguousarray(ops.convert_to_numpy(variable)).tobytes())
        return digest.hexdigest()

    def unfreeze(self, blocks: int) -> list[str]:
        """Let the convolutions of the last `blocks` blocks be trained; batch normalization keeps its statistics.

        Args:
            blocks: InceptionV3's are the layers up to and including a `mixedN`; 1 is the last one that is used.

        Returns:
            names: of the layers that are trained now.
        """
        ends = [at for at, layer in enumerate(self.network.layers) if re.fullmatch(r"mixed\d+", layer.name)]
        if not 1 <= blocks < len(ends):
            raise ValueError(f"fine-tuning of 1 to {max(0, len(ends) - 1)} blocks of {self.backbone}, got {blocks}")
        self.network.trainable = True
        names = []
        for at, layer in enumerate(self.network.layers):
            layer.trainable = at > ends[-1 - blocks] and isinstance(layer, keras.layers.Conv2D)
            if layer.trainable:
                names.append(layer.name)
        return names

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], *self.feature_shape)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        # Only the name of a weights file is kept: a saved model says nothing of its maker's disk.
        source = self.weights_source if self.weights_source in NAMED_WEIGHTS else Path(self.weights_source).name
        config.update(layers=list(self.layers), weights=source, image_size=self.image_size, backbone=self.backbone)
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> GridEncoder:
        # The weights come from the saved model itself: nothing is downloaded or opened here.
        config = dict(config)
        source = config.pop("weights")
        encoder = cls(weights="random", **config)
        encoder.weights_source = source
        return encoder


def area_means(length: int, cells: int) -> np.ndarray:
    """Return the matrix that averages `length` values over `cells` equal parts: float32, shape (cells, length).

    A value on the border of two parts belongs to each by its share, so nothing at the edge is dropped, and a mirrored
    picture has mirrored averages. Rows sum to 1.

    Example:
        >>> area_means(3, 2) * 3
        array([[2., 1., 0.],
               [0., 1., 2.]], dtype=float32)
    """
    edges = np.arange(cells + 1) * (length / cells)
    places = np.arange(length)
    overlap = np.minimum(edges[1:, None], places + 1) - np.maximum(edges[:-1, None], places)
    return (np.clip(overlap, 0, None) * (cells / length)).astype(np.float32)  # (cells, length)


def _layer_and_grid(text: str) -> tuple[str, int | None]:
    name, at, grid = text.strip().partition("@")
    if not name or (at and not grid.isdecimal()):
        raise ValueError(f"{text!r}: a layer, or a layer and the side of its grid such as mixed7@6, expected")
    return name, int(grid) if at else None


def _inception_to(names: list[str], weights: str | Path, image_size: int | None, dtype: Any) -> FeatureExtractor:
    for name in names:
        if not re.fullmatch(r"mixed([0-9]|10)", name):
            raise ValueError(f"InceptionV3 has no layer {name!r}: choose of mixed0 to mixed10")
    deepest = max(names, key=lambda name: int(name.removeprefix("mixed")))
    return FeatureExtractor(deepest, weights, image_size, pool=1, dtype=dtype)


def _application(backbone: str, weights: str | Path, image_size: int, names: list[str]) -> keras.Model:
    build = getattr(keras.applications, backbone, None)
    if not callable(build):
        known = [name for name in dir(keras.applications) if name[0].isupper()]
        raise ValueError(f"keras.applications has no model {backbone!r}: choose of {', '.join(known)}")
    source = str(weights)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")  # these are not tried in bfloat16
    try:
        shape = (image_size, image_size, 3)
        whole = build(include_top=False, weights="imagenet" if source == "imagenet" else None, input_shape=shape)
    finally:
        keras.config.set_dtype_policy(before)
    if source not in ("imagenet", "random"):
        if not Path(source).is_file():
            raise FileNotFoundError(f"{source}: no such weights file of {backbone}; other choices: imagenet, random")
        whole.load_weights(source)
    known = [layer.name for layer in whole.layers]
    for name in names:
        if name not in known:
            raise ValueError(f"{backbone} has no layer {name!r}: the last are {', '.join(known[-5:])}")
    last = max((known.index(name) for name in names), default=len(known) - 1)
    return keras.Model(whole.input, whole.layers[last].output, name=backbone.lower())


def _preprocess_input(backbone: str) -> Any:
    return sys.modules[getattr(keras.applications, backbone).__module__].preprocess_input
