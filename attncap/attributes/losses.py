"""`MaskedBinaryCrossentropy`: binary cross-entropy that ignores unknown labels, with optional focal loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

MISSING = -1.0  # marks an unknown label during training; NaN would make all gradients NaN


@keras.saving.register_keras_serializable("attncap")
class MaskedBinaryCrossentropy(keras.losses.Loss):
    """Binary cross-entropy over the known labels, 0 or 1. A label below 0 is unknown and ignored.

        L = sum w (1 - p_t)^gamma (-log p_t) / (number of known labels)

    p_t is the predicted probability of the true class, and w the weight of this class. gamma = 0 gives the usual
    cross-entropy, gamma > 0 the focal loss.

    Args:
        positive_weights, negative_weights: A numbers each: w of label 1 and of label 0 for each attribute. None: 1.
        focal_gamma: gamma. The paper uses 2.
        label_smoothing: s. The labels 0 and 1 become s/2 and 1 - s/2.

    Call arguments:
        y_true: labels, shape (B, A).
        y_pred: logits, shape (B, M, A). The loss is averaged over the M heads.

    Reference: Lin et al. 2017, "Focal loss for dense object detection", eq. 5.
    """

    def __init__(
        self,
        positive_weights: Sequence[float] | None = None,
        negative_weights: Sequence[float] | None = None,
        focal_gamma: float = 0.0,
        label_smoothing: float = 0.0,
        name: str = "masked_binary_crossentropy",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        self.positive_weights = None if positive_weights is None else list(positive_weights)
        self.negative_weights = None if negative_weights is None else list(negative_weights)
        self.focal_gamma = focal_gamma
        self.label_smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        logits = ops.cast(y_pred, "float32")
        labels = ops.cast(y_true, "float32")[:, None, :]  # (B, 1, A)
        known = ops.cast(labels >= 0, "float32")
        is_one = ops.cast(labels > 0.5, "float32")
        target = is_one * (1 - self.label_smoothing) + self.label_smoothing / 2
        loss = ops.softplus(logits) - target * logits  # (B, M, A)
        if self.focal_gamma:
            loss *= ops.sigmoid(logits * (1 - 2 * is_one)) ** self.focal_gamma  # 1 - p_t, without loss of precision
        if self.positive_weights is not None:
            loss *= 1 + is_one * (ops.convert_to_tensor(self.positive_weights, "float32") - 1)
        if self.negative_weights is not None:
            loss *= 1 + (1 - is_one) * (ops.convert_to_tensor(self.negative_weights, "float32") - 1)
        count = ops.maximum(ops.sum(known), 1.0) * ops.shape(logits)[1]
        return ops.sum(loss * known) / ops.cast(count, "float32")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "positive_weights": self.positive_weights,
            "negative_weights": self.negative_weights,
            "focal_gamma": self.focal_gamma,
            "label_smoothing": self.label_smoothing,
        }
