"""`ConsensusDecoder`: of the likeliest captions of a picture the one that others of it, or of its like, agree with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from attncap.captions import Caption
from attncap.decoding.compilation import compiled, filled
from attncap.decoding.decoder import Decoder
from attncap.decoding.repetition import RepetitionCost
from attncap.decoding.sampling import sample
from attncap.metrics.cider import CiderD
from attncap.tokenizers import END, PAD


class ConsensusDecoder:
    """Decode by agreement: minimum Bayes risk with CIDEr-D as the gain, in place of the largest probability.

    The likeliest caption is the safest, not the one that is most like what people would say. So beam search proposes
    captions, the captioner draws others, which stand for people's, and the proposal is taken that has the highest

        agreement(y) + likelihood * log p(y) / n ** length_penalty,    agreement(y) = mean_s CIDEr-D(y, s)

    over the samples s, n its tokens. Words that are said of every picture weigh little in CIDEr-D, so that captions
    stay varied. It takes several times the time of the search alone.

    Given neighbors, what people said of the pictures that look most like this one is added, with a weight of its own:

        agreement(y) = mean_s CIDEr-D(y, s) + neighbor_weight * mean_c CIDEr-D(y, c)

    Nor do people say "a black hat and hat": repetition times the cost of words said again, see `RepetitionCost`, is
    taken off.

    Args:
        captioner: anything that `Decoder` takes.
        references: picture -> its captions, of the training pictures: how telling each n-gram is, and which words are
            said again.
        beam_width: proposals a picture.
        samples: captions drawn a picture; twice as many gain little.
        temperature: of drawing; below 1, for label smoothing leaves probability on words that do not fit.
        likelihood: weight of the log-probability; 0 lets agreement alone decide.
        repetition: weight of the cost of words said again; 0 lets them be said.
        neighbors: features -> captions c of each picture, such as `LookAlikes`; None: the samples alone.
        neighbor_weight: of those captions' agreement to that of the samples.
        length_penalty, max_length: see `beam_search`.
        batch_size: pictures at a time.
        seed: of drawing.

    Raises:
        ValueError: no references, fewer than one sample, or what `Decoder` refuses.

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
        beam_width: int = 10,
        samples: int = 40,
        temperature: float = 0.7,
        likelihood: float = 0.5,
        repetition: float = 0.1,
        neighbors: Callable[[np.ndarray], Sequence[Sequence[str]]] | None = None,
        neighbor_weight: float = 4.0,
        length_penalty: float = 0.7,
        max_length: int = 40,
        batch_size: int = 32,
        seed: int = 0,
    ):
        import keras_nlp  # takes seconds, which other decoding need not wait

        if samples < 1:
            raise ValueError(f"agreement needs at least 1 sample a picture, got {samples}")
        self._propose = Decoder(
            captioner,
            beam_width=beam_width,
            n_best=beam_width,
            length_penalty=length_penalty,
            max_length=max_length,
            batch_size=batch_size,
        )
        self._tokenize = captioner.tokenizer.tokenize
        said = {i: self._tokens(texts) for i, texts in references.items()}
        self._gain = CiderD(said.values())
        self._repeated = RepetitionCost(tokens for captions in said.values() for tokens in captions)
        self._repetition = repetition
        self._neighbors = neighbors
        self._neighbor_weight = neighbor_weight
        self._likelihood = likelihood
        self._length_penalty = length_penalty
        self._max_length = max_length
        self._batch_size = batch_size
        sampler = keras_nlp.samplers.RandomSampler(temperature=temperature, seed=seed)
        model = captioner if isinstance(captioner, keras.Model) else None

        def draw(features: Any) -> Any:
            state = captioner.init_state(features, captions=samples)
            return sample(captioner.step, state, sampler, max_length=max_length, model=model)

        self._draw = compiled(draw, model, sampler)

    def __call__(self, features: np.ndarray, image_ids: Sequence[str] | None = None) -> list[Caption]:
        """Decode features (N, rows, cols, D) to N captions."""
        proposals = self._propose(features, image_ids)
        if self._propose.n_best == 1:
            proposals = [[caption] for caption in proposals]
        chosen = []
        for start in range(0, len(features), self._batch_size):
            part = features[start : start + self._batch_size]
            full = filled(part, min(self._batch_size, len(features)))
            drawn = ops.convert_to_numpy(self._draw(full))[: len(part)]  # (B, S, T)
            heard = [()] * len(part) if self._neighbors is None else self._neighbors(part)
            for own, rows, captions in zip(proposals[start : start + len(part)], drawn, heard, strict=True):
                samples = [[int(token) for token in row if token != PAD] for row in rows]
                chosen.append(own[int(np.argmax(self._scores(own, samples, self._tokens(captions))))])
        return chosen

    def _tokens(self, captions: Sequence[str]) -> list[list[int]]:
        return [[*self._tokenize(caption), END] for caption in captions]

    def _scores(
        self, proposals: Sequence[Caption], samples: Sequence[Sequence[int]], neighbors: Sequence[Sequence[int]]
    ) -> np.ndarray:
        tokens = [[*caption.token_ids, END][: self._max_length] for caption in proposals]  # a longest one has no end
        ranks = [
            caption.log_prob / len(row) ** self._length_penalty for caption, row in zip(proposals, tokens, strict=True)
        ]
        scores = self._gain.agreement(tokens, samples) + self._likelihood * np.array(ranks)
        scores -= self._repetition * self._repeated(tokens)
        return scores + self._neighbor_weight * self._gain.agreement(tokens, neighbors) if neighbors else scores
