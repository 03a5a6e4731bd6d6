"""Filter similarity (Wu, Song, Zeng 2023): which filters of a layer others make redundant."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from kprune.criteria.base import Criterion, register_criterion
from kprune.criteria.statistics.pairwise import Pairs, count_rows, cross_terms
from kprune.utils.checks import check_flag, is_number
from kprune.utils.errors import OptionError


def pairwise_distances(filters: np.ndarray, metric: str = "euclidean") -> np.ndarray:
    """Distances of all pairs of rows, from one matrix product.

    Args:
      filters: float64 `[N, weights]`.
      metric: "euclidean" (Wu 2023), or "cosine": one minus the cosine.

    Returns:
      float64 `[N, N]`, symmetric, zero on the diagonal.
    """
    return distances(cross_terms(filters.T), metric).full()


def distances(terms: Pairs, metric: str = "euclidean") -> Pairs:
    """The same from `cross_terms`, in their precision."""
    halves = terms.diagonal() / 2
    norms = np.sqrt(np.maximum(halves, np.finfo(halves.dtype).tiny))

    def block_of(rows: slice, block: np.ndarray) -> np.ndarray:
        if metric == "cosine":
            out = (-2 * norms[rows, None]) * norms[None, rows.start :]
            np.divide(block, out, out=out)
            out += 1
        else:
            out = halves[rows, None] + halves[None, rows.start :]
            out -= block
            np.sqrt(np.abs(out, out=out), out=out)  # below zero by rounding only
        return terms.without_diagonal(out, 0)

    return terms.map(block_of)


@dataclass(frozen=True)
class Neighbours:
    """Which filters of one layer are similar.

    Attributes:
      similar: the pairs with `d_ij < lambda`, bool; false on the diagonal.
      counts: int `[N]`, to how many each is similar.
      threshold: `lambda = mu - alpha * sigma` over the pairs `i < j`.
      mean, deviation: `mu` and the population `sigma`.
    """

    similar: Pairs = field(repr=False)
    counts: np.ndarray = field(repr=False)
    threshold: float
    mean: float
    deviation: float


def find_neighbours(pairs: Pairs | np.ndarray, alpha: float, closest: bool = False) -> Neighbours:
    """Applies the threshold of a layer (Wu 2023, section 3; method steps 2 and 3).

    Args:
      pairs: the distances of all pairs of filters, or the whole matrix `[N, N]`.
      alpha: `lambda = mu - alpha * sigma`; larger prunes less.
      closest: instead, takes only the closest pairs of the layer as similar.
    """
    pairs = pairs if isinstance(pairs, Pairs) else Pairs.of(pairs)
    mean, deviation = moments(pairs)
    threshold = mean - alpha * deviation
    if closest and pairs.count > 1:
        smallest = min(pairs.without_diagonal(block.copy(), np.inf).min() for block in pairs.blocks)
        threshold = float(np.nextafter(smallest, smallest.dtype.type(np.inf)))
    bound = at_least(max(threshold, 0.0), pairs.blocks[0].dtype) if pairs.blocks else 0.0
    similar = pairs.map(lambda rows, block: pairs.without_diagonal(block < bound, False))
    return Neighbours(similar, count_rows(similar), threshold, mean, deviation)


def at_least(value: float, dtype: np.dtype) -> np.floating:
    """The smallest number of a type that is not below a value: less than the one is then less than the other."""
    near = dtype.type(value)
    return near if float(near) >= value else np.nextafter(near, dtype.type(np.inf))


def moments(pairs: Pairs) -> tuple[float, float]:
    """Mean and population standard deviation over the pairs of two different filters.

    Both are taken around a value close to the mean, which is large beside the deviation: so they are exact to about
    1e-9 in any precision of the distances, and the same however the machine adds up.
    """
    number = pairs.count * (pairs.count - 1) // 2
    if not number:
        return 0.0, 0.0
    first = pairs.blocks[0]
    shift = first.dtype.type(first.sum(dtype=np.float64) / (first.size - len(first)))  # its diagonal is zero
    total = squares = 0.0
    for block in pairs.blocks:
        around, own = block - shift, len(block)
        around[:, :own][np.tri(own, dtype=bool)] = 0  # each pair once
        total += float(around.sum(dtype=np.float64))
        squares += float(np.einsum("ij,ij->i", around, around).sum(dtype=np.float64))
    offset = total / number
    return float(shift) + offset, float(np.sqrt(max(squares / number - offset**2, 0.0)))


def by_frequency(candidates: np.ndarray, frequency: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Candidates, first to go first: the most frequent, of them the smallest, then by their number."""
    return candidates[np.lexsort((candidates, norms[candidates], -frequency[candidates]))]


