"""The Transformer: its block against keras-nlp's, the cache against one pass, maps, sizes that do not fit."""

from __future__ import annotations

import sys
from typing import Any

import keras
import keras_nlp
import numpy as np
import pytest
from keras import ops

from attncap.models.transformer_captioner import DecoderBlock, TransformerCaptioner
from attncap.tokenizers import SPECIAL_TOKENS, START, WordPieceTokenizer, WordTokenizer

B, K, T, ROWS, COLS, D = 2, 3, 5, 7, 11, 13
H, N, F, V = 15, 3, 19, 31
L = ROWS * COLS
WORDS = [f"word{i}" for i in range(V - len(SPECIAL_TOKENS))]


def make_captioner(**options: Any) -> TransformerCaptioner:
    keras.utils.set_random_seed(0)
    sizes = {"hidden_units": H, "heads": N, "feedforward_units": F, "decoder_layers": 2}
    return TransformerCaptioner(
        WordTokenizer([*SPECIAL_TOKENS, *WORDS]), (ROWS, COLS, D), **{**sizes, "dropout": 0.0, **options}
    )


def numpy_of(tensor: Any) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


@pytest.fixture(scope="module")
def batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    token_ids = rng.integers(4, V, size=(B, K, T)).astype(np.int32)
    token_ids[:, :, 0] = START
    return {"features": rng.normal(size=(B, ROWS, COLS, D)).astype(np.float32), "token_ids": token_ids}


def test_keras_hub_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras_nlp", None)  # importing it raises ModuleNotFoundError
    assert type(make_captioner().positions).__module__.startswith("keras_hub")
    pieces = WordPieceTokenizer([*SPECIAL_TOKENS, "climb", "##ing"])
    assert pieces.tokenize("climbing") == [4, 5]


def test_the_block_is_keras_nlps_and_gives_its_cross_attention() -> None:
    keras.utils.set_random_seed(0)
    block = DecoderBlock(H, N, F)
    block.build()
    theirs = keras_nlp.layers.TransformerDecoder(F, N, normalize_first=True, layer_norm_epsilon=1e-3)
    theirs.build((None, None, H), (None, None, H))
    rng = np.random.default_rng(0)
    for own, other in {
        "self_norm": "_self_attention_layer_norm",
        "self_attention": "_self_attention_layer",
        "cross_norm": "_cross_attention_layer_norm",
        "cross_attention": "_cross_attention_layer",
        "feedforward_norm": "_feedforward_layer_norm",
        "inner_dense": "_feedforward_intermediate_dense",
        "outer_dense": "_feedforward_output_dense",
    }.items():
        drawn = [rng.normal(size=weight.shape) for weight in getattr(block, own).weights]
        getattr(block, own).set_weights(drawn)
        getattr(theirs, other).set_weights(drawn)
    x = rng.normal(size=(B, K, T, H)).astype(np.float32)
    values = rng.normal(size=(B, L, H)).astype(np.float32)
    causal = np.tril(np.ones((T, T), bool))[None]
    out, weights, cache = block(x, block.project(values), causal)
    assert cache is None
    for k in range(K):  # theirs has one caption a picture
        np.testing.assert_allclose(numpy_of(out)[:, k], numpy_of(theirs(x[:, k], values)), rtol=1e-3, atol=1e-3)
    assert tuple(weights.shape) == (B, K, T, L)
    np.testing.assert_allclose(numpy_of(weights).sum(-1), np.ones((B, K, T)), atol=1e-5)


