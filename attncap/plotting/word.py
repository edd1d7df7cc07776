"""One word's attention map, large, with its scale."""

from __future__ import annotations

from math import exp, sqrt

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.ticker import MaxNLocator

from attncap.captions import Caption
from attncap.images import AnyImage
from attncap.plotting.layout import fit_word, ink_of, place_axes, read_image, size_inches, wrap
from attncap.plotting.overlay import NO_MAPS, PALE, Mode, draw_attention, scale_maximum
from attncap.plotting.regions import MAP_CELLS, draw_boxes
from attncap.plotting.style import LARGE_PIXELS, LINE, MARGIN, STYLE, SheetFigure


@matplotlib.rc_context(STYLE)
def plot_word(
    image: AnyImage,
    caption: Caption,
    index: int,
    *,
    ax: Axes | None = None,
    mode: Mode = "heat",
    cmap: str | Colormap | None = None,
    alpha: float | None = None,
    smooth: bool = True,
    maximum: float | None = None,
) -> Axes:
    """Draw one word's attention map, large, with a color bar in times uniform.

    The scale is weight * rows * cols: 1 is the attention of a uniform map, 0 is no attention.

    Args:
        image: Pillow image, uint8 array of shape (height, width, 3), or path: all of what the encoder saw.
        caption: with T words and their maps.
        index: which word, from 0; negative from the end.
        ax: where to draw; default: axes of a new figure.
        mode: "heat", "reveal" or "contour", see `attncap.plotting.overlay.draw_attention`.
        cmap: colors of "heat"; default: orange to dark red.
        alpha: constant opacity of "heat"; default: opacity follows attention.
        smooth: False shows the cells of the grid.
        maximum: end of the color bar in times uniform, to compare words; default: the map's own maximum, at least 2.

    Returns:
        The axes; images[0] is the photograph, images[1] the map, in the image's pixel coordinates.

    Raises:
        ValueError: a caption without maps, an unknown mode, or an index beyond the caption.

    Example:
        >>> plot_word("photograph.jpg", caption, 3).figure.savefig("word.png")
    """
    count = len(caption.words)
    if not -count <= index < count:
        raise ValueError(f"index needs to lie from 0 to {count - 1}, got {index}: the caption has {count} words")
    index %= count
    if caption.attention_weights is None:
        raise ValueError(NO_MAPS)
    photo, (width, height) = read_image(image, LARGE_PIXELS)
    about = [f"word {index + 1} of {count}"]
    if caption.word_log_probs is not None:
        about.append(f"probability {exp(caption.word_log_probs[index]):.2f}")
    sentence = "“" + " ".join(caption.words) + "”"
    ratio = min(max(width / height, 0.3), 5.0)
    box_width = min(max(4.6 * sqrt(ratio), 3.0), 7.0) if ax is None else size_inches(ax)[0]
    lines = [", ".join(about), *wrap(sentence, box_width, 11)]
    word, size = fit_word(caption.words[index], box_width, 18, 12, "bold")
    if ax is None:
        top, bottom = len(word) * size * LINE + 0.3, len(lines) * 11 * LINE + 0.3
        figure = SheetFigure(figsize=(MARGIN + box_width + 1.25, top + box_width / ratio + bottom))
        ax = place_axes(figure, MARGIN, top, box_width, box_width / ratio)
    ink, muted, _ = ink_of(ax)
    ax.set_title("\n".join(word), fontsize=size, color=ink, parse_math=False)
    regions, boxes = caption.attention_weights[index], caption.boxes
    weights = np.asarray(caption.on_grid(MAP_CELLS, MAP_CELLS).attention_weights)[index]
    peak = float(weights.max()) * weights.size
    end = scale_maximum(weights) if maximum is None else maximum
    box = caption.grid_box
    shown = draw_attention(
        ax,
        photo,
        (width, height),
        weights,
        mode=mode,
        maximum=end,
        cmap=cmap,
        alpha=alpha,
        smooth=smooth and boxes is None,
        grid_box=box,
    )
    if boxes is not None:
        draw_boxes(ax, (width, height), regions[0], boxes)
    ax.set_xlabel("\n".join(lines), color=ink, parse_math=False)
    if mode != "heat":
        return ax
    cax = ax.inset_axes((1.03, 0.0, 0.045, 1.0), label="scale")
    cax.set_facecolor(3 * (0.5 + 0.5 * PALE,))  # the paled photograph behind the map, on average
    bar = ax.figure.colorbar(shown, cax=cax, extend="max" if end < peak else "neither")
    bar.set_label("attention\n(times uniform)", fontsize=11, color=ink)
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(nbins=6)
    cax.tick_params(labelsize=11, labelcolor=ink, color=muted)
    return ax
