"""Training the encoder's last blocks with the decoder: which blocks, from which weights, and how fast they learn."""

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
    """Return the encoder whose features are stored, and the tail to train, None where nothing of it is trained.

    Args:
        encoder: of the captioner to begin with; or, of a new one, up to `finetune_to`.
        after: layer to store, where the captioner to begin with has no tail.
        finetune_to: layer up to which blocks are trained; None trains none.
        beginning: the captioner to begin with, if any; its own tail goes on being trained.
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
    """AdamW in which some variables learn slower than the others, and do not decay.

    The step of a slow variable is `factor` times AdamW's. (A factor on the gradient would do nothing: Adam divides it
    out.) Its weights do not decay, for those that it came with are where it should stay near, and not 0; with a factor
    of 0 it stays as it is.

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
