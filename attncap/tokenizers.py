"""From caption to token ids and back: a vocabulary of words, or keras-nlp's word pieces.

Both tokenizers have the methods of keras-nlp's (`tokenize`, `detokenize`, `id_to_token`, ...), are saved inside a
captioner, and share four special tokens: `<pad>` = 0, `<start>` = 1, `<end>` = 2, `<unk>` = 3.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

from attncap._files import check_list
from attncap.captions import SEPARATOR, join_words
from attncap.words import split_items, split_words

SPECIAL_TOKENS = ("<pad>", "<start>", "<end>", "<unk>")
PAD, START, END, UNK = range(4)
NEVER_GENERATED = (PAD, START, UNK)


def _with_separators(caption: str) -> list[str]:
    words: list[str] = []
    for item in split_items(caption):
        words += [SEPARATOR, *item] if words else item
    return words


def pad_token_ids(
    captions: Sequence[Sequence[Sequence[int]]],
    *,
    length: int = 0,
    multiple_of: int = 1,
    captions_each: int | None = None,
) -> np.ndarray:
    """Return the token ids of captions as one array, filled up with `<pad>`.

    Args:
        captions: for each image, the token ids of its captions.
        length: T is at least this.
        multiple_of: T is rounded up to a multiple of it, so that few shapes are compiled.
        captions_each: K, if it should be larger than the number of captions of an image.

    Returns:
        token_ids: int32, shape (B, K, T).

    Example:
        >>> pad_token_ids([[[4, 2], [4, 5, 2]], [[6, 2]]], multiple_of=4)[1].tolist()
        [[6, 2, 0, 0], [0, 0, 0, 0]]
    """
    longest = max((len(row) for rows in captions for row in rows), default=0)
    length = -(-max(length, longest) // multiple_of) * multiple_of
    most = max(map(len, captions), default=0)
    token_ids = np.full((len(captions), captions_each or most, length), PAD, np.int32)  # (B, K, T)
    for image, rows in enumerate(captions):
        for number, row in enumerate(rows):
            token_ids[image, number, : len(row)] = row
    return token_ids


class CaptionTokenizer:
    """Base class of both tokenizers: special tokens, packing, saving.

    Args:
        vocabulary: tokens in the order of their ids; the four special tokens come first.

    Raises:
        ValueError: the vocabulary does not begin with the special tokens, or names a token twice.
    """

    def __init__(self, vocabulary: Sequence[str]):
        self.vocabulary = tuple(vocabulary)
        if self.vocabulary[:4] != SPECIAL_TOKENS:
            raise ValueError(f"a vocabulary begins with {SPECIAL_TOKENS}, got {self.vocabulary[:4]}")
        self._ids = {token: index for index, token in enumerate(self.vocabulary)}
        if len(self._ids) != len(self.vocabulary):
            twice = next(token for token, count in Counter(self.vocabulary).items() if count > 1)
            raise ValueError(f"the vocabulary names the token {twice!r} twice")

    @property
    def separator_id(self) -> int | None:
        """Id of the separator token; None if the vocabulary has none: separators are then dropped."""
        return self._ids.get(SEPARATOR)

    def split(self, caption: str) -> list[str]:
        """Split a caption into the words that `tokenize` encodes; with a separator token, `,` between items."""
        return _with_separators(caption) if SEPARATOR in self._ids else split_words(caption)

    def tokenize(self, caption: str) -> list[int]:
        """Return the caption's token ids, without `<start>` and `<end>`."""
        raise NotImplementedError

    def words(self, token_ids: Sequence[int]) -> list[tuple[str, list[int]]]:
        """Group token ids into words: each word with the positions of its tokens in `token_ids`."""
        raise NotImplementedError

    def vocabulary_size(self) -> int:
        return len(self.vocabulary)

    def get_vocabulary(self) -> list[str]:
        return list(self.vocabulary)

    def id_to_token(self, token_id: int) -> str:
        return self.vocabulary[token_id]

    def token_to_id(self, token: str) -> int:
        return self._ids.get(token, UNK)

    def detokenize(self, token_ids: Sequence[int] | np.ndarray) -> str:
        """Return the words of `token_ids` as a text; special tokens other than `<unk>` are left out."""
        kept = [int(token_id) for token_id in token_ids if token_id not in (PAD, START, END)]
        return join_words(word for word, _ in self.words(kept))

    def pack(self, captions: Sequence[str], max_length: int) -> np.ndarray:
        """Tokenize captions into one padded array (keras-nlp's `StartEndPacker` on a batch).

        Args:
            captions: N texts.
            max_length: longest row, `<start>` and `<end>` included; a longer caption is cut before its `<end>`.

        Returns:
            token_ids: int32, shape (N, T), T the longest row; `<start> words <end> <pad>...`.

        Raises:
            ValueError: max_length below 2, which leaves no room for `<start>` and `<end>`.
        """
        if max_length < 2:
            raise ValueError(f"max_length counts <start> and <end>: at least 2, got {max_length}")
        return pad_token_ids([[[START, *self.tokenize(text)[: max_length - 2], END] for text in captions]])[0]

    def digest(self) -> str:
        """Return a hexadecimal digest of the vocabulary, for manifests: equal digests, equal ids."""
        return hashlib.blake2b("\n".join(self.vocabulary).encode(), digest_size=16).hexdigest()

    def get_config(self) -> dict[str, Any]:
        return {"vocabulary": list(self.vocabulary)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> CaptionTokenizer:
        return cls(**config)


@keras.saving.register_keras_serializable("attncap")
class WordTokenizer(CaptionTokenizer):
    """One token per word (`split_words`); a word outside the vocabulary is `<unk>`, which is never generated.

    Example:
        >>> tokenizer = WordTokenizer.from_captions(["A dog runs.", "A dog."], min_count=2)
        >>> tokenizer.tokenize("a dog barks")
        [4, 5, 3]
    """

    @classmethod
    def from_captions(
        cls, captions: Iterable[str], min_count: int = 5, max_size: int | None = None, *, separators: bool = False
    ) -> WordTokenizer:
        """Build the vocabulary from training captions alone.

        Args:
            captions: training captions only: those of validation and test would leak words.
            min_count: a word seen fewer times is `<unk>`; default 5, as Karpathy and Show, Attend and Tell do.
            max_size: keep this many words at most, the most frequent ones; None keeps all.
            separators: give the separator of lists a token of its own (see `are_lists`); else separators are dropped.

        Raises:
            ValueError: no word reaches min_count.
        """
        check_list(captions, "captions")
        split = _with_separators if separators else split_words
        counts = Counter(word for caption in captions for word in split(caption))
        frequent = [(word, count) for word, count in counts.items() if count >= min_count]
        if not frequent:
            raise ValueError(f"no word occurs {min_count} times among {len(counts)} words: lower min_count")
        frequent.sort(key=lambda item: (-item[1], item[0]))
        return cls([*SPECIAL_TOKENS, *(word for word, _ in frequent[:max_size])])

    def tokenize(self, caption: str) -> list[int]:
        return [self._ids.get(word, UNK) for word in self.split(caption)]

    def words(self, token_ids: Sequence[int]) -> list[tuple[str, list[int]]]:
        return [(self.vocabulary[token_id], [position]) for position, token_id in enumerate(token_ids)]


@keras.saving.register_keras_serializable("attncap")
class WordPieceTokenizer(CaptionTokenizer):
    """keras-nlp's WordPiece: rare words are built from pieces ("climb" + "##ing"), so that no word is lost.

    Captions go through `split_words` first, so that both tokenizers see the same words.
    """

    def __init__(self, vocabulary: Sequence[str]):
        import keras_hub

        super().__init__(vocabulary)
        self._pieces = keras_hub.tokenizers.WordPieceTokenizer(
            vocabulary=list(self.vocabulary),
            oov_token="<unk>",
            lowercase=False,
            split=False,
            special_tokens=list(SPECIAL_TOKENS),
        )

    @classmethod
    def from_captions(
        cls, captions: Iterable[str], vocabulary_size: int = 4000, *, separators: bool = False
    ) -> WordPieceTokenizer:
        """Learn `vocabulary_size` pieces from training captions with `keras_nlp`'s trainer (needs TensorFlow).

        With separators, the separator of lists has a token of its own, as in `WordTokenizer.from_captions`.
        """
        import keras_hub
        import tensorflow as tf

        check_list(captions, "captions")
        words = [word for caption in captions for word in split_words(caption)]
        special = [*SPECIAL_TOKENS, SEPARATOR] if separators else list(SPECIAL_TOKENS)
        pieces = keras_hub.tokenizers.compute_word_piece_vocabulary(
            tf.data.Dataset.from_tensor_slices(words).batch(1024),
            vocabulary_size=vocabulary_size,
            split=False,  # the words that `tokenize` sees: "t-shirt" is one
            reserved_tokens=special,
        )
        return cls(pieces)

    def tokenize(self, caption: str) -> list[int]:
        words = self.split(caption)
        # With split=False, keras-nlp takes a list of words as one text and gives its pieces in one flat array.
        return np.asarray(self._pieces.tokenize(words)).tolist() if words else []

    def words(self, token_ids: Sequence[int]) -> list[tuple[str, list[int]]]:
        grouped: list[tuple[str, list[int]]] = []
        for position, token_id in enumerate(token_ids):
            piece = self.vocabulary[token_id]
            if piece.startswith("##") and grouped:
                word, positions = grouped[-1]
                grouped[-1] = (word + piece[2:], [*positions, position])
            else:
                grouped.append((piece.removeprefix("##"), [position]))
        return grouped
