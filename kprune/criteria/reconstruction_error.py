"""Reconstruction error: what the readers lose once their other weights are refitted."""

import numpy as np

from kprune.criteria.base import register_criterion
from kprune.criteria.data_criterion import DataCriterion
from kprune.criteria.statistics.linear_layers import images_for
from kprune.criteria.statistics.optimal_brain_surgeon import quadratics
from kprune.graph import Graph
from kprune.graph.batches import first_of


@register_criterion("reconstruction_error")
class ReconstructionError(DataCriterion):
    """The error that the removal of a channel leaves in its readers after the best update of their other weights, as a
    share of the variance of what they are added to; over what it saves of the budget, such as FLOPs.

    `tr(W_g^T [(H^-1)_gg]^-1 W_g)` for the rows `g` of a reader's kernel `W`, with `H` the covariance of what it reads:
    Optimal Brain Surgeon (Hassibi & Stork 1992) for whole channels, as in Optimal Brain Compression (2208.11580) and
    ZipLM (2302.04089). `kprune.prune_model` and `plan_pruning` remove a few channels at a time and refit in between;
    in callbacks the costs are those of the first removal. It needs images, but no labels.

    Example:
      >>> small = kprune.prune_model(model, target_flops=0.5, criterion="reconstruction_error", data=images)
    """

    options = ()
    over_gain = True
    images_only = True
    selects_by = "reconstruction_error"

    def __init__(self):
        super().__init__("global")

    def check(self, graph: Graph, data):
        images_for(graph, first_of(data))

    def quadratics(self, graph: Graph, data, verbose) -> list:
        """What readers, and operations that hear channels without weights, say: from as many images as are used."""
        return quadratics(graph, images_for(graph, data), verbose)

    def scores_from(self, graph: Graph, keep: np.ndarray, data, verbose) -> np.ndarray:
        readers = [q.without(keep) if q.touched(keep) else q for q in self.quadratics(graph, data, verbose)]
        return total_error(len(keep), [reader.costs() for reader in readers])


def total_error(count: int, costs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Per channel set, of which there are `count`, the error that its removal causes in all its readers.

    Args:
      count: number of channel sets.
      costs: per reader, its channel sets and their errors.
    """
    error = np.zeros(count)
    for sets, own in costs:
        error[sets] += own
    return error
