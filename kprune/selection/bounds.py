"""Limits met with a model: what must not go, and what could go at most."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from kprune.cost import Quantity
from kprune.graph import Graph
from kprune.selection.limits import Limits, as_patterns, check_limits, matching
from kprune.selection.widths import next_width


@dataclass(frozen=True)
class Bounds:
    """Limits met with a model.

    Attributes:
      removable: bool per channel set.
      layers: for each bounded layer or tensor, its sets (one entry a channel) and how many channels must stay.
      widths: for each layer whose width is rounded, its sets and which numbers may stay, bool `[channels + 1]`.
    """

    removable: np.ndarray
    layers: tuple[tuple[np.ndarray, int], ...] = field(repr=False)
    widths: tuple[tuple[np.ndarray, np.ndarray], ...] = field(repr=False, default=())

    @cached_property
    def _entries(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """All bounded layers in one table: per entry its set, how many channels of the layer are of it, and the layer's
        place; per layer how many channels must stay.
        """
        found = [np.unique(sets, return_counts=True) for sets, _ in self.layers]
        sets, counts = (np.concatenate([np.zeros(0, dtype=int), *(pair[i] for pair in found)]) for i in (0, 1))
        owner = np.repeat(np.arange(len(found)), [len(unique) for unique, _ in found])
        return sets, counts, owner, np.array([floor for _, floor in self.layers])

    def open(self, keep: np.ndarray) -> np.ndarray:
        """Which kept sets could go next, each by itself."""
        free = self.removable & keep
        sets, counts, owner, floors = self._entries
        spare = np.bincount(owner, counts * keep[sets], len(floors)) - floors
        free[sets[counts > spare[owner]]] = False
        return free

    def admit(self, keep: np.ndarray, order: np.ndarray) -> np.ndarray:
        """The part of `order` that can go, one after the other, without breaking a bound."""
        rank = np.full(len(keep), len(order))
        rank[order] = np.arange(len(order))
        allowed = self.removable[order] & keep[order]
        sets, counts, owner, floors = self._entries
        kept = counts * keep[sets]
        spare = np.bincount(owner, kept, len(floors)) - floors
        asked = np.bincount(owner, kept * (rank[sets] < len(order)), len(floors))
        for layer in np.flatnonzero(asked > spare):  # the few that cannot give all that is asked for
            here = slice(*np.searchsorted(owner, (layer, layer + 1)))
            candidates = np.flatnonzero((kept[here] > 0) & (rank[sets[here]] < len(order)))
            ranks = rank[sets[here][candidates]]
            first = np.argsort(ranks)
            over = np.cumsum(counts[here][candidates][first]) > spare[layer]
            allowed[ranks[first][over]] = False
        return order[allowed]

    def smallest(self, keep: np.ndarray, gains: np.ndarray) -> np.ndarray:
        """A decision from which nothing more can go, dearest sets removed first."""
        return self.rounded(keep, self.dearest_first(keep, gains))

    def dearest_first(self, keep: np.ndarray, gains: np.ndarray) -> np.ndarray:
        """All that can go, one after the other, in the order of falling gains."""
        keep, gone = keep.copy(), [np.zeros(0, dtype=int)]
        while True:
            free = np.flatnonzero(self.open(keep))
            going = self.admit(keep, free[np.argsort(-gains[free], kind="stable")])
            if not len(going):
                return np.concatenate(gone)
            gone.append(going)
            keep[going] = False

    def rounded(self, begin: np.ndarray, gone: np.ndarray, back: np.ndarray | None = None) -> np.ndarray:
        """A decision after removals, in which every layer keeps one of its widths, or loses nothing.

        A layer between two widths gets back what went last. That may widen other layers that share the channels, so
        this is done until all agree.

        Args:
          begin: the decision before.
          gone: the sets that went, in the order of their removal.
          back: sets among them that are given back first, or None.
        """
        keep = begin.copy()
        keep[gone] = False
        if back is not None:
            keep[back] = True
        place = np.zeros(len(keep), dtype=int)
        place[gone] = np.arange(len(gone))
        todo = self.widths
        while todo:
            returned = [missing_to_width(sets, allowed, keep, begin, place) for sets, allowed in todo]
            todo = ()
            for missing in returned:
                if len(missing):
                    keep[missing] = True
                    todo = self.widths
        return keep


def missing_to_width(
    sets: np.ndarray, allowed: np.ndarray, keep: np.ndarray, begin: np.ndarray, place: np.ndarray
) -> np.ndarray:
    """The sets that a layer gets back so that it keeps one of its widths, or as many as it began with.

    Args:
      sets: those of its channels.
      allowed: its widths, bool `[channels + 1]`.
      keep, begin: the decisions now and at first.
      place: for each set that went, when; what went last comes back first.
    """
    kept, start = int(keep[sets].sum()), int(begin[sets].sum())
    if kept == start or allowed[kept]:
        return np.zeros(0, dtype=int)
    gone, counts = np.unique(sets[begin[sets] & ~keep[sets]], return_counts=True)
    last = np.argsort(-place[gone], kind="stable")
    wider = kept + np.cumsum(counts[last])
    enough = int(np.flatnonzero(allowed[wider] | (wider == start))[0])
    return gone[last[: enough + 1]]


def bind(
    limits: Limits | None, graph: Graph, widths: dict[str, int] | None = None, quantity: Quantity | None = None
) -> Bounds:
    """Meets limits with a traced model.

    Args:
      limits: what the user asks for.
      graph: the model.
      widths: where the model has lost filters before, how many each layer had at first, by path: what `max_rate` is of.
      quantity: what the budget is a share of, if it knows which widths are worth having.

    Raises:
      OptionError: a name matches no layer, or nothing is left to prune.
    """
    check_limits(limits)
    limits = limits or Limits()
    included = matching(graph, as_patterns(limits.include), "include")
    excluded = matching(graph, as_patterns(limits.exclude), "exclude")
    removable = graph.prunable.copy()
    layers: list[tuple[np.ndarray, int]] = [(sets, 1) for sets in graph.tensors]
    allowed: list[tuple[np.ndarray, np.ndarray]] = []
    for weight in graph.writers:
        sets = weight.axes[weight.writes]
        if weight.path in excluded or (limits.include is not None and weight.path not in included):
            removable[sets] = False
        own = limits.widths(len(sets))
        worthwhile = None if quantity is None else quantity.worthwhile(sets)
        own = own if worthwhile is None else own & worthwhile
        floor = limits.floor((widths or {}).get(weight.path, len(sets)))
        layers.append((sets, next_width(own, floor)))
        allowed += [] if own[1:].all() else [(sets, own)]
    return Bounds(removable, tuple(layers), tuple((sets, own) for sets, own in allowed if removable[sets].any()))
