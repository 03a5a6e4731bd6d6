"""What must not go: layers left out, smallest widths, largest rates; and what could go at most."""

import fnmatch
import math
from dataclasses import dataclass, field

import numpy as np

from kprune.errors import OptionError
from kprune.graph import Graph, SlicedWeight


@dataclass(frozen=True)
class Limits:
    """Bounds that a plan keeps in every layer.

    Args:
      include: names, shell patterns or layers; only these lose filters. None means all.
      exclude: names, shell patterns or layers that lose none.
      min_channels: the fewest filters that a layer keeps.
      max_rate: the largest share of its filters that a layer may lose, 0..1, or None.

    Raises:
      OptionError: a value is out of range; a name that matches no layer is refused when the limits meet the model.

    Example:
      >>> kprune.Limits(exclude=["stem_*", model.get_layer("conv9")], min_channels=8, max_rate=0.7)
    """

    include: object = None
    exclude: object = ()
    min_channels: int = 1
    max_rate: float | None = None

    def __post_init__(self):
        if not isinstance(self.min_channels, int) or self.min_channels < 1:
            raise OptionError(f"min_channels is {self.min_channels!r}.", "A whole number of at least 1.", "Pass 1.")
        if self.max_rate is not None and not 0 <= self.max_rate <= 1:
            raise OptionError(f"max_rate is {self.max_rate!r}.", "A share, 0..1.", "Pass 0.7 for at most 70 %.")

    def floor(self, filters: int) -> int:
        """The fewest of so many filters that must stay."""
        by_rate = 0 if self.max_rate is None else math.ceil(filters * (1 - self.max_rate) - 1e-9)
        return min(filters, max(self.min_channels, by_rate))


def as_patterns(given) -> list[str]:
    """Names and patterns from a string, a layer, or a list of both."""
    if given is None:
        return []
    items = given if isinstance(given, (list, tuple, set)) else [given]
    return [item if isinstance(item, str) else getattr(item, "name", repr(item)) for item in items]


def matching(graph: Graph, patterns: list[str], option: str) -> set[str]:
    """The paths of the writers that a list of patterns names.

    Raises:
      OptionError: a pattern matches no layer that makes channels.
    """
    paths = [weight.path for weight in graph.writers]
    found: set[str] = set()
    for pattern in patterns:
        hits = {p for p in paths if fnmatch.fnmatchcase(p, pattern) or fnmatch.fnmatchcase(p.split("/")[-1], pattern)}
        if not hits:
            raise OptionError(
                f"{option} names '{pattern}', which matches no layer of '{graph.model.name}' that makes channels.",
                "The name of a conv or dense layer, or a pattern such as 'stage1_*'.",
                f"Layers are {', '.join(paths[:8])}{', ...' if len(paths) > 8 else ''}.",
            )
        found |= hits
    return found


@dataclass(frozen=True)
class Bounds:
    """Limits met with a model.

    Attributes:
      removable: bool per channel set.
      layers: for each bounded layer or tensor, its sets (one entry a channel) and how many channels must stay.
    """

    removable: np.ndarray
    layers: tuple[tuple[np.ndarray, int], ...] = field(repr=False)

    def open(self, keep: np.ndarray) -> np.ndarray:
        """Which kept sets could go next, each by itself."""
        free = self.removable & keep
        for sets, floor in self.layers:
            unique, counts = np.unique(sets[keep[sets]], return_counts=True)
            free[unique[counts > counts.sum() - floor]] = False
        return free

    def admit(self, keep: np.ndarray, order: np.ndarray) -> np.ndarray:
        """The part of `order` that can go, one after the other, without breaking a bound."""
        rank = np.full(len(keep), len(order))
        rank[order] = np.arange(len(order))
        allowed = self.removable[order] & keep[order]
        for sets, floor in self.layers:
            kept = sets[keep[sets]]
            candidates, counts = np.unique(kept[rank[kept] < len(order)], return_counts=True)
            ranks = rank[candidates]
            first = np.argsort(ranks)
            over = np.cumsum(counts[first]) > len(kept) - floor
            allowed[ranks[first][over]] = False
        return order[allowed]

    def smallest(self, keep: np.ndarray, gains: np.ndarray) -> np.ndarray:
        """A decision from which nothing more can go, dearest sets removed first."""
        keep = keep.copy()
        while True:
            free = np.flatnonzero(self.open(keep))
            going = self.admit(keep, free[np.argsort(-gains[free], kind="stable")])
            if not len(going):
                return keep
            keep[going] = False


def bind(limits: Limits | None, graph: Graph, widths: dict[str, int] | None = None) -> Bounds:
    """Meets limits with a traced model.

    Args:
      limits: what the user asks for.
      graph: the model.
      widths: where the model has lost filters before, how many each layer had at first, by path: what `max_rate` is of.

    Raises:
      OptionError: a name matches no layer, or nothing is left to prune.
    """
    limits = limits or Limits()
    if not isinstance(limits, Limits):
        raise OptionError(f"limits is {limits!r}.", "A kprune.Limits object.", "Pass kprune.Limits(min_channels=8).")
    included = matching(graph, as_patterns(limits.include), "include")
    excluded = matching(graph, as_patterns(limits.exclude), "exclude")
    removable = graph.prunable.copy()
    layers: list[tuple[np.ndarray, int]] = [(sets, 1) for sets in graph.tensors]
    for weight in graph.writers:
        sets = weight.axes[weight.writes]
        if weight.path in excluded or (limits.include is not None and weight.path not in included):
            removable[sets] = False
        layers.append((sets, min(len(sets), limits.floor((widths or {}).get(weight.path, len(sets))))))
    return Bounds(removable, tuple(layers))


def rate(weight: SlicedWeight, keep: np.ndarray) -> float:
    """The share of its filters that a writer loses."""
    return 1.0 - float(keep[weight.axes[weight.writes]].mean())
