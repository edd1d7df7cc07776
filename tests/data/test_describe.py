"""The numbers that describe captions, computed by hand on small sets."""

from __future__ import annotations

import pytest

from attncap.data.describe import MIN_COUNTS, DataProfile, describe_texts


def test_counts_and_shares() -> None:
    texts = ["Big nose, curly hair", "BIG NOSE,", "a man with a hat.", "A man with a hat"]
    profile = describe_texts(texts, images=3)
    # words: big 2, nose 2, curly, hair, a 4, man 2, with 2, hat 2: 8 words, 16 tokens
    assert profile == DataProfile(
        images=3,
        texts=4,
        texts_per_image=4 / 3,
        words_per_text=4.5,
        unique_share=0.5,
        vocabulary={1: 8, 2: 6, 3: 1, 5: 0, 10: 0},
        list_like_share=0.25,
        capitals_share=0.25,
        spaceless_share=0.0,
        stray_separator_share=0.25,
        short_share=0.25,
        words=16,
        covered={1: 1.0, 2: 14 / 16, 3: 4 / 16, 5: 0.0, 10: 0.0},
    )
    for expected in ("1.33", "4.5 (median)", "6 (min_count 2, covers 87.5%)"):
        assert expected in profile.table()


def test_without_captions_every_share_is_zero() -> None:
    profile = describe_texts([], images=0)
    assert (profile.texts, profile.texts_per_image, profile.words_per_text, profile.unique_share) == (0, 0.0, 0.0, 0.0)
    assert profile.vocabulary == dict.fromkeys(MIN_COUNTS, 0)
    assert profile.difficulties() == ["there are no captions: a captioner cannot be trained"]


@pytest.mark.parametrize(
    ("text", "spaceless"),
    [
        ("一个戴眼镜的男人", True),
        ("一 个 男人", False),  # separated by spaces already
        ("めがねをかけた女性", True),
        ("ผู้ชายสวมแว่นตา", True),
        ("안경을 쓴 남자", False),
        ("a man", False),
    ],
)
def test_scripts_written_without_spaces(text: str, spaceless: bool) -> None:
    assert describe_texts([text], images=1).spaceless_share == float(spaceless)


def test_what_will_be_hard_is_said_once_each() -> None:
    texts = [f"HAT {n}, TIE" for n in range(20)]
    hard = describe_texts(texts, images=20).difficulties()
    for said in ("only 20 images", "one short caption per image", "lists of phrases", "lower min_count", "in capitals"):
        assert sum(said in line for line in hard) == 1, said
    assert describe_texts(["a dog runs across the lawn"] * 5000, images=1000).difficulties() == []
