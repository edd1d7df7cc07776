"""Drawn faces: determinism, splits, boxes, captions and what their words claim."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from attncap.data.faces.captions import CHARACTERISTICS, UNSTATED, usual_caption, write_captions
from attncap.data.faces.claims import PRESENT, stated_characteristics, true_share
from attncap.data.faces.dataset import (
    HELD_OUT_COMBINATIONS,
    draw_face,
    face_plan,
    held_out_pairs,
    make_faces,
    sample_attributes,
)

# Recorded: face 2 of seed 0.
GOLDEN: dict[str, Any] = {
    "split": "val",
    "values": [
        "ponytail",
        "ginger",
        "none",
        "none",
        "round",
        "brown",
        "thin",
        "small",
        "small",
        "smile",
        "none",
        "none",
        "none",
        "none",
        "tie",
        "green",
    ],
    "captions": [
        "a person wearing round spectacles and a green tie, with a ginger ponytail, brown eyes, a tiny nose "
        "and small ears, who is smiling",
        "a happy person with ginger hair in a ponytail, brown eyes and a small nose in round glasses and a "
        "green necktie",
        "a smiling person with a ginger ponytail, brown eyes, a small nose and small ears wearing a green tie "
        "and round glasses",
        "a happy person with a ginger ponytail, brown eyes and a small nose wearing round glasses and a green necktie",
        "a smiling person with a ginger ponytail, brown eyes, a small nose and small ears wearing round "
        "spectacles and a green tie",
    ],
    "thumbnail": [
        [75, 72, 64, 72, 72, 64],
        [73, 74, 68, 69, 79, 66],
        [74, 78, 77, 70, 81, 66],
        [72, 99, 102, 71, 80, 80],
        [75, 115, 114, 77, 81, 88],
        [140, 169, 165, 156, 80, 93],
    ],
    "boxes": {
        "hair": 2,
        "hair_color": 2,
        "neckwear": 1,
        "neckwear_color": 1,
        "ears": 2,
        "mouth": 1,
        "eyes": 2,
        "eyebrows": 2,
        "nose": 1,
        "glasses": 1,
    },
}

PLANS = [face_plan(3, index) for index in range(701)]


def attribute_table(plans: list[tuple[str, dict[str, str], list[str]]]) -> pd.DataFrame:
    return pd.DataFrame([{"image_id": str(index), **plan[1]} for index, plan in enumerate(plans)])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[pd.DataFrame, ...]]:
    folder = tmp_path_factory.mktemp("faces") / "of seed 5"
    return folder, make_faces(23, folder, seed=5)


# ------------------------------------------------------------------ what a face has


def test_attributes_are_values_of_their_characteristics_and_every_value_occurs() -> None:
    table = attribute_table(PLANS)
    assert list(table.columns) == ["image_id", *CHARACTERISTICS]
    assert len(CHARACTERISTICS) >= 12
    for name, values in CHARACTERISTICS.items():
        assert set(table[name]) == set(values), name


def test_attributes_agree_with_each_other() -> None:
    for _, face, _ in PLANS:
        assert (face["hat"] == "none") == (face["hat_color"] == "none")
        assert (face["neckwear"] == "none") == (face["neckwear_color"] == "none")
        assert (face["hair"] == "bald") == (face["hair_color"] == "none")
        assert (face["hair"] == "hidden") == (face["hair_color"] == "hidden")
        assert (face["glasses"] == "sunglasses") == (face["eyes"] == "hidden")
        assert (face["hair"] == "long") == (face["ears"] == "hidden") == (face["earrings"] == "hidden")
        assert face["hat"] == "none" or face["hair"] not in ("bald", "spiky", "ponytail")


def test_the_same_face_on_any_machine() -> None:
    split, face, captions = face_plan(0, 2)
    assert split == GOLDEN["split"]
    assert list(face.values()) == GOLDEN["values"]
    assert captions == GOLDEN["captions"]
    picture, boxes = draw_face(face, np.random.default_rng([0, 2, 2]))
    thumbnail = np.asarray(picture.resize((6, 6), Image.Resampling.BOX), int)[..., 1]
    np.testing.assert_allclose(thumbnail, GOLDEN["thumbnail"], atol=4)  # Pillow's versions draw edges differently
    assert {name: len(found) for name, found in boxes.items()} == GOLDEN["boxes"]


# ------------------------------------------------------------------ splits


def test_splits_have_their_shares_and_only_test_has_the_held_out_combinations() -> None:
    shares = pd.Series([split for split, _, _ in PLANS]).value_counts(normalize=True)
    assert shares["val"] == pytest.approx(0.10, abs=0.03)
    assert shares["test"] == pytest.approx(0.15, abs=0.03)
    seen = {pair for split, face, _ in PLANS for pair in held_out_pairs(face) if split == "test"}
    assert seen == set(range(len(HELD_OUT_COMBINATIONS)))
    assert not any(held_out_pairs(face) for split, face, _ in PLANS if split != "test")
    with_pair = np.mean([bool(held_out_pairs(face)) for split, face, _ in PLANS if split == "test"])
    assert 0.2 < with_pair < 0.5


def test_each_half_of_a_held_out_combination_is_seen_in_training() -> None:
    train = [face for split, face, _ in PLANS if split == "train"]
    for pair in HELD_OUT_COMBINATIONS:
        for name, value in pair:
            assert value in CHARACTERISTICS[name]
            assert sum(face[name] == value for face in train) >= 10, (name, value)


# ------------------------------------------------------------------ pictures and boxes


def test_every_visible_characteristic_has_boxes_and_no_other() -> None:
    for index, (_, face, _) in enumerate(PLANS[:61]):
        picture, boxes = draw_face(face, np.random.default_rng([3, index, 2]))
        assert (picture.size, picture.mode) == ((192, 192), "RGB")
        assert set(boxes) == {name for name, value in face.items() if value not in UNSTATED}
        for name, found in boxes.items():
            assert found, name
            assert all(0 <= a < c <= 1 and 0 <= b < d <= 1 for a, b, c, d in found)


def test_a_box_holds_what_changes_with_the_characteristic() -> None:
    """The same face with and without a thing differs inside the thing's boxes, and there alone."""
    _, face, _ = PLANS[0]
    plain = {**face, "hat": "none", "hat_color": "none", "hair": "short", "hair_color": "black", "glasses": "none"}
    plain |= {"eyes": "blue", "ears": "small", "earrings": "none", "neckwear": "none", "neckwear_color": "none"}
    plain |= {"beard": "none", "moustache": "none", "freckles": "none", "nose": "small", "mouth": "straight"}
    changes = [
        {"earrings": "pearl"},
        {"freckles": "some"},
        {"moustache": "bushy"},
        {"beard": "goatee"},
        {"eyes": "green"},
        {"hair_color": "blond", "eyebrows": "thin"},
        {"neckwear": "scarf", "neckwear_color": "yellow"},
    ]
    for change in changes:
        label = next(iter(change))
        before, without = draw_face({**plain, "eyebrows": "thin"}, np.random.default_rng(17))
        after, boxes = draw_face({**plain, "eyebrows": "thin", **change}, np.random.default_rng(17))
        different = np.abs(np.asarray(before, int) - np.asarray(after, int)).max(-1) > 24  # (192, 192)
        inside = np.zeros((192, 192), bool)
        for left, top, right, bottom in boxes[label]:
            inside[int(top * 192) : int(bottom * 192) + 1, int(left * 192) : int(right * 192) + 1] = True
        assert different.sum() > 30, label
        share = 0.8 if label == "hair_color" else 1.0  # the temples lie below the box, which leaves the eyes out
        assert (different & inside).sum() >= share * different.sum(), label
        assert label in ("eyes", "hair_color") or label not in without


