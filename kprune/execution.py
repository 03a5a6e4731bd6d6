"""Runs a traced model call by call on real data, so that others can look at, or change, what passes."""

from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import keras

from kprune import _keras
from kprune.graph import Graph
from kprune.rules import Call


class Step(NamedTuple):
    """One call about to run; `operation` may be a wrapper around `call.operation`."""

    call: Call
    operation: object
    args: tuple
    kwargs: dict

    def run(self):
        """What the call gives."""
        return self.operation(*self.args, **self.kwargs)


def walk(graph: Graph, inputs: Sequence) -> Generator:
    """Runs a traced model on one batch, in inference mode, one call after the other.

    Args:
      graph: the model.
      inputs: one array or tensor per input of the model, in flat order.

    Yields:
      A `Step` for each call, in the order of `graph.calls`; wants its outputs sent. The outputs of a call have the
      places `call.outputs`, its inputs `call.inputs`.

    Returns:
      The outputs of the model, in its structure.
    """
    calls = iter(graph.calls)

    def through(function, tensors):
        work, answer = _keras.steps(function, tensors), None
        while True:
            try:
                node, args, kwargs = work.send(answer)
            except StopIteration as end:
                return end.value
            if _keras.is_model(node.operation):
                inner = [x for x in _keras.flatten((args, kwargs)) if keras.ops.is_tensor(x)]
                answer = yield from through(_keras.functional(node.operation), inner)
            else:
                answer = yield Step(next(calls), node.operation, args, kwargs)

    function = _keras.functional(graph.model)
    tensors = [keras.ops.cast(x, symbol.dtype) for x, symbol in zip(inputs, function.inputs, strict=True)]
    return (yield from through(function, tensors))


def execute(graph: Graph, inputs: Sequence, apply: Callable):
    """`walk`, with each step answered by `apply(call, operation, args, kwargs)`; gives the outputs of the model."""
    return _keras.drive(walk(graph, inputs), apply)
