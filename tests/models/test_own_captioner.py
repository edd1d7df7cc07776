"""A captioner of one's own, from public hooks alone: an LSTM with Luong attention."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from attncap.data.load import load
from attncap.decoding.decoder import Decoder
from attncap.models.registry import captioner_class, captioner_classes, register_captioner
from attncap.models.saving import load_captioner, model_name, save_captioner
from attncap.models.show_and_tell import ShowAndTell
from attncap.plugins import load_plugins
from attncap.tokenizers import SPECIAL_TOKENS, START, WordTokenizer
from attncap.training.config import TrainConfig


def recipe() -> str:
    """The captioner of docs/extending.md."""
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    block = re.search(r"^## A decoder$.*?^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    assert block is not None
    return block[1]


ROOT = Path(__file__).resolve().parents[2]
WORDS = ["a", "dog", "runs", "jumps", "cat"]


@pytest.fixture(scope="module")
def luong(tmp_path_factory: pytest.TempPathFactory) -> type:
    file = tmp_path_factory.mktemp("plugin") / "luong.py"
    file.write_text(recipe())
    load_plugins([file])
    return captioner_class("luong")


def test_it_decodes_trains_and_is_saved(luong: type, tmp_path: Path) -> None:
    captioner = luong(WordTokenizer([*SPECIAL_TOKENS, *WORDS]), (2, 3, 13), hidden_units=7, embedding_units=11)
    features = np.random.default_rng(0).normal(size=(3, 2, 3, 13)).astype(np.float32)
    token_ids = np.full((3, 1, 5), START, np.int32)
    captioner.compile("sgd", loss="mse")
    logits = np.asarray(captioner({"features": features, "token_ids": token_ids}))
    assert logits.shape == (3, 1, 5, len(SPECIAL_TOKENS) + len(WORDS))
    captions = Decoder(captioner, beam_width=2, max_length=4)(features)
    assert all(caption.attention_weights.shape[1:] == (2, 3) for caption in captions)
    for map_ in (map_ for caption in captions for map_ in caption.attention_weights):
        assert map_.sum() == pytest.approx(1, abs=1e-5)
    save_captioner(captioner, tmp_path / "best.keras")
    again = load_captioner(tmp_path)
    assert type(again) is luong and model_name(tmp_path) == "luong"
    assert [c.words for c in Decoder(again, beam_width=2, max_length=4)(features)] == [c.words for c in captions]
    assert TrainConfig(model="luong").with_model_defaults().dropout == 0.5


def test_it_looks_at_no_padding(luong: type) -> None:
    tokenizer = WordTokenizer([*SPECIAL_TOKENS, *WORDS])
    features = np.random.default_rng(0).normal(size=(2, 1, 6, 13)).astype(np.float32)
    features[0, 0, 4:] = 0  # the first image has four regions
    captioner = luong(tokenizer, (1, 6, 13), hidden_units=7, masked=True, dropout=0.0)
    shorter = luong(tokenizer, (1, 4, 13), hidden_units=7, dropout=0.0)
    shorter.set_weights(captioner.get_weights())
    token_ids = np.full((2, 1, 5), START, np.int32)
    logits = np.asarray(captioner({"features": features, "token_ids": token_ids}))
    alone = np.asarray(shorter({"features": features[:1, :, :4], "token_ids": token_ids[:1]}))
    np.testing.assert_allclose(logits[:1], alone, atol=2e-5)
    first, second = Decoder(captioner, beam_width=2, max_length=4)(features)
    assert (first.attention_weights[:, 0, 4:] == 0).all() and (first.attention_weights[:, 0, :4] > 0).all()
    assert (second.attention_weights > 0).all()


def test_names_are_checked() -> None:
    with pytest.raises(ValueError, match="a captioner named 'show-and-tell' exists"):
        captioner_classes()
        register_captioner("show-and-tell")(type("Other", (ShowAndTell,), {}))
    with pytest.raises(ValueError, match="lower-case letters, digits and hyphens, got 'My Model'"):
        register_captioner("My Model")
    with pytest.raises(TypeError, match="is not a subclass of"):
        register_captioner("mine")(dict)  # type: ignore[type-var]


def test_it_has_at_most_25_lines_of_code() -> None:
    lines = [line for line in recipe().splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(lines) <= 25
    assert not re.search(r"[ .]_[a-z]", recipe().replace("__init__", ""))  # public hooks alone


SETTINGS = ["--weights", "faces", "--epochs", "1", "--hidden-units", "8", "--embedding-units", "8", "--min-count", "1"]


def attncap(folder: Path, *arguments: str) -> str:
    """Run a command in a process of its own, with the modules of a folder; return what it prints."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "ATTNCAP_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "attncap", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_it_trains_from_the_shell_and_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "luong.py").write_text(recipe())
    monkeypatch.setenv("ATTNCAP_CACHE", str(tmp_path / "cache"))
    pictures = load("faces:24").pictures
    grids = np.random.default_rng(0).normal(size=(24, 3, 5, 7)).astype(np.float16)
    np.savez(tmp_path / "grids.npz", features=grids, image_ids=pictures["image_id"].to_numpy(str))
    plugin, features = ["--plugin", "luong.py"], ["--features-file", "grids.npz"]
    train = ["train", *plugin, "--model", "luong", "--data", "faces:24", "--run", "run", *features]
    attncap(tmp_path, *train, *SETTINGS[2:])
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"] == "luong"
    face = pictures["path"].iloc[0]
    heatmap = ["--heatmap", "map.png"]
    attncap(tmp_path, "caption", *plugin, "--run", "run", str(face), *heatmap)
    assert (tmp_path / "map.png").exists()


@pytest.mark.slow
def test_an_installed_package_needs_no_plugin(tmp_path: Path) -> None:
    (tmp_path / "luong_captioner.py").write_text(recipe())
    about = tmp_path / "luong_captioner-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: luong-captioner\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[attncap.captioners]\nluong = luong_captioner\n")
    attncap(tmp_path, "train", "--model", "luong", "--data", "faces:24", "--run", "run", *SETTINGS)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"] == "luong"
