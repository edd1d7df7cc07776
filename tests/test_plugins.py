"""`load_plugins`: files of one's own that register things."""

from __future__ import annotations

from pathlib import Path

import pytest

from attncap.plugins import load_plugins


def test_a_plugin_runs_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from pathlib import Path\nwith open(Path(__file__).with_name('log'), 'a') as log: log.write('x')\n"
    )
    load_plugins([file, str(file)])
    assert (tmp_path / "log").read_text() == "x"


def test_what_is_no_plugin_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.py: no such plugin file"):
        load_plugins([tmp_path / "missing.py"])
    (tmp_path / "text.txt").write_text("")
    with pytest.raises(ValueError, match=r"text\.txt: a plugin is a Python file, ending in \.py"):
        load_plugins([tmp_path / "text.txt"])
    (tmp_path / "bad.py").write_text("import no_such_module_at_all")
    for _ in range(2):  # a file that failed is tried again
        with pytest.raises(ValueError, match=r"bad\.py: the plugin raises ModuleNotFoundError: .*no_such_module"):
            load_plugins([tmp_path / "bad.py"])
