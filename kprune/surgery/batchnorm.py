"""BatchNorm statistics after pruning."""

import keras
import numpy as np

from kprune.compat.functional import first_input
from kprune.compat.variables import to_numpy
from kprune.graph import trace
from kprune.graph.batches import batches_of, check_inputs, require_end, require_finite
from kprune.graph.interpreter import execute
from kprune.rules import find_rule
from kprune.surgery.rebuild import rebuild


class Statistics:
    """Mean and variance of what enters each BatchNorm, pooled over batches (law of total variance)."""

    def __init__(self):
        self._sums: dict[int, list] = {}

    def apply(self, call, operation, args: tuple, kwargs: dict):
        """Runs one call; a BatchNorm normalizes by the batch and is added up."""
        if find_rule(call.operation).normalizes_channels:
            self.add(operation, first_input(args, kwargs))
        return operation(*args, **kwargs)

    def add(self, layer, x):
        axes = [axis for axis in range(len(x.shape)) if axis != layer.axis % len(x.shape)]
        mean, variance = (to_numpy(v).astype(np.float64) for v in keras.ops.moments(x, axes))
        count = float(np.prod([x.shape[axis] for axis in axes]))
        entry = self._sums.setdefault(id(layer), [layer, 0.0, 0.0, 0.0])
        entry[1:] = [entry[1] + count, entry[2] + count * mean, entry[3] + count * (variance + mean**2)]
        set_statistics(layer, mean, variance)

    def finish(self):
        """Gives each BatchNorm the statistics of all batches."""
        for layer, count, total, squares in self._sums.values():
            set_statistics(layer, total / count, np.maximum(squares / count - (total / count) ** 2, 0.0))


def set_statistics(layer, mean: np.ndarray, variance: np.ndarray):
    layer.moving_mean.assign(mean)
    layer.moving_variance.assign(variance)


def recalibrate_batchnorm(model, data):
    """A copy of the model with new BatchNorm moving statistics; nothing else changes.

    Measure before you rely on it: it helps a pruned network whose weights were not repaired, and can hurt another.

    Args:
      model: a built functional or Sequential model; it is only read.
      data: images `[n, ...]` as the model takes them, or anything else that `fit` takes. The statistics are those of
        all of them pooled (law of total variance), each batch normalized by its own while it passes, dropout off.

    Returns:
      The copy, compiled as the model is.

    Raises:
      OptionError: `data` is empty, never ends, holds NaN, or is not of the model's shape.
      ModelError: the model has no graph.

    Example:
      >>> small = kprune.recalibrate_batchnorm(small, x_train[:1024])
    """
    graph = trace(model)
    copy = rebuild(graph, np.ones(len(graph.sets), dtype=bool))
    new, statistics = trace(copy), Statistics()
    require_end(data)
    for batch in batches_of(data, graph=graph):
        check_inputs(graph, batch.inputs)
        require_finite("data hold", batch.inputs)
        execute(new, batch.inputs, statistics.apply)
    statistics.finish()
    return copy
