"""Heatmaps of each member of an ensemble."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attncap.cli.options import save_heatmap


def save_member_heatmaps(
    ensemble: Any, captions: Sequence[Any], path_of: Mapping[str, str], file_of: Mapping[str, Path]
) -> None:
    """Draw the maps of each member with attention beside those of their mean: NAME_run1.png, NAME_run2.png and so on.

    Args:
        ensemble: an `Ensemble`.
        captions: its captions of images.
        path_of, file_of: image_id -> the image, and the figure of the mean.
    """
    from attncap.decoding.predict import encoded_images
    from attncap.decoding.replay import member_captions

    image_ids = [caption.image_id for caption in captions]
    paths = [path_of[image_id] for image_id in image_ids]
    start = 0
    for kept, features in encoded_images(ensemble, paths, image_ids, [], progress=False):
        read = member_captions(ensemble, features, captions[start : start + len(kept)])
        start += len(kept)
        for number, (name, own) in enumerate(zip(ensemble.names, read, strict=True), start=1):
            for caption in own:
                if caption.attention_weights is not None:
                    image_id = str(caption.image_id)
                    file = file_of[image_id]
                    file = file.with_name(f"{file.stem}_run{number}{file.suffix}")
                    save_heatmap(path_of[image_id], caption, file)
                    print(f"heatmap of {name}: {file}", file=sys.stderr)
