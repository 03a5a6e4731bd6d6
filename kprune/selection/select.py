"""One way from a criterion to a decision, whatever the criterion."""

from collections.abc import Callable

import numpy as np

from kprune.criteria import Criterion
from kprune.graph import Graph
from kprune.selection.bounds import Bounds
from kprune.selection.budget import Budget
from kprune.selection.by_reconstruction_error import select_by_reconstruction
from kprune.selection.by_score import select_by_score
from kprune.selection.by_similarity import Round, select_by_similarity
from kprune.utils.errors import OptionError

_selections: dict[str, Callable] = {}


def register_selection(name: str) -> Callable[[Callable], Callable]:
    """Function decorator: registers a way to choose channels, for criteria whose `selects_by` is this name.

    Args:
      name: the name. The function is called as `select(graph, criterion, budget, bounds)`, and gives what that gives.

    Example:
      >>> @kprune.selection.register_selection("two by two")
      ... def select_in_pairs(graph, criterion, budget, bounds): ...
    """

    def decorate(function: Callable) -> Callable:
        _selections[name] = function
        return function

    return decorate


register_selection("similarity")(select_by_similarity)
register_selection("reconstruction_error")(select_by_reconstruction)


@register_selection("score")
def rank(graph: Graph, criterion: Criterion, budget: Budget, bounds: Bounds) -> tuple[np.ndarray, list[Round]]:
    """The lowest scores go first, in one round."""
    return select_by_score(graph, criterion, budget, bounds), []


def select(graph: Graph, criterion: Criterion, budget: Budget, bounds: Bounds) -> tuple[np.ndarray, list[Round]]:
    """Chooses what stays, at once, without training in between.

    Args:
      graph: the traced model.
      criterion: with its data, where it looks at data.
      budget, bounds: what shall go, and what must not; the one can be reached within the other.

    Returns:
      The decision, one boolean per channel set, and the record of the rounds; empty where there are none.

    Raises:
      OptionError: nothing is registered under the criterion's `selects_by`.
    """
    if criterion.selects_by not in _selections:
        raise OptionError(
            f"criterion '{criterion.name}' selects by '{criterion.selects_by}'.",
            f"One of {sorted(_selections)}.",
            "Register a function with kprune.selection.register_selection.",
        )
    return _selections[criterion.selects_by](graph, criterion, budget, bounds)
