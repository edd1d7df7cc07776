"""`BahdanauAttention`: additive attention over the regions of an image."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("attncap")
class BahdanauAttention(keras.layers.Layer):
    """Additive (Bahdanau) attention whose keys are projected once per image.

    For a query q (the decoder's previous state) and regions a_1 .. a_L:

        attention_scores_l  = w . tanh(W_q q + W_k a_l + b)
        attention_weights   = softmax(attention_scores)
        context             = sum_l attention_weights_l a_l

    W_k a_l + b are the keys. They depend on the image alone, so `project` computes them once, and every step, every
    caption and every beam of the image reuses them. In the tutorials' form each word multiplies all regions again.

    Args:
        units: A, the width of the space in which queries and keys are added.

    Call arguments:
        query: float, shape (B, H), or (B, K, H) for K captions of each image side by side.
        values: float, shape (B, L, D).
        keys: float, shape (B, L, A), from `project(values)`; None projects here. Leave them out in a functional model,
            which would save `project` as a second layer.
        mask: bool, shape (B, L), True where a region may be looked at; None looks everywhere.
        values_mask: the mask that Keras carries with `values`, such as that of an `Embedding(mask_zero=True)`; Keras
            passes it. A region is looked at where both masks allow it.
        return_attention_scores: also return the weights (Keras's name for them).

    Returns:
        context: shape (B, D) or (B, K, D).
        attention_weights: float32, shape (B, L) or (B, K, L), rows sum to 1; with return_attention_scores.

    Raises:
        ValueError: query and values do not belong to the same images or have the wrong rank; a mask of another shape
            than (B, L).

    Example:
        >>> attention = BahdanauAttention(units=512)
        >>> keys = attention.project(values)
        >>> context, weights = attention(query, values, keys=keys, return_attention_scores=True)

    Reference: Bahdanau et al. 2015, appendix A.1.2; Xu et al. 2015, section 3.1.2, eq. 4-6.
    """

    def __init__(self, units: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.units = units
        self.query_dense = keras.layers.Dense(units, use_bias=False, dtype=self.dtype_policy, name="query")
        self.key_dense = keras.layers.Dense(units, dtype=self.dtype_policy, name="keys")
        self.score_dense = keras.layers.Dense(1, use_bias=False, dtype=self.dtype_policy, name="scores")

    def build(self, query_shape: tuple[int | None, ...], values_shape: tuple[int | None, ...]) -> None:
        self.query_dense.build((None, None, query_shape[-1]))
        if not self.key_dense.built:  # `project` may have been called first
            self.key_dense.build(values_shape)
        self.score_dense.build((None, None, None, self.units))
        self.built = True

    def project(self, values: Any) -> Any:
        """Return the keys of an image's regions: (B, L, D) -> (B, L, A)."""
        return self.key_dense(values)

    def scores(self, query: Any, keys: Any) -> Any:
        """Return the scores (B, K, L), float32, of queries (B, K, H) and keys (B, 1 or K, L, A)."""
        added = ops.expand_dims(self.query_dense(query), 2) + keys  # (B, K, L, A)
        attention_scores = ops.squeeze(self.score_dense(ops.tanh(added)), -1)  # (B, K, L)
        return ops.cast(attention_scores, "float32")  # bfloat16 weights would not sum to 1

    def call(
        self,
        query: Any,
        values: Any,
        keys: Any = None,
        mask: Any = None,
        return_attention_scores: bool = False,
        values_mask: Any = None,
    ) -> Any:
        if len(query.shape) not in (2, 3) or len(values.shape) != 3:
            raise ValueError(
                f"query needs shape (B, H) or (B, K, H) and values (B, L, D), got {tuple(query.shape)} and "
                f"{tuple(values.shape)}"
            )
        if None not in (query.shape[0], values.shape[0]) and query.shape[0] != values.shape[0]:
            raise ValueError(
                f"query and values are of different numbers of images: {query.shape[0]} and {values.shape[0]}"
            )
        one_caption = len(query.shape) == 2
        if one_caption:
            query = ops.expand_dims(query, 1)  # (B, 1, H)
        if keys is None:
            keys = self.project(values)
        attention_scores = self.scores(query, ops.expand_dims(keys, 1))  # (B, K, L)
        attention_scores = masked_scores(attention_scores, values, mask, values_mask)
        attention_weights = ops.softmax(attention_scores, axis=-1)
        context = ops.matmul(ops.cast(attention_weights, self.compute_dtype), values)  # (B, K, D)
        if one_caption:
            context = ops.squeeze(context, 1)  # (B, D)
            attention_weights = ops.squeeze(attention_weights, 1)  # (B, L)
        return (context, attention_weights) if return_attention_scores else context

    def compute_mask(self, query: Any, previous_mask: Any = None) -> None:
        return None  # the mask is of regions, and no output has an axis of regions that goes on being masked

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


def masked_scores(attention_scores: Any, values: Any, *masks: Any) -> Any:
    """Return the scores (B, K, L), very negative where one of the masks (B, L), None or bool, is False.

    Raises:
        ValueError: a mask of another shape.
    """
    for mask in masks:
        if mask is not None:
            mask = ops.cast(mask, "bool")
            _check_mask(mask.shape, values.shape)
            attention_scores = ops.where(ops.expand_dims(mask, 1), attention_scores, -1e9)
    return attention_scores


def _check_mask(mask_shape: Any, values_shape: Any) -> None:
    expected = tuple(values_shape[:2])
    fits = len(mask_shape) == 2 and all(
        None in (given, size) or given == size for given, size in zip(mask_shape, expected, strict=False)
    )
    if not fits:
        raise ValueError(f"mask needs shape (B, L) = {expected}, one value per region, got {tuple(mask_shape)}")
