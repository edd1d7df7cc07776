"""Deletion and insertion curves by hand; permuted and uniform attention; weights randomized layer by layer."""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np
import pytest

from attncap.captions import Caption
from attncap.explain.faithfulness import measure_maps
from attncap.explain.interventions import (
    layers_from_the_output,
    measure_interventions,
    measure_randomization,
    randomized,
    spearman,
    with_permuted_keys,
)
from attncap.explain.plots import plot_explanations, plot_faithfulness
from attncap.explain.words import Explainer
from attncap.models.attention_captioner import AttentionCaptioner
from attncap.models.captioner import CaptionerState
from attncap.models.ensemble import Ensemble
from attncap.models.show_and_tell import ShowAndTell
from attncap.models.transformer_captioner import TransformerCaptioner
from tests.captioners import COLS, ROWS, D, L, ReadsCells, picture_with, seeded, sigmoid
from tests.plotting.drawing import assert_nothing_cut_off, assert_texts_apart

ATTENTION: dict[str, Any] = {"embedding_units": 11, "hidden_units": 13, "projection_units": 17, "attention_units": 19}


def caption_with(cells: list[int], grid: tuple[int, int] = (ROWS, COLS)) -> Caption:
    maps = np.eye(grid[0] * grid[1], dtype=np.float32)[cells].reshape(-1, *grid)
    return Caption(("dog", "red")[: len(cells)], (5, 6)[: len(cells)], 0.0, maps, image_id="1.jpg")


def test_deletion_and_insertion_by_hand() -> None:
    captioner = ReadsCells(dog=6, red=11)
    features = picture_with({6: 3.0})[None]
    # One map points at the cell that "dog" is read from, the other at one that nothing reads.
    explained = {"right": [caption_with([6])], "wrong": [caption_with([3])]}
    found = measure_maps(captioner, features, explained, baseline="zero", fractions=(0.1, 0.5), n_bootstrap=10)
    full, nothing = sigmoid(3.0), 0.5
    right: Any = found.table.loc["right"]
    # p falls to 1/2 with the first hidden cell: 2 of 15 cells are the fraction 0.1.
    assert right["deletion"] == pytest.approx(0.1 * (full + nothing) / 2 + 0.9 * nothing, rel=1e-4)
    assert right["insertion"] == pytest.approx(0.1 * (full + nothing) / 2 + 0.9 * full, rel=1e-4)
    assert right["comprehensiveness"] == pytest.approx(full - nothing, rel=1e-4)
    assert right["sufficiency"] == pytest.approx(0.0, abs=1e-5)
    wrong: Any = found.table.loc["wrong"]
    assert wrong["deletion"] > right["deletion"] and wrong["insertion"] < right["insertion"]
    assert list(found.table.index) == ["right", "wrong", "random"] and found.n_words == found.n_images == 1
    assert found.curves[found.curves["method"] == "right"]["deletion"].round(4).tolist() == [
        round(full, 4),
        *[nothing] * 3,
    ]
    assert "deletion (low)" in found.to_text() and json.dumps(found.to_json_dict())
    assert found.to_markdown().count("\n") == 4
    assert found.shown().loc["right", "deletion (low)"].startswith(f"{right['deletion']:.3f} [")


def test_padding_of_masked_regions_is_no_part_of_the_image() -> None:
    captioner = ReadsCells(dog=6)
    captioner.masked = True
    features = picture_with({6: 3.0, 3: 1.0, 4: 1.0, 5: 1.0})[None]  # the other 11 of 15 cells are zeros: padding
    explained = {"right": [caption_with([6])]}
    found = measure_maps(captioner, features, explained, baseline="zero", fractions=(0.25,), n_bootstrap=10)
    full, nothing = sigmoid(3.0), 0.5
    curves = found.curves.groupby("method")[["deletion", "insertion"]].agg(list)
    assert curves.loc["right", "deletion"] == pytest.approx([full, nothing, nothing], rel=1e-4)  # one of 4 cells
    assert curves.loc["right", "insertion"] == pytest.approx([nothing, full, full], rel=1e-4)


def test_maps_on_another_grid_are_read_at_the_cells_centers() -> None:
    captioner = ReadsCells(dog=0)
    features = picture_with({0: 3.0})[None]
    coarse = Caption(("dog",), (5,), 0.0, np.array([[[1.0]]], np.float32).repeat(2, axis=2) * [0.9, 0.1], image_id="1")
    found = measure_maps(captioner, features, {"coarse": [coarse]}, baseline="zero", fractions=(0.5,), n_bootstrap=5)
    assert found.table.loc["coarse", "comprehensiveness"] == pytest.approx(sigmoid(3.0) - 0.5, rel=1e-3)


