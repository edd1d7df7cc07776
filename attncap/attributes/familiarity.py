"""`Familiarity`: out-of-distribution detection, by the distance of an image from the training images."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from sklearn.decomposition import PCA

COMPONENTS = 64
HELD_OUT_SHARE = 0.99  # share of the validation images that count as familiar


@keras.saving.register_keras_serializable("attncap")
class Familiarity(keras.layers.Layer):
    """Distance of an embedding from the embeddings of the training images.

    This is the Mahalanobis distance under probabilistic PCA:

        d^2 = (sum_i (C_i . (x - m))^2 / l_i + |residual|^2 / s) / D

    m is the mean, C_i are the first principal components, l_i their variances, and s is the mean variance of the other
    components. The residual is the part of x - m outside the first components. The distance is about 1 for images
    similar to the training images. An image with a distance above `threshold` is unlike them.

    Args:
        size: D, size of an embedding.
        components: number of principal components.
        threshold: largest distance of a familiar image. `fit` sets it so that 99% of the held-out images are familiar.

    Reference: Tipping and Bishop 1999, "Probabilistic principal component analysis".
    """

    def __init__(self, size: int, components: int = COMPONENTS, threshold: float = float("inf"), **kwargs: Any):
        super().__init__(**{**kwargs, "trainable": False, "dtype": "float32"})
        self.size, self.components, self.threshold = size, components, threshold
        self.mean = self.add_weight(shape=(size,), initializer="zeros", name="mean")
        self.axes = self.add_weight(shape=(components, size), initializer="zeros", name="axes")
        self.variances = self.add_weight(shape=(components,), initializer="ones", name="variances")
        self.noise = self.add_weight(shape=(), initializer="ones", name="noise")
        self.built = True

    @classmethod
    def fit(cls, training: np.ndarray, held_out: np.ndarray) -> Familiarity:
        """Fit the PCA to training embeddings, and set the threshold from held-out embeddings.

        Args:
            training: embeddings of the training images, shape (N, D).
            held_out: embeddings of held-out images, shape (M, D).
        """
        training = np.asarray(training, np.float32)
        count = min(COMPONENTS, training.shape[1] - 1, max(1, (len(training) - 1) // 2))
        pca = PCA(count, random_state=0).fit(training)
        layer = cls(training.shape[1], count)
        floor = 1e-6 * float(training.var(axis=0).mean()) + 1e-12
        variances = np.maximum(pca.explained_variance_, floor)
        noise = max(float(pca.noise_variance_), floor)
        for weight, value in (
            (layer.mean, pca.mean_), (layer.axes, pca.components_), (layer.variances, variances), (layer.noise, noise),
        ):  # fmt: skip
            weight.assign(value)
        layer.threshold = float(np.quantile(layer.distances(held_out), HELD_OUT_SHARE))
        return layer

    def distances(self, embeddings: np.ndarray) -> np.ndarray:
        """Compute the distance d of embeddings, shape (N, D): float64, shape (N,)."""
        mean, axes, variances, noise = (
            np.asarray(keras.ops.convert_to_numpy(weight), float)
            for weight in (self.mean, self.axes, self.variances, self.noise)
        )
        centered = np.asarray(embeddings, float) - mean  # (N, D)
        inside = centered @ axes.T  # (N, components)
        residual = np.maximum((centered**2).sum(axis=1) - (inside**2).sum(axis=1), 0.0)  # (N,)
        return np.sqrt(((inside**2 / variances).sum(axis=1) + residual / noise) / self.size)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.update(size=self.size, components=self.components, threshold=self.threshold)
        return config
