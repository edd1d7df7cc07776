"""Odd pictures made by a few lines each, with what must come of them: colors and size, or why they are not read.

`test_pictures.py` has the plain kinds, one by one; here are the rarer ones, and what hurts: files cut at many places,
headers that promise gigabytes, loops, bombs, and files that are no pictures. No file is committed.
"""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms, features

from tests.test_images import (
    AS_IS,
    BLACK,
    BLUE,
    GREEN,
    GREYS,
    HEIGHT,
    RED,
    WHITE,
    WIDTH,
    chunk,
    encoded,
    png,
    quarters,
    swapped_profile,
    turned,
    with_alpha,
)

Colors = tuple[tuple[int, ...], ...]
PNG_START = b"\x89PNG\r\n\x1a\n"
CUT = r"truncated or damaged|not an image"
TOO_LARGE = r"at most [\d,]+ are decoded: make it smaller"
BILEVEL: Colors = (BLACK, WHITE, BLACK, WHITE)  # `quarters` as grey above 100
CLEAR: Colors = (WHITE, GREEN, BLUE, WHITE)  # its red quarter transparent, over white


class Odd(NamedTuple):
    """`colors` of the quarters (top left, top right, bottom left, bottom right) and `size`; or `reason`, a pattern."""

    make: Callable[[], bytes]
    colors: Colors | None = None
    tolerance: int = 0
    size: tuple[int, int] = (WIDTH, HEIGHT)
    reason: str = ""


def bilevel() -> Image.Image:
    return quarters("L").point(lambda value: 255 * (value > 100)).convert("1")


def jpeg(picture: Image.Image | None = None, **options: object) -> bytes:
    return encoded(picture or quarters(), "JPEG", **{"quality": 95, "subsampling": 0, **options})


def noise(kind: str, **options: object) -> bytes:
    values = np.random.default_rng(7).integers(0, 256, (61, 67, 3), dtype=np.uint8)
    return encoded(Image.fromarray(values), kind, **options)


def segment(marker: int, contents: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(contents) + 2) + contents


def with_segments(data: bytes, *segments: bytes) -> bytes:
    """A JPEG with segments put after its first marker."""
    return data[:2] + b"".join(segments) + data[2:]


def exif(kind: int, count: int, value: bytes, tag: int = 0x0112) -> bytes:
    """A segment of EXIF with one entry."""
    entry = struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")
    return segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 1) + entry + bytes(4))


def interlaced() -> bytes:
    """Adam7, which Pillow reads and does not write."""
    pixels = np.asarray(quarters())
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = [b"\0" + row.tobytes() for y, x, dy, dx in passes for row in pixels[y::dy, x::dx] if row.size]
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 1)
    return PNG_START + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")


def rows_of(picture: Image.Image, dtype: str = "u1") -> bytes:
    """The rows of a PNG, each with filter 0; at 16 bits a value v of 8 is 257 v."""
    values = np.asarray(picture).astype(dtype) * (257 if dtype == ">u2" else 1)
    return b"".join(b"\0" + row.astype(dtype).tobytes() for row in values)


def with_chunks(data: bytes, *chunks: bytes, before: bytes = b"IDAT") -> bytes:
    at = data.index(before) - 4
    return data[:at] + b"".join(chunks) + data[at:]


def deflated(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


def tiff(width: int, height: int, data: bytes = b"", order: str = "<", loop: bool = False, **tags: int) -> bytes:
    """An 8-bit RGB TIFF of one strip; `tags` by number, as t273=8, replace its own."""
    entries = {256: width, 257: height, 258: 8, 259: 1, 262: 2, 273: 0, 277: 3, 278: height, 279: len(data)}
    entries |= {int(name[1:]): value for name, value in tags.items()}
    end = 8 + 2 + 12 * len(entries) + 4
    entries[273] = entries[273] or end
    body = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, entries[tag]) for tag in sorted(entries))
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    return start + struct.pack(f"{order}H", len(entries)) + body + struct.pack(f"{order}I", 8 if loop else 0) + data


