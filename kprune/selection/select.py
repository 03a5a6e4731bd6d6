"""One way from a criterion to a decision, whatever the criterion."""

import numpy as np

from kprune.criteria import Criterion, Informed, ReconstructionError, Similarity
from kprune.graph import Graph
from kprune.selection.bounds import Bounds
from kprune.selection.budget import Budget
from kprune.selection.by_reconstruction_error import select_by_reconstruction
from kprune.selection.by_score import select_by_score
from kprune.selection.by_similarity import Round, select_by_similarity


def select(graph: Graph, criterion: Criterion, budget: Budget, bounds: Bounds) -> tuple[np.ndarray, list[Round]]:
    """Chooses what stays, at once, without training in between.

    Args:
      graph: the traced model.
      criterion: with its data, where it looks at data.
      budget, bounds: what shall go, and what must not; the one can be reached within the other.

    Returns:
      The decision, one boolean per channel set, and the record of the rounds; empty where there are none.
    """
    if isinstance(criterion, Similarity):
        return select_by_similarity(graph, criterion, budget, bounds)
    if isinstance(criterion, Informed) and isinstance(criterion.criterion, ReconstructionError):
        return select_by_reconstruction(graph, criterion, budget, bounds)
    return select_by_score(graph, criterion, budget, bounds), []
