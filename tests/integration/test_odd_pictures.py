"""Some 140 odd pictures end as what a person sees or as a listed reject: here, in `attncap check` and in the store."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from attncap import images as pictures
from attncap.data.load import check, load
from attncap.features.store import FeatureStore
from attncap.images import UnreadableImage, open_image
from tests.features.test_store import FakeExtractor
from tests.odd_pictures import REFUSED, SEEN, Odd, can_be_made, jpeg, many_scans, noise, segment, with_segments
from tests.test_images import encoded, png, quarters, turned, with_alpha

CORPUS = {name: odd for name, odd in {**SEEN, **REFUSED}.items() if can_be_made(name)}
SEEN_NAMES = [name for name in SEEN if name in CORPUS]
REFUSED_NAMES = [name for name in REFUSED if name in CORPUS]
GIGABYTE = 2**30

pytestmark = [
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # Pillow's, of what is damaged: the error here says it as well
]


def test_there_are_many() -> None:
    assert len(SEEN) >= 60 and len(REFUSED) >= 60


@pytest.mark.parametrize("name", SEEN_NAMES)
def test_what_can_be_seen_is_seen(name: str) -> None:
    odd = CORPUS[name]
    picture = open_image(name, odd.make())
    assert (picture.mode, picture.size) == ("RGB", odd.size)
    width, height = odd.size
    places = [(int(x * width), int(y * height)) for y in (0.2, 0.9) for x in (0.2, 0.9)]
    for place, color in zip(places, odd.colors or (), strict=False):
        assert picture.getpixel(place) == pytest.approx(color, abs=odd.tolerance), place


@pytest.mark.parametrize("name", REFUSED_NAMES)
def test_what_cannot_be_seen_says_why(name: str) -> None:
    with pytest.raises(UnreadableImage, match=REFUSED[name].reason) as caught:
        open_image(name, CORPUS[name].make())
    assert str(caught.value).startswith(f"{name}: ") and "\n" not in str(caught.value)


def write_corpus(folder: Path, corpus: dict[str, Odd]) -> Path:
    """The pictures in `images`, and a table with a caption of each."""
    (folder / "images").mkdir()
    for name, odd in corpus.items():
        (folder / "images" / name).write_bytes(odd.make())
    table = folder / "captions.csv"
    pd.DataFrame({"file": list(corpus), "caption": [f"what {name} shows" for name in corpus]}).to_csv(
        table, index=False
    )
    return table


def test_check_and_the_store_list_the_same_ones(tmp_path: Path) -> None:
    data = load(f"table:{write_corpus(tmp_path, CORPUS)}")
    clean, report = check(data, workers=2, progress=False)
    assert sorted(clean.pictures["image_id"]) == sorted(SEEN_NAMES)
    rejected = report[report["kind"] == "unreadable image"]
    assert sorted(rejected["image_id"]) == sorted(REFUSED_NAMES)
    for image_id, reason in zip(rejected["image_id"], rejected["reason"], strict=True):
        assert re.search(REFUSED[image_id].reason, reason), (image_id, reason)
    assert (report["kind"] == "caption of a rejected image").sum() == len(REFUSED_NAMES)

    store = FeatureStore(tmp_path / "features", FakeExtractor())
    unreadable = store.extract(list(data.pictures["path"]), progress=False)
    assert [Path(path).name for path in unreadable["path"]] == list(rejected["image_id"])
    kept = store.get(list(clean.pictures["path"]))
    assert len(kept) == len(SEEN_NAMES) and np.isfinite(kept).all()
    store.close()


def limited(command: list[str], memory: int, seconds: float) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own that may take so much memory and time."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))

    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}
    return subprocess.run(
        [sys.executable, "-m", "attncap", *command],
        capture_output=True,
        text=True,
        timeout=seconds,
        preexec_fn=limit,
        env=environment,
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS holds on Linux alone")
def test_the_command_line_checks_them_all_within_bounds(tmp_path: Path) -> None:
    contents = png(7000, 6000, bytes((4 * 7000 + 1) * 6000), 8, 6)  # 42 million pixels in 170 KB
    large = {f"large {n}.png": Odd(lambda: contents) for n in range(3)}
    table = write_corpus(tmp_path, {**CORPUS, **large})
    done = limited(["check", "--data", f"table:{table}", "--out", str(tmp_path / "rejects.csv")], 4 * GIGABYTE, 120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr and f"{len(SEEN_NAMES) + 3} images" in done.stdout
    listed = pd.read_csv(tmp_path / "rejects.csv")
    assert sorted(listed.loc[listed["table"] == "pictures", "image_id"]) == sorted(REFUSED_NAMES)
    assert not listed["reason"].str.contains("not enough memory").any()


def test_scans_are_counted_up_to_the_end_of_the_picture() -> None:
    assert open_image("p.jpg", many_scans(3)).size == (2000, 2000)
    film = jpeg() + b"\xff\xda\0\2" * 1000  # as telephones append one
    comment = with_segments(jpeg(), segment(0xFE, b"\xff\xda" * 1000))
    for data in (film, comment):
        assert open_image("p.jpg", data).size == (23, 13)


def test_large_pictures_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "LARGE_PIXELS", 23 * 13 - 1)
    held = []
    decoded = pictures._decoded
    monkeypatch.setattr(
        pictures, "_decoded", lambda picture: held.append(pictures._one_large_image.locked()) or decoded(picture)
    )
    open_image("large.png", encoded(quarters(), "PNG"))
    open_image("small.png", encoded(quarters().crop((0, 0, 23, 12)), "PNG"))
    with pytest.raises(UnreadableImage):
        open_image("cut.png", noise("PNG")[:900])
    assert held == [True, False, True] and not pictures._one_large_image.locked()


# ---------------------------------------------------------------- any bytes

WHOLE = [
    jpeg(),
    jpeg(quarters("CMYK"), progressive=True),
    turned(6),
    encoded(quarters(), "PNG"),
    encoded(with_alpha("RGBA", 51), "PNG"),
    encoded(quarters().quantize(8), "PNG", transparency=1),
    encoded(Image.fromarray(np.arange(35, dtype=np.uint16).reshape(5, 7) * 1871), "PNG"),
    encoded(quarters().quantize(8), "GIF", save_all=True, append_images=[quarters().quantize(8)] * 2),
    encoded(quarters(), "WEBP"),
    encoded(quarters(), "BMP"),
    encoded(quarters(), "TIFF"),
    encoded(quarters(), "TIFF", compression="tiff_lzw"),
    encoded(Image.fromarray(np.linspace(0, 1, 35, dtype=np.float32).reshape(5, 7)), "TIFF"),
    encoded(quarters(), "PPM"),
    noise("JPEG"),
]


@st.composite
def damaged(draw: st.DrawFn, whole: list[bytes]) -> bytes:
    """One of `whole` with bytes changed, cut, repeated, or put together from two."""
    data = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["change", "change", "cut", "insert", "repeat", "join"]))
        if kind == "change" and data:
            data[at] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 400))]
        elif kind == "insert":
            data[at:at] = draw(st.sampled_from([b"\0" * 4, b"\xff" * 4, b"\xff\xda", b"\x7f\xff\xff\xff", b"\n"]))
        elif kind == "repeat":
            data[at:at] = data[at : at + 99]
        else:
            data[at:] = draw(st.sampled_from(whole))[at:]
    return bytes(data)


def is_seen_or_refused(data: bytes) -> None:
    for target_size in (None, (9, 9)):
        try:
            picture = open_image("odd.jpg", data, max_pixels=1_000_000, target_size=target_size)
            assert picture.mode == "RGB" and np.asarray(picture).shape == (*picture.size[::-1], 3)
        except UnreadableImage as error:
            assert str(error).startswith("odd.jpg: ") and "\n" not in str(error)


@settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(data=damaged(WHOLE))
def test_any_bytes_are_seen_or_refused(data: bytes) -> None:
    is_seen_or_refused(data)


@pytest.mark.slow
@settings(max_examples=30_000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(data=damaged(WHOLE))
def test_many_more_bytes_are_seen_or_refused(data: bytes) -> None:
    is_seen_or_refused(data)
