"""Logits processors: each by hand, then in beam search and sampling, where they decide what is said."""

from __future__ import annotations

from typing import Any

import keras_nlp
import numpy as np
import pytest
from keras import ops

from attncap.decoding.decoder import Decoder
from attncap.decoding.logits import ForbiddenWords, RepetitionPenalty, RequiredWords, Temperature, tokens_said
from attncap.tokenizers import END, PAD, SPECIAL_TOKENS, WordTokenizer
from tests.decoding.test_decoder import MAX_LENGTH, FakeCaptioner, V

A, B, C = 4, 5, 6  # the words of the fake captioner
TOKENS = np.array([[[A, B, PAD, PAD, PAD], [C, PAD, PAD, PAD, PAD], [PAD] * 5]], np.int32)  # (1, 3, 5)
LOGITS = np.arange(21, dtype=np.float32).reshape(1, 3, 7) - 10


def applied(processor: Any, logits: np.ndarray = LOGITS, token_ids: np.ndarray = TOKENS) -> np.ndarray:
    return ops.convert_to_numpy(processor(ops.convert_to_tensor(token_ids), ops.convert_to_tensor(logits)))


class Pieces:
    """A tokenizer whose word "ab" has the pieces a and b."""

    def tokenize(self, word: str) -> list[int]:
        return [{"a": A, "b": B, "c": C}[letter] for letter in word]


def test_the_tokens_that_were_said() -> None:
    said = ops.convert_to_numpy(tokens_said(ops.convert_to_tensor(TOKENS), 7))
    assert [np.flatnonzero(row).tolist() for row in said[0]] == [[A, B], [C], []]


def test_each_by_hand() -> None:
    np.testing.assert_allclose(applied(Temperature(0.5)), LOGITS * 2)
    penalized = applied(RepetitionPenalty(2.0))
    expected = LOGITS.copy()
    expected[0, 0, [A, B]] = [-12.0, -10.0]  # -6 and -5, twice
    expected[0, 1, C] = 1.5  # 3, halved
    np.testing.assert_allclose(penalized, expected)
    forbidden = applied(ForbiddenWords(FakeCaptioner.tokenizer, ["b", "zebra"]))
    assert (forbidden[..., B] < -1e8).all()
    np.testing.assert_allclose(np.delete(forbidden, B, axis=-1), np.delete(LOGITS, B, axis=-1))


def test_a_word_of_several_pieces_is_stopped_at_the_last() -> None:
    logits = applied(ForbiddenWords(Pieces(), ["abc"]))  # type: ignore[arg-type]
    assert [np.flatnonzero(row < -1e8).tolist() for row in logits[0]] == [[C], [], []]  # after "a b" alone
    once = applied(ForbiddenWords(Pieces(), ["ca", "b"]))  # type: ignore[arg-type]
    assert [np.flatnonzero(row < -1e8).tolist() for row in once[0]] == [[B], [A, B], [B]]


def test_required_words_wait_for_the_end() -> None:
    processor = RequiredWords(FakeCaptioner.tokenizer, ["a", "c"])
    logits = np.zeros((1, 3, 7), np.float32)
    logits[0, :, B] = 1.0  # nobody would end here: only the end is kept from them
    found = applied(processor, logits)
    assert [np.flatnonzero(row < -1e8).tolist() for row in found[0]] == [[END]] * 3
    logits[0, :, END] = 2.0  # all would end: those that lack words say one
    found = applied(processor, logits)
    assert [np.flatnonzero(row > -1e8).tolist() for row in found[0]] == [[C], [A], [A, C]]
    whole = np.array([[[A, B, C, PAD, PAD]] * 3], np.int32)
    np.testing.assert_allclose(applied(processor, logits, whole), logits)
    late = np.array([[[B, B, B, PAD, PAD]] * 3], np.int32)  # two places are left for two words
    logits[0, :, END] = 0.0
    assert [np.flatnonzero(row > -1e8).tolist() for row in applied(processor, logits, late)[0]] == [[A, C]] * 3


