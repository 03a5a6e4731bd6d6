"""What a user asks to be removed, as a budget for a model."""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property

from kprune.cost import CostModel
from kprune.errors import OptionError
from kprune.graph import Graph
from kprune.latency import Latency, LatencyTable, as_table
from kprune.selection import Budget, chosen_target, make_budget


@dataclass(frozen=True)
class Targets:
    """The share of one of three costs that shall go; see `kprune.plan_pruning`.

    Attributes:
      flops, params, latency: the shares, 0..1; one of them is given.
      table: for the latency: a `LatencyTable`, or the path of one.
    """

    flops: float | None = None
    params: float | None = None
    latency: float | None = None
    table: object = field(repr=False, default=None)

    def __post_init__(self):
        """Refuses, before anything is done, what no model could have as a target.

        Raises:
          OptionError: none or several shares, one outside of 0..1, a table without a share of the milliseconds or the
            other way round, or a table that cannot be read.
        """
        chosen_target(self.flops, self.params, self.latency)
        if self.table is not None and self.latency is None:
            raise OptionError(
                "latency came without target_latency.", "Both.", "Pass target_latency=0.5, or leave latency out."
            )
        if self.latency is not None:
            self.read_table  # noqa: B018 - read now, and kept

    def cost(self, graph: Graph) -> CostModel:
        """What a model costs, in milliseconds too where a share of them shall go.

        Raises:
          OptionError: the table is of other layers.
          ModelError: the model has no layer whose time is known.
        """
        return CostModel(graph, **quantities(graph, None if self.latency is None else self.read_table))

    @cached_property
    def read_table(self) -> LatencyTable:
        """The table, read once, though rounds ask for it again."""
        return as_table(self.table)

    def budget(self, graph: Graph) -> Budget:
        """The budget for a model.

        Raises:
          OptionError, ModelError: see `plan_pruning`.
        """
        return make_budget(self.cost(graph), self.flops, self.params, self.latency)


def quantities(graph: Graph, table) -> dict[str, Latency]:
    """What a model costs besides FLOPs and parameters: its milliseconds, if there is a table.

    Raises:
      OptionError, ModelError: see `Targets.cost`.
    """
    return {} if table is None else {"latency": Latency(graph, as_table(table))}


def table_settings(table) -> dict:
    """What tells runs with different tables apart; nothing where there is none."""
    if table is None:
        return {}
    text = json.dumps(as_table(table).to_json(), sort_keys=True)
    return {"latency_table": hashlib.sha256(text.encode()).hexdigest()}
