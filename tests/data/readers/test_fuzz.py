"""Fuzzing: whatever a file holds, its reader returns rows and rejects, or says in one line what is wrong.

`ATTNCAP_FUZZ_SECONDS` is the time for all formats together, 60 by default; `ATTNCAP_FUZZ_SEED` the first seed.
"""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from attncap.attributes.tables import load_attributes
from attncap.characteristics.lexicon_file import read_entries, write_entries
from attncap.data.load import CaptionData, check, guess_format, load
from attncap.data.readers.flickr8k import TOKEN_FILES
from attncap.metrics.coco_json import read_predictions, read_references
from attncap.paths import find_images

SECONDS = float(os.environ.get("ATTNCAP_FUZZ_SECONDS", "60"))
FIRST_SEED = int(os.environ.get("ATTNCAP_FUZZ_SEED", "0"))
SLOW = 20.0  # seconds for a file of a few kilobytes: a hang
MEMORY = 2 << 30  # bytes

# ---------------------------------------------------------------- files

odd = st.sampled_from([
    "", " ", "..", "../a.jpg", "/etc/passwd", "C:\\a.jpg", "a\\b.jpg", "a/b.jpg", "./a.jpg", "a.jpg", "A.JPG", "b.png",
    "e\u0301.jpg", "é.jpg", "\u202egpj.exe", "\x1b[2Jx.jpg", "a\0b.jpg", "=1+1.jpg", "-a.jpg", "'-a.jpg", "a#0.jpg",
    "x" * 300 + ".jpg", "a,b.jpg", 'a"b.jpg', "a\tb.jpg", "a\nb.jpg", "caf\udce9.jpg", "\ud83d.jpg", "nan", "None",
])  # fmt: skip
names = odd | st.text(st.sampled_from("ab/.\\:\"',;|\t\n#é👩\u0301 -="), min_size=1, max_size=9).map(
    lambda t: t + ".jpg"
)
captions = st.text(max_size=40) | st.sampled_from(
    [
        "",
        "-",
        '"',
        '""',
        "a red hat",
        "A,B",
        "a\nb",
        "a\r\nb",
        "=cmd()",
        "\ud83d",
        "caf\udce9",
        "नमस्ते",
        "0",
        "nan",
        "x" * 5000,
    ]
)
splits = st.sampled_from(["", "train", "val", "test", "dev", "Train", "restval", "0", "1", "holdout", "\x00", "None"])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | names | captions,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def mostly(strategy: st.SearchStrategy[Any], other: st.SearchStrategy[Any] = anything) -> st.SearchStrategy[Any]:
    """Draw from the first strategy nearly always, so that many files get far into the reader."""
    return st.integers(0, 49).flatmap(lambda n: other if n == 49 else strategy)


def objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw JSON objects, now and then with another value for a field, or without it."""
    whole = st.fixed_dictionaries({name: mostly(value) for name, value in fields.items()})
    return mostly(whole, st.fixed_dictionaries({}, optional=fields) | anything)


def to_json(contents: Any) -> bytes:
    return json.dumps(contents).encode("utf-8", "surrogatepass")


kinds = st.sampled_from(["cut", "insert", "repeat", "flip"])
edits = st.lists(st.tuples(kinds, st.floats(0, 1), st.integers(0, 40), st.binary(max_size=6)), max_size=4)


def edited(contents: bytes, changes: list[tuple[str, float, int, bytes]]) -> bytes:
    for what, place, size, other in changes:
        at = int(place * len(contents))
        middle = {"cut": b"", "insert": other + contents[at : at + size], "repeat": 3 * contents[at : at + size]}
        flipped = bytes(byte ^ 0x80 for byte in contents[at : at + size])
        contents = contents[:at] + middle.get(what, flipped) + contents[at + size :]
    return contents


def damaged(strategy: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Draw files as they are, and with bytes cut out, put in, repeated or changed."""
    return strategy | st.builds(edited, strategy, edits)


def csv_bytes(header: list[str], rows: list[list[str]], delimiter: str, end: str, quoting: int) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting, escapechar="\\")  # type: ignore[arg-type]
    writer.writerows([header, *rows])
    return out.getvalue().encode("utf-8", "surrogateescape" if "\ud83d" not in out.getvalue() else "surrogatepass")


