"""A model as kprune sees it: its calls, channel sets and sliced weights."""

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from kprune.compat.variables import read, variables_by_name
from kprune.rules import Call, Kept
from kprune.rules.channels import ChannelSets, connected_components


@dataclass(frozen=True)
class SlicedWeight:
    """One variable of one layer and the channel sets that its axes are sliced by.

    Attributes:
      path, layer, name: the layer's path, the layer, the variable's name.
      shape: the variable's shape.
      axes: per axis the channel set of each position, or None.
      uses: multiply-accumulates per element for one example, summed over all calls of the layer.
      reads, writes: the axes that are summed over channels, and that make channels, or None.
    """

    path: str
    layer: object = field(repr=False)
    name: str
    shape: tuple[int, ...]
    axes: tuple[np.ndarray | None, ...] = field(repr=False)
    uses: float
    reads: int | None
    writes: int | None

    @property
    def variable(self):
        return variables_by_name(self.layer)[self.name]

    def value(self) -> np.ndarray:
        """Its value, not to be changed: it may be the variable's own memory."""
        return read(self.variable)

    def masks(self, keep: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """The axes from which something goes, each with one boolean per position, True = keep."""
        found = [(axis, keep[sets]) for axis, sets in enumerate(self.axes) if sets is not None]
        return [(axis, mask) for axis, mask in found if not mask.all()]


@dataclass(frozen=True)
class Graph:
    """A model as kprune sees it.

    Attributes:
      model: the traced model, never changed.
      calls: every operation applied, in an order in which they can run, nested models opened.
      sets: channel sets.
      weights: the variables that are sliced.
      barriers: per operation that stops channels, the reason.
      ends: the places (see `Call.outputs`) of the model's outputs.
      inside: the graphs of the model, of nested models, and of layers made of others, by the id of the operation.
      renamed: names of operations inside layers made of others, by the id of the operation (see `Names`).
      sizes: the shapes of the inputs that its FLOPs are counted for, where the model takes inputs of any size.
    """

    model: object = field(repr=False)
    calls: tuple[Call, ...] = field(repr=False)
    sets: ChannelSets = field(repr=False)
    weights: tuple[SlicedWeight, ...] = field(repr=False)
    barriers: dict[str, str] = field(repr=False)
    ends: tuple[int, ...] = field(repr=False)
    inside: dict[int, object] = field(repr=False, default_factory=dict)
    renamed: dict[int, str] = field(repr=False, default_factory=dict)
    sizes: tuple[tuple[int, ...], ...] | None = None

    @cached_property
    def prunable(self) -> np.ndarray:
        """Per set, whether it may go: it is not frozen and some layer writes it."""
        written = np.zeros(len(self.sets), dtype=bool)
        for weight in self.writers:
            written[weight.axes[weight.writes]] = True
        return written & np.array([reason is None for reason in self.sets.reasons], dtype=bool)

    @cached_property
    def writers(self) -> tuple[SlicedWeight, ...]:
        """The kernels that make channels, in the order of the graph."""
        return tuple(weight for weight in self.weights if weight.writes is not None)

    @cached_property
    def readers(self) -> tuple[SlicedWeight, ...]:
        """The kernels that are summed over channels."""
        return tuple(weight for weight in self.weights if weight.reads is not None)

    @cached_property
    def tensors(self) -> tuple[np.ndarray, ...]:
        """The sets of each tensor whose channels can go, each combination once: none of them may become empty."""
        found = {}
        for call in self.calls:
            for ids in call.ids_out:
                sets = np.unique(self.sets.set_of[ids])
                if self.prunable[sets].all():
                    found.setdefault(sets.tobytes(), sets)
        return tuple(found.values())

    @cached_property
    def groups(self) -> tuple[tuple[SlicedWeight, ...], ...]:
        """The writers parted so that two which share a channel set are together."""
        first: dict[int, int] = {}
        pairs = [
            (index, first.setdefault(int(s), index))
            for index, weight in enumerate(self.writers)
            for s in np.unique(weight.axes[weight.writes])
        ]
        labels = connected_components(len(self.writers), np.array(pairs, dtype=int).reshape(-1, 2))
        return tuple(tuple(self.writers[i] for i in np.flatnonzero(labels == label)) for label in np.unique(labels))

    def reason(self, weight: SlicedWeight) -> str | None:
        """Why no filter of a writer may go, or None where some may."""
        sets = weight.axes[weight.writes]
        return None if self.prunable[sets].any() else self.sets.reasons[sets[0]]

    def kept(self, keep: np.ndarray) -> Kept:
        """A decision per set as one per id."""
        return Kept(np.asarray(keep)[self.sets.set_of])


def calls_by_operation(graph: Graph) -> dict[int, list[Call]]:
    """The calls of each operation, by the operation's id."""
    found = defaultdict(list)
    for call in graph.calls:
        found[call.owner].append(call)
    return found
