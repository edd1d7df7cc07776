"""Images with the model's caption above and the references below."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import isnan
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox, IdentityTransform

from attncap.captions import Caption
from attncap.images import AnyImage
from attncap.plotting.layout import (
    balanced_columns,
    bulleted,
    drawable,
    place_axes,
    place_text,
    read_image,
    short_number,
    show_photo,
    wrap,
)
from attncap.plotting.style import (
    INK,
    LINE,
    MARGIN,
    MUTED,
    PANEL_PIXELS,
    SCORE_COLORS,
    STYLE,
    WRONG,
    SheetFigure,
    root_figure,
)

TITLE_SIZE, TITLE_PAD = 12, 5  # points


@matplotlib.rc_context(STYLE)
def plot_predictions(
    images: Sequence[AnyImage],
    captions: Sequence[Caption | str],
    references: Sequence[Sequence[str]],
    scores: Sequence[float] | None = None,
    *,
    wrong: Sequence[Collection[str | int]] | None = None,
    sections: Sequence[tuple[str, int]] | None = None,
    columns: int | None = None,
    title: str | None = None,
) -> Figure:
    """Draw a sheet of images with the model's caption above and the human references below.

    Args:
        images: N images, each as in `plot_attention`.
        captions: N predictions.
        references: N lists of human captions.
        scores: N numbers, higher is better; drawn on the image and as the color of the caption, from orange-brown (the
            sheet's lowest) through gray to blue (its highest). Equal scores are drawn in gray.
        wrong: N collections of words of the caption, or their places from 0, that are known to be wrong; they are
            underlined. Examples: `words_in_no_reference(caption, references)`,
            `attncap.attributes.sentences.contradicted_words(caption, facts)`.
        sections: (heading, number of images) in order; each begins a row of its own below its heading. Example:
            `[("Best", 4), ("Worst", 4)]`. Default: one section without heading.
        columns: images in a row, default 2 to 4.
        title: of the sheet; default: an explanation.

    Returns:
        The figure, with one Axes per image.

    Raises:
        ValueError: nothing to draw, lists of different lengths, or sections that do not hold all images.

    Example:
        >>> plot_predictions(["a.jpg"], ["a dog runs"], [["a brown dog running"]], scores=[0.41])
    """
    texts = [caption.sentence if isinstance(caption, Caption) else caption for caption in captions]
    lengths = [len(images), len(texts), len(references)]
    lengths += [len(given) for given in (scores, wrong) if given is not None]
    if len(set(lengths)) > 1 or not texts:
        raise ValueError(f"images, captions, references, scores and wrong need one entry per image, got {lengths}")
    if any(isinstance(lines, str) for lines in references):
        raise ValueError("references needs a list of captions for each image, got one string")
    if title is None:
        title = "The model's caption above each image" + (", what people wrote below" if any(references) else "")
        title += "; words known to be wrong are underlined" if any(wrong or ()) else ""
    columns = columns or (balanced_columns(len(texts), 4) if len(texts) != 4 else 2)
    width, gap = 3.1, 0.3
    boxes = [read_image(image, PANEL_PIXELS) for image in images]
    heights = [min(width * size[1] / size[0], width) for _, size in boxes]
    above = [wrap(text or "(empty caption)", width, TITLE_SIZE, "bold") for text in texts]
    below = [[part for line in lines for part in bulleted(line, width, 10.5)] for lines in references]
    sheet_width = max(columns * (width + gap) - gap + 2 * MARGIN, 4.5)
    heading = wrap(title, sheet_width - 2 * MARGIN, 13, "normal")
    tops, down = [], MARGIN + len(heading) * 13 * LINE + 0.15
    headings: list[tuple[float, str]] = []
    places: list[int] = []  # the column of each image
    for name, row in _rows(sections or [("", len(texts))], columns, len(texts)):
        if name:
            headings.append((down, name))
            down += 15 * LINE + 0.12
        places += range(len(texts[row]))
        title_height, box_height = max(map(len, above[row])) * TITLE_SIZE * LINE + 0.1, max(heights[row])
        tops += [(down + title_height, box_height)] * len(texts[row])
        down += title_height + box_height + max(map(len, below[row])) * 10.5 * LINE + 0.4
    figure = SheetFigure(figsize=(sheet_width, down))
    place_text(figure, MARGIN, MARGIN, heading, 13, color=MUTED)
    for at, name in headings:
        place_text(figure, MARGIN, at, [name], 15, color=INK, fontweight="bold")
    left = (sheet_width - columns * (width + gap) + gap) / 2
    colors = _score_colors(scores, len(texts))
    for n, (photo, size) in enumerate(boxes):
        ax = place_axes(figure, left + places[n] * (width + gap), tops[n][0], width, tops[n][1])
        ax.set_anchor("NW")
        show_photo(ax, photo, size)
        ax.set_title("\n".join(above[n]), loc="left", pad=TITLE_PAD, color=colors[n], parse_math=False)
        ax.set_xlabel("\n".join(below[n]), loc="left", labelpad=5, fontsize=10.5, parse_math=False)
        ax.xaxis.label.set_multialignment("left")
        if wrong is not None and wrong[n]:
            _underline(ax, above[n], captions[n], wrong[n])
        if scores is not None:
            badge = {"facecolor": colors[n], "edgecolor": "white", "boxstyle": "round,pad=0.25"}
            place: dict[str, Any] = {"ha": "left", "va": "top", "transform": ax.transAxes}
            ax.text(0.02, 0.97, short_number(scores[n]), color="white", fontweight="bold", bbox=badge, **place)
    return figure


def _rows(sections: Sequence[tuple[str, int]], columns: int, count: int) -> list[tuple[str, slice]]:
    """Return the rows of a sheet: the images of each row, and the heading of a section before its first row."""
    if sum(number for _, number in sections) != count or min(number for _, number in sections) < 1:
        raise ValueError(f"sections need all {count} images, at least one each, got {list(sections)}")
    rows, first = [], 0
    for name, number in sections:
        last = first + number
        for at in range(first, last, columns):
            rows.append((name if at == first else "", slice(at, min(at + columns, last))))
        first = last
    return rows


def words_in_no_reference(caption: Caption | str, references: Sequence[str]) -> set[str]:
    """Return the words of a caption that no reference contains, compared in lower case without punctuation.

    One reference is weak evidence: a word may be right although no reference has it. "a", "an", "the", "and", "with",
    "of", "in" and "on" are left out.

    Args:
        caption: a prediction.
        references: human captions of the same image.

    Returns:
        words as the caption writes them.
    """
    words = caption.words if isinstance(caption, Caption) else caption.split()
    known = {_plain(word) for line in references for word in line.split()} | _FUNCTION_WORDS
    return {word for word in words if _plain(word) and _plain(word) not in known}


_FUNCTION_WORDS = {"a", "an", "the", "and", "with", "of", "in", "on"}


def _plain(word: str) -> str:
    return "".join(character for character in word.casefold() if character.isalnum())


def _score_colors(scores: Sequence[float] | None, count: int) -> list[Any]:
    if scores is None:
        return [INK] * count
    finite = [score for score in scores if not isnan(score)]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    if low == high:  # one score, or equal ones: neither best nor worst
        return [INK if isnan(score) else SCORE_COLORS(0.5) for score in scores]
    norm = Normalize(low, high)
    return [INK if isnan(score) else SCORE_COLORS(norm(score)) for score in scores]


class _Underline(Line2D):
    """A line below the words of a title from one character to another; measured when it is drawn, at any resolution."""

    def __init__(self, ax: Axes, lines: Sequence[str], number: int, start: int, end: int):
        look: dict[str, Any] = {"color": WRONG, "linewidth": 2.5, "solid_capstyle": "butt"}
        super().__init__([], [], transform=IdentityTransform(), **look)
        self.set_gid("wrong")
        self._title = ax, lines[number], len(lines) - 1 - number, start, end

    def get_window_extent(self, renderer: Any = None) -> Bbox:
        ax, line, lines_below, start, end = self._title
        renderer = renderer or root_figure(ax)._get_renderer()
        font = FontProperties(family=STYLE["font.family"], weight="bold", size=TITLE_SIZE)

        def width(text: str) -> float:
            return float(renderer.get_text_width_height_descent(text, font, False)[0])

        # A blank at the end of a text has no width: the start is measured from the end.
        right = ax.bbox.x0 + width(line[:end])
        below = TITLE_PAD + lines_below * TITLE_SIZE * 1.2 - 2.5  # points above the image
        y = ax.bbox.y1 + renderer.points_to_pixels(below)
        return Bbox([[right - width(line[start:end]), y], [right, y]])

    def draw(self, renderer: Any) -> None:
        self.set_data(*self.get_window_extent(renderer).get_points().T)
        super().draw(renderer)


def _underline(ax: Axes, lines: Sequence[str], caption: Caption | str, wrong: Collection[str | int]) -> None:
    """Underline wrong words of a caption in a left-aligned title, in which a comma has joined the word before it."""
    words = caption.words if isinstance(caption, Caption) else caption.split()
    plain = {_plain(word) for word in wrong if isinstance(word, str)} - {""}
    marks = [at in wrong or _plain(word) in plain for at, word in enumerate(words)]
    of_characters = iter(
        [mark for mark, word in zip(marks, words, strict=True) for _ in "".join(drawable(word).split())]
    )
    for number, line in enumerate(lines):
        start = 0
        for word in line.split(" "):
            if any([next(of_characters, False) for _ in word]):  # False: the period after a sentence
                root_figure(ax).add_artist(_Underline(ax, lines, number, start, start + len(word)))
            start += len(word) + 1
