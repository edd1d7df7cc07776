"""Decoding with a fake `step`, a table of probabilities, against plain Python; then with a real captioner."""

from __future__ import annotations

import inspect
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import keras_nlp
import numpy as np
import pytest
from keras import ops
from PIL import Image

import attncap
from attncap.captions import Caption
from attncap.decoding.beam_search import beam_search
from attncap.decoding.decoder import Decoder
from attncap.decoding.predict import caption_images
from attncap.decoding.replay import CaptionReplay, replay
from attncap.decoding.sampling import sample
from attncap.decoding.to_caption import caption_of
from attncap.models.attention_captioner import AttentionCaptioner
from attncap.models.captioner import CaptionerState
from attncap.tokenizers import END, PAD, SPECIAL_TOKENS, START, UNK, WordPieceTokenizer, WordTokenizer

V, MAX_LENGTH, PREFIXES = 7, 5, 101
SAYABLE = (END, 4, 5, 6)  # of the seven tokens, <pad>, <start> and <unk> are never said
Ranked = tuple[float, float, tuple[int, ...]]  # rank, log-probability, tokens


def next_code(code: Any, token: Any) -> Any:
    """The number of a prefix: of the prefix before its last token, and that token."""
    return (code * V + token) % PREFIXES


class FakeCaptioner:
    """A language model that is a table: any prefix of any picture has logits of its own.

    Its attention map has one 1, at (number of the step, token read). A picture's features (1, 1, 1) are its row of the
    table.
    """

    feature_shape = (MAX_LENGTH, V, 1)
    tokenizer = WordTokenizer([*SPECIAL_TOKENS, "a", "b", "c"])

    def __init__(self, pictures: int = 1, seed: int = 0, end: float = 0.0, attention: bool = True):
        self.table = np.random.default_rng(seed).normal(size=(pictures, PREFIXES, V)).astype(np.float32) * 1.5
        self.table[:, :, END] += end
        self.table[:, :, [PAD, START, UNK]] += 9.0  # the most probable, if they could be said
        self.attention = attention

    def features(self) -> np.ndarray:
        return np.arange(len(self.table), dtype=np.float32)[:, None, None, None]

    def init_state(self, features: Any, captions: int = 1) -> CaptionerState:
        pictures = ops.cast(ops.reshape(features, (-1,)), "int32")
        blank = ops.zeros((ops.shape(pictures)[0], captions), "int32")
        rows = ops.take(ops.convert_to_tensor(self.table), pictures, axis=0)
        return CaptionerState({"rows": rows}, {"code": blank, "steps": blank})

    def step(self, token_ids: Any, state: CaptionerState) -> tuple[Any, CaptionerState, Any]:
        code = next_code(state.recurrent["code"], ops.cast(token_ids, "int32"))
        logits = ops.take_along_axis(state.memory["rows"], code[:, :, None], axis=1)
        steps = state.recurrent["steps"]
        maps = ops.one_hot(steps * V + ops.cast(token_ids, "int32"), MAX_LENGTH * V) if self.attention else None
        return logits, CaptionerState(state.memory, {"code": code, "steps": steps + 1}), maps

    # -- the same in plain Python --

    def log_probs(self, picture: int, prefix: tuple[int, ...]) -> dict[int, float]:
        code = 0
        for token in (START, *prefix):
            code = next_code(code, token)
        logits = self.table[picture, code][list(SAYABLE)].astype(np.float64)
        return dict(zip(SAYABLE, logits - np.log(np.exp(logits).sum()), strict=True))

    def log_prob(self, picture: int, tokens: tuple[int, ...]) -> float:
        return sum(self.log_probs(picture, tokens[:t])[token] for t, token in enumerate(tokens))

    def all_captions(self, picture: int, length_penalty: float, max_length: int) -> list[Ranked]:
        captions = [
            (*words, *end)
            for length in range(max_length + 1)
            for words in itertools.product(SAYABLE[1:], repeat=length)
            for end in ([(END,)] if length < max_length else [()])
        ]
        return sorted(
            ((self.log_prob(picture, c) / len(c) ** length_penalty, self.log_prob(picture, c), c) for c in captions),
            reverse=True,
        )

    def beam_search(self, picture: int, width: int, length_penalty: float, max_length: int) -> list[Ranked]:
        """The rule of the docstring, a beam at a time."""
        beams: list[Ranked] = [(0.0, 0.0, ())]
        for _ in range(max_length):
            candidates = [beam for beam in beams if beam[2] and beam[2][-1] == END]  # frozen
            for _, log_prob, tokens in beams:
                if tokens and tokens[-1] == END:
                    continue
                for token, more in self.log_probs(picture, tokens).items():
                    total = log_prob + more
                    candidates.append((total / (len(tokens) + 1) ** length_penalty, total, (*tokens, token)))
            beams = sorted(candidates, reverse=True)[:width]
        return beams


