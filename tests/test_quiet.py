"""TensorFlow's start-up messages: hidden, with everything else still shown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOISY = """
import os, sys
os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n")
os.write(2, b"I0000 00:00:1795939814.103005    6134 port.cc:153] oneDNN custom operations are on.\\n")
print("a real warning", file=sys.stderr)
os.write(2, b"E0000 00:00:1795939814.103005 a real error\\n")
"""


def run(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    command = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(path)!r}]; {code}"
    # A level that the environment names is kept, and the tests' own is lower.
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, env=environment)


def test_noise_is_left_out_and_the_rest_comes_through(tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text(NOISY + "value = 7\n")
    code = "from attncap._quiet import quiet_start; quiet_start(); quiet_start(); import tensorflow"
    done = run(f"{code}; print(tensorflow.value)", tmp_path)
    assert (done.returncode, done.stdout) == (0, "7\n")
    assert done.stderr == "a real warning\nE0000 00:00:1795939814.103005 a real error\n"


def test_an_import_that_fails_shows_why(tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text(NOISY + "raise ImportError('no such processor')\n")
    done = run("from attncap._quiet import quiet_start; quiet_start(); import tensorflow", tmp_path)
    assert done.returncode == 1 and "no such processor" in done.stderr and "a real error" in done.stderr
    assert "oneDNN custom" not in done.stderr


def test_tensorflow_itself_starts_without_a_word() -> None:
    code = (
        "from attncap._quiet import quiet_start; quiet_start(); import keras, tensorflow as tf; "
        "print(int(tf.reduce_sum(tf.ones((2, 3)))), tf.__spec__.loader.__class__.__name__)"
    )
    done = run(code, ROOT)
    assert done.stdout == "6 SourceFileLoader\n"
    assert done.stderr == ""
