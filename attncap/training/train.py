"""Training: from a data set to a run folder with the best captioner, validated by decoding."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras

from attncap._files import check_list
from attncap._messages import quoted
from attncap.data.load import CaptionData
from attncap.decoding.collapse import collapse_warnings
from attncap.features.external import ExternalFeatures
from attncap.models.captioner import Captioner
from attncap.models.registry import captioner_classes
from attncap.models.saving import load_captioner
from attncap.tokenizers import CaptionTokenizer
from attncap.training.building import captioner_to_train
from attncap.training.callbacks import RunRecorder
from attncap.training.config import TrainConfig
from attncap.training.defaults import fit_to_data
from attncap.training.distributed.base import SharedTraining
from attncap.training.external import check_external, given_features
from attncap.training.features import feature_source, features_of_model
from attncap.training.fit import fit
from attncap.training.inputs import check_supervision, given_tokenizer, tokenizer_of, training_batches, training_images
from attncap.training.manifest import check_given_again, check_or_write, manifest_of, same_settings
from attncap.training.run_folder import RunFolder, cleared_on_error
from attncap.training.validation import SCORES, Metric, Validator


def train(
    data: CaptionData,
    run: str | Path,
    config: TrainConfig | None = None,
    *,
    model: str | type[Captioner] | Captioner | None = None,
    tokenizer: CaptionTokenizer | None = None,
    features: Any = None,
    optimizer: keras.optimizers.Optimizer | None = None,
    loss: Any = None,
    metrics: Mapping[str, Metric] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    resume: bool = False,
    tensorboard: bool = False,
    boxes: str | None = None,
    distribution: SharedTraining | None = None,
    verbose: Any = "auto",
) -> Captioner:
    """Train a captioner: features, vocabulary, fit, validation by decoding, best checkpoint.

    Each part can be given; the default is used otherwise. A run with objects of your own is resumed by the same call
    with `resume=True`.

    Args:
        data: images, captions and splits; "train" is trained on, "val" is validated on after every epoch.
        run: run folder; see `RunFolder`.
        config: settings; on resume None, or those of the run. (The learning rate depends on the number of epochs.)
        model: name of a model, a subclass of `Captioner` (it gets the settings that its constructor takes), or an
            untrained captioner; default: `config.model`.
        tokenizer: the vocabulary; default: built from the training captions.
        features: folder of feature stores, shared by runs; default `features` in the cache folder. Or features of your
            own: an encoder (`FeatureExtractor`, or another subclass of `Encoder`), or a `FeatureStore` of one, which is
            saved in the captioner; what `ExternalFeatures` takes (a file, a mapping image_id -> array, a function of
            image_ids); or an object with `get(paths) -> (B, rows, cols, D)`, `extract(paths) -> DataFrame (path,
            reason)` of images without features, `feature_shape` and `fingerprint`. The name of a file is noted in the
            run, and resuming reads it again.
        optimizer: default: AdamW with warm-up and cosine decay, from the settings.
        loss: of (targets (B, K, T), logits (B, K, T, V)); default: `MaskedCrossentropy`.
        metrics: name -> function (predictions, references) -> score; `val_NAME` in the history.
        callbacks: more Keras callbacks.
        resume: continue from the last completed epoch; the history is that of an uninterrupted run.
        tensorboard: also write TensorBoard logs into the run folder.
        boxes: with `config.attention_supervision` above 0, the boxes that supervise attention, `entities:FOLDER_OR_ZIP`
            or `faces` (see `load_phrases`). Training images without boxes stay, unsupervised; validation is the same
            as without boxes.
        distribution: the processes or devices that share this training, from `shared_training`; None: one device. All
            processes call `train` alike; process 0 writes the run folder.
        verbose: 0 prints no progress, 2 a row per epoch, else also a progress bar.

    Returns:
        captioner: the best epoch by `config.monitor`, as saved in `best.keras`.

    Raises:
        TypeError: data is no `CaptionData`, config no `TrainConfig`, or another argument of another type.
        ValueError: no training or validation images with captions; a run of other data or settings; boxes without
            `attention_supervision`, or the reverse; tensorboard is not installed; a model with another vocabulary,
            other features or another encoder than those given.
        FloatingPointError: the loss is not a number.
    """
    config = _checked(data, TrainConfig() if config is None else config, model, metrics, tensorboard)
    _check_objects(tokenizer, callbacks)
    folder = RunFolder(run, resume) if distribution is None else distribution.run_folder(run, resume)
    with cleared_on_error(folder, resume, distribution is not None):
        config = same_settings(folder, config) if resume else config
        check_supervision(config, boxes)
        if resume:
            check_given_again(folder, model)
        if distribution is not None:
            distribution.check(config)
        keras.utils.set_random_seed(config.seed)  # weights="random" are then the same when the run is resumed
        start = None if config.start is None else load_captioner(config.start)
        features = given_features(features, folder, resume)
        if isinstance(features, ExternalFeatures):
            check_external(config, features, boxes)
        source = feature_source(config, features_of_model(features, model), start)
        if not resume:  # before the images are read, which takes long: a run that is killed there can be resumed too
            folder.write_json(folder.config_file, asdict(config))

        images = training_images(data, source.store, folder, resume, boxes)
        given = given_tokenizer(tokenizer, model, start)
        lists = None if given is None else given.separator_id is not None
        config, reasons = fit_to_data(config, images.training.references(), lists)
        if not resume:
            folder.write_json(folder.config_file, asdict(config))
        if reasons and verbose not in (0, False):
            print("settings that follow from the data:", *reasons, sep="\n  ")
        tokenizer = given or tokenizer_of(config, list(images.training.captions["caption"]))
        manifest = manifest_of(data, images, tokenizer, source, config, boxes, model)
        if distribution is not None:
            distribution.check_same(manifest, config)
        check_or_write(folder, manifest, resume)

        captioner = captioner_to_train(config, model, start, tokenizer, source, images.training)
        batches = training_batches(config, captioner, source.store, images.training, images.phrases)
        validator = Validator(config, source.store, images.validation, distribution, metrics)
        logs = [keras.callbacks.TensorBoard(folder.path / "tensorboard")] if tensorboard else []
        (fit if distribution is None else distribution.fit)(
            captioner,
            batches,
            recorder_of(folder, config, validator, batches),
            config,
            optimizer=optimizer,
            loss=loss,
            callbacks=[*callbacks, *logs],
            verbose=verbose,
        )
        for warning in collapse_warnings(validator.captions):
            print(f"warning: {warning}")
        return _best(folder, captioner)


def recorder_of(
    folder: RunFolder, config: TrainConfig, validate: Callable[[Any], Mapping[str, float]], batches: Any
) -> RunRecorder:
    """Return the recorder of a captioner's training."""
    return RunRecorder(
        folder,
        validate,
        batches,
        epochs={"crossentropy": config.crossentropy_epochs, "cider": config.cider_epochs},
        patience=config.patience,
        monitor=f"val_{config.monitor}",
        maximize=config.monitor != "loss",
        seed=config.seed,
    )


