"""Base class of trainings that several replicas share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras

from attncap.models.captioner import Captioner
from attncap.training.batches import CaptionBatches
from attncap.training.callbacks import RunRecorder
from attncap.training.config import TrainConfig
from attncap.training.distributed.shares import LossOfRealImages, Shares
from attncap.training.fit import fit
from attncap.training.run_folder import RunFolder


class SharedTraining:
    """A training that replicas share, here within one process; a context manager, for `train(..., distribution=)`.

    Attributes:
        process: number of this process; only process 0 writes the run folder.
        processes: how many there are.
        replicas: how many devices, of all processes, share a batch. If they do not divide it, it is filled up with
            images without captions, which change neither loss nor weights.
    """

    process = 0
    processes = 1
    replicas = 1
    own = range(1)  # the replicas of this process

    def __enter__(self) -> SharedTraining:
        return self

    def __exit__(self, *error: Any) -> None: ...

    def check(self, config: TrainConfig) -> None:
        """Raise ValueError if the settings cannot be trained by several replicas."""
        if config.objective == "cider":
            raise ValueError(
                "objective cider samples captions one process at a time and cannot be shared: train with --distributed "
                "on cross-entropy first, then go on alone with --from RUN --objective cider"
            )

    def run_folder(self, run: str | Path, resume: bool) -> RunFolder:
        """Return the run folder; in all processes but the first, a temporary copy."""
        return RunFolder(run, resume)

    def check_same(self, manifest: dict[str, Any], config: TrainConfig) -> None:
        """Raise ValueError in all processes if one has other data, settings or another encoder."""
        same = re.compile("digest|fingerprint|images|backend")
        what: dict[str, Any] = {name: value for name, value in manifest.items() if same.search(name)}
        elsewhere = {"weights": None, "start": None}  # paths may differ between machines: digests tell
        seen = self.gather(what | asdict(config) | elsewhere)
        for process, other in enumerate(seen):
            names = [name for name in seen[0] if other.get(name) != seen[0][name]]
            if names:
                own, first = other.get(names[0]), seen[0][names[0]]
                raise ValueError(
                    f"process {process} has another {names[0]} ({own}) than process 0 ({first}): start all processes "
                    "with the same data, settings and weights"
                )

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in their order; a value is anything that JSON can hold."""
        return [value]

    def fit(
        self,
        captioner: Captioner,
        batches: CaptionBatches,
        recorder: RunRecorder,
        config: TrainConfig,
        *,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        verbose: Any = "auto",
        **parts: Any,
    ) -> None:
        """Train as `attncap.training.fit.fit` does, with a replica of the captioner on every device."""
        shares = self.shares(batches)
        real_loss = LossOfRealImages(shares)
        validate = recorder.validate
        with self.scope():
            replica = self._replica(captioner)
            pairs = list(zip(_own_variables(captioner), _own_variables(replica), strict=True))

            def on_one_device(_: Captioner) -> Captioner:
                for variable, replicated in pairs:
                    variable.assign(keras.ops.convert_to_numpy(replicated))
                return captioner

            def validate_aside(now: Captioner) -> dict[str, float]:
                with self.aside():
                    return {**validate(now), **real_loss.corrected()}

            recorder.on_one_device = on_one_device
            recorder.validate = validate_aside
            verbose = verbose if self.process == 0 else 0
            fit(replica, shares, recorder, config, callbacks=[real_loss, *callbacks], verbose=verbose, **parts)

    def shares(self, batches: CaptionBatches) -> Shares:
        return Shares(batches, self.replicas, self.own)

    def scope(self) -> AbstractContextManager[Any]:
        """Return a context: variables created inside are replicated on every device."""
        return nullcontext()

    def aside(self) -> AbstractContextManager[Any]:
        """Return a context: inside, this process computes alone again."""
        return nullcontext()

    def _replica(self, captioner: Captioner) -> Captioner:
        # Without the encoder, which is not trained and would be copied to every device.
        replica = type(captioner).from_config({**captioner.get_config(), "encoder": None})
        if captioner.tail is not None and replica.tail is not None:
            replica.tail.trainable = captioner.tail.trainable
        values = [keras.ops.convert_to_numpy(variable) for variable in _own_variables(captioner)]
        for variable, value in zip(_own_variables(replica), self._of_first(values), strict=True):
            variable.assign(value)
        return replica

    def _of_first(self, arrays: Any) -> Any:
        return arrays


def _own_variables(captioner: Captioner) -> list[Any]:
    encoder = captioner.encoder
    others = set() if encoder is None else {id(variable) for variable in encoder.variables}
    return [variable for variable in captioner.variables if id(variable) not in others]
