"""From picture files to captions: decode, encode and search, a bounded number of pictures at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from attncap._files import check_list, files_below
from attncap.captions import WHOLE_PICTURE, Caption
from attncap.decoding.decoder import Decoder, caption_of, compiled, filled, replay
from attncap.features.pipeline import encode_images
from attncap.features.store import FeatureStore
from attncap.images import PICTURE_ENDINGS, AnyImage, UnreadableImage, image_name
from attncap.models.captioner import Captioner
from attncap.models.ensemble import Ensemble
from attncap.tokenizers import END, PAD, UNK


def caption(captioner: Captioner | Ensemble, picture: AnyImage, **settings: Any) -> Caption:
    """Caption one image.

    Args:
        captioner: from `load_captioner`, its encoder inside; or an `Ensemble`.
        picture: the file, a Pillow image, or an array as `read_image` takes it.
        settings: of `Decoder`, such as beam_width.

    Raises:
        UnreadableImage: the file is not a picture, or damaged.

    Example:
        >>> attncap.caption(captioner, "me.jpg", beam_width=5).text
        'a man with a black beard and round glasses'
    """
    captions, rejects = caption_pictures(captioner, [picture], progress=False, **settings)
    if not captions:
        raise UnreadableImage(rejects["path"].iloc[0], rejects["reason"].iloc[0])
    return captions[0]


def caption_pictures(
    captioner: Captioner | Ensemble,
    paths: Sequence[AnyImage],
    image_ids: Sequence[str] | None = None,
    *,
    batch_size: int = 32,
    progress: bool = True,
    decoder: Any = None,
    **settings: Any,
) -> tuple[list[Any], pd.DataFrame]:
    """Caption picture files with the encoder that the captioner was trained on.

    Args:
        captioner: from `load_captioner`, or an `Ensemble`.
        paths: the files, or Pillow images or arrays.
        image_ids: names for the captions, one a path; default the file names.
        batch_size: pictures in memory at a time.
        progress: show a bar with pictures/s.
        decoder: of the captioner, such as a `ConsensusDecoder`; None makes a `Decoder` with settings.
        settings: of `Decoder`, such as beam_width.

    Returns:
        captions: one a readable picture, in order, each with its image_id (lists of them when n_best > 1).
        rejects: DataFrame (image_id, path, reason) of pictures that cannot be read.

    Raises:
        ValueError: the captioner was saved without an encoder.
    """
    decode = Decoder(captioner, batch_size=batch_size, **settings) if decoder is None else decoder
    captions: list[Any] = []
    rejects: list[tuple[str, str, str]] = []
    for kept, features in encoded_pictures(captioner, paths, image_ids, rejects, batch_size, progress):
        captions += decode(features, kept)
    return captions, pd.DataFrame(rejects, columns=["image_id", "path", "reason"])


def encoded_pictures(
    captioner: Captioner | Ensemble,
    paths: Sequence[AnyImage],
    image_ids: Sequence[str] | None,
    rejects: list[tuple[str, str, str]],
    batch_size: int = 32,
    progress: bool = True,
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield the image_ids and the features of picture files, batch by batch; what cannot be read goes to `rejects`.

    Args:
        captioner, paths, image_ids, batch_size, progress: as in `caption_pictures`.
        rejects: (image_id, path, reason) of each unreadable picture is appended to it.

    Raises:
        ValueError: the captioner was saved without an encoder.
    """
    encoder = captioner.encoder
    if encoder is None:
        raise ValueError("this captioner holds no encoder: it takes features (use Decoder), not picture files")
    check_list(paths, "paths", "images")
    if image_ids is None:
        image_ids = [Path(image_name(path, at)).name for at, path in enumerate(paths)]
    for batch in encode_images(encoder, paths, batch_size=batch_size, progress=progress):
        rejects += [(image_ids[at], image_name(paths[at], at), reason) for at, reason in batch.rejects]
        if batch.positions:
            yield [image_ids[at] for at in batch.positions], batch.features[0]


