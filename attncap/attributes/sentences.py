"""`to_sentence`: put the attributes of an image into a sentence, so that a classifier is scored like a captioner."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from attncap.captions import Caption
from attncap.data.faces.captions import CHARACTERISTICS, UNSTATED, usual_caption
from attncap.data.faces.claims import is_true, stated_characteristics
from attncap.words import split_words

# Wording of CelebA's names in a sentence; other names are used as written.
ADJECTIVES = {"attractive", "bald", "chubby", "smiling", "young", "pale skin"}
SAID_AS = {
    "5 o clock shadow": "a five o'clock shadow",
    "bald": "bald",
    "bangs": "bangs",
    "mouth slightly open": "a slightly open mouth",
    "pale skin": "pale",
    "sideburns": "sideburns",
}
SINGULAR = ("nose", "goatee", "mustache", "moustache", "beard", "hairline", "face", "chin", "mouth", "hat", "cap")


def to_sentence(names: Sequence[str], probs: np.ndarray, thresholds: np.ndarray, most: int | None = None) -> str:
    """Put the attributes of one image into a sentence that can be scored as a caption.

    Columns of the drawn faces ("hair=curly") make a caption in the drawn faces' usual words, which
    `attncap.data.faces.captions.stated_characteristics` reads. Other names make "a young woman with wavy hair and
    eyeglasses, wearing lipstick": CelebA's Male gives man or woman, No_X is left out, other names are used as written.

    Args:
        names: of the A attributes.
        probs: shape (A,).
        thresholds: shape (A,); an attribute is stated where its probability reaches its threshold.
        most: largest number of attributes, those furthest above their thresholds; None: all. For drawn faces: number
            of things besides the mouth, the most noticeable first; None: five.

    Returns:
        sentence: in lower case, never empty.

    Example:
        >>> to_sentence(["Male", "Big_Nose", "Eyeglasses", "Smiling"], np.array([0.1, 0.8, 0.2, 0.9]), np.full(4, 0.5))
        'a smiling woman with a big nose'
    """
    if names and all("=" in name for name in names):
        return usual_caption(_characteristics(names, probs, thresholds), 5 if most is None else most)
    words = [re.sub(r"[_\s]+", " ", name).strip().lower() for name in names]
    above = [at for at in np.argsort(np.asarray(thresholds) - np.asarray(probs), kind="stable")]
    said = [at for at in above if probs[at] >= thresholds[at]]
    person = "person"
    if "male" in words:
        person = "man" if words.index("male") in said else "woman"
    # "No beard" is true of every woman and most men: absent things make no caption.
    said = [at for at in said if words[at] != "male" and not words[at].startswith("no ")][:most]
    said.sort()
    adjectives = [SAID_AS.get(words[at], words[at]) for at in said if words[at] in ADJECTIVES]
    worn = [words[at].removeprefix("wearing ") for at in said if words[at].startswith("wearing ")]
    parts = [words[at] for at in said if words[at] not in ADJECTIVES and not words[at].startswith("wearing ")]
    head = " ".join([*adjectives, person])
    text = f"{_article(head)} {head}"
    if parts:
        text += f" with {_listed([_with_article(part) for part in parts])}"
    if worn:
        text += f"{',' if parts else ''} wearing {_listed([_with_article(item) for item in worn])}"
    return text


def stated_attributes(names: Sequence[str], text: str) -> np.ndarray:
    """Read the attributes that a caption states, in the words of `to_sentence`.

    Args:
        names: of the A attributes; for those of the drawn faces use `stated_characteristics`.
        text: a caption of any system.

    Returns:
        stated: float32, shape (A,): 1 where the caption states the attribute, 0 where it states the opposite (a woman
            is not Male), NaN where it is silent.

    Example:
        >>> stated_attributes(["Male", "Big_Nose", "Bangs"], "a smiling woman with a big nose")
        array([ 0.,  1., nan], dtype=float32)
    """
    said = f" {_plain(text)} "
    stated = np.full(len(names), np.nan, np.float32)
    for at, name in enumerate(names):
        words = re.sub(r"[_\s]+", " ", name).strip().lower()
        if words == "male":
            if " man " in said or " woman " in said:
                stated[at] = float(" man " in said)
        elif not words.startswith("no ") and f" {_phrase(name)} " in said:
            stated[at] = 1.0
    return stated


def true_claims(captions: Mapping[str, str], table: pd.DataFrame) -> np.ndarray:
    """Count, for each image, the attributes that its caption states, and those of them that are true.

    Args:
        captions: image_id -> caption.
        table: `image_id` and one column per attribute: 1, 0, or NaN where not known, which is not counted.

    Returns:
        counts: float64, shape (N, 2), in the order of captions: true claims, all claims.

    Raises:
        KeyError: an image that is not in the table.
    """
    labels = table.set_index("image_id")
    rows = []
    for image_id, text in captions.items():
        truth = labels.loc[image_id].to_numpy(float)
        stated = stated_attributes(list(labels.columns), text)
        known = np.isfinite(stated) & np.isfinite(truth)
        rows.append(((stated == truth)[known].sum(), known.sum()))
    return np.array(rows, float).reshape(-1, 2)


def contradicted_words(caption: Caption, facts: Mapping[str, Any]) -> list[int]:
    """Find the words of a caption that are false of its image.

    Args:
        caption: of any captioner.
        facts: of the image: the attributes of a drawn face, or names with 1 (true), 0 or -1 (false) or NaN (not known),
            such as CelebA's, which are read as in `stated_attributes`.

    Returns:
        places: of the words, from 0, in order.

    Example:
        >>> contradicted_words(caption, {"Smiling": 0, "Big_Nose": 1})
    """
    said = [(word, at) for at, text in enumerate(caption.words) for word in re.findall(r"\w+", text.lower())]
    if set(CHARACTERISTICS) <= set(facts):
        owner = [at for at, text in enumerate(caption.words) for _ in split_words(text)]
        claims = stated_characteristics(" ".join(caption.words))
        return sorted({owner[index] for name, value, index in claims if not is_true(name, value, facts)})
    names = [name for name in facts if name != "image_id"]
    wrong: set[int] = set()
    for name, claim in zip(names, stated_attributes(names, caption.text), strict=True):
        if np.isfinite(claim) and np.isfinite(facts[name]) and claim != (facts[name] > 0):
            phrase = _phrase(name) if _phrase(name) != "male" else "man" if claim else "woman"
            length = len(phrase.split())
            for start in range(len(said) - length + 1):
                part = said[start : start + length]
                if " ".join(word for word, _ in part) == phrase:
                    wrong |= {at for _, at in part}
    return sorted(wrong)


def _phrase(name: str) -> str:
    """Return how a sentence names an attribute: "Wearing_Hat" is said as "hat"."""
    words = re.sub(r"[_\s]+", " ", name).strip().lower()
    return _plain(SAID_AS.get(words, words.removeprefix("wearing ")))


def _plain(text: str) -> str:
    """Return the words only: captioners and tokenizers differ in punctuation."""
    return " ".join(re.findall(r"\w+", text.lower())).removeprefix("a ").removeprefix("an ")


def _characteristics(names: Sequence[str], probs: np.ndarray, thresholds: np.ndarray) -> dict[str, str]:
    """Return the likeliest value of each characteristic; "none" or "hidden" where all values are unlikely."""
    seen: dict[str, dict[str, tuple[float, bool]]] = {}
    for name, prob, threshold in zip(names, probs, thresholds, strict=True):
        characteristic, _, value = name.partition("=")
        seen.setdefault(characteristic, {})[value] = (float(prob), bool(prob >= threshold))
    face = {}
    for characteristic, values in CHARACTERISTICS.items():
        absent = next((value for value in values if value in UNSTATED), None)
        known = seen.get(characteristic, {})
        likeliest = max(known, key=lambda value: known[value][0], default=None)
        if likeliest is None or (absent is not None and not any(above for _, above in known.values())):
            face[characteristic] = absent or values[-1]
        else:
            face[characteristic] = likeliest
    for thing in ("hat", "neckwear"):  # a thing that is named needs its color
        colors = seen.get(f"{thing}_color", {})
        if face[thing] != "none" and face[f"{thing}_color"] == "none" and colors:
            face[f"{thing}_color"] = max(colors, key=lambda value: colors[value][0])
    colors = seen.get("hair_color", {})
    if face["hair"] not in ("bald", "hidden") and face["hair_color"] in UNSTATED and colors:
        face["hair_color"] = max(colors, key=lambda value: colors[value][0])
    return face


def _article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"


def _with_article(words: str) -> str:
    if words in SAID_AS:
        return SAID_AS[words]
    single = words.endswith(SINGULAR) or words in ("necklace", "necktie")
    return f"{_article(words)} {words}" if single else words


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
