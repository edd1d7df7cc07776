"""Training: from a data set to a run folder with the best captioner, validated by decoding."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from attncap.batches import CaptionBatches
from attncap.captioners import AttentionCaptioner, Captioner, MaskedCrossentropy
from attncap.data import CaptionData, cache_folder
from attncap.decoding import Decoder
from attncap.evaluation import References, bleu
from attncap.feature_store import FeatureStore
from attncap.features import FeatureExtractor, best_dtype_policy
from attncap.run_folder import RunFolder, environment, replacing
from attncap.text import CaptionTokenizer, WordPieceTokenizer, WordTokenizer


@dataclass(frozen=True)
class TrainConfig:
    """Every setting of a training, each with its reason. Saved as `config.json` in the run folder."""

    weights: str = "imagenet"  # encoder weights: imagenet, faces, random, or a file
    layer: str | None = None  # InceptionV3 layer; None takes the weights' default
    tokenizer: str = "words"  # or "wordpiece": no <unk>, longer captions
    min_count: int = 5  # rarer words are <unk>: Karpathy's and Show, Attend and Tell's threshold
    wordpiece_size: int = 4000  # pieces to learn with tokenizer="wordpiece"
    max_length: int = (
        40  # tokens; the longest Flickr8k caption has 38 words, and long ones cost every batch they are in
    )
    embedding_units: int = 512  # as hidden_units, so that the deep output adds them without a projection
    hidden_units: int = 512  # larger gains nothing on 6,000 pictures
    projection_units: int = 512  # the attended values: 1280 or 2048 numbers a region cost time and overfit
    attention_units: int = 256  # the tanh over regions is the dearest operation of a step: half the state's size
    context_gate: bool = True  # Show, Attend and Tell's beta
    dropout: float = 0.5  # small data sets overfit within five epochs without
    label_smoothing: float = 0.1  # five people give five answers: certainty is not wanted
    attention_penalty: float = 1.0  # doubly stochastic attention: look everywhere once
    scheduled_sampling: float = 0.0  # no gain with label smoothing and dropout; there to be tried
    pictures: int = 32  # a batch, with all their captions: 160 captions of Flickr8k
    epochs: int = 15  # the cosine ends here; early stopping ends before
    learning_rate: float = 1e-3  # AdamW's peak, after warm-up
    warmup: float = 0.05  # share of all steps: attention needs a slow start
    weight_decay: float = 0.01  # AdamW's
    clip_norm: float = 5.0  # of the whole gradient: recurrent nets have rare steep steps
    ema_epochs: float = 1.0  # horizon of the average of weights that is validated and saved; 0 turns it off
    patience: int = 5  # epochs without a better validation BLEU-4 before stopping
    validation_pictures: int = 1000  # decoded each epoch; more is slow and changes little
    dtype: str = "auto"  # bfloat16 arithmetic where the processor has it
    seed: int = 0  # of weights, batches, dropout

    def __post_init__(self) -> None:
        for name in ("pictures", "epochs", "min_count", "max_length", "validation_pictures"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.tokenizer not in ("words", "wordpiece"):
            raise ValueError(f'tokenizer is "words" or "wordpiece", got {self.tokenizer!r}')

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> TrainConfig:
        """Make a configuration of a dictionary; an unknown setting is an error that lists the known ones."""
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise ValueError(f"unknown settings {', '.join(unknown)}; known: {', '.join(known)}")
        return cls(**settings)


def train(
    data: CaptionData,
    run: str | Path,
    config: TrainConfig | None = None,
    *,
    resume: bool = False,
    features: str | Path | None = None,
    tensorboard: bool = False,
    verbose: Any = "auto",
) -> Captioner:
    """Train an attention captioner: features, vocabulary, fit, validation by decoding, best checkpoint.

    Args:
        data: pictures, captions and splits; "train" is trained on, "val" is decoded after every epoch.
        run: run folder; see `RunFolder`.
        config: settings; on resume, those of the run, and a config that differs in anything but epochs is an error.
        resume: go on from the last completed epoch; gives the history that a run never stopped would have.
        features: folder of feature stores, shared by runs; default `features` in the cache folder.
        tensorboard: also write TensorBoard logs into the run folder.
        verbose: of Keras's `fit`.

    Returns:
        captioner: the epoch with the best validation BLEU-4, as saved in `best.keras`.

    Raises:
        ValueError: no training or validation pictures with captions; a run of other data or settings.
        FloatingPointError: the loss is not a number.
    """
    config = config or TrainConfig()
    folder = RunFolder(run, resume)
    try:
        if resume:
            config = _same_settings(folder, config)
        extractor = FeatureExtractor(config.layer, config.weights)
        store = FeatureStore(features or cache_folder() / "features", extractor)
        training, validation = (_readable(data.split(name), store, folder) for name in ("train", "val"))
        tokenizer = _tokenizer(config, list(training.captions["caption"]))
        manifest = _manifest(data, training, validation, tokenizer, store, config)
        _check_or_write(folder, config, manifest, resume)
        captioner, batches = _prepare(config, tokenizer, extractor, store, training)
        recorder = RunRecorder(folder, config, _validator(config, store, validation), batches)
        callbacks: list[keras.callbacks.Callback] = [recorder]
        if tensorboard:
            callbacks.append(keras.callbacks.TensorBoard(folder.path / "tensorboard"))
        recorder.restore(captioner)
        if not recorder.finished():
            captioner.fit(
                batches.for_fit(),
                initial_epoch=len(recorder.history),
                epochs=config.epochs,
                callbacks=callbacks,
                shuffle=False,  # CaptionBatches shuffles, by seed and epoch
                verbose=verbose,
            )
        return load_captioner(folder.best_file)
    finally:
        folder.close()


def load_captioner(path: str | Path) -> Captioner:
    """Load a saved captioner: vocabulary, preprocessing, encoder and weights are all in the file.

    Args:
        path: a `.keras` file, or a run folder, whose `best.keras` is taken.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a captioner, damaged, or made to run code on loading (Keras's safe mode refuses that).
    """
    path = Path(path)
    file = path / "best.keras" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such captioner")
    try:
        captioner = keras.saving.load_model(file, compile=False, safe_mode=True)
    except Exception as error:
        raise ValueError(f"{file}: cannot be loaded as a captioner ({str(error).strip().splitlines()[0]})") from error
    if not isinstance(captioner, Captioner):
        raise ValueError(f"{file}: holds a {type(captioner).__name__}, not a captioner")
    return captioner


def save_captioner(captioner: Captioner, path: str | Path) -> None:
    """Save a captioner for use: everything but the optimizer's state, which would double the file.

    The state that training goes on from is the run folder's `state.npz`.
    """
    optimizer = captioner.optimizer
    captioner.optimizer = None
    try:
        captioner.save(path)
    finally:
        captioner.optimizer = optimizer


class RunRecorder(keras.callbacks.Callback):
    """After each epoch: decode the validation pictures, score, keep the best, commit the state, stop when it is time.

    Args:
        folder: where to.
        config: epochs, patience, seed and averaging.
        validate: captioner -> {"val_bleu_1": ..., ..., "val_bleu_4": ...}.
        batches: the training batches, for naming the pictures of a batch whose loss is not a number.
    """

    def __init__(self, folder: RunFolder, config: TrainConfig, validate: Any, batches: CaptionBatches):
        super().__init__()
        self.folder = folder
        self.config = config
        self.validate = validate
        self.batches = batches
        self.history: list[dict[str, float]] = []

    def restore(self, captioner: Captioner) -> None:
        """Put the last committed epoch's weights, optimizer and history back, where there is one."""
        arrays, self.history = self.folder.load_state()
        if arrays:
            variables = _state_variables(captioner)
            if {name: value.shape for name, value in arrays.items()} != {
                k: tuple(v.shape) for k, v in variables.items()
            }:
                raise ValueError(f"{self.folder.state_file}: the weights of another model")
            for name, variable in variables.items():
                variable.assign(arrays[name])

    def best_epoch(self) -> int:
        return int(np.argmax([epoch["val_bleu_4"] for epoch in self.history]))

    def finished(self) -> bool:
        """Whether all epochs are done, or patience is at its end."""
        done = len(self.history)
        return done >= self.config.epochs or (done > 0 and done - 1 - self.best_epoch() >= self.config.patience)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.batches.start_epoch(epoch)
        # Dropout's random state depends on (seed, epoch) alone, so that it need not be saved to be resumed.
        for index, variable in enumerate(_seed_states(self.model)):
            variable.assign(np.random.default_rng([self.config.seed, epoch, index]).integers(0, 2**31, 2))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if not np.isfinite(float(loss)):
            names = ", ".join(self.batches.image_ids(batch)[:5])
            raise FloatingPointError(
                f"the loss is {loss} in batch {batch} (pictures {names}, ...): lower learning_rate"
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = {} if logs is None else logs
        with averaged_weights(self.model):
            logs.update(self.validate(self.model))
            row = {"epoch": epoch, **{name: float(value) for name, value in logs.items()}}
            self.history.append(row)
            if self.best_epoch() == len(self.history) - 1:
                with replacing(self.folder.best_file) as temporary:
                    save_captioner(self.model, temporary)
        arrays = {name: keras.ops.convert_to_numpy(value) for name, value in _state_variables(self.model).items()}
        self.folder.save_state(arrays, self.history)
        self.model.stop_training = self.finished()


@contextmanager
def averaged_weights(captioner: Captioner) -> Iterator[None]:
    """Inside the block the captioner has the moving average of its weights, where its optimizer keeps one."""
    optimizer = captioner.optimizer
    averages = getattr(optimizer, "_model_variables_moving_average", None) if optimizer.use_ema else None
    if not averages:
        yield
        return
    pairs = list(zip(captioner.trainable_variables, averages, strict=True))
    kept = [np.array(keras.ops.convert_to_numpy(variable)) for variable, _ in pairs]
    for variable, average in pairs:
        variable.assign(average)
    try:
        yield
    finally:
        for (variable, _), values in zip(pairs, kept, strict=True):
            variable.assign(values)


def _same_settings(folder: RunFolder, config: TrainConfig) -> TrainConfig:
    import json

    saved = TrainConfig.from_dict(json.loads(folder.config_file.read_text(encoding="utf-8")))
    default = asdict(TrainConfig())
    asked = {name: value for name, value in asdict(config).items() if value != default[name]}
    other = [name for name, value in asked.items() if value != getattr(saved, name)]
    if other:
        raise ValueError(f"{folder.path}: the run to resume has other settings: {', '.join(other)}")
    return saved


def _readable(data: CaptionData, store: FeatureStore, folder: RunFolder) -> CaptionData:
    # Computes features; pictures that cannot be read are listed in the run folder and left out.
    rejects = store.extract(list(data.pictures["path"]))
    unreadable = set(rejects["path"])
    if unreadable:
        new = not folder.rejects_file.exists()
        rejects.to_csv(folder.rejects_file, mode="a", header=new, index=False)
        print(f"{len(unreadable)} pictures cannot be read and are left out: see {folder.rejects_file}")
    pictures = data.pictures[~data.pictures["path"].isin(unreadable)]
    captions = data.captions[data.captions["image_id"].isin(pictures["image_id"])]
    if captions.empty:
        raise ValueError(f"{data.name}: no readable picture with a caption")
    from dataclasses import replace

    return replace(data, pictures=pictures, captions=captions)


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
        "vocabulary_digest": tokenizer.digest(),
        "vocabulary_size": tokenizer.vocabulary_size(),
        "encoder_fingerprint": store.fingerprint,
        "seed": config.seed,
        "backend": keras.backend.backend(),
        "environment": environment(),
    }


def _digest(table: pd.DataFrame) -> str:
    return hashlib.blake2b(table.to_csv(index=False).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _check_or_write(folder: RunFolder, config: TrainConfig, manifest: dict[str, Any], resume: bool) -> None:
    import json

    if not resume or not folder.manifest_file.exists():
        folder.write_json(folder.manifest_file, manifest)
        folder.write_json(folder.config_file, asdict(config))
        return
    saved = json.loads(folder.manifest_file.read_text(encoding="utf-8"))
    for name in ("split_digest", "captions_digest", "vocabulary_digest", "encoder_fingerprint"):
        if saved[name] != manifest[name]:
            raise ValueError(
                f"{folder.path}: cannot resume: {name} is {manifest[name]}, the run began with {saved[name]}"
            )


def _prepare(
    config: TrainConfig,
    tokenizer: CaptionTokenizer,
    extractor: FeatureExtractor,
    store: FeatureStore,
    data: CaptionData,
) -> tuple[Captioner, CaptionBatches]:
    keras.utils.set_random_seed(config.seed)
    captioner = AttentionCaptioner(
        tokenizer,
        encoder=extractor,
        embedding_units=config.embedding_units,
        hidden_units=config.hidden_units,
        projection_units=config.projection_units,
        attention_units=config.attention_units,
        context_gate=config.context_gate,
        dropout=config.dropout,
        attention_penalty=config.attention_penalty,
        scheduled_sampling=config.scheduled_sampling,
        dtype=best_dtype_policy() if config.dtype == "auto" else config.dtype,
    )
    paths = dict(zip(data.pictures["image_id"], data.pictures["path"], strict=True))
    batches = CaptionBatches(
        store.get,
        paths,
        data.references(),
        tokenizer,
        pictures=config.pictures,
        max_length=config.max_length,
        seed=config.seed,
    )
    if batches.cut:
        print(f"{batches.cut} captions are longer than {config.max_length} tokens and are cut")
    captioner.compile(
        optimizer=_optimizer(config, len(batches)),
        loss=MaskedCrossentropy(config.label_smoothing),
        # `ops.scan` does not compile under XLA on TensorFlow.
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    captioner.optimizer.build(captioner.trainable_variables)
    return captioner, batches


def _optimizer(config: TrainConfig, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    steps = config.epochs * steps_per_epoch
    warmup = max(1, int(config.warmup * steps))
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warmup), alpha=0.01, warmup_target=config.learning_rate, warmup_steps=warmup
    )
    return keras.optimizers.AdamW(
        schedule,
        weight_decay=config.weight_decay,
        global_clipnorm=config.clip_norm,
        use_ema=config.ema_epochs > 0,
        ema_momentum=1.0 - 1.0 / max(2.0, config.ema_epochs * steps_per_epoch) if config.ema_epochs > 0 else 0.99,
    )


def _validator(config: TrainConfig, store: FeatureStore, data: CaptionData) -> Any:
    pictures = data.pictures.head(config.validation_pictures)
    image_ids = list(pictures["image_id"])
    references = data.references()
    prepared = References({image_id: references[image_id] for image_id in image_ids})
    decoders: dict[int, Decoder] = {}

    def validate(captioner: Captioner) -> dict[str, float]:
        decoder = decoders.setdefault(id(captioner), Decoder(captioner, beam_width=1, max_length=config.max_length))
        predictions = {}
        for start in range(0, len(pictures), 256):  # features of a part at a time: memory stays flat
            part = pictures.iloc[start : start + 256]
            for caption in decoder(store.get(list(part["path"])), list(part["image_id"])):
                predictions[caption.image_id] = caption.text
        scores = bleu(predictions, prepared)
        return {f"val_bleu_{n}": float(score) for n, score in enumerate(scores, start=1)}

    return validate


def _state_variables(captioner: Captioner) -> dict[str, Any]:
    weights = {f"weight_{index}": variable for index, variable in enumerate(captioner.trainable_variables)}
    optimizer = {f"optimizer_{index}": variable for index, variable in enumerate(captioner.optimizer.variables)}
    return weights | optimizer


def _seed_states(captioner: Captioner) -> list[Any]:
    return [variable for variable in captioner.variables if variable.name == "seed_generator_state"]
