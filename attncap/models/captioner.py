"""`Captioner`, the base class: `init_state` reads the image, `step` adds a word, training runs all steps.

Every captioner works on B images with K captions of each side by side: K references in training, K beams in
decoding, 1 in greedy decoding. What depends only on the image is computed once and shared by its K captions.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
from keras import ops

from attncap.captions import WHOLE_IMAGE
from attncap.features.extractor import FeatureExtractor  # registers it: files that hold one load
from attncap.features.receptive_fields import GridBox
from attncap.models.trainable_encoder import EncoderTail
from attncap.tokenizers import END, NEVER_GENERATED, CaptionTokenizer


class CaptionerState(NamedTuple):
    """The state that `step` takes and returns.

    Args:
        memory: tensors of shape (B, ...), a function of the image alone; no step changes them.
        recurrent: tensors of shape (B, K, ...), one row per caption; each step returns new ones.
    """

    memory: dict[str, Any]
    recurrent: dict[str, Any]


class Captioner(keras.Model):
    """Base class of captioners: teacher forcing over all steps at once, one `step`, saving with everything inside.

    A subclass defines `init_state`, `advance` (the recurrence of one step) and `readout` (state to logits), and calls
    `build` at the end of its constructor. `step` and the training pass `call` are made of these three, so that training
    and decoding compute the same. docs/extending.md shows a complete one.

    Args:
        tokenizer: the vocabulary; saved inside the model.
        feature_shape: (rows, cols, D) of the image's features; None takes the encoder's.
        encoder: the `FeatureExtractor` whose features the captioner was trained on, saved inside, never trained here.
        tail: blocks after the encoder that turn the features into regions, trained with the decoder and saved inside,
            see `EncoderTail`; None: the features are the regions.
        embedding_units: E, size of token embeddings.
        hidden_units: H, size of the recurrent state.
        dropout: share of embeddings, values and outputs dropped in training.
        scheduled_sampling: share of input words that are replaced in training by the model's own choice.
        masked: rows of features that are all zeros are padding, not regions (the rule of Keras's `Masking`): for images
            with different numbers of regions, see `ExternalFeatures`.

    Attributes:
        region_shape: (rows, cols, D) of the regions that the decoder reads: the features, or the output of the tail.
        grid_box: left, top, right, bottom, as fractions of the image, of the part that maps cover, see
            `FeatureExtractor`; without an encoder, the whole image.

    Raises:
        ValueError: neither encoder nor feature_shape is given, or they disagree, or the tail disagrees.
    """

    has_attention = False
    not_settings: ClassVar[tuple[str, ...]] = ("tail", "masked")  # arguments that are no settings of training
    layer_counts: ClassVar[tuple[str, ...]] = ()  # settings that are numbers of layers
    default_learning_rate = 1e-3  # of `train`: AdamW's peak

    def __init__(
        self,
        tokenizer: CaptionTokenizer,
        feature_shape: tuple[int, int, int] | None = None,
        encoder: FeatureExtractor | None = None,
        *,
        tail: EncoderTail | None = None,
        embedding_units: int = 512,
        hidden_units: int = 512,
        dropout: float = 0.5,
        scheduled_sampling: float = 0.0,
        masked: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if masked and (encoder is not None or tail is not None):
            raise ValueError("masked is for features computed elsewhere: an encoder's grid has no padding")
        self.masked = masked
        if feature_shape is None and encoder is None:
            raise ValueError("give an encoder, or the feature_shape (rows, cols, D) of the features")
        if feature_shape is not None and len(tuple(feature_shape)) != 3:
            raise ValueError(
                f"feature_shape is (rows, cols, D), got {tuple(feature_shape)}: write (1, L, D) for L regions that "
                "are not a grid"
            )
        if encoder is not None:
            if feature_shape is not None and tuple(feature_shape) != encoder.feature_shape:
                raise ValueError(f"feature_shape {tuple(feature_shape)} is not the encoder's {encoder.feature_shape}")
            feature_shape = encoder.feature_shape
            encoder.trainable = False
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.feature_shape: tuple[int, int, int] = tuple(feature_shape)  # type: ignore[arg-type, assignment]
        if tail is not None and tail.feature_shape != self.feature_shape:
            raise ValueError(f"the tail takes features of {tail.feature_shape}, got feature_shape {self.feature_shape}")
        self.tail = tail
        self.region_shape = self.feature_shape if tail is None else tail.region_shape
        place = tail if tail is not None and encoder is not None else encoder
        self.grid_box: GridBox = WHOLE_IMAGE if place is None else place.grid_box
        self.embedding_units = embedding_units
        self.hidden_units = hidden_units
        self.dropout_rate = dropout
        self.scheduled_sampling = scheduled_sampling
        self.embedding = keras.layers.Embedding(
            tokenizer.vocabulary_size(), embedding_units, dtype=self.dtype_policy, name="embedding"
        )
        self.embedding_dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy)
        self.output_dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy)
        self.logits_dense = keras.layers.Dense(tokenizer.vocabulary_size(), dtype=self.dtype_policy, name="logits")
        self.sampling_seed = keras.random.SeedGenerator()

    @property
    def map_shape(self) -> tuple[int, int]:
        """Rows and cols of maps."""
        return self.region_shape[:2]

    # -- what a subclass gives -----------------------------------------------------------------------------------

    def init_state(self, features: Any, captions: int = 1, training: bool = False) -> CaptionerState:
        """Read the image: features (B, rows, cols, D) -> the state before the first word of K = captions captions."""
        raise NotImplementedError

    def advance(self, embedded: Any, state: CaptionerState) -> dict[str, Any]:
        """Return the recurrent state after the word embedded (B, K, E): the names, shapes and dtypes that it had."""
        raise NotImplementedError

    def readout(self, embedded: Any, recurrent: dict[str, Any], training: bool = False) -> Any:
        """Return logits (..., V) from the embedded word and the state after it, any leading axes."""
        raise NotImplementedError

    def add_losses(self, outputs: dict[str, Any], inputs: dict[str, Any]) -> None:
        """Add losses beside that of the words, in training, from outputs of `run` and inputs of `call`."""

    def build(self, input_shape: Any = None) -> None:
        """Create the weights of all layers, by one step of one caption on symbolic tensors."""
        features = keras.KerasTensor((1, *self.feature_shape), "float32")
        self.step(keras.KerasTensor((1, 1), "int32"), self.init_state(features))
        self.built = True

    # -- what follows from it ------------------------------------------------------------------------------------

    def step(self, token_ids: Any, state: CaptionerState) -> tuple[Any, CaptionerState, Any]:
        """Read one word of each caption and predict the next.

        Args:
            token_ids: int, shape (B, K): the previous words, `<start>` at first.
            state: from `init_state` or the previous `step`.

        Returns:
            logits: float32, shape (B, K, V).
            state: with a new recurrent part.
            attention_weights: float32, shape (B, K, rows cols), rows sum to 1, or to less for a model that may look
                away from the image; None without attention.
        """
        embedded = self.embedding(token_ids)  # (B, K, E)
        recurrent = self.advance(embedded, state)
        logits = ops.cast(self.readout(embedded, recurrent), "float32")
        return logits, CaptionerState(state.memory, recurrent), recurrent.get("attention_weights")

    def run(self, state: CaptionerState, embedded: Any, training: bool = False) -> dict[str, Any]:
        """Run all T steps: embedded (B, K, T, E) -> tensors (B, K, T, ...) for `readout` and losses."""
        steps = ops.transpose(embedded, (2, 0, 1, 3))  # (T, B, K, E)

        def body(recurrent: dict[str, Any], word: Any) -> tuple[dict[str, Any], dict[str, Any]]:
            after = self.advance(word, CaptionerState(state.memory, recurrent))
            return after, after

        _, stacked = ops.scan(body, state.recurrent, steps)
        return {name: ops.moveaxis(values, 0, 2) for name, values in stacked.items()}  # (B, K, T, ...)

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        """Teacher forcing: features (B, rows, cols, D) and token_ids (B, K, T) -> logits (B, K, T, V).

        Only the recurrence runs step by step; the logits of all steps are one matrix product.
        """
        token_ids = inputs["token_ids"]
        state = self.init_state(inputs["features"], ops.shape(token_ids)[1], training=training)
        if training and self.scheduled_sampling:
            token_ids = self._mix_in_own_words(token_ids, state)
        embedded = self.embedding_dropout(self.embedding(token_ids), training=training)  # (B, K, T, E)
        outputs = self.run(state, embedded, training=training)
        if training:
            self.add_losses(outputs, {**inputs, "token_ids": token_ids})
        return self.readout(embedded, outputs, training=training)

    def _mix_in_own_words(self, token_ids: Any, state: CaptionerState) -> Any:
        # Scheduled sampling in two passes: the first, teacher-forced, gives the model's own word at every step; the
        # second reads some of these in place of the reference's. Both still compute all logits in one matrix product.
        # Bengio et al. 2015; in parallel: Duckworth et al. 2019, Mihaylova and Martins 2019.
        embedded = self.embedding(token_ids)
        logits = ops.cast(self.readout(embedded, self.run(state, embedded)), "float32")
        own = ops.argmax(ops.stop_gradient(logits + forbidden_logits(logits.shape[-1])), axis=-1)
        own = ops.cast(ops.concatenate([token_ids[:, :, :1], own[:, :, :-1]], axis=2), token_ids.dtype)
        # A random tensor of the token's shape; <start>, <end> and padding stay, so that lengths do not change.
        chance = keras.random.uniform(ops.shape(token_ids), seed=self.sampling_seed)
        inner = ops.logical_and(token_ids > END, own > END)
        return ops.where(ops.logical_and(inner, chance < self.scheduled_sampling), own, token_ids)

    def get_config(self) -> dict[str, Any]:
        """Return what the constructor takes; settings are attributes of the same name."""
        config = super().get_config()
        config.update({name: getattr(self, name) for name in settings_of(type(self)) if hasattr(self, name)})
        config.update(
            tokenizer=keras.saving.serialize_keras_object(self.tokenizer),
            encoder=None if self.encoder is None else keras.saving.serialize_keras_object(self.encoder),
            feature_shape=list(self.feature_shape),
            dropout=self.dropout_rate,
        )
        if self.masked:  # left out if False: files stay as before masks existed
            config.update(masked=True)
        if self.tail is not None:  # left out without one: files stay as before tails existed
            config.update(tail=keras.saving.serialize_keras_object(self.tail))
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Captioner:
        config = dict(config)
        for name in ("tokenizer", "encoder", "tail"):
            if config.get(name) is not None:
                config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects)
        config["feature_shape"] = tuple(config["feature_shape"])
        return cls(**config)

    def regions_of(self, features: Any) -> Any:
        """Return the regions (B, L, D') of features (B, rows, cols, D), in the layers' arithmetic.

        A tail is applied here, once per image.
        """
        rows, cols, size = self.feature_shape
        given = tuple(features.shape[1:])
        if None not in given and given != self.feature_shape:  # a reshape alone would mix regions of different images
            raise ValueError(f"features need shape (B, {rows}, {cols}, {size}), got {tuple(features.shape)}")
        regions = ops.cast(features, self.compute_dtype)
        if self.tail is not None:
            regions = ops.cast(self.tail(regions), self.compute_dtype)
        rows, cols, size = self.region_shape
        return ops.reshape(regions, (-1, rows * cols, size))  # (B, L, D')

    def region_mask(self, features: Any) -> Any:
        """Return which rows of features (B, rows, cols, D) are regions: bool, (B, L); None where all are."""
        if not self.masked:
            return None
        rows, cols, size = self.feature_shape
        return ops.any(ops.reshape(features, (-1, rows * cols, size)) != 0, axis=-1)  # (B, L)


def settings_of(captioner_class: type[Captioner]) -> dict[str, Any]:
    """Return the settings of a captioner class and their defaults, read from the signatures of its constructors.

    Keyword-only arguments are settings, except those that the class or a base class names in `not_settings`.
    """
    settings: dict[str, Any] = {}
    hidden: set[str] = set()
    for base in captioner_class.__mro__:
        if not issubclass(base, Captioner):
            break
        hidden |= set(base.__dict__.get("not_settings", ()))
        if "__init__" in base.__dict__:
            for parameter in inspect.signature(base.__init__).parameters.values():
                if parameter.kind is parameter.KEYWORD_ONLY:
                    settings.setdefault(parameter.name, parameter.default)
    return {name: default for name, default in settings.items() if name not in hidden}


def cell_step(cell: Any, inputs: Any, states: Sequence[Any]) -> list[Any]:
    """Run a recurrent cell of Keras for K captions of each image: inputs (B, K, E), states (B, K, H) each -> states.

    Args:
        cell: such as `keras.layers.LSTMCell`.
        inputs: what it reads.
        states: one for a GRU; hidden state and carry for an LSTM.
    """
    flat = [ops.reshape(state, (-1, state.shape[-1])) for state in states]  # (B K, H): a cell's one batch axis
    _, after = cell(ops.reshape(inputs, (-1, inputs.shape[-1])), flat)
    after = after if isinstance(after, list | tuple) else [after]
    return [ops.reshape(new, ops.shape(old)) for new, old in zip(after, states, strict=True)]  # (B, K, H)


def regions_there(captioner: Any, features: np.ndarray) -> np.ndarray:
    """Return which cells of one image's features (rows, cols, D) are regions, not padding: bool, shape (rows, cols)."""
    if not getattr(captioner, "masked", False):
        return np.ones(features.shape[:2], bool)
    return ops.convert_to_numpy(captioner.region_mask(features[None])).reshape(features.shape[:2])


def mean_of_regions(values: Any, mask: Any = None) -> Any:
    """Return the mean (B, D) of regions (B, L, D), over those where the mask (B, L) is True; None: over all."""
    if mask is None:
        return ops.mean(values, axis=1)
    weights = ops.cast(mask, values.dtype)[:, :, None]  # (B, L, 1)
    return ops.sum(values * weights, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1)


def for_each_caption(tensor: Any, captions: int) -> Any:
    """Repeat what belongs to an image, (B, H), for its K captions: (B, K, H)."""
    return ops.broadcast_to(tensor[:, None, :], (ops.shape(tensor)[0], captions, tensor.shape[-1]))


def grid_of_maps(captioner: Any) -> tuple[tuple[int, int], GridBox]:
    """Return rows and cols of a captioner's maps (by default of its features), and the part of the image they cover."""
    rows, cols = getattr(captioner, "map_shape", captioner.feature_shape[:2])
    return (int(rows), int(cols)), getattr(captioner, "grid_box", WHOLE_IMAGE)


@contextmanager
def restored(variables: Iterable[Any]) -> Iterator[None]:
    """Give variables their values back at the end of the block, also after an error."""
    kept = [(variable, np.array(ops.convert_to_numpy(variable))) for variable in variables]
    try:
        yield
    finally:
        for variable, values in kept:
            variable.assign(values)


def forbidden_logits(vocabulary_size: int) -> Any:
    """Return a row (V,) to add to logits: very negative on the tokens that no decoding may emit, 0 elsewhere."""
    one_hot = ops.one_hot(ops.array(NEVER_GENERATED, "int32"), vocabulary_size, dtype="float32")
    return -1e9 * ops.sum(one_hot, axis=0)
