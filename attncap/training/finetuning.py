"""Fine-tuning of the last blocks of the encoder: which blocks, from which weights, at which learning rate."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
from keras import ops

from attncap.features.extractor import FeatureExtractor
from attncap.models.captioner import Captioner
from attncap.models.trainable_encoder import EncoderTail, split_encoder


def encoder_and_tail(
    encoder: FeatureExtractor,
    after: str | None,
    finetune_to: str | None,
    beginning: Captioner | None = None,
    dtype: Any = None,
) -> tuple[FeatureExtractor, EncoderTail | None]:
    """Return the encoder whose features are stored, and the tail to train; None if no block is trained.

    Args:
        encoder: that of the captioner to begin with, or for a new captioner an encoder up to `finetune_to`.
        after: layer to store, if the captioner to begin with has no tail.
        finetune_to: layer up to which blocks are trained; None trains none.
        beginning: the captioner to begin with, if any; its own tail is trained further.
        dtype: of a new tail.

    Raises:
        ValueError: another layer than that where the captioner to begin with reads; see `EncoderTail`.
    """
    if finetune_to is None:
        return encoder, None
    own = None if beginning is None else beginning.tail
    reads_at = encoder.layer if own is None else own.layer
    if finetune_to != reads_at:
        raise ValueError(f"finetune_to is {finetune_to}, but the captioner to go on from reads {reads_at}: name that")
    if own is not None:
        return encoder, own
    if after is None:
        raise ValueError(f"finetune_to is {finetune_to}, but no layer is named, whose features are stored: add --layer")
    return split_encoder(encoder, after, dtype)


def with_tail(captioner: Captioner, encoder: FeatureExtractor, tail: EncoderTail) -> Captioner:
    """Return a captioner that computes what the given one does, with its encoder split in two.

    Args:
        captioner: without a tail.
        encoder, tail: what `split_encoder` made of its encoder.
    """
    settings = {
        **captioner.get_config(),
        "tokenizer": captioner.tokenizer,
        "encoder": encoder,
        "tail": tail,
        "feature_shape": encoder.feature_shape,
    }
    split = type(captioner)(**settings)
    for weight, given in zip(_of_decoder(split), _of_decoder(captioner), strict=True):
        weight.assign(given)
    return split


def _of_decoder(captioner: Captioner) -> list[Any]:
    parts = [part for part in (captioner.encoder, captioner.tail) if part is not None]
    others = {id(weight) for part in parts for weight in part.weights}
    return [weight for weight in captioner.weights if id(weight) not in others]


class FinetuningAdamW(keras.optimizers.AdamW):
    """AdamW with a lower learning rate and no weight decay for some variables.

    The step of a slow variable is `factor` times that of AdamW. (Adam would divide out a factor on the gradient.) Slow
    variables do not decay, because they should stay near their pretrained values and not near 0; with a factor of 0
    they do not change.

    Args:
        slow: the variables.
        factor: of their learning rate to that of the others.
        others: see AdamW.
    """

    def __init__(self, *args: Any, slow: Iterable[Any] = (), factor: float = 1.0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        slow = list(slow)
        self._factor = factor
        self._slow = frozenset(self._var_key(variable) for variable in slow)
        self.exclude_from_weight_decay(var_list=slow)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if self._var_key(variable) in self._slow:
            learning_rate = ops.multiply(learning_rate, self._factor)
        super().update_step(gradient, variable, learning_rate)
