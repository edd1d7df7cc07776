"""`AttributeClassifier`: grid features of a picture in, a probability for each attribute out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from attncap._files import replacing
from attncap.attributes.encoder import GridEncoder  # also registers it: a saved classifier holds one
from attncap.attributes.sentences import to_sentence
from attncap.models.saving import load_keras

MISSING = -1.0  # a label that is not known, in the arrays that are trained on: NaN would poison every gradient


@keras.saving.register_keras_serializable("attncap")
class MaskedBinaryCrossentropy(keras.losses.Loss):
    """Binary cross-entropy over the labels that are known: 0 or 1; below 0 is a label that is not.

    L = sum w * (1 - p_t)^gamma * -log(p_t) / (number of known labels), p_t the probability of the right answer, w the
    weight of the attribute's class. gamma = 0 is plain cross-entropy, above 0 the focal loss.

    Args:
        positive_weights, negative_weights: A numbers each: w of label 1 and of label 0; None: 1.
        focal_gamma: gamma; 2 is the paper's.
        label_smoothing: labels become 0 + s/2 and 1 - s/2.

    Call arguments:
        y_true: shape (B, A).
        y_pred: logits, shape (B, M, A): M members, each with the loss of its own.

    Reference: Lin et al. 2017, "Focal loss for dense object detection", eq. 5.
    """

    def __init__(
        self,
        positive_weights: Sequence[float] | None = None,
        negative_weights: Sequence[float] | None = None,
        focal_gamma: float = 0.0,
        label_smoothing: float = 0.0,
        name: str = "masked_binary_crossentropy",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        self.positive_weights = None if positive_weights is None else list(positive_weights)
        self.negative_weights = None if negative_weights is None else list(negative_weights)
        self.focal_gamma = focal_gamma
        self.label_smoothing = label_smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        logits = ops.cast(y_pred, "float32")
        labels = ops.cast(y_true, "float32")[:, None, :]  # (B, 1, A)
        known = ops.cast(labels >= 0, "float32")
        is_one = ops.cast(labels > 0.5, "float32")
        target = is_one * (1 - self.label_smoothing) + self.label_smoothing / 2
        loss = ops.softplus(logits) - target * logits  # (B, M, A)
        if self.focal_gamma:
            loss *= ops.sigmoid(logits * (1 - 2 * is_one)) ** self.focal_gamma  # 1 - p_t, without cancellation
        if self.positive_weights is not None:
            loss *= 1 + is_one * (ops.convert_to_tensor(self.positive_weights, "float32") - 1)
        if self.negative_weights is not None:
            loss *= 1 + (1 - is_one) * (ops.convert_to_tensor(self.negative_weights, "float32") - 1)
        count = ops.maximum(ops.sum(known), 1.0) * ops.shape(logits)[1]
        return ops.sum(loss * known) / ops.cast(count, "float32")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "positive_weights": self.positive_weights,
            "negative_weights": self.negative_weights,
            "focal_gamma": self.focal_gamma,
            "label_smoothing": self.label_smoothing,
        }


@keras.saving.register_keras_serializable("attncap")
class GridHead(keras.layers.Layer):
    """From the grids of several layers to logits: a projection a cell, all cells side by side, one hidden layer.

    z_l = gelu(P_l norm(x_l)) in every cell of grid l, h = gelu(W [z_1; ...; z_n]), logits = V h. Cells keep their
    places (no pooling): of aligned faces, hair is above and a beard below.

    Args:
        grids: (rows, cols, D) of each layer's grid, as `GridEncoder.grids` says.
        outputs: A, number of attributes.
        projection_units: a cell keeps so many numbers of its D.
        hidden_units: size of h; 0: none, the logits are linear in z.
        dropout: share of z and h dropped in training; half of it of the normalized features.
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
        start, seen = 0, []
        for norm, projection, (rows, cols, size) in zip(self.norms, self.projections, self.grids, strict=True):
            part = features[:, start : start + rows * cols * size]
            start += rows * cols * size
            cells = norm(ops.reshape(part, (-1, rows * cols, size)), training=training)  # (B, cells, D)
            projected = projection(self.input_dropout(cells, training=training))  # (B, cells, P)
            seen.append(ops.reshape(projected, (-1, rows * cols * self.projection_units)))  # (B, cells * P)
        joined = self.hidden_dropout(ops.concatenate(seen, axis=-1), training=training)
        if self.hidden is not None:
            joined = self.output_dropout(self.hidden(joined), training=training)
        return ops.cast(self.logits(joined), "float32")  # (B, A)


