"""From image files to captions: decode, encode and search, a bounded number of images at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Unpack, overload

import numpy as np
import pandas as pd

from attncap._files import check_list
from attncap.captions import Caption
from attncap.decoding.decoder import Decoder, SearchSettings
from attncap.decoding.logits import LogitsProcessor
from attncap.decoding.to_caption import with_boxes
from attncap.features.external import ExternalFeatures
from attncap.features.pipeline import encode_images
from attncap.features.sources import in_parts
from attncap.features.store import FeatureStore
from attncap.images import AnyImage, UnreadableImage, image_name
from attncap.models.captioner import Captioner
from attncap.models.ensemble import Ensemble
from attncap.paths import check_ids
from attncap.paths import image_ids as ids_of


@overload
def caption(  # type: ignore[overload-overlap]  # 1 is an int as well
    captioner: Captioner | Ensemble, image: AnyImage, *, n_best: Literal[1] = 1, **settings: Unpack[SearchSettings]
) -> Caption: ...


@overload
def caption(
    captioner: Captioner | Ensemble, image: AnyImage, *, n_best: int, **settings: Unpack[SearchSettings]
) -> list[Caption]: ...


def caption(
    captioner: Captioner | Ensemble,
    image: AnyImage,
    *,
    beam_width: int = 3,
    length_penalty: float | None = None,
    max_length: int = 40,
    n_best: int = 1,
    sampler: Any = None,
    logits_processors: Sequence[LogitsProcessor] = (),
) -> Caption | list[Caption]:
    """Caption one image.

    Args:
        captioner: from `load_captioner`, its encoder inside; or an `Ensemble`.
        image: the file, a Pillow image, or an array as `read_image` takes it.
        beam_width, length_penalty, max_length, sampler, logits_processors: see `Decoder`.
        n_best: how many captions; with more than 1 the result is a list, best first.

    Raises:
        UnreadableImage: the file is not an image, or damaged.
        ValueError, TypeError: what `Decoder` refuses.

    Example:
        >>> attncap.caption(captioner, "me.jpg", beam_width=5).text
        'a man with a black beard and round glasses'
    """
    captions, rejects = caption_images(
        captioner,
        [image],
        progress=False,
        beam_width=beam_width,
        length_penalty=length_penalty,
        max_length=max_length,
        n_best=n_best,
        sampler=sampler,
        logits_processors=logits_processors,
    )
    if not captions:
        raise UnreadableImage(rejects["path"].iloc[0], rejects["reason"].iloc[0])
    return captions[0]


@overload
def caption_images(  # type: ignore[overload-overlap]
    captioner: Captioner | Ensemble,
    paths: Sequence[AnyImage],
    image_ids: Sequence[str] | None = None,
    *,
    batch_size: int = 32,
    progress: bool = True,
    decoder: Any = None,
    n_best: Literal[1] = 1,
    **settings: Unpack[SearchSettings],
) -> tuple[list[Caption], pd.DataFrame]: ...


@overload
def caption_images(
    captioner: Captioner | Ensemble,
    paths: Sequence[AnyImage],
    image_ids: Sequence[str] | None = None,
    *,
    batch_size: int = 32,
    progress: bool = True,
    decoder: Any = None,
    n_best: int,
    **settings: Unpack[SearchSettings],
) -> tuple[list[list[Caption]], pd.DataFrame]: ...


def caption_images(
    captioner: Captioner | Ensemble,
    paths: Sequence[AnyImage],
    image_ids: Sequence[str] | None = None,
    *,
    batch_size: int = 32,
    progress: bool = True,
    decoder: Any = None,
    n_best: int = 1,
    **settings: Unpack[SearchSettings],
) -> tuple[list[Any], pd.DataFrame]:
    """Caption image files with the encoder that the captioner was trained on.

    Args:
        captioner: from `load_captioner`, or an `Ensemble`.
        paths: the files, or Pillow images or arrays.
        image_ids: names for the captions, one per path, each once; default those of `attncap.paths.image_ids`.
        batch_size: images in memory at a time.
        progress: show a bar with images/s.
        decoder: of the captioner, such as a `ConsensusDecoder`; None makes a `Decoder` with n_best and settings.
        n_best, settings: of `Decoder`, such as beam_width.

    Returns:
        captions: one per readable image, in order, each with its image_id (lists of them when n_best > 1).
        rejects: DataFrame (image_id, path, reason) of images that cannot be read.

    Raises:
        ValueError: the captioner was saved without an encoder.
    """
    decode = Decoder(captioner, batch_size=batch_size, n_best=n_best, **settings) if decoder is None else decoder
    captions: list[Any] = []
    rejects: list[tuple[str, str, str]] = []
    for kept, features in encoded_images(captioner, paths, image_ids, rejects, batch_size, progress):
        captions += decode(features, kept)
    return captions, pd.DataFrame(rejects, columns=["image_id", "path", "reason"], dtype=object)


def encoded_images(
    captioner: Captioner | Ensemble,
    paths: Sequence[AnyImage],
    image_ids: Sequence[str] | None,
    rejects: list[tuple[str, str, str]],
    batch_size: int = 32,
    progress: bool = True,
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield the image_ids and the features of image files, batch by batch; unreadable images go to `rejects`.

    Args:
        captioner, paths, image_ids, batch_size, progress: as in `caption_images`.
        rejects: (image_id, path, reason) of each unreadable image is appended to it.

    Raises:
        ValueError: the captioner was saved without an encoder.
    """
    encoder = captioner.encoder
    if encoder is None:
        raise ValueError(
            "this captioner holds no encoder: it takes features (caption_features, or --features-file of a command), "
            "not image files"
        )
    check_list(paths, "paths", "images")
    image_ids = ids_of(paths) if image_ids is None else image_ids
    check_ids(image_ids)
    for batch in encode_images(encoder, paths, batch_size=batch_size, progress=progress):
        rejects += [(image_ids[at], image_name(paths[at], at), reason) for at, reason in batch.rejects]
        if batch.positions:
            yield [image_ids[at] for at in batch.positions], batch.features[0]


