"""The faster training pass computes what the general one does."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from attncap.models.adaptive_attention_captioner import AdaptiveAttentionCaptioner
from attncap.models.attention_captioner import AttentionCaptioner
from attncap.models.losses import MaskedCrossentropy
from attncap.tokenizers import END, SPECIAL_TOKENS, START, WordTokenizer
from attncap.training.fast_recurrence import fast_recurrence

B, K, T, L, D = 3, 2, 5, 12, 7


def make(**settings: Any) -> AttentionCaptioner:
    keras.utils.set_random_seed(0)
    sizes = {"embedding_units": 11, "hidden_units": 13, "projection_units": 9, "attention_units": 17}
    tokenizer = WordTokenizer([*SPECIAL_TOKENS, *"abcdefghij"])
    captioner = AttentionCaptioner(
        tokenizer, (1, L, D), **{**sizes, "dropout": 0.0, "attention_penalty": 1.0, **settings}
    )
    for weight in captioner.trainable_variables:  # so that no gradient is close to zero
        weight.assign(weight + 0.3 * keras.random.normal(weight.shape, seed=len(weight.path)))
    return captioner


@pytest.fixture(scope="module")
def batch() -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(B, 1, L, D)).astype(np.float32)
    features[1, 0, 7:] = 0
    token_ids = rng.integers(END + 2, len(SPECIAL_TOKENS) + 10, size=(B, K, T + 1)).astype(np.int32)
    token_ids[:, :, 0] = START
    return {"features": features, "token_ids": token_ids[:, :, :-1]}, token_ids[:, :, 1:]


def gradients(captioner: AttentionCaptioner, batch: Any, signature: Any = None) -> list[np.ndarray]:
    inputs, targets = batch
    variables = [variable.value for variable in captioner.trainable_variables]

    @tf.function(input_signature=signature)
    def compute(inputs: Any, targets: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = captioner(inputs, training=True)
            loss = MaskedCrossentropy()(targets, logits) + sum(captioner.losses)
        return [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, variables)]

    return [gradient.numpy() for gradient in compute(inputs, targets)]


@pytest.mark.parametrize("settings", [{}, {"context_gate": False}, {"masked": True}], ids=["gate", "no gate", "masked"])
def test_its_gradients_are_those_of_the_general_pass(settings: dict[str, Any], batch: Any) -> None:
    captioner = make(**settings)
    expected = gradients(captioner, batch)
    tokens = tf.TensorSpec((None, K, None), tf.int32)  # as in training: batches and captions of any length
    signature = ({"features": tf.TensorSpec((None, 1, L, D)), "token_ids": tokens}, tokens)
    with fast_recurrence(captioner):
        assert "run" in vars(captioner)
        found = gradients(captioner, batch, signature)
        logits = ops.convert_to_numpy(captioner(batch[0]))
    assert "run" not in vars(captioner)
    np.testing.assert_array_equal(logits, ops.convert_to_numpy(captioner(batch[0])))
    for variable, first, second in zip(captioner.trainable_variables, expected, found, strict=True):
        scale = np.abs(first).max()
        assert scale > 1e-4 or variable.path.endswith("gate/bias"), variable.path
        np.testing.assert_allclose(second, first, atol=1e-5 * max(scale, 1.0), err_msg=variable.path)


def test_it_trains_in_bfloat16(batch: Any) -> None:
    losses = []
    for fast in (False, True):
        captioner = make(dtype="mixed_bfloat16")
        captioner.compile(keras.optimizers.SGD(0.1), loss=MaskedCrossentropy(), jit_compile=False)
        if fast:
            with fast_recurrence(captioner):
                losses.append([float(captioner.train_on_batch(*batch)) for _ in range(4)])
        else:
            losses.append([float(captioner.train_on_batch(*batch)) for _ in range(4)])
    assert losses[0][-1] < losses[0][0]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)


def test_other_captioners_are_refused() -> None:
    captioner = AdaptiveAttentionCaptioner(WordTokenizer([*SPECIAL_TOKENS, "a"]), (1, L, D), hidden_units=8)
    with (
        pytest.raises(ValueError, match="is of AttentionCaptioner, got AdaptiveAttentionCaptioner"),
        fast_recurrence(captioner),
    ):
        pass
