"""Every published format into two tables; odd files end in listed rejects or in one line that names the place."""

import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from attncap.data.readers.base import Parts
from attncap.data.readers.coco import read_coco
from attncap.data.readers.files import read_json
from attncap.data.readers.flickr8k import read_flickr8k
from attncap.data.readers.karpathy import read_karpathy
from attncap.data.readers.table import has_caption_columns, read_table


def rejected(parts: Parts) -> list[tuple[object, str, str]]:
    """(line or None, kind, table) of every reject."""
    lines = [None if pd.isna(line) else int(line) for line in parts.rejects["line"]]
    return list(zip(lines, parts.rejects["kind"], parts.rejects["table"], strict=True))


def captions_of(parts: Parts) -> list[tuple[str, str]]:
    return list(parts.captions[["image_id", "caption"]].itertuples(index=False, name=None))


def splits_of(parts: Parts) -> dict[str, str | None]:
    return dict(zip(parts.images["image_id"], parts.images["split"], strict=True))


# ------------------------------------------------------------------------------------------------ Flickr8k


def test_flickr8k_tokens_with_lists(tmp_path: Path) -> None:
    (tmp_path / "Flickr8k.token.txt").write_bytes(
        b"\xef\xbb\xbfa.jpg#0\tA dog .\r\na.jpg#1\tA dog .\r\nb.jpg#0\tcaf\xc3\xa9\tau lait\r\nc.jpg#0\tTwo cats\r\n"
        b"\r\n2258277193_586949ec62.jpg.1#0\tPeople\r\n2258277193_586949ec62.jpg.1#1\tMore people\r\nd.jpg#0\tx\r\n"
    )
    (tmp_path / "Flickr_8k.trainImages.txt").write_bytes(b"a.jpg\r\ne.jpg\r\nb.jpg\r\n")
    (tmp_path / "Flickr_8k.devImages.txt").write_bytes(b"b.jpg\n")
    (tmp_path / "Flickr_8k.testImages.txt").write_bytes(b"c.jpg")
    (tmp_path / "Flicker8k_Dataset").mkdir()
    parts = read_flickr8k(tmp_path)
    # Two people may say the same; b is in two lists, and stays out of training.
    assert captions_of(parts) == [
        ("a.jpg", "A dog ."),
        ("a.jpg", "A dog ."),
        ("b.jpg", "café\tau lait"),
        ("c.jpg", "Two cats"),
    ]
    assert splits_of(parts) == {"a.jpg": "train", "b.jpg": "val", "c.jpg": "test", "e.jpg": "train"}
    assert parts.images["path"][0] == str(tmp_path / "Flicker8k_Dataset" / "a.jpg")
    assert rejected(parts) == [
        (3, "duplicate image", "pictures"),
        (6, "malformed row", "pictures"),
        (6, "caption of a rejected image", "captions"),
        (7, "caption of a rejected image", "captions"),
        (8, "in no split list", "pictures"),
        (8, "caption of a rejected image", "captions"),
    ]
    assert "2258277193_586949ec62.jpg.1' does not end like an image file" in parts.rejects["reason"][1]
    assert parts.rejects["source"][0].endswith("trainImages.txt")


def test_flickr8k_without_a_train_list_trains_on_the_rest(tmp_path: Path) -> None:
    (tmp_path / "Flickr8k.token.txt").write_text("a.jpg#0\tone\nb.jpg#0\ttwo\n")
    assert splits_of(read_flickr8k(tmp_path)) == {"a.jpg": None, "b.jpg": None}
    (tmp_path / "Flickr_8k.devImages.txt").write_text("b.jpg\n")
    assert splits_of(read_flickr8k(tmp_path)) == {"a.jpg": "train", "b.jpg": "val"}


def test_flickr8k_odd_lines_are_listed_by_number(tmp_path: Path) -> None:
    (tmp_path / "Flickr8k.token.txt").write_bytes(
        b"a.jpg#0\tgood\na.jpg#1 no tab\na.jpg#2\tcaf\xe9\n../../b.jpg#0\tout\na.jpg#3\t  \na.jpg#0\tgood\n\tnameless\n"
    )
    parts = read_flickr8k(tmp_path)
    assert captions_of(parts) == [("a.jpg", "good")]
    assert rejected(parts) == [
        (2, "malformed row", "captions"),
        (3, "not UTF-8", "captions"),
        (4, "path leaves the folder", "pictures"),
        (4, "caption of a rejected image", "captions"),
        (5, "empty caption", "captions"),
        (6, "duplicate caption", "captions"),
        (7, "malformed row", "captions"),
    ]
    assert "byte 0xe9 at character 12" in parts.rejects["reason"][1]


