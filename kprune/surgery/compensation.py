"""Outgoing weights of removed filters, handed on to the filters that stand in for them."""

import numpy as np

from kprune.criteria.base import filter_matrix
from kprune.criteria.similarity import pairwise_distances
from kprune.graph import Graph
from kprune.graph.epilogues import following_scale
from kprune.graph.makers import writer_entries
from kprune.selection import Plan


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
