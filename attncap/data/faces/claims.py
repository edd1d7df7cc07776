"""What the words of a caption claim about a drawn face, and which share of it is true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from attncap._messages import quoted
from attncap.data.faces.captions import COLORS, HAIR_COLORS, UNSTATED
from attncap.words import split_words

PRESENT = "present"  # claimed without a value: "a beard"

_SIZES = {"small": "small", "tiny": "small", "big": "big", "large": "big", "pointed": "pointed", "sharp": "pointed"}
_HUES = {name: name for name in COLORS}
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
    **{word: ("hat", word) for word in ("cap", "beanie", "crown")},
    **{word: ("glasses", None) for word in ("glasses", "spectacles")},
    **{word: ("moustache", None) for word in ("moustache", "mustache")},
    **{word: ("eyebrows", None) for word in ("eyebrows", "brows")},
    **{word: (word, None) for word in ("hair", "eyes", "nose", "ears", "mouth", "beard", "earrings", "hat")},
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

    Adjectives belong to the next noun; a determiner, "with" or a verb drops the adjectives before it. An adjective that
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


def is_true(name: str, value: str, attributes: Mapping[str, Any]) -> bool:
    """Whether a claim of `stated_characteristics` is true of a face with these attributes."""
    fact = attributes[name]
    return bool(fact not in (*UNSTATED, "bald") if value == PRESENT else fact == value)


def true_share(captions: Mapping[str, str], attributes: pd.DataFrame) -> tuple[float, int]:
    """Return which share of what captions state is true of their faces.

    Args:
        captions: caption of each image_id.
        attributes: the data set's table of attributes: `image_id` and a column a characteristic.

    Returns:
        share: true claims over claims, 0 to 1; NaN when nothing is claimed.
        stated: number of claims.

    Raises:
        ValueError: a captioned image is not in the table.

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
        ValueError: a captioned image is not in the table.
    """
    table: dict[str, dict[Any, Any]] = {str(row["image_id"]): row for row in attributes.to_dict("records")}
    missing = [image_id for image_id in captions if image_id not in table]
    if missing:
        raise ValueError(
            f"attributes: no row for image_id {quoted(missing[0])} ({len(missing)} missing): not these faces?"
        )
    claims = []
    for image_id, caption in captions.items():
        for name, value, _ in stated_characteristics(caption):
            claims.append((image_id, name, value, is_true(name, value, table[image_id])))
    return pd.DataFrame(claims, columns=["image_id", "characteristic", "value", "true"]).astype({"true": bool})