def test_tables(drawn: tuple[Path, tuple[pd.DataFrame, ...]]) -> None:
    folder, (pictures, captions, attributes, boxes) = drawn
    assert pictures.columns.tolist() == ["image_id", "path", "split"]
    assert pictures["image_id"].tolist() == [f"face_{index:06d}.png" for index in range(23)]
    assert all(Path(path) == folder / "images" / name for name, path, _ in pictures.itertuples(index=False))
    assert captions.groupby("image_id").size().tolist() == [5] * 23
    assert attributes.columns.tolist() == ["image_id", *CHARACTERISTICS]
    assert boxes.columns.tolist() == ["image_id", "label", "left", "top", "right", "bottom"]
    assert set(boxes["label"]) <= set(CHARACTERISTICS)
    claims = {
        (name, claim[0]) for name, text in captions.itertuples(index=False) for claim in stated_characteristics(text)
    }
    assert claims <= set(boxes[["image_id", "label"]].itertuples(index=False, name=None))


def test_more_faces_begin_with_the_fewer_and_keep_their_pictures(drawn: tuple[Path, tuple[pd.DataFrame, ...]]) -> None:
    folder, fewer = drawn
    first = folder / "images" / "face_000000.png"
    broken = folder / "images" / "face_000001.png"
    before, whole = first.stat().st_mtime_ns, broken.read_bytes()
    broken.write_bytes(b"")
    more = make_faces(29, folder, seed=5)
    assert first.stat().st_mtime_ns == before
    assert broken.read_bytes() == whole
    for small, large in zip(fewer, more, strict=True):
        pd.testing.assert_frame_equal(large[large["image_id"] <= "face_000022.png"], small)
    assert sorted(path.suffix for path in folder.rglob("*") if path.is_file()) == [".json"] + [".png"] * 29


