"""`AttributeClassifier`: multi-label classifier that predicts one probability per attribute from grid features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from attncap.attributes.attention_head import AttentionHead
from attncap.attributes.encoder import GridEncoder, last_layer_means
from attncap.attributes.familiarity import Familiarity
from attncap.attributes.head import GridHead
from attncap.attributes.sentences import to_sentence
from attncap.attributes.statements import MOST, NOTHING, Statements, choose_claims
from attncap.models.saving import load_keras, save_keras


@keras.saving.register_keras_serializable("attncap")
class AttributeClassifier(keras.Model):
    """Multi-label image classifier. The saved file includes the names, thresholds, calibration and encoder.

    Args:
        names: names of the A attributes, in the order of the outputs.
        encoder: the `GridEncoder` that computes the features. None: features are computed elsewhere; give `grids`.
        grids: (rows, cols, D) of the grid of each layer in the features. None: the grids of the encoder.
        members: M, number of heads. Their logits are averaged.
        projection_units, hidden_units, dropout: see `GridHead`.
        attention: use an `AttentionHead` with `projection_units` units instead of a `GridHead`. `hidden_units` is then
            not used.
        mirror: average the logits of an image and its mirror image.
        thresholds: A numbers. An attribute is predicted if its probability is at least its threshold. None: 0.5 each.
        slopes, offsets: A numbers each, from `attncap.attributes.calibration.calibrate`. None: 1 and 0.
        statements: configuration of `Statements`, if the outputs are statements that people would make. None: the
            outputs are attributes.
        familiarity: arguments of a `Familiarity` layer. Its weights are saved with the classifier. None: no such layer.
        finished: whether training has finished. `load_classifier` refuses a file of an unfinished training.

    Call arguments:
        features: shape (B, 1, 1, D) or (B, D), where D is the size of all grids together.

    Returns:
        logits: float32, shape (B, M, A), before calibration.

    Raises:
        ValueError: neither `encoder` nor `grids` is given, or they differ; `names` is empty or has a duplicate;
            `members` is below 1; a list has another length than `names`.

    Example:
        >>> classifier = load_classifier("runs/attributes")
        >>> classifier.names[0], classifier.probabilities(features).shape
        ('5_o_Clock_Shadow', (7, 40))
    """

    layer_counts = ("members", "grids")  # settings that determine the number of layers, see `load_keras`

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
        attention: bool = False,
        mirror: bool = False,
        thresholds: Sequence[float] | None = None,
        slopes: Sequence[float] | None = None,
        offsets: Sequence[float] | None = None,
        statements: dict[str, Any] | None = None,
        familiarity: dict[str, Any] | None = None,
        finished: bool = True,
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
        self.attention = attention
        self.heads: list[Any] = []
        for index in range(members):
            own: dict[str, Any] = {"dtype": self.dtype_policy, "name": f"head_{index}"}
            if attention:
                head: Any = AttentionHead(self.grids, len(names), projection_units, dropout, **own)
            else:
                head = GridHead(self.grids, len(names), **self.settings, **own)
            self.heads.append(head)
        for head in self.heads:
            head.build((None, self.feature_size))
        if encoder is not None:
            encoder.trainable = False
        self.familiarity = None if familiarity is None else Familiarity(**familiarity)
        self.built = True
        self.statements = None if statements is None else Statements.from_config(statements)
        self.finished = finished
        count = len(self.names)
        self.thresholds, self.slopes, self.offsets = np.full(count, 0.5), np.ones(count), np.zeros(count)
        self.set_answers(thresholds, slopes, offsets)

    def set_answers(
        self,
        thresholds: Sequence[float] | None = None,
        slopes: Sequence[float] | None = None,
        offsets: Sequence[float] | None = None,
    ) -> None:
        """Set the thresholds and the calibration, A numbers each. A value of None leaves the setting unchanged."""
        given = {"thresholds": thresholds, "slopes": slopes, "offsets": offsets}
        for name, values in given.items():
            if values is not None and len(values) != len(self.names):
                expected = f"{len(self.names)} numbers expected, one per attribute"
                raise ValueError(f"{name}: {expected}, got {len(values)}")
        for name, values in given.items():
            if values is not None:
                setattr(self, name, np.asarray(values, float))

    def embeddings(self, features: Any) -> np.ndarray:
        """Average the features over the cells of the last grid: float32, shape (N, D of that grid)."""
        return last_layer_means(features, self.grids)

    def distances(self, features: Any) -> np.ndarray:
        """Return the distance of each image from the training images, shape (N,), see `Familiarity`.

        All distances are 0 if the classifier has no `Familiarity` layer.
        """
        if self.familiarity is None:
            return np.zeros(len(features))
        return self.familiarity.distances(self.embeddings(features))

    @property
    def farthest(self) -> float:
        """The largest distance of a familiar image: images with a larger distance are unlike the training images."""
        return float("inf") if self.familiarity is None else self.familiarity.threshold

    def call(self, features: Any, training: bool = False) -> Any:
        size = int(np.prod(features.shape[1:]))
        if size != self.feature_size:
            raise ValueError(f"features of {self.feature_size} numbers per image expected, got {tuple(features.shape)}")
        flat = ops.cast(ops.reshape(features, (-1, size)), self.compute_dtype)  # (B, D)
        return ops.stack([head(flat, training=training) for head in self.heads], axis=1)  # (B, M, A)

    @property
    def views(self) -> tuple[bool, ...]:
        """The views of an image whose logits are averaged: False is the image itself, True its mirror image."""
        return (False, True) if self.mirror else (False,)

    def mean_logits(self, *views: Any) -> np.ndarray:
        """Average the uncalibrated logits over heads and views: float32, shape (N, A).

        Args:
            views: features of each view of the same N images, such as the images and their mirror images.
        """
        # The model is called directly: `predict_on_batch` warns of retracing if one process uses several classifiers.
        logits = [np.asarray(ops.convert_to_numpy(self(view, training=False)), np.float32) for view in views]
        return np.mean([each.mean(axis=1) for each in logits], axis=0)  # (N, M, A) each, to (N, A)

    def calibrated(self, logits: np.ndarray) -> np.ndarray:
        """Convert mean logits, shape (N, A), to calibrated probabilities: float64, 0 to 1."""
        return 0.5 * (1 + np.tanh((self.slopes * logits + self.offsets) / 2))

    def probabilities(self, features: Any) -> np.ndarray:
        """Predict calibrated probabilities from features, shape (N, 1, 1, D): float64, shape (N, A)."""
        return self.calibrated(self.mean_logits(features))

    def sentence(self, probs: np.ndarray, most: int | None = None) -> str:
        """Describe one image in words.

        A classifier of statements lists the phrases of the statements that `choose_claims` selects. A classifier of
        attributes writes a sentence, see `attncap.attributes.sentences.to_sentence`.

        Args:
            probs: calibrated probabilities of one image, shape (A,).
            most: largest number of statements or attributes. None: 5 statements, or the default of `to_sentence`.
        """
        if self.statements is None:
            return to_sentence(self.names, probs, self.thresholds, most)
        chosen = choose_claims(probs, self.statements, MOST if most is None else most)
        return ", ".join(self.statements.phrases[at] for at in chosen) or NOTHING

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "names": list(self.names),
            "encoder": None if self.encoder is None else keras.saving.serialize_keras_object(self.encoder),
            "grids": [list(grid) for grid in self.grids],
            "members": len(self.heads),
            **self.settings,
            "attention": self.attention,
            "mirror": self.mirror,
            "thresholds": self.thresholds.tolist(),
            "slopes": self.slopes.tolist(),
            "offsets": self.offsets.tolist(),
            "statements": None if self.statements is None else self.statements.to_config(),
            "familiarity": self._familiarity_config(),
            "finished": self.finished,
        }

    def _familiarity_config(self) -> dict[str, Any] | None:
        layer = self.familiarity
        return layer and {"size": layer.size, "components": layer.components, "threshold": layer.threshold}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> AttributeClassifier:
        config = dict(config)
        if config["encoder"] is not None:
            config["encoder"] = keras.saving.deserialize_keras_object(config["encoder"], custom_objects)
        return cls(**config)


def save_classifier(classifier: AttributeClassifier, path: str | Path) -> None:
    """Save a classifier as one `.keras` file, without the state of the optimizer.

    An interrupted save leaves no incomplete file.
    """
    save_keras(classifier, path)


def load_classifier(path: str | Path, *, unfinished: bool = False) -> AttributeClassifier:
    """Load a classifier from a run folder or a `.keras` file, in the safe mode of Keras.

    Args:
        path: run folder of `attncap attributes train`, or a `.keras` file.
        unfinished: accept a classifier whose training has not finished. It has no calibration and no tuned thresholds
            yet.

    Raises:
        FileNotFoundError: there is no such file, or the folder has no `best.keras`.
        ValueError: the file is not a classifier or is damaged, or its training has not finished and `unfinished` is
            False.

    Example:
        >>> load_classifier("runs/attributes").thresholds.shape
        (40,)
    """
    classifier: AttributeClassifier = load_keras(path, AttributeClassifier, "classifier of attributes")
    if not (classifier.finished or unfinished):
        raise ValueError(
            f"{path}: its training did not finish, so it has no thresholds and no calibration: go on with "
            "`attncap attributes train --resume`"
        )
    return classifier
