"""`fine_tune`: trains the last blocks of the encoder with the head, from pictures, once the head is there."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from attncap.attributes.classifier import AttributeClassifier
from attncap.attributes.losses import MISSING
from attncap.attributes.predict import picture_logits
from attncap.attributes.tables import AttributeData
from attncap.images import open_image


class PictureBatches(keras.utils.PyDataset):
    """Batches of pixels and labels, shuffled by (seed, epoch), each picture changed a little by chance.

    Half of the pictures mirrored (where wanted), all cut to 90 to 100% of each side and made brighter or darker by up
    to 15%: what an attribute does not depend on.
    """

    def __init__(self, data: AttributeData, preprocess: Any, pictures: int, mirror: bool, seed: int):
        super().__init__()
        self.paths, self.preprocess = list(data.pictures["path"]), preprocess
        self.labels = np.where(np.isfinite(data.labels), data.labels, MISSING).astype(np.float32)
        self.size, self.mirror, self.seed = min(pictures, len(self.paths)), mirror, seed
        self.start_epoch(0)

    def start_epoch(self, epoch: int) -> None:
        self.epoch, self.order = epoch, np.random.default_rng([self.seed, epoch]).permutation(len(self.paths))

    def on_epoch_end(self) -> None:
        self.start_epoch(self.epoch + 1)

    def __len__(self) -> int:
        return len(self.paths) // self.size

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.order[index * self.size : (index + 1) * self.size]
        with ThreadPoolExecutor(4) as pool:
            return np.stack(list(pool.map(self._changed, rows))), self.labels[rows]

    def _changed(self, row: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, self.epoch, int(row)])
        picture = open_image(self.paths[row])
        width, height = picture.size
        sides = 0.9 + 0.1 * rng.random(2)
        left, top = rng.random(2) * (1 - sides)
        box = (left * width, top * height, (left + sides[0]) * width, (top + sides[1]) * height)
        pixels = self.preprocess(picture.crop(tuple(int(round(value)) for value in box)))  # type: ignore[arg-type]
        if self.mirror and rng.random() < 0.5:
            pixels = pixels[:, ::-1]
        return np.clip(pixels * (0.85 + 0.3 * rng.random()), 0, 255).astype(np.uint8)


def fine_tune(
    classifier: AttributeClassifier,
    training: AttributeData,
    validation: AttributeData,
    *,
    loss: keras.losses.Loss,
    blocks: int,
    epochs: int,
    learning_rate: float,
    score: Callable[[np.ndarray, np.ndarray], float],
    best: float,
    pictures: int = 32,
    seed: int = 0,
) -> tuple[AttributeClassifier, np.ndarray]:
    """Train the encoder's last blocks and the head together; keep what validates best, the start included.

    Batch normalization of the encoder keeps the statistics of its pretraining: a small batch would give it poor ones.

    Args:
        classifier: with a trained head; it is changed in place.
        training, validation: pictures that can be read.
        loss: as the head was trained with.
        blocks: of InceptionV3, each up to a `mixedN`; see `GridEncoder.unfreeze`.
        epochs, learning_rate, pictures, seed: of AdamW with a cosine, and of the batches.
        score: (logits, labels) -> the higher the better.
        best: the score of the classifier as it comes; no epoch that is not above it is kept.

    Returns:
        classifier: with the best epoch's weights, encoder frozen again.
        logits: of the validation pictures, shape (N, A), not calibrated.
    """
    encoder = classifier.encoder
    if encoder is None:
        raise ValueError("fine-tuning needs a classifier with its encoder inside")
    start_weights = classifier.get_weights()
    paths = list(validation.pictures["path"])
    logits, _ = picture_logits(classifier, paths)
    best = max(best, score(logits, validation.labels))
    encoder.trainable = True
    encoder.unfreeze(blocks)
    pixels = keras.Input((encoder.image_size, encoder.image_size, 3), dtype="uint8")
    whole = keras.Model(pixels, classifier(encoder(pixels)))
    batches = PictureBatches(training, encoder.preprocess, pictures, classifier.mirror, seed)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, max(1, epochs * len(batches)), 0.05)
    whole.compile(
        optimizer=keras.optimizers.AdamW(schedule, weight_decay=0.01, global_clipnorm=5.0),
        loss=loss,
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    kept = start_weights
    for epoch in range(epochs):
        batches.start_epoch(epoch)
        whole.fit(batches, epochs=epoch + 1, initial_epoch=epoch, shuffle=False, verbose="auto")
        found, _ = picture_logits(classifier, paths)
        value = score(found, validation.labels)
        print(f"fine-tuning, epoch {epoch + 1}: validation {value:.4f}, best before {best:.4f}")
        if value > best:
            best, kept, logits = value, classifier.get_weights(), found
    classifier.set_weights(kept)
    encoder.trainable = False
    return classifier, logits
