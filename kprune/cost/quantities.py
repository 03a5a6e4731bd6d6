"""What a budget can be a share of: a total, and what each channel set saves."""

import math

import numpy as np

from kprune.graph import Graph


class Quantity:
    """One thing that a model costs, as a function of one boolean per channel set; what a budget is a share of."""

    def total(self, keep: np.ndarray) -> float:
        """What a decision costs."""
        raise NotImplementedError

    def gains(self, keep: np.ndarray) -> np.ndarray:
        """What the removal of each set alone saves, to first order, for all sets at once.

        Args:
          keep: the decision that the removal starts from.
        """
        raise NotImplementedError

    def worthwhile(self, sets: np.ndarray) -> np.ndarray | None:
        """The widths of a layer that are worth having, bool `[filters + 1]`, or None: all.

        Args:
          sets: the channel sets that the layer writes, one entry per filter.
        """
        return None


class Elements:
    """The elements of a traced model's sliced weights that stay under a decision; a call is one pass over a flat array.

    Each sliced weight has the product of the lengths of its axes, and each length is a sum of booleans.
    """

    def __init__(self, graph: Graph):
        axes = [(index, sets) for index, w in enumerate(graph.weights) for sets in w.axes if sets is not None]
        kinds: dict[bytes, int] = {}  # axes along the same channels, as in a conv and the BatchNorm behind it
        self._kind = np.array([kinds.setdefault(sets.tobytes(), len(kinds)) for _, sets in axes], dtype=int)
        first = np.unique(self._kind, return_index=True)[1]
        self._flat = np.concatenate([axes[i][1] for i in first]) if axes else np.zeros(0, dtype=int)
        self._counts = np.array([len(axes[i][1]) for i in first], dtype=int)
        self._starts = np.cumsum([0, *self._counts])[:-1]
        self._owner = np.array([index for index, _ in axes], dtype=int)
        self._fixed = np.array(
            [
                math.prod(size for size, sets in zip(w.shape, w.axes, strict=True) if sets is None)
                for w in graph.weights
            ],
            dtype=float,
        )
        self._sets = len(graph.sets)

    def _lengths(self, keep: np.ndarray) -> np.ndarray:
        """How many positions stay on each sliced axis."""
        if not len(self._starts):
            return np.zeros(0)
        return np.add.reduceat(keep[self._flat], self._starts, dtype=float)[self._kind]

    def count(self, keep: np.ndarray) -> np.ndarray:
        """Per sliced weight, how many elements stay."""
        elements = self._fixed.copy()
        np.multiply.at(elements, self._owner, self._lengths(np.asarray(keep)))
        return elements

    def gains(self, keep: np.ndarray, prices: np.ndarray) -> np.ndarray:
        """Per channel set, the price of the elements that go with it alone, where `prices` is that of one element of
        each weight.
        """
        lengths = self._lengths(np.asarray(keep))
        value = self.count(keep) * prices
        each = np.bincount(self._kind, value[self._owner] / np.maximum(lengths, 1.0), len(self._counts))
        return np.bincount(self._flat, weights=np.repeat(each, self._counts), minlength=self._sets)


class Priced(Quantity):
    """A price per element of each sliced weight, and what all other things cost together.

    Args:
      elements: what stays.
      prices: float `[weights]`.
      rest: what does not depend on the decision.
    """

    def __init__(self, elements: Elements, prices: np.ndarray, rest: float = 0):
        self.elements, self.prices, self.rest = elements, prices, rest

    def total(self, keep: np.ndarray) -> float:
        return float(self.elements.count(keep) @ self.prices) + self.rest

    def gains(self, keep: np.ndarray) -> np.ndarray:
        return self.elements.gains(keep, self.prices)
