"""A batch of pictures on its way into the feature store: decoded, through the network, ready to be written.

What computes it is an engine: the store's own process, or workers on many machines (`attncap.features.ray_engine`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np


class Decoded(NamedTuple):
    path: str
    stamp: list[int]  # size and modification time: a cheap sign that the file is the one whose digest we know
    digest: bytes  # of the file's bytes; empty where it could not be read
    pixels: np.ndarray | None  # None when the features of these bytes are in the store already
    reason: str | None = None  # why the picture cannot be read
    mirrored: bool = False


class Computed(NamedTuple):
    """What an engine gives for a batch of pictures; `FeatureStore.extract` writes it."""

    batch: list[Decoded]  # the rejects among them have a reason, the others a digest
    fresh: list[Decoded]  # those of `batch` that went through the network
    features: np.ndarray  # of `fresh`, half precision, shape (len(fresh), rows, cols, D)


# (extractor, paths, batch_size, mirrored) -> batches as they become ready; see `attncap.features.ray_engine.RayEngine`.
Engine = Callable[[Any, list[str], int, bool], Generator[Computed, None, None]]


def through_network(network: Any, extractor: Any, batch: list[Decoded], batch_size: int) -> Computed:
    """Compute the features of those of a batch that were decoded, of equal ones once."""
    fresh = list({item.digest: item for item in batch if item.pixels is not None}.values())
    features = np.empty((0, *extractor.feature_shape), np.float16)
    if fresh:
        pixels = np.zeros((batch_size, extractor.image_size, extractor.image_size, 3), np.uint8)  # one compiled graph
        pixels[: len(fresh)] = np.stack([item.pixels for item in fresh])  # type: ignore[misc]
        features = np.asarray(network.predict_on_batch(pixels)[: len(fresh)], np.float16)
    return Computed(batch, fresh, features)


def ahead(pool: ThreadPoolExecutor, function: Any, items: Sequence[str], window: int) -> Iterator[Decoded]:
    # Like `pool.map`, but never more than `window` pictures decoded and waiting: memory stays flat.
    waiting: deque[Future[Decoded]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= window:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def in_batches(items: Iterator[Decoded], size: int) -> Iterator[list[Decoded]]:
    batch: list[Decoded] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
