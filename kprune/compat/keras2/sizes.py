"""Sizes of tensors as values: what `tf.shape` gives in the graph of a Keras 2 model, and what is computed from it.

Keras 3 knows the sizes of a symbolic tensor as numbers, all but those that the model leaves open, as the batch. Those
are carried along by the tensor and the axis that they are the size of, until an operation takes them.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from keras import KerasTensor, ops

from kprune.utils.errors import ModelError


@dataclass(frozen=True, eq=False)
class Open:
    """A size that the model leaves open, times a number."""

    tensor: KerasTensor
    axis: int
    factor: int = 1

    @property
    def is_batch(self) -> bool:
        return self.axis == 0 and self.factor == 1


@dataclass(frozen=True, eq=False)
class Sizes:
    """A vector of sizes, at least one of them open."""

    entries: tuple

    def __getitem__(self, place):
        return vector(self.entries[place]) if isinstance(place, slice) else self.entries[place]


def vector(entries):
    """Entries as an array of numbers where all are known, else as `Sizes`."""
    known = not any(isinstance(entry, Open) for entry in entries)
    return np.array([int(entry) for entry in entries], dtype="int32") if known else Sizes(tuple(entries))


def entries_of(value) -> list:
    """The entries of a vector in any form, or of a single size."""
    if isinstance(value, Sizes):
        return list(value.entries)
    if isinstance(value, Open):
        return [value]
    if isinstance(value, (list, tuple)):
        return [entry for part in value for entry in entries_of(part)]
    return [entry.item() for entry in np.asarray(value).reshape(-1)]


def is_open(value) -> bool:
    """Whether an open size is anywhere in a value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return any(map(is_open, value))
    return isinstance(value, (Open, Sizes))


def shape_of(tensor, batch: KerasTensor):
    """What `tf.shape` gives; an open batch is that of the tensor `batch`."""
    sources = [batch] + [tensor] * (len(tensor.shape) - 1)
    return vector([Open(sources[axis], axis) if size is None else size for axis, size in enumerate(tensor.shape)])


def _times(x, y):
    one, number = (x, y) if isinstance(x, Open | Sizes) else (y, x)
    return _each(one, lambda size: size * number)


def _over(x, y):
    return _each(x, lambda size: size // y)


def _each(sizes, change):
    """A number of known and open sizes, each changed; of an open one the factor is.

    Raises:
      ValueError: that is no whole number for each size that the open one may be.
    """
    if isinstance(sizes, Sizes):
        return vector([_each(entry, change) for entry in sizes.entries])
    if not isinstance(sizes, Open):
        return int(change(sizes))
    factor = int(change(sizes.factor))
    if int(change(2 * sizes.factor)) != 2 * factor:
        raise ValueError("an open size is divided")
    return replace(sizes, factor=factor)


def _product(input_tensor, axis=None, keepdims=False):
    entries = entries_of(input_tensor)
    (left,) = (entry for entry in entries if isinstance(entry, Open))
    return _times(left, math.prod(entry for entry in entries if not isinstance(entry, Open)))


def _part(x, begin, end, *rest, **options):
    return vector(x.entries[int(begin[0]) : int(end[0])])


# Functions of sizes, with TensorFlow's arguments.
FUNCTIONS = {
    "math.multiply": _times,
    "math.floordiv": _over,
    "compat.v1.floor_div": _over,
    "math.reduce_prod": _product,
    "stack": lambda values, axis=0: vector(entries_of(values)),
    "concat": lambda values, axis: vector(entries_of(values)),
    "expand_dims": lambda input, axis: vector(entries_of(input)),
    "reshape": lambda tensor, shape: vector(entries_of(tensor)),
    "unstack": lambda value, num=None, axis=0: entries_of(value),
    "compat.v1.gather": lambda params, indices, **options: params[int(np.asarray(indices))],
    "gather": lambda params, indices, **options: params[int(np.asarray(indices))],
    "strided_slice": _part,
    "slice": lambda input_, begin, size: vector(input_.entries[begin[0] :][: None if size[0] < 0 else size[0]]),
    "squeeze": lambda input, axis=None: input[0],
    "compat.v1.squeeze": lambda input, axis=None: input[0],
    "cast": lambda x, dtype: x,
    "identity": lambda input: input,
    "convert_to_tensor": lambda value, *rest, **options: value,
}


def known(sizes, layer: str) -> list[int]:
    """Sizes as numbers.

    Raises:
      ModelError: one is open.
    """
    entries = entries_of(sizes)
    for entry in entries:
        if isinstance(entry, Open):
            raise ModelError(
                f"'{layer}' takes the size of axis {entry.axis} of '{entry.tensor.name}', which the model leaves open.",
                "Sizes that the inputs tell; only the size of the batch may be open.",
                "Give the inputs of the Keras 2 model a fixed size before translating.",
            )
    return [int(entry) for entry in entries]


def reshape(tensor, sizes, layer: str):
    """A tensor in a shape that may hold open sizes: the one that is not told by the others is left to Keras."""
    entries = entries_of(sizes)
    places = [place for place, entry in enumerate(entries) if isinstance(entry, Open)]
    if not places:
        return ops.reshape(tensor, [int(entry) for entry in entries])
    if len(places) > 1:  # all but the batch must be told by a number
        known(entries[places[0] + 1 :] if places[0] == 0 else entries, layer)
    rest = [int(entry) for place, entry in enumerate(entries) if place != places[0]]
    first = places[0]
    if -1 in rest and None not in tensor.shape[1:] and entries[first].is_batch:
        size = math.prod(tensor.shape[1:]) // abs(math.prod(rest))
        rest = [size if entry == -1 else entry for entry in rest]
    if -1 in rest:
        known(entries, layer)
    return ops.reshape(tensor, (*rest[:first], -1, *rest[first:]))


def for_each_example(values, sizes, layer: str):
    """Constant values, broadcast to sizes of which the first may be the batch; else an array."""
    entries = entries_of(sizes)
    values = np.asarray(values)
    if not isinstance(entries[0], Open):
        return np.broadcast_to(values, known(entries, layer))
    if not entries[0].is_batch:
        known(entries, layer)
    return per_batch(np.broadcast_to(values, (1, *known(entries[1:], layer))), entries[0].tensor)


def per_batch(values: np.ndarray, batch: KerasTensor):
    """An array `[1, ...]` repeated for each example of a tensor, though their number is open."""
    column = batch[(slice(None),) + (slice(0, 1),) * (len(batch.shape) - 1)]
    zeros = ops.zeros_like(ops.reshape(column, (-1,) + (1,) * (values.ndim - 1)))
    return ops.add(ops.cast(zeros, values.dtype.name), values)


def tile(tensor, multiples, layer: str):
    """A tensor, or constant values, repeated along each axis; constant values also once for each example."""
    entries = entries_of(multiples)
    if not is_open(entries):
        return ops.tile(tensor, known(entries, layer))
    constant = not isinstance(tensor, KerasTensor) and np.shape(tensor)[0] == 1
    if not constant or not entries[0].is_batch:
        known(entries, layer)
    return per_batch(np.tile(tensor, (1, *known(entries[1:], layer))), entries[0].tensor)
