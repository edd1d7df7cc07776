"""`AttentionCaptioner`: a GRU that looks at the image's regions before each word."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from attncap.features.extractor import FeatureExtractor
from attncap.models.attending_captioner import AttendingCaptioner
from attncap.models.attention import BahdanauAttention
from attncap.models.captioner import CaptionerState, cell_step, for_each_caption, mean_of_regions
from attncap.models.registry import register_captioner
from attncap.tokenizers import CaptionTokenizer


@register_captioner("attention")
@keras.saving.register_keras_serializable("attncap")
class AttentionCaptioner(AttendingCaptioner):
    """Captioning with visual attention: a GRU that looks at the image's regions before each word.

    values a_l = dropout(norm(W_a f_l)) of the features f_l; h_0 = tanh(W_0 mean_l a_l); then, for each word y:

        z_t = attention(h_{t-1}, a);    with the context gate  z_t <- sigmoid(W_b h_{t-1} + b) * z_t
        h_t = GRU([E y_{t-1}, z_t], h_{t-1})
        p(y_t) = softmax(W_o dropout(tanh(E y_{t-1} + W_h h_t + W_z z_t)))            (deep output)

    Departures from the paper: a GRU for its LSTM; regions are projected to `projection_units` and normalized before
    they are attended to; the gate has one value a unit where the paper has one for the whole context.

    Args:
        projection_units: D', size of the attended values.
        attention_units: A, size of the space of queries and keys.
        context_gate: whether a gate on the context (beta of Show, Attend and Tell) is learned.
        others: see `AttendingCaptioner`.

    Example:
        >>> captioner = AttentionCaptioner(tokenizer, encoder=FeatureExtractor("mixed8"))
        >>> captioner.compile(keras.optimizers.AdamW(1e-3), loss=MaskedCrossentropy())
        >>> captioner.fit(batches)

    Reference: Xu et al. 2015, "Show, Attend and Tell", sections 3.1.2 and 4.2; Bahdanau et al. 2015.
    """

    attention_layer: type[BahdanauAttention] = BahdanauAttention

    def __init__(
        self,
        tokenizer: CaptionTokenizer,
        feature_shape: tuple[int, int, int] | None = None,
        encoder: FeatureExtractor | None = None,
        *,
        projection_units: int = 512,
        attention_units: int = 256,
        context_gate: bool = True,
        **kwargs: Any,
    ):
        super().__init__(tokenizer, feature_shape, encoder, value_units=projection_units, **kwargs)
        policy = self.dtype_policy
        self.projection_units = projection_units
        self.attention_units = attention_units
        self.context_gate = context_gate
        self.attention = self.attention_layer(attention_units, dtype=policy, name="attention")
        self.initial_dense = keras.layers.Dense(self.hidden_units, activation="tanh", dtype=policy, name="initial")
        self.gate_dense = keras.layers.Dense(projection_units, activation="sigmoid", dtype=policy, name="gate")
        self.cell = keras.layers.GRUCell(self.hidden_units, dtype=policy, name="gru")
        self.hidden_dense = keras.layers.Dense(self.embedding_units, dtype=policy, name="hidden_readout")
        self.context_dense = keras.layers.Dense(
            self.embedding_units, use_bias=False, dtype=policy, name="context_readout"
        )
        self.build()

    def init_state(self, features: Any, captions: int = 1, training: bool = False) -> CaptionerState:
        values = self.values_of(features, training=training)  # (B, L, D')
        mask = self.region_mask(features)
        memory = {"values": values, "keys": self.attention.project(values)}
        if mask is not None:
            memory["mask"] = mask
        hidden = for_each_caption(self.initial_dense(mean_of_regions(values, mask)), captions)
        return CaptionerState(memory, {"hidden": hidden, **self.nothing_seen(values, captions)})

    def advance(self, embedded: Any, state: CaptionerState) -> dict[str, Any]:
        hidden = state.recurrent["hidden"]  # (B, K, H), the query: the state before this word
        context, attention_weights = self.attention(
            hidden,
            state.memory["values"],
            keys=state.memory["keys"],
            mask=state.memory.get("mask"),
            return_attention_scores=True,
        )
        if self.context_gate:
            context = context * self.gate_dense(hidden)
        hidden = self.next_hidden(ops.concatenate([embedded, context], axis=-1), hidden)
        return {"hidden": hidden, "context": context, "attention_weights": attention_weights}

    def next_hidden(self, read: Any, hidden: Any) -> Any:
        """Return the GRU's state (B, K, H) after read (B, K, E + D')."""
        return cell_step(self.cell, read, [hidden])[0]

    def readout(self, embedded: Any, recurrent: dict[str, Any], training: bool = False) -> Any:
        deep = embedded + self.hidden_dense(recurrent["hidden"]) + self.context_dense(recurrent["context"])
        return self.logits_dense(self.output_dropout(ops.tanh(deep), training=training))

    def score_variables(self) -> list[Any]:
        return [self.attention.score_dense.kernel]  # w of w . tanh(...)
