"""Runs a traced model call by call on real data, so that others can look at, or change, what passes."""

from collections.abc import Callable, Sequence

import keras

from kprune import _keras
from kprune.graph import Graph


def execute(graph: Graph, inputs: Sequence, apply: Callable):
    """Runs a traced model on one batch, in inference mode.

    Args:
      graph: the model.
      inputs: one array or tensor per input of the model, in flat order.
      apply: called for each call of the graph, in the order of `graph.calls`, as
        `apply(call, operation, args, kwargs)`, and gives its outputs; the plain run is `operation(*args, **kwargs)`.
        The outputs of a call have the places `call.outputs`, its inputs `call.inputs`.

    Returns:
      The outputs of the model, in its structure.
    """
    calls = iter(graph.calls)

    def step(node, args: tuple, kwargs: dict):
        if _keras.is_model(node.operation):
            tensors = [x for x in _keras.flatten((args, kwargs)) if keras.ops.is_tensor(x)]
            return _keras.run(_keras.functional(node.operation), tensors, step)
        return apply(next(calls), node.operation, args, kwargs)

    function = _keras.functional(graph.model)
    tensors = [keras.ops.cast(x, symbol.dtype) for x, symbol in zip(inputs, function.inputs, strict=True)]
    return _keras.run(function, tensors, step)