def table(cells: list[st.SearchStrategy[str]], header: st.SearchStrategy[list[str]]) -> st.SearchStrategy[bytes]:
    rows = st.lists(st.tuples(*cells).map(list), max_size=9)
    ends, quotings = st.sampled_from(["\n", "\r\n", "\r"]), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    return st.builds(csv_bytes, header, rows, st.sampled_from(",\t;|"), ends, quotings)


tables = table(
    [names, captions, splits],
    st.sampled_from(
        [["file", "caption", "split"], ["image", "text", "partition"], ["caption", "path", "x"], ["", "", ""]]
    ),
)
attribute_tables = table(
    [names, st.sampled_from(["0", "1", "-1", "", "yes", "?", "x", "1e9", "nan"]), splits],
    st.sampled_from([["file", "hat", "split"], ["image", "=hat", "nose"], ["file", "file", "file"]]),
)
celeba = st.lists(names, max_size=5).map(
    lambda files: (
        f"{len(files)}\nhat nose\n".encode() + b"".join(f"{n} 1 -1\n".encode("utf-8", "replace") for n in files)
    )
)
lines = st.lists(st.tuples(names, st.sampled_from(["#0\t", "#1\t", "\t", ",", ',"', " "]), captions), max_size=9)
flickr8k = lines.map(lambda rows: "\n".join("".join(row) for row in rows).encode("utf-8", "surrogatepass"))
ids = st.integers(-3, 9) | names
coco = objects(
    images=st.lists(objects(id=ids, file_name=names), max_size=6),
    annotations=st.lists(objects(id=ids, image_id=ids, caption=captions), max_size=9),
).map(to_json)
karpathy = objects(
    images=st.lists(
        objects(
            filename=names, split=splits, filepath=names, cocoid=st.integers(0, 5),
            sentences=st.lists(objects(raw=captions, sentid=st.integers(0, 5)), max_size=4),
        ),
        max_size=6,
    )
).map(to_json)  # fmt: skip
predictions = mostly(st.lists(objects(image_id=ids, caption=captions), max_size=9)).map(to_json)
phrases = table([captions, captions, splits], st.sampled_from([["characteristic", "phrase", "sign"], ["phrase"] * 3]))

# ---------------------------------------------------------------- readers


def accounted(data: CaptionData, folder: Path) -> None:
    """The way on from a reader: checked, written, and every row of the clean tables or the rejects."""
    clean, report = check(data, workers=1, progress=False)
    rows = [len(tables.captions) + (tables.rejects["table"] == "captions").sum() for tables in (data, clean)]
    assert rows[0] == rows[1]
    images = [len(tables.pictures) + (tables.rejects["table"] == "pictures").sum() for tables in (data, clean)]
    assert images[0] == images[1]
    assert not report["reason"].str.contains("\n").any()
    clean.write_rejects(folder / "rejects.csv")
    assert len(pd.read_csv(folder / "rejects.csv", keep_default_na=False)) == len(clean.rejects)


def named_in_a_table(contents: bytes) -> set[str]:
    """The images that rows with the right number of cells name, by Python's own reader of CSV."""
    try:
        text = contents.decode("utf-8")
        delimiter = max("\t,;|", key=text.splitlines()[0].count)
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except (ValueError, IndexError, csv.Error):
        return set()
    at = next((rows[0].index(name) for name in ("file", "image", "path") if name in rows[0]), None)
    return set() if at is None else {row[at].strip().replace("\\", "/") for row in rows[1:] if len(row) == len(rows[0])}


def read_a_table(file: Path) -> None:
    data = load(f"table:{file}:{file.parent / 'images'}")
    listed = set(data.pictures["image_id"]) | set(data.rejects["image_id"])
    told = "\n".join(data.rejects["reason"])
    contents = file.read_bytes()
    if b'"' not in contents and b"\\" not in contents and b"\0" not in contents and b"\r" not in contents:
        for name in named_in_a_table(contents):
            plain = name.removeprefix("'").strip()  # a spreadsheet's mark of text
            assert name in listed or plain in listed or not name.strip() or name in told, name
    accounted(data, file.parent)


