"""The systems that `attncap.reports.comparison` compares: each captions a list of image files.

These are two captioners, attributes in a sentence, the caption of the nearest image by difference hash or by embedding
(or the consensus of the k nearest), and two baselines that ignore the image.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attncap.attributes.classifier import load_classifier
from attncap.data.dataset import CaptionData
from attncap.data.load import leave_out
from attncap.decoding.decoder import Decoder
from attncap.features.extractor import FeatureExtractor
from attncap.features.pipeline import encode_batch
from attncap.features.store import FeatureStore
from attncap.images import UnreadableImage
from attncap.models.saving import load_captioner, model_file
from attncap.retrieval.captions import CaptionNeighbors, choose_k
from attncap.retrieval.difference_hash import DifferenceHash, ImageEncoder
from attncap.retrieval.embeddings import PooledEmbedding
from attncap.retrieval.index import ImageIndex


@dataclass(frozen=True, eq=False)
class System:
    """A way to caption images.

    Args:
        name: for tables and figures.
        answer: image files -> captions, one each, in order; includes decoding the files.
        training_seconds: time of training or of building the index, without the features, which are shared; NaN if
            unknown.
        megabytes: size of all that is needed to answer, including the encoder.
    """

    name: str
    answer: Callable[[Sequence[str]], list[str]]
    training_seconds: float
    megabytes: float


def captioner_system(name: str, run: str | Path, *, training_seconds: float | None = None, **decoding: Any) -> System:
    """A trained captioner, with attention or without.

    Args:
        name: of the system.
        run: run folder of `attncap train`, or its `.keras` file.
        training_seconds: default as the run folder's files tell, see `seconds_of_run`.
        decoding: of `Decoder`, such as beam_width.

    Raises:
        ValueError: the captioner was saved without an encoder.
        FileNotFoundError: no such run.
    """
    captioner = load_captioner(run)
    encoder = captioner.encoder
    if encoder is None:
        raise ValueError(f"{run}: this captioner holds no encoder: it takes features, not image files")
    network, decode = encoder.network_for_pixels(), Decoder(captioner, **decoding)

    def answer(paths: Sequence[str]) -> list[str]:
        (features,) = encode_batch(encoder, paths, network=network)
        return [caption.text for caption in decode(features)]

    return System(name, answer, _or_of_run(training_seconds, run), _file_megabytes(run))


def attribute_system(
    name: str, run: str | Path, *, most: int | None = None, training_seconds: float | None = None
) -> System:
    """A classifier of attributes, whose answers are put into a sentence.

    Args:
        name: of the system.
        run: run folder of `attncap attributes train`, or its `.keras` file.
        most: largest number of attributes per sentence; None: all that reach their thresholds.
        training_seconds: default as the run folder's files tell.
    """
    classifier = load_classifier(run)
    encoder = classifier.encoder
    if encoder is None:
        raise ValueError(f"{run}: this classifier holds no encoder: it takes features, not image files")
    network = encoder.network_for_pixels()

    def answer(paths: Sequence[str]) -> list[str]:
        seen = encode_batch(encoder, paths, network=network, views=classifier.views)
        probs = classifier.calibrated(classifier.mean_logits(*seen))
        return [classifier.sentence(row, most) for row in probs]  # (B, A)

    return System(name, answer, _or_of_run(training_seconds, run), _file_megabytes(run))


def build_index(training: CaptionData, encoder: ImageEncoder, progress: bool = False) -> tuple[ImageIndex, float]:
    """Put images with their captions into an index in memory.

    Args:
        training: images and captions.
        encoder: `DifferenceHash`, or `PooledEmbedding` with a store that holds their features.
        progress: show a bar.

    Returns:
        index, and the seconds that it took.

    Raises:
        ValueError: none of the images can be read.
    """
    began = time.perf_counter()
    index = ImageIndex(None, encoder)
    references = training.references()
    pictures = training.pictures[training.pictures["image_id"].isin(references)]
    image_ids = list(pictures["image_id"])
    index.add(list(pictures["path"]), [references[image_id] for image_id in image_ids], image_ids, progress)
    if not len(index):
        raise ValueError(f"{training.name}: no training image with a caption can be read: nothing to look up")
    index.nearest(index.codes[:1])  # codes are read into memory at the first search
    return index, time.perf_counter() - began


def neighbor_system(name: str, index: ImageIndex, k: int = 1, *, training_seconds: float = math.nan) -> System:
    """The caption of the nearest image of an index, or the consensus of the k nearest.

    Args:
        name: of the system.
        index: from `build_index`, captions as labels.
        k: 1, or more for consensus; see `CaptionNeighbors`.
        training_seconds: of building the index.
    """
    encoder, megabytes = index.encoder, index.codes.nbytes / 1e6
    if isinstance(encoder, PooledEmbedding):
        megabytes += 4 * sum(int(np.prod(weight.shape)) for weight in encoder.extractor.network.weights) / 1e6
        encoder = PooledEmbedding(encoder.extractor)  # without the store: a new image has no features there
    neighbors = CaptionNeighbors(index)

    def answer(paths: Sequence[str]) -> list[str]:
        codes = encoder.encode(list(paths))
        for code in codes:
            if isinstance(code, UnreadableImage):
                raise code
        return neighbors.captions(np.stack(codes), k)  # type: ignore[arg-type]

    return System(name, answer, training_seconds, megabytes + _text_megabytes(neighbors.texts))


def most_common_system(training: CaptionData, name: str = "most common caption") -> System:
    """The most frequent training caption for every image; of equally frequent ones the first."""
    began = time.perf_counter()
    said, _ = Counter(training.captions["caption"]).most_common(1)[0]
    return System(name, lambda paths: [said] * len(paths), time.perf_counter() - began, _text_megabytes([said]))


def random_system(training: CaptionData, seed: int = 0, name: str = "random training caption") -> System:
    """A training caption drawn at random for each image."""
    texts, rng = list(training.captions["caption"]), np.random.default_rng(seed)
    return System(
        name,
        lambda paths: [texts[at] for at in rng.integers(len(texts), size=len(paths))],
        0.0,
        _text_megabytes(texts),
    )


def all_systems(
    data: CaptionData,
    *,
    split: str = "test",
    attention: str | Path | None = None,
    show_and_tell: str | Path | None = None,
    attributes: str | Path | None = None,
    weights: str | Path = "imagenet",
    layer: str | None = None,
    features: str | Path | None = None,
    bits: int = 64,
    k: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    progress: bool = True,
    decoding: Mapping[str, Any] | None = None,
) -> tuple[list[System], CaptionData, dict[str, str]]:
    """Prepare trained runs, retrieval over the training images and two baselines for a comparison.

    Args:
        data: retrieval and baselines use its training split; runs must have been trained on it.
        split: the held-out one.
        attention, show_and_tell: run folders or `.keras` files of captioners; None: they are absent.
        attributes: run folder or file of a classifier of attributes.
        weights, layer: of the encoder whose pooled features are the embedding; see `FeatureExtractor`.
        features: folder of feature stores; default `features` in the cache folder.
        bits: of the difference hash.
        k: number of neighbors for the consensus; None: `choose_k` on training images.
        limit: use only the first images of the split.
        seed: of the random captions and of `choose_k`.
        progress: show bars.
        decoding: of the captioners' `Decoder`, such as {"beam_width": 5}.

    Returns:
        systems, the held-out images that can be read and have captions, and absent systems with the reason: the
        arguments of `attncap.reports.comparison.compare_systems`.

    Raises:
        ValueError: no readable training or held-out image with a caption.

    Example:
        >>> systems, held_out, absent = all_systems(data, attention="runs/mine", layer="mixed8")
        >>> print(compare_systems(systems, held_out, absent=absent).to_markdown())
    """
    extractor = FeatureExtractor(layer, weights)
    store = FeatureStore(features, extractor)
    training, held_out = (
        _readable(data, name, store, most, progress) for name, most in (("train", None), (split, limit))
    )
    systems: list[System] = []
    absent: dict[str, str] = {}
    for name, run in (("attention captioner", attention), ("Show and Tell", show_and_tell)):
        if run is None:
            absent[name] = "no trained run was given"
        else:
            systems.append(captioner_system(name, run, **(decoding or {})))
    name = "attributes in a sentence"
    if attributes is not None:
        systems.append(attribute_system(name, attributes))
    elif data.attributes is None:
        absent[name] = "does not apply: the data set has captions, and no table of attributes"
    else:
        absent[name] = "no trained run was given"
    hashes, seconds = build_index(training, DifferenceHash(bits), progress)
    systems.append(neighbor_system(f"nearest hash, {bits} bits", hashes, training_seconds=seconds))
    index, seconds = build_index(training, PooledEmbedding(extractor, store), progress)
    systems.append(neighbor_system("nearest embedding", index, training_seconds=seconds))
    began = time.perf_counter()
    k = k or choose_k(index, seed=seed)[0]
    seconds += time.perf_counter() - began
    if k > 1:
        systems.append(neighbor_system(f"{k} nearest embeddings agree", index, k, training_seconds=seconds))
    return [*systems, most_common_system(training), random_system(training, seed)], held_out, absent


def seconds_of_run(run: str | Path) -> float:
    """Return the seconds between a run's manifest and its last epoch; NaN if there is no run folder.

    Computed from the times of files: too large if the run was interrupted or shared the machine.
    """
    first, last = Path(run) / "manifest.json", Path(run) / "history.csv"
    if not (first.is_file() and last.is_file()):
        return math.nan
    return last.stat().st_mtime - first.stat().st_mtime


def _or_of_run(seconds: float | None, run: str | Path) -> float:
    return seconds_of_run(run) if seconds is None else seconds


def _file_megabytes(run: str | Path) -> float:
    return model_file(run).stat().st_size / 1e6


def _text_megabytes(texts: Sequence[str]) -> float:
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) / 1e6


def _readable(data: CaptionData, split: str, store: FeatureStore, most: int | None, progress: bool) -> CaptionData:
    part = data.split(split)
    part = part.only(part.references())
    part = part if most is None else part.only(part.pictures["image_id"].head(most))
    rejects = store.extract(list(part.pictures["path"]), progress=progress)
    part = leave_out(part, dict(zip(rejects["path"], rejects["reason"], strict=True)))
    if part.pictures.empty:
        raise ValueError(f"{data.name}: no readable image with a caption in the split {split!r}")
    return part
