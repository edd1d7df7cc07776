"""Some 140 odd files of captions, attributes and predictions end as rows, listed rejects, or one line that says why."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from attncap.attributes.tables import load_attributes
from attncap.data.load import CaptionData, check, guess_format, load
from attncap.metrics.coco_json import read_predictions, read_references
from attncap.tokenizers import WordTokenizer
from tests.integration.test_odd_pictures import GIGABYTE, damaged, limited
from tests.odd_captions import CORPUS, EMOJI, LONG, PAGE, PICTURES, TABLES, OddFile, Rejects, Rows

FILES = {
    "table": "captions.csv",
    "flickr8k": "Flickr8k.token.txt",
    "coco": "captions.json",
    "karpathy": "dataset.json",
    "attributes": "attributes.csv",
    "predictions": "predictions.json",
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "images"
    folder.mkdir()
    for number, name in enumerate(PICTURES):
        Image.new("RGB", (9, 7), (30 * number, 90, 60)).save(folder / name)
    return folder


def write(odd: OddFile, images: Path) -> Path:
    file = images.parent / FILES[odd.form]
    file.write_bytes(odd.contents)
    return file


def read(form: str, file: Path) -> tuple[Rows, Rejects]:
    """What the reader of this form makes of a file, through the door that the commands take."""
    if form == "predictions":
        return list(read_predictions(file).items()), []
    if form == "attributes":
        data = load_attributes(f"attributes:{file}:{file.parent / 'images'}")
        assert data.labels.shape == (len(data.pictures), len(data.names))
        rows = [(image_id, "") for image_id in data.pictures["image_id"]]
    else:
        spec = f"flickr8k:{file.parent}" if form == "flickr8k" else f"{form}:{file}:{file.parent / 'images'}"
        loaded = load(spec)
        check_and_write(loaded, file.parent)
        data = loaded
        rows = list(data.captions.itertuples(index=False, name=None))
    lines = [None if pd.isna(line) else int(line) for line in data.rejects["line"]]
    return rows, list(zip(lines, data.rejects["kind"], strict=True))


def check_and_write(data: CaptionData, folder: Path) -> None:
    """The way on from a reader: decoded, listed, and its words counted."""
    clean, report = check(data, workers=1, progress=False)
    assert report["reason"].map(lambda reason: "\n" not in reason).all()
    assert len(clean.captions) + (clean.rejects["table"] == "captions").sum() == len(data.captions) + (
        (data.rejects["table"] == "captions").sum()
    )
    clean.write_rejects(folder / "rejects.csv")
    if len(clean.captions):
        WordTokenizer.from_captions(["a", *clean.captions["caption"]], min_count=1).pack(clean.captions["caption"], 40)


def test_there_are_many() -> None:
    assert len(TABLES) >= 50 and len(CORPUS) >= 120


@pytest.mark.parametrize("name", CORPUS)
def test_it_ends_in_rows_rejects_or_one_line(name: str, images: Path) -> None:
    odd = CORPUS[name]
    file = write(odd, images)
    began = time.monotonic()
    if odd.error:
        with pytest.raises(ValueError, match=odd.error) as caught:
            read(odd.form, file)
        assert str(file) in str(caught.value) and "\n" not in str(caught.value)
        assert len(str(caught.value)) < 2000
    else:
        assert read(odd.form, file) == (odd.rows, odd.rejects)
    assert time.monotonic() - began < 5


def test_references_are_refused_as_predictions_are(tmp_path: Path) -> None:
    file = tmp_path / "references.json"
    for contents, why in (
        (b"9" * 5000, "not JSON that can be read"),
        (b"[" * 200_000, "not JSON that can be read"),
        (b'{"annotations": [{"image_id": 1, "caption": "\\ud83d"}]}', r"annotations\[0\]: half of a surrogate pair"),
    ):
        file.write_bytes(contents)
        with pytest.raises(ValueError, match=rf"references\.json: {why}"):
            read_references(file)


def test_a_quote_left_open_in_each_line_takes_no_time(tmp_path: Path) -> None:
    # Each line closes the quote of the line before and opens another: read to the end from each, it would take hours.
    lines = 20_000
    (tmp_path / "captions.csv").write_text("file,caption\n" + 'a.jpg","b\n' * lines)
    began = time.monotonic()
    data = load(f"table:{tmp_path / 'captions.csv'}:{tmp_path}")
    assert time.monotonic() - began < 20
    assert data.captions.empty and (data.rejects["kind"] == "malformed row").all()
    assert data.rejects["line"].tolist() == list(range(2, lines + 2))


def test_a_long_quoted_row_is_read_and_the_longest_is_not(tmp_path: Path) -> None:
    for breaks, kept in ((98, 1), (120, 0)):
        caption = "a dog\n" * breaks
        (tmp_path / "captions.csv").write_text(f'file,caption\na.jpg,"{caption}"\n')
        data = load(f"table:{tmp_path / 'captions.csv'}:{tmp_path}")
        assert len(data.captions) == kept
        assert kept == 0 or data.captions["caption"][0] == caption


def test_a_folder_with_pipes_and_folders_named_as_tables_does_not_hang(images: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "captions.csv").write_text("file,caption\na.jpg,a dog\n")
    assert guess_format(tmp_path) == f"table:{tmp_path / 'captions.csv'}:{tmp_path}"
    with pytest.raises(FileNotFoundError, match=r"pipe\.csv"):
        load(f"table:{tmp_path / 'pipe.csv'}:{images}")


# ---------------------------------------------------------------- the command line

ON_THE_COMMAND_LINE: dict[str, tuple[str, int, str]] = {
    # name: (contents, exit status, what it says)
    "nothing loads": ("file,caption\n../a.jpg,x\nb.jpg,\n", 0, r"1 images|0 captions"),
    "escapes and emoji": (
        f"file\tcaption\na.jpg\t{EMOJI}\x1b[2J{PAGE}\na.jpg\t\x1b]0;x\x07\n../\u202e\tx\n",
        0,
        "1 images",
    ),
    "ten thousand words": (f"file,caption\na.jpg,{LONG}\n", 0, "1 captions"),
    "no header": ("a.jpg,a dog\n", 2, r"^attncap check: .*captions\.csv, line 1: no file name column"),
}


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS holds on Linux alone")
@pytest.mark.parametrize("name", ON_THE_COMMAND_LINE)
def test_check_never_ends_in_a_traceback(name: str, images: Path) -> None:
    contents, status, says = ON_THE_COMMAND_LINE[name]
    (images.parent / "captions.csv").write_text(contents, encoding="utf-8")
    done = limited(["check", "--data", f"table:{images.parent / 'captions.csv'}:{images}"], 2 * GIGABYTE, 60)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search(says, done.stderr if status else done.stdout)
    assert not status or len(done.stderr.splitlines()) == 1


def test_a_terminal_that_cannot_show_a_caption_shows_it_escaped(images: Path, tmp_path: Path) -> None:
    """A file name that is no UTF-8, a terminal that is ASCII: the report is there, and the list of rejects too."""
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.jpg").write_bytes((images / "a.jpg").read_bytes())
    (Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg"))).write_bytes(b"")
    (tmp_path / "captions.csv").write_text(
        f"file,caption\na.jpg,{EMOJI}\na.jpg,{EMOJI}\n\u72ac.jpg,x\n", encoding="utf-8"
    )
    for encoding, shown in (("utf-8", "\u72ac.jpg"), ("ascii", r"\\u72ac\.jpg")):
        done = subprocess.run(
            [sys.executable, "-m", "attncap", "check", "--data", f"table:{tmp_path / 'captions.csv'}:{folder}"]
            + ["--out", str(tmp_path / "rejects.csv")],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": encoding},
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert re.search(shown, done.stdout.decode(encoding)) and r"caf\udce9.jpg" in done.stdout.decode(encoding)
        assert "\u72ac.jpg" in (tmp_path / "rejects.csv").read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS holds on Linux alone")
def test_a_file_that_does_not_fit_into_memory_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "captions.json").write_bytes(b"[" + b"[],[]," * 20_000_000 + b"0]")
    done = limited(["check", "--data", f"coco:{tmp_path / 'captions.json'}:{tmp_path}"], GIGABYTE, 60)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["attncap check: not enough memory"]


# ---------------------------------------------------------------- any bytes

SHORT = [odd for odd in CORPUS.values() if len(odd.contents) < 500 and odd.contents]
BY_FORM: dict[str, Callable[[Path], object]] = {form: lambda file, form=form: read(form, file) for form in FILES}  # type: ignore[misc]
BY_FORM["references"] = read_references
BY_FORM["folder"] = lambda file: load(file.parent)
OTHER_NAMES = {"references": "coco", "folder": "table"}


def contents_of(form: str) -> st.SearchStrategy[bytes]:
    own = [odd.contents for odd in SHORT if odd.form == OTHER_NAMES.get(form, form)]
    return damaged(own) | damaged(own) | damaged([odd.contents for odd in SHORT])


def is_read_or_refused(form: str, contents: bytes, images: Path) -> None:
    for name in FILES.values():
        (images.parent / name).unlink(missing_ok=True)
    file = images.parent / FILES.get(form, "captions.json")
    file.write_bytes(contents)
    try:
        BY_FORM[form](file)
    except (ValueError, FileNotFoundError) as error:
        message = str(error)
        assert type(error) in (ValueError, FileNotFoundError), repr(error)
        assert str(file) in message or str(file.parent) in message, message
        assert "\n" not in message and len(message) < 3000


QUICK = settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=3000, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("form", BY_FORM)
@QUICK
@given(data=st.data())
def test_any_bytes_are_read_or_refused(form: str, data: st.DataObject, images: Path) -> None:
    is_read_or_refused(form, data.draw(contents_of(form)), images)


@pytest.mark.slow
@pytest.mark.parametrize("form", BY_FORM)
@MANY
@given(data=st.data())
def test_many_more_bytes_are_read_or_refused(form: str, data: st.DataObject, images: Path) -> None:
    is_read_or_refused(form, data.draw(contents_of(form) | st.binary(max_size=300)), images)