def test_a_folder_of_other_faces_is_refused(drawn: tuple[Path, tuple[pd.DataFrame, ...]], tmp_path: Path) -> None:
    folder, _ = drawn
    with pytest.raises(ValueError, match=r"faces\.json: faces of .*'seed': 6.* expected, found .*'seed': 5.*: remove"):
        make_faces(2, folder, seed=6)
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match=r"has images but no faces\.json: name a folder"):
        make_faces(2, tmp_path)
    (tmp_path / "faces.json").write_text("{")
    with pytest.raises(ValueError, match=r"faces\.json: JSON with seed and version expected"):
        make_faces(2, tmp_path)
    (tmp_path / "faces.json").write_text(json.dumps([7]))
    with pytest.raises(ValueError, match=r"expected, found \[7\]"):
        make_faces(2, tmp_path)
    with pytest.raises(ValueError, match=r"n of 1 or more .* found n=0, seed=0"):
        make_faces(0, tmp_path / "none")


# ------------------------------------------------------------------ captions


def test_reference_captions_state_only_what_is_true() -> None:
    table = attribute_table(PLANS)
    claims = 0
    for place in range(5):
        share, stated = true_share({str(index): plan[2][place] for index, plan in enumerate(PLANS)}, table)
        assert share == 1.0
        claims += stated
    assert 6.5 < claims / (5 * len(PLANS)) < 8.5
    usual = {str(index): usual_caption(plan[1]) for index, plan in enumerate(PLANS)}
    assert true_share(usual, table)[0] == 1.0
    turned = table.assign(image_id=[str((index + 1) % len(PLANS)) for index in range(len(PLANS))])
    assert true_share(usual, turned)[0] < 0.3


def test_captions_state_every_value_and_differ() -> None:
    captions = [caption for _, _, written in PLANS for caption in written]
    stated = {claim[:2] for caption in captions for claim in stated_characteristics(caption)}
    sayable = {(name, value) for name, values in CHARACTERISTICS.items() for value in values if value not in UNSTATED}
    assert stated == sayable
    assert len(set(captions)) > 0.95 * len(captions)
    assert min(len(set(written)) for _, _, written in PLANS) >= 3
    assert not any("none" in caption or "hidden" in caption for caption in captions)