def search(
    captioner: FakeCaptioner, features: np.ndarray, width: int, **settings: Any
) -> tuple[np.ndarray, np.ndarray]:
    settings = {"max_length": MAX_LENGTH, **settings}
    state = captioner.init_state(features, captions=width)
    token_ids, log_probs = beam_search(captioner.step, state, beam_width=width, **settings)
    return ops.convert_to_numpy(token_ids), ops.convert_to_numpy(log_probs)


def tokens_of(row: np.ndarray) -> tuple[int, ...]:
    """The tokens of a padded row; nothing may follow its <end> but padding."""
    tokens = tuple(int(token) for token in row if token != PAD)
    np.testing.assert_array_equal(row[len(tokens) :], PAD)
    assert END not in tokens[:-1]
    return tokens


# -- the search ------------------------------------------------------------------------------------------------------


def test_width_one_is_greedy() -> None:
    captioner = FakeCaptioner(pictures=11)
    token_ids, log_probs = search(captioner, captioner.features(), 1)
    assert token_ids.shape == (11, 1, MAX_LENGTH)
    lengths = set()
    for picture in range(11):
        tokens: tuple[int, ...] = ()
        while len(tokens) < MAX_LENGTH and tokens[-1:] != (END,):
            choice = captioner.log_probs(picture, tokens)
            tokens = (*tokens, max(choice, key=choice.__getitem__))
        assert tokens_of(token_ids[picture, 0]) == tokens
        assert log_probs[picture, 0] == pytest.approx(captioner.log_prob(picture, tokens), abs=1e-4)
        lengths.add(len(tokens))
    assert len(lengths) > 2  # short and long captions were among them


@pytest.mark.parametrize("length_penalty", [0, 0.7, 1])
def test_a_wide_beam_is_exhaustive_search(length_penalty: float) -> None:
    # Up to 4 tokens there are 1 + 3 + 9 + 27 finished captions and 81 that are cut: a beam of 121 holds them all.
    captioner = FakeCaptioner(pictures=2)
    token_ids, log_probs = search(captioner, captioner.features(), 121, max_length=4, length_penalty=length_penalty)
    for picture in range(2):
        best = captioner.all_captions(picture, length_penalty, max_length=4)
        assert len(best) == 121
        found = [tokens_of(row) for row in token_ids[picture]]
        assert found[:50] == [tokens for _, _, tokens in best[:50]]
        assert set(found) == {tokens for _, _, tokens in best}
        np.testing.assert_allclose(log_probs[picture, :50], [log_prob for _, log_prob, _ in best[:50]], atol=1e-4)
    assert sum(np.exp(log_probs[0])) == pytest.approx(1.0, abs=1e-4)


def test_the_length_penalty_changes_the_order() -> None:
    captioner = FakeCaptioner(pictures=11)
    mean = {
        penalty: np.mean(
            [len(tokens_of(row[0])) for row in search(captioner, captioner.features(), 5, length_penalty=penalty)[0]]
        )
        for penalty in (0.0, 1.0)
    }
    assert mean[0.0] < mean[1.0]


@pytest.mark.parametrize("width", [2, 3, 5])
def test_a_narrow_beam_follows_the_rule(width: int) -> None:
    captioner = FakeCaptioner(pictures=11)
    token_ids, log_probs = search(captioner, captioner.features(), width, length_penalty=0.7)
    for picture in range(11):
        beams = captioner.beam_search(picture, width, 0.7, MAX_LENGTH)
        beams += [(-1e9, -1e9, ())] * (width - len(beams))
        assert [tokens_of(row) for row in token_ids[picture]] == [tokens for _, _, tokens in beams]
        np.testing.assert_allclose(log_probs[picture], [log_prob for _, log_prob, _ in beams], atol=1e-4)
        ranks = [
            log_prob / len(tokens_of(row)) ** 0.7
            for row, log_prob in zip(token_ids[picture], log_probs[picture], strict=True)
        ]
        assert ranks == sorted(ranks, reverse=True)


