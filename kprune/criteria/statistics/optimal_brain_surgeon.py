"""What the removal of a channel costs once the readers' other weights are refitted: Optimal Brain Surgeon, structured.

Hassibi & Stork 1992; in groups: Optimal Brain Compression (2208.11580), ZipLM (2302.04089).
"""

from dataclasses import dataclass, field

import numpy as np

from kprune.compat.functional import flatten
from kprune.compat.variables import to_numpy
from kprune.criteria.statistics.contributions import Contributions, contributions, energy_of, listeners
from kprune.criteria.statistics.linear_layers import Reader, as_float, linear_readers, places_for
from kprune.criteria.statistics.normal_equations import RIDGE, to_unit
from kprune.graph import Graph, SlicedWeight, calls_by_operation
from kprune.graph.epilogues import Landing, landings, scale_of
from kprune.graph.interpreter import execute, tensors_given
from kprune.rules.channels import spread
from kprune.rules.linear_maps import channels_last
from kprune.utils.progress import Progress

MOST_FEATURES = 8192  # above, what features have in common is left out


@dataclass(frozen=True)
class Quadratic:
    """One reader (or one group of a grouped conv): what its output loses when features go and the rest is refitted.

    The loss is `tr(W_g^T [(H^-1)_gg]^-1 W_g)` for the features `g` of a channel, `H` the covariance of the features.

    Attributes:
      inverse: float32 `H^-1` `[F, F]`, or its diagonal `[F]`.
      weights: float32 `[F, filters]`, each column times the root of what an error of that filter weighs.
      sets: int `[F]`, the channel set of each feature.
      filters: int `[filters]`, the channel set that each column writes, or None where columns are no filters.
    """

    inverse: np.ndarray = field(repr=False)
    weights: np.ndarray = field(repr=False)
    sets: np.ndarray = field(repr=False)
    filters: np.ndarray | None = field(repr=False)

    def costs(self) -> tuple[np.ndarray, np.ndarray]:
        """The channel sets that are read, and what the removal of each alone costs."""
        unique, counts = np.unique(self.sets, return_counts=True)
        found = np.zeros(len(unique))
        order, starts = np.argsort(self.sets, kind="stable"), np.cumsum([0, *counts])[:-1]
        for size in np.unique(counts):  # one, but for readers of several kinds of channels at once
            which = np.flatnonzero(counts == size)
            index = order[starts[which, None] + np.arange(size)]
            weights = self.weights[index]
            if self.inverse.ndim == 1:
                refitted = weights / self.inverse[index][..., None]
            else:
                refitted = np.linalg.solve(self.inverse[index[:, :, None], index[:, None, :]], weights)
            found[which] = np.einsum("gko,gko->g", weights, refitted)
        return unique, found

    def without(self, keep: np.ndarray) -> "Quadratic":
        """The same once channel sets have gone: the rest refitted, so that later costs are those of the next ones."""
        stay, inverse, weights, filters = keep[self.sets], self.inverse, self.weights, self.filters
        if filters is not None:
            weights, filters = weights[:, keep[filters]], filters[keep[filters]]
        if not stay.all():
            if inverse.ndim == 1:
                inverse, weights = inverse[stay], weights[stay]
            else:
                cross = inverse[np.ix_(stay, ~stay)]
                block = inverse[np.ix_(~stay, ~stay)]
                inverse = inverse[np.ix_(stay, stay)] - cross @ np.linalg.solve(block, cross.T)
                weights = weights[stay] - cross @ np.linalg.solve(block, weights[~stay])
        return Quadratic(inverse, weights, self.sets[stay], filters)

    def touched(self, keep: np.ndarray) -> bool:
        return not (keep[self.sets].all() and (self.filters is None or keep[self.filters].all()))


def quadratics(graph: Graph, images: tuple[np.ndarray, ...], verbose=None) -> list:
    """What the removal of channels costs their readers, from one pass over the images: a `Quadratic` for each reader,
    and `Contributions` for each operation that hears channels without weights.

    An error of an output counts by its share of the variance of the tensor that it ends in: the residual stream that
    it is added to, where there is one. So the costs of all layers compare.
    """
    observer, progress = Observer(graph), Progress(len(graph.calls), "operation", verbose)

    def apply(call, operation, args, kwargs):
        output = operation(*args, **kwargs)
        observer.see(call, operation, (args, kwargs), output)
        progress.show(observer.calls)
        return output

    execute(graph, images, apply)
    progress.finish(observer.calls)
    return observer.finish()


@dataclass(frozen=True)
class Seen:
    """What one call shows of one reader: where its output lands, the energy of the product itself where it stays
    inside, and per group the unit of its features and their covariance in it.
    """

    landing: Landing
    energy: float | None
    covariances: list[tuple[float, np.ndarray]] = field(repr=False)


