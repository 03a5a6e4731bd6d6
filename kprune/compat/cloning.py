"""Private Keras, for making things again: inputs, models, and operations from their configs."""

import contextlib

import keras
from keras.src.models.functional import Functional, functional_like_constructor
from keras.src.saving.serialization_lib import SafeModeScope

from kprune.utils.errors import ModelError

Operation = keras.Operation


def clone_inputs(function: Functional, like: list | None = None):
    """New `keras.Input`s with the names, shapes and dtypes of the graph's own, in its structure; with the sizes of the
    tensors in `like`, if given, where the graph does not take any size.
    """

    def sizes(own, x):
        return (own.shape[0], *(None if a is None else b for a, b in zip(own.shape[1:], x.shape[1:], strict=True)))

    shapes = {id(own): sizes(own, x) for own, x in zip(function.inputs, like or (), strict=bool(like))}

    def clone(tensor):
        layer = tensor._keras_history.operation
        optional = bool(getattr(layer, "optional", False))
        name = getattr(layer, "name", tensor.name)
        return keras.Input(
            batch_shape=shapes.get(id(tensor), tensor.shape),
            dtype=tensor.dtype,
            name=name,
            sparse=tensor.sparse,
            optional=optional,
        )

    return keras.tree.map_structure(clone, function._inputs_struct)


def make_model(like, inputs, outputs, name: str, same_class: bool):
    """A functional model; with the class of `like`, where that is asked for and can be kept."""
    keeps = same_class and isinstance(like, Functional) and functional_like_constructor(type(like))
    return (type(like) if keeps else keras.Model)(inputs, outputs, name=name)


def make_sequential(inputs, layers: list, name: str):
    """A Sequential model, made of an input and layers."""
    return keras.Sequential([inputs, *layers], name=name)


def config_of(operation: Operation) -> dict:
    """The config of an operation.

    Raises:
      ModelError: it has none.
    """
    with remade(operation):
        return operation.get_config()


@contextlib.contextmanager
def remade(operation: Operation):
    """Turns what goes wrong while an operation is made again into an error that says which and how to mend it."""
    try:
        yield
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ModelError(
            f"'{operation.name}' ({type(operation).__name__}) cannot be made from its config: {first_line(error)}",
            "get_config() and from_config() that agree with __init__.",
            "Give the layer a get_config() that returns every argument of its __init__.",
        ) from error


def first_line(error: Exception) -> str:
    """The first paragraph of a message, in one line."""
    return " ".join(str(error).strip().split("\n\n")[0].split()) or type(error).__name__


def clone_operation(operation: Operation, config: dict) -> Operation:
    """A new operation of the same class and name, from a config.

    Raises:
      ModelError: the operation cannot be made from its config.
    """
    with remade(operation), SafeModeScope(False):
        clone = type(operation).from_config(without_shapes(config))
    if not isinstance(clone, keras.layers.Layer):
        clone.name = operation.name
    return clone


def without_shapes(config):
    """A config without the shapes that layers inside the layer were built for."""
    if isinstance(config, dict):
        return {key: without_shapes(value) for key, value in config.items() if key != "build_config"}
    return type(config)(without_shapes(x) for x in config) if type(config) in (list, tuple) else config


def without_arrays(config):
    """A config in which initializers that hold one number for each weight are zeros: fewer weights do not fit them, and
    a layer that is loaded gets its weights from the file anyway.
    """

    def mended(name, value):
        found = isinstance(value, dict) and name.endswith("_initializer") and value.get("class_name") == "Constant"
        if found and not isinstance(value["config"]["value"], (int, float)):
            return keras.initializers.serialize(keras.initializers.Zeros())
        return without_arrays(value)

    return {name: mended(name, value) for name, value in config.items()} if isinstance(config, dict) else config


class ZeroInitializers:
    """While a graph is rebuilt, lets its layers start from zeros, for their weights are assigned afterwards."""

    def __init__(self):
        self._saved = []

    def cover(self, layer):
        """Swaps the initializers of one layer, of which `restore` puts the configured ones back."""
        for name, value in list(vars(layer).items()):
            if name.endswith("_initializer") and isinstance(value, keras.initializers.Initializer):
                self._saved.append((layer, name, value))
                setattr(layer, name, keras.initializers.Zeros())

    def restore(self):
        for layer, name, value in self._saved:
            setattr(layer, name, value)
