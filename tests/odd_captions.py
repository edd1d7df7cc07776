"""Odd files of captions, attributes and predictions, with what must come of each: rows, listed rejects, or an error.

`test_readers.py` has each rule of each reader by itself; here are whole files as people have them: saved by another
program, in another encoding, cut off, of other types, or made to do harm. Pictures named a.jpg to f.jpg are there.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

PICTURES = tuple(f"{letter}.jpg" for letter in "abcdef")
Rows = list[tuple[str, str]]
Rejects = list[tuple[int | None, str]]  # line, kind


class OddFile(NamedTuple):
    """`form`: which reader. `rows` (image_id, caption) and `rejects` (line, kind) are all there is; or `error`."""

    form: str
    contents: bytes
    rows: Rows = []
    rejects: Rejects = []
    error: str = ""


def table(text: str | bytes, rows: Rows | None = None, rejects: Rejects | None = None, error: str = "") -> OddFile:
    return OddFile("table", text if isinstance(text, bytes) else text.encode(), rows or [], rejects or [], error)


def tokens(text: str | bytes, rows: Rows | None = None, rejects: Rejects | None = None, error: str = "") -> OddFile:
    return OddFile("flickr8k", text if isinstance(text, bytes) else text.encode(), rows or [], rejects or [], error)


def in_json(
    form: str, value: Any, rows: Rows | None = None, rejects: Rejects | None = None, error: str = ""
) -> OddFile:
    contents = value if isinstance(value, bytes) else json.dumps(value).encode()
    return OddFile(form, contents, rows or [], rejects or [], error)


def coco(annotations: Any, images: Any = None) -> dict[str, Any]:
    listed = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}] if images is None else images
    return {"images": listed, "annotations": annotations}


def said(image_id: Any, caption: Any, own: int = 1) -> dict[str, Any]:
    return {"id": own, "image_id": image_id, "caption": caption}


def karpathy(filename: Any, raw: Any, **more: Any) -> dict[str, Any]:
    return {"images": [{"filename": filename, "split": "train", "sentences": [{"raw": raw}], **more}]}


LONG = " ".join(f"word{n}" for n in range(10_000))
ARABIC = "\u0631\u062c\u0644 \u064a\u0645\u0634\u064a \u0645\u0639 \u0643\u0644\u0628"
HEBREW = "\u200f\u05d0\u05d9\u05e9 \u05d4\u05d5\u05dc\u05da, \u202eturned\u202c"
EMOJI = "a \U0001f469\u200d\U0001f9b0 with \U0001f453 and \U0001f1e9\U0001f1ea"
PAGE = '<script>alert("1")</script><img src=x onerror=alert(2)> & </td>'
HEAD = "file,caption\n"
BOM = b"\xef\xbb\xbf"
QUOTE_LEFT_OPEN = 'a.jpg,"never closed\n' + "".join(f"b.jpg,dog {n}\n" for n in range(9))
FLAGS = "file,glasses,hat\n"

TABLES: dict[str, OddFile] = {
    "byte order mark": table(BOM + b"file,caption\na.jpg,a dog\n", [("a.jpg", "a dog")]),
    "windows lines": table("file,caption\r\na.jpg,a dog\r\n", [("a.jpg", "a dog")]),
    "old mac lines": table("file,caption\ra.jpg,a dog\rb.jpg,a cat", [("a.jpg", "a dog"), ("b.jpg", "a cat")]),
    "every kind of line": table(
        "file,caption\na.jpg,x\r\nb.jpg,y\rc.jpg,z", [("a.jpg", "x"), ("b.jpg", "y"), ("c.jpg", "z")]
    ),
    "empty lines": table("file,caption\n\n\na.jpg,a dog\n   \n\n", [("a.jpg", "a dog")]),
    "semicolons": table("file;caption\na.jpg;a dog, brown\n", [("a.jpg", "a dog, brown")]),
    "tabs": table('file\tcaption\na.jpg\ta dog, "brown"\n', [("a.jpg", 'a dog, "brown"')]),
    "bars": table("file|caption\na.jpg|a dog\n", [("a.jpg", "a dog")]),
    "quoted with everything": table(
        'file,caption\na.jpg,"a ""dog"", and\na cat"\n', [("a.jpg", 'a "dog", and\na cat')]
    ),
    "quoted names": table('"file","caption"\n"a.jpg","a dog"\n', [("a.jpg", "a dog")]),
    "capitals and blanks": table(" File , CAPTION \na.jpg, a dog\n", [("a.jpg", "a dog")]),
    "columns the other way": table("caption,n,image\na dog,7,a.jpg\n", [("a.jpg", "a dog")]),
    "an index column": table(",file,caption\n0,a.jpg,a dog\n", [("a.jpg", "a dog")]),
    "separators of unicode": table(
        "file,caption\na.jpg,one\u2028two\u0085three\x0cfour\x1c\n", [("a.jpg", "one\u2028two\u0085three\x0cfour\x1c")]
    ),
    "a NUL in a caption": table("file,caption\na.jpg,a \0 dog\n", [("a.jpg", "a \0 dog")]),
    "latin 1": table(
        HEAD.encode() + "a.jpg,caf\u00e9\nb.jpg,a dog\n".encode("latin-1"), [("b.jpg", "a dog")], [(2, "not UTF-8")]
    ),
    "windows 1252": table(HEAD.encode() + b"a.jpg,it\x92s a dog\n", [], [(2, "not UTF-8")]),
    "shift jis": table(HEAD.encode() + "a.jpg,\u72ac\n".encode("shift-jis"), [], [(2, "not UTF-8")]),
    "half of a surrogate pair": table(HEAD.encode() + b"a.jpg,\xed\xa0\x80\n", [], [(2, "not UTF-8")]),
    "utf-16": table(
        "file,caption\na.jpg,a dog\n".encode("utf-16"), error=r"line 1: UTF-8 expected, UTF-16 found: save"
    ),
    "utf-32": table(
        "file,caption\na.jpg,a dog\n".encode("utf-32"), error=r"line 1: UTF-8 expected, UTF-16 found: save"
    ),
    "utf-16 without a mark": table("file,caption\n".encode("utf-16-le"), error=r"line 1: "),
    "right to left": table(f'{HEAD}a.jpg,{ARABIC}\nb.jpg,"{HEBREW}"\n', [("a.jpg", ARABIC), ("b.jpg", HEBREW)]),
    "emoji": table(f"{HEAD}a.jpg,{EMOJI}\n", [("a.jpg", EMOJI)]),
    "ten thousand words": table(f"{HEAD}a.jpg,{LONG}\n", [("a.jpg", LONG)]),
    "a hundred thousand words": table(f"{HEAD}a.jpg,{LONG * 10}\nb.jpg,x\n", [("b.jpg", "x")], [(2, "malformed row")]),
    "html": table(f"file\tcaption\na.jpg\t{PAGE}\n", [("a.jpg", PAGE)]),
    "a formula": table(f"{HEAD}a.jpg,=cmd|' /C calc'!A0\n", [("a.jpg", "=cmd|' /C calc'!A0")]),
    "escape codes": table(f"{HEAD}a.jpg,\x1b[2J\x1b]0;title\x07 a dog\n", [("a.jpg", "\x1b[2J\x1b]0;title\x07 a dog")]),
    "invisible alone": table(f"{HEAD}a.jpg,\u200b\u2060 \ufeff\n", [], [(2, "empty caption")]),
    "invisible in between": table(f"{HEAD}a.jpg,\u200ba\n", [("a.jpg", "\u200ba")]),
    "no caption": table(f"{HEAD}a.jpg,\n", [], [(2, "empty caption")]),
    "no name": table(f"{HEAD},a dog\n", [], [(2, "malformed row")]),
    "a column too few": table(f"{HEAD}a.jpg\nb.jpg,a dog\n", [("b.jpg", "a dog")], [(2, "malformed row")]),
    "a column too many": table(f"{HEAD}a.jpg,a dog, brown\n", [], [(2, "malformed row")]),
    "a quote left open": table(
        HEAD + QUOTE_LEFT_OPEN, [("b.jpg", f"dog {n}") for n in range(9)], [(2, "malformed row")]
    ),
    "text after a quote": table(f'{HEAD}a.jpg,"a" dog\nb.jpg,x\n', [("b.jpg", "x")], [(2, "malformed row")]),
    "the same row twice": table(f"{HEAD}a.jpg,a dog\na.jpg,a dog\n", [("a.jpg", "a dog")], [(3, "duplicate caption")]),
    "two splits": table("file,caption,split\na.jpg,x,train\na.jpg,y,test\n", [("a.jpg", "x")], [(3, "malformed row")]),
    "a split unheard of": table("file,caption,split\na.jpg,x,holdout\n", [], [(2, "malformed row")]),
    "up and out": table(f"{HEAD}../a.jpg,x\n", [], [(2, "path leaves the folder"), (2, "caption of a rejected image")]),
    "from the root": table(
        f"{HEAD}/etc/passwd,x\n", [], [(2, "path leaves the folder"), (2, "caption of a rejected image")]
    ),
    "a drive": table(f"{HEAD}C:\\a.jpg,x\n", [], [(2, "path leaves the folder"), (2, "caption of a rejected image")]),
    "a share": table(
        f"{HEAD}\\\\host\\a.jpg,x\n", [], [(2, "path leaves the folder"), (2, "caption of a rejected image")]
    ),
    "a NUL in a name": table(
        f"{HEAD}a\0.jpg,x\n", [], [(2, "path leaves the folder"), (2, "caption of a rejected image")]
    ),
    "a name too long": table(f"{HEAD}{'x' * 5000}.jpg,x\n", [(f"{'x' * 5000}.jpg", "x")]),
    "an address": table(f"{HEAD}http://host/a.jpg,x\n", [("http://host/a.jpg", "x")]),
    "nothing": table("", error=r"line 1: a header line expected, nothing found: name the columns in the first line"),
    "a mark alone": table(BOM, error=r"line 1: a header line expected, nothing found"),
    "an empty first line": table("\nfile,caption\n", error=r"line 1: a header line expected, nothing found"),
    "no header": table(
        "a.jpg,a dog\n", error=r"line 1: no file name column \(looked for .*\), found: a.jpg, a dog: name"
    ),
    "no caption column": table("file,words\na.jpg,x\n", error=r"line 1: no caption column .*found: file, words"),
    "no file column": table("caption\nx\n", error=r"line 1: no file name column"),
    "a header with a quote open": table('file,"caption\na.jpg,x\n', error=r"line 1: a header line expected"),
    "a header of a megabyte": table("x," * 500_000 + "\n", error=r"line 1: no file name column"),
    "a field of a megabyte": table("x" * 1_000_000 + "\n", error=r"line 1: "),
    "a spreadsheet": table(b"PK\x03\x04\x14\0\x06\0" + bytes(range(256)) * 9, error=r"line 1: "),
    "zeros": table(bytes(5000), error=r"line 1: "),
}

TOKENS: dict[str, OddFile] = {
    "byte order mark": tokens(BOM + b"a.jpg#0\ta dog\n", [("a.jpg", "a dog")]),
    "windows lines": tokens("a.jpg#0\ta dog\r\na.jpg#1\ta cat\r\n", [("a.jpg", "a dog"), ("a.jpg", "a cat")]),
    "blanks for the tab": tokens("a.jpg#0 a dog\nb.jpg#0\tx\n", [("b.jpg", "x")], [(1, "malformed row")]),
    "two tabs": tokens("a.jpg#0\ta\tdog\n", [("a.jpg", "a\tdog")]),
    "no number": tokens("a.jpg\ta dog\n", [("a.jpg", "a dog")]),
    "a picture that is none": tokens(
        "a.jpg.1#0\ta dog\n", [], [(1, "malformed row"), (1, "caption of a rejected image")]
    ),
    "latin 1": tokens("a.jpg#0\tcaf\u00e9\n".encode("latin-1"), [], [(1, "not UTF-8")]),
    "the same number twice": tokens(
        "a.jpg#0\tx\na.jpg#0\tx\na.jpg#1\tx\n", [("a.jpg", "x"), ("a.jpg", "x")], [(2, "duplicate caption")]
    ),
    "up and out": tokens("../../a.jpg#0\tx\n", [], [(1, "path leaves the folder"), (1, "caption of a rejected image")]),
    "nothing": tokens(""),
}

JSONS: dict[str, OddFile] = {
    "a mark": in_json("coco", BOM + json.dumps(coco([said(1, "x")])).encode(), [("1", "x")]),
    "emoji": in_json("coco", coco([said(1, EMOJI), said(2, ARABIC, 2)]), [("1", EMOJI), ("2", ARABIC)]),
    "html": in_json("coco", coco([said(1, PAGE)]), [("1", PAGE)]),
    "ten thousand words": in_json("coco", coco([said(1, LONG)]), [("1", LONG)]),
    "half of a surrogate pair": in_json("coco", coco([said(1, "\ud83d dog")]), [], [(None, "not UTF-8")]),
    "an id of half a character": in_json(
        "coco",
        coco([said("\ud83d", "x")], [{"id": "\ud83d", "file_name": "a.jpg"}]),
        [],
        [(None, "not UTF-8"), (None, "caption of a rejected image")],
    ),
    "ids twice": in_json(
        "coco", coco([said(1, "x")], [{"id": 1, "file_name": "a.jpg"}] * 2), [("1", "x")], [(None, "duplicate image")]
    ),
    "ids of both kinds": in_json("coco", coco([said("1", "x"), said(1, "y", 2)]), [("1", "x"), ("1", "y")]),
    "a caption of nobody": in_json("coco", coco([said(7, "x")]), [], [(None, "caption without image")]),
    "up and out": in_json(
        "coco",
        coco([said(1, "x")], [{"id": 1, "file_name": "../../a.jpg"}]),
        [],
        [(None, "path leaves the folder"), (None, "caption of a rejected image")],
    ),
    "empty": in_json("coco", coco([said(1, " ")]), [], [(None, "empty caption")]),
    "a number for a caption": in_json(
        "coco", coco([said(1, 7)]), error=r"annotations\[0\]\.caption: text expected, int found"
    ),
    "nothing for a caption": in_json(
        "coco", coco([said(1, None)]), error=r"annotations\[0\]\.caption: text expected, NoneType found"
    ),
    "a list of captions": in_json(
        "coco", coco([said(1, ["x"])]), error=r"annotations\[0\]\.caption: text expected, list found"
    ),
    "truth for an id": in_json("coco", coco([said(True, "x")]), error=r"annotations\[0\]\.image_id: .*bool found"),
    "a fraction for an id": in_json("coco", coco([said(1.5, "x")]), error=r"annotations\[0\]\.image_id: .*float found"),
    "no file name": in_json(
        "coco", coco([], [{"id": 1}]), error=r"images\[0\]\.file_name: text expected, nothing found"
    ),
    "a row that is text": in_json(
        "coco", coco(["x"]), error=r"annotations\[0\]: an object with 'image_id' expected, str found"
    ),
    "annotations by name": in_json("coco", coco({"1": "x"}), error=r"annotations: a list expected, dict found"),
    "a list": in_json("coco", [1, 2], error=r"top level: an object with 'images' expected, list found"),
    "predictions": in_json("coco", [said(1, "x")], error=r"top level: an object with 'images' expected"),
    "not a number": in_json(
        "coco", b'{"images": [], "annotations": NaN}', error=r"annotations: a list expected, float found"
    ),
    "a number without end": in_json("coco", b'{"images": ' + b"9" * 5000 + b"}", error=r"not JSON that can be read"),
    "a well": in_json("coco", b"[" * 200_000, error=r"not JSON that can be read \(.*recursion"),
    "cut off": in_json(
        "coco", json.dumps(coco([said(1, "x")])).encode()[:-9], error=r"line 1: not JSON \(.*\): truncated"
    ),
    "lines": in_json("coco", b'{"id": 1}\n{"id": 2}\n', error=r"line 2: not JSON \(Extra data\)"),
    "quotes of python": in_json("coco", b"{'images': []}", error=r"line 1: not JSON"),
    "a comment": in_json("coco", b"// captions\n{}", error=r"line 1: not JSON"),
    "latin 1": in_json(
        "coco", '{"images": [],\n "x": "caf\u00e9"}'.encode("latin-1"), error=r"line 2: UTF-8 expected, byte 0xe9 found"
    ),
    "utf-16": in_json("coco", json.dumps(coco([])).encode("utf-16"), error=r"line 1: UTF-8 expected, byte 0xff found"),
    "nothing": in_json("coco", b"", error=r"line 1: not JSON"),
    "a key twice": in_json("coco", b'{"images": 7, "images": [], "annotations": []}'),
    "karpathy": in_json("karpathy", karpathy("a.jpg", EMOJI), [("a.jpg", EMOJI)]),
    "karpathy, up and out": in_json(
        "karpathy",
        karpathy("a.jpg", "x", filepath="../.."),
        [],
        [(None, "path leaves the folder"), (None, "caption of a rejected image")],
    ),
    "karpathy, words for cocoid": in_json(
        "karpathy", karpathy("a.jpg", "x", cocoid="7"), error=r"images\[0\]\.cocoid: a whole number expected, str found"
    ),
    "karpathy, a split unheard of": in_json(
        "karpathy", karpathy("a.jpg", "x", split="holdout"), error=r"images\[0\]\.split: .*'holdout' found"
    ),
    "karpathy, a list for a split": in_json(
        "karpathy", karpathy("a.jpg", "x", split=["train"]), error=r"images\[0\]\.split: text expected, list found"
    ),
    "karpathy, tokens alone": in_json(
        "karpathy",
        {"images": [{"filename": "a.jpg", "split": "train", "sentences": [{"tokens": ["x"]}]}]},
        error=r"images\[0\]\.sentences\[0\]\.raw: text expected, nothing found",
    ),
}

ATTRIBUTES: dict[str, OddFile] = {
    "sound": OddFile("attributes", f"{FLAGS}a.jpg,1,0\nb.jpg,0,1\n".encode(), [("a.jpg", ""), ("b.jpg", "")]),
    "a mark and windows lines": OddFile(
        "attributes", BOM + b"file,glasses\r\na.jpg,1\r\nb.jpg,0\r\n", [("a.jpg", ""), ("b.jpg", "")]
    ),
    "empty lines": OddFile("attributes", f"{FLAGS}\na.jpg,1,0\n\n".encode(), [("a.jpg", "")]),
    "up and out": OddFile(
        "attributes", f"{FLAGS}../a.jpg,1,0\nb.jpg,0,1\n".encode(), [("b.jpg", "")], [(2, "path leaves the folder")]
    ),
    "twice": OddFile(
        "attributes", f"{FLAGS}a.jpg,1,0\na.jpg,0,1\n".encode(), [("a.jpg", "")], [(3, "duplicate image")]
    ),
    "a word": OddFile(
        "attributes", f"{FLAGS}a.jpg,1,perhaps\n".encode(), error=r"line 2, column 'hat': 0, 1, .*found 'perhaps'"
    ),
    "a column too few": OddFile(
        "attributes", f"{FLAGS}a.jpg,1\n".encode(), error=r"line 2: 3 columns expected as in the header, 2 found"
    ),
    "the file column twice": OddFile(
        "attributes", b"file,file,hat\na.jpg,b.jpg,1\n", error=r"the column 'file' occurs twice"
    ),
    "the split column twice": OddFile(
        "attributes", b"file,split,Split,hat\na.jpg,train,val,1\n", error=r"column 'split'"
    ),
    "no attribute": OddFile(
        "attributes", b"file\na.jpg\n", error=r"no attribute: at least one column of 0 and 1 expected"
    ),
    "nothing": OddFile("attributes", b"", error=r"line 1: a header line expected, nothing found"),
    "latin 1": OddFile(
        "attributes", "file,caf\u00e9\na.jpg,1\n".encode("latin-1"), error=r"line 1: byte 0xe9 at character 9"
    ),
    "a quote left open": OddFile("attributes", f'{FLAGS}"a.jpg,1,0\n'.encode(), error=r"line 2: "),
    "a line far on, after a quoted break": OddFile(
        "attributes", b'file,n\n"a\nb.jpg",1\nc.jpg,7\n', error=r"line 4, column 'n'"
    ),
    "a field of a megabyte": OddFile("attributes", FLAGS.encode() + b"x" * 1_000_000 + b",1,0\n", error=r"line 2: "),
    "celeba, cut off": OddFile(
        "attributes", b"3\nglasses hat\na.jpg 1 -1\n", error=r"line 1: 3 images announced, 1 rows found"
    ),
    "celeba, a number without end": OddFile("attributes", b"9" * 5000 + b"\nglasses\na.jpg 1\n", error=r"line 1: "),
    "celeba, a row too short": OddFile("attributes", b"1\nglasses hat\na.jpg 1\n", error=r"line 3: 3 columns expected"),
    "celeba": OddFile("attributes", b"2\nglasses hat\na.jpg  1 -1\nb.jpg -1  1\n", [("a.jpg", ""), ("b.jpg", "")]),
}

PREDICTIONS: dict[str, OddFile] = {
    "sound": in_json("predictions", [said(1, EMOJI), said("b", PAGE)], [("1", EMOJI), ("b", PAGE)]),
    "a mark": in_json("predictions", BOM + b'[{"image_id": 1, "caption": "x"}]', [("1", "x")]),
    "an empty caption": in_json("predictions", [said(1, "")], [("1", "")]),
    "the same id as number and text": in_json(
        "predictions", [said(1, "x"), said("1", "y")], error=r"entry 1: image_id '1' came already in entry 0"
    ),
    "references": in_json(
        "predictions", coco([said(1, "x")]), error=r"expected a list .*got an object \(this looks like"
    ),
    "a list of lists": in_json("predictions", [["1", "x"]], error=r"entry 0: expected an object, got a list"),
    "no caption": in_json("predictions", [{"image_id": 1}], error=r'entry 0: no "caption"'),
    "nothing for a caption": in_json(
        "predictions", [said(1, None)], error=r'entry 0: "caption" should be a string, got null'
    ),
    "a fraction for an id": in_json("predictions", [said(1.0, "x")], error=r'entry 0: "image_id" should be'),
    "half of a surrogate pair": in_json(
        "predictions", [said(1, "\ud83d dog")], error=r"entry 0: .*half of a surrogate pair"
    ),
    "a number without end": in_json("predictions", b"9" * 5000, error=r"not JSON that can be read"),
    "a well": in_json("predictions", b"[" * 200_000, error=r"not JSON that can be read"),
    "cut off": in_json("predictions", b'[{"image_id": 1, "capt', error=r"line 1: not JSON"),
    "utf-16": in_json("predictions", "[]".encode("utf-16"), error=r"not UTF-8"),
    "nothing": in_json("predictions", b"", error=r"line 1: not JSON"),
    "a picture": in_json("predictions", b"\x89PNG\r\n\x1a\n", error=r"not UTF-8"),
}

CORPUS: dict[str, OddFile] = {
    f"{odd.form}: {name}": odd
    for files in (TABLES, TOKENS, JSONS, ATTRIBUTES, PREDICTIONS)
    for name, odd in files.items()
}
