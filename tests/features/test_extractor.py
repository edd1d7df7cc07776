"""The feature extractor: shapes, one preprocessing, weights files right and wrong, and what bfloat16 costs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import h5py
import keras
import numpy as np
import pytest
from PIL import Image

from attncap.features import extractor as features
from attncap.features import inception
from attncap.features.extractor import FeatureExtractor, best_dtype_policy
from attncap.features.inception import layer_table
from attncap.features.preprocessing import preprocess
from attncap.features.weights import global_dtype
from attncap.images import open_image
from attncap.models.attention_captioner import AttentionCaptioner
from attncap.models.saving import load_captioner, save_captioner
from attncap.tokenizers import SPECIAL_TOKENS, WordTokenizer

SMALL = 75  # the smallest picture that InceptionV3 takes
Whole = Callable[[int, str], keras.Model]


@pytest.fixture(scope="module")
def whole() -> Whole:
    """InceptionV3 by (size, dtype policy), each built once (seconds), all with the same random weights."""
    built: dict[tuple[int, str], keras.Model] = {}

    def get(size: int, policy: str = "float32") -> keras.Model:
        if (size, policy) not in built:
            keras.utils.set_random_seed(11)
            with global_dtype(keras.dtype_policies.get(policy)):
                model = keras.applications.InceptionV3(include_top=False, weights=None, input_shape=(size, size, 3))
            for layer in model.layers:  # statistics as after training: no two channels alike
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.moving_mean.assign(0.02 * keras.random.normal(layer.moving_mean.shape, seed=5))
                    layer.moving_variance.assign(0.6 + 0.3 * keras.random.uniform(layer.moving_mean.shape, seed=7))
            built[size, policy] = model
        return built[size, policy]

    return get


@pytest.fixture
def extractor_of(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FeatureExtractor]:
    """FeatureExtractor without the seconds that building the network takes."""

    def make(layer: str | None = "mixed0", weights: str | Path = "random", size: int = SMALL, dtype="float32", **more):
        monkeypatch.setattr(features, "inception", lambda image_size, named: whole(image_size, dtype))
        return FeatureExtractor(layer, weights, size, dtype=dtype, **more)

    return make


def pixels(size: int = SMALL, number: int = 2) -> np.ndarray:
    """Smooth random pictures: noise would be unlike any photograph."""
    coarse = np.random.default_rng(0).integers(0, 256, (number, 9, 9, 3), np.uint8)
    return np.stack([preprocess(Image.fromarray(picture), size) for picture in coarse])


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    found, expected = found.astype(np.float32), expected.astype(np.float32)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


# ---------------------------------------------------------------- shapes and choices


@pytest.mark.parametrize(
    ("layer", "size", "pool", "shape"),
    [
        ("mixed0", 299, 1, (35, 35, 256)),
        ("mixed2", 299, 5, (7, 7, 288)),
        ("mixed7", 299, 1, (17, 17, 768)),
        ("mixed7", 299, 2, (8, 8, 768)),
        ("mixed8", 299, 1, (8, 8, 1280)),
        (None, 299, 1, (8, 8, 2048)),
        ("mixed2", 75, 1, (7, 7, 288)),
        ("mixed2", 75, 2, (3, 3, 288)),
    ],
)
def test_feature_shape(extractor_of, layer: str | None, size: int, pool: int, shape: tuple[int, ...]) -> None:
    extractor = extractor_of(layer, size=size, pool=pool)
    assert extractor.feature_shape == shape
    assert extractor.compute_output_shape((13, size, size, 3)) == (13, *shape)
    if size == SMALL:
        assert extractor(pixels()).shape == (2, *shape)


@pytest.mark.parametrize(
    ("weights", "layer", "asked"),
    [
        ("faces", None, ("mixed0", 150)),
        ("faces", "mixed1", ("mixed1", 150)),
        ("imagenet", None, ("mixed10", 299)),
        ("a file.weights.h5", None, ("mixed10", 299)),
    ],
)
def test_defaults(whole: Whole, monkeypatch, weights: str, layer: str | None, asked: tuple[str, int]) -> None:
    sizes: list[int] = []

    def inception(size: int, named: str | None) -> keras.Model:
        sizes.append(size)
        return whole(SMALL, "float32")

    monkeypatch.setattr(features, "inception", inception)
    monkeypatch.setattr(features, "load_weights", lambda *_: None)
    extractor = FeatureExtractor(layer, weights, dtype="float32")
    assert (extractor.layer, extractor.image_size) == asked and extractor.pool == 1
    assert sizes == [asked[1]]


@pytest.mark.parametrize(
    ("layer", "size", "pool", "first", "last"),
    [  # in pixels, by hand: first center 13.5, step 8 after the stem; 21.5 and 16 at mixed3; 37.5 and 32 at mixed8
        ("mixed0", 107, 1, 9.5, 97.5),
        ("mixed2", 150, 2, 9.5, 137.5),
        ("mixed3", 107, 1, 13.5, 93.5),
        ("mixed8", 299, 1, 21.5, 277.5),
        ("mixed10", 299, 1, 21.5, 277.5),
    ],
)
def test_where_the_grid_lies_in_the_picture(
    extractor_of, layer: str, size: int, pool: int, first: float, last: float
) -> None:
    box = extractor_of(layer=layer, weights="random", size=size, pool=pool).grid_box
    np.testing.assert_allclose(np.array(box) * size, [first, first, last, last])


def test_a_cell_sees_most_of_what_is_at_its_center(extractor_of) -> None:
    extractor = extractor_of(layer="mixed0", size=107)
    rng = np.random.default_rng(5)
    ground = rng.integers(0, 255, (1, 107, 107, 3)).astype(np.float32)
    rows, cols, _ = extractor.feature_shape
    left, top, right, bottom = (edge * 107 for edge in extractor.grid_box)
    before = np.asarray(extractor(ground))
    for row, col in ((0, 0), (2, 7), (rows - 1, 4)):
        x, y = left + (right - left) * (col + 0.5) / cols, top + (bottom - top) * (row + 0.5) / rows
        touched = ground.copy()
        touched[:, int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4] = 0
        change = np.abs(np.asarray(extractor(touched)) - before).sum(axis=-1)[0]  # (rows, cols)
        assert np.unravel_index(change.argmax(), change.shape) == (row, col)


@pytest.mark.parametrize(
    ("layer", "size", "pool", "field"),
    [  # stem by hand: 3 at step 1, then (3-1)*2 twice, pool 2*2, 3x3 at step 4, pool 2*4: 31 at step 8
        ("mixed0", 107, 1, 31 + 4 * 8),  # 5x5, and two 3x3
        ("mixed2", 150, 2, 31 + 3 * 4 * 8 + 8),  # three such blocks, and two cells of 8 pixels
    ],
)
def test_receptive_field(extractor_of, layer: str, size: int, pool: int, field: int) -> None:
    assert extractor_of(layer=layer, weights="random", size=size, pool=pool).receptive_field == field


def test_layer_table(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception, "inception", lambda image_size, named: whole(image_size, "float32"))
    table = layer_table(299).set_index("layer")
    assert list(table.index) == [f"mixed{number}" for number in range(11)]
    # mixed3: its longest branch has two 3x3 more; the published field of the whole network is 1311.
    assert table.loc["mixed3"].tolist() == [17, 17, 768, 16, 31 + 3 * 32 + 32, 17 * 17 * 768 * 2 / 1024]
    assert table.loc["mixed10"].tolist() == [8, 8, 2048, 32, 1311, 256.0]


def test_pooling_is_the_mean_of_its_cells(extractor_of) -> None:
    whole_grid = np.asarray(extractor_of(pool=1)(pixels()))  # (2, 7, 7, 256)
    pooled = np.asarray(extractor_of(pool=3)(pixels()))
    expected = whole_grid[:, :6, :6].reshape(2, 2, 3, 2, 3, -1).mean(axis=(2, 4))
    np.testing.assert_allclose(pooled, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["mixed11", "conv2d_3", "mixed9_0", ""])
def test_an_unknown_layer_lists_the_known_ones(extractor_of, name: str) -> None:
    if not name:
        assert extractor_of(name).layer == "mixed10"  # no layer named: the default
        return
    known = "choose one of mixed0, mixed1, .*mixed9, mixed10$"
    with pytest.raises(ValueError, match=f"no layer '{name}': {known}"):
        extractor_of(name)


def test_a_picture_size_that_inception_does_not_take_is_named() -> None:
    with pytest.raises(ValueError, match="at least 75x75"):
        FeatureExtractor("mixed0", "random", image_size=74)


# ---------------------------------------------------------------- preprocessing


def test_the_whole_picture_is_squashed_not_cropped() -> None:
    colors = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], np.uint8)
    tall = Image.fromarray(colors.repeat(211, axis=0).repeat(53, axis=1))
    assert tall.size == (106, 422)
    square = preprocess(tall, 90)
    assert square.shape == (90, 90, 3) and square.dtype == np.uint8
    for row in (0, 1):
        for column in (0, 1):
            quadrant = square[row * 45 : row * 45 + 45, column * 45 : column * 45 + 45]
            inner = quadrant[3:-3, 3:-3].reshape(-1, 3)
            assert (inner == colors[row, column]).all(), (row, column)
            corner = square[-row, -column]
            assert (corner == colors[row, column]).all()


def test_pixels_are_scaled_to_between_minus_one_and_one(extractor_of, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = extractor_of()
    monkeypatch.setattr(extractor, "network", lambda scaled, training: scaled)
    size = extractor.image_size
    scaled = np.asarray(extractor(np.full((1, size, size, 3), [0, 51, 255], np.uint8)))
    np.testing.assert_allclose(scaled, np.full((1, size, size, 3), [-1.0, -0.6, 1.0]), atol=1e-6)


def test_network_for_pixels_is_the_extractor(extractor_of) -> None:
    extractor = extractor_of()
    predicted = extractor.network_for_pixels().predict_on_batch(pixels())
    assert relative_error(predicted, np.asarray(extractor(pixels()))) < 1e-5


def test_a_loaded_model_preprocesses_and_encodes_as_in_training(extractor_of, tmp_path: Path, monkeypatch) -> None:
    extractor = extractor_of("mixed1", pool=2)
    captioner = AttentionCaptioner(
        WordTokenizer([*SPECIAL_TOKENS, "a"]),
        encoder=extractor,
        embedding_units=3,
        hidden_units=5,
        projection_units=7,
        attention_units=2,
        dtype="float32",
    )
    save_captioner(captioner, tmp_path / "model.keras")
    monkeypatch.undo()  # a fresh network, whose random weights the saved ones must replace
    loaded = load_captioner(tmp_path / "model.keras").encoder
    assert loaded is not None
    assert (loaded.layer, loaded.image_size, loaded.pool, loaded.weights_source) == ("mixed1", SMALL, 2, "random")
    assert loaded.feature_shape == extractor.feature_shape
    assert loaded.dtype_policy.name == "float32"
    picture = Image.fromarray(pixels(number=1)[0]).resize((131, 87))
    np.testing.assert_array_equal(loaded.preprocess(picture), extractor.preprocess(picture))
    np.testing.assert_array_equal(loaded.preprocess(picture), preprocess(picture, SMALL))
    np.testing.assert_allclose(np.asarray(loaded(pixels())), np.asarray(extractor(pixels())), rtol=1e-5, atol=1e-6)
    assert loaded.fingerprint() == extractor.fingerprint()
    assert not loaded.trainable_variables


def test_config_holds_no_path(extractor_of, weights_files: dict[str, Path]) -> None:
    config = extractor_of("mixed2", weights_files["cut2"]).get_config()
    assert config["weights"] == "cut2.weights.h5"
    assert str(weights_files["cut2"].parent) not in repr(config)


# ---------------------------------------------------------------- the fingerprint


def test_fingerprint_is_that_of_everything_the_features_depend_on(extractor_of, whole: Whole) -> None:
    reference = extractor_of("mixed0").fingerprint()
    assert reference == extractor_of("mixed0").fingerprint()
    assert re.fullmatch("[0-9a-f]{24}", reference)
    whole(299, "float32").set_weights(whole(SMALL, "float32").get_weights())
    others = {
        "layer": extractor_of("mixed1").fingerprint(),
        "size": extractor_of("mixed0", size=299).fingerprint(),
        "pool": extractor_of("mixed0", pool=3).fingerprint(),
        "dtype": extractor_of("mixed0", dtype="mixed_bfloat16").fingerprint(),
    }
    kernel = extractor_of("mixed0").network.weights[0]
    before = kernel.numpy()
    changed = before.copy()
    changed[1, 2, 0, 3] = np.nextafter(changed[1, 2, 0, 3], np.float32(np.inf))
    kernel.assign(changed)
    others["one weight, last bit"] = extractor_of("mixed0").fingerprint()
    kernel.assign(before)
    assert extractor_of("mixed0").fingerprint() == reference
    assert len({reference, *others.values()}) == 1 + len(others), others


def test_fingerprint_changes_with_the_preprocessing(extractor_of, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = extractor_of().fingerprint()
    monkeypatch.setattr(features, "PREPROCESSING_VERSION", features.PREPROCESSING_VERSION + 1)
    assert extractor_of().fingerprint() != reference


# ---------------------------------------------------------------- weights files


@pytest.fixture(scope="module")
def weights_files(whole: Whole, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("weights")
    model = whole(SMALL, "float32")
    files = {name: folder / f"{name}.weights.h5" for name in ("whole", "cut2", "other")}
    model.save_weights(files["whole"])
    keras.Model(model.input, model.get_layer("mixed2").output).save_weights(files["cut2"])
    other = keras.Sequential([keras.Input((SMALL, SMALL, 3)), keras.layers.Conv2D(32, 3), keras.layers.Conv2D(5, 3)])
    other.save_weights(files["other"])
    return files


@pytest.mark.parametrize(("file", "layer"), [("whole", "mixed2"), ("cut2", "mixed2")])
def test_a_whole_and_a_cut_file_give_the_weights_they_hold(
    extractor_of, whole: Whole, weights_files: dict[str, Path], file: str, layer: str
) -> None:
    model = whole(SMALL, "float32")
    saved = [value.copy() for value in model.get_weights()]
    expected = np.asarray(extractor_of(layer)(pixels()))
    try:
        model.set_weights([np.full_like(value, 0.5) for value in saved])
        extractor = extractor_of(layer, weights_files[file])
        np.testing.assert_allclose(np.asarray(extractor(pixels())), expected, rtol=1e-5, atol=1e-6)
    finally:
        model.set_weights(saved)


def test_a_file_cut_later_serves_an_earlier_layer(extractor_of, weights_files: dict[str, Path]) -> None:
    expected = np.asarray(extractor_of("mixed1")(pixels()))
    found = np.asarray(extractor_of("mixed1", weights_files["cut2"])(pixels()))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def damaged(damage: str, files: dict[str, Path], folder: Path) -> Path:
    """A copy of a right file (cut at mixed2: it is small), damaged in one way."""
    file = folder / f"{damage.replace(' ', '-')}.weights.h5"
    contents = files["cut2"].read_bytes()
    if damage == "truncated":
        contents = contents[: len(contents) // 2]
    elif damage == "not hdf5":
        contents = b"<html>404 not found</html>" * 99
    elif damage == "empty":
        contents = b""
    elif damage == "another network":
        contents = files["other"].read_bytes()
    file.write_bytes(contents)
    if damage in ("nan", "a kernel of zeros", "a hole"):
        with h5py.File(file, "r+") as opened:
            kernel = opened["layers/conv2d_3/vars/0"]
            values = kernel[...]
            if damage == "nan":
                values[0, 0, 1, 1] = np.nan
            elif damage == "a kernel of zeros":
                values[...] = 0.0
            else:
                values.reshape(-1)[: values.size // 20] = 0.0
            kernel[...] = values
    return file


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("truncated", r"not the weights of InceptionV3\(include_top=False\), or truncated \(.*truncated"),
        ("not hdf5", r"not the weights of InceptionV3\(include_top=False\), or truncated \(.*signature not found"),
        ("empty", r"not the weights of InceptionV3\(include_top=False\), or truncated"),
        ("another network", r"not the weights of InceptionV3\(include_top=False\)"),
        ("nan", r"conv2d\w*/kernel holds values that are not finite: the file is damaged"),
        ("a kernel of zeros", r"100% of .*conv2d\w*/kernel is exactly zero: .*earlier layer, or take another file"),
        ("a hole", r"5% of .*conv2d\w*/kernel is exactly zero"),
    ],
)
@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_a_wrong_weights_file_is_named(
    extractor_of, whole: Whole, weights_files: dict[str, Path], tmp_path: Path, damage: str, message: str
) -> None:
    file = damaged(damage, weights_files, tmp_path)
    saved = whole(SMALL, "float32").get_weights()
    try:
        with pytest.raises(ValueError, match=rf"{re.escape(str(file))}: {message}") as raised:
            extractor_of("mixed2", file)
        assert "\n" not in str(raised.value)
    finally:
        whole(SMALL, "float32").set_weights(saved)


def test_damage_after_the_layer_does_not_matter(
    extractor_of, whole: Whole, weights_files: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "late.weights.h5"
    file.write_bytes(weights_files["whole"].read_bytes())
    with h5py.File(file, "r+") as opened:
        opened["layers/conv2d_93/vars/0"][...] = np.nan  # the last of 94
    saved = whole(SMALL, "float32").get_weights()
    try:
        extractor_of("mixed8", file)
        with pytest.raises(ValueError, match="not finite"):
            extractor_of("mixed10", file)
    finally:
        whole(SMALL, "float32").set_weights(saved)


def test_a_missing_weights_file_lists_the_other_choices(extractor_of, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nope\.h5: no such weights file; .*imagenet, faces, random"):
        extractor_of("mixed2", tmp_path / "nope.h5")


def test_imagenet_without_a_network_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object) -> None:
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", no_network)
    with pytest.raises(RuntimeError) as raised:
        FeatureExtractor("mixed2", "imagenet", image_size=SMALL)
    message = str(raised.value)
    file = tmp_path / "models" / "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"
    assert f"Put that file at {file}" in message
    assert "name resolution" in message
    for choice in ("weights='path/to/inception_v3.weights.h5'", "'faces'", "'random'"):
        assert choice in message


# ---------------------------------------------------------------- arithmetic


# Relative L2 error of bfloat16 arithmetic, measured: 0.6% at mixed0, 0.4% at mixed8 (random weights, one processor).
@pytest.mark.parametrize(("layer", "bound"), [("mixed0", 0.012), ("mixed8", 0.012)])
def test_bfloat16_stays_close_to_float32(extractor_of, layer: str, bound: float) -> None:
    exact = np.asarray(extractor_of(layer)(pixels()))
    rounded = np.asarray(extractor_of(layer, dtype="mixed_bfloat16")(pixels())).astype(np.float32)
    assert exact.std() > 1e-3  # the features say something
    error = relative_error(rounded, exact)
    if best_dtype_policy() == "mixed_bfloat16":  # elsewhere a backend may compute in float32 all the same
        assert error > 0.0
    assert error < bound
    assert relative_error(exact[1], exact[0]) > 2 * bound  # two pictures differ by far more


def test_best_dtype_policy_goes_by_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features.platform, "system", lambda: "Linux")
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    for flags, policy in [("sse avx512_bf16 x", "mixed_bfloat16"), ("amx_bf16", "mixed_bfloat16"), ("avx2", "float32")]:
        best_dtype_policy.cache_clear()
        monkeypatch.setattr(Path, "read_text", lambda self, flags=flags: flags)
        assert best_dtype_policy() == policy
    best_dtype_policy.cache_clear()
    monkeypatch.setattr(features.platform, "system", lambda: "Darwin")
    assert best_dtype_policy() == "float32"
    best_dtype_policy.cache_clear()


@pytest.mark.slow
@pytest.mark.real
def test_bfloat16_stays_close_to_float32_on_photographs(shared_data: Path) -> None:
    file = shared_data / "inception_v3" / "inception_v3_imagenet_notop.weights.h5"
    exact, rounded = (FeatureExtractor("mixed8", file, dtype=dtype) for dtype in ("float32", "mixed_bfloat16"))
    paths = sorted((shared_data / "flickr8k" / "images").glob("*.jpg"))[::500]
    photographs = np.stack([exact.preprocess(open_image(path)) for path in paths])
    expected, found = np.asarray(exact(photographs)), np.asarray(rounded(photographs)).astype(np.float32)
    assert relative_error(found, expected) < 0.06  # measured: 3.7%, where two photographs differ by 110%


@pytest.mark.slow
@pytest.mark.real
def test_the_holes_in_a_damaged_file_are_found(shared_data: Path) -> None:
    file = shared_data / "inception_v3" / "inception_v3_imagenet_notop.weights.h5"
    with pytest.raises(
        ValueError, match=r"% of .*kernel is exactly zero: the file is damaged there; stop at an earlier"
    ):
        FeatureExtractor("mixed10", file)
