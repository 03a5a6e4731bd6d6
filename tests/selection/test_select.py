"""A criterion says how it selects; a user's own may bring its own way."""

import numpy as np
import pytest
from models import build, chain

import kprune
from kprune.selection import Round, register_selection


class Alternating(kprune.Criterion):
    """Every second filter, whatever is in it."""

    name, selects_by = "alternating", "every second"

    def scores(self, graph, keep):
        raise AssertionError("its own way needs no scores")


@register_selection("every second")
def every_second(graph, criterion, budget, bounds):
    keep = np.ones(len(graph.sets), dtype=bool)
    free = np.flatnonzero(bounds.open(keep))
    keep[free[::2]] = False
    return keep, [Round(budget.removed(keep), len(free[::2]))]


def test_a_criterion_brings_its_own_way_to_choose():
    model = build(chain)
    plan = kprune.plan_pruning(model, 0.1, criterion=Alternating())
    free = [entry for entry in plan.layers if entry.reason is None]
    assert free and all(len(entry.keep) in (entry.filters // 2, entry.filters - entry.filters // 2) for entry in free)
    assert len(plan.rounds) == 1 and kprune.apply_plan(model, plan).count_params() == plan.params[1]


def test_a_way_that_nobody_registered_is_refused():
    criterion = Alternating()
    criterion.selects_by = "magic"
    with pytest.raises(kprune.OptionError, match="selects by 'magic'"):
        kprune.plan_pruning(build(chain), 0.1, criterion=criterion)
