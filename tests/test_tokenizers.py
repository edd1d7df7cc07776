"""The rule for words, the vocabularies, and the way from caption to ids and back."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from attncap.captions import Caption, join_words
from attncap.tokenizers import (
    END,
    PAD,
    SPECIAL_TOKENS,
    START,
    UNK,
    CaptionTokenizer,
    WordPieceTokenizer,
    WordTokenizer,
    pad_token_ids,
)
from attncap.words import are_lists, split_items

CAPTIONS = ["A dog runs.", "the dog and a cat", "A cat sleeps!", "Two dogs"]


@pytest.fixture(scope="module")
def pieces() -> WordPieceTokenizer:
    captions = ["a man's t-shirt, red-haired woman's shirt", "climbing climbers climb"] * 5
    return WordPieceTokenizer.from_captions(captions, vocabulary_size=60)


def test_vocabulary_is_ordered_by_count_and_then_by_letter() -> None:
    tokenizer = WordTokenizer.from_captions(CAPTIONS, min_count=1)
    # a 3; cat, dog 2; the others once
    expected = ["a", "cat", "dog", "and", "dogs", "runs", "sleeps", "the", "two"]
    assert tokenizer.get_vocabulary() == [*SPECIAL_TOKENS, *expected]
    assert tokenizer.vocabulary_size() == 13
    assert SPECIAL_TOKENS == ("<pad>", "<start>", "<end>", "<unk>")
    assert (PAD, START, END, UNK) == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_count": 2}, ["a", "cat", "dog"]),
        ({"min_count": 3}, ["a"]),
        ({"min_count": 1, "max_size": 2}, ["a", "cat"]),
        ({"min_count": 2, "max_size": 100}, ["a", "cat", "dog"]),
    ],
)
def test_min_count_and_max_size(options: dict[str, int], words: list[str]) -> None:
    assert WordTokenizer.from_captions(CAPTIONS, **options).get_vocabulary()[4:] == words


def test_min_count_is_five_by_default() -> None:
    assert WordTokenizer.from_captions(["dog"] * 5 + ["cat"] * 4).get_vocabulary()[4:] == ["dog"]


def test_a_word_outside_the_vocabulary_is_unk() -> None:
    tokenizer = WordTokenizer.from_captions(CAPTIONS, min_count=2)
    assert tokenizer.tokenize("A zebra, a dog") == [4, UNK, 4, 6]
    assert tokenizer.token_to_id("zebra") == UNK
    assert tokenizer.token_to_id("dog") == 6
    assert tokenizer.id_to_token(6) == "dog"
    # Special tokens cannot be written by a caption.
    assert tokenizer.tokenize("<end> <pad>") == [UNK, UNK]


def test_pack_pads_cuts_and_keeps_the_end() -> None:
    tokenizer = WordTokenizer.from_captions(CAPTIONS, min_count=2)
    packed = tokenizer.pack(["a dog", "", "a dog a cat a dog a"], max_length=5)
    assert packed.dtype == np.int32
    np.testing.assert_array_equal(packed, [[1, 4, 6, 2, 0], [1, 2, 0, 0, 0], [1, 4, 6, 4, 2]])
    # No longer than the longest caption.
    assert tokenizer.pack(["a", "a dog"], max_length=40).shape == (2, 4)
    assert tokenizer.pack([], max_length=5).shape == (0, 0)


def test_pack_needs_room_for_start_and_end() -> None:
    tokenizer = WordTokenizer.from_captions(CAPTIONS, min_count=2)
    np.testing.assert_array_equal(tokenizer.pack(["a dog"], max_length=2), [[1, 2]])
    with pytest.raises(ValueError, match=r"max_length .* 2.* got 1"):
        tokenizer.pack(["a dog"], max_length=1)


def test_detokenize_leaves_out_special_tokens_but_not_unk() -> None:
    tokenizer = WordTokenizer.from_captions(CAPTIONS, min_count=2)
    assert tokenizer.detokenize([START, 4, 6, UNK, END, PAD, PAD]) == "a dog <unk>"
    assert tokenizer.detokenize(np.array([START, 4, 5, END])) == "a cat"
    assert tokenizer.detokenize([]) == ""


def test_words_of_the_word_tokenizer_are_one_token_each() -> None:
    tokenizer = WordTokenizer.from_captions(CAPTIONS, min_count=2)
    assert tokenizer.words([6, 4, 6]) == [("dog", [0]), ("a", [1]), ("dog", [2])]


def test_digest_follows_the_vocabulary_and_its_order() -> None:
    digest = WordTokenizer([*SPECIAL_TOKENS, "a", "b"]).digest()
    assert digest == WordTokenizer([*SPECIAL_TOKENS, "a", "b"]).digest()
    assert digest != WordTokenizer([*SPECIAL_TOKENS, "b", "a"]).digest()
    assert len(digest) == 32
    assert int(digest, 16) > 0


def test_errors_of_the_vocabulary() -> None:
    with pytest.raises(ValueError, match=r"begins with \('<pad>', '<start>', '<end>', '<unk>'\), got \('a', 'b'\)"):
        WordTokenizer(["a", "b"])
    with pytest.raises(ValueError, match=r"names the token 'dog' twice"):
        WordTokenizer([*SPECIAL_TOKENS, "dog", "cat", "dog"])
    with pytest.raises(ValueError, match=r"no word occurs 7 times among 2 words: lower min_count"):
        WordTokenizer.from_captions(["a dog"], min_count=7)


def test_word_tokenizer_config_round_trip() -> None:
    tokenizer = WordTokenizer.from_captions(CAPTIONS, min_count=2)
    again = _through_keras(tokenizer)
    assert type(again) is WordTokenizer
    assert again.get_vocabulary() == tokenizer.get_vocabulary()
    assert again.tokenize("a dog") == tokenizer.tokenize("a dog")


def test_word_pieces_spell_every_word_seen(pieces: WordPieceTokenizer) -> None:
    caption = "A man's t-shirt: climbing, red-haired"
    token_ids = pieces.tokenize(caption)
    assert all(type(token_id) is int for token_id in token_ids)
    assert UNK not in token_ids
    assert len(token_ids) > 4  # at least one word in several pieces
    assert pieces.detokenize([START, *token_ids, END, PAD]) == "a man's t-shirt climbing red-haired"
    # A word that was never seen, in letters that were: spelt too, not <unk>.
    assert pieces.detokenize(pieces.tokenize("teatime")) == "teatime"
    assert pieces.tokenize("zoo") == [UNK]  # no z in the captions: the whole word is lost
    assert pieces.tokenize("") == []


def test_word_pieces_are_learned_on_whole_words(pieces: WordPieceTokenizer) -> None:
    assert pieces.get_vocabulary()[:4] == list(SPECIAL_TOKENS)
    assert pieces.vocabulary_size() <= 60
    # The hyphen belongs inside words ("t-shirt"), so it needs a piece that continues a word.
    assert "##-" in pieces.get_vocabulary()


def test_words_of_pieces_are_grouped_with_their_positions() -> None:
    tokenizer = WordPieceTokenizer([*SPECIAL_TOKENS, "climb", "##ing", "##s", "man"])
    assert tokenizer.tokenize("man climbing climbs man") == [7, 4, 5, 4, 6, 7]
    assert tokenizer.words([7, 4, 5, 4, 6, 7]) == [
        ("man", [0]),
        ("climbing", [1, 2]),
        ("climbs", [3, 4]),
        ("man", [5]),
    ]
    # A model may begin with a continuation; it still makes a word.
    assert tokenizer.words([5, 6, 7]) == [("ings", [0, 1]), ("man", [2])]
    np.testing.assert_array_equal(
        tokenizer.pack(["man climbing", "man"], max_length=9), [[1, 7, 4, 5, 2], [1, 7, 2, 0, 0]]
    )


def test_word_piece_tokenizer_config_round_trip(pieces: WordPieceTokenizer) -> None:
    again = _through_keras(pieces)
    assert type(again) is WordPieceTokenizer
    assert again.get_vocabulary() == pieces.get_vocabulary()
    assert again.tokenize("a man's climbing") == pieces.tokenize("a man's climbing")


def _through_keras(tokenizer: CaptionTokenizer) -> CaptionTokenizer:
    return keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(tokenizer))


@pytest.mark.parametrize(
    ("caption", "items"),
    [
        ("Big nose; curly hair & NO beard", ["big nose", "curly hair", "no beard"]),
        ("tie/hat / beard + old\nwoman.", ["tie", "hat", "beard", "old", "woman"]),
        ("Lady. smiling - young | pale", ["lady", "smiling", "young", "pale"]),
        ("male w/ tie and n/a", ["male w tie and n a"]),  # a slash after one letter abbreviates
        ("5,000 dogs, a t-shirt", ["5 000 dogs", "a t-shirt"]),  # a comma inside a number separates nothing
        (", ;; ...", []),
    ],
)
def test_split_items(caption: str, items: list[str]) -> None:
    assert [" ".join(words) for words in split_items(caption)] == items


def test_lists_are_told_from_sentences() -> None:
    assert are_lists(["big nose, curly hair", "old; man", "smiling"])
    assert not are_lists(["smiling", "old man", "a hat", "red, round"])  # few have a separator
    assert not are_lists(["a man in a red shirt, who is riding a brown horse"] * 3)  # parts of a sentence are longer
    assert not are_lists([])


def test_separators_are_one_token_and_read_as_a_comma() -> None:
    tokenizer = WordTokenizer.from_captions(["big nose; curly hair", "curly & big"], min_count=1, separators=True)
    assert tokenizer.separator_id is not None
    ids = tokenizer.tokenize("Curly hair / Big nose.")
    assert ids[2] == tokenizer.separator_id and len(ids) == 5
    assert tokenizer.detokenize(ids) == "curly hair, big nose"
    assert tokenizer.split("big; hair;") == ["big", ",", "hair"]
    loaded = WordTokenizer.from_config(tokenizer.get_config())
    assert loaded.tokenize("big, nose") == tokenizer.tokenize("big, nose")


def test_without_a_separator_token_separators_are_dropped() -> None:
    tokenizer = WordTokenizer.from_captions(["big nose; curly hair"], min_count=1)
    assert tokenizer.separator_id is None
    assert tokenizer.split("big; nose") == ["big", "nose"]


def test_word_pieces_with_separators() -> None:
    captions = ["big nose, curly hair", "curly, big"] * 5
    tokenizer = WordPieceTokenizer.from_captions(captions, vocabulary_size=40, separators=True)
    assert tokenizer.detokenize(tokenizer.tokenize("hair; big nose")) == "hair, big nose"


def test_join_words() -> None:
    assert join_words(["big", "nose", ",", "old"]) == "big nose, old"


@pytest.mark.parametrize(
    ("words", "text", "sentence"),
    [
        (("a", "dog", "runs"), "a dog runs", "A dog runs."),
        (("big", "nose", ",", "old"), "big nose, old", "Big nose, old"),
        ((), "", ""),
    ],
)
def test_caption_as_metrics_and_as_people_read_it(words: tuple[str, ...], text: str, sentence: str) -> None:
    caption = Caption(words, (), 0.0)
    assert (caption.text, caption.sentence) == (text, sentence)


def test_padding_by_hand() -> None:
    captions = [[[4, 2], [4, 5, 6, 7, 2]], [[6, 2]]]
    assert pad_token_ids(captions).tolist() == [[[4, 2, 0, 0, 0], [4, 5, 6, 7, 2]], [[6, 2, 0, 0, 0], [0] * 5]]
    assert pad_token_ids(captions, multiple_of=4).shape == (2, 2, 8)
    assert pad_token_ids(captions, length=7).shape == (2, 2, 7)
    assert pad_token_ids(captions, length=3, captions_each=3).shape == (2, 3, 5)
    assert pad_token_ids(captions).dtype == np.int32
    assert pad_token_ids([]).shape == (0, 0, 0) and pad_token_ids([[], []], length=1).shape == (2, 0, 1)
