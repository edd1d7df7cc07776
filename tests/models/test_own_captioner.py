"""A captioner of one's own, from public hooks alone: an LSTM with Luong attention."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from attncap.decoding.decoder import Decoder
from attncap.models.registry import captioner_class, captioner_classes, register_captioner
from attncap.models.saving import load_captioner, model_name, save_captioner
from attncap.models.show_and_tell import ShowAndTell
from attncap.plugins import load_plugins
from attncap.tokenizers import SPECIAL_TOKENS, START, WordTokenizer
from attncap.training.config import TrainConfig

LUONG = """\
import keras
from keras import ops
from attncap.models.captioner import AttendingCaptioner, CaptionerState, cell_step, for_each_caption
from attncap.models.registry import register_captioner

@register_captioner("luong")
class LuongCaptioner(AttendingCaptioner):
    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.cell = keras.layers.LSTMCell(self.hidden_units, dtype=self.dtype_policy)
        self.attention = keras.layers.Attention(dtype="float32")  # softmax(query . value) over the regions
        self.build()

    def init_state(self, features, captions=1, training=False):
        values = self.values_of(features, training=training)
        first = for_each_caption(ops.mean(values, axis=1), captions)
        seen = self.nothing_seen(values, captions)
        return CaptionerState({"values": values}, {"hidden": first, "carry": first, **seen})

    def advance(self, embedded, state):
        before = state.recurrent["hidden"], state.recurrent["carry"]
        hidden, carry = cell_step(self.cell, embedded, before)
        context, weights = self.attention([hidden, state.memory["values"]], return_attention_scores=True)
        context = ops.cast(context, self.compute_dtype)
        return {"hidden": hidden, "carry": carry, "context": context, "attention_weights": weights}

    def readout(self, embedded, recurrent, training=False):
        both = ops.concatenate([recurrent["hidden"], recurrent["context"]], axis=-1)
        return self.logits_dense(self.output_dropout(both, training=training))
"""
WORDS = ["a", "dog", "runs", "jumps", "cat"]


@pytest.fixture(scope="module")
def luong(tmp_path_factory: pytest.TempPathFactory) -> type:
    file = tmp_path_factory.mktemp("plugin") / "luong.py"
    file.write_text(LUONG)
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


def test_names_are_checked() -> None:
    with pytest.raises(ValueError, match="a captioner named 'show-and-tell' exists"):
        captioner_classes()
        register_captioner("show-and-tell")(type("Other", (ShowAndTell,), {}))
    with pytest.raises(ValueError, match="lower-case letters, digits and hyphens, got 'My Model'"):
        register_captioner("My Model")
    with pytest.raises(TypeError, match="is not a subclass of"):
        register_captioner("mine")(dict)  # type: ignore[type-var]
