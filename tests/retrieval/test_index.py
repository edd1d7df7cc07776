"""Image indexes: hashes against recorded values, search against all pairs, the file through kills and damage."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from attncap.images import UnreadableImage
from attncap.retrieval import search as vector_search
from attncap.retrieval.database import ImageDatabase
from attncap.retrieval.hnsw import NeighborGraph
from attncap.retrieval.index import DifferenceHash, ImageIndex
from attncap.retrieval.search import CosineSearch, HashSearch

ROOT = Path(__file__).resolve().parents[2]


def picture(seed: int, size: tuple[int, int] = (67, 53)) -> Image.Image:
    """A smooth random picture: the same on every machine, for it is drawn in whole numbers."""
    coarse = np.random.default_rng(seed).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


class Plain:
    """An encoder without a network: the mean colors of 11 stripes."""

    measure, size = "cosine_similarity", 11

    def describe(self) -> dict[str, Any]:
        return {"encoder": "stripes", "size": self.size}

    def encode(self, pictures: Any, progress: bool = False) -> list[Any]:
        opened = [item if isinstance(item, Image.Image) else Image.open(item) for item in pictures]
        return [np.asarray(item.convert("L").resize((11, 1)), np.float32).ravel() - 128.5 for item in opened]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed in range(7):
        picture(seed).save(tmp_path / f"{seed}.png")
    return tmp_path


def filled(folder: Path, encoder: Any = None, file: str = "index.db") -> ImageIndex:
    index = ImageIndex(folder / file, encoder or DifferenceHash(64))
    rejects = index.add(
        [folder / f"{n}.png" for n in range(7)], [[f"label {n}", "seven"] for n in range(7)], progress=False
    )
    assert rejects.empty
    return index


# ---------------------------------------------------------------- hashes


def test_a_hash_by_hand() -> None:
    # 3 x 2 pixels, which (n + 1) x n = 3 x 2 leaves as they are: 10 < 20 > 5, 7 < 9 < 200.
    grey = Image.fromarray(np.array([[10, 20, 5], [7, 9, 200]], np.uint8))
    assert DifferenceHash(4).hex(grey) == "b0"  # 1011
    rising = Image.fromarray(np.tile(np.arange(90, dtype=np.uint8), (80, 1)))
    assert DifferenceHash(64).hex(rising) == "f" * 16
    assert DifferenceHash(128).hex(rising) == "f" * 16 + "0" * 16  # nothing changes downward


def test_hashes_are_those_of_imagehash() -> None:
    recorded = {64: GOLDEN_64, 128: GOLDEN_128, 256: GOLDEN_256}
    assert {bits: DifferenceHash(bits).hex(picture(3)) for bits in recorded} == recorded
    imagehash = pytest.importorskip("imagehash")
    assert str(imagehash.dhash(picture(3))) == GOLDEN_64
    assert str(imagehash.dhash(picture(3), 16)) == GOLDEN_256


GOLDEN_64 = "0c0733030f333330"
GOLDEN_128 = "0c0733030f3333300118fee7181feee0"
GOLDEN_256 = "00e000e000fff01f0f1f0f0f0f0f707f60ff001f071f0f1fdf9f0f8f07800700"


@pytest.mark.parametrize(("bits", "named"), [(56, "50, 64"), (0, "4, 4"), (100_000, "8192, 8192")])
def test_other_sizes_are_refused(bits: int, named: str) -> None:
    with pytest.raises(ValueError, match=f"dhash: {bits} bits: .*such as {named}"):
        DifferenceHash(bits)


# ---------------------------------------------------------------- search


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 5, 8, 13, 40]), st.integers(1, 30), st.booleans())
def test_hash_search_is_all_pairs(seed: int, width: int, k: int, leave_out: bool) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, (23, width)).astype(np.uint8)  # few values: many equal distances
    queries = codes[3:10]
    bits = np.unpackbits(codes, axis=1).astype(int)
    distances = (bits[3:10, None] != bits[None]).sum(2).astype(float)
    without = np.arange(3, 10) if leave_out else None
    if leave_out:
        distances[np.arange(7), np.arange(3, 10)] = np.inf
    k = min(k, 23 - leave_out)
    expected = np.argsort(distances, axis=1, kind="stable")[:, :k]
    rows, found = HashSearch(codes).nearest(queries, k, without)
    assert rows.tolist() == expected.tolist()
    assert found.tolist() == np.take_along_axis(distances, expected, 1).tolist()


def test_hashes_of_more_than_255_bits_do_not_wrap() -> None:
    codes = np.array([[255] * 64, [0] * 64], np.uint8)
    rows, distances = HashSearch(codes).nearest(np.zeros((1, 64), np.uint8), 2)
    assert (rows.tolist(), distances.tolist()) == ([[1, 0]], [[0.0, 512.0]])


@pytest.mark.parametrize("spectrum", [0.0, 1.5])
@pytest.mark.parametrize("block", [2, 64])
def test_cosine_search_is_all_pairs(monkeypatch: pytest.MonkeyPatch, spectrum: float, block: int) -> None:
    monkeypatch.setattr(vector_search, "QUERY_BLOCK", block)
    rng = np.random.default_rng(5)
    scales = np.arange(1, 38) ** -spectrum
    vectors = (rng.standard_normal((211, 37)) * scales).astype(np.float16)
    queries = (rng.standard_normal((5, 37)) * scales).astype(np.float32)
    exact = vectors.astype(float) / np.linalg.norm(vectors.astype(float), axis=1, keepdims=True)
    cosines = queries @ exact.T / np.linalg.norm(queries, axis=1, keepdims=True)
    expected = np.argsort(-cosines, axis=1)[:, :17]
    search = CosineSearch(vectors)
    rows, distances = search.nearest(queries, 17)
    assert rows.tolist() == expected.tolist()
    assert distances == pytest.approx(1 - np.take_along_axis(cosines, expected, 1), abs=1e-6)
    assert search.distances(queries[0], rows[0]) == pytest.approx(distances[0], abs=1e-6)


def test_equal_vectors_come_by_row() -> None:
    vectors = np.random.default_rng(2).standard_normal((1009, 37)) * np.arange(1, 38) ** -1.5
    vectors[[700, 41, 903]] = vectors[500]
    rows, distances = CosineSearch(vectors).nearest(vectors[500:501], 4)
    assert rows.tolist() == [[41, 500, 700, 903]]
    assert distances[0] == pytest.approx(np.zeros(4), abs=1e-6)


def test_vectors_without_direction_are_refused() -> None:
    with pytest.raises(ValueError, match="embedding of row 1: finite values, not all zero"):
        CosineSearch(np.array([[1, 2], [0, 0]]))
    with pytest.raises(ValueError, match="query embedding"):
        CosineSearch(np.eye(2)).nearest(np.array([[np.nan, 1]]), 1)


def test_the_graph_finds_what_is_near_and_survives_its_file(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 256, (499, 8)).astype(np.uint8)
    vectors = rng.standard_normal((499, 29)).astype(np.float32)
    for search, codes in ((HashSearch(bits), bits), (CosineSearch(vectors), vectors)):
        graph = NeighborGraph.build(search, codes)
        graph.save(tmp_path / "g.graph", "these rows")
        again = NeighborGraph.load(tmp_path / "g.graph", search, "these rows")
        exact, distances = search.nearest(codes[:101], 3)
        for made in (graph, again):
            rows, found = made.nearest(codes[:101], 3)
            assert np.isclose(found, distances, atol=1e-6).mean() > 0.95
            assert rows[:, 0].tolist() == exact[:, 0].tolist()
        with pytest.raises(ValueError, match=r"g\.graph: the graph was built on other entries"):
            NeighborGraph.load(tmp_path / "g.graph", search, "others")
        content = bytearray((tmp_path / "g.graph").read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / "g.graph").write_bytes(content)
        with pytest.raises(ValueError, match=r"g\.graph: not a neighbor graph, or damaged"):
            NeighborGraph.load(tmp_path / "g.graph", search, "these rows")


# ---------------------------------------------------------------- the index


@pytest.mark.parametrize("encoder", [DifferenceHash(64), DifferenceHash(128), Plain()])
def test_an_index_finds_and_remembers(folder: Path, encoder: Any) -> None:
    with filled(folder, encoder) as index:
        nearest = index.query(folder / "3.png", k=3)
        assert (nearest[0].image_id, nearest[0].labels) == ("3.png", ("label 3", "seven"))
        assert nearest[0].distance == pytest.approx(0, abs=1e-3)
        assert [n.distance for n in nearest] == sorted(n.distance for n in nearest)
        assert len(index.query(picture(3), k=50)) == 7
        rows, distances = index.nearest_others(2)
        assert rows.shape == (7, 2) and (rows != np.arange(7)[:, None]).all() and (distances > 0).all()
        index.threshold = 0.01
    with ImageIndex.load(folder / "index.db", encoder) as again:
        assert again.threshold == 0.01
        assert again.label(picture(3)) == ("label 3", "seven")
        assert again.label(picture(99)) is None  # beyond the threshold: no matching label
        again.threshold = None
        assert again.label(picture(99)) is not None
        again.save(folder / "copy.db")
    with ImageIndex.load(folder / "copy.db", encoder) as copy:
        assert len(copy) == 7 and copy.query(picture(5))[0].image_id == "5.png"


def test_adding_is_incremental(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = filled(folder)
    encoded: list[Any] = []
    code = DifferenceHash.encode

    def counted(self: DifferenceHash, pictures: Any, progress: bool = False) -> list[Any]:
        encoded.extend(pictures)
        return code(self, pictures)

    monkeypatch.setattr(DifferenceHash, "encode", counted)
    files = [folder / f"{n}.png" for n in range(7)]
    labels = [[f"label {n}", "seven"] for n in range(7)]
    index.add(files, labels, progress=False)
    assert encoded == []  # nothing is new
    before = index.query(picture(2))[0]
    picture(50).save(files[2])  # other bytes
    labels[4] = ["new words"]
    index.add(files, labels, progress=False)
    assert encoded == [picture(2), files[2], files[4]]
    assert len(index) == 7 and before.distance == 0 and index.query(picture(2))[0].distance > 0
    assert index.query(picture(50))[0].image_id == "2.png"
    assert index.query(picture(4))[0].labels == ("new words",)


def test_what_cannot_be_decoded_is_named(folder: Path) -> None:
    index = filled(folder)
    (folder / "bad.png").write_bytes((folder / "1.png").read_bytes()[:200])
    rejects = index.add([folder / "bad.png", folder / "gone.png"], [[], []], progress=False)
    assert rejects["image_id"].tolist() == ["gone.png", "bad.png"]
    assert rejects["reason"].str.contains("no such file|truncated or damaged").all() and len(index) == 7
    with pytest.raises(UnreadableImage, match=r"bad\.png: truncated or damaged"):
        index.query(folder / "bad.png")


def test_an_index_in_memory_and_codes_that_are_there() -> None:
    index = ImageIndex(None, Plain())
    index.add_codes(["a", "b"], [["left"], ["right"]], np.eye(2, 11, dtype=np.float32) * 7)
    rows, distances = index.nearest(np.array([[0, 2.0] + [0] * 9]), 2)
    assert index.entries(rows[0]) == [("b", ("right",)), ("a", ("left",))]
    assert distances.tolist() == [[0.0, 1.0]]
    with pytest.raises(ValueError, match=r"codes of shape \(N, 11\) expected, got \(1, 3\)"):
        index.add_codes(["c"], [[]], np.ones((1, 3)))
    with pytest.raises(ValueError, match="embedding 0: expected finite values"):
        index.add_codes(["c"], [[]], np.full((1, 11), np.inf))
    with pytest.raises(ValueError, match="two images are called 'c': give each image once"):
        index.add_codes(["c", "c"], [[], []], np.ones((2, 11)))
    with pytest.raises(ValueError, match="labels 'left': expected a list of labels"):
        index.add_codes(["c"], ["left"], np.ones((1, 11)))
    with pytest.raises(ValueError, match="not text that a database can hold"):
        index.add_codes(["\udcff"], [[]], np.ones((1, 11)))
    with pytest.raises(ValueError, match="k is 1 or more, got 0"):
        index.nearest(np.ones((1, 11)), 0)


def test_images_that_are_gone_or_broken_leave_the_index(folder: Path) -> None:
    index = ImageIndex(folder / "sync.db", DifferenceHash(64))
    paths = sorted(folder.glob("*.png"))[:4]
    names = [path.name for path in paths]
    index.add(paths, [["x"]] * 4, source="a", progress=False)
    index.add(paths[2:3], [["x"]], source="b", progress=False)
    index.nearest(index.codes[:1])  # codes are in memory
    index.add(paths[:2], [["x"]] * 2, source="a", progress=False)  # two are gone, of which b lists one
    assert sorted(image_id for image_id, _ in index.entries()) == names[:3]
    assert len(index.codes) == 3 and len(index.query(paths[0], 9)) == 3
    index.add(paths[2:3], [["x"]], source="b", progress=False)
    paths[0].write_bytes(b"broken")
    rejects = index.add(paths[:2], [["x"]] * 2, source="a", progress=False)
    assert rejects["image_id"].tolist() == names[:1]
    assert sorted(image_id for image_id, _ in index.entries()) == names[1:3]
    assert index.remove(names) == 2 and len(index) == 0


def test_plain_images_do_not_match_each_other(tmp_path: Path) -> None:
    for name, color in (("red", (200, 0, 0)), ("blue", (0, 0, 200))):
        Image.new("RGB", (31, 23), color).save(tmp_path / f"{name}.png")
    Image.linear_gradient("L").rotate(90).save(tmp_path / "gradient.png")
    index = ImageIndex(None, DifferenceHash(64))
    index.add([tmp_path / "red.png", tmp_path / "gradient.png"], [["red"], ["gradient"]], progress=False)
    assert index.without_content == ["red.png"]
    assert index.query(tmp_path / "blue.png")[0].distance == 0
    assert index.label(tmp_path / "blue.png") is None
    assert index.label(tmp_path / "gradient.png") == ("gradient",)


def test_an_empty_index_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"e\.db: 0 images in it, at least 1 needed; add images first"):
        ImageIndex(tmp_path / "e.db", DifferenceHash()).query(picture(0))
    with pytest.raises(FileNotFoundError, match=r"f\.db: no such image index: build it first"):
        ImageIndex.load(tmp_path / "f.db")


def test_another_encoder_is_refused_by_name(folder: Path) -> None:
    filled(folder).close()
    with pytest.raises(
        ValueError, match=r"index\.db: holds codes of encoder dhash, bits 64; encoder dhash, bits 256 was"
    ):
        ImageIndex(folder / "index.db", DifferenceHash(256))
    with pytest.raises(ValueError, match=r"index\.db: .*encoder stripes, size 11 was asked for"):
        ImageIndex.load(folder / "index.db", Plain())
    filled(folder, Plain(), "stripes.db").close()
    with pytest.raises(ValueError, match=r"stripes\.db: holds embeddings of encoder stripes.*pass that encoder"):
        ImageIndex.load(folder / "stripes.db")


# ---------------------------------------------------------------- damage, kills, two processes


def test_other_files_are_refused_by_name(folder: Path) -> None:
    (folder / "text.db").write_text("image,label\n" * 200)
    (folder / "empty.db").touch()
    with sqlite3.connect(folder / "other.db") as other:
        other.execute("CREATE TABLE entries (a)")
    for name, why in (("text", "file is not a database"), ("empty", "an empty file"), ("other", "another program")):
        with pytest.raises(ValueError, match=rf"{name}\.db: not an image index.*{why}"):
            ImageIndex.load(folder / f"{name}.db")
    with pytest.raises(ValueError, match=r"other\.db: not an image index, but the database of another program"):
        ImageIndex(folder / "other.db", DifferenceHash())


def test_a_changed_byte_anywhere_gives_no_wrong_answer(folder: Path) -> None:
    index = filled(folder)
    truth = [(n.image_id, n.labels) for n in index.query(picture(3), 7)]
    index.close()
    whole = (folder / "index.db").read_bytes()
    refused = 0
    for at in range(0, len(whole), 149):
        broken = bytearray(whole)
        broken[at] ^= 0x55
        (folder / "broken.db").write_bytes(broken)
        try:
            with ImageIndex.load(folder / "broken.db") as opened:
                answer = [(n.image_id, n.labels) for n in opened.query(picture(3), 7)]
            assert answer == truth, at
        except (ValueError, OSError) as error:
            refused += 1
            assert "broken.db" in str(error) and "\n" not in str(error)
    assert refused > 5


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_file_that_is_cut_off_is_refused(folder: Path, share: float) -> None:
    filled(folder).close()
    whole = (folder / "index.db").read_bytes()
    (folder / "cut.db").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"cut\.db: not an image index, or damaged"):
        ImageIndex.load(folder / "cut.db").query(picture(1))


ADDER = """
import sys
import numpy as np
from attncap.retrieval.index import DifferenceHash, ImageIndex
index = ImageIndex(sys.argv[1], DifferenceHash(64))
for n in range(int(sys.argv[3])):
    index.add_codes([f"{sys.argv[2]}{n}"], [["word"]], np.full((1, 8), n % 256, np.uint8))
    print(n, flush=True)
