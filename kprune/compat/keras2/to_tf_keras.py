"""A Keras 3 model as a tf_keras model."""

import importlib

import keras

from kprune.compat.functional import functional, is_layer, is_model, nodes, run, transparent
from kprune.compat.keras2 import configs, nested, operation_layer
from kprune.utils.errors import ModelError
from kprune.utils.packages import need_tensorflow, need_tf_keras

START_ON_TENSORFLOW = "Start Python with KERAS_BACKEND=tensorflow."
# Bare operations on tensors alone that tf_keras has a layer for: {operation: (layer, its options)}.
MERGES = {"Add": "Add", "Subtract": "Subtract", "Multiply": "Multiply", "Maximum": "Maximum", "Minimum": "Minimum"}
ACTIVATIONS = {"Relu": ("ReLU", {}), "Relu6": ("ReLU", {"max_value": 6.0})}
ACTIVATIONS |= {
    name: ("Activation", {"activation": function})
    for name, function in (("Sigmoid", "sigmoid"), ("Silu", "swish"), ("Tanh", "tanh"))
}


def to_tf_keras(model: keras.Model):
    """Translates a Keras 3 model into a tf_keras model of the same layers and weights.

    Operations that tf_keras has no layer for, such as slices and paddings within the graph, become a layer that
    computes the Keras 3 operation itself; so loading such a model again needs `import kprune.compat.keras2` first.

    Args:
      model: a functional or sequential model, on the TensorFlow backend. It does not change.

    Returns:
      A functional tf_keras model with the same layer names, not compiled; nested models stay nested.

    Raises:
      ModelError: tf_keras is not installed, the backend is another, the model has no graph, or a layer has no twin.

    Example:
      >>> old = kprune.to_tf_keras(small); old.save("small.h5")
    """
    need_tf_keras()
    need_tensorflow("on which tf_keras runs", START_ON_TENSORFLOW)
    return Translation().model(model)


