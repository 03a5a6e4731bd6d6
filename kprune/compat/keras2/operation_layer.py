"""A tf_keras layer that computes an operation of Keras 3, for operations that tf_keras has no layer for."""

import functools
import importlib

import keras

from kprune.compat.functional import bare_operation, is_layer

TENSOR = "__tensor__"


def describe(operation, args: tuple, kwargs: dict, is_tensor) -> tuple[dict, list]:
    """The config of the layer for one call of an operation, and the tensors of the call in order."""
    tensors = []

    def mark(value):
        if is_tensor(value):
            tensors.append(value)
            return {TENSOR: len(tensors) - 1}
        if isinstance(value, (list, tuple)):
            return type(value)(mark(entry) for entry in value)
        if isinstance(value, dict):
            return {key: mark(entry) for key, entry in value.items()}
        return value

    arguments = keras.saving.serialize_keras_object({"args": list(mark(args)), "kwargs": mark(kwargs)})
    config = {"kind": type(operation).__name__, "settings": operation.get_config(), "arguments": arguments}
    if is_layer(operation):
        config["settings"] = keras.saving.serialize_keras_object(operation)
    return config, tensors


@functools.cache
def layer_class() -> type:
    """The class `KerasOperation`, made when tf_keras is first needed."""
    tf_keras = importlib.import_module("tf_keras")

    @tf_keras.saving.register_keras_serializable(package="kprune")
    class KerasOperation(tf_keras.layers.Layer):
        """Computes an operation of Keras 3 that has no weights.

        Args:
          kind: the name of the operation's class.
          settings: its config.
          arguments: what it is called with, tensors by their place among the inputs.
        """

        def __init__(self, kind, settings, arguments, **options):
            super().__init__(**options)
            self.kind, self.settings, self.arguments = kind, settings, arguments
            self._operation = _operation(kind, settings)

        def call(self, inputs):
            tensors = inputs if isinstance(inputs, (list, tuple)) else [inputs]
            # tf_keras wraps dicts and lists of attributes; Keras wants plain ones.
            arguments = keras.saving.deserialize_keras_object(_unwrapped(self.arguments))
            filled = _fill(arguments, tensors)
            return self._operation(*filled["args"], **filled["kwargs"])

        def get_config(self):
            own = {"kind": self.kind, "settings": self.settings, "arguments": self.arguments}
            return super().get_config() | _unwrapped(own)

    return KerasOperation


def _operation(kind: str, settings: dict):
    settings = _unwrapped(settings)
    if "class_name" in settings and "config" in settings:
        return keras.saving.deserialize_keras_object(settings)
    return bare_operation(kind).from_config(settings)


def _unwrapped(value):
    if isinstance(value, dict):
        return {key: _unwrapped(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(map(_unwrapped, value)) if isinstance(value, tuple) else list(map(_unwrapped, value))
    return value


def _fill(value, tensors: list):
    if isinstance(value, dict):
        return tensors[value[TENSOR]] if TENSOR in value else {k: _fill(v, tensors) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_fill(entry, tensors) for entry in value)
    return value
