"""Filter similarity (Wu, Song, Zeng 2023): which filters of a layer others make redundant."""

from dataclasses import dataclass

import numpy as np

from kprune.criteria.base import Criterion, register_criterion
from kprune.errors import OptionError
from kprune.options import is_number

BLOCK = 64  # rows that are worked on together


def pairwise_distances(filters: np.ndarray, metric: str = "euclidean") -> np.ndarray:
    """Distances of all pairs of rows, from one matrix product.

    Args:
      filters: float64 `[N, weights]`.
      metric: "euclidean" (Wu 2023), or "cosine": one minus the cosine.

    Returns:
      float64 `[N, N]`, symmetric, zero on the diagonal.
    """
    return distances_from_products(filters @ filters.T, metric)


def distances_from_products(products: np.ndarray, metric: str = "euclidean") -> np.ndarray:
    """The same from the inner products of all pairs, `[N, N]`, in their precision; block by block, for the cache."""
    squares = np.diagonal(products).copy()
    norms = np.sqrt(np.maximum(squares, np.finfo(squares.dtype).tiny))
    distances = np.empty_like(products)
    for start in range(0, len(products), BLOCK):
        rows, out = slice(start, start + BLOCK), distances[start : start + BLOCK]
        if metric == "cosine":
            np.divide(products[rows], norms[rows, None], out=out)
            np.divide(out, norms[None, :], out=out)
            np.subtract(1.0, out, out=out)
        else:
            np.multiply(products[rows], -2.0, out=out)
            out += squares[rows, None]
            out += squares[None, :]
            np.sqrt(np.maximum(out, 0.0, out=out), out=out)
    np.fill_diagonal(distances, 0.0)
    return distances


@dataclass(frozen=True)
class Neighbours:
    """Which filters of one layer are similar.

    Attributes:
      similar: bool `[N, N]`, `d_ij < lambda`, false on the diagonal.
      counts: int `[N]`, to how many each is similar.
      threshold: `lambda = mu - alpha * sigma` over the pairs `i < j`.
      mean, deviation: `mu` and the population `sigma`.
    """

    similar: np.ndarray
    counts: np.ndarray
    threshold: float
    mean: float
    deviation: float


def find_neighbours(distances: np.ndarray, alpha: float, closest: bool = False) -> Neighbours:
    """Applies the threshold of a layer (Wu 2023, section 3; method steps 2 and 3).

    Args:
      distances: `[N, N]`.
      alpha: `lambda = mu - alpha * sigma`; larger prunes less.
      closest: instead, takes only the closest pairs of the layer as similar.
    """
    count = len(distances)
    pairs = max(count * (count - 1), 1)
    mean = float(distances.sum(axis=1).sum(dtype=np.float64)) / pairs
    deviation = spread_around(mean, distances, pairs)
    threshold = mean - alpha * deviation
    if closest and count > 1:
        threshold = float(np.nextafter(smallest_of_pairs(distances), distances.dtype.type(np.inf)))
    similar = distances < max(threshold, 0.0)
    np.fill_diagonal(similar, False)
    return Neighbours(similar, similar.sum(axis=1), threshold, mean, deviation)


def spread_around(mean: float, distances: np.ndarray, pairs: int) -> float:
    """The population standard deviation of the pairs around their mean, which is large beside it."""
    squares = 0.0
    for start in range(0, len(distances), BLOCK):
        difference = distances[start : start + BLOCK] - distances.dtype.type(mean)
        np.fill_diagonal(difference[:, start:], 0.0)
        squares += float(np.vdot(difference, difference))
    return float(np.sqrt(squares / pairs))


def smallest_of_pairs(distances: np.ndarray):
    """The smallest distance of two different filters."""
    return min(row[np.arange(len(row)) != place].min() for place, row in enumerate(distances))