def test_random_maps_are_between_the_best_and_the_worst() -> None:
    captioner = ReadsCells(dog=6, red=11)
    features = np.stack([picture_with({6: 3.0, 11: 3.0})] * 9)
    explained = {
        "best": [caption_with([6, 11])] * 9,
        "occlusion": Explainer(captioner, baseline="zero")(features, ["dog red"] * 9),
    }
    table: Any = measure_maps(captioner, features, explained, baseline="zero", n_bootstrap=50).table
    assert table.loc["occlusion", "deletion"] == pytest.approx(table.loc["best", "deletion"])
    assert table.loc["best", "deletion"] < table.loc["random", "deletion"]
    assert table.loc["best", "insertion_over_random_low"] > 0 and table.loc["random", "insertion_over_random"] == 0


def test_what_faithfulness_refuses() -> None:
    captioner, features = ReadsCells(), picture_with({})[None]
    with pytest.raises(ValueError, match="explained needs at least one method"):
        measure_maps(captioner, features, {})
    with pytest.raises(ValueError, match="a: 1 captions expected, one per image, got 0"):
        measure_maps(captioner, features, {"a": []})
    with pytest.raises(ValueError, match="b: 'dog red' is another caption than 'dog'"):
        measure_maps(captioner, features, {"a": [caption_with([1])], "b": [caption_with([1, 2])]})
    with pytest.raises(ValueError, match="a: the caption of image None has no maps"):
        measure_maps(captioner, features, {"a": [Caption(("dog",), (5,), 0.0)]})
    with pytest.raises(ValueError, match=r"fractions need to increase between 0 and 1, got \[0.5, 0.1\]"):
        measure_maps(captioner, features, {"a": [caption_with([1])]}, fractions=(0.5, 0.1))
    with pytest.raises(ValueError, match="no word to measure"):
        measure_maps(captioner, features, {"a": [Caption((), (), 0.0, np.zeros((0, 2, 2)))]})


# ------------------------------------------------------------------ interventions


@pytest.fixture(scope="module")
def captioner() -> AttentionCaptioner:
    return seeded(AttentionCaptioner, **ATTENTION)


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 2, (3, ROWS, COLS, D)).astype(np.float32)


@pytest.mark.parametrize("kind", ["attention", "transformer"])
def test_permuted_keys_permute_the_map_and_nothing_else(kind: str, features: np.ndarray) -> None:
    transformer: dict[str, Any] = {"hidden_units": 12, "heads": 3, "feedforward_units": 7, "decoder_layers": 1}
    made = (
        seeded(TransformerCaptioner, **transformer)
        if kind == "transformer"
        else seeded(AttentionCaptioner, **ATTENTION)
    )
    order = np.random.default_rng(1).permutation(L)
    state = made.init_state(features)
    token_ids = np.ones((3, 1), np.int32)
    plain, permuted = made.step(token_ids, state), made.step(token_ids, with_permuted_keys(state, order))
    before, after = (keras.ops.convert_to_numpy(result[2])[:, 0] for result in (plain, permuted))
    np.testing.assert_allclose(after, before[:, order], rtol=1e-4)
    assert np.abs(keras.ops.convert_to_numpy(plain[0]) - keras.ops.convert_to_numpy(permuted[0])).max() > 1e-4
    with pytest.raises(ValueError, match="holds no keys, only values"):
        with_permuted_keys(CaptionerState({"values": features}, {}), order)


@pytest.mark.parametrize("kind", ["attention", "transformer", "ensemble"])
def test_padding_keeps_its_place_when_attention_is_permuted(kind: str, features: np.ndarray) -> None:
    transformer: dict[str, Any] = {"hidden_units": 12, "heads": 3, "feedforward_units": 7, "decoder_layers": 1}
    made: Any = {
        "attention": lambda: seeded(AttentionCaptioner, **ATTENTION, masked=True),
        "transformer": lambda: seeded(TransformerCaptioner, **transformer, masked=True),
        "ensemble": lambda: Ensemble([seeded(AttentionCaptioner, **ATTENTION, masked=True)]),
    }[kind]()
    there = np.random.default_rng(2).random((3, L)) < [[0.2], [0.6], [1.0]]  # padding anywhere, in one image none
    seen = np.where(there.reshape(3, ROWS, COLS, 1), features, 0)
    order = np.random.default_rng(1).permutation(L)
    state, token_ids = made.init_state(seen), np.ones((3, 1), np.int32)
    before, after = (
        keras.ops.convert_to_numpy(made.step(token_ids, used)[2])[:, 0]
        for used in (state, with_permuted_keys(state, order))
    )
    for real, old, new in zip(there, before, after, strict=True):
        moved = np.arange(L)
        moved[real] = order[real[order]]  # the regions that there are, as they stand in the order
        np.testing.assert_allclose(new, old[moved], rtol=1e-4)
        assert (new[~real] == 0).all() and (real.sum() == L) == np.array_equal(moved, order)


