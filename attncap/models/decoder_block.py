"""`DecoderBlock`: a layer of a Transformer decoder that returns its cross-attention."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("attncap")
class DecoderBlock(keras.layers.Layer):
    """One layer of a Transformer decoder, normalized first, which returns its cross-attention.

        x <- x + dropout(self-attention(norm(x)))
        x <- x + dropout(cross-attention(norm(x), image))
        x <- x + dropout(W_2 relu(W_1 norm(x)))

    The attention layers are keras-nlp's. Its `TransformerDecoder` is not used, since it gives no attention weights.

    Args:
        units: H, size of x.
        heads: N, attention heads of H / N each.
        feedforward_units: between the two matrices of the last line.
        dropout: share of each line's update dropped in training; attention weights are not dropped.

    Call arguments:
        x: float, shape (B, K, T, H): T words of K captions of each image.
        image: keys and values of the image, shape (B, 2, L, N, H / N), from `project`.
        mask: bool, shape (1, T, S): which of S positions a word may attend to; S is T without a cache.
        cache: keys and values of S words, shape (B, K, 2, S, N, H / N); None where x has all words.
        here: bool, shape (S,): the position in the cache of the one word of x.
        regions: bool, shape (B, L): which regions exist; None: all.

    Returns:
        x: shape (B, K, T, H).
        attention_weights: float32, shape (B, K, T, L), mean over heads, rows sum to 1.
        cache: with this word in it; None without a cache.

    Reference: Vaswani et al. 2017, "Attention Is All You Need"; normalized first as Xiong et al. 2020.
    """

    def __init__(self, units: int, heads: int, feedforward_units: int, dropout: float = 0.0, **kwargs: Any):
        import keras_hub  # what keras-nlp is called now; it comes with keras-nlp and takes seconds to import

        super().__init__(**kwargs)
        self.units = units
        self.heads = heads
        self.feedforward_units = feedforward_units
        self.dropout_rate = dropout
        policy = self.dtype_policy
        attention = {"num_heads": heads, "key_dim": units // heads, "dtype": policy}
        self.self_norm = keras.layers.LayerNormalization(dtype=policy, name="self_norm")
        self.self_attention = keras_hub.layers.CachedMultiHeadAttention(**attention, name="self_attention")
        self.cross_norm = keras.layers.LayerNormalization(dtype=policy, name="cross_norm")
        self.cross_attention = keras_hub.layers.CachedMultiHeadAttention(**attention, name="cross_attention")
        self.feedforward_norm = keras.layers.LayerNormalization(dtype=policy, name="feedforward_norm")
        self.inner_dense = keras.layers.Dense(feedforward_units, activation="relu", dtype=policy, name="inner")
        self.outer_dense = keras.layers.Dense(units, dtype=policy, name="outer")
        self.dropout = keras.layers.Dropout(dropout, dtype=policy)

    def build(self, input_shape: Any = None) -> None:
        shape = (None, None, self.units)
        for norm in (self.self_norm, self.cross_norm, self.feedforward_norm):
            norm.build(shape)
        self.self_attention.build(shape, shape)
        self.cross_attention.build(shape, shape)
        self.inner_dense.build(shape)
        self.outer_dense.build((None, None, self.feedforward_units))
        self.built = True

    def project(self, values: Any) -> Any:
        """Return keys and values of an image, (B, 2, L, N, H / N), of its values (B, L, H): once per image."""
        return _keys_and_values(self.cross_attention, values)

    def call(
        self,
        x: Any,
        image: Any,
        mask: Any,
        cache: Any = None,
        here: Any = None,
        regions: Any = None,
        training: bool = False,
    ) -> tuple[Any, Any, Any]:
        batch, captions, steps, _ = ops.shape(x)
        x = ops.reshape(x, (-1, steps, self.units))  # (B K, T, H)
        normal = self.self_norm(x)
        words = _keys_and_values(self.self_attention, normal)  # (B K, 2, T, N, H / N)
        if cache is not None:
            old = ops.reshape(cache, (-1, *ops.shape(cache)[2:]))
            words = ops.where(here[:, None, None], words, old)  # (B K, 2, S, N, H / N)
        # With a cache and no index to update, the layer of keras-nlp reads keys and values only from the cache.
        update, _ = self.self_attention(normal, normal, attention_mask=mask, cache=words, training=training)
        x = x + self.dropout(update, training=training)

        # The captions share the image: all words of all captions are queries of one product.
        normal = ops.reshape(self.cross_norm(x), (-1, captions * steps, self.units))  # (B, K T, H)
        update, weights, _ = self.cross_attention(
            normal,
            normal,
            attention_mask=None if regions is None else regions[:, None],  # (B, 1, L)
            cache=image,
            return_attention_scores=True,
            training=training,
        )
        x = x + self.dropout(ops.reshape(update, (-1, steps, self.units)), training=training)
        weights = ops.mean(ops.cast(weights, "float32"), axis=1)  # (B, K T, L) of (B, N, K T, L)
        weights = weights / ops.sum(weights, axis=-1, keepdims=True)  # bfloat16 weights do not exactly sum to 1
        weights = ops.reshape(weights, (batch, captions, steps, -1))

        update = self.outer_dense(self.inner_dense(self.feedforward_norm(x)))
        x = x + self.dropout(update, training=training)
        x = ops.reshape(x, (batch, captions, steps, self.units))
        return x, weights, None if cache is None else ops.reshape(words, ops.shape(cache))

    def attention_heads(self, x: Any, image: Any, mask: Any, regions: Any = None) -> tuple[Any, Any]:
        """Return the attention of every head, for one caption per image.

        Args:
            x, image, mask, regions: as `call` takes them, with K = 1 and without a cache.

        Returns:
            words: float32, shape (B, N, T, T): how much each word attends to those before it.
            weights: float32, shape (B, N, T, L): how much it attends to the regions.
        """
        x = x[:, 0]  # (B, T, H)
        normal = self.self_norm(x)
        keys = _keys_and_values(self.self_attention, normal)  # (B, 2, T, N, H / N)
        update, words, _ = self.self_attention(
            normal, normal, attention_mask=mask, cache=keys, return_attention_scores=True
        )
        normal = self.cross_norm(x + update)
        cover = None if regions is None else regions[:, None]  # (B, 1, L)
        _, weights, _ = self.cross_attention(
            normal, normal, attention_mask=cover, cache=image, return_attention_scores=True
        )
        words, weights = (ops.cast(scores, "float32") for scores in (words, weights))
        return tuple(scores / ops.sum(scores, axis=-1, keepdims=True) for scores in (words, weights))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "heads": self.heads,
            "feedforward_units": self.feedforward_units,
            "dropout": self.dropout_rate,
        }


def _keys_and_values(attention: Any, x: Any) -> Any:
    # (B, S, H) -> (B, 2, S, N, H / N), the form of keras-nlp's caches.
    return ops.stack([attention.key_dense(x), attention.value_dense(x)], axis=1)
