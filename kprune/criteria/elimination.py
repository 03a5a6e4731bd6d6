"""What the removal of a channel costs once the readers' other weights are refitted: Optimal Brain Surgeon, structured.

Hassibi & Stork 1992; in groups: Optimal Brain Compression (2208.11580), ZipLM (2302.04089).
"""

from dataclasses import dataclass, field

import numpy as np

from kprune import _keras
from kprune.channels import spread
from kprune.cost import CostModel
from kprune.data import check_inputs, require_finite, take
from kprune.execution import execute
from kprune.graph import Graph, SlicedWeight
from kprune.linear import LinearMap, Places, channels_last, choose_places, linear_map
from kprune.progress import Progress
from kprune.structure import Landing, landings, scale_of

IMAGES = 1024  # at most so many are used
MEMORY = 2**31  # bytes of activations of two networks that may be held at once
MOST_FEATURES = 8192  # above, what features have in common is left out
ROWS_PER_FEATURE = 32
FEWEST_ROWS, MOST_ROWS = 4096, 16384
RIDGE = 1e-3  # of the mean power of a feature


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


def images_for(graph: Graph, data) -> tuple[np.ndarray, ...]:
    """As many images as are used, one array per input of the model.

    Raises:
      OptionError: they are not of the model's shape, or hold NaN.
    """
    cost = CostModel(graph)
    each = 2 * cost.activation_bytes(cost.everything())
    count = IMAGES if np.isnan(each) else int(np.clip(MEMORY // max(each, 1), 16, IMAGES))
    images = take(data, count, graph)
    check_inputs(graph, images)
    require_finite("data hold", images)
    return images


def as_float(x) -> np.ndarray:
    return _keras.to_numpy(x).astype(np.float32, copy=False)


def linear_readers(graph: Graph) -> dict[int, tuple[SlicedWeight, LinearMap]]:
    """The readers that are known as matrix products, by the id of the layer, and how each kernel acts."""
    known = ((weight, linear_map(weight.layer)) for weight in graph.readers)
    return {id(w.layer): (w, linear) for w, linear in known if linear is not None and linear.weight == w.name}


def some_places(linear: LinearMap, layer, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Places:
    """Output places by lot, so many for each feature that a fit is well determined."""
    features = linear.matrix(layer, np.empty(_keras.variables_by_name(layer)[linear.weight].shape, np.int8)).shape[1]
    count = int(np.clip(ROWS_PER_FEATURE * features, FEWEST_ROWS, MOST_ROWS))
    return choose_places(rng, len(x), linear.map_shape(layer, x, y), count)


def quadratics(graph: Graph, images: tuple[np.ndarray, ...], verbose=None) -> list[Quadratic]:
    """The quadratics of all readers, from one pass over the images.

    An error of an output counts by its share of the variance of the tensor that it ends in: the residual stream that
    it is added to, where there is one. So the costs of all layers compare.
    """
    observer, progress = Observer(graph), Progress(len(graph.calls), "operation", verbose)

    def apply(call, operation, args, kwargs):
        output = operation(*args, **kwargs)
        observer.see(call, (args, kwargs), output)
        progress.show(observer.calls)
        return output

    execute(graph, images, apply)
    progress.finish(observer.calls)
    return observer.finish()


@dataclass(frozen=True)
class Seen:
    """What one pass shows of one reader: per group, the unit of its features and their inverse covariance in it."""

    weight: SlicedWeight
    linear: LinearMap
    landing: Landing
    inverses: list[tuple[float, np.ndarray]] = field(repr=False)


class Observer:
    """Looks at each reader's input while the network runs; a shared layer at its first call."""

    def __init__(self, graph: Graph):
        self.graph, self.landings = graph, landings(graph)
        self.known = linear_readers(graph)
        self.energy: dict[int, float] = {}
        calls = [call for call in graph.calls if call.outputs and call.outputs[0] in self.landings]
        self.totals = {self.landings[call.outputs[0]].total: call.operation for call in calls}
        self.rng, self.calls = np.random.default_rng(0), 0
        self.seen: dict[int, Seen] = {}

    def see(self, call, given: tuple[tuple, dict], output):
        self.calls += 1
        for place, tensor in zip(call.outputs, _keras.flatten(output), strict=True):
            if place in self.totals:
                tensor = channels_last(self.totals[place], _keras.to_numpy(tensor))
                self.energy[place] = float(tensor.var(axis=tuple(range(tensor.ndim - 1)), dtype=np.float64).sum())
        if call.owner not in self.known or call.owner in self.seen:
            return
        weight, linear = self.known[call.owner]
        x, y = as_float(_keras.first_input(*given)), as_float(output)
        rows = linear.rows(weight.layer, x, some_places(linear, weight.layer, x, y, self.rng))
        self.seen[call.owner] = Seen(weight, linear, self.landings[call.outputs[0]], [inverse(r) for r in rows])

    def finish(self) -> list[Quadratic]:
        found = []
        for weight in {id(w.layer): w for w in self.graph.readers}.values():
            seen = self.seen.get(id(weight.layer))
            found += blind(weight) if seen is None else self.quadratics(seen)
        return found

    def quadratics(self, seen: Seen) -> list[Quadratic]:
        weight, layer = seen.weight, seen.weight.layer
        filters = weight.axes[weight.writes]
        scale = np.ones(len(filters)) if seen.landing.norm is None else scale_of(seen.landing.norm.operation)
        kernel = weight.value() * spread(scale, len(weight.shape), weight.writes)
        matrices = seen.linear.matrix(layer, kernel.astype(np.float32))
        sets, columns = (seen.linear.matrix(layer, positions(weight, axis)) for axis in (weight.reads, weight.writes))
        energy = self.energy[seen.landing.total]
        return [
            Quadratic(h, w * np.float32(in_units_of(energy, unit)), s[:, 0], f[0])
            for (unit, h), w, s, f in zip(seen.inverses, matrices, sets, columns, strict=True)
        ]


def positions(weight: SlicedWeight, axis: int) -> np.ndarray:
    """The channel set of each element of a kernel along one of its axes, in the kernel's shape."""
    return np.broadcast_to(spread(weight.axes[axis], len(weight.shape), axis), weight.shape)


def in_units_of(energy: float, unit: float) -> float:
    """`unit / sqrt(energy)`, and large but finite where nothing comes out of what varies."""
    return unit / np.sqrt(energy + float(np.finfo(np.float32).tiny) * unit**2)


def to_unit(rows: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """The root mean square as a power of two, the values in it, and the mean square of each feature (the last axis).

    In float32 the products of small values would vanish, and are slow before they do.
    """
    power = np.einsum("...rf,...rf->...f", rows, rows, dtype=np.float64) / rows.shape[-2]
    square = power.mean()
    unit = float(np.exp2(np.round(np.log2(square) / 2))) if square else 1.0
    return unit, rows / np.float32(unit), power / unit**2


def inverse(rows: np.ndarray) -> tuple[float, np.ndarray]:
    """The unit of the features, and the inverse of their covariance in it, with the ridge; its diagonal where there
    are too many."""
    unit, rows, power = to_unit(rows - rows.mean(axis=0))
    ridge = RIDGE * (power.mean() or 1.0)
    if rows.shape[1] > MOST_FEATURES:
        return unit, (1.0 / (power + ridge)).astype(np.float32)
    covariance = (rows.T @ rows).astype(np.float64) / len(rows)
    covariance[np.diag_indices_from(covariance)] += ridge
    return unit, np.linalg.inv(covariance).astype(np.float32)


def blind(weight: SlicedWeight) -> list[Quadratic]:
    """The quadratic of a reader that is not known as a matrix product: as if its features were white noise."""
    kernel = np.moveaxis(weight.value(), weight.reads, 0).reshape(weight.shape[weight.reads], -1).astype(np.float32)
    norms = np.linalg.norm(kernel, axis=1, keepdims=True) / max(np.linalg.norm(kernel), np.finfo(np.float32).tiny)
    return [Quadratic(np.ones(len(norms), np.float32), norms, weight.axes[weight.reads], None)]
