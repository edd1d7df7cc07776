"""Backbones beside InceptionV3: models of keras.applications, backbones of keras-hub, and any Keras model of images.

`FeatureExtractor` needs three things from a backbone:

* a network from pixels (B, size, size, 3) to a tensor (B, rows, cols, D), or to tokens (B, T, D) of which the last
  side * side are patches, row by row, and those before them (the class token, registers) stand for the whole image;
* how pixels of 0 to 255 are scaled for it (`preprocessing.SCALINGS`);
* a description from which a saved model builds the network again, without weights.

Where cells lie follows from the network itself: by receptive fields for convolutions, by the patches for tokens.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
from keras import ops

from attncap._messages import quoted
from attncap.features.hub_backbones import (
    at_size,
    hub_class,
    is_of_hub,
    load_preset,
    plain,
    preset_preprocessing,
    saved_settings,
)
from attncap.features.preprocessing import Scaling
from attncap.features.receptive_fields import GridBox, places
from attncap.features.weights import global_dtype, with_imagenet

# Defaults of the models of keras.applications that were not made for 224 pixels.
IMAGE_SIZES = {
    "Xception": 299,
    "InceptionResNetV2": 299,
    "NASNetLarge": 331,
    "EfficientNetB1": 240,
    "EfficientNetB2": 260,
    "EfficientNetB3": 300,
    "EfficientNetB4": 380,
    "EfficientNetB5": 456,
    "EfficientNetB6": 528,
    "EfficientNetB7": 600,
    "EfficientNetV2B1": 240,
    "EfficientNetV2B2": 260,
    "EfficientNetV2B3": 300,
    "EfficientNetV2S": 384,
    "EfficientNetV2M": 480,
    "EfficientNetV2L": 480,
}
# By module of keras.applications; the others scale inside the network.
MODULE_SCALINGS = {
    "densenet": "imagenet",
    "inception_resnet_v2": "-1..1",
    "mobilenet": "-1..1",
    "mobilenet_v2": "-1..1",
    "nasnet": "-1..1",
    "resnet": "caffe",
    "resnet_v2": "-1..1",
    "vgg16": "caffe",
    "vgg19": "caffe",
    "xception": "-1..1",
}
# Layers that a network of the user may have to be saved: each computes from its inputs and holds only numbers.
_LAYERS = (
    "Activation Add Average AveragePooling2D BatchNormalization CenterCrop Concatenate Conv2D Cropping2D Dense",
    "DepthwiseConv2D Dropout ELU Flatten Functional GaussianNoise GlobalAveragePooling2D GlobalMaxPooling2D",
    "GroupNormalization InputLayer LayerNormalization LeakyReLU MaxPooling2D Maximum Minimum MultiHeadAttention",
    "Multiply Normalization PReLU Permute ReLU Rescaling Reshape SeparableConv2D Softmax SpatialDropout2D Subtract",
    "UnitNormalization UpSampling2D ZeroPadding2D",
)
LAYERS = frozenset(" ".join(_LAYERS).split())


class Backbone(NamedTuple):
    """A network for images, with how to use it and how to build it again."""

    network: keras.Model
    scaling: Scaling
    description: dict[str, Any]  # see `of_description`

    @property
    def name(self) -> str:
        return str(self.description["name"])


def find_backbone(
    backbone: str | keras.Model, weights: str, image_size: int | None, scaling: Scaling | None, dtype: Any
) -> Backbone:
    """Make a backbone from a name or a model.

    Args:
        backbone: a name of keras.applications, such as "resnet50" or "MobileNetV3Small"; a preset of keras-hub, such as
            "vit_base_patch16_224_imagenet"; or a `keras.Model`.
        weights: "imagenet", "random", or a weights file (loaded by the caller).
        image_size: side of the input square; None takes the backbone's.
        scaling: how pixels are scaled, as in `check_scaling`; None takes the backbone's.
        dtype: dtype policy of networks that are built here.

    Raises:
        ValueError: an unknown name; a model of another input; a model without a scaling.
    """
    if isinstance(backbone, keras.Model):
        return _of_model(backbone, image_size, scaling)
    if not isinstance(backbone, str):
        raise ValueError(f"backbone: a name or a keras.Model expected, got {type(backbone).__name__}")
    found = application_name(backbone)
    if found is not None:
        size = image_size or IMAGE_SIZES.get(found, 224)
        network = _application(found, "imagenet" if weights == "imagenet" else None, size, dtype)
        return Backbone(network, scaling or _scaling_of(found), {"kind": "applications", "name": found})
    return _of_preset(backbone, weights, image_size, scaling, dtype)


def of_description(description: dict[str, Any], image_size: int, scaling: Scaling, dtype: Any) -> Backbone:
    """Build the backbone of a saved model again, with random weights; nothing is downloaded or read.

    Raises:
        ValueError: a description that names anything but backbones and layers without side effects.
    """
    kind, name = description.get("kind"), str(description.get("name"))
    if kind == "applications" and application_name(name) == name:
        return Backbone(_application(name, None, image_size, dtype), scaling, description)
    if kind == "keras_hub":
        return Backbone(hub_class(name)(**plain(description["settings"])), scaling, description)
    if kind == "keras":
        config = json.loads(description["network"])
        _check_layers(config)
        return Backbone(keras.Model.from_config(config), scaling, description)
    raise ValueError(f"backbone {quoted(name)} of kind {quoted(str(kind))} is not known")


def application_name(name: str) -> str | None:
    """Return the name of a backbone in keras.applications, ignoring case and underscores; None for others."""
    known = {item.lower(): item for item in dir(keras.applications) if item[0].isupper()}
    return known.get(name.replace("_", "").replace("-", "").lower())


def input_size(network: keras.Model) -> int | None:
    """Return the side of the square input of a network, None if it is open."""
    shape = tuple(_only(network.inputs).shape)
    if len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2]:
        raise ValueError(f"a backbone from square images (B, size, size, 3) expected, got an input of shape {shape}")
    return shape[1]


def cut_at(network: keras.Model, layer: str | None) -> keras.Model:
    """Return the network up to a layer (None: to its end), from one tensor of pixels to one tensor.

    Raises:
        ValueError: no such layer, or one whose output is neither a grid nor tokens.
    """
    if layer is None:
        output = _only(network.outputs)
    else:
        names = [item.name for item in network.layers]
        if layer not in names:
            raise ValueError(f"{network.name} has no layer {layer!r}: the last are {', '.join(names[-5:])}")
        output = _only(network.get_layer(layer).output)
    if not _is_grid(output):
        grids = [item.name for item in network.layers if _is_grid(item.output)]
        raise ValueError(
            f"{network.name}, layer {layer or 'at the end'}: a grid (B, rows, cols, D) or tokens (B, T, D) expected, "
            f"got shape {tuple(output.shape)}: name another layer; the last with a grid are {', '.join(grids[-5:])}"
        )
    return keras.Model(_only(network.inputs), output, name=network.name)


def _is_grid(output: Any) -> bool:
    return hasattr(output, "shape") and len(output.shape) in (3, 4) and None not in output.shape[1:]


def as_grid(output: Any) -> Any:
    """Return the output of a network as a grid (B, rows, cols, D): of tokens (B, T, D) the last side * side of them."""
    if len(output.shape) != 3:
        return output
    side = math.isqrt(output.shape[1])
    patches = output[:, output.shape[1] - side * side :]
    return ops.reshape(patches, (-1, side, side, output.shape[2]))  # (B, rows, cols, D)


class GridPlace(NamedTuple):
    """The position of the output of a network over the image."""

    shape: tuple[int, int, int]  # rows, cols, D
    box: GridBox  # the part of the image that the cells cover
    receptive_field: int | None  # pixels that can change a cell; None if all can or if it is unknown


def grid_of(network: keras.Model, image_size: int, pool: int = 1) -> GridPlace:
    """Return the position over the image of the output of a network, pooled by pool x pool cells."""
    output = network.output
    if len(output.shape) == 3:
        tokens, size = int(output.shape[1]), int(output.shape[2])
        side = math.isqrt(tokens)
        covered = side // pool * pool * (image_size // side) / image_size
        return GridPlace((side // pool, side // pool, size), (0.0, 0.0, covered, covered), None)
    rows, cols, size = (int(value) for value in output.shape[1:])
    shape = (rows // pool, cols // pool, size)
    place = places(network).get(output.name)
    if place is None:
        return GridPlace(shape, (0.0, 0.0, shape[1] * pool / cols, shape[0] * pool / rows), None)
    return GridPlace(shape, place.box(shape[0], image_size, pool), int(place.field + (pool - 1) * place.step))


def _application(name: str, weights: str | None, image_size: int, dtype: Any) -> keras.Model:
    build = getattr(keras.applications, name)
    shape = (image_size, image_size, 3)
    with global_dtype(dtype):
        network = with_imagenet(
            lambda: build(include_top=False, weights=weights, input_shape=shape), f"the weights file of {name}"
        )
    return network


def _scaling_of(name: str) -> str:
    module = sys.modules[getattr(keras.applications, name).__module__].__name__.rpartition(".")[2]
    return MODULE_SCALINGS.get(module, "0..255")


def _of_preset(name: str, weights: str, image_size: int | None, scaling: Scaling | None, dtype: Any) -> Backbone:
    network, own = load_preset(name, weights, dtype), preset_preprocessing(name)
    return _of_model(network, image_size or input_size(network) or own.image_size, scaling or own.scaling)


def _of_model(network: keras.Model, image_size: int | None, scaling: Scaling | None) -> Backbone:
    kind = type(network).__name__
    if not is_of_hub(network) and (kind not in ("Functional", "Sequential") or not network.built):
        raise ValueError(
            f"backbone: a functional keras.Model, or a sequential one with keras.Input, expected, got {kind}"
        )
    own = input_size(network)
    if image_size not in (None, own) and is_of_hub(network):
        network, own = at_size(network, own, int(image_size or 0)), image_size
    if own is not None and image_size not in (None, own):
        raise ValueError(f"{network.name} takes images of {own} pixels, got image_size {image_size}: leave it out")
    if scaling is None:
        raise ValueError(
            f"{network.name}: say how pixels of 0 to 255 are scaled for it, for example scaling='-1..1', or '0..255' "
            "where the model scales them itself"
        )
    if is_of_hub(network):
        if own is None:
            raise ValueError(f"{network.name} takes images of any size: choose one, for example image_size=224")
        description = {"kind": "keras_hub", "name": kind, "settings": saved_settings(network)}
        return Backbone(network, scaling, description)
    if own is None:
        raise ValueError(f"{network.name}: build it for one image size, keras.Input((size, size, 3))")
    network = keras.Model(_only(network.inputs), _only(network.outputs), name=network.name)  # also of a sequential one
    config = keras.saving.serialize_keras_object(network)["config"]
    _check_layers(config)
    return Backbone(network, scaling, {"kind": "keras", "name": network.name, "network": json.dumps(config)})


def _check_layers(config: Any) -> None:
    """Raise ValueError if the configuration of a network names other layers than those of `LAYERS`."""
    for item in objects_in(config):
        name, module = item["class_name"], str(item.get("module", "keras.layers"))
        setting = module.startswith(("keras.initializers", "keras.regularizers", "keras.constraints"))
        known = setting or name in LAYERS or name in ("__tuple__", "__keras_tensor__", "DTypePolicy")
        if item.get("registered_name") not in (None, name) or not module.startswith("keras") or not known:
            raise ValueError(
                f"a backbone with the layer {str(name)[:60]} cannot be saved or loaded: known are "
                f"{', '.join(sorted(LAYERS))}; or compute features elsewhere, see `ExternalFeatures`"
            )


def nested(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield everything in a configuration, itself included, each with the nearest name that it stands under."""
    yield name, value
    if isinstance(value, dict):
        for inner_name, inner in value.items():
            yield from nested(inner, inner_name)
    elif isinstance(value, list):
        for inner in value:
            yield from nested(inner, name)


def objects_in(config: Any) -> Iterator[dict[str, Any]]:
    """Yield every object that Keras would make from a configuration."""
    return (item for _, item in nested(config) if isinstance(item, dict) and "class_name" in item)


def _only(tensors: Any) -> Any:
    given = keras.tree.flatten(tensors)
    if len(given) != 1:
        raise ValueError(f"a backbone of one tensor expected, got {len(given)}: name a layer")
    return given[0]
