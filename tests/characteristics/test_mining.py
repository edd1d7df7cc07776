"""Mining: phrases, empty words and proposals from messy texts of two languages."""

from collections import Counter, defaultdict

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from attncap.characteristics import Lexicon, mine
from attncap.characteristics.evidence import images_alike, said_together, same_wording, whitened
from attncap.characteristics.proposals import propose_groups
from attncap.characteristics.segmentation import segment_texts
from attncap.characteristics.spelling import corrections
from attncap.cli.main import main
from tests.characteristics.messy import DOGS, LEUTE, messy_texts

N = 1500


def image_embeddings(claims, words, seed=0):
    """Images that show what texts say to be present, and noise."""
    rng = np.random.default_rng(seed)
    prototypes = dict(zip(words, rng.normal(size=(len(words), 32)), strict=True))
    shown = [sum((prototypes[key] for key, present in said if present), np.zeros(32)) for said in claims]
    return np.stack(shown) + 1.5 * rng.normal(size=(len(claims), 32))


def precision_recall(lexicon, texts, claims):
    """Each claim belongs to the one statement of the lexicon that goes with it most often."""
    stated = [{(s.characteristic, s.present) for s in lexicon.read_text(text)} for text in texts]
    together = defaultdict(Counter)
    for statements, said in zip(stated, claims, strict=True):
        for claim in said:
            together[claim].update(statements)
    meaning = {found.most_common(1)[0][0]: claim for claim, found in together.items()}
    named = [{meaning[s] for s in statements if s in meaning} for statements in stated]
    right = sum(len(a & b) for a, b in zip(named, claims, strict=True))
    return right / sum(map(len, named)), right / sum(map(len, claims))


@pytest.mark.parametrize(("words", "language"), [(DOGS, "en"), (LEUTE, "de")], ids=["dogs", "leute"])
def test_accepted_proposals_read_texts_of_another_domain_and_language(words, language):
    texts, claims = messy_texts(words, language, N)
    lexicon = mine(texts, embeddings=image_embeddings(claims, words)).lexicon
    fresh, fresh_claims = messy_texts(words, language, 500, seed=1)
    precision, recall = precision_recall(lexicon, fresh, fresh_claims)
    assert precision > 0.97
    assert recall > 0.95


def test_without_images_other_words_are_only_suggested():
    texts, _ = messy_texts(DOGS, "en", N)
    entries = {entry.phrase: entry for entry in mine(texts).lexicon.entries}
    assert entries["tail long"].characteristic == "long tail"
    assert entries["collars"].characteristic == "collar"
    assert entries["droopy ears"].characteristic == "droopy ears"
    assert entries["droopy ears"].proposal.startswith("the same as 'floppy ears'?")


def test_intensifiers_are_learned_and_content_words_are_not():
    texts, _ = messy_texts(LEUTE, "de", N)
    segmented = segment_texts(texts)
    assert {"etwas", "recht", "ziemlich"} <= set(segmented.empty_words) <= {"etwas", "recht", "ziemlich", "sehr"}


def test_sentences_are_divided_into_phrases_that_lists_have():
    lists = ["young, woman", "woman, curly hair", "curly hair, young", "glasses, woman", "glasses, young"] * 4
    segmented = segment_texts([*lists, "A young woman with curly hair and no glasses"])
    assert [(" ".join(item.tokens), item.negated) for item in segmented.items[-1]] == [
        ("young", False),
        ("woman", False),
        ("curly hair", False),
        ("glasses", True),
    ]


def test_scripts_without_blanks():
    texts = ["年轻，女人", "女人，黑发", "黑发，年轻", "眼镜，黑发", "没有眼镜，女人"] * 5 + ["年轻女人，黑发"]
    lexicon = mine(texts).lexicon
    assert lexicon.statements("年轻女人，没有眼镜") == {"年轻": True, "女人": True, "眼镜": False}


def test_negations_and_denials():
    texts = ["beard, hat", "beardless, glasses", "no hat", "without glasses", "not sharp", "hat, glasses"] * 5
    entries = {(e.characteristic, e.phrase, e.sign) for e in mine(texts).lexicon.entries}
    assert ("beard", "beardless", -1) in entries
    assert ("no sharp", "sharp", -1) in entries
    lexicon = mine(texts).lexicon
    assert lexicon.statements("no hat, beardless") == {"hat": False, "beard": False}


