"""What a model costs under a decision: FLOPs (multiply-accumulates, batch 1), parameters, activation memory."""

import math
from dataclasses import dataclass, field

import numpy as np

from kprune.errors import ModelError
from kprune.graph import Graph, trace

FLOAT_BYTES = 4


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
      activation_bytes: largest sum of tensors alive at one moment, as float32, in the order of the graph.
      layers: one row per layer that has sliced weights.
    """

    flops: float
    params: int
    activation_bytes: float
    layers: tuple[LayerCost, ...] = field(repr=False, default=())

    def __str__(self) -> str:
        memory = f"{self.activation_bytes / 1e6:.2f} MB of activations"
        return f"{self.flops / 1e6:.2f} M FLOPs (multiply-accumulates), {self.params:,} parameters, {memory}"


class CostModel:
    """The cost of a traced model as a function of one boolean per channel set; a call is one pass over a flat array.

    Each sliced weight costs the product of the lengths of its axes, and each length is a sum of booleans.
    """

    def __init__(self, graph: Graph):
        self.graph = graph
        axes = [(index, sets) for index, w in enumerate(graph.weights) for sets in w.axes if sets is not None]
        kinds: dict[bytes, int] = {}  # axes along the same channels, as in a conv and the BatchNorm behind it
        self._kind = np.array([kinds.setdefault(sets.tobytes(), len(kinds)) for _, sets in axes], dtype=int)
        first = np.unique(self._kind, return_index=True)[1]
        self._flat = np.concatenate([axes[i][1] for i in first]) if axes else np.zeros(0, dtype=int)
        self._counts = np.array([len(axes[i][1]) for i in first], dtype=int)
        self._starts = np.cumsum([0, *self._counts])[:-1]
        self._owner = np.array([index for index, _ in axes], dtype=int)
        self._fixed = np.array(
            [
                math.prod(size for size, sets in zip(w.shape, w.axes, strict=True) if sets is None)
                for w in graph.weights
            ],
            dtype=float,
        )
        self._uses = np.array([weight.uses for weight in graph.weights], dtype=float)
        sliced = sum(math.prod(weight.shape) for weight in graph.weights)
        self._other_params = graph.model.count_params() - sliced

    def _lengths(self, keep: np.ndarray) -> np.ndarray:
        """How many positions stay on each sliced axis."""
        if not len(self._starts):
            return np.zeros(0)
        return np.add.reduceat(keep[self._flat], self._starts, dtype=float)[self._kind]

    def elements(self, keep: np.ndarray) -> np.ndarray:
        """Per sliced weight, how many elements stay."""
        elements = self._fixed.copy()
        np.multiply.at(elements, self._owner, self._lengths(np.asarray(keep)))
        return elements

    def flops(self, keep: np.ndarray) -> float:
        return float(self.elements(keep) @ self._uses)

    def params(self, keep: np.ndarray) -> int:
        return int(self.elements(keep).sum()) + self._other_params

    def everything(self) -> np.ndarray:
        """The decision that keeps all."""
        return np.ones(len(self.graph.sets), dtype=bool)

    def gains(self, keep: np.ndarray, kind: str) -> np.ndarray:
        """What the removal of each set alone saves, to first order, for all sets at once.

        Args:
          keep: the decision that the removal starts from.
          kind: "flops" or "params".
        """
        lengths = self._lengths(np.asarray(keep))
        value = self.elements(keep) * (self._uses if kind == "flops" else 1.0)
        each = np.bincount(self._kind, value[self._owner] / np.maximum(lengths, 1.0), len(self._counts))
        return np.bincount(self._flat, weights=np.repeat(each, self._counts), minlength=len(self.graph.sets))

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


def model_cost(model) -> Cost:
    """What a model costs for one example.

    Args:
      model: a built functional or Sequential `keras.Model`.

    Returns:
      A `Cost` with `.flops` (multiply-accumulates), `.params`, `.activation_bytes` and `.layers`.

    Raises:
      ModelError: the model has no graph.

    Example:
      >>> print(kprune.model_cost(model))
      40.81 M FLOPs (multiply-accumulates), 272,474 parameters, 0.20 MB of activations
    """
    return CostModel(trace(model)).cost()


def require_known(cost: CostModel, kind: str):
    """Checks that a budget in FLOPs makes sense.

    Raises:
      ModelError: the input size is unknown, so that FLOPs cannot be counted.
    """
    if kind == "flops" and math.isnan(cost.flops(cost.everything())):
        raise ModelError(
            f"'{cost.graph.model.name}' takes inputs of any size, so its FLOPs are unknown.",
            "A model with a fixed input size.",
            "Rebuild it with keras.Input of a fixed shape, or give target_params.",
        )
