"""`TransformerCaptioner`: a small Transformer decoder, whose cross-attention gives the maps."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from keras import ops

from attncap.features.extractor import FeatureExtractor
from attncap.models.attending_captioner import AttendingCaptioner
from attncap.models.captioner import CaptionerState
from attncap.models.decoder_block import DecoderBlock
from attncap.models.registry import register_captioner
from attncap.tokenizers import START, CaptionTokenizer


@register_captioner("transformer")
@keras.saving.register_keras_serializable("attncap")
class TransformerCaptioner(AttendingCaptioner):
    """Captioning with a Transformer: each word attends to the words before it, then to the regions of the image.

    values a_l as in `AttendingCaptioner`, of size H; x_t = sqrt(H) E y_{t-1} + sine of the position t; then
    `decoder_layers` layers of `DecoderBlock`, and p(y_t) = softmax(W_o dropout(norm(x_t))).

    Maps are the cross-attention of the last layer, mean over its heads. Training runs all words at once. Decoding keeps
    keys and values of the last `window` words of each caption in the state, so that a step computes one word and the
    past of a beam moves with the beam. Keys and values of the image are computed once and shared by all its captions.
    Padding needs no mask: it comes last, and no word attends to later ones.

    Departures from the paper: layers normalize first; regions have no encoder of their own; a word attends to `window`
    words.

    Args:
        hidden_units: H, of words, values and layers alike.
        decoder_layers: how many.
        heads: N, attention heads; divides H.
        feedforward_units: inside each layer's feedforward network.
        window: how many words, itself included, a word can attend to; larger than captions are long.
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
        **kwargs: Any,
    ):
        import keras_hub

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
            **kwargs,
        )
        self.decoder_layers = decoder_layers
        self.heads = heads
        self.feedforward_units = feedforward_units
        self.window = window
        self.positions = keras_hub.layers.SinePositionEncoding(dtype="float32", name="positions")
        self.blocks = [
            DecoderBlock(
                hidden_units, heads, feedforward_units, self.dropout_rate, dtype=self.dtype_policy, name=f"block_{n}"
            )
            for n in range(decoder_layers)
        ]
        self.final_norm = keras.layers.LayerNormalization(dtype=self.dtype_policy, name="final_norm")
        self.build()

    def build(self, input_shape: Any = None) -> None:
        # Not by a symbolic step as in the base class: on JAX the attention of keras-nlp refuses a mask beside keys and
        # values of unknown length.
        self.value_dense.build((None, None, self.region_shape[-1]))
        self.value_norm.build((None, None, self.value_units))
        for block in self.blocks:
            block.build()
        self.final_norm.build((None, None, self.hidden_units))
        self.embedding.build((None, None))
        self.logits_dense.build((None, None, self.hidden_units))
        self.built = True

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
        position = state.recurrent["position"][0, 0]  # all captions are at the same position
        places = ops.arange(self.window)
        here = places == position % self.window  # the oldest word is replaced
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
        mask = self._words_before(ops.shape(embedded)[2])
        x = self._with_positions(embedded, 0)  # (B, K, T, H)
        weights: Any = None
        for n, block in enumerate(self.blocks):
            x, weights, _ = block(
                x, state.memory[f"picture_{n}"], mask, regions=state.memory.get("mask"), training=training
            )
        return {"hidden": x, "attention_weights": weights}

    def attention_of_layers(self, features: Any, token_ids: Any) -> tuple[Any, Any]:
        """Return the attention of every layer and head for finished captions, one per image.

        Args:
            features: shape (B, rows, cols, D).
            token_ids: int, shape (B, T), without `<start>`.

        Returns:
            words: float32, shape (B, layers, heads, T, T), rows sum to 1: the attention to each token read so far
                (`<start>` first) at the step that gives token t.
            weights: float32, shape (B, layers, heads, T, L), rows sum to 1: the attention to each region.
        """
        token_ids = ops.cast(token_ids, "int32")
        start = ops.full((ops.shape(token_ids)[0], 1), START, dtype="int32")
        read = ops.concatenate([start, token_ids[:, :-1]], axis=1)[:, None]  # (B, 1, T)
        state = self.init_state(features)
        mask = self._words_before(ops.shape(read)[2])
        x = self._with_positions(self.embedding(read), 0)  # (B, 1, T, H)
        found = []
        for n, block in enumerate(self.blocks):
            image, regions = state.memory[f"picture_{n}"], state.memory.get("mask")
            found.append(block.attention_heads(x, image, mask, regions))
            x, _, _ = block(x, image, mask, regions=regions)
        words, weights = zip(*found, strict=True)
        return ops.stack(words, axis=1), ops.stack(weights, axis=1)

    def _words_before(self, steps: Any) -> Any:
        places = ops.arange(steps)
        back = places[:, None] - places  # (T, T): how far back
        return ops.logical_and(back >= 0, back < self.window)[None]  # (1, T, T)

    def _with_positions(self, embedded: Any, first: Any) -> Any:
        # In float32: bfloat16 has too few digits for the angles.
        words = ops.cast(embedded, "float32") * self.hidden_units**0.5  # (B, K, T, H)
        return ops.cast(words + self.positions(words[0], start_index=first), self.compute_dtype)

    def readout(self, embedded: Any, recurrent: dict[str, Any], training: bool = False) -> Any:
        return self.logits_dense(self.output_dropout(self.final_norm(recurrent["hidden"]), training=training))

    def score_variables(self) -> list[Any]:
        return [variable for block in self.blocks for variable in block.cross_attention.query_dense.weights]
