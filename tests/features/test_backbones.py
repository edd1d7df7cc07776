"""Backbones beside InceptionV3: grids, preprocessing, where cells lie (a gradient probe), saving, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import attncap
from attncap.features import backbones
from attncap.features.extractor import FeatureExtractor
from attncap.features.preprocessing import LINEAR, SCALINGS, check_scaling, scaled
from attncap.features.store import FeatureStore
from attncap.models.attention_captioner import AttentionCaptioner
from attncap.models.saving import load_captioner, save_captioner
from attncap.tokenizers import SPECIAL_TOKENS, WordTokenizer

SIZE = 96


def vit(size: int = SIZE, tokens: bool = True) -> keras.Model:
    return keras_hub.models.ViTBackbone(
        image_shape=(size, size, 3),
        patch_size=16,
        num_layers=1,
        num_heads=2,
        hidden_dim=12,
        mlp_dim=20,
        use_class_token=tokens,
    )


def own(size: int = SIZE, name: str = "mine") -> keras.Model:
    """Three convolutions with all kinds of padding, a gate over channels, and pooling to one vector after the grid."""
    pixels = keras.Input((size, size, 3))
    cells = keras.layers.Conv2D(32, 5, strides=3, padding="same", activation="relu")(pixels)
    cells = keras.layers.ZeroPadding2D(((0, 1), (0, 1)))(cells)
    cells = keras.layers.DepthwiseConv2D(3, strides=2, padding="valid")(cells)
    gate = keras.layers.Dense(32, "sigmoid")(keras.layers.GlobalAveragePooling2D(keepdims=True)(cells))
    cells = keras.layers.Multiply()([cells, gate])
    cells = keras.layers.Conv2D(7, 3, dilation_rate=2, padding="same", name="grid")(cells)
    return keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(cells), name=name)


def made(kind: str) -> FeatureExtractor:
    keras.utils.set_random_seed(0)
    if kind == "ViT":
        return FeatureExtractor(backbone=vit(), scaling="-1..1")
    if kind == "own":
        return FeatureExtractor("grid", backbone=own(), scaling="0..1")
    return FeatureExtractor(weights="random", image_size=SIZE, backbone=kind)


SHAPES = {"resnet50": (3, 3, 2048), "MobileNetV3Small": (3, 3, 576), "ViT": (6, 6, 12), "own": (16, 16, 7)}
SCALED = {"resnet50": "caffe", "MobileNetV3Small": "0..255", "ViT": "-1..1", "own": "0..1"}
ENCODERS: dict[str, FeatureExtractor] = {}


@pytest.fixture(params=SHAPES)
def encoder(request: pytest.FixtureRequest) -> FeatureExtractor:
    kind = request.param
    ENCODERS[kind] = ENCODERS.get(kind) or made(kind)
    return ENCODERS[kind]


def kind_of(encoder: FeatureExtractor) -> str:
    return next(kind for kind, one in ENCODERS.items() if one is encoder)


def drawn(number: int = 2, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, size, size, 3)).astype(np.uint8)


def test_a_backbone_gives_a_grid(encoder: FeatureExtractor) -> None:
    kind = kind_of(encoder)
    assert encoder.feature_shape == SHAPES[kind] and encoder.scaling == SCALED[kind] and encoder.image_size == SIZE
    features = encoder(drawn())
    assert features.shape == (2, *SHAPES[kind]) and features.dtype == "float32"
    np.testing.assert_allclose(encoder.network_for_pixels().predict_on_batch(drawn()), features, rtol=1e-3, atol=1e-4)


def test_features_are_those_of_kerass_own_preprocessing() -> None:
    keras.utils.set_random_seed(0)
    whole = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(SIZE, SIZE, 3))
    encoder = FeatureExtractor(weights="random", image_size=SIZE, backbone="ResNet50")
    encoder.network.set_weights(whole.get_weights())
    expected = whole(keras.applications.resnet.preprocess_input(drawn().astype(np.float32)))
    np.testing.assert_allclose(encoder(drawn()), expected, rtol=1e-4, atol=1e-4)


MODULES = (
    "convnext densenet efficientnet efficientnet_v2 inception_resnet_v2 mobilenet mobilenet_v2 mobilenet_v3 nasnet "
    "resnet resnet_v2 vgg16 vgg19 xception"
)


@pytest.mark.parametrize("module", MODULES.split())
def test_scalings_are_kerass(module: str) -> None:
    pixels = drawn(1, 5).astype(np.float32)
    theirs = getattr(keras.applications, module).preprocess_input(pixels.copy())
    ours = scaled(pixels, backbones.MODULE_SCALINGS.get(module, "0..255"))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_class_tokens_are_left_out_and_patches_keep_their_order() -> None:
    keras.utils.set_random_seed(0)
    network = vit()
    encoder = FeatureExtractor(backbone=network, scaling="0..1")
    tokens = np.asarray(network(drawn().astype(np.float32) / 255))  # (B, 1 + 36, D)
    assert tokens.shape[1] == 37
    np.testing.assert_allclose(encoder(drawn()), tokens[:, 1:].reshape(2, 6, 6, 12), atol=1e-5)
    assert FeatureExtractor(backbone=vit(tokens=False), scaling="0..1").feature_shape == (6, 6, 12)
    assert encoder.grid_box == (0.0, 0.0, 1.0, 1.0) and encoder.receptive_field is None
    pooled = FeatureExtractor(backbone=vit(size=80), scaling="0..1", pool=2)  # 5 x 5 patches: the last ones are dropped
    assert pooled.feature_shape == (2, 2, 12) and pooled.grid_box == (0.0, 0.0, 0.8, 0.8)


@pytest.mark.parametrize("kind", ["resnet50", "MobileNetV3Small", "ViT", "own"])
def test_a_gradient_probe_finds_the_cells_where_the_box_says(kind: str) -> None:
    """Which pixels move a cell: their center of mass is the cell's center, and none lies beyond the receptive field."""
    size = 224
    keras.utils.set_random_seed(1)
    if kind == "ViT":
        encoder = FeatureExtractor("vit_patching_and_embedding", backbone=vit(size), scaling="-1..1")
    elif kind == "own":
        encoder = FeatureExtractor("grid", backbone=own(size), scaling="0..1")
    else:
        layer = "conv3_block4_out" if kind == "resnet50" else "expanded_conv_2_add"
        encoder = FeatureExtractor(layer, "random", size, backbone=kind)
    rows, cols, _ = encoder.feature_shape
    left, top, right, bottom = (side * size for side in encoder.grid_box)
    pixels = tf.Variable(np.random.default_rng(0).uniform(0, 255, (3, size, size, 3)).astype(np.float32))
    for row, col in ((rows // 2, cols // 2), (rows // 2 + 1, cols // 3)):
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(tf.abs(encoder(pixels)[:, row, col]))
        gradient = np.abs(tape.gradient(value, pixels).numpy()).sum(axis=(0, 3))  # (size, size)
        gradient[gradient < gradient.max() * 1e-3] = 0.0  # what gates over channels let through from everywhere
        places = np.arange(size) + 0.5
        down = (gradient.sum(axis=1) * places).sum() / gradient.sum()
        across = (gradient.sum(axis=0) * places).sum() / gradient.sum()
        high, wide = (bottom - top) / rows, (right - left) / cols
        assert down == pytest.approx(top + (row + 0.5) * high, abs=0.4 * high)
        assert across == pytest.approx(left + (col + 0.5) * wide, abs=0.4 * wide)
        seen = np.flatnonzero(gradient.sum(axis=1))
        field = encoder.receptive_field or 16
        assert seen[-1] - seen[0] + 1 <= field
        if kind in ("own", "ViT"):  # the whole field weighs: its middle is the cell's center exactly
            assert seen[-1] - seen[0] + 1 == field
            assert (seen[0] + seen[-1] + 1) / 2 == pytest.approx(top + (row + 0.5) * high)


def test_a_captioner_of_any_backbone_is_saved_with_it(encoder: FeatureExtractor, tmp_path: Path) -> None:
    small = {"embedding_units": 7, "hidden_units": 11, "projection_units": 13, "attention_units": 17}
    captioner = AttentionCaptioner(WordTokenizer([*SPECIAL_TOKENS, "dog", "runs"]), encoder=encoder, **small)
    save_captioner(captioner, tmp_path / "it.keras")
    again = load_captioner(tmp_path / "it.keras")
    assert again.encoder is not None and again.encoder.fingerprint() == encoder.fingerprint()
    np.testing.assert_allclose(again.encoder(drawn()), encoder(drawn()), rtol=1e-5, atol=1e-5)
    Image.fromarray(drawn(1, 200)[0]).save(tmp_path / "it.png")
    caption = attncap.caption(again, tmp_path / "it.png", max_length=4)
    assert caption.attention_weights is not None
    assert caption.attention_weights.shape[1:] == encoder.feature_shape[:2] and caption.grid_box == encoder.grid_box
    store = FeatureStore(tmp_path, encoder)
    assert store.extract([str(tmp_path / "it.png")], progress=False).empty
    store.close()


def resnet(size: int | None) -> keras.Model:
    """A small ResNet of keras-hub; like all of the hub's, it takes images of any size where none is named."""
    return keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
        image_shape=(size, size, 3),
    )


CLIP_MEAN, CLIP_DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CLIP = ([1 / 255 / s for s in CLIP_DEVIATION], [-m / s for m, s in zip(CLIP_MEAN, CLIP_DEVIATION, strict=True)])


def saved_preset(network: keras.Model, folder: Path, scaling: Any = CLIP) -> str:
    network.save_to_preset(str(folder))
    if scaling is not None:
        converter = keras_hub.layers.ImageConverter(image_size=(SIZE, SIZE), scale=scaling[0], offset=scaling[1])
        converter.save_to_preset(str(folder))
    return str(folder)


@pytest.mark.parametrize("kind", ["ViT", "ResNet"])
def test_a_preset_of_keras_hub_brings_its_weights_its_scaling_and_its_image_size(tmp_path: Path, kind: str) -> None:
    keras.utils.set_random_seed(0)
    network = vit() if kind == "ViT" else resnet(None)
    preset = saved_preset(network, tmp_path / "preset")
    encoder = FeatureExtractor(backbone=preset)
    assert encoder.image_size == SIZE and encoder.feature_shape == ((6, 6, 12) if kind == "ViT" else (24, 24, 64))
    pixels = (drawn() / 255 - CLIP_MEAN) / CLIP_DEVIATION
    expected = np.asarray(network(pixels.astype(np.float32)))
    expected = expected[:, 1:].reshape(2, 6, 6, 12) if kind == "ViT" else expected
    np.testing.assert_allclose(encoder(drawn()), expected, rtol=1e-4, atol=1e-4)
    captioner = AttentionCaptioner(WordTokenizer([*SPECIAL_TOKENS, "dog"]), encoder=encoder, hidden_units=7)
    save_captioner(captioner, tmp_path / "it.keras")
    (tmp_path / "preset").rename(tmp_path / "gone")
    again = load_captioner(tmp_path / "it.keras").encoder
    assert again is not None and again.fingerprint() == encoder.fingerprint() and again.scaling == encoder.scaling
    np.testing.assert_allclose(again(drawn()), encoder(drawn()), rtol=1e-5, atol=1e-5)


def test_a_preset_of_another_size_and_without_a_scaling(tmp_path: Path) -> None:
    preset = saved_preset(vit(), tmp_path / "vit", ([1 / 255] * 3, None))
    assert FeatureExtractor(backbone=preset).scaling == "0..1"
    with pytest.raises(ValueError, match="takes images of 96 pixels, got image_size 64: leave it out"):
        FeatureExtractor(backbone=preset, image_size=64)  # a position of each patch is learned
    preset = saved_preset(resnet(None), tmp_path / "resnet", None)
    with pytest.raises(ValueError, match="say how pixels of 0 to 255 are scaled for it"):
        FeatureExtractor(backbone=preset, image_size=64)
    with pytest.raises(ValueError, match="takes images of any size: choose one, for example image_size=224"):
        FeatureExtractor(backbone=preset, scaling="0..1")
    assert FeatureExtractor(backbone=preset, scaling="0..1", image_size=64).feature_shape == (16, 16, 64)
    with pytest.raises(ValueError, match="neither a model of keras.applications .* nor a preset of keras-hub"):
        FeatureExtractor(backbone=str(tmp_path / "none"))


def test_a_backbone_of_keras_hub_for_any_size_takes_the_size_that_is_given() -> None:
    network = resnet(None)
    encoder = FeatureExtractor(backbone=network, scaling="0..255", image_size=64)
    np.testing.assert_allclose(encoder(drawn(2, 64)), network(drawn(2, 64).astype(np.float32)), rtol=1e-4, atol=1e-4)
    again = FeatureExtractor.from_config(encoder.get_config())
    assert again.feature_shape == (16, 16, 64) and again.grid_box == encoder.grid_box


def test_scaling_by_numbers() -> None:
    pixels = drawn(1, 5)
    assert check_scaling((1 / 127.5, -1)) == "-1..1" and check_scaling((1, 0)) == "0..255"
    for name in ("-1..1", "0..1", "0..255", "imagenet"):
        scale, offset = LINEAR[name]
        assert check_scaling([list(scale), list(offset)]) == name
        np.testing.assert_allclose(scaled(pixels, (scale, offset)), scaled(pixels, name), atol=1e-5)
    assert check_scaling((0.01, (1, 2, 3))) == ((0.01, 0.01, 0.01), (1.0, 2.0, 3.0))
    for wrong in ((1, 2, 3), (1, float("nan")), ((1, 2), 0), (1, "x"), 7, "rgb"):
        with pytest.raises(ValueError, match="scaling"):
            check_scaling(wrong)


def test_names_and_fingerprints_tell_backbones_apart() -> None:
    assert backbones.application_name("efficientnet_v2_b0") == "EfficientNetV2B0"
    assert backbones.application_name("nothing") is None
    one, other = (FeatureExtractor("grid", backbone=own(), scaling=name) for name in ("0..1", "-1..1"))
    other.network.set_weights(one.network.get_weights())
    assert one.fingerprint() != other.fingerprint()
    assert (
        "backbone" not in FeatureExtractor("mixed0", "random", 75).get_config()
    )  # files of InceptionV3 stay as they were


class Subclassed(keras.Model):
    def call(self, pixels: Any) -> Any:
        return pixels


def test_what_is_refused(tmp_path: Path) -> None:
    refused: list[tuple[Any, dict[str, Any], str]] = [
        (TypeError, {"layer": ["mixed7", "mixed8"]}, r"layer is the name of one layer, got \['mixed7', 'mixed8'\]"),
        (ValueError, {"image_size": (299, 299)}, r"image_size is one whole number, .* got \(299, 299\)"),
        (ValueError, {"image_size": 0}, "image_size is one whole number"),
        (ValueError, {"backbone": own()}, "mine: say how pixels of 0 to 255 are scaled"),
        (ValueError, {"backbone": own(), "scaling": "rgb"}, "scaling 'rgb': choose how .*'caffe'"),
        (
            ValueError,
            {"backbone": own(), "scaling": "0..1"},
            r"mine, layer at the end: a grid .*got shape \(None, 7\): name another .* with a grid are .*grid",
        ),
        (
            ValueError,
            {"backbone": own(), "scaling": "0..1", "layer": "grid", "pool": 99},
            "pool is a whole number from 1 to 16",
        ),
        (ValueError, {"backbone": own(), "scaling": "0..1", "layer": "grid", "pool": 0}, "pool is a whole number"),
        (
            ValueError,
            {"backbone": Subclassed(), "scaling": "0..1"},
            "backbone: a functional .* expected, got Subclassed",
        ),
        (
            ValueError,
            {"backbone": keras.Sequential([keras.layers.ReLU()]), "scaling": "0..1"},
            "a sequential one with keras.Input, expected, got Sequential",
        ),
        (ValueError, {"backbone": own(), "scaling": "0..1", "layer": "none"}, "mine has no layer 'none': the last are"),
        (
            ValueError,
            {"backbone": own(), "scaling": "0..1", "image_size": 64},
            "takes images of 96 pixels, got image_s",
        ),
        (ValueError, {"backbone": "resnet50", "weights": "faces"}, "weights 'faces' are of InceptionV3"),
        (ValueError, {"backbone": 7}, "backbone: a name or a keras.Model expected, got int"),
        (FileNotFoundError, {"backbone": "resnet50", "weights": "no.h5", "image_size": 64}, "no.h5: no such weights"),
    ]
    for kind, settings, message in refused:
        with pytest.raises(kind, match=message):
            FeatureExtractor(**{"weights": "random", **settings})
    with pytest.raises(ValueError, match="square images"):
        FeatureExtractor(backbone=keras.Sequential([keras.Input((8, 9, 3)), keras.layers.ReLU()]), scaling="0..1")


class Stranger(keras.layers.Layer):
    def call(self, cells: Any) -> Any:
        return cells


def test_a_saved_backbone_of_foreign_layers_is_refused() -> None:
    pixels = keras.Input((32, 32, 3))
    foreign = keras.Model(pixels, Stranger()(pixels), name="foreign")
    with pytest.raises(ValueError, match="a backbone with the layer Stranger cannot be saved or loaded"):
        FeatureExtractor(backbone=foreign, scaling="0..1")
    config = FeatureExtractor("grid", backbone=own(), scaling="0..1").get_config()
    assert FeatureExtractor.from_config(config).feature_shape == (16, 16, 7)
    network = json.loads(config["backbone"]["network"])
    network["layers"][1]["class_name"] = "Lambda"
    config["backbone"]["network"] = json.dumps(network)
    with pytest.raises(ValueError, match="a backbone with the layer Lambda cannot be saved or loaded"):
        FeatureExtractor.from_config(config)
    for description, message in (
        ({"kind": "keras_hub", "name": "Tokenizer", "settings": {}}, "keras-hub has no backbone 'Tokenizer'"),
        (
            {"kind": "keras_hub", "name": "ViTBackbone", "settings": {"a": {"class_name": "x"}}},
            "numbers and texts can be saved",
        ),
        ({"kind": "pickle", "name": "x"}, "backbone 'x' of kind 'pickle' is not known"),
    ):
        with pytest.raises(ValueError, match=message):
            FeatureExtractor.from_config({**config, "backbone": description})


@pytest.mark.parametrize("name", SCALINGS)
def test_pixels_that_are_scaled_already_are_refused(name: str) -> None:
    encoder = ENCODERS.setdefault("own", made("own"))
    for low in (0.0, -1.0):
        pixels = np.random.default_rng(0).uniform(low, 1, (1, SIZE, SIZE, 3))
        with pytest.raises(ValueError, match=r"pixels from 0 to 255 expected, got values from .* scaled already"):
            encoder(pixels)
    assert encoder(np.zeros((1, SIZE, SIZE, 3))).shape[0] == 1  # a black image
    for shape, mend in (((1, 3, SIZE, SIZE), "channels come last"), ((SIZE, SIZE, 3), r"add the batch axis")):
        with pytest.raises(ValueError, match=rf"pixels of shape \(B, 96, 96, 3\) expected, got .*{mend}"):
            encoder(np.full(shape, 9.0))
