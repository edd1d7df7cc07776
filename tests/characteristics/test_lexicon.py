"""Lexicon: what a text states, whatever its spelling, order, script or negation."""

import csv

import pytest

from attncap.characteristics import Entry, Lexicon
from attncap.characteristics.text import join, segments

ENTRIES = [
    Entry("glasses", "glasses", 50),
    Entry("hat", "hat", 50),
    Entry("hair", "hair piece", 3),
    Entry("beard", "beard", 50),
    Entry("beard", "clean shaven", 20, -1),
    Entry("big nose", "big nose", 30),
    Entry("curly hair", "curly hair", 30),
    Entry("bags", "bags under eyes", 20),
    Entry("earrings", "earrings", 20),
    Entry("makeup", "make up", 20),
    Entry("", "very", 9),
    Entry("", "wearing", 9),
    Entry("黑发", "黑发", 9),
    Entry("眼镜", "眼镜", 9),
    Entry("Brille", "Brille", 5),
    Entry("Bart", "Bart", 5),
]


@pytest.fixture(scope="module")
def lexicon():
    return Lexicon(ENTRIES)


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("Hats & no glases or beard", {"hat": True, "glasses": False, "beard": False}),
        ("nose is very big; BAGS UNDER THE EYES", {"big nose": True, "bags": True}),
        ("#BigNose #nobeard", {"big nose": True, "beard": False}),
        ("ear rings, make-up, curlyhair", {"earrings": True, "makeup": True, "curly hair": True}),
        ("beardless", {"beard": False}),
        ("not clean shaven", {"beard": True}),
        ("no hat and glasses", {"hat": False, "glasses": True}),
        ("without hat or beard and glasses", {"hat": False, "beard": False, "glasses": True}),
        ("makeup-free", {"makeup": False}),
        ("黑发，没有眼镜", {"黑发": True, "眼镜": False}),
        ("ohne Brille, mit Bart", {"Brille": False, "Bart": True}),
        ("big nose\n- curly hair\n- hat", {"big nose": True, "curly hair": True, "hat": True}),
        ("", {}),
        ("nothing that it knows", {}),
    ],
)
def test_statements(lexicon, text, stated):
    assert lexicon.statements(text) == stated


@pytest.mark.parametrize("text", ["chat", "coat", "hate it not", "grass"])
def test_other_words_are_no_misspellings(lexicon, text):
    assert lexicon.statements(text) == {}


def test_a_known_word_is_never_corrected_into_another():
    lexicon = Lexicon([Entry("white", "white shirt", 900), Entry("while", "while", 1)])
    assert lexicon.statements("while shirt") == {"while": True}


def test_order_is_kept_where_it_decides():
    lexicon = Lexicon([Entry("a", "dog bites man", 5), Entry("b", "man bites dog", 5)])
    assert lexicon.statements("man bites dog") == {"b": True}
    assert lexicon.statements("bites man dog") == {}


def test_contradictions_are_found_and_left_out(lexicon):
    assert lexicon.contradictions("beard, hat and no beard") == ["beard"]
    assert lexicon.statements("beard, hat and no beard") == {"hat": True}


def test_longest_phrase_wins_and_ignored_phrases_hide_others():
    lexicon = Lexicon([Entry("hat", "hat"), Entry("top hat", "top hat"), Entry("", "hat stand")])
    assert lexicon.statements("a top hat") == {"top hat": True}
    assert lexicon.statements("hat stand") == {}


def test_a_function_word_of_another_language_can_be_a_characteristic():
    assert Lexicon([Entry("hat", "hat")]).statements("hat") == {"hat": True}  # "hat" is a verb in German


def test_file_round_trip_neutralises_formulas(tmp_path):
    entries = [Entry("=cmd()", "+1 phrase", 3, -1, "@why"), Entry("naïve", 'é, "x"', 1), Entry("", "very", 2)]
    Lexicon(entries).write(tmp_path / "c.csv")
    text = (tmp_path / "c.csv").read_text("utf-8-sig")
    with open(tmp_path / "c.csv", encoding="utf-8-sig", newline="") as file:
        assert all(not cell.startswith(("=", "+", "-", "@")) for row in csv.reader(file) for cell in row)
    assert text.splitlines()[0] == "characteristic,phrase,count,sign,proposal"
    assert Lexicon.read(tmp_path / "c.csv").entries == entries


def test_file_of_a_spreadsheet_with_semicolons(tmp_path):
    (tmp_path / "c.csv").write_text("\ufeffPhrase;Characteristic;Sign\nbeard;beard;\nshaven;beard;-1\n;;\n", "utf-8")
    assert Lexicon.read(tmp_path / "c.csv").statements("shaven") == {"beard": False}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("phrase,count\na,1\n", "line 1: a column 'characteristic' expected, found phrase, count"),
        ("characteristic,phrase\na,\n", "line 2: a phrase expected"),
        ("characteristic,phrase,sign\na,b,maybe\n", "line 2: sign 'maybe': present or absent expected"),
        ("characteristic,phrase,count\na,b,many\n", "line 2: count 'many': a number expected"),
        (
            "characteristic,phrase\na,b\nc,B\n",
            "line 3: the phrase 'B' states 'c' present here and 'a' present in line 2",
        ),
        ("characteristic,phrase\na,b,c\n", "line 2: 2 columns expected"),
        ("", "line 1: a header line expected"),
    ],
)
def test_errors_name_file_and_line(tmp_path, content, message):
    (tmp_path / "c.csv").write_text(content, "utf-8")
    with pytest.raises(ValueError, match=message) as error:
        Lexicon.read(tmp_path / "c.csv")
    assert str(tmp_path / "c.csv") in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="attncap characteristics mine"):
        Lexicon.read(tmp_path / "none.csv")


def test_segments_and_join():
    assert segments("1.5 m, w/o hat/scarf") == [["1", "5", "m"], ["w/o", "hat"], ["scarf"]]
    assert segments("O'Clock—shadow: हिन्दी") == [["oclock", "shadow", "हिन्दी"]]
    assert join(["黑", "发", "and", "x"]) == "黑发and x" or join(["黑", "发"]) == "黑发"
