"""`BahdanauAttention` against numbers worked out by hand, on axes that are all different primes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from attncap.models.attention import BahdanauAttention

B, K, L, D, H, A = 2, 3, 5, 7, 11, 13


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "query": rng.normal(size=(B, K, H)).astype(np.float32),
        "values": rng.normal(size=(B, L, D)).astype(np.float32),
    }


def numpy_of(tensor: Any) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def test_two_regions_by_hand() -> None:
    # H = D = A = 2, L = 2. The query adds (1, 0); the keys are the values + b, b = (0, 1); w = (2, 1).
    attention = BahdanauAttention(2)
    attention.build((None, 2), (None, None, 2))
    attention.query_dense.set_weights([np.array([[1.0, 0.0], [0.0, 3.0]])])
    attention.key_dense.set_weights([np.eye(2), np.array([0.0, 1.0])])
    attention.score_dense.set_weights([np.array([[2.0], [1.0]])])
    query = np.array([[1.0, 0.0]], np.float32)
    values = np.array([[[-1.0, -1.0], [0.5, 1.0]]], np.float32)
    # region 1: tanh(1 - 1) * 2 + tanh(-1 + 1) = 0; region 2: 2 tanh(1.5) + tanh(2)
    score = 2 * math.tanh(1.5) + math.tanh(2.0)
    second = 1 / (1 + math.exp(-score))
    context, weights = attention(query, values, return_attention_scores=True)
    np.testing.assert_allclose(numpy_of(weights), [[1 - second, second]], atol=1e-6)
    np.testing.assert_allclose(numpy_of(context), [[-(1 - second) + 0.5 * second, -(1 - second) + second]], atol=1e-6)


def test_equation_on_prime_axes(arrays: dict[str, np.ndarray]) -> None:
    attention = BahdanauAttention(A)
    context, weights = attention(**arrays, return_attention_scores=True)
    assert tuple(context.shape) == (B, K, D)
    assert tuple(weights.shape) == (B, K, L)
    assert [tuple(w.shape) for w in attention.weights] == [(H, A), (D, A), (A,), (A, 1)]
    # The equation once more, a caption and a region at a time.
    w_q, w_k, b, w = (np.array(numpy_of(weight)) for weight in attention.weights)
    for i, k in np.ndindex(B, K):
        scores = [
            float(np.tanh(arrays["query"][i, k] @ w_q + arrays["values"][i, at] @ w_k + b) @ w[:, 0]) for at in range(L)
        ]
        expected = np.exp(scores) / np.sum(np.exp(scores))
        np.testing.assert_allclose(numpy_of(weights)[i, k], expected, atol=1e-5)
        np.testing.assert_allclose(numpy_of(context)[i, k], expected @ arrays["values"][i], atol=1e-5)
    np.testing.assert_allclose(numpy_of(weights).sum(-1), np.ones((B, K)), atol=1e-6)


def test_context_alone_without_return_attention_scores(arrays: dict[str, np.ndarray]) -> None:
    attention = BahdanauAttention(A)
    context = attention(**arrays)
    np.testing.assert_array_equal(numpy_of(context), numpy_of(attention(**arrays, return_attention_scores=True)[0]))


def test_keys_given_are_keys_projected(arrays: dict[str, np.ndarray]) -> None:
    attention = BahdanauAttention(A)
    plain = attention(**arrays)
    keys = attention.project(arrays["values"])
    assert tuple(keys.shape) == (B, L, A)
    np.testing.assert_allclose(numpy_of(attention(**arrays, keys=keys)), numpy_of(plain), atol=1e-6)
    # The keys given are the ones that are used.
    assert np.abs(numpy_of(attention(**arrays, keys=2.0 * keys)) - numpy_of(plain)).max() > 1e-3


def test_project_may_come_first(arrays: dict[str, np.ndarray]) -> None:
    attention = BahdanauAttention(A)
    keys = attention.project(arrays["values"])
    with_keys = attention(**arrays, keys=keys)
    assert len(attention.weights) == 4
    np.testing.assert_allclose(numpy_of(attention(**arrays)), numpy_of(with_keys), atol=1e-6)


def test_one_query_is_a_row_of_many(arrays: dict[str, np.ndarray]) -> None:
    attention = BahdanauAttention(A)
    contexts, weights = (numpy_of(x) for x in attention(**arrays, return_attention_scores=True))
    for k in range(K):
        context, row = attention(arrays["query"][:, k], arrays["values"], return_attention_scores=True)
        assert tuple(context.shape) == (B, D)
        assert tuple(row.shape) == (B, L)
        np.testing.assert_allclose(numpy_of(context), contexts[:, k], atol=1e-6)
        np.testing.assert_allclose(numpy_of(row), weights[:, k], atol=1e-6)


def test_masked_regions_are_as_if_absent(arrays: dict[str, np.ndarray]) -> None:
    attention = BahdanauAttention(A)
    mask = np.array([[True, True, False, True, False], [False, True, True, True, True]])
    context, weights = attention(**arrays, mask=mask, return_attention_scores=True)
    weights = numpy_of(weights)
    for i in range(B):
        assert (weights[i][:, ~mask[i]] == 0).all()
        short_context, short_weights = attention(
            arrays["query"][i : i + 1], arrays["values"][i : i + 1, mask[i]], return_attention_scores=True
        )
        np.testing.assert_allclose(weights[i][:, mask[i]], numpy_of(short_weights)[0], atol=1e-6)
        np.testing.assert_allclose(numpy_of(context)[i], numpy_of(short_context)[0], atol=1e-6)
    np.testing.assert_allclose(weights.sum(-1), np.ones((B, K)), atol=1e-6)


def test_bfloat16_weights_still_sum_to_one(arrays: dict[str, np.ndarray]) -> None:
    attention = BahdanauAttention(A, dtype="mixed_bfloat16")
    values = np.tile(arrays["values"], (1, 20, 1))  # 100 regions: bfloat16 weights would be off by a percent
    context, weights = attention(arrays["query"], values, return_attention_scores=True)
    assert keras.backend.standardize_dtype(context.dtype) == "bfloat16"
    assert keras.backend.standardize_dtype(weights.dtype) == "float32"
    np.testing.assert_allclose(numpy_of(weights).sum(-1), np.ones((B, K)), atol=1e-6)


def test_wrong_ranks_are_refused(arrays: dict[str, np.ndarray]) -> None:
    attention = BahdanauAttention(A)
    attention(**arrays)
    with pytest.raises(ValueError, match=r"query needs shape \(B, H\) or \(B, K, H\).*\(2, 3, 1, 11\)"):
        attention(arrays["query"][:, :, None], arrays["values"])
    with pytest.raises(ValueError, match=r"values \(B, L, D\), got \(2, 3, 11\) and \(2, 7\)"):
        attention(arrays["query"], arrays["values"][:, 0])


def test_queries_and_values_of_different_images_are_refused(arrays: dict[str, np.ndarray]) -> None:
    attention = BahdanauAttention(A)
    attention(**arrays)
    with pytest.raises(ValueError, match=r"different numbers of images: 1 and 2"):
        attention(arrays["query"][:1], arrays["values"])


def test_config_and_weights_survive_saving(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    query = keras.Input((K, H))
    values = keras.Input((L, D))
    mask = keras.Input((L,), dtype="bool")
    attention = BahdanauAttention(A, name="look")
    outputs = attention(query, values, mask=mask, return_attention_scores=True)
    model = keras.Model([query, values, mask], outputs)
    inputs = [arrays["query"], arrays["values"], np.array([[True] * 4 + [False]] * B)]
    before = model(inputs)
    model.save(tmp_path / "attention.keras")
    again = keras.saving.load_model(tmp_path / "attention.keras")
    for old, new in zip(before, again(inputs), strict=True):
        np.testing.assert_array_equal(numpy_of(new), numpy_of(old))
    config = BahdanauAttention.from_config(attention.get_config()).get_config()
    assert config == attention.get_config()
    assert config["units"] == A
    assert config["name"] == "look"


def test_the_mask_that_keras_carries_with_the_values_counts(arrays: dict[str, np.ndarray]) -> None:
    attention = BahdanauAttention(A)
    tokens = np.array([[3, 1, 0, 2, 0], [0, 4, 4, 0, 1]])  # 0 is masked
    values = keras.layers.Embedding(5, D, mask_zero=True)(tokens)
    _, weights = attention(arrays["query"], values, return_attention_scores=True)
    assert (numpy_of(weights)[np.broadcast_to((tokens == 0)[:, None], (B, K, L))] == 0).all()
    given = np.array([[True, False, True, True, True], [True, True, False, True, True]])
    _, both = attention(arrays["query"], values, mask=given, return_attention_scores=True)
    allowed = np.broadcast_to((given & (tokens != 0))[:, None], (B, K, L))
    assert (numpy_of(both)[~allowed] == 0).all() and (numpy_of(both)[allowed] > 0).all()
    plain = attention(arrays["query"], np.array(numpy_of(values)), mask=given & (tokens != 0))
    np.testing.assert_allclose(numpy_of(attention(arrays["query"], values, mask=given)), numpy_of(plain), atol=1e-6)


@pytest.mark.parametrize("shape", [(L,), (B, 1, L), (B, L + 1), (B + 1, L), (L, B)])
def test_a_mask_of_another_shape_is_refused(arrays: dict[str, np.ndarray], shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"mask needs shape \(B, L\) = \(2, 5\), one value per region, got \("):
        BahdanauAttention(A)(**arrays, mask=np.ones(shape, bool))
