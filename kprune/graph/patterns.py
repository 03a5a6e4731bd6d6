"""Patterns in a graph: residual streams with their middle layers, and dense blocks."""

from dataclasses import dataclass

import numpy as np

from kprune.graph.graph import Graph, SlicedWeight
from kprune.rules import find_rule
from kprune.rules.merge import Concatenate


@dataclass(frozen=True)
class Stage:
    """The layers around one residual stream.

    Attributes:
      writers: the layers that are added to the stream, or one layer that stands by itself.
      middle: the layers inside its blocks, whose output is not added to the stream.
    """

    writers: tuple[SlicedWeight, ...]
    middle: tuple[SlicedWeight, ...]


def stages(graph: Graph) -> list[Stage]:
    """Each residual stream with the middle layers that lead to it, then the layers that belong to none."""
    streams = [group for group in graph.groups if len(group) > 1]
    inside = {id(w) for group in streams for w in group}
    taken: set[int] = set()
    found = []
    for group in streams:
        middle = [w for w in ancestors(graph, group, inside) if id(w) not in taken]
        taken |= {id(w) for w in middle}
        found.append(Stage(group, tuple(middle)))
    alone = [w for w in graph.writers if id(w) not in inside | taken]
    return found + [Stage((w,), ()) for w in alone]


def ancestors(graph: Graph, group: tuple[SlicedWeight, ...], inside: set[int]) -> list[SlicedWeight]:
    """The writers outside all streams from which the layers of a group read, directly or through one another."""
    makers: dict[int, list[SlicedWeight]] = {}
    for weight in graph.writers:
        for s in np.unique(weight.axes[weight.writes]).tolist():
            makers.setdefault(s, []).append(weight)
    reads: dict[str, np.ndarray] = {w.path: np.unique(w.axes[w.reads]) for w in graph.readers}
    queue, found = list(group), {}
    while queue:
        for s in reads.get(queue.pop().path, np.zeros(0, dtype=int)).tolist():
            for maker in makers.get(s, []):
                if id(maker) not in inside and id(maker) not in found:
                    found[id(maker)] = maker
                    queue.append(maker)
    return [w for w in graph.writers if id(w) in found]


def densely_connected(graph: Graph) -> np.ndarray:
    """Per channel set, whether it is of a dense block: it is concatenated again and again, or stands beside such a set
    (the last layer of a block is concatenated once).
    """
    joined = [
        np.unique(graph.sets.set_of[call.ids_out[0]])
        for call in graph.calls
        if isinstance(find_rule(call.operation), Concatenate)
    ]
    times = np.zeros(len(graph.sets), dtype=int)
    for sets in joined:
        times[sets] += 1
    dense = (times >= 2) & graph.prunable
    for sets in joined:
        if dense[sets].any():
            times[sets] = 2
    return (times >= 2) & graph.prunable
