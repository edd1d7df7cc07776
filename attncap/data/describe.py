"""What kind of captions a data set has: the numbers that the defaults of training and the warnings of `check` use."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from attncap.words import has_no_spaces, has_stray_separator, is_list, split_words

MIN_COUNTS = (1, 2, 3, 5, 10)
SHORT_WORDS = 4  # BLEU-4 needs four words in a row
SPACELESS_SHARE = 0.1  # of the captions: with more, check and train advise word pieces


@dataclass(frozen=True)
class DataProfile:
    """Numbers that describe the captions of a data set.

    Args:
        images: number of images.
        texts: number of captions.
        texts_per_image: mean number of captions per image.
        words_per_text: median number of words per caption (`attncap.words.split_words`).
        unique_share: share of the captions that no other caption equals, 0 to 1; case and punctuation do not count.
        vocabulary: min_count -> number of words that occur at least that many times, for each of MIN_COUNTS.
        list_like_share: share of the captions that are lists of short phrases ("big nose, curly hair").
        capitals_share: share of the captions written in capitals only.
        spaceless_share: share of the captions without spaces between words, as Chinese and Thai are written.
        stray_separator_share: share of the captions with a separator at an end, or two side by side.
        short_share: share of the captions with fewer than 4 words, for which BLEU-4 is zero.
        words: number of words of all captions.
        covered: min_count -> share of all words that the vocabulary covers, 0 to 1.
    """

    images: int
    texts: int
    texts_per_image: float
    words_per_text: float
    unique_share: float
    vocabulary: dict[int, int]
    list_like_share: float
    capitals_share: float
    spaceless_share: float
    stray_separator_share: float = 0.0
    short_share: float = 0.0
    words: int = 0
    covered: dict[int, float] = field(default_factory=dict)

    def table(self) -> str:
        """The numbers in a few lines, for the command line."""
        sizes = ", ".join(
            f"{size:,} (min_count {count}, covers {self.covered.get(count, 0.0):.1%})"
            for count, size in self.vocabulary.items()
        )
        return "\n".join(
            (
                f"  captions per image   {self.texts_per_image:.2f}",
                f"  words per caption    {self.words_per_text:g} (median); under {SHORT_WORDS} words: "
                f"{self.short_share:.1%}",
                f"  unique captions      {self.unique_share:.1%}",
                f"  vocabulary           {sizes}",
                f"  lists of phrases     {self.list_like_share:.1%}",
                f"  in capitals          {self.capitals_share:.1%}",
                f"  stray separators     {self.stray_separator_share:.1%}",
                f"  no spaces in text    {self.spaceless_share:.1%}",
            )
        )

    def difficulties(self) -> list[str]:
        """Difficulties with these captions and what helps, one sentence each; empty when nothing is unusual."""
        hard = []
        if self.texts == 0:
            return ["there are no captions: a captioner cannot be trained"]
        if self.images < 1000:
            hard.append(f"only {self.images:,} images: a captioner needs some thousands; expect few different captions")
        if self.texts_per_image < 2 and self.words_per_text < 8:
            hard.append(
                "one short caption per image: BLEU-4 is close to zero and says little; "
                "turn the texts into characteristics (attncap characteristics mine), and score captions by those"
            )
        elif self.short_share > 0.25:
            hard.append(f"{self.short_share:.0%} of the captions have under {SHORT_WORDS} words: BLEU-4 is zero there")
        if self.list_like_share > 0.25:
            hard.append(
                f"{self.list_like_share:.0%} of the captions are lists of phrases: their order carries no meaning, and "
                "n-gram scores penalize another order"
            )
        rare = self.covered.get(5, 1.0)
        if rare < 0.9:
            hard.append(f"at min_count 5 the vocabulary covers {rare:.0%} of the words: lower min_count")
        if self.capitals_share > 0.02:
            hard.append(f"{self.capitals_share:.0%} of the captions are in capitals: words are compared in lower case")
        if self.spaceless_share > SPACELESS_SHARE:
            hard.append(
                f"{self.spaceless_share:.0%} of the captions have no spaces between words: train with word pieces "
                "(--set tokenizer=wordpiece), or insert spaces first"
            )
        if self.stray_separator_share > 0.05:
            hard.append(f"{self.stray_separator_share:.0%} of the captions have stray separators: they are dropped")
        return hard


def describe_texts(texts: Sequence[str], images: int) -> DataProfile:
    """Describe captions in numbers.

    Args:
        texts: the captions of a data set, or of a split of it.
        images: number of images that they describe.

    Returns:
        profile: counts and shares; all shares are 0 when there are no captions.

    Example:
        >>> describe_texts(["a dog runs", "a dog"], images=1).texts_per_image
        2.0
    """
    split = [split_words(text) for text in texts]
    counts = Counter(word for words in split for word in words)
    total = sum(counts.values())
    distinct = Counter(map(tuple, split))

    def share(found: int) -> float:
        return found / len(texts) if texts else 0.0

    def reaching(least: int) -> list[int]:
        return [count for count in counts.values() if count >= least]

    return DataProfile(
        images=images,
        texts=len(texts),
        texts_per_image=len(texts) / images if images else 0.0,
        words_per_text=float(statistics.median(map(len, split))) if split else 0.0,
        unique_share=share(sum(1 for count in distinct.values() if count == 1)),
        vocabulary={least: len(reaching(least)) for least in MIN_COUNTS},
        list_like_share=share(sum(map(is_list, texts))),
        capitals_share=share(sum(map(_in_capitals, texts))),
        spaceless_share=share(sum(map(has_no_spaces, texts))),
        stray_separator_share=share(sum(map(has_stray_separator, texts))),
        short_share=share(sum(len(words) < SHORT_WORDS for words in split)),
        words=total,
        covered={least: sum(reaching(least)) / total if total else 0.0 for least in MIN_COUNTS},
    )


def _in_capitals(text: str) -> bool:
    """Return whether a text has several letters and writes those that have a case in capitals."""
    return text.isupper() and sum(character.isalpha() for character in text) > 1
