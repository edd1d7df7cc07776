"""METEOR: a note in place of a number where Java cannot run, fails or hangs; the other scores always come."""

from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path

import pytest

from attncap.metrics import meteor as meteor_module
from attncap.metrics.evaluate import evaluate
from attncap.metrics.meteor import MeteorError, meteor

REFERENCES = {"1": ["a dog runs", "the dog is running"], "2": ["a red hat"]}
PREDICTIONS = {"1": "a dog runs", "2": "a hat"}

needs_tools = pytest.mark.skipif(
    shutil.which("java") is None or not shutil.which("sh"), reason="needs Java, and a shell for a program in its place"
)


def java_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str) -> None:
    program = tmp_path / "java"
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


def note(monkeypatch: pytest.MonkeyPatch) -> str:
    scores = evaluate(PREDICTIONS, REFERENCES, bootstrap=0, meteor=True)
    assert scores.values["bleu_1"] > 0.5 and scores.meteor is None
    assert "meteor" not in scores.per_image and scores.to_json_dict()["meteor"] is None
    (found,) = [line for line in scores.notes if "METEOR" in line]
    assert found in scores.table()
    return found


def test_without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meteor_module.shutil, "which", lambda name: None)
    assert "pip install pycocoevalcap" in note(monkeypatch)


@needs_tools
def test_java_that_exits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pycocoevalcap")
    java_that(tmp_path, monkeypatch, "echo Picked up options >&2; echo Error: no room for the heap >&2; exit 1")
    found = note(monkeypatch)
    assert "Java ended without an answer (Error: no room for the heap)" in found and "java -version" in found


@needs_tools
def test_java_that_cannot_start_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pycocoevalcap")
    monkeypatch.setenv("_JAVA_OPTIONS", "-Xmx1k")
    assert "Java ended without an answer" in note(monkeypatch)


@needs_tools
def test_java_that_hangs_is_stopped_with_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pycocoevalcap")
    java_that(tmp_path, monkeypatch, "sleep 300 & sleep 300")
    monkeypatch.setattr(meteor_module, "START_SECONDS", 1.0)
    start = time.monotonic()
    assert "no answer within 1 s" in note(monkeypatch)
    assert time.monotonic() - start < 30


@needs_tools
def test_an_answer_that_is_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pycocoevalcap")
    java_that(tmp_path, monkeypatch, "while read line; do echo hello; done")
    with pytest.raises(MeteorError, match="METEOR was not computed"):
        meteor([["a dog"]], ["a dog"])
