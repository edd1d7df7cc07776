"""The language of the drawn faces: their characteristics, reference captions, and what the words of a caption claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from attncap.words import split_words

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


# ------------------------------------------------------------------ from words to claims

PRESENT = "present"  # claimed without a value: "a beard"

_SIZES = {"small": "small", "tiny": "small", "big": "big", "large": "big", "pointed": "pointed", "sharp": "pointed"}
_HUES = {"red": "red", "blue": "blue", "green": "green", "yellow": "yellow", "purple": "purple"}
_HAIR_HUES = {name: name for name in HAIR_COLORS} | {"blonde": "blond", "gray": "grey"}
_BREADTHS = {"thin": "thin", "thick": "thick", "heavy": "thick"}
_FITS: dict[str, dict[str, str]] = {  # the adjectives that say which value
    "hair": {"short": "short", "long": "long", "curly": "curly", "spiky": "spiky", "no": "bald"},
    "hair_color": _HAIR_HUES,
    "hat": {"top": "top hat", "woolly": "beanie", "woollen": "beanie"},
    "hat_color": _HUES,
    "glasses": {"round": "round", "square": "square", "dark": "sunglasses"},
    "eyes": {"brown": "brown", "blue": "blue", "green": "green"},
    "eyebrows": _BREADTHS,
    "nose": _SIZES,
    "ears": _SIZES | {"elf": "pointed"},
    "mouth": {"open": "open", "straight": "straight"},
    "beard": {"short": "short", "trimmed": "short", "long": "long", "flowing": "long", "chin": "goatee"},
    "moustache": {"thin": "thin", "bushy": "bushy"},
    "earrings": {"hoop": "hoop", "pearl": "pearl"},
    "neckwear": {"bow": "bow tie"},
    "neckwear_color": _HUES,
    "freckles": {},
}
_ADJECTIVES = {word for words in _FITS.values() for word in words}
_NOUNS: dict[str, tuple[str, str | None]] = {  # what it is about, and the value that the noun itself states
    **{word: ("hair", None) for word in ("hair",)},
    **{word: ("hat", word) for word in ("cap", "beanie", "crown")},
    **{word: ("glasses", None) for word in ("glasses", "spectacles")},
    **{word: ("moustache", None) for word in ("moustache", "mustache")},
    **{word: ("eyebrows", None) for word in ("eyebrows", "brows")},
    **{word: (word, None) for word in ("eyes", "nose", "ears", "mouth", "beard", "earrings", "hat")},
    "ponytail": ("hair", "ponytail"),
    "sunglasses": ("glasses", "sunglasses"),
    "goatee": ("beard", "goatee"),
    "freckles": ("freckles", "some"),
    "hoops": ("earrings", "hoop"),
    "pearls": ("earrings", "pearl"),
    "scarf": ("neckwear", "scarf"),
    "tie": ("neckwear", "tie"),
    "necktie": ("neckwear", "tie"),
}
_ALONE: dict[str, tuple[str, str]] = {  # words that state something without a noun
    "bald": ("hair", "bald"),
    "freckled": ("freckles", "some"),
    **{word: ("mouth", "smile") for word in ("smiling", "happy", "smile", "smiles")},
    **{word: ("mouth", "frown") for word in ("frowning", "sad", "frown", "frowns")},
    **{word: ("mouth", "open") for word in ("surprised", "astonished")},
    **{word: ("mouth", "straight") for word in ("serious", "calm")},
}
_NEW_PHRASE = {"a", "an", "the", "this", "with", "wearing", "wears", "has", "who", "is", "looks", "in"}
_COLOR_OF = {"hair": "hair_color", "hat": "hat_color", "neckwear": "neckwear_color"}
_MAY_BE_ABSENT = {"hair", "hat", "glasses", "beard", "moustache", "earrings", "neckwear"}


def stated_characteristics(caption: str) -> list[tuple[str, str, int]]:
    """Read what a caption claims about a face, grammatical or not.

    Rule: adjectives wait for the next noun; a determiner, "with" or a verb forgets those that wait. An adjective that
    the noun cannot take ("a purple nose") is a claim too, and false of every face. Contradictory claims both count.
    A noun without a value ("a beard") claims `PRESENT` of what may be absent, and nothing of what everyone has.

    Args:
        caption: any text.

    Returns:
        claims: (characteristic, value, index of the word that states it among the words of the caption), in the order
            of the words. Words are lower-case runs of letters; punctuation is no word.

    Example:
        >>> stated_characteristics("A smiling person with black hair, a red cap")
        [('mouth', 'smile', 1), ('hair_color', 'black', 4), ('hat_color', 'red', 7), ('hat', 'cap', 8)]
    """
    claims: list[tuple[str, str, int]] = []
    waiting: list[tuple[str, int]] = []
    for index, word in enumerate(split_words(caption)):
        if word in _ALONE:
            claims.append((*_ALONE[word], index))
        elif word in _ADJECTIVES:
            waiting.append((word, index))
        elif word in _NOUNS:
            claims += _claims_of_noun(word, index, waiting)
            waiting = []
        elif word in _NEW_PHRASE:
            waiting = []
    return claims


def _claims_of_noun(noun: str, index: int, waiting: Sequence[tuple[str, int]]) -> list[tuple[str, str, int]]:
    name, own_value = _NOUNS[noun]
    color = _COLOR_OF.get(name, "")
    claims = []
    said = False
    for word, place in waiting:
        value = _FITS[name].get(word)
        if value is not None and own_value in (None, "tie", value):
            claims.append((name, value, place))
            said = True
        elif color and word in _FITS[color]:
            claims.append((color, _FITS[color][word], place))
        elif not (noun == "hoops" and word in _SIZES):
            claims.append((name, word, place))  # a value that no face has
    if own_value is not None and not said:
        claims.append((name, own_value, index))
    elif not claims and name in _MAY_BE_ABSENT:
        claims.append((name, PRESENT, index))
    return claims


def true_share(captions: Mapping[str, str], attributes: pd.DataFrame) -> tuple[float, int]:
    """Return which share of what captions state is true of their faces.

    Args:
        captions: caption of each image_id.
        attributes: the data set's table of attributes: `image_id` and a column a characteristic.

    Returns:
        share: true claims over claims, 0 to 1; NaN when nothing is claimed.
        stated: number of claims.

    Raises:
        ValueError: a captioned picture is not in the table.

    Example:
        >>> true_share({"face_000000.png": "a person with a red cap"}, data.attributes)
        (1.0, 2)
    """
    claims = stated_claims(captions, attributes)
    return (float(claims["true"].mean()) if len(claims) else float("nan")), len(claims)


def stated_claims(captions: Mapping[str, str], attributes: pd.DataFrame) -> pd.DataFrame:
    """Return what captions claim, claim by claim, and whether it is true of their faces.

    Args:
        captions: caption of each image_id.
        attributes: as in `true_share`.

    Returns:
        claims: DataFrame (image_id, characteristic, value, true), in the order of captions and words.

    Raises:
        ValueError: a captioned picture is not in the table.
    """
    table: dict[str, dict[Any, Any]] = {str(row["image_id"]): row for row in attributes.to_dict("records")}
    missing = [image_id for image_id in captions if image_id not in table]
    if missing:
        raise ValueError(f"attributes: no row for image_id {missing[0]!r} ({len(missing)} missing): not these faces?")
    claims = []
    for image_id, caption in captions.items():
        for name, value, _ in stated_characteristics(caption):
            fact = table[image_id][name]
            true = fact not in (*UNSTATED, "bald") if value == PRESENT else fact == value
            claims.append((image_id, name, value, bool(true)))
    return pd.DataFrame(claims, columns=["image_id", "characteristic", "value", "true"]).astype({"true": bool})
