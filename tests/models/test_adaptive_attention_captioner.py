"""Adaptive attention: the sentinel's equations, looking and not looking, what a caption says of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from matplotlib.text import Text

from attncap.captions import Caption
from attncap.decoding.to_caption import caption_of
from attncap.models.adaptive_attention_captioner import AdaptiveAttention, AdaptiveAttentionCaptioner
from attncap.models.attention import BahdanauAttention
from attncap.models.losses import doubly_stochastic_penalty
from attncap.plotting.attention import plot_attention
from attncap.tokenizers import PAD, SPECIAL_TOKENS, START, WordTokenizer

B, K, T, ROWS, COLS, D = 2, 3, 5, 7, 11, 13
E, H, D2, A, G, V = 17, 19, 23, 29, 37, 31
L = ROWS * COLS
WORDS = [f"word{i}" for i in range(V - len(SPECIAL_TOKENS))]


def make_captioner(**options: Any) -> AdaptiveAttentionCaptioner:
    keras.utils.set_random_seed(0)
    sizes = {"embedding_units": E, "hidden_units": H, "projection_units": D2, "attention_units": A}
    return AdaptiveAttentionCaptioner(
        WordTokenizer([*SPECIAL_TOKENS, *WORDS]), (ROWS, COLS, D), **{**sizes, "dropout": 0.0, **options}
    )


def numpy_of(tensor: Any) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(tensor, "float32"))


def dense(layer: Any, x: np.ndarray) -> np.ndarray:
    kernel, *bias = (numpy_of(weight) for weight in layer.weights)
    return x @ kernel + (bias[0] if bias else 0.0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.fixture(scope="module")
def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"query": (B, K, H), "values": (B, L, D2), "gate_inputs": (B, K, G)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def attention() -> AdaptiveAttention:
    keras.utils.set_random_seed(0)
    attention = AdaptiveAttention(A)
    attention.build((B, K, H), (B, L, D2), (B, K, G))
    return attention


# ---------------------------------------------------------------- the layer


def test_one_number_by_hand() -> None:
    attention = AdaptiveAttention(1)
    attention.build((1, 1, 1), (1, 2, 1), (1, 1, 1))
    for layer, value in {
        "query_dense": 0.0,
        "key_dense": 1.0,
        "score_dense": 2.0,
        "sentinel_gate": 0.0,
        "sentinel_key_dense": 1.0,
        "sentinel_value_dense": 10.0,
    }.items():
        getattr(attention, layer).kernel.assign([[value]])
    # The gate is half open: s = 3 / 2. Scores 2 tanh(0) = 0, 2 tanh(1) = 1.523188, the sentinel's 2 tanh(1.5) =
    # 1.810297. exp: 1, 4.586822, 6.112262; sum 11.699084. beta = 6.112262 / 11.699084 = 0.522456.
    context, weights = attention(np.full((1, 1, 1), 3.0), np.array([[[0.0], [1.0]]]), np.ones((1, 1, 1)))
    np.testing.assert_allclose(numpy_of(weights)[0, 0], [0.085477, 0.392067], atol=1e-5)
    # 0.522456 * 10 * 1.5 + 0.392067 * 1
    assert numpy_of(context).item() == pytest.approx(8.228907, abs=1e-4)


def test_beta_is_the_sentinels_part_of_one_softmax(attention: AdaptiveAttention, inputs: dict[str, np.ndarray]) -> None:
    query, values, gate_inputs = inputs.values()
    sentinel = sigmoid(dense(attention.sentinel_gate, gate_inputs)) * query
    of_query = dense(attention.query_dense, query)
    of_regions = of_query[:, :, None] + dense(attention.key_dense, values)[:, None]  # (B, K, L, A)
    of_sentinel = (of_query + dense(attention.sentinel_key_dense, sentinel))[:, :, None]  # (B, K, 1, A)
    both = np.tanh(np.concatenate([of_regions, of_sentinel], axis=2)) @ numpy_of(attention.score_dense.kernel)
    shares = np.exp(both[..., 0]) / np.exp(both[..., 0]).sum(-1, keepdims=True)  # (B, K, L + 1)
    expected = shares[..., :L] @ values + shares[..., L:] * dense(attention.sentinel_value_dense, sentinel)
    context, weights = attention(**inputs)
    np.testing.assert_allclose(numpy_of(weights), shares[..., :L], atol=1e-6)
    np.testing.assert_allclose(numpy_of(context), expected, atol=1e-5)
    keys = attention.project(values)
    np.testing.assert_array_equal(numpy_of(attention(**inputs, keys=keys)[0]), numpy_of(context))


def test_masked_regions_are_as_if_absent(attention: AdaptiveAttention, inputs: dict[str, np.ndarray]) -> None:
    mask = np.arange(L) % 3 != np.arange(B)[:, None]
    context, weights = attention(**inputs, mask=mask)
    for i in range(B):
        assert (numpy_of(weights)[i][:, ~mask[i]] == 0).all()
        own = {name: array[i : i + 1] for name, array in inputs.items()} | {
            "values": inputs["values"][i : i + 1, mask[i]]
        }
        short_context, short_weights = attention(**own)
        np.testing.assert_allclose(numpy_of(weights)[i][:, mask[i]], numpy_of(short_weights)[0], atol=1e-6)
        np.testing.assert_allclose(numpy_of(context)[i], numpy_of(short_context)[0], atol=1e-5)


def test_the_mask_that_keras_carries_with_the_values_counts(
    attention: AdaptiveAttention, inputs: dict[str, np.ndarray]
) -> None:
    values = inputs["values"].copy()
    values[0, 3] = values[1, 5:] = 0.0
    there = values.any(axis=2)
    context, weights = attention(**{**inputs, "values": keras.layers.Masking()(values)})
    plain_context, plain = attention(**{**inputs, "values": values}, mask=there)
    assert (numpy_of(weights)[np.broadcast_to(~there[:, None], weights.shape)] == 0).all()
    np.testing.assert_array_equal(numpy_of(weights), numpy_of(plain))
    np.testing.assert_array_equal(numpy_of(context), numpy_of(plain_context))


@pytest.mark.parametrize("shape", [(L,), (B, 1, L), (B, L + 1), (B + 1, L)])
def test_a_mask_of_another_shape_is_refused(
    attention: AdaptiveAttention, inputs: dict[str, np.ndarray], shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"mask needs shape \(B, L\) = \(2, 77\), one value per region, got \("):
        attention(**inputs, mask=np.ones(shape, bool))


@pytest.mark.parametrize("looks", [True, False])
def test_a_sentinel_of_no_weight_is_plain_attention_and_of_all_weight_is_blind(
    looks: bool, attention: AdaptiveAttention, inputs: dict[str, np.ndarray]
) -> None:
    # A bias that saturates tanh against w, or along it; w large enough to leave the others nothing.
    kernel = attention.score_dense.kernel
    kernel.assign(60.0 * numpy_of(kernel))
    attention.key_dense.kernel.assign(0.01 * numpy_of(attention.key_dense.kernel))
    attention.query_dense.kernel.assign(0.01 * numpy_of(attention.query_dense.kernel))
    against = -1.0 if looks else 1.0
    attention.sentinel_key_dense.bias.assign(against * 1000.0 * np.sign(numpy_of(kernel)[:, 0]))
    context, weights = attention(**inputs)
    if not looks:
        sentinel = sigmoid(dense(attention.sentinel_gate, inputs["gate_inputs"])) * inputs["query"]
        np.testing.assert_allclose(numpy_of(context), dense(attention.sentinel_value_dense, sentinel), atol=1e-5)
        assert numpy_of(weights).max() < 1e-6
        return
    plain = BahdanauAttention(A)
    plain.build((B, K, H), (B, L, D2))
    for name in ("query_dense", "key_dense", "score_dense"):
        getattr(plain, name).set_weights(getattr(attention, name).get_weights())
    expected, expected_weights = plain(inputs["query"], inputs["values"], return_attention_scores=True)
    np.testing.assert_allclose(numpy_of(weights), numpy_of(expected_weights), atol=1e-6)
    np.testing.assert_allclose(numpy_of(context), numpy_of(expected), atol=1e-5)


# ---------------------------------------------------------------- the captioner


def test_one_step_is_the_equation_of_the_docstring() -> None:
    captioner = make_captioner()
    features = np.random.default_rng(0).normal(size=(B, ROWS, COLS, D)).astype(np.float32)
    regions = dense(captioner.value_dense, features[1].reshape(L, D))
    centered = regions - regions.mean(-1, keepdims=True)
    values = centered / np.sqrt(regions.var(-1, keepdims=True) + captioner.value_norm.epsilon)
    hidden = np.tanh(dense(captioner.initial_dense, values.mean(0)))
    word = numpy_of(captioner.embedding.embeddings)[START]
    read = np.concatenate([word, values.mean(0)])
    kernel, recurrent_kernel, bias = (numpy_of(weight) for weight in captioner.cell.weights)
    of_input, of_state = np.split(read @ kernel + bias[0], 3), np.split(hidden @ recurrent_kernel + bias[1], 3)
    update, reset = sigmoid(of_input[0] + of_state[0]), sigmoid(of_input[1] + of_state[1])
    after = update * hidden + (1 - update) * np.tanh(of_input[2] + reset * of_state[2])

    attention = captioner.attention
    sentinel = sigmoid(dense(attention.sentinel_gate, np.concatenate([read, hidden]))) * after
    of_query = dense(attention.query_dense, after)
    keys = np.concatenate([dense(attention.key_dense, values), [dense(attention.sentinel_key_dense, sentinel)]])
    scores = dense(attention.score_dense, np.tanh(of_query + keys))[:, 0]
    shares = np.exp(scores) / np.exp(scores).sum()
    context = shares[:L] @ values + shares[L] * dense(attention.sentinel_value_dense, sentinel)
    deep = np.tanh(word + dense(captioner.hidden_dense, after) + dense(captioner.context_dense, context))

    state = captioner.init_state(features, captions=K)
    assert set(state.memory) == {"values", "keys", "picture"}
    logits, state, weights = captioner.step(np.full((B, K), START, np.int32), state)
    np.testing.assert_allclose(numpy_of(state.recurrent["hidden"])[1, 2], after, atol=1e-5)
    np.testing.assert_allclose(numpy_of(weights)[1, 2], shares[:L], atol=1e-6)
    np.testing.assert_allclose(numpy_of(logits)[1, 2], dense(captioner.logits_dense, deep), atol=1e-5)


def test_losses_on_maps_do_not_push_the_choice_to_look() -> None:
    captioner = make_captioner(attention_penalty=3.0)
    rng = np.random.default_rng(0)
    token_ids = rng.integers(4, V, size=(B, K, T)).astype(np.int32)
    alpha = rng.dirichlet(np.ones(L), size=(B, K, T)).astype(np.float32)
    looking = rng.uniform(0.1, 0.9, size=(B, K, T, 1)).astype(np.float32)
    captioner.add_losses({"attention_weights": ops.convert_to_tensor(looking * alpha)}, {"token_ids": token_ids})
    (loss,) = captioner.losses
    assert float(loss) == pytest.approx(3.0 * float(doubly_stochastic_penalty(alpha, token_ids)), rel=1e-4)
    assert float(loss) > 0.1


def test_there_is_no_context_gate() -> None:
    captioner = make_captioner()
    assert "context_gate" not in captioner.get_config()
    assert not any("/gate/" in weight.path for weight in captioner.weights)
    with pytest.raises(TypeError, match="context_gate"):
        make_captioner(context_gate=True)


# ---------------------------------------------------------------- what a caption says of it


def test_a_caption_has_the_map_and_the_share_that_looked_apart() -> None:
    tokenizer = WordTokenizer([*SPECIAL_TOKENS, "a", "b"])
    token_ids = np.array([4, 5, 2, PAD])
    weights = np.array([[0.1, 0.3, 0.0], [0.2, 0.5, 0.3], [0.0, 0.0, 0.1], [0.0, 0.0, 0.0]], np.float32)
    caption = caption_of(tokenizer, token_ids, np.full(4, -1.0), weights, (1, 3))
    assert caption.words == ("a", "b")
    assert caption.attention_weights is not None and caption.extras.keys() == {"looked"}
    np.testing.assert_allclose(caption.attention_weights[:, 0], [[0.25, 0.75, 0.0], [0.2, 0.5, 0.3]], atol=1e-6)
    np.testing.assert_allclose(caption.extras["looked"], [0.4, 1.0], atol=1e-6)
    # A model that always looks: its maps stay as they are, bit for bit.
    np.testing.assert_array_equal(caption.attention_weights[1, 0], weights[1])
    assert caption.extras["looked"][1] == 1.0
    with pytest.raises(ValueError, match=r"looked needs shape \(2,\), one per word, got \(3,\)"):
        Caption(("a", "b"), (4, 5), -1.0, extras={"looked": np.ones(3)})


def test_a_figure_shows_when_the_model_does_not_look() -> None:
    maps = np.full((2, 3, 5), 1 / 15, np.float32)
    caption = Caption(("a", "face"), (4, 5), -1.0, maps, np.full(2, -0.5), extras={"looked": np.array([0.254, 0.9])})
    photo = np.zeros((30, 50, 3), np.uint8)
    panels = plot_attention(photo, caption).axes[1:3]
    assert [ax.get_xlabel().splitlines()[1] for ax in panels] == ["looked 25%", "looked 90%"]
    always = plot_attention(photo, replace(caption, extras={}))
    assert not any("looked" in text.get_text() for text in always.findobj(Text))
