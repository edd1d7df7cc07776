"""Training: from a data set to a run folder with the best captioner, validated by decoding."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from attncap.data.load import CaptionData, cache_folder, leave_out
from attncap.decoding.decoder import Decoder
from attncap.decoding.predict import decode_stored
from attncap.features.extractor import FeatureExtractor, best_dtype_policy
from attncap.features.store import FeatureStore
from attncap.grounding.annotations import Phrases, load_phrases, named_regions
from attncap.metrics.evaluate import References, bleu
from attncap.models import registry as captioners
from attncap.models.captioner import AttendingCaptioner, Captioner
from attncap.models.registry import ShowAndTell, load_captioner
from attncap.models.trainable_encoder import EncoderTail
from attncap.tokenizers import CaptionTokenizer, WordPieceTokenizer, WordTokenizer
from attncap.training.batches import CaptionBatches
from attncap.training.callbacks import RunRecorder
from attncap.training.config import MODELS, READ_BY, TrainConfig
from attncap.training.distributed.distribution import SharedTraining
from attncap.training.finetuning import encoder_and_tail, with_tail
from attncap.training.fit import fit
from attncap.training.run_folder import RunFolder, environment


def train(
    data: CaptionData,
    run: str | Path,
    config: TrainConfig | None = None,
    *,
    resume: bool = False,
    features: str | Path | None = None,
    tensorboard: bool = False,
    boxes: str | None = None,
    distribution: SharedTraining | None = None,
    verbose: Any = "auto",
) -> Captioner:
    """Train a captioner: features, vocabulary, fit, validation by decoding, best checkpoint.

    Args:
        data: pictures, captions and splits; "train" is trained on, "val" is decoded after every epoch.
        run: run folder; see `RunFolder`.
        config: settings; on resume, those of the run: None, or the same ones. (Another number of epochs would be
            another learning rate from the first step on.)
        resume: go on from the last completed epoch; gives the history that a run never stopped would have.
        features: folder of feature stores, shared by runs; default `features` in the cache folder.
        tensorboard: also write TensorBoard logs into the run folder.
        boxes: with `config.attention_supervision` above 0, the boxes that supervise attention, `entities:FOLDER_OR_ZIP`
            or `faces` (see `load_phrases`). Training pictures without boxes stay, unsupervised; validation is the same
            as without boxes.
        distribution: the processes or devices that share this training, from `shared_training`; None: one device. All
            processes call `train` alike; process 0 writes the run folder.
        verbose: of Keras's `fit`.

    Returns:
        captioner: the epoch with the best validation BLEU-4, as saved in `best.keras`.

    Raises:
        ValueError: no training or validation pictures with captions; a run of other data or settings; boxes without
            `attention_supervision`, or that without boxes; tensorboard is not installed.
        FloatingPointError: the loss is not a number.
    """
    config = config or TrainConfig()
    if tensorboard and importlib.util.find_spec("tensorboard") is None:  # else found out after the first epoch
        raise ValueError(
            "tensorboard logs need the package tensorboard, which is not installed: pip install tensorboard"
        )
    folder = RunFolder(run, resume) if distribution is None else distribution.run_folder(run, resume)
    try:
        if resume:
            config = _same_settings(folder, config)
        _check_supervision(config, boxes)
        if distribution is not None:
            distribution.check(config)
        keras.utils.set_random_seed(config.seed)  # weights="random" are the same ones when the run is resumed
        beginning = None if config.start is None else load_captioner(config.start)
        whole = (
            FeatureExtractor(config.finetune_to or config.layer, config.weights, config.image_size)
            if beginning is None
            else _encoder_of(beginning, config)
        )
        extractor, tail = encoder_and_tail(whole, config.layer, config.finetune_to, beginning, _policy(config))
        store = FeatureStore(features or cache_folder() / "features", extractor)
        if not resume:  # before the pictures are read, which takes long: a run killed there can be resumed as well
            folder.write_json(folder.config_file, asdict(config))
        readable = _readable(data, store, folder, resume)
        training, validation = readable.split("train"), readable.split("val")
        training, phrases = (training, None) if boxes is None else _with_phrases(boxes, training)
        tokenizer = _tokenizer(config, list(training.captions["caption"])) if beginning is None else beginning.tokenizer
        manifest = _manifest(data, training, validation, tokenizer, store, config)
        if config.start is not None:
            manifest["start_digest"] = _file_digest(config.start)
        elif tail is not None:
            manifest["tail_digest"] = whole.fingerprint()
        if phrases is not None:
            manifest |= {"boxes": boxes, "boxes_digest": _boxes_digest(phrases)}
        if distribution is not None:
            distribution.check_same(manifest, config)
        _check_or_write(folder, manifest, resume)
        captioner = (
            _captioner(config, tokenizer, extractor, tail)
            if beginning is None
            else _going_on(beginning, config, extractor, tail)
        )
        if beginning is None and isinstance(captioner, ShowAndTell):
            captioner.standardize(*_pooled_statistics(store, list(training.pictures["path"]), tail=tail))
        batches = _batches(config, captioner, store, training, phrases)
        recorder = RunRecorder(folder, config, _validator(config, store, validation, distribution), batches)
        logs = [keras.callbacks.TensorBoard(folder.path / "tensorboard")] if tensorboard else []
        fitted = fit if distribution is None else distribution.fit
        fitted(captioner, batches, recorder, config, callbacks=logs, verbose=verbose)
        return load_captioner(folder.best_file)
    except ValueError:  # unfit data or settings: where nothing has begun, the folder stays free for the next try
        if not resume and not folder.manifest_file.exists():
            folder.config_file.unlink(missing_ok=True)
        raise
    finally:
        folder.close()


def _same_settings(folder: RunFolder, config: TrainConfig) -> TrainConfig:
    try:
        saved = TrainConfig.from_dict(folder.read_json(folder.config_file))
    except ValueError as error:  # of a newer attncap, or changed by hand
        name = "" if str(folder.config_file) in str(error) else f"{folder.config_file}: "
        raise ValueError(f"{name}{error}") from None
    default = {**asdict(TrainConfig(model=config.model)), "model": TrainConfig().model}
    asked = {name: value for name, value in asdict(config).items() if value != default[name]}
    other = [name for name, value in asked.items() if value != getattr(saved, name)]
    if other:
        raise ValueError(f"{folder.path}: the run to resume has other settings: {', '.join(other)}")
    return saved


def _encoder_of(captioner: Captioner, config: TrainConfig) -> FeatureExtractor:
    if captioner.encoder is None:
        raise ValueError(f"{config.start}: has no encoder inside, so that its features cannot be computed")
    if config.image_size not in (None, captioner.encoder.image_size):
        raise ValueError(
            f"image_size is {config.image_size}, but {config.start} was trained at {captioner.encoder.image_size}: "
            "leave image_size out"
        )
    return captioner.encoder


def _file_digest(start: str) -> str:
    path = Path(start)
    with open(path / "best.keras" if path.is_dir() else path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _check_supervision(config: TrainConfig, boxes: str | None) -> None:
    if config.attention_supervision and boxes is None:
        raise ValueError(
            f"attention_supervision is {config.attention_supervision}, but there are no boxes: give --boxes "
            "entities:FOLDER_OR_ZIP or faces"
        )
    if boxes is not None and config.model not in READ_BY["attention_supervision"]:
        raise ValueError(
            f"boxes {boxes!r} are given, but the model {config.model} has no attention maps for them to supervise: "
            "leave --boxes out, or train with --model attention"
        )
    if boxes is not None and not config.attention_supervision:
        raise ValueError(
            f"boxes {boxes!r} are given, but attention_supervision is 0: add --set attention_supervision=1.0"
        )


def _with_phrases(boxes: str, training: CaptionData) -> tuple[CaptionData, Phrases]:
    # Sentences of pictures with boxes are those that the boxes' source has; the other pictures keep theirs.
    annotated, phrases = load_phrases(boxes, training)
    others = training.captions[~training.captions["image_id"].isin(annotated.pictures["image_id"])]
    n_others = len(training.pictures) - len(annotated.pictures)
    n_phrases = sum(len(phrase.boxes) > 0 for own in phrases.values() for named in own for phrase in named)
    print(
        f"attention is supervised by {n_phrases:,} phrases of {len(phrases):,} pictures"
        + (f"; {n_others:,} training pictures have no boxes and teach words alone" if n_others else "")
    )
    return replace(training, captions=pd.concat([annotated.captions, others], ignore_index=True)), phrases


def _boxes_digest(phrases: Phrases) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for image_id in sorted(phrases):
        for number, named in enumerate(phrases[image_id]):
            for phrase in named:
                digest.update(f"{image_id}\0{number} {phrase.start} {phrase.end}\0".encode("utf-8", "surrogatepass"))
                digest.update(phrase.boxes.tobytes())
    return digest.hexdigest()


def _readable(data: CaptionData, store: FeatureStore, folder: RunFolder, resume: bool) -> CaptionData:
    # Computes features; what cannot be read is left out, and listed in the run folder with what the reader rejected.
    data = data.only(data.pictures.loc[data.pictures["split"] != "test", "image_id"])
    unreadable = store.extract(list(data.pictures["path"]))
    kept = leave_out(data, dict(zip(unreadable["path"], unreadable["reason"], strict=True)))
    if not resume or not folder.rejects_file.exists():  # data that does not fit a run must not change its list
        kept.write_rejects(folder.rejects_file)
    if len(unreadable):
        print(f"{len(unreadable)} pictures cannot be read and are left out: see {folder.rejects_file}")
    for name in ("train", "val"):
        if kept.split(name).captions.empty:
            raise ValueError(f"{data.name}: no readable picture with a caption in the split {name!r}")
    return kept


def _tokenizer(config: TrainConfig, captions: list[str]) -> CaptionTokenizer:
    if config.tokenizer == "wordpiece":
        return WordPieceTokenizer.from_captions(captions, config.wordpiece_size)
    return WordTokenizer.from_captions(captions, config.min_count)


def _manifest(
    data: CaptionData,
    training: CaptionData,
    validation: CaptionData,
    tokenizer: CaptionTokenizer,
    store: FeatureStore,
    config: TrainConfig,
) -> dict[str, Any]:
    return {
        "data": data.name,
        "pictures": {"train": len(training.pictures), "val": len(validation.pictures)},
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


def _digest(table: pd.DataFrame) -> str:
    return hashlib.blake2b(table.to_csv(index=False).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _check_or_write(folder: RunFolder, manifest: dict[str, Any], resume: bool) -> None:
    if not resume or not folder.manifest_file.exists():
        folder.write_json(folder.manifest_file, manifest)
        return
    saved = folder.read_json(folder.manifest_file)
    saved.setdefault("validation_digest", manifest["validation_digest"])  # runs begun before it was recorded
    names = [name for name in manifest | saved if name.endswith("_digest") or name == "encoder_fingerprint"]
    for name in names:
        now, then = manifest.get(name), saved.get(name)
        if now != then:
            raise ValueError(f"{folder.path}: cannot resume: {name} is {now}, the run began with {then}")


def _policy(config: TrainConfig) -> str:
    return best_dtype_policy() if config.dtype == "auto" else config.dtype


def _captioner(
    config: TrainConfig, tokenizer: CaptionTokenizer, extractor: FeatureExtractor, tail: EncoderTail | None
) -> Captioner:
    keras.utils.set_random_seed(config.seed)
    names = ["hidden_units", "dropout", "scheduled_sampling"]
    names += [name for name, models in READ_BY.items() if config.model in models]
    return getattr(captioners, MODELS[config.model])(
        tokenizer,
        encoder=extractor,
        tail=tail,
        dtype=_policy(config),
        **{name: getattr(config, name) for name in names},
    )


def _going_on(
    captioner: Captioner, config: TrainConfig, extractor: FeatureExtractor, tail: EncoderTail | None
) -> Captioner:
    # What attention adds to the loss and whether the tail is trained are this training's, all else the captioner's.
    if type(captioner).__name__ != MODELS[config.model]:
        raise ValueError(
            f"model is {config.model}, but {config.start} holds a {type(captioner).__name__}: leave --model out, "
            "or start from a run of that model"
        )
    if isinstance(captioner, AttendingCaptioner):
        captioner.attention_penalty = config.attention_penalty
        captioner.attention_supervision = config.attention_supervision
    if tail is not None and captioner.tail is None:
        captioner = with_tail(captioner, extractor, tail)
    if captioner.tail is not None:
        captioner.tail.trainable = tail is not None
    return captioner


def _pooled_statistics(
    store: FeatureStore, paths: list[str], part: int = 64, tail: EncoderTail | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation, (D,) each, of the pooled regions of pictures; a feature that never varies gets 1."""
    total = np.zeros((2, (store.feature_shape if tail is None else tail.region_shape)[-1]))
    for start in range(0, len(paths), part):
        regions = store.get(paths[start : start + part])
        if tail is not None:
            regions = keras.ops.convert_to_numpy(keras.ops.cast(tail(regions), "float32"))
        pooled = regions.astype(np.float32).mean(axis=(1, 2)).astype(float)  # (B, D)
        total += pooled.sum(axis=0), (pooled**2).sum(axis=0)
    mean, square = total / len(paths)
    deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
    return mean, np.where(deviation > 1e-6, deviation, 1.0)


