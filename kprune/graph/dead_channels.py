"""Which channels a model's own weights silence: what `strip` removes, and what a resumed run reads its masks from."""

import numpy as np

from kprune.graph.graph import Graph
from kprune.rules import Call, find_rule
from kprune.rules.channels import Barrier


def channel_constants(graph: Graph) -> dict[int, np.ndarray]:
    """For each tensor of the graph (by its place) the constant that each channel holds whatever the input, else NaN."""
    values: dict[int, np.ndarray] = {}
    for call in graph.calls:
        known = [
            values.get(place, np.full((1,) * len(shape), np.nan))
            for place, shape in zip(call.inputs, call.input_shapes, strict=True)
        ]
        try:
            found = unknown(call) if call.stopped else find_rule(call.operation).constant_channels(call, known)
        except Barrier:
            found = unknown(call)
        values.update(zip(call.outputs, found, strict=True))
    return values


def unknown(call: Call) -> list[np.ndarray]:
    """The constants of a call of which nothing is known."""
    return [np.full((1,) * len(shape), np.nan) for shape in call.output_shapes]


def live_positions(graph: Graph, constants: dict[int, np.ndarray]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """For each tensor (by its place) its ids, and which of their positions an output of the model depends on.

    One pass from the outputs back: liveness, as compilers know it. Each rule says what its operation listens to; a
    barrier listens to everything.
    """
    ids = {place: x for call in graph.calls for place, x in zip(call.inputs, call.ids_in, strict=True)}
    ids.update((place, x) for call in graph.calls for place, x in zip(call.outputs, call.ids_out, strict=True))
    live = {place: np.zeros(x.shape, dtype=bool) for place, x in ids.items()}
    live.update((place, np.ones(ids[place].shape, dtype=bool)) for place in graph.ends)
    for call in reversed(graph.calls):
        on = [live[place] for place in call.outputs]
        if call.stopped:
            found = [np.full(x.shape, any(array.any() for array in on)) for x in call.ids_in]
        else:
            known = [
                constants.get(p, np.full((1,) * x.ndim, np.nan)) for p, x in zip(call.inputs, call.ids_in, strict=True)
            ]
            found = find_rule(call.operation).live_inputs(call, on, known)
        for place, array in zip(call.inputs, found, strict=True):
            live[place] = live[place] | array
    return {place: (x, live[place]) for place, x in ids.items()}


def dead_sets(graph: Graph) -> np.ndarray:
    """The channel sets whose removal changes nothing, exactly: no output depends on any of their channels.

    A channel that is zero whatever the input is not heard by what multiplies it with weights or sums over channels;
    one that holds another constant is.

    Returns:
      bool, one per channel set; never all sets of a tensor.
    """
    alive = ~graph.prunable
    for ids, live in live_positions(graph, channel_constants(graph)).values():
        alive[graph.sets.set_of[ids[live]]] = True
    return leave_one(graph, ~alive)


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
