"""Rates given by hand: how much of each layer goes; a criterion says which filters."""

import math
from dataclasses import dataclass, field

import numpy as np

from kprune.cost import CostModel
from kprune.criteria import Criterion
from kprune.criteria.similarity import by_frequency
from kprune.graph import Graph, SlicedWeight, trace
from kprune.graph.input_sizes import with_sizes
from kprune.graph.makers import FixedLayer, makers
from kprune.pruning.pipeline import check_graph, with_data
from kprune.selection import Bounds, Comparison, Limits, Plan, bind, make_plan, matching, next_width
from kprune.surgery.compensation import merge_factors
from kprune.utils.checks import check_share
from kprune.utils.errors import OptionError


def plan_rates(
    model, rates: dict, *, criterion=None, data=None, limits: Limits | None = None, strict=False, input_shape=None
) -> Plan:
    """A plan from rates per layer, given by hand; the criterion chooses the filters in each.

    A layer with N filters loses `floor(rate * N)`, or less where its filters go several at a time (grouped convs).
    Layers that share channels with a named one (additions, depthwise and grouped convs) lose the same channels, named
    or not; named with another rate, they are an error. All other layers lose nothing.

    Args:
      model: a built functional or Sequential `keras.Model`; only read.
      rates: per name or pattern such as "stage1_*", the share of the filters to remove, 0..1. A name goes before a
        pattern. A pattern leaves out what cannot be pruned.
      criterion, data, strict, input_shape: see `plan_pruning`.
      limits: `kprune.Limits`, or None. With `round_to` the numbers of filters are rounded up; a rate that another limit
        forbids is an error.

    Returns:
      A `Plan`, its target `{"rates": ...}`.

    Raises:
      OptionError: a name that matches no layer, a rate that is none, tied layers that disagree, a rate that empties a
        layer or breaks a limit, a layer that cannot be pruned.
      ModelError: the model has no graph, holds NaN, or has barriers and `strict` is set.

    Example:
      >>> plan = kprune.plan_rates(model, {"stage1_*": 0.25, "stage2_*": 0.5, "stage2_block1_conv1": 0.3})
      >>> small = kprune.apply_plan(model, plan)
    """
    criterion, graph = with_data(criterion, data), trace(model)
    check_graph(graph, strict)
    bounds = bind(limits, graph)
    shares = rates_by_layer(graph, bounds, rates)
    keep = remove_shares(graph, bounds, shares, removal_order(graph, criterion))
    merges = merge_factors(graph, criterion, keep) if criterion.compensate else {}
    return make_plan(
        CostModel(with_sizes(graph, input_shape, data)),
        keep,
        criterion={"name": criterion.name, **criterion.get_config()},
        target={"rates": {name: float(rate) for name, rate in rates.items()}},
        merges=merges,
        bounds=bounds,
    )


def rates_by_layer(graph: Graph, bounds: Bounds, rates: dict) -> dict[str, float]:
    """The rate of each layer that is named, by path.

    Raises:
      OptionError: see `plan_rates`.
    """
    if not isinstance(rates, dict) or not rates:
        raise OptionError(f"rates is {rates!r}.", "A dict of names and shares.", "Pass {'stage1_*': 0.5}.")
    removable = {w.path for w in graph.writers if bounds.removable[w.axes[w.writes]].any()}
    found: dict[str, tuple[bool, str, float]] = {}
    for name, rate in rates.items():
        if not isinstance(name, str):
            raise OptionError(f"rates names {name!r}.", "The name of a layer, or a pattern.", "Pass layer.name.")
        check_share(f"The rate of '{name}'", rate)
        paths = matching(graph, [name], "rates")
        exact = name in paths or name in {path.rpartition("/")[2] for path in paths}
        able = paths & removable
        if rate > 0 and (paths - able if exact else not able):
            refuse_frozen(graph, name, sorted(paths - able)[0])
        for path in paths if exact else able:
            other = found.get(path)
            if other and other[0] == exact and other[2] != rate:
                raise OptionError(
                    f"'{other[1]}' gives {path} the rate {other[2]}, and '{name}' gives it {rate}.",
                    "One rate for each layer.",
                    f"Give the rate of '{path}' by its name, or narrow a pattern.",
                )
            if other is None or exact >= other[0]:
                found[path] = exact, name, rate
    return {path: rate for path, (_, _, rate) in found.items()}


def refuse_frozen(graph: Graph, name: str, path: str):
    """The error of a rate for a layer that cannot be pruned.

    Raises:
      OptionError: always.
    """
    made = next(made for made in makers(graph) if made.path == path)
    frozen = made.reason if isinstance(made, FixedLayer) else graph.reason(made)
    reason = frozen or "the limits leave it out"
    raise OptionError(
        f"rates names '{name}', and no filter of '{path}' may go: {reason}.",
        "A layer that can be pruned.",
        "Leave it out of rates; kprune.search_space(model) shows which layers can be pruned.",
    )