class Observer:
    """Looks at what each reader sees while the network runs, in all calls of its layer."""

    def __init__(self, graph: Graph):
        self.graph, self.landings = graph, landings(graph)
        self.readers: dict[int, list[Reader]] = {}
        for reader in linear_readers(graph):
            self.readers.setdefault(id(reader.weight.layer), []).append(reader)
        self.energy: dict[int, float] = {}
        calls = [call for call in graph.calls if call.outputs and call.outputs[0] in self.landings]
        self.totals = {self.landings[call.outputs[0]].total: call.operation for call in calls}
        self.count = {owner: len(own) for owner, own in calls_by_operation(graph).items()}
        self.listeners = listeners(graph)
        self.rng, self.later, self.calls = np.random.default_rng(0), np.random.default_rng(1), 0
        self.seen: dict[tuple[int, str], list[Seen]] = {}
        self.contributions: list[Contributions] = []

    def see(self, call, operation, given: tuple[tuple, dict], output):
        self.calls += 1
        for place, tensor in zip(call.outputs, flatten(output), strict=True):
            if place in self.totals:
                self.energy[place] = energy_of(channels_last(self.totals[place], to_numpy(tensor)))
        if call.outputs[0] in self.listeners:
            self.contributions.append(contributions(self.graph, call, operation, given, output))
        for reader in self.readers.get(call.owner, []):
            self.look(reader, call, tensors_given(call, *given), output)

    def look(self, reader: Reader, call, inputs: list, output):
        linear, layer, seen = reader.linear, reader.weight.layer, self.seen.setdefault(reader.key, [])
        x, y = as_float(inputs[linear.source]), as_float(output)
        rng, count = self.later if seen else self.rng, self.count[call.owner]
        rows = linear.rows(layer, x, places_for(linear, layer, x, y, rng, count))
        energy = None
        if linear.inside:
            made = rows @ linear.matrix(layer, reader.weight.value().astype(np.float32))
            energy = float(made.var(axis=1, dtype=np.float64).sum())
        measure = inverse if count == 1 else covariance
        seen.append(Seen(self.landings.get(call.outputs[0], Landing()), energy, [measure(r) for r in rows]))

    def finish(self) -> list:
        known = {reader.key: reader for found in self.readers.values() for reader in found}
        found = []
        for weight in self.graph.readers:
            key = id(weight.layer), weight.name
            found += self.quadratics(known[key], self.seen[key]) if self.seen.get(key) else blind(weight)
        return found + self.contributions

    def quadratics(self, reader: Reader, seen: list[Seen]) -> list[Quadratic]:
        """One per group. A layer that is called several times has one, of the errors of all its calls together."""
        weight, layer = reader.weight, reader.weight.layer
        scales = [scale_of(s.landing.norm.operation) for s in seen if s.landing.norm is not None]
        kernel = weight.value()
        if scales and len(scales) == len(seen):
            scale = scales[0] if len(scales) == 1 else np.sqrt(np.mean(np.square(scales), axis=0))
            kernel = kernel * spread(scale, len(weight.shape), weight.writes)
        matrices = reader.linear.matrix(layer, kernel.astype(np.float32))
        sets = reader.positions(weight.reads)[:, :, 0]
        filters = weight.writes is not None and weight.axes[weight.writes] is not None
        columns = reader.positions(weight.writes)[:, 0] if filters else [None] * len(sets)
        energies = [self.energy[s.landing.total] if s.energy is None else s.energy for s in seen]
        found = []
        for group, (w, own, made) in enumerate(zip(matrices, sets, columns, strict=True)):
            unit, h = together([s.covariances[group] for s in seen], energies)
            found.append(Quadratic(h, w * np.float32(unit), own, made))
        return found


def together(found: list[tuple[float, np.ndarray]], energies: list[float]) -> tuple[float, np.ndarray]:
    """The inverse covariance of the features of all calls, each weighed by what an error of its output counts, and the
    factor that brings weights into its unit; of a single call its own.
    """
    factors = [in_units_of(energy, unit) for (unit, _), energy in zip(found, energies, strict=True)]
    if len(found) == 1:
        return factors[0], found[0][1]
    largest = max(factors)
    total = sum((factor / largest) ** 2 * h for factor, (_, h) in zip(factors, found, strict=True))
    return largest, inverted(total)


def in_units_of(energy: float, unit: float) -> float:
    """`unit / sqrt(energy)`, and large but finite where nothing comes out of what varies."""
    return unit / np.sqrt(energy + float(np.finfo(np.float32).tiny) * unit**2)


def covariance(rows: np.ndarray) -> tuple[float, np.ndarray]:
    """The unit of the features, and their covariance in it, with the ridge; its diagonal where there are too many."""
    unit, rows, power = to_unit(rows - rows.mean(axis=0))
    ridge = RIDGE * (power.mean() or 1.0)
    if rows.shape[1] > MOST_FEATURES:
        return unit, power + ridge
    found = (rows.T @ rows).astype(np.float64) / len(rows)
    found[np.diag_indices_from(found)] += ridge
    return unit, found


def inverted(found: np.ndarray) -> np.ndarray:
    """The inverse of a covariance `[F, F]`, or of its diagonal `[F]`, in float32."""
    return (1.0 / found if found.ndim == 1 else np.linalg.inv(found)).astype(np.float32)


def inverse(rows: np.ndarray) -> tuple[float, np.ndarray]:
    """The unit of the features, and the inverse of their covariance in it."""
    unit, found = covariance(rows)
    return unit, inverted(found)


def blind(weight: SlicedWeight) -> list[Quadratic]:
    """The quadratic of a reader that is not known as a matrix product: as if its features were white noise."""
    kernel = np.moveaxis(weight.value(), weight.reads, 0).reshape(weight.shape[weight.reads], -1).astype(np.float32)
    norms = np.linalg.norm(kernel, axis=1, keepdims=True) / max(np.linalg.norm(kernel), np.finfo(np.float32).tiny)
    return [Quadratic(np.ones(len(norms), np.float32), norms, weight.axes[weight.reads], None)]
