"""`TransformerCaptioner`: a small Transformer decoder, whose cross-attention gives the maps."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from keras import ops

from attncap.features.extractor import FeatureExtractor
from attncap.models.captioner import AttendingCaptioner, CaptionerState
from attncap.models.registry import register_captioner
from attncap.tokenizers import START, CaptionTokenizer


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
        mask: bool, shape (1, T, S): which of S places a word may look at; S is T without a cache.
        cache: keys and values of S words, shape (B, K, 2, S, N, H / N); None where x has all words.
        here: bool, shape (S,): the place in the cache of the one word of x.
        regions: bool, shape (B, L): the regions that there are; None: all.

    Returns:
        x: shape (B, K, T, H).
        attention_weights: float32, shape (B, K, T, L), mean over heads, rows sum to 1.
        cache: with this word in it; None without a cache.

    Reference: Vaswani et al. 2017, "Attention Is All You Need"; normalized first as Xiong et al. 2020.
    """

    def __init__(self, units: int, heads: int, feedforward_units: int, dropout: float = 0.0, **kwargs: Any):
        import keras_nlp  # takes seconds, which other captioners need not wait

        super().__init__(**kwargs)
        self.units = units
        self.heads = heads
        self.feedforward_units = feedforward_units
        self.dropout_rate = dropout
        policy = self.dtype_policy
        attention = {"num_heads": heads, "key_dim": units // heads, "dtype": policy}
        self.self_norm = keras.layers.LayerNormalization(dtype=policy, name="self_norm")
        self.self_attention = keras_nlp.layers.CachedMultiHeadAttention(**attention, name="self_attention")
        self.cross_norm = keras.layers.LayerNormalization(dtype=policy, name="cross_norm")
        self.cross_attention = keras_nlp.layers.CachedMultiHeadAttention(**attention, name="cross_attention")
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
        picture: Any,
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
        # Given a cache and no place in it to write to, keras-nlp's layer reads keys and values from it alone.
        update, _ = self.self_attention(normal, normal, attention_mask=mask, cache=words, training=training)
        x = x + self.dropout(update, training=training)

        # The image is shared by its captions: all words of all of them are queries of one product.
        normal = ops.reshape(self.cross_norm(x), (-1, captions * steps, self.units))  # (B, K T, H)
        update, weights, _ = self.cross_attention(
            normal,
            normal,
            attention_mask=None if regions is None else regions[:, None],  # (B, 1, L)
            cache=picture,
            return_attention_scores=True,
            training=training,
        )
        x = x + self.dropout(ops.reshape(update, (-1, steps, self.units)), training=training)
        weights = ops.mean(ops.cast(weights, "float32"), axis=1)  # (B, K T, L) of (B, N, K T, L)
        weights = weights / ops.sum(weights, axis=-1, keepdims=True)  # bfloat16 weights do not quite sum to 1
        weights = ops.reshape(weights, (batch, captions, steps, -1))

        update = self.outer_dense(self.inner_dense(self.feedforward_norm(x)))
        x = x + self.dropout(update, training=training)
        x = ops.reshape(x, (batch, captions, steps, self.units))
        return x, weights, None if cache is None else ops.reshape(words, ops.shape(cache))

    def attention_heads(self, x: Any, picture: Any, mask: Any, regions: Any = None) -> tuple[Any, Any]:
        """Return the attention of every head, of one caption per image.

        Args:
            x, image, mask, regions: as `call` takes them, with K = 1 and without a cache.

        Returns:
            words: float32, shape (B, N, T, T): how much each word looks at those before it.
            weights: float32, shape (B, N, T, L): how much it looks at the regions.
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
            normal, normal, attention_mask=cover, cache=picture, return_attention_scores=True
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


@register_captioner("transformer")
@keras.saving.register_keras_serializable("attncap")
class TransformerCaptioner(AttendingCaptioner):
    """Captioning with a Transformer: each word looks at the words before it, then at the image's regions.

    values a_l as in `AttendingCaptioner`, of size H; x_t = sqrt(H) E y_{t-1} + sine of the position t; then
    `decoder_layers` layers of `DecoderBlock`, and p(y_t) = softmax(W_o dropout(norm(x_t))).

    Maps are the cross-attention of the last layer, mean over its heads. Training runs all words at once. Decoding keeps
    keys and values of the last `window` words of each caption in the state, so that a step computes one word and a
    beam's past goes where the beam goes; those of the image are computed once and shared by all its captions.
    Padding needs no mask: it comes last, and no word looks at later ones.

    Departures from the paper: layers normalize first; no encoder of the regions' own; a word sees `window` words back.

    Args:
        hidden_units: H, of words, values and layers alike.
        decoder_layers: how many.
        heads: N, attention heads; divides H.
        feedforward_units: inside each layer's feedforward network.
        window: how many words, itself included, a word sees; longer than captions are, so that it sees all.
        others: see `AttendingCaptioner`; `embedding_units` is H.

    Raises:
        ValueError: heads do not divide hidden_units, or a size is below 1.

    Example:
        >>> captioner = TransformerCaptioner(tokenizer, encoder=FeatureExtractor("mixed8"), dropout=0.3)
        >>> captioner.compile(keras.optimizers.AdamW(5e-4), loss=MaskedCrossentropy())
        >>> captioner.fit(batches)

    Reference: Vaswani et al. 2017, "Attention Is All You Need", section 3; with regions: Cornia et al. 2020.
    """

    not_settings: ClassVar[tuple[str, ...]] = ("embedding_units",)  # is hidden_units
    layer_counts: ClassVar[tuple[str, ...]] = ("decoder_layers",)
    default_learning_rate = 5e-4  # its layers are deeper

    def __init__(
        self,
        tokenizer: CaptionTokenizer,
        feature_shape: tuple[int, int, int] | None = None,
        encoder: FeatureExtractor | None = None,
        *,
        hidden_units: int = 512,
        decoder_layers: int = 2,
        heads: int = 8,
        feedforward_units: int = 1024,
        window: int = 40,
        dropout: float = 0.3,
        attention_penalty: float = 0.0,
        attention_supervision: float = 0.0,
        **kwargs: Any,
    ):
        import keras_nlp

        if min(hidden_units, decoder_layers, heads, feedforward_units, window) < 1 or hidden_units % heads:
            raise ValueError(
                "hidden_units, decoder_layers, heads, feedforward_units and window are at least 1, and heads divide "
                f"hidden_units; got {hidden_units}, {decoder_layers}, {heads}, {feedforward_units} and {window}"
            )
        super().__init__(
            tokenizer,
            feature_shape,
            encoder,
            embedding_units=hidden_units,
            hidden_units=hidden_units,
            value_units=hidden_units,
            dropout=dropout,
            attention_penalty=attention_penalty,
            attention_supervision=attention_supervision,
            **kwargs,
        )
        self.decoder_layers = decoder_layers
        self.heads = heads
        self.feedforward_units = feedforward_units
        self.window = window
        self.positions = keras_nlp.layers.SinePositionEncoding(dtype="float32", name="positions")
        self.blocks = [
            DecoderBlock(
                hidden_units, heads, feedforward_units, self.dropout_rate, dtype=self.dtype_policy, name=f"block_{n}"
            )
            for n in range(decoder_layers)
        ]
        self.final_norm = keras.layers.LayerNormalization(dtype=self.dtype_policy, name="final_norm")
        self.build()

    def build(self, input_shape: Any = None) -> None:
        self._value_layers_built()
        for block in self.blocks:
            block.build()
        self.final_norm.build((None, None, self.hidden_units))
        self._readout_layers_built(self.hidden_units)

    def init_state(self, features: Any, captions: int = 1, training: bool = False) -> CaptionerState:
        values = self.values_of(features, training=training)  # (B, L, H)
        batch, regions, _ = ops.shape(values)
        memory = {f"picture_{n}": block.project(values) for n, block in enumerate(self.blocks)}
        there = self.region_mask(features)
        if there is not None:
            memory["mask"] = there
        past = (batch, captions, 2, self.window, self.heads, self.hidden_units // self.heads)
        recurrent = {
            "position": ops.zeros((batch, captions), "int32"),
            "hidden": ops.zeros((batch, captions, self.hidden_units), self.compute_dtype),
            "attention_weights": ops.zeros((batch, captions, regions), "float32"),
            **{f"cache_{n}": ops.zeros(past, self.compute_dtype) for n in range(self.decoder_layers)},
        }
        return CaptionerState(memory, recurrent)

    def advance(self, embedded: Any, state: CaptionerState) -> dict[str, Any]:
        position = state.recurrent["position"][0, 0]  # all captions are at the same word
        places = ops.arange(self.window)
        here = places == position % self.window  # the oldest word makes room
        mask = (places <= position)[None, None]  # (1, 1, S); once the cache is full, all of it
        x = self._with_positions(embedded[:, :, None], position)  # (B, K, 1, H)
        weights: Any = None
        caches = {}
        for n, block in enumerate(self.blocks):
            cache = state.recurrent[f"cache_{n}"]
            regions = state.memory.get("mask")
            x, weights, caches[f"cache_{n}"] = block(x, state.memory[f"picture_{n}"], mask, cache, here, regions)
        return {
            "position": state.recurrent["position"] + 1,
            "hidden": x[:, :, 0],
            "attention_weights": weights[:, :, 0],
            **caches,
        }

    def run(self, state: CaptionerState, embedded: Any, training: bool = False) -> dict[str, Any]:
        places = ops.arange(ops.shape(embedded)[2])
        back = places[:, None] - places  # (T, T): how far back
        mask = ops.logical_and(back >= 0, back < self.window)[None]
        x = self._with_positions(embedded, 0)  # (B, K, T, H)
        weights: Any = None
        for n, block in enumerate(self.blocks):
            x, weights, _ = block(
                x, state.memory[f"picture_{n}"], mask, regions=state.memory.get("mask"), training=training
            )
        return {"hidden": x, "attention_weights": weights}

    def attention_of_layers(self, features: Any, token_ids: Any) -> tuple[Any, Any]:
        """Return the attention of every layer and head while finished captions are read, one per image.

        Args:
            features: shape (B, rows, cols, D).
            token_ids: int, shape (B, T), without `<start>`.

        Returns:
            words: float32, shape (B, layers, heads, T, T), rows sum to 1: at the step that gives token t, how much each
                of the tokens read so far (`<start>` first) is looked at.
            weights: float32, shape (B, layers, heads, T, L), rows sum to 1: how much each region is looked at.
        """
        token_ids = ops.cast(token_ids, "int32")
        start = ops.full((ops.shape(token_ids)[0], 1), START, dtype="int32")
        read = ops.concatenate([start, token_ids[:, :-1]], axis=1)[:, None]  # (B, 1, T)
        state = self.init_state(features)
        places = ops.arange(ops.shape(read)[2])
        back = places[:, None] - places  # (T, T)
        mask = ops.logical_and(back >= 0, back < self.window)[None]
        x = self._with_positions(self.embedding(read), 0)  # (B, 1, T, H)
        found = []
        for n, block in enumerate(self.blocks):
            picture, regions = state.memory[f"picture_{n}"], state.memory.get("mask")
            found.append(block.attention_heads(x, picture, mask, regions))
            x, _, _ = block(x, picture, mask, regions=regions)
        words, weights = zip(*found, strict=True)
        return ops.stack(words, axis=1), ops.stack(weights, axis=1)

    def _with_positions(self, embedded: Any, first: Any) -> Any:
        # In float32: bfloat16 has too few digits for the angles.
        words = ops.cast(embedded, "float32") * self.hidden_units**0.5  # (B, K, T, H)
        return ops.cast(words + self.positions(words[0], start_index=first), self.compute_dtype)

    def readout(self, embedded: Any, recurrent: dict[str, Any], training: bool = False) -> Any:
        return self.logits_dense(self.output_dropout(self.final_norm(recurrent["hidden"]), training=training))

    def score_variables(self) -> list[Any]:
        return [variable for block in self.blocks for variable in block.cross_attention.query_dense.weights]

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["embedding_units"]  # is hidden_units
        return {
            **config,
            "decoder_layers": self.decoder_layers,
            "heads": self.heads,
            "feedforward_units": self.feedforward_units,
            "window": self.window,
        }