def removal_order(graph: Graph, criterion: Criterion) -> np.ndarray:
    """All channel sets, first to go first; by similarity, those that the guard lets go before all others."""
    keep = np.ones(len(graph.sets), dtype=bool)
    if criterion.selects_by != "similarity":
        return np.argsort(criterion.scores(graph, keep), kind="stable")
    comparison = Comparison(graph, criterion)
    views = comparison.views(keep)
    frequency, norms = comparison.pool(views)
    order = by_frequency(np.arange(len(keep)), frequency, norms)
    first = comparison.guard(order[frequency[order] > 0], views)
    return np.concatenate([first, order[~np.isin(order, first)]])


@dataclass(frozen=True)
class Share:
    """How many filters one layer shall lose.

    Attributes:
      path: the layer's path.
      rate: as it was asked for.
      wanted: the number that follows.
      sets: the channel sets of its filters.
    """

    path: str
    rate: float
    wanted: int
    sets: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, weight: SlicedWeight, rate: float, widths: np.ndarray | None) -> "Share":
        """What a rate means for a layer, what is left rounded up to one of `widths`, bool `[filters + 1]`."""
        count = weight.shape[weight.writes]
        left = count - math.floor(rate * count + 1e-9)
        sets = weight.axes[weight.writes]
        return cls(weight.path, rate, count - (left if widths is None else next_width(widths, left)), sets)

    def lost(self, keep: np.ndarray) -> int:
        """How many it has lost."""
        return len(self.sets) - int(keep[self.sets].sum())

    def satisfied(self, keep: np.ndarray, removable: np.ndarray) -> bool:
        """Whether it lost what it should, or would lose more than that with any further channel set."""
        missing = self.wanted - self.lost(keep)
        left = self.sets[removable[self.sets] & keep[self.sets]]
        return missing == 0 or (len(left) > 0 and missing < np.unique(left, return_counts=True)[1].min())


def remove_shares(graph: Graph, bounds: Bounds, rates: dict[str, float], order: np.ndarray) -> np.ndarray:
    """The decision that takes from each layer what was asked for, the smallest layers of a group first.

    Raises:
      OptionError: it cannot be done, because of tied layers or of a limit.
    """
    widths = {sets.tobytes(): allowed for sets, allowed in bounds.widths}
    named = [(w, widths.get(w.axes[w.writes].tobytes())) for w in graph.writers if w.path in rates]
    shares = [Share.of(weight, rates[weight.path], allowed) for weight, allowed in named]
    most = Bounds(bounds.removable, tuple((s.sets, len(s.sets) - s.wanted) for s in shares))
    keep = np.ones(len(graph.sets), dtype=bool)
    for share in sorted(shares, key=lambda share: len(share.sets)):
        own = order[np.isin(order, share.sets)]
        while len(going := most.admit(keep, own)):
            keep[going] = False
    for share in shares:
        if not share.satisfied(keep, bounds.removable):
            refuse_disagreement(share, shares, keep)
    check_bounds(graph, bounds, keep)
    return keep


def refuse_disagreement(share: Share, shares: list[Share], keep: np.ndarray):
    """The error of a layer that cannot lose what was asked for.

    Raises:
      OptionError: always.
    """
    tied = [other for other in shares if other is not share and np.isin(other.sets, share.sets).any()]
    names = ", ".join(f"'{other.path}' (rate {other.rate})" for other in tied)
    why = f"it is tied to {names}" if tied else "the rest is frozen, or left out by the limits"
    raise OptionError(
        f"'{share.path}' shall lose {share.wanted} of its {len(share.sets)} filters (rate {share.rate}), and loses "
        f"{share.lost(keep)}, for {why}.",
        "One rate for layers that share channels (an addition, a depthwise or grouped conv).",
        "Give tied layers the same rate, or name one of them; kprune.search_space(model) shows what is tied.",
    )


def check_bounds(graph: Graph, bounds: Bounds, keep: np.ndarray):
    """Checks that every layer and tensor, named or not, keeps what it must.

    Raises:
      OptionError: one does not.
    """
    few = [(sets, f"at least {least}") for sets, least in bounds.layers if keep[sets].sum() < least]
    odd = [(sets, f"one of {np.flatnonzero(w)}") for sets, w in bounds.widths if not w[keep[sets].sum()]]
    for sets, expected in few + odd:
        path = next(w.path for w in graph.writers if np.isin(w.axes[w.writes], sets).any())
        raise OptionError(
            f"These rates leave {int(keep[sets].sum())} channels in '{path}'.",
            f"There {expected}.",
            "Lower the rate of this layer or of those tied to it, or loosen the limits.",
        )
