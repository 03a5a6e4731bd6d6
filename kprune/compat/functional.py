"""What private Keras knows of graphs and operations: the nodes of a functional model, and how to run them."""

import importlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import NamedTuple

import keras
from keras.src.models.functional import Functional

from kprune.utils.errors import ModelError

Operation = keras.Operation
OPERATION_MODULES = ("ops.numpy", "ops.nn", "ops.core", "ops.math", "ops.image", "activations.activations")


class Node(NamedTuple):
    """One operation applied once: its arguments as given, its input and output KerasTensors in flat order."""

    operation: Operation
    arguments: object
    inputs: list
    outputs: list


def bare_operation(name: str) -> type | None:
    """The class of a bare operation such as the `Add` behind `x + y`, or None where this Keras has none."""
    for module in OPERATION_MODULES:
        found = getattr(importlib.import_module(f"keras.src.{module}"), name, None)
        if isinstance(found, type) and issubclass(found, Operation):
            return found
    return None


def application_layer(module: str, name: str) -> list[type]:
    """A layer that `keras.applications` keeps to itself, in a list that is empty where this Keras has none."""
    found = getattr(importlib.import_module(f"keras.src.applications.{module}"), name, None)
    return [] if found is None else [found]


def is_model(operation) -> bool:
    """Whether the operation is itself a graph of operations (a nested model), and does nothing else in its `call`."""
    kind = next((kind for kind in (Functional, keras.Sequential) if isinstance(operation, kind)), None)
    return kind is not None and type(operation).call is kind.call


def functional(model) -> Functional:
    """The functional graph of a model.

    Raises:
      ModelError: the model is not a Keras model, is not built, or is subclassed and so has no graph.
    """
    if not isinstance(model, keras.Model):
        raise ModelError(f"The model is a {type(model).__name__}.", "A keras.Model.", "Load the model first.")
    if is_sequential(model):
        if getattr(model, "_functional", None) is None:
            raise ModelError(
                f"The Sequential model '{model.name}' is not built.",
                "A model whose input shape is known.",
                "Begin it with keras.Input(shape), or call it once on a batch.",
            )
        return model._functional
    if not isinstance(model, Functional):
        raise ModelError(
            f"'{model.name}' ({type(model).__name__}) is a subclassed model: it has no graph to trace.",
            "A functional or Sequential model, or one that is built and whose call() uses only Keras layers and ops.",
            "Call it once on a batch; if that is not enough, build it as keras.Model(inputs, outputs).",
        )
    return model


def time_distributed(operation):
    """The layer or model that a `TimeDistributed` applies at each moment, or None for any other operation."""
    return operation.layer if type(operation) is keras.layers.TimeDistributed else None


def nodes(function: Functional) -> Iterator[Node]:
    """The nodes of a graph in an order in which they can be run, inputs left out."""
    for depth in sorted(function._nodes_by_depth, reverse=True):
        for node in function._nodes_by_depth[depth]:
            if not node.is_input:
                yield Node(node.operation, node.arguments, list(node.input_tensors), list(node.outputs))


def flatten(structure) -> list:
    """The leaves of a nested structure."""
    return keras.tree.flatten(structure)


def steps(function: Functional, inputs: list) -> Generator:
    """Runs a graph node by node on symbolic or real tensors, each let go after its last use.

    Args:
      function: the graph.
      inputs: one tensor per input of the graph, in flat order.

    Yields:
      `(node, args, kwargs)` with the arguments filled in; wants the node's outputs sent.

    Returns:
      The outputs, in the structure of the graph's outputs.
    """
    tensors = {id(symbol): value for symbol, value in zip(function.inputs, inputs, strict=True)}
    order = list(nodes(function))
    uses = Counter(id(x) for node in order for x in node.inputs) + Counter(id(x) for x in function.outputs)
    for node in order:
        if any(id(x) not in tensors for x in node.inputs):
            continue
        outputs = yield node, *node.arguments.fill_in(tensors)
        tensors.update((id(symbol), value) for symbol, value in zip(node.outputs, flatten(outputs), strict=True))
        for x in node.inputs:
            uses[id(x)] -= 1
            if not uses[id(x)]:
                del tensors[id(x)]
    return keras.tree.pack_sequence_as(function._outputs_struct, [tensors[id(x)] for x in function.outputs])


def first_input(args: tuple, kwargs: dict):
    """What a layer was called with, by place or as `inputs`."""
    return args[0] if args else kwargs["inputs"]


def input_names(function) -> list[str]:
    """The keys of a dict that is given to a functional graph, in the order of its inputs."""
    struct = function._inputs_struct
    return sorted(struct) if isinstance(struct, dict) else [x.name for x in function.inputs]


def output_names(function, given: Iterable[str]) -> list[str]:
    """The keys of a dict of labels, losses or weights, in the order of the outputs: those of the model's own dict of
    outputs, or the names of the layers, whichever the keys `given` are.
    """
    struct = function._outputs_struct
    return sorted(struct) if isinstance(struct, dict) and set(given) & set(struct) else list(function.output_names)


def drive(work: Generator, apply: Callable):
    """Answers each step of a generator such as `steps` by `apply(*step)`; gives what the generator returns."""
    answer = None
    while True:
        try:
            step = work.send(answer)
        except StopIteration as end:
            return end.value
        answer = apply(*step)


def run(function: Functional, inputs: list, apply: Callable) -> object:
    """`steps`, with each answered by `apply(node, args, kwargs)`."""
    return drive(steps(function, inputs), apply)


def is_layer(operation) -> bool:
    """Whether the operation is a layer, and so may have weights."""
    return isinstance(operation, keras.layers.Layer)


def is_sequential(model) -> bool:
    return isinstance(model, keras.Sequential) and is_model(model)


def transparent(operation):
    """The layer inside a wrapper that changes nothing of what its layer computes, or the operation itself."""
    return operation.layer if getattr(type(operation), "transparent", False) else operation
