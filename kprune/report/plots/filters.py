"""The filters of a layer and their feature maps, the removed ones and their kept twins marked (Wu 2023, Fig. 5)."""

import math
from dataclasses import dataclass, field

import numpy as np

from kprune.compat.variables import to_numpy
from kprune.criteria.similarity import pairwise_distances
from kprune.graph import Graph, SlicedWeight, trace
from kprune.graph.batches import check_inputs, take
from kprune.graph.epilogues import following_scale
from kprune.graph.interpreter import execute
from kprune.report.plots import style
from kprune.report.plots.distances import require_similarity
from kprune.selection import Plan
from kprune.selection.limits import matching
from kprune.utils.errors import OptionError

MOST = 64  # tiles
GAP = 0.18  # between tiles, in tiles
TITLE = 0.34  # above each tile, for its number


@dataclass(frozen=True)
class Twins:
    """Which filters of a layer go, and which kept filter is closest to each.

    Attributes:
      removed: bool `[N]`.
      twin: int `[N]`: of a removed filter, its nearest kept one; of a kept filter, itself.
      distance: float64 `[N]`, to the twin.
    """

    removed: np.ndarray
    twin: np.ndarray
    distance: np.ndarray = field(repr=False)


def find_twins(kernel: np.ndarray, removed: np.ndarray, metric: str = "euclidean") -> Twins:
    """The kept filter nearest to each removed one.

    Args:
      kernel: `[..., N]`, the filters along the last axis, as Keras keeps them.
      removed: bool `[N]`, True = removed.
      metric: "euclidean" or "cosine".

    Returns:
      A `Twins`.

    Raises:
      OptionError: nothing is kept, or the lengths differ.

    Example:
      >>> kprune.plots.find_twins(kernel, kprune.criteria.Similarity().redundant(kernel)).twin
      array([0, 5, 2, ...])
    """
    filters = np.asarray(kernel, dtype=np.float64).reshape(-1, np.shape(kernel)[-1]).T
    removed = np.asarray(removed, dtype=bool)
    if removed.shape != (len(filters),) or removed.all():
        raise OptionError(
            f"removed marks {int(removed.sum())} of {removed.shape} filters, the kernel has {len(filters)}.",
            "One boolean per filter, at least one of them False.",
            "Pass Similarity().redundant(kernel).",
        )
    distances = pairwise_distances(filters, metric)
    own = np.arange(len(filters))
    nearest = np.where(removed[None, :], np.inf, distances).argmin(axis=1)
    twin = np.where(removed, nearest, own)
    return Twins(removed, twin, distances[own, twin])


def plot_filters(model, path, data=None, *, plan: Plan | None = None, criterion=None, layer=None):
    """The filters of one conv, and what they make of one image, with the removed ones and their kept twins marked.

    Args:
      model: a built functional or Sequential `keras.Model`.
      path: a picture file; its suffix is the format.
      data: images as for `model.predict`; the first one is used. None: no feature maps.
      plan: what goes; None: what one round of the criterion finds redundant in this layer.
      criterion: "similarity", a `kprune.criteria.Similarity`, or None for its defaults; its metric finds the twins.
      layer: name of the conv; None: the first one.

    Returns:
      The path.

    Raises:
      OptionError: there is no such 2D conv, or the images do not fit; or matplotlib is missing, or does not know the
        suffix.
      PlanError: the plan is for another model.
      ExportError: the file cannot be written.

    Example:
      >>> kprune.plots.plot_filters(model, "filters.png", x_test[:1], plan=plan)
    """
    graph, criterion = trace(model), require_similarity(criterion)
    weight = find_conv(graph, layer)
    kernel = np.moveaxis(weight.value(), weight.writes, -1)
    scale = following_scale(graph).get(weight.path) if criterion.fold_bn else None
    compared = kernel if scale is None else kernel * scale
    removed = criterion.redundant(compared) if plan is None else ~plan.mask(graph)[weight.axes[weight.writes]]
    twins = find_twins(compared, removed, criterion.metric)
    parts = {"Filters" if kernel.shape[2] == 3 else "Filters, mean over their inputs": filter_tiles(kernel)}
    if data is not None:
        parts["Feature maps of one image"] = map_tiles(graph, weight, data)
    figure = tiled_figure(parts, twins)
    figure.suptitle(
        f"{weight.path}: {int(removed.sum())} of {len(removed)} filters go\nj → k: filter j goes, k is its kept twin",
        fontsize="medium",
    )
    return style.save_figure(figure, path)


def tiled_figure(parts: dict[str, np.ndarray], twins: Twins):
    """A figure with one field of tiles per part, in the same order in each."""
    shown = shown_filters(twins)
    columns = math.ceil(math.sqrt(len(shown)))
    rows = math.ceil(len(shown) / columns)
    size = np.clip(4.4 / columns / (1 + GAP), 0.6, 1.0)
    width = max(size * (1 + GAP) * columns, 3.6)
    figure = style.new_figure(len(parts) * (width + 0.2), size * (1 + GAP + TITLE) * rows + 1.2)
    for axes, (title, tiles) in zip(np.atleast_1d(figure.subplots(1, len(parts))), parts.items(), strict=True):
        draw_tiles(axes, tiles, twins, shown, columns)
        axes.set_title(title, fontsize="medium")
    style.legend_below(figure, legend_handles())
    return figure


