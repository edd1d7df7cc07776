"""`AdaptiveAttentionCaptioner`: the attention captioner with a visual sentinel, which lets it ignore the image."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
from keras import ops

from attncap.features.extractor import FeatureExtractor
from attncap.models.attention import BahdanauAttention, masked_scores
from attncap.models.attention_captioner import AttentionCaptioner
from attncap.models.captioner import CaptionerState, for_each_caption, mean_of_regions
from attncap.models.registry import register_captioner
from attncap.tokenizers import CaptionTokenizer


@keras.saving.register_keras_serializable("attncap")
class AdaptiveAttention(BahdanauAttention):
    """Additive attention over regions and a visual sentinel, which stands for what the decoder knows without the image.

    For a query q (the decoder's state after this word), regions a_1 .. a_L, and gate inputs x:

        s       = sigmoid(W_x x) * q                                            the sentinel
        z_l     = w . tanh(W_q q + W_k a_l + b);    alpha = softmax(z)
        beta    = exp(z_s) / (exp(z_s) + sum_l exp(z_l)),    z_s = w . tanh(W_q q + W_s s + b_s)
        context = beta W_r s + (1 - beta) sum_l alpha_l a_l

    Args:
        units: A, see `BahdanauAttention`, whose `project` gives the keys.

    Call arguments:
        query: float, shape (B, K, H).
        values: float, shape (B, L, D).
        gate_inputs: x, float, shape (B, K, G): the word, the image and the state before the word.
        keys: float, shape (B, L, A), from `project(values)`; None projects here.
        mask, values_mask: bool, shape (B, L), as in `BahdanauAttention`; the sentinel is never masked.

    Returns:
        context: shape (B, K, D).
        attention_weights: float32, (1 - beta) alpha, shape (B, K, L), rows sum to 1 - beta.

    Reference: Lu et al. 2017, "Knowing When to Look", section 2.3, eq. 8-13.
    """

    def __init__(self, units: int, **kwargs: Any):
        super().__init__(units, **kwargs)
        self.sentinel_key_dense = keras.layers.Dense(units, dtype=self.dtype_policy, name="sentinel_key")

    def build(  # type: ignore[override]
        self,
        query_shape: tuple[int | None, ...],
        values_shape: tuple[int | None, ...],
        gate_inputs_shape: tuple[int | None, ...],
    ) -> None:
        hidden, size = query_shape[-1], values_shape[-1]
        self.sentinel_gate = keras.layers.Dense(
            hidden, use_bias=False, activation="sigmoid", dtype=self.dtype_policy, name="sentinel_gate"
        )
        self.sentinel_value_dense = keras.layers.Dense(
            size, use_bias=False, dtype=self.dtype_policy, name="sentinel_value"
        )
        self.sentinel_gate.build((None, None, gate_inputs_shape[-1]))
        self.sentinel_key_dense.build((None, None, hidden))
        self.sentinel_value_dense.build((None, None, hidden))
        super().build(query_shape, values_shape)

    def call(  # type: ignore[override]
        self,
        query: Any,
        values: Any,
        gate_inputs: Any,
        keys: Any = None,
        mask: Any = None,
        values_mask: Any = None,
    ) -> Any:
        sentinel = self.sentinel_gate(gate_inputs) * query  # (B, K, H)
        keys = self.project(values) if keys is None else keys
        scores = masked_scores(self.scores(query, ops.expand_dims(keys, 1)), values, mask, values_mask)  # (B, K, L)
        sentinel_score = self.scores(query, ops.expand_dims(self.sentinel_key_dense(sentinel), 2))  # (B, K, 1)
        # beta is the sentinel's part of the softmax over all L + 1. Each share has its own sigmoid, for precision near
        # 0.
        over = sentinel_score - ops.logsumexp(scores, axis=-1, keepdims=True)  # (B, K, 1)
        beta, looking = ops.sigmoid(over), ops.sigmoid(-over)
        attention_weights = looking * ops.softmax(scores, axis=-1)
        context = ops.matmul(ops.cast(attention_weights, self.compute_dtype), values)  # (B, K, D)
        context = context + ops.cast(beta, self.compute_dtype) * self.sentinel_value_dense(sentinel)
        return context, attention_weights


@register_captioner("adaptive-attention")
@keras.saving.register_keras_serializable("attncap")
class AdaptiveAttentionCaptioner(AttentionCaptioner):
    """Captioning with adaptive attention: a GRU that attends, at each word, to the image or to a visual sentinel.

    values a_l and h_0 as in `AttentionCaptioner`; then, for each word y, with v = mean_l a_l:

        x_t = [E y_{t-1}, v];    h_t = GRU(x_t, h_{t-1})
        z_t, beta_t = `AdaptiveAttention` of the query h_t over the a_l and the sentinel sigmoid(W_x [x_t, h_{t-1}]) h_t
        p(y_t) = softmax(W_o dropout(tanh(E y_{t-1} + W_h h_t + W_z z_t)))

    It differs from `AttentionCaptioner` in two ways: it has a sentinel, and it looks after it has read the previous
    word. beta_t is the share of z_t that comes from the sentinel; at 1 the model does not look at all.

    `step` gives (1 - beta_t) alpha_t, whose sum is 1 - beta_t. In a `Caption` the two are apart: `attention_weights`
    has alpha_t, which sums to 1, and `extras["looked"]` has 1 - beta_t. Losses on maps use alpha_t, so that they do not
    affect the share of the sentinel.

    Departures from the paper: a GRU for its LSTM, so that the state h_t stands where its memory cell's tanh(m_t) does;
    the deep output of `AttentionCaptioner`; the sentinel is projected, W_r, from H to the values' size.

    Args:
        see `AttentionCaptioner`; there is no context gate, whose part the sentinel takes.

    Example:
        >>> captioner = AdaptiveAttentionCaptioner(tokenizer, encoder=FeatureExtractor("mixed8"))
        >>> captioner.compile(keras.optimizers.AdamW(1e-3), loss=MaskedCrossentropy())
        >>> captioner.fit(batches)

    Reference: Lu et al. 2017, "Knowing When to Look: Adaptive Attention via A Visual Sentinel for Image Captioning".
    """

    attention_layer = AdaptiveAttention
    not_settings: ClassVar[tuple[str, ...]] = ("context_gate",)

    def __init__(
        self,
        tokenizer: CaptionTokenizer,
        feature_shape: tuple[int, int, int] | None = None,
        encoder: FeatureExtractor | None = None,
        **kwargs: Any,
    ):
        super().__init__(tokenizer, feature_shape, encoder, context_gate=False, **kwargs)

    def init_state(self, features: Any, captions: int = 1, training: bool = False) -> CaptionerState:
        memory, recurrent = super().init_state(features, captions, training)
        pooled = mean_of_regions(memory["values"], memory.get("mask"))  # (B, D')
        return CaptionerState({**memory, "picture": pooled}, recurrent)

    def advance(self, embedded: Any, state: CaptionerState) -> dict[str, Any]:
        before = state.recurrent["hidden"]  # (B, K, H)
        picture = for_each_caption(state.memory["picture"], ops.shape(before)[1])  # (B, K, D')
        read = ops.concatenate([embedded, picture], axis=-1)
        hidden = self.next_hidden(read, before)
        context, attention_weights = self.attention(
            hidden,
            state.memory["values"],
            ops.concatenate([read, before], axis=-1),
            keys=state.memory["keys"],
            mask=state.memory.get("mask"),
        )
        return {"hidden": hidden, "context": context, "attention_weights": attention_weights}

    def add_losses(self, outputs: dict[str, Any], inputs: dict[str, Any]) -> None:
        weights = outputs["attention_weights"]  # (B, K, T, L)
        looking = ops.maximum(ops.sum(weights, axis=-1, keepdims=True), 1e-9)
        super().add_losses({**outputs, "attention_weights": weights / looking}, inputs)
