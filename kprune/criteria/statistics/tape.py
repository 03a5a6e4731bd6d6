"""From the outputs of a network back to its maps: what ran is kept on a tape, and each step is reversed by a rule.

Gradients and relevance are both such walks; they differ in where they start and in the rule of a step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import keras

from kprune.compat.autodiff import linearize
from kprune.compat.functional import flatten
from kprune.graph import Graph
from kprune.graph.interpreter import execute
from kprune.rules import Call


def is_float(tensor) -> bool:
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype))


@dataclass(frozen=True)
class Recorded:
    """One call as it ran.

    Attributes:
      call: the call.
      operation: what was applied, with a wrapper of kprune's own around it where there is one.
      leaves: the arguments in flat order, tensors filled in.
      outputs: its outputs in flat order.
    """

    call: Call
    operation: object
    structure: object = field(repr=False)
    leaves: list = field(repr=False)
    outputs: list = field(repr=False)

    @property
    def slots(self) -> list[int]:
        """Which leaves are tensors of the graph; they have the places `call.inputs`."""
        leaves = flatten((self.call.arguments.args, self.call.arguments.kwargs))
        return [index for index, leaf in enumerate(leaves) if isinstance(leaf, keras.KerasTensor)]

    @property
    def inputs(self) -> list:
        """The input tensors."""
        return [self.leaves[slot] for slot in self.slots]

    def linearize(self) -> tuple[list, Callable]:
        """Runs the step again, to carry something back through it (see `linearize`).

        Whole numbers have no gradient: the pullback gives None for inputs that hold them, and an output of them counts
        for nothing.
        """
        slots = [slot for slot in self.slots if is_float(self.leaves[slot])]
        real = [index for index, output in enumerate(self.outputs) if is_float(output)]

        def function(*tensors):
            leaves = list(self.leaves)
            for slot, tensor in zip(slots, tensors, strict=True):
                leaves[slot] = tensor
            args, kwargs = keras.tree.pack_sequence_as(self.structure, leaves)
            outputs = flatten(self.operation(*args, **kwargs))
            return [outputs[index] for index in real]

        if not slots or not real:
            return list(self.outputs), lambda cotangents: [None for _ in self.slots]
        found, pullback = linearize(function, [self.leaves[slot] for slot in slots])
        outputs = [dict(zip(real, found, strict=True)).get(index, y) for index, y in enumerate(self.outputs)]

        def whole(cotangents: Sequence) -> list:
            back = dict(zip(slots, pullback([cotangents[index] for index in real]), strict=True))
            return [back.get(slot) for slot in self.slots]

        return outputs, whole


class Tape:
    """A forward pass of one batch in inference mode.

    Args:
      graph: the traced model.
      inputs: one array per input of the model.
      wanted: places whose tensors are looked at.
      record: whether to keep every step, to walk back.

    Attributes:
      values: the wanted tensors, by place.
      outputs: those of the model, in flat order.
      steps: what ran, in order.
    """

    def __init__(self, graph: Graph, inputs: Sequence, wanted: set[int], record: bool):
        self.graph, self.wanted, self.record = graph, wanted, record
        self.values: dict[int, object] = {}
        self.steps: list[Recorded] = []
        self.outputs = flatten(execute(graph, inputs, self._apply))

    def _apply(self, call: Call, operation, args: tuple, kwargs: dict):
        result = operation(*args, **kwargs)
        outputs = flatten(result)
        self.values.update((p, y) for p, y in zip(call.outputs, outputs, strict=True) if p in self.wanted)
        if self.record:
            structure = (args, kwargs)
            self.steps.append(Recorded(call, operation, structure, flatten(structure), outputs))
        return result

    def walk_back(self, seeds: Sequence, back: Callable, wanted: set[int]) -> dict[int, object]:
        """Carries something from the outputs back to wanted places.

        Args:
          seeds: what the walk starts with, one tensor per output of the model.
          back: `back(step, arriving)` gives, from one tensor per output of the step, one per input, or None. What
            arrives at a tensor that is used more than once adds up.
          wanted: places; of outputs of calls or of the model's inputs.

        Returns:
          A float32 tensor per wanted place; a place that nothing reaches is left out.
        """
        leads, arrived = places_after(self.graph, wanted), {}

        def add(place: int, tensor):
            tensor = keras.ops.cast(tensor, "float32")
            arrived[place] = arrived[place] + tensor if place in arrived else tensor

        for place, seed in zip(self.graph.ends, seeds, strict=True):
            add(place, seed)
        for step in reversed(self.steps):
            call = step.call
            arriving = [arrived.get(place) for place in call.outputs]
            for place in set(call.outputs) - wanted:
                arrived.pop(place, None)
            if all(x is None for x in arriving) or not leads.intersection(call.inputs):
                continue
            pairs = zip(arriving, step.outputs, strict=True)
            arriving = [keras.ops.zeros_like(y, dtype="float32") if x is None else x for x, y in pairs]
            for place, tensor in zip(call.inputs, back(step, arriving), strict=True):
                if tensor is not None and place in leads:
                    add(place, tensor)
        return {place: arrived[place] for place in wanted if place in arrived}


def places_after(graph: Graph, wanted: set[int]) -> set[int]:
    """The wanted places and all that are computed from them."""
    after = set(wanted)
    for call in graph.calls:
        if after.intersection(call.inputs):
            after.update(call.outputs)
    return after


def by_gradient(step: Recorded, arriving: Sequence) -> list:
    """The step of a gradient: the chain rule."""
    return step.linearize()[1](arriving)
