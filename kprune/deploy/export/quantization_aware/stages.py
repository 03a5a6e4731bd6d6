"""Keras 3 layers that compute what others do, in the form in which TFLite quantizes them."""

from collections import Counter
from collections.abc import Iterator

import keras
import numpy as np

from kprune.compat.functional import functional, is_model, nodes
from kprune.compat.variables import to_numpy

layers = keras.layers
# Layers over time, whose twins work on images of height 1.
IN_TIME = (layers.Conv1D, layers.DepthwiseConv1D, layers.SeparableConv1D, layers.Conv1DTranspose)
# Layers that TFLite makes a BatchNormalization part of by itself, also where ranges stand between.
KEEPING = (layers.Conv2D, layers.DepthwiseConv2D)
FOLDABLE = (*IN_TIME, *KEEPING, layers.Dense, layers.SeparableConv2D, layers.Conv2DTranspose)
IMAGES = {"Conv1D": "Conv2D", "DepthwiseConv1D": "DepthwiseConv2D", "Conv1DTranspose": "Conv2DTranspose"}
IMAGES |= {"SeparableConv1D": "SeparableConv2D"}
SIZES = ("kernel_size", "dilation_rate")
DEPTHWISE = ("kernel_size", "strides", "padding", "dilation_rate", "depth_multiplier", "trainable")
POINTWISE = ("filters", "activation", "use_bias", "trainable")


def is_rewritten(layer, rank: int) -> bool:
    """Whether a layer whose input has that rank is computed by others, also without a BatchNormalization."""
    return type(layer) in (*IN_TIME, layers.SeparableConv2D) or type(layer) is layers.Dense and rank in (3, 4)


def stages(layer, batchnorm=None, rank: int = 4) -> list:
    """The layers that compute a Dense or convolutional layer and, after it, a BatchNormalization.

    Args:
      layer: the layer; one over time, and a Dense on more than vectors, gives layers on images.
      batchnorm: what it takes in, as it is now: its statistics no longer follow the data.
      rank: that of its input.

    Returns:
      One layer, or for a separable convolution two; built, with weights. The last has the name of `layer`.
    """
    kind, config = type(layer).__name__, dict(layer.get_config())
    weights = {weight.path.split("/")[-1]: to_numpy(weight) for weight in layer.weights}
    if type(layer) in IN_TIME:
        kind, weights = IMAGES[kind], {name: w if w.ndim == 1 else w[None] for name, w in weights.items()}
        config |= {name: (1, *config[name]) for name in SIZES if config.get(name) is not None}
        config |= _strides(kind, config) | {"padding": "valid" if config["padding"] == "causal" else config["padding"]}
        if config.get("output_padding") is not None:
            config["output_padding"] = (0, *np.atleast_1d(config["output_padding"]).tolist())
    if kind == "Dense" and rank in (3, 4):
        kind, weights["kernel"] = "Conv2D", weights["kernel"][None, None]
        config |= {"filters": config.pop("units"), "kernel_size": 1}
    if batchnorm is not None:
        weights, config["use_bias"] = _folded(kind, weights, *batchnorm_constants(batchnorm)), True
    if kind != "SeparableConv2D":
        kernel = next(weight for name, weight in weights.items() if name != "bias")
        return [_built(getattr(layers, kind)(**_known(kind, config)), kernel, weights)]
    depthwise = {key: config[key] for key in DEPTHWISE} | {"use_bias": False, "name": f"{layer.name}_depthwise"}
    pointwise = {key: config[key] for key in POINTWISE} | {"kernel_size": 1, "name": layer.name}
    first = {"depthwise_kernel": weights.pop("depthwise_kernel")}
    return [
        _built(layers.DepthwiseConv2D(**depthwise), first["depthwise_kernel"], first),
        _built(layers.Conv2D(**pointwise), weights["pointwise_kernel"], weights),
    ]


def affine(layer, scale: np.ndarray, shift: np.ndarray):
    """A convolution of each channel by itself that computes `scale * x + shift`, under the name of `layer`."""
    trainable = layer.trainable and isinstance(layer, layers.BatchNormalization)
    made = layers.DepthwiseConv2D(1, name=layer.name, trainable=trainable)
    kernel = scale.reshape(1, 1, -1, 1)
    return _built(made, kernel, {"depthwise_kernel": kernel, "bias": shift})


def constants(operation, inputs: list) -> tuple | None:
    """What a layer that scales and shifts each channel multiplies by and adds, or None for any other."""
    if not _is_plain(operation, inputs):
        return None
    channels = inputs[0].shape[-1]
    if type(operation) is layers.BatchNormalization:
        return batchnorm_constants(operation)
    if type(operation) is layers.Rescaling:
        pair = np.asarray(operation.scale, "float32"), np.asarray(operation.offset, "float32")
        if any(value.ndim > 1 or value.size not in (1, channels) for value in pair):
            return None
    else:
        mean, variance = (np.ravel(to_numpy(value)) for value in (operation.mean, operation.variance))
        scale = 1 / np.maximum(np.sqrt(variance), keras.config.epsilon())
        pair = scale, -mean * scale
    return tuple(np.broadcast_to(value, (channels,)).copy() for value in pair)


