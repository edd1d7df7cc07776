"""The part of every batch that each replica of a shared training reads: equally many rows."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from attncap.decoding.compilation import filled
from attncap.tokenizers import PAD
from attncap.training.batches import CaptionBatches, dataset_of


class Shares(keras.utils.PyDataset):
    """The rows of each batch that the replicas of this process read.

    Args:
        batches: of all replicas; every process has the same ones, in the same order.
        replicas: how many share a batch.
        own: which of them are here.

    Example:
        >>> Shares(batches, 4, range(1, 2))[0]  # of a batch of 10 images, those from 3 to 5
    """

    def __init__(self, batches: CaptionBatches, replicas: int, own: range):
        super().__init__()
        self.batches = batches
        self.replicas = replicas
        self.own = own

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Any:
        each = self.rows(index) // self.replicas
        return self.part(index, self.own.start * each, self.own.stop * each)

    def rows(self, index: int) -> int:
        """Return how many rows batch `index` has, including those that fill it up."""
        return -(-len(self.batches.image_ids(index)) // self.replicas) * self.replicas

    def part(self, index: int, start: int, stop: int) -> Any:
        """Return rows start to stop of batch `index`; beyond its end they are zeros: no token, and no region."""
        inputs, targets = self.batches.part(index, slice(start, stop))
        rows = stop - start
        return {name: filled(values, rows) for name, values in inputs.items()}, filled(targets, rows)

    def for_fit(self) -> Any:
        return self


class MirroredShares(Shares):
    """Whole batches, for a TensorFlow strategy that gives each device an equal part of the rows.

    A device's loss is the mean over its own real tokens. The weight of a caption is its device's share of the tokens of
    the batch, so that the sum over devices is the mean over all.
    """

    def part(self, index: int, start: int, stop: int) -> Any:
        """Return rows start to stop of batch `index`, and the weight (B, K) of each caption."""
        inputs, targets = super().part(index, start, stop)
        tokens = (targets != PAD).sum(axis=(1, 2)).reshape(self.replicas, -1).sum(axis=1)  # (replicas,)
        weights = np.repeat(tokens / tokens.sum(), len(targets) // self.replicas)  # (B,)
        return inputs, targets, np.repeat(weights[:, None], targets.shape[1], axis=1).astype(np.float32)

    def for_fit(self) -> Any:
        """Return a `tf.data.Dataset` of all rows of each batch, which Keras distributes."""
        import tensorflow as tf

        inputs, tokens = self.batches.signature()
        signature = (inputs, tokens, tf.TensorSpec(tokens.shape[:2], tf.float32))
        return dataset_of(self, signature)


class LossOfRealImages(keras.callbacks.Callback):
    """The mean loss of an epoch, each batch weighted by its images.

    Keras weights a batch by all its rows, including those that fill it up and do not exist on one device.

    Args:
        shares: of the training.
    """

    def __init__(self, shares: Shares):
        super().__init__()
        self.shares = shares

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._sum = self._rows = 0.0  # of loss times rows, and of rows
        self._real_sum = self._images = 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        rows, images = self.shares.rows(batch), len(self.shares.batches.image_ids(batch))
        before, self._rows = self._sum, self._rows + rows
        self._sum = float((logs or {})["loss"]) * self._rows  # Keras gives the mean of the epoch so far
        self._real_sum += (self._sum - before) * images / rows
        self._images += images

    def corrected(self) -> dict[str, float]:
        """Return {"loss": the epoch's mean}, or nothing if no batch was filled up: the loss of Keras is then right."""
        return {} if self._images == self._rows else {"loss": self._real_sum / self._images}
