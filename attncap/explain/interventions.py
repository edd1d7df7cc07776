"""Sanity checks of maps that change the model: permuted attention, uniform attention, and randomized weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
from keras import ops
from scipy.stats import spearmanr

from attncap.captions import Caption
from attncap.decoding.replay import CompiledReplay, replay_each
from attncap.explain.methods import METHODS, Method
from attncap.explain.reading import as_caption, padded
from attncap.explain.words import Explainer
from attncap.grounding.probes import uniform_attention
from attncap.metrics.significance import bootstrap, interval, with_intervals
from attncap.models.captioner import CaptionerState, regions_there, restored
from attncap.models.ensemble import Ensemble
from attncap.tokenizers import END, PAD

# ------------------------------------------------------------------ attention


def with_permuted_keys(state: CaptionerState, order: Any) -> CaptionerState:
    """Permute the attention weights over the regions, at every step and in every head.

    The keys of the regions are permuted; the values are not. The value of region l thus gets the weight that belongs
    to region order[l]: sum_l alpha_order(l) v_l. Padding keeps its place: the regions of an image that has fewer than
    L take one another's weights in the order in which they stand in `order`.

    Args:
        state: from `init_state` of a captioner whose memory contains the keys of the regions.
        order: int, shape (L,), a permutation of the regions.

    Returns:
        state: a new state; the given one is not changed.

    Raises:
        ValueError: the memory contains no keys.
    """
    memory, found = {}, False
    for name, tensor in state.memory.items():
        member, _, kind = name.rpartition("/")  # an ensemble puts the number of the member before the name
        there = state.memory.get(f"{member}/mask" if member else "mask")
        if kind == "keys":  # (B, L, A)
            tensor, found = _in_order(tensor, order, there), True
        elif kind.startswith("picture_"):  # keys and values of a layer of the Transformer: (B, 2, L, N, H / N)
            tensor, found = ops.stack([_in_order(tensor[:, 0], order, there), tensor[:, 1]], axis=1), True
        memory[name] = tensor
    if not found:
        raise ValueError(
            f"the memory of this captioner holds no keys, only {', '.join(state.memory) or 'nothing'}: its attention "
            "cannot be permuted"
        )
    return CaptionerState(memory, state.recurrent)


def _in_order(keys: Any, order: Any, there: Any) -> Any:
    """Return keys (B, L, ...) in the order (L,); where `there` (B, L) is False, they stay in their places."""
    if there is None:
        return ops.take(keys, order, axis=1)
    length = keys.shape[1]
    place = ops.argsort(ops.convert_to_tensor(order))  # (L,): where each region stands in `order`
    taken = ops.argsort(ops.where(there, place[None], length + ops.arange(length)))  # (B, L): regions, then padding
    free = ops.argsort(ops.argsort(ops.where(there, 0, length) + ops.arange(length)))  # (B, L): rank of each place
    taken = ops.take_along_axis(taken, free, axis=1)
    return ops.take_along_axis(keys, ops.reshape(taken, (-1, length, *[1] * (len(keys.shape) - 2))), axis=1)


def measure_interventions(
    captioner: Any,
    features: np.ndarray,
    captions: Sequence[Caption | str],
    *,
    permutations: int = 5,
    batch_size: int = 32,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure how the predictions change when attention is permuted over the regions, or made uniform.

    The total variation distance compares the distributions over the next token, p before and p' after the change:

        TVD = 1/2 sum_v |p(v) - p'(v)|

    If the distributions do not change, the predictions do not depend on attention, and attention maps do not explain
    them. At each position the tokens before it are those of the caption.

    Args:
        captioner: a captioner or an ensemble with attention.
        features: shape (N, rows, cols, D).
        captions: N captions.
        permutations: number of random permutations. They are the same for all images; their effects are averaged.
        batch_size: captions per pass.
        n_bootstrap: number of bootstrap resamples of the images.
        seed: seed of the permutations and the resamples.

    Returns:
        table: DataFrame with the rows "permuted" and "uniform". `tvd` is the mean distance. `change` is the mean change
            of the log-probability of the caption's token, in nats; it is negative if the token becomes less probable.
            `flipped` is a share of the tokens that were the most probable before the change: those that no longer are.
            Each has `_low` and `_high` (95% bootstrap interval over images). `n_words` is the number of tokens.

    Raises:
        ValueError: the captioner has no attention, or its attention cannot be permuted.

    Reference: permuted: Jain and Wallace 2019, "Attention is not Explanation", section 4.2; uniform: Wiegreffe and
        Pinter 2019, "Attention is not not Explanation", section 3.2, there with training.
    """
    if not captioner.has_attention:
        raise ValueError(f"{type(captioner).__name__} has no attention to permute: take an attention captioner")
    rng = np.random.default_rng(seed)
    token_ids = padded([as_caption(captioner, caption).token_ids for caption in captions])
    regions = int(np.prod(captioner.map_shape))
    plain = _distributions(captioner, features, token_ids, batch_size, None)
    permuted = np.zeros((3, *token_ids.shape))
    for _ in range(permutations):
        order = rng.permutation(regions)
        changed = _distributions(captioner, features, token_ids, batch_size, order)
        permuted += _effects(plain, changed, token_ids) / permutations
    with uniform_attention(captioner):
        changed = _distributions(captioner, features, token_ids, batch_size, None)
    effects = {"permuted": permuted, "uniform": _effects(plain, changed, token_ids)}
    inside = (token_ids != PAD) & (token_ids != END)
    taken = (plain.argmax(axis=-1) == token_ids) & inside
    rows = {}
    for name, (tvd, change, flipped) in effects.items():
        sums = [(tvd * inside).sum(axis=1), (change * inside).sum(axis=1), inside.sum(axis=1)]
        columns = np.stack([*sums, (flipped * taken).sum(axis=1), taken.sum(axis=1)], axis=1)  # (N, 5)
        measured = with_intervals(("tvd", "change", "flipped"), columns, _means, n_bootstrap, seed)
        rows[name] = {**measured, "n_words": int(inside.sum())}
    return pd.DataFrame(rows).T


