"""Whether a plan fits a model, keeps what is tied together, and leaves alone what is frozen."""

import numpy as np

from kprune.graph import Graph
from kprune.graph.makers import FixedLayer, fixed_layers, writer_entries
from kprune.utils.errors import PlanError


def check_layers(plan, graph: Graph):
    """Checks that a plan and a model have the same layers."""
    entries, fixed = writer_entries(plan.layers, graph), fixed_layers(graph)
    own = {weight.path: weight.shape[weight.writes] for weight in graph.writers}
    given = {entry.path: entry.filters for entry in plan.layers if entry.path not in fixed}
    others = any(fixed[e.path].filters != e.filters for e in plan.layers if e.path in fixed)
    if others or own != given or [w.path for w in graph.writers] != [e.path for e in entries]:
        differing = sorted(set(own.items()) ^ set(given.items())) or [("order", 0)]
        shown = ", ".join(f"{path} ({filters} filters)" for path, filters in differing[:4])
        raise PlanError(
            f"The plan is not for '{graph.model.name}': they differ in {shown}.",
            "The model that the plan was made for: same layers, same number of filters.",
            "Make a new plan for this model with kprune.plan_pruning.",
        )
    for entry in plan.layers:
        check_frozen(entry, fixed)
        rising = sorted(set(entry.keep)) == list(entry.keep)
        if not entry.keep or not rising or entry.keep[0] < 0 or entry.keep[-1] >= entry.filters:
            raise PlanError(
                f"The plan keeps {list(entry.keep)[:6]} of the {entry.filters} filters of '{entry.path}'.",
                "At least one index, rising, each below the number of filters.",
                "Mend the entry, or make a new plan.",
            )
        check_merges(entry)


def check_frozen(entry, fixed: dict[str, FixedLayer]):
    """Checks that a layer whose channels must stay keeps them.

    Raises:
      PlanError: it does not.
    """
    if entry.path in fixed and len(entry.keep) != entry.filters:
        raise PlanError(
            f"The plan keeps {len(entry.keep)} of the {entry.filters} channels of '{entry.path}', of which none may "
            f"go: {fixed[entry.path].reason}.",
            "Only prunable filters.",
            "Keep them.",
        )


def check_merges(entry):
    """Checks that what a layer hands on goes from removed filters to kept ones.

    Raises:
      PlanError: it does not.
    """
    kept = set(entry.keep)
    for removed, heir, factor in entry.merge:
        if removed in kept or not 0 <= removed < entry.filters or heir not in kept or not np.isfinite(factor):
            raise PlanError(
                f"The plan hands filter {removed} of '{entry.path}' on to filter {heir}, by the factor {factor}.",
                "A removed filter, a kept one, and a finite factor.",
                "Mend the entry, or make a new plan.",
            )


def check_decision(plan, graph: Graph, keep: np.ndarray):
    """Checks that a plan respects what the graph ties and freezes."""
    for entry, weight in zip(writer_entries(plan.layers, graph), graph.writers, strict=True):
        sets = weight.axes[weight.writes]
        given = np.isin(np.arange(entry.filters), entry.keep)
        if not np.array_equal(keep[sets], given):
            at = int(np.flatnonzero(keep[sets] != given)[0])
            raise PlanError(
                f"The plan keeps filter {at} of '{entry.path}', but removes one that is tied to it.",
                "One decision for all layers that share a channel (an addition, a depthwise conv, a grouped conv).",
                "Remove the same filters in all of them.",
            )
        frozen = ~keep[sets] & ~graph.prunable[sets]
        if frozen.any():
            at = int(np.flatnonzero(frozen)[0])
            raise PlanError(
                f"The plan removes filter {at} of '{entry.path}', which is frozen: {graph.sets.reasons[sets[at]]}.",
                "Only prunable filters.",
                "Keep it.",
            )
    for sets in graph.tensors:
        if not keep[sets].any():
            raise PlanError("The plan leaves a tensor without channels.", "At least one channel.", "Keep one more.")