def read_flickr8k_lines(file: Path) -> None:
    data = load(f"flickr8k:{file.parent}")
    texts = [line for line in file.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()]
    texts = [text for text in texts if text.decode("utf-8", "surrogateescape").strip()]
    headed = file.name == "captions.txt"
    rows = len(data.captions) + int((data.rejects["table"] == "captions").sum())
    assert rows == len(texts) - (headed and bool(texts))
    accounted(data, file.parent)


def read_json_of(scheme: str) -> Callable[[Path], None]:
    def read(file: Path) -> None:
        data = load(f"{scheme}:{file}:{file.parent / 'images'}")
        items = json.loads(file.read_bytes().decode("utf-8-sig"))["images"]
        listed = set(data.pictures["image_id"]) | set(data.rejects["image_id"])
        for item in items:
            image_id = str(item["id"] if scheme == "coco" else item.get("cocoid", item["filename"]))
            assert image_id in listed or image_id.encode("utf-8", "backslashreplace").decode() in listed
        accounted(data, file.parent)

    return read


def read_attribute_rows(file: Path) -> None:
    data = load_attributes(f"attributes:{file}:{file.parent / 'images'}")
    assert data.labels.shape == (len(data.pictures), len(data.names))
    listed = set(data.pictures["image_id"]) | set(data.rejects["image_id"])
    assert len(listed) <= len(data.pictures) + len(data.rejects)


def read_scored(file: Path) -> None:
    assert all(isinstance(text, str) for text in read_predictions(file).values())


def read_phrases(file: Path) -> None:
    entries = read_entries(file)
    write_entries(file.with_name("again.csv"), entries)
    assert read_entries(file.with_name("again.csv")) == entries


def read_guessed(file: Path) -> None:
    load(guess_format(file.parent))


def read_list(file: Path) -> None:
    images, rejects = find_images(file)
    assert images["image_id"].is_unique and len(images) + len(rejects) > 0


HEADED = st.just(b"image,caption\n")
FORMATS: dict[str, tuple[str, st.SearchStrategy[bytes], Callable[[Path], None]]] = {
    "table": ("captions.csv", damaged(tables), read_a_table),
    "flickr8k": (TOKEN_FILES[0], damaged(flickr8k), read_flickr8k_lines),
    "captions.txt": ("captions.txt", st.builds(bytes.__add__, HEADED, damaged(flickr8k)), read_flickr8k_lines),
    "coco": ("captions_train2014.json", damaged(coco), read_json_of("coco")),
    "karpathy": ("dataset.json", damaged(karpathy), read_json_of("karpathy")),
    "guessed": ("texts.csv", damaged(tables), read_guessed),
    "guessed json": ("texts.json", damaged(coco | karpathy), read_guessed),
    "attributes": ("attributes.csv", damaged(attribute_tables | celeba), read_attribute_rows),
    "predictions": ("predictions.json", damaged(predictions), read_scored),
    "references": ("references.json", damaged(coco), lambda file: read_references(file) and None),
    "characteristics": ("characteristics.csv", damaged(phrases), read_phrases),
    "list": ("list.txt", damaged(flickr8k), read_list),
}


def try_one(name: str, contents: bytes, folder: Path) -> bool:
    """Read a file; return whether it was read, False where it was refused in one line."""
    file_name, _, read = FORMATS[name]
    file = folder / file_name
    file.write_bytes(contents)
    began = time.monotonic()
    refused = False
    try:
        read(file)
    except (ValueError, OSError) as error:
        refused = True
        said = str(error)
        assert isinstance(error, ValueError | FileNotFoundError), repr(error)
        assert "\n" not in said and len(said) < 3000 and (str(folder) in said or folder.name in said), said
    assert time.monotonic() - began < SLOW
    return not refused


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_any_file_ends_in_rows_and_rejects_or_in_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    end, number = time.monotonic() + SECONDS / len(FORMATS), FIRST_SEED
    examples = read = 0
    while time.monotonic() < end:

        @seed(number)
        @settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(contents=FORMATS[name][1])
        def one(contents: bytes) -> None:
            nonlocal examples, read
            examples += 1
            read += try_one(name, contents, tmp_path)

        one()
        number += 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < MEMORY
    print(f"{name}: {examples:,} files, {read:,} of them read, seeds {FIRST_SEED} to {number - 1}")
