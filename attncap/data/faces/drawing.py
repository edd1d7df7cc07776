"""Draw the parts of a face from back to front, in the coordinates of the face."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from attncap.data.faces.captions import COLORS
from attncap.data.faces.pen import CIRCLE, HUES, INK, IRISES, Color, Pen, Point, mixed, random_color


def draw_parts(pen: Pen, has: Mapping[str, str], skin: Color, rng: np.random.Generator) -> None:
    """From back to front. x grows to the right, y downward; the head turns by moving what is on its front."""
    rx, ry = 39 + 6 * rng.random(), 48 + 6 * rng.random()
    square = 0.78 + 0.22 * rng.random()  # of the jaw
    turn, nod = 7 * (2 * rng.random() - 1), 3 * (2 * rng.random() - 1)
    shade, dark = mixed(skin, (120, 40, 20), 0.22), mixed(skin, (70, 22, 14), 0.62)
    natural = ("black", "brown", "blond", "grey", "ginger")[int(rng.integers(5))]
    hair = HUES.get(has["hair_color"], HUES[natural])  # brows and beard of the bald have a color too
    hair = mixed(hair, (128, 128, 128), 0.12 * rng.random())
    hat = HUES.get(has["hat_color"], INK)
    side = 1 if rng.random() < 0.5 else -1
    long, covered = has["hair"] == "long", has["hat"] != "none"
    strand = mixed(hair, INK if sum(hair) > 200 else (255, 255, 255), 0.28)

    # Behind the head
    if long:
        pen.shape(  # boxed by what falls before it: its own box would hold the face
            [(-rx - 11, -14), (-rx, -42), (0, -ry - 13), (rx, -42), (rx + 11, -14), (rx + 15, 62), (-rx - 15, 62)], hair
        )
    if has["hair"] == "ponytail":
        pen.mark("hair", "hair_color")
        tail = [(24, -52), (40, -74), (62, -66), (74, -30), (64, 14), (58, -16), (46, -36)]
        pen.shape([(side * x, y) for x, y in tail], hair)
        pen.line([(side * 44, -64), (side * 60, -44), (side * 65, -12)], strand, 2.5)
        pen.oval(side * 33, -53, 8, 8, HUES[COLORS[int(rng.integers(len(COLORS)))]])
    if has["hair"] == "curly":
        pen.mark(*(() if covered else ("hair", "hair_color")))
        for k in range(13):
            t = math.radians(188.0 + 164.0 * k / 12)
            pen.oval((rx + 7) * math.cos(t), -12 + (ry - 4) * math.sin(t), 14, 14, hair)
        for x in (-rx - 6, rx + 6):
            pen.mark(*(() if covered else ("hair", "hair_color")))
            pen.oval(x, -4, 12, 13, hair)
    pen.mark()
    shirt = random_color(rng, 90, 130)
    pen.shape([(-66, 150), (-58, 86), (-28, 70), (28, 70), (58, 86), (66, 150), (90, 240), (-90, 240)], shirt)
    pen.shape([(-17, 30), (17, 30), (19, 72), (0, 82), (-19, 72)], shade)
    _draw_neckwear(pen, has, side)
    if not long:
        _draw_ears(pen, has, rx, skin, shade)

    # The head, and what lies on the skin
    pen.mark()
    pen.shape([(rx * _power(c, square), ry * (_power(s, square) if s > 0 else s)) for c, s in CIRCLE], skin)
    pen.mark("freckles")
    for cheek in (-1, 1):
        if has["freckles"] != "none":
            pen.mark("freckles")
            for dx, dy in ((-9, 0), (-1, -4), (7, 1), (-4, 7), (4, 8)):
                pen.oval(cheek * 24 + 0.7 * turn + dx, 12 + nod + dy, 2.9, 2.9, dark, None)
    _draw_beard(pen, has, rx, ry, hair, strand)
    if has["beard"] in ("short", "long"):
        pen.mark()
        pen.oval(turn, 30 + nod, 19, 10, skin, None)
    _draw_mouth(pen, has, turn, nod)
    _draw_hair_in_front(pen, has, rx, ry, hair, strand, covered, side)
    for eye in (-1, 1):
        x, y = eye * 17.0 + turn, nod - 7.0
        pen.mark("eyes")
        pen.oval(x, y, 11.5, 9.5, (252, 252, 250))
        pen.oval(x + 0.3 * turn, y, 7, 7.4, IRISES.get(has["eyes"], INK), INK, 0.8)
        pen.oval(x + 0.3 * turn, y, 2.8, 2.8, (12, 10, 14), None)
        pen.mark("eyebrows")
        brow = mixed(hair, INK, 0.45)
        lift = 3 * (2 * rng.random() - 1)
        outer, inner = (x + eye * 12, y - 16 - lift), (x - eye * 10, y - 18 + lift)
        bend = ((outer[0] + inner[0]) / 2, (outer[1] + inner[1]) / 2 - 3)
        pen.line([outer, bend, inner], brow, 9.5 if has["eyebrows"] == "thick" else 2.4)
    if has["moustache"] != "none":
        pen.mark("moustache")
        for half in (-1, 1):
            wide = [(0, 17), (13, 14), (27, 20), (33, 14), (28, 28), (12, 27), (0, 21)]
            fine = [(0, 19.5), (12, 17.5), (27, 24), (12, 21.5), (0, 23)]
            points = wide if has["moustache"] == "bushy" else fine
            pen.shape([(half * x + turn, y + nod) for x, y in points], hair, INK, 1.0)
    _draw_nose(pen, has, turn, nod, side, shade)
    _draw_glasses(pen, has, turn, nod, rx, rng)
    if covered:
        pen.rise = 6.0  # clear of the eyebrows
        _draw_hat(pen, has["hat"], rx, ry, hat, side)


def _power(value: float, exponent: float) -> float:
    return math.copysign(abs(value) ** exponent, value)


def _draw_neckwear(pen: Pen, has: Mapping[str, str], side: int) -> None:
    if has["neckwear"] == "none":
        return
    color = HUES[has["neckwear_color"]]
    deep, white = mixed(color, INK, 0.35), (250, 250, 250)
    if has["neckwear"] != "scarf":
        pen.mark()
        pen.shape([(0, 80), (-24, 62), (-32, 76), (-14, 92)], white)
        pen.shape([(0, 80), (24, 62), (32, 76), (14, 92)], white)
    pen.mark("neckwear", "neckwear_color")
    if has["neckwear"] == "scarf":
        pen.shape([(side * x, y) for x, y in ((8, 76), (30, 74), (34, 122), (14, 124))], deep)
        pen.shape([(-36, 58), (-30, 50), (0, 60), (30, 50), (36, 58), (38, 74), (0, 90), (-38, 74)], color)
        pen.line([(-34, 66), (0, 77), (34, 66)], deep, 3)
    elif has["neckwear"] == "tie":
        pen.shape([(-9, 74), (9, 74), (6, 86), (16, 118), (0, 134), (-16, 118), (-6, 86)], color)
        pen.line([(-7, 87), (7, 87)], deep, 3)
    else:
        for half in (-1, 1):
            pen.shape([(half * x, y) for x, y in ((2, 78), (28, 64), (31, 80), (28, 96))], color)
        pen.oval(0, 80, 7, 8, deep)


def _draw_ears(pen: Pen, has: Mapping[str, str], rx: float, skin: Color, shade: Color) -> None:
    for half in (-1, 1):
        pen.mark("ears")
        if has["ears"] == "pointed":
            points = [(-6, -14), (4, -16), (26, -38), (20, -8), (8, 12), (-6, 12)]
            pen.shape([(half * (rx + x), y) for x, y in points], skin)
            pen.shape([(half * (rx + x), y) for x, y in ((2, -9), (19, -26), (9, 2))], shade, None)
            low = 13
        else:
            wide, tall, low = (15, 20, 18) if has["ears"] == "big" else (6.5, 9, 10)
            pen.oval(half * (rx + wide * 0.55), 0, wide, tall, skin)
            pen.oval(half * (rx + wide * 0.65), 0, wide * 0.5, tall * 0.55, shade, None)
        if has["earrings"] in ("hoop", "pearl"):
            pen.mark("earrings")
            if has["earrings"] == "hoop":
                pen.ring(half * (rx + 5), low + 9, 8.5, INK, 5.4)
                pen.ring(half * (rx + 5), low + 9, 8.5, (255, 200, 40), 3.4)
            else:
                pen.oval(half * (rx + 5), low + 5, 6.5, 6.5, (250, 248, 255), INK, 1.6)


def _draw_hair_in_front(
    pen: Pen, has: Mapping[str, str], rx: float, ry: float, hair: Color, strand: Color, covered: bool, side: int
) -> None:
    style = has["hair"]
    if style == "hidden":
        return
    if style == "bald":
        pen.mark("hair")
        pen.place([(-rx * 0.8, -ry), (rx * 0.8, -ry * 0.6)])
        pen.oval(-side * 14, -ry + 14, 9, 4.5, (255, 255, 255), None)
        return
    if covered:
        low, out = (58.0, 15) if style == "long" else (6.0, 4)
        for half in (-1, 1):
            pen.mark("hair", "hair_color")
            if style == "curly":
                for y in (-6, -21):
                    pen.oval(half * (rx + 4), y, 11, 10, hair)
                continue
            temple = [(rx + 3, -38.0), (rx + out, low), (rx - 7, low), (rx - 11, -38.0)]
            pen.shape([(half * x, y) for x, y in temple], hair)
        return
    pen.mark()
    if style == "curly":
        for k in range(6):
            pen.oval(-rx + 6 + (2 * rx - 12) * k / 5, -ry * 0.72 - 7 * math.sin(math.pi * k / 5), 11, 10, hair)
        for k in range(4):
            pen.arc(-27 + 18 * k, -ry * 0.74 - 6, 5, 5, 150, 380, strand, 2)
        return
    if style == "spiky":
        points: list[Point] = [(-rx - 2, -10)]
        for k in range(13):  # the points, and the valleys between
            t, out = math.radians(197 + 73 * k / 6), 2 if k % 2 else 22
            points.append(((rx + out) * math.cos(t), (ry + out) * math.sin(t)))
        points += [(rx + 2, -10), (rx - 7, -26), (18, -32), (6, -24), (-8, -33), (-20, -25), (-rx + 6, -27)]
        pen.shape(points, hair)
        pen.mark("hair", "hair_color")
        pen.box(-rx - 12, -ry - 22, rx + 12, -24)
        return
    top = [((rx + 3) * math.cos(t), (ry + 6) * math.sin(t)) for t in (math.radians(180 + 15 * k) for k in range(13))]
    part = -side * 16  # where the hair is parted
    pen.shape([(-rx - 3, 0), *top, (rx + 3, 0), (rx - 5, -18), (part + 12, -32), (part, -38), (-rx + 5, -18)], hair)
    pen.line([(part, -38), (part * 0.8, -ry - 3)], strand, 2.2)
    pen.mark("hair", "hair_color")
    pen.box(-rx - 3, -ry - 6, rx + 3, -22)  # leaves the eyes out, which lie between the ends
    if style == "long":
        for half in (-1, 1):
            pen.mark("hair", "hair_color")
            pen.shape(
                [(half * (rx + 3), -24), (half * (rx + 14), 60), (half * (rx - 6), 62), (half * (rx - 8), -24)], hair
            )
            pen.line([(half * (rx + 1), -10), (half * (rx + 5), 54)], strand, 2.2)


def _draw_beard(pen: Pen, has: Mapping[str, str], rx: float, ry: float, hair: Color, strand: Color) -> None:
    if has["beard"] == "none":
        return
    pen.mark("beard")
    if has["beard"] == "goatee":
        pen.shape([(-12, 41), (0, 38), (12, 41), (11, 56), (0, ry + 16), (-11, 56)], hair)
        return
    inner = [(rx - 5, 4), (rx * 0.7, 17), (0, 16), (-rx * 0.7, 17), (-rx + 5, 4)]
    if has["beard"] == "short":
        jaw = [((rx + 2) * c, (ry + 5) * s) for c, s in (CIRCLE[k] for k in range(1, 14))]
        pen.shape([(rx + 1, 0), *jaw, (-rx - 1, 0), *reversed(inner)], hair)
        return
    outer = [(rx + 1, 0), (rx + 2, 34), (30, 70), (13, 92), (4, 84), (-6, 98), (-14, 86), (-30, 70), (-rx - 2, 34)]
    pen.shape([*outer, (-rx - 1, 0), *reversed(inner)], hair)
    for x in (-16, 0, 16):
        pen.line([(x, 54), (x * 0.7, 80)], strand, 2.4)


def _draw_mouth(pen: Pen, has: Mapping[str, str], turn: float, nod: float) -> None:
    pen.mark("mouth")
    x, y, lip = turn, 31 + nod, (150, 34, 44)
    if has["mouth"] == "smile":
        curve = [(x + 17 * math.cos(t), y - 4 + 13 * math.sin(t)) for t in (math.pi * k / 10 for k in range(11))]
        pen.shape(curve, (255, 252, 248), lip, 2.6)
    elif has["mouth"] == "frown":
        pen.arc(x, y + 8, 16, 11, 190, 350, lip, 5)
    elif has["mouth"] == "open":
        pen.oval(x, y + 1, 9, 10, (84, 14, 26), lip, 3)
        pen.oval(x, y + 6, 5, 3.5, (232, 112, 120), None)
    else:
        pen.line([(x - 15, y), (x + 15, y)], lip, 4.6)


def _draw_nose(pen: Pen, has: Mapping[str, str], turn: float, nod: float, side: int, shade: Color) -> None:
    pen.mark("nose")
    x, y = 1.3 * turn, 8 + nod
    if has["nose"] == "small":
        pen.oval(x, y + 2, 5, 4, shade)
    elif has["nose"] == "big":
        pen.oval(x, y, 12, 11, mixed(shade, (230, 60, 50), 0.2))
        pen.oval(x - 4, y - 4, 3, 2.5, mixed(shade, (255, 255, 255), 0.6), None)
    else:
        pen.shape([(x - side * 5, y - 18), (x + side * 22, y + 5), (x - side * 7, y + 9)], shade)


def _draw_glasses(
    pen: Pen, has: Mapping[str, str], turn: float, nod: float, rx: float, rng: np.random.Generator
) -> None:
    kind = has["glasses"]
    if kind == "none":
        return
    frame = ((24, 22, 30), (150, 20, 40), (20, 40, 130), (90, 50, 16))[int(rng.integers(4))]
    pen.mark("glasses")
    y = -7 + nod
    for half in (-1, 1):
        x = half * 18 + turn
        pen.line([(x + half * 13, y - 2), (half * (rx + 1), y - 6)], frame, 3)
        if kind == "round":
            pen.ring(x, y, 15.5, frame, 3.6)
        elif kind == "square":
            pen.line(
                [(x - 15, y - 12), (x + 15, y - 12), (x + 15, y + 12), (x - 15, y + 12), (x - 15, y - 13.5)], frame, 4
            )
        else:
            pen.shape([(x - 16, y - 11), (x + 16, y - 11), (x + 14, y + 7), (x, y + 14), (x - 14, y + 7)], (26, 26, 34))
            pen.line([(x - 8, y + 2), (x - 1, y - 6)], (130, 140, 160), 2.6)
    pen.line([(turn - 4, y - 3), (turn + 4, y - 3)], frame, 3.6)


def _draw_hat(pen: Pen, kind: str, rx: float, ry: float, hat: Color, side: int) -> None:
    deep = mixed(hat, INK, 0.35)
    pen.mark("hat", "hat_color")
    dome = [((rx + 6) * c, -29 + (ry - 12) * s) for c, s in (CIRCLE[k % 28] for k in range(14, 29))]
    if kind == "cap":
        pen.shape(dome, hat)
        pen.shape(
            [(side * x, y) for x, y in ((-rx - 5, -36), (20, -38), (rx + 30, -30), (rx + 26, -22), (-rx - 5, -27))],
            deep,
        )
        pen.oval(0, -29 - ry + 12, 4, 3, deep)
    elif kind == "beanie":
        pen.oval(0, -ry - 24, 11, 11, mixed(hat, (255, 255, 255), 0.55))
        pen.shape(dome, hat)
        pen.shape([(-rx - 8, -43), (0, -48), (rx + 8, -43), (rx + 8, -26), (0, -31), (-rx - 8, -26)], deep)
        for k in range(-3, 4):
            pen.line([(k * 12, -44), (k * 12, -30)], hat, 2.6)
    elif kind == "top hat":
        pen.shape([(-rx + 8, -34), (-rx + 3, -94), (rx - 3, -94), (rx - 8, -34)], hat)
        pen.shape([(-rx + 7, -50), (rx - 7, -50), (rx - 8, -36), (-rx + 8, -36)], deep)
        pen.shape([(-rx - 16, -40), (0, -34), (rx + 16, -40), (rx + 14, -30), (0, -25), (-rx - 14, -30)], hat)
    else:
        peaks = [(-rx - 4, -28), (-rx - 10, -78), (-22, -54), (0, -88), (22, -54), (rx + 10, -78), (rx + 4, -28)]
        pen.shape([*peaks, (0, -24)], hat)
        pen.line([(-rx - 3, -36), (0, -32), (rx + 3, -36)], (255, 236, 150), 4)
        for x, y in ((-rx - 10, -80), (0, -90), (rx + 10, -80)):
            pen.oval(x, y, 5.5, 5.5, (255, 236, 150))
