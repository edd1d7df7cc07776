"""The registry of readers: formats by name, guessing, and readers of one's own."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from attncap import plugins
from attncap.cli.main import main
from attncap.data.load import guess_format, load
from attncap.data.readers import registry
from attncap.data.readers.base import Collector, Parts
from attncap.data.readers.files import read_lines
from attncap.data.readers.registry import Spec, forms, readers, register_reader

PLUGIN = '''
from attncap.data.readers.base import Collector, Parts
from attncap.data.readers.files import read_lines
from attncap.data.readers.registry import Spec, register_reader

@register_reader("bars", "bars:FILE:IMAGES", guess=lambda folder: [str(path) for path in folder.glob("*.bars")])
def read_bars(spec: Spec) -> Parts:
    """A file name, two bars and a caption on each line."""
    file, images = spec.file_and_images()
    collected = Collector(images)
    for line, text in enumerate(read_lines(file), start=1):
        name, bars, caption = text.partition("||")
        if bars:
            collected.add(name, caption, file, line)
        else:
            collected.reject("malformed row", "two bars expected", file, line)
    return collected.parts(file.stem)
'''


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is forgotten after it."""
    readers()
    monkeypatch.setattr(registry, "_READERS", dict(registry._READERS))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "texts.bars").write_text("a.jpg||a hat\na.jpg||a red hat\nno bars\n../b.jpg||out\n")
    (tmp_path / "plugin.py").write_text(PLUGIN)
    return tmp_path / "set"


def test_one_file_a_format_from_exact_to_general() -> None:
    assert [reader.name for reader in readers()] == ["flickr8k", "karpathy", "coco", "table", "faces"]
    assert [reader.read.__module__.rpartition(".")[2] for reader in readers()] == [reader.name for reader in readers()]
    assert all(len(reader.help) > 20 and reader.form.startswith(reader.name) for reader in readers())
    assert forms().startswith("flickr8k:FOLDER, karpathy:JSON:IMAGES, coco:JSON[+JSON]:IMAGES, table:CSV:IMAGES[")


def test_a_reader_of_ones_own_from_the_shell(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, plugin = f"bars:{folder / 'texts.bars'}", str(folder.parent / "plugin.py")
    assert main(["check", "--data", spec]) == 2
    assert "a reader of your own comes with --plugin FILE" in capsys.readouterr().err
    assert main(["check", "--plugin", plugin, "--data", spec]) == 0
    assert "1  malformed row" in capsys.readouterr().out
    data = load(spec)  # registered by now, for Python as well
    assert data.name == "texts" and data.references() == {"a.jpg": ["a hat", "a red hat"]}
    assert data.rejects["line"].tolist() == [3, 4, 4]
    assert guess_format(folder) == spec and load(folder).references() == data.references()
    with pytest.raises(FileNotFoundError, match=r"'no\.bars' is no file: write bars:FILE:IMAGES"):
        load("bars:no.bars")
    with pytest.raises(ValueError, match="'more' is too much: write bars:FILE:IMAGES"):
        load(f"{spec}:{folder}:more")
    with pytest.raises(ValueError, match="one file expected, 2 found"):
        load(f"{spec}+{folder / 'texts.bars'}")


def test_a_reader_of_an_installed_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(folder.parent)
    entry = EntryPoint("bars", "plugin", registry.ENTRY_POINTS)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry] if group == registry.ENTRY_POINTS else [])
    plugins.import_entry_points.cache_clear()
    assert len(load(f"bars:{folder / 'texts.bars'}").captions) == 2
    plugins.import_entry_points.cache_clear()


def test_a_folder_with_several_data_sets_of_a_format(folder: Path) -> None:
    exec(PLUGIN, {})
    (folder / "more.bars").write_text("")
    with pytest.raises(ValueError, match=r"2 data sets are in it: name one: bars:.*\.bars, bars:.*\.bars"):
        guess_format(folder)


def test_names_that_are_refused() -> None:
    for name in ("c", "Bars", "my bars", ""):  # one letter is a drive: c:\images
        with pytest.raises(ValueError, match="the name of a reader has lower-case letters"):
            register_reader(name, f"{name}:FILE")
    with pytest.raises(ValueError, match=r"a reader named 'coco' exists: attncap\.data\.readers\.coco\.load_coco"):
        register_reader("coco", "coco:FILE")(lambda spec: Collector(Path()).parts())


def test_a_reader_that_makes_its_tables_itself(folder: Path) -> None:
    import pandas as pd

    @register_reader("own", "own")
    def read_own(spec: Spec) -> Parts:
        """One image."""
        images = pd.DataFrame({"image_id": ["a"], "path": ["a.jpg"], "split": ["val"]})
        return Parts(images, pd.DataFrame({"image_id": ["a"], "caption": [str(len(read_lines(Path(spec.rest))))]}))

    data = load(f"own:{folder / 'texts.bars'}")
    assert data.name == "own" and data.rejects.empty and data.references("val") == {"a": ["4"]}
