"""`explore`: captions in, one self-contained HTML page out, on which every word lays its map over the picture.

The page loads nothing: pictures, maps, style and script are inside, and a Content-Security-Policy forbids any request.
Whatever a caption holds stays text: it travels as JSON and enters the page as text nodes alone.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import Colormap
from PIL import Image

from attncap._files import replacing
from attncap.captions import Caption
from attncap.images import inside_folder
from attncap.plotting.layout import read_image
from attncap.plotting.overlay import HEAT
from attncap.plotting.predictions import words_in_no_reference
from attncap.plotting.style import Picture

Weighed = Sequence[Sequence[tuple[str, float]]]  # of T words each: (word, log-probability), the likeliest first

# What people call the columns of `Scores.per_image`; a column that is not here keeps its name.
SCORE_LABELS = {
    "cider_d": "CIDEr-D",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "meteor": "METEOR",
}
NOT_SHOWN = {"words", "bleu_1", "bleu_2", "bleu_3", "cider_plain"}  # columns that say the same again


@dataclass(frozen=True, eq=False)
class Explorer:
    """A page to explore captions: JupyterLab shows it, `save` writes it.

    Args:
        page: the whole HTML document.
        n_pictures: how many pictures it shows.
        height: of the frame in a notebook, in pixels.
    """

    page: str
    n_pictures: int
    height: int = 760

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page as one HTML file, whole or not at all, and return its path."""
        with replacing(path) as temporary:
            temporary.write_text(self.page, encoding="utf-8", newline="\n")
        return Path(path)

    def _repr_html_(self) -> str:
        # A document of its own, in a frame that may run its script and nothing else: neither can touch the other.
        return (
            f'<iframe title="Attention explorer, {_count(self.n_pictures)}" sandbox="allow-scripts" '
            f'style="width:100%;height:{self.height}px;border:1px solid #d9d9d9;border-radius:8px;background:#fff" '
            f'srcdoc="{html.escape(self.page)}"></iframe>'
        )

    def __repr__(self) -> str:
        return f"Explorer({_count(self.n_pictures)}, {len(self.page) / 1e6:.1f} MB)"


def explore(
    captions: Caption | Sequence[Caption | Sequence[Caption]],
    pictures: Picture | Mapping[str, Picture] | Sequence[Picture] | None = None,
    *,
    references: Mapping[str, Sequence[str]] | None = None,
    alternatives: Sequence[Weighed | Sequence[Weighed]] | None = None,
    scores: pd.DataFrame | None = None,
    title: str = "Where the captioner looked",
    picture_pixels: int = 480,
    wrong: Mapping[str, Collection[str]] | None = None,
    cmap: str | None = None,
    height: int = 760,
) -> Explorer:
    """Make a page of images and their captions that shows for each word its probability and where the model looked.

    Maps are kept in 256 steps of their own maximum and enlarged in the page as `upsample_attention` does.

    Args:
        captions: N captions; for a picture a list of them, best first, shows the other beams as well
            (`Decoder(captioner, beam_width=5, n_best=5)`). Captions without maps are shown without.
        pictures: where the pictures are: image_id -> picture, N pictures in order, or the folder in which the image_ids
            are file names; default: the image_ids are paths. A picture is a path, Pillow picture or uint8 array.
        references: image_id -> what people wrote.
        alternatives: for each caption, in the nesting of `captions`, the words that were weighed at each of its words,
            as `attncap.decoding.alternatives.top_alternatives` gives them.
        scores: a row a picture: `image_id` and numbers to sort by, such as `evaluate(...).per_image`.
        title: heading of the page.
        picture_pixels: the longer side of the embedded JPEGs; 480 is about 35 KB a photograph.
        wrong: image_id -> words of its captions to mark as wrong, for instance those that a table contradicts; default:
            words that no reference of the image contains, where references are given.
        cmap: name of a matplotlib colormap, drawn at 60% opacity; default: the colors of `plot_attention`, whose
            opacity follows attention.
        height: of the frame in a notebook, in pixels.

    Returns:
        explorer: JupyterLab shows it; `explorer.save("page.html")` writes it. In a notebook, a few dozen pictures:
            the page becomes part of the notebook's file.

    Raises:
        ValueError: no caption; pictures, maps or alternatives that do not fit the captions.
        UnreadableImage: a picture cannot be read.

    Example:
        >>> explore(captions, "photographs", references=data.references("test")).save("explore.html")
    """
    groups = _grouped(captions)
    names = [str(group[0].image_id) if group[0].image_id is not None else "" for group in groups]
    weighed = _grouped_alternatives(alternatives, captions, groups)
    table, sorts = _scores(scores)
    entries = []
    for number, (group, name, own) in enumerate(zip(groups, names, weighed, strict=True)):
        photo, _ = read_image(_picture(pictures, number, name, len(groups)), picture_pixels)
        entries.append(
            {
                "name": name or f"picture {number + 1}",
                "size": [photo.shape[1], photo.shape[0]],
                "jpeg": _jpeg(photo),
                "references": list((references or {}).get(name, ())),
                "scores": table.get(name, {}),
                "beams": [
                    {**_beam(caption, words), "wrong": _wrong(caption, name, wrong, references)}
                    for caption, words in zip(group, own, strict=True)
                ],
            }
        )
    content = {
        "sorts": sorts,
        "colors": _colors(HEAT if cmap is None else matplotlib.colormaps[cmap]),
        "strength": 100 if cmap is None else 60,
        "marks": wrong is not None or any(entry["references"] for entry in entries),
        "wrong_label": "in no reference" if wrong is None else "marked as wrong",
        "pictures": entries,
    }
    return Explorer(_page(title, content), len(entries), height)