def _means(sums: np.ndarray) -> np.ndarray:
    words, taken = np.maximum(sums[:, 2:3], 1), np.maximum(sums[:, 4:5], 1)
    return np.concatenate([sums[:, :2] / words, sums[:, 3:4] / taken], axis=1)  # (S, 3)


def _effects(plain: np.ndarray, changed: np.ndarray, token_ids: np.ndarray) -> np.ndarray:
    """Compute TVD, change of the log-probability, and whether the most probable token changes: shape (3, N, T)."""
    chosen = token_ids[..., None]
    before, after = (np.take_along_axis(probs, chosen, axis=-1)[..., 0] for probs in (plain, changed))
    change = np.log(np.maximum(after, 1e-30)) - np.log(np.maximum(before, 1e-30))
    flipped = plain.argmax(axis=-1) != changed.argmax(axis=-1)
    return np.stack([0.5 * np.abs(plain - changed).sum(axis=-1), change, flipped])


def _distributions(
    captioner: Any, features: np.ndarray, token_ids: np.ndarray, batch_size: int, order: np.ndarray | None
) -> np.ndarray:
    """Compute the distribution over the vocabulary at each position: float32, shape (N, T, V).

    With `order`, attention is permuted, see `with_permuted_keys`.
    """

    def read(step: Any, state: CaptionerState, token_ids: Any) -> list[Any]:
        state = state if order is None else with_permuted_keys(state, ops.convert_to_tensor(order))
        return replay_each(step, state, token_ids, lambda logits, *_: [ops.softmax(logits, axis=-1)])

    [probs] = CompiledReplay(captioner, read, batch_size)(np.asarray(features), token_ids[:, None])
    return probs[:, 0]


# ------------------------------------------------------------------ weights


def layers_from_the_output(captioner: Any) -> list[Any]:
    """Return the layers that have weights, from the output to the input: the logits first, word embeddings last."""
    layers = [layer for layer in captioner.layers if layer.weights and layer is not captioner.encoder]
    place = {"logits": 0, "values": 2, "value_norm": 2, "embedding": 3}  # values come directly after the image features
    return sorted(reversed(layers), key=lambda layer: place.get(layer.name, 1))


