"""The one check that captioners, classifiers and `--from` go through: what is loaded, what is refused, and how soon."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest

from attncap.attributes.classifier import load_classifier, save_classifier
from attncap.features.extractor import FeatureExtractor
from attncap.models.attention_captioner import AttentionCaptioner
from attncap.models.saving import load_captioner, model_name, save_captioner
from attncap.models.show_and_tell import ShowAndTell
from attncap.tokenizers import SPECIAL_TOKENS, WordTokenizer
from attncap.training.config import TrainConfig
from tests.attributes.test_classifier import classifier_of_arrays
from tests.features.test_backbones import own, vit
from tests.models.test_captioner import make_captioner

TOKENIZER = WordTokenizer([*SPECIAL_TOKENS, "a", "dog"])
SIZES = {"embedding_units": 3, "hidden_units": 5}


def repacked(file: Path, change: Callable[[dict[str, Any]], Any], method: int = zipfile.ZIP_STORED) -> None:
    """The archive again, with a change of its configuration, which is packed by method."""
    with zipfile.ZipFile(file) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(contents["config.json"])
    change(config)
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in contents.items():
            if name == "config.json":
                archive.writestr(name, json.dumps(config), method)
            else:
                archive.writestr(name, content)


def refused(file: Path, load: Callable[[Path], Any] = load_captioner) -> str:
    with pytest.raises(ValueError, match="cannot be loaded as a") as caught:
        load(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------- files that are right


def test_a_policy_shared_by_captioner_and_encoder_is_no_size(tmp_path: Path) -> None:
    """Keras then writes `shared_object_id`, an address in memory, which is no size of the model."""
    policy = keras.DTypePolicy("float32")
    encoder = FeatureExtractor("mixed0", "random", 75, dtype=policy)
    captioner = ShowAndTell(TOKENIZER, encoder=encoder, dtype=policy, **SIZES)
    save_captioner(captioner, tmp_path / "shared.keras")
    with zipfile.ZipFile(tmp_path / "shared.keras") as archive:
        assert b'"shared_object_id"' in archive.read("config.json")
    loaded = load_captioner(tmp_path / "shared.keras")
    assert loaded.encoder is not None and loaded.encoder.fingerprint() == encoder.fingerprint()


class Stranger(ShowAndTell):
    """A captioner of a user, which nothing registers with Keras."""


class Shout(WordTokenizer):
    """A tokenizer of a user."""


def test_custom_objects_are_taken_and_their_absence_is_said(tmp_path: Path) -> None:
    captioner = Stranger(Shout(TOKENIZER.vocabulary), (2, 3, 5), **SIZES)
    save_captioner(captioner, tmp_path / "own.keras")
    found = load_captioner(tmp_path / "own.keras", custom_objects={"Stranger": Stranger, "Shout": Shout})
    assert type(found) is Stranger and type(found.tokenizer) is Shout
    assert "import the module that defines the class, or pass custom_objects={name: class}" in refused_class(
        tmp_path / "own.keras", {"Stranger": Stranger}
    )


def refused_class(file: Path, custom: dict[str, Any]) -> str:
    with pytest.raises(ValueError, match="Shout") as caught:
        load_captioner(file, custom_objects=custom)
    return str(caught.value)


def test_a_plugin_that_was_not_imported_is_asked_for(tmp_path: Path) -> None:
    save_captioner(make_captioner(), tmp_path / "own.keras")
    repacked(
        tmp_path / "own.keras",
        lambda config: config.update(module="mine", class_name="Mine", registered_name="attncap_plugin>Mine"),
    )
    with pytest.raises(ValueError, match=r"holds a attncap_plugin>Mine, a class that is not known here: .*--plugin"):
        load_captioner(tmp_path / "own.keras")


def test_a_file_whose_modules_are_all_falsified_loads(tmp_path: Path) -> None:
    """Keras goes by registered names, so that files of 998f5d3, whose modules have moved since, load."""
    captioner = make_captioner()
    save_captioner(captioner, tmp_path / "best.keras")

    def falsify(value: Any) -> None:
        if isinstance(value, dict):
            if str(value.get("registered_name")).startswith("attncap>"):
                value["module"] = "attncap.nowhere"
            for inner in value.values():
                falsify(inner)
        elif isinstance(value, list):
            for inner in value:
                falsify(inner)

    repacked(tmp_path / "best.keras", falsify)
    with zipfile.ZipFile(tmp_path / "best.keras") as archive:
        assert archive.read("config.json").count(b"attncap.nowhere") >= 2
    loaded = load_captioner(tmp_path)
    assert isinstance(loaded, AttentionCaptioner)
    for weight, same in zip(loaded.get_weights(), captioner.get_weights(), strict=True):
        assert (weight == same).all()


# ---------------------------------------------------------------- files that ask for too much


def test_packed_members_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    file = tmp_path / "bomb.keras"
    for method, size, why in (
        (zipfile.ZIP_BZIP2, 1 << 25, "compressed by a method that Keras does not use"),
        (zipfile.ZIP_LZMA, 1 << 25, "compressed by a method that Keras does not use"),
        (zipfile.ZIP_DEFLATED, 1 << 27, "has more than 67,108,864 bytes"),
    ):
        save_captioner(make_captioner(), file)
        repacked(file, lambda config, size=size: config.update(more=" " * size), method)
        assert file.stat().st_size < 1_000_000
        assert why in refused(file)
        assert why in refused(file, lambda file: TrainConfig(start=str(file)))


def test_many_layers_of_nothing_are_refused(tmp_path: Path) -> None:
    encoder = FeatureExtractor("grid", backbone=own(32), scaling="0..1")
    save_captioner(ShowAndTell(TOKENIZER, encoder=encoder, **SIZES), tmp_path / "own.keras")

    def many(config: dict[str, Any]) -> None:
        backbone = config["config"]["encoder"]["config"]["backbone"]
        network = json.loads(backbone["network"])
        network["layers"] += [network["layers"][1]] * 5000
        backbone["network"] = json.dumps(network)

    repacked(tmp_path / "own.keras", many)
    assert "arrays of weights" in refused(tmp_path / "own.keras")


def test_a_network_of_ones_own_is_bounded_by_its_weights(tmp_path: Path) -> None:
    encoder = FeatureExtractor("grid", backbone=own(32), scaling="0..1")
    captioner = ShowAndTell(TOKENIZER, encoder=encoder, **SIZES)
    file = tmp_path / "own.keras"
    save_captioner(captioner, file)
    loaded = load_captioner(file)
    assert loaded.encoder is not None and loaded.encoder.fingerprint() == encoder.fingerprint()
    for filters, why in ((3_000, "which do not go with the"), (10**9, "bytes of weights")):
        save_captioner(captioner, file)

        def larger(config: dict[str, Any], filters: int = filters) -> None:
            backbone = config["config"]["encoder"]["config"]["backbone"]
            network = json.loads(backbone["network"])
            for layer in network["layers"]:
                if layer["config"]["name"] == "grid":
                    layer["config"]["filters"] = filters
            backbone["network"] = json.dumps(network)
            config["config"]["feature_shape"][2] = filters

        repacked(file, larger)
        assert why in refused(file)


def test_a_network_of_keras_hub_is_bounded_by_its_weights(tmp_path: Path) -> None:
    encoder = FeatureExtractor(backbone=vit(32), scaling="-1..1")
    captioner = ShowAndTell(TOKENIZER, encoder=encoder, **SIZES)
    file = tmp_path / "hub.keras"
    save_captioner(captioner, file)
    assert load_captioner(file).feature_shape == captioner.feature_shape
    for name, value, why in (
        ("mlp_dim", 100_000, "which do not go with the"),
        ("num_layers", 5_000, "arrays of weights"),
        ("hidden_dim", 10**9, "bytes of weights"),
    ):
        save_captioner(captioner, file)
        repacked(
            file,
            lambda config, name=name, value=value: config["config"]["encoder"]["config"]["backbone"]["settings"].update(
                {name: value}
            ),
        )
        assert why in refused(file)


def test_a_classifier_of_many_members_is_refused(tmp_path: Path) -> None:
    save_classifier(classifier_of_arrays(), tmp_path / "classifier.keras")
    repacked(tmp_path / "classifier.keras", lambda config: config["config"].update(members=200))
    assert "members of 200 do not go with" in refused(tmp_path / "classifier.keras", load_classifier)


# ---------------------------------------------------------------- training that starts from a file


def test_a_damaged_file_to_start_from_is_refused_as_any_other(tmp_path: Path) -> None:
    file = tmp_path / "start.keras"
    save_captioner(make_captioner(), file)
    assert TrainConfig(start=str(file)).model == model_name(file) == "attention"
    whole = file.read_bytes()
    for end in (0, 10, len(whole) // 2, len(whole) - 5):
        file.write_bytes(whole[:end])
        refused(file, lambda file: TrainConfig(start=str(file)))
    for at in range(40, len(whole), len(whole) // 23):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
        try:
            assert TrainConfig(start=str(file)).model == "attention"
        except ValueError as error:
            assert str(file) in str(error) and "\n" not in str(error)
    file.write_bytes(whole)
    repacked(file, lambda config: config.update(config=[]))
    refused(file, lambda file: TrainConfig(start=str(file)))


# ---------------------------------------------------------------- classes of other packages


def test_classes_that_keras_nlp_registers_have_no_place_in_a_file(tmp_path: Path) -> None:
    """keras-nlp registers hundreds of classes with Keras; one of them reads any file that its configuration names."""
    save_captioner(make_captioner(), tmp_path / "captioner.keras")
    program = (
        "import json, sys, zipfile\n"
        "import keras, keras_nlp\n"
        "from attncap.models.saving import load_captioner\n"
        "from tests.models.test_saving import repacked\n"
        "names = [name for name in keras.saving.get_custom_objects() if name.startswith('keras_hub>')]\n"
        "assert len(names) > 400, len(names)\n"
        "refused = 0\n"
        "with open(sys.argv[1], 'rb') as file: whole = file.read()\n"
        "for name in names[::40] + ['keras_hub>WordPieceTokenizer']:\n"
        "    with open(sys.argv[1], 'wb') as file: file.write(whole)\n"
        "    thing = {'module': 'keras_hub', 'class_name': name[10:], 'registered_name': name,\n"
        "             'config': {'vocabulary': sys.argv[1]}}\n"
        "    repacked(sys.argv[1], lambda config: config['config'].update(tokenizer=thing))\n"
        "    try: load_captioner(sys.argv[1])\n"
        "    except ValueError as error: refused += 'has no place in one' in str(error)\n"
        "    else: sys.exit(name)\n"
        "assert refused == len(names[::40]) + 1, refused"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "captioner.keras")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
