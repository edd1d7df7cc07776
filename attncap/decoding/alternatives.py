"""`top_alternatives`: the most probable words at each place of finished captions, and an explorer page of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from keras import ops

from attncap.captions import Caption
from attncap.decoding.beam_search import Step
from attncap.decoding.decoder import Decoder
from attncap.decoding.replay import LENGTH_STEP, CompiledReplay, replay_each
from attncap.decoding.to_caption import with_boxes
from attncap.features.regions import Regions
from attncap.images import AnyImage
from attncap.metrics.evaluate import evaluate
from attncap.models.captioner import CaptionerState, grid_of_maps
from attncap.plotting.explorer.page import Explorer, explore
from attncap.tokenizers import END, pad_token_ids

Words = list[tuple[str, float]]  # (word, log-probability), the likeliest first
FORBIDDEN = -1e8  # below it: a token that decoding may not emit


def replay_top(step: Step, state: CaptionerState, token_ids: Any, top: int) -> tuple[Any, Any]:
    """Read finished captions through `step` again and return the `top` most probable tokens at each place.

    Args:
        step, state: as in `decoding.replay`, of K captions per image.
        token_ids: int, shape (B, K, T), without `<start>`.
        top: how many tokens per place.

    Returns:
        top_ids: int32, shape (B, K, T, top), the likeliest first; among the tokens that decoding may emit.
        log_probs: float32, shape (B, K, T, top), natural log-probabilities.
    """

    def read(logits: Any, weights: Any, target: Any) -> list[Any]:
        best, ids = ops.top_k(ops.log_softmax(logits, axis=-1), top)  # (B, K, top)
        return [ops.cast(ids, "int32"), best]

    ids, best = replay_each(step, state, ops.cast(token_ids, "int32"), read)  # (B, K, T, top)
    return ids, best


def top_alternatives(
    captioner: Any,
    features: np.ndarray,
    captions: Sequence[Caption | Sequence[Caption]],
    *,
    top: int = 5,
    batch_size: int = 32,
) -> list[Any]:
    """Find the most probable words at each place of captions, given the words before it.

    For a word of several pieces (WordPiece), these are the alternatives of its first piece.

    Args:
        captioner: anything with `init_state`, `step` and `tokenizer`.
        features: shape (N, rows, cols, D).
        captions: N captions as the captioner's decoding gave them, or N lists of captions of one image.
        top: how many words per place, at most the vocabulary.
        batch_size: images at a time.

    Returns:
        alternatives: in the nesting of `captions`, for each caption a list of T lists of (word, log-probability), the
            likeliest first; the end of the caption is the word `<end>`. `explore` takes them.

    Raises:
        ValueError: captions that are not one per image, or `top` below 1.

    Example:
        >>> top_alternatives(captioner, features, captions)[0][2]
        [('smiling', -0.11), ('young', -2.9), ...]
    """
    if len(features) != len(captions):
        raise ValueError(f"one caption per image is needed, got {len(captions)} for {len(features)} images")
    top = min(top, len(captioner.tokenizer.vocabulary))
    if top < 1:
        raise ValueError(f"top needs to be at least 1, got {top}")
    groups = [[item] if isinstance(item, Caption) else list(item) for item in captions]

    if not groups:
        return []
    rows = [[[*caption.token_ids, END] for caption in group] for group in groups]
    token_ids = pad_token_ids(rows, length=1, multiple_of=LENGTH_STEP)
    read = CompiledReplay(captioner, partial(replay_top, top=top), min(batch_size, len(groups)))
    ids, log_probs = read(features, token_ids)
    found = [
        [_words(captioner, caption, ids[row, k], log_probs[row, k]) for k, caption in enumerate(group)]
        for row, group in enumerate(groups)
    ]
    return [own[0] if isinstance(item, Caption) else own for item, own in zip(captions, found, strict=True)]


def _words(captioner: Any, caption: Caption, ids: np.ndarray, log_probs: np.ndarray) -> list[Words]:
    vocabulary = captioner.tokenizer.vocabulary
    places = [where[0] for _, where in captioner.tokenizer.words(caption.token_ids)]
    return [
        [(vocabulary[i], float(p)) for i, p in zip(ids[at], log_probs[at], strict=True) if p > FORBIDDEN]
        for at in places
    ]


def explore_features(
    captioner: Any,
    features: np.ndarray | Regions,
    image_ids: Sequence[str],
    images: Mapping[str, AnyImage] | Sequence[AnyImage],
    references: Mapping[str, Sequence[str]] | None = None,
    *,
    top: int = 5,
    beam_width: int = 3,
    title: str = "Where the captioner looked",
    against: tuple[Any, np.ndarray | Regions] | None = None,
    runs: tuple[str, str] = ("this run", "the other run"),
    phrases: Callable[[list[Caption]], Sequence[Sequence[Any]]] | None = None,
    wrong: Callable[[Caption], Collection[int]] | None = None,
    **settings: Any,
) -> Explorer:
    """Caption images and make an `explore` page of all beams, with the most probable words at each place.

    Args:
        captioner: of any kind.
        features: shape (N, rows, cols, D), of the captioner's encoder; or `Regions` of that shape, whose boxes the maps
            are then drawn on. Regions that are no grid, (N, 1, L, D), and have no boxes get no maps.
        image_ids: N names.
        images: N images in order, or image_id -> image.
        references: image_id -> human captions; if all N images have some, the page can sort by score.
        top: how many alternatives per word.
        beam_width: beams of the search, all shown.
        title: heading of the page.
        against: another captioner and the features of the same images by its encoder; its captions are shown beside.
        runs: names of the two captioners.
        phrases: function from the N best captions to N lists of phrases with boxes to draw.
        wrong: function from a caption to the places of its wrong words, which are marked; default: words in no
            reference.
        settings: of `Decoder`, such as length_penalty.

    Example:
        >>> explore_features(captioner, store.get(paths), image_ids, paths).save("explore.html")
    """
    ours = _regions(features)
    decode = Decoder(captioner, beam_width=beam_width, n_best=beam_width, **settings)
    decoded = _with_places(captioner, decode(ours.features, image_ids), ours.boxes)
    captions = [[item] if isinstance(item, Caption) else item for item in decoded]
    scores = None
    if references and all(references.get(image_id) for image_id in image_ids):
        own = {image_id: list(references[image_id]) for image_id in image_ids}
        predictions = {image_id: group[0].text for image_id, group in zip(image_ids, captions, strict=True)}
        scores = evaluate(predictions, own, bootstrap=0, human=False).per_image
    other = None
    if against is not None:
        theirs = _regions(against[1])
        decode = Decoder(against[0], beam_width=beam_width, **settings)
        other = _with_places(against[0], decode(theirs.features, image_ids), theirs.boxes)
    return explore(
        captions,
        images,
        references=references,
        alternatives=top_alternatives(captioner, ours.features, captions, top=top),
        scores=scores,
        against=other,
        runs=runs,
        phrases=None if phrases is None else phrases([group[0] for group in captions]),
        title=title,
        wrong=wrong,
    )


def _with_places(captioner: Any, captions: Sequence[Any], boxes: np.ndarray | None) -> list[Any]:
    """Return captions with the boxes of their regions; without boxes, regions that are no grid lose their maps."""
    if boxes is None and getattr(captioner, "encoder", None) is None and grid_of_maps(captioner)[0][0] == 1:
        groups = [[item] if isinstance(item, Caption) else item for item in captions]
        bare = [[replace(caption, attention_weights=None) for caption in group] for group in groups]
        return [own[0] if isinstance(item, Caption) else own for item, own in zip(captions, bare, strict=True)]
    return with_boxes(captions, boxes)


def _regions(features: np.ndarray | Regions) -> Regions:
    return features if isinstance(features, Regions) else Regions(features)
