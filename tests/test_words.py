"""The rules for words, phrases and lists, in several scripts."""

from __future__ import annotations

import subprocess
import sys

import pytest

from attncap.words import are_lists, has_stray_separator, is_list, split_items, split_words


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A man's T-shirt, in RED.", ["a", "man's", "t-shirt", "in", "red"]),
        ("A man’s hat", ["a", "man's", "hat"]),  # the typographic apostrophe is the same word
        ("'quoted' -dash- end-", ["quoted", "dash", "end"]),  # only inside a word
        ("2 dogs_3", ["2", "dogs", "3"]),  # the underscore is not a letter
        ("ＡＢ ﬁne", ["ab", "fine"]),  # NFKC: full width, ligature
        ("Ein Mädchen läuft", ["ein", "mädchen", "läuft"]),
        ("cafe\u0301", ["café"]),  # a combining accent joins its letter
        ("dog.cat/bird\n\tfish", ["dog", "cat", "bird", "fish"]),
        ("एक कुत्ता हिन्दी में", ["एक", "कुत्ता", "हिन्दी", "में"]),  # vowel signs and viramas are marks
        ("একটি কুকুর", ["একটি", "কুকুর"]),
        ("ஒரு நாய்", ["ஒரு", "நாய்"]),
        ("สุนัขวิ่ง ที่นี่", ["สุนัขวิ่ง", "ที่นี่"]),
        ("כֶּלֶב רָץ", ["כֶּלֶב", "רָץ"]),  # pointed Hebrew
        ("كَلْبٌ يَجْرِي", ["كَلْبٌ", "يَجْرِي"]),  # vocalized Arabic
        ("می\u200cخواهم", ["می\u200cخواهم"]),  # a zero-width non-joiner inside a Persian word
        ("İki IŞIK", ["iki", "işik"]),  # the lower case of "İ" has a combining dot
        ("mus\u00adtache", ["mustache"]),  # a soft hyphen is a place to break the line, no letter
        ("\u0301 alone", ["alone"]),  # a mark without a letter
        ("1\ufe0f\u20e3 \u2764\ufe0f \U0001f469\u200d\U0001f9b0", ["1"]),  # emoji are no words
        (" . ! ", []),
        ("", []),
    ],
)
def test_split_words(caption: str, words: list[str]) -> None:
    assert split_words(caption) == words


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("Big nose, curly hair & smiling.", ["big nose", "curly hair", "smiling"]),
        ("man;glasses/hat|tie + beard", ["man", "glasses", "hat", "tie", "beard"]),
        ("woman w/ glasses", ["woman w glasses"]),  # an abbreviation, not a separator
        ("Lady. smiling", ["lady", "smiling"]),
        ("Goatee beard - middle-aged", ["goatee beard", "middle-aged"]),  # not the hyphen inside a word
        ("1,000 dogs, 1.5 m", ["1 000 dogs", "1 5 m"]),
        ("hat\ntie\n", ["hat", "tie"]),
        ("大鼻子，卷发、笑", ["大鼻子", "卷发", "笑"]),
        ("رجل، لحية", ["رجل", "لحية"]),
        (",, ; ", []),
        ("a brown dog", ["a brown dog"]),
    ],
)
def test_split_items(text: str, items: list[str]) -> None:
    assert [" ".join(words) for words in split_items(text)] == items


def test_captions_are_lists_when_enough_of_them_have_short_items() -> None:
    assert are_lists(["big nose, hat", "man; beard", "young woman"])
    assert not are_lists(["a dog runs", "a black cat is sitting there, on the mat by the old door"])
    assert not are_lists([])


def test_a_list_has_short_phrases_only() -> None:
    assert is_list("big nose, curly hair") and is_list("The young man & brown hair")
    assert not is_list("A brown dog runs across the lawn, a ball in its mouth.")
    assert not is_list("big nose") and not is_list("big nose,")


def test_stray_separators() -> None:
    stray = [
        text for text in (",, hat", "hat;", "hat,,tie", "hat, tie.", "hat.", "A hat .", "") if has_stray_separator(text)
    ]
    assert stray == [",, hat", "hat;", "hat,,tie"]


def test_no_tensorflow_is_imported() -> None:
    unwanted = "{'tensorflow', 'keras'}"
    code = f"import sys, attncap.words, attncap.data.describe; sys.exit(bool({unwanted} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
