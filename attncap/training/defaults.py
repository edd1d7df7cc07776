"""Defaults that follow from the data: how long to train, images per step, rare words, what the best epoch is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from attncap.data.describe import SPACELESS_SHARE, describe_texts
from attncap.training.config import LEAST_EPOCHS, TrainConfig
from attncap.words import are_lists

BATCH_SIZE = 32  # an image costs more than its captions, so larger batches save no time
LEAST_STEPS = 20  # of an epoch: with fewer, the average of weights over an epoch is that of a few steps
CAPTIONS_READ = 128_000  # in all: 6,400 short texts need 20 epochs; Flickr8k's 30,000 captions no more than 12
MOST_EPOCHS = 30
FEW_WORDS = 5  # the median text has fewer than these plus one: its 4-grams are one or two, and hardly any is right


def fit_to_data(
    config: TrainConfig, captions: Mapping[str, Sequence[str]], lists: bool | None = None
) -> tuple[TrainConfig, list[str]]:
    """Fill in the settings that were left open, from the training captions and the model.

    Args:
        config: settings; those that are not None stay.
        captions: image_id -> captions, of the training images.
        lists: whether captions are lists, if a vocabulary to continue with tells.

    Returns:
        config: without open settings.
        reasons: one line per setting that was filled in (its value and why), and warnings.
    """
    texts = [text for own in captions.values() for text in own]
    profile = describe_texts(texts, len(captions))
    each = min(5, round(profile.texts_per_image))
    chosen: dict[str, Any] = {}
    reasons = []

    def choose(name: str, value: Any, why: str) -> None:
        if getattr(config, name) is None:
            chosen[name] = value
            reasons.append(f"{name} = {str(value).lower() if isinstance(value, bool) else value}: {why}")

    if profile.spaceless_share > SPACELESS_SHARE and config.tokenizer == "words":
        reasons.append(
            f"warning: {profile.spaceless_share:.0%} of the captions have no spaces between words, so that a whole one "
            "is a word: train with word pieces (--set tokenizer=wordpiece)"
        )
    found = are_lists(texts) if lists is None else lists
    why = "most captions are lists of short items" if found else "captions are sentences"
    choose("lists", found, why if lists is None else "as the vocabulary that it continues with")
    total = profile.words
    choose("min_count", 5 if total >= 20_000 else 3 if total >= 5_000 else 2, f"the captions have {total:,} words")
    choose("batch_size", _batch_size(len(captions)), f"there are {len(captions):,} training images")
    epochs = min(MOST_EPOCHS, max(LEAST_EPOCHS, round(CAPTIONS_READ / max(1, len(texts)))))
    choose("epochs", epochs, f"there are {len(texts):,} training captions")
    epochs = config.epochs or epochs
    choose("patience", max(5, epochs // 4), f"a quarter of {epochs} epochs, at least 5")
    median = profile.words_per_text
    if each == 1 and (found or median <= FEW_WORDS):
        # CIDEr-D exists for such texts too, but it is noisy; on the score itself it is what is trained.
        monitor = "cider_d" if config.objective == "cider" else "loss"
        choose("monitor", monitor, f"one text of {median:g} words per image: BLEU-4 is close to zero")
    else:
        choose("monitor", "bleu_4", f"{each} caption{'s' * (each > 1)} of {median:g} words per image")
    return replace(config, **chosen).with_model_defaults(), reasons


def _batch_size(n_images: int) -> int:
    size = BATCH_SIZE
    while size > 8 and n_images < size * LEAST_STEPS:
        size //= 2
    return size
