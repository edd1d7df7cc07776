"""From short free texts to characteristics: mine phrases, edit them in a spreadsheet, read what texts state.

    texts -> mine -> characteristics.csv (a person edits it) -> Lexicon -> statements | label -> table of attributes

Names are imported from their module when they are first used.

Example:
    >>> from attncap.characteristics import Entry, Lexicon
    >>> Lexicon([Entry("glasses", "glasses"), Entry("glasses", "spectacles")]).statements("no spectacles")
    {'glasses': False}
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attncap.characteristics.labels import count_statements, label
    from attncap.characteristics.lexicon import Lexicon, Statement
    from attncap.characteristics.lexicon_file import Entry
    from attncap.characteristics.mining import Mined, mine

_HOME_OF = {
    "Entry": "lexicon_file",
    "Lexicon": "lexicon",
    "Mined": "mining",
    "Statement": "lexicon",
    "count_statements": "labels",
    "label": "labels",
    "mine": "mining",
}

__all__ = ["Entry", "Lexicon", "Mined", "Statement", "count_statements", "label", "mine"]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'attncap.characteristics' has no attribute {name!r}")
    return getattr(import_module(f"attncap.characteristics.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
