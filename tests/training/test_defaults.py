"""Settings that follow from the data: explicit ones win, Flickr8k's are as they were, short texts get their own."""

from __future__ import annotations

from typing import Any

import pytest

from attncap.training.config import TrainConfig
from attncap.training.defaults import fit_to_data

SENTENCES = ["a man in a red shirt is riding a brown horse"] * 5
OPEN = ("lists", "min_count", "batch_size", "epochs", "patience", "monitor")


def fitted(captions: dict[str, list[str]], **settings: Any) -> dict[str, Any]:
    config, reasons = fit_to_data(TrainConfig(**settings), captions)
    assert len(reasons) == sum(getattr(TrainConfig(**settings), name) is None for name in OPEN)
    return {name: getattr(config, name) for name in OPEN}


def test_flickr8k_is_trained_as_before() -> None:
    found = fitted({str(n): SENTENCES for n in range(6000)})
    assert found == dict(lists=False, min_count=5, batch_size=32, epochs=12, patience=5, monitor="bleu_4")


def test_one_short_text_per_image() -> None:
    found = fitted({str(n): ["big nose; curly hair & no beard, old"] for n in range(6400)})
    assert found == dict(lists=True, min_count=5, batch_size=32, epochs=20, patience=5, monitor="loss")
    assert fitted({str(n): ["big nose, old"] for n in range(999)}, objective="cider")["monitor"] == "cider_d"


def test_little_data_has_small_batches_and_keeps_rare_words() -> None:
    found = fitted({str(n): ["red square at the top"] for n in range(100)})
    assert found == dict(lists=False, min_count=2, batch_size=8, epochs=30, patience=7, monitor="loss")


def test_texts_without_spaces_are_warned_of() -> None:
    captions = {str(n): ["一只棕色的狗在草地上奔跑"] for n in range(50)}
    [warning] = [line for line in fit_to_data(TrainConfig(), captions)[1] if line.startswith("warning")]
    assert "100% of the captions have no spaces" in warning and "--set tokenizer=wordpiece" in warning
    assert not any("spaces" in line for line in fit_to_data(TrainConfig(tokenizer="wordpiece"), captions)[1])


@pytest.mark.parametrize(("name", "value"), [("lists", True), ("min_count", 7), ("epochs", 3), ("monitor", "cider_d")])
def test_what_is_given_stays(name: str, value: Any) -> None:
    assert fitted({str(n): SENTENCES for n in range(50)}, **{name: value})[name] == value


def test_a_vocabulary_to_continue_with_decides_about_lists() -> None:
    config, reasons = fit_to_data(TrainConfig(), {"1": ["big nose, old"]}, lists=False)
    assert config.lists is False and "continues" in reasons[0]
