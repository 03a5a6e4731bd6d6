"""The graph inside a layer or model that has none, found by calling it on symbolic tensors."""

import math

import keras
import numpy as np

from kprune.compat.functional import Functional, Node, bare_operation, flatten, functional, is_model, nodes, run
from kprune.compat.variables import to_numpy
from kprune.utils.errors import ModelError

RESHAPE = bare_operation("Reshape")


def graph_of(model) -> Functional:
    """The graph of a functional or Sequential model, or of a subclassed one that can be opened.

    Raises:
      ModelError: there is none.
    """
    subclassed = isinstance(model, keras.Model) and not (is_model(model) or isinstance(model, Functional))
    opened = open_model(model) if subclassed else None
    return functional(model) if opened is None else opened


def open_model(model) -> Functional | None:
    """The graph of a subclassed model that was built, from the shapes it was built for; None where there is none."""
    config = (model.get_build_config() or {}) if model.built else {}
    shapes = config.get("input_shape") or config.get("shapes_dict")
    if not shapes:
        return None
    if isinstance(shapes, dict) and len(shapes) == 1:
        (shapes,) = shapes.values()
    return open_layer(model, (symbolic(shapes),), {})


def symbolic(shapes):
    """`keras.Input`s in the structure of a structure of shapes."""
    if isinstance(shapes, dict):
        return {name: symbolic(value) for name, value in shapes.items()}
    if all(size is None or isinstance(size, int) for size in shapes):
        return keras.Input(batch_shape=(None, *shapes[1:]))
    return [symbolic(value) for value in shapes]


def open_layer(layer, args: tuple, kwargs: dict) -> Functional | None:
    """The graph inside a layer whose `call` uses only Keras layers and operations.

    Args:
      layer: a layer or model made of others.
      args, kwargs: what it is called with, a `keras.Input` in the place of each tensor.

    Returns:
      The graph over the layers inside, or None: the layer has variables of its own, runs something else than Keras
      operations, computes with the weights of its layers, changes them, adds a loss, or does another thing in training.
    """
    own = (*layer._trainable_variables, *layer._non_trainable_variables, *layer._seed_generators)
    inside = list(layer._flatten_layers(include_self=False))
    if own or not inside or not layer.built:
        return None
    calls = {id(one): len(one._inbound_nodes) for one in inside}
    try:
        graphs = [runnable(called(layer, args, kwargs | phase)) for phase in phases(layer, kwargs)]
    except Exception:  # whatever a user's call() raises on symbolic tensors, it cannot be opened
        return None
    finally:
        for one in inside:
            del one._inbound_nodes[calls.get(id(one), 0) :]
    kinds = [[type(node.operation) for node in nodes(graph)] for graph in graphs]
    return graphs[0] if all(kind == kinds[0] for kind in kinds) else None


def called(layer, args: tuple, kwargs: dict) -> Functional:
    """The graph that a layer's `call` makes, which leaves the layer itself as it was.

    Raises:
      ValueError: the call does more than a graph can hold.
    """
    inputs = handed_over(args, kwargs)
    graph = Functional(inputs, stateless_call(layer, args, kwargs))
    arrays = array_arguments(graph)
    if arrays:  # were they made of the layer's weights, they would be others for other weights
        moved = [
            (v, keras.ops.convert_to_tensor(v) + 1) for v in layer.variables if keras.backend.is_float_dtype(v.dtype)
        ]
        again = array_arguments(Functional(inputs, stateless_call(layer, args, kwargs, moved)))
        if not all(np.array_equal(one, other) for one, other in zip(arrays, again, strict=True)):
            raise ValueError("the call computes with the weights of a layer")
    return graph


def handed_over(args: tuple, kwargs: dict):
    """What a model in the place of a layer takes: the layer's argument if it has only one, else the list of all tensors
    among its arguments.
    """
    tensors = tensors_in((args, kwargs))
    lone = len(args) == 1 and len(tensors_in(args)) == len(tensors) == len(flatten(args))
    return args[0] if lone else tensors


def tensors_in(arguments) -> list[keras.KerasTensor]:
    """The symbolic tensors among the arguments of a call."""
    return [x for x in flatten(arguments) if isinstance(x, keras.KerasTensor)]


def arrays_in(arguments) -> list:
    """The constant arrays among the arguments of a call."""
    return [x for x in flatten(arguments) if hasattr(x, "shape") and not isinstance(x, keras.KerasTensor)]


def stateless_call(layer, args: tuple, kwargs: dict, weights=()):
    """What a layer's `call` gives for symbolic inputs.

    Raises:
      ValueError: it changes variables or adds a loss.
    """
    scope = keras.StatelessScope(state_mapping=weights, collect_losses=True)
    given = len(scope.state_mapping)
    with scope:
        outputs = layer.call(*cast_alike(layer, args), **cast_alike(layer, kwargs))
    if scope.losses or len(scope.state_mapping) > given:
        raise ValueError("the call changes something")
    return outputs


def array_arguments(graph: Functional) -> list[np.ndarray]:
    """The constant arrays that the operations of a graph take."""
    given = [(node.arguments.args, node.arguments.kwargs) for node in nodes(graph)]
    return [to_numpy(x) for x in arrays_in(given)]


