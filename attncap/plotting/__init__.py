"""Figures of captions, attention maps, training and scores: arrays and tables in, Axes or a Figure out.

Figures are made without pyplot, so that none stays in memory and none is shown twice; JupyterLab shows the figure that
is the last value of a cell. Panels (`plot_word`, `plot_scores`) take `ax` and return it; sheets return their Figure.
"""

from attncap.plotting.architecture import plot_architecture
from attncap.plotting.attention import plot_attention
from attncap.plotting.history import plot_history
from attncap.plotting.overlay import upsample_attention
from attncap.plotting.predictions import plot_predictions, words_in_no_reference
from attncap.plotting.scores import plot_scores
from attncap.plotting.style import STYLE
from attncap.plotting.word import plot_word

__all__ = [
    "STYLE",
    "plot_architecture",
    "plot_attention",
    "plot_history",
    "plot_predictions",
    "plot_scores",
    "plot_word",
    "upsample_attention",
    "words_in_no_reference",
]
