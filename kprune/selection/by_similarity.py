"""Algorithm 1 of Wu 2023 without the training: rounds of similarity over the whole network until the budget is met."""

import logging
from dataclasses import dataclass, field

import numpy as np

from kprune.criteria.similarity import Neighbours, Similarity, by_frequency, distances, find_neighbours, guarded
from kprune.graph import Graph, SlicedWeight
from kprune.graph.epilogues import following_scale
from kprune.graph.patterns import densely_connected, stages
from kprune.selection.bounds import Bounds
from kprune.selection.budget import Budget
from kprune.selection.kernel_products import Products, Slices
from kprune.selection.removal import Removal
from kprune.utils.progress import Progress

RELAXATION = 0.9
LITTLE = 0.1  # a round that removes less than this share of what is still to go counts as one that finds nothing
logger = logging.getLogger("kprune")


@dataclass(frozen=True)
class View:
    """The slices of one kernel that are compared with each other: one per channel set still kept.

    Attributes:
      weight: the kernel.
      axis: along which it is sliced: where it writes, or in a dense block where it reads.
      sets: int `[N]`, the channel sets.
      neighbours: which are similar.
      norms: float64 `[N]`.
    """

    weight: SlicedWeight
    axis: int
    sets: np.ndarray
    neighbours: Neighbours = field(repr=False)
    norms: np.ndarray = field(repr=False)

    @property
    def writes(self) -> bool:
        """Whether its slices are filters."""
        return self.axis == self.weight.writes


@dataclass(frozen=True)
class Round:
    """One round of pruning, for the plan's record; `ratio` is that of Algorithm 1, None for a criterion of scores."""

    removed_share: float
    filters: int
    ratio: float | None = None
    relaxed: str | None = None


def judged(graph: Graph, scales: dict[str, np.ndarray] | None = None) -> list[Slices]:
    """What is compared: each writer's filters; in dense blocks, each reader's input slices.

    Args:
      graph: the traced model.
      scales: factors of the filters, by the path of their layer.
    """
    dense, scales = densely_connected(graph), scales or {}
    found = [Slices(w, w.writes, ~dense[w.axes[w.writes]], scales.get(w.path)) for w in graph.writers]
    if dense.any():
        found += [Slices(w, w.reads, dense[w.axes[w.reads]]) for w in graph.readers]
    return [one for one in found if (one.judged & graph.prunable[one.weight.axes[one.axis]]).any()]


class Comparison:
    """Compares the filters of a traced model, round after round.

    Args:
      graph: the model.
      criterion: the options of the method.
    """

    def __init__(self, graph: Graph, criterion: Similarity):
        self.graph, self.criterion = graph, criterion
        self.stages = stages(graph) if criterion.coupling == "stage" else []
        self.look_again()

    def look_again(self):
        """Reads the weights anew, after they were trained."""
        self.judged = judged(self.graph, following_scale(self.graph) if self.criterion.fold_bn else None)
        self.products: list[Products] = []

    def views(self, keep: np.ndarray, closest: bool = False) -> list[View]:
        """The similarities of all layers at once, over what is kept; from call to call that only becomes less."""
        if not self.products:
            self.products = [Products(slices, keep) for slices in self.judged]
        found = []
        for products in self.products:
            products.update(keep)
            pairs = distances(products.terms, self.criterion.metric)
            neighbours = find_neighbours(pairs, self.criterion.alpha, closest)
            slices = products.slices
            found.append(View(slices.weight, slices.axis, products.sets, neighbours, products.norms()))
        return found

    def pool(self, views: list[View]) -> tuple[np.ndarray, np.ndarray]:
        """Per channel set: its frequency (counts over sizes, summed over the layers that judge it), and its norm."""
        counts, sizes, norms = np.zeros((3, len(self.graph.sets)))
        for view in views:
            counts[view.sets] += view.neighbours.counts
            sizes[view.sets] += len(view.sets)
            norms[view.sets] += view.norms
        return counts / np.maximum(sizes, 1), norms

    def by_sets(self, views: list[View], ratio: float, free: np.ndarray) -> np.ndarray:
        """`coupling="graph"`: the redundant channel sets, first to go first."""
        frequency, norms = self.pool(views)
        candidates = np.flatnonzero(free & (frequency >= ratio) & (frequency > 0))
        return self.guard(by_frequency(candidates, frequency, norms), views)

    def guard(self, order: np.ndarray, views: list[View]) -> np.ndarray:
        if not self.criterion.guard:
            return order
        layers = [(view.sets, view.neighbours) for view in views]
        return guarded(order, layers, len(self.graph.sets))

    def by_stages(self, views: list[View], ratio: float, free: np.ndarray) -> np.ndarray:
        """`coupling="stage"`: each stage loses the smallest rate of its middle layers, in every layer. The channels of
        dense blocks, which have no stages, go as by `by_sets`.
        """
        frequency, norms = self.pool(views)
        filters = [view for view in views if view.writes]
        own = {id(view.weight): self.own_rate(view, ratio) for view in filters}
        inside = np.zeros(len(self.graph.sets), dtype=bool)
        for view in views:
            inside[view.sets] |= not view.writes
        going = self.by_sets(views, ratio, free & inside)
        for stage in self.stages:
            judged = [w for w in stage.middle or stage.writers if id(w) in own]
            rate = min((own[id(w)] for w in judged), default=0.0)
            members = [view for view in filters if any(view.weight is w for w in stage.writers + stage.middle)]
            for view in sorted(members, key=lambda v: len(v.sets)):
                missing = int(np.floor(rate * len(view.sets) + 1e-9)) - int(np.isin(view.sets, going).sum())
                left = view.sets[free[view.sets] & ~np.isin(view.sets, going)]
                order = by_frequency(left, frequency, norms)
                near = [other for other in views if np.isin(other.sets, view.sets).any()]
                before = going[np.isin(going, np.concatenate([other.sets for other in near]))]
                allowed = self.guard(np.concatenate([before, order]), near)
                going = np.concatenate([going, allowed[np.isin(allowed, order)][: max(missing, 0)]])
        return by_frequency(going, frequency, norms)

    def own_rate(self, view: View, ratio: float) -> float:
        """The share of its own filters that a layer finds redundant."""
        return len(self.criterion.redundant_among(view.neighbours, view.norms, ratio)) / len(view.sets)

    def candidates(self, keep: np.ndarray, bounds: Bounds, ratio: float) -> tuple[np.ndarray, float, str | None]:
        """What goes in one round. Where nothing is redundant, `ratio` is relaxed by 10 % till something is; where
        nothing is similar any more, the closest pair of each layer counts as similar.

        Returns:
          The channel sets in the order of their removal, the ratio used, and in words what was relaxed, or None.
        """
        choose = self.by_stages if self.criterion.coupling == "stage" else self.by_sets
        free = bounds.open(keep)
        for closest in (False, True):
            views, used = self.views(keep, closest), ratio
            smallest = 0.5 / max((len(view.sets) for view in views), default=1)
            while used > smallest:
                order = bounds.admit(keep, choose(views, used, free))
                if len(order):
                    if closest:
                        return order, ratio, "closest pairs taken as similar"
                    return order, used, f"ratio relaxed to {used:.4f}" if used < ratio else None
                used *= RELAXATION
        left = np.flatnonzero(free)
        frequency, norms = self.pool(views)
        order = bounds.admit(keep, by_frequency(left, frequency, norms))
        return order[:1], ratio, "nothing similar left: one filter at a time"


