"""From an opened image to the pixels of a network, the same in training and inference."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops
from PIL import Image

PREPROCESSING_VERSION = 1  # part of every feature store's key: raise it when `preprocess` changes
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAFFE_MEAN = (103.939, 116.779, 123.68)  # blue, green, red
SCALINGS = {
    "-1..1": "x / 127.5 - 1: InceptionV3, MobileNet, ViT",
    "0..1": "x / 255",
    "0..255": "as it is: networks that scale inside, such as EfficientNet and MobileNetV3",
    "imagenet": "(x / 255 - mean) / deviation of ImageNet's channels: DenseNet, most PyTorch networks",
    "caffe": "blue, green, red; less the mean of ImageNet's channels: ResNet, VGG",
}
# A name of SCALINGS, or scale and offset, three numbers each.
Scaling = str | tuple[tuple[float, ...], tuple[float, ...]]
LINEAR = {  # the same as scale and offset; `scaled` divides instead, since its rounding is that of saved features
    "-1..1": ((1 / 127.5,) * 3, (-1.0,) * 3),
    "0..1": ((1 / 255,) * 3, (0.0,) * 3),
    "0..255": ((1.0,) * 3, (0.0,) * 3),
    "imagenet": (
        tuple(1 / 255 / deviation for deviation in IMAGENET_DEVIATION),
        tuple(-mean / deviation for mean, deviation in zip(IMAGENET_MEAN, IMAGENET_DEVIATION, strict=True)),
    ),
}


def preprocess(image: Image.Image, image_size: int) -> np.ndarray:
    """Turn an RGB image into the network's input: the whole image, squashed to a square.

    Squashing, unlike cropping, keeps every region of the image on the attention map, which is stretched back over the
    image. Scaling happens inside the extractor.

    Args:
        image: PIL image in mode RGB, from `open_image`.
        image_size: side of the square, pixels.

    Returns:
        pixels: uint8, shape (image_size, image_size, 3).
    """
    square = image.resize((image_size, image_size), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(square, np.uint8)


def scaled(pixels: Any, scaling: Scaling) -> Any:
    """Scale pixels (B, rows, cols, 3), 0 to 255, as a network expects them: float32; scaling from `check_scaling`."""
    pixels = ops.cast(pixels, "float32")
    if not isinstance(scaling, str):
        scale, offset = scaling
        return pixels * np.array(scale, "float32") + np.array(offset, "float32")
    if scaling == "-1..1":
        return pixels / 127.5 - 1.0
    if scaling == "0..1":
        return pixels / 255.0
    if scaling == "imagenet":
        return (pixels / 255.0 - np.array(IMAGENET_MEAN, "float32")) / np.array(IMAGENET_DEVIATION, "float32")
    if scaling == "caffe":
        return ops.flip(pixels, axis=-1) - np.array(CAFFE_MEAN, "float32")
    return pixels


def check_scaling(scaling: Any) -> Scaling:
    """Return how pixels are scaled: a name of `SCALINGS`, or else (scale, offset), three numbers each.

    Args:
        scaling: a name, or (scale, offset): a number, or one per channel (red, green, blue), each. Pixels of 0 to 255
            are then `pixels * scale + offset`.

    Raises:
        ValueError: an unknown name, or other than one or three finite numbers.

    Example:
        >>> check_scaling((1 / 255, 0))
        '0..1'
    """
    if isinstance(scaling, list | tuple) and len(scaling) == 2:
        try:
            pair = np.stack([np.broadcast_to(np.asarray(part, float), (3,)) for part in scaling])  # (2, 3)
        except (TypeError, ValueError):
            pair = np.full((2, 3), np.nan)
        if not np.isfinite(pair).all():
            raise ValueError(f"scaling is (scale, offset), one or three finite numbers each, got {scaling!r}")
        for name, values in LINEAR.items():
            if np.allclose(pair, values, rtol=1e-5, atol=1e-6):
                return name
        return tuple(pair[0].tolist()), tuple(pair[1].tolist())
    if not isinstance(scaling, str) or scaling not in SCALINGS:
        listed = "; ".join(f"{name!r}: {meaning}" for name, meaning in SCALINGS.items())
        raise ValueError(
            f"scaling {scaling!r}: choose how pixels of 0 to 255 are scaled: {listed}; or (scale, offset), for "
            "pixels * scale + offset"
        )
    return scaling


def check_image_size(image_size: Any) -> int:
    """Return the side of the square that images are resized to, or raise ValueError."""
    if isinstance(image_size, bool) or not isinstance(image_size, int | np.integer) or image_size < 1:
        raise ValueError(
            f"image_size is one whole number, the side of the square that images are resized to, got {image_size!r}"
        )
    return int(image_size)


def check_pixels(pixels: Any, image_size: int) -> None:
    """Raise ValueError if pixels have another shape or are scaled already; tensors of a graph are not checked."""
    shape = tuple(getattr(pixels, "shape", np.shape(pixels)))
    expected = (image_size, image_size, 3)
    if len(shape) != 4 or any(have not in (None, want) for have, want in zip(shape[1:], expected, strict=True)):
        mend = ""
        if len(shape) in (3, 4) and shape[-3] == 3 and shape[-1] != 3:
            mend = "; channels come last here: np.moveaxis(pixels, -3, -1)"
        elif len(shape) == 3:
            mend = "; add the batch axis: pixels[None]"
        raise ValueError(f"pixels of shape (B, {image_size}, {image_size}, 3) expected, got {shape}{mend}")
    if isinstance(pixels, np.ndarray) and pixels.dtype.kind == "f" and pixels.size:
        low, high = float(pixels.min()), float(pixels.max())
        if low >= -1.0 and high <= 1.0 and low < high:
            raise ValueError(
                f"pixels from 0 to 255 expected, got values from {low:g} to {high:g}, which are scaled already: give "
                "the image as it is, the extractor scales it"
            )
