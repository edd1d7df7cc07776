"""InceptionV3, the default backbone: its network, its layers, and where their regions lie."""

from __future__ import annotations

import math
import re

import keras
import pandas as pd

from attncap.features.receptive_fields import places
from attncap.features.weights import with_imagenet

NAME = "inception_v3"
# For each kind of weights: the layer to stop at and the image size. For faces the earliest block: its regions see
# little beyond themselves, so that a map has to be at the object (at `mixed2`, two cells away suffices).
DEFAULTS = {"imagenet": ("mixed10", 299), "faces": ("mixed0", 150)}


def inception(image_size: int, weights: str | None) -> keras.Model:
    """Return InceptionV3 without its classifier; weights: "imagenet", or None for random ones.

    Raises:
        ValueError: a size that InceptionV3 does not take.
        RuntimeError: the weights cannot be downloaded.
    """
    shape = (image_size, image_size, 3)
    return with_imagenet(
        lambda: keras.applications.InceptionV3(include_top=False, weights=weights, input_shape=shape),
        "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
    )


def check_layer(layer: str, network: keras.Model) -> None:
    """Raise ValueError if InceptionV3 has no block of that name.

    Layers between the blocks are not allowed: Keras numbers them differently in each network of a process, so that a
    saved model could not find them."""
    known = [item.name for item in network.layers if re.fullmatch(r"mixed\d+", item.name)]
    if "+" in layer:
        raise ValueError(
            f"layer {layer!r}: two grids at once were removed. Use an attncap of commit 998f5d3, or train a run of one "
            "layer"
        )
    if layer not in known:
        raise ValueError(f"InceptionV3 has no layer {layer!r}: choose one of {', '.join(known)}")


def layer_table(image_size: int = 299) -> pd.DataFrame:
    """List the layers of InceptionV3 that `FeatureExtractor` can stop at, and what a region is there.

    Args:
        image_size: side of the input square, at least 75; default InceptionV3's own.

    Returns:
        layers: DataFrame, one row per layer, first to last: layer; rows, cols, size (D); step and receptive_field,
            pixels of the input square; kilobytes, of the grid in half precision (1 KB = 1,024 bytes).

    Raises:
        ValueError: a size that InceptionV3 does not take.

    Example:
        >>> layer_table(299).iloc[-1].tolist()
        ['mixed10', 8, 8, 2048, 32, 1311, 256.0]
    """
    network = inception(image_size, None)
    found = places(network)
    rows = []
    for layer in network.layers:
        if re.fullmatch(r"mixed\d+", layer.name):
            place, shape = found[layer.output.name], tuple(layer.output.shape[1:])
            rows.append((layer.name, *shape, int(place.step), int(place.field), 2 * math.prod(shape) / 1024))
    columns = ["layer", "rows", "cols", "size", "step", "receptive_field", "kilobytes"]
    return pd.DataFrame(rows, columns=columns)
