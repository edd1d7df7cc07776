"""The captioners: `AttentionCaptioner` looks at regions before each word, `ShowAndTell` reads the picture once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from attncap.captioner import Captioner, CaptionerState, for_each_caption
from attncap.features import FeatureExtractor
from attncap.keras_files import load_keras
from attncap.layers import BahdanauAttention
from attncap.losses import attention_supervision, doubly_stochastic_penalty
from attncap.text import CaptionTokenizer


@keras.saving.register_keras_serializable("attncap")
class AttentionCaptioner(Captioner):
    """Captioning with visual attention: a GRU that looks at the picture's regions before each word.

    values a_l = dropout(norm(W_a f_l)) of the features f_l; h_0 = tanh(W_0 mean_l a_l); then, for each word y:

        z_t = attention(h_{t-1}, a);    with the context gate  z_t <- sigmoid(W_b h_{t-1} + b) * z_t
        h_t = GRU([E y_{t-1}, z_t], h_{t-1})
        p(y_t) = softmax(W_o dropout(tanh(E y_{t-1} + W_h h_t + W_z z_t)))            (deep output)

    Departures from the paper: a GRU for its LSTM; regions are projected to `projection_units` and normalised before
    they are attended to; the gate has one value a unit where the paper has one for the whole context.

    The doubly stochastic penalty adds `attention_penalty * mean_l (1 - sum_t alpha_{t,l})^2` to the loss, the sum over
    a caption's real words, so that in the course of a caption every region is looked at.

    Args:
        projection_units: D', size of the attended values.
        attention_units: A, size of the space of queries and keys.
        context_gate: whether a gate on the context (beta of Show, Attend and Tell) is learnt.
        attention_penalty: weight of the doubly stochastic penalty.
        attention_supervision: weight of `losses.attention_supervision` where batches carry `regions` (B, K, T, L), see
            `CaptionBatches`; 0 learns the maps from words alone.
        others: see `Captioner`.

    Example:
        >>> captioner = AttentionCaptioner(tokenizer, encoder=FeatureExtractor("mixed8"))
        >>> captioner.compile(keras.optimizers.AdamW(1e-3), loss=MaskedCrossentropy())
        >>> captioner.fit(batches)

    Reference: Xu et al. 2015, "Show, Attend and Tell", sections 3.1.2 and 4.2; Bahdanau et al. 2015.
    """

    has_attention = True

    def __init__(
        self,
        tokenizer: CaptionTokenizer,
        feature_shape: tuple[int, int, int] | None = None,
        encoder: FeatureExtractor | None = None,
        *,
        projection_units: int = 512,
        attention_units: int = 256,
        context_gate: bool = True,
        attention_penalty: float = 1.0,
        attention_supervision: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(tokenizer, feature_shape, encoder, **kwargs)
        policy = self.dtype_policy
        self.projection_units = projection_units
        self.attention_units = attention_units
        self.context_gate = context_gate
        self.attention_penalty = attention_penalty
        self.attention_supervision = attention_supervision
        self.value_dense = keras.layers.Dense(projection_units, dtype=policy, name="values")
        self.value_norm = keras.layers.LayerNormalization(dtype=policy, name="value_norm")
        self.value_dropout = keras.layers.Dropout(self.dropout_rate, dtype=policy)
        self.attention = BahdanauAttention(attention_units, dtype=policy, name="attention")
        self.initial_dense = keras.layers.Dense(self.hidden_units, activation="tanh", dtype=policy, name="initial")
        self.gate_dense = keras.layers.Dense(projection_units, activation="sigmoid", dtype=policy, name="gate")
        self.cell = keras.layers.GRUCell(self.hidden_units, dtype=policy, name="gru")
        self.hidden_dense = keras.layers.Dense(self.embedding_units, dtype=policy, name="hidden_readout")
        self.context_dense = keras.layers.Dense(
            self.embedding_units, use_bias=False, dtype=policy, name="context_readout"
        )
        self.build()

    def build(self, input_shape: Any = None) -> None:
        values, hidden, embedded = self.projection_units, self.hidden_units, self.embedding_units
        self.value_dense.build((None, None, self.feature_shape[-1]))
        self.value_norm.build((None, None, values))
        self.attention.build((None, None, hidden), (None, None, values))
        self.initial_dense.build((None, values))
        if self.context_gate:
            self.gate_dense.build((None, None, hidden))
        self.cell.build((None, embedded + values))
        self.hidden_dense.build((None, None, hidden))
        self.context_dense.build((None, None, values))
        self._readout_layers_built(embedded)

    def init_state(self, features: Any, captions: int = 1, training: bool = False) -> CaptionerState:
        rows, cols, _ = self.feature_shape
        features = self.regions_of(features)  # (B, L, D)
        values = self.value_norm(self.value_dense(features))  # (B, L, D')
        values = self.value_dropout(values, training=training)
        memory = {"values": values, "keys": self.attention.project(values)}
        batch = ops.shape(values)[0]
        recurrent = {
            "hidden": for_each_caption(self.initial_dense(ops.mean(values, axis=1)), captions),
            "context": ops.zeros((batch, captions, self.projection_units), self.compute_dtype),
            "attention_weights": ops.zeros((batch, captions, rows * cols), "float32"),
        }
        return CaptionerState(memory, recurrent)

    def advance(self, embedded: Any, state: CaptionerState) -> dict[str, Any]:
        hidden = state.recurrent["hidden"]  # (B, K, H), the query: the state before this word
        context, attention_weights = self.attention(
            hidden, state.memory["values"], keys=state.memory["keys"], return_attention_scores=True
        )
        if self.context_gate:
            context = context * self.gate_dense(hidden)
        read = ops.concatenate([embedded, context], axis=-1)
        flat = ops.reshape(read, (-1, read.shape[-1]))  # (B K, E + D'): Keras's cell takes one batch axis
        flat, _ = self.cell(flat, [ops.reshape(hidden, (-1, self.hidden_units))])
        hidden = ops.reshape(flat, ops.shape(hidden))  # (B, K, H)
        return {"hidden": hidden, "context": context, "attention_weights": attention_weights}

    def readout(self, embedded: Any, recurrent: dict[str, Any], training: bool = False) -> Any:
        deep = embedded + self.hidden_dense(recurrent["hidden"]) + self.context_dense(recurrent["context"])
        return self.logits_dense(self.output_dropout(ops.tanh(deep), training=training))

    def add_losses(self, outputs: dict[str, Any], inputs: dict[str, Any]) -> None:
        weights = outputs["attention_weights"]  # (B, K, T, L)
        if self.attention_penalty:
            self.add_loss(self.attention_penalty * doubly_stochastic_penalty(weights, inputs["token_ids"]))
        if self.attention_supervision and inputs.get("regions") is not None:
            self.add_loss(self.attention_supervision * attention_supervision(weights, inputs["regions"]))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "projection_units": self.projection_units,
            "attention_units": self.attention_units,
            "context_gate": self.context_gate,
            "attention_penalty": self.attention_penalty,
            "attention_supervision": self.attention_supervision,
        }


@keras.saving.register_keras_serializable("attncap")
class ShowAndTell(Captioner):
    """Captioning without attention: an LSTM reads the whole picture once, as if it were the word before the first.

    x_{-1} = dropout(norm(W_p (mean_l f_l - m) / s)) of the features f_l; then, for each word y:

        h_{-1}, c_{-1} = LSTM(x_{-1}, 0, 0)
        h_t, c_t = LSTM(E y_{t-1}, h_{t-1}, c_{t-1})
        p(y_t) = softmax(W_o dropout(h_t))

    m and s are the mean and the deviation of mean_l f_l over the training pictures, which `train` sets. All pictures
    are much alike in mean_l f_l, and without them it takes many times as long until the LSTM tells one from another:
    9 epochs on 2,250 drawn faces gave captions of which 25% was true, chance being 20%.

    Departures from the paper: the picture is the mean over the encoder's grid, which stays frozen, standardised as
    above; its embedding is normalised; the words' size E and the state's H may differ.

    There are no attention maps: `step` gives None for them.

    Args:
        see `Captioner`.

    Example:
        >>> captioner = ShowAndTell(tokenizer, encoder=FeatureExtractor("mixed8"))
        >>> captioner.compile(keras.optimizers.AdamW(1e-3), loss=MaskedCrossentropy())
        >>> captioner.fit(batches)

    Reference: Vinyals et al. 2015, "Show and Tell: A Neural Image Caption Generator", section 3.1, eq. 10-12.
    """

    def __init__(
        self,
        tokenizer: CaptionTokenizer,
        feature_shape: tuple[int, int, int] | None = None,
        encoder: FeatureExtractor | None = None,
        **kwargs: Any,
    ):
        super().__init__(tokenizer, feature_shape, encoder, **kwargs)
        policy = self.dtype_policy
        self.picture_dense = keras.layers.Dense(self.embedding_units, dtype=policy, name="picture")
        self.picture_norm = keras.layers.LayerNormalization(dtype=policy, name="picture_norm")
        self.picture_dropout = keras.layers.Dropout(self.dropout_rate, dtype=policy)
        self.cell = keras.layers.LSTMCell(self.hidden_units, dtype=policy, name="lstm")
        size = (self.feature_shape[-1],)
        self.picture_mean = self.add_weight(
            shape=size, initializer="zeros", dtype="float32", trainable=False, name="picture_mean"
        )
        self.picture_deviation = self.add_weight(
            shape=size, initializer="ones", dtype="float32", trainable=False, name="picture_deviation"
        )
        self.build()

    def standardise(self, mean: Any, deviation: Any) -> None:
        """Set what pooled features are standardised with: m and s of the training pictures, shape (D,) each.

        Raises:
            ValueError: another shape, or a deviation that is not above 0.
        """
        size = (self.feature_shape[-1],)
        if np.shape(mean) != size or np.shape(deviation) != size or not np.min(deviation) > 0:
            raise ValueError(
                f"mean and deviation of shape {size} expected, the deviation above 0; got {np.shape(mean)}, "
                f"{np.shape(deviation)}"
            )
        self.picture_mean.assign(mean)
        self.picture_deviation.assign(deviation)

    def build(self, input_shape: Any = None) -> None:
        self.picture_dense.build((None, self.feature_shape[-1]))
        self.picture_norm.build((None, self.embedding_units))
        self.cell.build((None, self.embedding_units))
        self._readout_layers_built(self.hidden_units)

    def init_state(self, features: Any, captions: int = 1, training: bool = False) -> CaptionerState:
        pooled = ops.mean(ops.cast(self.regions_of(features), "float32"), axis=1)  # (B, D)
        pooled = ops.cast((pooled - self.picture_mean) / self.picture_deviation, self.compute_dtype)
        picture = self.picture_norm(self.picture_dense(pooled))  # (B, E)
        picture = self.picture_dropout(picture, training=training)
        nothing = ops.zeros((ops.shape(picture)[0], self.hidden_units), self.compute_dtype)
        _, (hidden, carry) = self.cell(picture, [nothing, nothing])  # once, however many captions there are
        return CaptionerState(
            {}, {"hidden": for_each_caption(hidden, captions), "carry": for_each_caption(carry, captions)}
        )

    def advance(self, embedded: Any, state: CaptionerState) -> dict[str, Any]:
        before = [state.recurrent["hidden"], state.recurrent["carry"]]  # (B, K, H) each
        flat = [ops.reshape(tensor, (-1, self.hidden_units)) for tensor in before]  # (B K, H): a cell's one batch axis
        _, after = self.cell(ops.reshape(embedded, (-1, self.embedding_units)), flat)
        hidden, carry = (ops.reshape(tensor, ops.shape(before[0])) for tensor in after)  # (B, K, H)
        return {"hidden": hidden, "carry": carry}

    def readout(self, embedded: Any, recurrent: dict[str, Any], training: bool = False) -> Any:
        return self.logits_dense(self.output_dropout(recurrent["hidden"], training=training))


def load_captioner(path: str | Path) -> Captioner:
    """Load a saved captioner: vocabulary, preprocessing, encoder and weights are all in the file.

    Args:
        path: a `.keras` file, or a run folder, whose `best.keras` is taken.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a captioner, damaged, of a newer Keras, or made to run code on loading; see `load_keras`.
    """
    return load_keras(path, Captioner, "captioner")
