"""`fine_tune`: fine-tune the last blocks of the encoder and the trained heads on image files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from attncap.attributes.classifier import AttributeClassifier
from attncap.attributes.config import AttributeConfig
from attncap.attributes.fit import LabelBatches, loss_of, mean_average_precision
from attncap.attributes.predict import image_logits
from attncap.attributes.tables import AttributeData
from attncap.images import open_image

BATCH_SIZE = 32  # images per step; small, because training keeps the activations of the layers in memory


class ImageBatches(LabelBatches):
    """Batches of pixels and labels, with random augmentation.

    Each image is cropped to 90 to 100% of each side, and made brighter or darker by up to 15%. With `mirror`, it is
    mirrored with probability 1/2.
    """

    def __init__(self, data: AttributeData, preprocess: Any, batch_size: int, mirror: bool, seed: int):
        self.preprocess = preprocess
        super().__init__(data, batch_size, mirror, seed)

    def inputs(self, rows: np.ndarray) -> np.ndarray:
        with ThreadPoolExecutor(4) as pool:
            return np.stack(list(pool.map(self._augmented, rows)))  # (B, size, size, 3)

    def _augmented(self, row: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, self.epoch, int(row)])
        image = open_image(self.paths[row])
        width, height = image.size
        sides = 0.9 + 0.1 * rng.random(2)
        left, top = rng.random(2) * (1 - sides)
        box = (left * width, top * height, (left + sides[0]) * width, (top + sides[1]) * height)
        pixels = self.preprocess(image.crop(tuple(int(round(value)) for value in box)))  # type: ignore[arg-type]
        if self.mirror and rng.random() < 0.5:
            pixels = pixels[:, ::-1]
        return np.clip(pixels * (0.85 + 0.3 * rng.random()), 0, 255).astype(np.uint8)


def fine_tune(
    classifier: AttributeClassifier,
    training: AttributeData,
    validation: AttributeData,
    config: AttributeConfig,
    best: float,
) -> tuple[AttributeClassifier, np.ndarray]:
    """Train the last blocks of the encoder and the heads together, and keep the best weights.

    If no epoch improves the validation score, the weights from before fine-tuning are kept. The batch normalization of
    the encoder keeps its pretrained statistics, because statistics of small batches are inaccurate.

    Args:
        classifier: with trained heads; changed in place.
        training, validation: images that can be read, with their labels.
        config: number of blocks, epochs, learning rate of AdamW with cosine decay, loss, and seed.
        best: mean average precision of the classifier on the validation images.

    Returns:
        classifier: with the best weights; the encoder is frozen again.
        logits: uncalibrated logits of the validation images, float32, shape (N, A).

    Raises:
        ValueError: the classifier has no encoder, or the encoder has fewer blocks that can be fine-tuned.
    """
    encoder = classifier.encoder
    if encoder is None:
        raise ValueError("fine-tuning needs a classifier with its encoder inside")
    paths = list(validation.pictures["path"])
    logits, _ = image_logits(classifier, paths)
    best = max(best, mean_average_precision(logits, validation.labels))
    encoder.trainable = True
    encoder.unfreeze(config.fine_tune_blocks)
    pixels = keras.Input((encoder.image_size, encoder.image_size, 3), dtype="uint8")
    whole = keras.Model(pixels, classifier(encoder(pixels)))
    batches = ImageBatches(training, encoder.preprocess, BATCH_SIZE, classifier.mirror, config.seed)
    epochs = config.fine_tune_epochs
    schedule = keras.optimizers.schedules.CosineDecay(config.fine_tune_rate, max(1, epochs * len(batches)), 0.05)
    whole.compile(
        optimizer=keras.optimizers.AdamW(schedule, weight_decay=0.01, global_clipnorm=5.0),
        loss=loss_of(config, training.labels),
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    kept = classifier.get_weights()
    for epoch in range(epochs):
        batches.start_epoch(epoch)
        whole.fit(batches, epochs=epoch + 1, initial_epoch=epoch, shuffle=False, verbose="auto")
        found, _ = image_logits(classifier, paths)
        value = mean_average_precision(found, validation.labels)
        print(f"fine-tuning, epoch {epoch + 1}: validation {value:.4f}, best before {best:.4f}")
        if value > best:
            best, kept, logits = value, classifier.get_weights(), found
    classifier.set_weights(kept)
    encoder.trainable = False
    return classifier, logits
