"""`RunRecorder`: what happens between epochs. Validate by decoding, keep the best, commit the state, stop in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from attncap._files import replacing
from attncap.models.captioner import Captioner, save_captioner
from attncap.training.batches import CaptionBatches
from attncap.training.config import TrainConfig
from attncap.training.run_folder import RunFolder


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
        self.on_one_device: Callable[[Captioner], Captioner] = lambda captioner: captioner  # where several train it
        self._arrays, self.history = folder.load_state()
        if not all("val_bleu_4" in row for row in self.history):
            raise ValueError(
                f"{folder.state_file}: damaged (an epoch without val_bleu_4); start anew in another folder"
            )

    def epochs_of(self, objective: str) -> int:
        """Return how many epochs of the objective, "crossentropy" or "cider", are committed."""
        return len(self._scores_of(objective))

    def _scores_of(self, objective: str) -> list[float]:
        # Only training on the score has a reward.
        return [row["val_bleu_4"] for row in self.history if ("reward" in row) == (objective == "cider")]

    def restore(self, captioner: Captioner) -> None:
        """Put the last committed epoch's weights, optimizer and history back, where there is one."""
        arrays = self._arrays
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

    def finished(self, objective: str = "crossentropy") -> bool:
        """Whether all epochs of an objective are done, or patience is at its end."""
        scores = self._scores_of(objective)
        epochs = self.config.cider_epochs if objective == "cider" else self.config.crossentropy_epochs
        without_gain = len(scores) - 1 - int(np.argmax(scores)) if scores else 0
        return len(scores) >= epochs or without_gain >= self.config.patience

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.batches.start_epoch(epoch)
        # Dropout's random state depends on (seed, epoch) alone, so that it need not be saved to be resumed.
        for index, variable in enumerate(_seed_states(self.model)):
            variable.assign(np.random.default_rng([self.config.seed, epoch, index]).integers(0, 2**31, 2))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        logs = logs or {}
        loss = logs.get("loss", logs.get("policy_loss", 0.0))
        if not np.isfinite(float(loss)):
            names = ", ".join(self.batches.image_ids(batch)[:5])
            raise FloatingPointError(
                f"the loss is {loss} in batch {batch} (pictures {names}, ...): lower learning_rate"
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = {} if logs is None else logs
        with averaged_weights(self.model):
            captioner = self.on_one_device(self.model)
            logs.update(self.validate(captioner))
            row = {"epoch": epoch, **{name: float(value) for name, value in logs.items()}}
            self.history.append(row)
            if self.best_epoch() == len(self.history) - 1:
                with replacing(self.folder.best_file) as temporary:
                    save_captioner(captioner, temporary)
        arrays = {name: keras.ops.convert_to_numpy(value) for name, value in _state_variables(self.model).items()}
        self.folder.save_state(arrays, self.history)
        self.model.stop_training = self.finished("cider" if "reward" in row else "crossentropy")


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


def use_averaged_weights(captioner: Captioner) -> None:
    """Give the captioner the moving average of its weights for good, where its optimizer keeps one."""
    optimizer = captioner.optimizer
    averages = getattr(optimizer, "_model_variables_moving_average", None) if optimizer.use_ema else None
    for variable, average in zip(captioner.trainable_variables, averages or captioner.trainable_variables, strict=True):
        variable.assign(average)


def _state_variables(captioner: Captioner) -> dict[str, Any]:
    weights = {f"weight_{index}": variable for index, variable in enumerate(captioner.trainable_variables)}
    optimizer = {f"optimizer_{index}": variable for index, variable in enumerate(captioner.optimizer.variables)}
    return weights | optimizer


def _seed_states(captioner: Captioner) -> list[Any]:
    return [variable for variable in captioner.variables if variable.name == "seed_generator_state"]
