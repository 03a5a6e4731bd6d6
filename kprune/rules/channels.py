"""Channel ids: integers that flow through a graph, are tied by union-find into channel sets, or frozen with a reason.

The ids of a tensor are an integer array of the tensor's rank whose every dimension is either 1 (the id does not
depend on that axis; the batch axis always) or the tensor's own size. The output of a Conv2D with 16 filters has ids
of shape `(1, 1, 1, 16)`, and after `Flatten` of a 4x4 map `(1, 256)`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Barrier(Exception):
    """Raised by a rule that cannot say what its operation does to channels; the message is the reason, in words."""


@dataclass(frozen=True)
class ChannelSets:
    """The resolved union-find.

    Attributes:
      set_of: int array, the set of each id.
      reasons: per set, why it is frozen, or None where it may be removed.
    """

    set_of: np.ndarray
    reasons: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.reasons)


class Channels:
    """Hands out ids and records what ties and freezes them while a graph is traced."""

    def __init__(self):
        self._count = 0
        self._owned: dict[object, np.ndarray] = {}
        self._ties: list[np.ndarray] = []
        self._frozen: list[tuple[np.ndarray, str]] = []

    def fresh(self, count: int, owner: object = None) -> np.ndarray:
        """`count` new ids, or, where `owner` (a layer called before) has some already, the same again."""
        if owner is not None and owner in self._owned:
            return self._owned[owner]
        ids = np.arange(self._count, self._count + count)
        self._count += count
        if owner is not None:
            self._owned[owner] = ids
        return ids

    def tie(self, first: np.ndarray, second: np.ndarray):
        """The channels of two id arrays, broadcast against each other, stay or go together."""
        first, second = np.broadcast_arrays(first, second)
        if first is not second:
            self._ties.append(np.unique(np.stack([first.ravel(), second.ravel()], axis=1), axis=0))

    def freeze(self, ids: np.ndarray, reason: str):
        """These channels always stay, for that reason."""
        self._frozen.append((np.unique(ids), reason))

    def frozen(self, rank: int, reason: str) -> np.ndarray:
        """The ids of a tensor of which nothing can be removed: one frozen id, whatever the position."""
        ids = self.fresh(1)
        self.freeze(ids, reason)
        return ids.reshape((1,) * rank)

    def resolve(self) -> ChannelSets:
        """The channel sets that follow from all ties, numbered by their smallest id, with the first reason of each."""
        pairs = np.concatenate(self._ties) if self._ties else np.zeros((0, 2), dtype=int)
        _, set_of = np.unique(connected_components(self._count, pairs), return_inverse=True)
        reasons: list[str | None] = [None] * (int(set_of.max(initial=-1)) + 1)
        for ids, reason in reversed(self._frozen):
            for index in np.unique(set_of[ids]):
                reasons[index] = reason
        return ChannelSets(set_of, tuple(reasons))


def connected_components(count: int, pairs: np.ndarray) -> np.ndarray:
    """Labels the nodes 0..count-1 of a graph by the smallest node of their component.

    Args:
      count: number of nodes.
      pairs: int array `[n, 2]` of edges.

    Returns:
      int array `[count]`. Each round hooks the two roots of every edge and halves all paths, vectorised.
    """
    label = np.arange(count)
    left, right = pairs[:, 0], pairs[:, 1]
    while True:
        roots = label.copy()
        lowest = np.minimum(label[left], label[right])
        np.minimum.at(roots, label[left], lowest)
        np.minimum.at(roots, label[right], lowest)
        while not np.array_equal(roots, roots[roots]):
            roots = roots[roots]
        if np.array_equal(roots, label):
            return label
        label = roots


def along(ids: np.ndarray, axis: int, size: int) -> np.ndarray:
    """The ids along one axis, as a vector of that length.

    Raises:
      Barrier: the ids depend on other axes too, so that a slice along this axis is not one channel.
    """
    axis %= ids.ndim
    if any(size > 1 for other, size in enumerate(ids.shape) if other != axis):
        raise Barrier("its channels do not lie along the axis that the layer works on")
    return np.broadcast_to(ids.reshape(-1), (size,))


def spread(ids: np.ndarray, rank: int, axis: int) -> np.ndarray:
    """The inverse of `along`: a vector of ids as the ids of a tensor of that rank, along that axis."""
    shape = [1] * rank
    shape[axis] = -1
    return np.reshape(ids, shape)


class Tensor(NamedTuple):
    """A tensor on its way through the graph: its channel ids, its own number, whether a removed channel is zero."""

    ids: np.ndarray
    place: int
    rests: bool = True


def varying_axes(ids: np.ndarray) -> list[int]:
    """The axes on which the ids depend."""
    return [axis for axis, size in enumerate(ids.shape) if size > 1]


def compress(array: np.ndarray) -> np.ndarray:
    """The same array with size 1 along each axis on which it does not depend."""
    for axis in varying_axes(array):
        first = np.take(array, [0], axis=axis)
        if np.array_equal(array, np.broadcast_to(first, array.shape), equal_nan=array.dtype.kind == "f"):
            array = first
    return array
