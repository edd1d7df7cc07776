"""`fit_head`: train the heads of a classifier on stored features. An interrupted training can be resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from attncap.attributes.classifier import AttributeClassifier, save_classifier
from attncap.attributes.config import AttributeConfig
from attncap.attributes.losses import MISSING, MaskedBinaryCrossentropy
from attncap.attributes.metrics import average_precisions
from attncap.attributes.predict import stored_logits
from attncap.attributes.tables import AttributeData
from attncap.features.store import FeatureStore
from attncap.training.callbacks import RunRecorder
from attncap.training.fit import averaging, cosine_schedule
from attncap.training.progress import ProgressTable
from attncap.training.run_folder import RunFolder


class LabelBatches(keras.utils.PyDataset):
    """Base class of shuffled batches of inputs and labels. Subclasses implement `inputs`.

    Args:
        data: images and labels. An unknown label becomes `MISSING`.
        batch_size: images per batch. An incomplete last batch is dropped; each epoch has another order.
        mirror: select each image for mirroring with probability 1/2, in `flips`.
        seed: seed of the order and the mirroring, together with the epoch.
    """

    def __init__(self, data: AttributeData, batch_size: int, mirror: bool, seed: int):
        super().__init__()
        self.paths = list(data.pictures["path"])
        self.labels = np.where(np.isfinite(data.labels), data.labels, MISSING).astype(np.float32)
        self.size, self.mirror, self.seed = min(batch_size, len(self.paths)), mirror, seed
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        rng = np.random.default_rng([self.seed, epoch])
        self.epoch, self.order = epoch, rng.permutation(len(self.paths))
        self.flips = rng.random(len(self.paths)) < (0.5 if self.mirror else 0.0)

    def __len__(self) -> int:
        return len(self.paths) // self.size

    def image_ids(self, index: int) -> list[str]:
        """Return the file names of a batch, for error messages."""
        return [Path(self.paths[at]).name for at in self._rows(index)]

    def _rows(self, index: int) -> np.ndarray:
        return self.order[index * self.size : (index + 1) * self.size]

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self._rows(index)
        return self.inputs(rows), self.labels[rows]

    def inputs(self, rows: np.ndarray) -> np.ndarray:
        """Return the inputs of the network for the images in these rows of the data."""
        raise NotImplementedError


class StoredBatches(LabelBatches):
    """Batches of stored features and labels. With `config.mirror`, about half of the images are mirrored."""

    def __init__(self, store: FeatureStore, data: AttributeData, config: AttributeConfig):
        self.store = store
        super().__init__(data, config.batch_size, config.mirror, config.seed)

    def inputs(self, rows: np.ndarray) -> np.ndarray:
        return self.store.get([self.paths[at] for at in rows], list(self.flips[rows]))


class StoredImages(NamedTuple):
    """The readable training and validation images, and the store that contains their features."""

    training: AttributeData
    validation: AttributeData
    store: FeatureStore


def fit_head(
    classifier: AttributeClassifier, images: StoredImages, config: AttributeConfig, folder: RunFolder, verbose: Any
) -> float:
    """Train the heads of a classifier, and save the best epoch as `best.keras` in the run folder.

    If the folder contains completed epochs, training continues after them. Batches, dropout and learning rate depend
    only on the settings and the epoch, not on the interruption.

    Args:
        classifier: untrained classifier; changed in place.
        images: training and validation images with their stored features.
        config: settings of the training.
        folder: run folder.
        verbose: 0 or False prints nothing; for other values see `train_attributes`.

    Returns:
        score: mean average precision of the best epoch on the validation images.
    """
    training, validation, store = images
    batches = StoredBatches(store, training, config)
    classifier.compile(
        optimizer=_optimizer(config, len(batches)),
        loss=loss_of(config, training.labels),
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    paths, labels = list(validation.pictures["path"]), validation.labels

    def validate(model: AttributeClassifier) -> dict[str, float]:
        logits = stored_logits(model, store, paths)
        return {"val_loss": known_loss(logits, labels), "val_map": mean_average_precision(logits, labels)}

    recorder = RunRecorder(
        folder,
        validate,
        batches,
        epochs={"crossentropy": config.epochs},
        patience=config.patience,
        # Most statements occur in few validation texts. Their average precision is then too noisy; the loss is not.
        monitor="val_loss" if classifier.attention else "val_map",
        maximize=not classifier.attention,
        seed=config.seed,
        save=save_classifier,
        variables_of=_trained_variables,
    )
    classifier.optimizer.build(classifier.trainable_variables)
    recorder.restore(classifier)
    if not recorder.finished():
        classifier.fit(
            batches,
            epochs=config.epochs,
            initial_epoch=len(recorder.history),
            callbacks=[recorder, *([] if verbose in (0, False) else [ProgressTable(recorder, verbose)])],
            shuffle=False,  # StoredBatches shuffles, by seed and epoch
            verbose=0,
        )
    return float(recorder.history[recorder.best_epoch()]["val_map"])


def known_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Compute the mean binary cross-entropy of logits, shape (N, A), over the known labels (not NaN), in nats."""
    known = np.isfinite(labels)
    return float((np.logaddexp(0, logits) - np.where(known, labels, 0) * logits)[known].mean())


def mean_average_precision(logits: np.ndarray, labels: np.ndarray) -> float:
    """Compute the mean of the average precisions of the attributes that have both classes; 0 if none has."""
    return float(np.mean(list(average_precisions(logits, labels).values()) or [0.0]))


def loss_of(config: AttributeConfig, labels: np.ndarray) -> MaskedBinaryCrossentropy:
    """Create the loss for the setting `balance`. Class weights are computed from the labels, shape (N, A)."""
    smoothing = config.label_smoothing
    if config.balance == "focal":
        return MaskedBinaryCrossentropy(focal_gamma=2.0, label_smoothing=smoothing)
    if config.balance == "none":
        return MaskedBinaryCrossentropy(label_smoothing=smoothing)
    share = np.nanmean(labels, axis=0)
    # Give both classes of an attribute the same total weight. The limits keep a few images from dominating the loss.
    positive, negative = (np.clip(0.5 / part, 0.5, 10.0) for part in (share, 1 - share))
    return MaskedBinaryCrossentropy(positive.tolist(), negative.tolist(), label_smoothing=smoothing)


def _optimizer(config: AttributeConfig, steps: int) -> keras.optimizers.Optimizer:
    schedule = cosine_schedule(config.learning_rate, config.epochs * steps, steps // 2)
    rate = schedule if steps > 1 else config.learning_rate
    return keras.optimizers.AdamW(rate, weight_decay=config.weight_decay, **averaging(config.ema_epochs * steps))


def _trained_variables(classifier: AttributeClassifier) -> list[Any]:
    # Only the heads change during training, including their batch normalization statistics.
    variables = [variable for head in classifier.heads for variable in head.variables]
    return [variable for variable in variables if variable.name != "seed_generator_state"]
