"""Layers that hold other layers, in Keras 3 and tf_keras: wrappers and recurrent layers over cells."""

import keras
import numpy as np

from kprune.utils.errors import ModelError

# {class: {key of its config: attribute that holds the layer, or the layers}}.
INNER = {
    "TimeDistributed": {"layer": "layer"},
    "Bidirectional": {"layer": "forward_layer", "backward_layer": "backward_layer"},
    "RNN": {"cell": "cell"},
    "StackedRNNCells": {"cells": "cells"},
}
# The hard_sigmoid of Keras 2 is 0.2 x + 0.5, cut to 0..1; that of Keras 3, x / 6 + 0.5, is it of 1.2 x.
STEEPER = 1.2
RECURRENT = ("LSTM", "GRU", "SimpleRNN", "ConvLSTM", "RNN")


def inner_layers(layer) -> dict:
    """The layers that a layer holds, by the keys of its config; a list of them where it holds several."""
    names = INNER.get(type(layer).__name__)
    if names is None:  # a wrapper of one's own
        names = {"layer": "layer"} if hasattr(getattr(layer, "layer", None), "get_config") else {}
    return {key: getattr(layer, name) for key, name in names.items()}


def is_recurrent(layer) -> bool:
    """Whether a layer, or cell, computes with its activations inside."""
    return type(layer).__name__.startswith(RECURRENT)


def inner_name(name: str) -> str:
    """The name that `Bidirectional` was given a layer by, before it told both directions apart."""
    return name.removeprefix("forward_").removeprefix("backward_").replace("/", "_")


def with_inner(config: dict, layer, make) -> dict:
    """The config of a wrapper with twins in the place of the configs of its layers.

    Args:
      config: the config of the layer.
      layer: the wrapper.
      make: gives the twin of a layer.
    """
    twins = {key: one for key, one in inner_layers(layer).items() if config.get(key) is not None}
    return config | {
        key: list(map(make, one)) if isinstance(one, list | tuple) else make(one) for key, one in twins.items()
    }


def pairs_of(source, target) -> list[tuple]:
    """A layer and those inside it, each with its twin."""
    found, theirs = [(source, target)], inner_layers(target)
    for key, one in inner_layers(source).items():
        for part, twin in zip(_listed(one), _listed(theirs[key]), strict=True):
            found += pairs_of(part, twin)
    return found


def own_weights(layer) -> list:
    """The weights of a layer, but for those of layers that `inner_layers` has."""
    if not inner_layers(layer):
        return list(layer.weights)
    sides = (("_trainable_variables", "_non_trainable_variables"), ("_trainable_weights", "_non_trainable_weights"))
    names = next(names for names in sides if hasattr(layer, names[0]))  # those of Keras 3, or of tf_keras
    return [weight for name in names for weight in getattr(layer, name)]


def copy_weights(source, target, steeper: float):
    """Gives a layer, and those inside it, the weights of its twin, scaled where a hard_sigmoid is another there.

    Args:
      source, target: the layers.
      steeper: by how much what goes into a hard_sigmoid grows on the way.

    Raises:
      ModelError: the layers have other weights.
    """
    for one, twin in pairs_of(source, target):
        if hasattr(one, "get_layer"):
            continue  # a model inside: its layers were given their weights one by one
        ours, theirs = own_weights(one), own_weights(twin)
        shapes = [[tuple(weight.shape) for weight in side] for side in (ours, theirs)]
        if shapes[0] != shapes[1]:
            raise ModelError(
                f"'{one.name}' ({type(one).__name__}) has weights of shape {shapes[0]}, its twin {shapes[1]}.",
                "Equal weights on both sides.",
                "Replace the layer before translating.",
            )
        arrays = _scaled(one, [keras.ops.convert_to_numpy(x) for x in ours], steeper, inside=one is not source)
        for weight, array in zip(theirs, arrays, strict=True):
            weight.assign(array)
        if one is not source:
            twin.trainable = one.trainable


def hard_sigmoids(layer) -> set[str]:
    """Which activations of a layer are a hard_sigmoid: "activation", "recurrent_activation"."""
    names = ("activation", "recurrent_activation")
    return {name for name in names if getattr(getattr(layer, name, None), "__name__", "") == "hard_sigmoid"}


def check_hard_sigmoid(layer, inside: bool):
    """Refuses a layer that computes a hard_sigmoid where neither its weights nor a layer behind it can make up for it.

    Raises:
      ModelError: it does.
    """
    kind = type(layer).__name__
    last = kind.startswith(("Conv", "Dense", "Depthwise", "Separable")) and not is_recurrent(layer)
    if "activation" in hard_sigmoids(layer) and not last and (inside or kind != "Activation"):
        raise ModelError(
            f"'{layer.name}' ({kind}) computes a hard_sigmoid inside.",
            "A function that Keras 2 and Keras 3 share: what they call hard_sigmoid are two.",
            "Replace the layer before translating.",
        )


def _scaled(layer, arrays: list, steeper: float, inside: bool) -> list:
    """Weights that compute with one hard_sigmoid what the layer computes with the other."""
    found, kind = hard_sigmoids(layer), type(layer).__name__
    if "recurrent_activation" in found:
        gates = np.full(3 if "GRU" in kind else 4, steeper, dtype="float32")
        gates[2] = 1.0  # the candidate, which has the other activation
        return [array * np.repeat(gates, array.shape[-1] // len(gates)) for array in arrays]
    if "activation" in found and inside:  # behind other layers there is one more operation instead
        first = 1 if kind.startswith("Separable") else 0
        return arrays[:first] + [array * np.float32(steeper) for array in arrays[first:]]
    return arrays


def _listed(one) -> list:
    return list(one) if isinstance(one, list | tuple) else [one]
