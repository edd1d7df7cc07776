"""`to_sentence`: write the attributes of an image as a sentence, so that caption metrics can evaluate a classifier."""

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

# How a sentence names CelebA's attributes. Other names are used as written.
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
    """Write the attributes of one image as a sentence that caption metrics can evaluate.

    Attributes of the drawn faces, such as "hair=curly", give a caption with the usual words of the drawn faces.
    `attncap.data.faces.claims.stated_characteristics` can read it. Other names give a sentence such as "a young woman
    with wavy hair and eyeglasses, wearing lipstick". CelebA's Male gives "man" or "woman", names of the form No_X are
    omitted, and other names are used as written.

    Args:
        names: names of the A attributes.
        probs: probabilities, shape (A,).
        thresholds: shape (A,). An attribute is stated if its probability is at least its threshold.
        most: largest number of attributes; those furthest above their thresholds are stated. None: all. For drawn
            faces: number of characteristics besides the mouth, the most noticeable first. None: 5.

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
    # Captions do not mention what is absent: "no beard" is true for all women and most men.
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
    """Find the attributes that a caption states, in the wording of `to_sentence`.

    Args:
        names: names of the A attributes. For the attributes of the drawn faces, use `stated_characteristics`.
        text: a caption of any system.

    Returns:
        stated: float32, shape (A,): 1 if the caption states the attribute, 0 if it states the opposite ("woman" for
            Male), NaN if it does not mention the attribute. Always NaN for names of the form No_X.

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
    """Count for each image the attributes that its caption states, and how many of them are true.

    Args:
        captions: image_id -> caption.
        table: DataFrame with `image_id` and one column per attribute: 1, 0, or NaN (unknown; not counted).

    Returns:
        counts: float64, shape (N, 2), in the order of the captions: number of true claims, number of all claims.

    Raises:
        KeyError: an image is not in the table.
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
    """Find the words of a caption that contradict the known attributes of its image.

    Args:
        caption: a caption of any captioner.
        facts: attributes of the image: those of a drawn face, or name -> 1 (true), 0 or -1 (false), or NaN (unknown),
            such as CelebA's. For the latter, `stated_attributes` reads the caption.

    Returns:
        positions: positions of the words in the caption, from 0, in increasing order.

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
            phrase = _phrase(name)
            if phrase == "male":
                phrase = "man" if claim else "woman"
            length = len(phrase.split())
            for start in range(len(said) - length + 1):
                part = said[start : start + length]
                if " ".join(word for word, _ in part) == phrase:
                    wrong |= {at for _, at in part}
    return sorted(wrong)


def _phrase(name: str) -> str:
    """Return the words that name an attribute in a sentence, such as "hat" for "Wearing_Hat"."""
    words = re.sub(r"[_\s]+", " ", name).strip().lower()
    return _plain(SAID_AS.get(words, words.removeprefix("wearing ")))


def _plain(text: str) -> str:
    """Remove punctuation and a first article, because captioners and tokenizers differ in punctuation."""
    return " ".join(re.findall(r"\w+", text.lower())).removeprefix("a ").removeprefix("an ")


def _characteristics(names: Sequence[str], probs: np.ndarray, thresholds: np.ndarray) -> dict[str, str]:
    """Choose the most probable value of each characteristic.

    If no value reaches its threshold, it is the value for an absent or hidden characteristic, if there is one.
    """
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
    for thing in ("hat", "neckwear"):  # the caption names the color of each of these
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
