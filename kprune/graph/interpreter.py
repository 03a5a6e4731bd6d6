"""Runs a traced model call by call on real data, so that others can look at, or change, what passes."""

import inspect
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import keras

from kprune.compat.autodiff import without_gradients
from kprune.compat.functional import drive, first_input, flatten, is_layer, steps, time_distributed
from kprune.graph.graph import Graph
from kprune.rules import Call


class Step(NamedTuple):
    """One call about to run; `operation` may be a wrapper around `call.operation`."""

    call: Call
    operation: object
    args: tuple
    kwargs: dict

    @property
    def inputs(self) -> list:
        """The tensors that it is called with, as many and in the order of `call.inputs`."""
        return tensors_given(self.call, self.args, self.kwargs)

    def run(self):
        """What the call gives."""
        return self.operation(*self.args, **self.kwargs)


def tensors_given(call: Call, args: tuple, kwargs: dict) -> list:
    """What stands where the tensors of a traced call stood, in the order of `call.inputs`."""
    recorded = keras.tree.flatten((call.arguments.args, call.arguments.kwargs))
    given = keras.tree.flatten((args, {name: kwargs.get(name) for name in call.arguments.kwargs}))
    if len(given) == len(recorded):
        return [x for x, symbol in zip(given, recorded, strict=True) if isinstance(symbol, keras.KerasTensor)]
    return [x for x in given if keras.ops.is_tensor(x)]  # around a layer at each moment arguments are made anew


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
        work, answer = steps(function, tensors), None
        while True:
            try:
                answer = yield from one(*work.send(answer))
            except StopIteration as end:
                return end.value

    def one(node, args, kwargs):
        inside, inner = graph.inside.get(id(node.operation)), time_distributed(node.operation)
        if inside is not None:
            tensors = [x for x in flatten((args, kwargs)) if keras.ops.is_tensor(x)]
            return (yield from through(inside, tensors[: len(inside.inputs)]))  # behind them are masks
        if inner is not None:
            return (yield from at_each_moment(node._replace(operation=inner), first_input(args, kwargs)))
        return (yield Step(next(calls), node.operation, args, in_inference(node.operation, args, kwargs)))

    def at_each_moment(node, outer):
        fold = next(calls)
        folded = yield Step(fold, fold.operation, (outer,), {})
        made = yield from one(node, (folded,), {})
        unfold = next(calls)
        return (yield Step(unfold, unfold.operation, (made, outer), {}))

    function = graph.inside[id(graph.model)]
    tensors = [keras.ops.cast(x, symbol.dtype) for x, symbol in zip(inputs, function.inputs, strict=True)]
    return (yield from through(function, tensors))


def in_inference(operation, args: tuple, kwargs: dict) -> dict:
    """The keyword arguments of a call as `predict` gives them: with `training=False`, whatever the graph holds, for it
    holds the default of layers that augment images, which is True.
    """
    names = list(inspect.signature(operation.call).parameters) if is_layer(operation) else []
    asked = "training" in names and names.index("training") >= len(args)
    return {**kwargs, "training": False} if asked else kwargs


def run(graph: Graph, inputs: Sequence) -> list:
    """The outputs of a traced model on one batch, in inference mode, in flat order."""
    return flatten(execute(graph, inputs, lambda call, operation, args, kwargs: operation(*args, **kwargs)))


def execute(graph: Graph, inputs: Sequence, apply: Callable):
    """`walk`, with each step answered by `apply(call, operation, args, kwargs)`; gives the outputs of the model."""
    with without_gradients():
        return drive(walk(graph, inputs), apply)
