"""Ranking: the channel sets with the lowest scores go until the budget is met."""

import numpy as np

from kprune.criteria import Criterion
from kprune.graph import Graph
from kprune.selection.bounds import Bounds
from kprune.selection.budget import Budget, ChannelCount
from kprune.selection.removal import Removal, classes


def quantiles(scores: np.ndarray, labels: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The place of each score within its class, 0..1, so that every class loses the same share.

    Args:
      scores: one per set.
      labels: the class of each set.
      among: bool, the sets that are ranked; NaN for the others.
    """
    index = np.flatnonzero(among)
    order = index[np.lexsort((index, scores[index], labels[index]))]
    ordered = labels[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(order) else np.zeros(0, dtype=int)
    sizes = np.diff([*starts, len(order)])
    result = np.full(len(scores), np.nan)
    result[order] = (np.arange(len(order)) - np.repeat(starts, sizes) + 0.5) / np.repeat(sizes, sizes)
    return result


def select_by_score(
    graph: Graph, criterion: Criterion, budget: Budget | ChannelCount, bounds: Bounds, keep: np.ndarray | None = None
) -> np.ndarray:
    """The decision of a scoring criterion.

    Args:
      graph: the traced model.
      criterion: gives the scores.
      budget: what shall go in all; it can be reached.
      bounds: the limits.
      keep: the decision that it starts from; None: everything stays.

    Returns:
      bool, one per channel set, True = keep.
    """
    removal = Removal(budget, bounds, budget.cost.everything() if keep is None else keep)
    scores = criterion.scores(graph, removal.begin)
    if criterion.over_gain:
        scores = budget.per_gain(scores, removal.begin)
    if criterion.ranking == "layer":
        scores = quantiles(scores, classes(graph), graph.prunable & removal.begin)
    while not removal.met() and not removal.stuck:
        free = np.flatnonzero(bounds.open(removal.keep))
        removal.take(free[np.lexsort((free, scores[free]))])
    return removal.finish()
