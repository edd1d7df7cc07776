"""`fit_head`: train the head on stored features, epoch by epoch, so that a killed training can go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from attncap._files import write_csv
from attncap.attributes.classifier import AttributeClassifier, save_classifier
from attncap.attributes.config import AttributeConfig
from attncap.attributes.losses import MISSING, MaskedBinaryCrossentropy
from attncap.attributes.predict import stored_logits
from attncap.attributes.tables import AttributeData
from attncap.features.store import FeatureStore
from attncap.training.callbacks import averaged_weights
from attncap.training.run_folder import RunFolder


class AttributeBatches(keras.utils.PyDataset):
    """Batches of stored features and labels, shuffled by (seed, epoch); half of the images mirrored if wanted."""

    def __init__(self, store: FeatureStore, data: AttributeData, config: AttributeConfig):
        super().__init__()
        self.store, self.paths = store, list(data.pictures["path"])
        self.labels = np.where(np.isfinite(data.labels), data.labels, MISSING).astype(np.float32)
        self.size, self.mirror, self.seed = min(config.batch_size, len(self.paths)), config.mirror, config.seed
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        rng = np.random.default_rng([self.seed, epoch])
        self.epoch, self.order = epoch, rng.permutation(len(self.paths))
        self.flips = rng.random(len(self.paths)) < (0.5 if self.mirror else 0.0)

    def __len__(self) -> int:
        return len(self.paths) // self.size  # an incomplete batch is dropped; each epoch drops other images

    def paths_of(self, index: int) -> list[str]:
        return [self.paths[at] for at in self._rows(index)]

    def _rows(self, index: int) -> np.ndarray:
        return self.order[index * self.size : (index + 1) * self.size]

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self._rows(index)
        return self.store.get(self.paths_of(index), list(self.flips[rows])), self.labels[rows]


class AttributeRecorder(keras.callbacks.Callback):
    """After each epoch: validate the averaged weights, save the best, commit the state, stop in time.

    Args:
        folder: the run.
        config: epochs, patience and seed.
        validate: classifier -> mean average precision on the validation images.
        batches: the training batches.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: AttributeConfig,
        validate: Callable[[AttributeClassifier], float],
        batches: AttributeBatches,
    ):
        super().__init__()
        self.folder, self.config, self.validate, self.batches = folder, config, validate, batches
        self._arrays, self.history = folder.load_state()
        if not all("val_map" in row for row in self.history):
            raise ValueError(f"{folder.state_file}: damaged (an epoch without val_map); start anew in another folder")

    @property
    def best(self) -> float:
        """The highest validation score so far; -1 before the first epoch."""
        return max((row["val_map"] for row in self.history), default=-1.0)

    def finished(self) -> bool:
        """Return whether all epochs are done, or no epoch within `patience` was better."""
        scores = [row["val_map"] for row in self.history]
        without_gain = len(scores) - 1 - int(np.argmax(scores)) if scores else 0
        return len(scores) >= self.config.epochs or without_gain >= self.config.patience

    def restore(self, classifier: AttributeClassifier) -> None:
        """Assign the weights and the optimizer's state of the last committed epoch, where there is one."""
        if not self._arrays:
            return
        variables = _state(classifier)
        shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
        if {name: value.shape for name, value in self._arrays.items()} != shapes:
            raise ValueError(f"{self.folder.state_file}: the weights of another model")
        for name, variable in variables.items():
            variable.assign(self._arrays[name])

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.batches.start_epoch(epoch)
        # The random state of dropout depends on (seed, epoch) alone, so it need not be saved.
        states = [variable for variable in self.model.variables if variable.name == "seed_generator_state"]
        for index, variable in enumerate(states):
            variable.assign(np.random.default_rng([self.config.seed, epoch, index]).integers(0, 2**31, 2))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = float((logs or {}).get("loss", 0.0))
        if not np.isfinite(loss):
            names = ", ".join(Path(path).name for path in self.batches.paths_of(batch)[:5])
            raise FloatingPointError(f"the loss is {loss} in batch {batch} (images {names}, ...): lower learning_rate")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = {} if logs is None else logs
        with averaged_weights(self.model):
            logs["val_map"] = self.validate(self.model)
            if logs["val_map"] > self.best:
                save_classifier(self.model, self.folder.best_file)
        self.history.append({"epoch": epoch, **{name: float(value) for name, value in logs.items()}})
        arrays = {name: keras.ops.convert_to_numpy(value) for name, value in _state(self.model).items()}
        self.folder.save_state(arrays, self.history)
        self.model.stop_training = self.finished()


