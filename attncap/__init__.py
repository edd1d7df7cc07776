"""attncap: captions for pictures, with a map of where the model looked for every word.

The names below are what most programs need; each is imported from its module when it is first used, so that
`import attncap` is quick and TensorFlow loads only for what needs it.

Example:
    >>> import attncap
    >>> captioner = attncap.load_captioner("runs/demo/run")
    >>> attncap.caption(captioner, "face.png", beam_width=3).text
    'a smiling person with a brown ponytail and pointed ears wearing square glasses'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attncap.captioners import (
        AdaptiveAttentionCaptioner,
        AttentionCaptioner,
        ShowAndTell,
        TransformerCaptioner,
        load_captioner,
    )
    from attncap.captions import Caption
    from attncap.data import CaptionData, load
    from attncap.ensemble import Ensemble
    from attncap.evaluation import bleu, evaluate
    from attncap.explorer import explore
    from attncap.feature_store import FeatureStore
    from attncap.features import FeatureExtractor
    from attncap.layers import BahdanauAttention
    from attncap.pictures import open_picture
    from attncap.plotting import plot_attention
    from attncap.predict import caption
    from attncap.text import WordPieceTokenizer, WordTokenizer
    from attncap.training import train

_HOME_OF = {
    "AdaptiveAttentionCaptioner": "captioners",
    "AttentionCaptioner": "captioners",
    "BahdanauAttention": "layers",
    "Caption": "captions",
    "CaptionData": "data",
    "Ensemble": "ensemble",
    "FeatureExtractor": "features",
    "FeatureStore": "feature_store",
    "ShowAndTell": "captioners",
    "TransformerCaptioner": "captioners",
    "WordPieceTokenizer": "text",
    "WordTokenizer": "text",
    "bleu": "evaluation",
    "caption": "predict",
    "evaluate": "evaluation",
    "explore": "explorer",
    "load": "data",
    "load_captioner": "captioners",
    "open_picture": "pictures",
    "plot_attention": "plotting",
    "train": "training",
}

__all__ = [
    "AdaptiveAttentionCaptioner",
    "AttentionCaptioner",
    "BahdanauAttention",
    "Caption",
    "CaptionData",
    "Ensemble",
    "FeatureExtractor",
    "FeatureStore",
    "ShowAndTell",
    "TransformerCaptioner",
    "WordPieceTokenizer",
    "WordTokenizer",
    "bleu",
    "caption",
    "evaluate",
    "explore",
    "load",
    "load_captioner",
    "open_picture",
    "plot_attention",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("attncap")
        except PackageNotFoundError:  # imported from a source folder that was never installed
            return "0+source"
    if name not in _HOME_OF:
        raise AttributeError(f"module 'attncap' has no attribute {name!r}")
    value = getattr(import_module(f"attncap.{_HOME_OF[name]}"), name)
    globals()[name] = value  # the next use does not come through here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
