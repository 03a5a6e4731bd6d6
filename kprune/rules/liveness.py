"""Which positions of an operation's inputs matter, from those of its outputs that do: what ids and weights show."""

from collections.abc import Callable

import numpy as np

from kprune.compat.functional import is_layer
from kprune.compat.variables import read as read_value
from kprune.compat.variables import variables_by_name


def live_by_ids(rule, call, live: list[np.ndarray], values: list[np.ndarray]) -> list[np.ndarray]:
    """`Rule.live_inputs` for a rule that says nothing more of it."""
    anything = any(array.any() for array in live)
    if rule.sums_over_channels(call) or not anything:
        return [anything & ~always_zero(value, ids) for value, ids in zip(values, call.ids_in, strict=True)]
    passing = np.concatenate([ids.reshape(-1) for ids in call.ids_out])
    alive = np.concatenate([ids[on] for ids, on in zip(call.ids_out, live, strict=True)])
    read, audible = read_by_weights(rule, call, passing, alive)
    found = []
    for index, (ids, value) in enumerate(zip(call.ids_in, values, strict=True)):
        own = np.isin(ids, audible) & ~always_zero(value, ids)
        known = np.isin(ids, read)
        if index == 0:
            own |= np.isin(ids, alive)
            known |= np.isin(ids, passing)
        found.append(own | ~known)
    return found


def read_by_weights(rule, call, passing: np.ndarray, alive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ids that weights are summed over, and those among them whose weights to what matters are not all zero.

    Args:
      rule, call: the operation.
      passing: the ids of its outputs.
      alive: those of them that matter.
    """
    read, audible = [np.zeros(0, int)], [np.zeros(0, int)]
    variables = variables_by_name(call.operation) if is_layer(call.operation) else {}
    for weight in rule.sliced_weights(call):
        ids = None if weight.reads is None else weight.axes[weight.reads]
        if ids is None:
            continue
        value, made = read_value(variables[weight.name]), weight.writes
        filters = None if made is None else weight.axes[made]
        if filters is not None and np.isin(filters, passing).all():
            value = np.compress(np.isin(filters, alive), value, axis=made)
        used = np.any(value != 0, axis=tuple(axis for axis in range(value.ndim) if axis != weight.reads))
        read.append(ids)
        audible.append(ids[used])
    return np.concatenate(read), np.concatenate(audible)


def always_zero(value: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Where a tensor is zero whatever the input, in the shape of its ids.

    Args:
      value: its constants, see `Rule.constant_channels`.
      ids: its ids.
    """
    return fold(value == 0, ids.shape, np.all)


def fold(array: np.ndarray, shape: tuple, over: Callable = np.any) -> np.ndarray:
    """A boolean array as one of another shape of its rank: where that has size 1, `over` all that lie along the axis;
    elsewhere broadcast.
    """
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1 and array.shape[axis] > 1)
    return np.broadcast_to(over(array, axis=axes, keepdims=True) if axes else array, shape)
