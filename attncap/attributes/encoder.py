"""`GridEncoder`: features from several layers of a pretrained network, each averaged over the cells of a grid."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from attncap.features.backbones import application_name, as_grid
from attncap.features.extractor import Encoder, FeatureExtractor, best_dtype_policy
from attncap.features.preprocessing import PREPROCESSING_VERSION, scaled

# For aligned faces: early layers with a finer grid detect lips and eyelids, late layers hair and age.
DEFAULT_LAYERS = ("mixed2@7", "mixed5@6", "mixed7@6", "mixed8@4")
FACES_LAYERS = ("mixed2@8",)  # the last layer of the encoder that was trained on the drawn faces


@keras.saving.register_keras_serializable("attncap")
class GridEncoder(Encoder):
    """Encode an image as one vector: several layers of a network, each averaged over the cells of a coarse grid.

    One pass through the network computes all layers, so that more layers add almost no cost. The network is the same
    as in `FeatureExtractor`.

    Args:
        layers: names of layers, with the side of the grid after "@". "mixed7@6" averages mixed7 over a grid of 6x6
            cells; "mixed8" keeps all cells of mixed8. None: `DEFAULT_LAYERS` for InceptionV3, `FACES_LAYERS` if the
            weights are "faces", or the last layer of another backbone.
        weights: "imagenet" (downloaded by Keras), "faces" (included in the package), "random", or a weights file.
        image_size: side of the input square in pixels. None: 299 (150 for "faces"), or the default of the backbone.
        backbone: "InceptionV3", or another backbone, as in `FeatureExtractor`.
        scaling: scaling of the pixels for another backbone, as in `FeatureExtractor`.
        dtype: Keras dtype policy. None: bfloat16 arithmetic if the processor supports it, else float32. A backbone
            other than InceptionV3 always computes in float32.

    Call arguments:
        pixels: uint8 or float, shape (B, image_size, image_size, 3), 0 to 255.

    Returns:
        features: float32, shape (B, 1, 1, D). The layers follow each other; each has its cells row by row, and for
            each cell its channels.

    Raises:
        ValueError: a layer, grid or backbone does not exist; a weights file is damaged or does not fit the network.
        FileNotFoundError: the weights file does not exist.

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
        backbone: str | keras.Model | dict[str, Any] = "InceptionV3",
        dtype: Any = None,
        *,
        scaling: Any = None,
        **kwargs: Any,
    ):
        super().__init__(dtype=dtype or best_dtype_policy(), **kwargs)
        self.weights_source = str(weights)
        found = application_name(backbone) if isinstance(backbone, str) else None
        inception = found == "InceptionV3"  # `application_name` accepts several spellings
        if layers is None and inception:
            layers = FACES_LAYERS if self.weights_source == "faces" else DEFAULT_LAYERS
        named = [_layer_and_grid(text) for text in layers or ()]
        if inception:
            whole = FeatureExtractor(_deepest_block(named), weights, image_size, dtype=self.dtype_policy)
            self.backbone, self.network = "InceptionV3", whole.network
            self.extractor = whole  # saved models store the network under this name
        else:  # other backbones were not tested in bfloat16
            whole = FeatureExtractor(None, weights, image_size, dtype="float32", backbone=backbone, scaling=scaling)
            self.backbone = str(backbone) if found else whole.backbone
            self.weights_source = whole.weights_source
            self.network = _cut_after(whole, [name for name, _ in named])
            named = named or [(self.network.layers[-1].name, None)]
        self.scaling, self.image_size = whole.scaling, whole.image_size
        self._description = None if found else json.dumps(whole.description)  # JSON: Keras would track a dictionary
        outputs = [as_grid(self.network.get_layer(name).output) for name, _ in named]
        # Set without Keras's tracking: this model shares all its layers with `network`, which is already saved.
        object.__setattr__(self, "_outputs", keras.Model(self.network.input, outputs))
        self.network.trainable = False
        self.layers = tuple(name if grid is None else f"{name}@{grid}" for name, grid in named)
        self.grids: list[tuple[int, int, int]] = []
        self._pools: list[tuple[np.ndarray, np.ndarray] | None] = []
        for (name, grid), output in zip(named, outputs, strict=True):
            if len(output.shape) != 4:
                shape = tuple(output.shape)
                raise ValueError(f"{name}: a grid (B, rows, cols, D) expected, got shape {shape}: name another layer")
            rows, cols, size = output.shape[1:]
            if grid is not None and not 1 <= grid <= min(rows, cols):
                raise ValueError(f"{name}@{grid}: a grid of 1 to {min(rows, cols)} expected: {name} has {rows}x{cols}")
            self.grids.append((grid or rows, grid or cols, size))
            self._pools.append(None if grid is None else (area_means(rows, grid), area_means(cols, grid)))
        self.feature_shape = (1, 1, sum(rows * cols * size for rows, cols, size in self.grids))
        self.built = True

    @property
    def layer(self) -> str:
        """The names of all layers, joined. Used in the name of a feature store."""
        prefix = "" if self.backbone == "InceptionV3" else f"{self.backbone}-"
        return prefix + "+".join(self.layers)

    def call(self, pixels: Any) -> Any:
        outputs = self._outputs(scaled(pixels, self.scaling), training=False)
        pooled = []
        for output, pools in zip(outputs if isinstance(outputs, list) else [outputs], self._pools, strict=True):
            cells = ops.cast(output, "float32")
            if pools is not None:
                cells = ops.einsum("yr,brcd->bycd", pools[0], cells)  # (B, grid, cols, D)
                cells = ops.einsum("xc,bycd->byxd", pools[1], cells)  # (B, grid, grid, D)
            pooled.append(ops.reshape(cells, (-1, 1, 1, int(np.prod(cells.shape[1:])))))  # (B, 1, 1, cells * D)
        return ops.concatenate(pooled, axis=-1)

    def described(self) -> tuple[Any, ...]:
        described: tuple[Any, ...] = (self.layer, self.image_size, self.dtype_policy.name, PREPROCESSING_VERSION)
        return described if self._description is None else (*described, self.scaling)

    def unfreeze(self, blocks: int) -> list[str]:
        """Make the convolutions of the last `blocks` blocks trainable. Batch normalization keeps its statistics.

        Args:
            blocks: number of blocks. A block of InceptionV3 ends with a `mixedN` layer.

        Returns:
            names: names of the layers that are now trainable.

        Raises:
            ValueError: the network does not have so many blocks that can be fine-tuned. Only InceptionV3 has any.
        """
        ends = [at for at, layer in enumerate(self.network.layers) if re.fullmatch(r"mixed\d+", layer.name)]
        if not 1 <= blocks < len(ends):
            raise ValueError(f"blocks: 1 to {max(0, len(ends) - 1)} of {self.backbone} can be fine-tuned, got {blocks}")
        self.network.trainable = True
        names = []
        for at, layer in enumerate(self.network.layers):
            layer.trainable = at > ends[-1 - blocks] and isinstance(layer, keras.layers.Conv2D)
            if layer.trainable:
                names.append(layer.name)
        return names

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "layers": list(self.layers), "backbone": self.backbone}
        if self._description is not None:  # save the full description: a preset may be unavailable at loading
            config |= {"backbone": json.loads(self._description), "scaling": self.scaling}
        return config