def _batches(
    config: TrainConfig,
    captioner: Captioner,
    store: FeatureStore,
    data: CaptionData,
    phrases: Phrases | None = None,
) -> CaptionBatches:
    tokenizer = captioner.tokenizer
    paths = dict(zip(data.pictures["image_id"], data.pictures["path"], strict=True))
    rows, cols = captioner.map_shape
    batches = CaptionBatches(
        store.get,
        paths,
        data.references(),
        tokenizer,
        batch_size=config.batch_size,
        max_length=config.max_length,
        seed=config.seed,
        regions=None if phrases is None else named_regions(data, phrases, tokenizer, rows, cols, captioner.grid_box),
        region_cells=rows * cols,
    )
    if batches.cut:
        print(f"{batches.cut} captions are longer than {config.max_length} tokens and are cut")
    return batches


def _validator(
    config: TrainConfig, store: FeatureStore, data: CaptionData, distribution: SharedTraining | None = None
) -> Any:
    references = data.references()
    pictures = data.pictures[data.pictures["image_id"].isin(references)].head(config.validation_images)
    image_ids = list(pictures["image_id"])
    prepared = References({image_id: references[image_id] for image_id in image_ids})

    @cache  # compiled once, not after every epoch
    def greedy(captioner: Captioner) -> Decoder:
        return Decoder(captioner, beam_width=1, max_length=config.max_length)

    def validate(captioner: Captioner) -> dict[str, float]:
        own = pictures if distribution is None else pictures.iloc[distribution.process :: distribution.processes]
        captions = decode_stored(greedy(captioner), store, own)
        texts = {caption.image_id: caption.text for caption in captions}
        if distribution is not None:
            texts = {image_id: text for part in distribution.gather(texts) for image_id, text in part.items()}
        scores = bleu(texts, prepared)
        return {f"val_bleu_{n}": float(score) for n, score in enumerate(scores, start=1)}

    return validate
