"""Distance from the geometric median (He 2019, FPGM)."""

import numpy as np

from kprune.criteria.base import Criterion, register_criterion
from kprune.criteria.similarity import pairwise_distances


@register_criterion("geometric_median", "fpgm")
class GeometricMedian(Criterion):
    """Sum of the distances to all filters of the layer: the filters in the middle go first.

    Source: He et al. 2019, "Filter Pruning via Geometric Median", Eq. 4, on signed weights: `w` and `-w` are not twins.
    """

    def filter_scores(self, filters: np.ndarray) -> np.ndarray:
        return pairwise_distances(filters).sum(axis=1)
