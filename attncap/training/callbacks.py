"""`RunRecorder`: after each epoch validate, keep the best epoch, commit the state, and stop early."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from attncap._files import replacing
from attncap.models.captioner import restored
from attncap.models.saving import save_captioner
from attncap.training.run_folder import RunFolder


class RunRecorder(keras.callbacks.Callback):
    """After each epoch, validate the averaged weights, keep the best epoch, commit the state, and stop early.

    It is used for captioners and classifiers. A training has one or two phases, "crossentropy" and then "cider" (the
    score itself): each has its epochs and its patience, and the best epoch is chosen among both.

    Args:
        folder: the run folder.
        validate: model -> {"val_...": number, ...}, added to the epoch's row of `history.csv`.
        batches: the training batches, with `start_epoch(epoch)` and `image_ids(index)`; the latter names the images of
            a batch whose loss is not a number.
        epochs: phase -> its number of epochs.
        patience: epochs without a better value of `monitor` before a phase stops.
        monitor: name in the epoch's row that chooses the best epoch.
        maximize: whether larger values are better.
        seed: of dropout; the masks of an epoch depend only on (seed, epoch), so that a resumed run equals an
            uninterrupted one.
        save: (model, path) saves the best model.
        variables_of: model -> its variables that training changes; default: the trainable ones.

    Raises:
        ValueError: the committed history lacks `monitor`, or is of another model.
    """

    def __init__(
        self,
        folder: RunFolder,
        validate: Callable[[Any], Mapping[str, float]],
        batches: Any,
        *,
        epochs: Mapping[str, int],
        patience: int,
        monitor: str,
        maximize: bool = True,
        seed: int = 0,
        save: Callable[[Any, Any], None] = save_captioner,
        variables_of: Callable[[Any], Sequence[Any]] = lambda model: model.trainable_variables,
    ):
        super().__init__()
        self.folder = folder
        self.validate = validate
        self.batches = batches
        self.epochs = dict(epochs)
        self.patience = patience
        self.monitor = monitor
        self.maximize = maximize
        self.seed = seed
        self.save = save
        self.variables_of = variables_of
        self.on_one_device: Callable[[Any], Any] = lambda model: model  # a distributed training returns one replica
        self._arrays, self.history = folder.load_state()
        if not all(monitor in row for row in self.history):
            raise ValueError(f"{folder.state_file}: damaged (an epoch without {monitor}); start anew in another folder")

    def epochs_of(self, phase: str) -> int:
        """Return how many epochs of a phase are committed."""
        return len(self._scores_of(phase))

    def _scores_of(self, phase: str) -> list[float]:
        return [self._score(row) for row in self.history if _phase_of(row) == phase]

    def _score(self, row: Mapping[str, float]) -> float:
        return row[self.monitor] if self.maximize else -row[self.monitor]

    def restore(self, model: Any) -> None:
        """Restore weights and optimizer of the last committed epoch, if there is one."""
        arrays = self._arrays
        if arrays:
            variables = self._state(model)
            shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
            if {name: value.shape for name, value in arrays.items()} != shapes:
                raise ValueError(f"{self.folder.state_file}: the weights of another model")
            for name, variable in variables.items():
                variable.assign(arrays[name])

    def best_epoch(self) -> int:
        """Return the index of the best epoch; of equal ones the first."""
        return int(np.argmax([self._score(row) for row in self.history]))

    def finished(self, phase: str = "crossentropy") -> bool:
        """Return whether all epochs of a phase are done or its patience is exhausted."""
        scores = self._scores_of(phase)
        without_gain = len(scores) - 1 - int(np.argmax(scores)) if scores else 0
        return len(scores) >= self.epochs.get(phase, 0) or without_gain >= self.patience

    def _state(self, model: Any) -> dict[str, Any]:
        weights = {f"weight_{index}": variable for index, variable in enumerate(self.variables_of(model))}
        return weights | {f"optimizer_{index}": variable for index, variable in enumerate(model.optimizer.variables)}

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.batches.start_epoch(epoch)
        for index, variable in enumerate(_seed_states(self.model)):
            variable.assign(np.random.default_rng([self.seed, epoch, index]).integers(0, 2**31, 2))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        logs = logs or {}
        loss = logs.get("loss", logs.get("policy_loss", 0.0))
        if not np.isfinite(float(loss)):
            names = ", ".join(self.batches.image_ids(batch)[:5])
            raise FloatingPointError(f"the loss is {loss} in batch {batch} (images {names}, ...): lower learning_rate")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = {} if logs is None else logs
        with averaged_weights(self.model):
            model = self.on_one_device(self.model)
            logs.update(self.validate(model))
            row = {"epoch": epoch, **{name: float(value) for name, value in logs.items()}}
            self.history.append(row)
            if self.best_epoch() == len(self.history) - 1:
                with replacing(self.folder.best_file) as temporary:
                    self.save(model, temporary)
        arrays = {name: keras.ops.convert_to_numpy(value) for name, value in self._state(self.model).items()}
        self.folder.save_state(arrays, self.history)
        self.model.stop_training = self.finished(_phase_of(row))


def _phase_of(row: Mapping[str, float]) -> str:
    return "cider" if "reward" in row else "crossentropy"  # only training on the score has a reward


@contextmanager
def averaged_weights(model: Any) -> Iterator[None]:
    """Use the moving average of the weights inside the block, if the optimizer keeps one."""
    with restored(model.trainable_variables):
        use_averaged_weights(model)
        yield


def use_averaged_weights(model: Any) -> None:
    """Replace the weights by their moving average, if the optimizer keeps one."""
    optimizer = model.optimizer
    averages = getattr(optimizer, "_model_variables_moving_average", None) if optimizer.use_ema else None
    for variable, average in zip(model.trainable_variables, averages or model.trainable_variables, strict=True):
        variable.assign(average)


def _seed_states(model: Any) -> list[Any]:
    return [variable for variable in model.variables if variable.name == "seed_generator_state"]
