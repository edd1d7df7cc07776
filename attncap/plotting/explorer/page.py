"""`explore`: make a self-contained HTML page on which every word of a caption shows its map over the image.

The page loads nothing: images, maps, style and script are inside, and a Content-Security-Policy forbids any request.
Captions are never interpreted as HTML: they are stored as compressed JSON and shown as text nodes.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from attncap._files import replacing
from attncap.captions import Caption
from attncap.images import AnyImage
from attncap.plotting.attention import plot_attention
from attncap.plotting.explorer.content import (
    Weighed,
    Wrong,
    beam_entry,
    box_entries,
    color_table,
    grouped,
    grouped_alternatives,
    image_of,
    jpeg_of,
    score_table,
    wrong_places,
)
from attncap.plotting.layout import read_image
from attncap.plotting.overlay import HEAT
from attncap.plotting.predictions import plot_predictions
from attncap.plotting.style import png_of

PIXELS, FULL_SIZE = 480, 200  # the longer side of the photographs; up to FULL_SIZE images have that size
SHRINK = 0.66  # power of the number of images above that: 1,000 photographs with three captions each take 15 MB
STATIC = 6  # images in the static figure that a notebook shows without scripts


@dataclass(frozen=True, eq=False)
class Explorer:
    """A page to explore captions: JupyterLab shows it, `save` writes it.

    Args:
        page: the whole HTML document.
        n_images: how many images it shows.
        height: of the frame in a notebook, in pixels.
        first: photographs and captions of the first images, for the static figure in a notebook.
    """

    page: str
    n_images: int
    height: int = 760
    first: tuple[list[np.ndarray], list[Caption]] = field(default=([], []), repr=False)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page as one HTML file, whole or not at all, and return its path."""
        with replacing(path) as temporary:
            temporary.write_text(self.page, encoding="utf-8", newline="\n")
        return Path(path)

    def _repr_html_(self) -> str:
        # A separate document in a frame that may only run its script, so that page and notebook cannot affect each
        # other. Where scripts are not trusted, the frame is removed and the figure below it remains.
        return (
            f'<div style="position:relative;height:{self.height}px;overflow:hidden">{self._static()}'
            f'<iframe title="Attention explorer, {_count(self.n_images)}" sandbox="allow-scripts" '
            f'style="position:absolute;inset:0;width:100%;height:{self.height}px;border:1px solid #d9d9d9;'
            f'border-radius:8px;background:#fff" srcdoc="{html.escape(self.page)}"></iframe></div>'
        )

    def _static(self) -> str:
        """Return a static figure: the maps of the first image, or without maps the captions of the first images."""
        photos, captions = self.first
        if not photos:
            return ""
        if captions[0].words and captions[0].attention_weights is not None:
            photos, captions = photos[:1], captions[:1]
            figure = plot_attention(photos[0], captions[0])
        else:
            figure = plot_predictions(photos, captions, [[]] * len(photos))
        said = html.escape("; ".join(f"{caption.image_id}: {caption.text}" for caption in captions))
        encoded = base64.b64encode(png_of(figure, dpi=72)).decode("ascii")
        return (
            f"<p>{len(photos)} of {_count(self.n_images)}. A notebook that was opened but not run shows no scripts: "
            "run this cell for the page to explore.</p>"
            f'<img alt="First captions of the explorer. {said}" style="max-width:100%;max-height:{self.height - 40}px" '
            f'src="data:image/png;base64,{encoded}">'
        )

    def __repr__(self) -> str:
        return f"Explorer({_count(self.n_images)}, {len(self.page) / 1e6:.1f} MB)"