def guarded(order: np.ndarray, layers: list[tuple[np.ndarray, Neighbours]], count: int) -> np.ndarray:
    """Of channel sets in the order in which they would go, those that may: each must leave a kept set similar to
    it in some layer, and leave one to each set removed before it.

    Args:
      order: int `[n]`, candidates, first to go first.
      layers: for each layer its sets, int `[N]`, and which of them are similar.
      count: number of channel sets.

    Returns:
      int array, the part of `order` that goes.
    """
    near = np.zeros(count, dtype=int)
    for sets, neighbours in layers:
        near[sets] += neighbours.counts
    rows_of: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {int(s): [] for s in order}
    for sets, candidates, rows in rows_of_candidates(order, layers, count):
        for candidate, row in zip(candidates.tolist(), rows, strict=True):
            places = row.nonzero()[0]
            rows_of[candidate].append((sets[places], row[places]))
    gone = np.zeros(count, dtype=bool)
    for candidate in order.tolist():
        for sets, times in rows_of[candidate]:
            near[sets] -= times
        if near[candidate] >= 1 and all((near[sets[gone[sets]]] >= 1).all() for sets, _ in rows_of[candidate]):
            gone[candidate] = True
        else:
            for sets, times in rows_of[candidate]:
                near[sets] += times
    return order[gone[order]]


def rows_of_candidates(order: np.ndarray, layers: list[tuple[np.ndarray, Neighbours]], count: int) -> Iterator[tuple]:
    """For layers of the same sets at once: the sets, the candidates among them, and for each candidate in how many of
    the layers each set is similar to it, uint16 `[candidates, N]`.
    """
    wanted, alike = np.zeros(count, dtype=bool), {}
    wanted[order] = True
    for sets, neighbours in layers:
        alike.setdefault(sets.tobytes(), (sets, []))[1].append(neighbours.similar)
    for sets, members in alike.values():
        places = np.flatnonzero(wanted[sets])
        if len(places):
            rows = np.zeros((len(places), len(sets)), dtype=np.uint16)
            for similar in members:
                rows += similar.rows(places)
            yield sets, sets[places], rows


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
      guard: keeps a filter that each one removed in the same round is similar to; False is the paper's literal rule,
        which can remove a whole cluster at once.
      compensate: adds the outgoing weights of a removed filter to those of its nearest kept one, by the least-squares
        factor of the two (the network that the paper's Eq. 5 speaks of).
      coupling: "graph" judges each channel set by its counts summed over all layers that write it; "stage" is the
        paper's rule: all layers around a residual stream lose the smallest rate of its middle layers, first what is
        most frequent; with `guard`, a filter that it would not let go stays, and the rate may then be lower. Stages
        whose shortcuts only pad channels share one stream, so they are one stage.

    Where nothing is redundant, or a round removed less than a tenth of what was still to go, `ratio` is relaxed by 10 %
    (the paper says nothing of either); the plan's rounds tell. In dense blocks, where a channel is read by many layers,
    it is judged by its slices of all their kernels together, and goes for all of them at once: outputs of a growth
    layer become fewer, where the paper drops the inputs of each reader alone, for which a runtime would have to gather.

    Raises:
      OptionError: an argument is out of range.

    Example:
      >>> kprune.criteria.Similarity(alpha=0.9).redundant(kernel)  # kernel [3, 3, 64, 128]
      array([False, True, ...])
    """

    options = ("alpha", "ratio", "metric", "fold_bn", "guard", "compensate", "coupling")
    selects_by = "similarity"

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
        for option, value in (("fold_bn", fold_bn), ("guard", guard), ("compensate", compensate)):
            check_flag(option, value)
        self.alpha, self.ratio, self.metric = float(alpha), float(ratio), metric
        self.fold_bn, self.guard, self.compensate, self.coupling = fold_bn, guard, compensate, coupling

    def redundant(self, kernel: np.ndarray) -> np.ndarray:
        """The redundant filters of one kernel, as section 3 of the paper defines them.

        Args:
          kernel: `[..., N]`, the filters along the last axis, as Keras keeps them; for `fold_bn` already scaled.

        Returns:
          bool `[N]`, True = redundant.
        """
        filters = np.asarray(kernel, dtype=np.float64).reshape(-1, np.shape(kernel)[-1]).T
        neighbours = find_neighbours(pairwise_distances(filters, self.metric), self.alpha)
        result = np.zeros(len(filters), dtype=bool)
        result[self.redundant_among(neighbours, np.linalg.norm(filters, axis=1), self.ratio)] = True
        return result

    def redundant_among(self, neighbours: Neighbours, norms: np.ndarray, ratio: float) -> np.ndarray:
        """The redundant filters of one layer, first to go first.

        Args:
          neighbours: which of its filters are similar.
          norms: float64 `[N]`, of its filters.
          ratio: the share of the filters to which a redundant one is similar.
        """
        frequency = neighbours.counts / len(norms)
        order = by_frequency(np.flatnonzero(frequency >= ratio), frequency, norms)
        return guarded(order, [(np.arange(len(norms)), neighbours)], len(norms)) if self.guard else order
