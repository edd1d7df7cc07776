"""Short lists of function words by language: negations, conjunctions and articles.

Mining learns other words that state nothing ("wearing", "very", "person") from the texts. Negations have to be listed:
the way words are distributed cannot tell "no glasses" from "very glasses".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

# Endings of a word that say that something is missing: "beardless", "bartlos". "free" also stands alone.
NEGATIVE_SUFFIXES = ("less", "free", "los", "lose", "loser", "frei", "loos", "lös", "siz", "sız", "suz", "süz")
# A word that negates the phrase before it; of several tokens where each character is a token.
NEGATIONS_AFTER = tuple(
    tuple(words.split())
    for words in ("free", "yok", "değil", "नहीं", "없음", "없는", "olmayan", "な し", "な い", "無 し", "ไ ม่ มี")
)
_LEAST_DISTINCT, _LEAST_SHARE = 3, 0.002


@dataclass(frozen=True)
class FunctionWords:
    """The function words of a language, or of several.

    Args:
        negations: negate the phrase that follows.
        alternatives: carry a negation on ("no hat or glasses") and stand between phrases.
        conjunctions: stand between phrases.
        articles: may stand inside a phrase and change nothing ("bags under the eyes", "nose is big").
    """

    negations: frozenset[str]
    alternatives: frozenset[str]
    conjunctions: frozenset[str]
    articles: frozenset[str]

    @property
    def connectives(self) -> frozenset[str]:
        return self.alternatives | self.conjunctions

    @property
    def all(self) -> frozenset[str]:
        return self.negations | self.connectives | self.articles

    def __or__(self, other: FunctionWords) -> FunctionWords:
        return FunctionWords(*(getattr(self, name) | getattr(other, name) for name in self.__dataclass_fields__))

    def without(self, words: Iterable[str]) -> FunctionWords:
        """Leave out words that mean something else here: "hat" is a verb in German alone."""
        gone = frozenset(words)
        return FunctionWords(*(getattr(self, name) - gone for name in self.__dataclass_fields__))


def _language(negations: str, alternatives: str, conjunctions: str, articles: str) -> FunctionWords:
    return FunctionWords(*(frozenset(words.split()) for words in (negations, alternatives, conjunctions, articles)))


LANGUAGES = {
    "English": _language(
        "no not without never none neither w/o lacks lacking isnt doesnt hasnt dont wo",
        "or nor",
        "and with w/ w has have having but also plus",
        "a an the is are her his their this that who they it",
    ),
    "German": _language(
        "kein keine keinen keiner keinem ohne nicht nie",
        "oder noch",
        "und mit hat sowie auch aber",
        "der die das ein eine einen einem einer den dem des ist sind",
    ),
    "French": _language(
        "sans pas aucun aucune jamais",
        "ou ni",
        "et avec a ayant mais aussi",
        "le la les l un une des du de d est sont",
    ),
    "Spanish": _language(
        "sin no ningún ninguna ningun nunca", "o ni", "y e con tiene pero también", "el la los las un una unos unas es"
    ),
    "Italian": _language("senza non nessun nessuna", "o né", "e ed con ha ma anche", "il lo la i gli le un una uno è"),
    "Portuguese": _language("sem não nao nenhum nenhuma", "ou nem", "e com tem mas também", "o os as um uma é"),
    "Dutch": _language("zonder geen niet", "of noch", "en met heeft maar ook", "de het een is zijn"),
    "Scandinavian": _language(
        "ingen inga inget utan inte ikke uden uten", "eller", "och og med har men samt", "en ett et den det är er"
    ),
    "Polish": _language("bez nie brak", "lub albo ani", "i z ze ma oraz", "jest są"),
    "Russian": _language("без не нет", "или ни", "и с со но у", "это есть"),
    "Turkish": _language("değil", "veya", "ve ile", "bir bu"),
    "Arabic": _language("بدون بلا ليس", "أو", "و مع", "هو هي"),
    "Hindi": _language("बिना", "या", "और के साथ", "एक है"),
    "Indonesian": _language("tanpa tidak bukan", "atau", "dan dengan", "yang adalah"),
    "Chinese": _language("无 無 没 沒 不 非", "或", "和 与 及 有 带", "的 是 个"),
    "Japanese": _language("無 不", "か", "と で が", "の は を"),
}
ALL_LANGUAGES = reduce(FunctionWords.__or__, LANGUAGES.values())


def function_words_of(texts: Iterable[Iterable[str]]) -> FunctionWords:
    """Choose the languages of tokenized texts, and return their function words together.

    The language with most of its words in the texts is chosen; others where at least three of their words, not
    counting those of a language chosen before, are each in 0.2% of the texts.

    Args:
        texts: tokens of each text.
    """
    words_of_texts = [set(text) for text in texts]
    counts = Counter(word for words in words_of_texts for word in words)
    least = max(1.0, _LEAST_SHARE * len(words_of_texts))
    chosen = _language("", "", "", "")
    remaining = dict(LANGUAGES)
    while remaining:
        seen = {
            name: [counts[word] for word in words.all - chosen.all if counts[word] >= least]
            for name, words in remaining.items()
        }
        best = max(seen, key=lambda name: (len(seen[name]), sum(seen[name])))
        if len(seen[best]) < (_LEAST_DISTINCT if len(remaining) < len(LANGUAGES) else 1):
            break
        chosen = chosen | remaining.pop(best)
    return chosen
