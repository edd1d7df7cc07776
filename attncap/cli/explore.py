"""`attncap explore`: a page of images and captions on which every word shows where the model looked."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from attncap.cli import options as cli
from attncap.cli.outside_features import add_features_file, features_file_of, features_of


def add_commands(commands: Any) -> None:
    """Declare `explore`."""
    parser = cli.add_command(commands, "explore", _explore)
    cli.add_run(parser)
    data = cli.group(parser, "data")
    cli.add_folder(data, "images to show (default: those of --data)")
    cli.add_data(parser, required=False, what="data set with the references, by image_id")
    cli.add_boxes(parser, "with --data, boxes to draw where a word names one")
    add_features_file(parser)
    help_text = "CSV (first column: image_id) or CelebA's text: mark words that it contradicts (default: words that "
    help_text += "are false of a drawn face, else words in no reference)"
    data.add_argument("--facts", metavar="TABLE", help=help_text)
    data.add_argument("--limit", type=int, default=200, metavar="N", help="show the first N images (default 200)")
    cli.group(parser, "model").add_argument(
        "--against", metavar="DIR", help="another run, shown beside, with the differences marked"
    )
    cli.add_output(parser, "HTML", "page to write", required=True)
    output = cli.group(parser, "output")
    output.add_argument("--top", type=int, default=5, metavar="N", help="alternatives shown for a word (default 5)")
    output.add_argument("--title", default="Where the captioner looked", metavar="TEXT", help="heading of the page")
    cli.add_decoding(parser)


def _explore(options: argparse.Namespace) -> None:
    """Write one HTML page to explore captions: each word shows its map over the image.

    Example:
        attncap explore --run runs/mine --images photographs --out explore.html --beam-width 5
    """
    from attncap.attributes.sentences import contradicted_words
    from attncap.decoding.alternatives import explore_features
    from attncap.grounding.annotations import load_phrases, phrases_in
    from attncap.metrics.characteristics import Facts
    from attncap.models.saving import load_captioner
    from attncap.paths import find_images
    from attncap.training.external import features_file

    if options.images is None and options.data is None:
        raise ValueError("--images or --data is needed: which images to show")
    if options.split is not None and options.data is None:
        raise ValueError("--split needs --data: it names a part of that data set")
    if options.limit < 1 or options.top < 1:
        raise ValueError(f"--limit and --top need at least 1, got {options.limit} and {options.top}")
    if options.boxes is not None and options.data is None:
        raise ValueError("--boxes needs --data: the boxes are those of its images")
    references: Any = None
    named: Any = None
    against: Any = None
    facts: dict[Any, Any] = {}
    rejects: list[tuple[str, str, str]] = []
    if options.data is not None:
        data = cli.data_of(options)
        if options.boxes is not None:
            boxed, known = load_phrases(options.boxes, data)
            named = partial(phrases_in, data=boxed, phrases=known)
        references = data.references()
        if data.attributes is not None:
            facts = {row["image_id"]: row for row in data.attributes.to_dict("records")}
    if options.images is not None:
        images, unnamed = find_images(options.images)
        rejects += unnamed.itertuples(index=False, name=None)
    else:
        images = data.pictures
    if options.facts is not None:
        facts = Facts.read(options.facts).table.to_dict("index")
        if not facts.keys() & set(images["image_id"]):
            raise ValueError(f"{options.facts}: no row for any image that is shown: first column image_id expected")
    if references is not None:
        _say_what_is_missing(images["image_id"].tolist(), references, options.data)
    shown = images.head(options.limit)
    path_of = dict(zip(shown["image_id"], shown["path"], strict=True))
    captioner = cli.captioner_of(options)
    image_ids, features = features_of(captioner, path_of, rejects, features_file_of(options))
    for _, path, reason in rejects:
        print(f"left out: {path}: {reason}", file=sys.stderr)
    if captioner.has_attention and captioner.encoder is None and captioner.map_shape[0] == 1 and features.boxes is None:
        print("the features are regions without boxes: no maps are shown, see docs/extending.md", file=sys.stderr)
    if not image_ids:
        raise ValueError(f"{options.images or options.data}: none of its {len(shown)} images can be shown")
    if options.against is not None:
        other = load_captioner(options.against)
        file, own = features_file(options.against), {name: path_of[name] for name in image_ids}
        lacking: list[tuple[str, str, str]] = []
        against = (other, features_of(other, own, lacking, file)[1])
        if lacking:
            raise ValueError(f"--against {options.against}: {lacking[0][1]}: {lacking[0][2]}")
    explorer = explore_features(
        captioner,
        features,
        image_ids,
        path_of,
        references,
        top=options.top,
        title=options.title,
        against=against,
        runs=(Path(options.runs[0]).name, Path(options.against or "").name),
        phrases=named,
        wrong=(lambda caption: contradicted_words(caption, facts.get(caption.image_id, {}))) if facts else None,
        **cli.decoding(options),
    )
    out = explorer.save(options.out)
    print(f"{explorer.n_images} images in {out}, {out.stat().st_size / 1e6:.1f} MB: open it in a browser")
    if len(images) > len(shown):
        print(f"{len(images) - len(shown)} more images are left out: see --limit", file=sys.stderr)


def _say_what_is_missing(image_ids: list[str], references: dict[str, list[str]], spec: str) -> None:
    known = sum(image_id in references for image_id in image_ids)
    if not known:
        raise ValueError(
            f"{spec}: references for none of the {len(image_ids)} images, such as {image_ids[0]!r} (its own are such "
            f"as {next(iter(references), '')!r}): give the folder that the data's file names are relative to, or "
            "leave --images out"
        )
    if known < len(image_ids):
        print(f"{len(image_ids) - known} images have no references in {spec}: no scores to sort by", file=sys.stderr)
