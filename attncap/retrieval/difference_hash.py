"""`DifferenceHash`: a few bits that say where the brightness of an image rises (dHash, by imagehash)."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any, Protocol

import imagehash
import numpy as np
from tqdm.auto import tqdm

from attncap._files import check_list
from attncap.images import AnyImage, UnreadableImage, read_image


class ImageEncoder(Protocol):
    """Protocol of encoders: they turn images into codes that an `ImageIndex` compares."""

    @property
    def measure(self) -> str:
        """Return "hash_distance" (codes of packed bits, uint8) or "cosine_similarity" (unit vectors, float32)."""

    @property
    def size(self) -> int:
        """Return the number of bits, or of dimensions."""

    def describe(self) -> dict[str, Any]:
        """Return what two encoders must agree on for their codes to be comparable, for JSON; `name` is not compared."""

    def encode(self, images: Sequence[AnyImage], progress: bool = False) -> list[np.ndarray | UnreadableImage]:
        """Return a code for each image, or why there is none."""


class DifferenceHash:
    """Difference hash: the image in gray, shrunk to (n+1) x n; each bit says whether a pixel is darker than the next.

    bit[row, col] = gray[row, col + 1] > gray[row, col]. 64 bits (n = 8) is what most tools call dHash. Twice n^2 bits
    compare downward as well: 128 is n = 8 in both directions.

    Args:
        bits: n^2 or 2 n^2, n from 2 to 64; default 64. 256 tells images apart better, in four times the space.

    Raises:
        ValueError: another number of bits; the message names the nearest possible ones.

    Example:
        >>> DifferenceHash(64).hex(Image.linear_gradient("L").rotate(90))
        'ffffffffffffffff'

    Reference: N. Krawetz 2013, "Kind of like that"; the bits are those of `imagehash.dhash` and `dhash_vertical`.
    """

    measure = "hash_distance"

    def __init__(self, bits: int = 64) -> None:
        known = sorted(number * side * side for side in range(2, 65) for number in (1, 2))
        if bits not in known:
            below = max((n for n in known if n < bits), default=4)
            above = min((n for n in known if n > bits), default=8192)
            raise ValueError(f"dhash: {bits} bits: n^2 or 2 n^2 expected (n 2 to 64), such as {below}, {above}")
        self.size = bits
        side = isqrt(bits)
        self._both = side * side != bits
        self._side = isqrt(bits // 2) if self._both else side

    def describe(self) -> dict[str, Any]:
        return {"encoder": "dhash", "bits": self.size}

    def encode(self, images: Sequence[AnyImage], progress: bool = False) -> list[np.ndarray | UnreadableImage]:
        """Return a code for each image: uint8, shape (ceil(bits / 8),), or the `UnreadableImage`."""
        check_list(images, "images")
        return [self._code(image) for image in tqdm(images, desc="hashes", unit=" images", disable=not progress)]

    def hex(self, image: AnyImage) -> str:
        """Return the hash in hexadecimal, as imagehash prints it; two directions one after the other."""
        code = self._code(image)
        if isinstance(code, UnreadableImage):
            raise code
        return code.tobytes().hex()

    def _code(self, image: AnyImage) -> np.ndarray | UnreadableImage:
        try:
            image = read_image(image)
        except UnreadableImage as error:
            return error
        bits = imagehash.dhash(image, self._side).hash.ravel()
        if self._both:
            bits = np.concatenate([bits, imagehash.dhash_vertical(image, self._side).hash.ravel()])
        return np.packbits(bits)
