"""Explain the words of a caption: which parts of the image made them probable, by a method of one's choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from attncap.captions import Caption
from attncap.decoding.to_caption import captions_of
from attncap.explain.gradients import integrated_gradients, word_scores
from attncap.explain.methods import METHODS, Method
from attncap.explain.occlusion import Baseline, occlusion_relevance, to_maps
from attncap.explain.reading import WordReader, as_caption, of_words, padded, stored_grid, token_groups
from attncap.features.pipeline import encode_batch
from attncap.images import AnyImage
from attncap.tokenizers import UNK


@dataclass(eq=False)
class Explainer:
    """Explains the words of captions: for each word, a map of the parts of the image that made it probable.

    Each method reads the caption word by word, the words before each given:

    * "occlusion": hide a part of the features and measure how much the word's log-probability falls, see
      `attncap.explain.occlusion.occlusion_relevance`. For every captioner.
    * "gradient": integrated gradients of the word's log-probability, see
      `attncap.explain.gradients.integrated_gradients`. For every captioner.
    * "attention": the attention weights of the word's step. For captioners with attention.

    Maps of the first two are the positive part of the relevance, divided by its sum; a map is uniform where no part of
    the image made the word more probable. They lie on the grid of the features; attention lies on the grid of regions,
    which is another one where encoder blocks were trained with the captioner.

    Args:
        captioner: of any kind, or an `Ensemble`.
        method: see above.
        baseline: what stands in place of hidden features: "mean" (of the image's own cells), "zero", or an array, such
            as the mean features of a data set. `ShowAndTell` reads only the mean over all cells: replacing all cells
            by "mean" changes nothing for it, so that its relevances sum to 0.
        window: of occlusion: side of the hidden square in cells; default 1 up to 100 cells, else 3.
        steps: of gradient: points between baseline and image.
        batch_size: changed images per pass.
        progress: show a bar in a terminal, except for "attention", which takes one pass.

    Raises:
        ValueError: an unknown method, or attention of a captioner that has none.

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
        self._reader = WordReader(self.captioner, self.batch_size)

    def __call__(self, features: np.ndarray, captions: Sequence[Caption | str]) -> list[Caption]:
        """Explain the captions of N images.

        Args:
            features: shape (N, rows, cols, D).
            captions: N captions, generated, or texts that people wrote.

        Returns:
            captions: the same words, with `attention_weights` and `word_log_probs`; every plot, `explore` and
                `measure_grounding` take them. A word outside the vocabulary has a uniform map and the log-probability
                -inf (with "attention" its own map).

        Raises:
            ValueError: features of another shape, not one caption per image, an unknown baseline.
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
                    attention_weights=to_maps(relevance),
                    extras={},
                    grid_box=stored_grid(self.captioner)[2],
                )
            )
        return explained

    def relevance(self, features: np.ndarray, caption: Caption | str) -> np.ndarray:
        """Return the signed relevance behind the maps of one caption: negative where a part speaks against the word.

        Args:
            features: shape (rows, cols, D).
            caption: generated, or a text.

        Returns:
            relevance: float64, shape (T, rows, cols), in nats.

        Raises:
            ValueError: the method is "attention".
        """
        if self.method == "attention":
            raise ValueError("attention has no sign: take method='occlusion' or method='gradient'")
        return self._relevance(features, as_caption(self.captioner, caption))[0]

    def _relevance(self, features: np.ndarray, caption: Caption) -> tuple[np.ndarray, np.ndarray]:
        """The relevance of each word, (W, rows, cols), and the log-probabilities of words and end, (W + 1,)."""
        groups = token_groups(self.captioner, caption)
        with_end = [*groups, [len(caption.token_ids)]]

        def read(several: np.ndarray) -> np.ndarray:
            token_ids = np.repeat(padded([caption.token_ids]), len(several), axis=0)
            return of_words(self._reader(several, token_ids)[0], with_end)

        log_probs = read(np.asarray(features)[None])[0]
        if self.method == "occlusion":
            return occlusion_relevance(read, features, self.baseline, self.window)[:-1], log_probs
        score = word_scores(self.captioner, caption.token_ids, groups)
        relevance = integrated_gradients(score, features, len(groups), self.baseline, self.steps)
        known = np.array([UNK not in [caption.token_ids[at] for at in where] for where in groups], bool)
        return relevance * known[:, None, None], log_probs

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
    """Explain each word of a caption: a map of the parts of the image that made it probable.

    Args:
        captioner: of any kind, or an `Ensemble`.
        image: features of one image, shape (rows, cols, D), or an image: file, Pillow image, or array.
        caption: generated, or a text that a person wrote.
        method: "occlusion" (hide parts of the image), "gradient" (integrated gradients) or "attention".
        settings: of `Explainer`: `baseline`, `window`, `steps`, `batch_size`.

    Returns:
        caption: the same words, with maps, see `Explainer`.

    Raises:
        ValueError: as `Explainer`; an image and a captioner without encoder.
        UnreadableImage: the file is no image, or damaged.

    Example:
        >>> generated = attncap.caption(captioner, "me.jpg")
        >>> attncap.plot_attention("me.jpg", attncap.explain_word(captioner, "me.jpg", generated, "occlusion"))
    """
    explainer = Explainer(captioner, method, **settings)
    [explained] = explainer(features_of(captioner, image)[None], [caption])
    return explained


def check_method(captioner: Any, method: str) -> None:
    """Raise ValueError for a method that does not exist, or that the captioner has no maps for."""
    if method not in METHODS:
        raise ValueError(f"method is one of {', '.join(METHODS)}, got {method!r}")
    if method == "attention" and not getattr(captioner, "has_attention", True):
        raise ValueError(
            f"{type(captioner).__name__} has no attention maps: take method='occlusion' or method='gradient'"
        )


def features_of(captioner: Any, image: AnyImage) -> np.ndarray:
    """Return the features (rows, cols, D) of one image; features are returned as they are.

    Raises:
        ValueError: an image, and a captioner without encoder.
        UnreadableImage: the file is no image, or damaged.
    """
    if isinstance(image, np.ndarray) and image.shape == tuple(captioner.feature_shape):
        return image
    if captioner.encoder is None:
        raise ValueError(
            f"this captioner holds no encoder: give features of shape {tuple(captioner.feature_shape)}, not an image"
        )
    return encode_batch(captioner.encoder, [image])[0][0]
