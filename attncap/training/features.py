"""`feature_source`: the features of a training, and the parts of the encoder that are trained and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from attncap._messages import quoted
from attncap.features.extractor import Encoder, FeatureExtractor, best_dtype_policy
from attncap.features.inception import NAME
from attncap.features.store import FeatureStore
from attncap.models.captioner import Captioner
from attncap.models.trainable_encoder import EncoderTail
from attncap.training.config import TrainConfig
from attncap.training.finetuning import encoder_and_tail


class FeatureSource(NamedTuple):
    """The source of the features of a training.

    Attributes:
        store: computes, stores and returns the features of images.
        encoder: saved in the captioner; None for features computed elsewhere.
        tail: encoder blocks after it that are trained with the captioner; None: none are.
        whole: the encoder and the tail as one; None where features are given.
    """

    store: Any
    encoder: Encoder | None = None
    tail: EncoderTail | None = None
    whole: FeatureExtractor | None = None


def feature_source(config: TrainConfig, features: Any, start: Captioner | None) -> FeatureSource:
    """Return the given source of features, or else a store of the encoder that the settings name.

    Args:
        config: the encoder's settings.
        features: of `train`; a folder of stores, or None, makes a store there.
        start: the captioner to continue from, with its encoder.

    Raises:
        TypeError: `features` is no source of features.
        ValueError: settings of the encoder that do not go together.
    """
    if isinstance(features, Encoder):
        features = FeatureStore(None, features)
    if features is not None and not isinstance(features, str | Path):
        lacking = [name for name in ("get", "extract", "feature_shape", "fingerprint") if not hasattr(features, name)]
        if lacking:
            raise TypeError(
                f"features: a folder, a file, an encoder, a mapping, a function or a store expected, got "
                f"{quoted(features)}, which has no {lacking[0]}"
            )
        encoder = getattr(features, "extractor", None)
        return FeatureSource(features, encoder if isinstance(encoder, Encoder) else None)
    if config.finetune_to is not None and config.backbone != NAME:
        raise ValueError(
            f"finetune_to is {config.finetune_to}: blocks of InceptionV3 alone are trained, and backbone is "
            f"{config.backbone}: leave one of them out"
        )
    whole = new_encoder(config) if start is None else encoder_of(start, config)
    encoder, tail = encoder_and_tail(whole, config.layer, config.finetune_to, start, policy_of(config))
    return FeatureSource(FeatureStore(features, encoder), encoder, tail, whole)


def features_of_model(features: Any, model: Any) -> Any:
    """Return the features of a training: for a captioner of the user's own, by default those of its encoder.

    Args:
        features: of `train`.
        model: of `train`.
    """
    encoder = model.encoder if isinstance(model, Captioner) else None
    if encoder is not None and (features is None or isinstance(features, str | Path)):
        return FeatureStore(features, encoder)
    return features


def new_encoder(config: TrainConfig) -> FeatureExtractor:
    """Return the encoder that the settings name, with the blocks that are trained."""
    layer = config.finetune_to or config.layer
    return FeatureExtractor(layer, config.weights, config.image_size, backbone=config.backbone)


def encoder_of(captioner: Captioner, config: TrainConfig) -> FeatureExtractor:
    """Return the encoder of the captioner to continue from."""
    if captioner.encoder is None:
        raise ValueError(f"{config.start}: has no encoder inside, so that its features cannot be computed")
    if config.image_size not in (None, captioner.encoder.image_size):
        raise ValueError(
            f"image_size is {config.image_size}, but {config.start} was trained at {captioner.encoder.image_size}: "
            "leave image_size out"
        )
    return captioner.encoder


def policy_of(config: TrainConfig) -> str:
    """Return the dtype policy of the decoder."""
    return best_dtype_policy() if config.dtype == "auto" else config.dtype
