"""Criteria: what says which filters go. One file each; users add theirs with `kprune.register_criterion`."""

from kprune.criteria.base import Criterion, get_criterion, register_criterion
from kprune.criteria.batchnorm import BatchNormScale, ChannelActiveProbability
from kprune.criteria.data_criterion import DataCriterion, Informed, inform
from kprune.criteria.geometric_median import GeometricMedian
from kprune.criteria.hrank import HRank
from kprune.criteria.norms import L1, L2
from kprune.criteria.random import Random
from kprune.criteria.reconstruction_error import ReconstructionError
from kprune.criteria.relevance import FeatureRelevance
from kprune.criteria.similarity import Similarity
from kprune.criteria.sparsity import ActivationDensity, APoZ
from kprune.criteria.statistics.backward_passes import Gradients, Relevance
from kprune.criteria.statistics.collect import Measure, collect
from kprune.criteria.taylor import Taylor
from kprune.criteria.trace_ratio import TraceRatio

__all__ = [
    "L1",
    "L2",
    "APoZ",
    "ActivationDensity",
    "BatchNormScale",
    "ChannelActiveProbability",
    "Criterion",
    "DataCriterion",
    "FeatureRelevance",
    "GeometricMedian",
    "Gradients",
    "HRank",
    "Informed",
    "Measure",
    "Random",
    "ReconstructionError",
    "Relevance",
    "Similarity",
    "Taylor",
    "TraceRatio",
    "collect",
    "get_criterion",
    "inform",
    "register_criterion",
]
