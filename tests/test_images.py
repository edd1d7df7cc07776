"""Odd pictures come out as a person sees them, or are refused by name; nothing hangs, nothing is guessed."""

import io
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, ImageOps

from attncap import images
from attncap.images import UnreadableImage, image_bytes, open_image

RED, GREEN, BLUE, WHITE, BLACK = (230, 20, 30), (20, 200, 40), (25, 35, 220), (255, 255, 255), (0, 0, 0)
WIDTH, HEIGHT = 23, 13  # different primes: a transposed picture cannot hide


def quarters(mode: str = "RGB") -> Image.Image:
    """Red top left, green top right, blue bottom left, white bottom right."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), WHITE)
    for color, place in ((RED, (0, 0)), (GREEN, (12, 0)), (BLUE, (0, 7))):
        picture.paste(color, (*place, place[0] + 12, place[1] + 7))
    return picture.convert(mode)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def turned(orientation: int, kind: str = "JPEG") -> bytes:
    """A file whose pixels are stored turned, and whose EXIF says so: it is seen as `quarters`."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the Transpose that each orientation stands for, undone
    stored = quarters().transpose(Image.Transpose(undo[orientation]))
    return encoded(stored, kind, exif=exif, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}))


def chunk(name: bytes, contents: bytes) -> bytes:
    return struct.pack(">I", len(contents)) + name + contents + struct.pack(">I", zlib.crc32(name + contents))


def png(width: int, height: int, rows: bytes, depth: int = 8, color: int = 2) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def palette_with_transparency() -> bytes:
    picture = quarters().quantize(8)
    return encoded(picture, "PNG", transparency=picture.getpixel((1, 1)))  # the red becomes transparent


def with_alpha(mode: str, alpha: int) -> Image.Image:
    picture = quarters("L" if mode == "LA" else "RGB").convert(mode)
    layer = Image.new("L", (WIDTH, HEIGHT), 255)
    layer.paste(alpha, (0, 0, 12, 7))  # over the red quarter
    picture.putalpha(layer)
    return picture


def grey16() -> Image.Image:
    values = np.full((HEIGHT, WIDTH), 257 * 200, dtype=np.uint16)
    values[:7, :12], values[:7, 12:], values[7:, :12] = 0, 257 * 31, 65535
    return Image.fromarray(values)


def float_grey(scale: float) -> bytes:
    return encoded(Image.fromarray(np.asarray(grey16()).astype(np.float32) / np.float32(65535) * scale), "TIFF")


def animation() -> bytes:
    return encoded(quarters(), "GIF", save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT), BLACK)] * 3)


