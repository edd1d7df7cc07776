"""Two generators of messy texts, of other domains and languages than the package was developed on."""

import random

DOGS = {  # characteristic -> wordings; the attribute of the truth is the key
    "brown": ["brown fur", "brown coat", "chocolate fur"],
    "spots": ["spots", "spotted", "dotted coat"],
    "floppy ears": ["floppy ears", "droopy ears", "ears floppy"],
    "collar": ["collar", "collars", "neck band"],
    "puppy": ["puppy", "pup", "little dog"],
    "sleeping": ["sleeping", "asleep", "sleeps"],
    "ball": ["ball", "balls", "toy ball"],
    "long tail": ["long tail", "tail long", "long tailed"],
    "leash": ["leash", "leashes"],
    "wet": ["wet", "soaked", "dripping wet"],
}
LEUTE = {
    "Brille": ["Brille", "Augengläser", "mit Brille"],
    "Bart": ["Bart", "Vollbart", "bärtig"],
    "Locken": ["Locken", "lockige Haare", "lockiges Haar"],
    "Hut": ["Hut", "Mütze"],
    "große Nase": ["große Nase", "Nase groß", "riesige Nase"],
    "Lächeln": ["Lächeln", "lächelt", "lächelnd"],
    "blond": ["blonde Haare", "blondes Haar", "blond"],
    "Ohrringe": ["Ohrringe", "Ohrring"],
    "alt": ["alt", "älter", "alter Mensch"],
    "Sommersprossen": ["Sommersprossen", "sommersprossig"],
}
STYLES = {
    "en": ([", ", " and ", "; ", "\n- ", " + "], "no ", ["very ", "quite ", "so ", "pretty "], "a dog with "),
    "de": (
        [", ", " und ", "; ", " #", " / "],
        "keine ",
        ["sehr ", "ziemlich ", "recht ", "etwas "],
        "eine Person mit ",
    ),
}


def messy_texts(words, language, number, seed=0):
    """(texts, claims): claims are sets of (key of `words`, whether it is said to be present)."""
    rng = random.Random(seed)
    separators, no, strong, opening = STYLES[language]
    texts, claims = [], []
    for _ in range(number):
        keys = rng.sample(list(words), rng.choice([1, 2, 3, 4]))
        said, parts = set(), []
        for key in keys:
            options = words[key]
            phrase = rng.choices(options, [1 / (1 + i) for i in range(len(options))])[0]
            present = rng.random() > 0.12
            if not present:
                phrase = no + options[0]
            elif rng.random() < 0.12:
                phrase = rng.choice(strong) + phrase
            said.add((key, present))
            parts.append(phrase)
        text = rng.choice(separators).join(parts)
        if rng.random() < 0.25:
            text = opening + text
        if rng.random() < 0.1:
            at = rng.randrange(1, len(text))
            text = text[:at] + text[at + 1 :] if text[at].isalpha() else text
        texts.append(text.upper() if rng.random() < 0.05 else text)
        claims.append(said)
    return texts, claims
