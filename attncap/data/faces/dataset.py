"""The embedded data set: drawn faces with their characteristics, captions and the boxes of what is seen."""

from __future__ import annotations

import json
import math
import numbers
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFilter, PngImagePlugin
from tqdm.auto import tqdm

from attncap._files import naming_full_disk, replacing
from attncap.data.faces.captions import CHARACTERISTICS, COLORS, UNSTATED, write_captions
from attncap.data.faces.drawing import draw_parts
from attncap.data.faces.pen import HUES, INK, SKINS, Pen, mixed, random_color

SIZE = 192  # pixels of a side
VERSION = 2  # raise it when the same seed would give another face, caption or image
Box = tuple[float, float, float, float]

# Pairs of values that only test faces have together. A captioner that learned the parts can combine them; one that
# learned whole captions by heart cannot. A third of the test faces has a pair, twice as many as by chance.
HELD_OUT_COMBINATIONS: tuple[tuple[tuple[str, str], tuple[str, str]], ...] = (
    (("hat", "crown"), ("hat_color", "green")),
    (("hat", "cap"), ("hat_color", "purple")),
    (("hair", "curly"), ("hair_color", "ginger")),
    (("hair", "spiky"), ("hair_color", "grey")),
    (("neckwear", "scarf"), ("neckwear_color", "yellow")),
    (("glasses", "square"), ("moustache", "bushy")),
    (("nose", "big"), ("beard", "goatee")),
)


# ------------------------------------------------------------------ what a face has


def _one_of(rng: np.random.Generator, values: Sequence[str]) -> str:
    return values[int(rng.integers(len(values)))]


def sample_attributes(rng: np.random.Generator) -> dict[str, str]:
    """Draw a value for every characteristic; the values agree with each other.

    A hat leaves long and curly hair to be seen, and short hair at the temples; what is under it otherwise is "hidden",
    and so is its color. Long hair hides ears and earrings; sunglasses hide the eyes; a long beard leaves no room for
    a tie. A bald head has no hair color.

    Args:
        rng: NumPy generator; only `random` and `integers` are drawn, so that values are the same on any machine.

    Returns:
        attributes: a value of `CHARACTERISTICS` for each of its names, in its order.
    """

    def maybe(probability: float, name: str) -> str:
        values = [value for value in CHARACTERISTICS[name] if value not in UNSTATED]
        return _one_of(rng, values) if rng.random() < probability else "none"

    face = {"hat": maybe(0.4, "hat")}
    styles = ("short", "long", "curly", "hidden") if face["hat"] != "none" else CHARACTERISTICS["hair"][:-1]
    face["hair"] = _one_of(rng, styles)
    color = maybe(1.0, "hair_color")
    face["hair_color"] = {"bald": "none", "hidden": "hidden"}.get(face["hair"], color)
    face["hat_color"] = _one_of(rng, COLORS) if face["hat"] != "none" else "none"
    face["glasses"] = maybe(0.42, "glasses")
    face["eyes"] = maybe(1.0, "eyes") if face["glasses"] != "sunglasses" else "hidden"
    face["eyebrows"] = maybe(1.0, "eyebrows")
    face["nose"] = maybe(1.0, "nose") if rng.random() < 0.7 else "small"
    face["ears"] = maybe(1.0, "ears") if rng.random() < 0.7 else "small"
    face["mouth"] = maybe(1.0, "mouth")
    face["beard"] = maybe(0.36, "beard")
    face["moustache"] = maybe(0.28, "moustache")
    face["freckles"] = maybe(0.3, "freckles")
    face["earrings"] = maybe(0.36, "earrings")
    face["neckwear"] = maybe(0.42, "neckwear")
    if face["hair"] == "long":
        face["ears"] = face["earrings"] = "hidden"
    if face["beard"] == "long" and face["neckwear"] in ("tie", "bow tie"):
        face["neckwear"] = "scarf"
    face["neckwear_color"] = _one_of(rng, COLORS) if face["neckwear"] != "none" else "none"
    return {name: face[name] for name in CHARACTERISTICS}


def held_out_pairs(attributes: Mapping[str, str]) -> list[int]:
    """Return which of `HELD_OUT_COMBINATIONS` a face has, by index."""
    pairs = enumerate(HELD_OUT_COMBINATIONS)
    return [index for index, pair in pairs if all(attributes[name] == value for name, value in pair)]


# ------------------------------------------------------------------ how it is drawn


