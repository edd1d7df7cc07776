"""`attncap attributes train|predict|report|texts`: the multi-label classifier from the command line."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from attncap.cli import options as cli
from attncap.cli.outputs import report_rejects

ATTRIBUTES_HELP = (
    "attributes:FILE:IMAGES, where FILE is a CSV with a column of file names and columns of 0/1 (or -1/1, true/false, "
    "empty for not known), or CelebA's list_attr text; or faces, faces:4000"
)
SHOWN = 30  # statements in the printed report; --json has all
# Settings of `attributes train` that have an option of their own name; the others are set with --set NAME=VALUE.
OWN_OPTIONS = {
    "weights": "imagenet, faces, random, or a weights file (default imagenet)",
    "backbone": "inception_v3, or another network by name, as in train; layers are then named as in that network "
    "(default inception_v3)",
    "layers": "layers with the sides of their grids, such as mixed5@6,mixed8@4 (default: four layers)",
    "image_size": "side of the network's input (default: of the encoder)",
    "epochs": "most epochs (default 15)",
    "seed": "seed of weights and batches (default 0)",
    "aim": "what thresholds are tuned for: f1, balanced_accuracy, accuracy or precision:P (default f1)",
    "balance": "weighting of rare classes in the loss: none, weights or focal (default none)",
    "fine_tune_blocks": "number of last blocks of the encoder to train too (default 0)",
}


def add_commands(commands: Any) -> None:
    """Declare `attributes` and its commands."""
    family = commands.add_parser(
        "attributes",
        help="classifier of attributes: train, predict, report, texts",
        description="Give a probability for each attribute of an image, such as Eyeglasses or Big_Nose.",
    )
    own = family.add_subparsers(dest="attributes_command", required=True, metavar="COMMAND")
    train = cli.add_command(own, "train", _train)
    _add_table(train)
    data = cli.group(train, "data")
    data.add_argument("--columns", metavar="NAMES", help="attributes to learn, separated by commas (default: all)")
    data.add_argument(
        "--characteristics",
        metavar="CSV",
        help="file of `attncap characteristics mine`: its phrases are the words of `attncap describe` "
        "(default: the names of the columns)",
    )
    _add_shares(train)
    cli.add_features(train)
    cli.add_run_folder(train)
    settings = cli.group(train, "settings")
    for name, what in OWN_OPTIONS.items():
        kind = int if name in ("image_size", "epochs", "seed", "fine_tune_blocks") else str
        settings.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=name[0].upper(), help=what)
    cli.add_set(train, "settings", "AttributeConfig")

    predict = cli.add_command(own, "predict", _predict)
    cli.add_classifier(predict)
    cli.add_folder(predict, "images to classify", required=True)
    cli.add_output(predict, "CSV", "table to write: file name, and one column per attribute", required=True)
    _add_captions(predict)

    report = cli.add_command(own, "report", _report)
    cli.add_classifier(report, "run folder of attributes train")
    _add_table(report)
    data = cli.group(report, "data")
    help_text = "split of the run: test, val or train (default test)"
    data.add_argument("--split", default="test", metavar="S", help=help_text)
    help_text = "tune the thresholds again for this aim, on the run's validation images (default: those of the run)"
    cli.group(report, "model").add_argument("--aim", metavar="A", help=help_text)
    cli.add_features(report)
    cli.add_output(report, "CSV", "also write the probabilities")
    cli.add_json(report)
    _add_captions(report)

    texts = cli.add_command(own, "texts", _texts)
    _add_table(texts)
    _add_shares(texts)
    what = "table to write (file, caption, split); read it with --data table:CSV:IMAGES"
    cli.add_output(texts, "CSV", what, required=True)


def _add_table(parser: argparse.ArgumentParser) -> None:
    cli.add_data(parser, what="images and attributes", forms=ATTRIBUTES_HELP, split=False, seed=None)
    help_text = "seed of the drawn faces, and of the split (default 0)"
    cli.group(parser, "data").add_argument("--split-seed", type=int, default=0, metavar="N", help=help_text)


def _add_shares(parser: argparse.ArgumentParser) -> None:
    for name, what in (("--val", "validation images"), ("--test", "test images")):
        help_text = f"{what}: a share below 1, or a number (default 0.1)"
        cli.group(parser, "data").add_argument(name, type=float, default=0.1, metavar="S", help=help_text)


def _add_captions(parser: argparse.ArgumentParser) -> None:
    what = "also write a caption for each image, from its attributes (COCO results JSON)"
    cli.add_output(parser, "JSON", what, option="--captions")
    help_text = "most attributes per caption (default: all; 5 statements)"
    cli.group(parser, "output").add_argument("--most", type=int, metavar="N", help=help_text)


def _train(options: argparse.Namespace) -> None:
    """Train a classifier of attributes, or of the statements of `attncap characteristics label`.

    Example:
        attncap attributes train --data attributes:list_attr_celeba.txt:images --run runs/attributes
    """
    from attncap.attributes.config import AttributeConfig
    from attncap.attributes.statements import read_phrases
    from attncap.attributes.tables import load_attributes
    from attncap.attributes.training import train_attributes

    settings = cli.settings_from(options, OWN_OPTIONS, AttributeConfig)
    config = AttributeConfig.from_dict(settings)
    if options.resume and settings:
        raise ValueError(f"--resume takes the settings of the run: leave out {', '.join(settings)}")
    phrases = None if options.characteristics is None else read_phrases(options.characteristics)
    columns = None if options.columns is None else [name.strip() for name in options.columns.split(",")]
    data = load_attributes(options.data, seed=options.split_seed, val=options.val, test=options.test, columns=columns)
    print(data.summary())
    classifier, report = train_attributes(
        data, options.run_folder, config, phrases=phrases, features=options.features, resume=options.resume
    )
    _print_report(report, classifier)
    print("measured on the validation images, on which settings and thresholds were chosen; for held-out images:")
    print(f"  attncap attributes report --run {options.run_folder} --data {options.data}")
    print(f"the classifier is {Path(options.run_folder) / 'best.keras'}")


def _predict(options: argparse.Namespace) -> None:
    """Write the probability of every attribute for a folder of images.

    Example:
        attncap attributes predict --run runs/attributes --images photographs --out probabilities.csv
    """
    import pandas as pd

    from attncap._files import write_csv
    from attncap.attributes.classifier import load_classifier
    from attncap.attributes.predict import predict_images
    from attncap.paths import find_images

    images, rejects = find_images(options.images)
    classifier = load_classifier(options.run_folder)
    probs, unreadable = predict_images(classifier, images["path"].tolist(), images["image_id"].tolist())
    write_csv(options.out, probs)
    print(f"{len(probs)} images, {len(classifier.names)} probabilities each, in {options.out}")
    _write_captions(options, classifier, probs)
    rejects = pd.concat([rejects.rename(columns={"image_id": "file"}), unreadable], ignore_index=True)
    report_rejects(options.out, rejects)


def _report(options: argparse.Namespace) -> None:
    """Measure a classifier on held-out images, each attribute compared with the majority class.

    Example:
        attncap attributes report --run runs/attributes --data attributes:list_attr_celeba.txt:images
    """
    from attncap._files import write_csv
    from attncap.attributes.classifier import load_classifier
    from attncap.attributes.evaluate import evaluate_attributes
    from attncap.attributes.tables import load_attributes
    from attncap.data.faces.claims import true_share

    data = load_attributes(options.data, seed=options.split_seed)
    classifier = load_classifier(options.run_folder)
    report, probs, measured = evaluate_attributes(
        options.run_folder, data, options.split, aim=options.aim, features=options.features, classifier=classifier
    )
    content = report.to_json_dict()
    if options.out:
        write_csv(options.out, probs)
    captions = _write_captions(options, classifier, probs)
    if captions and measured.facts is not None:
        share, stated = true_share(captions, measured.facts)
        content["true_characteristics"] = {"share": share, "stated": stated}
    if options.json:
        print(json.dumps(content, indent=2))
        return
    _print_report(report, classifier)
    if "true_characteristics" in content:
        print("true characteristics: {share:.3f} of {stated:,} stated".format(**content["true_characteristics"]))


def _print_report(report: Any, classifier: Any) -> None:
    if classifier.statements is None:
        print(report.to_text())
    else:
        print("how well the classifier predicts what texts state, which is less than what is true:")
        print(report.to_text(most=SHOWN))


def _texts(options: argparse.Namespace) -> None:
    """Turn a table's labels into sentences: captions to train and score captioners on, with the same split.

    Example:
        attncap attributes texts --data attributes:list_attr_celeba.txt:images --out captions.csv
    """
    import numpy as np
    import pandas as pd

    from attncap._files import write_csv
    from attncap.attributes.sentences import to_sentence
    from attncap.attributes.tables import load_attributes

    data = load_attributes(options.data, seed=options.split_seed, val=options.val, test=options.test)
    captions = [to_sentence(data.names, np.nan_to_num(row), np.full(len(row), 0.5)) for row in data.labels]
    table = pd.DataFrame({"file": data.pictures["image_id"], "caption": captions, "split": data.pictures["split"]})
    write_csv(options.out, table)
    print(f"{data.summary()}; {table['caption'].nunique():,} different texts in {options.out}")


def _write_captions(options: argparse.Namespace, classifier: Any, probs: Any) -> dict[str, str]:
    if not options.captions:
        return {}
    from attncap.attributes.predict import attribute_captions
    from attncap.metrics.coco_json import write_predictions

    captions = attribute_captions(classifier, probs, options.most)
    write_predictions(options.captions, captions)
    print(f"{len(captions)} captions in {options.captions}", file=sys.stderr)
    return captions