def select_by_similarity(
    graph: Graph, criterion: Similarity, budget: Budget, bounds: Bounds
) -> tuple[np.ndarray, list[Round]]:
    """Rounds of similarity, without training between them, until the budget is met.

    Returns:
      The decision, one boolean per channel set, and the record of the rounds.
    """
    comparison, removal = Comparison(graph, criterion), Removal(budget, bounds, budget.cost.everything())
    ratio, rounds, progress = criterion.ratio, [], Progress(100, "percent")
    while not removal.met() and not removal.stuck:
        entry = remove_redundant(comparison, removal, ratio)
        progress.show(int(100 * min(entry.removed_share / budget.target, 1.0)))
        if entry.relaxed:
            logger.info("round %d: %s", len(rounds) + 1, entry.relaxed)
        before = rounds[-1].removed_share if rounds else 0.0
        rounds.append(entry)
        ratio = next_ratio(entry.ratio, entry.removed_share - before, budget.target - before)
    progress.finish(100)
    return removal.finish(), rounds


def remove_redundant(comparison: Comparison, removal: Removal, ratio: float) -> Round:
    """One round: what is redundant at once over the whole network goes, up to the budget.

    Returns:
      The record.
    """
    order, ratio, relaxed = comparison.candidates(removal.keep, removal.bounds, ratio)
    went = removal.take(order)
    return Round(removal.budget.removed(removal.keep), went, ratio, relaxed)


def next_ratio(ratio: float, removed: float, missing: float) -> float:
    """The ratio of the next round: relaxed where this one removed little of what was missing."""
    return ratio * RELAXATION if removed < LITTLE * missing else ratio


def select_in_one_round(
    graph: Graph, criterion: Similarity, budget: Budget, bounds: Bounds, ratio: float
) -> tuple[np.ndarray, list[Round]]:
    """One round of Algorithm 1, before the training that follows it in the paper; see `select_by_similarity`.

    Args:
      graph, criterion, budget, bounds: as there.
      ratio: that of this round.
    """
    comparison, removal = Comparison(graph, criterion), Removal(budget, bounds, budget.cost.everything())
    rounds = [remove_redundant(comparison, removal, ratio)]
    while removal.decision().all() and not removal.stuck:  # too few in each layer to make a step of a rounded width
        rounds.append(remove_redundant(comparison, removal, rounds[-1].ratio * RELAXATION))
    done = removal.met() or removal.stuck
    return removal.finish() if done else removal.decision(), rounds
