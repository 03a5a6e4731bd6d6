"""Criteria: what says which filters go. One file each; users add theirs with `kprune.register_criterion`."""

from kprune.criteria.base import Criterion, get_criterion, register_criterion
from kprune.criteria.geometric_median import GeometricMedian
from kprune.criteria.norms import L1, L2
from kprune.criteria.random import Random
from kprune.criteria.similarity import Similarity

__all__ = ["L1", "L2", "Criterion", "GeometricMedian", "Random", "Similarity", "get_criterion", "register_criterion"]
