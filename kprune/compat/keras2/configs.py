"""Layer configs between Keras 3 and tf_keras: which keys the other side knows, and what means something else there."""

import importlib
import inspect

import keras

from kprune.compat.keras2 import nested
from kprune.utils.errors import ModelError

# Keys that change nothing of what a layer computes, wherever the other side lacks them.
HARMLESS = {"quantization_config", "input_axes", "output_axes", "registered_name", "build_config", "shared_object_id"}
HARMLESS |= {"batch_input_shape", "input_length", "use_legacy_config", "implementation", "jit_compile", "seed"}
# What is set afterwards, how random numbers are drawn, what a layer was built for, how many words it has.
HARMLESS |= {"trainable", "rng_type", "query_shape", "key_shape", "value_shape", "vocabulary_size"}
# tf_keras keeps these of the plain convolution in separable and depthwise ones, which do not use them.
HARMLESS |= {"kernel_initializer", "kernel_regularizer", "kernel_constraint"}
# Options of recurrent layers that tf_keras takes by keyword only, without naming them.
BY_KEYWORD = {"zero_output_for_mask"}
# Layers that the applications of both sides define for themselves, and where.
APPLICATION_LAYERS = {
    "CustomScaleLayer": "inception_resnet_v2",
    "LayerScale": "convnext",
    "StochasticDepth": "convnext",
}
# {class: {name in tf_keras: name in Keras 3}}.
RENAMED = {"LeakyReLU": {"alpha": "negative_slope"}, "ThresholdedReLU": {"theta": "threshold"}}
# {class in tf_keras: class in Keras 3}, where Keras 3 has one more general.
GENERAL = {"ThresholdedReLU": "ReLU"}
# Layers that do not compute the same on both sides when they are not training.
DIFFERENT = {"RandomCrop": "outside training it resizes in tf_keras and does nothing in Keras 3"}
# tf_keras does not cut the contrast off at the ends of a range.
ANY_VALUE = (-1e38, 1e38)
# Activations that both sides have under one name and that compute the same; `hard_sigmoid` does not.
COMMON_ACTIVATIONS = frozenset(
    ("linear", "relu", "relu6", "sigmoid", "tanh", "softmax", "softplus", "softsign", "elu", "selu", "gelu", "mish")
    + ("leaky_relu", "exponential", "log_softmax", "swish", "silu")
)


def application_layer(kind: str, package: str) -> type | None:
    """A class that the applications of `keras` or `tf_keras` define for themselves, or None."""
    if kind not in APPLICATION_LAYERS:
        return None
    return getattr(importlib.import_module(f"{package}.src.applications.{APPLICATION_LAYERS[kind]}"), kind, None)


def accepted_arguments(cls: type) -> set[str]:
    """The names that the constructor of a layer takes, those of its bases included where it passes them on."""
    names, passed_on = set(), False
    for base in cls.__mro__:
        constructor = base.__dict__.get("__init__")
        if constructor is None:
            continue
        parameters = inspect.signature(constructor).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        passed_on = any(p.kind is p.VAR_KEYWORD for p in parameters)
        if not passed_on:
            break
    return names | ({"name", "trainable", "dtype"} if passed_on else {"name", "dtype"})


def is_default(layer, key: str, value) -> bool:
    """Whether a layer would have this value had it not been given: it came later, and means what was done before."""
    if key == "data_format":  # the default is a setting of Keras; a layer without the key has the channels last
        return value == "channels_last"
    config = layer.get_config()
    config.pop(key, None)
    try:
        return type(layer).from_config(config).get_config().get(key) == value
    except Exception:  # whatever a layer asks for, it has no default then
        return False


def fitted(config: dict, cls: type, layer, side: str) -> dict:
    """The config of a layer without the keys that `cls` does not know.

    Args:
      config: the config, with the names of the other side.
      cls: the class of the twin.
      layer: the layer.
      side: what the twin belongs to, in words.

    Raises:
      ModelError: such a key has a value that changes what the layer computes.
    """
    if cls.__name__ in DIFFERENT:
        raise ModelError(
            f"'{layer.name}' is a {cls.__name__}: {DIFFERENT[cls.__name__]}.",
            "A layer that computes the same on both sides.",
            "Replace it, by CenterCrop or Resizing, before translating.",
        )
    known = accepted_arguments(cls) | (BY_KEYWORD if nested.is_recurrent(layer) else set())
    lost = {key: value for key, value in config.items() if key not in known and value and key not in HARMLESS}
    # One group is what a layer without groups has.
    lost = {key: value for key, value in lost.items() if not (key == "groups" and value == 1)}
    lost = {key: value for key, value in lost.items() if not is_default(layer, key, value)}
    if lost:
        raise ModelError(
            f"The {cls.__name__} '{layer.name}' has {lost}, which {side} does not know.",
            f"A layer that {side} can compute.",
            "Replace the layer before translating.",
        )
    return {key: value for key, value in config.items() if key in known}


def plain(value):
    """A config without dtype policies and the `module` and `registered_name` of nested objects."""
    if isinstance(value, dict) and "class_name" in value:
        if value["class_name"] == "DTypePolicy":
            return value["config"]["name"]
        inner = {key: plain(entry) for key, entry in value.get("config", {}).items() if key not in HARMLESS}
        return {"class_name": value["class_name"], "config": inner}
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list) else value


def renamed(config: dict, class_name: str, to_keras3: bool) -> dict:
    """The config with the names of the other side, and with its meaning."""
    if class_name == "RandomContrast" and to_keras3:  # of a number, Keras 3 takes the upper half only
        factor = config["factor"]
        config = config | {"factor": factor if isinstance(factor, (list, tuple)) else [factor] * 2}
        if "value_range" in accepted_arguments(keras.layers.RandomContrast):
            config["value_range"] = ANY_VALUE
    names = RENAMED.get(class_name, {})
    names = names if to_keras3 else {new: old for old, new in names.items()}
    return {names.get(key, key): value for key, value in config.items()}


def made(cls: type, config: dict):
    """A layer from its config.

    Raises:
      TypeError, ValueError, KeyError: its class does not understand it.
    """
    holds_layers = any(callable(value) or _is_list_of_layers(value) for value in config.values())
    asks_for_built = cls.__name__ == "MultiHeadAttention"  # tf_keras reads the shapes that it was built for
    return cls(**config) if holds_layers or asks_for_built else cls.from_config(config)


def _is_list_of_layers(value) -> bool:
    return isinstance(value, list) and bool(value) and all(map(callable, value))


class UniqueNames:
    """Names for layers: valid on both sides, each given once."""

    def __init__(self):
        self._given: set[str] = set()

    def __call__(self, name: str) -> str:
        base = name = name.replace("/", "_").replace(".", "_")
        count = 0
        while name in self._given:
            count += 1
            name = f"{base}_{count}"
        self._given.add(name)
        return name
