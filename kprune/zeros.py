"""Which channels a model's own weights silence: what `strip` removes, and what a resumed run reads its masks from."""

import numpy as np

from kprune.channels import Barrier
from kprune.graph import Graph, SlicedWeight, calls_by_operation
from kprune.rules import find_rule


def channel_constants(graph: Graph) -> dict[int, np.ndarray]:
    """For each tensor of the graph (by its place) the constant that each channel holds whatever the input, else NaN."""
    values: dict[int, np.ndarray] = {}
    for call in graph.calls:
        known = [
            values.get(place, np.full((1,) * len(shape), np.nan))
            for place, shape in zip(call.inputs, call.input_shapes, strict=True)
        ]
        try:
            found = find_rule(call.operation).constants(call, known)
        except Barrier:
            found = [np.full((1,) * len(shape), np.nan) for shape in call.output_shapes]
        values.update(zip(call.outputs, found, strict=True))
    return values


def unheard(weight: SlicedWeight, live: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Which positions along a reader's input axis have only zero weights to the output channels that are live."""
    if weight.writes is not None and weight.axes[weight.writes] is not None:
        value = np.compress(live[weight.axes[weight.writes]], value, axis=weight.writes)
    return ~np.any(value != 0, axis=tuple(axis for axis in range(value.ndim) if axis != weight.reads))


def silent_inputs(graph: Graph, constants: dict[int, np.ndarray]) -> dict[tuple[str, str], np.ndarray]:
    """Per reader, which positions along its input axis are always zero, in every call."""
    silent: dict[tuple[str, str], np.ndarray] = {}
    calls = calls_by_operation(graph)
    for weight in graph.readers:
        size, zeros = len(weight.axes[weight.reads]), []
        for call in calls[id(weight.layer)]:
            value = constants.get(call.inputs[0])
            sure = value is not None and value.size == size and len(set(call.inputs)) == 1  # else: which one is read?
            zeros.append((value == 0).reshape(-1) if sure else np.zeros(size, dtype=bool))
        silent[weight.path, weight.name] = np.all(zeros, axis=0)
    return silent


def summed_sets(graph: Graph, constants: dict[int, np.ndarray]) -> np.ndarray:
    """Which channel sets an operation without weights sums over, where they are not zero whatever the input."""
    found = np.zeros(len(graph.sets), dtype=bool)
    for call in graph.calls:
        if find_rule(call.operation).sums:
            for ids, place in zip(call.ids_in, call.inputs, strict=True):
                value = constants.get(place, np.nan)
                zero = value == 0 if np.shape(value) == ids.shape else np.all(value == 0)
                found[graph.sets.set_of[ids[np.broadcast_to(~zero, ids.shape)]]] = True
    return found


def dead_sets(graph: Graph) -> np.ndarray:
    """The channel sets whose removal changes nothing, exactly.

    A set is dead when wherever it is read it is zero whatever the input, or meets only zero weights to live channels. A
    channel that holds another constant is alive.

    Returns:
      bool, one per channel set; never all sets of a tensor.
    """
    constants = channel_constants(graph)
    silent, summed = silent_inputs(graph, constants), summed_sets(graph, constants)
    values = {(w.path, w.name): w.value() for w in graph.readers}
    dead = np.zeros(len(graph.sets), dtype=bool)
    while True:
        alive = ~graph.prunable | summed
        for weight in graph.readers:
            key = (weight.path, weight.name)
            heard = ~(unheard(weight, ~dead, values[key]) | silent.get(key, np.False_))
            alive[weight.axes[weight.reads][heard]] = True
        if np.array_equal(dead, ~alive):
            return leave_one(graph, dead)
        dead = ~alive


def leave_one(graph: Graph, dead: np.ndarray) -> np.ndarray:
    """Spares the first set of each tensor or layer that would otherwise be empty."""
    dead = dead.copy()
    writers = tuple(weight.axes[weight.writes] for weight in graph.writers)
    for sets in (*graph.tensors, *writers):
        if dead[sets].all():
            dead[sets[0]] = False
    return dead


def masked_sets(graph: Graph) -> np.ndarray:
    """The channel sets that training masks have zeroed: every filter of them, and all that reads them, is exactly zero.

    Returns:
      bool, one per channel set.
    """
    zero = graph.prunable.copy()
    for weight in (*graph.writers, *graph.readers):
        value = weight.value()
        for axis in (weight.writes, weight.reads):
            if axis is not None:
                nonzero = np.any(value != 0, axis=tuple(other for other in range(value.ndim) if other != axis))
                zero[weight.axes[axis][nonzero]] = False
    return zero
