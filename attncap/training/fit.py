"""Run a training: epochs of cross-entropy, then, if asked for, epochs on the score itself."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import keras

from attncap.models.captioner import Captioner
from attncap.models.losses import MaskedCrossentropy
from attncap.models.trainable_encoder import EncoderTail
from attncap.training.batches import CaptionBatches
from attncap.training.callbacks import RunRecorder, use_averaged_weights
from attncap.training.config import TrainConfig
from attncap.training.finetuning import FinetuningAdamW
from attncap.training.progress import ProgressTable
from attncap.training.self_critical import SelfCriticalTrainer


def fit(
    captioner: Captioner,
    batches: CaptionBatches,
    recorder: RunRecorder,
    config: TrainConfig,
    *,
    optimizer: keras.optimizers.Optimizer | None = None,
    loss: Any = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: Any = "auto",
) -> None:
    """Fit a captioner by the configuration's objective; a resumed run continues in the phase that it was in.

    Training on the score begins with the averaged weights of cross-entropy and a new optimizer.

    Args:
        captioner: not compiled.
        batches: of the training split.
        recorder: knows which epochs are done, and commits the others.
        config: objective, epochs and the optimizers' settings.
        optimizer: for cross-entropy; default: `optimizer_of` the settings.
        loss: for cross-entropy; default: `MaskedCrossentropy`.
        callbacks: more Keras callbacks.
        verbose: 0 prints no progress, 2 a row per epoch, else also a progress bar.
    """
    keep_freed_memory()
    every = [recorder, *callbacks]
    if verbose not in (0, False):
        every.append(ProgressTable(recorder, verbose))
    on_score = recorder.epochs_of("cider") > 0
    if config.crossentropy_epochs and not on_score:
        captioner.compile(
            optimizer=optimizer or optimizer_of(config, len(batches), tail=captioner.tail),
            loss=loss or MaskedCrossentropy(config.label_smoothing),
            # `ops.scan` does not compile under XLA on TensorFlow.
            jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
        )
        captioner.optimizer.build(captioner.trainable_variables)
        recorder.restore(captioner)
        if not recorder.finished("crossentropy"):
            captioner.fit(
                batches.for_fit(),
                initial_epoch=len(recorder.history),
                epochs=config.crossentropy_epochs,
                callbacks=every,
                shuffle=False,  # CaptionBatches shuffles, by seed and epoch
                verbose=0,
            )
        if config.objective == "cider":
            use_averaged_weights(captioner)
    if config.objective == "cider":
        trainer = SelfCriticalTrainer(
            captioner,
            optimizer_of(config, len(batches), "cider", captioner.tail),
            batches,
            samples=config.cider_samples,
            temperature=config.cider_temperature,
            bleu=config.cider_bleu,
            crossentropy=config.cider_crossentropy,
            seed=config.seed,
        )
        if on_score:
            recorder.restore(captioner)
        if not recorder.finished("cider"):
            trainer.fit(
                recorder.epochs_of("crossentropy") + config.cider_epochs,
                initial_epoch=len(recorder.history),
                callbacks=every,
            )


def keep_freed_memory() -> None:
    """Let the C library keep the memory that a step frees for the next one, where the library is glibc.

    By default glibc returns blocks above 32 MB to the system, and every step pays for getting their pages again.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return
    trim_threshold, mmap_threshold = -1, -3
    mallopt(mmap_threshold, 2**30)
    mallopt(trim_threshold, 2**31 - 1)


def optimizer_of(
    config: TrainConfig, steps_per_epoch: int, objective: str = "crossentropy", tail: EncoderTail | None = None
) -> keras.optimizers.Optimizer:
    """Return AdamW with warm-up and a cosine schedule that ends with the last epoch; a tail has a lower rate."""
    config = config.with_model_defaults()
    on_score = objective == "cider"
    learning_rate = config.cider_learning_rate if on_score else config.learning_rate
    steps = steps_per_epoch * (config.cider_epochs if on_score else config.crossentropy_epochs)
    schedule = cosine_schedule(learning_rate, steps, max(1, int(config.warmup * steps)))
    settings: dict[str, Any] = {"weight_decay": config.weight_decay, "global_clipnorm": config.clip_norm}
    settings |= averaging(config.ema_epochs * steps_per_epoch)
    if tail is None or not tail.trainable:
        return keras.optimizers.AdamW(schedule, **settings)
    return FinetuningAdamW(schedule, slow=tail.trainable_variables, factor=config.finetune_rate, **settings)


def cosine_schedule(learning_rate: float, steps: int, warmup: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Return a schedule that rises for `warmup` steps and falls to 1% of the rate at the last of all `steps`."""
    decay = max(1, steps - warmup)
    return keras.optimizers.schedules.CosineDecay(0.0, decay, 0.01, warmup_target=learning_rate, warmup_steps=warmup)


def averaging(horizon: float) -> dict[str, Any]:
    """Return an optimizer's settings that average the weights over a horizon of steps; none where it is 0."""
    return {"use_ema": True, "ema_momentum": 1.0 - 1.0 / max(2.0, horizon)} if horizon > 0 else {}
