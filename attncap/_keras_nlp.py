"""keras-nlp, or keras-hub: keras-nlp is its older name, and either may be installed."""

from __future__ import annotations

from typing import Any


def import_keras_nlp() -> Any:
    """Return the module keras_nlp, or keras_hub, which has the same parts, where only keras-hub is installed.

    It takes seconds to import, so that it is imported where it is first needed.
    """
    try:
        import keras_nlp
    except ModuleNotFoundError as error:
        if error.name != "keras_nlp":
            raise
        import keras_hub as keras_nlp
    return keras_nlp
