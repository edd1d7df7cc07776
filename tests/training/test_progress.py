"""The table of a training: one row per epoch under one header, each column once and as wide as its name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from attncap.training import progress
from attncap.training.progress import ProgressTable


class Recorder:
    """A recorder of a training that is fed with rows by hand."""

    def __init__(self, monitor: str):
        self.monitor = monitor
        self.history: list[dict[str, float]] = []

    def best_epoch(self) -> int:
        values = [row[self.monitor] for row in self.history]
        return values.index(min(values) if self.monitor == "val_loss" else max(values))


@pytest.mark.parametrize("monitor", ["val_bleu_4", "val_loss"])
def test_a_table_of_epochs(monitor: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    recorder: Any = Recorder(monitor)
    table = ProgressTable(recorder, verbose=2)
    table.set_params({"epochs": 3, "steps": 5})
    table.set_model(SimpleNamespace(stop_training=False))  # type: ignore[arg-type]
    table.on_train_begin()
    for epoch, (loss, validated, bleu) in enumerate([(4.5, 4.25, 0.125), (4.0, 3.5, 0.25), (3.75, 3.625, 0.1875)]):
        table.on_epoch_begin(epoch)
        now[0] += 90.0
        recorder.history.append({"epoch": epoch, "loss": loss, "val_loss": validated, "val_bleu_4": bleu})
        table.on_epoch_end(epoch)
    header, *rows = capsys.readouterr().out.splitlines()
    names = ["loss", "val_loss"] + ["val_bleu_4"] * (monitor == "val_bleu_4")
    assert header.split() == ["epoch", *names, "best", "time", "left"]
    scores = (["0.1250"], ["0.2500"], ["0.1875"]) if monitor == "val_bleu_4" else ([], [], [])
    assert [row.split() for row in rows] == [
        ["1/3", "4.5000", "4.2500", *scores[0], "*", "3:00"],
        ["2/3", "4.0000", "3.5000", *scores[1], "*", "1:30"],
        ["3/3", "3.7500", "3.6250", *scores[2], "0:00"],
    ]
    for name, value in zip(names, rows[0].split()[1:], strict=False):  # each number ends under its name
        assert header.index(f" {name} ") + len(name) == rows[0].index(f" {value} ") + len(value)


def test_a_bar_shows_the_running_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    recorder: Any = Recorder("val_loss")
    table = ProgressTable(recorder)
    table.set_params({"epochs": 12, "steps": 4})
    table.on_train_begin()
    table.on_epoch_begin(6)
    for batch in range(4):
        table.on_train_batch_end(batch)
    assert "epoch 7/12" in capsys.readouterr().err
