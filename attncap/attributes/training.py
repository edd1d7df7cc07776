"""Training of the multi-label classifier: from a table of attributes to a run folder with everything in one file."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score

from attncap._files import replacing
from attncap.attributes.classifier import (
    MISSING,
    AttributeClassifier,
    MaskedBinaryCrossentropy,
    load_classifier,
    save_classifier,
)
from attncap.attributes.encoder import GridEncoder
from attncap.attributes.finetuning import fine_tune
from attncap.attributes.metrics import AttributeReport, calibrate, report, tune_thresholds
from attncap.attributes.predict import readable_pictures, stored_logits
from attncap.attributes.tables import AttributeData
from attncap.data.load import cache_folder
from attncap.features.store import FeatureStore
from attncap.training.callbacks import averaged_weights
from attncap.training.run_folder import RunFolder, environment

BALANCES = ("none", "weights", "focal")


@dataclass(frozen=True)
class AttributeConfig:
    """Every setting of a training of attributes, each with its reason. Saved as `config.json` in the run folder."""

    weights: str = "imagenet"  # encoder weights: imagenet, faces, random, or a file
    backbone: str = "InceptionV3"  # or another model of keras.applications, by name
    layers: str = ""  # such as mixed5@6,mixed8@4; empty: the encoder's own choice
    image_size: int = 0  # side of the input square; 0: the encoder's own choice
    projection_units: int = 128  # numbers kept of a cell: with 24 four points of average precision less than with 64
    hidden_units: int = 0  # none: on 1,248 faces 0.587 of average precision, with 512 it was 0.539
    dropout: float = 0.5  # thousands of inputs for thousands of pictures
    members: int = 2  # heads whose logits are averaged
    mirror: bool = True  # mirrored pictures in training, and averaged at prediction: no attribute has a side
    balance: str = "none"  # calibration and thresholds mend imbalance afterwards; or "weights", "focal"
    label_smoothing: float = 0.0  # labels of attributes are noisy; calibration undoes the shift
    aim: str = "f1"  # what thresholds serve: f1, balanced_accuracy, accuracy or precision:P
    pictures: int = 64  # a batch; small data sets want many steps
    epochs: int = 15  # the cosine ends here; early stopping ends before
    learning_rate: float = 1e-3  # AdamW's peak
    weight_decay: float = 0.05  # AdamW's; the head has millions of weights
    ema_epochs: float = 1.0  # horizon of the average of weights that is validated and saved; 0 turns it off
    patience: int = 4  # epochs without a better validation average precision before stopping
    fine_tune_blocks: int = 0  # last blocks of the encoder trained after the head; 0: the encoder stays as it is
    fine_tune_epochs: int = 2  # each is a pass through the whole network, there and back
    fine_tune_rate: float = 1e-4  # small: pretrained weights are near a good place
    dtype: str = "float32"  # of the head, which is small; the encoder takes bfloat16 where the processor has it
    seed: int = 0  # of weights, batches, dropout; the split's is its own

    def __post_init__(self) -> None:
        for name in ("pictures", "epochs", "members", "patience", "fine_tune_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.balance not in BALANCES:
            raise ValueError(f"balance is one of {', '.join(BALANCES)}, got {self.balance!r}")
        tune_thresholds(np.zeros((1, 1)), np.zeros((1, 1)), self.aim)  # an unknown aim is found before the work

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> AttributeConfig:
        """Make a configuration of a dictionary; an unknown setting is an error that lists the known ones."""
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise ValueError(f"unknown settings {', '.join(unknown)}; known: {', '.join(known)}")
        return cls(**settings)


class AttributeBatches(keras.utils.PyDataset):
    """Batches of stored features and labels, shuffled by (seed, epoch); half of the pictures mirrored if wanted."""

    def __init__(self, store: FeatureStore, data: AttributeData, config: AttributeConfig):
        super().__init__()
        self.store, self.paths = store, list(data.pictures["path"])
        self.labels = np.where(np.isfinite(data.labels), data.labels, MISSING).astype(np.float32)
        self.size, self.mirror, self.seed = min(config.pictures, len(self.paths)), config.mirror, config.seed
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        rng = np.random.default_rng([self.seed, epoch])
        self.epoch, self.order = epoch, rng.permutation(len(self.paths))
        self.flips = rng.random(len(self.paths)) < (0.5 if self.mirror else 0.0)

    def on_epoch_end(self) -> None:
        self.start_epoch(self.epoch + 1)

    def __len__(self) -> int:
        return len(self.paths) // self.size  # what is left over comes in another epoch: the order is another

    def paths_of(self, index: int) -> list[str]:
        return [self.paths[at] for at in self._rows(index)]

    def _rows(self, index: int) -> np.ndarray:
        return self.order[index * self.size : (index + 1) * self.size]

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self._rows(index)
        return self.store.get(self.paths_of(index), list(self.flips[rows])), self.labels[rows]


def train_attributes(
    data: AttributeData,
    run: str | Path,
    config: AttributeConfig | None = None,
    *,
    features: str | Path | None = None,
    verbose: Any = "auto",
) -> tuple[AttributeClassifier, AttributeReport]:
    """Train a classifier: features, head, best epoch by validation, perhaps fine-tuning, calibration, thresholds.

    Args:
        data: from `load_attributes`; "train" is trained on, "val" chooses epoch, calibration and thresholds, "test" is
            not looked at.
        run: run folder: `best.keras`, `config.json`, `manifest.json`, `history.csv`, `split.csv`, `rejects.csv`.
        config: settings.
        features: folder of feature stores, shared by runs; default `features` in the cache folder.
        verbose: of Keras's `fit`.

    Returns:
        classifier: as saved in `best.keras`.
        report: its measures on the validation pictures, which its thresholds were tuned on.

    Raises:
        ValueError: no training or validation pictures, an attribute with one class only, a folder that holds a run.
        FloatingPointError: the loss is not a number.
    """
    config = config or AttributeConfig()
    folder = RunFolder(run)
    try:
        keras.utils.set_random_seed(config.seed)
        for split in ("train", "val"):
            if not len(data.split(split).pictures):
                raise ValueError(f"{data.name}: no {split} pictures: give the table more, or another split")
        check_classes(data.split("train"))
        layers = [name for name in config.layers.split(",") if name.strip()] or None
        encoder = GridEncoder(layers, config.weights, config.image_size or None, config.backbone)
        store = FeatureStore(features or cache_folder() / "features", encoder)
        wanted = data.rows((data.pictures["split"] != "test").to_numpy())
        readable = readable_pictures(wanted, store, config.mirror, folder.rejects_file)
        training, validation = readable.split("train"), readable.split("val")
        check_classes(training)
        folder.write_json(folder.config_file, asdict(config))
        with replacing(folder.path / "split.csv") as temporary:
            data.pictures[["image_id", "split"]].to_csv(temporary, index=False)
        folder.write_json(folder.manifest_file, _manifest(data, training, validation, store))
        classifier = AttributeClassifier(
            data.names,
            encoder,
            members=config.members,
            projection_units=config.projection_units,
            hidden_units=config.hidden_units,
            dropout=config.dropout,
            mirror=config.mirror,
            dtype=config.dtype,
        )
        recorder = _fit(classifier, store, training, validation, config, folder, verbose)
        classifier = load_classifier(folder.best_file)
        if config.fine_tune_blocks:
            classifier, logits = fine_tune(
                classifier,
                training,
                validation,
                loss=_loss(config, training.labels),
                blocks=config.fine_tune_blocks,
                epochs=config.fine_tune_epochs,
                learning_rate=config.fine_tune_rate,
                seed=config.seed,
                score=mean_average_precision,
                best=recorder.best,
            )
        else:
            logits = stored_logits(classifier, store, list(validation.pictures["path"]))
        probs = settle(classifier, logits, validation.labels, config.aim)
        save_classifier(classifier, folder.best_file)
        majority = np.nanmean(training.labels, axis=0) > 0.5
        return classifier, report(probs, validation.labels, data.names, classifier.thresholds, majority)
    except ValueError:  # unfit data or settings: where nothing has begun, the folder stays free for the next try
        if not folder.manifest_file.exists():
            folder.config_file.unlink(missing_ok=True)
        raise
    finally:
        folder.close()


def settle(classifier: AttributeClassifier, logits: np.ndarray, labels: np.ndarray, aim: str) -> np.ndarray:
    """Calibrate and tune thresholds on the logits (N, A) of labeled pictures; return their probabilities."""
    slopes, offsets = calibrate(logits, labels)
    classifier.set_answers(slopes=list(slopes), offsets=list(offsets))
    probs = classifier.calibrated(logits)
    classifier.set_answers(list(tune_thresholds(probs, labels, aim)), list(slopes), list(offsets))
    return probs


def check_classes(data: AttributeData) -> None:
    """Raise ValueError where an attribute has one class only among these pictures: nothing can be learned of it."""
    for name, labels in zip(data.names, data.labels.T, strict=True):
        known = labels[np.isfinite(labels)]
        if len(np.unique(known)) < 2:
            found = f"all {len(known):,} known labels are {known[0]:.0f}" if len(known) else "no label is known"
            raise ValueError(
                f"{data.name}: attribute {name!r} has one class only among {len(data.pictures):,} training pictures "
                f"({found}): leave the column out, or add pictures of the other class"
            )


def mean_average_precision(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean over the attributes that have both classes here."""
    scores = []
    for logit, label in zip(logits.T, labels.T, strict=True):
        known = np.isfinite(label)
        if len(np.unique(label[known])) == 2:
            scores.append(average_precision_score(label[known] > 0.5, logit[known]))
    return float(np.mean(scores)) if scores else 0.0