def bmp(width: int, height: int, bits: int, data: bytes, compression: int = 0, palette: bytes = b"") -> bytes:
    start = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, len(palette) // 4, 0)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + palette + data


def top_down() -> bytes:
    """A BMP whose rows go down, which a negative height says."""
    rows = np.zeros((HEIGHT, 72), np.uint8)  # 23 * 3 = 69 bytes a row, up to a multiple of 4
    rows[:, :69] = np.asarray(quarters())[:, :, ::-1].reshape(HEIGHT, 69)
    return bmp(WIDTH, -HEIGHT, 24, rows.tobytes())


def run_length() -> bytes:
    """A BMP of 8 bits in runs: blue and white below, red and green above."""
    palette = b"".join(bytes((*color[::-1], 0)) for color in (RED, GREEN, BLUE, WHITE))
    below, above = bytes((12, 2, 11, 3, 0, 0)), bytes((12, 0, 11, 1, 0, 0))
    return bmp(WIDTH, HEIGHT, 8, below * 6 + above * 7 + b"\0\1", 1, palette)


def gif(screen: tuple[int, int], frame: tuple[int, int, int, int], data: bytes = b"\x02\x02\x4c\x01\x00") -> bytes:
    start = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + bytes((*RED, *GREEN))
    return start + b"," + struct.pack("<HHHHB", *frame, 0) + data + b";"


def netpbm(magic: str, values: np.ndarray, most: int | None = None, plain: bool = True) -> bytes:
    height, width = values.shape[:2]
    head = f"{magic}\n# a comment\n{width} {height}\n" + (f"{most}\n" if most else "")
    if not plain:
        return head.encode() + values.astype(">u2" if most and most > 255 else "u1").tobytes()
    return (head + "\n".join(" ".join(map(str, row)) for row in values.reshape(height, -1))).encode()


def many_scans(scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again: a few bytes each, a whole picture of work each."""
    data = jpeg(Image.new("RGB", (2000, 2000), RED), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def two_pictures() -> bytes:
    return encoded(quarters(), "MPO", save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))], quality=95)


def grey_profile() -> bytes:
    """The profile of sRGB, whose header says that it is for grey."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:16] + b"GRAY" + profile[20:]


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("picture.png", encoded(quarters(), "PNG"))
    return file.getvalue()


def moving(kind: str, **options: object) -> bytes:
    others = [Image.new("RGB", (WIDTH, HEIGHT), color) for color in (BLACK, BLUE)]
    return encoded(quarters(), kind, save_all=True, append_images=others, **options)


def clear_animation() -> bytes:
    first, second = with_alpha("RGBA", 0), Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 255))
    return encoded(first, "GIF", save_all=True, append_images=[second], disposal=2)


def many_alphas() -> bytes:
    """A palette in which each color has an alpha of its own: the red's is a fifth."""
    picture = quarters().quantize(4)
    alphas = bytearray(b"\xff" * 4)
    alphas[picture.getpixel((1, 1))] = 51
    return encoded(picture, "PNG", transparency=bytes(alphas))


def color_key() -> bytes:
    return encoded(quarters(), "PNG", transparency=RED)


FAINT: Colors = ((250, 208, 210), GREEN, BLUE, WHITE)  # 255 + (230 - 255) / 5, and so on
RIGHT_NOT_TURNED: Colors = AS_IS