def test_interventions_are_felt_where_attention_matters(captioner: AttentionCaptioner, features: np.ndarray) -> None:
    table: Any = measure_interventions(captioner, features, ["a dog", "red hat", "a cat runs"], n_bootstrap=20)
    assert list(table.index) == ["permuted", "uniform"] and table["n_words"].tolist() == [7, 7]
    assert (table["tvd"] > 0).all() and (table["tvd_low"] <= table["tvd"]).all()
    with pytest.raises(ValueError, match="ShowAndTell has no attention to permute"):
        measure_interventions(seeded(ShowAndTell, embedding_units=3, hidden_units=5), features, ["a"] * 3)


def test_layers_go_from_the_output_down_and_come_back(captioner: AttentionCaptioner) -> None:
    names = [layer.name for layer in layers_from_the_output(captioner)]
    assert names[:3] == ["logits", "context_readout", "hidden_readout"]
    assert names[-3:] == ["value_norm", "values", "embedding"] and "attention" in names
    before = [np.array(keras.ops.convert_to_numpy(weight)) for weight in captioner.weights]
    layers = layers_from_the_output(captioner)
    with pytest.raises(KeyError), randomized(layers):
        kernel = keras.ops.convert_to_numpy(captioner.logits_dense.kernel)
        learned = before[[w.path for w in captioner.weights].index(captioner.logits_dense.kernel.path)]
        assert not np.array_equal(kernel, learned)
        np.testing.assert_array_equal(np.sort(kernel, axis=None), np.sort(learned, axis=None))
        raise KeyError
    for weight, kept in zip(captioner.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), kept)


@pytest.mark.slow
def test_attention_does_not_depend_on_the_readout_and_occlusion_does(
    captioner: AttentionCaptioner, features: np.ndarray
) -> None:
    table = measure_randomization(
        captioner, features, ["red hat", "a", "dog"], ("attention", "occlusion"), n_bootstrap=5
    )
    attention, occlusion = (table[table["method"] == name].reset_index() for name in ("attention", "occlusion"))
    assert attention["layer"][0] == "none" and attention["correlation"][0] == pytest.approx(1)
    np.testing.assert_allclose(attention["correlation"][:4], 1.0)  # logits and the two readouts
    assert occlusion["correlation"][1] < 0.9
    assert attention["correlation"].iloc[-1] < 0.9


def test_spearman_by_hand() -> None:
    assert spearman(np.array([1.0, 2, 3]), np.array([10.0, 20, 40])) == pytest.approx(1)
    assert spearman(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == pytest.approx(-1)
    assert spearman(np.ones(3), np.array([1.0, 2, 3])) == 0 and spearman(np.ones(3), np.ones(3)) == 1


# ------------------------------------------------------------------ plots


def check_drawn(figure: Any) -> None:
    assert_nothing_cut_off(figure)
    assert_texts_apart(figure)


def test_plots_of_explanations_and_faithfulness() -> None:
    captioner = ReadsCells(dog=6, red=11, attends=2)
    features = np.stack([picture_with({6: 3.0, 11: 3.0})] * 2)
    methods: Any = ("attention", "occlusion")
    explained = {name: Explainer(captioner, name)(features, ["dog red"] * 2) for name in methods}
    photo = np.full((40, 60, 3), 200, np.uint8)
    figure = plot_explanations(photo, {name: own[0] for name, own in explained.items()})
    assert len([ax for ax in figure.axes if ax.get_label().startswith("attention word")]) == 2
    check_drawn(figure)
    found = measure_maps(captioner, features, explained, n_bootstrap=10)
    renamed = {"gradient, 16 steps": explained["attention"], **explained}
    check_drawn(plot_faithfulness(measure_maps(captioner, features, renamed, n_bootstrap=10)))
    figure = plot_faithfulness(found)
    assert [ax.get_title(loc="left") for ax in figure.axes[:2]] == [
        "Deletion: lower is better",
        "Insertion: higher is better",
    ]
    assert len(figure.axes[0].lines) == 3
    check_drawn(figure)
    with pytest.raises(ValueError, match="at least one method"):
        plot_explanations(photo, {})
    with pytest.raises(ValueError, match="occlusion: other words"):
        plot_explanations(photo, {"attention": explained["attention"][0], "occlusion": caption_with([1])})


def test_captions_without_maps_are_refused() -> None:
    features = picture_with({6: 2.0})[None]
    with pytest.raises(TypeError, match="occlusion: captions with maps expected, got 'dog'"):
        measure_maps(ReadsCells(), features, {"occlusion": ["dog"]})  # type: ignore[list-item]
    with pytest.raises(TypeError, match="explained maps names of methods to captions with maps"):
        measure_maps(ReadsCells(), features, [Caption(("dog",), (5,), 0.0)])  # type: ignore[arg-type]
