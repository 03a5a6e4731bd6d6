"""What a model costs under a decision: FLOPs (multiply-accumulates, batch 1), parameters, activation memory."""

import logging
import math
from dataclasses import dataclass, field

import numpy as np

from kprune.cost.quantities import Elements, Priced, Quantity
from kprune.graph import Graph, trace
from kprune.graph.input_sizes import sizes_of, trace_with_sizes
from kprune.rules import NoRule, find_rule
from kprune.utils.errors import ModelError

FLOAT_BYTES = 4
WORDS = {"flops": "FLOPs", "params": "parameters", "latency": "predicted milliseconds"}
logger = logging.getLogger("kprune")


@dataclass(frozen=True)
class LayerCost:
    """One layer's share. `channels` is the number of filters that it writes, or None if it writes none."""

    path: str
    flops: float
    params: int
    channels: int | None


@dataclass(frozen=True)
class Cost:
    """The cost of a model for one example.

    Attributes:
      flops: multiply-accumulates of conv and dense layers, at the output map (Wu 2023, section 3); NaN where the
        input size is unknown.
      params: all weights, BatchNorm statistics included.
      activation_bytes: largest sum of tensors alive at one moment, as float32, in the order of the graph. It estimates
        what a runtime plans; `kprune.micro_memory` asks one.
      layers: one row per layer that has sliced weights.
    """

    flops: float
    params: int
    activation_bytes: float
    layers: tuple[LayerCost, ...] = field(repr=False, default=())

    @property
    def weight_bytes(self) -> int:
        """All weights as float32, which is nearly the size of a float32 file; one of int8 has about a quarter."""
        return FLOAT_BYTES * self.params

    def __str__(self) -> str:
        weights = f"{self.params:,} parameters ({self.weight_bytes / 1e6:.2f} MB)"
        memory = f"{self.activation_bytes / 1e6:.2f} MB of activations"
        return f"{self.flops / 1e6:.2f} M FLOPs (multiply-accumulates), {weights}, {memory}"


class CostModel:
    """What a traced model costs as a function of one boolean per channel set.

    Args:
      graph: the traced model.
      **quantities: what it costs besides FLOPs and parameters, by kind, such as `latency=Latency(graph, table)`.
    """

    def __init__(self, graph: Graph, **quantities: Quantity):
        self.graph, self._elements = graph, Elements(graph)
        uses = np.array([weight.uses for weight in graph.weights], dtype=float)
        sliced = sum(math.prod(weight.shape) for weight in graph.weights)
        others = graph.model.count_params() - sliced
        self.quantities = {
            "flops": Priced(self._elements, uses),
            "params": Priced(self._elements, np.ones_like(uses), others),
            **quantities,
        }

    def total(self, keep: np.ndarray, kind: str) -> float:
        """What a decision costs of one kind: "flops", "params", or another that the model was given."""
        return self.quantities[kind].total(np.asarray(keep))

    def gains(self, keep: np.ndarray, kind: str) -> np.ndarray:
        """What the removal of each set alone saves of one kind; see `Quantity.gains`."""
        return self.quantities[kind].gains(np.asarray(keep))

    def elements(self, keep: np.ndarray) -> np.ndarray:
        """Per sliced weight, how many elements stay."""
        return self._elements.count(keep)

    def flops(self, keep: np.ndarray) -> float:
        return self.total(keep, "flops")

    def params(self, keep: np.ndarray) -> int:
        return int(self.total(keep, "params"))

    def everything(self) -> np.ndarray:
        """The decision that keeps all."""
        return np.ones(len(self.graph.sets), dtype=bool)

    def activation_bytes(self, keep: np.ndarray) -> float:
        """Largest number of bytes of tensors that are alive together, batch 1, float32."""
        kept, calls = self.graph.kept(keep), self.graph.calls
        last = {place: index for index, call in enumerate(calls) for place in call.inputs}
        last.update(dict.fromkeys(self.graph.ends, len(calls)))
        alive: dict[int, float] = {}
        peak = 0.0
        for index, call in enumerate(calls):
            for places, ids, shapes in (
                (call.inputs, call.ids_in, call.input_shapes),
                (call.outputs, call.ids_out, call.output_shapes),
            ):
                alive.update((p, tensor_bytes(i, s, kept)) for p, i, s in zip(places, ids, shapes, strict=True))
            peak = max(peak, sum(alive.values()))
            alive = {place: size for place, size in alive.items() if last.get(place, -1) > index}
        return peak

    def cost(self, keep: np.ndarray | None = None) -> Cost:
        """The whole account, one row per layer."""
        keep = self.everything() if keep is None else np.asarray(keep)
        rows: dict[str, list] = {}
        for weight, elements in zip(self.graph.weights, self.elements(keep), strict=True):
            row = rows.setdefault(weight.path, [0.0, 0, None])
            row[0] += elements * weight.uses
            row[1] += int(elements)
            if weight.writes is not None:
                row[2] = int(keep[weight.axes[weight.writes]].sum())
        layers = tuple(LayerCost(path, *row) for path, row in rows.items())
        return Cost(self.flops(keep), self.params(keep), self.activation_bytes(keep), layers)


