"""`TrainConfig`: every setting of a training, with its meaning, its default and the reason for it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_type_hints

from attncap._messages import quoted
from attncap.models.names import check_captioner_name

RENAMED = {"pictures": "batch_size", "validation_pictures": "validation_images"}  # setting of old runs -> today
# Settings that were removed -> the value that had no effect, and the last commit that has them.
REMOVED: dict[str, tuple[Any, str]] = {
    "mirror": (False, "998f5d3"),
    "cider_contrast": (0.0, "998f5d3"),
    "fast_recurrence": (False, "062935d"),
}
BEFORE: dict[str, Any] = {"lists": False, "monitor": "bleu_4"}  # settings that runs of 998f5d3 lack -> their value
OF_MODEL: Any = None  # the default is that of the model: see `TrainConfig.with_model_defaults`
OF_DATA: Any = None  # the default depends on the data: see `attncap.training.defaults`
Settings = TypeVar("Settings")
GROUPS = ("data", "model", "training", "score")
CHOICES = {
    "dtype": ("auto", "float32", "mixed_bfloat16", "mixed_float16", "bfloat16", "float16", "float64"),
    "objective": ("crossentropy", "cider"),
    "tokenizer": ("words", "wordpiece"),
}
OF_MAPS = ("attention_penalty", "attention_supervision")  # settings that only models with attention maps read
LEAST_EPOCHS = 12  # passes over the data where epochs is left open; see `attncap.training.defaults`


def _setting(group: str, default: Any, what: str, *, low: float | None = None, high: float | None = None) -> Any:
    return field(default=default, metadata={"group": group, "help": what, "low": low, "high": high})


_data, _model, _training, _score = (partial(_setting, group) for group in GROUPS)


@dataclass(frozen=True)
class TrainConfig:
    """Every setting of a training, each with its reason. Saved as `config.json` in the run folder.

    A default of None depends on the model or the data; `attncap.train` sets it and prints why. Settings are
    checked when the configuration is made, without importing the backend, so that nothing is computed before.

    Raises:
        ValueError: a setting of another type, out of its range, or that the model does not read.
    """

    model: str = _model(
        OF_MODEL,
        "attention, adaptive-attention, transformer, show-and-tell, or one of a plugin; default: that of the run to "
        "start from, else attention",
    )
    weights: str = _data("imagenet", "encoder weights: imagenet, faces, random, or a file")
    backbone: str = _data(
        "inception_v3", "encoder: inception_v3, a name of keras.applications such as resnet50, or a keras-hub preset"
    )
    layer: str | None = _data(
        None, "layer of the encoder whose grid is read; default: InceptionV3's by the weights, else the last"
    )
    image_size: int | None = _data(
        None, "side of the encoder's input in pixels, more gives more regions; default: the encoder's own", low=75
    )
    finetune_to: str | None = _data(
        None, "train InceptionV3's blocks from `layer` up to this later layer as well; default: none"
    )
    finetune_rate: float = _data(
        0.1, "learning rate of those blocks, as a factor of the decoder's: they are trained already", low=0
    )
    tokenizer: str = _data("words", "words, or wordpiece: no <unk>, longer captions, languages without spaces")
    min_count: int = _data(
        OF_DATA, "rarer words are <unk>; default: 5 (Karpathy's threshold), less for few words", low=1
    )
    max_size: int | None = _data(None, "most words of the vocabulary, the frequent ones; default: all", low=1)
    wordpiece_size: int = _data(4000, "word pieces to learn with tokenizer=wordpiece", low=10)
    max_length: int = _data(
        40, "longest caption in tokens; Flickr8k's longest has 38 words, and a long one costs its whole batch", low=3
    )
    lists: bool | None = _data(
        None,
        'captions are lists ("big nose, curly hair"): separators are a token, and the items are shuffled in every '
        "epoch, since their order has no meaning; default: decided from the captions",
    )
    embedding_units: int = _model(
        512, "size of a word's embedding; as hidden_units, so that the deep output needs no projection", low=1
    )
    hidden_units: int = _model(512, "size of the decoder's state; larger gains nothing on 6,000 images", low=1)
    projection_units: int = _model(
        512, "size of the attended values: 1280 or 2048 numbers per region cost time and overfit", low=1
    )
    attention_units: int = _model(
        256, "size of the attention's tanh, the most expensive operation of a step: half the state's size", low=1
    )
    context_gate: bool = _model(True, "learn Show, Attend and Tell's gate (beta) on the context")
    decoder_layers: int = _model(2, "layers of the Transformer", low=1)
    heads: int = _model(8, "attention heads of the Transformer; a divisor of hidden_units", low=1)
    feedforward_units: int = _model(1024, "hidden size of the Transformer's feed-forward layers", low=1)
    dropout: float = _model(OF_MODEL, "share of units dropped; default: 0.5, transformer 0.3", low=0, high=0.99)
    label_smoothing: float = _training(0.1, "references disagree, so smooth the targets", low=0, high=0.99)
    attention_penalty: float = _training(
        0.0, "weight of doubly stochastic attention: any makes maps wider, and captions no better", low=0
    )
    scheduled_sampling: float = _training(
        0.0, "share of words that the model's own prediction replaces; no gain with label smoothing", low=0, high=1
    )
    attention_supervision: float = _training(0.0, "weight of attention maps against boxes (--boxes)", low=0)
    batch_size: int = _training(
        OF_DATA, "images per step, each with all its captions; default: 32, fewer for under 640 images", low=1
    )
    epochs: int = _training(OF_DATA, "passes over the data; default: 12, up to 30 for few captions", low=1)
    learning_rate: float = _training(OF_MODEL, "peak of AdamW's rate; default: 1e-3, transformer 5e-4", low=0)
    warmup: float = _training(
        0.05, "share of all steps in which the rate rises: attention needs a slow start", low=0, high=1
    )
    weight_decay: float = _training(0.01, "AdamW's", low=0)
    clip_norm: float = _training(5.0, "largest norm of the gradient: recurrent nets have rare steep steps", low=1e-9)
    ema_epochs: float = _training(
        1.0, "horizon, in epochs, of the average of weights that is validated and saved; 0 turns it off", low=0
    )
    patience: int = _training(
        OF_DATA,
        "epochs without a better validation before training stops; default: a quarter of all, at least 5",
        low=1,
    )
    monitor: str | None = _training(
        None,
        "score that chooses the best epoch: bleu_4, cider_d, or loss; default: bleu_4, and loss where there is "
        "one short text per image, for which BLEU-4 is close to zero",
    )
    validation_images: int = _training(1000, "validation images decoded after each epoch", low=1)
    objective: str = _score(
        "crossentropy", "crossentropy, or cider: after it, self-critical training on CIDEr-D, the score itself"
    )
    start: str | None = _training(
        None, "run or .keras file to continue from, with its vocabulary and encoder; default: a new captioner"
    )
    cider_epochs: int = _score(12, "epochs on the score; most of the gain comes in the first three", low=1)
    cider_samples: int = _score(5, "captions sampled per image, each judged by the mean of the others", low=2)
    cider_learning_rate: float = _score(1e-4, "a tenth of cross-entropy's: the model is trained already", low=0)
    cider_temperature: float = _score(
        1.0, "of sampling; lower values avoid the improbable words that label smoothing allows", low=1e-3
    )
    cider_bleu: float = _score(2.0, "weight of BLEU-4 beside CIDEr-D, which alone makes captions short", low=0)
    cider_crossentropy: float = _score(
        0.0, "weight of one reference beside the samples; 1.0 keeps captions varied", low=0
    )
    dtype: str = _model("auto", "arithmetic: auto takes bfloat16 where the processor has it")
    seed: int = _training(0, "of weights, batches and dropout", low=0, high=2**32 - 1)

    def __post_init__(self) -> None:
        _check_values(self)
        if self.model is OF_MODEL:
            object.__setattr__(self, "model", "attention" if self.start is None else _model_name(self.start))
        check_captioner_name(self.model)
        self.refuse_unread(name for name in OF_MAPS if getattr(self, name))

    def with_model_defaults(self, model: Any = None) -> TrainConfig:
        """Return the configuration with the default dropout and learning rate of the model where they are None.

        Args:
            model: a class of captioners; None: the one that the configuration names.
        """
        if self.dropout is not OF_MODEL and self.learning_rate is not OF_MODEL:
            return self
        from attncap.models.registry import captioner_class, settings_of

        model = captioner_class(self.model) if model is None else model
        dropout = settings_of(model)["dropout"] if self.dropout is OF_MODEL else self.dropout
        rate = model.default_learning_rate if self.learning_rate is OF_MODEL else self.learning_rate
        return replace(self, dropout=dropout, learning_rate=rate)

    def chosen(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults of the model."""
        default = asdict(TrainConfig(model=self.model))
        return {name: value for name, value in asdict(self).items() if value != default[name]}

    def refuse_unread(self, names: Iterable[str]) -> None:
        """Raise ValueError if one of the settings, by name, is not read by the model."""
        names = [name for name in names if name in OF_SOME_MODELS]
        if not names:
            return  # without importing the backend
        from attncap.models.registry import captioner_class, readers_of

        model = captioner_class(self.model)
        for name in names:
            readers = readers_of(name)
            if readers and self.model not in readers:
                of_maps = name in OF_MAPS and not model.has_attention
                why = "has no attention maps" if of_maps else "does not read it"
                raise ValueError(
                    f"{name} is {getattr(self, name)}, but the model {self.model} {why}: leave {name} out, or train "
                    f"with --model {' or '.join(readers)}"
                )

    @property
    def crossentropy_epochs(self) -> int:
        """Epochs of cross-entropy: none if training on the score starts from another run."""
        if self.objective == "cider" and self.start is not None:
            return 0
        return self.epochs or LEAST_EPOCHS  # epochs is None before the data are known

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> TrainConfig:
        """Make a configuration of a dictionary; an unknown setting is an error that lists the known ones."""
        return of_known(cls, from_old_settings(settings))