def batchnorms(function) -> tuple[dict, set]:
    """What becomes of the BatchNormalizations that alone read a layer that can take them in.

    Returns:
      Those that become part of the layer before them, by the id of that layer; and the ids of those that stay, because
      TFLite makes them part of it itself, so that their statistics can follow the data while it trains.
    """
    found = list(_all_nodes(function))
    makers = {id(tensor): node.operation for _, node in found for tensor in node.outputs}
    calls = Counter(id(node.operation) for _, node in found)
    readers = Counter(id(tensor) for _, node in found for tensor in node.inputs)
    readers.update(id(x) for graph in {id(graph): graph for graph, _ in found}.values() for x in graph.outputs)
    folded, kept = {}, set()
    for _, node in found:
        batchnorm, source = node.operation, makers.get(id(node.inputs[0])) if node.inputs else None
        if type(batchnorm) is not layers.BatchNormalization or not _is_plain(batchnorm, node.inputs):
            continue
        if source is None or not _takes_in(source) or readers[id(node.inputs[0])] > 1:
            continue
        if calls[id(source)] == calls[id(batchnorm)] == 1:
            if type(source) in KEEPING and max(source.dilation_rate) == 1:
                kept.add(id(batchnorm))
            else:
                folded[id(source)] = batchnorm
    return folded, kept


def _is_plain(operation, inputs: list) -> bool:
    """Whether a layer scales floats of rank 2 to 4, each channel of the last axis by itself."""
    if type(operation) not in (layers.BatchNormalization, layers.Rescaling, layers.Normalization):
        return False
    shape, axis = inputs[0].shape, getattr(operation, "axis", -1)
    axes = [] if axis is None else [int(one) % len(shape) for one in np.atleast_1d(axis)]
    floats = keras.backend.standardize_dtype(inputs[0].dtype).startswith(("float", "bfloat"))
    inverted = getattr(operation, "invert", False)
    return floats and not inverted and axes in ([], [len(shape) - 1]) and len(shape) <= 4 and shape[-1] is not None


def _takes_in(layer) -> bool:
    linear = getattr(layer, "activation", None) in (None, keras.activations.linear)
    last = getattr(layer, "data_format", "channels_last") == "channels_last"
    return linear and last and type(layer) in FOLDABLE


def _all_nodes(function) -> Iterator[tuple]:
    for node in nodes(function):
        yield function, node
        if is_model(node.operation):
            yield from _all_nodes(functional(node.operation))


def batchnorm_constants(layer) -> tuple[np.ndarray, np.ndarray]:
    mean, variance = to_numpy(layer.moving_mean), to_numpy(layer.moving_variance)
    scale = (to_numpy(layer.gamma) if layer.scale else 1.0) / np.sqrt(variance + layer.epsilon)
    shift = (to_numpy(layer.beta) if layer.center else 0.0) - mean * scale
    return scale.astype("float32"), shift.astype("float32")


def _folded(kind: str, weights: dict, scale: np.ndarray, shift: np.ndarray) -> dict:
    folded = dict(weights)
    name = [name for name in weights if name != "bias"][-1]
    if kind == "DepthwiseConv2D":
        folded[name] = weights[name] * scale.reshape(weights[name].shape[-2:])
    else:
        folded[name] = weights[name] * (scale[:, None] if kind == "Conv2DTranspose" else scale)
    folded["bias"] = weights.get("bias", 0.0) * scale + shift
    return folded


def _strides(kind: str, config: dict) -> dict:
    stride = tuple(np.atleast_1d(config["strides"]).tolist())
    # Depthwise convolutions take equal strides only; over a height of 1 the first one does nothing.
    return {"strides": stride * 2 if kind in ("DepthwiseConv2D", "SeparableConv2D") else (1, *stride)}


def _known(kind: str, config: dict) -> dict:
    names = ("filters", "units", *DEPTHWISE, "groups", "output_padding", "activation", "use_bias", "name")
    if kind == "DepthwiseConv2D":
        names = tuple(name for name in names if name not in ("filters", "groups"))
    return {key: config[key] for key in names if key in config}


def _built(layer, kernel: np.ndarray, weights: dict):
    """Builds a layer for inputs that the kernel fits, and gives it the weights in its own order."""
    groups = getattr(layer, "groups", 1) or 1
    inputs = kernel.shape[-1] if isinstance(layer, layers.Conv2DTranspose) else kernel.shape[-2] * groups
    layer.build((None, *([None, None] if kernel.ndim == 4 else []), inputs))
    order = [name for name in weights if name != "bias"] + (["bias"] if layer.use_bias else [])
    layer.set_weights([weights[name] for name in order])
    return layer
