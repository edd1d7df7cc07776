"""`EncoderTail`: the last blocks of the encoder inside a captioner, trained with it."""

from __future__ import annotations

from typing import Any

import keras

from attncap.features.extractor import FeatureExtractor, best_dtype_policy
from attncap.features.inception import NAME


@keras.saving.register_keras_serializable("attncap")
class EncoderTail(keras.layers.Layer):
    """InceptionV3's blocks after one layer up to another: the part of the encoder that is trained with the decoder.

        regions = blocks(features),    features: of the frozen encoder, up to `after`, stored once

    An epoch costs only the forward and backward passes of the blocks, not of the whole network. On disk, the grid at
    `after` takes, per image of 299 pixels in half precision: 160 KB at `mixed8`, 434 KB at `mixed3` to `mixed7`,
    612 KB at `mixed0`, 689 KB at `mixed1` and `mixed2` (7,000 images: 1.1, 3.1, 4.4 and 4.9 GB). `after="mixed0"`
    trains nearly the whole encoder, all but the stem, and needs an accelerator.

    Batch normalization works as in inference during training too: it uses the means and variances that came with the
    weights. Those of a batch of a few images would be noisy, and training and inference use the same statistics this
    way. Kernels and the offsets of the normalization are trained (InceptionV3 has no scales).

    Args:
        after: name of the layer whose features go in, `mixed0` to `mixed9`.
        layer: name of a later one, whose features come out.
        image_size: side of the encoder's input square, which gives the grids.
        dtype: Keras dtype policy; None as `FeatureExtractor`.

    Call arguments:
        features: float, shape (B, rows, cols, D), `self.feature_shape` without the batch.

    Returns:
        regions: shape (B, rows', cols', D'), `self.region_shape` without the batch.

    Attributes:
        grid_box: of the grid that comes out, see `FeatureExtractor`.

    Raises:
        ValueError: no such layer, or `after` does not come before `layer`.

    Example:
        >>> encoder, tail = split_encoder(FeatureExtractor("mixed8"), "mixed7")
        >>> captioner = AttentionCaptioner(tokenizer, encoder=encoder, tail=tail)

    Reference: Vinyals et al. 2017, "Show and Tell: Lessons learned from the 2015 MSCOCO Image Captioning Challenge",
        who fine-tune the encoder when the decoder has settled: before, its gradients are noise that harms the encoder.
        He et al. 2016, "Deep Residual Learning", keep batch normalization fixed in fine-tuning.
    """

    def __init__(
        self,
        after: str,
        layer: str,
        image_size: int,
        dtype: Any = None,
        name: str = "encoder_tail",  # a fixed name, because it is part of a saved captioner
        **kwargs: Any,
    ):
        super().__init__(dtype=dtype or best_dtype_policy(), name=name, **kwargs)
        # Weights come from `split_encoder` or from a saved captioner.
        whole = FeatureExtractor(layer, "random", image_size, dtype=self.dtype_policy)
        names = [item.name for item in whole.network.layers if item.name.removeprefix("mixed").isdigit()]
        if after not in names[:-1]:
            before = f"one of {', '.join(names[:-1])}" if len(names) > 1 else "and there is none"
            raise ValueError(
                f"blocks after {after!r} up to {layer!r} are to be trained: a layer before {layer!r} to begin after "
                f"expected, {before}"
            )
        self.after = after
        self.layer = layer
        self.image_size = image_size
        cut = whole.network.get_layer(after).output
        self.network = keras.Model(cut, whole.network.output, name="inception_v3_tail")
        for item in self.network.layers:  # the extractor's are frozen; `network.trainable` is True already, and setting
            item.trainable = True  # it to what it is would do nothing
        self.feature_shape: tuple[int, int, int] = tuple(cut.shape[1:])
        self.region_shape: tuple[int, int, int] = whole.feature_shape
        self.grid_box = whole.grid_box
        self.built = True

    def call(self, features: Any) -> Any:
        return self.network(features, training=False)  # batch normalization as in inference

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (input_shape[0], *self.region_shape)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["trainable"]  # a training's choice
        return {**config, "after": self.after, "layer": self.layer, "image_size": self.image_size}


def split_encoder(encoder: FeatureExtractor, after: str, dtype: Any = None) -> tuple[FeatureExtractor, EncoderTail]:
    """Split an encoder in two: up to a layer, whose features are stored, and from there on, which can be trained.

    Args:
        encoder: up to the last block to be trained.
        after: name of the layer to store.
        dtype: Keras dtype policy of the tail: that of the captioner that will hold it.

    Returns:
        encoder: up to `after`, with the weights of the one given; its features are those of any other such encoder.
        tail: from there on, with those weights too.

    Raises:
        ValueError: `after` is no layer before the encoder's last; an encoder with pooling.

    Example:
        >>> encoder, tail = split_encoder(FeatureExtractor("mixed8"), "mixed7")
        >>> tail.feature_shape, tail.region_shape
        ((17, 17, 768), (8, 8, 1280))
    """
    if encoder.pool > 1:
        raise ValueError(f"an encoder without pooling expected, got one that pools {encoder.pool} x {encoder.pool}")
    if encoder.backbone != NAME:
        raise ValueError(f"the blocks of InceptionV3 alone can be trained with the decoder, got {encoder.backbone}")
    tail = EncoderTail(after, encoder.layer, encoder.image_size, dtype=dtype)
    head = FeatureExtractor(after, "random", encoder.image_size, dtype=encoder.dtype_policy)
    head.weights_source = encoder.weights_source
    # Layers are sorted by their distance from the end, and all paths to the tail lead through `after`: the head comes
    # first.
    own = [*_weighty(head.network), *_weighty(tail.network)]
    for layer, given in zip(own, _weighty(encoder.network), strict=True):
        layer.set_weights(given.get_weights())
    return head, tail


def _weighty(network: keras.Model) -> list[Any]:
    return [layer for layer in network.layers if layer.weights]
