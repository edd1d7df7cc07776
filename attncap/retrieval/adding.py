"""Put images into an index: encode their files, and turn codes into the bytes that the database holds."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from attncap._messages import quoted
from attncap.images import UnreadableImage, image_bytes
from attncap.paths import check_ids
from attncap.retrieval.database import Entry, ImageDatabase
from attncap.retrieval.difference_hash import ImageEncoder
from attncap.retrieval.search import unit_vectors

COMMIT_EVERY = 64  # images per commit; a killed process loses at most these


def add_files(
    database: ImageDatabase,
    encoder: ImageEncoder,
    files: Sequence[str | os.PathLike[str]],
    names: Sequence[str],
    labels: Sequence[Sequence[str]],
    progress: bool,
) -> list[tuple[str, str, str]]:
    """Encode image files and store them, except those that are stored with the same bytes and labels already.

    Returns:
        rejected: (image_id, path, reason) of each file that cannot be read.
    """
    known = database.known()
    rejected = []
    with tqdm(total=len(names), desc="index", unit=" images", disable=not progress) as bar:
        for start in range(0, len(names), COMMIT_EVERY):
            todo = []
            for n in range(start, min(start + COMMIT_EVERY, len(names))):
                try:
                    digest = hashlib.blake2b(image_bytes(files[n]), digest_size=16).digest()
                except UnreadableImage as error:
                    rejected.append((names[n], os.fspath(files[n]), error.reason))
                    continue
                if known.get(names[n]) != (digest, tuple(labels[n])):
                    todo.append((n, digest))
            entries = []
            codes = encoder.encode([files[n] for n, _ in todo]) if todo else []
            for (n, digest), code in zip(todo, codes, strict=True):
                if isinstance(code, UnreadableImage):
                    rejected.append((names[n], os.fspath(files[n]), code.reason))
                else:
                    entries.append(Entry(names[n], tuple(labels[n]), stored_codes(encoder, code[None])[0], digest))
            if entries:
                database.add(entries)
            bar.update(min(COMMIT_EVERY, len(names) - start))
    return rejected


def code_bytes(encoder: ImageEncoder) -> int:
    """Return the number of bytes of a stored code: packed bits, or a vector in half precision."""
    return -(-encoder.size // 8) if encoder.measure == "hash_distance" else 2 * encoder.size


def stored_codes(encoder: ImageEncoder, codes: np.ndarray) -> list[bytes]:
    """Return the bytes of codes: of hashes as they are, of vectors scaled to unit length in half precision.

    Raises:
        ValueError: codes of another width, or a vector that is zero or not finite.
    """
    is_hash = encoder.measure == "hash_distance"
    width = code_bytes(encoder) if is_hash else encoder.size
    if codes.ndim != 2 or codes.shape[1] != width:
        raise ValueError(f"codes of shape (N, {width}) expected, got {codes.shape}")
    if is_hash:
        return [code.tobytes() for code in np.asarray(codes, np.uint8)]
    return [code.tobytes() for code in unit_vectors(codes, "embedding").astype("<f2")]


def check_labels(image_ids: Sequence[str], labels: Sequence[Any], count: int) -> None:
    """Refuse lists of different lengths, repeated ids, and one string in place of a list of labels.

    Raises:
        ValueError: one of these.
    """
    if not len(image_ids) == len(labels) == count:
        raise ValueError(f"expected a name and labels for each image: {len(image_ids)}, {len(labels)}, {count}")
    check_ids(image_ids)
    text = next((line for line in labels if isinstance(line, str)), None)
    if text is not None:
        raise ValueError(f"labels {quoted(text)}: expected a list of labels for each image, got one string")