# ---------------------------------------------------------------- the work


class _Recorder(keras.callbacks.Callback):
    """After each epoch: validate the averaged weights, keep the best in the run folder, stop in time."""

    def __init__(self, folder: RunFolder, config: AttributeConfig, validate: Any, batches: AttributeBatches):
        super().__init__()
        self.folder, self.config, self.validate, self.batches = folder, config, validate, batches
        self.history: list[dict[str, float]] = []
        self.best = -1.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = float((logs or {}).get("loss", 0.0))
        if not np.isfinite(loss):
            names = ", ".join(Path(path).name for path in self.batches.paths_of(batch)[:5])
            raise FloatingPointError(
                f"the loss is {loss} in batch {batch} (pictures {names}, ...): lower learning_rate"
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = {} if logs is None else logs
        with averaged_weights(self.model):
            logs["val_map"] = self.validate(self.model)
            if logs["val_map"] > self.best:
                self.best = logs["val_map"]
                save_classifier(self.model, self.folder.best_file)
        self.history.append({"epoch": epoch, **{name: float(value) for name, value in logs.items()}})
        with replacing(self.folder.history_file) as temporary:
            pd.DataFrame(self.history).to_csv(temporary, index=False)
        scores = [row["val_map"] for row in self.history]
        self.model.stop_training = len(scores) - 1 - int(np.argmax(scores)) >= self.config.patience


def _fit(
    classifier: AttributeClassifier,
    store: FeatureStore,
    training: AttributeData,
    validation: AttributeData,
    config: AttributeConfig,
    folder: RunFolder,
    verbose: Any,
) -> _Recorder:
    batches = AttributeBatches(store, training, config)
    steps = config.epochs * len(batches)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - len(batches) // 2), 0.01, warmup_target=config.learning_rate, warmup_steps=len(batches) // 2
    )
    horizon = config.ema_epochs * len(batches)
    optimizer = keras.optimizers.AdamW(
        schedule if len(batches) > 1 else config.learning_rate,
        weight_decay=config.weight_decay,
        use_ema=horizon > 0,
        ema_momentum=1 - 1 / max(2.0, horizon),
    )
    classifier.compile(
        optimizer=optimizer,
        loss=_loss(config, training.labels),
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    paths = list(validation.pictures["path"])
    recorder = _Recorder(
        folder,
        config,
        lambda model: mean_average_precision(stored_logits(model, store, paths), validation.labels),
        batches,
    )
    classifier.fit(batches, epochs=config.epochs, callbacks=[recorder], shuffle=False, verbose=verbose)
    return recorder


def _loss(config: AttributeConfig, labels: np.ndarray) -> MaskedBinaryCrossentropy:
    smoothing = config.label_smoothing
    if config.balance == "focal":
        return MaskedBinaryCrossentropy(focal_gamma=2.0, label_smoothing=smoothing)
    if config.balance == "none":
        return MaskedBinaryCrossentropy(label_smoothing=smoothing)
    share = np.nanmean(labels, axis=0)
    # Each class weighs the same in all; a class of a handful of pictures is not to outweigh everything.
    positive, negative = (np.clip(0.5 / part, 0.5, 10.0) for part in (share, 1 - share))
    return MaskedBinaryCrossentropy(positive.tolist(), negative.tolist(), label_smoothing=smoothing)


def _manifest(
    data: AttributeData, training: AttributeData, validation: AttributeData, store: FeatureStore
) -> dict[str, Any]:
    return {
        "data": data.summary(),
        "attributes": list(data.names),
        "train": _digest(training),
        "val": _digest(validation),
        "train_share": [round(float(share), 6) for share in np.nanmean(training.labels, axis=0)],
        "features": store.fingerprint,
        **environment(),
    }


def _digest(data: AttributeData) -> dict[str, Any]:
    digest = hashlib.blake2b(digest_size=16)
    digest.update("\0".join(data.pictures["image_id"]).encode("utf-8", "surrogatepass"))
    digest.update(np.nan_to_num(data.labels, nan=MISSING).astype("<f4").tobytes())
    return {"pictures": len(data.pictures), "digest": digest.hexdigest()}
