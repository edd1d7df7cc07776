"""`attncap train` and `attncap predict` say so when a captioner says the same of every image."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from attncap.cli.main import main
from attncap.data.load import load

# A rate so high that the captioner learns how common words are, and nothing of images and order.
SETTINGS = (
    "--layer", "mixed0", "--weights", "faces", "--image-size", "81", "--epochs", "3", "--min-count", "1",
    "--set", "hidden_units=16", "--set", "embedding_units=8", "--set", "attention_units=8", "--set", "dropout=0",
    "--set", "batch_size=2", "--set", "learning_rate=0.03", "--set", "ema_epochs=0", "--set", "label_smoothing=0",
)  # fmt: skip
COLLAPSED = r"warning: The captions have collapsed: [1-3] distinct captions? for 24 images \("


@pytest.mark.slow  # about 20 seconds on a quiet core
@pytest.mark.parametrize(
    ("texts", "warning"),
    [
        (
            ["woman", "man", "hat", "tie", "nose", "beard", "bald", "smile"],
            "warning: 2[2-4] of 24 captions have at most one",
        ),
        (["a hat, a tie, a nose"], "warning: the attention maps of all images are alike"),
    ],
    ids=["one word", "maps"],
)
def test_train_and_predict_warn_of_collapsed_captions(
    texts: list[str], warning: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTNCAP_CACHE", str(tmp_path / "cache"))
    table = load("faces:64", folder=tmp_path).pictures
    table["file"] = [Path(path).name for path in table["path"]]
    table["caption"] = [texts[at % len(texts)] for at in range(64)]
    table["split"] = ["train"] * 16 + ["val"] * 24 + ["test"] * 24
    table[["file", "caption", "split"]].to_csv(tmp_path / "captions.csv", index=False)
    data = ("--data", f"table:{tmp_path / 'captions.csv'}:{tmp_path / 'images'}")
    run = ("--run", str(tmp_path / "run"))
    assert main(["train", *data, *run, *SETTINGS]) == 0
    said = capsys.readouterr().out
    assert re.search(COLLAPSED, said) and re.search(warning, said), said
    assert main(["predict", *data, *run, "--split", "test", "--out", str(tmp_path / "predictions.json")]) == 0
    said = capsys.readouterr().err
    assert re.search(COLLAPSED, said) and re.search(warning, said), said