def test_the_map_is_the_mean_over_heads_of_the_last_layer(batch: dict[str, np.ndarray]) -> None:
    captioner = make_captioner()
    state = captioner.init_state(batch["features"], captions=K)
    _, _, weights = captioner.step(batch["token_ids"][:, :, 0], state)
    last = captioner.blocks[-1]
    x = numpy_of(captioner.embedding.embeddings)[START] * np.sqrt(H)
    x = np.broadcast_to(x + np.where(np.arange(H) % 2, 1.0, 0.0), (B, K, 1, H)).astype(np.float32)  # sine of 0: 0, 1
    x, _, _ = captioner.blocks[0](x, state.memory["picture_0"], np.ones((1, 1, 1), bool))
    normal = last.self_norm(ops.reshape(x, (B * K, 1, H)))
    after = ops.reshape(x, (B * K, 1, H)) + last.self_attention(normal, normal)  # one word: no mask is needed
    query = numpy_of(last.cross_attention.query_dense(last.cross_norm(after))).reshape(B, K, N, H // N)
    keys = numpy_of(state.memory["picture_1"])[:, 0]  # (B, L, N, H / N)
    scores = np.einsum("bknh,blnh->bknl", query, keys) / np.sqrt(H // N)
    heads = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(numpy_of(weights), heads.mean(axis=2), atol=1e-5)


@pytest.mark.parametrize("window", [3, 40])
def test_the_cache_gives_what_one_pass_gives(window: int, batch: dict[str, np.ndarray]) -> None:
    captioner = make_captioner(window=window)
    expected = numpy_of(captioner(batch))
    state = captioner.init_state(batch["features"], captions=K)
    sizes = {name: tuple(tensor.shape) for name, tensor in state.recurrent.items()}
    assert sizes["cache_1"] == (B, K, 2, window, N, H // N)
    for t in range(T):
        logits, state, _ = captioner.step(batch["token_ids"][:, :, t], state)
        np.testing.assert_allclose(numpy_of(logits), expected[:, :, t], atol=1e-5)
        assert {name: tuple(tensor.shape) for name, tensor in state.recurrent.items()} == sizes
    wide = numpy_of(make_captioner(window=40)(batch))
    assert np.abs(expected - wide)[:, :, :window].max() < 1e-5
    assert window >= T or np.abs(expected - wide)[:, :, window:].max() > 1e-3


def test_a_step_writes_one_place_and_reads_the_past(batch: dict[str, np.ndarray]) -> None:
    captioner = make_captioner()
    state = captioner.init_state(batch["features"], captions=K)
    for t in range(2):
        _, state, _ = captioner.step(batch["token_ids"][:, :, t], state)
    before = numpy_of(state.recurrent["cache_0"])
    assert np.abs(before[:, :, :, :2]).min(axis=(2, 3, 4, 5)).min() >= 0 and (before[:, :, :, 2:] == 0).all()
    plain, after, _ = captioner.step(batch["token_ids"][:, :, 2], state)
    changed = numpy_of(after.recurrent["cache_0"]) != before
    assert changed[:, :, :, 2].any() and not np.delete(changed, 2, axis=3).any()
    # The beam's past goes where the beam goes: rows in another order, logits in that order.
    turned = {name: ops.flip(tensor, axis=1) for name, tensor in state.recurrent.items()}
    logits, _, _ = captioner.step(batch["token_ids"][:, ::-1, 2], type(state)(state.memory, turned))
    np.testing.assert_allclose(numpy_of(logits), numpy_of(plain)[:, ::-1], atol=1e-5)
    forgotten = {**state.recurrent, "cache_0": 0.0 * state.recurrent["cache_0"]}
    logits, _, _ = captioner.step(batch["token_ids"][:, :, 2], type(state)(state.memory, forgotten))
    assert (np.abs(numpy_of(logits) - numpy_of(plain)).max(axis=-1) > 1e-4).all()


def test_order_matters(batch: dict[str, np.ndarray]) -> None:
    captioner = make_captioner()
    token_ids = batch["token_ids"].copy()
    token_ids[:, :, [1, 2]] = token_ids[:, :, [2, 1]]
    before, after = numpy_of(captioner(batch)), numpy_of(captioner({**batch, "token_ids": token_ids}))
    assert (np.abs(after - before)[:, :, 3].max(axis=-1) > 1e-4).all()


@pytest.mark.parametrize("wrong", [{"heads": 4}, {"heads": 0}, {"decoder_layers": 0}, {"window": 0}])
def test_sizes_that_do_not_fit_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"are at least 1, and heads divide hidden_units; got 15, \d, \d, 19 and \d"):
        make_captioner(**wrong)
