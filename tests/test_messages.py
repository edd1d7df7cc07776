"""Text from files in messages: what a file holds neither breaks the line nor makes the message long."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from attncap._messages import listed, quoted
from attncap.attributes.tables import load_attributes
from attncap.characteristics.lexicon_file import read_entries
from attncap.data.load import load
from attncap.metrics.coco_json import read_predictions, read_references


def test_short_values_are_quoted_as_by_repr_and_long_ones_are_cut() -> None:
    for value in ("a b", "it's", 7, None, "é\n\x1b[2J"):
        assert quoted(value) == repr(value)
    assert len(quoted("x" * 5000)) == 80 and quoted("x" * 5000).endswith("xxx'")
    assert len(quoted(["y" * 5000] * 100)) < 600
    assert "\n" not in quoted(pd.DataFrame({"caption": ["a hat", "a nose"]}))


def test_names_are_listed_without_marks_and_counted_from_the_31st_on() -> None:
    assert listed({"file": 1, "a\nb": 2}) == r"file, a\nb"
    assert listed(map(str, range(33))).endswith("28, 29, and 3 more")
    assert listed([]) == ""


def table(file: Path) -> Any:
    return load(f"table:{file}:{file.parent}")


long, broken = "x" * 5000, "a\nb"
CASES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "keys of a prediction": (read_predictions, json.dumps([{broken: 1, long: 2}])),
    "keys of a prediction with an id": (read_predictions, json.dumps([{"image_id": 1, broken: 1, long: 2}])),
    "two predictions": (read_predictions, json.dumps([{"image_id": long, "caption": "a"}] * 2)),
    "keys of references": (read_references, json.dumps({broken: 1, long: 2})),
    "an image without caption": (read_references, json.dumps({"images": [{"id": long}], "annotations": []})),
    "a phrase": (read_entries, f"characteristic,phrase\nhat,{long}\nnose,{long}\n"),
    "columns of phrases": (read_entries, f"hat,{long}\n"),
    "columns of a table": (table, f'"a\rb",{long}\nx.jpg,a hat\n'),
    "columns of attributes": (lambda file: load_attributes(f"attributes:{file}:{file.parent}"), f"a,{long}\n1,2\n"),
}


@pytest.mark.parametrize("case", CASES)
def test_messages_about_a_file_are_one_line_and_short(case: str, tmp_path: Path) -> None:
    read, contents = CASES[case]
    (tmp_path / "file.csv").write_text(contents, newline="")
    with pytest.raises(ValueError, match=r"file\.csv") as error:
        read(tmp_path / "file.csv")
    assert "\n" not in str(error.value) and len(str(error.value)) < 600 + len(str(tmp_path)), str(error.value)
