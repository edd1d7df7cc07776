"""`--features-file`: features computed elsewhere, which commands take in place of an encoder."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from attncap.cli.options import decoder_of, group


def add_features_file(
    parser: argparse.ArgumentParser, note: str = "default: the file that the run was trained on, if any"
) -> None:
    """Declare `--features-file`, which `features_file_of` reads."""
    help_text = "features computed elsewhere, by image_id: .npy, .npz, .h5 or .safetensors, see docs/extending.md"
    group(parser, "data").add_argument("--features-file", metavar="F", help=f"{help_text} ({note})")


def features_file_of(options: argparse.Namespace) -> str | None:
    """Return the file of features that is given, or that the run was trained on; None: features are computed.

    Raises:
        FileNotFoundError: the file that the run was trained on is not where it was.
    """
    from attncap.training.external import features_file

    return options.features_file or features_file(options.runs[0])


def caption_with(
    options: argparse.Namespace, captioner: Any, paths: Sequence[Any], image_ids: Sequence[str], **settings: Any
) -> tuple[list[Any], Any]:
    """Caption images by the features of `--features-file`, or by the captioner's own encoder.

    The features of an image are those of its image_id, or else of its file name.

    Returns:
        captions, rejects: as `caption_images`.
    """
    from attncap.decoding.predict import caption_features, caption_images
    from attncap.features.external import ExternalFeatures

    file = features_file_of(options)
    decoder = decoder_of(options, captioner)
    if file is None:
        return caption_images(captioner, paths, image_ids, decoder=decoder, **settings)
    features = ExternalFeatures.read(file)
    names = [
        image_id if image_id in features else Path(path).name for image_id, path in zip(image_ids, paths, strict=True)
    ]
    captions, rejects = caption_features(captioner, features, names, decoder=decoder)
    given = [image_id for image_id, name in zip(image_ids, names, strict=True) if name in features]
    return [replace(caption, image_id=image_id) for caption, image_id in zip(captions, given, strict=True)], rejects
