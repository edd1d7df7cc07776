"""`attncap predict`: captions of a folder of images as COCO results JSON."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from attncap.cli.options import add_command, add_consensus, add_decoding, add_run, captioner_of, decoder_of


def add_commands(commands: Any) -> None:
    """Declare `predict`."""
    parser = add_command(
        commands,
        "predict",
        _predict,
        "caption a folder of pictures into COCO results JSON (image_id is the file name)",
        "attncap predict --run runs/mine --images photographs --out predictions.json --beam-width 5",
    )
    add_run(parser)
    parser.add_argument(
        "--images", required=True, metavar="FOLDER_OR_LIST", help="folder, or text file with a path a line"
    )
    parser.add_argument("--out", required=True, metavar="JSON", help="COCO results JSON to write")
    add_decoding(parser)
    add_consensus(parser)


def _predict(options: argparse.Namespace) -> None:
    from attncap._files import replacing
    from attncap.decoding.predict import caption_pictures, find_pictures
    from attncap.metrics.coco_json import write_predictions

    paths = find_pictures(options.images)
    root = Path(options.images) if Path(options.images).is_dir() else None
    image_ids = [path.relative_to(root).as_posix() if root else path.name for path in paths]
    twice = next((name for name, count in Counter(image_ids).items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"{options.images}: two pictures of the name {twice!r}, the id of a prediction: rename one")
    for name in image_ids:
        if name.encode("utf-8", errors="ignore").decode() != name:
            raise ValueError(
                f"{options.images}: the name {name!r} is not UTF-8 text, so it can be no id: rename the picture"
            )
    captioner = captioner_of(options)
    captions, rejects = caption_pictures(captioner, paths, image_ids, decoder=decoder_of(options, captioner))
    write_predictions(options.out, {caption.image_id: caption.text for caption in captions})
    print(f"{len(captions)} captions in {options.out}")
    if len(rejects):
        listed = Path(options.out).with_suffix(".rejects.csv")
        with replacing(listed) as temporary:
            rejects.to_csv(temporary, index=False)
        print(f"{len(rejects)} pictures cannot be read: see {listed}", file=sys.stderr)