def runnable(graph: Functional) -> Functional:
    """The same graph over the same inputs, so that it runs on data.

    A `call` that asks for the batch size, `keras.ops.shape(x)[0]`, gets None from a symbolic tensor, and a reshape to
    (None, ...) cannot run. The sizes are known without it: the batch is what remains.

    Raises:
      ValueError: an operation was given an unknown size that is not the batch of a reshape.
    """

    def apply(node, args, kwargs):
        operation = node.operation
        if isinstance(operation, RESHAPE):
            operation = RESHAPE(with_batch_left_open(operation.newshape, args[0].shape))
        return operation(*args, **kwargs)

    def wants_unknown(node):
        bare = not isinstance(node.operation, keras.layers.Layer)
        return bare and any(isinstance(v, (tuple, list)) and None in v for v in vars(node.operation).values())

    if any(map(wants_unknown, nodes(graph))):
        graph = Functional(graph._inputs_struct, run(graph, graph.inputs, apply))
        if any(map(wants_unknown, nodes(graph))):
            raise ValueError("an operation was given an unknown size")
    return graph


def with_batch_left_open(newshape: tuple, shape: tuple) -> tuple:
    """A new shape (None, ...) as (-1, ...), with every other size as a number where `shape` tells it."""
    if newshape[0] is not None or None in newshape[1:] or None in shape[1:]:
        return newshape
    size = math.prod(shape[1:]) // abs(math.prod(newshape[1:]))  # of the axis that was -1
    return (-1, *(size if n == -1 else n for n in newshape[1:]))


def phases(layer, kwargs: dict) -> list[dict]:
    """The keyword arguments of a plain call, and those of one in training if it makes a difference to ask for it."""
    return [{}, {"training": True}] if layer._call_has_training_arg and kwargs.get("training") is None else [{}]


def cast_alike(layer, inputs):
    """What Keras does to the inputs of a layer before `call`: floats to its compute dtype."""

    def cast(x):
        if not isinstance(x, keras.KerasTensor):
            return x
        floating = keras.backend.is_float_dtype(x.dtype)
        differs = layer.autocast and floating and x.dtype != layer.compute_dtype
        return keras.ops.cast(x, layer.compute_dtype) if differs else x

    return keras.tree.map_structure(cast, inputs)


def arguments_like(node: Node) -> tuple[tuple, dict] | None:
    """The arguments of a node with a new `keras.Input` in the place of each tensor, or None where a mask or an array is
    among them.
    """
    args, kwargs = node.arguments.args, node.arguments.kwargs
    if arrays_in((args, kwargs)) or tensors_in(kwargs.get("mask")):
        return None
    given, shapes = flatten((args, kwargs)), iter(node.inputs)

    def like(x):
        if not isinstance(x, keras.KerasTensor):
            return x
        return keras.Input(batch_shape=next(shapes).shape, dtype=x.dtype)

    args, kwargs = keras.tree.pack_sequence_as((args, kwargs), [like(x) for x in given])
    return args, {name: value for name, value in kwargs.items() if name != "mask"}


def signature(arguments) -> str:
    """What else than tensors is among the arguments of a node, and where."""
    both = arguments.args, {name: value for name, value in arguments.kwargs.items() if value is not None}
    return repr(keras.tree.map_structure(lambda x: "tensor" if isinstance(x, keras.KerasTensor) else repr(x), both))


def note_calls(function: Functional | None, found: dict[int, set[str]], inside: dict):
    """Adds what else than tensors the operations of a graph, and of the models in it, are called with.

    Args:
      function: the graph, or None.
      found: the `signature`s, by the id of the operation.
      inside: the graphs of what was opened before, by the id of the operation.

    Raises:
      ModelError: a layer that was opened for one call is called with something else here.
    """
    for node in nodes(function) if function is not None else ():
        own, this = found[id(node.operation)], signature(node.arguments)
        if this not in own and inside.get(id(node.operation)) and not is_model(node.operation):
            raise ModelError(
                f"'{node.operation.name}' is called with other options inside another layer: {this}.",
                "The same options wherever it is called, or a rule for it.",
                "Make a layer of its own for each, or register a rule with kprune.register_rule.",
            )
        own.add(this)
        if is_model(node.operation):
            note_calls(functional(node.operation), found, inside)


def passes(node: Node) -> bool:
    """Whether a layer gives back the very tensor that it is given when it is not training, as stochastic depth does."""
    layer = node.operation
    if not getattr(layer, "_call_has_training_arg", False) or layer.trainable_variables or len(node.inputs) != 1:
        return False
    arguments = arguments_like(node)
    if arguments is None:
        return False
    args, kwargs = arguments
    try:
        outputs = stateless_call(layer, args, kwargs | {"training": False})
    except Exception:  # whatever a user's call() raises on symbolic tensors, nothing is known of it
        return False
    return outputs is tensors_in(arguments)[0]


def sizes_inside(function: Functional, given: list) -> dict[int, keras.KerasTensor]:
    """What the tensors of a nested graph are where it is called on `given`, by their ids.

    A model for images of any size is often called on images of one: only the call tells the sizes inside. Empty where
    it tells nothing new.
    """
    shapes = [(own.shape[1:], x.shape[1:]) for own, x in zip(function.inputs, given, strict=True)]
    if not any(a is None is not b for pair in shapes for a, b in zip(*pair, strict=True)):
        return {}
    found = {id(own): keras.KerasTensor(x.shape, own.dtype) for own, x in zip(function.inputs, given, strict=True)}
    for node in nodes(function):
        args, kwargs = node.arguments.fill_in(found)
        try:
            made = flatten(node.operation.compute_output_spec(*args, **kwargs))
        except Exception:  # whatever a user's layer raises there: its symbolic outputs are all that is known
            made = node.outputs
        found.update((id(symbol), x) for symbol, x in zip(node.outputs, made, strict=True))
    return found
