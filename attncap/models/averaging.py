"""`average_weights`: one captioner whose weights are the mean of those of several that share an origin.

It costs no more than one captioner to use, where an ensemble costs as many as it has members. But it is no ensemble: a
network is no linear function of its weights, and the mean of two trained from different first weights says nothing.

What `best.keras` of a run holds is an average already: over the steps of about `ema_epochs` epochs of that one run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from attncap.models.captioner import Captioner
from attncap.models.registry import load_captioner

# Of two captioners' matrices, as vectors. Runs of 10 epochs from the same first weights (one seed): 0.82 to 0.87; a run
# and one that goes on from it: above 0.99; other first weights: about 0.
SAME_ORIGIN = 0.5
# Settings of training alone: captioners that differ in them have one shape all the same.
OF_TRAINING = ("name", "dropout", "scheduled_sampling", "attention_penalty", "attention_supervision")


def average_weights(runs: Sequence[str | Path]) -> Captioner:
    """Return a captioner whose every weight is the mean of the runs' weights.

    Args:
        runs: run folders or `.keras` files: of one kind, shape, vocabulary and encoder, trained from the same first
            weights: runs with `--from` the same run, that run itself, or runs of one seed.

    Returns:
        captioner: the first run's settings and encoder, the mean weights (computed in double precision).

    Raises:
        ValueError: fewer than two runs; runs that differ in kind, settings, vocabulary, encoder or the shape of a
            weight; runs whose weights point different ways, so that they do not share an origin.
        FileNotFoundError: no such run.

    Example:
        >>> save_captioner(average_weights(["runs/a", "runs/b"]), "average.keras")

    Reference: Wortsman et al. 2022, "Model soups"; of the epochs of one run, Izmailov et al. 2018.
    """
    if len(runs) < 2:
        raise ValueError(f"an average needs two runs or more, got {len(runs)}")
    average = load_captioner(runs[0])
    expected = _described(average)
    own = _weights(average)
    sums = {path: np.asarray(keras.ops.convert_to_numpy(weight), np.float64) for path, weight in own.items()}
    first = {path: values.copy() for path, values in sums.items()}
    for run in runs[1:]:
        captioner = load_captioner(run)
        _check_same(expected, _described(captioner), str(runs[0]), str(run))
        found = {path: keras.ops.convert_to_numpy(weight) for path, weight in _weights(captioner).items()}
        shapes = [{path: values.shape for path, values in weights.items()} for weights in (first, found)]
        _check_same(shapes[0], shapes[1], str(runs[0]), str(run))
        _check_origin(first, found, str(runs[0]), str(run))
        for path, values in found.items():
            sums[path] += values
    for path, weight in own.items():
        weight.assign(sums[path] / len(runs))
    return average


def _weights(captioner: Captioner) -> dict[str, Any]:
    # Not the encoder's, which are the same in all, nor the states of random generators. A layer's place in the model
    # tells its weights: names of models count up in a process.
    encoder = set() if captioner.encoder is None else {id(weight) for weight in captioner.encoder.weights}
    own = [weight for weight in captioner.weights if id(weight) not in encoder and "float" in str(weight.dtype)]
    return {f"{number} {weight.path.partition('/')[2]}": weight for number, weight in enumerate(own)}


def _described(captioner: Captioner) -> dict[str, Any]:
    config = {name: value for name, value in captioner.get_config().items() if name not in OF_TRAINING}
    vocabulary = captioner.tokenizer.get_vocabulary()
    encoder = None if captioner.encoder is None else captioner.encoder.fingerprint()
    # As JSON, so that tuples and lists are one.
    config = json.loads(json.dumps({**config, "tokenizer": type(captioner.tokenizer).__name__, "encoder": encoder}))
    words = {f"word {number}": word for number, word in enumerate(vocabulary)}
    return {"kind": type(captioner).__name__, "vocabulary": f"{len(vocabulary):,} words", **words, **config}


def _check_same(expected: dict[str, Any], found: dict[str, Any], name: str, other: str) -> None:
    for key in [*expected, *(key for key in found if key not in expected)]:
        if expected.get(key) != found.get(key):
            raise ValueError(
                f"{other}: cannot be averaged with {name}: {key} is {found.get(key)} in place of {expected.get(key)}; "
                "only runs of one shape, vocabulary and encoder can (any captioners of one vocabulary make an ensemble)"
            )


def _check_origin(first: dict[str, np.ndarray], found: dict[str, np.ndarray], name: str, other: str) -> None:
    matrices = [path for path, values in first.items() if values.ndim > 1]
    a, b = (np.concatenate([np.ravel(weights[path]) for path in matrices]) for weights in (first, found))
    cosine = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    if not cosine >= SAME_ORIGIN:
        raise ValueError(
            f"{other}: its weights do not go the way of those of {name} (cosine {cosine:.2f}, {SAME_ORIGIN} expected): "
            "the two were not trained from the same first weights, and their average would say nothing; decode them as "
            "an ensemble, or train one --from the other"
        )
