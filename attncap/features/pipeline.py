"""From images to features: decoding, preprocessing and the network, in one place.

`FeatureStore.extract` writes the features to disk, `encode_images` returns them. An engine computes the features of a
store: this process (`compute_here`), or workers on many machines (`attncap.features.ray_engine`).
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
from tqdm.auto import tqdm

from attncap._files import check_list
from attncap.images import AnyImage, UnreadableImage, image_bytes, image_name, open_image, read_image

DECODERS = 4  # threads that decode images; Pillow releases the interpreter lock while it does
Item = TypeVar("Item")
Made = TypeVar("Made")


class Decoded(NamedTuple):
    """An image file on its way into a feature store."""

    path: str
    stamp: list[int]  # size and modification time, which change when the file does
    digest: bytes  # of the file's bytes; empty if it could not be read
    pixels: np.ndarray | None  # None when the features of these bytes are in the store already
    reason: str | None = None  # why the image cannot be read
    mirrored: bool = False


class Computed(NamedTuple):
    """The result of an engine for a batch of images; `FeatureStore.extract` writes it."""

    batch: list[Decoded]  # the rejects among them have a reason, the others a digest
    fresh: list[Decoded]  # those of `batch` that went through the network
    features: np.ndarray  # of `fresh`, half precision, shape (len(fresh), rows, cols, D)


# (extractor, paths, batch_size, mirrored, has_features) -> batches as they become ready.
Engine = Callable[[Any, list[str], int, bool, Callable[[bytes], bool]], Generator[Computed, None, None]]


class Encoded(NamedTuple):
    """The features of a batch of images from `encode_images`."""

    positions: list[int]  # of the readable images, in the sequence that was given
    features: list[np.ndarray]  # one array per view, half precision, shape (len(positions), rows, cols, D)
    rejects: list[tuple[int, str]]  # position and reason of each image that cannot be read


def encode_images(
    encoder: Any,
    images: Sequence[AnyImage],
    *,
    batch_size: int = 32,
    progress: bool = True,
    views: Sequence[bool] = (False,),
    network: Any = None,
) -> Iterator[Encoded]:
    """Yield the features of images, batch by batch, without a store; images are decoded ahead of the network.

    Args:
        encoder: a `FeatureExtractor`, or another layer with its `preprocess` and `network_for_pixels`.
        images: files, Pillow images or arrays.
        batch_size: images per pass through the network; at most three batches are in memory.
        progress: show a bar with images/s.
        views: which arrays of features to give: False the image, True its mirror image.
        network: `encoder.network_for_pixels()`, where the caller keeps one.

    Raises:
        TypeError: one image in place of a list.
    """
    check_list(images, "images", "images")
    network = network or encoder.network_for_pixels()
    with (
        ThreadPoolExecutor(DECODERS, "decode") as decoders,
        tqdm(total=len(images), desc="images", unit=" images", disable=not progress) as bar,
    ):
        decoded = read_ahead(decoders, partial(_pixels_of, encoder), images, 3 * batch_size)
        start = 0
        for batch in in_batches(decoded, batch_size):
            readable = [start + at for at, item in enumerate(batch) if not isinstance(item, UnreadableImage)]
            rejects = [(start + at, item.reason) for at, item in enumerate(batch) if isinstance(item, UnreadableImage)]
            features = []
            if readable:
                pixels = np.stack([item for item in batch if isinstance(item, np.ndarray)])  # (B, size, size, 3)
                for mirrored in views:
                    seen = network.predict_on_batch(pixels[:, :, ::-1] if mirrored else pixels)
                    features.append(np.asarray(seen, np.float16))  # half precision, as in a store
            yield Encoded(readable, features, rejects)
            start += len(batch)
            bar.update(len(batch))


def encode_batch(encoder: Any, images: Sequence[AnyImage], **settings: Any) -> list[np.ndarray]:
    """Return the features of images in one batch, an array (B, rows, cols, D) for each view.

    Args:
        encoder, images: as in `encode_images`.
        settings: its `views` and `network`.

    Raises:
        UnreadableImage: an image cannot be read.
    """
    [batch] = encode_images(encoder, images, batch_size=len(images), progress=False, **settings)
    for at, reason in batch.rejects:
        raise UnreadableImage(image_name(images[at], at), reason)
    return batch.features


def compute_here(
    extractor: Any, paths: list[str], batch_size: int, mirrored: bool, has_features: Callable[[bytes], bool]
) -> Generator[Computed, None, None]:
    """Decode image files and run the network in this process: the default engine of `FeatureStore.extract`."""
    network = extractor.network_for_pixels()
    decode = partial(decode_file, extractor=extractor, mirrored=mirrored, has_features=has_features)
    with ThreadPoolExecutor(DECODERS, "decode") as decoders:
        for batch in in_batches(read_ahead(decoders, decode, paths, 3 * batch_size), batch_size):
            yield through_network(network, extractor, batch, batch_size)


def decode_file(path: str, extractor: Any, mirrored: bool, has_features: Callable[[bytes], bool]) -> Decoded:
    """Read an image file; decode it unless `has_features` of its digest."""
    stamp = file_stamp(path)  # before the bytes: a file that changes in between is read again next time
    try:
        data = image_bytes(path)
    except UnreadableImage as error:  # no stamp: a change of permissions makes it readable without changing the stamp
        return Decoded(path, [0, 0], b"", None, error.reason, mirrored)
    digest = hashlib.blake2b(data, digest_size=16, person=b"mirrored" if mirrored else b"").digest()
    if has_features(digest):
        return Decoded(path, stamp, digest, None, None, mirrored)
    try:
        image = open_image(path, data=data)
    except UnreadableImage as error:
        return Decoded(path, stamp, digest, None, error.reason, mirrored)
    pixels = extractor.preprocess(image)
    return Decoded(path, stamp, digest, pixels[:, ::-1] if mirrored else pixels, None, mirrored)


def through_network(network: Any, extractor: Any, batch: list[Decoded], batch_size: int) -> Computed:
    """Compute the features of the decoded images of a batch; equal images go through the network once."""
    fresh = list({item.digest: item for item in batch if item.pixels is not None}.values())
    features = np.empty((0, *extractor.feature_shape), np.float16)
    if fresh:
        pixels = np.zeros((batch_size, extractor.image_size, extractor.image_size, 3), np.uint8)  # one compiled graph
        pixels[: len(fresh)] = np.stack([item.pixels for item in fresh])  # type: ignore[misc]
        features = np.asarray(network.predict_on_batch(pixels)[: len(fresh)], np.float16)
    return Computed(batch, fresh, features)


def read_ahead(
    pool: ThreadPoolExecutor, function: Callable[[Item], Made], items: Sequence[Item], window: int
) -> Iterator[Made]:
    """Map as `pool.map` does, with at most `window` results waiting, so that memory does not grow."""
    waiting: deque[Future[Made]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= window:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def in_batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of `size` items; the last may be shorter."""
    batch: list[Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def file_stamp(path: str) -> list[int]:
    """Return size and modification time of a file, [0, 0] if it cannot be accessed."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: not a file name at all
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]


def _pixels_of(encoder: Any, image: AnyImage) -> np.ndarray | UnreadableImage:
    try:
        return encoder.preprocess(read_image(image))
    except UnreadableImage as error:
        return error
