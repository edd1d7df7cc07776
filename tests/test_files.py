"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest

from attncap._files import (
    check_list,
    check_output,
    check_output_folder,
    files_below,
    plain_cell,
    remove_unfinished,
    replacing,
    write_csv,
    write_rejects,
)
from attncap.captions import Caption
from attncap.tokenizers import WordTokenizer

ROOT = Path(__file__).resolve().parents[1]


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    file.write_text("old")
    with replacing(file) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"
        assert temporary.parent == tmp_path and temporary.suffix == ".json"
    assert file.read_text() == "new"
    assert os.listdir(tmp_path) == ["scores.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    file = tmp_path / "scores.json"
    file.write_text("old")
    with pytest.raises(error), replacing(file) as temporary:
        temporary.write_text("half")
        raise error
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["scores.json"]


def test_a_writer_that_wrote_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "empty.json"):
        pass
    assert os.listdir(tmp_path) == []


def test_the_folder_is_made_and_the_mode_is_that_of_any_file(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        with replacing(tmp_path / "a" / "b.txt") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a" / "b.txt").stat().st_mode) == 0o640


def test_two_writers_at_once_do_not_meet(tmp_path: Path) -> None:
    file = tmp_path / "x"
    with replacing(file) as one, replacing(file) as two:
        one.write_text("one")
        two.write_text("two")
    assert file.read_text() == "one"  # the inner one moved first, the outer one last
    assert os.listdir(tmp_path) == ["x"]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with replacing(pipe) as target:
            target.write_bytes(b"through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from attncap._files import replacing\n"
        "with replacing(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    file = tmp_path / "state.npz"
    file.write_text("old")
    (tmp_path / ".hidden.npz").write_text("somebody's")
    done = subprocess.run([sys.executable, "-c", code, str(file)], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert len(os.listdir(tmp_path)) == 3
    remove_unfinished(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden.npz", "state.npz"]
    assert file.read_text() == "old"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device of this system is always full")
def test_a_full_disk_is_named_with_the_file_and_the_mend(tmp_path: Path) -> None:
    file = tmp_path / "state.npz"
    file.write_text("old")
    for target in (file, Path("/dev/full")):
        message = "no space left on the disk; .* make room and start again"
        with (
            pytest.raises(OSError, match=message) as caught,
            replacing(target),
            open("/dev/full", "wb", buffering=0) as full,
        ):
            full.write(b"new")
        assert caught.value.filename == str(target) and caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == ["state.npz"] and file.read_text() == "old"


@pytest.mark.parametrize("one", ["a.jpg", b"a.jpg", Path("a.jpg"), np.zeros((4, 5, 3), np.uint8), {"a": ["x"]}, 7])
def test_one_in_place_of_a_list_is_refused(one: object) -> None:
    with pytest.raises(TypeError, match="paths: a list of images expected, got"):
        check_list(one, "paths", "images")


def test_lists_are_taken() -> None:
    for many in (["a"], ("a",), np.array(["a"]), np.zeros((2, 4, 5, 3), np.uint8), iter("a")):
        check_list(many, "paths")
    with pytest.raises(TypeError, match="words: a list of words expected"):
        Caption("a red hat", (4, 5, 6), -1.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="captions: a list of texts expected, got one"):
        WordTokenizer.from_captions("a red hat", min_count=1)


def test_files_below_follows_links_and_skips_what_is_hidden(tmp_path: Path) -> None:
    for name in ("in/a.jpg", "in/.ipynb_checkpoints/b.jpg", "in/._c.jpg", "in/__MACOSX/d.jpg", "out/e.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "around").symlink_to(tmp_path / "in")
    found = [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path / "in")]
    assert found == ["in/a.jpg", "in/linked/e.jpg"]


def test_a_symbolic_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "scores.json").write_text("old")
    link, dangling = tmp_path / "link.json", tmp_path / "dangling.json"
    link.symlink_to(Path("real") / "scores.json")
    dangling.symlink_to(tmp_path / "real" / "new.json")
    for file in (link, dangling):
        with replacing(file) as temporary:
            temporary.write_text("new")
        assert file.is_symlink() and file.read_text() == "new"
    assert sorted(os.listdir(tmp_path / "real")) == ["new.json", "scores.json"]


def test_an_output_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    file = tmp_path / "new" / "p.json"
    check_output(file, "--out")
    assert os.listdir(tmp_path / "new") == []
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OSError, match=r"--out .*file/p\.json: cannot be written \(.*\): name a file in a folder that"):
        check_output(tmp_path / "file" / "p.json", "--out")
    with pytest.raises(IsADirectoryError, match="new: is a folder: name a file"):
        check_output(tmp_path / "new")
    check_output(os.devnull)
    check_output(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_folder_that_cannot_be_written_to_is_refused_and_none_is_made() -> None:
    with TemporaryDirectory() as folder:
        check_output_folder(Path(folder) / "runs" / "mine", "--run")
        check_output_folder(folder)
        assert os.listdir(folder) == []
    with pytest.raises(OSError, match="--run /proc/new/run: /proc cannot be written to .*: name another folder"):
        check_output_folder("/proc/new/run", "--run")


FORMULAS = ["=1+1", "+a", "-a.jpg", "@b", "\tc", "'=d", "'quoted'", "plain", ""]


def test_a_csv_holds_no_formula_and_reads_back(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"file": FORMULAS, "=score": np.linspace(-1, 1, 9), "n": pd.array([1, None, *range(7)], "Int64")},
        index=range(5, 14),
    )
    table.insert(1, "other", [os.fsdecode(b"caf\xe9"), None, Path("-x"), *FORMULAS[:6]])
    write_csv(tmp_path / "t.csv", table)
    read = pd.read_csv(tmp_path / "t.csv", keep_default_na=False)
    assert list(read.columns) == ["file", "other", "'=score", "n"]
    assert not read["file"].str.startswith(("=", "+", "-", "@", "\t")).any()
    assert [plain_cell(cell) for cell in read["file"]] == FORMULAS
    assert read["other"].tolist()[:2] == ["caf\\udce9", ""]
    assert read["'=score"].tolist() == table["=score"].tolist()
    write_csv(tmp_path / "t.csv", table.iloc[:0], mark=True)
    assert (tmp_path / "t.csv").read_bytes() == b"\xef\xbb\xbffile,other,'=score,n\n"


def test_rejects_of_an_earlier_call_are_removed(tmp_path: Path) -> None:
    file, rejects = tmp_path / "p.rejects.csv", pd.DataFrame({"path": ["a.jpg"], "reason": ["empty"]})
    assert write_rejects(file, rejects) and file.read_text() == "path,reason\na.jpg,empty\n"
    assert not write_rejects(file, rejects.iloc[:0]) and not file.exists()
    assert not write_rejects(file, rejects.iloc[:0])