def swapped_profile() -> bytes:
    """An RGB profile whose red and green primaries are exchanged (in the bytes of its tag table)."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    return swapped.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")).replace(b"sRGB", b"swap")


GREY = {color: (round(0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]),) * 3 for color in (RED, GREEN, BLUE)}
AS_IS = (RED, GREEN, BLUE, WHITE)
GREYS = (GREY[RED], GREY[GREEN], GREY[BLUE], WHITE)
SIXTEEN = (BLACK, (31,) * 3, WHITE, (200,) * 3)

# name: (contents, colors seen top left, top right, bottom left, bottom right; tolerance)
SEEN: dict[str, tuple[Callable[[], bytes], tuple[tuple[int, ...], ...] | None, int]] = {
    "plain.png": (lambda: encoded(quarters(), "PNG"), AS_IS, 0),
    "plain.jpg": (lambda: encoded(quarters(), "JPEG", quality=95, subsampling=0), AS_IS, 12),
    "progressive.jpg": (lambda: encoded(quarters(), "JPEG", quality=95, subsampling=0, progressive=True), AS_IS, 12),
    "lossless.webp": (lambda: encoded(quarters(), "WEBP", lossless=True), AS_IS, 0),
    "plain.bmp": (lambda: encoded(quarters(), "BMP"), AS_IS, 0),
    "wrong ending.jpg": (lambda: encoded(quarters(), "PNG"), AS_IS, 0),
    "jpeg without ending": (lambda: encoded(quarters(), "JPEG", quality=95, subsampling=0), AS_IS, 12),
    "cmyk.jpg": (lambda: encoded(quarters("CMYK"), "JPEG", quality=95), AS_IS, 12),
    "cmyk.tif": (lambda: encoded(quarters("CMYK"), "TIFF"), AS_IS, 1),
    "palette.gif": (lambda: encoded(quarters().quantize(8), "GIF"), AS_IS, 3),
    "palette with transparency.png": (palette_with_transparency, (WHITE, GREEN, BLUE, WHITE), 3),
    "grey.jpg": (lambda: encoded(quarters("L"), "JPEG", quality=95), GREYS, 4),
    "grey with alpha.png": (lambda: encoded(with_alpha("LA", 0), "PNG"), (WHITE, *GREYS[1:]), 1),
    "alpha.png": (lambda: encoded(with_alpha("RGBA", 0), "PNG"), (WHITE, GREEN, BLUE, WHITE), 0),
    # over white, a fifth of red: 255 + (230 - 255) / 5, and so on
    "faint alpha.png": (lambda: encoded(with_alpha("RGBA", 51), "PNG"), ((250, 208, 210), GREEN, BLUE, WHITE), 1),
    "alpha.webp": (lambda: encoded(with_alpha("RGBA", 0), "WEBP", lossless=True), (WHITE, GREEN, BLUE, WHITE), 0),
    "16 bit.png": (lambda: encoded(grey16(), "PNG"), SIXTEEN, 0),
    "16 bit.tif": (lambda: encoded(grey16(), "TIFF"), SIXTEEN, 0),
    "16 bit.pgm": (lambda: encoded(grey16(), "PPM"), SIXTEEN, 0),
    "16 bit white is zero.tif": (
        lambda: encoded(grey16(), "TIFF", tiffinfo={262: 0}),
        (WHITE, (224,) * 3, BLACK, (55,) * 3),
        0,
    ),
    "32 bit.tif": (lambda: encoded(Image.fromarray(np.asarray(grey16()).astype(np.int32)), "TIFF"), SIXTEEN, 0),
    "float to 1.tif": (lambda: float_grey(1.0), SIXTEEN, 0),
    "float to 255.tif": (lambda: float_grey(255.0), SIXTEEN, 0),
    "1 bit.png": (
        lambda: encoded(quarters("L").point(lambda v: 255 * (v > 100)).convert("1"), "PNG"),
        ((0,) * 3, WHITE, BLACK, WHITE),
        0,
    ),
    "animation.gif": (animation, AS_IS, 3),
    "swapped profile.png": (lambda: encoded(quarters(), "PNG", icc_profile=swapped_profile()), None, 0),
    "damaged profile.png": (lambda: encoded(quarters(), "PNG", icc_profile=b"no profile"), AS_IS, 0),
    "profile of another space.png": (lambda: encoded(quarters("L"), "PNG", icc_profile=swapped_profile()), GREYS, 1),
    "damaged exif.jpg": (
        lambda: encoded(quarters(), "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0II*\0\xff\xff"),
        AS_IS,
        12,
    ),
    **{f"orientation {n}.jpg": (partial(turned, n), AS_IS, 12) for n in range(2, 9)},
    "orientation 6.png": (lambda: turned(6, "PNG"), AS_IS, 0),
    "orientation 8.tif": (lambda: turned(8, "TIFF"), AS_IS, 0),
    "orientation 5.webp": (lambda: turned(5, "WEBP"), AS_IS, 40),
}


@pytest.mark.parametrize("name", SEEN)
def test_odd_pictures_come_out_as_a_person_sees_them(name: str, tmp_path: Path) -> None:
    make, colors, tolerance = SEEN[name]
    path = tmp_path / name
    path.write_bytes(make())
    picture = open_image(path)
    assert (picture.mode, picture.size) == ("RGB", (WIDTH, HEIGHT))
    if colors is None:  # the primaries exchanged: what is stored as red is green, near enough
        pixels = np.asarray(picture)
        red, green = pixels[3, 3], pixels[3, 20]
        assert red[1] > 150 > red[0] and green[0] > 150 > green[1]
        return
    for place, color in zip(((3, 3), (20, 3), (3, 11), (20, 11)), colors, strict=True):
        assert picture.getpixel(place) == pytest.approx(color, abs=tolerance), (name, place)
    same = open_image(path, path.read_bytes())
    assert np.array_equal(np.asarray(same), np.asarray(picture))


def test_cmyk_jpeg_of_adobe_and_of_others_is_read_as_browsers_do() -> None:
    contents = encoded(quarters("CMYK"), "JPEG", quality=95)
    marker = contents.index(b"\xff\xee")
    length = struct.unpack(">H", contents[marker + 2 : marker + 4])[0]
    without_marker = contents[:marker] + contents[marker + 2 + length :]
    assert b"Adobe" in contents and b"Adobe" not in without_marker
    for data in (contents, without_marker):
        assert open_image("cmyk.jpg", data).getpixel((3, 3)) == pytest.approx(RED, abs=12)


def test_sixteen_bit_transparent_color_is_compared_at_sixteen_bits() -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 1, 16, 0, 0, 0, 0))
    rows = zlib.compress(b"\0" + struct.pack(">HHH", 1000, 1001, 65535))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"tRNS", struct.pack(">H", 1001)) + chunk(b"IDAT", rows)
    picture = open_image("grey.png", data + chunk(b"IEND", b""))
    assert [picture.getpixel((x, 0)) for x in range(3)] == [(4, 4, 4), WHITE, WHITE]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0))
    rows = zlib.compress(b"\0" + struct.pack(">6H", 5140, 257, 771, 2570, 257, 771))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"tRNS", struct.pack(">3H", 5140, 257, 771)) + chunk(b"IDAT", rows)
    picture = open_image("color.png", data + chunk(b"IEND", b""))
    assert [picture.getpixel((x, 0)) for x in range(2)] == [WHITE, (10, 1, 3)]


def test_float_picture_with_gaps_and_wide_range_is_stretched() -> None:
    values = np.array([[np.nan, -10.0, 0.0, 990.0, np.inf]], dtype=np.float32)
    picture = open_image("f.tif", encoded(Image.fromarray(values), "TIFF"))
    # finite values from -10 to 990: 0 -> 10/1000 of 255 = 2.55 -> 3
    assert [picture.getpixel((x, 0)) for x in range(5)] == [BLACK, BLACK, (3, 3, 3), WHITE, WHITE]


@pytest.mark.parametrize("size", [(1, 997), (997, 1), (1, 1)])
def test_thin_pictures(size: tuple[int, int]) -> None:
    assert open_image("thin.png", encoded(Image.new("RGB", size, RED), "PNG")).size == size


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated_pictures_are_refused_by_name(kind: str, share: float, tmp_path: Path) -> None:
    noise = np.random.default_rng(7).integers(0, 256, (61, 67, 3), dtype=np.uint8)
    contents = encoded(Image.fromarray(noise), kind)
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(contents[: int(len(contents) * share)])
    with pytest.raises(UnreadableImage, match=rf"cut\.{kind}: (truncated or damaged|not an image)"):
        open_image(path)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (b"", "empty file"),
        (b"<html>not found</html>", "not an image"),
        (b"\xff\xd8\xff" + b"\0" * 90, "not an image|truncated or damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (png(30000, 30000, b"")[:200], "decoded: make it smaller"),
        (png(11000, 11000, b""), "11000x11000 pixels, at most 100,000,000 are decoded"),
        (png(7, 5, b"\0" * 3), "truncated or damaged"),
    ],
    ids=["empty", "html", "jpeg start", "eps", "beyond pillow", "beyond the limit", "too few rows"],
)
def test_what_is_no_picture_is_refused_with_its_reason(contents: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage, match=f"odd.jpg: .*({reason})") as caught:
        open_image("odd.jpg", contents)
    assert "\n" not in str(caught.value)
    assert caught.value.reason in str(caught.value)


def test_a_lower_limit_of_pixels() -> None:
    with pytest.raises(UnreadableImage, match="23x13 pixels, at most 298 are decoded"):
        open_image("p.png", encoded(quarters(), "PNG"), max_pixels=298)
    assert open_image("p.png", encoded(quarters(), "PNG"), max_pixels=299).size == (23, 13)


def test_files_that_are_not_regular_are_refused_and_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    for path, reason in (
        (tmp_path / "round" / "a.jpg", "cannot be opened: Too many levels of symbolic links"),
        (tmp_path / "pipe.jpg", "not a regular file"),
        (tmp_path, "a folder"),
        (tmp_path / "none.jpg", "no such file"),
        ("nul\0.jpg", "not a file name"),
        ("half\ud800.jpg", "not a file name"),
        (tmp_path / ("x" * 300), "cannot be opened"),
    ):
        with pytest.raises(UnreadableImage, match=reason):
            open_image(path)
        with pytest.raises(UnreadableImage, match=reason):
            image_bytes(path)


def test_large_jpeg_is_decoded_smaller_but_never_below_the_target() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    contents = encoded(Image.new("RGB", (1601, 811), BLUE), "JPEG", exif=exif)
    assert open_image("large.jpg", contents).size == (811, 1601)
    # seen, it is 811 wide and 1601 high: half is 406 x 801, a quarter (203 x 401) would be below
    small = open_image("large.jpg", contents, target_size=(299, 299))
    assert small.size == (406, 801)
    assert small.getpixel((200, 400)) == pytest.approx(BLUE, abs=6)


def test_settings_of_pillow_stay_as_they_are_and_threads_agree() -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    contents = [make() for make, _, _ in SEEN.values()] * 3
    alone = [np.asarray(open_image("p", data)) for data in contents]
    with ThreadPoolExecutor(5) as threads:
        together = list(threads.map(lambda data: np.asarray(open_image("p", data)), contents))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
    after = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    assert after == before


def test_the_error_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(UnreadableImage("a.jpg", "empty file")))
    assert (error.path, error.reason, str(error)) == ("a.jpg", "empty file", "a.jpg: empty file")


def test_orientations_here_agree_with_pillows_own() -> None:
    for orientation in range(2, 9):
        with Image.open(io.BytesIO(turned(orientation, "PNG"))) as stored:
            expected = ImageOps.exif_transpose(stored)
        assert np.array_equal(np.asarray(open_image("p", turned(orientation, "PNG"))), np.asarray(expected))


def test_all_endings_that_open_image_reads_are_looked_for() -> None:
    read = {ending for ending, name in Image.registered_extensions().items() if name in (*images.FORMATS, "MPO")}
    assert read <= set(images.IMAGE_ENDINGS)


def test_heic_is_read_with_its_extra_and_listed_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    sideways = Image.linear_gradient("L").resize((64, 48)).convert("RGB")
    exif = Image.Exif()
    exif[images.ORIENTATION_TAG] = 6
    pillow_heif.from_pillow(sideways).save(tmp_path / "a.heic", quality=95, exif=exif.tobytes())
    seen = images.open_image(tmp_path / "a.heic")
    assert seen.size == (48, 64) and seen.mode == "RGB"
    expected = np.asarray(sideways.transpose(Image.Transpose.ROTATE_270), np.int16)
    assert np.abs(np.asarray(seen, np.int16) - expected).max() < 12
    (tmp_path / "b.heic").write_bytes((tmp_path / "a.heic").read_bytes()[:300])
    with pytest.raises(images.UnreadableImage, match=r"b\.heic: (truncated|not an image)"):
        images.open_image(tmp_path / "b.heic")
    monkeypatch.setattr(images, "_formats", lambda: ("JPEG", "PNG"))
    with pytest.raises(images.UnreadableImage, match=r"HEIC, .* is not read: install attncap\[heic\], or save it as"):
        images.open_image(tmp_path / "a.heic")


def test_pillow_images_and_files_come_out_alike(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    turned = Image.fromarray(rng.integers(0, 256, (6, 9, 3), np.uint8))
    exif = Image.Exif()
    exif[images.ORIENTATION_TAG] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(rng.integers(0, 256, (6, 9, 4), np.uint8)).save(tmp_path / "clear.png")
    grey = rng.integers(0, 65536, (6, 9), np.uint16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    for name in ("turned.png", "clear.png", "deep.png"):
        by_path = np.asarray(images.read_image(tmp_path / name))
        with Image.open(tmp_path / name) as opened:
            np.testing.assert_array_equal(np.asarray(images.read_image(opened)), by_path)
    assert images.read_image(tmp_path / "turned.png").size == (6, 9)
    deep = np.asarray(images.read_image(tmp_path / "deep.png"))
    np.testing.assert_array_equal(np.asarray(images.read_image(grey)), deep)
    with pytest.raises(ValueError, match=r"put the channels last \(array\.transpose"):
        images.read_image(np.zeros((3, 20, 30), np.uint8))
    for several in (["a.png"], np.zeros((1, 20, 30, 3), np.uint8), b"\x89PNG"):
        with pytest.raises(ValueError, match="give one path, Pillow image or array"):
            images.read_image(several)  # type: ignore[arg-type]


def test_figures_pages_and_hashes_take_images_through_the_one_door(tmp_path: Path) -> None:
    from attncap.plotting.attention import plot_attention
    from attncap.plotting.explorer.page import explore
    from attncap.retrieval.difference_hash import DifferenceHash
    from tests.plotting.drawing import caption_of

    exif = Image.Exif()
    exif[images.ORIENTATION_TAG] = 6
    Image.linear_gradient("L").resize((60, 40)).save(tmp_path / "turned.jpg", exif=exif)
    clear = Image.linear_gradient("L").resize((60, 40)).convert("RGBA")
    clear.putalpha(Image.radial_gradient("L").resize((60, 40)))
    clear.save(tmp_path / "clear.png")
    Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60) * 20).save(tmp_path / "deep.png")
    caption = caption_of("a hat")
    for name in ("turned.jpg", "clear.png", "deep.png"):
        opened = Image.open(tmp_path / name)
        codes = DifferenceHash(256).encode([tmp_path / name, opened, np.asarray(images.read_image(opened))])
        assert all(np.array_equal(code, codes[0]) for code in codes[1:])  # type: ignore[arg-type]
        shown = [plot_attention(image, caption).axes[0].images[0].get_array() for image in (tmp_path / name, opened)]
        np.testing.assert_array_equal(shown[0], shown[1])
        assert shown[0].shape[:2] == ((60, 40) if name == "turned.jpg" else (40, 60))  # type: ignore[union-attr]
        pages = [explore([caption], [image])._repr_html_() for image in (str(tmp_path / name), opened)]
        assert len(set(page.replace(str(tmp_path), "") for page in pages)) == 1
        opened.close()


def test_a_text_in_place_of_a_caption_is_named() -> None:
    from attncap.plotting.attention import plot_attention

    with pytest.raises(TypeError, match="caption: a Caption with maps expected, got 'a hat'"):
        plot_attention(np.zeros((9, 8, 3), np.uint8), "a hat")  # type: ignore[arg-type]
