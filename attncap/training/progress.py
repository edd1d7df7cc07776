"""`ProgressTable`: a training's progress as one table with a row per epoch, and a progress bar for the epoch."""

from __future__ import annotations

import time
from typing import Any

import keras
from tqdm.auto import tqdm

from attncap.training.callbacks import RunRecorder


class ProgressTable(keras.callbacks.Callback):
    """Print one row per epoch: epoch, loss, validation, whether it is the best, time left.

    Args:
        recorder: of the same training; called before this callback.
        verbose: 2 prints the rows alone; else a bar with steps per second and time left shows the running epoch.
    """

    def __init__(self, recorder: RunRecorder, verbose: Any = "auto"):
        super().__init__()
        self.recorder = recorder
        self.bar_wanted = verbose != 2
        self._bar: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        self._done = 0
        self._began = time.monotonic()
        self._score = (
            "" if self.recorder.monitor == "val_loss" else f"{self.recorder.monitor.removeprefix('val_'):>8}  "
        )
        tqdm.write(f"{'epoch':>7}  {'loss':>8}  {'val_loss':>8}  {self._score}{'best':>5}  time left")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.bar_wanted:
            label = f"epoch {epoch + 1}/{self.params.get('epochs', '?')}"
            steps = self.params.get("steps")
            self._bar = tqdm(total=steps, desc=label, unit=" steps", leave=False, dynamic_ncols=True)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._bar is not None:
            self._bar.update()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._bar is not None:
            self._bar.close()
        self._done += 1
        row, epochs = self.recorder.history[-1], int(self.params.get("epochs", epoch + 1))
        loss = row.get("loss", row.get("policy_loss", float("nan")))
        best = "*" if self.recorder.best_epoch() == len(self.recorder.history) - 1 else ""
        left = (time.monotonic() - self._began) / self._done * (epochs - epoch - 1)
        if self.model.stop_training:
            left = 0.0
        score = f"{row[self.recorder.monitor]:>8.4f}  " if self._score else ""
        tqdm.write(
            f"{epoch + 1:>3}/{epochs:<3}  {loss:>8.4f}  {row.get('val_loss', float('nan')):>8.4f}  "
            f"{score}{best:>5}  {_duration(left)}"
        )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