def caption_stored(
    captioner: Captioner | Ensemble,
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
    return decode_stored(Decoder(captioner, **settings), store, pictures, part=part)


def decode_stored(decode: Decoder, store: FeatureStore, pictures: pd.DataFrame, *, part: int = 256) -> list[Any]:
    """Do as `caption_stored` with a decoder that is there already, compiled, as after every epoch of a training."""
    captions: list[Any] = []
    for start in range(0, len(pictures), part):
        rows = pictures.iloc[start : start + part]
        captions += decode(store.get(list(rows["path"])), list(rows["image_id"]))
    return captions


class CaptionReplay:
    """Reads given captions through a captioner, word by word: what it makes of each word, and where it looks.

    Args:
        captioner: anything with `init_state`, `step`, `tokenizer` and `feature_shape`.
        batch_size: pictures at a time, with all their captions side by side.

    Example:
        >>> [[caption]] = CaptionReplay(captioner)(features[:1], [["A dog runs."]])
        >>> caption.words, caption.attention_weights.shape
        (('a', 'dog', 'runs'), (3, 8, 8))
    """

    round_length_to = 8  # few different shapes, few compiled graphs

    def __init__(self, captioner: Any, batch_size: int = 32):
        self.captioner = captioner
        self.batch_size = batch_size

        # One compiled function a shape: given two shapes, TensorFlow would leave the length open, and Keras's scan
        # needs to know it.
        self._reads: dict[tuple[int, ...], Any] = {}

    def _read(self, features: np.ndarray, token_ids: np.ndarray) -> tuple[Any, Any]:
        captioner, captions = self.captioner, token_ids.shape[1]

        def read(features: Any, token_ids: Any) -> tuple[Any, Any]:
            return replay(captioner.step, captioner.init_state(features, captions=captions), token_ids)

        if token_ids.shape not in self._reads:
            model = captioner if isinstance(captioner, keras.Model) else None
            self._reads[token_ids.shape] = compiled(read, model)
        return self._reads[token_ids.shape](features, token_ids)

    def __call__(
        self, features: np.ndarray, captions: Sequence[Sequence[str]], image_ids: Sequence[str] | None = None
    ) -> list[list[Caption]]:
        """Read captions of N pictures.

        Args:
            features: shape (N, rows, cols, D).
            captions: N lists of captions as people wrote them, of any lengths.
            image_ids: for the `Caption`s.

        Returns:
            captions: N lists. The words are those that `tokenizer.split` gives; one outside the vocabulary stays at
                its place, has a map, and the log-probability -inf.
        """
        check_list(captions, "captions", "lists of captions")
        for number, own in enumerate(captions):
            check_list(own, f"captions[{number}]")
        read: list[list[Caption]] = []
        for start in range(0, len(features), self.batch_size):
            part = slice(start, start + self.batch_size)
            ids = None if image_ids is None else image_ids[part]
            read += self._batch(features[part], captions[part], ids)
        return read

    def _batch(
        self, features: np.ndarray, captions: Sequence[Sequence[str]], image_ids: Sequence[str] | None
    ) -> list[list[Caption]]:
        tokenizer = self.captioner.tokenizer
        rows = [[[*tokenizer.tokenize(caption), END] for caption in own] for own in captions]
        longest = max((len(row) for own in rows for row in own), default=0)
        length = max(1, -(-longest // self.round_length_to)) * self.round_length_to
        each = max(1, *map(len, rows))
        token_ids = np.full((self.batch_size, each, length), PAD, np.int32)  # (B, K, T)
        for picture, own in enumerate(rows):
            for number, row in enumerate(own):
                token_ids[picture, number, : len(row)] = row
        log_probs, weights = self._read(filled(features, self.batch_size), token_ids)
        log_probs = np.where(token_ids == UNK, -np.inf, np.asarray(keras.ops.convert_to_numpy(log_probs)))
        maps = None if weights is None else keras.ops.convert_to_numpy(weights)
        grid = getattr(self.captioner, "map_shape", tuple(self.captioner.feature_shape[:2]))
        read: list[list[Caption]] = []
        for picture, own_captions in enumerate(captions):
            read.append([])
            for number, text in enumerate(own_captions):
                caption = caption_of(
                    tokenizer,
                    token_ids[picture, number],
                    log_probs[picture, number],
                    None if maps is None else maps[picture, number],
                    grid,
                    None if image_ids is None else str(image_ids[picture]),
                    getattr(self.captioner, "grid_box", WHOLE_PICTURE),
                )
                read[-1].append(replace(caption, words=tuple(tokenizer.split(text))))
        return read


def replay_captions(
    captioner: Captioner | Ensemble,
    store: FeatureStore,
    pictures: pd.DataFrame,
    captions: Mapping[str, Sequence[str]],
    *,
    part: int = 256,
    batch_size: int = 32,
) -> dict[str, list[Caption]]:
    """Feed human captions into a captioner: the probability and the map of each of their words.

    Args:
        captioner: trained on the store's encoder.
        store: with the features of all of `pictures`.
        pictures: DataFrame with `image_id` and `path`.
        captions: image_id -> its captions; pictures without any are left out.
        part: pictures whose features are in memory at a time.
        batch_size: pictures a pass, with all their captions side by side.

    Returns:
        captions: image_id -> a `Caption` for each of its captions, in order; see `CaptionReplay`.

    Example:
        >>> maps = replay_captions(captioner, store, dev.pictures, dev.references())
    """
    reader = CaptionReplay(captioner, batch_size)
    pictures = pictures[[bool(captions.get(image_id)) for image_id in pictures["image_id"]]]
    read: dict[str, list[Caption]] = {}
    for start in range(0, len(pictures), part):
        rows = pictures.iloc[start : start + part]
        image_ids = list(rows["image_id"])
        own = [captions[image_id] for image_id in image_ids]
        read.update(zip(image_ids, reader(store.get(list(rows["path"])), own, image_ids), strict=True))
    return read


def find_pictures(where: str | Path) -> list[Path]:
    """Return the pictures of a folder (and its folders), sorted; or those that a text file lists, a path a line.

    Raises:
        FileNotFoundError: neither a folder nor a file.
        ValueError: no picture there, or a list that is not UTF-8 text.
    """
    where = Path(where)
    if where.is_dir():
        found = [path for path in files_below(where) if path.suffix.lower() in PICTURE_ENDINGS]
    elif where.is_file():
        try:
            lines = where.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{where}: not UTF-8 text at byte {error.start}; expected a path a line") from None
        found = [where.parent / line.strip() for line in lines if line.strip()]
    else:
        raise FileNotFoundError(f"{where}: neither a folder of pictures nor a list of them")
    if not found:
        raise ValueError(f"{where}: no pictures in it (looked for {', '.join(sorted(PICTURE_ENDINGS))})")
    return found
