"""`compiled`: compile a decoding function with the backend in use."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops


def filled(rows: np.ndarray, size: int) -> np.ndarray:
    """Pad the last batch with rows of zeros, so that all batches have one shape and one compiled graph."""
    full = np.zeros((size, *rows.shape[1:]), rows.dtype)
    full[: len(rows)] = rows
    return full


def to_numpy(tensors: Iterable[Any]) -> list[Any]:
    """Return tensors as NumPy arrays; None stays."""
    return [None if tensor is None else ops.convert_to_numpy(tensor) for tensor in tensors]


def compiled_for_each_shape(function: Callable[..., Any], model: Any = None) -> Callable[..., Any]:
    """Return the function, compiled anew for each shape of its arguments, see `compiled`.

    For functions that use Keras's scan: on a second shape TensorFlow would leave the length open, which scan refuses.
    """
    of_shapes: dict[tuple[tuple[int, ...], ...], Callable[..., Any]] = {}

    def run(*arguments: Any) -> Any:
        shapes = tuple(map(np.shape, arguments))
        if shapes not in of_shapes:
            of_shapes[shapes] = compiled(function, model)
        return of_shapes[shapes](*arguments)

    return run


def compiled(function: Callable[..., Any], model: Any = None, sampler: Any = None) -> Callable[..., Any]:
    """Return the function compiled by the backend in use.

    JAX freezes the variables that a function reads at the values of the first call. Those of model (which may be
    trained further; anything but a Keras model has none) and of sampler (the seed) are therefore passed as arguments,
    and the next seed is returned.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        # A partial, because TensorFlow counts retraces by code and would warn as if one function were traced again and
        # again.
        return tf.function(partial(function), reduce_retracing=True)
    if backend == "jax":
        import jax

        seeds = [] if sampler is None else list(sampler.variables)
        variables = seeds + (list(model.variables) if isinstance(model, keras.Model) else [])

        @jax.jit
        def pure(values: list[Any], *arguments: Any) -> tuple[Any, list[Any]]:
            with keras.StatelessScope(list(zip(variables, values, strict=True))) as scope:
                outputs = function(*arguments)
            return outputs, [scope.get_current_value(seed) for seed in seeds]

        def with_values_of_now(*arguments: Any) -> Any:
            outputs, next_seeds = pure([variable.value for variable in variables], *arguments)
            for seed, value in zip(seeds, next_seeds, strict=True):
                seed.assign(value)
            return outputs

        return with_values_of_now
    return function
