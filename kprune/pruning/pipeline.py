"""From a criterion to a plan, and from a plan to a model: the steps that all ways to prune share."""

import keras

from kprune.criteria import Criterion, get_criterion, inform
from kprune.criteria.base import require_finite_weight
from kprune.criteria.statistics.linear_layers import images_for
from kprune.graph import Graph
from kprune.graph.batches import check_kind, require_rereadable
from kprune.selection import Bounds, Budget, Plan, bind, make_plan, select
from kprune.selection.targets import Targets
from kprune.surgery import rebuild, repair
from kprune.surgery.compensation import handed_on, merge_factors
from kprune.utils.checks import check_flag
from kprune.utils.errors import ModelError, OptionError


def with_data(criterion, data, repair: bool = False, again: bool = False) -> Criterion:
    """A criterion, or its name, as an object that has the data it needs.

    Args:
      criterion, data: as the user gave them.
      repair: whether the data are read for a repair as well.
      again: whether all of this is done more than once.

    Raises:
      OptionError: it needs data and there are none, or they can be read only once and that is not enough.
    """
    check_flag("repair", repair)
    if data is not None:
        check_kind(data)
    if criterion is None:
        criterion = "similarity" if data is None else "reconstruction_error"
    if repair and again:
        require_rereadable(data)
    verbose = keras.config.is_interactive_logging_enabled()
    return inform(get_criterion(criterion), data, verbose, repair or again)


def plan_graph(graph: Graph, targets: Targets, criterion, limits, strict: bool) -> Plan:
    """`plan_pruning` on a model already traced."""
    criterion = get_criterion(criterion)
    check_graph(graph, strict)
    budget = targets.budget(graph)
    bounds = bind(limits, graph, quantity=budget.quantity)
    budget.check(bounds)
    return choose(criterion, budget, bounds)


def choose(criterion: Criterion, budget: Budget, bounds: Bounds, how=select) -> Plan:
    """The plan of a criterion for a budget that can be reached.

    Args:
      criterion: the criterion.
      budget, bounds: what shall go, and what must not.
      how: selects: called as `how(graph, criterion, budget, bounds)`, gives the decision and its rounds.
    """
    cost = budget.cost
    graph = cost.graph
    keep, rounds = how(graph, criterion, budget, bounds)
    unjudged = {"unjudged": list(criterion.unjudged)} if criterion.unjudged else {}
    merges = merge_factors(graph, criterion, keep) if criterion.compensate else {}
    return make_plan(
        cost,
        keep,
        criterion={"name": criterion.name, **criterion.get_config(), **unjudged},
        target={budget.kind: budget.target},
        rounds=[vars(entry) for entry in rounds],
        merges=merges,
        bounds=bounds,
    )


def check_graph(graph: Graph, strict: bool):
    """Refuses a model whose weights say nothing, and, with `strict`, one with barriers.

    Raises:
      ModelError: a weight is NaN or infinite, or there are barriers.
    """
    refuse_barriers(graph, strict)
    for weight in graph.weights:
        require_finite_weight(weight, weight.value())


def refuse_barriers(graph: Graph, strict: bool):
    """With `strict`, any barrier is an error.

    Raises:
      OptionError: `strict` is no boolean.
      ModelError: names the barriers.
    """
    check_flag("strict", strict)
    if strict and graph.barriers:
        raise ModelError(
            f"'{graph.model.name}' has layers that stop channels: {'; '.join(list(graph.barriers.values())[:5])}.",
            "A rule for every layer, as strict=True asks.",
            "Register one with kprune.register_rule, or leave strict out.",
        )


def apply_to_graph(graph: Graph, plan: Plan, mode: str, data=None):
    """`apply_plan` on a model already traced."""
    check_mode(mode)
    if not isinstance(plan, Plan):
        raise OptionError(f"plan is a {type(plan).__name__}.", "A kprune.Plan.", "Read files with kprune.Plan.load.")
    keep, values, soft = plan.mask(graph), handed_on(graph, plan), mode == "soft"
    if data is None:
        return rebuild(graph, keep, masked=soft, values=values)
    images = images_for(graph, data)  # refused before anything is built
    small = rebuild(graph, keep, values=values, compiled=not soft)
    repaired = repair(small, graph, keep, images)
    return rebuild(graph, keep, masked=True, values=repaired.values()) if soft else small


def take_once(graph: Graph, criterion, data):
    """The images that both a repair and the default criterion look at, so that data are read once; other data, and
    those of a criterion that looks at more, as they are.
    """
    both = criterion is None or get_criterion(criterion).images_only
    if data is None or not both:
        return data
    images = images_for(graph, data)
    return images[0] if len(images) == 1 else list(images)


def check_mode(mode: str):
    if mode not in ("hard", "soft"):
        raise OptionError(f"mode is {mode!r}.", "'hard' or 'soft'.", "Choose one of them.")