def _background(image: Image.Image, rng: np.random.Generator) -> None:
    draw = ImageDraw.Draw(image)
    side = 2 * SIZE
    first, second = random_color(rng, 70, 170), random_color(rng, 70, 170)
    kind = int(rng.integers(4))
    draw.rectangle((0, 0, side, side), fill=first)
    if kind == 1:
        for row in range(0, side, 8):
            draw.rectangle((0, row, side, row + 8), fill=mixed(first, second, row / side))
    elif kind == 2:
        step, lean = 24 + int(rng.integers(40)), int(rng.integers(-160, 160))
        for x in range(-side, 2 * side, 2 * step):
            draw.polygon([(x, 0), (x + step, 0), (x + step + lean, side), (x + lean, side)], fill=second)
    elif kind == 3:
        for _ in range(7):
            x, y, r = (int(v) for v in rng.integers(0, side, 3))
            draw.ellipse((x - r / 4, y - r / 4, x + r / 4, y + r / 4), fill=second)
    for _ in range(int(rng.integers(7))):  # clutter in the colors of hats and hair, some of it shaped like parts
        color = HUES[_one_of(rng, tuple(HUES))]
        x, y, r = int(rng.integers(side)), int(rng.integers(side)), 10 + int(rng.integers(34))
        what = int(rng.integers(5))
        if what == 0:
            draw.ellipse((x - r, y - r, x + r, y + r), fill=color)
        elif what == 1:
            draw.polygon([(x, y - r), (x + r, y + r), (x - r, y + r)], fill=color)
        elif what == 2:
            draw.rectangle((x - r, y - r // 2, x + r, y + r // 2), fill=color, outline=INK, width=3)
        elif what == 3:
            draw.ellipse((x - r, y - r, x + r, y + r), outline=color, width=8)
        else:
            draw.line([(x - 2 * r, y - r), (x - r, y + r), (x, y - r), (x + r, y + r)], fill=color, width=10)


def draw_face(attributes: Mapping[str, str], rng: np.random.Generator) -> tuple[Image.Image, dict[str, list[Box]]]:
    """Draw a face that has these characteristics; the rest (pose, size, build, skin, light, background) is random.

    Args:
        attributes: every characteristic's value, as `sample_attributes` gives.
        rng: NumPy generator; only `random` and `integers` are drawn.

    Returns:
        image: RGB, 192 x 192 pixels.
        boxes: of each visible characteristic, one or more (left, top, right, bottom) as fractions of the image: two
            for a pair of ears. A color's boxes are those of what has it. Boxes are 2 pixels larger on each side.

    Example:
        >>> rng = np.random.default_rng(5)
        >>> image, boxes = draw_face(sample_attributes(rng), rng)
        >>> len(boxes["eyebrows"])
        2
    """
    image = Image.new("RGB", (2 * SIZE, 2 * SIZE))
    _background(image, rng)
    scale = 0.74 + 0.26 * rng.random()
    roll = (rng.random() + rng.random() - 1) * math.radians(24)
    slack = 96 - 72 * scale
    high = attributes["hat"] in ("top hat", "crown", "beanie")
    center = (96 + (2 * rng.random() - 1) * slack, 84 + 14 * (1.0 if high else rng.random()) + 6 * rng.random())
    skin = SKINS[int(rng.integers(len(SKINS)))]
    pen = Pen(ImageDraw.Draw(image), center, scale, roll)
    draw_parts(pen, attributes, skin, rng)
    image = _lit(image.reduce(2), rng)
    boxes = {}
    for name, found in pen.boxes.items():
        if attributes[name] not in UNSTATED:
            fractions = [[(v / 2 + pad) / SIZE for v, pad in zip(box, (-2, -2, 2, 2), strict=True)] for box in found]
            inside = [tuple(round(min(max(v, 0.0), 1.0), 4) for v in box) for box in fractions]
            boxes[name] = [(a, b, c, d) for a, b, c, d in inside if c - a > 0.02 and d - b > 0.02]
    return image, boxes


def _lit(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Light from a side, its tint, a little grain, sometimes a little blur."""
    if rng.random() < 0.3:
        image = image.filter(ImageFilter.BoxBlur(0.3 + 0.5 * rng.random()))
    level = 0.74 + 0.32 * rng.random()
    slope_x, slope_y = (0.36 * (rng.random() - 0.5) for _ in range(2))
    tint = [0.95 + 0.1 * rng.random() for _ in range(3)]
    ramp = np.linspace(-0.5, 0.5, SIZE, dtype=np.float32)
    light = (level + slope_x * ramp[None, :] + slope_y * ramp[:, None])[..., None] * np.asarray(tint, np.float32)
    pixels = np.asarray(image, np.float32) * light
    if rng.random() < 0.4:  # coarse steps of grey grain: seen, and still small in a PNG
        strength = 3 + int(rng.integers(6))
        grain = rng.integers(0, 3, (SIZE // 2, SIZE // 2)).astype(np.float32) - 1
        pixels += strength * grain.repeat(2, 0).repeat(2, 1)[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


# ------------------------------------------------------------------ the data set


def face_plan(seed: int, index: int) -> tuple[str, dict[str, str], list[str]]:
    """Return split, attributes and captions of one face; they depend on (seed, index) only."""
    rng = np.random.default_rng([seed, index, 0])
    place = rng.random()
    split = "val" if place < 0.1 else "test" if place < 0.25 else "train"
    attributes = sample_attributes(rng)
    wants_pair = split == "test" and rng.random() < 0.2
    while wants_pair != bool(held_out_pairs(attributes)) and (wants_pair or split != "test"):
        attributes = sample_attributes(rng)
    return split, attributes, write_captions(attributes, np.random.default_rng([seed, index, 1]))


def _stamp(folder: Path, seed: int) -> None:
    """Note in the folder which faces it holds; refuse a folder with others."""
    path = folder / "faces.json"
    mine = {"seed": seed, "version": VERSION}
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise ValueError(
                f"{path}: JSON with seed and version expected: remove the folder or name another"
            ) from None
        if found != mine:
            raise ValueError(f"{path}: faces of {mine} expected, found {found}: remove the folder or name another")
        return
    if (folder / "images").exists():
        raise ValueError(f"{folder}: has images but no faces.json: name a folder that is empty or holds faces")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with replacing(path) as fresh:
        fresh.write_text(json.dumps(mine), encoding="utf-8")


def _boxes_of(path: Path) -> dict[str, list[Box]] | None:
    """Return the boxes that a drawn image has in its PNG text; None if the file is not a whole image of ours."""
    try:
        with Image.open(path) as image:
            return json.loads(image.info["boxes"])
    except (OSError, KeyError, ValueError):
        return None


def _draw_into(path: Path, attributes: Mapping[str, str], rng: np.random.Generator) -> dict[str, list[Box]]:
    image, boxes = draw_face(attributes, rng)
    text = PngImagePlugin.PngInfo()
    text.add_text("boxes", json.dumps(boxes))
    fresh = path.with_suffix(f".{os.getpid()}.tmp")
    with naming_full_disk(path):
        image.save(fresh, "PNG", compress_level=1, pnginfo=text)
    os.replace(fresh, path)
    return boxes


def make_faces(
    n: int, folder: str | os.PathLike[str], seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Draw n faces into a folder and return their tables.

    Face i depends on (seed, i) alone: 4,000 faces begin with the 2,000 of the same seed, and images that the folder
    already holds are kept. Splits depend on (seed, i) only: about 75% train, 10% val, 15% test. No face of train or val
    has one of `HELD_OUT_COMBINATIONS`; a third of the test faces has, twice as many as by chance.

    Args:
        n: how many.
        folder: images go to `folder/images/face_000123.png`, each written whole or not at all.
        seed: of everything, 0 or more; a folder holds the faces of one seed.

    Returns:
        pictures: `image_id` (the file name), `path`, `split`.
        captions: `image_id`, `caption`; five of each face.
        attributes: `image_id` and a column for each of `CHARACTERISTICS`.
        boxes: `image_id`, `label` (a characteristic), `left`, `top`, `right`, `bottom` as fractions.

    Raises:
        ValueError: n or seed out of range, or a folder with other faces or images in it.

    Example:
        >>> pictures, captions, attributes, boxes = make_faces(4, "faces")
        >>> pictures["image_id"].tolist()[:2]
        ['face_000000.png', 'face_000001.png']
    """
    if not all(isinstance(value, numbers.Integral) for value in (n, seed)) or n < 1 or seed < 0:
        raise ValueError(f"faces: n of 1 or more and a seed of 0 or more expected, found n={n!r}, seed={seed!r}")
    place = Path(folder)
    _stamp(place, seed)
    pictures, captions, rows, boxes = [], [], [], []
    for index in tqdm(range(n), desc="drawing faces", unit=" images", disable=None):
        name = f"face_{index:06d}.png"
        path = place / "images" / name
        split, attributes, written = face_plan(seed, index)
        found = _boxes_of(path)
        if found is None:
            found = _draw_into(path, attributes, np.random.default_rng([seed, index, 2]))
        pictures.append((name, str(path), split))
        captions += [(name, caption) for caption in written]
        rows.append({"image_id": name, **attributes})
        boxes += [(name, label, *box) for label, several in found.items() for box in several]
    return (
        pd.DataFrame(pictures, columns=["image_id", "path", "split"]),
        pd.DataFrame(captions, columns=["image_id", "caption"]),
        pd.DataFrame(rows),
        pd.DataFrame(boxes, columns=["image_id", "label", "left", "top", "right", "bottom"]),
    )