def test_flickr8k_comma_form_quoted_or_not(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text(
        "image,caption\n"
        "a.jpg,A man , with a hat , smiles .\n"
        'a.jpg,"A man, quoted ""so"" ."\n'
        'b.jpg,"Hi" said the man , "bye"\n'
        'b.jpg,"never closed\n'
        "b.jpg,after it\n"
        "nothing\n"
    )
    parts = read_flickr8k(tmp_path)
    assert captions_of(parts) == [
        ("a.jpg", "A man , with a hat , smiles ."),
        ("a.jpg", 'A man, quoted "so" .'),
        ("b.jpg", '"Hi" said the man , "bye"'),
        ("b.jpg", '"never closed'),
        ("b.jpg", "after it"),
    ]
    assert rejected(parts) == [(7, "malformed row", "captions")]


def test_flickr8k_utf16_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"neither Flickr8k\.token\.txt nor a captions\.txt"):
        read_flickr8k(tmp_path)
    (tmp_path / "Flickr8k.token.txt").write_text("a.jpg#0\tx\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"Flickr8k\.token\.txt, line 1: UTF-8 expected, UTF-16 found"):
        read_flickr8k(tmp_path)


# ------------------------------------------------------------------------------------------------ COCO, Karpathy


def coco(folder: Path, name: str, images: object, annotations: object) -> Path:
    path = folder / name
    path.write_text(json.dumps({"info": {}, "images": images, "annotations": annotations}))
    return path


def test_coco(tmp_path: Path) -> None:
    (tmp_path / "train2014").mkdir()
    (tmp_path / "train2014" / "x.jpg").write_bytes(b"")
    train = coco(
        tmp_path,
        "captions_train2014.json",
        [{"id": 7, "file_name": "x.jpg"}, {"id": 7, "file_name": "y.jpg"}, {"id": 5, "file_name": "/etc/passwd"}],
        [
            {"id": 1, "image_id": 7, "caption": "a\ncaption"},
            {"id": 2, "image_id": 7, "caption": "a\ncaption"},
            {"id": 2, "image_id": 7, "caption": "a\ncaption"},
            {"id": 3, "image_id": 9, "caption": "of nothing"},
            {"id": 4, "image_id": 5, "caption": "of a secret"},
            {"id": 5, "image_id": 7, "caption": "\u200b "},
            {"id": 6, "image_id": 7, "caption": "half \ud83d"},
        ],
    )
    parts = read_coco([train], tmp_path)
    assert parts.integer_ids and splits_of(parts) == {"7": None}
    assert parts.images["path"][0] == str(tmp_path / "train2014" / "x.jpg")
    assert captions_of(parts) == [("7", "a\ncaption"), ("7", "a\ncaption")]
    assert rejected(parts) == [
        (None, "duplicate image", "pictures"),
        (None, "path leaves the folder", "pictures"),
        (None, "duplicate caption", "captions"),
        (None, "caption without image", "captions"),
        (None, "caption of a rejected image", "captions"),
        (None, "empty caption", "captions"),
        (None, "not UTF-8", "captions"),
    ]
    assert "annotations[3]" in parts.rejects["reason"][3]
    val = coco(tmp_path, "val.json", [{"id": 3, "file_name": "z.jpg"}], [{"id": 9, "image_id": 3, "caption": "z"}])
    both = read_coco([train, val], tmp_path)
    assert splits_of(both) == {"7": "train", "3": "val"}
    text_ids = coco(tmp_path, "t.json", [{"id": "q", "file_name": "z.jpg"}], [{"image_id": "q", "caption": "z"}])
    assert not read_coco([text_ids], tmp_path).integer_ids


@pytest.mark.parametrize(
    ("images", "annotations", "message"),
    [
        ([{"id": 1, "file_name": 3}], [], r"images\[0\]\.file_name: text expected, int found"),
        ([{"id": True, "file_name": "a"}], [], r"images\[0\]\.id: a whole number or text expected, bool found"),
        ([{"id": 1.5, "file_name": "a"}], [], r"images\[0\]\.id: .* float found"),
        ([{"file_name": "a"}], [], r"images\[0\]\.id: .* nothing found"),
        (["a.jpg"], [], r"images\[0\]: an object with 'id' expected, str found"),
        ({}, [], r"images: a list expected, dict found"),
        ([], {"caption": "a"}, r"annotations: a list expected, dict found"),
        ([{"id": 1, "file_name": "a"}], [{"image_id": 1, "caption": None}], r"annotations\[0\]\.caption: .* NoneType"),
        (
            [{"id": 1, "file_name": "a"}],
            [{"image_id": [1], "caption": "a"}],
            r"annotations\[0\]\.image_id: .* list found",
        ),
    ],
)
def test_coco_of_wrong_types_is_named_by_place(
    images: object, annotations: object, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"c\.json, " + message):
        read_coco([coco(tmp_path, "c.json", images, annotations)], tmp_path)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b'{"images": [\n {"id"', "line 2: not JSON"),
        (b"", "line 1: not JSON"),
        (b'{\n"a":\n"caf\xe9"}', "line 3: UTF-8 expected, byte 0xe9 found"),
        (b"[" * 100_000, "not JSON that can be read"),
        (b"[" + b"9" * 5000 + b"]", "not JSON that can be read"),
        (b"\xff\xfe[\0]\0", "line 1: UTF-8 expected"),
    ],
)
def test_json_that_cannot_be_read(contents: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_bytes(contents)
    with pytest.raises(ValueError, match=rf"c\.json.*{message}") as caught:
        read_json(tmp_path / "c.json")
    assert "\n" not in str(caught.value)


def test_karpathy(tmp_path: Path) -> None:
    def item(name: str, split: str, *captions: str, **more: object) -> dict[str, object]:
        return {
            "filename": name,
            "split": split,
            "sentences": [{"raw": c, "sentid": i} for i, c in enumerate(captions)],
            **more,
        }

    path = tmp_path / "dataset.json"
    images = [item("a.jpg", "restval", "one", "one"), item("b.jpg", "val", ""), item("a.jpg", "test", "leak")]
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"images": images}).encode())
    parts = read_karpathy(path, tmp_path)
    assert splits_of(parts) == {"a.jpg": "train", "b.jpg": "val"} and not parts.integer_ids
    assert captions_of(parts) == [("a.jpg", "one"), ("a.jpg", "one")]
    assert rejected(parts) == [
        (None, "empty caption", "captions"),
        (None, "duplicate image", "pictures"),
        (None, "duplicate image", "captions"),
    ]
    (tmp_path / "val2014").mkdir()
    (tmp_path / "val2014" / "c.jpg").write_bytes(b"")
    path.write_text(json.dumps({"images": [item("c.jpg", "test", "see", cocoid=11, filepath="val2014")]}))
    parts = read_karpathy(path, tmp_path)
    assert splits_of(parts) == {"11": "test"} and parts.integer_ids
    assert parts.images["path"][0] == str(tmp_path / "val2014" / "c.jpg")
    path.write_text(json.dumps({"images": [item("a.jpg", "holdout")]}))
    with pytest.raises(ValueError, match=r"dataset\.json, images\[0\]\.split: .* 'holdout' found"):
        read_karpathy(path, tmp_path)
    path.write_text(json.dumps({"images": [item("a.jpg", "val") | {"sentences": [{"raw": 5}]}]}))
    with pytest.raises(ValueError, match=r"images\[0\]\.sentences\[0\]\.raw: text expected, int found"):
        read_karpathy(path, tmp_path)


