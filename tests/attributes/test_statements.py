"""Tables of statements: targets, phrases, contradictions, warnings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from attncap.attributes.statements import (
    Statements,
    absence_of,
    choose_claims,
    holds_statements,
    kept_apart,
    read_phrases,
    statement_targets,
    to_statements,
)
from attncap.attributes.tables import AttributeData

NAN = np.nan


def table(columns: dict[str, list[float]], test_rows: int = 0) -> AttributeData:
    count = len(next(iter(columns.values())))
    split = ["train"] * (count - test_rows) + ["test"] * test_rows
    pictures = pd.DataFrame({"image_id": [f"{n}.jpg" for n in range(count)], "path": ["x"] * count, "split": split})
    return AttributeData("texts", pictures, tuple(columns), np.array(list(columns.values()), np.float32).T)


def test_a_statement_for_presence_and_one_for_absence() -> None:
    data = table(
        {"glasses": [1] * 31 + [0] * 7 + [NAN] * 62, "hat": [NAN] * 90 + [1] * 10, "scar": [1, 0] + [NAN] * 98}
    )
    targets, statements, warnings = to_statements(data, {("glasses", 1): "specs", ("glasses", 0): "without specs"})
    assert targets.names == ("glasses", "no glasses", "hat") and statements.phrases == ("specs", "without specs", "hat")
    assert targets.labels.sum(axis=0).tolist() == [31, 7, 10] and not np.isnan(targets.labels).any()
    assert statements.usual == (0.31, 0.07, 0.1) and (0, 1) in statements.contradictions
    assert warnings == [
        "stated in fewer than 30 training texts, so that probabilities are uncertain: 'no glasses' (7), 'hat' (10)",
        "left out, stated in fewer than 5 training texts: 'scar' (1), 'no scar' (1)",
    ]


def test_a_trained_classifier_gets_the_targets_of_its_statements() -> None:
    data = table({"glasses": [1, 0, NAN], "hat": [NAN, 1, 0]})
    targets = statement_targets(data, ("hat", "no glasses"))
    assert targets.names == ("hat", "no glasses") and targets.labels.tolist() == [[0, 0], [1, 1], [0, 0]]
    with pytest.raises(ValueError, match="texts: no attribute for the statement 'scar': give the table"):
        statement_targets(data, ("hat", "scar"))


def test_the_likeliest_that_are_certain_and_unusual() -> None:
    statements = Statements(tuple("abcde"), (0.3, 0.3, 0.05, 0.2, 0.1), (), (0.8, 0.8, 0.2, 0.9, 0.9))
    probs = np.array([0.29, 0.7, 0.15, 0.21, 0.5])  # a: less than usual; d: below a quarter of typical
    assert choose_claims(probs, statements) == [1, 4, 2]
    assert choose_claims(probs, statements, most=1) == [1]
    assert choose_claims(np.array(statements.usual), statements) == []


def test_contradictions_are_not_both_said() -> None:
    statements = Statements(tuple("abc"), (0.1, 0.1, 0.1), ((0, 2),), (0.5, 0.5, 0.5))
    assert choose_claims(np.array([0.5, 0.3, 0.6]), statements) == [2, 1]


def test_only_training_texts_are_counted() -> None:
    data = table({"hat": [1] * 40 + [NAN] * 10 + [1] * 50}, test_rows=50)
    targets, statements, warnings = to_statements(data)
    assert statements.usual == (0.8,) and len(targets.labels) == 100 and not warnings
    with pytest.raises(ValueError, match="no statement is made in at least 5 training texts"):
        to_statements(table({"hat": [1] * 4 + [NAN] * 6}))


def test_a_table_with_few_gaps_holds_no_statements() -> None:
    assert not holds_statements(table({"hat": [1, 0, NAN, 1]}))
    assert holds_statements(table({"hat": [1, NAN, NAN, NAN]}))


def test_opposites_are_seen_in_the_texts() -> None:
    stated = np.zeros((200, 3))
    stated[:80, 0] = stated[80:160, 1] = 1  # never together, 32 expected
    stated[40:120, 2] = 1  # with both
    assert kept_apart(stated) == [(0, 1)]
    assert kept_apart(stated[:5]) == []  # too few to tell


def test_names_and_settings_come_back() -> None:
    assert absence_of("hat") == "no hat" and absence_of("hat", ("no hat",)) == "absent: hat"
    statements = Statements(("a", "b"), (0.1, 0.2), ((0, 1),), (0.5, 0.6))
    assert Statements.from_config(statements.to_config()) == statements


def test_the_most_common_phrase_is_the_users_word(tmp_path: Path) -> None:
    file = tmp_path / "characteristics.csv"
    rows = ["characteristic,phrase,count,sign,proposal", "glasses,specs,12,1,", "glasses,glasses,11,1,"]
    file.write_text("\n".join([*rows, "glasses,no glasses,3,-1,", ",person,99,1,"]) + "\n", encoding="utf-8")
    assert read_phrases(file) == {("glasses", 1): "specs", ("glasses", 0): "no glasses"}