def fit_head(
    classifier: AttributeClassifier,
    store: FeatureStore,
    training: AttributeData,
    validation: AttributeData,
    config: AttributeConfig,
    folder: RunFolder,
    verbose: Any = "auto",
) -> AttributeRecorder:
    """Train the heads of a classifier; `best.keras` in the folder has the weights of the best epoch.

    A folder with committed epochs is resumed: batches, dropout and the schedule depend on the epoch alone.
    """
    batches = AttributeBatches(store, training, config)
    classifier.compile(
        optimizer=_optimizer(config, len(batches)),
        loss=loss_of(config, training.labels),
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    paths = list(validation.pictures["path"])
    recorder = AttributeRecorder(
        folder,
        config,
        lambda model: mean_average_precision(stored_logits(model, store, paths), validation.labels),
        batches,
    )
    classifier.optimizer.build(classifier.trainable_variables)
    recorder.restore(classifier)
    if not recorder.finished():
        start = len(recorder.history)
        classifier.fit(
            batches, epochs=config.epochs, initial_epoch=start, callbacks=[recorder], shuffle=False, verbose=verbose
        )
    return recorder


def fit_linear(
    classifier: AttributeClassifier,
    store: FeatureStore,
    training: AttributeData,
    validation: AttributeData,
    folder: RunFolder,
) -> float:
    """Fit the `LinearHead` of a classifier and save it as `best.keras`; return the validation average precision."""
    head = classifier.heads[0]

    def pooled(data: AttributeData) -> np.ndarray:
        paths = list(data.pictures["path"])
        parts = [
            head.pooled(store.get(paths[at : at + 64]).reshape(-1, classifier.feature_size))
            for at in range(0, len(paths), 64)
        ]
        return np.concatenate([keras.ops.convert_to_numpy(part) for part in parts])

    loss = head.fit(pooled(training), training.labels, pooled(validation), validation.labels)
    logits = stored_logits(classifier, store, list(validation.pictures["path"]))
    score = mean_average_precision(logits, validation.labels)
    write_csv(folder.history_file, pd.DataFrame([{"epoch": 0, "val_loss": loss, "val_map": score}]))
    save_classifier(classifier, folder.best_file)
    return score


def mean_average_precision(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean over the attributes that have both classes here."""
    scores = []
    for logit, label in zip(logits.T, labels.T, strict=True):
        known = np.isfinite(label)
        if len(np.unique(label[known])) == 2:
            scores.append(average_precision_score(label[known] > 0.5, logit[known]))
    return float(np.mean(scores)) if scores else 0.0


def loss_of(config: AttributeConfig, labels: np.ndarray) -> MaskedBinaryCrossentropy:
    """Return the loss that the settings ask for; `labels` (N, A) give the class weights."""
    smoothing = config.label_smoothing
    if config.balance == "focal":
        return MaskedBinaryCrossentropy(focal_gamma=2.0, label_smoothing=smoothing)
    if config.balance == "none":
        return MaskedBinaryCrossentropy(label_smoothing=smoothing)
    share = np.nanmean(labels, axis=0)
    # Both classes of an attribute have the same total weight, within limits: a few images must not outweigh the rest.
    positive, negative = (np.clip(0.5 / part, 0.5, 10.0) for part in (share, 1 - share))
    return MaskedBinaryCrossentropy(positive.tolist(), negative.tolist(), label_smoothing=smoothing)


def _optimizer(config: AttributeConfig, steps: int) -> keras.optimizers.Optimizer:
    warmup = steps // 2
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, config.epochs * steps - warmup), 0.01, warmup_target=config.learning_rate, warmup_steps=warmup
    )
    horizon = config.ema_epochs * steps
    return keras.optimizers.AdamW(
        schedule if steps > 1 else config.learning_rate,
        weight_decay=config.weight_decay,
        use_ema=horizon > 0,
        ema_momentum=1 - 1 / max(2.0, horizon),
    )


def _state(classifier: AttributeClassifier) -> dict[str, Any]:
    # The encoder is frozen and the familiarity fixed: only heads, with their batch statistics, and optimizer change.
    heads = [
        variable for head in classifier.heads for variable in head.variables if variable.name != "seed_generator_state"
    ]
    weights = {f"weight_{index}": variable for index, variable in enumerate(heads)}
    return weights | {f"optimizer_{index}": value for index, value in enumerate(classifier.optimizer.variables)}
