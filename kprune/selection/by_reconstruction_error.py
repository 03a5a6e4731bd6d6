"""Pruning by reconstruction error: what is cheapest to do without, once the readers are refitted, goes first."""

import numpy as np

from kprune.criteria import Informed
from kprune.criteria.reconstruction_error import total_error
from kprune.graph import Graph
from kprune.selection.bounds import Bounds
from kprune.selection.budget import Budget
from kprune.selection.by_similarity import Round
from kprune.selection.removal import Removal, classes
from kprune.utils.progress import Progress

SHARE_OF_ALL, SHARE_OF_LAYER = 0.02, 0.03  # of the channels left that one round may take


def select_by_reconstruction(
    graph: Graph, criterion: Informed, budget: Budget, bounds: Bounds
) -> tuple[np.ndarray, list[Round]]:
    """Greedy elimination, a few channels a round: least error per FLOP (or parameter) saved goes first.

    Args:
      graph: the traced model.
      criterion: a `ReconstructionError` with its data.
      budget, bounds: what shall go, and what must not.

    Returns:
      The decision, one boolean per channel set, and one record per round.
    """
    readers, labels = criterion.criterion.quadratics(graph, criterion.data, criterion.verbose), classes(graph)
    progress = Progress(100, "percent", criterion.verbose)
    known = [reader.costs() for reader in readers]
    removal, rounds = Removal(budget, bounds, budget.cost.everything()), []
    while not removal.met() and not removal.stuck:
        scores = budget.per_gain(total_error(len(removal.keep), known), removal.keep)
        free = np.flatnonzero(bounds.open(removal.keep))
        order = free[np.lexsort((free, scores[free]))]
        sizes = np.bincount(labels[removal.keep], minlength=labels.max() + 1)
        went = removal.take(first_of(order, labels, sizes))
        rounds.append(Round(budget.removed(removal.keep), went))
        progress.show(int(100 * min(rounds[-1].removed_share / budget.target, 1.0)))
        for index, reader in enumerate(readers):
            if reader.touched(removal.keep):
                readers[index] = reader.without(removal.keep)
                known[index] = readers[index].costs()
    progress.finish(100)
    return removal.finish(), rounds


def first_of(order: np.ndarray, labels: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The first of an order, few of each class and few of all, for costs hold for one removal at a time."""
    own = labels[order]
    by_class = np.argsort(own, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(own[by_class]) != 0])
    place = np.empty(len(order), dtype=int)
    place[by_class] = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    few = place < np.maximum(1, SHARE_OF_LAYER * sizes[own])
    return order[few][: max(1, int(SHARE_OF_ALL * len(order)))]
