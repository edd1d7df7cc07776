"""Heatmaps of each member of an ensemble."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attncap.cli.options import save_heatmap


def save_member_heatmaps(ensemble: Any, captions: Sequence[Any], out: Path, several: bool) -> None:
    """Draw the maps of each member with attention beside those of their mean: NAME_run1.png, NAME_run2.png and so on.

    Args:
        ensemble: an `Ensemble`.
        captions: its captions of picture files; their image_ids are the paths.
        out: file of the mean's figure.
        several: whether there are several pictures, each in a file of its name.
    """
    from attncap.decoding.predict import encoded_pictures
    from attncap.decoding.replay import member_captions

    paths = [caption.image_id for caption in captions]
    start = 0
    for kept, features in encoded_pictures(ensemble, paths, paths, [], progress=False):
        read = member_captions(ensemble, features, captions[start : start + len(kept)])
        start += len(kept)
        for number, (name, own) in enumerate(zip(ensemble.names, read, strict=True), start=1):
            for caption in own:
                if caption.attention_weights is not None:
                    file = save_heatmap(caption, out.with_name(f"{out.stem}_run{number}{out.suffix}"), several)
                    print(f"heatmap of {name}: {file}", file=sys.stderr)