def tensor_bytes(ids: np.ndarray, shape: tuple, kept) -> float:
    """The size of one tensor after removal."""
    sizes = [math.nan if size is None else kept.size(ids, axis, size) for axis, size in enumerate(shape) if axis]
    return FLOAT_BYTES * math.prod(sizes)


def model_cost(model, input_shape=None) -> Cost:
    """What a model costs for one example.

    Args:
      model: a built functional or Sequential `keras.Model`.
      input_shape: for a model that takes inputs of any size, that of one example, such as (224, 224, 3); of several
        inputs a list or dict.

    Returns:
      A `Cost` with `.flops` (multiply-accumulates), `.params`, `.weight_bytes`, `.activation_bytes` and `.layers`.

    Raises:
      ModelError: the model has no graph.
      OptionError: the model does not take inputs of that shape.

    Example:
      >>> print(kprune.model_cost(model))
      40.81 M FLOPs (multiply-accumulates), 272,474 parameters (1.09 MB), 0.20 MB of activations
    """
    graph = trace(model)
    shapes = sizes_of(graph, input_shape)
    return CostModel(graph if shapes is None else trace_with_sizes(graph, shapes)).cost()


def known(shapes) -> bool:
    """Whether every size but that of the batch is."""
    return all(None not in shape[1:] for shape in shapes)


def uncounted(graph: Graph) -> list[str]:
    """The layers with kernels that are not known as such, so that their cost is not."""
    counted = {weight.path for weight in graph.weights}

    def is_opaque(call):
        kernels = any(len(weight.shape) > 1 for weight in getattr(call.operation, "weights", ()))
        stopped = isinstance(find_rule(call.operation), NoRule) or call.path in graph.barriers
        return kernels and stopped and call.path not in counted

    return list(dict.fromkeys(call.path for call in graph.calls if is_opaque(call)))


def require_known(cost: CostModel, kind: str):
    """Checks that a budget in FLOPs makes sense.

    Raises:
      ModelError: the input size is unknown, so that FLOPs cannot be counted.
    """
    hidden = uncounted(cost.graph) if kind == "flops" else []
    if hidden:
        logger.warning(
            "The FLOPs of %s are not counted and stay, for kprune cannot see inside. Expected: Layers with rules. Fix: "
            "kprune.register_rule, or a layer whose call() uses Keras layers and operations only.",
            ", ".join(f"'{path}'" for path in hidden),
        )
    if kind == "flops" and math.isnan(cost.flops(cost.everything())):
        model = cost.graph.model
        unknown = next((c.path for c in cost.graph.calls if known(c.input_shapes) and not known(c.output_shapes)), None)
        if unknown is None:
            raise ModelError(
                f"'{model.name}' takes inputs of any size, so its FLOPs are unknown.",
                "The size to count them for, or images that have one (an iterator is not looked at).",
                "Pass input_shape=(224, 224, 3) or data, or give target_params.",
            )
        raise ModelError(
            f"What '{unknown}' in '{model.name}' gives is of unknown size, so the FLOPs behind it are unknown.",
            "A size that its inputs tell.",
            "Give it a fixed size, register a rule for it, or give target_params.",
        )
