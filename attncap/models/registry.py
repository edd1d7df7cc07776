"""All captioners, each in a module of its own, and `load_captioner`, which loads a file of any of them."""

from __future__ import annotations

from pathlib import Path

from attncap.models.adaptive_attention_captioner import AdaptiveAttentionCaptioner
from attncap.models.attention_captioner import AttentionCaptioner
from attncap.models.captioner import Captioner
from attncap.models.saving import load_keras
from attncap.models.show_and_tell import ShowAndTell
from attncap.models.transformer_captioner import TransformerCaptioner

__all__ = ["AdaptiveAttentionCaptioner", "AttentionCaptioner", "ShowAndTell", "TransformerCaptioner", "load_captioner"]


def load_captioner(path: str | Path) -> Captioner:
    """Load a saved captioner: vocabulary, preprocessing, encoder and weights are all in the file.

    Args:
        path: a `.keras` file, or a run folder, whose `best.keras` is taken.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a captioner, damaged, of a newer Keras, or made to run code on loading; see `load_keras`.
    """
    return load_keras(path, Captioner, "captioner")
