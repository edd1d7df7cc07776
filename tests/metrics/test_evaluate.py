"""The public face: scores with everything around them, JSON in and out, and the COCO tools reading what we write."""

import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attncap.metrics.evaluate import (
    References,
    bleu,
    check_ids,
    compare,
    evaluate,
    read_predictions,
    read_references,
    write_predictions,
    write_references,
)

REFERENCES = {
    "11": ["A black dog runs on the grass.", "The dog is running.", "A dog runs across a green lawn."],
    "13": ["A man rides a red bike.", "Someone on a bike.", "A man is riding his bike down the street."],
    "17": ["Two girls play in the water.", "Girls playing.", "Two children play in a pool of water."],
    "19": ["A boy jumps off a rock.", "Boy jumping (high)!", "A young boy jumps off of a big rock."],
    "23": ["A woman's hat isn't red.", "A hat.", "The woman wears a blue hat."],
}
GOOD = {
    "11": "a black dog runs on the grass",
    "13": "a man rides a red bike down the street",
    "17": "two girls play in a pool",
    "19": "a boy jumps off a rock",
    "23": "a woman wears a blue hat",
}
BAD = dict.fromkeys(REFERENCES, "a man in a shirt")


def written(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


# ---------------------------------------------------------------- scores


def test_bleu_tokenizes_both_sides() -> None:
    assert bleu({"1": "A man's dog (isn't) here."}, {"1": ["a man 's dog ( is n't ) here"]}) == pytest.approx([1] * 4)


def test_prepared_references_give_the_same() -> None:
    prepared = References(REFERENCES)
    assert len(prepared) == 5
    for policy in ("closest", "shortest", "none"):
        np.testing.assert_array_equal(bleu(GOOD, prepared, policy), bleu(GOOD, REFERENCES, policy))
    assert not np.array_equal(bleu(GOOD, prepared, "closest"), bleu(GOOD, prepared, "shortest"))


def test_ids_are_strings_or_integers() -> None:
    integers = {int(key): texts for key, texts in REFERENCES.items()}
    mixed = {np.int64(key): text for key, text in GOOD.items()}
    np.testing.assert_array_equal(bleu(GOOD, integers), bleu(GOOD, REFERENCES))  # type: ignore[arg-type]
    np.testing.assert_array_equal(bleu(mixed, integers), bleu(GOOD, REFERENCES))  # type: ignore[arg-type]
    assert bleu({7: "a dog"}, {"7": ["a dog"]})[0] == pytest.approx(1)  # type: ignore[dict-item]


def test_order_of_predictions_does_not_matter() -> None:
    np.testing.assert_array_equal(bleu(dict(reversed(GOOD.items())), REFERENCES), bleu(GOOD, REFERENCES))


def test_json_dict_is_complete_and_plain() -> None:
    found = json.loads(json.dumps(evaluate(GOOD, REFERENCES, bootstrap=50).to_json_dict(), allow_nan=False))
    assert found["bleu"] == pytest.approx(bleu(GOOD, REFERENCES).tolist())
    assert found["bleu_policy"] == "closest" and found["n"] == 5
    assert found["cider"] == found["cider_d"] != found["cider_plain"]
    assert found["bootstrap"] == {"samples": 50, "seed": 0, "level": 0.95}
    for name in ("rouge_l", "cider", "cider_d", "cider_plain"):
        low, high = found["intervals"][name]
        assert low < found[name] < high
    assert all(low <= x <= high for (low, high), x in zip(found["intervals"]["bleu"], found["bleu"], strict=True))
    assert np.shape(found["intervals"]["bleu"]) == (4, 2)


def test_seeded() -> None:
    first, same, other = (
        evaluate(GOOD, REFERENCES, bootstrap=30, seed=seed).to_json_dict()["intervals"] for seed in (3, 3, 4)
    )
    assert first == same != other


def test_without_bootstrap_and_human_line() -> None:
    found = evaluate(GOOD, REFERENCES, bootstrap=0, human=False).to_json_dict()
    assert found["intervals"] is None and found["human"] is None and found["meteor"] is None


def test_per_picture_table() -> None:
    scores = evaluate(GOOD, REFERENCES, bootstrap=0)
    table = scores.per_image
    assert table["image_id"].tolist() == list(REFERENCES)
    assert table["prediction"].tolist() == list(GOOD.values())
    assert table["words"].tolist() == [7, 9, 6, 6, 6]
    assert table["cider_d"].mean() == pytest.approx(scores.values["cider_d"])
    assert table[["bleu_1", "bleu_4", "rouge_l"]].to_numpy()[3].tolist() == pytest.approx([1, 1, 1])
    assert table["bleu_4"].mean() != pytest.approx(scores.bleu[3], abs=1e-6)  # a mean of BLEUs is not corpus BLEU


def test_human_line_by_hand() -> None:
    """Two humans, each against the other: 2 of 2 words with a penalty of exp(1 - 3/2), and 2 of 3 words without."""
    found = evaluate({"1": "a dog"}, {"1": ["a dog", "a dog runs"]}, bootstrap=0).human
    assert found is not None
    penalty = np.exp(1 - 3 / 2)
    assert found["bleu_1"] == pytest.approx((penalty + 2 / 3) / 2)
    assert found["system"]["bleu_1"] == pytest.approx((penalty + 1) / 2)
    assert (found["n"], found["rounds"]) == (1, 2)


def test_human_line_leaves_out_pictures_with_one_caption() -> None:
    mixed = {**REFERENCES, "29": ["a car"]}
    found = evaluate({**GOOD, "29": "a bus"}, mixed, bootstrap=0).human
    without = evaluate(GOOD, REFERENCES, bootstrap=0).human
    assert found is not None and without is not None
    assert (found["n"], found["rounds"]) == (5, 3)
    assert [found[f"bleu_{n}"] for n in range(1, 5)] == pytest.approx([without[f"bleu_{n}"] for n in range(1, 5)])
    assert evaluate({"29": "a bus"}, {"29": ["a car"]}, bootstrap=0).human is None


def test_a_human_who_repeats_the_others_scores_one() -> None:
    same = {key: [captions[0]] * 3 for key, captions in REFERENCES.items()}
    found = evaluate(BAD, same, bootstrap=0).human
    assert found is not None
    assert found["bleu_4"] == pytest.approx(1) and found["system"]["bleu_1"] < 0.5


def test_variety_by_hand() -> None:
    predictions = {"1": "A dog runs.", "2": "a dog runs", "3": "a red car", "5": ""}
    references = {key: ["a dog"] for key in predictions}
    found = evaluate(predictions, references, bootstrap=0, train_captions=["The A dog", "a  dog runs !"]).variety
    assert found["vocabulary"] == 5
    assert (found["distinct_captions"], found["distinct_share"], found["novel_share"]) == (3, 0.75, 0.5)
    assert found["most_repeated"] == {"caption": "a dog runs", "count": 2}
    assert found["length"] == {"mean": 2.25, "min": 0, "median": 3.0, "max": 3, "histogram": {"0": 1, "3": 3}}
    assert evaluate(predictions, references, bootstrap=0).variety["novel_share"] is None


def test_tables_say_what_they_show() -> None:
    scores = evaluate(GOOD, REFERENCES, bootstrap=20, train_captions=["a boy jumps off a rock"])
    text = f"{scores.table()}\n{compare(GOOD, BAD, REFERENCES, samples=20).table()}"
    for part in (
        "brevity policy 'closest'",
        "BLEU-4",
        f"{scores.bleu[3]:.3f}",
        "20 bootstrap samples",
        "human",
        "80.0%",
    ):
        assert part in text
    assert "paired randomization, 20 samples" in text and "A - B" in text
    assert all(len(line) <= 120 for line in text.splitlines())


# ---------------------------------------------------------------- comparing


@pytest.mark.parametrize("method", ["bootstrap", "randomization"])
def test_compare(method: str) -> None:
    references = {str(i): REFERENCES[key] for i, key in enumerate(list(REFERENCES) * 5)}
    good = {str(i): GOOD[key] for i, key in enumerate(list(REFERENCES) * 5)}
    bad = dict.fromkeys(references, "a man in a shirt")
    found = compare(good, bad, references, method=method, samples=200).to_json_dict()
    assert found["difference"]["rouge_l"] == pytest.approx(found["a"]["rouge_l"] - found["b"]["rouge_l"])
    assert found["p_values"]["bleu"][0] < 0.01 and found["p_values"]["cider"] < 0.01
    assert 0 < found["intervals"]["rouge_l"][0] < found["difference"]["rouge_l"] < found["intervals"]["rouge_l"][1]
    itself = compare(good, good, references, method=method, samples=50).to_json_dict()
    assert itself["p_values"]["bleu"] == [1] * 4 and itself["difference"]["cider"] == 0
    swapped = compare(bad, good, references, method=method, samples=200).to_json_dict()
    assert swapped["difference"]["cider"] == -found["difference"]["cider"]


def test_compare_refuses_another_method() -> None:
    with pytest.raises(ValueError, match=r"method is bootstrap or randomization, got 't-test'"):
        compare(GOOD, BAD, REFERENCES, method="t-test")


# ---------------------------------------------------------------- errors


def test_ids_must_fit() -> None:
    with pytest.raises(
        ValueError, match=r"predictions: no caption for 4 of the 5 images of references, first '13', '17'"
    ):
        bleu({"11": "a"}, REFERENCES)
    with pytest.raises(ValueError, match=r"predictions: captions for 1 images that references do not have, first '5'"):
        evaluate({**GOOD, "5": "a"}, REFERENCES)
    with pytest.raises(ValueError, match=r"p\.json: no caption for 1 of the 1 images of r\.json, first '2'"):
        check_ids({}, {"2": []}, "p.json", "r.json")


def test_types_must_fit() -> None:
    with pytest.raises(ValueError, match=r"prediction of '11': expected a string, got None"):
        bleu({**GOOD, "11": None}, REFERENCES)  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"predictions: expected a mapping image_id -> caption, got 'a'"):
        bleu("a", {"1": ["b"]})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"references: expected a mapping image_id -> captions, got 'b'"):
        bleu("a", "b")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"predictions: image_id 7.5: expected a string or an integer"):
        bleu({7.5: "a"}, {"7": ["b"]})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"image_id '7' is there as a string and as an integer; keep one"):
        bleu({7: "a", "7": "a"}, {"7": ["b"]})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"references of '1': expected a list of strings, got 'a dog'"):
        References({"1": "a dog"})
    with pytest.raises(ValueError, match=r"references of '1': expected at least one caption"):
        References({"1": []})
    with pytest.raises(ValueError, match=r"at least one image"):
        References({})
    with pytest.raises(ValueError, match=r"brevity is one of closest, shortest, none, got 'longest'"):
        bleu(GOOD, REFERENCES, "longest")


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("integer_ids", [False, True])
def test_predictions_round_trip(tmp_path: Path, integer_ids: bool) -> None:
    path = tmp_path / "new" / "predictions.json"
    captions = {"11": 'a "dog" é 😀', "2": ""}
    write_predictions(path, captions, integer_ids)
    assert read_predictions(path) == captions and list(read_predictions(path)) == ["11", "2"]
    assert [type(entry["image_id"]) for entry in json.loads(path.read_text("utf-8"))] == [
        int if integer_ids else str
    ] * 2
    assert [file.name for file in path.parent.iterdir()] == ["predictions.json"]


