"""Several devices of one machine on TensorFlow: `tf.distribute.MirroredStrategy`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from attncap.training.batches import CaptionBatches
from attncap.training.config import TrainConfig
from attncap.training.distributed.base import SharedTraining
from attncap.training.distributed.shares import MirroredShares, Shares


class MirroredTraining(SharedTraining):
    """Training on several devices of one machine with TensorFlow's `MirroredStrategy`.

    Each device draws its own dropout masks; everything else is as on one device.

    Args:
        devices: names, as "GPU:0"; None takes every GPU, or every logical CPU where there is no GPU.
    """

    def __init__(self, devices: Sequence[str] | None = None):
        import tensorflow as tf

        found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        self.strategy = tf.distribute.MirroredStrategy(list(devices or (device.name for device in found)))
        self.replicas = self.strategy.num_replicas_in_sync
        self.own = range(self.replicas)

    def check(self, config: TrainConfig) -> None:
        super().check(config)
        for name in ("attention_penalty", "attention_supervision"):
            if getattr(config, name) and self.replicas > 1:
                raise ValueError(
                    f"{name} is {getattr(config, name)}: TensorFlow's devices would each take the mean over their own "
                    "maps, not the batch's: train with KERAS_BACKEND=jax, or on one device without --distributed"
                )

    def scope(self) -> AbstractContextManager[Any]:
        return self.strategy.scope()

    def shares(self, batches: CaptionBatches) -> Shares:
        return MirroredShares(batches, self.replicas, self.own)