def _check_values(config: TrainConfig) -> None:
    kinds = kinds_of(TrainConfig)
    for setting in fields(TrainConfig):
        name, value = setting.name, getattr(config, setting.name)
        if value is None:
            if setting.default is None:
                continue
            raise ValueError(f"{name} is of type {kinds[name][0].__name__}, got None")
        allowed = (int, float) if float in kinds[name] else kinds[name]
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            raise ValueError(f"{name} is of type {kinds[name][0].__name__}, got {quoted(str(value))}")
        low, high = setting.metadata["low"], setting.metadata["high"]
        if name == "image_size" and config.backbone != "inception_v3":
            low = 1  # other networks take smaller images
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} is a finite number, got {value}")
        if low is not None and value < low:
            raise ValueError(f"{name} must be at least {low}, got {value}")
        if high is not None and value > high:
            raise ValueError(f"{name} must be at most {high}, got {value}")
        if name in CHOICES and value not in CHOICES[name]:
            raise ValueError(f"{name} is {' or '.join(map(repr, CHOICES[name]))}, got {value!r}")


def _with_settings(doc: str) -> str:
    lines = [doc.rstrip(), "", "    Args:"]
    for setting in fields(TrainConfig):
        text = f"{setting.name}: {describe_setting(setting)}."
        lines += textwrap.wrap(text, 116, initial_indent=" " * 8, subsequent_indent=" " * 12)
    return "\n".join(lines) + "\n    "


