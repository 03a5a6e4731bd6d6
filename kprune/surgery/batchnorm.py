"""BatchNorm statistics and outgoing weights after pruning."""

import keras
import numpy as np

from kprune import _keras
from kprune.criteria.base import filter_matrix
from kprune.criteria.similarity import pairwise_distances
from kprune.data import batches_of, check_inputs, require_end, require_finite
from kprune.execution import execute
from kprune.graph import Graph, trace
from kprune.makers import writer_entries
from kprune.plan import Plan
from kprune.rules import find_rule
from kprune.structure import following_scale
from kprune.surgery import rebuild


class Statistics:
    """Mean and variance of what enters each BatchNorm, pooled over batches (law of total variance)."""

    def __init__(self):
        self._sums: dict[int, list] = {}

    def apply(self, call, operation, args: tuple, kwargs: dict):
        """Runs one call; a BatchNorm normalizes by the batch and is added up."""
        if find_rule(call.operation).normalizes_channels:
            self.add(operation, _keras.first_input(args, kwargs))
        return operation(*args, **kwargs)

    def add(self, layer, x):
        axes = [axis for axis in range(len(x.shape)) if axis != layer.axis % len(x.shape)]
        mean, variance = (_keras.to_numpy(v).astype(np.float64) for v in keras.ops.moments(x, axes))
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


def merge_factors(graph: Graph, criterion, keep: np.ndarray) -> dict[str, list[tuple[int, int, float]]]:
    """For each removed filter its nearest kept one and the least-squares factor of the two BatchNorm-folded filters.

    Args:
      graph: the traced model.
      criterion: a `Similarity`; its metric says what is near.
      keep: the decision.

    Returns:
      Per writer path, `(removed, kept, factor)`; a channel set is handed on once, by the first layer that writes it.
      Filters that no positive factor explains are left out.
    """
    scales, done, merges = following_scale(graph), set(), {}
    everything = np.ones(len(graph.sets), dtype=bool)
    for weight in graph.writers:
        sets = weight.axes[weight.writes]
        kept, gone = np.flatnonzero(keep[sets]), np.flatnonzero(~keep[sets])
        if not len(gone):
            continue
        filters = filter_matrix(weight, everything) * scales.get(weight.path, np.ones(len(sets)))[:, None]
        nearest = kept[pairwise_distances(filters, criterion.metric)[np.ix_(gone, kept)].argmin(axis=1)]
        power = np.einsum("ij,ij->i", filters[nearest], filters[nearest])
        factor = np.einsum("ij,ij->i", filters[gone], filters[nearest]) / np.maximum(power, np.finfo(float).tiny)
        rows = []
        for q, p, f in zip(gone.tolist(), nearest.tolist(), factor.tolist(), strict=True):
            if f > 0 and int(sets[q]) not in done:
                rows.append((q, p, f))
            done.add(int(sets[q]))
        merges[weight.path] = rows
    return merges


def handed_on(graph: Graph, plan: Plan) -> dict[int, np.ndarray]:
    """The reader kernels once the outgoing weights of removed filters are added to those of filters that stand in for
    them (the network that Wu 2023, Eq. 5, speaks of).

    Args:
      graph: the traced model.
      plan: its `merge` entries say which.

    Returns:
      New values of the readers concerned, by the id of the variable.
    """
    values: dict[int, np.ndarray] = {}
    for entry, writer in zip(writer_entries(plan.layers, graph), graph.writers, strict=True):
        if not entry.merge:
            continue
        sets = writer.axes[writer.writes]
        for reader in graph.readers:
            own = reader.axes[reader.reads]
            if not np.isin(own, sets).any():
                continue
            value = values.setdefault(id(reader.variable), reader.value().copy())
            kernel = np.moveaxis(value, reader.reads, 0)
            for removed, kept, factor in entry.merge:
                source, target = np.flatnonzero(own == sets[removed]), np.flatnonzero(own == sets[kept])
                if len(source) == len(target):
                    kernel[target] += (factor * kernel[source]).astype(kernel.dtype)
    return values
