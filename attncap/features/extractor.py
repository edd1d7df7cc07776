"""`FeatureExtractor`: from an image to a grid of region features, with one preprocessing for training and inference."""

from __future__ import annotations

import hashlib
import json
import platform
from functools import cache
from pathlib import Path
from typing import Any, Self

import keras
import numpy as np
from keras import ops
from PIL import Image

from attncap.features.backbones import (
    Backbone,
    application_name,
    as_grid,
    cut_at,
    find_backbone,
    grid_of,
    of_description,
)
from attncap.features.batchnorm_folding import folded
from attncap.features.inception import DEFAULTS, NAME, check_layer, inception
from attncap.features.preprocessing import (
    PREPROCESSING_VERSION,
    Scaling,
    check_image_size,
    check_pixels,
    check_scaling,
    preprocess,
    scaled,
)
from attncap.features.receptive_fields import GridBox
from attncap.features.weights import NAMED, global_dtype, load_weights


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


class Encoder(keras.layers.Layer):
    """Base class of encoders, the networks that turn the pixels of an image into features.

    The protocol of an encoder, used by captioners, stores, attributes and retrieval: `preprocess(image)` gives the
    pixels of an image, `network_for_pixels()` a compiled network from a batch of them to features; `feature_shape`,
    `grid_box` and `image_size` say what these are; `layer` and `fingerprint()` name them on disk.

    A subclass sets the attributes below, `network` a model of scaled pixels, and defines `call` and `described`.
    """

    network: keras.Model
    image_size: int
    weights_source: str
    feature_shape: tuple[int, int, int]

    def __call__(self, pixels: Any, *args: Any, **kwargs: Any) -> Any:
        check_pixels(pixels, self.image_size)
        return super().__call__(pixels, *args, **kwargs)

    def preprocess(self, image: Image.Image) -> np.ndarray:
        """Return `preprocess(image, self.image_size)`: uint8, shape (image_size, image_size, 3)."""
        return preprocess(image, self.image_size)

    def network_for_pixels(self) -> keras.Model:
        """Return a compiled model from uint8 pixels to features, for `predict_on_batch`, with the current weights."""
        pixels = keras.Input((self.image_size, self.image_size, 3), dtype="uint8")
        network = keras.Model(pixels, self.features_for_inference(pixels))
        # On a CPU the convolutions of XLA are slower than those of oneDNN; for other backends Keras decides.
        network.compile(jit_compile=False if keras.backend.backend() == "tensorflow" else "auto")
        return network

    def features_for_inference(self, pixels: Any) -> Any:
        """Return the features of pixels; a subclass may compute them in a faster way than `call`."""
        return self(pixels)

    def described(self) -> tuple[Any, ...]:
        """Return everything that the features depend on, beside the weights: layer, sizes, arithmetic."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """Return a digest of everything that the features depend on: layer, sizes, arithmetic, and every weight."""
        return weights_digest(self.network, repr(self.described()).encode())

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], *self.feature_shape)

    def get_config(self) -> dict[str, Any]:
        # Only the name of a weights file is kept, so that a saved model contains no paths of another machine.
        source = self.weights_source if self.weights_source in NAMED else Path(self.weights_source).name
        return {**super().get_config(), "weights": source, "image_size": self.image_size}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        # The weights come from the saved model itself: nothing is downloaded or opened here.
        encoder = cls(**{**config, "weights": "random"})
        encoder.weights_source = config["weights"]
        return encoder


def weights_digest(network: keras.Model, beginning: bytes = b"", dtype: Any = None) -> str:
    """Return a digest of `beginning` and all weights of a network, as they are or in another dtype."""
    digest = hashlib.blake2b(beginning, digest_size=12)
    for variable in network.weights:
        digest.update(np.ascontiguousarray(ops.convert_to_numpy(variable), dtype).tobytes())
    return digest.hexdigest()


@keras.saving.register_keras_serializable("attncap")
class FeatureExtractor(Encoder):
    """A network of images up to a named layer, as a grid of region features; an `Encoder`.

    Args:
        layer: name of the layer to stop at. Of InceptionV3 `mixed0` to `mixed10`; default `mixed10` for imagenet and
            for files, `mixed0` for faces. Of another backbone any layer with a grid or with tokens; default its end.
        weights: "imagenet" (downloaded by Keras), "faces" (ships with the package, for the drawn faces, InceptionV3
            only), "random", or the path of a Keras weights file of the backbone without its classifier.
        image_size: side of the input square; default 299 for InceptionV3 (150 for faces), else the backbone's.
        pool: average pooling of pool x pool cells after the layer; default 1.
        dtype: Keras dtype policy; None takes, for InceptionV3, bfloat16 arithmetic where the processor has it, else
            float32.
        backbone: "inception_v3"; a name of `keras.applications`, such as "resnet50"; a preset of keras-hub, such as
            "vit_base_patch16_224_imagenet"; or a `keras.Model` of images, with the weights that it has.
        scaling: how pixels of 0 to 255 are scaled for the backbone: a name of `preprocessing.SCALINGS`, or
            (scale, offset), a number or one per channel each, for pixels * scale + offset. Default the backbone's own:
            Keras's, or that of the preset. A `keras.Model` needs it.

    Call arguments:
        pixels: uint8 or float, shape (B, image_size, image_size, 3), 0 to 255.

    Returns:
        features: float32, shape (B, rows, cols, D), `self.feature_shape` without the batch. For a vision transformer
            these are the patch tokens; tokens of the whole image (class token, registers) are left out.

    Attributes:
        grid_box: left, top, right, bottom, as fractions of the image, of the square that the cells cover: each cell's
            center is the center of its receptive field, or of its patch. InceptionV3's first convolutions have no
            padding, so the grid does not reach the edges of the image: at `mixed8` and 299 pixels, cells of 32 pixels
            cover pixels 21.5 to 277.5. A map stretched over the whole image is off by a sixth of the distance from the
            center. Other networks pad on one side only: their box can begin before the image.
        receptive_field: side, in pixels of the input square, of what can change a cell at all; the part that changes it
            noticeably is much smaller (Luo et al. 2016). None if it is the whole image or not known.

    Raises:
        TypeError: several layers.
        ValueError: no such layer or backbone; a weights file that does not fit, is truncated or damaged; an image size
            that is not one number; pixels that are scaled already.
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
        *,
        backbone: str | keras.Model | dict[str, Any] = NAME,
        scaling: Any = None,
        **kwargs: Any,
    ):
        if layer is not None and not isinstance(layer, str):
            raise TypeError(f"layer is the name of one layer, got {layer!r}")
        inner = isinstance(backbone, str) and application_name(backbone) == "InceptionV3"
        super().__init__(dtype=dtype or (best_dtype_policy() if inner else "float32"), **kwargs)
        self.pool = pool
        self.weights_source = str(weights)
        size = None if image_size is None else check_image_size(image_size)
        scaling = None if scaling is None else check_scaling(scaling)
        if inner:
            self._of_inception(layer, size, scaling)
        else:
            self._of_backbone(backbone, layer, size, scaling)
        self.network.trainable = False
        rows, cols, _ = grid_of(self.network, self.image_size).shape
        if not (isinstance(pool, int) and 1 <= pool <= min(rows, cols)):
            raise ValueError(f"pool is a whole number from 1 to {min(rows, cols)}, the cells of the grid, got {pool!r}")
        place = grid_of(self.network, self.image_size, self.pool)
        self.feature_shape: tuple[int, int, int] = place.shape
        self.grid_box: GridBox = place.box
        self.receptive_field = place.receptive_field
        self.built = True

    def _of_inception(self, layer: str | None, image_size: int | None, scaling: Any) -> None:
        defaults = DEFAULTS.get(self.weights_source, DEFAULTS["imagenet"])
        self.layer = layer or defaults[0]
        self.image_size = image_size or defaults[1]
        self.backbone = NAME
        self.scaling: Scaling = scaling or "-1..1"
        self._description: str | None = None  # JSON: Keras would track a dictionary
        with global_dtype(self.dtype_policy):
            whole = inception(self.image_size, "imagenet" if self.weights_source == "imagenet" else None)
            check_layer(self.layer, whole)
            self.network = keras.Model(whole.input, whole.get_layer(self.layer).output, name=NAME)
        load_weights(self.weights_source, whole, self.network, "InceptionV3")

    def _of_backbone(self, backbone: Any, layer: str | None, image_size: int | None, scaling: Any) -> None:
        if self.weights_source == "faces":
            raise ValueError("weights 'faces' are of InceptionV3: leave backbone out, or take other weights")
        found: Backbone
        if isinstance(backbone, dict):  # of a saved model
            found = of_description(backbone, image_size or 0, check_scaling(scaling), self.dtype_policy)
        else:
            found = find_backbone(backbone, self.weights_source, image_size, scaling, self.dtype_policy)
            if isinstance(backbone, keras.Model):
                self.weights_source = "own"
        self.backbone = found.name
        self.scaling = found.scaling
        self._description = json.dumps(found.description)
        self.network = cut_at(found.network, layer)
        self.layer = layer or "end"
        self._named_layer = layer
        self.image_size = int(self.network.input.shape[1])
        if self.weights_source not in ("own", *NAMED):
            load_weights(self.weights_source, found.network, self.network, found.name)

    def call(self, pixels: Any) -> Any:
        return self._features(pixels, self.network)

    def _features(self, pixels: Any, network: keras.Model) -> Any:
        output = as_grid(network(scaled(pixels, self.scaling), training=False))  # (B, rows, cols, D)
        output = ops.average_pool(output, self.pool, self.pool) if self.pool > 1 else output
        return ops.cast(output, "float32")  # NumPy saves no bfloat16

    def features_for_inference(self, pixels: Any) -> Any:
        return self._features(pixels, folded(self.network)) if self._folds else self(pixels)

    @property
    def description(self) -> dict[str, Any] | None:
        """What a saved model needs to build the network again; None for InceptionV3."""
        return None if self._description is None else json.loads(self._description)

    @property
    def _folds(self) -> bool:
        # Not for the drawn faces: their network is fast anyway, and published results stay the same to the digit.
        return self._description is None and self.weights_source != "faces"

    def described(self) -> tuple[Any, ...]:
        described: tuple[Any, ...] = (self.layer, self.image_size, self.pool, self.dtype_policy.name)
        described += (PREPROCESSING_VERSION, "folded") if self._folds else (PREPROCESSING_VERSION,)
        if self._description is not None or self.scaling != "-1..1":
            described += (self.backbone, self.scaling)
        return described

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "layer": self.layer, "pool": self.pool}
        if self._description is not None:
            config.update(layer=self._named_layer, backbone=self.description)
        if self._description is not None or self.scaling != "-1..1":  # left out otherwise: files stay as before
            config.update(scaling=self.scaling)
        return config
