"""From picture files to captions: decode, encode and search, a bounded number of pictures at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from attncap.captioners import Captioner
from attncap.captions import Caption
from attncap.decoding import Decoder
from attncap.feature_store import FeatureStore
from attncap.pictures import PICTURE_ENDINGS, UnreadablePicture, open_picture


def caption(captioner: Captioner, picture: str | Path, **settings: Any) -> Caption:
    """Caption one picture file.

    Args:
        captioner: from `load_captioner`; its encoder is inside.
        picture: the file.
        settings: of `Decoder`, such as beam_width.

    Raises:
        UnreadablePicture: the file is not a picture, or damaged.

    Example:
        >>> attncap.caption(captioner, "me.jpg", beam_width=5).text
        'a man with a black beard and round glasses'
    """
    captions, rejects = caption_pictures(captioner, [picture], progress=False, **settings)
    if not captions:
        raise UnreadablePicture(rejects["path"].iloc[0], rejects["reason"].iloc[0])
    return captions[0]


def caption_pictures(
    captioner: Captioner,
    paths: Sequence[str | Path],
    image_ids: Sequence[str] | None = None,
    *,
    batch_size: int = 32,
    progress: bool = True,
    **settings: Any,
) -> tuple[list[Any], pd.DataFrame]:
    """Caption picture files with the encoder that the captioner was trained on.

    Args:
        captioner: from `load_captioner`.
        paths: the files.
        image_ids: names for the captions, one a path; default the file names.
        batch_size: pictures in memory at a time.
        progress: show a bar with pictures/s.
        settings: of `Decoder`, such as beam_width.

    Returns:
        captions: one a readable picture, in order, each with its image_id (lists of them when n_best > 1).
        rejects: DataFrame (image_id, path, reason) of pictures that cannot be read.

    Raises:
        ValueError: the captioner was saved without an encoder.
    """
    encoder = captioner.encoder
    if encoder is None:
        raise ValueError("this captioner holds no encoder: it takes features (use Decoder), not picture files")
    if image_ids is None:
        image_ids = [Path(path).name for path in paths]
    decode = Decoder(captioner, batch_size=batch_size, **settings)
    network = encoder.network_for_pixels()
    captions: list[Any] = []
    rejected = []
    with ThreadPoolExecutor(4) as pool, tqdm(total=len(paths), unit=" pictures", disable=not progress) as bar:
        for start in range(0, len(paths), batch_size):
            part = [str(path) for path in paths[start : start + batch_size]]
            kept, pixels = [], []
            for offset, decoded in enumerate(pool.map(lambda path: _pixels(path, encoder), part)):
                if isinstance(decoded, UnreadablePicture):
                    rejected.append((image_ids[start + offset], part[offset], str(decoded)))
                else:
                    kept.append(image_ids[start + offset])
                    pixels.append(decoded)
            if pixels:
                features = np.asarray(network.predict_on_batch(np.stack(pixels)), np.float16)  # as in the store
                captions += decode(features, kept)
            bar.update(len(part))
    return captions, pd.DataFrame(rejected, columns=["image_id", "path", "reason"])


def caption_stored(
    captioner: Captioner,
    store: FeatureStore,
    pictures: pd.DataFrame,
    *,
    part: int = 256,
    **settings: Any,
) -> list[Any]:
    """Caption pictures whose features are in a store, `part` pictures in memory at a time.

    Args:
        captioner: trained on the store's encoder.
        store: with the features of all of `pictures`.
        pictures: DataFrame with `image_id` and `path`.
        settings: of `Decoder`.

    Returns:
        captions: one a picture, in order.
    """
    decode = Decoder(captioner, **settings)
    captions: list[Any] = []
    for start in range(0, len(pictures), part):
        rows = pictures.iloc[start : start + part]
        captions += decode(store.get(list(rows["path"])), list(rows["image_id"]))
    return captions


def find_pictures(where: str | Path) -> list[Path]:
    """Return the pictures of a folder (and its folders), sorted; or those that a text file lists, a path a line.

    Raises:
        FileNotFoundError: neither a folder nor a file.
        ValueError: no picture there.
    """
    where = Path(where)
    if where.is_dir():
        found = sorted(path for path in _files(where) if path.suffix.lower() in PICTURE_ENDINGS)
    elif where.is_file():
        lines = where.read_text(encoding="utf-8-sig").splitlines()
        found = [where.parent / line.strip() for line in lines if line.strip()]
    else:
        raise FileNotFoundError(f"{where}: neither a folder of pictures nor a list of them")
    if not found:
        raise ValueError(f"{where}: no pictures in it (looked for {', '.join(sorted(PICTURE_ENDINGS))})")
    return found


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def _pixels(path: str, encoder: Any) -> np.ndarray | UnreadablePicture:
    try:
        return encoder.preprocess(open_picture(path))
    except UnreadablePicture as error:
        return error
