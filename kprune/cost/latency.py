"""Milliseconds on a device as a cost: a table of layers that were measured there, and what it says of a model."""

import dataclasses
import json
import logging
from dataclasses import dataclass, field

import numpy as np

from kprune.cost import CostModel, Quantity
from kprune.errors import ModelError, OptionError
from kprune.files import write_by_rename
from kprune.graph import Graph, trace
from kprune.grid import Grid
from kprune.kinds import TimedCall, priced_calls
from kprune.options import check_amount, check_path, check_whole
from kprune.rules import OperatorConfig

logger = logging.getLogger("kprune")
SCHEMA = 1
RUNTIMES = ("litert", "onnxruntime")
TOLERANCE = 0.01  # by so much a width may cost more than a mixture of others and still be worth having


@dataclass(frozen=True)
class LatencyTable:
    """How long layers take on one device, by their widths. `kprune.profile_latency` makes it.

    Attributes:
      grids: one for each kind of layer; its own time, without that of a run with nothing to do.
      overhead_ms: milliseconds of a run with nothing to do.
      runtime: what ran them: "litert" or "onnxruntime".
      quantize: None for float32, or "int8".
      threads: CPU threads of a run.
      machine: processor, versions and so on of the device, as `kprune.timings.machine_facts` has them.
      check: milliseconds of the whole file of the model that it was made for: `{"model", "measured_ms",
        "predicted_ms"}`; empty where it was not timed.

    Raises:
      OptionError: no grids, an unknown runtime or quantization, or a number out of range.

    Example:
      >>> table = kprune.LatencyTable.load("table.json")
      >>> table.predict(model), table.predict(small)
      >>> plan = kprune.plan_pruning(model, target_latency=0.5, latency=table)
    """

    grids: tuple[Grid, ...] = field(repr=False)
    overhead_ms: float = 0.0
    runtime: str = "litert"
    quantize: str | None = None
    threads: int = 1
    machine: dict = field(repr=False, default_factory=dict)
    check: dict = field(default_factory=dict)

    def __post_init__(self):
        """Refuses what no device could have measured.

        Raises:
          OptionError: something else than grids, an unknown runtime or quantization, or a number out of range.
        """
        if not self.grids or not all(isinstance(grid, Grid) for grid in self.grids):
            raise OptionError("grids hold no measurements.", "At least one Grid.", "Use kprune.profile_latency.")
        for name, value, known in (("runtime", self.runtime, RUNTIMES), ("quantize", self.quantize, (None, "int8"))):
            if value not in known:
                raise OptionError(f"{name} is {value!r}.", f"One of {known}.", "Use kprune.profile_latency.")
        check_amount("overhead_ms", self.overhead_ms, above_zero=False)
        check_whole("threads", self.threads, 1)

    def grid(self, kind: OperatorConfig) -> Grid | None:
        """The grid of a kind of layer, or None."""
        return next((grid for grid in self.grids if grid.kind == kind), None)

    def predict(self, model) -> float:
        """The milliseconds that one run of a model takes: the sum over its layers, and the overhead of a run.

        Activations and BatchNorms that the runtime merges into the layer before, and operations that
        of which no rule says what they are to a device, count as nothing.

        Args:
          model: a built functional or Sequential `keras.Model`.

        Raises:
          OptionError: a layer of the model was not measured, or not at its width.
          ModelError: the model has no graph.
        """
        graph = trace(model)
        return Latency(graph, self).total(np.ones(len(graph.sets), dtype=bool))

    def to_json(self) -> dict:
        facts = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        return {"schema": SCHEMA, **facts, "grids": [grid.to_json() for grid in self.grids]}

    def save(self, path, overwrite: bool = True):
        """Writes the table as JSON.

        Raises:
          ExportError: the file cannot be written, or is there and `overwrite` is false.
        """
        text = json.dumps(self.to_json(), indent=1) + "\n"
        return write_by_rename(path, lambda file: file.write_text(text, encoding="utf-8"), overwrite)

    @classmethod
    def load(cls, path) -> "LatencyTable":
        """Reads a table.

        Raises:
          OptionError: the file is missing, or is no table of this version.
        """
        try:
            with open(path, encoding="utf-8") as file:
                return cls.from_json(json.load(file))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OptionError(
                f"{path} cannot be read as a latency table: {error or type(error).__name__}.",
                f"A JSON file of tools/profile_layers.py, schema {SCHEMA}.",
                "Measure the layers again: python tools/profile_layers.py --model=model.keras --output=table.json",
            ) from error

    @classmethod
    def from_json(cls, data: dict) -> "LatencyTable":
        """The table that `to_json` gave.

        Raises:
          KeyError, TypeError, ValueError: it is none.
        """
        if data["schema"] != SCHEMA:
            raise ValueError(f"schema {data['schema']}")
        facts = {entry.name: data[entry.name] for entry in dataclasses.fields(cls)}
        return cls(**facts | {"grids": tuple(Grid.from_json(grid) for grid in data["grids"])})


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
        self.calls = priced_calls(graph)
        self.grids = [grid_of(table, call) for call in self.calls]
        self.sets, self.overhead_ms = len(graph.sets), table.overhead_ms
        if not self.calls:
            raise ModelError(
                f"'{graph.model.name}' has no layer that kprune can time.",
                "A network of convolutions or dense layers with inputs of a fixed size.",
                "Give target_flops or target_params.",
            )
        free = unpriced(graph, self.calls)
        if free:
            logger.warning(
                "No time is known for %s, which count as nothing. Expected: Layers whose rule has an `operator`. "
                "To mend: let a stop-watch decide (kprune.prune_to_latency), or give target_flops.",
                ", ".join(f"'{path}'" for path in free),
            )

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


def unpriced(graph: Graph, calls: list[TimedCall]) -> list[str]:
    """The layers that have FLOPs but no kind, such as grouped and transposed convs."""
    priced = {call.path for call in calls}
    return [entry.path for entry in CostModel(graph).cost().layers if entry.flops > 0 and entry.path not in priced]


def grid_of(table: LatencyTable, call: TimedCall) -> Grid:
    """The grid that prices a call.

    Raises:
      OptionError: there is none, or it ends below the call's widths.
    """
    grid = table.grid(call.kind)
    if grid is None or not grid.covers(len(call.sets_in), len(call.sets_out)):
        how = "was not measured" if grid is None else f"was measured up to {grid.widths_out[-1]} channels only"
        raise OptionError(
            f"The latency table does not know '{call.path}': {call.kind}, {len(call.sets_in)} channels in, "
            f"{len(call.sets_out)} out, {how}.",
            "A table made for this model.",
            "Measure its layers on the device: python tools/profile_layers.py --model=model.keras --output=table.json",
        )
    return grid


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


def as_table(latency) -> LatencyTable:
    """A table, or the path of one, as a table.

    Raises:
      OptionError: it is neither.
    """
    if isinstance(latency, LatencyTable):
        return latency
    if latency is None:
        raise OptionError(
            "target_latency came without latency.", "A table of the device.", 'Pass latency="table.json".'
        )
    check_path("latency", latency)
    return LatencyTable.load(latency)
