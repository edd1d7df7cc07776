"""Training on the score: sample captions, reward them with CIDEr-D, make the better captions more probable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from attncap.decoding.compilation import compiled, filled
from attncap.decoding.sampling import sample
from attncap.metrics.reward import CaptionReward
from attncap.models.captioner import Captioner, forbidden_logits
from attncap.models.losses import MaskedCrossentropy
from attncap.tokenizers import PAD, START, UNK, pad_token_ids
from attncap.training.batches import CaptionBatches


def advantages(rewards: np.ndarray) -> np.ndarray:
    """Return the reward of each caption minus the mean reward of the other samples of the image.

        advantage_k = r_k - mean_{j != k} r_j

    The baseline does not depend on the caption itself, so that the gradient stays unbiased.

    Args:
        rewards: float, shape (B, K), K at least 2.

    Returns:
        advantages: float32, shape (B, K); rows sum to 0.

    Reference: Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for free"; Luo 2020.
    """
    count = rewards.shape[1]
    if count < 2:
        raise ValueError(f"a baseline of the other samples needs at least 2 samples per image, got {count}")
    return ((rewards - rewards.mean(axis=1, keepdims=True)) * count / (count - 1)).astype(np.float32)


class Policy(keras.Model):
    """The captioner as it samples: without dropout, and without the tokens that are never generated.

    If `<unk>` were among the logits, the probability that bad samples lose would go to it. It is never sampled, so that
    it would never lose it again, and all captions became equal within 200 steps.
    """

    def __init__(self, captioner: Captioner):
        super().__init__(dtype=captioner.dtype_policy)
        self.captioner = captioner

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        logits = ops.cast(self.captioner(inputs, training=False), "float32")
        return logits + forbidden_logits(logits.shape[-1])


class SelfCriticalTrainer:
    """Self-critical sequence training: REINFORCE on CIDEr-D, the baseline of a sample the mean of the others.

        loss = - sum_{b,k,t} (r_{b,k} - mean_{j != k} r_{b,j}) log p(y_{b,k,t}) / sum_{b,k,t} 1

    Departures from the paper: K samples per image, with the mean of the others as the baseline of each, in place of a
    greedily decoded caption (better according to Luo 2020). Captions are sampled without dropout, and the gradient is
    computed without it, so that both use the same distribution.

    Args:
        captioner: trained with cross-entropy: the rewards of an untrained model do not differ.
        optimizer: for this training; it becomes that of the captioner.
        batches: images, features, and the reference captions that make the reward.
        samples: K, captions sampled per image.
        temperature: of sampling. Below 1 samples are better, but the gradient is no longer exactly that of the mean
            reward.
        max_length: most tokens of a sample, `<end>` included.
        bleu: weight of BLEU-4 in the reward.
        crossentropy: weight of the cross-entropy of one reference per image beside the samples; it keeps captions
            varied and lowers the score a little.
        seed: of sampling.

    Reference: Rennie et al. 2017, "Self-critical sequence training for image captioning"; Luo 2020, "A better variant
    of self-critical sequence training".
    """

    def __init__(
        self,
        captioner: Captioner,
        optimizer: keras.optimizers.Optimizer,
        batches: CaptionBatches,
        *,
        samples: int = 5,
        temperature: float = 1.0,
        max_length: int = 24,
        bleu: float = 0.0,
        crossentropy: float = 0.0,
        seed: int = 0,
    ):
        import keras_hub

        self.captioner = captioner
        self.batches = batches
        self.references = batches.references()
        self.reward = CaptionReward(self.references, bleu)
        self.samples = samples
        self.crossentropy = crossentropy
        self.seed = seed
        self._sampler = keras_hub.samplers.RandomSampler(temperature=temperature, seed=seed)

        def draw(features: Any) -> Any:
            state = captioner.init_state(features, captions=samples)
            return sample(captioner.step, state, self._sampler, max_length=max_length, model=captioner)

        self._draw = compiled(draw, captioner, self._sampler)
        self._policy = Policy(captioner)
        for model in (captioner, self._policy):  # one optimizer, because callbacks read and save that of the captioner
            model.compile(optimizer=optimizer, loss=MaskedCrossentropy(label_smoothing=0.0), jit_compile=False)
        optimizer.build(captioner.trainable_variables)
        self._train = _train_function(self._policy, batches.features(0, slice(1)))

    def fit(
        self,
        epochs: int,
        *,
        initial_epoch: int = 0,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        """Train from epoch initial_epoch to epochs, as Keras's `fit` does; the logs have `policy_loss` and `reward`."""
        steps = len(self.batches)
        every = keras.callbacks.CallbackList(
            list(callbacks), model=self.captioner, verbose=0, epochs=epochs, steps=steps
        )
        self.captioner.stop_training = False
        every.on_train_begin()
        for epoch in range(initial_epoch, epochs):
            self.batches.start_epoch(epoch)
            for number, variable in enumerate(
                self._sampler.variables
            ):  # so that a resumed run samples the same captions
                variable.assign(np.random.default_rng([self.seed, epoch, number]).integers(0, 2**31, variable.shape))
            rng = np.random.default_rng([self.seed, epoch])
            every.on_epoch_begin(epoch)
            losses, rewards = [], []
            for index in range(steps):
                every.on_train_batch_begin(index)
                loss, reward = self.train_step(index, rng)
                losses.append(loss)
                rewards.append(reward)
                logs = {"policy_loss": float(np.mean(losses)), "reward": float(np.mean(rewards))}
                every.on_train_batch_end(index, logs)
            every.on_epoch_end(epoch, logs)
            if self.captioner.stop_training:
                break
        every.on_train_end()

    def train_step(self, index: int, rng: np.random.Generator) -> tuple[float, float]:
        """Sample, reward, and take one step; return the loss and the mean reward of the samples."""
        image_ids = self.batches.image_ids(index)
        features = self.batches.features(index)
        # The last batch is filled up: in another shape, the probabilities of a resumed run would be rounded
        # differently.
        full = filled(features, self.batches.batch_size)
        drawn = ops.convert_to_numpy(self._draw(full))[: len(features)]  # (B, K, T)
        captions = [[[int(token) for token in row if token != PAD] for row in own] for own in drawn]
        rewards = self.reward(image_ids, captions)
        weights = advantages(rewards)  # (B, K)
        if self.crossentropy:
            for own, image_id in zip(captions, image_ids, strict=True):
                told = self.references[image_id]
                own.append(list(told[int(rng.integers(len(told)))]))
            weights = np.pad(weights, ((0, 0), (0, 1)), constant_values=self.crossentropy)  # (B, K + 1)
        targets = pad_token_ids(captions, multiple_of=self.batches.round_length_to)
        starts = np.full_like(targets[:, :, :1], START)
        inputs = {"features": features, "token_ids": np.concatenate([starts, targets[:, :, :-1]], axis=2)}
        targets[targets == UNK] = PAD  # references have it; the policy never generates it
        self._policy.reset_metrics()
        return float(self._train(inputs, targets, weights)["loss"]), float(rewards.mean())


def _train_function(policy: Policy, features: np.ndarray) -> Callable[..., dict[str, Any]]:
    # One step of training: (inputs, targets, weights) -> metrics; features: of one image.
    if keras.backend.backend() != "tensorflow":
        return partial(policy.train_on_batch, return_dict=True)
    import tensorflow as tf

    # Lengths are free from the first step on. Keras frees them only when they first vary and uses a graph until then
    # that rounds differently: a resumed run would differ from an uninterrupted one.
    tokens = tf.TensorSpec((None, None, None), tf.int32)
    inputs = {"features": tf.TensorSpec((None, *features.shape[1:]), features.dtype), "token_ids": tokens}
    signature = (inputs, tokens, tf.TensorSpec((None, None), tf.float32))
    return tf.function(lambda *data: policy.train_step(data), input_signature=signature)
