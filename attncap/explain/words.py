"""Explain the words of a caption: find the parts of the image that made each word probable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from attncap.captions import Caption
from attncap.decoding.to_caption import captions_of
from attncap.explain.gradients import compiled_gradient, integrated_gradients, word_score
from attncap.explain.methods import METHODS, Method
from attncap.explain.occlusion import Baseline, baseline_of, occlusion_relevance, to_maps
from attncap.explain.reading import WordReader, as_caption, of_words, padded, stored_grid, token_groups
from attncap.features.pipeline import encode_batch
from attncap.images import AnyImage
from attncap.models.captioner import regions_there
from attncap.tokenizers import UNK


@dataclass(eq=False)
class Explainer:
    """Explain the words of captions by maps: for each word, the parts of the image that made it probable.

    The probability of a word is always its probability given the words before it. The methods are:

    * "occlusion": hide a part of the features and measure how much the log-probability of the word falls, see
      `attncap.explain.occlusion.occlusion_relevance`. Works for every captioner.
    * "gradient": integrated gradients of the log-probability of the word, see
      `attncap.explain.gradients.integrated_gradients`. Works for every captioner.
    * "attention": the attention weights at the step of the word. Works for captioners with attention.

    For "occlusion" and "gradient", a map is the positive part of the relevance, divided by its sum. The map is uniform
    if no part of the image made the word more probable. Padding has no weight. These maps have the grid of the
    features. Attention maps have the grid of the regions, which differs if encoder blocks were trained with the
    captioner.

    Args:
        captioner: a captioner of any kind, or an `Ensemble`.
        method: "occlusion", "gradient" or "attention".
        baseline: replacement of hidden features: "mean" (over the cells of the image), "zero", or an array, such as
            the mean features of a data set. `ShowAndTell` uses only the mean over all cells. Replacing all cells by
            "mean" does not change this mean, so the relevances of its "gradient" maps sum to about 0.
        window: for "occlusion": side of the hidden square in cells, see `attncap.explain.occlusion.windows_of`.
        steps: for "gradient": number of points between the baseline and the features.
        batch_size: changed copies of an image per pass.
        progress: show a progress bar in a terminal; "attention" shows none.

    Raises:
        TypeError: `steps` or `batch_size` is no whole number.
        ValueError: the method is unknown, or it is "attention" and the captioner has no attention; `steps` or
            `batch_size` is below 1.

    Example:
        >>> explained = Explainer(captioner, "gradient", steps=8)(features, captions)

    Reference: Zeiler and Fergus 2014; Sundararajan et al. 2017; Xu et al. 2015.
    """

    captioner: Any
    method: Method = "occlusion"
    baseline: Baseline = "mean"
    window: int | None = None
    steps: int = 16
    batch_size: int = 64
    progress: bool = False

    def __post_init__(self) -> None:
        check_method(self.captioner, self.method)
        for name, count in (("steps", self.steps), ("batch_size", self.batch_size)):
            if not isinstance(count, Integral):
                raise TypeError(f"{name} is a whole number, got {count!r}")
            if count < 1:
                raise ValueError(f"{name} needs at least 1, got {count}")
        self._reader = WordReader(self.captioner, self.batch_size)
        if self.method == "gradient":
            self._gradient = compiled_gradient(word_score(self.captioner), self.captioner)

    def __call__(self, features: np.ndarray, captions: Sequence[Caption | str]) -> list[Caption]:
        """Explain the captions of N images.

        Args:
            features: shape (N, rows, cols, D).
            captions: N captions: generated captions, or texts written by people.

        Returns:
            captions: captions with the same words, and with `attention_weights` and `word_log_probs`. All plots,
                `explore` and `measure_grounding` accept them. A word outside the vocabulary has the log-probability
                -inf. Its map is uniform, except with "attention".

        Raises:
            ValueError: the features have the wrong shape, the numbers of captions and images differ, or the baseline
                is invalid.
        """
        if len(features) != len(captions):
            raise ValueError(f"one caption per image is needed, got {len(captions)} for {len(features)} images")
        expected = tuple(self.captioner.feature_shape)
        if tuple(features.shape[1:]) != expected:
            raise ValueError(f"features need shape (N, {', '.join(map(str, expected))}), got {features.shape}")
        own = [as_caption(self.captioner, caption) for caption in captions]
        if self.method == "attention":
            return self._attention(features, own)
        explained = []
        pairs = zip(features, own, strict=True)
        hidden = None if self.progress else True
        for image, caption in tqdm(pairs, total=len(own), desc=self.method, unit=" captions", disable=hidden):
            relevance, log_probs = self._relevance(image, caption)
            explained.append(
                replace(
                    caption,
                    log_prob=float(log_probs.sum()),
                    word_log_probs=log_probs[:-1],
                    attention_weights=to_maps(relevance, regions_there(self.captioner, image)),
                    extras={},
                    grid_box=stored_grid(self.captioner)[2],
                )
            )
        return explained

    def relevance(self, features: np.ndarray, caption: Caption | str) -> np.ndarray:
        """Compute the signed relevance of each cell for each word of one caption.

        A negative value means that the cell makes the word less probable. Maps show only the positive part.

        Args:
            features: shape (rows, cols, D).
            caption: a generated caption, or a text.

        Returns:
            relevance: float64, shape (W, rows, cols) for W words, in nats.

        Raises:
            ValueError: the method is "attention".
        """
        if self.method == "attention":
            raise ValueError("attention has no sign: take method='occlusion' or method='gradient'")
        return self._relevance(features, as_caption(self.captioner, caption))[0]

    def _relevance(self, features: np.ndarray, caption: Caption) -> tuple[np.ndarray, np.ndarray]:
        """Compute the relevance, shape (W, rows, cols), and the log-probabilities of words and end, shape (W + 1,)."""
        groups = token_groups(self.captioner, caption)
        with_end = [*groups, [len(caption.token_ids)]]

        def read(several: np.ndarray) -> np.ndarray:
            token_ids = np.repeat(padded([caption.token_ids]), len(several), axis=0)
            return of_words(self._reader(several, token_ids)[0], with_end)

        log_probs = read(np.asarray(features)[None])[0]
        there = regions_there(self.captioner, features)
        baseline = baseline_of(features, self.baseline, there)
        if self.method == "occlusion":  # a window may reach from regions into padding, which lowers nothing
            return there * occlusion_relevance(read, features, baseline, self.window)[:-1], log_probs
        relevance = self._integrated_gradients(features, caption, groups, baseline)
        known = np.array([UNK not in [caption.token_ids[at] for at in where] for where in groups], bool)
        return relevance * known[:, None, None], log_probs

    def _integrated_gradients(
        self, features: np.ndarray, caption: Caption, groups: Sequence[Sequence[int]], baseline: np.ndarray
    ) -> np.ndarray:
        [token_ids] = padded([caption.token_ids])  # (T,)
        chosen = np.zeros((len(groups), len(token_ids)), np.float32)  # (W, T): 1 if the token belongs to the word
        for word, where in enumerate(groups):
            chosen[word, list(where)] = 1.0

        def gradient(several: np.ndarray, words: np.ndarray) -> np.ndarray:
            return self._gradient(several, token_ids, chosen[words])

        return integrated_gradients(gradient, features, len(groups), baseline, self.steps, self.batch_size)

    def _attention(self, features: np.ndarray, captions: Sequence[Caption]) -> list[Caption]:
        token_ids = padded([caption.token_ids for caption in captions])
        log_probs, maps = self._reader(features, token_ids)
        assert maps is not None
        image_ids = [caption.image_id for caption in captions]
        read = captions_of(self.captioner, token_ids[:, None], log_probs[:, None], maps[:, None], image_ids)
        return [
            replace(found, words=caption.words, boxes=caption.boxes)
            for [found], caption in zip(read, captions, strict=True)
        ]


def explain_word(
    captioner: Any, image: AnyImage, caption: Caption | str, method: Method = "occlusion", **settings: Any
) -> Caption:
    """Explain each word of a caption by a map of the parts of the image that made the word probable.

    Args:
        captioner: a captioner of any kind, or an `Ensemble`.
        image: an image (file, Pillow image or array), or the features of one image, shape (rows, cols, D).
        caption: a generated caption, or a text written by a person.
        method: "occlusion" (hide parts of the image), "gradient" (integrated gradients) or "attention".
        settings: further arguments of `Explainer`: `baseline`, `window`, `steps`, `batch_size`.

    Returns:
        caption: a caption with the same words, and with maps; see `Explainer`.

    Raises:
        ValueError: see `Explainer`; or `image` is an image and the captioner has no encoder.
        UnreadableImage: the file is not an image, or it is damaged.

    Example:
        >>> generated = attncap.caption(captioner, "me.jpg")
        >>> attncap.plot_attention("me.jpg", attncap.explain_word(captioner, "me.jpg", generated, "occlusion"))
    """
    explainer = Explainer(captioner, method, **settings)
    [explained] = explainer(features_of(captioner, image)[None], [caption])
    return explained


def check_method(captioner: Any, method: str) -> None:
    """Raise ValueError if the method is unknown, or if it is "attention" and the captioner has no attention."""
    if method not in METHODS:
        raise ValueError(f"method is one of {', '.join(METHODS)}, got {method!r}")
    if method == "attention" and not getattr(captioner, "has_attention", True):
        raise ValueError(
            f"{type(captioner).__name__} has no attention maps: take method='occlusion' or method='gradient'"
        )


def features_of(captioner: Any, image: AnyImage) -> np.ndarray:
    """Compute the features, shape (rows, cols, D), of one image. If `image` is features already, return it unchanged.

    Raises:
        ValueError: `image` is an image and the captioner has no encoder.
        UnreadableImage: the file is not an image, or it is damaged.
    """
    if isinstance(image, np.ndarray) and image.shape == tuple(captioner.feature_shape):
        return image
    if captioner.encoder is None:
        raise ValueError(
            f"this captioner holds no encoder: give features of shape {tuple(captioner.feature_shape)}, not an image"
        )
    return encode_batch(captioner.encoder, [image])[0][0]
