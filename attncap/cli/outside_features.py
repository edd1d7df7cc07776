"""`--features-file`: features computed elsewhere, which commands take in place of an encoder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
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
        FileNotFoundError: the file that a run was trained on is not where it was.
        ValueError: runs of an ensemble that were trained on different files.
    """
    from attncap.training.external import features_file

    if options.features_file:
        return str(options.features_file)
    files = list(dict.fromkeys(features_file(run) for run in options.runs))
    if len(files) > 1:
        raise ValueError(
            f"the runs were trained on different files of features, {' and '.join(map(str, files))}, and the members "
            "of an ensemble read the same ones: name the file with --features-file"
        )
    return files[0]


def caption_with(
    options: argparse.Namespace,
    captioner: Any,
    paths: Sequence[Any],
    image_ids: Sequence[str],
    *,
    draws: bool = False,
    **settings: Any,
) -> tuple[list[Any], Any]:
    """Caption images by the features of `--features-file`, or by the captioner's own encoder.

    The features of an image are those of its image_id, or else of its file name.

    Args:
        options, captioner, paths, image_ids, settings: as in `caption_images`.
        draws: refuse regions without boxes, whose maps cannot be drawn.

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
    names = _names_in(features, image_ids, paths)
    if draws:
        features.check_places([name for name in names if name in features])
    captions, rejects = caption_features(captioner, features, names, decoder=decoder)
    there = [name in features for name in names]
    given = [image_id for image_id, known in zip(image_ids, there, strict=True) if known]
    rejects["image_id"] = [image_id for image_id, known in zip(image_ids, there, strict=True) if not known]
    rejects["path"] = [str(path) for path, known in zip(paths, there, strict=True) if not known]
    return [replace(caption, image_id=image_id) for caption, image_id in zip(captions, given, strict=True)], rejects


def features_of(
    captioner: Any,
    path_of: Mapping[str, str],
    rejects: list[tuple[str, str, str]],
    file: str | None = None,
    *,
    draws: bool = False,
    progress: bool | None = None,
) -> tuple[list[str], Any]:
    """Return the image_ids and the features of images; what has none goes to `rejects`.

    Args:
        captioner: its encoder is used where there is no `file`.
        path_of: image_id -> the image file.
        rejects: (image_id, path, reason) of each image that is unreadable, or not in `file`, is appended to it.
        file: features computed elsewhere, by image_id or else by file name; None: computed by the encoder.
        draws: refuse regions without boxes, whose maps cannot be drawn.
        progress: show a bar of the encoder; None: in a terminal.

    Returns:
        image_ids: of the N images that have features.
        features: `Regions` of shape (N, rows, cols, D), with boxes where the file has some.
    """
    import numpy as np

    from attncap.decoding.predict import check_shape, encoded_images
    from attncap.features.external import ExternalFeatures
    from attncap.features.regions import Regions

    ids, paths = list(path_of), list(path_of.values())
    if file is None:
        progress = sys.stderr.isatty() if progress is None else progress
        encoded = list(encoded_images(captioner, paths, ids, rejects, progress=progress))
        features = np.concatenate([features for _, features in encoded]) if encoded else np.empty(0)
        return [image_id for kept, _ in encoded for image_id in kept], Regions(features)
    external = ExternalFeatures.read(file)
    check_shape(captioner, external)
    name_of = dict(zip(ids, _names_in(external, ids, paths), strict=True))
    reason_of = dict(external.extract(list(name_of.values())).itertuples(index=False, name=None))
    rejects += [(i, path_of[i], reason_of[name]) for i, name in name_of.items() if name in reason_of]
    given = {image_id: name for image_id, name in name_of.items() if name not in reason_of}
    names = list(given.values())
    if draws:
        external.check_places(names)
    return list(given), Regions(external.get(names), boxes=external.boxes(names)) if names else Regions(np.empty(0))


def _names_in(features: Any, image_ids: Sequence[str], paths: Sequence[Any]) -> list[str]:
    """Return the name of each image in a file of features: its image_id, or else its file name."""
    pairs = zip(image_ids, paths, strict=True)
    return [image_id if image_id in features else Path(path).name for image_id, path in pairs]
