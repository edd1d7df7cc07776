"""Backbones of keras-hub: presets with their preprocessing, other image sizes, settings that are safe to save."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import keras

from attncap._messages import first_line, quoted
from attncap.features.preprocessing import Scaling, check_scaling


class PresetPreprocessing(NamedTuple):
    """What a preset says of the images that its network was trained on; None where it says nothing."""

    scaling: Scaling | None = None
    image_size: int | None = None


def is_of_hub(network: keras.Model) -> bool:
    """Return whether a network is a backbone of keras-hub."""
    return type(network).__module__.startswith(("keras_hub.", "keras_nlp."))


def load_preset(name: str, weights: str, dtype: Any) -> keras.Model:
    """Load the network of a preset: a name of keras-hub, an address (`kaggle://`, `hf://`) or a folder.

    Raises:
        ValueError: no such preset, or it cannot be downloaded.
    """
    import keras_hub

    try:
        return keras_hub.models.Backbone.from_preset(name, load_weights=weights == "imagenet", dtype=dtype)
    except Exception as error:  # the hub raises various errors: unknown, or no way to download it
        known = ", ".join(item for item in dir(keras.applications) if item[0].isupper())
        raise ValueError(
            f"backbone {name!r}: neither a model of keras.applications ({known}) nor a preset of keras-hub that can be "
            f"loaded ({first_line(error)})"
        ) from error


def preset_preprocessing(name: str) -> PresetPreprocessing:
    """Return how pixels are scaled for the network of a preset, and the size of its images."""
    import keras_hub

    try:
        converter = keras_hub.layers.ImageConverter.from_preset(name)
    except Exception:  # a preset without one; the hub raises various errors
        converter = None
    if converter is None:
        return PresetPreprocessing()
    scale = 1.0 if converter.scale is None else converter.scale
    offset = 0.0 if converter.offset is None else converter.offset
    size = None if converter.image_size is None else int(converter.image_size[0])
    return PresetPreprocessing(check_scaling((scale, offset)), size)


def at_size(network: keras.Model, own: int | None, image_size: int) -> keras.Model:
    """Return a backbone with the same weights for images of another size.

    Args:
        network: of keras-hub.
        own: side of its input square; None if it is open.
        image_size: the side that is asked for.

    Raises:
        ValueError: its weights depend on the size, as learned positions of patches do.
    """
    settings = saved_settings(network)
    try:
        other = type(network)(**{**settings, "image_shape": (image_size, image_size, 3)})
        other.set_weights(network.get_weights())
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{network.name} takes images of {own} pixels, got image_size {image_size}: leave it out"
        ) from error
    return other


def saved_settings(network: keras.Model) -> dict[str, Any]:
    """Return the arguments from which a backbone is built again."""
    return {**plain(network.get_config()), "dtype": network.dtype_policy.name}


def hub_class(name: str) -> Any:
    """Return the class of a backbone by its name in keras-hub."""
    import keras_hub

    found = getattr(keras_hub.models, name, None)
    if not (isinstance(found, type) and issubclass(found, keras_hub.models.Backbone)):
        raise ValueError(f"keras-hub has no backbone {quoted(name)}: install the version that the model was saved with")
    return found


def plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings that are numbers, texts and lists of them; other objects are not safe to load."""
    kept = {name: value for name, value in settings.items() if name not in ("name", "trainable")}
    if not isinstance(kept.get("dtype"), str):
        kept.pop("dtype", None)
    text = json.dumps(kept, default=lambda value: {"class_name": type(value).__name__})
    if '"class_name"' in text:
        raise ValueError("only a keras-hub backbone of numbers and texts can be saved, this one holds other models")
    return {
        name: tuple(value) if isinstance(value, list) and not any(isinstance(item, list) for item in value) else value
        for name, value in json.loads(text).items()
    }
