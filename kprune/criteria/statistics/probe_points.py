"""Where the channels of each layer are looked at: after the activation that follows the layer."""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from kprune.graph import Graph, SlicedWeight, calls_by_operation
from kprune.rules import Call, find_rule
from kprune.rules.base import channel_axis
from kprune.rules.channels import along, varying_axes


@dataclass(frozen=True)
class View:
    """One map in which a layer's channels are seen.

    Attributes:
      place: the tensor.
      axis: its channel axis.
      index: for each channel of the layer, its position along that axis; None: the same.
    """

    place: int
    axis: int
    index: np.ndarray | None = field(repr=False)


def observe(graph: Graph) -> dict[tuple[str, str], list[View]]:
    """For each writer of which some filter may go, by path and name of the weight, one view per call of its layer.

    A view is that of the nearest activation after the layer (its own; or after BatchNorm, addition, concatenation or
    pooling); where none follows, of the layer's own output, normalized if it is.
    """
    readers_of = defaultdict(list)
    for call in graph.calls:
        for place in call.inputs:
            readers_of[place].append(call)
    calls_of = calls_by_operation(graph)
    return {
        (weight.path, weight.name): [view_after(graph, call, weight, readers_of) for call in calls_of[id(weight.layer)]]
        for weight in graph.writers
        if graph.prunable[weight.axes[weight.writes]].any()
    }


def view_after(graph: Graph, call: Call, weight: SlicedWeight, readers_of: dict) -> View:
    """The view of one call of a writer."""
    sets = weight.axes[weight.writes]
    first = view_of(graph, call, sets)
    if activates(call):
        return first
    queue, seen = [call.outputs[0]], set(call.outputs)
    while queue:
        for reader in readers_of[queue.pop(0)]:
            view = view_of(graph, reader, sets)
            if view is None or reader.outputs[0] in seen:
                continue
            if activates(reader):
                return view
            if find_rule(reader.operation).transparent_to_probes:
                seen.add(reader.outputs[0])
                queue.append(reader.outputs[0])
    return last_own(graph, call, readers_of, first, sets)


def activates(call: Call) -> bool:
    """Whether a call is an activation, or has one of its own that is not linear."""
    return find_rule(call.operation).activates(call)


def last_own(graph: Graph, call: Call, readers_of: dict, view: View, sets: np.ndarray) -> View:
    """The output of a layer, or of the normalization that alone reads it."""
    following = readers_of[call.outputs[0]]
    if len(following) == 1 and find_rule(following[0].operation).normalizes_channels:
        return view_of(graph, following[0], sets) or view
    return view


def view_of(graph: Graph, call: Call, sets: np.ndarray) -> View | None:
    """How the channels of a layer lie in the output of a call; None where they do not all lie along one axis."""
    ids, shape = call.ids_out[0], call.output_shapes[0]
    axes = varying_axes(ids) or [channel_axis(call.operation, len(shape))]
    if len(axes) != 1 or shape[axes[0]] is None:
        return None
    axis = axes[0]
    there = graph.sets.set_of[along(ids, axis, shape[axis])]
    if np.array_equal(there, sets):
        return View(call.outputs[0], axis, None)
    order = np.argsort(there, kind="stable")
    index = order[np.minimum(np.searchsorted(there[order], sets), len(order) - 1)]
    return View(call.outputs[0], axis, index) if np.array_equal(there[index], sets) else None
