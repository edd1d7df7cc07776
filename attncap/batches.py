"""`CaptionBatches`: training batches in which a picture's captions share its features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from attncap.text import PAD, CaptionTokenizer


class CaptionBatches(keras.utils.PyDataset):
    """Batches of B pictures with K captions each: features are read, and projected to keys, once for all K.

    Pictures are shuffled every epoch and then bucketed by their longest caption, so that a batch holds little padding.
    The order depends on (seed, epoch) alone: a resumed run sees the batches that a run never stopped would have seen.

    Args:
        get_features: pictures' paths -> float16 array (B, rows, cols, D); `FeatureStore.get`.
        paths: picture id -> picture file.
        captions: picture id -> its captions; a picture with fewer than K has rows of padding, which count for nothing,
            one with more has K of them drawn anew every epoch.
        tokenizer: turns captions into ids.
        pictures: B, pictures a batch.
        captions_each: K; None takes the largest number of captions that a picture has, 5 at most.
        max_length: most tokens a caption, `<start>` and `<end>` included; longer ones are cut (`self.cut` counts them).
        seed: of shuffling.
        epoch: the epoch to begin with, when a run is resumed.

    Item i is `({"features": (B, rows, cols, D), "token_ids": (B, K, T)}, targets (B, K, T))`; targets are the token ids
    one step later.

    Raises:
        ValueError: no picture has a caption.
    """

    round_length_to = 4  # few different T: backends that compile for each shape compile few graphs

    def __init__(
        self,
        get_features: Callable[[Sequence[str]], np.ndarray],
        paths: Mapping[str, str],
        captions: Mapping[str, Sequence[str]],
        tokenizer: CaptionTokenizer,
        *,
        pictures: int = 32,
        captions_each: int | None = None,
        max_length: int = 40,
        seed: int = 0,
        epoch: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._image_ids = [image_id for image_id in paths if captions.get(image_id)]
        if not self._image_ids:
            raise ValueError("no picture has a caption: nothing to train on")
        self._get_features = get_features
        self._paths = paths
        self._token_ids: dict[str, list[list[int]]] = {}
        self.cut = 0
        for image_id in self._image_ids:
            rows = tokenizer.pack(captions[image_id], max_length=10**9)
            self.cut += int((rows[:, max_length:] != PAD).any(axis=1).sum())
            packed = tokenizer.pack(captions[image_id], max_length)
            self._token_ids[image_id] = [row[row != PAD].tolist() for row in packed]
        most = max(len(rows) for rows in self._token_ids.values())
        self.captions_each = captions_each or min(most, 5)
        self.pictures = pictures
        self.seed = seed
        self.start_epoch(epoch)

    def __len__(self) -> int:
        return -(-len(self._image_ids) // self.pictures)

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        image_ids = self._batches[index]
        rows = [self._chosen[image_id] for image_id in image_ids]
        longest = max(len(row) for captions in rows for row in captions) - 1
        length = -(-longest // self.round_length_to) * self.round_length_to
        token_ids = np.full((len(rows), self.captions_each, length + 1), PAD, np.int32)  # (B, K, T + 1)
        for picture, captions in enumerate(rows):
            for caption, row in enumerate(captions):
                token_ids[picture, caption, : len(row)] = row
        features = self._get_features([self._paths[image_id] for image_id in image_ids])
        return {"features": features, "token_ids": token_ids[:, :, :-1]}, token_ids[:, :, 1:]

    def image_ids(self, index: int) -> list[str]:
        """Return the pictures of batch `index` in this epoch."""
        return list(self._batches[index])

    def for_fit(self) -> Any:
        """Return what `fit` takes on this backend: on TensorFlow a `tf.data.Dataset` whose lengths may vary.

        Given a `PyDataset`, Keras reads two batches and holds all others to the axes in which those two agree.
        """
        if keras.backend.backend() != "tensorflow":
            return self
        import tensorflow as tf

        tokens = tf.TensorSpec((None, self.captions_each, None), tf.int32)
        grid = self[0][0]["features"].shape[1:]
        signature = ({"features": tf.TensorSpec((None, *grid), tf.float16), "token_ids": tokens}, tokens)
        dataset = tf.data.Dataset.from_generator(lambda: iter(self), output_signature=signature)
        return dataset.apply(tf.data.experimental.assert_cardinality(len(self))).prefetch(4)

    def on_epoch_end(self) -> None:
        self.start_epoch(self.epoch + 1)

    def start_epoch(self, epoch: int) -> None:
        """Arrange the batches of an epoch: which captions, which pictures together, in which order."""
        self.epoch = epoch
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self._image_ids))
        self._chosen = {}
        for image_id in self._image_ids:
            rows = self._token_ids[image_id]
            if len(rows) > self.captions_each:
                rows = [rows[i] for i in rng.permutation(len(rows))[: self.captions_each]]
            self._chosen[image_id] = rows
        shuffled = [self._image_ids[i] for i in order]
        # Sort by length within pools of 16 batches: nearly as little padding as a full sort, and batches still vary.
        pool = 16 * self.pictures
        batches = []
        for start in range(0, len(shuffled), pool):
            part = sorted(shuffled[start : start + pool], key=lambda i: max(map(len, self._chosen[i])))
            batches += [part[at : at + self.pictures] for at in range(0, len(part), self.pictures)]
        self._batches = [batches[i] for i in rng.permutation(len(batches))]
