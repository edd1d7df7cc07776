"""The command line. Thin: it parses, calls and prints; `attncap --help` lists the commands."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path

from attncap import __version__
from attncap.cli.attributes import add_commands as add_attributes
from attncap.cli.characteristics import add_commands as add_characteristics
from attncap.cli.ensemble import add_commands as add_ensemble
from attncap.cli.ensemble import save_member_heatmaps
from attncap.cli.explore import add_commands as add_explore
from attncap.cli.features import add_commands as add_features
from attncap.cli.index import add_commands as add_index
from attncap.cli.options import (
    BOXES_HELP,
    SPEC_HELP,
    add_command,
    add_consensus,
    add_decoding,
    add_run,
    captioner_of,
    decoder_of,
    decoding,
    save_heatmap,
)
from attncap.cli.train import add_commands as add_train


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status: 0, 2 after an error that the user can mend, 130 when interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a caption that the terminal cannot show is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    parsed = _parser().parse_args(arguments)
    try:
        parsed.run(parsed)
    except (ValueError, OSError, RuntimeError, FloatingPointError) as error:
        print(f"attncap {parsed.command}: {_one_line(error)}", file=sys.stderr)
        return 2
    except MemoryError:
        print(f"attncap {parsed.command}: not enough memory", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nattncap {parsed.command}: interrupted", file=sys.stderr)
        return 130
    return 0


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split()) or type(error).__name__


# ---------------------------------------------------------------- the commands


def _demo(options: argparse.Namespace) -> None:
    from attncap.reports.demo import demo

    demo(options.out, seed=options.seed, pictures=options.pictures)


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


def _caption(options: argparse.Namespace) -> None:
    from attncap.decoding.predict import caption_pictures

    captioner = captioner_of(options)
    if options.heatmap and not captioner.has_attention:
        holds = f"holds a {type(captioner).__name__}" if len(options.runs) == 1 else "are an ensemble"
        raise ValueError(
            f"{', '.join(options.runs)}: {holds}, which has no attention maps to draw: "
            "leave --heatmap out, or take a run of --model attention"
        )
    pictures = options.picture
    decoder = decoder_of(options, captioner)
    captions, rejects = caption_pictures(captioner, pictures, pictures, progress=False, decoder=decoder)
    for caption in captions:
        print(f"{caption.image_id}: {caption.text}" if len(pictures) > 1 else caption.text)
        if options.heatmap:
            print(f"heatmap: {save_heatmap(caption, Path(options.heatmap), len(pictures) > 1)}", file=sys.stderr)
    if options.heatmap and len(options.runs) > 1:
        save_member_heatmaps(captioner, captions, Path(options.heatmap), len(pictures) > 1)
    if len(rejects):
        raise ValueError("; ".join(f"{row.path}: {row.reason}" for row in rejects.itertuples()))


def _evaluate(options: argparse.Namespace) -> None:
    from attncap.metrics.evaluate import check_ids, compare, evaluate, read_predictions

    predictions = read_predictions(options.predictions)
    references, training = _references(options.references, options.split, options.seed)
    check_ids(predictions, references, options.predictions, options.references)
    against = None if options.against is None else read_predictions(options.against)
    scores = evaluate(
        predictions,
        references,
        brevity=options.brevity,
        seed=options.seed,
        train_captions=training,
        meteor=options.meteor,
    )
    difference = None if against is None else compare(predictions, against, references, seed=options.seed)
    if options.json:
        content = scores.to_json_dict()
        if difference is not None:
            content["against"] = difference.to_json_dict()
        print(json.dumps(content, indent=2))
        return
    print(scores.table())
    if difference is not None:
        print(difference.table())


def _references(where: str, split: str | None, seed: int) -> tuple[dict[str, list[str]], list[str] | None]:
    from attncap.data.load import load
    from attncap.metrics.evaluate import read_references

    if Path(where).is_file():
        return read_references(where), None
    data = load(where, seed=seed)
    training = list(data.split("train").captions["caption"])
    return data.references(split), training or None


def _ground(options: argparse.Namespace) -> None:
    from attncap.data.load import load
    from attncap.reports.grounding import ground

    report = ground(
        captioner_of(options),
        load(options.data, seed=options.seed),
        options.boxes,
        split=options.split,
        generated=options.generated,
        shifts=options.shift,
        features=options.features,
        limit=options.limit,
        probes=options.probes,
        seed=options.seed,
        **decoding(options),
    )
    for count, why in ((report.n_left_out, "have no boxes"), (report.n_unreadable, "cannot be read")):
        if count:
            print(f"{count} pictures {why} and are left out", file=sys.stderr)
    if options.plot:
        from attncap.grounding.plots import plot_grounding

        figure = plot_grounding(report.grounding).get_figure(root=True)
        assert figure is not None
        figure.savefig(options.plot)
    print(json.dumps(report.to_json_dict(), indent=2) if options.json else report.to_text())


def _check(options: argparse.Namespace) -> None:
    from attncap.data.load import check, check_summary, load

    clean, report = check(load(options.data, seed=options.seed))
    print(check_summary(clean, report))
    if options.out:
        clean.write_rejects(options.out)
        print(f"rejects are listed in {options.out}")


# ---------------------------------------------------------------- the parser


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="attncap", description="Captions for pictures, with a map of where the model looked for every word."
    )
    parser.add_argument("--version", action="version", version=f"attncap {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = add_command(
        commands, "demo", _demo, "draw faces, train on them, score, draw heatmaps", "attncap demo --out runs/demo"
    )
    demo.add_argument("--out", default="runs/demo", metavar="DIR", help="folder to write to (default runs/demo)")
    demo.add_argument("--seed", type=int, default=0, help="of faces and training (default 0)")
    demo.add_argument(
        "--pictures", type=int, default=None, metavar="N", help="faces to draw (default: see attncap.reports.demo)"
    )

    add_train(commands)
    predict = add_command(
        commands,
        "predict",
        _predict,
        "caption a folder of pictures into COCO results JSON (image_id is the file name)",
        "attncap predict --run runs/mine --images photographs --out predictions.json --beam-width 5",
    )
    add_run(predict)
    predict.add_argument(
        "--images", required=True, metavar="FOLDER_OR_LIST", help="folder, or text file with a path a line"
    )
    predict.add_argument("--out", required=True, metavar="JSON", help="COCO results JSON to write")
    add_decoding(predict)
    add_consensus(predict)

    caption = add_command(
        commands,
        "caption",
        _caption,
        "print the caption of pictures, and draw where the model looked",
        "attncap caption --run runs/demo/run me.jpg --heatmap me_heatmap.png",
    )
    add_run(caption)
    caption.add_argument("picture", nargs="+", metavar="PICTURE")
    caption.add_argument("--heatmap", metavar="PNG", help="figure to write: the map of every word over the picture")
    add_decoding(caption)
    add_consensus(caption)

    evaluate = add_command(
        commands,
        "evaluate",
        _evaluate,
        "score predictions against references",
        "attncap evaluate --predictions predictions.json --references flickr8k:flickr8k --split dev",
    )
    evaluate.add_argument("--predictions", required=True, metavar="JSON", help="COCO results JSON")
    evaluate.add_argument("--references", required=True, metavar="REFS", help=f"COCO captions JSON, or {SPEC_HELP}")
    evaluate.add_argument("--split", metavar="S", help="train, val (or dev) or test of a SPEC (default: all)")
    evaluate.add_argument("--against", metavar="JSON", help="a second system's results, for a paired test")
    evaluate.add_argument("--brevity", choices=("closest", "shortest", "none"), default="closest", help="BLEU's policy")
    evaluate.add_argument("--meteor", action="store_true", help="also METEOR (needs pycocoevalcap and Java)")
    evaluate.add_argument("--seed", type=int, default=0, help="of splits and resampling (default 0)")
    evaluate.add_argument("--json", action="store_true", help="print JSON instead of a table")

    ground = add_command(
        commands,
        "ground",
        _ground,
        "measure whether the captioner looks at what the words name, against boxes",
        "attncap ground --run runs/mine --data flickr8k:flickr8k --split dev --boxes entities:flickr30k_entities.zip",
    )
    add_run(ground)
    ground.add_argument("--data", required=True, metavar="SPEC", help=SPEC_HELP)
    ground.add_argument("--split", metavar="S", help="train, val (or dev) or test (default: all)")
    ground.add_argument("--boxes", required=True, metavar="BOXES", help=BOXES_HELP)
    ground.add_argument(
        "--generated", action="store_true", help="the captioner's own captions (default: human captions fed in)"
    )
    ground.add_argument(
        "--shift",
        type=int,
        nargs="+",
        default=[-1, 0, 1],
        metavar="N",
        help="read a word's map at its own step (0), the one before (-1) or after (1) (default: -1 0 1)",
    )
    ground.add_argument("--probes", action="store_true", help="also force attention uniform, and blank what is seen")
    ground.add_argument("--limit", type=int, metavar="N", help="the first N pictures only")
    ground.add_argument("--features", metavar="DIR", help="folder of feature stores, as in train (default: cache)")
    ground.add_argument("--plot", metavar="PNG", help="figure to write: where the captioner looks, by type")
    ground.add_argument("--seed", type=int, default=0, help="of splits and resampling (default 0)")
    ground.add_argument("--json", action="store_true", help="print JSON instead of tables")
    add_decoding(ground)

    check = add_command(
        commands,
        "check",
        _check,
        "decode every picture and list what is wrong",
        "attncap check --data flickr8k:flickr8k",
    )
    check.add_argument("--data", required=True, metavar="SPEC", help=SPEC_HELP)
    check.add_argument("--out", metavar="CSV", help="list the rejects here")
    check.add_argument("--seed", type=int, default=0, help="of splits (default 0)")
    add_attributes(commands)
    add_characteristics(commands)
    add_ensemble(commands)
    add_explore(commands)
    add_features(commands)
    add_index(commands)
    return parser
