"""A tf_keras model as a Keras 3 model."""

import importlib

import keras

from kprune.compat import _configs
from kprune.compat._functions import FUNCTIONS, slices
from kprune.compat.to_keras2 import need_tf_keras
from kprune.errors import ModelError


def from_tf_keras(model, custom_objects: dict | None = None) -> keras.Model:
    """Translates a tf_keras (Keras 2) model into a Keras 3 model of the same layers and weights.

    TensorFlow functions within the graph (`x + y`, `tf.nn.relu6(x)`, slices) become operations of `keras.ops`.

    Args:
      model: a functional or sequential tf_keras model. It does not change.
      custom_objects: Keras 3 classes for layers of your own, by class name.

    Returns:
      A functional Keras 3 model on the backend of this process, not compiled, with the same layer names, but for `/`,
      which Keras 3 refuses and which becomes `_`. Nested models stay nested.

    Raises:
      ModelError: tf_keras is not installed, the model has no graph, or a layer or function has no twin.

    Example:
      >>> small = kprune.prune_model(kprune.from_tf_keras(old_model), 0.5)
    """
    need_tf_keras()
    if not any(cls.__module__.split(".")[0] == "tf_keras" for cls in type(model).__mro__):
        raise ModelError(
            f"The model is a {type(model).__module__}.{type(model).__name__}.",
            "A model of tf_keras (Keras 2).",
            "A Keras 3 model needs no translation; a file is read by kprune.load_keras2.",
        )
    if not getattr(model, "_is_graph_network", False):
        raise ModelError(
            f"'{model.name}' ({type(model).__name__}) has no graph.",
            "A functional or sequential model that is built.",
            "Build it as tf_keras.Model(inputs, outputs).",
        )
    return _Translation(custom_objects or {}).model(model)


