"""Make the captioner that a training begins with: a new one, the user's own, or a trained one."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from attncap.data.load import CaptionData
from attncap.decoding.predict import check_shape
from attncap.features.external import ExternalFeatures
from attncap.features.extractor import Encoder, FeatureExtractor
from attncap.features.sources import key_column
from attncap.models.attending_captioner import AttendingCaptioner
from attncap.models.captioner import Captioner
from attncap.models.registry import captioner_class, settings_of
from attncap.models.show_and_tell import ShowAndTell
from attncap.models.trainable_encoder import EncoderTail
from attncap.tokenizers import CaptionTokenizer
from attncap.training.config import TrainConfig
from attncap.training.features import FeatureSource, policy_of
from attncap.training.finetuning import with_tail


def captioner_to_train(
    config: TrainConfig,
    model: Any,
    start: Captioner | None,
    tokenizer: CaptionTokenizer,
    source: FeatureSource,
    training: CaptionData,
) -> Captioner:
    """Return the captioner that a training begins with.

    Args:
        config: model, sizes, dropout, dtype, seed.
        model: as in `train`: a captioner is used as it is, a class is created with the settings that are arguments of
            its constructor.
        start: the captioner to continue from; None: a new one.
        tokenizer: the vocabulary.
        source: of features.
        training: images, on which a captioner that standardizes pooled features gets their statistics.

    Raises:
        ValueError: the captioner reads other features than those of the source.
    """
    store = source.store
    if start is not None:
        if isinstance(store, ExternalFeatures):
            check_shape(start, store)
        return continued(start, config, source.encoder, source.tail)
    if isinstance(model, Captioner):
        if isinstance(store, ExternalFeatures):
            check_shape(model, store)
        _check_features(model, source)
        return model
    kind = model if isinstance(model, type) else captioner_class(config.model)
    keras.utils.set_random_seed(config.seed)
    config = config.with_model_defaults(kind)
    settings: dict[str, Any] = {name: getattr(config, name) for name in settings_of(kind) if hasattr(config, name)}
    settings |= {"feature_shape": store.feature_shape} if source.encoder is None else {"encoder": source.encoder}
    settings |= {"masked": True} if getattr(store, "masked", False) else {}
    captioner = kind(tokenizer, tail=source.tail, dtype=policy_of(config), **settings)
    if isinstance(captioner, ShowAndTell):
        keys = list(training.pictures[key_column(store)])
        captioner.standardize(*pooled_statistics(store, keys, tail=source.tail))
    return captioner


def _check_features(model: Captioner, source: FeatureSource) -> None:
    given = tuple(source.store.feature_shape)
    if given != model.feature_shape:
        raise ValueError(f"the captioner reads features of shape {model.feature_shape}, those given have {given}")
    both = [encoder for encoder in (model.encoder, source.encoder) if encoder is not None]
    if len({encoder.fingerprint() for encoder in both}) > 1:
        raise ValueError(
            "the encoder in the captioner is not that of the features: leave features out, or give those of its encoder"
        )


def continued(
    captioner: Captioner, config: TrainConfig, extractor: Encoder | None, tail: EncoderTail | None
) -> Captioner:
    """Return the captioner to continue from, with this training's attention losses and trained encoder blocks.

    Raises:
        ValueError: the settings name another model than the captioner's.
    """
    if type(captioner) is not captioner_class(config.model):
        raise ValueError(
            f"model is {config.model}, but {config.start} holds a {type(captioner).__name__}: leave --model out, "
            "or start from a run of that model"
        )
    if isinstance(captioner, AttendingCaptioner):
        captioner.attention_penalty = config.attention_penalty
        captioner.attention_supervision = config.attention_supervision
    if tail is not None and isinstance(extractor, FeatureExtractor) and captioner.tail is None:
        captioner = with_tail(captioner, extractor, tail)
    if captioner.tail is not None:
        captioner.tail.trainable = tail is not None
    return captioner


def pooled_statistics(
    store: Any, keys: list[str], part: int = 64, tail: EncoderTail | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and deviation, (D,) each, of the pooled regions of images; a feature that never varies gets 1.

    Args:
        store: a `FeatureStore`, with paths as keys, or `ExternalFeatures`, with image_ids as keys.
        part: images in memory at a time.
        tail: encoder blocks after the stored features.
    """
    total = np.zeros((2, (store.feature_shape if tail is None else tail.region_shape)[-1]))
    for start in range(0, len(keys), part):
        regions = store.get(keys[start : start + part])
        if tail is not None:
            regions = keras.ops.convert_to_numpy(keras.ops.cast(tail(regions), "float32"))
        pooled = regions.astype(np.float32).mean(axis=(1, 2)).astype(float)  # (B, D)
        if getattr(store, "masked", False):  # rows of zeros are padding
            pooled /= regions.any(axis=3).mean(axis=(1, 2))[:, None]
        total += pooled.sum(axis=0), (pooled**2).sum(axis=0)
    mean, square = total / len(keys)
    deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
    return mean, np.where(deviation > 1e-6, deviation, 1.0)
