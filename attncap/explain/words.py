"""Explain the words of a caption: which parts of the image made them probable, by a method of one's choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from attncap.captions import Caption
from attncap.decoding.to_caption import caption_of
from attncap.explain.gradients import integrated_gradients, word_scores
from attncap.explain.methods import METHODS, Method
from attncap.explain.occlusion import Baseline, occlusion_relevance, to_maps
from attncap.explain.reading import WordReader, as_caption, of_words, padded, stored_grid, token_groups
from attncap.features.pipeline import encode_images
from attncap.images import AnyImage, UnreadableImage, image_name
from attncap.tokenizers import UNK


def explain_word(
    captioner: Any,
    picture: AnyImage,
    caption: Caption | str,
    method: Method = "occlusion",
    *,
    baseline: Baseline = "mean",
    window: int | None = None,
    steps: int = 16,
    batch_size: int = 64,
) -> Caption:
    """Explain each word of a caption: a map of the parts of the image that made it probable.

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
        picture: features of one image, shape (rows, cols, D), or an image: file, Pillow image, or array.
        caption: generated, or a text that a person wrote.
        method: see above.
        baseline: what stands in place of hidden features: "mean" (of the image's own cells), "zero", or an array, such
            as the mean features of a data set. `ShowAndTell` reads only the mean over all cells: replacing all cells
            by "mean" changes nothing for it, so that its relevances sum to 0.
        window: of occlusion: side of the hidden square in cells; default 1 up to 100 cells, else 3.
        steps: of gradient: points between baseline and image.
        batch_size: changed images per pass.

    Returns:
        caption: the same words, with `attention_weights` and `word_log_probs`; every plot, `explore` and
            `measure_grounding` take it. A word outside the vocabulary has a uniform map and the log-probability -inf
            (with "attention" its own map).

    Raises:
        ValueError: an unknown method or baseline, attention of a captioner that has none, features of another shape,
            an image and a captioner without encoder.
        UnreadableImage: the file is no image, or damaged.

    Example:
        >>> said = attncap.caption(captioner, "me.jpg")
        >>> attncap.plot_attention("me.jpg", attncap.explain_word(captioner, "me.jpg", said, "occlusion"))

    Reference: Zeiler and Fergus 2014; Sundararajan et al. 2017; Xu et al. 2015.
    """
    [explained] = explain_captions(
        captioner,
        features_of(captioner, picture)[None],
        [caption],
        method,
        baseline=baseline,
        window=window,
        steps=steps,
        batch_size=batch_size,
    )
    return explained


def explain_captions(
    captioner: Any,
    features: np.ndarray,
    captions: Sequence[Caption | str],
    method: Method = "occlusion",
    *,
    baseline: Baseline = "mean",
    window: int | None = None,
    steps: int = 16,
    batch_size: int = 64,
) -> list[Caption]:
    """Explain the captions of N images: `explain_word` for each, with one compiled function for all.

    Args:
        captioner, method, baseline, window, steps, batch_size: as in `explain_word`.
        features: shape (N, rows, cols, D).
        captions: N captions.

    Returns:
        captions: N captions with maps.
    """
    check_method(captioner, method)
    if len(features) != len(captions):
        raise ValueError(f"one caption per image is needed, got {len(captions)} for {len(features)} images")
    expected = tuple(captioner.feature_shape)
    if tuple(features.shape[1:]) != expected:
        raise ValueError(f"features need shape (N, {', '.join(map(str, expected))}), got {features.shape}")
    reader = WordReader(captioner, batch_size)
    own = [as_caption(captioner, caption) for caption in captions]
    if method == "attention":
        return _attention(captioner, reader, features, own)
    explained = []
    for image, caption in zip(features, own, strict=True):
        relevance, log_probs = _relevance(captioner, reader, image, caption, method, baseline, window, steps)
        explained.append(
            replace(
                caption,
                log_prob=float(log_probs.sum()),
                word_log_probs=log_probs[:-1],
                attention_weights=to_maps(relevance),
                extras={},
                grid_box=stored_grid(captioner)[2],
            )
        )
    return explained


def word_relevance(
    captioner: Any,
    picture: AnyImage,
    caption: Caption | str,
    method: Method = "occlusion",
    *,
    baseline: Baseline = "mean",
    window: int | None = None,
    steps: int = 16,
    batch_size: int = 64,
) -> np.ndarray:
    """Return the signed relevance behind the maps of `explain_word`: negative where a part speaks against the word.

    Args:
        see `explain_word`; method "occlusion" or "gradient".

    Returns:
        relevance: float64, shape (T, rows, cols), in nats.
    """
    check_method(captioner, method)
    if method == "attention":
        raise ValueError("attention has no sign: take explain_word for its maps, or method='occlusion' or 'gradient'")
    reader = WordReader(captioner, batch_size)
    own = as_caption(captioner, caption)
    image = features_of(captioner, picture)
    return _relevance(captioner, reader, image, own, method, baseline, window, steps)[0]


def check_method(captioner: Any, method: str) -> None:
    """Raise ValueError for a method that does not exist, or that the captioner has no maps for."""
    if method not in METHODS:
        raise ValueError(f"method is one of {', '.join(METHODS)}, got {method!r}")
    if method == "attention" and not getattr(captioner, "has_attention", True):
        raise ValueError(
            f"{type(captioner).__name__} has no attention maps: take method='occlusion' or method='gradient'"
        )


def features_of(captioner: Any, picture: AnyImage) -> np.ndarray:
    """Return the features (rows, cols, D) of one image; features are returned as they are.

    Raises:
        ValueError: an image, and a captioner without encoder.
        UnreadableImage: the file is no image, or damaged.
    """
    if isinstance(picture, np.ndarray) and picture.shape == tuple(captioner.feature_shape):
        return picture
    if captioner.encoder is None:
        raise ValueError(
            f"this captioner holds no encoder: give features of shape {tuple(captioner.feature_shape)}, not an image"
        )
    return encode_image(captioner.encoder, picture)


def encode_image(encoder: Any, picture: AnyImage) -> np.ndarray:
    """Return the features of one image, in the encoder's shape.

    Raises:
        UnreadableImage: the file is no image, or damaged.
    """
    [batch] = encode_images(encoder, [picture], progress=False)
    if batch.rejects:
        raise UnreadableImage(image_name(picture, 0), batch.rejects[0][1])
    return batch.features[0][0]


def _relevance(
    captioner: Any,
    reader: WordReader,
    features: np.ndarray,
    caption: Caption,
    method: Method,
    baseline: Baseline,
    window: int | None,
    steps: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The relevance of each word, (W, rows, cols), and the log-probabilities of the words and of the end, (W + 1,)."""
    groups = token_groups(captioner, caption)
    with_end = [*groups, [len(caption.token_ids)]]

    def read(several: np.ndarray) -> np.ndarray:
        token_ids = np.repeat(padded([caption.token_ids]), len(several), axis=0)
        return of_words(reader(several, token_ids)[0], with_end)

    log_probs = read(np.asarray(features)[None])[0]
    if method == "occlusion":
        return occlusion_relevance(read, features, baseline, window)[:-1], log_probs
    score = word_scores(captioner, caption.token_ids, groups)
    relevance = integrated_gradients(score, features, len(groups), baseline, steps)
    known = np.array([UNK not in [caption.token_ids[at] for at in where] for where in groups], bool)
    return relevance * known[:, None, None], log_probs


def _attention(captioner: Any, reader: WordReader, features: np.ndarray, captions: Sequence[Caption]) -> list[Caption]:
    token_ids = padded([caption.token_ids for caption in captions])
    log_probs, maps = reader(features, token_ids)
    assert maps is not None
    rows, cols = getattr(captioner, "map_shape", tuple(captioner.feature_shape[:2]))
    read = []
    for row, caption in enumerate(captions):
        place = getattr(captioner, "grid_box", caption.grid_box)
        found = caption_of(
            captioner.tokenizer, token_ids[row], log_probs[row], maps[row], (rows, cols), caption.image_id, place
        )
        read.append(replace(found, words=caption.words, boxes=caption.boxes))
    return read