"""


def adder(file: Path, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ADDER, str(file), name, str(count)], stdout=subprocess.PIPE, text=True
    )


def test_a_killed_process_loses_no_committed_entry(tmp_path: Path) -> None:
    file = tmp_path / "killed.db"
    process = adder(file, "a", 100_000)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 40:
            break
    os.kill(process.pid, signal.SIGKILL)
    said = [int(line) for line in process.stdout.read().split() if line.isdecimal()]
    process.wait()
    with ImageIndex.load(file) as index:
        assert len(index) >= max([40, *said]) + 1
        assert len(index.codes) == len(index)  # every check sum is right
        index.add_codes(["later"], [[]], np.zeros((1, 8), np.uint8))


def test_two_processes_add_at_once_and_see_each_other(tmp_path: Path) -> None:
    file = tmp_path / "both.db"
    index = ImageIndex(file, DifferenceHash(64))
    index.add_codes(["mine"], [["word"]], np.full((1, 8), 255, np.uint8))
    assert index.nearest(np.zeros((1, 8), np.uint8))[1].tolist() == [[64.0]]
    both = [adder(file, name, 30) for name in "ab"]
    assert [process.wait(60) for process in both] == [0, 0]
    assert len(index) == 61
    assert index.nearest(np.zeros((1, 8), np.uint8))[1].tolist() == [[0.0]]  # the others' entries are seen


def test_who_waits_for_another_writer_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    database = ImageDatabase(tmp_path / "busy.db", {"encoder": "dhash", "bits": 64}, create=True)
    other = sqlite3.connect(tmp_path / "busy.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: (time.sleep(1.5), other.execute("ROLLBACK")))
        database.set_about("threshold", 3)
    assert database.about("threshold") == 3
    assert capsys.readouterr().err.endswith("busy.db: another process writes to it; waiting until it is done\n")


def test_an_index_that_cannot_be_written_is_searched(tmp_path: Path) -> None:
    file = tmp_path / "kept" / "people.db"
    with ImageIndex(file, DifferenceHash(64)) as index:
        index.add_codes(["a"], [["word"]], np.zeros((1, 8), np.uint8))
    code = (
        "import os, sys; from attncap.retrieval.index import ImageIndex\n"
        "ImageIndex.load(sys.argv[1]).entries()  # imports all that it needs, which nobody may not read everywhere\n"
        "if os.getuid() == 0: os.setuid(65534)  # root may write anywhere, nobody may not\n"
        "index = ImageIndex.load(sys.argv[1]); assert index.entries() == [('a', ('word',))]; print(index.threshold)\n"
        "try: index.threshold = 3\n"
        "except OSError as error: print('people.db: cannot be read or written' in str(error))\n"
    )
    os.chmod(file, 0o444), os.chmod(file.parent, 0o555)
    if os.getuid() == 0:
        for folder in (tmp_path, *tmp_path.parents):
            if folder.is_relative_to(tempfile.gettempdir()) and folder != Path(tempfile.gettempdir()):
                os.chmod(folder, 0o755)  # pytest's own folders
    done = subprocess.run([sys.executable, "-c", code, str(file)], cwd=ROOT, capture_output=True, text=True)
    os.chmod(file.parent, 0o755)
    assert done.stdout.split() == ["None", "True"], done.stderr


def test_a_writer_that_does_not_end_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attncap.retrieval.database.WAIT_SECONDS", 0.1)
    database = ImageDatabase(tmp_path / "busy.db", {"encoder": "dhash", "bits": 64}, create=True)
    other = sqlite3.connect(tmp_path / "busy.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    start = time.monotonic()
    with pytest.raises(OSError, match=r"busy\.db: another process has been writing"):
        database.set_about("threshold", 3)
    assert time.monotonic() - start < 5
    other.execute("ROLLBACK")
    database.set_about("threshold", 3)
    assert database.about("threshold") == 3
