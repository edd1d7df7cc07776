"""Attention correctness and the pointing game, against numbers worked out by hand on a 5 x 7 grid."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest

from attncap.captions import Caption
from attncap.grounding.measures import MEASURES, measure_at_shifts, measure_grounding
from attncap.grounding.phrases import Phrase, cell_cover, faces_phrases, point_in_boxes

ROWS, COLS = 5, 7


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """A box given in cells of the 5 x 7 grid, as fractions of the picture: shape (1, 4)."""
    return np.array([[left / COLS, top / ROWS, right / COLS, bottom / ROWS]])


def maps(*cells: dict[tuple[int, int], float]) -> np.ndarray:
    """A map a step, from its weights by (row, col)."""
    weights = np.zeros((len(cells), ROWS, COLS), np.float32)
    for step, values in enumerate(cells):
        for cell, weight in values.items():
            weights[step][cell] = weight
    return weights


def caption(weights: np.ndarray | None, image_id: str = "1.jpg", n_words: int | None = None) -> Caption:
    n_words = len(weights) if n_words is None and weights is not None else n_words or 0
    words = tuple(f"w{step}" for step in range(n_words))
    return Caption(words, tuple(range(n_words)), -1.0, weights, image_id=image_id)


def measure(weights: np.ndarray, *phrases: Phrase, **options):
    return measure_grounding([caption(weights)], [phrases], n_bootstrap=0, **options)


# ----------------------------------------------------------------- geometry


def test_cover_of_a_box_that_crosses_cells() -> None:
    # Columns 1.5 to 3.25: half of column 1, all of 2, a quarter of 3.
    # Rows 0.8 to 2.4: 0.2 of row 0, all of 1, 0.4 of 2.
    expected = np.zeros((ROWS, COLS))
    expected[0, 1:4] = 0.10, 0.20, 0.05
    expected[1, 1:4] = 0.50, 1.00, 0.25
    expected[2, 1:4] = 0.20, 0.40, 0.10
    np.testing.assert_allclose(cell_cover(box(1.5, 0.8, 3.25, 2.4), ROWS, COLS), expected, atol=1e-12)


def test_cover_of_several_boxes_is_of_their_union() -> None:
    boxes = np.concatenate([box(0, 0, 2, 2), box(1, 1, 3, 3), box(1, 1, 3, 3), box(6.5, 4, 7, 5)])
    cover = cell_cover(boxes, ROWS, COLS)
    assert cover.max() == pytest.approx(1)  # the overlap at (1, 1) counts once
    assert cover.sum() == pytest.approx(4 + 4 - 1 + 0.5)
    assert cover[4, 6] == pytest.approx(0.5)


def test_cover_of_a_box_inside_one_cell_and_of_the_whole_picture() -> None:
    assert cell_cover(box(2.25, 3.25, 2.75, 3.75), ROWS, COLS)[3, 2] == pytest.approx(0.25)
    np.testing.assert_allclose(cell_cover(np.array([[0, 0, 1, 1.0]]), ROWS, COLS), 1)
    assert cell_cover(np.zeros((0, 4)), ROWS, COLS).sum() == 0


def test_a_grid_that_does_not_reach_the_edges() -> None:
    # Columns of a fifth of the picture, of which the outer two are drawn out: edges at 0, 0.4, 0.6 and 1. One row.
    place = (0.2, 0.1, 0.8, 0.9)
    cover = cell_cover(np.array([[0.1, 0.25, 0.5, 1.0]]), 1, 3, place)
    np.testing.assert_allclose(cover, [[0.75 * 0.75, 0.75 * 0.5, 0]])
    np.testing.assert_allclose(cell_cover(np.array([[0, 0, 1, 1.0]]), ROWS, COLS, place), 1)
    centers = [0.3, 0.5, 0.7]  # not of what is drawn out
    for col, x in enumerate(centers):
        weights = np.eye(3)[col : col + 1]  # (1, 3)
        assert point_in_boxes(weights, np.array([[x - 0.01, 0.49, x + 0.01, 0.51]]), grid_box=place) == 1
        upsampled = point_in_boxes(weights, np.array([[x - 0.07, 0.1, x + 0.07, 0.9]]), upsample=3, grid_box=place)
        assert upsampled == 1


def test_maps_are_read_where_their_grid_lies() -> None:
    hat = Phrase("1.jpg", 0, 1, "hat", np.array([[0.0, 0.0, 0.4, 1.0]]))
    weights = np.array([[[0.5, 0.25, 0.25]]])
    for place, mass, uniform in (((0.2, 0.0, 0.8, 1.0), 0.5, 1 / 3), ((0.0, 0.0, 1.0, 1.0), 0.5 + 0.25 * 0.2, 0.4)):
        one = Caption(("hat",), (4,), -1.0, weights, image_id="1.jpg", grid_box=place)
        found = measure_grounding([one], [[hat]], n_bootstrap=0)
        assert found.attention_correctness == pytest.approx(mass)
        assert found.uniform == pytest.approx(uniform)
    narrow = Phrase("1.jpg", 0, 1, "hat", np.array([[0.25, 0.0, 0.35, 1.0]]))  # holds 0.3, not 1/6
    points = [
        measure_grounding([Caption(("hat",), (4,), -1.0, weights, grid_box=place)], [[narrow]], n_bootstrap=0)
        for place in ((0.2, 0.0, 0.8, 1.0), (0.0, 0.0, 1.0, 1.0))
    ]
    assert [found.pointing_game for found in points] == [1, 0]


def test_cover_agrees_with_counting_points() -> None:
    rng = np.random.default_rng(3)
    corners = np.sort(rng.uniform(size=(11, 3, 2, 2)), axis=2).reshape(11, 3, 4)  # left, top, right, bottom
    fine = 40
    y, x = ((np.arange(size * fine) + 0.5) / (size * fine) for size in (ROWS, COLS))
    for boxes in corners:
        left, top, right, bottom = boxes.T[:, :, None, None]
        inside = ((left < x) & (x < right) & (top < y[:, None]) & (y[:, None] < bottom)).any(axis=0)
        counted = inside.reshape(ROWS, fine, COLS, fine).mean(axis=(1, 3))  # (rows, cols)
        np.testing.assert_allclose(cell_cover(boxes, ROWS, COLS), counted, atol=2.5 / fine)


def test_point_is_the_center_of_the_largest_cell() -> None:
    (weights,) = maps({(3, 5): 0.6, (0, 0): 0.4})
    assert point_in_boxes(weights, box(5.4, 3.4, 5.6, 3.6)) == 1
    assert point_in_boxes(weights, box(5.6, 3, 7, 5)) == 0  # overlaps the cell, but not its center
    assert point_in_boxes(weights, np.concatenate([box(0, 0, 1, 1), box(5, 3, 6, 4)])) == 1


def test_a_point_near_a_box_counts_within_the_tolerance() -> None:
    weights = maps({(2, 3): 1.0})[0]  # its center is the picture's
    for beside in ((0.54, 0.4, 0.6, 0.6), (0.4, 0.4, 0.46, 0.6), (0.4, 0.54, 0.6, 0.6), (0.4, 0.4, 0.6, 0.46)):
        boxes = np.array([beside])
        assert point_in_boxes(weights, boxes, tolerance=0.05) == 1
        assert point_in_boxes(weights, boxes, tolerance=0.03) == point_in_boxes(weights, boxes) == 0
    assert point_in_boxes(weights, np.array([[0.54, 0.54, 0.6, 0.6]]), tolerance=0.05) == 1
    phrase = Phrase("1.jpg", 0, 1, "hat", np.array([[0.54, 0.4, 0.6, 0.6]]))
    found = measure(maps({(2, 3): 1.0}), phrase, tolerance=0.05)
    assert found.pointing_game == found.pointing_center == 1 and found.to_json_dict()["tolerance"] == 0.05
    assert "within 5% of the image" in found.to_text() and found.attention_correctness < 0.5
    assert measure(maps({(2, 3): 1.0}), phrase).pointing_game == 0


def test_tied_maxima_share_the_point() -> None:
    (weights,) = maps({(0, 0): 0.3, (1, 1): 0.3, (4, 6): 0.3, (2, 2): 0.1})
    assert point_in_boxes(weights, box(0, 0, 2, 2)) == pytest.approx(2 / 3)
    assert point_in_boxes(np.full((ROWS, COLS), 1 / 35), box(0, 0, 3, 2)) == pytest.approx(6 / 35)
    assert point_in_boxes(np.full((ROWS, COLS), 1 / 35), box(0, 0, 3, 2), upsample=2) == pytest.approx(6 / 35)


def test_upsampling_moves_the_point_between_two_cells() -> None:
    (weights,) = maps({(2, 2): 0.5, (2, 3): 0.49})
    seam = box(2.75, 2, 3.25, 3)
    assert point_in_boxes(weights, seam) == 0
    assert point_in_boxes(weights, seam, upsample=8) == 1


# ----------------------------------------------------------------- measures


def test_correctness_is_the_largest_mass_of_the_phrases_words() -> None:
    weights = maps({(1, 2): 1.0}, {(1, 2): 0.3, (4, 4): 0.7}, {(1, 1): 0.5, (1, 2): 0.5})
    result = measure(weights, Phrase("1.jpg", 1, 3, "dog", box(1.5, 1, 3, 2)))
    # Word 1: 0.3. Word 2: 0.5 * 0.5 + 0.5. Word 0 has all its mass there, and is not of the phrase.
    assert result.attention_correctness == pytest.approx(0.75)
    assert result.mean_correctness == pytest.approx((0.3 + 0.75) / 2)
    assert result.uniform == pytest.approx(1.5 / 35)
    # Average of three maps: (1, 2) 1.8 / 3, (1, 1) 0.5 / 3.
    assert result.center == pytest.approx(1.8 / 3 + 0.25 / 3)
    assert result.correctness_over_uniform == pytest.approx(0.75 / (1.5 / 35))
    assert (result.n_phrases, result.n_pictures, result.n_without_box, result.n_without_map) == (1, 1, 0, 0)


def test_the_mean_over_words_gives_noise_no_lift() -> None:
    noise = np.random.default_rng(7).gamma(1, size=(601, ROWS, COLS))
    phrases = [Phrase("1.jpg", start, start + 3, "dog", box(1, 1, 4, 3)) for start in range(0, 600, 3)]
    result = measure(noise, *phrases)
    assert result.mean_correctness == pytest.approx(result.center, abs=0.005)
    assert result.attention_correctness > 1.25 * result.center  # what the maximum alone is worth


def test_maps_are_renormalized() -> None:
    weights = maps({(1, 2): 3.0, (0, 0): 1.0})
    assert measure(weights, Phrase("1.jpg", 0, 1, "dog", box(2, 1, 3, 2))).attention_correctness == pytest.approx(0.75)


def test_whose_maximum_points() -> None:
    # The first word's map is the sharpest and misses; the second hits; the last misses.
    weights = maps({(0, 0): 1.0}, {(1, 2): 0.9, (0, 0): 0.1}, {(4, 4): 0.6, (1, 2): 0.4})
    phrase = Phrase("1.jpg", 0, 3, "dog", box(2, 1, 3, 2))
    hits = {way: measure(weights, phrase, pointing_words=way).pointing_game for way in ("strongest", "last", "any")}
    assert hits == {"strongest": 0, "last": 0, "any": 1}
    assert measure(weights, Phrase("1.jpg", 1, 3, "dog", box(2, 1, 3, 2))).pointing_game == 1  # 0.9 beats 0.6


def test_pointing_baselines() -> None:
    weights = maps({(2, 3): 0.6, (0, 0): 0.4}, {(2, 3): 0.6, (4, 6): 0.4})
    result = measure(
        weights, Phrase("1.jpg", 0, 1, "middle", box(2, 1, 5, 4)), Phrase("1.jpg", 1, 2, "corner", box(5, 3, 7, 5))
    )
    assert result.per_type.loc["middle", "pointing_center"] == 1
    assert result.per_type.loc["corner", "pointing_center"] == 0
    assert result.pointing_uniform == pytest.approx((9 / 35 + 4 / 35) / 2)


@pytest.mark.parametrize(
    ("shift", "first", "last"),
    [(0, 0.1, 0.3), (1, 0.2, None), (-1, None, 0.2), (2, 0.3, None), (-2, None, 0.1), (3, None, None)],
)
def test_shift_reads_neighboring_maps_and_stops_at_the_ends(shift: int, first: float, last: float) -> None:
    weights = maps(*({(2, 3): mass, (0, 0): 1 - mass} for mass in (0.1, 0.2, 0.3)))
    for word, expected in ((0, first), (2, last)):
        result = measure(weights, Phrase("1.jpg", word, word + 1, "dog", box(3, 2, 4, 3)), shift=shift)
        if expected is None:
            assert (result.n_phrases, result.n_without_map) == (0, 1)
        else:
            assert result.attention_correctness == pytest.approx(expected)
            assert (result.n_phrases, result.n_without_map, result.shift) == (1, 0, shift)


def test_a_phrase_at_the_end_keeps_the_words_that_have_a_map() -> None:
    weights = maps(*({(2, 3): mass, (0, 0): 1 - mass} for mass in (0.9, 0.2, 0.3)))
    phrase = Phrase("1.jpg", 1, 3, "dog", box(3, 2, 4, 3))
    assert measure(weights, phrase, shift=1).attention_correctness == pytest.approx(0.3)
    assert measure(weights, phrase, shift=-1).attention_correctness == pytest.approx(0.9)


def test_shifts_are_compared_on_the_same_phrases() -> None:
    weights = maps(*({(2, 3): mass, (0, 0): 1 - mass} for mass in (0.1, 0.2, 0.4)))
    region = box(3, 2, 4, 3)
    phrases = [[Phrase("1.jpg", word, word + 1, "dog", region) for word in range(3)]]
    results = measure_at_shifts([caption(weights)], phrases, n_bootstrap=0)
    assert {shift: result.attention_correctness for shift, result in results.items()} == pytest.approx(
        {-1: 0.1, 0: 0.2, 1: 0.4}
    )
    assert {(result.n_phrases, result.n_without_map) for result in results.values()} == {(1, 2)}


def test_types_and_what_was_left_out() -> None:
    weights = maps({(2, 3): 1.0}, {(0, 0): 1.0}, {(4, 6): 1.0})
    nowhere = np.zeros((0, 4))
    result = measure(
        weights,
        Phrase("1.jpg", 0, 1, "animals", box(3, 2, 4, 3)),
        Phrase("1.jpg", 1, 2, "people", box(0, 0, 1, 1)),
        Phrase("1.jpg", 2, 3, "people", box(0, 0, 1, 1)),
        Phrase("1.jpg", 2, 3, "scene", nowhere),
    )
    assert list(result.per_type.index) == ["people", "animals"]  # most frequent first
    assert result.per_type["n_phrases"].to_dict() == {"people": 2, "animals": 1}
    assert result.per_type["attention_correctness"].to_dict() == pytest.approx({"people": 0.5, "animals": 1.0})
    assert result.attention_correctness == pytest.approx(2 / 3)
    assert result.mean_over_types()["pointing_game"] == pytest.approx(0.75)
    assert (result.n_phrases, result.n_without_box) == (3, 1)
    assert result.phrases["start"].tolist() == [0, 1, 2]


def test_intervals_resample_pictures_and_repeat_with_the_seed() -> None:
    region = box(3, 2, 4, 3)
    masses = np.random.default_rng(5).uniform(0.1, 0.9, size=53)
    captions = [caption(maps({(2, 3): mass, (0, 0): 1 - mass}), f"{number}.jpg") for number, mass in enumerate(masses)]
    once = [[Phrase(f"{number}.jpg", 0, 1, "dog", region)] for number in range(53)]
    first = measure_grounding(captions, once, seed=1, n_bootstrap=2000)
    low, high = first.intervals["attention_correctness"]
    spread = 1.96 * masses.std() / math.sqrt(53)
    assert (low, high) == pytest.approx((masses.mean() - spread, masses.mean() + spread), abs=0.015)
    assert first.intervals == measure_grounding(captions, once, seed=1, n_bootstrap=2000).intervals
    assert first.intervals != measure_grounding(captions, once, seed=2, n_bootstrap=2000).intervals
    # Seven equal phrases a picture are no more evidence than one: pictures are drawn, not phrases.
    seven = measure_grounding(captions, [phrases * 7 for phrases in once], seed=1, n_bootstrap=2000)
    assert seven.intervals["attention_correctness"] == pytest.approx((low, high))
    # The uniform mass is the same everywhere, so the ratio's interval is the first one, scaled.
    assert first.intervals["correctness_over_uniform"] == pytest.approx((low * 35, high * 35))


def test_json_and_text() -> None:
    result = measure_grounding(
        [caption(maps({(2, 3): 0.8, (0, 0): 0.2}))], [[Phrase("1.jpg", 0, 1, "hat", box(3, 2, 4, 3))]], shift=0
    )
    numbers = json.loads(json.dumps(result.to_json_dict(), allow_nan=False))
    assert numbers["attention_correctness"] == pytest.approx(0.8)
    assert numbers["per_type"]["hat"]["pointing_game"] == 1
    assert numbers["per_type"]["hat"]["n_phrases"] == numbers["n_phrases"] == 1
    assert set(numbers) >= {*MEASURES, "shift", "intervals", "mean_over_types", "n_without_box", "n_pictures"}
    text = result.to_text()
    assert "hat                  1     0.800     0.800     0.029     0.800     1.000     0.029     1.000" in text
    assert "maps of the words' own steps; 1 images; left out: 0 phrases without box, 0 without map" in text


@pytest.mark.parametrize("phrases", [[], [Phrase("1.jpg", 0, 1, "scene", np.zeros((0, 4)))]])
def test_nothing_to_measure_is_none_in_json(phrases: list[Phrase]) -> None:
    result = measure_grounding([caption(maps({(2, 3): 1.0}))], [phrases])
    assert math.isnan(result.attention_correctness) and result.n_phrases == 0
    numbers = json.loads(json.dumps(result.to_json_dict(), allow_nan=False))
    assert numbers["attention_correctness"] is None and numbers["per_type"] == {} and numbers["intervals"] == {}
    assert f"left out: {len(phrases)} phrases without box" in result.to_text()


def test_no_captions_at_all() -> None:
    assert measure_grounding([], []).n_phrases == 0


# ------------------------------------------------------------- wrong inputs


@pytest.mark.parametrize(
    "corners",
    [[0.5, 0, 0.5, 1], [0, 0.7, 1, 0.2], [0, 0, 1.5, 1], [-0.1, 0, 1, 1], [0, 0, math.nan, 1], [3, 4, 90, 80]],
)
def test_a_box_that_is_none(corners: list[float]) -> None:
    with pytest.raises(ValueError, match=r"phrase 0:1 \(hat\) of image '1.jpg': boxes are fractions .* divide pixels"):
        Phrase("1.jpg", 0, 1, "hat", np.array([corners]))


def test_the_uniform_map_of_regions_weighs_each_region_alike() -> None:
    """Detectors put boxes where things are: a captioner that weighs all boxes alike gains nothing over uniform."""
    left, right, whole = [0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]
    boxes = np.array([left, left, right, whole], np.float32)  # the last one is padding
    phrase = Phrase("1", 0, 1, "hat", np.array([left]))
    for weights, correctness in (([0.5, 0.0, 0.5, 0.0], 0.5), ([1 / 3, 1 / 3, 1 / 3, 0.0], 2 / 3)):
        caption = Caption(("hat",), (4,), -1.0, np.array([[weights]]), boxes=boxes)
        found = measure_grounding([caption], [[phrase]], n_bootstrap=0)
        assert found.attention_correctness == pytest.approx(correctness)
        assert found.uniform == pytest.approx(2 / 3) and found.pointing_uniform == 1
    looked_at = Caption(("hat",), (4,), -1.0, np.array([[[0.0, 0.5, 0.0, 0.5]]]), boxes=boxes)  # a region as large
    assert measure_grounding([looked_at], [[phrase]], n_bootstrap=0).uniform == pytest.approx(5 / 8)


def test_a_phrase_without_words_or_with_flat_boxes() -> None:
    with pytest.raises(ValueError, match=r"phrase 2:2 \(hat\).*expected 0 <= start < end"):
        Phrase("1.jpg", 2, 2, "hat", np.zeros((0, 4)))
    with pytest.raises(ValueError, match=r"boxes need shape \(n, 4\).*got \(4,\)"):
        Phrase("1.jpg", 0, 1, "hat", np.array([0, 0, 1, 1.0]))
    assert Phrase("1.jpg", 0, 1, "hat", np.array([])).boxes.shape == (0, 4)


def test_a_phrase_that_leaves_its_caption() -> None:
    with pytest.raises(ValueError, match=r"phrase 0:2 of image '1.jpg' leaves its caption of 1 words \('w0'\)"):
        measure(maps({(0, 0): 1.0}), Phrase("1.jpg", 0, 2, "hat", box(0, 0, 1, 1)))


def test_captions_that_do_not_fit() -> None:
    good = caption(maps({(0, 0): 1.0}))
    with pytest.raises(ValueError, match="got 1 captions, 2 lists"):
        measure_grounding([good], [[], []])
    with pytest.raises(ValueError, match="image '2.jpg' has no attention maps"):
        measure_grounding([caption(None, "2.jpg")], [[]])
    with pytest.raises(ValueError, match=r"maps of one grid, got \[\(5, 7\), \(7, 5\)\]"):
        measure_grounding([good, caption(np.ones((1, COLS, ROWS)))], [[], []])


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_maps_that_are_none(weight: float) -> None:
    weights = maps({(0, 0): 1.0}, {(1, 1): weight})
    with pytest.raises(
        ValueError, match="maps of image '1.jpg' hold negative, infinite or missing weights, or only zeros"
    ):
        measure_grounding([caption(weights)], [[]])


# -------------------------------------------------------------------- faces


def test_faces_phrases() -> None:
    boxes = pd.DataFrame(
        [
            ("1.png", "hat", 0.2, 0.0, 0.8, 0.3),
            ("1.png", "ears", 0.1, 0.4, 0.2, 0.6),
            ("1.png", "ears", 0.8, 0.4, 0.9, 0.6),
            ("2.png", "hat", 0.3, 0.1, 0.7, 0.2),
        ],
        columns=["image_id", "label", "left", "top", "right", "bottom"],
    )
    captions = [caption(np.ones((5, ROWS, COLS)), "1.png"), caption(np.ones((3, ROWS, COLS)), "2.png")]
    first, second = faces_phrases(captions, [[("hat", "red", 1), ("ears", "big", 4)], [("beard", "long", 2)]], boxes)
    assert [(phrase.type, phrase.start, phrase.end) for phrase in first] == [("hat", 1, 2), ("ears", 4, 5)]
    np.testing.assert_allclose(first[1].boxes, [[0.1, 0.4, 0.2, 0.6], [0.8, 0.4, 0.9, 0.6]])
    assert second[0].boxes.shape == (0, 4)  # stated, and not on this face
    result = measure_grounding(captions, [first, second])
    assert (result.n_phrases, result.n_without_box) == (2, 1)
    assert result.per_type.loc["ears", "uniform"] == pytest.approx(0.04)
