"""attncap: captions for images, with a map of where the model looked for every word.

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

if TYPE_CHECKING:  # `as` tells type checkers that a name is public
    from attncap.attributes.explain import explain_attribute as explain_attribute
    from attncap.captions import Caption as Caption
    from attncap.data.load import CaptionData as CaptionData
    from attncap.data.load import load as load
    from attncap.decoding.predict import caption as caption
    from attncap.explain.words import explain_word as explain_word
    from attncap.features.external import ExternalFeatures as ExternalFeatures
    from attncap.features.extractor import FeatureExtractor as FeatureExtractor
    from attncap.features.store import FeatureStore as FeatureStore
    from attncap.images import open_image as open_image
    from attncap.metrics.evaluate import bleu as bleu
    from attncap.metrics.evaluate import evaluate as evaluate
    from attncap.models.adaptive_attention_captioner import AdaptiveAttentionCaptioner as AdaptiveAttentionCaptioner
    from attncap.models.attention import BahdanauAttention as BahdanauAttention
    from attncap.models.attention_captioner import AttentionCaptioner as AttentionCaptioner
    from attncap.models.ensemble import Ensemble as Ensemble
    from attncap.models.saving import load_captioner as load_captioner
    from attncap.models.show_and_tell import ShowAndTell as ShowAndTell
    from attncap.models.transformer_captioner import TransformerCaptioner as TransformerCaptioner
    from attncap.plotting.attention import plot_attention as plot_attention
    from attncap.plotting.explorer.page import explore as explore
    from attncap.reports.notebook import notebook_setup as notebook_setup
    from attncap.tokenizers import WordPieceTokenizer as WordPieceTokenizer
    from attncap.tokenizers import WordTokenizer as WordTokenizer
    from attncap.training.config import TrainConfig as TrainConfig
    from attncap.training.train import train as train

_HOME_OF = {
    "AdaptiveAttentionCaptioner": "models.adaptive_attention_captioner",
    "AttentionCaptioner": "models.attention_captioner",
    "BahdanauAttention": "models.attention",
    "Caption": "captions",
    "CaptionData": "data.load",
    "Ensemble": "models.ensemble",
    "ExternalFeatures": "features.external",
    "FeatureExtractor": "features.extractor",
    "FeatureStore": "features.store",
    "ShowAndTell": "models.show_and_tell",
    "TrainConfig": "training.config",
    "TransformerCaptioner": "models.transformer_captioner",
    "WordPieceTokenizer": "tokenizers",
    "WordTokenizer": "tokenizers",
    "bleu": "metrics.evaluate",
    "caption": "decoding.predict",
    "evaluate": "metrics.evaluate",
    "explain_attribute": "attributes.explain",
    "explain_word": "explain.words",
    "explore": "plotting.explorer.page",
    "load": "data.load",
    "load_captioner": "models.saving",
    "notebook_setup": "reports.notebook",
    "open_image": "images",
    "plot_attention": "plotting.attention",
    "train": "training.train",
}

__all__ = list(_HOME_OF)


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
