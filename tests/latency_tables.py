"""A small network, and the table of a device that takes exactly so long."""

import keras
import numpy as np
from models import conv
from random_models import randomize

from kprune.cost.latency_table import Grid, LatencyTable
from kprune.cost.timed_calls import priced_calls
from kprune.graph import trace

layers = keras.layers


def network():
    """A residual block between a stem and a classifier, with a depthwise conv inside."""
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.BatchNormalization()(conv(inputs, 16, "stem", use_bias=False)))
    y = layers.ReLU()(conv(x, 32, "middle"))
    y = layers.DepthwiseConv2D(3, padding="same", name="deep")(y)
    x = layers.Add(name="add")([x, layers.Conv2D(16, 1, name="end")(y)])
    x = layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D(name="pool")(x))
    return randomize(keras.Model(inputs, x))


def milliseconds(kind, width_in, width_out):
    """Blocks of 8 output channels; inputs one by one; of the 3x3 conv one block of 3 costs more than four."""
    blocks = -(-width_out // 8)
    if kind.operation == "conv":
        blocks = 4.5 if kind.kernel == (3, 3) and blocks == 3 else blocks
        return (width_in + 2) * blocks * (1.0 if kind.kernel == (3, 3) else 0.2)
    return {"depthwise": 3.0, "add": 0.5, "mean": 0.1, "dense": 0.1}[kind.operation] * blocks


def make_table(model, at=milliseconds, overhead=0.25):
    """The table of a device that takes exactly what `at` says, known at every width."""
    most = {}
    for call in priced_calls(trace(model)):
        before = most.get(call.kind, (1, 1))
        most[call.kind] = max(before[0], len(call.sets_in)), max(before[1], len(call.sets_out))
    grids = []
    for kind, (most_in, most_out) in most.items():
        ins, outs = tuple(range(1, most_in + 1)), tuple(range(1, most_out + 1))
        grids.append(Grid(kind, ins, outs, np.array([[float(at(kind, i, o)) for o in outs] for i in ins])))
    return LatencyTable(tuple(grids), overhead)
