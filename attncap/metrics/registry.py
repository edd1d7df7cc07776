"""Metrics by name: `@register_metric` adds one, from any file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from attncap._files import check_list
from attncap.plugins import import_modules

if TYPE_CHECKING:
    from attncap.metrics.references import Candidates

STANDARD_METRICS = ("bleu", "rouge_l", "cider")  # what `evaluate` computes when nothing else is asked for
_REGISTRY: dict[str, Callable[..., Metric]] = {}


class Metric(ABC):
    """A metric whose corpus scores follow from sums over images, so that a bootstrap sample needs no new counting.

    Subclass it for a metric like BLEU, whose corpus score is no mean over images. For a mean, decorate a function with
    `register_metric`.

    Attributes:
        labels: name of each score -> what the tables call it. Names are keys of the JSON and columns per image.
    """

    labels: Mapping[str, str] = {}

    @abstractmethod
    def rows(self, candidates: Candidates) -> np.ndarray:
        """Return the numbers of each image that add up: float64 array, shape (N, C)."""

    def scores(self, sums: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Return the scores of sets of images; here the means over the images.

        Args:
            sums: array, shape (..., C): sums of the rows.
            images: array, shape (...): number of images in each sum.

        Returns:
            float64 array, shape (..., K), in the order of `labels`.
        """
        return sums / images[..., None]

    def to_json(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the JSON of the scores holds, from score name -> value."""
        return {name: values[name] for name in self.labels}


class FunctionMetric(Metric):
    """The mean over images of a function of one caption and its references.

    Args:
        name: name of the score.
        function: (caption, references) -> a number; texts as they were given.
        label: what the tables call it; default the name.
    """

    def __init__(self, name: str, function: Callable[[str, list[str]], float], label: str | None = None) -> None:
        self.labels = {name: label or name}
        self._function = function

    def rows(self, candidates: Candidates) -> np.ndarray:
        values = [self._function(*pair) for pair in candidates.texts_and_references()]
        wrong = next((value for value in values if not isinstance(value, Real)), 0.0)
        if not isinstance(wrong, Real):
            raise ValueError(f"metric {next(iter(self.labels))!r}: a number expected of each caption, got {wrong!r}")
        return np.array(values, np.float64).reshape(len(values), 1)


def register_metric(name: str, label: str | None = None) -> Callable[[Any], Any]:
    """Register a metric, so that `evaluate` and `compare` know it by name.

    Args:
        name: of the metric; for a function also of its score.
        label: of a function's score in the tables; default the name.

    Returns:
        A decorator for a subclass of `Metric`, or for a function (caption, references) -> number.

    Raises:
        ValueError: another metric has the name already.

    Example:
        >>> @register_metric("words", label="words per caption")
        ... def words(caption: str, references: list[str]) -> float:
        ...     return len(caption.split())
    """

    def add(metric: Any) -> Any:
        made = metric if isinstance(metric, type) else lambda: FunctionMetric(name, metric, label)
        known = _REGISTRY.get(name)
        if known is not None and getattr(known, "__qualname__", "") != getattr(made, "__qualname__", ""):
            raise ValueError(f"a metric {name!r} is registered already: choose another name")
        _REGISTRY[name] = made
        return metric

    return add


def metric_names() -> list[str]:
    """Return the names of all registered metrics, those of every file of `attncap.metrics` included."""
    import_modules("attncap.metrics")
    return sorted(_REGISTRY)


def make_metrics(
    metrics: Sequence[str | Metric | Callable[[str, list[str]], float]] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Metric]:
    """Make the metrics that a caller asks for.

    Args:
        metrics: names, `Metric` objects, or functions (caption, references) -> number; None for `STANDARD_METRICS`.
        settings: metric name -> arguments of its class.

    Returns:
        The metrics, in order.

    Raises:
        TypeError: one name in place of a list.
        ValueError: an unknown name, or two scores of one name.
    """
    made: list[Metric] = []
    if metrics is not None:
        check_list(metrics, "metrics", "metrics")
    for metric in STANDARD_METRICS if metrics is None else metrics:
        if isinstance(metric, Metric):
            made.append(metric)
        elif callable(metric):
            made.append(FunctionMetric(getattr(metric, "__name__", "score"), metric))
        elif metric in metric_names():
            made.append(_REGISTRY[metric](**(settings or {}).get(metric, {})))
        else:
            raise ValueError(f"metric {metric!r}: expected one of {', '.join(metric_names())}, a Metric or a function")
    names = [name for metric in made for name in metric.labels]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"metrics: two scores are called {twice!r}; give each another name")
    return made
