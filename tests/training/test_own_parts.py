"""`train` with objects of one's own: what is given is used, and a run so made resumes to the same history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import attncap
from attncap.features.extractor import Encoder
from attncap.features.store import FeatureStore
from attncap.models.attention_captioner import AttentionCaptioner
from attncap.models.losses import MaskedCrossentropy
from attncap.retrieval.embeddings import PooledEmbedding
from attncap.retrieval.index import ImageIndex
from attncap.tokenizers import WordTokenizer
from attncap.training.train import train
from tests.training.test_train import CONFIG, history_of, squares

CONFIG_2 = replace(CONFIG, epochs=2)


class OwnFeatures:
    """Random grids by path; the first image of all has none."""

    feature_shape = (3, 5, 7)
    fingerprint = "own-1"

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def get(self, paths: Sequence[str]) -> np.ndarray:
        self.asked |= set(paths)
        seeds = [int(Path(path).stem) for path in paths]
        return np.stack([np.random.default_rng(seed).normal(size=self.feature_shape) for seed in seeds]).astype(
            np.float16
        )

    def extract(self, paths: Sequence[str]) -> pd.DataFrame:
        missing = [path for path in paths if path.endswith("/0.png")]
        return pd.DataFrame({"path": missing, "reason": ["no features"] * len(missing)})


class Counting(MaskedCrossentropy):
    calls = 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        Counting.calls += 1
        return super().__call__(*arguments, **named)


def words_said(predictions: Mapping[str, str], references: Mapping[str, list[str]]) -> float:
    assert predictions.keys() == references.keys()
    return float(np.mean([len(text.split()) for text in predictions.values()]))


def test_what_is_given_is_used_and_the_run_resumes(tmp_path: Path) -> None:
    data = squares(tmp_path / "images")
    tokenizer = WordTokenizer.from_captions(["a red green blue square at the left right top"], min_count=1)

    def own(run: Path, config: Any, **more: Any) -> Any:
        features = OwnFeatures()
        captioner = train(
            data,
            run,
            config,
            model=AttentionCaptioner,
            tokenizer=tokenizer,
            features=features,
            optimizer=keras.optimizers.Adam(0.01),
            loss=Counting(),
            metrics={"words": words_said},
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))],
            verbose=0,
            **more,
        )
        return captioner, features

    seen: list[int] = []
    captioner, features = own(tmp_path / "run", CONFIG_2)
    assert captioner.tokenizer.vocabulary == tokenizer.vocabulary
    assert captioner.encoder is None and captioner.feature_shape == (3, 5, 7) and captioner.hidden_units == 32
    assert isinstance(captioner, AttentionCaptioner) and Counting.calls > 0 and seen == [0, 1]
    assert not any(path.endswith("/0.png") for path in features.asked)
    assert "no features" in (tmp_path / "run" / "rejects.csv").read_text()
    history = history_of(tmp_path / "run")
    assert [row["val_words"] > 0 for row in history] == [True, True] and "val_loss" in history[0]

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            data,
            tmp_path / "killed",
            CONFIG_2,
            model=AttentionCaptioner,
            tokenizer=tokenizer,
            features=OwnFeatures(),
            optimizer=keras.optimizers.Adam(0.01),
            loss=Counting(),
            metrics={"words": words_said},
            callbacks=[Stop()],
            verbose=0,
        )
    assert len(history_of(tmp_path / "killed")) == 1
    with pytest.raises(ValueError, match="cannot resume: the run was given features of your own: give them again"):
        train(data, tmp_path / "killed", resume=True, verbose=0)
    with pytest.raises(ValueError, match="vocabulary_digest is .*: if it was given a tokenizer, give it again"):
        train(data, tmp_path / "killed", resume=True, features=OwnFeatures(), verbose=0)
    own(tmp_path / "killed", None, resume=True)
    assert history_of(tmp_path / "killed") == history


def test_a_metric_that_gives_no_number_is_named(tmp_path: Path) -> None:
    data = squares(tmp_path / "images")
    with pytest.raises(TypeError, match="metrics: 'words' needs to return a number, got None"):
        train(data, tmp_path / "run", CONFIG_2, features=OwnFeatures(), metrics={"words": lambda *_: None}, verbose=0)


@keras.saving.register_keras_serializable("test_own_parts")
class Means(Encoder):
    """The mean color of each of 3 x 3 cells."""

    layer = "means"

    def __init__(self, weights: str = "none", image_size: int = 12, **settings: Any):
        super().__init__(**settings)
        self.weights_source, self.image_size = weights, image_size
        pixels = keras.Input((image_size, image_size, 3))
        self.network = keras.Model(pixels, keras.layers.AveragePooling2D(image_size // 3)(pixels))
        self.feature_shape, self.grid_box = (3, 3, 3), (0.0, 0.0, 1.0, 1.0)
        self.built = True

    def call(self, pixels: Any) -> Any:
        return self.network(keras.ops.cast(pixels, "float32") / 255)

    def described(self) -> tuple[Any, ...]:
        return self.layer, self.image_size


def test_an_encoder_of_ones_own_serves_training_captions_and_retrieval(tmp_path: Path) -> None:
    data = squares(tmp_path / "images")
    features = FeatureStore(tmp_path / "features", Means())
    train(data, tmp_path / "run", replace(CONFIG, epochs=1), features=features, verbose=0)
    captioner = attncap.load_captioner(tmp_path / "run")
    assert isinstance(captioner.encoder, Means) and captioner.feature_shape == (3, 3, 3)
    paths = list(data.pictures["path"])[:3]
    caption = attncap.caption(captioner, paths[0])
    assert caption.attention_weights is not None and caption.attention_weights.shape[1:] == (3, 3)
    with ImageIndex(tmp_path / "index.db", PooledEmbedding(Means())) as index:
        assert index.add(paths, [[path] for path in paths], progress=False).empty
        assert index.query(paths[1])[0].distance == pytest.approx(0, abs=1e-3)
        Image.new("RGB", (12, 12)).save(tmp_path / "black.png")  # without light, this encoder's features are zero
        rejects = index.add([str(tmp_path / "black.png")], [["black"]], progress=False)
        assert rejects["reason"].tolist() == ["its features are all zero: nothing to compare"] and len(index) == 3
    with pytest.raises(ValueError, match="holds codes of encoder pooled Means means"):
        ImageIndex.load(tmp_path / "index.db", PooledEmbedding(Means(image_size=15)))


def test_a_captioner_of_ones_own_is_trained_as_it_is(tmp_path: Path) -> None:
    data = squares(tmp_path / "images")
    tokenizer = WordTokenizer.from_captions(["a red green blue square at the left right top"], min_count=1)
    given = AttentionCaptioner(tokenizer, (3, 5, 7), hidden_units=13, embedding_units=11, projection_units=7)
    before = [np.array(weight) for weight in given.get_weights()]
    config = replace(CONFIG, epochs=1)
    captioner = train(data, tmp_path / "run", config, model=given, features=OwnFeatures(), verbose=0)
    assert captioner.hidden_units == 13
    with pytest.raises(ValueError, match="the run trains your own 'AttentionCaptioner': give it again as model"):
        train(data, tmp_path / "run", resume=True, features=OwnFeatures(), verbose=0)
    assert any((now != then).any() for now, then in zip(given.get_weights(), before, strict=True))


def test_a_failed_first_step_leaves_the_folder_free(tmp_path: Path) -> None:
    data = squares(tmp_path / "images")

    class Broken(OwnFeatures):
        def get(self, paths: Sequence[str]) -> np.ndarray:
            raise OSError("the disk is gone")

    for _ in range(2):  # not "holds a run already" the second time
        with pytest.raises(Exception, match="the disk is gone"):
            train(data, tmp_path / "run", CONFIG_2, features=Broken(), verbose=0)
        assert not (tmp_path / "run" / "config.json").exists()
    train(data, tmp_path / "run", replace(CONFIG_2, epochs=1), features=OwnFeatures(), verbose=0)


def test_data_and_model_of_a_wrong_kind_are_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="data is a CaptionData, got 'faces:20': load it with attncap.load"):
        train("faces:20", tmp_path / "run")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="model is a subclass of Captioner, one of attention"):
        train(squares(tmp_path / "images"), tmp_path / "run", model=int)  # type: ignore[arg-type]
    data = squares(tmp_path / "images")
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"config": {"epochs": 2}}, TypeError, "config is a TrainConfig, got {'epochs': 2}"),
        ({"model": 3}, ValueError, "model is a subclass of Captioner, one of .*, or a captioner, got 3"),
        ({"model": keras.Sequential()}, ValueError, "or a captioner, got <Sequential"),
        ({"tokenizer": "words"}, TypeError, "tokenizer is a CaptionTokenizer, such as a WordTokenizer, got 'words'"),
        ({"metrics": [words_said]}, TypeError, "metrics maps names to functions"),
        ({"metrics": {"words": "bleu"}}, TypeError, "metrics maps names to functions"),
        ({"metrics": {"bleu_4": words_said}}, ValueError, "'bleu_4' is a score of every training: give yours another"),
        ({"callbacks": keras.callbacks.TerminateOnNaN()}, TypeError, "callbacks: a list of Keras callbacks expected"),
        ({"callbacks": [words_said]}, TypeError, "callbacks is a list of keras.callbacks.Callback, it holds <function"),
        ({"features": 3}, TypeError, "a mapping, a function or a store expected, got 3, which has no get"),
    ]
    for settings, kind, message in wrong:
        with pytest.raises(kind, match=message):
            train(data, tmp_path / "run", **{"config": CONFIG_2, "verbose": 0, **settings})
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_captioner_of_ones_own_is_trained_on_what_it_reads(tmp_path: Path) -> None:
    data = squares(tmp_path / "images")
    tokenizer = WordTokenizer.from_captions(["a red green blue square at the left right top"], min_count=1)
    settings: dict[str, Any] = {"hidden_units": 13, "embedding_units": 11, "projection_units": 7}
    encoder = Means(image_size=12)
    config = replace(CONFIG, epochs=1)
    given = AttentionCaptioner(tokenizer, encoder=encoder, **settings)
    captioner = train(data, tmp_path / "run", config, model=given, features=tmp_path / "store", verbose=0)
    assert captioner.encoder.fingerprint() == encoder.fingerprint()  # not that of the settings: InceptionV3
    assert any((tmp_path / "store").iterdir())
    by_encoder = train(data, tmp_path / "encoder", config, features=Means(image_size=12), verbose=0)
    assert isinstance(by_encoder.encoder, Means)

    other = WordTokenizer.from_captions(["a square"], min_count=1)
    for more, message in (
        ({"tokenizer": other}, "tokenizer is another vocabulary than that of the captioner to train"),
        ({"features": OwnFeatures()}, r"captioner reads features of shape \(3, 3, 3\), those given have \(3, 5, 7\)"),
        ({"features": Means(image_size=15)}, "the encoder in the captioner is not that of the features"),
    ):
        with pytest.raises(ValueError, match=message):
            train(data, tmp_path / "other", config, model=given, verbose=0, **more)


def test_train_config_is_at_top_level_and_documents_every_setting() -> None:
    for name in attncap.TrainConfig.__dataclass_fields__:
        assert f"        {name}: " in (attncap.TrainConfig.__doc__ or "")