def test_finished_beams_are_frozen() -> None:
    # <end> has 0.6 at first; whoever goes on finds <end> nearly impossible, and goes on to the last step.
    captioner = FakeCaptioner()
    captioner.table[0, :, [4, 5, 6]] = 0.0
    captioner.table[0, :, END] = -20.0
    captioner.table[0, next_code(0, START), END] = np.log(3 * 0.6 / 0.4)
    for max_length in (2, 5, 23):
        token_ids, log_probs = search(captioner, captioner.features(), 3, max_length=max_length, length_penalty=0)
        np.testing.assert_array_equal(token_ids[0, 0], [END] + [PAD] * (max_length - 1))
        assert log_probs[0, 0] == pytest.approx(np.log(0.6), abs=1e-5)
        expected = np.log(0.4 / 3) + (max_length - 1) * np.log(1 / 3)
        np.testing.assert_allclose(log_probs[0, 1:], [expected] * 2, rtol=1e-4)
        assert (token_ids[0, 1:] > UNK).all()


def test_a_batch_is_its_pictures_one_by_one() -> None:
    captioner = FakeCaptioner(pictures=5)
    token_ids, log_probs = search(captioner, captioner.features(), 3)
    for picture in range(5):
        alone = search(captioner, captioner.features()[picture : picture + 1], 3)
        np.testing.assert_array_equal(alone[0][0], token_ids[picture])
        np.testing.assert_allclose(alone[1][0], log_probs[picture], atol=1e-6)
    assert len({row.tobytes() for row in token_ids[:, 0]}) > 2


def test_without_an_end_max_length_ends_the_caption() -> None:
    captioner = FakeCaptioner(pictures=3, end=-50.0)
    token_ids, log_probs = search(captioner, captioner.features(), 3)
    assert (token_ids > UNK).all()
    for picture, k in np.ndindex(3, 3):
        expected = captioner.log_prob(picture, tokens_of(token_ids[picture, k]))
        assert log_probs[picture, k] == pytest.approx(expected, abs=1e-4)
    for caption in Decoder(captioner, max_length=MAX_LENGTH)(captioner.features()):
        assert len(caption.words) == MAX_LENGTH


# -- probabilities and maps ------------------------------------------------------------------------------------------


def test_replay_reads_what_the_search_found() -> None:
    captioner = FakeCaptioner(pictures=5)
    token_ids, log_probs = search(captioner, captioner.features(), 3)
    state = captioner.init_state(captioner.features(), captions=3)
    word_log_probs, weights = (ops.convert_to_numpy(x) for x in replay(captioner.step, state, token_ids))
    np.testing.assert_allclose(word_log_probs.sum(-1), log_probs, atol=1e-4)
    assert (word_log_probs[token_ids == PAD] == 0).all()
    assert weights.shape == (5, 3, MAX_LENGTH, MAX_LENGTH * V)
    for picture, k in np.ndindex(5, 3):
        tokens = tokens_of(token_ids[picture, k])
        for t, token in enumerate(tokens):
            assert word_log_probs[picture, k, t] == pytest.approx(
                captioner.log_probs(picture, tokens[:t])[token], abs=1e-4
            )


def test_the_maps_are_those_of_the_steps_that_said_the_words() -> None:
    captioner = FakeCaptioner(pictures=5, end=-1.0)
    captions = Decoder(captioner, beam_width=3, max_length=MAX_LENGTH)(captioner.features())
    assert sum(len(caption.words) for caption in captions) > 7
    for caption in captions:
        assert caption.attention_weights is not None
        assert caption.attention_weights.shape == (len(caption.words), MAX_LENGTH, V)
        read = (START, *caption.token_ids)
        for t in range(len(caption.words)):  # word t was said in step t, which read the word before it
            row, col = np.argwhere(caption.attention_weights[t] == 1.0)[0]
            assert (row, col) == (t, read[t])
            assert caption.attention_weights[t].sum() == 1.0


def test_a_captioner_without_attention_has_no_maps() -> None:
    captioner = FakeCaptioner(attention=False)
    caption = Decoder(captioner, max_length=MAX_LENGTH)(captioner.features())[0]
    assert caption.attention_weights is None
    assert caption.word_log_probs is not None


