"""Training curves."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from tests.plotting.drawing import (
    assert_nothing_cut_off,
    plot_history,
)

HISTORY = pd.DataFrame(
    {"epoch": [1, 2, 3, 4], "loss": [4.0, 3.0, 2.5, 2.2], "val_bleu_4": [0.11, np.nan, 0.223, 0.19], "val_bleu_1": 0.6}
)


def test_history_marks_the_best_epoch() -> None:
    loss, bleu = plot_history(HISTORY).axes
    np.testing.assert_array_equal(loss.lines[0].get_xydata(), HISTORY[["epoch", "loss"]].to_numpy())
    np.testing.assert_array_equal(bleu.lines[0].get_xydata(), [[1, 0.11], [3, 0.223], [4, 0.19]])
    assert bleu.get_title(loc="left") == "Best validation BLEU-4 0.223, epoch 3"
    assert [list(line.get_xdata()) for line in (loss.lines[-1], bleu.lines[-1])] == [[3, 3], [3]]
    assert [text.get_text() for text in bleu.get_legend().get_texts()] == ["BLEU-4", "BLEU-1"]
    assert_nothing_cut_off(loss.figure)


def test_epochs_counted_from_zero_are_drawn_from_one() -> None:
    loss, bleu = plot_history(HISTORY.assign(epoch=HISTORY["epoch"] - 1)).axes
    np.testing.assert_array_equal(loss.lines[0].get_xydata(), HISTORY[["epoch", "loss"]].to_numpy())
    assert bleu.get_title(loc="left") == "Best validation BLEU-4 0.223, epoch 3"


def test_history_of_one_epoch_of_loss_alone_and_on_given_axes() -> None:
    assert_nothing_cut_off(plot_history(HISTORY.head(1)))
    (ax,) = plot_history([{"epoch": 1, "loss": 2.0}]).axes
    assert ax.get_xlim() == (0, 2) and ax.get_ylabel() == "loss"
    own = Figure()
    axes = own.subplots(2)
    assert plot_history(HISTORY, axes=axes) is own and len(axes[1].lines) == 4
    unvalidated = plot_history(HISTORY.assign(val_bleu_4=np.nan))
    assert unvalidated.axes[1].get_title(loc="left") == "Validation BLEU by epoch"


def test_history_refuses() -> None:
    with pytest.raises(ValueError, match=r"needs rows with epoch .* got 2 rows of \['loss'\]"):
        plot_history({"loss": [1, 2]})
    with pytest.raises(ValueError, match="axes needs 2 .* got 1"):
        plot_history(HISTORY, axes=[Figure().add_subplot()])
