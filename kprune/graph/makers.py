"""Every layer that makes channels: those that can lose some, and those that cannot, with the reason."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from kprune.graph.graph import Graph, SlicedWeight
from kprune.rules import Call
from kprune.rules.base import channel_axis


@dataclass(frozen=True)
class FixedLayer:
    """A layer that makes channels of which none can go: recurrent, an embedding, or one that kprune has no rule for.

    Attributes:
      path: its name, with those of the nested models around it.
      filters: how many channels it makes.
      reason: why none may go.
    """

    path: str
    filters: int
    reason: str


def fixed_layers(graph: Graph) -> dict[str, FixedLayer]:
    """The layers with kernels of their own whose channels come from no input, and that no rule slices, by path."""
    sliced, found = {weight.path for weight in graph.writers}, {}
    for call in graph.calls:
        kernels = any(len(variable.shape) > 1 for variable in getattr(call.operation, "weights", ()))
        if not kernels or call.path in sliced or call.path in found or not makes_channels(call):
            continue
        filters = call.output_shapes[0][channel_axis(call.operation, len(call.output_shapes[0]))]
        if filters is not None:
            found[call.path] = FixedLayer(call.path, int(filters), reason(graph, call))
    return found


def reason(graph: Graph, call: Call) -> str:
    """Why no channel of a layer may go that no rule slices."""
    return graph.sets.reasons[graph.sets.set_of[call.ids_out[0].flat[0]]] or "kprune cannot see inside it"


def makes_channels(call: Call) -> bool:
    """Whether the channels of its first output are those of none of its inputs."""
    return bool(call.ids_out) and not any(np.isin(call.ids_out[0], ids).any() for ids in call.ids_in)


def makers(graph: Graph) -> list[SlicedWeight | FixedLayer]:
    """All layers that make channels, in the order of the graph."""
    first: dict[str, int] = {}
    for place, call in enumerate(graph.calls):
        first.setdefault(call.path, place)
    return sorted([*graph.writers, *fixed_layers(graph).values()], key=lambda made: first[made.path])


def writer_entries(entries: Iterable, graph: Graph) -> list:
    """Of a plan's entries those of layers that can lose filters, in the order of `graph.writers`."""
    fixed = fixed_layers(graph)
    return [entry for entry in entries if entry.path not in fixed]