# ------------------------------------------------------------------------------------------------ tables


def table(folder: Path, contents: str | bytes, name: str = "captions.csv", **columns: str) -> Parts:
    path = folder / name
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    return read_table(path, folder, **columns)


LONG = " ".join(f"word{i}" for i in range(10_000))


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        ("filename,caption\na.jpg,x\n", [("a.jpg", "x")]),
        (b"\xef\xbb\xbfFile_Name,Description\r\na.jpg,x\r\n", [("a.jpg", "x")]),
        (b'\xef\xbb\xbf"image","text"\r\n"a.jpg","x, ""y"""\r\n', [("a.jpg", 'x, "y"')]),
        ("id\tpath\tlabel\n1\ta.jpg\tx, y\n", [("a.jpg", "x, y")]),
        ("image;caption\na.jpg;x, y\n", [("a.jpg", "x, y")]),
        ("image_name| comment_number| comment\na.jpg| 0| Two men .\n", [("a.jpg", "Two men .")]),
        ('image,caption\na.jpg,"two\nlines"\nb.jpg,after\n', [("a.jpg", "two\nlines"), ("b.jpg", "after")]),
        ("image,caption\ra.jpg,old Macintosh\r", [("a.jpg", "old Macintosh")]),
        ("image,caption\na.jpg,NA\nb.jpg,null\n", [("a.jpg", "NA"), ("b.jpg", "null")]),
        ("image,caption\na.jpg,👩‍🦰 with glasses\n", [("a.jpg", "👩‍🦰 with glasses")]),
        ("image,caption\na.jpg,امرأة تبتسم\n", [("a.jpg", "امرأة تبتسم")]),
        ("image,caption\na.jpg,<script>alert('x')</script>\n", [("a.jpg", "<script>alert('x')</script>")]),
        ("image,caption\na.jpg,=cmd()\n", [("a.jpg", "=cmd()")]),
        (f"image,caption\na.jpg,{LONG}\n", [("a.jpg", LONG)]),
        ("image,caption\nsub\\a.jpg,x\n", [("sub/a.jpg", "x")]),
        ("image,caption\na.jpg,nul\0inside\n", [("a.jpg", "nul\0inside")]),
    ],
)
def test_odd_tables_that_read(contents: str | bytes, expected: list[tuple[str, str]], tmp_path: Path) -> None:
    parts = table(tmp_path, contents)
    assert captions_of(parts) == expected
    assert rejected(parts) == []