SEEN: dict[str, Odd] = {
    # JPEG
    "progressive and turned.jpg": Odd(
        lambda: jpeg(quarters().transpose(Image.Transpose.ROTATE_90), progressive=True, exif=_turn(6)), AS_IS, 12
    ),
    "restart markers.jpg": Odd(lambda: jpeg(restart_marker_blocks=1), AS_IS, 12),
    "coarse colors.jpg": Odd(lambda: jpeg(subsampling=2), AS_IS, 45),
    "progressive grey.jpg": Odd(lambda: jpeg(quarters("L"), progressive=True), GREYS, 4),
    "progressive cmyk.jpg": Odd(lambda: jpeg(quarters("CMYK"), progressive=True), AS_IS, 12),
    "rubbish after the end.jpg": Odd(lambda: jpeg() + b"rubbish" * 999, AS_IS, 12),
    "a long comment.jpg": Odd(lambda: with_segments(jpeg(), *[segment(0xFE, b"<script>" * 8000)] * 5), AS_IS, 12),
    "orientation 9.jpg": Odd(lambda: with_segments(jpeg(), exif(3, 1, b"\x09")), RIGHT_NOT_TURNED, 12),
    "orientation in words.jpg": Odd(lambda: with_segments(jpeg(), exif(2, 4, b"six\0")), RIGHT_NOT_TURNED, 12),
    "orientation far away.jpg": Odd(lambda: with_segments(jpeg(), exif(3, 2**31, b"\xff" * 4)), RIGHT_NOT_TURNED, 12),
    "half a profile.jpg": Odd(
        lambda: with_segments(jpeg(), segment(0xE2, b"ICC_PROFILE\0\1\2" + bytes(500))), AS_IS, 12
    ),
    "profile in pieces.jpg": Odd(lambda: jpeg(icc_profile=grey_profile() + bytes(90000)), AS_IS, 12),
    "two pictures.mpo": Odd(two_pictures, AS_IS, 40),
    "one wide.jpg": Odd(lambda: jpeg(Image.new("RGB", (1, 4001), RED)), (RED,) * 4, 4, (1, 4001)),
    "one high.jpg": Odd(lambda: jpeg(Image.new("RGB", (65500, 1), RED)), (RED,) * 4, 4, (65500, 1)),
    # PNG
    "interlaced.png": Odd(interlaced, AS_IS),
    "two colors.png": Odd(lambda: encoded(bilevel(), "PNG", bits=1), BILEVEL),
    "four colors.png": Odd(lambda: encoded(quarters().quantize(4), "PNG", bits=2), AS_IS, 3),
    "palette with alphas.png": Odd(many_alphas, FAINT, 3),
    "a color is transparent.png": Odd(color_key, CLEAR),
    "16 bit colors.png": Odd(lambda: png(WIDTH, HEIGHT, rows_of(quarters(), ">u2"), 16, 2), AS_IS),
    "16 bit with alpha.png": Odd(lambda: png(WIDTH, HEIGHT, rows_of(with_alpha("RGBA", 51), ">u2"), 16, 6), FAINT, 1),
    "16 bit grey with alpha.png": Odd(
        lambda: png(WIDTH, HEIGHT, rows_of(with_alpha("LA", 0), ">u2"), 16, 4), (WHITE, *GREYS[1:]), 1
    ),
    "animated.png": Odd(lambda: moving("PNG"), AS_IS),
    "animated, not the first.png": Odd(lambda: moving("PNG", default_image=True), AS_IS),
    "rubbish after the end.png": Odd(lambda: encoded(quarters(), "PNG") + b"rubbish" * 999, AS_IS),
    "parts of nothing.png": Odd(lambda: with_chunks(encoded(quarters(), "PNG"), *[chunk(b"IDAT", b"")] * 2000), AS_IS),
    "gamma and time.png": Odd(
        lambda: with_chunks(encoded(quarters(), "PNG"), chunk(b"gAMA", b"\0\0\xb1\x8f"), chunk(b"tIME", bytes(7))),
        AS_IS,
    ),
    "swapped profile and alpha.png": Odd(
        lambda: encoded(with_alpha("RGBA", 0), "PNG", icc_profile=swapped_profile()), None
    ),
    "turned at its end.png": Odd(lambda: turned(3, "PNG"), AS_IS),
    "one wide.png": Odd(lambda: encoded(Image.new("RGBA", (1, 30011), (*RED, 255)), "PNG"), (RED,) * 4, 0, (1, 30011)),
    "all transparent.png": Odd(lambda: encoded(Image.new("RGBA", (WIDTH, HEIGHT), (9, 9, 9, 0)), "PNG"), (WHITE,) * 4),
    # GIF
    "transparent animation.gif": Odd(clear_animation, CLEAR, 3),
    "frame beside the screen.gif": Odd(lambda: gif((1, 1), (5, 3, 1, 1)), None, 0, (6, 4)),
    "of one pixel.gif": Odd(lambda: gif((1, 1), (0, 0, 1, 1)), None, 0, (1, 1)),
    "interlaced.gif": Odd(lambda: encoded(quarters().quantize(8), "GIF", interlace=1), AS_IS, 3),
    # WebP, AVIF, JPEG 2000
    "lossy.webp": Odd(lambda: encoded(quarters(), "WEBP", quality=95), AS_IS, 45),
    "animated.webp": Odd(lambda: moving("WEBP", lossless=True), AS_IS),
    "turned.webp": Odd(lambda: turned(7, "WEBP"), AS_IS, 45),
    "plain.jp2": Odd(lambda: encoded(quarters(), "JPEG2000"), AS_IS, 3),
    "with alpha.jp2": Odd(lambda: encoded(with_alpha("RGBA", 0), "JPEG2000"), CLEAR, 3),
    "plain.avif": Odd(lambda: encoded(quarters(), "AVIF", quality=95), AS_IS, 45),
    "with alpha.avif": Odd(lambda: encoded(with_alpha("RGBA", 0), "AVIF", quality=95), CLEAR, 45),
    # TIFF
    "lzw.tif": Odd(lambda: encoded(quarters(), "TIFF", compression="tiff_lzw"), AS_IS),
    "deflate.tif": Odd(lambda: encoded(quarters(), "TIFF", compression="tiff_adobe_deflate"), AS_IS),
    "fax.tif": Odd(lambda: encoded(bilevel(), "TIFF", compression="group4"), BILEVEL),
    "jpeg inside.tif": Odd(lambda: encoded(quarters(), "TIFF", compression="jpeg", quality=95), AS_IS, 45),
    "other byte order.tif": Odd(lambda: tiff(WIDTH, HEIGHT, np.asarray(quarters()).tobytes(), ">"), AS_IS),
    "pages.tif": Odd(lambda: moving("TIFF"), AS_IS),
    "palette.tif": Odd(lambda: encoded(quarters().quantize(8), "TIFF"), AS_IS, 3),
    "lab.tif": Odd(lambda: encoded(_lab(), "TIFF"), AS_IS, 12),
    "next page is itself.tif": Odd(lambda: tiff(WIDTH, HEIGHT, np.asarray(quarters()).tobytes(), loop=True), AS_IS),
    # BMP and the portable maps
    "top down.bmp": Odd(top_down, AS_IS),
    "two colors.bmp": Odd(lambda: encoded(bilevel(), "BMP"), BILEVEL),
    "run length.bmp": Odd(run_length, AS_IS),
    "in figures.ppm": Odd(lambda: netpbm("P3", np.asarray(quarters()), 255), AS_IS),
    "bits.pbm": Odd(lambda: encoded(bilevel(), "PPM"), BILEVEL),
    "to 1000.pgm": Odd(lambda: netpbm("P2", np.full((HEIGHT, WIDTH), 500), 1000), ((128,) * 3,) * 4, 1),
    "16 bit.ppm": Odd(lambda: netpbm("P6", np.asarray(quarters()).astype(int) * 257, 65535, plain=False), AS_IS, 1),
    # names that lie
    "gif in truth.png": Odd(lambda: encoded(quarters().quantize(8), "GIF"), AS_IS, 3),
    "tiff in truth.jpg": Odd(lambda: encoded(quarters(), "TIFF"), AS_IS),
    "no ending": Odd(lambda: encoded(quarters(), "PNG"), AS_IS),
    "ENDING.JPEG": Odd(jpeg, AS_IS, 12),
    "\u0635\u0648\u0631\u0629 \U0001f469\u200d\U0001f9b0.png": Odd(lambda: encoded(quarters(), "PNG"), AS_IS),
}

