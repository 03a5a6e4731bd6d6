"""What a user asks to be removed, as a budget for a model."""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property

from kprune.cost import CostModel, Latency, LatencyTable, as_table, require_known
from kprune.graph import Graph
from kprune.graph.input_sizes import check_shape, with_sizes
from kprune.selection.budget import Budget, chosen_target
from kprune.utils.errors import OptionError


@dataclass(frozen=True)
class Targets:
    """The share of one of three costs that shall go; see `kprune.plan_pruning`.

    Attributes:
      flops, params, latency: the shares, 0..1; one of them is given.
      table: for the latency: a `LatencyTable`, or the path of one.
      input_shape, data: what tells the size of inputs, where the model takes any; see `sizes_of`.
    """

    flops: float | None = None
    params: float | None = None
    latency: float | None = None
    table: object = field(repr=False, default=None)
    input_shape: object = None
    data: object = field(repr=False, compare=False, default=None)

    def __post_init__(self):
        """Refuses, before anything is done, what no model could have as a target.

        Raises:
          OptionError: none or several shares, one outside of 0..1, a table without a share of the milliseconds or the
            other way round, a table that cannot be read, or an input shape that is none.
        """
        check_shape(self.input_shape)
        chosen_target(self.flops, self.params, self.latency)
        if self.table is not None and self.latency is None:
            raise OptionError(
                "latency_table came without target_latency.",
                "Both.",
                "Pass target_latency=0.5, or leave latency_table out.",
            )
        if self.latency is not None:
            self.read_table  # noqa: B018 - read now, and kept

    def cost(self, graph: Graph) -> CostModel:
        """What a model costs, in milliseconds too where a share of them shall go.

        Raises:
          OptionError: the table is of other layers, or the model takes no inputs of the shape that is given.
          ModelError: the model has no layer whose time is known.
        """
        sized = with_sizes(graph, self.input_shape, self.data)
        return CostModel(sized, **quantities(graph, None if self.latency is None else self.read_table))

    @cached_property
    def read_table(self) -> LatencyTable:
        """The table, read once, though rounds ask for it again."""
        return as_table(self.table)

    def budget(self, graph: Graph) -> Budget:
        """The budget for a model.

        Raises:
          OptionError, ModelError: see `plan_pruning`.
        """
        kind, target = chosen_target(self.flops, self.params, self.latency)
        cost = self.cost(graph)
        require_known(cost, kind)
        return Budget(kind, target, cost)


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