def explore(
    captions: Caption | Sequence[Caption | Sequence[Caption]],
    images: AnyImage | Mapping[str, AnyImage] | Sequence[AnyImage] | None = None,
    *,
    references: Mapping[str, Sequence[str]] | None = None,
    alternatives: Sequence[Weighed | Sequence[Weighed]] | None = None,
    scores: pd.DataFrame | None = None,
    against: Sequence[Caption] | None = None,
    runs: tuple[str, str] = ("this run", "the other run"),
    phrases: Sequence[Sequence[Any]] | None = None,
    title: str = "Where the captioner looked",
    image_pixels: int | None = None,
    wrong: Wrong | None = None,
    cmap: str | None = None,
    height: int = 760,
) -> Explorer:
    """Make a page of images and their captions that shows for each word its probability and where the model looked.

    Maps are kept in 256 steps of their own maximum and enlarged in the page as `upsample_attention` does.

    Args:
        captions: N captions; for an image a list of them, best first, shows the other beams as well
            (`Decoder(captioner, beam_width=5, n_best=5)`). Captions without maps are allowed.
        images: where the images are: image_id -> image, N images in order, or the folder in which the image_ids
            are file names; default: the image_ids are paths. An image is a path, Pillow image or uint8 array.
        references: image_id -> human captions.
        alternatives: for each caption, nested as `captions`, the most probable words at each of its words, as
            `attncap.decoding.alternatives.top_alternatives` returns them.
        scores: one row per image: `image_id` and numbers to sort by, such as `evaluate(...).per_image`.
        against: N captions of another run, shown beside these; words that only one of the two says are marked.
        runs: names of the two runs.
        phrases: for each image, phrases of its best caption with boxes (`attncap.grounding.annotations.phrases_in`);
            the boxes of a word's phrase are drawn, with a note whether the map points into them.
        title: heading of the page.
        image_pixels: the longer side of the embedded JPEGs; default 480, about 35 KB per photograph, and less with
            more than 200 images, so that the page of 1,000 stays below 15 MB.
        wrong: what is known to be wrong and marked: image_id -> words, or a function that gives the places of the wrong
            words of a caption, such as `attncap.attributes.sentences.contradicted_words` with what is true of the
            image. Default: words that no reference of the image contains, where references are given.
        cmap: name of a matplotlib colormap, drawn at 60% opacity; default: the colors of `plot_attention`, whose
            opacity follows attention.
        height: of the frame in a notebook, in pixels.

    Returns:
        explorer: JupyterLab shows it; `explorer.save("page.html")` writes it. In a notebook use a few dozen images,
            since the page is stored in the notebook file.

    Raises:
        ValueError: no caption; images, maps or alternatives that do not fit the captions.
        UnreadableImage: an image cannot be read.

    Example:
        >>> explore(captions, "photographs", references=data.references("test")).save("explore.html")
    """
    groups = grouped(captions)
    names = [str(group[0].image_id) if group[0].image_id is not None else "" for group in groups]
    weighed = grouped_alternatives(alternatives, captions, groups)
    table, sorts = score_table(scores)
    for what, given in (("against", against), ("phrases", phrases)):
        if given is not None and len(given) != len(groups):
            raise ValueError(f"{what} needs one entry per image, {len(groups)}, got {len(given)}")
    if image_pixels is None:
        image_pixels = round(PIXELS * min(1.0, (FULL_SIZE / len(groups)) ** SHRINK))
    quality = 82 if len(groups) <= FULL_SIZE else 70
    photos = []
    entries = []
    for number, (group, name, own) in enumerate(zip(groups, names, weighed, strict=True)):
        photo, _ = read_image(image_of(images, number, name, len(groups)), image_pixels)
        photos.append(photo)
        entry: dict[str, Any] = {
            "name": name or f"image {number + 1}",
            "size": [photo.shape[1], photo.shape[0]],
            "jpeg": jpeg_of(photo, quality),
            "references": list((references or {}).get(name, ())),
            "scores": table.get(name, {}),
            "beams": [
                {**beam_entry(caption, words), "wrong": wrong_places(caption, name, wrong, references)}
                for caption, words in zip(group, own, strict=True)
            ],
        }
        if phrases is not None:
            entry["beams"][0]["boxes"] = box_entries(phrases[number], group[0])
        if against is not None:
            other = against[number].on_grid()
            entry["other"] = {**beam_entry(other, None), "wrong": wrong_places(other, name, wrong, references)}
        entries.append(entry)
    content = {
        "sorts": sorts,
        "runs": None if against is None else list(runs),
        "colors": color_table(HEAT if cmap is None else matplotlib.colormaps[cmap]),
        "strength": 100 if cmap is None else 60,
        "marks": wrong is not None or any(entry["references"] for entry in entries),
        "wrong_label": "in no reference" if wrong is None else "known to be wrong",
        "images": entries,
    }
    shown = [group[0] for group in groups[:STATIC]]
    return Explorer(_page(title, content), len(entries), height, (photos[:STATIC], shown))


def _count(images: int) -> str:
    return f"{images} image" + ("" if images == 1 else "s")


def _page(title: str, content: dict[str, Any]) -> str:
    folder = resources.files("attncap.plotting.explorer")
    page, style, script = (
        (folder / f"page.{kind}").read_text(encoding="utf-8").replace("\r\n", "\n") for kind in ("html", "css", "js")
    )
    # Compressed to about half, and in base64, so that nothing in a caption can end the block that holds it.
    compressed = zlib.compress(json.dumps(content, separators=(",", ":"), allow_nan=False).encode("ascii"))
    data = base64.b64encode(compressed).decode("ascii")
    policy = (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    readable = title.encode("utf-8", "replace").decode("utf-8")  # half a surrogate pair cannot be written to a file
    parts = {"policy": policy, "title": html.escape(readable), "style": style, "script": script, "data": data}
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], page)  # once: inserted text stays


def _digest(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii") + "'"
