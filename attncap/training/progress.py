"""`ProgressTable`: the progress of a training as a table with one row per epoch, and a bar for the running epoch."""

from __future__ import annotations

import math
import time
from typing import Any

import keras
from tqdm.auto import tqdm

from attncap.training.callbacks import RunRecorder


class ProgressTable(keras.callbacks.Callback):
    """Print one row per epoch: epoch, loss, validation loss and score, whether it is the best, time left.

    Args:
        recorder: of the same training; called before this callback.
        verbose: 2 prints only the rows; otherwise a bar shows steps per second and the time left of the epoch.
    """

    def __init__(self, recorder: RunRecorder, verbose: Any = "auto"):
        super().__init__()
        self.recorder = recorder
        self.bar_wanted = verbose != 2
        self._bar: Any = None

    def on_train_begin(self, logs: Any = None) -> None:
        self._done = 0
        self._began = time.monotonic()
        columns = "".join(f"  {name:>{_width(name)}}" for name in ("loss", *self._validated()))
        tqdm.write(f"{'epoch':>7}{columns}  {'best':>4}  time left")

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
        numbers = {"loss": row.get("loss", row.get("policy_loss", math.nan))}
        numbers |= {name: row.get(name, math.nan) for name in self._validated()}
        best = "*" if self.recorder.best_epoch() == len(self.recorder.history) - 1 else ""
        left = (time.monotonic() - self._began) / self._done * (epochs - epoch - 1)
        if self.model.stop_training:
            left = 0.0
        columns = "".join(f"  {value:>{_width(name)}.4f}" for name, value in numbers.items())
        tqdm.write(f"{epoch + 1:>3}/{epochs:<3}{columns}  {best:>4}  {_duration(left)}")

    def _validated(self) -> list[str]:
        return list(dict.fromkeys(["val_loss", self.recorder.monitor]))  # only once if the loss is monitored


def _width(name: str) -> int:
    return max(8, len(name))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
