"""Words of a text, and the items of a text that is a list."""

from __future__ import annotations

import statistics
import unicodedata
from collections.abc import Sequence

import regex

# A letter or digit with its combining marks; without variation selectors, which belong to emoji.
_LETTER = r"[\p{L}\p{N}][\p{Mn}\p{Mc}--[\uFE00-\uFE0F\U000E0100-\U000E01EF]]*"
# Inside a word: apostrophe, hyphen, and the joiners that Persian and the scripts of India write between letters.
_WORD = regex.compile(rf"(?V1)(?:{_LETTER})+(?:['’\-\u200C\u200D](?:{_LETTER})+)*")
_SOFT_HYPHEN = "\u00ad"
# What separates the items of a list: , ; & + | bullets and line ends, a slash after at least two letters ("w/" and
# "n/a" are abbreviations), a period or dash followed by a space. Not "and": it is a word, and of one language.
SEPARATOR = (
    r"[,，](?!\d)|(?<!\d)[,，]|[;&+|•·、；،؛।。\r\n\t]|(?<=\w\w)\s*/|(?<=\s)/(?=\s)|\.(?=\s)|(?<=\s)[-–—]+(?=\s)"
)
_SEPARATOR = regex.compile(SEPARATOR)
# A run without spaces that is longer than a word usually is: 4 characters of Chinese or Japanese, 12 of Thai,
# Lao, Burmese, Khmer or Tibetan.
_SPACELESS = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}]{4,}|[\p{Thai}\p{Lao}\p{Myanmar}\p{Khmer}\p{Tibetan}]{12,}"
)
LIST_SHARE = 0.4  # of the texts have a separator: 0.72 of the lists measured, 0.06 of Flickr8k's sentences
LIST_ITEM_WORDS = 4  # the median item of a list is no longer; parts of a sentence are


def split_words(caption: str) -> list[str]:
    """Split a caption into lower-case words.

    Unicode NFKC, then lower case. A word is a run of letters or digits, each with its combining marks (the vowel signs
    of Hindi, Thai or Arabic). Apostrophes, hyphens and zero-width joiners may stand inside a word ("t-shirt",
    "man's"). All other characters separate words and are dropped.

    Args:
        caption: text as a person wrote it.

    Returns:
        words: list of str, possibly empty.

    Example:
        >>> split_words("A man's T-shirt, in RED.")
        ['a', "man's", 't-shirt', 'in', 'red']
    """
    text = unicodedata.normalize("NFKC", caption).replace(_SOFT_HYPHEN, "").lower()
    text = text.replace("i\u0307", "i")  # the lower case of the Turkish "İ"
    return [word.replace("’", "'") for word in _WORD.findall(text)]


def split_items(caption: str) -> list[list[str]]:
    """Split a caption at its separators into items, and each item into words.

    Args:
        caption: text as a person wrote it.

    Returns:
        items: one list of words per item; items without a word are left out.

    Example:
        >>> split_items("Big nose; curly hair & NO beard")
        [['big', 'nose'], ['curly', 'hair'], ['no', 'beard']]
    """
    return [words for item in _SEPARATOR.split(caption) if (words := split_words(item))]


def are_lists(captions: Sequence[str]) -> bool:
    """Whether captions are lists of short items ("big nose, curly hair") rather than sentences.

    True where at least `LIST_SHARE` of the captions have a separator between words, and the median item of those has
    at most `LIST_ITEM_WORDS` words.
    """
    split = [items for caption in captions if len(items := split_items(caption)) > 1]
    if not captions or len(split) < LIST_SHARE * len(captions):
        return False
    return statistics.median(len(item) for items in split for item in items) <= LIST_ITEM_WORDS


def has_no_spaces(text: str) -> bool:
    """Whether a text has no spaces between words, as Chinese, Japanese and Thai are written.

    Example:
        >>> has_no_spaces("一只棕色的狗"), has_no_spaces("a brown dog")
        (True, False)
    """
    return _SPACELESS.search(text) is not None


def has_stray_separator(text: str) -> bool:
    """Whether a separator other than a full stop is at an end of the text, or two are side by side: ",, red hat;"."""
    parts = _SEPARATOR.split(text.strip(" .。"))
    return len(parts) > 1 and any(not split_words(part) for part in parts)


def is_list(text: str) -> bool:
    """Whether a text is a list of short items: at least two, none longer than LIST_ITEM_WORDS words.

    Example:
        >>> is_list("Big nose, curly hair"), is_list("A brown dog runs across the lawn, a ball in its mouth.")
        (True, False)
    """
    items = split_items(text)
    return len(items) > 1 and all(len(words) <= LIST_ITEM_WORDS for words in items)