def area_means(length: int, cells: int) -> np.ndarray:
    """Return the matrix that averages `length` values over `cells` equal parts: float32, shape (cells, length).

    A value that overlaps two parts is divided between them in proportion to the overlap. The averages of a mirrored
    image are therefore the mirrored averages. Each row sums to 1.

    Example:
        >>> area_means(3, 2) * 3
        array([[2., 1., 0.],
               [0., 1., 2.]], dtype=float32)
    """
    edges = np.arange(cells + 1) * (length / cells)
    places = np.arange(length)
    overlap = np.minimum(edges[1:, None], places + 1) - np.maximum(edges[:-1, None], places)
    return (np.clip(overlap, 0, None) * (cells / length)).astype(np.float32)  # (cells, length)


def split_grids(features: Any, grids: Sequence[Sequence[int]]) -> list[Any]:
    """Split flat features into the cells of each grid.

    Args:
        features: shape (B, size of all grids together).
        grids: (rows, cols, D) of each grid.

    Returns:
        parts: one array or tensor per grid, shape (B, rows * cols, D).
    """
    reshape = np.reshape if isinstance(features, np.ndarray) else ops.reshape
    parts, start = [], 0
    for rows, cols, size in grids:
        end = start + rows * cols * size
        parts.append(reshape(features[:, start:end], (-1, rows * cols, size)))
        start = end
    return parts


def last_layer_means(features: Any, grids: Sequence[Sequence[int]]) -> np.ndarray:
    """Average the features over the cells of the last grid: float32, shape (N, D of that grid).

    Args:
        features: shape (N, ...), as `GridEncoder` returns them.
        grids: grids of the encoder, see `GridEncoder.grids`.
    """
    flat = np.asarray(features, np.float32).reshape(len(features), -1)  # (N, D of all grids)
    return split_grids(flat, grids)[-1].mean(axis=1)  # (N, D)


def _layer_and_grid(text: str) -> tuple[str, int | None]:
    name, at, grid = text.strip().partition("@")
    if not name or (at and not grid.isdecimal()):
        raise ValueError(f"{text!r}: a layer, or a layer and the side of its grid such as mixed7@6, expected")
    return name, int(grid) if at else None


def _deepest_block(named: Sequence[tuple[str, int | None]]) -> str:
    for name, _ in named:
        if not re.fullmatch(r"mixed([0-9]|10)", name):
            raise ValueError(f"InceptionV3 has no layer {name!r}: choose one of mixed0 to mixed10")
    return max((name for name, _ in named), key=lambda name: int(name.removeprefix("mixed")))


def _cut_after(whole: FeatureExtractor, names: Sequence[str]) -> keras.Model:
    """Cut the network after the last of the named layers. Without names, return the whole network."""
    network = whole.network
    known = [layer.name for layer in network.layers]
    for name in names:
        if name not in known:
            raise ValueError(f"{whole.backbone} has no layer {name!r}: the last are {', '.join(known[-5:])}")
    last = max(map(known.index, names), default=-1)
    return keras.Model(network.input, network.layers[last].output, name=whole.backbone.lower())
