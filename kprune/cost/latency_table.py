"""A table of how long layers take on a device, over their widths, and between those measured."""

import dataclasses
import json
import logging
from dataclasses import dataclass, field

import numpy as np

from kprune.cost.model import CostModel
from kprune.cost.timed_calls import TimedCall, priced_calls
from kprune.graph import Graph, trace
from kprune.rules import OperatorConfig
from kprune.utils.checks import check_amount, check_path, check_whole
from kprune.utils.errors import ModelError, OptionError
from kprune.utils.files import write_by_rename

logger = logging.getLogger("kprune")
SCHEMA = 1
RUNTIMES = ("litert", "onnxruntime")


@dataclass(frozen=True)
class Grid:
    """The milliseconds of one kind of layer at some widths; linear in between.

    Attributes:
      kind: the kind.
      widths_in: ascending numbers of input channels; one where the kind has no width of its own there.
      widths_out: ascending numbers of output channels.
      ms: float `[len(widths_in), len(widths_out)]`.
    """

    kind: OperatorConfig
    widths_in: tuple[int, ...]
    widths_out: tuple[int, ...]
    ms: np.ndarray = field(repr=False, compare=False)

    def at(self, width_in, width_out) -> np.ndarray:
        """Milliseconds at widths, which broadcast; bilinear. Below the smallest width, those of the smallest."""
        row, above = place(self.widths_in, width_in)
        column, right = place(self.widths_out, width_out)
        next_row, next_column = (
            np.minimum(index + 1, len(widths) - 1)
            for index, widths in ((row, self.widths_in), (column, self.widths_out))
        )
        low = self.ms[row, column] * (1 - right) + self.ms[row, next_column] * right
        high = self.ms[next_row, column] * (1 - right) + self.ms[next_row, next_column] * right
        return low * (1 - above) + high * above

    def covers(self, width_in: int, width_out: int) -> bool:
        """Whether it was measured up to these widths."""
        return (len(self.widths_in) == 1 or width_in <= self.widths_in[-1]) and width_out <= self.widths_out[-1]

    def to_json(self) -> dict:
        return dataclasses.asdict(self) | {"ms": [[round(float(x), 6) for x in row] for row in self.ms]}

    @classmethod
    def from_json(cls, data: dict) -> "Grid":
        ms, kind = np.array(data["ms"], dtype=float), OperatorConfig.from_json(data["kind"])
        widths_in, widths_out = tuple(data["widths_in"]), tuple(data["widths_out"])
        rising = all(widths and list(widths) == sorted(set(widths)) for widths in (widths_in, widths_out))
        if not rising or ms.shape != (len(widths_in), len(widths_out)) or not np.isfinite(ms).all():
            raise ValueError(f"{kind} has no finite number for each pair of rising widths")
        return cls(kind, widths_in, widths_out, ms)


def place(widths: tuple[int, ...], wanted) -> tuple[np.ndarray, np.ndarray]:
    """For each wanted width the index of the knot at or below it, and how far it is to the next, 0..1."""
    knots = np.asarray(widths, dtype=float)
    wanted = np.clip(np.asarray(wanted, dtype=float), knots[0], knots[-1])
    index = np.clip(np.searchsorted(knots, wanted, side="right") - 1, 0, max(len(knots) - 2, 0))
    gap = knots[np.minimum(index + 1, len(knots) - 1)] - knots[index]
    return index, np.where(gap > 0, (wanted - knots[index]) / np.where(gap > 0, gap, 1), 0.0)


@dataclass(frozen=True)
class LatencyTable:
    """How long layers take on one device, by their widths. `kprune.profile_latency` makes it.

    Attributes:
      grids: one for each kind of layer; its own time, without that of a run with nothing to do.
      overhead_ms: milliseconds of a run with nothing to do.
      runtime: what ran them: "litert" or "onnxruntime".
      quantize: None for float32, or "int8".
      threads: CPU threads of a run.
      machine: processor, versions and so on of the device, as `kprune.utils.machine.machine_facts` has them.
      check: milliseconds of the whole file of the model that it was made for: `{"model", "measured_ms",
        "predicted_ms"}`; empty where it was not timed.

    Raises:
      OptionError: no grids, an unknown runtime or quantization, or a number out of range.

    Example:
      >>> table = kprune.LatencyTable.load("table.json")
      >>> table.predict(model), table.predict(small)
      >>> plan = kprune.plan_pruning(model, target_latency=0.5, latency_table=table)
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
        calls, grids = grids_of(self, trace(model))
        ms = [grid.at(len(call.sets_in), len(call.sets_out)) for call, grid in zip(calls, grids, strict=True)]
        return float(np.sum(ms)) + self.overhead_ms

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
                f"A JSON file of kprune profile, schema {SCHEMA}.",
                "Measure the layers again: kprune profile model.keras --output=table.json",
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


def grids_of(table: LatencyTable, graph: Graph) -> tuple[list[TimedCall], list[Grid]]:
    """The calls of a model that a table prices, and the grid of each; warns of layers that count as nothing.

    Raises:
      OptionError: a layer was not measured, or not at its width.
      ModelError: there is no layer that can be timed.
    """
    calls = priced_calls(graph)
    grids = [grid_of(table, call) for call in calls]
    if not calls:
        raise ModelError(
            f"'{graph.model.name}' has no layer that kprune can time.",
            "A network of convolutions or dense layers with inputs of a fixed size.",
            "Give target_flops or target_params.",
        )
    free = unpriced(graph, calls)
    if free:
        logger.warning(
            "No time is known for %s, which count as nothing. Expected: Layers whose rule has "
            "an `operator`. Fix: let a stop-watch decide (kprune.prune_to_latency), or give target_flops.",
            ", ".join(f"'{path}'" for path in free),
        )
    return calls, grids


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
            "Measure its layers on the device: kprune profile model.keras --output=table.json",
        )
    return grid


def as_table(latency_table) -> LatencyTable:
    """A table, or the path of one, as a table.

    Raises:
      OptionError: it is neither.
    """
    if isinstance(latency_table, LatencyTable):
        return latency_table
    if latency_table is None:
        raise OptionError(
            "target_latency came without latency_table.", "A table of the device.", 'Pass latency_table="table.json".'
        )
    check_path("latency_table", latency_table)
    return LatencyTable.load(latency_table)
