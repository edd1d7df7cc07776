"""Keras's other backends: the model tests that matter run on JAX and torch too, and a file goes from TensorFlow there.

torch is no dependency (PyPI's wheel brings 2 GB of CUDA libraries): where it is not installed, its half is skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow",
        reason="this process runs on another backend already: every test is a test of it",
    ),
]
BACKENDS = {  # name -> what its process needs in the environment
    # Optimization of graphs that run once takes longer than running them.
    "jax": {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_PLATFORMS": "cpu"},
    "torch": {},
}

ROOT = Path(__file__).parents[2]
TESTS = [
    "tests/models/test_attention.py",
    "tests/models/test_captioner.py::test_steps_equal_teacher_forcing",
    "tests/models/test_captioner.py::test_one_batch_can_be_learned_by_heart",
    "tests/models/test_captioner.py::test_a_saved_captioner_gives_equal_logits",
    "tests/models/test_adaptive_attention_captioner.py",
    "tests/models/test_transformer_captioner.py::test_the_cache_gives_what_one_pass_gives",
    "tests/integration/test_every_captioner.py::test_steps_equal_teacher_forcing",
    "tests/integration/test_every_captioner.py::test_one_batch_can_be_learned_by_heart",
    "tests/models/test_show_and_tell.py::test_steps_equal_teacher_forcing",
    "tests/models/test_show_and_tell.py::test_one_batch_can_be_learned_by_heart",
    "tests/models/test_show_and_tell.py::test_a_saved_captioner_gives_equal_logits",
    "tests/decoding/test_decoder.py::test_a_narrow_beam_follows_the_rule",
    "tests/decoding/test_decoder.py::test_a_decoder_that_samples_goes_on_drawing",
    "tests/decoding/test_decoder.py::test_a_decoder_sees_the_weights_of_now",
    "tests/models/test_masked_regions.py::test_padding_changes_nothing",
    "tests/explain/test_words.py::test_integrated_gradients_are_complete_by_hand",
    "tests/models/test_ensemble.py::test_a_model_beside_itself_says_what_it_says_alone",
]
# One process for everything: TensorFlow (for keras-nlp) and the backend take seconds to import.
CAPTION_AND_TEST = """
import json, sys
import numpy as np
import pytest
import keras
assert keras.backend.backend() == sys.argv[2], keras.backend.backend()
import attncap
from attncap.decoding.decoder import Decoder
rows = []
*files, features, written = sys.argv[1].split(';')
for saved in files:
    captioner = attncap.load_captioner(saved)
    for caption in Decoder(captioner, beam_width=3, max_length=7)(np.load(features)):
        weights = caption.attention_weights
        rows.append((caption.text, caption.log_prob, None if weights is None else weights.tolist()))
with open(written, "w") as file:
    json.dump(rows, file)
raise SystemExit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[3:]]))
"""


@pytest.fixture(scope="module", params=BACKENDS)
def on_both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Any], list[Any], Any]:
    """Captions of a file of each captioner on TensorFlow and on the backend, and the finished process of its tests."""
    backend = request.param
    pytest.importorskip(backend, reason=f"{backend} is not installed: pip install {backend}")
    import keras

    from attncap.decoding.decoder import Decoder
    from attncap.models.adaptive_attention_captioner import AdaptiveAttentionCaptioner
    from attncap.models.attention_captioner import AttentionCaptioner
    from attncap.models.saving import save_captioner
    from attncap.models.show_and_tell import ShowAndTell
    from attncap.models.transformer_captioner import TransformerCaptioner
    from attncap.tokenizers import SPECIAL_TOKENS, WordTokenizer

    folder = tmp_path_factory.mktemp(backend)
    keras.utils.set_random_seed(0)
    tokenizer = WordTokenizer([*SPECIAL_TOKENS, *"abcdefghijklm"])
    sizes: dict[str, Any] = {"embedding_units": 7, "hidden_units": 11}
    attending = {**sizes, "projection_units": 13, "attention_units": 17}
    made = {
        "attention": AttentionCaptioner(tokenizer, (2, 3, 5), **attending),
        "adaptive": AdaptiveAttentionCaptioner(tokenizer, (2, 3, 5), **attending),
        "transformer": TransformerCaptioner(tokenizer, (2, 3, 5), hidden_units=12, heads=3, feedforward_units=19),
        "show_and_tell": ShowAndTell(tokenizer, (2, 3, 5), **sizes),
    }
    features = np.random.default_rng(0).normal(size=(5, 2, 3, 5)).astype(np.float32)
    np.save(folder / "features.npy", features)
    captions = []
    for name, captioner in made.items():
        for weight in captioner.trainable_variables:
            weight.assign(3.0 * weight)  # untrained, it says much the same of every picture
        captions += Decoder(captioner, beam_width=3, max_length=7)(features)
        save_captioner(captioner, folder / f"{name}.keras")

    files = [str(folder / name) for name in (*(f"{kind}.keras" for kind in made), "features.npy", "captions.json")]
    environment = {**os.environ, "KERAS_BACKEND": backend, **BACKENDS[backend]}
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    finished = subprocess.run(
        [sys.executable, "-c", CAPTION_AND_TEST, ";".join(files), backend, *TESTS],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    written = folder / "captions.json"
    return captions, json.loads(written.read_text()) if written.exists() else [], finished


def test_a_file_saved_on_tensorflow_says_the_same(on_both: tuple[list[Any], list[Any], Any]) -> None:
    captions, elsewhere, finished = on_both
    assert len(elsewhere) == 20, finished.stderr[-4000:]
    assert [text for text, _, _ in elsewhere] == [caption.text for caption in captions]
    for own in (captions[start : start + 5] for start in range(0, 20, 5)):
        assert len({caption.text for caption in own}) > 2
    for number, (caption, (_, log_prob, weights)) in enumerate(zip(captions, elsewhere, strict=True)):
        assert log_prob == pytest.approx(caption.log_prob, abs=1e-3)
        assert (weights is None) == (caption.attention_weights is None) == (number >= 15)
        if weights is not None:
            np.testing.assert_allclose(np.array(weights).reshape(-1, 2, 3), caption.attention_weights, atol=1e-4)


def test_model_tests_pass(on_both: tuple[list[Any], list[Any], Any]) -> None:
    finished = on_both[2]
    assert finished.returncode == 0, finished.stdout[-8000:] + finished.stderr[-2000:]
    assert " passed" in finished.stdout
    assert "skipped" not in finished.stdout