class Translation:
    """Twins by the id of the operation, so that shared layers stay shared.

    Args:
      flat: whether nested models become part of the outer one.
      activations: those that a layer may keep; others follow it as a layer of their own.
    """

    def __init__(self, flat: bool = False, activations: frozenset = configs.COMMON_ACTIVATIONS):
        self._flat, self._activations = flat, activations
        self._tf_keras = importlib.import_module("tf_keras")
        self._twins: dict[int, object] = {}
        self._name = configs.UniqueNames()

    def model(self, model: keras.Model):
        function = functional(model)
        layers, inputs = self._tf_keras.layers, []
        for tensor in function.inputs:
            name = self._name(tensor.name)
            inputs.append(layers.Input(batch_shape=tuple(tensor.shape), dtype=tensor.dtype, name=name))
        for node in nodes(function):  # layers keep their names, operations take what is left
            if is_layer(node.operation) and not is_model(node.operation):
                self._prepare(node)
        outputs = run(function, inputs, self._apply)
        structure = keras.tree.pack_sequence_as(function._inputs_struct, inputs)
        return self._tf_keras.Model(structure, outputs, name=model.name)

    def _prepare(self, node) -> None:
        """Makes what will stand for a layer."""
        self._twin(transparent(node.operation))

    def _apply(self, node, args: tuple, kwargs: dict):
        operation = transparent(node.operation)
        kwargs = {key: value for key, value in kwargs.items() if key not in ("training", "mask") or value is not None}
        if kwargs.get("training") is True:  # the default of augmentation: Keras 3 takes what the model is called with
            del kwargs["training"]
        if is_model(operation) and self._flat:
            tensors = [x for x in keras.tree.flatten((args, kwargs)) if self._is_tensor(x)]
            return run(functional(operation), tensors, self._apply)
        if is_model(operation):
            if id(operation) not in self._twins:
                self._twins[id(operation)] = Translation().model(operation)
            return self._twins[id(operation)](*args, **kwargs)
        if not is_layer(operation):
            return self._bare(operation, args, kwargs)
        twin, activation = self._twin(operation)
        if twin is None:
            return self._as_operation(operation, args, kwargs)
        outputs = twin(*args, **kwargs)
        nested.copy_weights(operation, twin, 1.0 / nested.STEEPER)
        return outputs if activation is None else self._follow(activation, outputs)

    def _follow(self, activation, tensor):
        """Applies an activation that a layer cannot keep."""
        return self._as_operation(activation, (tensor,), {})

    def _twin(self, operation) -> tuple:
        """The twin of a layer, or None, and an activation that is to follow it, or None."""
        if id(operation) not in self._twins:
            self._twins[id(operation)] = self._make_twin(operation)
        return self._twins[id(operation)]

    def _make_inner_twin(self, layer):
        """The twin of a layer inside a wrapper, which needs its activation within.

        Raises:
          ModelError: there is none.
        """
        if is_model(layer):
            return Translation().model(layer)
        twin, activation = self._make_twin(layer, inside=True)
        if twin is None or activation is not None:
            raise ModelError(
                f"'{layer.name}' ({type(layer).__name__}), inside another layer, has no twin in tf_keras.",
                "Layers and activations that both Keras 3 and tf_keras have.",
                "Replace the layer before translating.",
            )
        return twin

    def _make_twin(self, operation, inside: bool = False) -> tuple:
        config, activation = configs.plain(operation.get_config()), None
        kind = type(operation).__name__
        cls = getattr(self._tf_keras.layers, kind, None) or configs.application_layer(kind, "tf_keras")
        if not type(operation).__module__.startswith("keras."):
            cls = None
        portable = self._is_portable(operation, config.get("activation"), inside)
        if cls is None or (type(operation) is keras.layers.Activation and not portable):
            if operation.weights:
                raise ModelError(
                    f"tf_keras has no layer '{type(operation).__name__}' ('{operation.name}').",
                    "Layers that both Keras 3 and tf_keras have.",
                    "Replace the layer before translating.",
                )
            return None, None
        if not portable:
            activation = keras.layers.Activation(operation.activation, name=f"{operation.name}_activation")
            config["activation"] = "linear"
        config = nested.with_inner(config, operation, self._make_inner_twin)
        name = nested.inner_name(operation.name) if inside else self._name(operation.name)
        config = configs.renamed(config, cls.__name__, to_keras3=False)
        config = configs.fitted(config, cls, operation, "tf_keras") | {"name": name}
        try:
            return configs.made(cls, config), activation
        except (TypeError, ValueError, KeyError) as error:
            raise ModelError(
                f"'{operation.name}' ({type(operation).__name__}) cannot be made in tf_keras: {error}",
                "A layer whose config tf_keras understands.",
                "Replace the layer, its initializers or its constraints before translating.",
            ) from error

    def _is_portable(self, operation, activation, inside: bool) -> bool:
        """Whether the twin of a layer computes its activation; else it follows the layer as one of its own.

        Raises:
          ModelError: the twin does not, and nothing that follows it can.
        """
        nested.check_hard_sigmoid(operation, inside)
        if inside and activation == "hard_sigmoid":
            return True  # its weights make up for it
        within = inside or nested.is_recurrent(operation)  # nothing that follows can take its place
        portable = activation is None or activation in (configs.COMMON_ACTIVATIONS if within else self._activations)
        if within and not portable:
            raise ModelError(
                f"'{operation.name}' ({type(operation).__name__}) computes {activation!r} inside.",
                f"One of {', '.join(sorted(configs.COMMON_ACTIVATIONS))}.",
                "Replace the layer before translating.",
            )
        return portable

    def _bare(self, operation, args: tuple, kwargs: dict):
        kind, layers = type(operation).__name__, self._tf_keras.layers
        ranks = {len(value.shape) if self._is_tensor(value) else None for value in args}
        if kind in MERGES and len(args) == 2 and None not in ranks and len(ranks) == 1:
            return getattr(layers, MERGES[kind])(name=self._name(operation.name))(list(args))
        if kind in ACTIVATIONS and len(args) == 1:
            layer, options = ACTIVATIONS[kind]
            return getattr(layers, layer)(**options, name=self._name(operation.name))(args[0])
        return self._as_operation(operation, args, kwargs)

    def _as_operation(self, operation, args: tuple, kwargs: dict):
        config, tensors = operation_layer.describe(operation, args, kwargs, self._is_tensor)
        layer = operation_layer.layer_class()(**config, name=self._name(operation.name))
        return layer(tensors if len(tensors) > 1 else tensors[0])

    def _is_tensor(self, value) -> bool:
        return self._tf_keras.backend.is_keras_tensor(value) if hasattr(value, "shape") else False