@contextmanager
def randomized(layers: Sequence[Any], seed: int = 0) -> Iterator[None]:
    """Context manager that shuffles the weights of layers, and restores them at the end, also after an error.

    The values inside each weight array are shuffled. The array keeps the distribution of its values, but nothing that
    was learned.

    Args:
        layers: layers whose weights are shuffled.
        seed: seed of the shuffles.
    """
    rng = np.random.default_rng(seed)
    variables = [variable for layer in layers for variable in layer.weights if "seed" not in variable.path]
    with restored(variables):
        for variable in variables:
            values = np.array(ops.convert_to_numpy(variable))
            variable.assign(rng.permutation(values.reshape(-1)).reshape(values.shape))
        yield


def measure_randomization(
    captioner: Any,
    features: np.ndarray,
    captions: Sequence[Caption | str],
    methods: Sequence[Method] = METHODS,
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
    **settings: Any,
) -> pd.DataFrame:
    """Measure whether maps depend on the learned weights: randomize the layers one after the other, and compare maps.

    The layers are randomized from the output to the input, and stay randomized. After each layer, the maps of the same
    words are computed again. Spearman's rank correlation over the cells, without padding, compares them with the maps
    of the trained captioner. If the maps of a method do not change, they show the image and not what the model learned.
    Attention does not depend on the layers after it (logits, readout), because the words are given: for them the
    correlation stays 1.

    Args:
        captioner: a captioner; not an ensemble.
        features: shape (N, rows, cols, D).
        captions: N captions.
        methods: methods of `Explainer`.
        n_bootstrap: number of bootstrap resamples of the images.
        seed: seed of the shuffles and the resamples.
        settings: further arguments of `Explainer`, such as `window` and `steps`.

    Returns:
        table: DataFrame with one row per method and number of layers. `layers` is the number of randomized layers, and
            `layer` the name of the last one ("none" in the first rows). `correlation` is the mean correlation, with
            its 95% bootstrap interval over images, `low` to `high`.

    Raises:
        ValueError: the captioner is an ensemble.

    Reference: Adebayo et al. 2018, "Sanity Checks for Saliency Maps", section 3 (cascading randomization). They draw
        new random weights; here the weights are shuffled.
    """
    if isinstance(captioner, Ensemble):
        raise ValueError("an ensemble has no order of layers: randomize its members one by one")
    layers = layers_from_the_output(captioner)
    explainers = {method: Explainer(captioner, method, **settings) for method in methods}

    def maps(method: Method) -> list[np.ndarray]:
        return [np.asarray(caption.attention_weights) for caption in explainers[method](features, captions)]

    before = {method: maps(method) for method in methods}
    # The maps of encoder blocks trained with the captioner have another grid than the features, and no padding.
    cells = [regions_there(captioner, image) if getattr(captioner, "masked", False) else None for image in features]
    rows = []
    for count in range(len(layers) + 1):
        with randomized(layers[:count], seed):
            for method in methods:
                after = maps(method) if count else before[method]
                correlation, low, high = _similarity(before[method], after, cells, n_bootstrap, seed)
                name = layers[count - 1].name if count else "none"
                rows.append((method, count, name, correlation, low, high))
    return pd.DataFrame(rows, columns=["method", "layers", "layer", "correlation", "low", "high"])


def _similarity(
    before: Sequence[np.ndarray],
    after: Sequence[np.ndarray],
    cells: Sequence[np.ndarray | None],
    n_bootstrap: int,
    seed: int,
) -> tuple[float, float, float]:
    """Compute the mean rank correlation of the maps of all words, and its bootstrap interval over images.

    Only `cells`, bool (rows, cols), count, None: all of them. On padding all maps are equal: it would raise the
    correlation.
    """
    sums = []
    for old, new, there in zip(before, after, cells, strict=True):
        pairs = zip(old, new, strict=True) if there is None else zip(old[:, there], new[:, there], strict=True)
        sums.append([sum(spearman(*pair) for pair in pairs), len(old)])
    columns = np.array(sums, float)  # (N, 2)

    def mean(sums: np.ndarray) -> np.ndarray:
        return sums[:, :1] / np.maximum(sums[:, 1:], 1)

    low, high = interval(bootstrap(columns, mean, n_bootstrap, seed))[0]
    return float(mean(columns.sum(axis=0)[None])[0, 0]), float(low), float(high)


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Compute Spearman's rank correlation of two maps.

    It is not defined for a uniform map: return 1 if both maps are uniform, and 0 if only one is.
    """
    even = [np.ptp(values) == 0 for values in (first, second)]
    if any(even):
        return float(all(even))
    return float(spearmanr(first, second, axis=None).statistic)
