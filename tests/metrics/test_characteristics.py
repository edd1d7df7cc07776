"""Precision and recall of what captions state, by hand; retrieval and diversity; the command's options."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from attncap.characteristics import Entry, Lexicon
from attncap.cli.main import main
from attncap.metrics.characteristics import Characteristics, Facts, baselines, claims_of, per_characteristic
from attncap.metrics.coco_json import write_predictions, write_references
from attncap.metrics.diversity import diversity
from attncap.metrics.evaluate import compare, evaluate
from attncap.metrics.retrieval import retrieval

LEXICON = Lexicon([Entry(name, name, 5) for name in ("hat", "beard", "glasses", "big nose", "curly hair", "smile")])
REFERENCES = {"1": ["hat, beard", "glasses"], "2": ["no beard"], "3": ["smile and hat"]}
PREDICTIONS = {"1": "a beard and a big nose", "2": "beard, hat", "3": "nothing"}


def scores(predictions, references, **options):
    return evaluate(predictions, references, metrics=[Characteristics(**options)], bootstrap=0, human=False).values


def test_by_hand():
    found = scores(PREDICTIONS, REFERENCES, lexicon=LEXICON)
    assert found["claim_precision"] == pytest.approx(1 / 4)  # of beard, big nose, beard, hat
    assert found["claim_recall"] == pytest.approx(1 / 6)  # of hat, beard, glasses, no beard, smile, hat
    assert found["claim_f1"] == pytest.approx(2 / 10)
    assert found["claims_per_caption"] == pytest.approx(4 / 3)
    assert found["claims_contradicted"] == pytest.approx(1 / 4)  # beard of image 2
    assert "claims_true" not in found


def test_facts():
    facts = Facts(pd.DataFrame({"Big_Nose": [1, -1, 1], "HAT": [0, 0, np.nan]}, index=["1", "2", "3"]))
    found = scores(PREDICTIONS, REFERENCES, lexicon=LEXICON, facts=facts)
    assert found["claims_true"] == pytest.approx(1 / 2)  # big nose of 1 is true, hat of 2 is not; beard is not judged
    assert facts.share(("big nose", False)) == pytest.approx(1 / 3)
    assert facts.is_true("3", ("hat", True)) is None


def test_a_false_characteristic_scores_below_another_order():
    reference = "beard, hat, glasses, big nose, curly hair"
    references = {"1": [reference, reference], "2": ["smile", "a smile"]}
    reordered = {"1": "curly hair, glasses, big nose, beard, hat", "2": "smile"}
    false = {"1": "beard, hat, glasses, smile, curly hair", "2": "smile"}
    right, wrong = scores(reordered, references, lexicon=LEXICON), scores(false, references, lexicon=LEXICON)
    for name in ("claim_precision", "claim_recall", "claim_f1"):
        assert right[name] == 1.0
        assert wrong[name] < 1.0
    without_file = scores(reordered, references), scores(false, references)
    assert without_file[0]["claim_precision"] == 1.0 > without_file[1]["claim_precision"]
    by_words = [evaluate(p, references, bootstrap=0, human=False).values["rouge_l"] for p in (reordered, false)]
    assert by_words[0] < by_words[1]  # the reason for this metric


def test_claims_without_a_lexicon():
    assert claims_of(["Hat; No hat", "hat"]) == {("hat", True), ("no hat", True)}


def test_intervals_and_paired_test():
    references = {str(i): ["hat"] if i % 2 else ["beard"] for i in range(60)}
    right = {i: texts[0] for i, texts in references.items()}
    wrong = dict.fromkeys(references, "hat")
    metric = [Characteristics(LEXICON)]
    low, high = evaluate(wrong, references, metrics=metric, bootstrap=200).intervals["claim_precision"]
    assert 0.3 < low < 0.5 < high < 0.7
    difference = compare(right, wrong, references, metrics=metric, samples=200).to_json_dict()
    assert difference["p_values"]["claim_precision"] < 0.05


def test_per_characteristic():
    table = per_characteristic(PREDICTIONS, REFERENCES, LEXICON).set_index(["characteristic", "present"])
    assert table.loc[("hat", True), ["in_references", "in_captions", "precision", "recall"]].tolist() == [2, 1, 0, 0]
    assert table.loc[("beard", True), ["in_references", "in_captions", "precision", "recall"]].tolist() == [
        1,
        2,
        0.5,
        1,
    ]
    assert math.isnan(table.loc[("beard", False), "precision"])


def test_baselines():
    facts = Facts(pd.DataFrame({"hat": [1, 0, 1]}, index=["1", "2", "3"]))
    table = baselines(PREDICTIONS, REFERENCES, ["hat", "hat", "beard"], LEXICON, facts).set_index("system")
    assert table.loc["system", "precision"] == pytest.approx(1 / 4)
    # Of a random image: beard twice (1 of 3 images), big nose (none), hat (2 of 3), over 4 claims.
    assert table.loc["its claims, of a random image", "precision"] == pytest.approx((2 / 3 + 2 / 3) / 4)
    assert table.loc["its claims, of a random image", "true"] == pytest.approx(2 / 3)
    assert table.loc["most common: 'hat'", "precision"] == pytest.approx(2 / 3)
    assert table.loc["most common: 'hat'", "true"] == pytest.approx(2 / 3)
    assert 1 / 3 < table.loc["random training caption", "precision"] < 2 / 3


def test_retrieval_by_hand():
    references = {"a": ["hat, beard"], "b": ["hat"], "c": ["glasses"], "d": ["smile"]}
    found = retrieval({"a": "beard", "b": "hat", "c": "glasses", "d": "glasses"}, references, LEXICON)
    assert found["recall_at_1"] == pytest.approx(3 / 4)
    assert found["recall_at_10"] == 1.0
    assert found["median_rank"] == 1.0
    assert found["chance_rank"] == 2.5
    nothing = retrieval(dict.fromkeys(references, "nothing"), references, LEXICON)
    assert nothing["recall_at_1"] == pytest.approx(1 / 4)
    assert nothing["median_rank"] == 2.5


def test_diversity_by_hand():
    found = diversity(["a hat", "a hat", "a smile"], LEXICON, top=1)
    assert found == pytest.approx({"distinct": 2 / 3, "div_1": 3 / 6, "div_2": 2 / 3, "top_share": 2 / 3, "kinds": 2})


def test_facts_of_files(tmp_path):
    (tmp_path / "celeba.txt").write_text("2\nBig_Nose Hat\na.jpg  1 -1\nb.jpg -1  1\n")
    (tmp_path / "table.csv").write_text("file,split,big nose,hat\na.jpg,train,1,\nb.jpg,test,0,1\n")
    for name in ("celeba.txt", "table.csv"):
        facts = Facts.read(tmp_path / name)
        assert facts.is_true("b.jpg", ("big nose", False)) is True
        assert facts.is_true("b.jpg", ("hat", True)) is True
        assert not facts.knows("split")
    (tmp_path / "table.csv").write_text("file,hat\na.jpg,maybe\n")
    with pytest.raises(ValueError, match="table.csv: 1, 0, -1 or nothing expected"):
        Facts.read(tmp_path / "table.csv")


def test_command(tmp_path, capsys):
    write_predictions(tmp_path / "p.json", PREDICTIONS)
    write_references(tmp_path / "r.json", REFERENCES)
    LEXICON.write(tmp_path / "c.csv")
    (tmp_path / "facts.csv").write_text("file,hat\n1,1\n2,0\n3,1\n")
    command = f"evaluate --predictions {tmp_path}/p.json --references {tmp_path}/r.json --characteristics"
    assert main([*command.split(), f"{tmp_path}/c.csv", "--facts", f"{tmp_path}/facts.csv"]) == 0
    out, err = capsys.readouterr()
    assert "no column for beard, glasses" in err
    assert "claims true by the table" in out
    assert "its claims, of a random image" in out
    assert "median rank" in out
    out_file = str(tmp_path / "per_image.csv")
    assert main([*command.split(), f"{tmp_path}/c.csv", "--json", "--out", out_file]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["claim_precision"] == pytest.approx(1 / 4)
    assert content["characteristics"]["diversity"]["kinds"] == 3
    assert pd.read_csv(out_file)["claim_precision"].tolist() == [0.5, 0.0, 0.0]
    assert main(command.split()) == 0  # without a file, texts are split at separators
    assert main([*command.replace(" --characteristics", "").split(), "--facts", f"{tmp_path}/facts.csv"]) == 2
