"""Milliseconds on a device as a cost: what a table of layers says of a model under a decision."""

import numpy as np

from kprune.cost.latency_table import LatencyTable, grids_of
from kprune.cost.quantities import Quantity
from kprune.graph import Graph

TOLERANCE = 0.01  # by so much a width may cost more than a mixture of others and still be worth having


class Latency(Quantity):
    """The milliseconds of a traced model under a decision, by a table.

    A kernel works on blocks of channels, so that the cost is a staircase: what one channel saves is the height of the
    step that it belongs to, over the channels of that step. Widths worth having are those on the lower edge of the
    staircase: any other costs more than a narrower and a wider layer would on average.

    Args:
      graph: the traced model.
      table: the device.

    Raises:
      OptionError: a layer was not measured, or not at its width.
    """

    def __init__(self, graph: Graph, table: LatencyTable):
        self.calls, self.grids = grids_of(table, graph)
        self.sets, self.overhead_ms = len(graph.sets), table.overhead_ms

    def layers(self, keep: np.ndarray) -> np.ndarray:
        """Milliseconds of each priced call."""
        keep = np.asarray(keep)
        widths = [(keep[call.sets_in].sum(), keep[call.sets_out].sum()) for call in self.calls]
        return np.array([grid.at(*pair) for grid, pair in zip(self.grids, widths, strict=True)])

    def total(self, keep: np.ndarray) -> float:
        return float(self.layers(keep).sum()) + self.overhead_ms

    def gains(self, keep: np.ndarray) -> np.ndarray:
        keep, found = np.asarray(keep), np.zeros(self.sets)
        for call, grid in zip(self.calls, self.grids, strict=True):
            width_in, width_out = int(keep[call.sets_in].sum()), int(keep[call.sets_out].sum())
            readers = grid.at(np.arange(len(call.sets_in) + 1), width_out)
            writers = grid.at(width_in, np.arange(len(call.sets_out) + 1))
            for sets, ms, width in ((call.sets_in, readers, width_in), (call.sets_out, writers, width_out)):
                found += slope(ms, width) * np.bincount(sets, minlength=self.sets)
        return found

    def worthwhile(self, sets: np.ndarray) -> np.ndarray:
        order = np.unique(sets)
        rank = np.full(self.sets, -1)
        rank[order] = np.arange(len(order))
        ms = np.zeros(len(order) + 1)
        for call, grid in zip(self.calls, self.grids, strict=True):
            sides = [rank[own] for own in (call.sets_in, call.sets_out)]
            if any((side >= 0).any() for side in sides):
                ms += grid.at(*(kept_of_first(side, len(order)) for side in sides))
        counts = kept_of_first(rank[sets], len(order))
        widths = np.zeros(len(sets) + 1, dtype=bool)
        widths[counts[1:]] = on_the_way(ms[1:])
        return widths


def kept_of_first(rank: np.ndarray, count: int) -> np.ndarray:
    """How many channels stay where the first 0, 1, ..., `count` of some sets do, and all sets beside them.

    Args:
      rank: the place of each channel's set among them, or -1.
      count: how many there are.
    """
    own = np.bincount(rank[rank >= 0], minlength=count)
    return np.concatenate([[0], np.cumsum(own)]) + int((rank < 0).sum())


def on_the_way(ms: np.ndarray) -> np.ndarray:
    """Which widths lie on the lower edge of a staircase: a mixture of a narrower and a wider one would cost no less.

    Only widths from half to twice as many count for the mixture.

    Args:
      ms: milliseconds of the widths 1, 2, ...

    Returns:
      bool, one per width; within `TOLERANCE`.
    """
    width = np.arange(1, len(ms) + 1)
    gap = width - width[:, None]
    slopes = (ms - ms[:, None] / (1 + TOLERANCE)) / np.where(gap, gap, 1)
    down = np.where((gap < 0) & (2 * width >= width[:, None]), slopes, -np.inf).max(axis=1)
    up = np.where((gap > 0) & (width <= 2 * width[:, None]), slopes, np.inf).min(axis=1)
    return down <= up


def slope(ms: np.ndarray, width: int) -> float:
    """What a channel saves at a width, on the best way down: over all narrower widths, the most per channel.

    Where a wider layer takes less, the layer counts as that one, for it can be had instead.

    Args:
      ms: milliseconds by width, from 0 on.
      width: the width now.
    """
    if width <= 1:
        return float(ms[width]) if width else 0.0
    best = np.minimum.accumulate(ms[::-1])[::-1][: width + 1]
    return float(((best[width] - best[1:width]) / (width - np.arange(1, width))).max())