@pytest.mark.parametrize("integer_ids", [False, True])
def test_references_round_trip(tmp_path: Path, integer_ids: bool) -> None:
    path = tmp_path / "captions.json"
    write_references(path, REFERENCES, integer_ids)
    assert read_references(path) == REFERENCES
    data = json.loads(path.read_text("utf-8"))
    assert {"info", "licenses", "images", "annotations"} <= set(data)
    assert [annotation["id"] for annotation in data["annotations"]] == list(range(1, 16))


def test_writing_is_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "predictions.json"
    write_predictions(path, {"1": "a dog"})
    with pytest.raises(TypeError):
        write_predictions(path, {"1": "a cat", "2": object()})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"integer_ids needs ids that are integers, got 'x\.jpg'"):
        write_predictions(path, {"x.jpg": "a cat"}, integer_ids=True)
    assert read_predictions(path) == {"1": "a dog"} and len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(os.name == "nt", reason="file modes are a POSIX thing")
def test_written_files_are_readable_like_any_other(tmp_path: Path) -> None:
    write_predictions(tmp_path / "a.json", {})
    (tmp_path / "b.json").write_text("")
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == stat.S_IMODE((tmp_path / "b.json").stat().st_mode)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"image_id": 1,', r"p\.json: line 1: not JSON"),
        ({"images": []}, r"p\.json: expected a list of .*, got an object \(this looks like a captions JSON"),
        ([3], r"p\.json: entry 0: expected an object, got an integer"),
        ([{"caption": "a"}], r'p\.json: entry 0: no "image_id"; it has caption'),
        ([{"image_id": 1, "caption": "a"}, {"image_id": 2}], r'p\.json: entry 1: no "caption"; it has image_id'),
        ([{"image_id": 1, "caption": None}], r'p\.json: entry 0: "caption" should be a string, got null'),
        ([{"image_id": 1, "caption": ["a"]}], r'p\.json: entry 0: "caption" should be a string, got a list'),
        ([{"image_id": 1.5, "caption": "a"}], r'"image_id" should be an integer or a string, got a float'),
        ([{"image_id": True, "caption": "a"}], r'"image_id" should be an integer or a string, got true or false'),
        (
            [{"image_id": 7, "caption": "a"}, {"image_id": "7", "caption": "b"}],
            r"p\.json: entry 1: image_id '7' came already in entry 0; keep one",
        ),
    ],
)
def test_bad_predictions(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_predictions(written(tmp_path / "p.json", content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r'r\.json: expected a COCO captions JSON, an object with a list "annotations", got a list'),
        ({"images": []}, r"r\.json: .* got an object with images"),
        ({"images": 3, "annotations": []}, r'expected "images" to be a list, got an integer'),
        ({"images": [{"id": 1}, {"id": 1}], "annotations": []}, r"r\.json: images\[1\]: id '1' is listed twice"),
        ({"images": [{"file_name": "x"}], "annotations": []}, r'r\.json: images\[0\]: no "id"; it has file_name'),
        (
            {"images": [{"id": 1}], "annotations": [{"id": 5, "image_id": 2, "caption": "a"}]},
            r"r\.json: annotations\[0\]: image_id '2' is not among",
        ),
        (
            {"annotations": [{"id": 5, "image_id": 2, "caption": "a"}, {"id": 5, "image_id": 3, "caption": "a"}]},
            r"r\.json: annotations\[1\]: id '5' came already in annotations\[0\]",
        ),
        ({"annotations": [{"image_id": 2, "caption": 5}]}, r'annotations\[0\]: "caption" should be a string'),
        ({"images": [{"id": 1}, {"id": 2}], "annotations": []}, r"r\.json: 2 images have no caption, first '1'"),
    ],
)
def test_bad_references(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_references(written(tmp_path / "r.json", content))


def test_missing_and_undecodable_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json: no such file"):
        read_predictions(tmp_path / "nowhere.json")
    (tmp_path / "latin.json").write_bytes(b'[{"image_id": 1, "caption": "caf\xe9"}]')
    with pytest.raises(ValueError, match=r"latin\.json: not UTF-8 text at byte 32"):
        read_predictions(tmp_path / "latin.json")


# ---------------------------------------------------------------- the COCO tools


class NoScore:
    """Stands in for SPICE, which downloads models on first use, and for METEOR, which takes seconds to start."""

    def compute_score(self, references: dict[Any, Any], predictions: dict[Any, Any]) -> tuple[float, list[float]]:
        return 0.0, [0.0] * len(references)

    def method(self) -> str:
        return "none"


@pytest.mark.skipif(shutil.which("java") is None, reason="needs Java: the COCO tools' tokenizer and METEOR run in it")
# METEOR reads its tables for 20 seconds.
@pytest.mark.parametrize(("integer_ids", "meteor"), [(False, False), pytest.param(True, True, marks=pytest.mark.slow)])
def test_coco_tools_read_our_files_and_agree(
    tmp_path: Path, integer_ids: bool, meteor: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = pytest.importorskip("pycocoevalcap.eval", reason="needs pycocoevalcap")
    from pycocoevalcap.meteor import meteor as meteor_module
    from pycocotools.coco import COCO

    program = meteor_module.Meteor() if meteor else NoScore()  # one Java program for both sides: it starts slowly
    monkeypatch.setattr(tools, "Meteor", lambda: program)
    monkeypatch.setattr(tools, "Spice", NoScore)
    predictions = {**GOOD, "23": "A woman's hat (blue) isn't here!", "17": ""}
    captions, results = tmp_path / "captions.json", tmp_path / "results.json"
    write_references(captions, REFERENCES, integer_ids)
    write_predictions(results, predictions, integer_ids)
    coco = COCO(str(captions))
    theirs = tools.COCOEvalCap(coco, coco.loadRes(str(results)))
    theirs.evaluate()
    ours = evaluate(read_predictions(results), read_references(captions), bootstrap=0, meteor=meteor)
    found = ours.to_json_dict()
    assert found["bleu"] == pytest.approx([theirs.eval[f"Bleu_{order}"] for order in range(1, 5)], abs=1e-6)
    if meteor:
        assert found["meteor"] == pytest.approx(theirs.eval["METEOR"]) and found["meteor"] > 0
    for ours_name, name in (("rouge_l", "ROUGE_L"), ("cider", "CIDEr"), ("cider_d", "CIDEr")):
        assert found[ours_name] == pytest.approx(theirs.eval[name], abs=1e-6)
    per_picture = {str(row["image_id"]): row for row in theirs.evalImgs}
    names = {"bleu_4": "Bleu_4", "cider_d": "CIDEr", "rouge_l": "ROUGE_L"} | ({"meteor": "METEOR"} if meteor else {})
    for row in ours.per_image.to_dict("records"):
        for ours_name, name in names.items():
            assert row[ours_name] == pytest.approx(per_picture[row["image_id"]][name], abs=1e-6)
