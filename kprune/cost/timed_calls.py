"""The calls of a model whose time is known by what they are and how wide."""

from dataclasses import dataclass, field

import numpy as np

from kprune.graph import Graph
from kprune.rules import Call, OperatorConfig, find_rule
from kprune.rules.base import channel_axis
from kprune.rules.channels import Barrier, along


@dataclass(frozen=True)
class TimedCall:
    """A call whose time is known by its kind and widths.

    Attributes:
      path: the layer.
      kind: its kind.
      sets_in, sets_out: the channel set of each channel; none in where the kind has one width.
    """

    path: str
    kind: OperatorConfig
    sets_in: np.ndarray = field(repr=False)
    sets_out: np.ndarray = field(repr=False)


def price(graph: Graph, call: Call) -> TimedCall | None:
    """A call with its kind and channel sets, or None where it has no kind."""
    kind = find_rule(call.operation).operator(call)
    if kind is None:
        return None
    sides = ((call.ids_in[0], call.input_shapes[0]), (call.ids_out[0], call.output_shapes[0]))
    try:
        sets_in, sets_out = (
            graph.sets.set_of[along(ids, axis, shape[axis])]
            for ids, shape in sides
            for axis in [channel_axis(call.operation, len(shape))]
        )
    except Barrier:
        return None
    return TimedCall(call.path, kind, sets_in if kind.reads else sets_in[:0], sets_out)


def priced_calls(graph: Graph) -> list[TimedCall]:
    """The calls of a traced model that have a kind, in order."""
    return [priced for priced in (price(graph, call) for call in graph.calls) if priced is not None]
