"""Notes on scores that mean little: few images, short texts, collapsed captions, texts without spaces."""

from __future__ import annotations

from attncap.metrics.evaluate import evaluate


def notes(predictions: dict[str, str], references: dict[str, list[str]], **settings: object) -> list[str]:
    return evaluate(predictions, references, bootstrap=0, human=False, **settings).notes  # type: ignore[arg-type]


def long(n: int) -> str:
    return f"a dog number {n} runs over the grass"


def test_nothing_to_say_of_many_long_and_different_captions() -> None:
    references = {str(n): [long(n), long(n + 1)] for n in range(100)}
    assert notes({key: texts[0] for key, texts in references.items()}, references) == []


def test_few_images_and_only_where_cider_is_asked_for() -> None:
    references = {str(n): [long(n)] for n in range(99)}
    predictions = {key: texts[0] for key, texts in references.items()}
    (found,) = notes(predictions, references)
    assert found == "CIDEr is unreliable here: its document frequencies come from 99 images; use at least 100."
    assert notes(predictions, references, metrics=["bleu", "rouge_l"]) == []


def test_short_texts() -> None:
    references = {str(n): ["big nose" if n % 3 else long(n)] for n in range(120)}
    (found,) = notes({str(n): long(n) for n in range(120)}, references)
    assert found.startswith("BLEU-3, BLEU-4: more than half of the captions, or of the references, have fewer than 3")
    (found,) = notes({str(n): f"nose{n}" for n in range(120)}, {str(n): [long(n)] for n in range(120)})
    assert found.startswith("BLEU-2, BLEU-3, BLEU-4: ")


def test_collapsed_captions() -> None:
    references = {str(n): [long(n)] for n in range(120)}
    (found,) = notes({str(n): long(n % 6) for n in range(120)}, references)
    assert "collapsed: 6 distinct captions for 120 images" in found
    assert notes({str(n): long(n % 7) for n in range(120)}, references) == []


def test_texts_without_spaces() -> None:
    chinese = "一只棕色的狗在草地上奔跑"
    references = {str(n): [f"{chinese}{n}"] for n in range(120)}
    found = notes({str(n): f"{chinese}{n}" for n in range(120)}, references)
    assert any("no spaces between words" in note for note in found)
    spaced = {key: [" ".join(texts[0])] for key, texts in references.items()}
    assert notes({key: texts[0] for key, texts in spaced.items()}, spaced) == []
