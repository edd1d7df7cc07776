"""The pen that draws faces: shapes in the coordinates of the face, the boxes of what they show, and colors."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from PIL import ImageDraw

Color = tuple[int, int, int]
Point = tuple[float, float]

INK = (40, 28, 34)
HUES: dict[str, Color] = {
    **{"red": (214, 40, 44), "blue": (44, 92, 214), "green": (36, 152, 66), "yellow": (244, 202, 30)},
    **{"purple": (136, 56, 178), "black": (40, 36, 44), "brown": (112, 66, 30), "blond": (240, 208, 112)},
    **{"ginger": (222, 98, 26), "grey": (166, 170, 180), "pink": (242, 120, 182)},
}
IRISES: dict[str, Color] = {"brown": (112, 58, 14), "blue": (40, 128, 240), "green": (38, 168, 66)}
SKINS: tuple[Color, ...] = (
    *((255, 224, 196), (246, 206, 170), (232, 184, 140), (214, 160, 112)),
    *((184, 126, 82), (150, 98, 62), (124, 80, 54)),
)
CIRCLE = [(math.cos(math.tau * k / 28), math.sin(math.tau * k / 28)) for k in range(28)]


def mixed(color: Color, other: Color, share: float) -> Color:
    r, g, b = (round(a + (b - a) * share) for a, b in zip(color, other, strict=True))
    return r, g, b


def random_color(rng: np.random.Generator, low: int, span: int) -> Color:
    r, g, b = (low + int(rng.integers(span)) for _ in range(3))
    return r, g, b


class Pen:
    """Draws in the face's own coordinates (origin between the ears, about 45 units to the chin's side), tilted and
    scaled, at twice the size; what is drawn between two `mark`s is one box of the marked characteristics."""

    def __init__(self, draw: ImageDraw.ImageDraw, center: Point, scale: float, tilt: float):
        self.draw, self.center, self.scale = draw, center, 2.0 * scale
        self.cos, self.sin = math.cos(tilt), math.sin(tilt)
        self.boxes: dict[str, list[list[float]]] = {}
        self.open: list[list[float]] = []
        self.rise = 0.0  # how much higher all is drawn

    def mark(self, *names: str) -> None:
        self.open = [[math.inf, math.inf, -math.inf, -math.inf] for _ in names]
        for name, box in zip(names, self.open, strict=True):
            self.boxes.setdefault(name, []).append(box)

    def place(self, points: Iterable[Point]) -> list[Point]:
        (cx, cy), a, b = self.center, self.scale * self.cos, self.scale * self.sin
        placed = [(2 * cx + a * x - b * y, 2 * cy + b * x + a * y) for x, y in ((x, y - self.rise) for x, y in points)]
        for box in self.open:
            xs, ys = zip(*placed, strict=True)
            box[:] = min(box[0], *xs), min(box[1], *ys), max(box[2], *xs), max(box[3], *ys)
        return placed

    def shape(self, points: Iterable[Point], fill: Color, edge: Color | None = INK, width: float = 1.3) -> None:
        placed = self.place(points)
        self.draw.polygon(placed, fill=fill)
        if edge is not None:
            self.draw.line([*placed, placed[0], placed[1]], edge, max(2, round(width * self.scale)), joint="curve")

    def oval(
        self, x: float, y: float, rx: float, ry: float, fill: Color, edge: Color | None = INK, width: float = 1.3
    ) -> None:
        self.shape([(x + rx * c, y + ry * s) for c, s in CIRCLE], fill, edge, width)

    def line(self, points: Iterable[Point], fill: Color, width: float) -> None:
        self.draw.line(self.place(points), fill, max(2, round(width * self.scale)), joint="curve")

    def arc(
        self, x: float, y: float, rx: float, ry: float, start: float, end: float, fill: Color, width: float
    ) -> None:
        turns = [math.radians(start + (end - start) * k / 14) for k in range(15)]
        self.line([(x + rx * math.cos(t), y + ry * math.sin(t)) for t in turns], fill, width)

    def box(self, left: float, top: float, right: float, bottom: float) -> None:
        """Box a region without drawing anything."""
        self.place([(left, top), (right, top), (right, bottom), (left, bottom)])

    def ring(self, x: float, y: float, r: float, fill: Color, width: float) -> None:
        self.arc(x, y, r, r, 0, 372, fill, width)