class Letters(WordTokenizer):
    """A tokenizer of a user: each letter is a word."""

    def tokenize(self, caption: str) -> list[int]:
        return [self.token_to_id(letter) for letter in caption if letter != " "]


@pytest.mark.parametrize("with_split", [True, False])
def test_captions_are_read_with_any_tokenizer(with_split: bool) -> None:
    captioner = FakeCaptioner()
    letters = Letters(captioner.tokenizer.vocabulary)
    if with_split:
        captioner.tokenizer = letters
    else:  # one that is not of this package

        class Bare:
            vocabulary, tokenize, words = letters.vocabulary, letters.tokenize, letters.words

        captioner.tokenizer = Bare()  # type: ignore[assignment]
    [[one, other]] = CaptionReplay(captioner)(captioner.features(), [["abc", "ab cz"]])
    assert one.words == ("a", "b", "c") and one.token_ids == (4, 5, 6)
    assert other.words == ("a", "b", "c", "<unk>")
    assert other.word_log_probs is not None and np.isneginf(other.word_log_probs).tolist() == [False] * 3 + [True]
    assert other.attention_weights is not None and other.attention_weights.shape == (4, MAX_LENGTH, V)


def test_an_empty_caption() -> None:
    captioner = FakeCaptioner(end=50.0)
    caption = Decoder(captioner, beam_width=1, max_length=MAX_LENGTH)(captioner.features())[0]
    assert (caption.words, caption.token_ids, caption.text) == ((), (), "")
    assert caption.log_prob == pytest.approx(0.0, abs=1e-5)
    assert caption.attention_weights is not None
    assert caption.word_log_probs is not None
    assert caption.attention_weights.shape == (0, MAX_LENGTH, V)
    assert caption.word_log_probs.shape == (0,)


def test_a_word_of_pieces_has_the_product_of_probabilities_and_the_mean_of_maps() -> None:
    tokenizer = WordPieceTokenizer([*SPECIAL_TOKENS, "climb", "##ing", "man"])
    maps = np.array([[1, 0, 0, 0, 0, 0], [0, 0.5, 0, 0, 0, 0.5], [0, 0, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0]], np.float32)
    caption = caption_of(
        tokenizer,
        np.array([6, 4, 5, END]),
        np.array([-0.5, -1.0, -0.25, -2.0]),
        maps,
        grid=(2, 3),
        image_id="x",
        grid_box=(0.1, 0.2, 0.8, 0.9),
    )
    assert caption.grid_box == (0.1, 0.2, 0.8, 0.9)
    assert caption.words == ("man", "climbing")
    assert caption.token_ids == (6, 4, 5)
    assert caption.log_prob == pytest.approx(-3.75)  # <end> counts
    assert caption.attention_weights is not None
    assert caption.word_log_probs is not None
    np.testing.assert_allclose(caption.word_log_probs, np.array([-0.5, -1.25]))
    np.testing.assert_allclose(
        caption.attention_weights, np.array([[[1, 0, 0], [0, 0, 0]], [[0, 0.25, 0], [0.5, 0, 0.25]]])
    )
    assert caption.image_id == "x"


def test_a_caption_has_a_map_and_a_probability_a_word() -> None:
    with pytest.raises(ValueError, match=r"\(T, rows, cols\) with T = 2 words, got \(3, 5, 7\)"):
        Caption(("a", "b"), (4, 5), -1.0, np.zeros((3, 5, 7)))
    with pytest.raises(ValueError, match=r"\(T, rows, cols\) with T = 2 words, got \(2, 35\)"):
        Caption(("a", "b"), (4, 5), -1.0, np.zeros((2, 35)))
    with pytest.raises(ValueError, match=r"word_log_probs needs shape \(2,\), one per word, got \(3,\)"):
        Caption(("a", "b"), (4, 5), -1.0, None, np.zeros(3))


# -- sampling --------------------------------------------------------------------------------------------------------


def draw(captioner: FakeCaptioner, sampler: Any, captions: int = 1) -> np.ndarray:
    state = captioner.init_state(captioner.features(), captions=captions)
    return ops.convert_to_numpy(sample(captioner.step, state, sampler, max_length=MAX_LENGTH))


