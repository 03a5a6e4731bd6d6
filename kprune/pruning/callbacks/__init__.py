"""Pruning while training: masks on the user's own compiled model, held by a callback."""

from kprune.pruning.callbacks.batchnorm_penalty import BatchNormPenalty
from kprune.pruning.callbacks.gradual import GradualPruning
from kprune.pruning.callbacks.similarity import SimilarityPruning

__all__ = ["BatchNormPenalty", "GradualPruning", "SimilarityPruning"]