def _grouped(captions: Caption | Sequence[Caption | Sequence[Caption]]) -> list[list[Caption]]:
    listed = [captions] if isinstance(captions, Caption) else captions
    groups = [[item.on_grid()] if isinstance(item, Caption) else [one.on_grid() for one in item] for item in listed]
    if not groups or not all(groups):
        raise ValueError("captions needs at least one caption a picture, got none: caption some pictures first")
    return groups


def _grouped_alternatives(alternatives: Any, captions: Any, groups: list[list[Caption]]) -> list[list[Weighed | None]]:
    if alternatives is None:
        return [[None] * len(group) for group in groups]
    listed = [captions] if isinstance(captions, Caption) else captions
    alternatives = [alternatives] if isinstance(captions, Caption) else alternatives
    if len(alternatives) != len(groups):
        raise ValueError(f"alternatives needs one entry a picture, {len(groups)}, got {len(alternatives)}")
    own = [
        [entry] if isinstance(item, Caption) else list(entry) for item, entry in zip(listed, alternatives, strict=True)
    ]
    for number, (group, entry) in enumerate(zip(groups, own, strict=True)):
        expected, found = [len(caption.words) for caption in group], [len(words) for words in entry]
        if expected != found:
            raise ValueError(f"alternatives of picture {number + 1}: lists for {expected} words expected, got {found}")
    return own


def _picture(pictures: Any, number: int, name: str, count: int) -> Picture:
    if isinstance(pictures, Mapping):
        if name not in pictures:
            raise ValueError(f"pictures has none for image_id {name!r}: give image_id -> picture for every caption")
        return pictures[name]
    single = isinstance(pictures, (str, os.PathLike))
    if isinstance(pictures, (Image.Image, np.ndarray)) or (single and not Path(pictures).is_dir()):
        if count != 1:
            raise ValueError(f"pictures needs a folder, a mapping or {count} pictures, got one: {str(pictures)[:200]}")
        return pictures
    if pictures is not None and not single:
        if len(pictures) != count:
            raise ValueError(f"pictures needs one picture a caption, {count}, got {len(pictures)}")
        return pictures[number]
    if not name:
        raise ValueError(f"caption {number + 1} has no image_id: give the pictures themselves, in the captions' order")
    return name if pictures is None else inside_folder(pictures, name)


