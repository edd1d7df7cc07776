"""`attncap explain`: draw why each word was said, by several methods side by side."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from attncap.cli.options import add_command, add_decoding, add_run, captioner_of, decoding

METHODS = ("occlusion", "gradient", "attention")


def add_commands(commands: Any) -> None:
    """Declare `explain`."""
    parser = add_command(
        commands,
        "explain",
        _explain,
        "draw which parts of an image made each word probable, by several methods side by side",
        "attncap explain --run runs/demo/run me.jpg --out why.png --method occlusion --method attention",
    )
    add_run(parser)
    parser.add_argument("picture", nargs="+", metavar="IMAGE")
    parser.add_argument("--out", required=True, metavar="PNG", help="figure to write; of several images, one each")
    parser.add_argument(
        "--method",
        action="append",
        choices=METHODS,
        dest="methods",
        help="occlusion (hide parts of the image), gradient (integrated gradients) or attention; may be given several "
        "times (default: occlusion, and attention where the captioner has it)",
    )
    parser.add_argument("--caption", metavar="TEXT", help="explain this caption (default: the captioner's own)")
    parser.add_argument(
        "--faithfulness",
        action="store_true",
        help="also print how much the words lose when the parts that the maps point at are hidden",
    )
    parser.add_argument("--mode", default="heat", choices=("heat", "reveal", "contour"), help="default heat")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    add_decoding(parser)


def _explain(options: argparse.Namespace) -> None:
    import numpy as np

    from attncap.decoding.decoder import Decoder
    from attncap.decoding.predict import encoded_pictures
    from attncap.explain.faithfulness import measure_maps
    from attncap.explain.plots import plot_explanations
    from attncap.explain.words import check_method, explain_captions

    captioner = captioner_of(options)
    methods = options.methods or [*METHODS[:1], *(METHODS[2:] if captioner.has_attention else ())]
    for method in methods:
        check_method(captioner, method)
    rejects: list[tuple[str, str, str]] = []
    encoded = list(encoded_pictures(captioner, options.picture, options.picture, rejects, progress=False))
    if encoded:
        paths = [path for kept, _ in encoded for path in kept]
        features = np.concatenate([features for _, features in encoded])
        if options.caption is None:
            captions = Decoder(captioner, batch_size=32, **decoding(options))(features, paths)
        else:
            captions = [options.caption] * len(paths)
        explained = {
            method: explain_captions(captioner, features, captions, method) for method in dict.fromkeys(methods)
        }
        for number, path in enumerate(paths):
            own = {method: found[number] for method, found in explained.items()}
            text = next(iter(own.values())).text
            if not options.json:
                print(f"{path}: {text}" if len(paths) > 1 else text)
            if not text:
                print(f"{path}: the caption is empty: nothing to explain", file=sys.stderr)
                continue
            out = Path(options.out)
            file = out.with_name(f"{out.stem}_{Path(path).stem}{out.suffix}") if len(options.picture) > 1 else out
            plot_explanations(path, own, mode=options.mode).savefig(file)
            print(f"figure: {file}", file=sys.stderr)
        if options.faithfulness:
            measured = measure_maps(captioner, features, explained)
            print(json.dumps(measured.to_json_dict(), indent=2) if options.json else measured.to_text())
    if rejects:
        raise ValueError("; ".join(f"{path}: {reason}" for _, path, reason in rejects))