@pytest.mark.parametrize(
    ("row", "kind", "reason"),
    [
        (b"a.jpg,one, two", "malformed row", "2 columns expected, 3 found: quote the caption"),
        (b"a.jpg", "malformed row", "2 columns expected, 1 found: a column is missing"),
        (b",words", "malformed row", "a file name expected in column 'image'"),
        (b'a.jpg,"open', "malformed row", "a quote is opened and not closed"),
        (b'a.jpg,"closed" early', "malformed row", "a quote is opened and not closed"),
        (b"a.jpg,caf\xe9", "not UTF-8", "byte 0xe9 at character 10"),
        (b"a.jpg,", "empty caption", "empty caption"),
        (b"a.jpg, \xe2\x80\x8b", "empty caption", "empty caption"),
        (b"ok.jpg,first", "duplicate caption", "the same row is there already"),
    ],
)
def test_odd_rows_of_a_table_are_listed_and_cost_no_other(row: bytes, kind: str, reason: str, tmp_path: Path) -> None:
    parts = table(tmp_path, b"image,caption\nok.jpg,first\n" + row + b"\nok.jpg,last\n")
    assert [caption for _, caption in captions_of(parts)] == ["first", "last"]
    assert rejected(parts) == [(3, kind, "captions")]
    assert reason in parts.rejects["reason"][0] and parts.rejects["source"][0].endswith("captions.csv")


def test_names_that_leave_the_folder_are_rejected_once_with_each_caption(tmp_path: Path) -> None:
    parts = table(tmp_path, "image,caption\n../x.jpg,a\n../x.jpg,b\nC:\\x.jpg,c\na.jpg,d\n")
    assert list(parts.images["image_id"]) == ["a.jpg"]
    assert [kind for _, kind, _ in rejected(parts)] == [
        "path leaves the folder",
        "caption of a rejected image",
        "caption of a rejected image",
        "path leaves the folder",
        "caption of a rejected image",
    ]


def test_captions_without_a_word_are_empty(tmp_path: Path) -> None:
    captions = ["-", "...", "\N{GRINNING FACE}", "\u200b", "7", "नमस्ते", "ok \N{GRINNING FACE}"]
    frame = pd.DataFrame({"file": "a.jpg", "caption": captions})
    parts = read_table(frame, tmp_path)
    assert parts.captions["caption"].tolist() == captions[4:]
    assert rejected(parts) == [(line, "empty caption", "captions") for line in (1, 2, 3, 4)]


def test_split_column(tmp_path: Path) -> None:
    parts = table(
        tmp_path,
        "image,caption,Split\na.jpg,x,DEV\na.jpg,y,\na.jpg,z,train\nb.jpg,w,\nc.jpg,v,holdout\nd.jpg,u,restval\n",
    )
    assert splits_of(parts) == {"a.jpg": "val", "b.jpg": None, "d.jpg": "train"}
    assert captions_of(parts) == [("a.jpg", "x"), ("a.jpg", "y"), ("b.jpg", "w"), ("d.jpg", "u")]
    assert rejected(parts) == [(4, "malformed row", "captions"), (6, "malformed row", "captions")]
    assert "split train here, val in line 2" in parts.rejects["reason"][0]
    assert "'holdout': train, val or test expected" in parts.rejects["reason"][1]


