"""The language of the drawn faces: their characteristics and their reference captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

COLORS = ("red", "blue", "green", "yellow", "purple")
HAIR_COLORS = ("black", "brown", "blond", "ginger", "grey", "pink")
# "none": not on this face. "hidden": behind something else on it. Neither is ever stated in a caption or given a box.
UNSTATED = ("none", "hidden")

CHARACTERISTICS: dict[str, tuple[str, ...]] = {
    "hair": ("bald", "short", "long", "curly", "spiky", "ponytail", "hidden"),
    "hair_color": (*HAIR_COLORS, "none", "hidden"),
    "hat": ("none", "cap", "beanie", "top hat", "crown"),
    "hat_color": ("none", *COLORS),
    "glasses": ("none", "round", "square", "sunglasses"),
    "eyes": ("brown", "blue", "green", "hidden"),
    "eyebrows": ("thin", "thick"),
    "nose": ("small", "big", "pointed"),
    "ears": ("small", "big", "pointed", "hidden"),
    "mouth": ("smile", "frown", "open", "straight"),
    "beard": ("none", "short", "long", "goatee"),
    "moustache": ("none", "thin", "bushy"),
    "freckles": ("none", "some"),
    "earrings": ("none", "hoop", "pearl", "hidden"),
    "neckwear": ("none", "scarf", "tie", "bow tie"),
    "neckwear_color": ("none", *COLORS),
}

# Ways to say a thing: the first is the usual one, with the probability beside it; the others share the rest.
Ways = tuple[float, tuple[str, ...]]
_MOUTH: dict[str, tuple[Ways, Ways]] = {  # as an adjective of the person; as the end of a sentence
    "smile": ((0.75, ("smiling", "happy")), (0.8, ("is smiling", "looks happy"))),
    "frown": ((0.75, ("frowning", "sad")), (0.8, ("is frowning", "looks sad"))),
    "open": ((0.8, ("surprised", "astonished")), (0.8, ("looks surprised", "has an open mouth"))),
    "straight": ((0.8, ("serious", "calm")), (0.8, ("looks serious", "looks calm"))),
}
_SAID: dict[tuple[str, str], Ways] = {
    ("hair", "bald"): (0.8, ("a bald head", "no hair")),
    ("hair", "ponytail"): (0.8, ("a {hair_color} ponytail", "{hair_color} hair in a ponytail")),
    ("hat", "cap"): (0.75, ("a {hat_color} cap", "a {hat_color} baseball cap")),
    ("hat", "beanie"): (0.75, ("a {hat_color} beanie", "a {hat_color} woolly hat")),
    ("hat", "top hat"): (0.85, ("a {hat_color} top hat", "a tall {hat_color} top hat")),
    ("hat", "crown"): (0.85, ("a {hat_color} crown", "a royal {hat_color} crown")),
    ("glasses", "round"): (0.75, ("round glasses", "round spectacles")),
    ("glasses", "square"): (0.75, ("square glasses", "square spectacles")),
    ("glasses", "sunglasses"): (0.75, ("sunglasses", "dark glasses")),
    ("nose", "small"): (0.8, ("a small nose", "a tiny nose")),
    ("nose", "big"): (0.75, ("a big nose", "a large nose")),
    ("nose", "pointed"): (0.8, ("a pointed nose", "a sharp nose")),
    ("ears", "small"): (0.8, ("small ears", "tiny ears")),
    ("ears", "big"): (0.75, ("big ears", "large ears")),
    ("ears", "pointed"): (0.8, ("pointed ears", "elf ears")),
    ("beard", "short"): (0.8, ("a short beard", "a trimmed beard")),
    ("beard", "long"): (0.85, ("a long beard", "a flowing beard")),
    ("beard", "goatee"): (0.8, ("a goatee", "a chin beard")),
    ("moustache", "thin"): (0.8, ("a thin moustache", "a thin mustache")),
    ("moustache", "bushy"): (0.8, ("a bushy moustache", "a bushy mustache")),
    ("freckles", "some"): (0.8, ("freckles", "freckled cheeks")),
    ("earrings", "hoop"): (0.8, ("hoop earrings", "big hoops")),
    ("earrings", "pearl"): (0.8, ("pearl earrings", "pearls")),
    ("eyebrows", "thin"): (0.8, ("thin eyebrows", "thin brows")),
    ("eyebrows", "thick"): (0.8, ("thick eyebrows", "heavy eyebrows")),
    ("neckwear", "scarf"): (0.85, ("a {neckwear_color} scarf", "a warm {neckwear_color} scarf")),
    ("neckwear", "tie"): (0.75, ("a {neckwear_color} tie", "a {neckwear_color} necktie")),
    ("neckwear", "bow tie"): (0.85, ("a {neckwear_color} bow tie", "a neat {neckwear_color} bow tie")),
}
# What catches the eye first: captions name from the top of this list, as people do. (The mouth is nearly always named.)
_TELLING: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("hair", ("bald", "short", "long", "curly", "spiky", "ponytail")),
    ("hat", ("cap", "beanie", "top hat", "crown")),
    ("glasses", ("round", "square", "sunglasses")),
    ("beard", ("short", "long", "goatee")),
    ("ears", ("pointed", "big")),
    ("nose", ("big", "pointed")),
    ("moustache", ("thin", "bushy")),
    ("neckwear", ("scarf", "tie", "bow tie")),
    ("freckles", ("some",)),
    ("earrings", ("hoop", "pearl")),
    ("eyes", ("blue", "green")),
    ("eyebrows", ("thick",)),
    ("eyes", ("brown",)),
    ("nose", ("small",)),
    ("ears", ("small",)),
    ("eyebrows", ("thin",)),
)
_BODY = ("hair", "beard", "moustache", "eyes", "eyebrows", "nose", "ears", "freckles")  # "with"; the usual order
_WORN = ("hat", "glasses", "earrings", "neckwear")  # "wearing"


def _pick(ways: Ways, rng: np.random.Generator | None) -> str:
    usual, texts = ways
    if rng is None or len(texts) == 1 or rng.random() < usual:
        return texts[0]
    return texts[1 + int(rng.integers(len(texts) - 1))]


def _say(characteristic: str, attributes: Mapping[str, str], rng: np.random.Generator | None) -> str:
    value = attributes[characteristic]
    if characteristic == "eyes":
        return f"{value} eyes"
    if (characteristic, value) not in _SAID:
        color = attributes["hair_color"]
        return _pick((0.85, (f"{value} {color} hair", f"{color} {value} hair")), rng)
    return _pick(_SAID[characteristic, value], rng).format(**attributes)


def _listed(names: Sequence[str], attributes: Mapping[str, str], rng: np.random.Generator | None) -> str:
    said = [_say(name, attributes, rng) for name in names]
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"


def _in_order(names: Sequence[str], chosen: Sequence[str], rng: np.random.Generator | None) -> list[str]:
    ordered = [name for name in names if name in chosen]
    if rng is not None and len(ordered) > 1 and rng.random() < 0.2:
        place = int(rng.integers(len(ordered) - 1))
        ordered[place : place + 2] = ordered[place + 1], ordered[place]
    return ordered


def _write_caption(attributes: Mapping[str, str], rng: np.random.Generator | None, most: int = 5) -> str:
    """One caption; without `rng` the usual choice is made everywhere, and `most` things are named beside the mouth."""
    wanted = most if rng is None else (4, 5, 5, 5, 5, 5, 6)[int(rng.integers(7))]
    chosen: list[str] = []
    for name, values in _TELLING:
        overlooked = rng is not None and rng.random() < 0.08
        if attributes[name] in values and len(chosen) < wanted and not overlooked:
            chosen.append(name)
    body, worn = _in_order(_BODY, chosen, rng), _in_order(_WORN, chosen, rng)
    person = _pick((0.8, ("person", "character", "face")), rng)
    adjective, ending = (_pick(ways, rng) for ways in _MOUTH[attributes["mouth"]])
    has = _listed(body, attributes, rng) if body else ""
    wears = _listed(worn, attributes, rng) if worn else ""
    frame = 0.0 if rng is None else rng.random()
    article = "an" if adjective.startswith("a") else "a"
    if frame < 0.62:  # the usual order
        tail = f" {_pick((0.8, ('wearing', 'in')), rng)} {wears}" if wears else ""
        return f"{article} {adjective} {person}" + (f" with {has}" if has else "") + tail
    if frame < 0.74:
        head = f"a {person}" + (f" wearing {wears}" if wears else "")
        return head + (f", with {has}" if has else "") + f", who {ending}"
    if frame < 0.88:
        parts = [f"has {has}"] * bool(has) + [f"wears {wears}"] * bool(wears)
        return f"this {person} {' and '.join(parts)} and {ending}"
    head = f"{article} {adjective} {person}" + (f" wearing {wears}" if wears else "")
    return head + (f" and with {has}" if has and wears else f" with {has}" if has else "")


def write_captions(attributes: Mapping[str, str], rng: np.random.Generator, n: int = 5) -> list[str]:
    """Write reference captions of a face, as several people would.

    Each names the mouth and four to six other things, from what catches the eye first, and now and then overlooks one.
    One order of the sentence and one word for each thing is usual; the others are drawn by chance.

    Args:
        attributes: every characteristic's value, as `sample_attributes` gives.
        rng: NumPy generator; only `random` and `integers` are drawn, so that captions are the same on any machine.
        n: how many.

    Returns:
        captions: n sentences in lower case; never "none" or "hidden", never anything untrue.

    Example:
        >>> write_captions(sample_attributes(rng), rng, n=1)
        ['a smiling person with short black hair, a goatee and big ears wearing a red cap and round glasses']
    """
    return [_write_caption(attributes, rng) for _ in range(n)]


def usual_caption(attributes: Mapping[str, str], most: int = 5) -> str:
    """Write the caption of one who knows every characteristic and always takes the usual words and order.

    Its BLEU against the reference captions is what a perfect captioner can expect, since the references differ.
    Beside the mouth `most` things are named, those that catch the eye first.
    """
    return _write_caption(attributes, None, most)
