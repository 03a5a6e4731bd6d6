"""Pruning while training: masks on the user's own compiled model, held by a callback."""

from kprune.callbacks.gradual import GradualPruning
from kprune.callbacks.penalty import BatchNormPenalty
from kprune.callbacks.similarity import SimilarityPruning

__all__ = ["BatchNormPenalty", "GradualPruning", "SimilarityPruning"]
