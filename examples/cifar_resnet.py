"""The CIFAR ResNets of He et al. 2016 (option A shortcuts), and a reader for trained PyTorch arrays.

model = build_resnet(20)                                  # raw pixels 0..255 in, logits out
load_npz(model, "resnet20_cifar10.npz")
narrow = build_resnet(20, widths=(12, 24, 48))            # a uniformly narrower baseline
inside = build_resnet(20, inner=(8, 16, 32))              # only the first conv of each block is narrower
"""

import re

import keras
import numpy as np
from keras import layers

# Statistics of the RGB channels in 0..1; the trained networks expect these.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def build_resnet(depth, widths=(16, 32, 64), inner=None, classes=10):
    """Builds a ResNet for 32x32 colour images.

    Args:
      depth: number of weighted layers, `6 n + 2`: 20, 32, 44, 56, 110.
      widths: channels of the residual stream in the three stages. They may stay or grow from stage to stage, by any
        number.
      inner: channels of the first conv of each block, one number per stage; `widths` when None.
      classes: number of logits.

    Returns:
      A functional `keras.Model` from raw pixels (0..255) to logits, not compiled.

    Raises:
      ValueError: the depth is not `6 n + 2`, or the widths shrink or are not three.

    Example:
      >>> build_resnet(20).count_params()
      271098
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"depth is {depth}. Expected: 6 n + 2, such as 20, 32, 44, 56 or 110.")
    inner = widths if inner is None else inner
    if len(widths) != 3 or len(inner) != 3 or sorted(widths) != list(widths):
        raise ValueError(
            f"widths is {widths}, inner is {inner}. Expected: three numbers each, and widths that never shrink."
        )
    inputs = keras.Input((32, 32, 3), name="image")
    # Constants of the layer, not weights: users feed plain pixels and cannot forget the statistics.
    mean, variance = [255 * m for m in MEAN], [(255 * s) ** 2 for s in STD]
    x = layers.Normalization(mean=mean, variance=variance, name="normalization")(inputs)
    x = _conv_bn(x, widths[0], 1, "stem_conv", "stem_bn")
    x = layers.ReLU(name="stem_relu")(x)
    for stage in (1, 2, 3):
        for block in range(1, (depth - 2) // 6 + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            x = _block(x, inner[stage - 1], widths[stage - 1], stride, f"stage{stage}_block{block}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = layers.Dense(classes, name="classifier")(x)
    return keras.Model(inputs, outputs, name=f"resnet{depth}")


def load_npz(model, path):
    """Fills a model of `build_resnet` with arrays in PyTorch names and order.

    Args:
      model: the model; its depth and widths must be those of the file.
      path: an `.npz` file with `conv1.weight` `[out, in, 3, 3]`, `bn1.*`, `layer{s}.{b}.conv{1,2}.weight`,
        `layer{s}.{b}.bn{1,2}.*`, `linear.weight` `[classes, features]` and `linear.bias`.

    Returns:
      `model`.

    Raises:
      ValueError: the file has other layers than the model, or other shapes.
    """
    with np.load(path) as file:
        arrays = dict(file)
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(_layer_arrays(arrays, layer))
    if arrays:
        raise ValueError(
            f"{path} has arrays that {model.name} has no place for: {sorted(arrays)[:3]}. Expected: equal depths."
        )
    return model


def accuracy(model, x, y):
    """Share of images that the model classifies correctly."""
    return float((model.predict(x, batch_size=500, verbose=0).argmax(axis=-1) == y).mean())


def load_network(weights, depth):
    """The trained network of a file: an `.npz` of this depth in PyTorch order, or any Keras model file."""
    if str(weights).endswith(".npz"):
        model = build_resnet(depth)
        load_npz(model, weights)
        return model
    return keras.models.load_model(weights, compile=False)


def _conv_bn(x, filters, stride, conv_name, bn_name):
    if stride > 1:
        # "same" would pad 0 in front and 1 behind at stride 2; the trained networks pad 1 on all sides.
        x = layers.ZeroPadding2D(1, name=f"{conv_name}_pad")(x)
    padding = "same" if stride == 1 else "valid"
    conv = layers.Conv2D(filters, 3, stride, padding, use_bias=False, kernel_initializer="he_normal", name=conv_name)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=bn_name)(conv(x))


def _block(x, inner, width, stride, name):
    y = _conv_bn(x, inner, stride, f"{name}_conv1", f"{name}_bn1")
    y = layers.ReLU(name=f"{name}_relu1")(y)
    y = _conv_bn(y, width, 1, f"{name}_conv2", f"{name}_bn2")
    y = layers.Add(name=f"{name}_add")([_shortcut(x, width, stride), y])
    return layers.ReLU(name=f"{name}_relu2")(y)


def _shortcut(x, width, stride):
    """Option A: every second pixel, and channels of zeros in front and behind; no weights."""
    if stride > 1:
        x = x[:, ::stride, ::stride, :]
    missing = width - x.shape[-1]
    if missing:
        front = missing // 2
        x = keras.ops.pad(x, [(0, 0), (0, 0), (0, 0), (front, missing - front)])
    return x


def _layer_arrays(arrays, layer):
    """Takes the arrays of one layer out of `arrays`, in Keras order."""
    prefix = re.sub(r"stage(\d)_block(\d+)_", lambda m: f"layer{m[1]}.{int(m[2]) - 1}.", layer.name)
    prefix = {"stem_conv": "conv1", "stem_bn": "bn1", "classifier": "linear"}.get(prefix, prefix)
    if isinstance(layer, layers.BatchNormalization):
        names = ["weight", "bias", "running_mean", "running_var"]
    else:
        names = ["weight", "bias"] if layer.use_bias else ["weight"]
    try:
        weight, *rest = (arrays.pop(f"{prefix}.{name}") for name in names)
    except KeyError as error:
        raise ValueError(
            f"The file has no array {error} for the layer {layer.name}. Expected: equal depths."
        ) from error
    order = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}[weight.ndim]
    return [weight.transpose(order), *rest]