def test_columns_by_name_and_columns_not_found(tmp_path: Path) -> None:
    contents = "photo,words,fold\na.jpg,x,test\n"
    parts = table(tmp_path, contents, file_column="photo", caption_column="words", split_column="fold")
    assert captions_of(parts) == [("a.jpg", "x")] and splits_of(parts) == {"a.jpg": "test"}
    with pytest.raises(ValueError, match=r"captions\.csv, line 1: no file name column .* found: photo, words, fold"):
        table(tmp_path, contents)
    with pytest.raises(
        ValueError, match=r"captions\.csv, line 1: a column 'Photo' expected, found: photo, words, fold"
    ):
        table(tmp_path, contents, file_column="Photo")
    with pytest.raises(ValueError, match=r"no caption column .* found: image: name the column"):
        table(tmp_path, "image\na.jpg\n")
    with pytest.raises(ValueError, match=r"captions\.csv, line 1: a header line expected, nothing found"):
        table(tmp_path, "")
    assert not has_caption_columns(tmp_path / "captions.csv")


def test_frame(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"image": ["a.jpg", "b.jpg", Path("c.jpg"), None, "d.jpg", "e.jpg"], "caption": ["x", None, "z", "w", 4, pd.NA]}
    )
    parts = read_table(frame, tmp_path)
    assert captions_of(parts) == [("a.jpg", "x"), ("c.jpg", "z")]
    assert rejected(parts) == [
        (2, "empty caption", "captions"),
        (4, "malformed row", "captions"),
        (5, "malformed row", "captions"),
        (6, "empty caption", "captions"),
    ]


ROWS = st.lists(
    st.text(alphabet=st.sampled_from('ab.jpg,"\t\n\r;|\\/#\0é\u200b👩 '), max_size=30).map(lambda text: text.encode())
    | st.binary(max_size=12),
    max_size=9,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_any_rows_end_in_captions_or_rejects(rows: list[bytes], tmp_path: Path) -> None:
    contents = b"\n".join(rows)
    assume(contents[:2] not in (b"\xff\xfe", b"\xfe\xff"))  # UTF-16: refused as a whole
    (tmp_path / "Flickr8k.token.txt").write_bytes(contents)
    texts = [line.decode("utf-8", "surrogateescape") for line in contents.removeprefix(b"\xef\xbb\xbf").splitlines()]
    lines = sum(1 for text in texts if text.strip())
    parts = read_flickr8k(tmp_path)
    assert len(parts.captions) + (parts.rejects["table"] == "captions").sum() == lines
    texts = [line.decode("utf-8", "surrogateescape") for line in contents.splitlines()]
    lines = sum(1 for text in texts if text.strip())
    parts = table(tmp_path, b"image,caption\n" + contents)
    records = len(parts.captions) + (parts.rejects["table"] == "captions").sum()
    assert (lines > 0) <= records <= lines  # a quoted record may span lines
    assert set(parts.captions["image_id"]) <= set(parts.images["image_id"])
    parts.rejects.to_csv(tmp_path / "rejects.csv")


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["latest_train.json", "interval_val.json"], ["train", "val"]),
        (["evaluation_train.json", "captions_val2014.json"], ["train", "val"]),
        (["contest.json", "train-val.json"], [None, None]),
        (["Dev.json", "restval.json"], ["val", "train"]),
    ],
)
def test_coco_splits_are_whole_words_of_file_names(tmp_path: Path, names: list[str], splits: list[str | None]) -> None:
    files = [
        coco(tmp_path, name, [{"id": at, "file_name": "x.jpg"}], [{"image_id": at, "caption": "x"}])
        for at, name in enumerate(names)
    ]
    assert list(splits_of(read_coco(files, tmp_path)).values()) == splits


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_a_stray_quote_costs_its_own_row(tmp_path: Path, delimiter: str) -> None:
    rows = ["image,caption", 'a.jpg,"a man', "b.jpg,two cats", 'c.jpg,a "big" dog"', 'd.jpg,"two', 'lines"', "e.jpg,x"]
    (tmp_path / "t.csv").write_text("\n".join(row.replace(",", delimiter) for row in rows))
    parts = read_table(tmp_path / "t.csv", tmp_path)
    expected = [("b.jpg", "two cats"), ("c.jpg", 'a "big" dog"'), ("d.jpg", "two\nlines"), ("e.jpg", "x")]
    assert captions_of(parts) == expected
    assert rejected(parts) == [(2, "malformed row", "captions")]


def test_flickr30k_bars(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(
        'image_name| comment_number| comment\n1.jpg| 0| " Stop " , says a sign .\n1.jpg| 1| Two, men\n'
        "2.jpg| 4   A dog\n"
    )
    parts = read_table(tmp_path / "results.csv", tmp_path)
    assert captions_of(parts) == [("1.jpg", '" Stop " , says a sign .'), ("1.jpg", "Two, men")]
    assert rejected(parts) == [(4, "malformed row", "captions")]
