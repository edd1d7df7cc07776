"""`TrainConfig`: every setting of a training, with its default and the reason for it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

MODELS = {  # name -> class in `captioners`
    "attention": "AttentionCaptioner",
    "adaptive-attention": "AdaptiveAttentionCaptioner",
    "transformer": "TransformerCaptioner",
    "show-and-tell": "ShowAndTell",
}
WITH_MAPS = ("attention", "adaptive-attention", "transformer")
READ_BY = {  # settings that not every model reads -> the models that do
    "embedding_units": ("attention", "adaptive-attention", "show-and-tell"),
    "projection_units": ("attention", "adaptive-attention"),
    "attention_units": ("attention", "adaptive-attention"),
    "context_gate": ("attention",),
    "decoder_layers": ("transformer",),
    "heads": ("transformer",),
    "feedforward_units": ("transformer",),
    "attention_penalty": WITH_MAPS,
    "attention_supervision": WITH_MAPS,
}
RENAMED = {"pictures": "batch_size", "validation_pictures": "validation_images"}  # setting of old runs -> today
REMOVED: dict[str, Any] = {"mirror": False, "cider_contrast": 0.0}  # setting of old runs -> the value without effect
OF_MODEL: Any = None  # a setting whose default is the model's own: see `MODEL_DEFAULTS`
MODEL_DEFAULTS: dict[str, dict[str, Any]] = {
    "attention": {
        "dropout": 0.5,  # small data sets overfit within five epochs without
        "learning_rate": 1e-3,
    },
    "adaptive-attention": {  # as attention, for comparison
        "dropout": 0.5,
        "learning_rate": 1e-3,
    },
    "transformer": {
        "dropout": 0.3,  # of every layer's updates, not of the ends alone
        "learning_rate": 5e-4,  # its layers are deeper
    },
    "show-and-tell": {
        "dropout": 0.5,
        "learning_rate": 1e-3,
    },
}


@dataclass(frozen=True)
class TrainConfig:
    """Every setting of a training, each with its reason. Saved as `config.json` in the run folder."""

    model: str = OF_MODEL  # that of the run to start from; without one "attention": see `MODELS`
    weights: str = "imagenet"  # encoder weights: imagenet, faces, random, or a file
    layer: str | None = None  # InceptionV3 layer; None takes the weights' default
    image_size: int | None = None  # side of the encoder's input, pixels: more give more regions; None as `layer`
    finetune_to: str | None = None  # later layer up to which InceptionV3's blocks are trained with the decoder
    finetune_rate: float = 0.1  # of those blocks' learning rate to the decoder's: they know much already
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
    decoder_layers: int = 2  # of the Transformer
    heads: int = 8  # of the Transformer; they divide hidden_units
    feedforward_units: int = 1024  # of the Transformer's layers
    dropout: float = OF_MODEL
    label_smoothing: float = 0.1  # five people give five answers: certainty is not wanted
    attention_penalty: float = 0.0  # of doubly stochastic attention: any makes maps wider, and captions no better
    scheduled_sampling: float = 0.0  # no gain with label smoothing and dropout; there to be tried
    attention_supervision: float = 0.0  # weight of maps against boxes (--boxes); 0: words alone teach where to look
    batch_size: int = 32  # images per step, each with all its captions: 160 captions of Flickr8k
    epochs: int = 12  # the cosine ends here; early stopping ends before
    learning_rate: float = OF_MODEL  # AdamW's peak, after warm-up
    warmup: float = 0.05  # share of all steps: attention needs a slow start
    weight_decay: float = 0.01  # AdamW's
    clip_norm: float = 5.0  # of the whole gradient: recurrent nets have rare steep steps
    ema_epochs: float = 1.0  # horizon of the average of weights that is validated and saved; 0 turns it off
    patience: int = 5  # epochs without a better validation BLEU-4 before stopping
    validation_images: int = 1000  # decoded each epoch; more is slow and changes little
    objective: str = "crossentropy"  # or "cider": after it, self-critical training on CIDEr-D, the score itself
    start: str | None = None  # run or .keras file to go on from, with its vocabulary, encoder, sizes and dropout
    cider_epochs: int = 12  # most of the gain comes in the first three
    cider_samples: int = 5  # captions sampled a picture, each judged by the mean of the others
    cider_learning_rate: float = 1e-4  # a tenth of cross-entropy's: the model is there already
    cider_temperature: float = 1.0  # of sampling; lower ones keep the junk out that label smoothing lets in
    cider_bleu: float = 2.0  # weight of BLEU-4 beside CIDEr-D, which alone makes captions short
    cider_crossentropy: float = 0.0  # weight of one reference beside the samples; 1.0 keeps captions varied (README)
    dtype: str = "auto"  # bfloat16 arithmetic where the processor has it
    seed: int = 0  # of weights, batches, dropout

    def __post_init__(self) -> None:
        if self.model is OF_MODEL:
            object.__setattr__(self, "model", "attention" if self.start is None else model_of(self.start))
        if self.model not in MODELS:
            raise ValueError(f"model is one of {', '.join(MODELS)}, got {self.model!r}")
        for name, default in MODEL_DEFAULTS[self.model].items():
            if getattr(self, name) is OF_MODEL:
                object.__setattr__(self, name, default)  # the dataclass is frozen
        self.refuse_unread(name for name in ("attention_penalty", "attention_supervision") if getattr(self, name))
        for name in ("batch_size", "epochs", "min_count", "max_length", "validation_images", "cider_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.attention_supervision >= 0:
            raise ValueError(f"attention_supervision is a weight, at least 0, got {self.attention_supervision}")
        if self.objective not in ("crossentropy", "cider"):
            raise ValueError(f'objective is "crossentropy" or "cider", got {self.objective!r}')
        if self.cider_samples < 2:
            raise ValueError(f"cider_samples is at least 2, each judged by the others, got {self.cider_samples}")
        if not self.finetune_rate >= 0:
            raise ValueError(f"finetune_rate is a factor, at least 0, got {self.finetune_rate}")
        if self.tokenizer not in ("words", "wordpiece"):
            raise ValueError(f'tokenizer is "words" or "wordpiece", got {self.tokenizer!r}')

    def refuse_unread(self, names: Iterable[str]) -> None:
        """Raise ValueError where one of the settings, by name, is not read by the model."""
        for name in names:
            if self.model not in READ_BY.get(name, MODELS):
                why = "has no attention maps" if READ_BY[name] == WITH_MAPS else "does not read it"
                raise ValueError(
                    f"{name} is {getattr(self, name)}, but the model {self.model} {why}: leave {name} out, or train "
                    f"with --model {' or '.join(READ_BY[name])}"
                )

    @property
    def crossentropy_epochs(self) -> int:
        """Epochs of cross-entropy: none where training on the score starts from another run."""
        return 0 if self.objective == "cider" and self.start is not None else self.epochs

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> TrainConfig:
        """Make a configuration of a dictionary; an unknown setting is an error that lists the known ones."""
        settings = from_old_settings(settings)
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise ValueError(f"unknown settings {', '.join(unknown)}; known: {', '.join(known)}")
        hints = get_type_hints(cls)
        for name, value in settings.items():
            fits = isinstance(value, int | float if hints[name] is float else hints[name])
            if not fits or (isinstance(value, bool) and hints[name] is not bool):
                wanted = getattr(hints[name], "__name__", str(hints[name]))
                raise ValueError(f"{name} is of type {wanted}, got {str(value)[:60]!r}")
        return cls(**settings)


def from_old_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings of an old run by their names of today, without removed ones that had no effect.

    Raises:
        ValueError: a removed setting that had an effect.
    """
    for name, unused in REMOVED.items():
        if settings.get(name, unused) != unused:
            raise ValueError(
                f"{name} is {settings[name]!r}, and this setting was removed: use an attncap of commit 998f5d3, or "
                f"begin a new run without {name}"
            )
    if "+" in str(settings.get("layer")):
        raise ValueError(
            f"layer is {settings['layer']!r}, and two grids at once were removed: use an attncap of commit 998f5d3, or "
            "begin a new run with one layer"
        )
    return {RENAMED.get(name, name): value for name, value in settings.items() if name not in REMOVED}


def kinds_of(settings: type) -> dict[str, tuple[type, ...]]:
    """Return, for each setting of a dataclass, the types of its values beside None."""
    hints = get_type_hints(settings)
    kinds = {}
    for field in fields(settings):
        hint = hints[field.name]
        either = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        kinds[field.name] = tuple(kind for kind in either if kind is not NoneType)
    return kinds


def model_of(start: str | Path) -> str:
    """Return the name in `MODELS` of the captioner in a `.keras` file or run folder, without loading it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a file of a captioner.
    """
    path = Path(start)
    file = path / "best.keras" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such captioner")
    try:
        with zipfile.ZipFile(file) as parts:
            kind = json.loads(parts.read("config.json"))["class_name"]
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(f"{file}: cannot be loaded as a captioner ({error})") from error
    names = [name for name, class_name in MODELS.items() if class_name == kind]
    if not names:
        raise ValueError(f"{file}: holds a {kind}, not a captioner")
    return names[0]