def test_a_perfect_captioner_agrees_with_the_references_more_than_they_do_with_each_other() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    references = [[caption.replace(",", "") for caption in written] for _, _, written in PLANS]
    usual = [usual_caption(face).replace(",", "") for _, face, _ in PLANS]
    perfect = sacrebleu.corpus_bleu(usual, list(zip(*references, strict=True)), tokenize="none").score
    human = sacrebleu.corpus_bleu(
        [written[0] for written in references],
        list(zip(*[written[1:] for written in references], strict=True)),
        tokenize="none",
    ).score
    assert perfect >= 90
    assert 55 <= human <= 75


def test_the_number_of_captions_is_free() -> None:
    rng = np.random.default_rng(7)
    assert len(write_captions(sample_attributes(rng), rng, n=3)) == 3


@pytest.mark.parametrize(
    ("caption", "claims"),
    [
        ("", []),
        ("a person", []),
        (
            "A smiling person with long blond hair, a red cap",
            [
                ("mouth", "smile", 1),
                ("hair", "long", 4),
                ("hair_color", "blond", 5),
                ("hat_color", "red", 8),
                ("hat", "cap", 9),
            ],
        ),
        ("a tall green top hat", [("hat_color", "green", 2), ("hat", "top hat", 3)]),
        ("a blue woolly hat", [("hat_color", "blue", 1), ("hat", "beanie", 2)]),
        ("a red bow tie", [("neckwear_color", "red", 1), ("neckwear", "bow tie", 2)]),
        ("dark glasses", [("glasses", "sunglasses", 0)]),
        ("no hair", [("hair", "bald", 0)]),
        ("pink hair in a ponytail", [("hair_color", "pink", 0), ("hair", "ponytail", 4)]),
        ("freckled cheeks and big hoops", [("freckles", "some", 0), ("earrings", "hoop", 4)]),
        # as a model stammers
        ("round glasses square glasses", [("glasses", "round", 0), ("glasses", "square", 2)]),
        ("big small nose", [("nose", "big", 0), ("nose", "small", 1)]),
        ("a purple nose", [("nose", "purple", 1)]),
        ("a red round cap", [("hat_color", "red", 1), ("hat", "round", 2), ("hat", "cap", 3)]),
        ("with a beard and with a hat", [("beard", PRESENT, 2), ("hat", PRESENT, 6)]),
        ("a nose and ears with long and", []),
        ("wearing red a cap", [("hat", "cap", 3)]),
    ],
)
def test_words_become_claims(caption: str, claims: list[tuple[str, str, int]]) -> None:
    assert stated_characteristics(caption) == claims


def test_true_share_by_hand() -> None:
    face = dict.fromkeys(CHARACTERISTICS, "none") | {"hair": "short", "hat": "cap", "hat_color": "red"}
    table = pd.DataFrame([{"image_id": "a", **face}, {"image_id": "b", **face, "hair": "bald"}])
    assert true_share({"a": "short hair and a blue cap"}, table) == (pytest.approx(2 / 3), 3)
    assert true_share({"a": "hair and a beard", "b": "hair, a hat"}, table) == (0.5, 4)  # the bald have no hair
    share, stated = true_share({"a": "a person"}, table)
    assert np.isnan(share) and stated == 0
    with pytest.raises(ValueError, match=r"no row for image_id 'c' \(1 missing\)"):
        true_share({"c": "a nose"}, table)


def test_faces_that_are_there_need_no_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = make_faces(3, tmp_path, seed=4)
    monkeypatch.setattr("os.replace", None)  # as on a disk that cannot be written
    for first, again in zip(drawn, make_faces(3, tmp_path, seed=4), strict=True):
        pd.testing.assert_frame_equal(first, again)
