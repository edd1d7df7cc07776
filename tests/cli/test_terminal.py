"""The command line and the terminal: no escapes, closed streams, signals; and the files that commands write."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest

from attncap.cli.main import main
from attncap.cli.outputs import OutputFigure, OutputFile, check_outputs, heatmap_files
from attncap.cli.terminal import PlainStream, Stopped, signals_as_exceptions

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a red hat\n", "a red hat\n"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("name\rother\tx", "name\\rother\tx"),
        ("\u202egpj.exe\x9b1m", "\\u202egpj.exe\\x9b1m"),
        ("\r 50%|####    |", "\r 50%|####    |"),  # a progress bar
        ("\b\b\b\r\x1b[1m3/9\x1b[0m \x1b[32m━━\x1b[0m", "\b\b\b\r\x1b[1m3/9\x1b[0m \x1b[32m━━\x1b[0m"),
        ("\x1b[A\x1b[A", "\x1b[A\x1b[A"),
        ("नमस्ते 👩‍🦰", "नमस्ते 👩‍🦰"),
    ],
)
def test_control_characters_are_shown_and_bars_pass(text: str, shown: str) -> None:
    stream = io.StringIO()
    assert PlainStream(stream).write(text) == len(text)
    assert stream.getvalue() == shown


def test_a_file_name_cannot_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text("file,caption\n\x1b[2Jx.png,a hat\n")
    assert main(["check", "--data", f"table:{tmp_path / 't.csv'}:{tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\\x1b[2Jx.png" in out
    assert main(["check", "--data", "\x1b[31mnowhere"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-c", command, sys.executable], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_closed_streams_and_readers_that_are_gone(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file,caption\nx.png,a hat\n")
    check = '"$0" -m attncap check --data table:t.csv:. --out rejects.csv'
    done = run(f"{check} 2>&-", tmp_path)
    assert done.returncode == 0 and "missing image" in done.stdout
    listed = (tmp_path / "rejects.csv").read_text()
    assert listed.startswith("source,line") and "checking" not in listed  # no message went into the file
    assert run(f"{check} >&- 2>&- <&-", tmp_path).returncode == 0
    assert (tmp_path / "rejects.csv").read_text() == listed
    done = run('"$0" -m attncap check --data nowhere 2>&-', tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")
    done = run(f"{check} | true; exit ${{PIPESTATUS[0]}}", tmp_path)
    assert done.returncode in (0, 141) and "Traceback" not in done.stderr and "Broken" not in done.stderr
    done = run(f"{check} > /dev/full", tmp_path)
    assert done.returncode == 2 and "No space left" in done.stderr


def test_an_error_is_not_written_beside_an_open_bar(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom tqdm import tqdm\nfrom attncap.cli import check, main\n"
        "def work(options):\n"
        "    check.bar = tqdm(total=3, desc='work')\n"
        "    raise ValueError('it broke')\n"
        "check._check = work\n"
        "sys.exit(main.main(['check', '--data', 'faces']))\n"
    )
    done = run(f'"$0" -c "{program}"', tmp_path)
    assert done.returncode == 2 and "work:" in done.stderr
    assert re.search(r"[\r\n]attncap check: it broke\n", done.stderr)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_clean_up(number: signal.Signals, tmp_path: Path) -> None:
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and stays so\n"
        "from attncap import cli\nfrom attncap._files import replacing\nfrom attncap.cli import check, main\n"
        "def work(options):\n"
        "    with replacing('scores.json') as temporary:\n"
        "        temporary.write_text('half'); print('begun', flush=True); time.sleep(60)\n"
        "check._check = work\n"
        "sys.exit(main.main(['check', '--data', 'faces']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    assert len(os.listdir(tmp_path)) == 1
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number and f"attncap check: stopped by {number.name}" in err
    assert os.listdir(tmp_path) == []


def test_signals_that_are_ignored_stay_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    own = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # where Ray was loaded, it has a handler of its own
    try:
        with signals_as_exceptions():
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
            with pytest.raises(Stopped, match="SIGTERM"):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGTERM, own)


def test_outputs_are_checked_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "captions.csv"
    table.write_text("file,caption\nx.png,a hat\n")
    for out in (table, tmp_path / "again.csv"):
        if out != table:
            out.symlink_to(table)  # the same file by another name
        assert main(["check", "--data", f"table:{table}:{tmp_path}", "--out", str(out)]) == 2
        assert f"--out {out} is the input: name another file" in capsys.readouterr().err
    assert main(["check", "--data", f"table:{table}:{tmp_path}", "--out", str(table / "x.csv")]) == 2
    assert "x.csv: cannot be written" in capsys.readouterr().err
    assert table.read_text() == "file,caption\nx.png,a hat\n"
    with pytest.raises(ValueError, match="--plot .* is the input"):
        check_outputs(Namespace(plot=OutputFile(table), data=[f"{tmp_path}/none+{table}:images"]))
    check_outputs(Namespace(out=OutputFile(tmp_path / "new.csv"), heatmap=None, data="faces", k=3))
    for ending in (".png", ".PDF", ".svg", ""):
        check_outputs(Namespace(plot=OutputFigure(tmp_path / f"new{ending}")))
    with pytest.raises(ValueError, match=r"new\.docx: figures are not written as docx: end the name with \.png"):
        check_outputs(Namespace(plot=OutputFigure(tmp_path / "new.docx")))


@pytest.mark.parametrize(
    "command",
    [
        ["demo", "--out"],
        [*["train", "--data", "faces:20", "--run"]],
        [*["attributes", "train", "--data", "faces:20", "--run"]],
    ],
)
def test_folders_to_write_are_checked_before_the_work(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("kept")
    assert main([*command, str(tmp_path / "file" / "run")]) == 2
    said = capsys.readouterr()
    assert f"{command[-1]} {tmp_path}/file/run: {tmp_path}/file is a file: name a folder" in said.err
    assert not said.out and (tmp_path / "file").read_text() == "kept"


def test_no_two_figures_have_one_name() -> None:
    out = Path("maps/map.png")
    assert heatmap_files(out, ["me.jpg"]) == [out]
    names = [file.name for file in heatmap_files(out, ["a/1.jpg", "b/1.jpg", "me.jpg"])]
    assert names == ["map_a_1.png", "map_b_1.png", "map_me.png"]
    ids = ["a/1.jpg", "b/1.jpg", "a_1.jpg", "A_1.JPG", "me.jpg", "me.png", "x.y.jpg"]
    names = [file.name for file in heatmap_files(out, ids)]
    assert names[4:] == ["map_me.jpg.png", "map_me.png.png", "map_x.y.png"]
    assert len({name.lower() for name in names}) == len(ids)
