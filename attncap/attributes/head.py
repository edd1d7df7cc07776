"""`GridHead`: classification head that computes one logit per attribute from grid features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from attncap.attributes.encoder import split_grids


@keras.saving.register_keras_serializable("attncap")
class GridHead(keras.layers.Layer):
    """Classification head: project each cell, concatenate all cells, apply an optional hidden layer.

        z_l = gelu(P_l norm(x_l))        for each cell of grid l
        h = gelu(W [z_1; ...; z_n])
        logits = V h

    Each dense layer also has a bias. The cells are not pooled, so that the position of a cell matters: in aligned
    faces, hair is at the top and a beard at the bottom.

    Args:
        grids: (rows, cols, D) of the grid of each layer, see `GridEncoder.grids`.
        outputs: A, number of attributes.
        projection_units: P, size of a projected cell.
        hidden_units: size of h. 0: no hidden layer; the logits are linear in z.
        dropout: dropout rate of z and h. The normalized features have half of this rate.

    Call arguments:
        features: shape (B, D), the grids one after the other, each flat.

    Returns:
        logits: float32, shape (B, A).
    """

    def __init__(
        self,
        grids: Sequence[Sequence[int]],
        outputs: int,
        projection_units: int = 128,
        hidden_units: int = 0,
        dropout: float = 0.5,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.grids = [tuple(int(side) for side in grid) for grid in grids]
        self.outputs = outputs
        self.projection_units, self.hidden_units, self.dropout_rate = projection_units, hidden_units, dropout
        policy = self.dtype_policy
        self.norms = [keras.layers.BatchNormalization(scale=False, center=False, dtype=policy) for _ in self.grids]
        self.input_dropout = keras.layers.Dropout(dropout / 2, dtype=policy)
        self.projections = [keras.layers.Dense(projection_units, "gelu", dtype=policy) for _ in self.grids]
        self.hidden_dropout = keras.layers.Dropout(dropout, dtype=policy)
        self.output_dropout = keras.layers.Dropout(dropout, dtype=policy)
        self.hidden = keras.layers.Dense(hidden_units, "gelu", dtype=policy) if hidden_units else None
        self.logits = keras.layers.Dense(outputs, dtype=policy)

    def build(self, input_shape: Any) -> None:
        cells = 0
        for norm, projection, (rows, cols, size) in zip(self.norms, self.projections, self.grids, strict=True):
            norm.build((None, rows * cols, size))
            projection.build((None, rows * cols, size))
            cells += rows * cols
        width = cells * self.projection_units
        if self.hidden is not None:
            self.hidden.build((None, width))
            width = self.hidden_units
        self.logits.build((None, width))
        self.built = True

    def call(self, features: Any, training: bool = False) -> Any:
        seen, grids = [], split_grids(features, self.grids)
        for norm, projection, cells in zip(self.norms, self.projections, grids, strict=True):
            normed = norm(cells, training=training)  # (B, cells, D)
            projected = projection(self.input_dropout(normed, training=training))  # (B, cells, P)
            seen.append(ops.reshape(projected, (-1, cells.shape[1] * self.projection_units)))  # (B, cells * P)
        joined = self.hidden_dropout(ops.concatenate(seen, axis=-1), training=training)
        if self.hidden is not None:
            joined = self.output_dropout(self.hidden(joined), training=training)
        return ops.cast(self.logits(joined), "float32")  # (B, A)