@keras.saving.register_keras_serializable("attncap")
class AttributeClassifier(keras.Model):
    """Multi-label classifier of pictures; names, thresholds, calibration and encoder are saved inside.

    Args:
        names: of the A attributes, the order of every output.
        encoder: the `GridEncoder` whose features it takes; None for features of another origin, with `grids`.
        grids: (rows, cols, D) of each layer in the features; None: the encoder's.
        members: M heads, each with its own first weights; their mean logits answer. Two or three gain a little.
        projection_units, hidden_units, dropout: see `GridHead`.
        mirror: probabilities of a picture file are of the mean logits of it and its mirror image.
        thresholds: A numbers; a picture has the attribute where its probability reaches them. None: 0.5 each.
        slopes, offsets: A numbers each, from `attncap.attributes.metrics.calibrate`. None: 1 and 0.

    Call arguments:
        features: shape (B, 1, 1, D) or (B, D), D as the grids say.

    Returns:
        logits: float32, shape (B, M, A), before calibration.

    Raises:
        ValueError: neither encoder nor grids, a name twice, lists of another length than the names.

    Example:
        >>> classifier = load_classifier("runs/attributes")
        >>> classifier.names[0], classifier.probabilities(features).shape
        ('5_o_Clock_Shadow', (7, 40))
    """

    def __init__(
        self,
        names: Sequence[str],
        encoder: GridEncoder | None = None,
        grids: Sequence[Sequence[int]] | None = None,
        *,
        members: int = 1,
        projection_units: int = 128,
        hidden_units: int = 0,
        dropout: float = 0.5,
        mirror: bool = False,
        thresholds: Sequence[float] | None = None,
        slopes: Sequence[float] | None = None,
        offsets: Sequence[float] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if encoder is None and grids is None:
            raise ValueError("give an encoder, or the grids (rows, cols, D) of the features")
        if encoder is not None and grids is not None and [tuple(grid) for grid in grids] != encoder.grids:
            raise ValueError(f"grids {[tuple(grid) for grid in grids]} are not the encoder's {encoder.grids}")
        if not names or len(set(names)) != len(names):
            raise ValueError(f"names: at least one, and each once, expected; got {', '.join(names) or 'none'}")
        if members < 1:
            raise ValueError(f"members must be at least 1, got {members}")
        self.names = tuple(names)
        self.encoder = encoder
        self.grids = [tuple(int(side) for side in grid) for grid in (grids or encoder.grids)]  # type: ignore[union-attr]
        self.feature_size = sum(rows * cols * size for rows, cols, size in self.grids)
        self.settings: dict[str, Any] = {
            "projection_units": projection_units,
            "hidden_units": hidden_units,
            "dropout": dropout,
        }
        self.mirror = mirror
        self.heads = [
            GridHead(self.grids, len(names), **self.settings, dtype=self.dtype_policy, name=f"head_{index}")
            for index in range(members)
        ]
        for head in self.heads:
            head.build((None, self.feature_size))
        if encoder is not None:
            encoder.trainable = False
        self.built = True
        self.set_answers(thresholds, slopes, offsets)

    def set_answers(
        self,
        thresholds: Sequence[float] | None = None,
        slopes: Sequence[float] | None = None,
        offsets: Sequence[float] | None = None,
    ) -> None:
        """Set thresholds and calibration, each A numbers; None: 0.5, 1, 0."""
        for given, what in ((thresholds, "thresholds"), (slopes, "slopes"), (offsets, "offsets")):
            if given is not None and len(given) != len(self.names):
                raise ValueError(f"{what}: {len(self.names)} numbers expected, one an attribute, got {len(given)}")
        count = len(self.names)
        self.thresholds = np.full(count, 0.5) if thresholds is None else np.asarray(thresholds, float)
        self.slopes = np.ones(count) if slopes is None else np.asarray(slopes, float)
        self.offsets = np.zeros(count) if offsets is None else np.asarray(offsets, float)

    def call(self, features: Any, training: bool = False) -> Any:
        size = int(np.prod(features.shape[1:]))
        if size != self.feature_size:
            raise ValueError(f"features of {self.feature_size} numbers a picture expected, got {tuple(features.shape)}")
        flat = ops.cast(ops.reshape(features, (-1, size)), self.compute_dtype)  # (B, D)
        return ops.stack([head(flat, training=training) for head in self.heads], axis=1)  # (B, M, A)

    def mean_logits(self, features: Any) -> np.ndarray:
        """Return the mean of the members' logits, not calibrated: float32, shape (N, A)."""
        # Called, not `predict_on_batch`: a few classifiers in one process would be warned of as one traced ever anew.
        return np.asarray(ops.convert_to_numpy(self(features, training=False)), np.float32).mean(axis=1)

    def calibrated(self, logits: np.ndarray) -> np.ndarray:
        """Return the probabilities of mean logits (N, A): float64, 0 to 1."""
        return 0.5 * (1 + np.tanh((self.slopes * logits + self.offsets) / 2))

    def probabilities(self, features: Any) -> np.ndarray:
        """Return calibrated probabilities of features (N, 1, 1, D): float64, shape (N, A)."""
        return self.calibrated(self.mean_logits(features))

    def sentence(self, probs: np.ndarray, most: int | None = None) -> str:
        """Say the attributes of one picture, probs (A,), in words; see `attncap.attributes.sentences.to_sentence`."""
        return to_sentence(self.names, probs, self.thresholds, most)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "names": list(self.names),
            "encoder": None if self.encoder is None else keras.saving.serialize_keras_object(self.encoder),
            "grids": [list(grid) for grid in self.grids],
            "members": len(self.heads),
            **self.settings,
            "mirror": self.mirror,
            "thresholds": self.thresholds.tolist(),
            "slopes": self.slopes.tolist(),
            "offsets": self.offsets.tolist(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> AttributeClassifier:
        config = dict(config)
        if config["encoder"] is not None:
            config["encoder"] = keras.saving.deserialize_keras_object(config["encoder"], custom_objects)
        return cls(**config)


def save_classifier(classifier: AttributeClassifier, path: str | Path) -> None:
    """Write one `.keras` file, whole or not at all; the optimizer's state is not in it."""
    with replacing(path) as temporary:
        optimizer = getattr(classifier, "optimizer", None)
        if optimizer is None:
            classifier.save(temporary)
            return
        classifier.optimizer = None
        try:
            classifier.save(temporary)
        finally:
            classifier.optimizer = optimizer


def load_classifier(path: str | Path) -> AttributeClassifier:
    """Load a classifier from a run folder or a `.keras` file, in Keras's safe mode.

    Raises:
        FileNotFoundError: no such file, or a folder without `best.keras`.
        ValueError: the file is no classifier, or damaged.

    Example:
        >>> load_classifier("runs/attributes").thresholds.shape
        (40,)
    """
    return load_keras(path, AttributeClassifier, "classifier of attributes")