def test_sampling_is_repeatable_and_varied() -> None:
    captioner = FakeCaptioner(pictures=3)
    sampler = keras_nlp.samplers.TopKSampler(k=3, seed=5)
    first = draw(captioner, sampler, captions=11)
    assert first.shape == (3, 11, MAX_LENGTH)
    np.testing.assert_array_equal(draw(captioner, keras_nlp.samplers.TopKSampler(k=3, seed=5), captions=11), first)
    assert (draw(captioner, keras_nlp.samplers.TopKSampler(k=3, seed=6), captions=11) != first).any()
    assert (draw(captioner, sampler, captions=11) != first).any()  # the next draw of the same sampler
    assert len({row.tobytes() for row in first[0]}) > 3


def test_sampling_draws_among_the_most_probable_tokens_alone() -> None:
    captioner = FakeCaptioner(pictures=2)
    token_ids = draw(captioner, keras_nlp.samplers.TopKSampler(k=2, seed=0), captions=101)
    seen = set()
    for picture, k in np.ndindex(2, 101):
        tokens = tokens_of(token_ids[picture, k])  # nothing after <end>
        assert tokens[-1] == END or len(tokens) == MAX_LENGTH
        for t, token in enumerate(tokens):
            choice = captioner.log_probs(picture, tokens[:t])
            assert token in sorted(choice, key=choice.__getitem__)[-2:]
            seen.add(token)
    assert seen == set(SAYABLE)
    # Their shares are those of the table: the first token of picture 0.
    choice = captioner.log_probs(0, ())
    second, first = sorted(choice.values())[-2:]
    likely = max(choice, key=choice.__getitem__)
    share = np.exp(first) / (np.exp(first) + np.exp(second))
    assert (token_ids[0, :, 0] == likely).mean() == pytest.approx(share, abs=0.15)  # 3 standard deviations of 101 draws


def test_top_p_of_nearly_nothing_is_greedy() -> None:
    captioner = FakeCaptioner(pictures=5)
    token_ids = draw(captioner, keras_nlp.samplers.TopPSampler(p=0.01, seed=0))
    np.testing.assert_array_equal(token_ids, search(captioner, captioner.features(), 1)[0])
    wide = draw(captioner, keras_nlp.samplers.TopPSampler(p=0.9, seed=0), captions=31)
    assert np.isin(wide, (PAD, *SAYABLE)).all()
    assert all(tokens_of(row) for row in wide.reshape(-1, MAX_LENGTH))


def test_a_decoder_that_samples_goes_on_drawing() -> None:
    captioner = FakeCaptioner(pictures=2)
    texts = []
    for _ in range(2):  # two samplers of one seed
        sampler = keras_nlp.samplers.TopKSampler(k=3, seed=5)
        decode = Decoder(captioner, sampler=sampler, n_best=7, beam_width=1, max_length=MAX_LENGTH)
        texts.append([[[caption.text for caption in row] for row in decode(captioner.features())] for _ in range(3)])
    assert texts[0] == texts[1]
    assert texts[0][0] != texts[0][1]
    assert texts[0][1] != texts[0][2]
    assert [len(row) for row in texts[0][0]] == [7, 7]
    captions = decode(captioner.features())
    for picture, row in enumerate(captions):
        for caption in row:
            ended = caption.token_ids if len(caption.token_ids) == MAX_LENGTH else (*caption.token_ids, END)
            assert caption.log_prob == pytest.approx(captioner.log_prob(picture, ended), abs=1e-4)


# -- the decoder -----------------------------------------------------------------------------------------------------


def test_decoder_takes_any_number_of_pictures() -> None:
    captioner = FakeCaptioner(pictures=7)
    features = captioner.features()
    decode = Decoder(captioner, beam_width=3, max_length=MAX_LENGTH, batch_size=3)
    token_ids, log_probs = search(captioner, features, 3)
    for pictures in (1, 2, 3, 4, 7, 1):  # one, a part of a batch, a batch, a batch and one more, ...
        image_ids = [f"picture {i}" for i in range(pictures)]
        captions = decode(features[:pictures], image_ids)
        assert [caption.image_id for caption in captions] == image_ids
        for picture, caption in enumerate(captions):
            best = tokens_of(token_ids[picture, 0])
            assert caption.token_ids == tuple(token for token in best if token != END)
            assert caption.words == tuple("abc"[token - 4] for token in caption.token_ids)
            assert caption.log_prob == pytest.approx(log_probs[picture, 0], abs=1e-4)
    assert decode(features[:0]) == []
    assert decode(features[:1])[0].image_id is None