REFUSED: dict[str, Odd] = {
    # no picture at all
    "empty.jpg": Odd(lambda: b"", reason=r"empty file \(0 bytes\): copy it again"),
    "one byte.jpg": Odd(lambda: b"\xff", reason=CUT),
    "zeros.png": Odd(lambda: bytes(10007), reason="not an image"),
    "noise.jpg": Odd(lambda: np.random.default_rng(3).bytes(10007), reason="not an image"),
    "a page.jpg": Odd(lambda: b"<!DOCTYPE html><title>404 Not Found</title>", reason="not an image"),
    "a drawing.svg": Odd(
        lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>', reason="not an image"
    ),
    "a document.jpg": Odd(lambda: encoded(quarters(), "PDF"), reason="not an image"),
    "postscript.jpg": Odd(lambda: encoded(quarters(), "EPS"), reason="not an image"),
    "an icon.png": Odd(lambda: encoded(quarters(), "ICO"), reason="not an image"),
    "targa.png": Odd(lambda: encoded(quarters(), "TGA"), reason="not an image"),
    "an archive.jpg": Odd(archive, reason="not an image"),
    "packed.jpg": Odd(lambda: gzip.compress(jpeg()), reason="not an image"),
    "in words.jpg": Odd(lambda: b"data:image/jpeg;base64,/9j/4AAQSkZJRg==", reason="not an image"),
    "a pointer.jpg": Odd(lambda: b"version https://git-lfs.github.com/spec/v1\nsize 9\n", reason="not an image"),
    "rubbish before.jpg": Odd(lambda: b"rubbish" + jpeg(), reason="not an image"),
    # headers that say what cannot be
    "no width.png": Odd(lambda: png(0, 5, b""), reason=CUT),
    "no height.jpg": Odd(lambda: _jpeg_size(WIDTH, 0), reason=CUT),
    "three bits.png": Odd(lambda: png(3, 3, bytes(99), depth=3), reason=CUT),
    "no rows.png": Odd(
        lambda: PNG_START + chunk(b"IHDR", struct.pack(">IIBBBBB", 7, 5, 8, 2, 0, 0, 0)) + chunk(b"IEND", b""),
        reason=CUT,
    ),
    "wrong sum.png": Odd(lambda: _flipped(encoded(quarters(), "PNG"), b"IHDR", 6), reason=CUT),
    "damaged rows.png": Odd(lambda: _flipped(noise("PNG"), b"IDAT", 999), reason=CUT),
    "rows elsewhere.tif": Odd(lambda: tiff(WIDTH, HEIGHT, t273=2**31), reason=CUT),
    "no samples.tif": Odd(lambda: tiff(WIDTH, HEIGHT, bytes(900), t277=0), reason=CUT),
    "endless entry.tif": Odd(
        lambda: b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 256, 4, 2**31, 8) + bytes(4), reason=CUT
    ),
    "a run too long.bmp": Odd(lambda: bmp(5, 5, 8, b"\xff\x00" * 9, 1, bytes(1024)), reason=CUT),
    "negative width.bmp": Odd(lambda: bmp(-5, 5, 24, bytes(99)), reason=f"{CUT}|{TOO_LARGE}"),
    "a head without end.ppm": Odd(lambda: b"P6\n" + b"#" * 500_000, reason=CUT),
    "not a figure.ppm": Odd(lambda: b"P3\n2 2\n255\n1 2 three\n", reason=CUT),
    # gigabytes promised
    "huge.png": Odd(lambda: png(30011, 30011, deflated(10**6)), reason=TOO_LARGE),
    "huge and thin.png": Odd(lambda: png(2**31 - 1, 1, b""), reason=TOO_LARGE),
    "huge.jpg": Odd(lambda: _jpeg_size(65535, 65535), reason=TOO_LARGE),
    "huge screen.gif": Odd(lambda: gif((65535, 65535), (0, 0, 1, 1)), reason=TOO_LARGE),
    "huge frame.gif": Odd(lambda: gif((1, 1), (0, 0, 65535, 65535)), reason=TOO_LARGE),
    "huge.bmp": Odd(lambda: bmp(2**31 - 1, 2**31 - 1, 24, bytes(99)), reason=TOO_LARGE),
    "huge.tif": Odd(lambda: tiff(2**31, 2**31, bytes(99)), reason=f"{TOO_LARGE}|{CUT}"),
    "huge.ppm": Odd(lambda: b"P6\n999999999 999999999\n255\n" + bytes(99), reason=TOO_LARGE),
    "huge.jp2": Odd(lambda: _jp2_size(2**31 - 1), reason=f"{TOO_LARGE}|{CUT}"),
    "huge.webp": Odd(lambda: _webp_size(16383), reason=f"{TOO_LARGE}|{CUT}"),
    "a bomb of words.png": Odd(
        lambda: with_chunks(encoded(quarters(), "PNG"), *[chunk(b"zTXt", b"k\0\0" + deflated(10**6))] * 99), reason=CUT
    ),
    "a bomb of a profile.png": Odd(
        lambda: with_chunks(encoded(quarters(), "PNG"), chunk(b"iCCP", b"k\0\0" + deflated(10**7))), reason=CUT
    ),
    "ten thousand scans.jpg": Odd(lambda: many_scans(10_000), reason=r"1\d,\d{3} scans, at most \d+ are decoded"),
    # cut off
    **{
        f"cut at {share:.3f}.{kind.lower()}": Odd(lambda kind=kind, share=share: _cut(noise(kind), share), reason=CUT)  # type: ignore[misc]
        for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF")
        for share in (0.001, 0.05, 0.5, 0.98)
    },
    **{
        f"progressive cut at {share}.jpg": Odd(
            lambda share=share: _cut(noise("JPEG", progressive=True), share), reason=CUT
        )  # type: ignore[misc]
        for share in (0.3, 0.7, 0.97)
    },
}


