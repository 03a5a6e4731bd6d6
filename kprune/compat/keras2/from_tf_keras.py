"""A tf_keras model as a Keras 3 model."""

import functools
import importlib
import logging

import keras

from kprune.compat.keras2 import configs, nested
from kprune.compat.keras2.call import TensorFlowFunction
from kprune.utils.errors import ModelError
from kprune.utils.packages import need_tf_keras

logger = logging.getLogger("kprune")
ALWAYS_TRAINING = (
    "'%s' (%s) is called with training=True in the Keras 2 model. Expected: Layers that train when the model does; in "
    "Keras 3, predict() and model(x, training=False) reach each of them. Fix: Call the model with training=True."
)


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
        self._custom, self._twins, self._name = custom_objects, {}, configs.UniqueNames()
        self._nest = importlib.import_module("tensorflow").nest
        self._batch: dict[int, keras.KerasTensor] = {}  # per tensor, the first one whose examples are its own
        self._kept = []  # so that no id is given twice

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
        self._check_outputs(model, tensors)

        def mapped(structure):
            return self._nest.map_structure(lambda x: tensors[id(x)], structure)

        inputs = model.inputs if type(model).__name__ == "Sequential" else model.input
        return keras.Model(mapped(inputs), mapped(model.output), name=configs.UniqueNames()(model.name))

    def _check_outputs(self, model, tensors: dict):
        for tensor in model.outputs:
            if not isinstance(tensors[id(tensor)], keras.KerasTensor):
                raise ModelError(
                    f"The output '{tensor.name}' of '{model.name}' does not depend on its inputs, but for their size.",
                    "Outputs that are computed from the inputs.",
                    "Leave that output out before translating.",
                )

    def _apply(self, node, tensors: dict):
        def fill(structure):
            return self._nest.map_structure(lambda x: tensors.get(id(x), x), structure)

        args, kwargs, layer = fill(node.call_args), fill(node.call_kwargs), node.layer
        if _is_function(layer):
            function = TensorFlowFunction(layer, self._batch_of)
            outputs = self._named(function(args, kwargs), tensors)
            return self._note_batch(outputs, args, kwargs) if function.keeps_batch else outputs
        kwargs = {key: value for key, value in kwargs.items() if value is not None}
        if kwargs.get("training") is True:
            logger.warning(ALWAYS_TRAINING, layer.name, type(layer).__name__)
        if id(layer) not in self._twins:
            self._twins[id(layer)] = self._make_twin(layer)
        twin = self._twins[id(layer)]
        if hasattr(layer, "_is_graph_network"):
            return self._note_batch(twin(*args, **kwargs), args, kwargs)
        args, kwargs = with_states(layer, args, kwargs)
        outputs = twin(*args, **kwargs)
        twin.trainable = layer.trainable
        nested.copy_weights(layer, twin, nested.STEEPER)
        if type(layer).__module__.startswith("tf_keras."):  # none of them makes other examples
            self._note_batch(outputs, args, kwargs)
        steep = "activation" in nested.hard_sigmoids(layer)
        return self._named(_old_hard_sigmoid(outputs), tensors) if steep else outputs

    def _batch_of(self, tensor: keras.KerasTensor) -> keras.KerasTensor:
        return self._batch.get(id(tensor), tensor)

    def _note_batch(self, outputs, args, kwargs):
        """Remembers where the examples of outputs came in: there, nothing is pruned that tells how many they are."""
        given = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, keras.KerasTensor)]
        sources = [x for x in given if len(x.shape) and x.shape[0] is None]
        for x in keras.tree.flatten(outputs) if sources else ():
            self._batch[id(x)] = self._batch_of(sources[0])
            self._kept.append(x)
        return outputs

    def _named(self, outputs, tensors: dict):
        """Gives the operations that a function has added a name of their own; `tensors` were there before."""
        old = {id(x) for x in tensors.values()}
        found = [x for x in keras.tree.flatten(outputs) if isinstance(x, keras.KerasTensor) and id(x) not in old]
        while found:
            operation = found.pop()._keras_history.operation
            if not isinstance(operation, keras.layers.Layer) and id(operation) not in self._twins:
                operation.name = self._name(operation.name)
                self._twins[id(operation)] = operation
                before = [x for node in operation._inbound_nodes for x in node.input_tensors]
                found += [x for x in before if id(x) not in old]
        return outputs

    def _make_twin(self, layer, inside: bool = False):
        """The twin of a layer; of one `inside` a wrapper by the name that it has there."""
        if hasattr(layer, "_is_graph_network"):
            return _Translation(self._custom).model(layer)
        config, kind = configs.plain(layer.get_config()), type(layer).__name__
        cls = self._keras3_class(layer)
        if kind == "Lambda":
            config = {"function": layer.function, "output_shape": layer._output_shape, "mask": layer.mask}
            config |= {"arguments": layer.arguments, "dtype": layer.dtype}
        if kind == "BatchNormalization" and isinstance(config["axis"], (list, tuple)):
            config["axis"] = int(config["axis"][0])
        nested.check_hard_sigmoid(layer, inside)
        if not inside and "activation" in nested.hard_sigmoids(layer):
            config["activation"] = "linear"
        config = nested.with_inner(config, layer, functools.partial(self._make_twin, inside=True))
        name = nested.inner_name(layer.name) if inside else self._layer_name(layer)
        config = configs.renamed(config, kind, to_keras3=True)
        config = configs.fitted(config, cls, layer, "Keras 3") | {"name": name}
        try:
            return configs.made(cls, config)
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
        cls = getattr(keras.layers, configs.GENERAL.get(kind, kind), None) or configs.application_layer(kind, "keras")
        if cls is None or not type(layer).__module__.startswith("tf_keras."):
            raise ModelError(
                f"'{layer.name}' ({kind}) has no twin in Keras 3.",
                "Layers that both tf_keras and Keras 3 have.",
                f"Pass custom_objects={{{kind!r}: YourKeras3Layer}}, or replace the layer.",
            )
        return cls


def with_states(layer, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """The arguments of a recurrent layer as Keras 3 takes them: tf_keras puts initial states behind the sequence.

    Raises:
      ModelError: the layer has constants, which Keras 3 does not know.
    """
    recurrent = nested.is_recurrent(layer) or type(layer).__name__ == "Bidirectional"
    if not recurrent or not args or not isinstance(args[0], (list, tuple)):
        return args, kwargs
    if getattr(layer, "_num_constants", 0):
        raise ModelError(
            f"'{layer.name}' ({type(layer).__name__}) takes constants.",
            "A sequence and initial states.",
            "Replace the layer before translating.",
        )
    sequence, *states = args[0]
    return (sequence, *args[1:]), kwargs | ({"initial_state": states} if states else {})


def _is_function(layer) -> bool:
    return type(layer).__name__ in ("TFOpLambda", "SlicingOpLambda")


def _old_hard_sigmoid(x):
    """What Keras 2 calls hard_sigmoid; Keras 3 has another function of that name."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)
