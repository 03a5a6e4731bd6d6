"""What can be pruned at all: every layer that makes channels, the reasons of those that cannot, and how far it goes."""

import math
from dataclasses import dataclass, field

from kprune.cost import CostModel
from kprune.graph import Graph, trace
from kprune.graph.input_sizes import with_sizes, words
from kprune.graph.makers import FixedLayer, makers
from kprune.pruning.pipeline import refuse_barriers
from kprune.selection import Bounds, Limits, bind


@dataclass(frozen=True)
class LayerSpace:
    """One layer that makes channels.

    Attributes:
      path: its name, with those of the nested models around it.
      filters: how many filters it has.
      fewest: how many it keeps in the smallest network that can be reached.
      tied: the layers that share channels with it, by path: they lose the same ones.
      reason: why none of its filters may go, or None.
    """

    path: str
    filters: int
    fewest: int
    tied: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def prunable(self) -> bool:
        """Whether any of its filters may go."""
        return self.reason is None


@dataclass(frozen=True)
class SearchSpace:
    """How far a model can be pruned; `str` gives a table.

    Attributes:
      layers: a `LayerSpace` for every layer that makes channels.
      flops: `(now, lowest)`, multiply-accumulates of conv and dense layers, batch 1; NaN where the
        input size is unknown.
      params: `(now, lowest)`, all weights.
      barriers: per operation that stops channels, the reason.
      input_shapes: what the FLOPs were counted for, one shape per input, where the model takes inputs of any size.
    """

    layers: tuple[LayerSpace, ...]
    flops: tuple[float, float]
    params: tuple[int, int]
    barriers: dict[str, str] = field(repr=False, default_factory=dict)
    input_shapes: tuple[tuple[int, ...], ...] | None = None

    @property
    def reachable_flops(self) -> float:
        """The largest `target_flops` that can be met, 0..1."""
        return share(*self.flops)

    @property
    def reachable_params(self) -> float:
        """The largest `target_params` that can be met, 0..1."""
        return share(*self.params)

    def __str__(self) -> str:
        width = max((len(layer.path) for layer in self.layers), default=5)
        lines = [f"{'layer':<{width}} {'filters':>8} {'fewest':>7}"]
        for layer in self.layers:
            note = f"  {layer.reason}" if layer.reason else f"  with {', '.join(layer.tied)}" if layer.tied else ""
            lines.append(f"{layer.path:<{width}} {layer.filters:>8} {layer.fewest:>7}{note}")
        prunable = sum(layer.prunable for layer in self.layers)
        lines.append(f"{prunable} of {len(self.layers)} layers can be pruned.")
        for name, (now, lowest) in (("FLOPs (multiply-accumulates)", self.flops), ("parameters", self.params)):
            known = not math.isnan(now)
            lines.append(
                f"{name}: {now:,.0f}, lowest {lowest:,.0f} (-{share(now, lowest):.2%})"
                if known
                else f"{name}: unknown, for the model takes inputs of any size: pass input_shape"
            )
        if self.input_shapes is not None:
            lines.append(f"FLOPs are those of inputs of {words(self.input_shapes)}; the model takes any size")
        return "\n".join(lines)


def share(before: float, after: float) -> float:
    """The share that is gone; NaN where the numbers are unknown."""
    return 1.0 - after / before if before else 0.0


def search_space(model, limits: Limits | None = None, *, strict: bool = False, input_shape=None) -> SearchSpace:
    """What can be pruned, before anything is: every layer or the reason why not, and the lowest cost within reach.

    Pruning to what it says succeeds, with any criterion: `prune_model(model, space.reachable_flops, limits=limits)`.

    Args:
      model: a built functional or Sequential `keras.Model`; only read.
      limits: `kprune.Limits`, or None.
      strict: whether a layer that stops channels (a barrier) is an error.
      input_shape: for a model that takes inputs of any size, see `kprune.model_cost`.

    Returns:
      A `SearchSpace`: `.layers`, `.reachable_flops`, `.reachable_params`, `.flops`, `.params`, `.barriers`.

    Raises:
      OptionError: wrong limits, or an input shape that the model does not take.
      ModelError: the model has no graph, or has barriers and `strict` is set.

    Example:
      >>> space = kprune.search_space(model)
      >>> print(space)
      >>> small = kprune.prune_model(model, target_flops=min(0.5, space.reachable_flops))
    """
    graph = trace(model)
    refuse_barriers(graph, strict)
    bounds, cost = bind(limits, graph), CostModel(with_sizes(graph, input_shape))
    everything = cost.everything()
    sized = not math.isnan(cost.flops(everything))
    by_params = bounds.smallest(everything, cost.gains(everything, "params"))
    by_flops = bounds.smallest(everything, cost.gains(everything, "flops")) if sized else by_params
    return SearchSpace(
        tuple(layer_space(graph, bounds, made, by_flops) for made in makers(graph)),
        (cost.flops(everything), cost.flops(by_flops)),
        (cost.params(everything), cost.params(by_params)),
        dict(graph.barriers),
        cost.graph.sizes,
    )


def layer_space(graph: Graph, bounds: Bounds, weight, least) -> LayerSpace:
    """The row of one layer; `least` is the smallest decision."""
    if isinstance(weight, FixedLayer):
        return LayerSpace(weight.path, weight.filters, weight.filters, reason=weight.reason)
    sets = weight.axes[weight.writes]
    fewest = int(least[sets].sum())
    reason = graph.reason(weight)
    if reason is None and fewest == len(sets):
        asked = "it has a single filter" if len(sets) == 1 else "the limits ask for all its filters"
        reason = asked if bounds.removable[sets].any() else "the limits leave it out"
    tied = () if reason else tuple(tied_to(graph, weight))
    return LayerSpace(weight.path, len(sets), fewest, tied, reason)


def tied_to(graph: Graph, weight) -> list[str]:
    """The other layers of its group, by path."""
    group = next(group for group in graph.groups if any(w is weight for w in group))
    return [w.path for w in group if w is not weight]
