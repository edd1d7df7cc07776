"""Minimum Bayes risk decoding: `ConsensusDecoder` returns the candidate caption closest to the sampled captions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from attncap.captions import Caption
from attncap.decoding.compilation import compiled, filled
from attncap.decoding.decoder import Decoder
from attncap.decoding.logits import LogitsProcessor
from attncap.decoding.sampling import sample
from attncap.metrics.cider_d import CiderD
from attncap.tokenizers import END, PAD

Neighbors = Callable[[np.ndarray], Sequence[Sequence[str]]]  # features (B, rows, cols, D) -> captions of each image


@dataclass(frozen=True)
class ConsensusConfig:
    """Settings of `ConsensusDecoder`, tuned on Flickr8k's dev split.

    Args:
        beam_width: candidates per image.
        samples: captions sampled per image; twice as many gain little.
        temperature: of sampling; below 1, because label smoothing leaves probability on unfitting words.
        likelihood: weight of the candidate's log-probability; 0 ranks by agreement only.
        repetition: weight of the cost of repeated words, see `RepetitionCost`; 0 turns it off.
        neighbor_weight: weight of the agreement with the neighbors' captions; the agreement with the samples has weight
            1.
        length_penalty, max_length: see `beam_search`.
        batch_size: images at a time.
        seed: of sampling.

    Raises:
        ValueError: no samples; a weight, or a temperature, that is not a finite number or is below 0.
    """

    beam_width: int = 10
    samples: int = 40
    temperature: float = 0.7
    likelihood: float = 0.5
    repetition: float = 0.1
    neighbor_weight: float = 4.0
    length_penalty: float = 0.7
    max_length: int = 40
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1 per image, got {self.samples}")
        for name in ("temperature", "likelihood", "repetition", "neighbor_weight"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0) or (name == "temperature" and value == 0):
                least = "above 0" if name == "temperature" else "of at least 0"
                raise ValueError(f"{name} is a finite number {least}, got {value}")


class ConsensusDecoder:
    """Minimum Bayes risk decoding with CIDEr-D as the gain: return the candidate closest to the sampled captions.

    The most probable caption is a safe one, but not the most similar to human captions. Here beam search proposes
    candidates, and captions sampled from the captioner stand in for human ones. The candidate with the highest value of
    the following is returned:

        mean_s CIDEr-D(y, s) + likelihood * log p(y) / n ** length_penalty - repetition * cost(y)

    s are the samples, n is the number of tokens of y, and cost(y) is the cost of its repeated words (`RepetitionCost`).
    Words that fit every image have little weight in CIDEr-D, so that captions are more varied. This takes several times
    as long as the search.

    With neighbors, the human captions c of the most similar training images count as well:

        + neighbor_weight * mean_c CIDEr-D(y, c)

    Args:
        captioner: anything that `Decoder` takes.
        references: image_id -> captions, of the training images: for the document frequencies of n-grams and the cost
            of repeated words.
        neighbors: features -> captions of similar images, such as `LookAlikes`; None uses the samples only.
        config: settings; default: a `ConsensusConfig`.
        logits_processors: of the search and of sampling, see `Decoder`.
        settings: of `ConsensusConfig`, by name, in place of config.

    Raises:
        ValueError: no references, or what `ConsensusConfig` and `Decoder` refuse.
        TypeError: both config and settings.

    Example:
        >>> captions = ConsensusDecoder(captioner, data.split("train").references())(features, image_ids)

    Reference: Kumar and Byrne 2004, "Minimum Bayes-risk decoding"; Eikema and Aziz 2022, "Sampling-based approximations
    to minimum Bayes risk decoding". Mao et al. 2015, "Deep captioning with multimodal recurrent neural networks",
    section 8, choose among a decoder's captions by those of neighbors.
    """

    def __init__(
        self,
        captioner: Any,
        references: Mapping[str, Sequence[str]],
        *,
        neighbors: Neighbors | None = None,
        config: ConsensusConfig | None = None,
        logits_processors: Sequence[LogitsProcessor] = (),
        **settings: Any,
    ):
        import keras_hub

        if config is not None and settings:
            raise TypeError(f"give either config or settings, got config and {', '.join(settings)}")
        self.config = config = config or ConsensusConfig(**settings)
        self._propose = Decoder(
            captioner,
            beam_width=config.beam_width,
            n_best=config.beam_width,
            length_penalty=config.length_penalty,
            max_length=config.max_length,
            logits_processors=logits_processors,
            batch_size=config.batch_size,
        )
        self._tokenize = captioner.tokenizer.tokenize
        tokens = [self._tokens(captions) for captions in references.values()]
        self._gain = CiderD(tokens)
        self._repetition_cost = RepetitionCost(row for rows in tokens for row in rows)
        self._neighbors = neighbors
        sampler = keras_hub.samplers.RandomSampler(temperature=config.temperature, seed=config.seed)

        def draw(features: Any) -> Any:
            state = captioner.init_state(features, captions=config.samples)
            return sample(
                captioner.step,
                state,
                sampler,
                max_length=config.max_length,
                model=captioner,
                logits_processors=logits_processors,
            )

        self._draw = compiled(draw, captioner, sampler)

    def __call__(self, features: np.ndarray, image_ids: Sequence[str] | None = None) -> list[Caption]:
        """Decode features (N, rows, cols, D) to N captions."""
        proposals: list[Any] = self._propose(features, image_ids)
        if self.config.beam_width == 1:
            proposals = [[caption] for caption in proposals]
        chosen = []
        size = self.config.batch_size
        for start in range(0, len(features), size):
            part = features[start : start + size]
            drawn = ops.convert_to_numpy(self._draw(filled(part, min(size, len(features)))))[: len(part)]  # (B, S, T)
            of_neighbors = [()] * len(part) if self._neighbors is None else self._neighbors(part)
            for candidates, rows, captions in zip(
                proposals[start : start + len(part)], drawn, of_neighbors, strict=True
            ):
                samples = [[int(token) for token in row if token != PAD] for row in rows]
                scores = self._scores(candidates, samples, self._tokens(captions))
                chosen.append(candidates[int(np.argmax(scores))])
        return chosen

    def _tokens(self, captions: Sequence[str]) -> list[list[int]]:
        return [[*self._tokenize(caption), END] for caption in captions]

    def _scores(
        self, candidates: Sequence[Caption], samples: Sequence[Sequence[int]], neighbors: Sequence[Sequence[int]]
    ) -> np.ndarray:
        config = self.config
        tokens = [
            [*caption.token_ids, END][: config.max_length] for caption in candidates
        ]  # of greatest length: no end
        ranks = [
            caption.log_prob / len(row) ** config.length_penalty
            for caption, row in zip(candidates, tokens, strict=True)
        ]
        scores = self._gain.agreement(tokens, samples) + config.likelihood * np.array(ranks)
        scores -= config.repetition * self._repetition_cost(tokens)
        return scores + config.neighbor_weight * self._gain.agreement(tokens, neighbors) if neighbors else scores


class RepetitionCost:
    """Cost of the words that a caption repeats, in nats: people repeat "a", but not "hat".

        cost(y) = sum_w (n_w - 1) * -log r(w),    r(w) = (again(w) + 1/2) / (once(w) + 1), at most 1

    over the words w of the caption, each said n_w times. once(w) is the number of human captions that have w, again(w)
    is how often they repeat it. Both are counted in captions, so that the cost fits any language.

    Args:
        captions: token ids of human captions.

    Example:
        >>> RepetitionCost([[4, 5, 4], [4, 5]])([[5, 4, 5], [4, 5, 4]]).round(2)
        array([1.79, 0.69])
    """

    def __init__(self, captions: Iterable[Sequence[int]]) -> None:
        once: Counter[int] = Counter()
        again: Counter[int] = Counter()
        for caption in captions:
            counts = Counter(caption)
            once.update(counts.keys())
            again.update({word: times - 1 for word, times in counts.items()})
        self._cost = {word: -math.log(min((again[word] + 0.5) / (once[word] + 1), 1.0)) for word in once}

    def __call__(self, captions: Sequence[Sequence[int]]) -> np.ndarray:
        """Return the cost of each caption, token ids: float, shape (N,), 0 where nothing is repeated."""
        return np.array([self._of(caption) for caption in captions])

    def _of(self, caption: Sequence[int]) -> float:
        unknown = math.log(2.0)  # r of a word of no caption: (0 + 1/2) / (0 + 1)
        counts = Counter(caption)
        return sum((times - 1) * self._cost.get(word, unknown) for word, times in counts.items() if times > 1)
