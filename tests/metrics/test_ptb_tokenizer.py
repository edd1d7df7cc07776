"""The tokenizer against recordings of the one that the COCO tools run, and against itself live where Java is there."""

import json
import shutil
from pathlib import Path

import pytest

from attncap.metrics import ptb_tokenizer as ptb

RECORDED = json.loads((Path(__file__).parent / "recorded_ptb.json").read_text(encoding="utf-8"))["captions"]


@pytest.mark.parametrize(("caption", "expected"), RECORDED, ids=[str(i) for i in range(len(RECORDED))])
def test_recorded_outputs_of_the_stanford_tokenizer(caption: str, expected: str) -> None:
    assert ptb.tokenize(caption) == expected


def test_recording_is_broad() -> None:
    text = " ".join(caption for caption, _ in RECORDED)
    assert len(RECORDED) >= 100
    assert all(
        sign in text
        for sign in ["n't", "’", "“", "(", "[", "--", "—", "...", "…", "$", "€", "/", "😀", "<b>", "http", "Mr."]
    )


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("", []),
        (" \t\n ", []),
        ("...!", []),
        ("A man's dog can't swim (yet).", ["a", "man", "'s", "dog", "ca", "n't", "swim", "-lrb-", "yet", "-rrb-"]),
        ("cannot CANNOT cannots", ["can", "not", "can", "not", "cannots"]),
        ("plan B. The dog", ["plan", "b", "the", "dog"]),
        ("B. Smith", ["b.", "smith"]),
        ("It cost £5 or 5¢", ["it", "cost", "#", "5", "or", "5", "cents"]),
        ("line\nbreak\rand\u2028more", ["line", "break", "and", "more"]),
        ("wow!! no!", ["wow", "!!", "no"]),
    ],
)
def test_tokens(caption: str, expected: list[str]) -> None:
    assert ptb.tokens(caption) == expected


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("एक लड़की हिन्दी पढ़ रही है।", 6),  # Hindi, with its full stop
        ("একটি ছেলে বাংলা বই পড়ছে", 5),  # Bengali
        ("ஒரு சிறுவன் தமிழ் படிக்கிறான்", 4),  # Tamil
        ("กำลังอ่าน หนังสือ", 2),  # Thai
        ("יֶלֶד קוֹרֵא", 2),  # pointed Hebrew
        ("وَلَدٌ يَقْرَأُ، می\u200cخواهم", 3),  # pointed Arabic; Persian with a joiner
        ("İki köpek", 2),  # Turkish
        ("un garçon écrit", 3),  # decomposed accents
    ],
)
def test_letters_keep_their_combining_marks(caption: str, expected: int) -> None:
    found = ptb.tokens(caption)
    assert len(found) == expected
    assert ptb.tokens(" ".join(found)) == found


def test_turkish_and_accents_in_one_form() -> None:
    assert ptb.tokens("\u0130ki") == ["iki"]
    assert ptb.tokens("garc\u0327on") == ptb.tokens("gar\u00e7on")


def test_tokenized_text_stays_as_it_is() -> None:
    """Predictions are words joined by blanks already: "do n't" must not fall apart a second time."""
    for words in ("a man 's dog does n't run", "two dogs , one black", "the boy ca n't", "t-shirt and mp3 player"):
        assert ptb.tokenize(words) == words.replace(" ,", "")


def test_never_raises_and_holds_no_blank() -> None:
    import random

    rng = random.Random(0)
    signs = [chr(c) for c in range(1, 0x2100)] + list("abcAB019 .,'\"-!?()&<>@#$/") * 40
    for _ in range(500):
        for token in ptb.tokens("".join(rng.choices(signs, k=30))):
            assert token and " " not in token and token == token.lower()


@pytest.mark.skipif(shutil.which("java") is None, reason="needs Java: the original tokenizer runs in it")
def test_recordings_are_what_the_original_says_now() -> None:
    original = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer", reason="needs pycocoevalcap")
    captions = {i: [{"caption": caption}] for i, (caption, _) in enumerate(RECORDED)}
    assert original.PTBTokenizer().tokenize(captions) == {i: [expected] for i, (_, expected) in enumerate(RECORDED)}
