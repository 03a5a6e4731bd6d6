"""The choice by reconstruction error, spelled out for one network: every cost a least-squares problem of its own."""

import itertools

import keras
import numpy as np

from kprune.criteria.statistics.normal_equations import RIDGE

layers = keras.layers
NAMES = "stem", "middle"  # the two kinds of channels: those of the stream, and those inside the block


def build_network(format="channels_last", seed=0):
    """A residual block on a stream, with BatchNorms that weigh filters unlike each other."""
    axis = -1 if format == "channels_last" else 1
    options = {"padding": "same", "use_bias": False, "data_format": format}
    inputs = keras.Input((6, 6, 3) if axis == -1 else (3, 6, 6))
    stem = layers.BatchNormalization(axis=axis)(layers.Conv2D(6, 3, name="stem", **options)(inputs))
    stem = layers.ReLU(name="stream")(stem)
    x = layers.BatchNormalization(axis=axis, name="norm")(layers.Conv2D(5, 3, name="middle", **options)(stem))
    x = layers.Conv2D(6, 3, name="back", **options)(layers.ReLU(name="inside")(x))
    x = layers.Add(name="sum")([stem, layers.BatchNormalization(axis=axis, name="norm_back")(x)])
    pooled = layers.GlobalAveragePooling2D(data_format=format, name="pooled")(layers.ReLU()(x))
    model, rng = keras.Model(inputs, layers.Dense(4, name="dense")(pooled)), np.random.default_rng(seed)
    for weight in model.weights:  # by `randomize` the order of errors and that of errors per FLOP are too much alike
        if len(weight.shape) > 1:
            weight.assign(rng.normal(size=weight.shape))
        else:
            weight.assign(rng.uniform(0.3, 2.0, size=weight.shape))
    return model


def tensors_of(model, images, names):
    """Outputs of layers, float64."""
    outputs = keras.Model(model.inputs, [model.get_layer(name).output for name in names]).predict(images, verbose=0)
    return [x.astype(float) for x in outputs]


def patches(x):
    """Every 3 x 3 patch of images `[n, h, w, c]`, zero outside: `[n h w, 9 c]` in the order of a kernel."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    shifts = [padded[:, i : i + height, j : j + width] for i, j in itertools.product(range(3), range(3))]
    return np.concatenate(shifts, axis=-1).reshape(-1, 9 * x.shape[-1])


def readers_of(model, images):
    """Per reader: covariance with the ridge, weights, the channel that each feature and each filter is, and units."""
    names = ["stream", "norm", "inside", "sum", "pooled", "dense"]
    seen = dict(zip(names, tensors_of(model, images, names), strict=True))
    found = []
    for name, rows, reads, writes, lands in (
        ("middle", patches(seen["stream"]), [("stem", c) for _ in range(9) for c in range(6)], "middle", "norm"),
        ("back", patches(seen["inside"]), [("middle", c) for _ in range(9) for c in range(5)], "stem", "sum"),
        ("dense", seen["pooled"], [("stem", c) for c in range(6)], None, "dense"),
    ):
        kernel = np.asarray(keras.ops.convert_to_numpy(model.get_layer(name).kernel), float)
        weights = kernel.reshape(-1, kernel.shape[-1])
        if name != "dense":
            norm = model.get_layer({"middle": "norm", "back": "norm_back"}[name])
            gamma, variance = (keras.ops.convert_to_numpy(v) for v in (norm.gamma, norm.moving_variance))
            weights = weights * gamma / np.sqrt(variance + norm.epsilon)
        total = seen[lands].reshape(-1, seen[lands].shape[-1]).var(axis=0).sum()
        covariance = np.cov(rows.T, bias=True)
        covariance += RIDGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
        filters = [(writes, c) for c in range(weights.shape[1])]
        found.append((covariance, weights / np.sqrt(total), reads, filters))
    return found


def error(reader, gone, filters):
    """The least error of a reader's filters over all weights that are zero where it reads what is gone."""
    covariance, weights, reads, _ = reader
    stays = np.array([channel not in gone for channel in reads])
    root = np.linalg.cholesky(covariance).T
    wanted = root @ weights[:, filters]
    fitted = np.linalg.lstsq(root[:, stays], wanted, rcond=None)[0]
    return np.square(root[:, stays] @ fitted - wanted).sum()


def macs(gone):
    """Multiply-accumulates of the network without these channels."""
    stem, middle = (full - sum(name == kind for kind, _ in gone) for name, full in zip(NAMES, (6, 5), strict=True))
    return 36 * 9 * (3 * stem + stem * middle + middle * stem) + 4 * stem


def choose(model, images, target):
    """One channel after the other, the least error per multiply-accumulate first; then what went beyond goes back.

    Returns:
      The channels that go, as pairs of kind and index.
    """
    readers, gone, whole = readers_of(model, images), [], macs([])
    left = [("stem", c) for c in range(6)] + [("middle", c) for c in range(5)]
    while 1 - macs(gone) / whole < target:
        costs = {}
        for channel in left:
            total = 0.0
            for reader in readers:
                filters = [index for index, name in enumerate(reader[3]) if name not in gone]
                total += error(reader, [*gone, channel], filters) - error(reader, gone, filters)
            costs[channel] = total / (macs(gone) - macs([*gone, channel]))
        gone.append(min(left, key=costs.get))
        left.remove(gone[-1])
    for channel in gone[::-1]:
        fewer = [other for other in gone if other != channel]
        if 1 - macs(gone) / whole > target + 0.01 and 1 - macs(fewer) / whole >= target:
            gone = fewer
    return set(gone)
