"""`AttendingCaptioner`, the base class of captioners with attention: values to attend to, and losses on maps."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from keras import ops

from attncap.features.extractor import FeatureExtractor
from attncap.models.captioner import Captioner
from attncap.models.losses import attention_supervision, doubly_stochastic_penalty
from attncap.tokenizers import CaptionTokenizer


class AttendingCaptioner(Captioner):
    """Base class of captioners with attention: values to attend to, and losses on maps.

    values a_l = dropout(norm(W_a f_l)) of the features f_l, l over the L regions.

    The doubly stochastic penalty adds `attention_penalty * mean_l (1 - sum_t alpha_{t,l})^2` to the loss, the sum over
    a caption's real words, so that a caption attends to every region.

    Args:
        value_units: D', size of the attended values; None takes hidden_units.
        attention_penalty: weight of the doubly stochastic penalty.
        attention_supervision: weight of `losses.attention_supervision` where batches carry `regions` (B, K, T, L), see
            `CaptionBatches`; 0 learns the maps from the words only.
        others: see `Captioner`.
    """

    has_attention = True
    not_settings: ClassVar[tuple[str, ...]] = ("value_units",)

    def __init__(
        self,
        tokenizer: CaptionTokenizer,
        feature_shape: tuple[int, int, int] | None = None,
        encoder: FeatureExtractor | None = None,
        *,
        value_units: int | None = None,
        attention_penalty: float = 0.0,
        attention_supervision: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(tokenizer, feature_shape, encoder, **kwargs)
        self.value_units = value_units = value_units or self.hidden_units
        self.attention_penalty = attention_penalty
        self.attention_supervision = attention_supervision
        self.value_dense = keras.layers.Dense(value_units, dtype=self.dtype_policy, name="values")
        self.value_norm = keras.layers.LayerNormalization(dtype=self.dtype_policy, name="value_norm")
        self.value_dropout = keras.layers.Dropout(self.dropout_rate, dtype=self.dtype_policy)

    def values_of(self, features: Any, training: bool = False) -> Any:
        """Return the values (B, L, D') of features (B, rows, cols, D)."""
        values = self.value_norm(self.value_dense(self.regions_of(features)))  # (B, L, D')
        return self.value_dropout(values, training=training)

    def nothing_seen(self, values: Any, captions: int) -> dict[str, Any]:
        """Return the context and the map before the first word, all zeros, as parts of the recurrent state."""
        batch, regions, size = ops.shape(values)
        return {
            "context": ops.zeros((batch, captions, size), self.compute_dtype),
            "attention_weights": ops.zeros((batch, captions, regions), "float32"),
        }

    def score_variables(self) -> list[Any]:
        """Return the variables that, set to zero, make all scores equal and every map uniform."""
        raise NotImplementedError

    def add_losses(self, outputs: dict[str, Any], inputs: dict[str, Any]) -> None:
        weights = outputs["attention_weights"]  # (B, K, T, L)
        if self.attention_penalty:
            mask = self.region_mask(inputs["features"]) if self.masked else None
            self.add_loss(self.attention_penalty * doubly_stochastic_penalty(weights, inputs["token_ids"], mask))
        if self.attention_supervision and inputs.get("regions") is not None:
            self.add_loss(self.attention_supervision * attention_supervision(weights, inputs["regions"]))