def _scores(scores: pd.DataFrame | None) -> tuple[dict[str, dict[str, float]], list[list[str]]]:
    if scores is None:
        return {}, []
    if "image_id" not in scores.columns:
        raise ValueError(f"scores needs a column image_id, got {', '.join(map(str, scores.columns))}")
    numbers = scores.select_dtypes("number").drop(columns=[*NOT_SHOWN, "image_id"], errors="ignore")
    order = list(SCORE_LABELS)
    columns = sorted(map(str, numbers.columns), key=lambda name: order.index(name) if name in order else len(order))
    table: dict[str, dict[str, float]] = {}
    for image_id, row in zip(scores["image_id"], numbers.to_dict("records"), strict=True):
        table[str(image_id)] = {str(name): _number(value) for name, value in row.items()}  # type: ignore[misc]
    return table, [[name, SCORE_LABELS.get(name, name)] for name in columns]


def _beam(caption: Caption, weighed: Weighed | None) -> dict[str, Any]:
    given = caption.word_log_probs
    probabilities = None if given is None else [_probability(value) for value in given]
    alternatives = None
    if weighed is not None:
        alternatives = [[[str(word), _probability(value)] for word, value in words] for words in weighed]
    return {
        "words": list(caption.words),
        "p": probabilities,
        "log_prob": _number(caption.log_prob),
        "maps": _maps(caption),
        "alternatives": alternatives,
    }


def _maps(caption: Caption) -> dict[str, Any] | None:
    maps = caption.attention_weights
    if maps is None:
        return None
    where = f"attention_weights of {caption.image_id!r}"
    if not np.isfinite(maps).all() or (maps < 0).any():
        raise ValueError(f"{where}: finite numbers of at least 0 expected, got NaN, infinity or less than 0")
    count, rows, cols = maps.shape
    if not rows or not cols:
        raise ValueError(f"{where}: shape (T, rows, cols) with cells in it expected, got {maps.shape}")
    peaks = maps.reshape(count, rows * cols).max(axis=1)  # (T,)
    steps = np.rint(maps / np.maximum(peaks, 1e-30)[:, None, None] * 255).astype(np.uint8)
    return {
        "rows": rows,
        "cols": cols,
        "box": list(map(float, caption.grid_box)),
        "most": [float(f"{peak * rows * cols:.4g}") for peak in peaks],  # times uniform
        "steps": base64.b64encode(steps.tobytes()).decode("ascii"),
    }


def _probability(log_prob: float) -> float | None:
    return None if math.isnan(log_prob) else float(f"{math.exp(min(log_prob, 0.0)):.4g}")


def _number(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None  # JSON knows no infinity


def _jpeg(photo: np.ndarray) -> str:
    contents = BytesIO()
    Image.fromarray(photo).save(contents, "JPEG", quality=82, optimize=True)
    return base64.b64encode(contents.getvalue()).decode("ascii")


def _wrong(
    caption: Caption,
    name: str,
    wrong: Mapping[str, Collection[str]] | None,
    references: Mapping[str, Sequence[str]] | None,
) -> list[int]:
    """Places of the words to mark."""
    if wrong is not None:
        marked = set(wrong.get(name, ()))
    elif references and references.get(name):
        marked = words_in_no_reference(caption, references[name])
    else:
        return []
    return [place for place, word in enumerate(caption.words) if word in marked]


def _colors(cmap: Colormap) -> str:
    table = cmap(np.arange(256) / 255)  # (256, 4)
    return base64.b64encode(np.rint(table * 255).astype(np.uint8).tobytes()).decode("ascii")


def _count(pictures: int) -> str:
    return f"{pictures} picture" + ("" if pictures == 1 else "s")


def _page(title: str, content: dict[str, Any]) -> str:
    folder = resources.files("attncap.plotting.explorer")
    page, style, script = (
        (folder / f"page.{kind}").read_text(encoding="utf-8").replace("\r\n", "\n") for kind in ("html", "css", "js")
    )
    # No "<" and no "&": neither "</script>" nor "<!--" in a caption can end or change the block that holds it.
    data = json.dumps(content, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        data = data.replace(character, f"\\u{ord(character):04x}")
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    readable = title.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair cannot be written
    parts = {"policy": policy, "title": html.escape(readable), "style": style, "script": script, "data": data}
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], page)  # once: what goes in is not read again


def _digest(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii") + "'"
