"""The benchmarks on tiny sizes: what they write, and that the rivals compute what we do. No time is tested."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SHARED = {"settings", "machine"}


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of benchmarks/, as a script there does; real data are not looked for."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delenv("ATTNCAP_DATA", raising=False)
    return importlib.import_module


def run(module: ModuleType, file: Path, arguments: str) -> dict[str, Any]:
    """Run a benchmark's `main` and return what it wrote."""
    module.main([*arguments.split(), "--json", str(file)])
    return json.loads(file.read_text(encoding="utf-8"))


def test_ceiling_counts_operations(benchmark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(benchmark("bench_ceiling"), tmp_path / "a.json", "--sizes 32 64 --no-shapes --work 0.001 --repeats 3")
    assert set(found) == SHARED | {"seconds", "gflops", "ratios", "ceiling"}
    name = "64 x 64 x 64, bfloat16"
    # 1e6 operations are asked for and a product has 2 * 64^3 = 524,288: two products, 1,048,576.
    assert found["gflops"][name] == pytest.approx(1_048_576 / np.median(found["seconds"][name]) / 1e9)
    assert len(found["seconds"][name]) == 3
    assert found["ceiling"]["float32"] == max(rate for label, rate in found["gflops"].items() if "float32" in label)
    assert "ceiling:" in capsys.readouterr().out


def test_feature_extraction_gives_the_rivals_features(
    benchmark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = benchmark("bench_features")
    arguments = "--pictures 3 --layer mixed0 --image-size 75 --batch-size 2 --ceiling-size 16 --repeats 1"
    found = run(module, tmp_path / "a.json", arguments)
    assert found["images"] == "drawn, 500x375"
    assert found["correlation"] > 0.9  # Pillow's resizing and TensorFlow's differ
    assert found["bytes_per_image"] == {"attncap": 7 * 7 * 256 * 2, "rival": 7 * 7 * 256 * 4 + 128}
    assert found["rates"][module.OURS] == pytest.approx(3 / found["seconds"][module.OURS][0])
    assert found["rates"][module.ALONE] == pytest.approx(4 / found["seconds"][module.ALONE][0])  # two batches of two
    assert found["ratios"][module.OURS] == pytest.approx(found["rates"][module.OURS] / found["rates"][module.RIVAL])
    assert "of the ceiling" in capsys.readouterr().out


def test_operations_of_inception_are_as_published(benchmark: Any) -> None:
    keras = pytest.importorskip("keras")
    module = benchmark("bench_features")
    pixels = keras.Input((5, 7, 3))
    small = keras.Model(pixels, keras.layers.Conv2D(11, (2, 3))(pixels))
    assert module.operations_of(small) == 2 * (4 * 5) * (2 * 3 * 3) * 11
    network = keras.applications.InceptionV3(include_top=False, weights=None, input_shape=(299, 299, 3))
    assert module.operations_of(network) / 1e9 == pytest.approx(11.4, abs=0.1)


@pytest.mark.slow
def test_the_training_rival_has_our_loss(benchmark: Any, tmp_path: Path) -> None:
    module = benchmark("bench_training")
    sizes = "--vocabulary 53 --regions 4 --features 12 --embedding 8 --hidden 10 --attention 7 --projection 6"
    arguments = f"--steps 2 --pictures 3 --batch 4 --data 7 --max-length 7 {sizes} --ceiling-size 16 --repeats 1"
    found = run(module, tmp_path / "a.json", f"{arguments} --dtype float32")
    assert found["loss"]["attncap"] == pytest.approx(found["loss"]["rival"], rel=1e-5)
    assert found["loss"]["attncap"] == pytest.approx(np.log(53), rel=0.05)  # of weights that nothing taught
    ours = "attncap, 15 captions of 3 images per step"
    assert set(found["rates"]) == {module.RIVAL, module.KIND, ours}
    assert found["padded_to"]["rival"] == 7
    assert 0 < found["tokens"][module.KIND] <= found["tokens"][module.RIVAL] <= 2 * 4 * 6
    assert found["tokens"][ours] > found["tokens"][module.RIVAL]
    shares = found["floor"]["shares"][ours]
    assert 0 < shares["shared"] < shares["unshared"]


def test_operations_of_training_counted_by_hand(benchmark: Any) -> None:
    import argparse

    module = benchmark("bench_training")
    sizes = argparse.Namespace(regions=2, features=3, projection=5, hidden=7, embedding=11, attention=13)
    # Values 2x3x5 twice; keys 2x5x13 and the first state 5x7 three times; two operations a multiplication.
    assert module.operations(sizes, 17)[0] == 2 * 2 * 30 + 3 * 2 * (130 + 35)
    # Query 7x13, scores 2x13, context 2x5, gate 7x5, GRU (11+5+7)x21, readout 7x11 + 5x11 + 11x17.
    assert module.operations(sizes, 17)[1] == 3 * 2 * (91 + 26 + 10 + 35 + 23 * 21 + 77 + 55 + 187)


def test_the_decoding_rival_finds_our_captions(benchmark: Any, tmp_path: Path) -> None:
    module = benchmark("bench_decoding")
    sizes = "--vocabulary 211 --feature-shape 3 2 5 --units 48"
    arguments = f"--pictures 9 --rival-pictures 4 --batch-size 5 --max-length 17 {sizes} --repeats 1 --dtype float32"
    found = run(module, tmp_path / "a.json", arguments)
    assert found["same_captions"] == {"float32": 1.0, "timed": 1.0}
    assert module.LEAST <= found["words"]["least"] <= found["words"]["most"] <= module.MOST
    assert found["ratios"].keys() == {"attncap: 5 images at a time, in the graph"}


@pytest.mark.slow
def test_growth_in_processes_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    arguments = "--sizes 41 --full 0 --steps 1 --vocabulary 53 --feature-shape 2 2 3 --dimensions 19 --queries 2"
    command = [sys.executable, str(ROOT / "benchmarks" / "bench_growth.py"), *arguments.split(), "--json", str(file)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads(file.read_text(encoding="utf-8"))["results"]
    assert set(results) == {"store", "pipeline", "training", "search"}
    for part in results.values():
        assert part["41"]["seconds"] > 0 and part["41"]["peak"] > part["41"]["own"] >= 0
    assert results["search"]["41"]["peak"] < results["training"]["41"]["peak"]  # it loads no TensorFlow
    assert list(tmp_path.iterdir()) == [file]  # it leaves nothing


def test_growth_is_from_the_smallest_to_the_largest(benchmark: Any) -> None:
    sizes = {
        "1000": {"seconds": 4.0, "own": 7.0},
        "10000": {"seconds": 6.0, "own": 9.0},
        "200": {"seconds": 2, "own": 1.0},
    }
    growth = benchmark("bench_growth").growth_of({"store": sizes, "search": {"5": {"seconds": 1.0, "own": 1.0}}})
    assert growth == {"store": {"images": 50, "seconds": 3, "own_bytes_per_image": 8 * 1024**2 / 9800}}


def test_drawn_files_and_captions(benchmark: Any, tmp_path: Path) -> None:
    drawn = benchmark("drawn")
    paths = drawn.tiny_pictures(tmp_path, 3)
    assert len({Path(path).read_bytes() for path in paths}) == 3
    with Image.open(paths[2]) as picture:
        picture.load()
        assert picture.size == (16, 16) and picture.info["comment"] == (2).to_bytes(8, "big")
    (tmp_path / "photographs").mkdir()
    [photograph] = drawn.photographs(tmp_path / "photographs", 1, seed=0)
    with Image.open(photograph) as picture:
        assert picture.size == (500, 375)
    texts = drawn.captions(2003, 5, 100, seed=0)
    lengths = [len(text.split()) for own in texts for text in own]
    assert len(lengths) == 2003 * 5
    assert np.mean(lengths) == pytest.approx(10.79, abs=0.15)  # Flickr8k's: its 30,000 captions have 323,648 words
    words = {word for own in texts for text in own for word in text.split()}
    assert words == {f"w{n}" for n in range(100)}


@pytest.mark.slow
def test_the_gpu_check_tests_itself_on_a_cpu_without_tensorflow(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    (tmp_path / "tensorflow.py").write_text("raise ImportError('no TensorFlow here')\n")
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(ROOT)])
    script = [sys.executable, ROOT / "scripts" / "check_gpu.py", "--small", "--json", tmp_path / "gpu.json"]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "no GPU was found, and none was measured" in done.stdout
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["gpu"] is False and found["equal"] == 1.0 and found["difference"] == 0.0
    assert sorted(found["cpu"]) == ["decoding, captions/s", "extraction, images/s", "training, tokens/s"]
    assert all(value > 0 for value in (*found["cpu"].values(), *found["other"].values()))
