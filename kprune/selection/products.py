"""Inner products of the slices of a kernel, brought up to date as channels go instead of being computed again."""

import numpy as np

from kprune.criteria.base import slice_matrix
from kprune.graph import SlicedWeight


def rows_by_set(matrix: np.ndarray, sets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joins the rows of slices that go together (grouped convs, flattened maps) into one vector per channel set."""
    order = np.argsort(sets, kind="stable")
    unique, counts = np.unique(sets, return_counts=True)
    if len(unique) == len(sets):
        return matrix[order], unique
    if (counts == counts[0]).all():
        return matrix[order].reshape(len(unique), -1), unique
    first = np.r_[0, np.cumsum(counts)[:-1]]
    return np.add.reduceat(matrix[order], first, axis=0) / counts[:, None], unique


class Products:
    """The inner products of each kernel's kept slices, over the channels still kept.

    When channels go, their share is taken off, so that all rounds together cost about two matrix products per
    kernel. In float32, as the weights are, for they are most of the memory that planning takes. For weights that do
    not change meanwhile.
    """

    def __init__(self):
        self._known: dict[tuple, tuple] = {}

    def of(self, weight: SlicedWeight, axis: int, keep: np.ndarray, judged: np.ndarray, scale=None):
        """The products of one kernel.

        Args:
          weight: the kernel.
          axis: the axis whose slices are compared.
          keep: the decision, one boolean per channel set; from call to call it only loses.
          judged: bool per position of the axis, which slices take part.
          scale: factor per position of the axis, or None.

        Returns:
          float32 `[N, N]`, not to be changed, and the channel sets int `[N]`.
        """
        key = (weight.path, weight.name, axis)
        if key not in self._known:
            rows, sets = self.rows(weight, axis, keep, keep, judged, scale)
            products = rows @ rows.T
        else:
            products, sets, before = self._known[key]
            stay = keep[sets]
            if not stay.all():
                products, sets = np.compress(stay, np.compress(stay, products, axis=0), axis=1), sets[stay]
            gone = before & ~keep
            others = [own for index, own in enumerate(weight.axes) if own is not None and index != axis]
            if any(gone[own].any() for own in others):
                rows, _ = self.rows(weight, axis, keep, gone, judged, scale)
                products -= rows @ rows.T
        self._known[key] = products, sets, keep.copy()
        return products, sets

    def rows(self, weight: SlicedWeight, axis: int, keep: np.ndarray, others: np.ndarray, judged, scale):
        """One row per channel set, over the chosen part of the other axes."""
        own = weight.axes[axis]
        kept = keep[own]
        matrix = slice_matrix(weight, axis, keep, others, np.float32)
        if scale is not None:
            matrix = matrix * scale[kept][:, None].astype(np.float32)
        return rows_by_set(matrix[judged[kept]], own[kept & judged])
