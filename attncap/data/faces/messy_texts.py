"""Short, messy texts for the drawn faces: one per image, as a person types who names what strikes them.

"Big nose & no hat", "quite spiky hair; blue eyes", "a bald head with a mustace": lists and sentences, several wordings
of one thing, typing errors, capitals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from attncap.data.dataset import CaptionData
from attncap.data.faces.captions import UNSTATED

# Wordings of (characteristic, value); earlier ones are more usual. {} is the color.
_WORDINGS: dict[tuple[str, str], tuple[str, ...]] = {
    ("hair", "bald"): ("bald", "bald head", "shaved head"),
    ("hair", "short"): ("short hair", "hair short", "cropped hair"),
    ("hair", "long"): ("long hair", "hair long"),
    ("hair", "curly"): ("curly hair", "curls", "curly"),
    ("hair", "spiky"): ("spiky hair", "spikes", "punk hair"),
    ("hair", "ponytail"): ("ponytail", "pony tail"),
    ("hat", "cap"): ("cap", "baseball cap", "wears a cap"),
    ("hat", "beanie"): ("beanie", "woolly hat"),
    ("hat", "top hat"): ("top hat", "tophat", "tall hat"),
    ("hat", "crown"): ("crown", "wears a crown"),
    ("glasses", "round"): ("round glasses", "round specs", "glasses round"),
    ("glasses", "square"): ("square glasses", "square specs"),
    ("glasses", "sunglasses"): ("sunglasses", "dark glasses", "shades"),
    ("eyes", "blue"): ("blue eyes", "eyes blue"),
    ("eyes", "brown"): ("brown eyes", "eyes are brown"),
    ("eyes", "green"): ("green eyes",),
    ("eyebrows", "thick"): ("thick eyebrows", "bushy brows", "heavy eyebrows"),
    ("eyebrows", "thin"): ("thin eyebrows", "thin brows"),
    ("nose", "big"): ("big nose", "large nose", "huge nose", "nose is big"),
    ("nose", "small"): ("small nose", "tiny nose"),
    ("nose", "pointed"): ("pointed nose", "pointy nose", "sharp nose"),
    ("ears", "big"): ("big ears", "large ears"),
    ("ears", "small"): ("small ears", "tiny ears"),
    ("ears", "pointed"): ("pointed ears", "elf ears", "pointy ears"),
    ("mouth", "smile"): ("smiling", "smile", "happy", "grin"),
    ("mouth", "frown"): ("frowning", "sad", "frown"),
    ("mouth", "open"): ("open mouth", "mouth open", "surprised"),
    ("mouth", "straight"): ("serious", "no smile"),
    ("beard", "short"): ("short beard", "trimmed beard"),
    ("beard", "long"): ("long beard", "huge beard"),
    ("beard", "goatee"): ("goatee", "chin beard"),
    ("beard", "none"): ("no beard", "clean shaven", "beardless"),
    ("moustache", "thin"): ("thin moustache", "thin mustache"),
    ("moustache", "bushy"): ("bushy moustache", "bushy mustache", "walrus mustache"),
    ("freckles", "some"): ("freckles", "freckled"),
    ("earrings", "hoop"): ("hoop earrings", "hoops", "big hoops"),
    ("earrings", "pearl"): ("pearl earrings", "pearls"),
    ("neckwear", "scarf"): ("scarf", "{} scarf"),
    ("neckwear", "tie"): ("tie", "necktie", "{} tie"),
    ("neckwear", "bow tie"): ("bow tie", "bowtie"),
    ("glasses", "none"): ("no glasses", "without glasses"),
    ("hat", "none"): ("no hat",),
    ("hair_color", ""): ("{} hair", "hair {}"),
    ("hat_color", ""): ("{} hat",),
}
_SELDOM = {("beard", "none"): 0.15, ("glasses", "none"): 0.1, ("hat", "none"): 0.1, ("eyebrows", "thin"): 0.4}
_SEPARATORS = (", ", ", ", ", ", "; ", " & ", " and ", " / ", ",", " + ")
_STRONG = ("very ", "quite ", "a bit ", "really ")
_TYPING_ERRORS = 0.02  # of the words


def messy_text(attributes: Mapping[str, str], rng: np.random.Generator) -> str:
    """Write one messy text that names one to five characteristics of a face; all of them are true.

    Args:
        attributes: every characteristic's value, as `sample_attributes` gives.
        rng: NumPy generator; only `random` and `integers` are drawn.

    Example:
        >>> messy_text(sample_attributes(rng), rng)
        'Huge nose & quite curly hair'
    """
    phrases = []
    for name, value in attributes.items():
        key = (name, "") if name.endswith("_color") and name != "neckwear_color" else (name, value)
        if key in _WORDINGS and not (key[1] == "" and value in UNSTATED) and rng.random() < _SELDOM.get(key, 1.0):
            color = value if key[1] == "" else attributes.get(f"{name}_color", "")
            wordings = _WORDINGS[key]
            at = min(int(rng.integers(len(wordings))), int(rng.integers(len(wordings))))
            phrases.append(wordings[at].format(color))
    number = min(len(phrases), 1 + int(rng.integers(5)))
    chosen = [phrases.pop(int(rng.integers(len(phrases)))) for _ in range(number)]
    negated = ("no ", "without ", "wears ", "clean ")
    chosen = [
        _STRONG[int(rng.integers(len(_STRONG)))] + phrase
        if rng.random() < 0.08 and not phrase.startswith(negated)
        else phrase
        for phrase in chosen
    ]
    if rng.random() < 0.2:
        text = ("a person with ", "person with ", "has ")[int(rng.integers(3))] + " and ".join(chosen)
    else:
        text = _SEPARATORS[int(rng.integers(len(_SEPARATORS)))].join(chosen)
    text = " ".join(_typing_error(word, rng) if rng.random() < _TYPING_ERRORS else word for word in text.split(" "))
    style = rng.random()
    return text.upper() if style < 0.04 else text[:1].upper() + text[1:] if style < 0.5 else text


def with_messy_texts(data: CaptionData, seed: int = 0) -> CaptionData:
    """Replace the captions of the drawn faces by one messy text per image.

    Args:
        data: the drawn faces, as `load("faces:2000")` gives.
        seed: of the texts.

    Raises:
        ValueError: the data set has no table of characteristics.

    Example:
        >>> data = with_messy_texts(load("faces:2000"))
        >>> data.captions["caption"].iloc[0]
        'Beanie, big ears & blue eyes'
    """
    if data.attributes is None:
        raise ValueError(f"{data.name}: messy texts are written from the drawn faces' table: load('faces:2000')")
    rng = np.random.default_rng(seed)
    rows = data.attributes.to_dict("records")
    texts = [messy_text({str(k): v for k, v in row.items() if k != "image_id"}, rng) for row in rows]
    captions = pd.DataFrame({"image_id": data.attributes["image_id"], "caption": texts}).astype("str")
    return replace(data, name=f"{data.name}-messy", captions=captions)


def _typing_error(word: str, rng: np.random.Generator) -> str:
    if len(word) < 4:
        return word
    at = 1 + int(rng.integers(len(word) - 2))
    kind = int(rng.integers(3))
    if kind == 0:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[:at] + word[at] + word[at:]
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
