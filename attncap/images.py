"""Open an image file as a person sees it.

Nothing here changes Pillow's settings (they are global, and this is called from threads), and only formats
that Pillow decodes itself are tried: never one that starts another program, as EPS does with Ghostscript.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
from functools import cache
from io import BytesIO
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from attncap._srgb import to_rgb

# "JPEG" opens MPO, the format of 3-D cameras, as well. "HEIF" needs the extra `heic`.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "QOI", "HEIF")
# Endings of these formats. HEIC is among them without its reader too: such files are then listed as unreadable.
IMAGE_ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".avif"),
    *(".avifs", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".qoi"),
    *(".heic", ".heif", ".hif", ".heics", ".heifs"),
)
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
AnyImage = str | os.PathLike[str] | Image.Image | np.ndarray
MAX_PIXELS = 100_000_000
MAX_FILE_BYTES = 1 << 29
MAX_SCANS = 100  # a progressive JPEG has about 10; a scan of a few bytes can take as long as a whole image
LARGE_PIXELS = 20_000_000  # larger images are decoded one at a time: the largest take up to 2 GB meanwhile
ORIENTATION_TAG = 0x0112
JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # those that begin a segment, and the end
_one_large_image = threading.Lock()
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(ValueError):
    """An image that cannot be read: `path` says which, `reason` says why, and the message has both."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{os.fspath(path)}: {reason}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[Any, ...]:
        # The default passes the message alone to the constructor, which fails when the error leaves a worker process.
        return type(self), (self.path, self.reason)


