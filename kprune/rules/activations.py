"""Functions that treat each number by itself, found out by trying them."""

import functools
from collections.abc import Callable

import keras
import numpy as np

from kprune.compat.variables import to_numpy


def apply_elementwise(function: Callable, values: np.ndarray) -> np.ndarray:
    """An elementwise function on constants, NaN for NaN."""
    result = np.array(to_numpy(function(keras.ops.convert_to_tensor(values, dtype="float32"))), dtype=float)
    result[np.isnan(values)] = np.nan
    return result


def maps_zero_to_zero(function: Callable) -> bool:
    """Whether an elementwise function leaves a channel of zeros as it is."""
    return bool(apply_elementwise(function, np.zeros(1))[0] == 0)


@functools.cache
def is_elementwise(function: Callable) -> bool:
    """Whether an activation treats each channel by itself; found by changing one channel of a probe. A layer with
    weights, which are made for its own channels, does not.
    """
    if isinstance(function, keras.layers.Layer):
        function = type(function).from_config(function.get_config())  # the probe would build it for other sizes
    probe = np.linspace(-2.0, 2.0, 48, dtype="float32").reshape(1, 2, 3, 8)
    changed = probe.copy()
    changed[..., 3] += 0.37
    first, second = (to_numpy(function(keras.ops.convert_to_tensor(x))) for x in (probe, changed))
    alike = first.shape == probe.shape and not getattr(function, "weights", None)
    return alike and np.array_equal(np.delete(first, 3, -1), np.delete(second, 3, -1))
