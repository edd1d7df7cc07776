"""The losses: cross-entropy over real tokens, the doubly stochastic penalty, and supervision of attention by boxes."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from attncap.tokenizers import END, PAD


@keras.saving.register_keras_serializable("attncap")
class MaskedCrossentropy(keras.losses.Loss):
    """Cross-entropy over real tokens only: the mean over tokens that are not `<pad>`.

        loss = sum_t m_t [ (1 - s) * -log p_t(y_t) + s * mean_v -log p_t(v) ] / sum_t m_t

    where m_t is 0 on padding and s the label smoothing. Dividing by the number of real tokens, not by the padded
    size, keeps the loss (and the step size) independent of the longest caption of the batch.

    With `sample_weight` of shape (B, K), one per caption, each token's term is multiplied by its caption's weight; the
    divisor stays the same: with the advantages of sampled captions (and s = 0), this is the self-critical objective.

    Args:
        label_smoothing: s in [0, 1); default 0.1, which costs likelihood and gains BLEU.
    """

    def __init__(self, label_smoothing: float = 0.1, name: str = "masked_crossentropy", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.label_smoothing = label_smoothing

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        # Keras's own would take the mean over padding as well, weighted or not.
        log_probs = ops.log_softmax(ops.cast(y_pred, "float32"), axis=-1)  # (..., T, V)
        targets = ops.expand_dims(ops.cast(y_true, "int32"), -1)
        negative = -ops.squeeze(ops.take_along_axis(log_probs, targets, axis=-1), -1)
        if self.label_smoothing:
            spread = -ops.mean(log_probs, axis=-1)
            negative = (1.0 - self.label_smoothing) * negative + self.label_smoothing * spread
        real = ops.cast(ops.not_equal(y_true, PAD), "float32")
        if sample_weight is not None:
            negative = negative * ops.cast(sample_weight, "float32")[..., None]  # (B, K, T)
        return ops.sum(negative * real) / ops.maximum(ops.sum(real), 1.0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "label_smoothing": self.label_smoothing}


def doubly_stochastic_penalty(attention_weights: Any, token_ids: Any, mask: Any = None) -> Any:
    """Return the mean over captions and regions of (1 - sum_t alpha_{t,l})^2: 0 where each region is attended to once.

    Args:
        attention_weights: float, shape (B, K, T, L).
        token_ids: int, shape (B, K, T): the words read; `<pad>` and `<end>` steps do not count.
        mask: bool, shape (B, L): which regions exist; None: all.

    Returns:
        penalty: scalar; captions that are all padding do not count.

    Reference: Xu et al. 2015, section 4.2.1, eq. 14.
    """
    real = ops.cast(
        ops.logical_and(ops.not_equal(token_ids, PAD), ops.not_equal(token_ids, END)), "float32"
    )  # (B, K, T)
    looked = ops.einsum("bktl,bkt->bkl", attention_weights, real)
    there = ops.cast(ops.any(real > 0, axis=-1), "float32")  # (B, K)
    penalty = ops.square(1.0 - looked)  # (B, K, L)
    if mask is None:
        penalty = ops.mean(penalty, axis=-1)
    else:
        regions = ops.cast(mask, penalty.dtype)[:, None]  # (B, 1, L)
        penalty = ops.sum(penalty * regions, axis=-1) / ops.maximum(ops.sum(regions, axis=-1), 1.0)
    return ops.sum(penalty * there) / ops.maximum(ops.sum(there), 1.0)


def attention_supervision(attention_weights: Any, regions: Any) -> Any:
    """Return the mean cross-entropy between maps and the regions that words name, over the steps that name one.

        beta_t = cover_t / sum_l cover_{t,l};    loss = mean_t - sum_l beta_{t,l} log alpha_{t,l}

    The minimum is the entropy of beta, not 0: the map is then spread as the region covers the cells.

    Args:
        attention_weights: float, shape (B, K, T, L), rows sum to 1.
        regions: float, shape (B, K, T, L): how much of each cell the region of step t covers, on any scale; all zeros
            where the step names nothing (and on padding).

    Returns:
        loss: scalar; 0 where no step names a region.

    Reference: Liu et al. 2017, "Attention Correctness in Neural Image Captioning", section 3.2, strong supervision.
    """
    regions = ops.cast(regions, "float32")
    total = ops.sum(regions, axis=-1)  # (B, K, T)
    names = ops.cast(total > 0, "float32")
    target = regions / ops.maximum(total, 1e-9)[..., None]
    log_weights = ops.log(ops.cast(attention_weights, "float32") + 1e-8)  # a softmax may underflow to 0
    return -ops.sum(target * log_weights) / ops.maximum(ops.sum(names), 1.0)
