"""The inputs of a training: images with features, the vocabulary, phrases with boxes, batches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import pandas as pd

from attncap.data.load import CaptionData, leave_out
from attncap.features.sources import key_column
from attncap.grounding.annotations import Phrases, load_phrases, named_regions
from attncap.models.captioner import Captioner
from attncap.models.registry import captioner_class
from attncap.tokenizers import CaptionTokenizer, WordPieceTokenizer, WordTokenizer
from attncap.training.batches import CaptionBatches
from attncap.training.config import TrainConfig
from attncap.training.run_folder import RunFolder


def readable_data(data: CaptionData, store: Any, folder: RunFolder, resume: bool) -> CaptionData:
    """Compute the features of training and validation images; list unreadable ones in the run folder, leave them out.

    Raises:
        ValueError: no readable image with a caption in one of the two splits.
    """
    data = data.only(data.pictures.loc[data.pictures["split"] != "test", "image_id"])
    key = key_column(store)
    unreadable = store.extract(list(data.pictures[key]))
    path_of = dict(zip(data.pictures[key], data.pictures["path"], strict=True))
    kept = leave_out(data, dict(zip(unreadable[key].map(path_of), unreadable["reason"], strict=True)))
    if not resume or not folder.rejects_file.exists():  # data that does not fit a run must not change it
        kept.write_rejects(folder.rejects_file)
    if len(unreadable):
        why = "cannot be read" if key == "path" else "have no features"
        print(f"{len(unreadable)} images {why} and are left out: see {folder.rejects_file}")
    for name in ("train", "val"):
        if kept.split(name).captions.empty:
            what = "readable image" if key == "path" else f"image with features in {store.name}"
            raise ValueError(f"{data.name}: no {what} with a caption in the split {name!r}")
    return kept


class TrainingImages(NamedTuple):
    """The readable images of a training, with their captions.

    Attributes:
        training, validation: the two splits.
        phrases: of the training images, with boxes that supervise attention; None: attention is not supervised.
    """

    training: CaptionData
    validation: CaptionData
    phrases: Phrases | None = None


def training_images(
    data: CaptionData, store: Any, folder: RunFolder, resume: bool, boxes: str | None
) -> TrainingImages:
    """Compute the features of training and validation images, and read the boxes of phrases if they are asked for.

    Raises:
        ValueError: as `readable_data` and `load_phrases`.
    """
    readable = readable_data(data, store, folder, resume)
    training, validation = readable.split("train"), readable.split("val")
    if boxes is None:
        return TrainingImages(training, validation)
    training, phrases = with_phrases(boxes, training)
    return TrainingImages(training, validation, phrases)


def given_tokenizer(tokenizer: CaptionTokenizer | None, model: Any, start: Captioner | None) -> CaptionTokenizer | None:
    """Return the vocabulary of the captioner to continue from or to train, or else the given one.

    Raises:
        ValueError: a vocabulary is given, and the captioner has another.
    """
    captioner = model if start is None and isinstance(model, Captioner) else start
    if captioner is None:
        return tokenizer
    if tokenizer is not None and tokenizer.digest() != captioner.tokenizer.digest():
        raise ValueError("tokenizer is another vocabulary than that of the captioner to train: leave tokenizer out")
    return captioner.tokenizer


def tokenizer_of(config: TrainConfig, captions: list[str]) -> CaptionTokenizer:
    """Build the vocabulary of the training captions."""
    separators = bool(config.lists)
    if config.tokenizer == "wordpiece":
        return WordPieceTokenizer.from_captions(captions, config.wordpiece_size, separators=separators)
    return WordTokenizer.from_captions(captions, config.min_count, config.max_size, separators=separators)


def check_supervision(config: TrainConfig, boxes: str | None) -> None:
    """Raise ValueError if boxes and `attention_supervision` are not given together, or if the model has no maps."""
    if config.attention_supervision and boxes is None:
        raise ValueError(
            f"attention_supervision is {config.attention_supervision}, but there are no boxes: give --boxes "
            "entities:FOLDER_OR_ZIP or faces"
        )
    if boxes is not None and not captioner_class(config.model).has_attention:
        raise ValueError(
            f"boxes {boxes!r} are given, but the model {config.model} has no attention maps for them to supervise: "
            "leave --boxes out, or train with --model attention"
        )
    if boxes is not None and not config.attention_supervision:
        raise ValueError(
            f"boxes {boxes!r} are given, but attention_supervision is 0: add --set attention_supervision=1.0"
        )


def with_phrases(boxes: str, training: CaptionData) -> tuple[CaptionData, Phrases]:
    """Return the training data with the sentences of the boxes' source, and the phrases with boxes of each image.

    Images without boxes keep their captions, and train without supervision of maps.
    """
    annotated, phrases = load_phrases(boxes, training)
    others = training.captions[~training.captions["image_id"].isin(annotated.pictures["image_id"])]
    n_others = len(training.pictures) - len(annotated.pictures)
    n_phrases = sum(len(phrase.boxes) > 0 for own in phrases.values() for named in own for phrase in named)
    print(
        f"attention is supervised by {n_phrases:,} phrases of {len(phrases):,} images"
        + (f"; {n_others:,} training images have no boxes and train without it" if n_others else "")
    )
    return replace(training, captions=pd.concat([annotated.captions, others], ignore_index=True)), phrases


def training_batches(
    config: TrainConfig,
    captioner: Captioner,
    store: Any,
    data: CaptionData,
    phrases: Phrases | None = None,
) -> CaptionBatches:
    """Return the batches of the training split, with regions where phrases have boxes."""
    tokenizer = captioner.tokenizer
    paths = dict(zip(data.pictures["image_id"], data.pictures[key_column(store)], strict=True))
    rows, cols = captioner.map_shape
    batches = CaptionBatches(
        store.get,
        paths,
        data.references(),
        tokenizer,
        batch_size=config.batch_size,
        max_length=config.max_length,
        seed=config.seed,
        shuffle_lists=bool(config.lists) and phrases is None,  # regions refer to the positions of words
        regions=None if phrases is None else named_regions(data, phrases, tokenizer, rows, cols, captioner.grid_box),
        region_cells=rows * cols,
    )
    if batches.cut:
        print(f"{batches.cut} captions are longer than {config.max_length} tokens and are cut")
    return batches