def describe_setting(setting: Any) -> str:
    """Return the meaning of a field of `TrainConfig`, with its default where that is one value."""
    text = setting.metadata["help"]
    return text if setting.default is None else f"{text} (default: {setting.default})"


def from_old_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings of an old run by their names of today, without removed ones that had no effect.

    Raises:
        ValueError: a removed setting that had an effect.
    """
    for name, (unused, commit) in REMOVED.items():
        if settings.get(name, unused) != unused:
            raise ValueError(
                f"{name} is {settings[name]!r}, and this setting was removed: use an attncap of commit {commit}, or "
                f"begin a new run without {name}"
            )
    if "+" in str(settings.get("layer")):
        raise ValueError(
            f"layer is {settings['layer']!r}, and two grids at once were removed: use an attncap of commit 998f5d3, or "
            "begin a new run with one layer"
        )
    return {RENAMED.get(name, name): value for name, value in settings.items() if name not in REMOVED}


def of_known(kind: type[Settings], settings: dict[str, Any]) -> Settings:
    """Make a dataclass of settings; an unknown setting is an error that lists the known ones."""
    known = [setting.name for setting in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(f"unknown settings {', '.join(unknown)}; known: {', '.join(known)}")
    return kind(**settings)


def kinds_of(settings: type) -> dict[str, tuple[type, ...]]:
    """Return, for each setting of a dataclass, the types of its values beside None."""
    hints = get_type_hints(settings)
    kinds = {}
    for setting in fields(settings):
        hint = hints[setting.name]
        either = get_args(hint) if isinstance(hint, UnionType) else (hint,)
        kinds[setting.name] = tuple(kind for kind in either if kind is not NoneType)
    return kinds


# Settings that some captioners do not read: those of the model, and the weights of the losses on maps.
OF_SOME_MODELS = OF_MAPS + tuple(
    setting.name
    for setting in fields(TrainConfig)
    if setting.metadata["group"] == "model" and setting.name not in ("model", "dtype")
)


def _model_name(start: str) -> str:
    from attncap.models.saving import model_name

    return model_name(start)


TrainConfig.__doc__ = _with_settings(TrainConfig.__doc__ or "")
