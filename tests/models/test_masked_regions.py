"""Captioners of region features: rows of zeros are padding, and count for nothing anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from attncap.decoding.decoder import Decoder
from attncap.decoding.replay import CaptionReplay, MemberReplay
from attncap.decoding.to_caption import with_boxes
from attncap.explain.interventions import measure_randomization
from attncap.features.extractor import FeatureExtractor
from attncap.models.adaptive_attention_captioner import AdaptiveAttentionCaptioner
from attncap.models.attention_captioner import AttentionCaptioner
from attncap.models.captioner import Captioner, regions_there
from attncap.models.ensemble import Ensemble
from attncap.models.losses import MaskedCrossentropy, doubly_stochastic_penalty
from attncap.models.saving import load_captioner, save_captioner
from attncap.models.show_and_tell import ShowAndTell
from attncap.models.transformer_captioner import TransformerCaptioner
from attncap.tokenizers import END, SPECIAL_TOKENS, START, WordTokenizer

B, K, T, L, D = 3, 2, 5, 7, 13
COUNTS = (4, 7, 1)  # regions of each image
SIZES: dict[Any, dict[str, int]] = {
    AttentionCaptioner: {"embedding_units": 17, "hidden_units": 19, "projection_units": 23, "attention_units": 29},
    AdaptiveAttentionCaptioner: {"embedding_units": 17, "hidden_units": 19, "projection_units": 23},
    TransformerCaptioner: {"hidden_units": 21, "heads": 3, "feedforward_units": 19},
    ShowAndTell: {"embedding_units": 17, "hidden_units": 19},
}
each = pytest.mark.parametrize("kind", SIZES, ids=lambda kind: kind.__name__)


def make(kind: Any, regions: int = L, masked: bool = True, **options: Any) -> Captioner:
    keras.utils.set_random_seed(0)
    tokenizer = WordTokenizer([*SPECIAL_TOKENS, *"abcdefghij"])
    captioner = kind(tokenizer, (1, regions, D), masked=masked, **SIZES[kind], **{"dropout": 0.0, **options})
    for weight in captioner.trainable_variables:
        weight.assign(2.0 * weight)  # untrained, it says much the same of every image
    return captioner


@pytest.fixture(scope="module")
def batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(B, 1, L, D)).astype(np.float32)
    for row, count in zip(features, COUNTS, strict=True):
        row[0, count:] = 0
    token_ids = rng.integers(END + 2, len(SPECIAL_TOKENS) + 10, size=(B, K, T)).astype(np.int32)
    token_ids[:, :, 0] = START
    return {"features": features, "token_ids": token_ids}


def numpy_of(tensor: Any) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


@each
def test_padding_changes_nothing(kind: Any, batch: dict[str, np.ndarray]) -> None:
    logits = numpy_of(make(kind)(batch))
    for row, count in enumerate(COUNTS):
        alone = {
            "features": batch["features"][row : row + 1, :, :count],
            "token_ids": batch["token_ids"][row : row + 1],
        }
        expected = make(kind, regions=count, masked=False)(alone)
        np.testing.assert_allclose(logits[row : row + 1], numpy_of(expected), atol=2e-5)
    unmasked = numpy_of(make(kind, masked=False)(batch))
    assert np.abs(unmasked[0] - logits[0]).max() > 1e-4  # ShowAndTell normalizes the mean: small
    np.testing.assert_allclose(unmasked[1], logits[1], atol=2e-5)  # the image without padding


@each
def test_decoded_and_replayed_maps_have_no_weight_on_padding(kind: Any, batch: dict[str, np.ndarray]) -> None:
    captioner = make(kind)
    captions = Decoder(captioner, beam_width=3, max_length=6)(batch["features"])
    again = CaptionReplay(captioner)(batch["features"], [[caption.text or "a"] for caption in captions])
    for count, caption, (replayed,) in zip(COUNTS, captions, again, strict=True):
        if kind is ShowAndTell:
            assert caption.attention_weights is None
            continue
        for one in (caption, replayed):
            assert one.attention_weights is not None and one.attention_weights.shape[1:] == (1, L)
            assert (one.attention_weights[:, 0, count:] == 0).all()
            np.testing.assert_allclose(one.attention_weights.sum(axis=(1, 2)), 1.0, atol=1e-5)


@each
def test_an_ensemble_and_a_saved_file_go_on_masking(kind: Any, batch: dict[str, np.ndarray], tmp_path: Path) -> None:
    captioner = make(kind)
    save_captioner(captioner, tmp_path / "it.keras")
    again = load_captioner(tmp_path / "it.keras")
    assert again.masked and "masked" not in make(kind, masked=False).get_config()
    np.testing.assert_array_equal(numpy_of(again(batch)), numpy_of(captioner(batch)))
    texts = [[c.text for c in Decoder(model, max_length=6)(batch["features"])] for model in (captioner, again)]
    both = [c.text for c in Decoder(Ensemble([captioner, again]), max_length=6)(batch["features"])]
    assert texts[0] == texts[1] == both
    for model in (captioner, Ensemble([captioner, again])):
        for image, count in zip(batch["features"], COUNTS, strict=True):
            assert regions_there(model, image).tolist() == [[True] * count + [False] * (L - count)]
    assert regions_there(make(kind, masked=False), batch["features"][0]).all()


def test_padding_does_not_make_maps_alike(batch: dict[str, np.ndarray]) -> None:
    found = []
    for regions in (L, COUNTS[0]):
        captioner = make(AttentionCaptioner, regions=regions, masked=regions == L)
        found.append(
            measure_randomization(
                captioner, batch["features"][:1, :, :regions], ["a b c"], ("attention",), n_bootstrap=2
            )["correlation"]
        )
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert found[0].min() < 0.9


def test_members_read_again_keep_the_boxes(batch: dict[str, np.ndarray]) -> None:
    ensemble = Ensemble([make(AttentionCaptioner), make(TransformerCaptioner)])
    boxes = np.random.default_rng(0).uniform(size=(B, L, 4)).astype(np.float32)
    captions = with_boxes(Decoder(ensemble, max_length=6)(batch["features"]), boxes)
    for read in MemberReplay(ensemble)(batch["features"], captions):
        for caption, own, count in zip(read, boxes, COUNTS, strict=True):
            assert caption.attention_weights is not None and not caption.attention_weights[:, :, count:].any()
            np.testing.assert_array_equal(caption.boxes, own)


@each
def test_training_is_blind_to_padding(kind: Any, batch: dict[str, np.ndarray]) -> None:
    penalty = {} if kind is ShowAndTell else {"attention_penalty": 1.0}
    losses = []
    for regions in (L, COUNTS[0]):
        captioner = make(kind, regions=regions, masked=regions == L, **penalty)
        captioner.compile(keras.optimizers.SGD(0.1), loss=MaskedCrossentropy(), jit_compile=False)
        inputs = {"features": batch["features"][:1, :, :regions], "token_ids": batch["token_ids"][:1]}
        losses.append([captioner.train_on_batch(inputs, batch["token_ids"][:1]) for _ in range(3)])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_the_penalty_is_the_mean_over_regions_that_are_there() -> None:
    weights = np.array([[[[0.5, 0.5, 0.0]]]], np.float32)  # (B, K, T, L): one word, three regions, one of them padding
    token_ids = np.array([[[START]]])
    mask = np.array([[True, True, False]])
    assert float(doubly_stochastic_penalty(weights, token_ids, mask)) == pytest.approx(0.25)
    assert float(doubly_stochastic_penalty(weights, token_ids)) == pytest.approx((0.25 + 0.25 + 1.0) / 3)


def test_an_encoder_has_no_padding() -> None:
    with pytest.raises(ValueError, match="masked is for features computed elsewhere"):
        AttentionCaptioner(
            WordTokenizer([*SPECIAL_TOKENS, "a"]), encoder=FeatureExtractor("mixed0", "random", 75), masked=True
        )
