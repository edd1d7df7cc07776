"""The manifest of a run: digests of everything that must be unchanged when a training is resumed."""

from __future__ import annotations

import hashlib
from typing import Any

import keras
import pandas as pd

from attncap._messages import quoted
from attncap.data.load import CaptionData
from attncap.features.external import ExternalFeatures
from attncap.grounding.annotations import Phrases
from attncap.models.captioner import Captioner
from attncap.models.registry import captioner_class
from attncap.models.saving import model_file
from attncap.tokenizers import CaptionTokenizer
from attncap.training.config import BEFORE, TrainConfig
from attncap.training.features import FeatureSource
from attncap.training.inputs import TrainingImages
from attncap.training.run_folder import RunFolder, environment, read_object


def manifest_of(
    data: CaptionData,
    images: TrainingImages,
    tokenizer: CaptionTokenizer,
    source: FeatureSource,
    config: TrainConfig,
    boxes: str | None = None,
    model: Any = None,
) -> dict[str, Any]:
    """Return digests of what must be unchanged on resume: data, splits, vocabulary, encoder, boxes and start."""
    training, validation, phrases = images
    store = source.store
    manifest = {
        "data": data.name,
        "images": {"train": len(training.pictures), "val": len(validation.pictures)},
        "captions": {"train": len(training.captions), "val": len(validation.captions)},
        "split_digest": _digest(data.pictures.sort_values("image_id")[["image_id", "split"]]),
        "captions_digest": _digest(training.captions[["image_id", "caption"]]),
        "validation_digest": _digest(validation.captions[["image_id", "caption"]]),
        "vocabulary_digest": tokenizer.digest(),
        "vocabulary_size": tokenizer.vocabulary_size(),
        "encoder_fingerprint": store.fingerprint,
        "seed": config.seed,
        "backend": keras.backend.backend(),
        "environment": environment(),
    }
    if isinstance(store, ExternalFeatures) and store.file is not None:
        manifest["features_file"] = str(store.file.absolute())
    elif source.whole is None:
        manifest["features_given"] = True
    if isinstance(model, Captioner):
        manifest["model_given"] = type(model).__name__
    elif isinstance(model, type) and model is not captioner_class(config.model):
        manifest["model_given"] = model.__name__
    if config.start is not None:
        manifest["start_digest"] = file_digest(config.start)
    elif source.tail is not None and source.whole is not None:
        manifest["tail_digest"] = source.whole.fingerprint()
    if phrases is not None:
        manifest |= {"boxes": boxes, "boxes_digest": boxes_digest(phrases)}
    return manifest


def check_or_write(folder: RunFolder, manifest: dict[str, Any], resume: bool) -> None:
    """Write the manifest of a new run; check that a resumed run has the data and encoder that it began with.

    Raises:
        ValueError: a digest differs; the message names it.
    """
    if not resume or not folder.manifest_file.exists():
        folder.write_json(folder.manifest_file, manifest)
        return
    saved = read_object(folder.manifest_file)
    saved.setdefault("validation_digest", manifest["validation_digest"])  # older runs did not record it
    names = [name for name in manifest | saved if name.endswith("_digest") or name == "encoder_fingerprint"]
    for name in names:
        now, then = manifest.get(name), saved.get(name)
        if now != then:
            mend = ": if it was given a tokenizer, give it again" if name == "vocabulary_digest" else ""
            raise ValueError(f"{folder.path}: cannot resume: {name} is {now}, the run began with {then}{mend}")


def check_given_again(folder: RunFolder, model: Any) -> None:
    """Refuse to resume a run that trains a class or a captioner of the user's own without it.

    Raises:
        ValueError: it is not given; the message names its class.
    """
    name = read_object(folder.manifest_file).get("model_given") if folder.manifest_file.exists() else None
    if name is not None and (model is None or isinstance(model, str)):
        raise ValueError(
            f"{folder.path}: cannot resume: the run trains your own {quoted(name)}: give it again as model"
        )


def same_settings(folder: RunFolder, config: TrainConfig) -> TrainConfig:
    """Return the settings of the run to resume; refuse a config that asks for others.

    Raises:
        ValueError: the settings are damaged, of a newer attncap, or others than those asked for.
    """
    try:
        saved = TrainConfig.from_dict({**BEFORE, **read_object(folder.config_file)})
    except ValueError as error:  # of a newer attncap, or changed by hand
        name = "" if str(folder.config_file) in str(error) else f"{folder.config_file}: "
        raise ValueError(f"{name}{error}") from None
    asked = ["model"] if config.model != TrainConfig().model else []
    other = [name for name in (*asked, *config.chosen()) if getattr(config, name) != getattr(saved, name)]
    if other:
        raise ValueError(f"{folder.path}: the run to resume has other settings: {', '.join(other)}")
    return saved


def file_digest(start: str) -> str:
    """Return the digest of a `.keras` file, or of the best one of a run folder."""
    with open(model_file(start), "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def boxes_digest(phrases: Phrases) -> str:
    """Return the digest of the phrases and boxes that supervise attention."""
    digest = hashlib.blake2b(digest_size=16)
    for image_id in sorted(phrases):
        for number, named in enumerate(phrases[image_id]):
            for phrase in named:
                digest.update(f"{image_id}\0{number} {phrase.start} {phrase.end}\0".encode("utf-8", "surrogatepass"))
                digest.update(phrase.boxes.tobytes())
    return digest.hexdigest()


def _digest(table: pd.DataFrame) -> str:
    return hashlib.blake2b(table.to_csv(index=False).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