def open_image(
    path: str | os.PathLike[str],
    data: bytes | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    target_size: tuple[int, int] | None = None,
) -> Image.Image:
    """Decode an image file to 8-bit RGB as a person sees it.

    The EXIF orientation and color profiles other than sRGB are applied. Transparency is blended over white, 16-bit gray
    is divided by 257, CMYK is read with Adobe's inverted polarity, and only the first frame of an animation is read.
    The contents decide the format, not the ending of the name.

    Args:
        path: the file; with `data` it only names the image in messages.
        data: the contents of the file, where the caller has them already.
        max_pixels: largest width * height; compared with the header before memory is allocated. Pillow's own limit
            (twice `Image.MAX_IMAGE_PIXELS`) holds as well.
        target_size: (width, height) that the caller will resize to. A large JPEG is then decoded at 1/2, 1/4 or
            1/8 of its size, never below target_size: faster, and in less memory. The result is not resized further.

    Returns:
        The image, mode "RGB", loaded, with no file left open.

    Raises:
        UnreadableImage: missing, empty, truncated, damaged, too large, or not an image; the message names the
            file and the reason.

    Example:
        >>> image = open_image("photograph.jpg", target_size=(299, 299))
        >>> image.mode
        'RGB'
    """
    try:
        source = BytesIO(data) if data is not None else _open_file(path)
        with source:
            if not source.read(1):
                raise UnreadableImage(path, "empty file (0 bytes): copy it again")
            source.seek(0)
            with Image.open(source, formats=_formats()) as picture:
                _check_size(path, picture, max_pixels)
                scans = _scans(source) if picture.format in ("JPEG", "MPO") else 0
                if scans > MAX_SCANS:
                    raise UnreadableImage(path, f"{scans:,} scans, at most {MAX_SCANS} are decoded: save it again")
                return _as_seen(picture, target_size)
    except UnreadableImage:
        raise
    except UnidentifiedImageError:
        if _is_heic(path, data):
            if "HEIF" in _formats():
                raise UnreadableImage(path, "truncated or damaged HEIC: copy it again") from None
            why = "HEIC, the format of iPhones, is not read: install attncap[heic], or save it as JPEG"
            raise UnreadableImage(path, why) from None
        known = ", ".join(_formats())
        raise UnreadableImage(path, f"not an image, or its first bytes are damaged (known: {known})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadableImage(path, _too_large("more pixels than Pillow allows", max_pixels)) from None
    except MemoryError:
        raise UnreadableImage(path, "not enough memory to decode it") from None
    except Exception as error:  # decoders raise nearly anything on damaged bytes (SyntaxError, struct.error, ...)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(path, f"truncated or damaged: {reason}") from None


def read_image(image: AnyImage) -> Image.Image:
    """Read a file, a Pillow image or an array as 8-bit RGB, as a person sees it; all three give the same image.

    Pillow images are turned, flattened over white and scaled as `open_image` does with files.

    Args:
        image: path; Pillow image; or array of shape (height, width), uint8 or uint16, or (height, width, 3 or 4),
            uint8, the fourth channel being opacity.

    Returns:
        A new image, mode "RGB".

    Raises:
        UnreadableImage: a file or a Pillow image that cannot be decoded.
        ValueError: an array of another shape or type.

    Example:
        >>> read_image(np.zeros((20, 30), np.uint8)).size
        (30, 20)
    """
    if isinstance(image, str | os.PathLike):
        return open_image(image)
    picture = image if isinstance(image, Image.Image) else _from_array(image)
    try:
        _check_size(image_name(picture), picture, MAX_PIXELS)
        return _decoded(picture)
    except UnreadableImage:
        raise
    except Exception as error:  # as in open_image: Pillow decodes on first use
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(image_name(picture), f"truncated or damaged: {reason}") from None


def image_name(image: AnyImage, number: int = 0) -> str:
    """Return the path of an image; for one in memory its source file, or else "image-1" for number 0."""
    if isinstance(image, str | os.PathLike):
        return os.fspath(image)
    return os.fspath(getattr(image, "filename", "")) or f"image-{number + 1}"


def _from_array(image: Any) -> Image.Image:
    array = np.asarray(image)
    grey = array.ndim == 2 and array.dtype in (np.uint8, np.uint16)
    colored = array.ndim == 3 and array.shape[2] in (3, 4) and array.dtype == np.uint8
    if not array.size or not (grey or colored):
        if array.dtype.kind not in "uifb" or array.ndim not in (2, 3) or not array.size:
            mend = "give one path, Pillow image or array"
        elif array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (3, 4):
            mend = "put the channels last (array.transpose(1, 2, 0))"
        else:
            mend = "scale the values to 0..255"
        raise ValueError(
            f"image: uint8 of shape (height, width, 3) expected, got {array.dtype} of {array.shape}: {mend}"
        )
    return Image.fromarray(array)


def _is_heic(path: str | os.PathLike[str], data: bytes | None) -> bool:
    if data is None:
        with open(path, "rb") as file:
            data = file.read(12)
    return data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS


def image_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the contents of an image file, for callers that also hash them; refuses what `open_image` refuses.

    Raises:
        UnreadableImage: missing, a folder, a pipe, larger than MAX_FILE_BYTES, or not readable.
    """
    try:
        with _open_file(path) as file:
            return file.read()
    except OSError as error:
        raise UnreadableImage(path, f"cannot be read: {error.strerror or error}") from None


@cache
def _formats() -> tuple[str, ...]:
    """Return those of FORMATS that this Pillow was built with, and HEIF where its reader is installed."""
    Image.init()
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener(thumbnails=False)
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _check_size(path: str | os.PathLike[str], picture: Image.Image, max_pixels: int) -> None:
    if picture.width * picture.height > max_pixels:
        raise UnreadableImage(path, _too_large(f"{picture.width}x{picture.height} pixels", max_pixels))


def _too_large(size: str, max_pixels: int) -> str:
    return f"{size}, at most {max_pixels:,} are decoded: make it smaller"


def _open_file(path: str | os.PathLike[str]) -> Any:
    """Open a regular file for reading; reading a named pipe or a device might never end."""
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise UnreadableImage(path, "a folder, not an image")
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableImage(path, "not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise UnreadableImage(path, f"{status.st_size:,} bytes, at most {MAX_FILE_BYTES:,} are read")
        return open(path, "rb")
    except FileNotFoundError:
        raise UnreadableImage(path, "no such file") from None
    except OSError as error:
        raise UnreadableImage(path, f"cannot be opened: {error.strerror or error}") from None
    except UnreadableImage:
        raise
    except ValueError as error:  # NUL bytes and lone surrogates in the name
        raise UnreadableImage(repr(os.fspath(path)), f"not a file name: {error}") from None


def _as_seen(picture: Image.Image, target_size: tuple[int, int] | None) -> Image.Image:
    if target_size is not None and picture.format in ("JPEG", "MPO"):
        turned = _orientation(picture) >= 5
        picture.draft(None, (target_size[1], target_size[0]) if turned else target_size)
    large = picture.width * picture.height > LARGE_PIXELS
    with _one_large_image if large else contextlib.nullcontext():
        return _decoded(picture)


def _decoded(picture: Image.Image) -> Image.Image:
    picture.load()
    orientation = _orientation(picture)  # after load: a TIFF is already turned, a PNG may carry EXIF at its end
    seen = to_rgb(picture)
    seen = seen.transpose(TURNS[orientation]) if orientation in TURNS else seen
    seen.info = {}
    return seen


def _scans(source: IO[bytes]) -> int:
    """Count the scans of a JPEG up to its end; what follows (telephones append a film) is ignored."""
    place = source.tell()
    source.seek(0)
    data = source.read()
    source.seek(place)
    if data.count(b"\xff\xda") <= MAX_SCANS:  # quick, and never too few
        return 0
    at, scans = 2, 0
    while (found := JPEG_MARKER.search(data, at)) and data[found.end() - 1] != 0xD9:
        scans += data[found.end() - 1] == 0xDA
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
    return scans


def _orientation(picture: Image.Image) -> int:
    try:
        value = picture.getexif().get(ORIENTATION_TAG, 1)
        return int(value) if value in TURNS else 1
    except Exception:  # broken EXIF data is ignored, as viewers do
        return 1
