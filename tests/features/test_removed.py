"""Two grids at once and mirrored images for captioners were removed: old runs and settings are refused or mapped."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from attncap.features.extractor import FeatureExtractor
from attncap.models.attention_captioner import AttentionCaptioner
from attncap.models.saving import load_captioner, save_captioner
from attncap.tokenizers import SPECIAL_TOKENS, WordTokenizer
from attncap.training.config import TrainConfig


def test_a_saved_captioner_of_two_layers_is_refused_by_a_sentence(tmp_path: Path) -> None:
    encoder = FeatureExtractor("mixed0", "random", 75, dtype="float32")
    small = {"embedding_units": 7, "hidden_units": 11, "projection_units": 13, "attention_units": 17}
    captioner = AttentionCaptioner(WordTokenizer([*SPECIAL_TOKENS, "dog"]), encoder=encoder, **small)
    save_captioner(captioner, tmp_path / "one.keras")
    with zipfile.ZipFile(tmp_path / "one.keras") as old, zipfile.ZipFile(tmp_path / "two.keras", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                config = json.loads(content)
                assert config["config"]["encoder"]["config"]["layer"] == "mixed0"
                config["config"]["encoder"]["config"]["layer"] = "mixed0+mixed2"
                content = json.dumps(config).encode()
            new.writestr(name, content)
    assert load_captioner(tmp_path / "one.keras").feature_shape == (7, 7, 256)
    with pytest.raises(ValueError, match=r"two\.keras.*'mixed0\+mixed2': two grids at once were removed.*998f5d3"):
        load_captioner(tmp_path / "two.keras")


def test_settings_of_old_runs_are_mapped_or_refused() -> None:
    assert TrainConfig.from_dict({"epochs": 3, "mirror": False}) == TrainConfig(epochs=3)
    with pytest.raises(ValueError, match=r"mirror is True, and this setting was removed: .*998f5d3"):
        TrainConfig.from_dict({"mirror": True})
    with pytest.raises(ValueError, match=r"fast_recurrence is True, and this setting was removed: .*062935d"):
        TrainConfig.from_dict({"fast_recurrence": True})
    with pytest.raises(ValueError, match=r"layer is 'mixed7\+mixed8', and two grids at once were removed.*one layer"):
        TrainConfig.from_dict({"layer": "mixed7+mixed8"})
