"""The tree of a beam search: where words stand, which way is the best one, what is given up, what is frozen."""

from __future__ import annotations

from math import log

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from attncap.plotting.beam_tree import plot_beam_tree
from attncap.plotting.style import COLORS, INK

# Two beams. "a cat <end>" overtakes "the dog", and is kept while the other one grows on; "a dog" is given up.
STEPS = [
    [(["the"], log(0.5)), (["a"], log(0.4))],
    [(["a", "cat"], log(0.2)), (["a", "dog"], log(0.1))],
    [(["a", "cat", "<end>"], log(0.1)), (["a", "cat", "sat"], log(0.05))],
    [(["a", "cat", "<end>"], log(0.1)), (["a", "cat", "sat", "<end>"], log(0.04))],
]


def texts(ax) -> dict[tuple[float, float], tuple[str, str]]:
    return {text.get_position(): (text.get_text(), to_hex(text.get_color())) for text in ax.texts}


def test_words_stand_at_their_rank_and_step_with_their_probability() -> None:
    found = texts(plot_beam_tree(STEPS))
    assert found[0.5, 0][0] == "<start>"
    said = {place: text for place, (text, _) in found.items()}
    assert (said[0, 1], said[1, 1]) == ("the 0.50", "a 0.40")
    assert (said[0, 2], said[1, 2]) == ("cat 0.50", "dog 0.25")  # 0.2 / 0.4, 0.1 / 0.4
    assert (said[0, 3], said[1, 3]) == ("<end> 0.50", "sat 0.25")
    assert (0, 4) not in said  # frozen: its line goes on, without a word
    assert said[1, 4] == "<end> 0.80"
    assert (said[0, 5], said[1, 5]) == ("log p \u22122.30", "log p \u22123.22")


def test_the_best_way_is_colored_and_what_was_given_up_is_grey() -> None:
    found = texts(plot_beam_tree(STEPS))
    assert [found[place][1] for place in ((1, 1), (0, 2), (0, 3))] == [COLORS[0].lower()] * 3
    assert [found[place][1] for place in ((1, 3), (1, 4))] == [INK] * 2
    assert not {found[place][1] for place in ((0, 1), (1, 2))} & {INK, COLORS[0].lower()}


def test_lines_go_from_parent_to_child_and_are_dotted_below_a_finished_caption() -> None:
    ax = plot_beam_tree(STEPS)
    lines = {
        tuple((float(x), float(y)) for x, y in np.asarray(line.get_xydata())): line.get_linestyle() for line in ax.lines
    }
    assert lines == {
        ((0.5, 0), (0, 1)): "-",
        ((0.5, 0), (1, 1)): "-",
        ((1, 1), (0, 2)): "-",
        ((1, 1), (1, 2)): "-",
        ((0, 2), (0, 3)): "-",
        ((0, 2), (1, 3)): "-",
        ((0, 3), (0, 4)): ":",
        ((1, 3), (1, 4)): "-",
    }


def test_title_axes_and_a_dollar_sign() -> None:
    assert plot_beam_tree(STEPS).get_title(loc="left") == "a cat"
    _, ax = plt.subplots()
    drawn = plot_beam_tree([[(["$5"], -0.5)]], ax=ax, title="one $ and two $")
    assert drawn is ax and ax.get_title(loc="left") == "one $ and two $"
    ax.figure.canvas.draw()
    plt.close("all")


@pytest.mark.parametrize("steps", [[], [[(["a"], -1.0)], []]])
def test_nothing_to_draw(steps) -> None:
    with pytest.raises(ValueError, match="at least one step, and a beam in each"):
        plot_beam_tree(steps)


def test_a_beam_from_nowhere_is_named() -> None:
    with pytest.raises(ValueError, match="step 2: 'the cat' grows from none"):
        plot_beam_tree([[(["a"], -1.0)], [(["the", "cat"], -2.0)]])
