"""A removal on its way: channel sets go one after the other until the budget is met, within the bounds."""

import numpy as np

from kprune.graph import Graph
from kprune.selection.bounds import Bounds
from kprune.selection.budget import Budget, ChannelCount

TOLERANCE = 0.01


def classes(graph: Graph) -> np.ndarray:
    """Labels channel sets by the layers that write them: sets of one class are interchangeable in shape."""
    label = np.zeros(len(graph.sets), dtype=np.uint64)
    for index, weight in enumerate(graph.writers):
        sets = np.unique(weight.axes[weight.writes])
        label[sets] = label[sets] * np.uint64(1099511628211) + np.uint64(index + 1)
    return np.unique(label, return_inverse=True)[1]


class Removal:
    """Takes channel sets out, in the order that it is given, and stops as soon as the budget is met.

    Where widths are rounded, `keep` may stand between two of them while sets go; `decision` is what that comes to
    once each layer has got back what is missing to the next one, and it is this that has to meet the budget.

    Args:
      budget: what shall go in all.
      bounds: what must not.
      begin: the decision that it starts from.

    Attributes:
      keep: bool, one per channel set, what is left before rounding.
      gone: int, the sets that went, in order.
      stuck: whether nothing that it was last given could go.
    """

    def __init__(self, budget: Budget | ChannelCount, bounds: Bounds, begin: np.ndarray):
        self.budget, self.bounds, self.begin = budget, bounds, begin
        self.keep, self.gone, self.stuck = begin.copy(), np.zeros(0, dtype=int), False

    def decision(self) -> np.ndarray:
        """What stays."""
        return self.bounds.rounded(self.begin, self.gone)

    def met(self) -> bool:
        """Whether the decision meets the budget."""
        return self.budget.met(self.decision())

    def take(self, order: np.ndarray) -> int:
        """Removes sets in order, up to the budget; cost falls with each, so the place is bisected.

        Returns:
          How many went.
        """
        order = self.bounds.admit(self.keep, order)
        low, high = 0, len(order)
        if self.enough(order):
            while low < high:
                middle = (low + high) // 2
                low, high = (low, middle) if self.enough(order[:middle]) else (middle + 1, high)
        self.keep[order[:high]] = False
        self.gone = np.concatenate([self.gone, order[:high]])
        self.stuck = not high
        return high

    def enough(self, order: np.ndarray) -> bool:
        """Whether the budget is met once these are gone too."""
        return self.budget.met(self.bounds.rounded(self.begin, np.concatenate([self.gone, order])))

    def finish(self) -> np.ndarray:
        """The decision within `TOLERANCE` above the target, or as close above it as the sets and widths allow.

        Gives back what was removed beyond the target: last removed first, whatever still leaves the target met. Where
        the order that was taken led into a corner from which the target cannot be met, though it can be, what is
        dearest goes instead.
        """
        if not self.met():
            self.gone = self.bounds.dearest_first(self.begin, self.budget.gains(self.begin))
        keep = self.decision()
        if not self.budget.met(keep):
            return keep
        labels, dear = classes(self.budget.cost.graph), set()
        for candidate in self.gone[::-1]:
            if self.budget.removed(keep) <= self.budget.target + TOLERANCE:
                break
            if keep[candidate] or labels[candidate] in dear:
                continue
            wider = self.with_back(keep, candidate)
            if self.budget.met(wider):
                keep = wider
            elif self.bounds.widths:
                dear.add(labels[candidate])  # as wide a step as any other of its layers
        return keep

    def with_back(self, keep: np.ndarray, candidate: int) -> np.ndarray:
        """The decision with one set given back, and what comes with it."""
        back = np.append(self.gone[keep[self.gone]], candidate)
        return self.bounds.rounded(self.begin, self.gone, back)
