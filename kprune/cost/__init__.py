"""What a model costs under a decision: FLOPs, parameters, memory, milliseconds on a device."""

from kprune.cost.latency import Latency
from kprune.cost.latency_table import LatencyTable, as_table
from kprune.cost.model import WORDS, Cost, CostModel, LayerCost, model_cost, require_known
from kprune.cost.quantities import Quantity

__all__ = [
    "WORDS",
    "Cost",
    "CostModel",
    "Latency",
    "LatencyTable",
    "LayerCost",
    "Quantity",
    "as_table",
    "model_cost",
    "require_known",
]