@overload
def caption_stored(  # type: ignore[overload-overlap]
    captioner: Captioner | Ensemble,
    store: FeatureStore | ExternalFeatures,
    pictures: pd.DataFrame,
    *,
    part: int = 256,
    n_best: Literal[1] = 1,
    **settings: Unpack[SearchSettings],
) -> list[Caption]: ...


@overload
def caption_stored(
    captioner: Captioner | Ensemble,
    store: FeatureStore | ExternalFeatures,
    pictures: pd.DataFrame,
    *,
    part: int = 256,
    n_best: int,
    **settings: Unpack[SearchSettings],
) -> list[list[Caption]]: ...


def caption_stored(
    captioner: Captioner | Ensemble,
    store: FeatureStore | ExternalFeatures,
    pictures: pd.DataFrame,
    *,
    part: int = 256,
    n_best: int = 1,
    **settings: Unpack[SearchSettings],
) -> list[Any]:
    """Caption images whose features are in a store, `part` images in memory at a time. A terminal shows a bar.

    Args:
        captioner: trained on the store's encoder.
        store: with the features of all of `pictures`.
        pictures: DataFrame with `image_id` and `path`.
        n_best, settings: of `Decoder`.

    Returns:
        captions: one per image, in order (lists of them when n_best > 1).
    """
    decode = Decoder(captioner, n_best=n_best, **settings)
    return decode_stored(decode, store, pictures, part=part, progress=True)


def decode_stored(
    decode: Decoder,
    store: FeatureStore | ExternalFeatures,
    pictures: pd.DataFrame,
    *,
    part: int = 256,
    progress: bool = False,
) -> list[Any]:
    """Caption images as `caption_stored` does, with a decoder that is compiled already (in validation)."""
    captions: list[Any] = []
    for image_ids, features, boxes in in_parts(store, pictures, part, "captions", progress):
        captions += with_boxes(decode(features, image_ids), boxes)
    return captions


@overload
def caption_features(  # type: ignore[overload-overlap]
    captioner: Captioner | Ensemble,
    features: ExternalFeatures,
    image_ids: Sequence[str],
    *,
    decoder: Any = None,
    n_best: Literal[1] = 1,
    **settings: Unpack[SearchSettings],
) -> tuple[list[Caption], pd.DataFrame]: ...


@overload
def caption_features(
    captioner: Captioner | Ensemble,
    features: ExternalFeatures,
    image_ids: Sequence[str],
    *,
    decoder: Any = None,
    n_best: int,
    **settings: Unpack[SearchSettings],
) -> tuple[list[list[Caption]], pd.DataFrame]: ...


def caption_features(
    captioner: Captioner | Ensemble,
    features: ExternalFeatures,
    image_ids: Sequence[str],
    *,
    decoder: Any = None,
    n_best: int = 1,
    **settings: Unpack[SearchSettings],
) -> tuple[list[Any], pd.DataFrame]:
    """Caption images by features computed elsewhere.

    Args:
        captioner: trained on such features.
        features: of the images, by image_id.
        image_ids: which images.
        decoder: of the captioner, such as a `ConsensusDecoder`; None makes a `Decoder` with n_best and settings.
        n_best, settings: of `Decoder`, such as beam_width.

    Returns:
        captions: as in `caption_images`, with the boxes of regions if the features have any.
        rejects: DataFrame (image_id, path, reason) of images without features; path is the image_id.

    Raises:
        ValueError: the captioner was trained on features of another shape.

    Example:
        >>> captions, rejects = caption_features(captioner, ExternalFeatures.read("regions.npz"), ["1.jpg"])
    """
    rejects = features.extract(image_ids)
    rejects.insert(1, "path", rejects["image_id"])
    check_shape(captioner, features)
    lacking = set(rejects["image_id"])
    images = pd.DataFrame({"image_id": [image_id for image_id in image_ids if image_id not in lacking]})
    decode = Decoder(captioner, n_best=n_best, **settings) if decoder is None else decoder
    return decode_stored(decode, features, images), rejects


def check_shape(captioner: Any, features: ExternalFeatures) -> None:
    """Refuse features computed elsewhere whose shape the captioner cannot read; fill up a mapping with few regions."""
    expected = tuple(captioner.feature_shape)
    if getattr(captioner, "masked", False) and expected[0] == 1:
        features.pad_to(expected[1])
    if features.feature_shape != expected:
        raise ValueError(
            f"{features.name}: features of shape {features.feature_shape} (rows, cols, D), and the captioner was "
            f"trained on {expected}: give features of the same network and number of regions"
        )
    if features.masked and not getattr(captioner, "masked", True):
        raise ValueError(f"{features.name}: has rows of padding, and the captioner was trained without any")