def guarded(order: np.ndarray, layers: list[tuple[np.ndarray, np.ndarray]], count: int) -> np.ndarray:
    """Of channel sets in the order in which they would go, those that may: each must leave a kept set similar to
    it in some layer, and leave one to each set removed before it.

    Args:
      order: int `[n]`, candidates, first to go first.
      layers: for each layer its sets, int `[N]`, and which of them are similar, bool `[N, N]`.
      count: number of channel sets.

    Returns:
      int array, the part of `order` that goes.
    """
    near = np.zeros(count, dtype=int)
    places: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {int(s): [] for s in order}
    for sets, similar in layers:
        near[sets] += similar.sum(axis=1)
        for place, s in enumerate(sets.tolist()):
            if s in places:
                places[s].append((sets, similar[place]))
    gone = np.zeros(count, dtype=bool)
    for candidate in order.tolist():
        for sets, row in places[candidate]:
            near[sets] -= row
        left = all((near[sets[row & gone[sets]]] >= 1).all() for sets, row in places[candidate])
        if near[candidate] >= 1 and left:
            gone[candidate] = True
        else:
            for sets, row in places[candidate]:
                near[sets] += row
    return order[gone[order]]


@register_criterion("similarity", "wu2023")
class Similarity(Criterion):
    """Filters that are similar to many others of their layer are redundant.

    Source: Wu, Song, Zeng 2023, "Model pruning based on filter similarity for edge device deployment", section 3.

    Args:
      alpha: a pair is similar when its distance is below `mu - alpha * sigma`; larger prunes less. Useful: 0.8..1.1.
      ratio: a filter is redundant when it is similar to at least this share of the filters still kept. Useful:
        0.25..0.4.
      metric: "euclidean" (the paper), or "cosine".
      fold_bn: compares `gamma * W / sqrt(var + eps)` in the place of `W`.
      guard: keeps a filter that the removed one is similar to; False is the paper's literal rule, which can remove
        a whole cluster.
      compensate: adds the outgoing weights of a removed filter to those of its nearest kept one, by the least-squares
        factor of the two (the network that the paper's Eq. 5 speaks of).
      coupling: "graph" judges each channel set by its counts summed over all layers that write it; "stage" is the
        paper's rule: all layers around a residual stream lose the smallest rate of its middle layers.

    Raises:
      OptionError: an argument is out of range.

    Example:
      >>> kprune.criteria.Similarity(alpha=0.9).redundant(kernel)  # kernel [3, 3, 64, 128]
      array([False, True, ...])
    """

    options = ("alpha", "ratio", "metric", "fold_bn", "guard", "compensate", "coupling")

    def __init__(
        self,
        alpha: float = 1.0,
        ratio: float = 0.35,
        metric: str = "euclidean",
        fold_bn: bool = False,
        guard: bool = True,
        compensate: bool = False,
        coupling: str = "graph",
    ):
        if not (is_number(alpha) and np.isfinite(alpha) and alpha >= 0):
            raise OptionError(f"alpha is {alpha!r}.", "A number of at least 0.", "Useful values: 0.8 to 1.1.")
        if not (is_number(ratio) and 0 < ratio <= 1):
            raise OptionError(f"ratio is {ratio!r}.", "A share above 0, up to 1.", "Useful values: 0.25 to 0.4.")
        for option, value, allowed in (
            ("metric", metric, ("euclidean", "cosine")),
            ("coupling", coupling, ("graph", "stage")),
        ):
            if value not in allowed:
                raise OptionError(f"{option} is {value!r}.", f"One of {allowed}.", "Choose one of them.")
        self.alpha, self.ratio, self.metric = float(alpha), float(ratio), metric
        self.fold_bn, self.guard, self.compensate, self.coupling = fold_bn, guard, compensate, coupling

    def redundant(self, kernel: np.ndarray) -> np.ndarray:
        """The redundant filters of one kernel (method 1.1).

        Args:
          kernel: `[..., N]`, the filters along the last axis, as Keras keeps them.

        Returns:
          bool `[N]`, True = redundant.
        """
        filters = np.asarray(kernel, dtype=np.float64).reshape(-1, np.shape(kernel)[-1]).T
        neighbours = find_neighbours(pairwise_distances(filters, self.metric), self.alpha)
        frequency = neighbours.counts / len(filters)
        candidates = np.flatnonzero(frequency >= self.ratio)
        norms = np.linalg.norm(filters, axis=1)
        order = candidates[np.lexsort((candidates, norms[candidates], -frequency[candidates]))]
        result = np.zeros(len(filters), dtype=bool)
        layers = [(np.arange(len(filters)), neighbours.similar)]
        result[guarded(order, layers, len(filters)) if self.guard else order] = True
        return result
