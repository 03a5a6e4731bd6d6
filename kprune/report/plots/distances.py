"""The distances between the filters of each layer, their Gaussian, and the threshold (Wu 2023, Fig. 2)."""

import math
from dataclasses import dataclass, field

import numpy as np

from kprune.criteria import Similarity, get_criterion
from kprune.criteria.similarity import find_neighbours, pairwise_distances
from kprune.graph import Graph, trace
from kprune.graph.dead_channels import masked_sets
from kprune.graph.epilogues import following_scale
from kprune.report.plots import style
from kprune.selection.by_similarity import judged
from kprune.selection.limits import as_patterns, matching
from kprune.utils.errors import OptionError

PANELS = 9  # of a long network, so many layers are shown
BINS = 40  # at most
EQUAL = 1e-6  # distances that differ by less, relatively, are drawn as one


@dataclass(frozen=True)
class ComparedFilters:
    """What similarity compares in one layer.

    Attributes:
      name: the layer's path; with "(inputs)" where, in a dense block, its input slices are compared.
      filters: float64 `[N, weights]`, those that no training mask has zeroed.
    """

    name: str
    filters: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class LayerDistances:
    """The distances of one layer.

    Attributes:
      name: see `ComparedFilters`.
      distances: float64 `[N (N - 1) / 2]`, of the pairs `i < j`.
      mean, deviation: `mu` and the population `sigma`.
      threshold: `lambda = mu - alpha * sigma`.
    """

    name: str
    distances: np.ndarray = field(repr=False)
    mean: float
    deviation: float
    threshold: float

    @property
    def similar(self) -> float:
        """The share of the pairs that are similar, 0..1."""
        return float((self.distances < self.threshold).mean()) if len(self.distances) else 0.0


def require_similarity(criterion) -> Similarity:
    """The similarity criterion of a name, an object or None.

    Raises:
      OptionError: it is another criterion, which compares no distances.
    """
    criterion = Similarity() if criterion is None else get_criterion(criterion)
    if criterion.selects_by != "similarity":
        raise OptionError(
            f"criterion is {criterion!r}.",
            "'similarity' or a Similarity object: other criteria have no distances.",
            "Pass kprune.criteria.Similarity(...).",
        )
    return criterion


def compared_filters(graph: Graph, criterion: Similarity, layers=None) -> list[ComparedFilters]:
    """What similarity compares, layer by layer, in the first round.

    Args:
      graph: the traced model.
      criterion: for `fold_bn`.
      layers: names or patterns, or None for all.

    Raises:
      OptionError: a name matches no layer, or nothing is left to compare.
    """
    keep = ~masked_sets(graph)
    scales = following_scale(graph) if criterion.fold_bn else {}
    chosen = None if layers is None else matching(graph, as_patterns(layers), "layers")
    found = []
    for slices in judged(graph, scales):
        path = slices.weight.path
        if chosen is not None and path not in chosen:
            continue
        columns, sets = slices.columns(slices.value(), keep, keep)
        own = slices.weight.axes[slices.axis]
        own = own[keep[own] & slices.judged]
        rows = columns.T.astype(float)
        if len(rows) == len(own):
            rows = rows[np.searchsorted(sets, own)]  # in the order of the filters
        if len(rows) > 1:
            found.append(ComparedFilters(path if slices.axis == slices.weight.writes else f"{path} (inputs)", rows))
    if not found:
        raise OptionError(
            f"Nothing in '{graph.model.name}' is compared{'' if layers is None else f' in {layers}'}.",
            "A layer that may lose filters, with two of them or more.",
            "See the reasons in plan_pruning(model, ...).summary().",
        )
    return found


def distances_of(layer: ComparedFilters, criterion: Similarity) -> LayerDistances:
    """The distances of one layer with the threshold of the criterion."""
    distances = pairwise_distances(layer.filters, criterion.metric)
    found = find_neighbours(distances, criterion.alpha)
    pairs = distances[np.triu_indices(len(distances), 1)]
    return LayerDistances(layer.name, pairs, found.mean, found.deviation, found.threshold)


