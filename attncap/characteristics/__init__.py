"""From short free texts to characteristics: mine phrases, edit them in a spreadsheet, read what texts state.

    texts -> mine -> characteristics.csv (a person edits it) -> Lexicon -> statements | label -> table of attributes

Example:
    >>> from attncap.characteristics import Entry, Lexicon
    >>> Lexicon([Entry("glasses", "glasses"), Entry("glasses", "spectacles")]).statements("no spectacles")
    {'glasses': False}
"""

from attncap.characteristics.labels import count_statements, label
from attncap.characteristics.lexicon import Lexicon, Statement
from attncap.characteristics.lexicon_file import Entry
from attncap.characteristics.mining import Mined, mine

__all__ = ["Entry", "Lexicon", "Mined", "Statement", "count_statements", "label", "mine"]
