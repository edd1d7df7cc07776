"""`Ensemble`: several captioners that speak as one, by the mean of their probabilities at every word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from attncap.captions import WHOLE_PICTURE, Caption
from attncap.decoding.decoder import caption_of, compiled, replay
from attncap.features.grids import GridBox, join_features, joined_shape, map_between, split_features
from attncap.features.joined_features import JoinedEncoder
from attncap.models.captioner import CaptionerState
from attncap.models.registry import load_captioner
from attncap.tokenizers import END, PAD


class Ensemble(keras.Model):
    """Captioners of one vocabulary as one captioner: anything that decodes a captioner decodes it.

    At each word, each of the M members having read the words so far:

        p(y_t | y_<t, picture) = 1/M sum_m p_m(y_t | y_<t, picture)
        map_t = mean of the maps of the members that have one

    `step` gives log p as logits. Members may be of any kind and read any layer: each is fed its own encoder's features.
    Where their grids differ, maps are laid on the finest one first, see `map_between`.

    Args:
        members: captioners, or run folders and `.keras` files of captioners, which are loaded. A captioner is anything
            with `init_state`, `step`, `tokenizer`, `feature_shape` and, to read picture files, `encoder`.

    Attributes:
        members: the captioners.
        names: for each, its path, or "member 1" and so on.
        feature_shape: of the features to give: the members' own where all read the same features; else (1, 1, N), the
            features of each distinct encoder side by side, see `join`.
        map_shape, grid_box: rows and cols of the maps, and the part of the picture that they tile.
        encoder: the members' own, several in one where they differ, None where they have none.
        has_attention: whether any member has.

    Raises:
        ValueError: no member; two vocabularies; an encoder in some of the members only.
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
        self._set_features()
        looking = [member for member in self.members if getattr(member, "has_attention", True)] or self.members
        finest = max(looking, key=lambda member: math.prod(_map_shape(member)))
        self.has_attention = any(getattr(member, "has_attention", True) for member in self.members)
        self.map_shape, self.grid_box = _map_shape(finest), _grid_box(finest)
        self._onto = [
            map_between(_map_shape(member), _grid_box(member), self.map_shape, self.grid_box) for member in self.members
        ]

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
        distinct = list(dict.fromkeys(keys))
        self._reads = [distinct.index(key) for key in keys]  # a member -> which of the distinct features
        first = [keys.index(key) for key in distinct]
        self._shapes = [tuple(self.members[at].feature_shape) for at in first]
        self.feature_shape: tuple[int, int, int] = joined_shape(self._shapes)
        own = [encoders[at] for at in first]
        self.encoder: Any = own[0] if len(own) == 1 or own[0] is None else JoinedEncoder(own)

    def join(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Make the ensemble's features of those of each distinct encoder, in the order of the members.

        Args:
            parts: (B, rows, cols, D) each; one for all members that read the same.

        Raises:
            ValueError: not one part for each distinct encoder, or of other shapes.
        """
        shapes = [part.shape[1:] for part in parts]
        if shapes != self._shapes:
            raise ValueError(f"features of shapes {self._shapes} (without the batch) expected, got {shapes}")
        return join_features(parts)

    def features_of(self, member: int, features: Any) -> Any:
        """Return what a member, by its number from 0, reads of the ensemble's features: (B, rows, cols, D)."""
        return split_features(features, self._shapes)[self._reads[member]]

    def init_state(self, features: Any, captions: int = 1) -> CaptionerState:
        """Read the picture with each member, as `Captioner.init_state`; their states side by side, names numbered."""
        parts = split_features(features, self._shapes)
        memory, recurrent = {}, {}
        for number, (member, part) in enumerate(zip(self.members, self._reads, strict=True)):
            state = member.init_state(parts[part], captions=captions)
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
        for number, (member, onto) in enumerate(zip(self.members, self._onto, strict=True)):
            own = CaptionerState(_of_number(number, state.memory), _of_number(number, state.recurrent))
            logits, after, weights = member.step(token_ids, own)
            recurrent.update(_numbered(number, after.recurrent))
            all_logits.append(logits)
            if weights is not None:
                maps.append(weights if onto is None else ops.matmul(ops.cast(weights, "float32"), onto))
        logits = mean_of_probabilities(all_logits)
        weights = None if not maps else maps[0] if len(maps) == 1 else ops.mean(ops.stack(maps), axis=0)
        return logits, CaptionerState(state.memory, recurrent), weights

    def member_captions(self, features: Any, captions: Sequence[Caption]) -> list[list[Caption]]:
        """Read finished captions with each member alone: its probabilities and its maps, on its own grid.

        Args:
            features: shape (N, *feature_shape).
            captions: N captions, as decoding the ensemble gave them.

        Returns:
            captions: for each member, N captions of the same words; attention_weights None of one without attention.
        """
        if len(features) != len(captions):
            raise ValueError(f"one caption a picture is needed, got {len(captions)} for {len(features)} pictures")
        if not captions:
            return [[] for _ in self.members]
        longest = max(len(caption.token_ids) for caption in captions) + 1  # with the end
        token_ids = np.full((len(captions), 1, longest), PAD, np.int32)  # (N, 1, T)
        for row, caption in zip(token_ids, captions, strict=True):
            row[0, : len(caption.token_ids) + 1] = [*caption.token_ids, END]
        return [self._member_captions(number, features, token_ids, captions) for number in range(len(self.members))]

    def _member_captions(
        self, number: int, features: Any, token_ids: np.ndarray, captions: Sequence[Caption]
    ) -> list[Caption]:
        member = self.members[number]

        def read(features: Any, token_ids: Any) -> tuple[Any, Any]:
            return replay(member.step, member.init_state(features, captions=1), token_ids)

        reader = compiled(read, member if isinstance(member, keras.Model) else None)
        log_probs, weights = reader(self.features_of(number, features), token_ids)
        log_probs = ops.convert_to_numpy(log_probs)
        maps = None if weights is None else ops.convert_to_numpy(weights)
        return [
            caption_of(
                self.tokenizer,
                token_ids[row, 0],
                log_probs[row, 0],
                None if maps is None else maps[row, 0],
                _map_shape(member),
                caption.image_id,
                _grid_box(member),
            )
            for row, caption in enumerate(captions)
        ]


def mean_of_probabilities(logits: Sequence[Any]) -> Any:
    """Return log(1/M sum_m softmax(logits_m)), (..., V), by log-sum-exp; of one, its logits as they are.

    Computed in logarithms, so that no probability becomes 0, however small.
    """
    if len(logits) == 1:
        return logits[0]
    log_probs = [ops.log_softmax(ops.cast(own, "float32"), axis=-1) for own in logits]
    return ops.logsumexp(ops.stack(log_probs), axis=0) - math.log(len(log_probs))  # (M, ..., V) -> (..., V)


def _map_shape(captioner: Any) -> tuple[int, int]:
    rows, cols = getattr(captioner, "map_shape", captioner.feature_shape[:2])
    return int(rows), int(cols)


def _grid_box(captioner: Any) -> GridBox:
    return getattr(captioner, "grid_box", WHOLE_PICTURE)


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