def _checked(data: Any, config: TrainConfig, model: Any, metrics: Any, tensorboard: bool) -> TrainConfig:
    if not isinstance(data, CaptionData):
        raise TypeError(f"data is a CaptionData, got {quoted(data)}: load it with attncap.load(...)")
    if not isinstance(config, TrainConfig):
        raise TypeError(f"config is a TrainConfig, got {quoted(config)}: write attncap.TrainConfig(epochs=2)")
    if tensorboard and importlib.util.find_spec("tensorboard") is None:  # else an error after the first epoch
        raise ValueError(
            "tensorboard logs need the package tensorboard, which is not installed: pip install tensorboard"
        )
    metrics = {} if metrics is None else metrics
    if not isinstance(metrics, Mapping) or not all(map(callable, metrics.values())):
        raise TypeError(f"metrics maps names to functions (predictions, references) -> score, got {quoted(metrics)}")
    taken = next((name for name in metrics if name in SCORES), None)
    if taken is not None:
        raise ValueError(f"metrics: {taken!r} is a score of every training: give yours another name")
    monitored = (*SCORES, *metrics)
    if config.monitor not in (None, *monitored):  # else an error after the first epoch
        raise ValueError(f"monitor is one of {', '.join(monitored)}, got {config.monitor!r}")
    if isinstance(model, str):
        return TrainConfig(**{**config.chosen(), "model": model})
    kind = model if isinstance(model, type) else type(model)
    if model is not None and not issubclass(kind, Captioner):
        names = ", ".join(captioner_classes())
        raise ValueError(f"model is a subclass of Captioner, one of {names}, or a captioner, got {quoted(model)}")
    return config


def _check_objects(tokenizer: Any, callbacks: Any) -> None:
    if not isinstance(tokenizer, CaptionTokenizer | None):
        raise TypeError(f"tokenizer is a CaptionTokenizer, such as a WordTokenizer, got {quoted(tokenizer)}")
    check_list(callbacks, "callbacks", "Keras callbacks")
    wrong = next((one for one in callbacks if not isinstance(one, keras.callbacks.Callback)), None)
    if wrong is not None:
        raise TypeError(f"callbacks is a list of keras.callbacks.Callback, it holds {quoted(wrong)}")


def _best(folder: RunFolder, captioner: Captioner) -> Captioner:
    with keras.saving.custom_object_scope({type(captioner).__name__: type(captioner)}):
        return load_captioner(folder.best_file)
