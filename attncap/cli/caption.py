"""`attncap caption`: print the captions of images, and draw where the model looked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attncap.cli import options as cli
from attncap.cli.outputs import heatmap_files
from attncap.cli.outside_features import add_features_file, caption_with, features_file_of, features_of


def add_commands(commands: Any) -> None:
    """Declare `caption`."""
    parser = cli.add_command(commands, "caption", _caption)
    cli.add_run(parser)
    add_features_file(parser)
    cli.add_images(parser)
    help_text = "figure to write: the map of every word over the image; of several images NAME_image.png"
    cli.add_output(parser, "PNG", help_text, option="--heatmap")
    cli.add_decoding(parser)
    cli.add_consensus(parser)


def _caption(options: argparse.Namespace) -> None:
    """Print the captions of images, and draw where the model looked.

    Example:
        attncap caption --run runs/demo/run me.jpg --heatmap me_heatmap.png
    """
    import pandas as pd

    from attncap.paths import find_images

    captioner = cli.captioner_of(options)
    if options.heatmap and not captioner.has_attention:
        holds = f"holds a {type(captioner).__name__}" if len(options.runs) == 1 else "are an ensemble"
        raise ValueError(
            f"{', '.join(options.runs)}: {holds}, which has no attention maps to draw: "
            "leave --heatmap out, or take a run of --model attention"
        )
    images, rejects = find_images(options.images)
    paths, image_ids = images["path"].tolist(), images["image_id"].tolist()
    captions, unreadable = caption_with(
        options, captioner, paths, image_ids, draws=bool(options.heatmap), progress=False
    )
    path_of = dict(zip(image_ids, paths, strict=True))
    for caption in captions:
        print(f"{path_of[caption.image_id]}: {caption.sentence}" if len(path_of) > 1 else caption.sentence)
    if options.heatmap:
        file_of = dict(zip(image_ids, heatmap_files(Path(options.heatmap), image_ids), strict=True))
        for caption in captions:
            _save_heatmap(path_of[caption.image_id], caption, file_of[caption.image_id])
            print(f"heatmap: {file_of[caption.image_id]}", file=sys.stderr)
        if len(options.runs) > 1:
            _save_member_heatmaps(captioner, captions, path_of, file_of, features_file_of(options))
    unread = pd.concat([rejects, unreadable])
    if len(unread):
        raise ValueError("; ".join(unread["path"] + ": " + unread["reason"]))


def _save_heatmap(path: str, caption: Any, file: Path) -> None:
    from attncap.plotting.attention import plot_attention
    from attncap.plotting.style import save_figure

    save_figure(plot_attention(path, caption), file)


def _save_member_heatmaps(
    ensemble: Any,
    captions: Sequence[Any],
    path_of: Mapping[str, str],
    file_of: Mapping[str, Path],
    features_file: str | None,
) -> None:
    """Draw the maps of each member with attention beside those of their mean: NAME_run1.png, NAME_run2.png and so on.

    Args:
        ensemble: an `Ensemble`.
        captions: its captions of images.
        path_of, file_of: image_id -> the image, and the figure of the mean.
        features_file: that they were computed from; None: by the encoder.
    """
    from attncap.decoding.replay import MemberReplay

    read_by_members = MemberReplay(ensemble)
    for start in range(0, len(captions), 32):
        part = captions[start : start + 32]
        paths = {caption.image_id: path_of[caption.image_id] for caption in part}
        features = features_of(ensemble, paths, [], features_file, progress=False)[1].features
        read = read_by_members(features, part)
        for number, (name, own) in enumerate(zip(ensemble.names, read, strict=True), start=1):
            for caption in own:
                if caption.attention_weights is not None:
                    image_id = str(caption.image_id)
                    file = file_of[image_id]
                    file = file.with_name(f"{file.stem}_run{number}{file.suffix}")
                    _save_heatmap(path_of[image_id], caption, file)
                    print(f"heatmap of {name}: {file}", file=sys.stderr)
