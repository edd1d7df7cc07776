"""Several runs at once: `attncap average`, and where each member of an ensemble looked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attncap.cli.options import add_command, save_heatmap


def add_commands(commands: Any) -> None:
    """Declare `average`."""
    parser = add_command(
        commands,
        "average",
        _average,
        "average the weights of runs that share an origin into one captioner",
        "attncap average --run runs/a --run runs/b --out average.keras",
    )
    parser.add_argument(
        "--run",
        required=True,
        action="append",
        dest="runs",
        metavar="DIR",
        help="run folder or .keras file, twice or more: runs --from one run, that run, or runs of one seed",
    )
    parser.add_argument("--out", required=True, metavar="KERAS", help=".keras file to write, for every --run")


def _average(options: argparse.Namespace) -> None:
    if not options.out.endswith(".keras"):
        raise ValueError(f"{options.out}: a captioner is saved to a file that ends in .keras")
    from attncap._files import replacing
    from attncap.models.averaging import average_weights
    from attncap.models.captioner import save_captioner

    captioner = average_weights(options.runs)
    with replacing(options.out) as temporary:
        save_captioner(captioner, temporary)
    print(f"the average of {len(options.runs)} runs is {options.out}")


def save_member_heatmaps(ensemble: Any, captions: Sequence[Any], out: Path, several: bool) -> None:
    """Draw the maps of each member with attention beside those of their mean: NAME_run1.png, NAME_run2.png and so on.

    Args:
        ensemble: an `Ensemble`.
        captions: its captions of picture files; their image_ids are the paths.
        out: file of the mean's figure.
        several: whether there are several pictures, each in a file of its name.
    """
    from attncap.decoding.predict import encoded_pictures

    paths = [caption.image_id for caption in captions]
    start = 0
    for kept, features in encoded_pictures(ensemble, paths, paths, [], progress=False):
        read = ensemble.member_captions(features, captions[start : start + len(kept)])
        start += len(kept)
        for number, (name, own) in enumerate(zip(ensemble.names, read, strict=True), start=1):
            for caption in own:
                if caption.attention_weights is not None:
                    file = save_heatmap(caption, out.with_name(f"{out.stem}_run{number}{out.suffix}"), several)
                    print(f"heatmap of {name}: {file}", file=sys.stderr)