def test_n_best_are_sorted_and_different() -> None:
    captioner = FakeCaptioner(pictures=5)
    decode = Decoder(captioner, beam_width=5, n_best=3, length_penalty=0.0, max_length=MAX_LENGTH, batch_size=2)
    best = decode(captioner.features(), list("vwxyz"))
    one = Decoder(captioner, beam_width=5, length_penalty=0.0, max_length=MAX_LENGTH)(captioner.features())
    assert [len(row) for row in best] == [3] * 5
    for row, single, image_id in zip(best, one, "vwxyz", strict=True):
        log_probs = [caption.log_prob for caption in row]
        assert log_probs == sorted(log_probs, reverse=True)
        assert len({caption.token_ids for caption in row}) == 3
        assert row[0].token_ids == single.token_ids
        assert {caption.image_id for caption in row} == {image_id}


def test_wrong_settings_are_refused() -> None:
    captioner = FakeCaptioner(pictures=3)
    for settings in ({"n_best": 4, "beam_width": 3}, {"beam_width": 0}, {"n_best": 0}):
        with pytest.raises(ValueError, match=r"1 <= n_best <= beam_width is needed, got n_best=\d, beam_width=\d"):
            Decoder(captioner, **settings)
    for settings in ({"max_length": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match=r"at least 1 is needed, got max_length=\d+, batch_size=\d+"):
            Decoder(captioner, **settings)
    with pytest.raises(ValueError, match=r"one image_id per image is needed, got 2 for 3 images"):
        Decoder(captioner, max_length=MAX_LENGTH)(captioner.features(), ["x", "y"])


# -- with a real captioner -------------------------------------------------------------------------------------------


@pytest.fixture
def captioner() -> AttentionCaptioner:
    keras.utils.set_random_seed(0)
    captioner = AttentionCaptioner(
        WordTokenizer([*SPECIAL_TOKENS, *"abcdefghijklm"]),
        (2, 3, 5),
        embedding_units=7,
        hidden_units=11,
        projection_units=13,
        attention_units=17,
    )
    for weight in captioner.weights:
        if weight.dtype == "float32":
            weight.assign(2.0 * weight)  # untrained, it says much the same of every picture
    return captioner


def test_a_real_captioner_says_what_its_own_logits_say(captioner: AttentionCaptioner) -> None:
    features = np.random.default_rng(0).normal(size=(5, 2, 3, 5)).astype(np.float16)
    captions = Decoder(captioner, beam_width=3, max_length=7, batch_size=3)(features)
    for picture, caption in enumerate(captions):
        ended = [*caption.token_ids, END][:7]
        inputs = {
            "features": features[picture : picture + 1],
            "token_ids": np.array([[[START, *ended[:-1]]]], np.int32),
        }
        logits = ops.convert_to_numpy(captioner(inputs))[0, 0].astype(np.float64)
        logits[:, [PAD, START, UNK]] = -np.inf
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        expected = log_probs[np.arange(len(ended)), ended]
        assert caption.log_prob == pytest.approx(expected.sum(), abs=1e-3)
        np.testing.assert_allclose(caption.word_log_probs, expected[: len(caption.words)], atol=1e-4)
        assert caption.attention_weights is not None
        np.testing.assert_allclose(caption.attention_weights.sum(axis=(1, 2)), np.ones(len(caption.words)), atol=1e-5)
    with pytest.raises(ValueError, match=r"features need shape \(B, 2, 3, 5\)"):
        Decoder(captioner, beam_width=1, max_length=7)(features[0])


def test_a_decoder_sees_the_weights_of_now(captioner: AttentionCaptioner) -> None:
    # Validation after each epoch uses one decoder: the weights of its first call would never change.
    features = np.random.default_rng(0).normal(size=(2, 2, 3, 5)).astype(np.float32)
    search_best = Decoder(captioner, beam_width=2, max_length=7)
    draw_one = Decoder(captioner, sampler=keras_nlp.samplers.TopKSampler(k=2, seed=0), max_length=7)
    for token in (4, 5):
        bias = np.zeros(17)
        bias[token] = 50.0
        captioner.logits_dense.weights[1].assign(bias)
        for decode in (search_best, draw_one):
            assert [caption.token_ids for caption in decode(features)] == [(token,) * 7] * 2


def test_a_sampler_by_name_and_a_length_penalty_that_is_no_number_are_refused() -> None:
    with pytest.raises(TypeError, match=r"sampler is a keras-nlp sampler, such as .*, got 'top_k'"):
        Decoder(None, sampler="top_k")
    with pytest.raises(TypeError, match="for beam search give beam_width"):
        Decoder(None, sampler=keras_nlp.samplers.BeamSampler(num_beams=3))
    for wrong in ("3", 2.5):
        with pytest.raises(TypeError, match=f"beam_width is a whole number, got {wrong!r}"):
            Decoder(None, beam_width=wrong)  # type: ignore[arg-type]
    for penalty in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"length_penalty is a finite number, got {penalty}"):
            Decoder(None, length_penalty=penalty)


