"""Inner products of the slices of a kernel, brought up to date as channels go instead of being computed again."""

from dataclasses import dataclass, field

import numpy as np

from kprune.criteria.base import require_finite_weight
from kprune.criteria.statistics.pairwise import cross_terms, less
from kprune.graph import SlicedWeight


def rows_by_set(matrix: np.ndarray, sets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joins the rows of slices that go together (grouped convs, flattened maps) into one vector per channel set."""
    if (np.diff(sets) > 0).all():
        return matrix, sets
    order = np.argsort(sets, kind="stable")
    unique, counts = np.unique(sets, return_counts=True)
    if len(unique) == len(sets):
        return matrix[order], unique
    if (counts == counts[0]).all():
        return matrix[order].reshape(len(unique), -1), unique
    first = np.r_[0, np.cumsum(counts)[:-1]]
    return np.add.reduceat(matrix[order], first, axis=0) / counts[:, None], unique


@dataclass(frozen=True)
class Slices:
    """What is compared in one kernel.

    Attributes:
      weight: the kernel.
      axis: the axis whose slices are compared.
      judged: bool per position of the axis, which slices take part.
      scale: factor per position of the axis, or None.
    """

    weight: SlicedWeight
    axis: int
    judged: np.ndarray = field(repr=False)
    scale: np.ndarray | None = field(repr=False, default=None)

    def value(self) -> np.ndarray:
        """The kernel.

        Raises:
          ModelError: it holds NaN or infinity.
        """
        value = self.weight.value()
        require_finite_weight(self.weight, value)
        return value

    def others(self) -> list[tuple[int, np.ndarray]]:
        """The other axes that lie along channels, with their sets."""
        axes = enumerate(self.weight.axes)
        return [(index, sets) for index, sets in axes if sets is not None and index != self.axis]

    def lose(self, gone: np.ndarray) -> bool:
        """Whether some of what the slices hold has gone."""
        return any(gone[sets].any() for _, sets in self.others())

    def columns(self, value: np.ndarray, keep: np.ndarray, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One column per channel set that is kept, over a part of the other channels, and these sets.

        Args:
          value: of the kernel.
          keep, part: one boolean per channel set, for the axis and for the others.
        """
        for index, sets in self.others():
            mask = part[sets]
            value = value if mask.all() else np.compress(mask, value, axis=index)
        matrix = np.moveaxis(value, self.axis, -1).reshape(-1, value.shape[self.axis]).astype(np.float32, copy=False)
        own = self.weight.axes[self.axis]
        stay = keep[own] & self.judged
        if self.scale is not None:
            matrix = matrix * self.scale.astype(np.float32)
        if not stay.all():
            matrix = np.take(matrix, np.flatnonzero(stay), axis=1, mode="clip")
        rows, sets = rows_by_set(matrix.T, own[stay])
        return rows.T, sets


class Products:
    """The inner products (see `cross_terms`) of a kernel's kept slices, over the channels still kept.

    When channels go, their share is taken off, so that all rounds together cost about two matrix products per
    kernel. In float32, as the weights are, and each pair once, for they are most of the memory that planning takes.

    Args:
      slices: what is compared; its weights do not change meanwhile.
      keep: the decision, one boolean per channel set.

    Attributes:
      terms: the products.
      sets: int `[N]`, the channel sets of the slices.
    """

    def __init__(self, slices: Slices, keep: np.ndarray):
        columns, self.sets = slices.columns(slices.value(), keep, keep)
        self.slices, self.terms, self.keep = slices, cross_terms(columns), keep.copy()

    def update(self, keep: np.ndarray):
        """Follows a decision that keeps less than before."""
        gone, stay = self.keep & ~keep, keep[self.sets]
        if not stay.all():
            self.terms, self.sets = self.terms.select(stay), self.sets[stay]
        if self.slices.lose(gone):
            columns, _ = self.slices.columns(self.slices.weight.value(), keep, gone)
            self.terms = less(self.terms, columns)
        self.keep = keep.copy()

    def norms(self) -> np.ndarray:
        """The Euclidean norm of each slice, float32 `[N]`."""
        return np.sqrt(np.maximum(self.terms.diagonal() / 2, 0.0))
