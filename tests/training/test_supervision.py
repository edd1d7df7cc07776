"""Supervised attention: the loss by hand, regions in step with targets, maps that move into the boxes."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from attncap.grounding.phrases import NamedRegion
from attncap.models.attention_captioner import AttentionCaptioner
from attncap.models.losses import MaskedCrossentropy, attention_supervision
from attncap.models.saving import load_captioner, save_captioner
from attncap.tokenizers import END, SPECIAL_TOKENS, WordTokenizer
from attncap.training.batches import CaptionBatches
from attncap.training.config import TrainConfig

ROWS, COLS, D = 2, 3, 5
L = ROWS * COLS
TOKENIZER = WordTokenizer([*SPECIAL_TOKENS, *(f"w{n}" for n in range(20))])


def numpy_of(tensor: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


# ------------------------------------------------------------------ the loss


def test_loss_by_hand() -> None:
    weights = np.full((1, 2, 3, 2), 0.5, np.float32)  # (B, K, T, L)
    regions = np.zeros((1, 2, 3, 2), np.float32)
    weights[0, 0, 1] = [0.25, 0.75]
    regions[0, 0, 1] = [0.0, 0.5]  # -log 0.75; half a cell is all of the region
    weights[0, 1, 2] = [0.1, 0.9]
    regions[0, 1, 2] = [3.0, 1.0]  # -(0.75 log 0.1 + 0.25 log 0.9)
    expected = (-np.log(0.75) - 0.75 * np.log(0.1) - 0.25 * np.log(0.9)) / 2
    assert float(attention_supervision(weights, regions)) == pytest.approx(expected, rel=1e-6)


def test_loss_without_regions_is_zero_and_with_an_underflown_weight_finite() -> None:
    weights = np.array([[[[0.0, 1.0]]]], np.float32)
    assert float(attention_supervision(weights, np.zeros_like(weights))) == 0.0
    loss = float(attention_supervision(weights, np.array([[[[1.0, 0.0]]]], np.float32)))
    assert loss == pytest.approx(-np.log(1e-8), rel=1e-5)


# ------------------------------------------------------------------ the batches


def one_hot(cell: int) -> np.ndarray:
    return np.eye(L, dtype=np.float32)[cell]


def features_of(paths: Any) -> np.ndarray:
    return np.zeros((len(paths), ROWS, COLS, D), np.float16)


def test_regions_stand_at_the_step_that_emits_their_word() -> None:
    captions = {"1": ["w0 w1 w2", "w3 w4"], "2": ["w5"]}
    regions = {"1": [[NamedRegion(0, 1, one_hot(5)), NamedRegion(1, 3, one_hot(2))], [NamedRegion(1, 2, one_hot(4))]]}
    batches = CaptionBatches(
        features_of, {"1": "1", "2": "2"}, captions, TOKENIZER, regions=regions, region_cells=L, seed=1
    )
    inputs, targets = batches[0]
    assert inputs["regions"].shape == (2, 2, 4, L) and inputs["regions"].dtype == np.float32
    one = batches.image_ids(0).index("1")
    first = inputs["regions"][one, 0]
    assert targets[one, 0].tolist() == [4, 5, 6, END]  # w0 w1 w2 <end>
    np.testing.assert_array_equal(first, [one_hot(5), one_hot(2), one_hot(2), np.zeros(L)])
    np.testing.assert_array_equal(inputs["regions"][one, 1], [np.zeros(L), one_hot(4), np.zeros(L), np.zeros(L)])
    assert not inputs["regions"][1 - one].any()
    taken = next(iter(batches.for_fit()))[0]
    np.testing.assert_array_equal(numpy_of(taken["regions"]), inputs["regions"])


def test_without_regions_batches_are_as_before() -> None:
    batches = CaptionBatches(features_of, {"1": "1"}, {"1": ["w0"]}, TOKENIZER)
    assert set(batches[0][0]) == {"features", "token_ids"}


def test_regions_of_a_cut_caption_end_with_it() -> None:
    captions = {"1": ["w0 w1 w2 w3 w4"]}
    regions = {"1": [[NamedRegion(1, 5, one_hot(3))]]}
    batches = CaptionBatches(
        features_of, {"1": "1"}, captions, TOKENIZER, max_length=4, regions=regions, region_cells=L
    )
    inputs, targets = batches[0]
    assert targets[0, 0].tolist() == [4, 5, END, 0]
    np.testing.assert_array_equal(inputs["regions"][0, 0].sum(axis=1), [0, 1, 0, 0])


def test_regions_follow_captions_that_are_drawn_anew() -> None:
    captions = {"1": [f"w{n}" for n in range(7)]}  # caption n is token 4 + n, and names cell n % L
    regions = {"1": [[NamedRegion(0, 1, one_hot(n % L))] for n in range(7)]}
    batches = CaptionBatches(
        features_of, {"1": "1"}, captions, TOKENIZER, captions_each=3, regions=regions, region_cells=L
    )
    seen = set()
    for epoch in range(5):
        batches.start_epoch(epoch)
        inputs, targets = batches[0]
        drawn = targets[0, :, 0] - 4
        seen |= set(drawn.tolist())
        np.testing.assert_array_equal(inputs["regions"][0, :, 0].argmax(axis=1), drawn % L)
    assert len(seen) > 3


def test_regions_that_do_not_fit_are_named() -> None:
    def make(regions: Any) -> CaptionBatches:
        return CaptionBatches(features_of, {"1": "1"}, {"1": ["w0"]}, TOKENIZER, regions=regions, region_cells=L)

    with pytest.raises(ValueError, match="image '1': regions of 2 captions, it has 1"):
        make({"1": [[], []]})
    with pytest.raises(ValueError, match=r"image '1': a region's cover needs shape \(6,\), got \(4,\)"):
        make({"1": [[NamedRegion(0, 1, np.ones(4))]]})


# ------------------------------------------------------------------ the captioner


def make_captioner(**options: Any) -> AttentionCaptioner:
    keras.utils.set_random_seed(3)
    sizes = {"embedding_units": 17, "hidden_units": 19, "projection_units": 23, "attention_units": 29}
    return AttentionCaptioner(TOKENIZER, (ROWS, COLS, D), **{**sizes, "dropout": 0.0, **options})


def test_supervision_moves_maps_into_their_boxes() -> None:
    """Each picture has a mark, whose place the second word tells; the boxes are one cell beside it.

    Words alone would teach to look at the mark, so that only supervision brings the maps beside it.
    """
    features = np.random.default_rng(0).normal(0, 0.3, (12, L, D)).astype(np.float16)
    cells = np.arange(12) % L
    features[np.arange(12), cells, cells % D] = 3.0
    features[np.arange(12), (cells + 1) % L, (cells + 1) % D] = -3.0
    features = features.reshape(12, ROWS, COLS, D)
    names = [str(n) for n in range(12)]
    batches = CaptionBatches(
        lambda chosen: features[[int(path) for path in chosen]],
        dict(zip(names, names, strict=True)),
        {name: [f"w0 w{1 + cells[int(name)]}"] for name in names},
        TOKENIZER,
        regions={name: [[NamedRegion(1, 2, one_hot((cells[int(name)] + 1) % L))]] for name in names},
        region_cells=L,
    )
    captioner = make_captioner(attention_supervision=2.0, attention_penalty=0.0)
    inputs, _ = batches[0]

    def mass() -> float:
        state = captioner.init_state(inputs["features"])
        for t in range(2):
            _, state, weights = captioner.step(inputs["token_ids"][:, :, t], state)
        return float((numpy_of(weights)[:, 0] * inputs["regions"][:, 0, 1]).sum(axis=-1).mean())

    assert mass() == pytest.approx(1 / L, abs=0.1)
    captioner.compile(keras.optimizers.Adam(0.02), loss=MaskedCrossentropy(), jit_compile=False)
    captioner.fit(batches.for_fit(), epochs=20, verbose=0, shuffle=False)
    assert mass() > 0.8


def test_no_supervision_outside_training_or_without_regions() -> None:
    captioner = make_captioner(attention_supervision=1.0, attention_penalty=0.0)
    inputs = {
        "features": np.zeros((2, ROWS, COLS, D), np.float32),
        "token_ids": np.array([[[1, 4]]] * 2, np.int32),
        "regions": np.ones((2, 1, 2, L), np.float32),
    }
    captioner(inputs, training=False)
    assert captioner.losses == []
    captioner({name: inputs[name] for name in ("features", "token_ids")}, training=True)
    assert captioner.losses == []
    captioner(inputs, training=True)
    [loss] = captioner.losses
    assert float(loss) == pytest.approx(np.log(L), rel=1e-4)  # equal features, uniform maps, uniform regions


def test_supervision_is_saved_and_files_from_before_it_load(tmp_path: Path) -> None:
    save_captioner(make_captioner(attention_supervision=0.7), tmp_path / "new.keras")
    assert load_captioner(tmp_path / "new.keras").attention_supervision == 0.7
    old = tmp_path / "old.keras"
    with zipfile.ZipFile(tmp_path / "new.keras") as new, zipfile.ZipFile(old, "w") as before:
        for name in new.namelist():
            content = new.read(name)
            if name == "config.json":
                config = json.loads(content)
                del config["config"]["attention_supervision"]
                content = json.dumps(config).encode()
            before.writestr(name, content)
    captioner = load_captioner(old)
    assert captioner.attention_supervision == 0.0
    for one, two in zip(captioner.weights, load_captioner(tmp_path / "new.keras").weights, strict=True):
        np.testing.assert_array_equal(numpy_of(one), numpy_of(two))


def test_the_setting_is_a_weight() -> None:
    assert TrainConfig().attention_supervision == 0.0
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="attention_supervision (must be at least 0|is a finite number)"):
            TrainConfig(attention_supervision=wrong)
