"""`Ensemble`: several captioners as one, by the mean of their probabilities at every word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
from keras import ops

from attncap.models.captioner import CaptionerState, grid_of_maps
from attncap.models.saving import load_captioner


class Ensemble(keras.Model):
    """Several captioners with one vocabulary and one encoder, used as one captioner.

    At each word, all M members have read the words so far:

        p(y_t | y_<t, image) = 1/M sum_m p_m(y_t | y_<t, image)
        map_t = mean of the maps of the members that have one

    `step` gives log p as logits. Members may be of any kind. All read the same features.

    Args:
        members: captioners, or run folders and `.keras` files of captioners, which are loaded. A captioner is anything
            with `init_state`, `step`, `tokenizer`, `feature_shape` and, to read image files, `encoder`.

    Attributes:
        members: the captioners.
        names: for each, its path, or "member 1" and so on.
        feature_shape: (rows, cols, D) of the features that all members read.
        map_shape, grid_box: rows and cols of the maps, and the part of the image that they cover.
        encoder: the members' encoder; None where they have none.
        has_attention: whether any member has attention.
        masked: whether rows of zeros in the features are padding, see `Captioner`.

    Raises:
        ValueError: no member; two vocabularies; only some members have an encoder; members that read different
            features, or whose maps have different grids.
        FileNotFoundError: no such run.

    Example:
        >>> ensemble = attncap.Ensemble(["runs/a", "runs/b"])
        >>> attncap.caption(ensemble, "me.jpg", beam_width=5).text
        'a man with a black beard and round glasses'
    """

    def __init__(self, members: Sequence[Any], **kwargs: Any):
        super().__init__(**kwargs)
        if not members:
            raise ValueError("an ensemble needs at least one member")
        paths = [str(member) if isinstance(member, str | Path) else None for member in members]
        self.names = [path or f"member {number}" for number, path in enumerate(paths, start=1)]
        self.members = [
            member if path is None else load_captioner(path) for member, path in zip(members, paths, strict=True)
        ]
        for name, member in zip(self.names[1:], self.members[1:], strict=True):
            _check_vocabulary(self.members[0].tokenizer, member.tokenizer, self.names[0], name)
        self.tokenizer = self.members[0].tokenizer
        self.masked = all(getattr(member, "masked", False) for member in self.members)
        self._set_features()
        looking = [at for at, member in enumerate(self.members) if getattr(member, "has_attention", True)]
        self.has_attention = bool(looking)
        grids = [grid_of_maps(self.members[at]) for at in looking or [0]]
        self.map_shape, self.grid_box = grids[0]
        for at, grid in zip(looking, grids, strict=False):
            if grid != grids[0]:
                raise ValueError(
                    f"{self.names[at]}: its maps have {grid[0][0]} x {grid[0][1]} regions, those of "
                    f"{self.names[looking[0]]} {self.map_shape[0]} x {self.map_shape[1]}: an ensemble needs one grid"
                )

    def _set_features(self) -> None:
        encoders: list[Any] = [getattr(member, "encoder", None) for member in self.members]
        for name, encoder in zip(self.names, encoders, strict=True):
            if (encoder is None) != (encoders[0] is None):
                has, lacks = (name, self.names[0]) if encoders[0] is None else (self.names[0], name)
                raise ValueError(f"{lacks}: has no encoder inside, {has} has one: members need one each, or all none")
        keys: list[Any] = [
            tuple(member.feature_shape) if encoder is None else encoder.fingerprint()
            for member, encoder in zip(self.members, encoders, strict=True)
        ]
        for name, member, key in zip(self.names, self.members, keys, strict=True):
            if key != keys[0]:
                raise ValueError(
                    f"{name}: reads features of {_reads(member)}, {self.names[0]} of {_reads(self.members[0])}: the "
                    "members of an ensemble need one encoder (ensembles over different layers were removed after "
                    "commit 998f5d3)"
                )
        self.feature_shape: tuple[int, int, int] = tuple(self.members[0].feature_shape)
        self.encoder: Any = encoders[0]

    def region_mask(self, features: Any) -> Any:
        """Return which rows of features are regions, as `Captioner.region_mask`."""
        return self.members[0].region_mask(features) if self.masked else None

    def init_state(self, features: Any, captions: int = 1) -> CaptionerState:
        """Read the image with each member, as `Captioner.init_state`; return their states with numbered names."""
        memory, recurrent = {}, {}
        for number, member in enumerate(self.members):
            state = member.init_state(features, captions=captions)
            memory.update(_numbered(number, state.memory))
            recurrent.update(_numbered(number, state.recurrent))
        return CaptionerState(memory, recurrent)

    def step(self, token_ids: Any, state: CaptionerState) -> tuple[Any, CaptionerState, Any]:
        """Read one word with each member and predict the next by the mean of their probabilities.

        Args:
            token_ids: int, shape (B, K).
            state: from `init_state` or the previous `step`.

        Returns:
            logits: float32, shape (B, K, V): the logarithm of the mean probability (of one member, its logits).
            state: with a new recurrent part.
            attention_weights: float32, shape (B, K, L), the mean of the members' maps; None where none has any.
        """
        recurrent: dict[str, Any] = {}
        all_logits, maps = [], []
        for number, member in enumerate(self.members):
            own = CaptionerState(_of_number(number, state.memory), _of_number(number, state.recurrent))
            logits, after, weights = member.step(token_ids, own)
            recurrent.update(_numbered(number, after.recurrent))
            all_logits.append(logits)
            if weights is not None:
                maps.append(weights)
        logits = mean_of_probabilities(all_logits)
        weights = None if not maps else maps[0] if len(maps) == 1 else ops.mean(ops.stack(maps), axis=0)
        return logits, CaptionerState(state.memory, recurrent), weights


def mean_of_probabilities(logits: Sequence[Any]) -> Any:
    """Return log(1/M sum_m softmax(logits_m)), (..., V), by log-sum-exp; of one, its logits as they are.

    Computed in logarithms, so that no small probability becomes 0.
    """
    if len(logits) == 1:
        return logits[0]
    log_probs = [ops.log_softmax(ops.cast(own, "float32"), axis=-1) for own in logits]
    return ops.logsumexp(ops.stack(log_probs), axis=0) - math.log(len(log_probs))  # (M, ..., V) -> (..., V)


def _reads(captioner: Any) -> str:
    encoder = getattr(captioner, "encoder", None)
    if encoder is None:
        return f"shape {tuple(captioner.feature_shape)}"
    return f"{encoder.layer} at {encoder.image_size} pixels (weights {Path(encoder.weights_source).name})"


def _numbered(number: int, tensors: dict[str, Any]) -> dict[str, Any]:
    return {f"{number}/{name}": tensor for name, tensor in tensors.items()}


def _of_number(number: int, tensors: dict[str, Any]) -> dict[str, Any]:
    own = f"{number}/"
    return {name.removeprefix(own): tensor for name, tensor in tensors.items() if name.startswith(own)}


def _check_vocabulary(expected: Any, found: Any, name: str, other: str) -> None:
    mend = "members need one vocabulary: train them on the same captions with the same tokenizer settings"
    if type(expected) is not type(found):
        raise ValueError(
            f"{other}: its vocabulary is not that of {name}: {type(found).__name__} in place of "
            f"{type(expected).__name__}; {mend}"
        )
    first, second = expected.vocabulary, found.vocabulary
    if first == second:
        return
    differ = (at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    at = next(differ, min(len(first), len(second)))
    words = [repr(words[at]) if at < len(words) else "missing" for words in (second, first)]
    raise ValueError(
        f"{other}: its vocabulary is not that of {name}: word {at} is {words[0]} in place of {words[1]} "
        f"({len(second):,} words in place of {len(first):,}); {mend}"
    )
