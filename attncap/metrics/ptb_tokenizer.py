"""Tokenize captions as the COCO tools do: Penn Treebank tokens in lower case, without most punctuation.

The COCO tools run Stanford's Java tokenizer (version 3.4.1). This one needs no Java: it was written from that
tokenizer's observed output, and a test compares it with recordings. It reproduces what published scores count, also
where it looks odd: "can't" is "ca n't", brackets stay as "-lrb-" and "-rrb-" (the tools' list of punctuation has them
in upper case, the tokens are in lower case), "!!" and "*" stay while "!" does not, "£" is "#" and most emoji are lost.

It differs from the tools where they cut words of other scripts into pieces: letters keep their combining marks (the
vowel signs of Hindi, Tamil or Thai), joiners stay inside words, and the punctuation of other scripts is left out.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# Dropped after tokenizing, as in the COCO tools (whose list also names "-LRB-" and the like, which never occur).
PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

_WHOLE = {"cannot": "can not", "gonna": "gon na", "gotta": "got ta", "wanna": "wan na", "lemme": "lem me"}
_WHOLE |= {"gimme": "gim me", "more'n": "more 'n", "'tis": "'t is", "'twas": "'t was"}
# Abbreviations keep their full stop: these always, the next ones only with a capital or before a number.
_ABBREVIATIONS = """
    al cf co ct dr ft ga jr ky lt md mo mr ms mt ph rd rt sq sr st va vs vt wm adj adm adv ala apr aug ave bhd
    cie col cos cpl dak dec det drs ens esq est etc ext feb fla fri gen gov hon inc ind jan jos jul jun kan ltd
    maj mar mfg mme mon mrs mtg neb nev nov oct pfc plc pte pty pvt rep rev sen sep seq sfc sgt spc ste sys tel
    thu tue wed wis wyo alex ariz assn asst atty bldg blvd brig bros capt cmdr colo conn corp dept elec govs
    insp intl invt kans mich minn mlle mont msgr natl okla penn ppte ppty pres prof ptes ptys reps sens sept
    supt tenn tues univ wisc messrs thurs calif supts treas lieut comdr profs attys ph.d
"""
_CAPITALIZED_ABBREVIATIONS = "Tex Ark Ore Del Wash Ill Az Mass La Miss Pa"
_NUMBERING_ABBREVIATIONS = "ca no op pp art fig nos"
# A single letter before one of these ends its sentence ("plan B. The dog"); otherwise it is an initial ("B. Smith").
_SENTENCE_STARTERS = """
    A An The This That These He She It We They You In At One Some Many There Here Her Their Our But If When
    While As After Then Now What Other So Mr. Ms. Since However Once Such Last
