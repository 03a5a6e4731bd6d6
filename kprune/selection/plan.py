"""The plan: which filters of which layer stay. A value: it can be saved, read, compared and replayed."""

import json
from dataclasses import asdict, dataclass, field

import numpy as np

from kprune.cost import CostModel
from kprune.graph import Graph
from kprune.graph.input_sizes import words
from kprune.graph.makers import FixedLayer, makers, writer_entries
from kprune.selection.plan_checks import check_decision, check_layers
from kprune.utils.errors import PlanError
from kprune.utils.files import write_by_rename

SCHEMA = 1


@dataclass(frozen=True)
class LayerPlan:
    """One layer that makes channels.

    Attributes:
      path: its name, with those of the nested models around it.
      filters: how many filters it has.
      keep: indices of the filters that stay.
      reason: why none may go, or None.
      merge: for compensation, `[removed, kept, factor]` per removed filter whose outgoing weights are handed on.
    """

    path: str
    filters: int
    keep: tuple[int, ...] = field(repr=False)
    reason: str | None = None
    merge: tuple[tuple[int, int, float], ...] = field(repr=False, default=())

    @property
    def rate(self) -> float:
        """The share of its filters that goes, 0..1."""
        return 1.0 - len(self.keep) / self.filters


@dataclass(frozen=True)
class Plan:
    """Which channels of which layer stay, what that costs, and how it was found.

    Attributes:
      layers: one entry per layer that makes channels, frozen ones included with their reason.
      criterion: name and options of the criterion, and as "unjudged" the layers of which it says nothing.
      target: `{"flops": 0.5}`, `{"params": 0.5}` or `{"latency": 0.5}`.
      flops, params: `(before, after)`; FLOPs are multiply-accumulates of conv and dense layers, batch 1.
      rounds: one record per round.
      latency: `(before, after)`, the milliseconds of one run that the latency table predicts; None without one.
      input_shapes: what the FLOPs were counted for, one shape per input, where the model takes inputs of any size.

    Example:
      >>> plan = kprune.plan_pruning(model, target_flops=0.5)
      >>> plan.save("plan.json")
      >>> kprune.apply_plan(model, kprune.Plan.load("plan.json"))
    """

    layers: tuple[LayerPlan, ...]
    criterion: dict = field(default_factory=dict)
    target: dict = field(default_factory=dict)
    flops: tuple[float, float] = (0.0, 0.0)
    params: tuple[int, int] = (0, 0)
    rounds: tuple[dict, ...] = field(repr=False, default=())
    latency: tuple[float, float] | None = None
    input_shapes: tuple[tuple[int, ...], ...] | None = None

    def mask(self, graph: Graph) -> np.ndarray:
        """The decision per channel set.

        Args:
          graph: the traced model that the plan is for.

        Returns:
          bool, one per channel set, True = keep.

        Raises:
          PlanError: the plan is for another model, empties a layer, removes what is frozen, or parts what is tied.
        """
        check_layers(self, graph)
        keep = np.ones(len(graph.sets), dtype=bool)
        for entry, weight in zip(writer_entries(self.layers, graph), graph.writers, strict=True):
            gone = np.setdiff1d(np.arange(entry.filters), entry.keep)
            keep[weight.axes[weight.writes][gone]] = False
        check_decision(self, graph, keep)
        return keep

    def followed_by(self, later: "Plan") -> "Plan":
        """One plan for both: this one, and then another on the smaller model that this one makes.

        Args:
          later: a plan for `apply_plan(model, self)`.

        Returns:
          A plan for `model`, with the criterion and target of `later` and no rounds. Weights that either hands on to
          kept filters are left out, since the model may have been trained between the two.

        Raises:
          PlanError: `later` is for another model.
        """
        pairs = list(zip(self.layers, later.layers, strict=False))
        fits = len(self.layers) == len(later.layers)
        if not fits or any(a.path != b.path or len(a.keep) != b.filters for a, b in pairs):
            raise PlanError(
                "The later plan does not fit the model that the first one makes.",
                "A plan for apply_plan(model, first).",
                "Make it with kprune.plan_pruning on that model.",
            )
        layers = tuple(
            LayerPlan(first.path, first.filters, tuple(first.keep[place] for place in then.keep), first.reason)
            for first, then in pairs
        )
        flops, params = (self.flops[0], later.flops[1]), (self.params[0], later.params[1])
        timed = self.latency is not None and later.latency is not None
        latency = (self.latency[0], later.latency[1]) if timed else None
        shapes = later.input_shapes
        return Plan(layers, later.criterion, later.target, flops, params, latency=latency, input_shapes=shapes)

    def summary(self) -> str:
        """A table, one line per layer, with the totals below."""
        width = max(len(entry.path) for entry in self.layers)
        lines = [f"{'layer':<{width}} {'filters':>8} {'kept':>6} {'rate':>7}"]
        for entry in self.layers:
            note = f"  {entry.reason}" if entry.reason else ""
            lines.append(f"{entry.path:<{width}} {entry.filters:>8} {len(entry.keep):>6} {entry.rate:>7.1%}{note}")
        for name, (before, after) in (("FLOPs (multiply-accumulates)", self.flops), ("parameters", self.params)):
            lines.append(f"{name}: {before:,.0f} -> {after:,.0f} (-{1 - after / max(before, 1):.1%})")
        if self.input_shapes is not None:
            lines.append(f"FLOPs are those of inputs of {words(self.input_shapes)}; the model takes any size")
        if self.latency is not None:
            before, after = self.latency
            lines.append(f"milliseconds, predicted: {before:.3g} -> {after:.3g} (-{1 - after / before:.1%})")
        if self.criterion.get("unjudged"):
            names = ", ".join(self.criterion["unjudged"])
            lines.append(f"'{self.criterion['name']}' says nothing of {names}: judged by the L1 norm of filters")
        return "\n".join(lines)

    def to_json(self) -> str:
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1)

    def save(self, path, overwrite: bool = True):
        """Writes the plan as JSON.

        Raises:
          ExportError: the file cannot be written, or is there and `overwrite` is false.
        """
        return write_by_rename(path, lambda temporary: temporary.write_text(self.to_json() + "\n"), overwrite)

    @classmethod
    def load(cls, path) -> "Plan":
        """Reads a plan.

        Raises:
          PlanError: the file is missing, is no plan, or has a schema that this version does not know.
        """
        try:
            with open(path, encoding="utf-8") as file:
                return cls.from_dict(json.load(file))
        except OSError as error:
            raise PlanError(f"{path} cannot be read: {error}.", "A plan file.", "Check the path.") from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise PlanError(
                f"{path} is not JSON: {error}.", "A file written by Plan.save.", "Save it again."
            ) from error

    @classmethod
    def from_dict(cls, data: dict) -> "Plan":
        """A plan from what `to_json` wrote."""
        schema = data.get("schema") if isinstance(data, dict) else None
        if schema != SCHEMA:
            raise PlanError(f"The plan has schema {schema!r}.", f"Schema {SCHEMA}.", "Make it with this version.")
        try:
            layers = tuple(
                LayerPlan(
                    str(row["path"]),
                    int(row["filters"]),
                    tuple(map(int, row["keep"])),
                    row.get("reason"),
                    tuple((int(a), int(b), float(c)) for a, b, c in row.get("merge", ())),
                )
                for row in data["layers"]
            )
            return cls(
                layers,
                dict(data["criterion"]),
                dict(data["target"]),
                tuple(data["flops"]),
                tuple(data["params"]),
                tuple(data["rounds"]),
                tuple(data["latency"]) if data.get("latency") else None,
                tuple(map(tuple, data["input_shapes"])) if data.get("input_shapes") else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise PlanError(f"The plan is damaged: {error!r}.", "What Plan.save wrote.", "Make it again.") from error


def make_plan(
    cost: CostModel, keep: np.ndarray, *, criterion=None, target=None, rounds=(), merges=None, bounds=None
) -> Plan:
    """A plan from a decision per channel set.

    Args:
      cost: the cost model of the traced model.
      keep: bool, one per channel set.
      criterion, target, rounds: how it was found.
      merges: per writer path, the `merge` entries.
      bounds: the limits met with the model, so that a layer which they leave out says so.
    """
    everything = cost.everything()
    merges = merges or {}
    return Plan(
        tuple(layer_plan(cost.graph, made, keep, bounds, merges.get(made.path, ())) for made in makers(cost.graph)),
        criterion or {},
        target or {},
        (cost.flops(everything), cost.flops(keep)),
        (cost.params(everything), cost.params(keep)),
        tuple(rounds),
        tuple(cost.total(mask, "latency") for mask in (everything, keep)) if "latency" in cost.quantities else None,
        cost.graph.sizes,
    )


def layer_plan(graph: Graph, made, keep: np.ndarray, bounds, merge) -> LayerPlan:
    """The entry of one layer that makes channels; see `make_plan`."""
    if isinstance(made, FixedLayer):
        return LayerPlan(made.path, made.filters, tuple(range(made.filters)), made.reason)
    sets = made.axes[made.writes]
    left_out = bounds is not None and not bounds.removable[sets].any()
    reason = graph.reason(made) or ("the limits leave it out" if left_out else None)
    return LayerPlan(made.path, len(sets), tuple(np.flatnonzero(keep[sets]).tolist()), reason, tuple(merge))