def test_corrections_leave_frequent_words_alone():
    counts = {"glasses": 200, "glases": 3, "grasses": 40, "hat": 300, "hta": 1, "chat": 2, "white": 100, "while": 60}
    assert corrections(counts) == {"glases": "glasses"}


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ("ear rings", "earrings", "written together or apart"),
        ("nose big", "big nose", "word order"),
        ("hats", "hat", "plural"),
        ("sonrisá", "sonrisa", "accents"),
        ("gray hair", "grey hair", "spelling"),
        ("smiling", "smile", "same stem"),
        ("black hair", "blond hair", ""),
        ("man", "woman", ""),
        ("big nose", "big ears", ""),
    ],
)
def test_same_wording(first, second, reason):
    assert same_wording(tuple(first.split()), tuple(second.split())) == reason


def test_opposites_that_look_alike_in_spelling_are_kept_apart_by_images():
    rng = np.random.default_rng(0)
    present = rng.random(600) < 0.5
    texts = ["señor" if p else "señora" for p in present]
    embeddings = np.where(present, 1.0, -1.0)[:, None] * np.ones(8) + rng.normal(size=(600, 8))
    assert len(mine(texts, embeddings=embeddings).lexicon.characteristics) == 2


def test_said_together_counts_by_hand():
    texts = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]], bool)
    observed, expected = said_together(texts)
    assert observed.tolist() == [[2, 1, 0], [1, 2, 0], [0, 0, 1]]
    # The first phrase has one place beside it in two texts; two of all five phrases said are the second.
    assert expected[0, 1] == pytest.approx((2 * 0.5 * 2 / 5 + 2 * 0.5 * 2 / 5) / 2)


def test_images_alike_doubts_small_samples():
    rng = np.random.default_rng(1)
    kind = rng.integers(2, size=1000)
    embeddings = np.where(kind[:, None], 0.7, -0.7) * np.ones(10) + rng.normal(size=(1000, 10))
    of = np.flatnonzero(kind)
    other = np.flatnonzero(kind == 0)
    texts = np.zeros((4, 1000), bool)
    texts[0, of[:200]] = texts[1, of[200:400]] = texts[2, of[400:405]] = texts[3, other[:200]] = True
    alike = images_alike(texts, whitened(embeddings))
    assert alike[0, 1] > 0.8
    assert alike[0, 2] < alike[0, 1]
    assert alike[0, 3] < 0


def test_errors():
    with pytest.raises(ValueError, match="at least one text"):
        mine([])
    with pytest.raises(ValueError, match="2 rows expected, one per text, 3 found"):
        mine(["hat", "cap"], embeddings=np.ones((3, 4)), min_count=1)


def test_a_phrase_of_many_texts_whose_images_are_like_all_images_states_nothing():
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(2000, 8))
    texts = rng.random((3, 2000)) < np.array([[0.3], [0.3], [0.05]])
    embeddings[texts[1], 3] += 1.0
    groups = propose_groups([("i", "see"), ("hat",), ("scar",)], texts, embeddings=embeddings)
    assert {group.members[0]: group.states_nothing for group in groups} == {0: True, 1: False, 2: False}
    assert not any(group.states_nothing for group in propose_groups([("i", "see")], texts[:1]))
    words = [f"{'i see, ' * bool(see)}{'hat' * bool(hat) or 'hair'}" for see, hat, _ in texts.T]
    lexicon = mine(words, embeddings=embeddings).lexicon
    assert set(lexicon.characteristics) == {"hat", "hair"} and lexicon.statements("I see, hat") == {"hat": True}


def test_command(tmp_path, capsys):
    texts, _ = messy_texts(DOGS, "en", 200)
    for number in range(len(texts)):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    frame = pd.DataFrame({"file": [f"{i}.png" for i in range(200)], "caption": texts})
    frame["split"] = ["test" if number < 50 else "train" for number in range(200)]
    frame.loc[0, "caption"] = "unicorn, unicorn"
    frame.to_csv(tmp_path / "texts.csv", index=False)
    status = main(
        f"characteristics mine --data table:{tmp_path}/texts.csv:{tmp_path} --min-count 1 "
        f"--out {tmp_path}/c.csv".split()
    )
    assert status == 0
    assert "150 texts, those of the test split left out" in capsys.readouterr().out
    lexicon = Lexicon.read(tmp_path / "c.csv")
    assert lexicon.statements("a long tail, no leash") == {"long tail": True, "leash": False}
    assert "unicorn" not in lexicon.characteristics
