"""Averages of weights: equal to numpy's, saved and loaded; what cannot be averaged is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from attncap.cli.main import main
from attncap.features.extractor import FeatureExtractor
from attncap.models.averaging import average_weights
from attncap.models.captioner import Captioner, save_captioner
from attncap.models.registry import AttentionCaptioner, ShowAndTell, load_captioner
from attncap.tokenizers import SPECIAL_TOKENS, WordTokenizer

SMALL: dict[str, Any] = {"embedding_units": 7, "hidden_units": 11, "projection_units": 13, "attention_units": 17}


def made(words: str = "abcdefghi", seed: int = 0, **changed: Any) -> AttentionCaptioner:
    keras.utils.set_random_seed(seed)
    settings: dict[str, Any] = {"feature_shape": (2, 3, 5), **SMALL, **changed}
    return AttentionCaptioner(WordTokenizer([*SPECIAL_TOKENS, *words]), **settings)


def values(captioner: Captioner) -> list[np.ndarray]:
    return [np.array(keras.ops.convert_to_numpy(weight)) for weight in captioner.trainable_variables]


def trained_on(captioner: Any, seed: int, step: float = 0.03) -> Any:
    """Another place near the first weights, as a training would leave them."""
    rng = np.random.default_rng(seed)
    for weight in captioner.trainable_variables:
        weight.assign(keras.ops.convert_to_numpy(weight) + step * rng.normal(size=weight.shape))
    return captioner


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three runs from the same first weights: one a run folder, one with other settings of training."""
    folder = tmp_path_factory.mktemp("runs")
    files = [folder / "a" / "best.keras", folder / "b.keras", folder / "c.keras"]
    files[0].parent.mkdir()
    for seed, file in enumerate(files):
        changed = {"dropout": 0.1, "attention_penalty": 0.0} if seed == 1 else {}
        save_captioner(trained_on(made(**changed), seed), file)
    return [files[0].parent, *files[1:]]


def test_the_average_is_numpys(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "average.keras"
    assert main(["average", *[part for run in runs for part in ("--run", str(run))], "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == f"the average of 3 runs is {out}"
    members = [values(load_captioner(run)) for run in runs]
    averaged = values(load_captioner(out))
    assert len(averaged) == len(members[0]) > 15
    for own, *each in zip(averaged, *members, strict=True):
        np.testing.assert_allclose(own, np.mean(each, axis=0), rtol=1e-6, atol=1e-7)
        assert np.abs(own - each[0]).max() > 1e-3
    for own, expected in zip(values(average_weights([runs[1], runs[1]])), members[1], strict=True):
        np.testing.assert_array_equal(own, expected)


def test_the_encoder_stays_as_it_is_and_has_to_be_the_same(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    encoders = [FeatureExtractor("mixed0", weights, image_size=75, dtype="float32") for weights in ("faces", "random")]
    names = ["a", "b", "other"]
    for name, encoder in zip(names, [encoders[0], encoders[0], encoders[1]], strict=True):
        captioner = made(feature_shape=None, encoder=encoder)
        save_captioner(trained_on(captioner, names.index(name)), tmp_path / f"{name}.keras")
    average = average_weights([tmp_path / "a.keras", tmp_path / "b.keras"])
    assert average.encoder is not None and average.encoder.fingerprint() == encoders[0].fingerprint()
    expected = np.mean([values(load_captioner(tmp_path / f"{name}.keras"))[0] for name in "ab"], axis=0)
    np.testing.assert_allclose(values(average)[0], expected, atol=1e-6)
    with pytest.raises(
        ValueError, match=r"other\.keras: cannot be averaged with .*a\.keras: encoder is \w+ in place of"
    ):
        average_weights([tmp_path / "a.keras", tmp_path / "other.keras"])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: made(hidden_units=5), "hidden_units is 5 in place of 11"),
        (lambda: made("abxdefghi"), "word 6 is x in place of c"),
        (lambda: made("abcdefghij"), "vocabulary is 14 words in place of 13 words"),
        (lambda: made(context_gate=False), "context_gate is False in place of True"),
        (lambda: made(feature_shape=(3, 2, 5)), r"feature_shape is \[3, 2, 5\] in place of \[2, 3, 5\]"),
        (
            lambda: ShowAndTell(made().tokenizer, (2, 3, 5), embedding_units=7, hidden_units=11),
            "kind is ShowAndTell in place of AttentionCaptioner",
        ),
        (
            lambda: made(seed=1),
            r"do not go the way of those of .*\(cosine -?0\.\d\d, 0\.5 expected\).*--from the other",
        ),
    ],
)
def test_what_cannot_be_averaged_is_named(runs: list[Path], tmp_path: Path, other: Any, message: str) -> None:
    save_captioner(other(), tmp_path / "other.keras")
    with pytest.raises(ValueError, match=rf"other\.keras: .*{message}"):
        average_weights([runs[1], tmp_path / "other.keras"])


def test_one_run_is_no_average(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["average", "--run", str(runs[1]), "--out", str(tmp_path / "out.keras")]) == 2
    assert "an average needs two runs or more, got 1" in capsys.readouterr().err
    assert main(["average", "--run", str(runs[1]), "--run", str(runs[1]), "--out", str(tmp_path / "out")]) == 2
    assert "a file that ends in .keras" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