class _Translation:
    """Twins by the id of the layer, so that shared layers stay shared."""

    def __init__(self, custom_objects: dict):
        self._custom, self._twins, self._name = custom_objects, {}, _configs.UniqueNames()
        self._nest = importlib.import_module("tensorflow").nest

    def model(self, model) -> keras.Model:
        # Layers keep their names, functions take what is left.
        names = {id(layer): self._name(layer.name) for layer in model.layers if not _is_function(layer)}
        self._layer_name = lambda layer: names.get(id(layer)) or self._name(layer.name)
        tensors = {}
        for tensor in model.inputs:
            batch_shape, dtype = tuple(tensor.shape), tensor.dtype.name
            name = self._layer_name(tensor.node.layer)
            tensors[id(tensor)] = keras.Input(batch_shape=batch_shape, dtype=dtype, name=name)
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if not node.is_input and all(id(x) in tensors for x in node.keras_inputs):
                    outputs = keras.tree.flatten(self._apply(node, tensors))
                    for symbol, value in zip(self._nest.flatten(node.outputs), outputs, strict=True):
                        tensors[id(symbol)] = value

        def mapped(structure):
            return self._nest.map_structure(lambda x: tensors[id(x)], structure)

        inputs = model.inputs if type(model).__name__ == "Sequential" else model.input
        return keras.Model(mapped(inputs), mapped(model.output), name=_configs.UniqueNames()(model.name))

    def _apply(self, node, tensors: dict):
        def fill(structure):
            return self._nest.map_structure(lambda x: tensors.get(id(x), x), structure)

        args, kwargs = fill(node.call_args), fill(node.call_kwargs)
        layer = node.layer
        if _is_function(layer):
            return self._named(self._function(layer, args, kwargs), tensors)
        kwargs = {key: value for key, value in kwargs.items() if value is not None and key not in ("training", "mask")}
        if hasattr(layer, "_is_graph_network"):
            if id(layer) not in self._twins:
                self._twins[id(layer)] = _Translation(self._custom).model(layer)
            return self._twins[id(layer)](*args, **kwargs)
        if id(layer) not in self._twins:
            self._twins[id(layer)] = self._make_twin(layer)
        twin = self._twins[id(layer)]
        outputs = twin(*args, **kwargs)
        _configs.copy_weights(layer, twin)
        twin.trainable = layer.trainable
        return self._named(_old_hard_sigmoid(outputs), tensors) if _needs_old_hard_sigmoid(layer) else outputs

    def _named(self, outputs, tensors: dict):
        """Gives the operations that a function has added a name of their own; `tensors` were there before."""
        found = [x for x in keras.tree.flatten(outputs) if all(x is not old for old in tensors.values())]
        while found:
            operation = found.pop()._keras_history.operation
            if not isinstance(operation, keras.layers.Layer) and id(operation) not in self._twins:
                operation.name = self._name(operation.name)
                self._twins[id(operation)] = operation
                before = [x for node in operation._inbound_nodes for x in node.input_tensors]
                found += [x for x in before if all(x is not old for old in tensors.values())]
        return outputs

    def _make_twin(self, layer):
        config, kind = _configs.plain(layer.get_config()), type(layer).__name__
        cls = self._keras3_class(layer)
        if kind == "BatchNormalization" and isinstance(config["axis"], (list, tuple)):
            config["axis"] = int(config["axis"][0])
        if _needs_old_hard_sigmoid(layer):
            config["activation"] = "linear"
        config = _configs.renamed(config, kind, to_keras3=True)
        config = _configs.fitted(config, cls, layer.name, "Keras 3") | {"name": self._layer_name(layer)}
        try:
            return cls.from_config(config)
        except (TypeError, ValueError, KeyError) as error:
            raise ModelError(
                f"'{layer.name}' ({kind}) cannot be made in Keras 3: {error}",
                "A layer whose config Keras 3 understands.",
                "Pass a Keras 3 class for it in custom_objects.",
            ) from error

    def _keras3_class(self, layer) -> type:
        kind = type(layer).__name__
        if kind in self._custom:
            return self._custom[kind]
        cls = getattr(keras.layers, kind, None) or _configs.application_layer(kind, "keras")
        if cls is None or kind == "Lambda" or not type(layer).__module__.startswith("tf_keras."):
            raise ModelError(
                f"'{layer.name}' ({kind}) has no twin in Keras 3.",
                "Layers that both tf_keras and Keras 3 have.",
                f"Pass custom_objects={{{kind!r}: YourKeras3Layer}}, or replace the layer.",
            )
        return cls

    def _function(self, layer, args: tuple, kwargs: dict):
        name = layer.get_config()["function"]
        kwargs = {key: value for key, value in kwargs.items() if key != "name"}
        if name == "__operators__.getitem":
            return args[0][slices(args[1] if len(args) > 1 else kwargs["slice_spec"])]
        if name not in FUNCTIONS:
            raise ModelError(
                f"The function tf.{name} in '{layer.name}' has no twin in keras.ops.",
                f"One of {', '.join(sorted(FUNCTIONS))}.",
                "Replace it by a layer before translating.",
            )
        return FUNCTIONS[name](*args, **kwargs)


def _is_function(layer) -> bool:
    return type(layer).__name__ in ("TFOpLambda", "SlicingOpLambda")


def _needs_old_hard_sigmoid(layer) -> bool:
    function = getattr(layer, "activation", None)
    if getattr(function, "__name__", "") != "hard_sigmoid":
        return False
    if type(layer).__name__ not in ("Activation", "Conv2D", "Dense", "DepthwiseConv2D", "Conv1D"):
        raise ModelError(
            f"'{layer.name}' ({type(layer).__name__}) computes the hard_sigmoid of Keras 2 inside.",
            "A function that Keras 3 has: its own hard_sigmoid is another.",
            "Replace the layer before translating.",
        )
    return True


def _old_hard_sigmoid(x):
    """What Keras 2 calls hard_sigmoid; Keras 3 has another function of that name."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)
