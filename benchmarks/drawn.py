"""Synthetic data for benchmarks: photo-like files, tiny files, captions, an encoder that costs nothing."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# Captions per 10,000 by number of words, from 0 words on, in the 30,000 training captions of Flickr8k.
# fmt: off
LENGTHS = (0, 0, 5, 42, 115, 287, 653, 846, 976, 1106, 1106, 1044, 926, 773, 616, 443, 326, 221, 171, 122, 68, 45, 37,
           25, 17, 11, 7, 4, 2, 3, 1, 1, 0, 1)
# fmt: on


def photographs(folder: Path, number: int, seed: int, size: tuple[int, int] = (500, 375)) -> list[str]:
    """Write JPEG files that take about as long to decode as photographs of that size: noise at several scales."""
    rng = np.random.default_rng(seed)
    width, height = size
    paths = []
    for n in range(number):
        pixels = np.zeros((height, width, 3), np.float32)
        for cells, strength in ((4, 90), (16, 50), (64, 40), (250, 60)):
            noise = rng.integers(0, 256, (max(2, cells * height // width), cells, 3), dtype=np.uint8)
            grown = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
            pixels += strength * (np.asarray(grown, np.float32) / 255 - 0.5)
        path = folder / f"{n:06d}.jpg"
        Image.fromarray(np.clip(128 + pixels, 0, 255).astype(np.uint8)).save(path, quality=90)
        paths.append(str(path))
    return paths


def tiny_pictures(folder: Path, number: int) -> list[str]:
    """Write 16x16 JPEG files of about 700 bytes that differ in a comment, so that all differ."""
    buffer = BytesIO()
    Image.new("RGB", (16, 16), (90, 120, 150)).save(buffer, "JPEG")
    picture = buffer.getvalue()
    paths = []
    for n in range(number):
        path = folder / f"{n:07d}.jpg"
        path.write_bytes(picture[:2] + b"\xff\xfe\x00\x0a" + n.to_bytes(8, "big") + picture[2:])
        paths.append(str(path))
    return paths


def vocabulary(size: int) -> list[str]:
    """Return the special tokens and made-up words, `size` tokens in all."""
    return ["<pad>", "<start>", "<end>", "<unk>", *(f"w{n}" for n in range(size - 4))]


def captions(pictures: int, each: int, words: int, seed: int) -> list[list[str]]:
    """Make captions as long as those of Flickr8k, from `words` made-up words with natural frequencies."""
    rng = np.random.default_rng(seed)
    share = np.array(LENGTHS, float) / sum(LENGTHS)
    chance = np.cumsum(1 / np.arange(1, words + 1))
    texts: list[list[str]] = []
    for start in range(0, pictures, 1000):  # in parts: drawing must not set the peak of memory
        lengths = rng.choice(len(LENGTHS), size=(min(1000, pictures - start), each), p=share)
        drawn = iter(np.searchsorted(chance, chance[-1] * rng.random(int(lengths.sum()))).tolist())
        texts += [[" ".join(f"w{next(drawn)}" for _ in range(length)) for length in row] for row in lengths.tolist()]
    return texts


class DrawnEncoder:
    """Stand-in for a `FeatureExtractor`: the same random features for each batch, at no cost.

    What is around the network (store, batches, training) is then measured without it.
    """

    layer = "drawn"
    image_size = 8

    def __init__(self, feature_shape: tuple[int, int, int], seed: int = 0, batch: int = 32):
        self.feature_shape = feature_shape
        rng = np.random.default_rng(seed)
        block = rng.random((batch, *feature_shape), np.float32) - 0.5
        self._block = np.maximum(block, 0.0).astype(np.float16)  # half of them zero, as after a rectifier

    def fingerprint(self) -> str:
        return "x".join(map(str, self.feature_shape))

    def preprocess(self, picture: Image.Image) -> np.ndarray:
        return np.asarray(picture.resize((self.image_size, self.image_size)), np.uint8)

    def network_for_pixels(self) -> Any:
        return self

    def predict_on_batch(self, pixels: np.ndarray) -> np.ndarray:
        return self._block[: len(pixels)]