def _turn(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    return made


def _lab() -> Image.Image:
    profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
    made = ImageCms.profileToProfile(quarters(), *profiles, outputMode="LAB")
    assert made is not None
    return made


def _cut(data: bytes, share: float) -> bytes:
    return data[: max(1, int(len(data) * share))]


def _flipped(data: bytes, after: bytes, by: int) -> bytes:
    at = data.index(after) + by
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


def _jpeg_size(width: int, height: int) -> bytes:
    data = jpeg()
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


def _jp2_size(side: int) -> bytes:
    data = encoded(quarters(), "JPEG2000")
    return data.replace(struct.pack(">II", HEIGHT, WIDTH), struct.pack(">II", side, side)).replace(
        struct.pack(">II", WIDTH, HEIGHT), struct.pack(">II", side, side)
    )


def _webp_size(side: int) -> bytes:
    """The canvas of an extended WebP, in its header: 24 bits each, less one."""
    data = encoded(with_alpha("RGBA", 51), "WEBP", quality=50, exif=_turn(1))
    at = data.index(b"VP8X") + 12
    size = (side - 1).to_bytes(3, "little")
    return data[:at] + size + size + data[at + 6 :]


# A name by its ending needs a codec that not every Pillow has.
NEEDS = {".avif": "avif", ".jp2": "jpg_2000", ".jpeg2000": "jpg_2000", ".webp": "webp"}


def can_be_made(name: str) -> bool:
    codec = next((codec for ending, codec in NEEDS.items() if name.endswith(ending)), None)
    return codec is None or bool(features.check(codec))
