"""The map of the systems: nothing is cut off, texts do not overlap, and the grid is the one that the model reads."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.plotting.drawing import PHOTO, assert_nothing_cut_off, assert_texts_apart

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.skipif(not SCRIPTS.is_dir(), reason="the scripts are in the repository, not in the package")
def test_the_map_of_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from systems_map import SYSTEMS, plot_systems

    Image.fromarray(PHOTO).save(tmp_path / "face.png")
    answer = "a smiling person with long ginger hair thick eyebrows a big nose and freckles wearing a yellow bow tie"
    answers = {shown.answer: answer for shown in SYSTEMS}
    marks = {shown.answer: "all 435 faces: BLEU-4 0.867, 96.7% of claims true" for shown in SYSTEMS}
    figure = plot_systems(str(tmp_path / "face.png"), np.linspace(0, 1, 99), answers, marks, regions=16)
    assert_nothing_cut_off(figure)
    assert_texts_apart(figure)
    grids = [ax for ax in figure.axes if len(ax.lines) == 2 * (16 + 1)]
    assert len(grids) == 1 and sys.modules["systems_map"]
