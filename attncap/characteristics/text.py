"""Split short texts into segments and tokens, for any script."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import regex

from attncap.words import SEPARATOR

# Segments end at the separators of lists, and at any other punctuation but ":" ("hair: brown" is one segment).
_SEPARATOR = regex.compile(
    SEPARATOR + r"|(?<!\d)[.．]|[.．](?!\d)|[!?・…(){}\[\]\"“”„«»#]|^\s*[-–—*]+(?=\s)", regex.MULTILINE
)
_ABBREVIATION = re.compile(r"(?<!\w)(\w)/(?:(\w)(?!\w))?")  # "w/", "w/o": the slash is part of the word
_CAMEL = re.compile(r"(?<=[a-zà-öø-ÿ])(?=[A-ZÀ-ÖØ-Þ])")
_HASHTAG = re.compile(r"#(\w+)")
_SLASH = "\u2215"
# Scripts written without blanks between words: each character is a token.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Japanese kana
    (0x3400, 0x9FFF),  # Han
    (0xF900, 0xFAFF),
    (0x20000, 0x3134F),
)


def segments(text: str) -> list[list[str]]:
    """Split a text at separators into segments, and each segment into lower-case tokens.

    Separators are punctuation, line ends, "&", "+", "#", and a slash or dash that stands between words. Hyphens and
    underscores divide words; apostrophes are dropped. In scripts without blanks (Chinese, Japanese, Thai) each
    character, with its combining marks, is a token.

    Args:
        text: as a person wrote it.

    Returns:
        segments: lists of tokens; segments without a letter or digit are left out.

    Example:
        >>> segments("Big-nose; w/ curly hair & #NoBeard")
        [['big', 'nose'], ['w/', 'curly', 'hair'], ['no', 'beard']]
    """
    text = _HASHTAG.sub(lambda tag: "#" + _CAMEL.sub(" ", tag[1]) + " ", text)
    text = unicodedata.normalize("NFKC", text)
    text = _ABBREVIATION.sub(lambda found: f" {found[1]}{_SLASH}{found[2] or ''} ", text)
    found = (_tokens(part) for part in _SEPARATOR.split(text))
    return [tokens for tokens in found if tokens]


def tokens(text: str) -> list[str]:
    """Return the tokens of all segments of a text in one list."""
    return [token for segment in segments(text) for token in segment]


def join(parts: Sequence[str]) -> str:
    """Join tokens into a phrase: blanks between words, none between characters of scripts written without blanks.

    Example:
        >>> join(["big", "nose"]), join(["黑", "发"])
        ('big nose', '黑发')
    """
    phrase = ""
    for part in parts:
        blank = phrase and not (is_unspaced(phrase[-1]) and is_unspaced(part[0]))
        phrase += (" " if blank else "") + part
    return phrase


def is_unspaced(character: str) -> bool:
    """Whether a character is of a script that writes no blanks between words."""
    code = ord(character)
    return code >= 0x0E00 and any(first <= code <= last for first, last in _UNSPACED)


def _tokens(part: str) -> list[str]:
    found: list[str] = []
    inside = False  # a word that is not finished
    for character in part.lower():
        if character in "'’ʼ`":
            continue
        kind = unicodedata.category(character)[0]
        if kind == "M" and found:
            found[-1] += character
        elif is_unspaced(character) and kind in "LN":
            found.append(character)
            inside = False
        elif kind in "LN" or character == _SLASH:
            character = "/" if character == _SLASH else character
            if inside:
                found[-1] += character
            else:
                found.append(character)
            inside = True
        else:
            inside = False
    return found
