"""`CaptionBatches`: training batches in which an image's captions share its features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from attncap._files import check_list
from attncap.grounding.phrases import NamedRegion
from attncap.tokenizers import END, PAD, CaptionTokenizer, pad_token_ids


class CaptionBatches(keras.utils.PyDataset):
    """Batches of B images with K captions each. The K captions of an image share its features.

    Images are shuffled every epoch and then bucketed by their longest caption, so that a batch holds little padding.
    The order depends only on (seed, epoch), so that a resumed run sees the same batches as an uninterrupted one.

    Args:
        get_features: image paths -> float16 or float32 array (B, rows, cols, D), such as `FeatureStore.get`.
        paths: image_id -> image file, or whatever else get_features takes.
        captions: image id -> its captions; an image with fewer than K gets rows of padding, which do not count; from
            more, K are drawn in every epoch.
        tokenizer: turns captions into ids.
        batch_size: B, images per batch.
        captions_each: K; None takes the largest number of captions that an image has, 5 at most.
        max_length: most tokens of a caption, `<start>` and `<end>` included; longer ones are cut (`self.cut` of them).
        seed: of shuffling.
        epoch: the epoch to begin with, when a run is resumed.
        shuffle_lists: shuffle the items of captions in every epoch, where the vocabulary has a separator token.
        regions: image id -> a list for each of its captions of `NamedRegion`s, for supervised attention; images and
            captions may have none.
        region_cells: L, cells of the attention grid; needed with regions.

    Item i is `({"features": (B, rows, cols, D), "token_ids": (B, K, T)}, targets (B, K, T))`; targets are the token ids
    one step later. With regions there is also `"regions"` (B, K, T, L) float32: how much of each cell the region that
    target t names covers, zeros where it names none. Step t emits target t from the map that it computes, so that maps
    and regions have the same index.

    Raises:
        ValueError: no image has a caption; there is not one list of regions per caption, or they are of another grid.
    """

    round_length_to = 4  # few different T, so that backends compile few graphs

    def __init__(
        self,
        get_features: Callable[..., np.ndarray],
        paths: Mapping[str, str],
        captions: Mapping[str, Sequence[str]],
        tokenizer: CaptionTokenizer,
        *,
        batch_size: int = 32,
        captions_each: int | None = None,
        max_length: int = 40,
        seed: int = 0,
        epoch: int = 0,
        shuffle_lists: bool = False,
        regions: Mapping[str, Sequence[Sequence[NamedRegion]]] | None = None,
        region_cells: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._image_ids = [image_id for image_id in paths if captions.get(image_id)]
        if not self._image_ids:
            raise ValueError("no image has a caption: nothing to train on")
        for image_id in self._image_ids:
            check_list(captions[image_id], f"captions of image {image_id!r}")
        self._get_features = get_features
        self._separator = tokenizer.separator_id if shuffle_lists else None
        self._paths = paths
        self._token_ids: dict[str, list[list[int]]] = {}
        self.cut = 0
        for image_id in self._image_ids:
            rows = tokenizer.pack(captions[image_id], max_length=10**9)
            self.cut += int((rows[:, max_length:] != PAD).any(axis=1).sum())
            packed = tokenizer.pack(captions[image_id], max_length)
            self._token_ids[image_id] = [row[row != PAD].tolist() for row in packed]
        self._regions = None if regions is None else self._checked(regions, captions, region_cells)
        self._region_cells = region_cells
        most = max(len(rows) for rows in self._token_ids.values())
        self.captions_each = captions_each or min(most, 5)
        self.batch_size = batch_size
        self.seed = seed
        self.start_epoch(epoch)

    def __len__(self) -> int:
        return -(-len(self._image_ids) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        return self.part(index, slice(None))

    def part(self, index: int, own: slice) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return item `index` of the `own` images of the batch alone, captions padded as in the whole batch."""
        longest = max(len(row) for image_id in self._batches[index] for row in self._chosen[image_id]) - 1
        length = -(-longest // self.round_length_to) * self.round_length_to
        image_ids = self._batches[index][own]
        rows = [self._chosen[image_id] for image_id in image_ids]
        token_ids = pad_token_ids(rows, length=length + 1, captions_each=self.captions_each)  # (B, K, T + 1)
        inputs = {"features": self.features(index, own), "token_ids": token_ids[:, :, :-1]}
        if self._regions is not None:
            inputs["regions"] = self._covers(image_ids, token_ids[:, :, 1:])
        return inputs, token_ids[:, :, 1:]

    def _covers(self, image_ids: Sequence[str], targets: np.ndarray) -> np.ndarray:
        assert self._regions is not None
        covers = np.zeros((*targets.shape, self._region_cells), np.float32)  # (B, K, T, L)
        for image, image_id in enumerate(image_ids):
            own = self._regions.get(image_id, ())
            for row, caption in enumerate(self._chosen_captions[image_id] if own else ()):
                for region in own[caption]:
                    covers[image, row, region.start : region.end] += region.cover
        covers[(targets == PAD) | (targets == END)] = 0  # a cut caption ends where a word was
        return covers

    @staticmethod
    def _checked(
        regions: Mapping[str, Sequence[Sequence[NamedRegion]]], captions: Mapping[str, Sequence[str]], cells: int
    ) -> Mapping[str, Sequence[Sequence[NamedRegion]]]:
        for image_id, own in regions.items():
            if image_id in captions and len(own) != len(captions[image_id]):
                raise ValueError(
                    f"image {image_id!r}: regions of {len(own)} captions, it has {len(captions[image_id])}: "
                    "give one list per caption"
                )
            for region in (region for caption in own for region in caption):
                if region.cover.shape != (cells,):
                    raise ValueError(
                        f"image {image_id!r}: a region's cover needs shape ({cells},), got {region.cover.shape}"
                    )
        return regions

    def features(self, index: int, own: slice = slice(None)) -> np.ndarray:
        """Return the features of (the `own` of) the images of batch `index`, (B, rows, cols, D) float16."""
        return self._get_features([self._paths[image_id] for image_id in self._batches[index][own]])

    def references(self) -> dict[str, list[list[int]]]:
        """Return the token ids of every caption of every image, `<end>` included and `<start>` not."""
        return {image_id: [row[1:] for row in self._token_ids[image_id]] for image_id in self._image_ids}

    def image_ids(self, index: int) -> list[str]:
        """Return the images of batch `index` in this epoch."""
        return list(self._batches[index])

    def for_fit(self) -> Any:
        """Return what `fit` takes on this backend: on TensorFlow a `tf.data.Dataset` whose lengths may vary.

        From a `PyDataset`, Keras reads two batches and requires the axes in which they agree of all others.
        """
        if keras.backend.backend() != "tensorflow":
            return self
        return dataset_of(self, self.signature())

    def signature(self) -> Any:
        """Return the `tf.TensorSpec`s of an item; the length of captions and the number of images are left open."""
        import tensorflow as tf

        tokens = tf.TensorSpec((None, self.captions_each, None), tf.int32)
        features = self.features(0, slice(1))
        inputs = {"features": tf.TensorSpec((None, *features.shape[1:]), features.dtype), "token_ids": tokens}
        if self._regions is not None:
            inputs["regions"] = tf.TensorSpec((None, self.captions_each, None, self._region_cells), tf.float32)
        return inputs, tokens

    def on_epoch_end(self) -> None:
        self.start_epoch(self.epoch + 1)

    def start_epoch(self, epoch: int) -> None:
        """Arrange the batches of an epoch: the captions, the images of each batch, and the order."""
        self.epoch = epoch
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self._image_ids))
        self._chosen_captions = {}  # image id -> which of its captions, in the order of the batch's rows
        self._chosen = {}
        for image_id in self._image_ids:
            rows = self._token_ids[image_id]
            chosen = list(range(len(rows)))
            if len(rows) > self.captions_each:
                chosen = rng.permutation(len(rows))[: self.captions_each].tolist()
            self._chosen_captions[image_id] = chosen
            self._chosen[image_id] = [rows[i] for i in chosen]
            if self._separator is not None:
                self._chosen[image_id] = [shuffled_items(row, self._separator, rng) for row in self._chosen[image_id]]
        shuffled = [self._image_ids[i] for i in order]
        # Sort by length within pools of 16 batches: nearly as little padding as a full sort, and batches still vary.
        pool = 16 * self.batch_size
        batches = []
        for start in range(0, len(shuffled), pool):
            part = sorted(shuffled[start : start + pool], key=lambda i: max(map(len, self._chosen[i])))
            batches += [part[at : at + self.batch_size] for at in range(0, len(part), self.batch_size)]
        self._batches = [batches[i] for i in rng.permutation(len(batches))]


def shuffled_items(row: Sequence[int], separator: int, rng: np.random.Generator) -> list[int]:
    """Return the token ids of a caption, `<start>` and `<end>` included, with its items in random order."""
    items: list[list[int]] = [[]]
    for token in row[1:-1]:
        if token == separator:
            items.append([])
        else:
            items[-1].append(token)
    shuffled: list[int] = []
    for number in rng.permutation(len(items)):
        shuffled += [separator, *items[number]] if shuffled else items[number]
    return [row[0], *shuffled, row[-1]]


def dataset_of(batches: keras.utils.PyDataset, signature: Any) -> Any:
    """Return the `tf.data.Dataset` of all items of batches, made ahead of their use; signature: of an item."""
    import tensorflow as tf

    dataset = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=signature)
    # Nothing is tuned here, and the end of an epoch would wait for the tuning thread, whose sleep doubles each time.
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.apply(tf.data.experimental.assert_cardinality(len(batches))).prefetch(4).with_options(options)