def shown_filters(twins: Twins, most: int = MOST) -> np.ndarray:
    """All filters of a layer; of a wide one the removed filters that are closest to their twins, and the twins.

    Returns:
      int array of indices, rising, at most `most`.
    """
    if len(twins.removed) <= most:
        return np.arange(len(twins.removed))
    closest = np.flatnonzero(twins.removed)[np.argsort(twins.distance[twins.removed], kind="stable")]
    if not len(closest):
        return np.arange(most)
    pairs = np.stack([closest, twins.twin[closest]], axis=1)
    first = np.zeros(pairs.size, dtype=int)
    first[np.unique(pairs, return_index=True)[1]] = 1
    fits = np.cumsum(first.reshape(-1, 2).sum(axis=1)) <= most
    return np.unique(pairs[fits])


def find_conv(graph: Graph, layer: str | None) -> SlicedWeight:
    """The kernel of a 2D conv by its name, or the first one."""
    convs = [weight for weight in graph.writers if len(weight.shape) == 4]
    if layer is not None:
        named = matching(graph, [layer], "layer")
        convs = [weight for weight in convs if weight.path in named]
    if not convs:
        raise OptionError(
            f"'{graph.model.name}' has no 2D conv{f' {layer}' if layer else ''}.",
            "A layer with a kernel [height, width, inputs, filters].",
            "Name another layer.",
        )
    return convs[0]


def filter_tiles(kernel: np.ndarray) -> np.ndarray:
    """Filters as pictures, all on one scale around grey.

    Args:
      kernel: `[height, width, inputs, N]`.

    Returns:
      float64 `[N, height, width, 3]` for three inputs (as colours), else `[N, height, width]`, the mean over the
      inputs; 0..1, where 0.5 is a weight of zero.
    """
    pictures = np.moveaxis(np.asarray(kernel, dtype=np.float64), -1, 0)
    if pictures.shape[-1] != 3:
        pictures = pictures.mean(axis=-1)
    return 0.5 + pictures / (2 * max(np.abs(pictures).max(), np.finfo(float).tiny))


def map_tiles(graph: Graph, weight: SlicedWeight, data) -> np.ndarray:
    """What the filters of a layer make of the first image, before BatchNorm and activation; all on one scale.

    Returns:
      float64 `[N, height, width]`, 0..1 between the first and the last percent of the values.
    """
    images = take(data, 1, graph)
    check_inputs(graph, images)
    found = []

    def run(call, operation, args, kwargs):
        outputs = operation(*args, **kwargs)
        if call.owner == id(weight.layer) and not found:
            found.append(to_numpy(outputs)[0].astype(np.float64))
        return outputs

    execute(graph, images, run)
    last = getattr(weight.layer, "data_format", "channels_last") == "channels_last"
    maps = np.moveaxis(found[0], -1, 0) if last else found[0]
    low, high = np.percentile(maps, (1, 99))
    return np.clip((maps - low) / max(high - low, np.finfo(float).tiny), 0.0, 1.0)


def draw_tiles(axes, tiles: np.ndarray, twins: Twins, shown: np.ndarray, columns: int):
    """Tiles of the filters `shown` in rows, each with its number; removed ones and twins in frames."""
    from matplotlib.patches import Rectangle

    is_twin = np.isin(np.arange(len(tiles)), twins.twin[twins.removed])
    for spot, place in enumerate(shown.tolist()):
        row, column = divmod(spot, columns)
        tile = tiles[place]
        x, y = column * (1 + GAP), row * (1 + GAP + TITLE) + TITLE
        colors = "viridis" if tile.ndim == 2 else None
        axes.imshow(tile, extent=(x, x + 1, y + 1, y), cmap=colors, vmin=0, vmax=1, interpolation="nearest")
        color, text = None, str(place)
        if twins.removed[place]:
            color, text = style.REMOVED, f"{place} → {twins.twin[place]}"
        elif is_twin[place]:
            color = style.KEPT
        if color:
            dashes = "--" if twins.removed[place] else "-"
            axes.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor=color, linewidth=3, linestyle=dashes))
        axes.text(x + 0.5, y - 0.07, text, ha="center", va="bottom", fontsize=style.SMALL)
    rows = math.ceil(len(shown) / columns)
    axes.set_xlim(-GAP, columns * (1 + GAP))
    axes.set_ylim(rows * (1 + GAP + TITLE), 0)
    axes.set_aspect("equal")
    axes.set_axis_off()


def legend_handles():
    """What the frames mean."""
    from matplotlib.patches import Patch

    return [
        Patch(facecolor="none", edgecolor=style.REMOVED, linewidth=2.5, linestyle="--", label="removed"),
        Patch(facecolor="none", edgecolor=style.KEPT, linewidth=2.5, label="kept twin"),
    ]
