"""Colors of a decoded image in 8-bit sRGB: transparency over white, 16 bits scaled, color profiles applied."""

from __future__ import annotations

import contextlib
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms

# "JPEG" opens MPO, the format of 3-D cameras, as well.
TIFF_BITS_TAG, TIFF_PHOTOMETRIC_TAG = 258, 262


def to_rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode.startswith(("I", "F")):
        return _scaled_grey(image).convert("RGB")
    if mode == "LAB":
        return _through_profiles(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    if image.has_transparency_data:
        return _over_white(image)
    return _in_srgb(image, image)


def _over_white(image: Image.Image) -> Image.Image:
    transparent = image.info.get("transparency")
    if isinstance(transparent, tuple) and max(transparent) > 255:
        # A 16-bit PNG is decoded to 8 bits, but its transparent color is left in 16.
        image = image.copy()  # it may be the caller's
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    layer = image.convert("RGBA")
    colors = _in_srgb(layer.convert("RGB"), image)
    white = Image.new("RGB", image.size, "white")
    white.paste(colors, mask=layer.getchannel("A"))
    return white


def _scaled_grey(image: Image.Image) -> Image.Image:
    """Scale gray of more than 8 bits to 8 bits, by the range of the format or else of the values."""
    values = np.array(image, dtype=np.float32)  # (rows, cols); worked on in place, for it may be large
    tags = getattr(image, "tag_v2", {})
    key = image.info.get("transparency")
    transparent = values == key if isinstance(key, int) else None
    low, high = _grey_range(image, values, tags)
    with np.errstate(invalid="ignore", over="ignore"):  # infinite values, which become black and white below
        values -= low
        values *= 255.0 / max(high - low, 1e-30)
    np.nan_to_num(values, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
    np.rint(values, out=values)
    grey = np.clip(values, 0.0, 255.0, out=values).astype(np.uint8)
    if tags.get(TIFF_PHOTOMETRIC_TAG) == 0:  # "white is zero", which Pillow undoes for 8 bits alone
        np.subtract(255, grey, out=grey)
    if transparent is not None:
        grey[transparent] = 255
    return Image.fromarray(grey)


def _grey_range(image: Image.Image, values: np.ndarray, tags: Any) -> tuple[float, float]:
    """Return the values that stand for black and white."""
    if image.mode.startswith("I;16") or image.format == "PPM":
        bits = int(np.atleast_1d(tags.get(TIFF_BITS_TAG, 16))[0])
        return 0.0, float(2 ** min(bits, 16) - 1)
    finite = np.isfinite(values)
    low = float(np.min(values, where=finite, initial=np.inf))
    high = float(np.max(values, where=finite, initial=-np.inf))
    if not finite.any():
        return 0.0, 1.0
    for white in (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0):
        if low >= 0.0 and high <= white:
            return 0.0, white
    return low, high


def _foreign_profile(image: Image.Image) -> ImageCms.ImageCmsProfile | None:
    """Return the embedded color profile; None if there is none, if it is sRGB, or if it does not fit the image."""
    contents = image.info.get("icc_profile")
    if not contents:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(contents))
        space = str(profile.profile.xcolor_space).strip()
        described = str(profile.profile.profile_description)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    wanted = "CMYK" if image.mode == "CMYK" else "RGB"
    colored = image.mode in ("RGB", "RGBA", "P", "PA", "CMYK")
    return profile if colored and space == wanted and "srgb" not in described.lower() else None


def _in_srgb(colors: Image.Image, image: Image.Image) -> Image.Image:
    """Return `colors` as sRGB, converted by the profile of `image` if it has one."""
    profile = _foreign_profile(image)
    if profile is not None:
        # A profile that does not fit the image is ignored, as viewers do.
        with contextlib.suppress(ImageCms.PyCMSError, ValueError, OSError):
            return _through_profiles(colors, profile)
    return colors.convert("RGB")  # a copy, also of what is RGB already


def _through_profiles(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    source = image if image.mode in ("RGB", "CMYK", "LAB") else image.convert("RGB")
    seen = ImageCms.profileToProfile(source, profile, srgb, outputMode="RGB")
    assert seen is not None  # None only with inPlace
    return seen
