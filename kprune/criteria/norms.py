"""Criteria from the size of a filter: L1 and L2 (Li 2016, PFEC)."""

import numpy as np

from kprune.criteria.base import Criterion, register_criterion


@register_criterion("l1", "l1_norm")
class L1(Criterion):
    """L1 norm of the filter (Li et al. 2016, "Pruning Filters for Efficient ConvNets")."""

    def filter_scores(self, filters: np.ndarray) -> np.ndarray:
        return np.abs(filters).sum(axis=1)


@register_criterion("l2", "l2_norm", "sfp", "he2018")
class L2(Criterion):
    """L2 norm of the filter."""

    def filter_scores(self, filters: np.ndarray) -> np.ndarray:
        return np.linalg.norm(filters, axis=1)