"""

_NO_LETTER = (
    "\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u207e\u2080-\u208e\u2150-\u218b\u2460-\u249b\u24ea-\u24ff\u2776-\u2793"
)


def _combining_marks() -> str:
    """Return the combining marks of all scripts as ranges of a character class.

    Marks for symbols and the variation selectors of emoji are no letters (U+20D0 to U+20FF, U+FE00 to U+FE0F).
    """
    scripts = (*range(0x0370, 0x1E00), *range(0x2C00, 0x3100), *range(0xA000, 0xAC00), *range(0x10000, 0x12000))
    marks = [code for code in scripts if unicodedata.category(chr(code)) in ("Mn", "Mc")]
    starts = [code for code in marks if code - 1 not in set(marks)]
    ends = [code for code in marks if code + 1 not in set(marks)]
    return "".join(f"{chr(start)}-{chr(end)}" for start, end in zip(starts, ends, strict=True))


_MARK = "\u02c2-\u02c5\u02d2-\u02df\u02e5-\u02ff\u0300-\u036f" + _combining_marks()
# The zero-width joiners that Persian and the scripts of India write between letters.
_JOINER = f"(?<=[^\\W\\d_]|[{_MARK}])[\u200c\u200d](?=[^\\W\\d_])"
_PARTS = {
    "L": f"(?:(?![{_NO_LETTER}])[^\\W\\d_]|[{_MARK}]|{_JOINER})",  # letter
    "W": f"(?:(?![{_NO_LETTER}])[^\\W_]|[{_MARK}]|{_JOINER})",  # letter or digit
    "Q": "(?:['\u2019\u0092]|&apos;)",  # apostrophe
    "U": '[^\\s"<>|(){}]',  # inside an address
    "H": "[A-Za-z0-9]+(?:-[A-Za-z][A-Za-z0-9]*)*",  # one side of a slash
    "E": "[-^x=~<>']",  # eye
}


def _rule(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """A rule whose group is the token; what it matches beyond that is context, which counts in the length."""
    for name, part in _PARTS.items():
        pattern = pattern.replace(f"<{name}>", part)
    return re.compile(pattern, flags)


def _any(words: str) -> str:
    return "|".join(map(re.escape, sorted(words.split(), key=len, reverse=True)))


# At every position the rule that matches most wins; of equals, the first.
_RULES = [
    _rule(rf"((?:{_any(' '.join(_WHOLE))})(?!<W>))", re.I),
    _rule(r"(<L>+)n(?:<Q>|`)t(?!<L>)", re.I),  # the words before n't
    _rule(r"(<W>+)<Q>(?:s|m|d|re|ve|ll)(?!<L>)", re.I),  # and before 's
    _rule(r"(n(?:<Q>|`)t)(?!<L>)", re.I),
    _rule(r"(<Q>(?:s|m|d|re|ve|ll))(?!<L>)", re.I),
    _rule(r"(<Q>n<Q>)|(<Q>n)(?!<L>)|(<Q>(?:em|cause|till?))", re.I),
    _rule(r"(<Q>(?:[2-9]0s|\d\d(?=\s|$)))", re.I),
    _rule(r"((?:[ldj]|dunkin|somethin|ol)<Q>)|(y<Q>)(?=<L>)", re.I),
    _rule(r"([A-HJ-XZdlno]<Q>(?:<L>{2,}|\d{2,})|<L>+[aeiouyAEIOUY]<Q>[aeiouA-Z]<L>*)"),
    _rule(r"((?:nor'easter|c'mon|c'est|e'er|s'mores|ev'ry|li'l|nat'l|o'o)(?!<L>))", re.I),
    _rule(r"(https?://<U>+\.<U>*[^\s\"<>|(){}.!?,;:'-])", re.I),
    _rule(
        r"((?:[^\s\"<>|(){}.!?,$'`/:;@#&*+=~-]+\.)+(?:com|net|org|edu)(?:/<U>+[^\s\"<>|(){}.!?,;:'-])?)(?![A-Za-z0-9])",
        re.I,
    ),
    _rule(r"(<?[A-Za-z0-9]<U>*@(?:[^\s\"<>|(){}.]+\.)*[^\s\"<>|(){}.]+>?)"),
    _rule(r"(@[A-Za-z_]\w*|#<L>+)"),
    _rule(r"(</?[A-Za-z!?][^\s<>=]*(?:\s+[^\s<>=]*(?:=(?:\"[^\"]*\"|'[^']*'))?)*\s*/?>|<[!?][^>]*>)"),
    _rule(r"((?:(?:\+\+?)?\d{2,4}[- \u00a0])?\d{2,4}[- \u00a0]\d{3,4}[- \u00a0]?\d{3,5}(?!\d))"),
    _rule(r"(\(\d{2,3}\)[ \u00a0]?\d{3,4}[- \u00a0]?\d{3,5})|((?:(?:\+\+?)?\d{2,4}\.)?\d{2,4}\.\d{3,4}\.\d{3,5})"),
    _rule(r"((?:\d{1,4}[- \u00a0])?\d{1,4}[/\u2044]\d{1,4})"),
    _rule(r"([-+]?(?:\d+(?:[.:,]\d+)*|(?:[.:,]\d+)+))"),
    _rule(r"([A-Z]+(?:(?:&|&amp;)[A-Z]+)+)|([A-Z]{1,2}\$)"),
    _rule(r"(c\+\+|[cf]\#)", re.I),
    _rule(r"(<W>+(?:_<W>+)*)"),
    _rule(r"((?:<W>+(?:\.<W>+)*|\d+(?:,\d+)+|(?:<L>\.)+)(?:[-\u2010\u2011]<W>+)+(?:_<W>+)*|<W>+(?:_<W>+)+(?:-<W>+)+)"),
    _rule(r"(<H>(?:/<H>){1,2})"),
    _rule(r"(<L><W>*(?:[.!?]<L><W>*)+)"),
    _rule(rf"((?:{_any(_ABBREVIATIONS)})\.)", re.I),
    _rule(rf"((?:{_any(_CAPITALIZED_ABBREVIATIONS)})\.)"),
    _rule(rf"((?:{_any(_NUMBERING_ABBREVIATIONS)})\.)(?=\s?\d)", re.I),
    _rule(rf"(<L>(?:\.<L>)+\.|<L>\.(?!\s(?:{_any(_SENTENCE_STARTERS)})(?!\S)))"),
    _rule(r"([<>]?[:;=][-o*']?[)(DPdpO\\{@|\[\]])(?:[^A-Za-z0-9]|$)"),
    _rule(r"(<E>_<E>|\((?:<E>[_.]<E>|[\^x=~<>']-[\^x=~<>'])\))"),
    _rule(r"([!?]{2,}|<<|>>|@@|-{2,}|\.{3,}|''|``|\*{1,3}|_+|#+)"),
    _rule(r"(&(?:amp|lt|gt|quot|apos|nbsp|mdash|ndash);|&#[1-9]\d{1,3};)", re.I),
]
_PLAIN = re.compile(r"([A-Za-z][A-Za-z0-9]*)(?=\s|$)|([,;](?=\s|$)|\.(?=$))|(\s+)")  # the most common tokens
_SINGLE = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-",
    "\u00a3": "#", "\u20ac": "$", "\u00a4": "$", "\u20a0": "$", "\u0080": "$", "\u00a2": "cents",
    "\u00bc": "1/4", "\u00bd": "1/2", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3",
    "&amp;": "&", "&lt;": "<", "&gt;": ">",
}  # fmt: skip
# Words are compared in one form, as the tokenizers of captioners write them: composed, and Turkish's dotted I as "i".
_ACCENTED = re.compile("\\w[\u0300-\u036f]+")
_OTHER_SCRIPTS = re.compile(f"(?:\\w|[{_MARK}])*[\u0370-\u1dff\u2c00-\ua6ff\ua800-\ufaff](?:\\w|[{_MARK}])*")
_SKIPPED = re.compile(
    "[\u0482\u2010-\u2012\u2024\u2025\u2027\u203c\u203d\u2043\u2045-\u205e\u20a1-\u20a3\u20a5-\u20ab\u20ad-\u20f0"
    "\u2150-\u2152\u215f-\u218b]"
)
# Quotation marks, dashes and ellipses of all kinds become punctuation that is then dropped; so they go at once.
_DROPPED = set("\"'`.?!,:;-\u2018\u2019\u201b\u201c\u201d\u00ab\u00bb\u2039\u203a\u2013\u2014\u2015\u2026")
_DROPPED |= {"&quot;", "&apos;", "&nbsp;", "&mdash;", "&ndash;", *map(chr, range(0x91, 0x98))}


def tokens(text: str) -> list[str]:
    """Return the tokens of one caption, as the COCO tools do.

    Longest match at every position, over rules for contractions, abbreviations, numbers, addresses and so on. A full
    stop after a single letter depends on the next word; where the caption ends there, the letter keeps it.

    Args:
        text: one caption, as written; line breaks count as blanks.

    Returns:
        Lower-case tokens without punctuation; a few ("1 1/2") hold a no-break space, as the original's do.

    Example:
        >>> tokens("A man's dog can't swim (yet).")
        ['a', 'man', "'s", 'dog', 'ca', "n't", 'swim', '-lrb-', 'yet', '-rrb-']

    Reference: pycocoevalcap's tokenizer/ptbtokenizer.py, around Stanford CoreNLP 3.4.1's PTBTokenizer.
    """
    text = text.replace("\u00ad", "")
    if not text.isascii():
        text = _OTHER_SCRIPTS.sub(lambda word: unicodedata.normalize("NFKC", word[0]), text)
        text = _ACCENTED.sub(lambda letter: unicodedata.normalize("NFC", letter[0]), text).replace("\u0130", "I")
    found: list[str] = []
    position, end = 0, len(text)
    while position < end:
        plain = _PLAIN.match(text, position)
        if plain and (plain[1] is None or plain[1].lower() not in _WHOLE):
            if plain[1]:
                found.append(plain[1].lower())
            position = plain.end()
            continue
        token, length = text[position], 0
        for rule in _RULES:
            match = rule.match(text, position)
            if match and match.end() - position > length:
                token, length = match[match.lastindex or 1], match.end() - position
        position += len(token)
        if length:
            found.extend(_normalized(token))
        elif token not in _DROPPED and _known(token):
            found.append(_SINGLE.get(token, token.lower()))
    return found


@lru_cache(maxsize=65536)
def tokenize(text: str) -> str:
    """Return the tokens of one caption joined by blanks, the form that scores count.

    Args:
        text: one caption, as written.

    Returns:
        The tokens of `tokens`, joined.

    Example:
        >>> tokenize("Two dogs -- one black -- run.")
        'two dogs one black run'
    """
    return " ".join(tokens(text))


def _normalized(token: str) -> list[str]:
    lower = token.lower()
    if lower in _WHOLE:
        return _WHOLE[lower].split()
    if lower in _DROPPED or lower in PUNCTUATION or re.fullmatch(r"-{2,4}|\.+", lower):  # the original shortens them
        return []
    if lower in _SINGLE:
        return [_SINGLE[lower]]
    lower = lower.replace("&amp;", "&").replace("&apos;", "'")
    if re.fullmatch(r"(?:n)?['\u2019\u0092](?:s|m|d|t|re|ve|ll)", lower):
        lower = lower.replace("\u2019", "'").replace("\u0092", "'")
    if lower[0] != "<" or lower[-1] != ">":  # smileys and telephone numbers escape their brackets, tags do not
        lower = lower.replace("(", "-lrb-").replace(")", "-rrb-")
    return [re.sub(r"\s", "\u00a0", lower)]


def _known(character: str) -> bool:
    """Return whether the original has a rule for a character; it skips all others, such as newer ones of Unicode."""
    if 0x0370 <= ord(character) < 0x2000 and unicodedata.category(character).startswith("P"):
        return False  # punctuation of other scripts, such as the danda of Hindi
    if ord(character) >= 0x2C00 or _SKIPPED.match(character):
        return False
    return unicodedata.category(character) not in ("Cc", "Cf", "Cn", "Co", "Cs", "Zs", "Zl", "Zp", "Mn", "Mc", "Me")
