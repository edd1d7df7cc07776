"""Diagrams of the captioners: every box holds its text, no box covers another, arrows start and end at boxes."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Annotation

from attncap.plotting.architecture import MODELS, plot_architecture

SIZES = {"layer": "mixed10", "feature_shape": (7, 11, 2048), "vocabulary": 12_345, "hidden_units": 1031}


@pytest.fixture(params=MODELS)
def drawn(request: pytest.FixtureRequest) -> Figure:
    figure = plot_architecture(request.param, **SIZES, words=("an", "extraordinary", "photograph"))
    FigureCanvasAgg(figure).draw()
    return figure


def texts(figure: Figure) -> list[Any]:
    return [text for text in figure.axes[0].texts if text.get_text()]


def boxes(figure: Figure) -> list[Any]:
    return [patch for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]


def test_boxes_hold_their_text_and_do_not_overlap(drawn: Figure) -> None:
    extents = [box.get_window_extent() for box in boxes(drawn)]
    assert len(extents) >= 10
    assert not [pair for pair in combinations(extents, 2) if pair[0].overlaps(pair[1])]
    for text in texts(drawn):
        inside = text.get_window_extent()
        x, y = (inside.x0 + inside.x1) / 2, (inside.y0 + inside.y1) / 2
        for box in extents:
            if box.contains(x, y):
                assert box.x0 < inside.x0 and inside.x1 < box.x1 and box.y0 < inside.y0 and inside.y1 < box.y1, text
            else:
                assert not box.overlaps(inside), text


def test_text_lies_inside_the_figure_and_apart(drawn: Figure) -> None:
    extents = [text.get_window_extent() for text in texts(drawn)]
    legend = drawn.axes[0].get_legend()
    assert legend is not None
    extents.append(legend.get_window_extent())
    for extent in extents:
        assert drawn.bbox.x0 <= extent.x0 and extent.x1 <= drawn.bbox.x1
        assert drawn.bbox.y0 <= extent.y0 and extent.y1 <= drawn.bbox.y1
    assert not [pair for pair in combinations(extents, 2) if pair[0].overlaps(pair[1])]


def test_every_arrow_ends_at_the_edge_of_a_box(drawn: Figure) -> None:
    places = [(box.get_x(), box.get_y(), box.get_width(), box.get_height()) for box in boxes(drawn)]
    arrows = [text for text in drawn.axes[0].texts if isinstance(text, Annotation)]
    assert len(arrows) >= 10
    for arrow in arrows:
        x, y = arrow.xy
        at_edge = [
            (min(abs(x - left), abs(x - left - width)) < 1e-6 and top <= y <= top + height)
            or (min(abs(y - top), abs(y - top - height)) < 1e-6 and left <= x <= left + width)
            for left, top, width, height in places
        ]
        assert any(at_edge), (x, y)


def test_shapes_are_those_of_the_sizes(drawn: Figure) -> None:
    shown = " ".join(text.get_text() for text in texts(drawn))
    assert "(77, 2048)" in shown and "1031" in shown and "mixed10" in shown
    assert "12345" in shown.replace(",", "")


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ValueError, match="model needs to be one of attention, show-and-tell, got 'lstm'"):
        plot_architecture("lstm", **SIZES)  # type: ignore[arg-type]