@pytest.mark.parametrize("width", [1, 3])
def test_a_search_says_what_it_must_and_nothing_forbidden(width: int) -> None:
    captioner = FakeCaptioner(pictures=5, seed=3, end=1.0)
    features, tokenizer = captioner.features(), captioner.tokenizer
    settings: dict[str, Any] = {"beam_width": width, "max_length": MAX_LENGTH}
    free = Decoder(captioner, **settings)(features)
    assert {word for caption in free for word in caption.words} == {"a", "b", "c"}
    assert not all({"a", "b"} <= set(caption.words) for caption in free)
    without = Decoder(captioner, logits_processors=[ForbiddenWords(tokenizer, ["a"])], **settings)(features)
    assert {word for caption in without for word in caption.words} == {"b", "c"}
    both = Decoder(captioner, logits_processors=[RequiredWords(tokenizer, ["a", "b"])], **settings)(features)
    assert all({"a", "b"} <= set(caption.words) for caption in both)
    for row, caption in enumerate(both):  # the probability is that of the captioner, not that of the processed logits
        end = (END,) if len(caption.token_ids) < MAX_LENGTH else ()
        assert caption.log_prob == pytest.approx(captioner.log_prob(row, (*caption.token_ids, *end)), abs=1e-4)
    never_twice = Decoder(captioner, logits_processors=[RepetitionPenalty(1e6)], **settings)(features)
    assert all(len(set(caption.words)) == len(caption.words) for caption in never_twice)


def test_a_function_of_ones_own_and_sampling() -> None:
    captioner = FakeCaptioner(pictures=3, seed=1)

    def only_c(token_ids: Any, logits: Any) -> Any:
        allowed = ops.arange(logits.shape[-1]) >= C
        return ops.where(allowed, logits, -1e9)

    for sampler in (None, keras_nlp.samplers.RandomSampler(seed=0)):
        captions = Decoder(captioner, beam_width=2, max_length=4, sampler=sampler, logits_processors=[only_c])(
            captioner.features()
        )
        assert [caption.words for caption in captions] == [("c",) * 4] * 3
    likeliest = Decoder(captioner, beam_width=1, max_length=4)(captioner.features())
    sampler = keras_nlp.samplers.RandomSampler(seed=0)
    cold = Decoder(captioner, max_length=4, sampler=sampler, logits_processors=[Temperature(1e-3)])(
        captioner.features()
    )
    assert [caption.words for caption in cold] == [caption.words for caption in likeliest]


def test_what_is_refused() -> None:
    assert V == 7
    tokenizer = WordTokenizer([*SPECIAL_TOKENS, "a", "dog"])
    with pytest.raises(ValueError, match="required word 'zebra': not one token of the captioner's vocabulary"):
        RequiredWords(tokenizer, ["a", "zebra"])
    with pytest.raises(ValueError, match="required word 'a dog'"):
        RequiredWords(tokenizer, ["a dog"])
    for kind in (ForbiddenWords, RequiredWords):
        with pytest.raises(TypeError, match="words: a list of words expected"):
            kind(tokenizer, "dog")
    for value in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="temperature is a finite number above 0"):
            Temperature(value)
        with pytest.raises(ValueError, match="penalty is a finite number above 0"):
            RepetitionPenalty(value)
        with pytest.raises(TypeError, match="words: a list of words expected, it holds 3"):
            kind(tokenizer, ["dog", 3])  # type: ignore[list-item]
    for wrong in (Temperature(0.5), ["hat"], [RepetitionPenalty]):
        with pytest.raises(TypeError, match="logits_processors is a list of functions"):
            Decoder(FakeCaptioner(), logits_processors=wrong)  # type: ignore[arg-type]


def test_processors_that_contradict_each_other_are_refused() -> None:
    captioner = FakeCaptioner()
    tokenizer = captioner.tokenizer
    required = RequiredWords(tokenizer, ["a", "b"])
    for processors in ([ForbiddenWords(tokenizer, ["c", "b"]), required], [required, ForbiddenWords(tokenizer, ["b"])]):
        with pytest.raises(ValueError, match="'b' is required and forbidden"):
            Decoder(captioner, logits_processors=processors)
    with pytest.raises(ValueError, match="2 required words do not fit into max_length=1"):
        Decoder(captioner, logits_processors=[required], max_length=1)


@pytest.mark.parametrize(("result", "found"), [(lambda logits: logits[:, 0], "shape"), (lambda _: None, "NoneType")])
def test_a_processor_that_returns_other_logits_is_refused(result: Any, found: str) -> None:
    def mine(token_ids: Any, logits: Any) -> Any:
        return result(logits)

    captioner = FakeCaptioner()
    with pytest.raises(ValueError, match=rf"logits processor mine: logits of shape \(.*7\) expected back, got {found}"):
        Decoder(captioner, logits_processors=[mine])(captioner.features())
