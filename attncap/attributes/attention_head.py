"""`AttentionHead`: classification head in which each statement has its own attention over the image regions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from attncap.attributes.encoder import split_grids


@keras.saving.register_keras_serializable("attncap")
class AttentionHead(keras.layers.Layer):
    """Classification head in which each statement has its own attention over the regions of every grid.

    Different statements depend on different regions, such as "wears a hat" and "has a goatee". For statement k and a
    grid with the regions x_1 .. x_L:

        h_l                  = gelu(W norm(x_l) + c)
        attention_scores_kl  = q_k . h_l + p_kl
        attention_weights_k  = softmax(attention_scores_k)
        context_k            = sum_l attention_weights_kl h_l
        logit_k              = b_k + sum over the grids (v_k . context_k)

    This is similar to the additive attention of a captioner, w . tanh(W_q s + W_k x_l + b), where s is the state of the
    decoder. The state changes with every word, but a statement is the same for all images. Therefore there is no state:
    W_q s is replaced by the constant c, and w by a vector q_k for each statement. The bias p_kl learns where a
    statement is usually visible, for example in aligned faces. If q and p are zero, all regions have the same weight.

    Args:
        grids: (rows, cols, D) of the grid of each layer, see `GridEncoder.grids`. Each grid has its own W, c, q, p and
            v.
        outputs: A, number of statements.
        units: U, size of h. All statements share h.
        dropout: dropout rate of h. A unit is dropped in all regions of an image. The normalized features have half of
            this rate.

    Call arguments:
        features: shape (B, D), the grids one after the other, each flat.

    Returns:
        logits: float32, shape (B, A).

    Example:
        >>> head = AttentionHead([(7, 7, 288), (4, 4, 1280)], outputs=83)
        >>> head(features).shape, [weights.shape for weights in head.attention_weights(features)]
        ((2, 83), [(2, 49, 83), (2, 16, 83)])

    Reference: Bahdanau et al. 2015, appendix A.1.2; Zhu et al. 2017, "Learning spatial regularization with image-level
    supervisions for multi-label image classification" (one attention map per label).
    """

    def __init__(
        self,
        grids: Sequence[Sequence[int]],
        outputs: int,
        units: int = 64,
        dropout: float = 0.5,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.grids = [tuple(int(side) for side in grid) for grid in grids]
        self.outputs, self.units, self.dropout_rate = outputs, units, dropout
        policy = self.dtype_policy
        # The statistics of one batch are accurate, because they include all regions. A low momentum lets the moving
        # averages converge on small data sets too.
        self.norms = [
            keras.layers.BatchNormalization(momentum=0.9, scale=False, center=False, dtype=policy) for _ in self.grids
        ]
        self.projections = [keras.layers.Dense(units, "gelu", dtype=policy) for _ in self.grids]
        self.input_dropout = keras.layers.SpatialDropout1D(dropout / 2, dtype=policy)
        self.unit_dropout = keras.layers.SpatialDropout1D(dropout, dtype=policy)

    def build(self, input_shape: Any) -> None:
        self.queries, self.values, self.positions = [], [], []
        for at, (rows, cols, size) in enumerate(self.grids):
            self.norms[at].build((None, rows * cols, size))
            self.projections[at].build((None, rows * cols, size))
            kernel, small = (self.units, self.outputs), keras.initializers.RandomNormal
            self.queries.append(self.add_weight(kernel, small(stddev=0.01), name=f"queries_{at}"))
            self.values.append(self.add_weight(kernel, small(stddev=0.02), name=f"values_{at}"))
            self.positions.append(self.add_weight((rows * cols, self.outputs), "zeros", name=f"positions_{at}"))
        self.bias = self.add_weight((self.outputs,), "zeros", name="bias")
        self.built = True

    def start_at(self, shares: np.ndarray) -> None:
        """Initialize the bias b with the log-odds of the share of each statement.

        Args:
            shares: share of the training texts that make each statement, shape (A,).
        """
        shares = np.clip(shares, 1e-4, 1 - 1e-4)
        self.bias.assign(np.log(shares / (1 - shares)))

    def attention_weights(self, features: Any) -> list[Any]:
        """Compute the attention weights of each grid: float32, shape (B, L, A). The sum over the L regions is 1."""
        return [self._weights(at, hidden) for at, hidden in enumerate(self._hidden(features))]

    def contributions(self, features: Any, training: bool = False) -> list[Any]:
        """Compute how much each region adds to each logit: its attention weight times v_k . h_l.

        Returns:
            contributions: one tensor per grid, float32, shape (B, L, A).
        """
        return [
            self._weights(at, hidden) * ops.cast(ops.matmul(hidden, self.values[at]), "float32")  # (B, L, A)
            for at, hidden in enumerate(self._hidden(features, training))
        ]

    def call(self, features: Any, training: bool = False) -> Any:
        of_grids = [ops.sum(part, axis=1) for part in self.contributions(features, training)]  # (B, A): v_k . context_k
        return ops.cast(self.bias, "float32") + sum(of_grids)

    def _hidden(self, features: Any, training: bool = False) -> Iterator[Any]:
        """Yield the units h of each grid, shape (B, L, U)."""
        grids = split_grids(ops.cast(features, self.compute_dtype), self.grids)
        for norm, projection, given in zip(self.norms, self.projections, grids, strict=True):
            regions = norm(given, training=training)  # (B, L, D)
            hidden = projection(self.input_dropout(regions, training=training))  # (B, L, U)
            yield self.unit_dropout(hidden, training=training)

    def _weights(self, at: int, hidden: Any) -> Any:
        attention_scores = ops.matmul(hidden, self.queries[at]) + self.positions[at]  # (B, L, A)
        return ops.softmax(ops.cast(attention_scores, "float32"), axis=1)