class RedEncoder:
    """The features of an image are its red at the upper left: a row of the table of `FakeCaptioner`."""

    def preprocess(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image)[:1, :1]

    def network_for_pixels(self) -> RedEncoder:
        return self

    def predict_on_batch(self, pixels: np.ndarray) -> np.ndarray:
        return pixels[..., :1].astype(np.float32)


def test_paths_pillow_images_and_arrays_are_captioned_alike(tmp_path: Path) -> None:
    captioner: Any = FakeCaptioner(pictures=5, seed=3)
    captioner.encoder = RedEncoder()
    image = Image.new("RGB", (4, 3), (2, 3, 4))
    image.save(tmp_path / "a.png")
    ways = [str(tmp_path / "a.png"), tmp_path / "a.png", image, np.asarray(image)]
    captions, rejects = caption_images(captioner, ways, list("abcd"), progress=False, max_length=MAX_LENGTH)
    expected = Decoder(captioner, max_length=MAX_LENGTH)(captioner.features())[2]
    assert [own.words for own in captions] == [expected.words] * 4 and rejects.empty and expected.words
    assert attncap.caption(captioner, np.asarray(image), max_length=MAX_LENGTH).words == expected.words
    best = attncap.caption(captioner, image, n_best=2, max_length=MAX_LENGTH)
    assert len(best) == 2 and best[0].words == expected.words


@pytest.mark.slow
def test_type_checkers_know_what_decoding_returns(tmp_path: Path) -> None:
    """Run mypy, which takes a minute on an empty cache, on calls with and without n_best."""
    (tmp_path / "calls.py").write_text(
        "from typing import assert_type\n"
        "import numpy as np\nimport pandas as pd\nimport attncap\n"
        "from attncap import Caption, ExternalFeatures\n"
        "from attncap.decoding.decoder import Decoder\n"
        "from attncap.decoding.predict import caption_features, caption_images\n"
        "from attncap.models.captioner import Captioner\n"
        "def calls(it: Captioner, given: ExternalFeatures, array: np.ndarray, n: int) -> None:\n"
        "    assert_type(attncap.caption(it, 'a.jpg', beam_width=5), Caption)\n"
        "    assert_type(attncap.caption(it, array, n_best=3), list[Caption])\n"
        "    assert_type(attncap.caption(it, array, n_best=n), list[Caption])\n"
        "    assert_type(caption_images(it, ['a.jpg']), tuple[list[Caption], pd.DataFrame])\n"
        "    assert_type(caption_images(it, ['a.jpg'], n_best=2), tuple[list[list[Caption]], pd.DataFrame])\n"
        "    assert_type(caption_features(it, given, ['a'])[0], list[Caption])\n"
        "    assert_type(Decoder(it, max_length=9)(array), list[Caption])\n"
        "    assert_type(Decoder(it, n_best=2)(array), list[list[Caption]])\n"
        "    attncap.caption(it, 'a.jpg', beam=3)  # type: ignore[call-overload]\n"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "mypy", "--warn-unused-ignores", "--cache-dir", tmp_path / "cache"]
    checked = subprocess.run([*command, tmp_path / "calls.py"], cwd=root, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_help_of_caption_names_the_settings_of_the_search_and_their_defaults() -> None:
    shown, of_decoder = (inspect.signature(called).parameters for called in (attncap.caption, Decoder))
    for name in ("beam_width", "length_penalty", "max_length", "n_best", "sampler", "logits_processors"):
        assert shown[name].default == of_decoder[name].default