def layer_distances(model, criterion=None, layers=None) -> list[LayerDistances]:
    """The distances between the filters of each layer, with the threshold below which two are similar.

    Args:
      model: a built functional or Sequential `keras.Model`. Filters that training masks have zeroed are left out.
      criterion: "similarity", a `kprune.criteria.Similarity`, or None for its defaults.
      layers: names or patterns of layers; None: all that may lose filters.

    Returns:
      One `LayerDistances` per layer, from the input on.

    Raises:
      OptionError: another criterion, or a name that matches no layer.
      ModelError: the model has no graph.

    Example:
      >>> kprune.plots.layer_distances(model)[0].threshold
      0.61
    """
    criterion = require_similarity(criterion)
    return [distances_of(layer, criterion) for layer in compared_filters(trace(model), criterion, layers)]


def plot_distances(model, path, criterion=None, layers=None):
    """Histograms of the distances between filters, with their Gaussian and the threshold (Wu 2023, Fig. 2).

    Args:
      model, criterion: see `layer_distances`.
      path: a picture file; its suffix is the format.
      layers: names or patterns of layers; None: nine, spread evenly over the depth.

    Returns:
      The path.

    Raises:
      OptionError: see `layer_distances`; or matplotlib is missing, or does not know the suffix.
      ExportError: the file cannot be written.

    Example:
      >>> kprune.plots.plot_distances(model, "distances.png", layers=["stage2_*"])
    """
    criterion = require_similarity(criterion)
    every = compared_filters(trace(model), criterion, layers)
    shown = every if layers is not None else spread_evenly(every, PANELS)
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    in_legend = {1: 1, 2: 2, 3: 4}[columns]
    figure = style.new_figure(max(3.6 * columns, 4.2), 2.1 * rows + 0.7 + 0.22 * math.ceil(4 / in_legend))
    panels = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for axes, layer in zip(panels, shown, strict=False):
        draw_distances(axes, distances_of(layer, criterion))
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    unit = "Euclidean distance of two filters" if criterion.metric == "euclidean" else "1 − cosine of two filters"
    for axes in panels[max(len(shown) - columns, 0) : len(shown)]:
        axes.set_xlabel(unit)
    for axes in panels[::columns]:
        axes.set_ylabel("density of pairs")
    some = f" in {len(shown)} of {len(every)} layers" if len(shown) < len(every) else ""
    figure.suptitle(f"Distances between filters{some}, α = {criterion.alpha:g}", fontsize="medium")
    style.legend_below(figure, panels[0].get_legend_handles_labels()[0], ncols=in_legend)
    return style.save_figure(figure, path)


def spread_evenly(items: list, count: int) -> list:
    """So many of the items, the first and the last among them."""
    if len(items) <= count:
        return items
    return [items[place] for place in np.linspace(0, len(items) - 1, count).round().astype(int)]


def bin_edges(layer: LayerDistances) -> np.ndarray:
    """Equal bins over all distances, about the square root of their number, with an edge at the threshold."""
    low, high = float(layer.distances.min()), float(layer.distances.max())
    spread = high - low if high - low > EQUAL * high else 1.0
    width = spread / np.clip(np.sqrt(len(layer.distances)), 8, BINS)
    below = round((layer.threshold - low) / width)
    if below > 0:
        width = (layer.threshold - low) / below
    first = -below if below > 0 else math.floor((low - layer.threshold) / width)
    last = math.floor((high - layer.threshold) / width) + 1
    edges = layer.threshold + width * np.arange(first, last + 1)
    edges[0] = min(edges[0], low)
    return edges


def draw_distances(axes, layer: LayerDistances):
    """One histogram, the similar pairs in another colour, with the Gaussian of the same mean and deviation."""
    edges = bin_edges(layer)
    density, _ = np.histogram(layer.distances, edges, density=True)
    width = edges[1] - edges[0]
    similar = edges[:-1] + width / 2 < layer.threshold
    for part, color, label in ((~similar, style.KEPT, "pairs"), (similar, style.REMOVED, "similar pairs")):
        axes.bar(edges[:-1][part], density[part], width, align="edge", color=color, alpha=0.8, label=label)
    x = np.linspace(edges[0], edges[-1], 200)
    if layer.deviation > EQUAL * layer.mean:
        bell = np.exp(-0.5 * ((x - layer.mean) / layer.deviation) ** 2) / (layer.deviation * math.sqrt(2 * math.pi))
        axes.plot(x, bell, color=style.PALETTE[-1], linewidth=1.2, label="Gaussian of the same μ and σ")
    axes.axvline(layer.threshold, color=style.THRESHOLD, linestyle="--", linewidth=1.5, label="threshold λ = μ − ασ")
    axes.set_title(f"{layer.name}\n{layer.similar:.0%} similar", fontsize="medium")
    axes.set_yticks([])
    style.plain(axes)
