"""What operations without weights lose when channels go: sums, products, norms and distances over channels."""

from dataclasses import dataclass, field

import keras
import numpy as np

from kprune.compat.functional import flatten
from kprune.compat.variables import to_numpy
from kprune.graph import Graph
from kprune.graph.interpreter import tensors_given
from kprune.rules import Call, find_rule

IMAGES = 64  # at most so many are looked at
ELEMENTS = 2**24  # of outputs without one channel set, over all sets

ops = keras.ops


@dataclass(frozen=True)
class Contributions:
    """What one operation without weights loses when channels go. Nothing can be refitted there.

    The loss of the sets `g` is the mean square of the sum of what each gives: `1_g^T M 1_g`. That is exact for sums and
    products over channels, and first order for norms and the like.

    Attributes:
      sets: int `[S]`, the channel sets that it hears.
      products: float64 `[S, S]`, `M`: mean products of what two sets give, over the variance of the output.
      slope: float64 `[S]`, what the sets that have gone add to the cost of each.
    """

    sets: np.ndarray = field(repr=False)
    products: np.ndarray = field(repr=False)
    slope: np.ndarray = field(repr=False)

    def costs(self) -> tuple[np.ndarray, np.ndarray]:
        """The channel sets, and what the removal of each costs now."""
        return self.sets, np.diagonal(self.products) + self.slope

    def without(self, keep: np.ndarray) -> "Contributions":
        """The same once channel sets have gone."""
        stay = keep[self.sets]
        slope = self.slope[stay] + 2.0 * self.products[np.ix_(stay, ~stay)].sum(axis=1)
        return Contributions(self.sets[stay], self.products[np.ix_(stay, stay)], slope)

    def touched(self, keep: np.ndarray) -> bool:
        return not keep[self.sets].all()


def energy_of(tensor: np.ndarray) -> float:
    """The variance of a tensor, added up over its last axis."""
    return float(tensor.var(axis=tuple(range(tensor.ndim - 1)), dtype=np.float64).sum())


def listeners(graph: Graph) -> dict[int, np.ndarray]:
    """By the first output of each call that hears channels without weights, the channel sets that it hears and that may
    go: they end there, or each output depends on all of them.
    """
    return {
        call.outputs[0]: sets
        for call in graph.calls
        if call.outputs and not call.stopped and len(sets := heard_sets(graph, call))
    }


def heard_sets(graph: Graph, call: Call) -> np.ndarray:
    """The channel sets that may go and that a call hears without weights."""
    rule, set_of = find_rule(call.operation), graph.sets.set_of
    on = [np.ones(ids.shape, dtype=bool) for ids in call.ids_out]
    live = rule.live_inputs(call, on, [np.full((1,) * ids.ndim, np.nan) for ids in call.ids_in])
    heard = [set_of[ids[where]] for ids, where in zip(call.ids_in, live, strict=True)]
    given = np.unique(np.concatenate(heard or [np.zeros(0, int)]))
    given = given[graph.prunable[given]]
    if rule.sums_over_channels(call) or not len(given):
        return given
    readers = [weight for weight in rule.sliced_weights(call) if weight.reads is not None]
    read = [set_of[w.axes[w.reads]] for w in readers if w.axes[w.reads] is not None]
    passing = [set_of[ids].reshape(-1) for ids in call.ids_out]
    return np.setdiff1d(given, np.concatenate([*passing, *read]))


def contributions(graph: Graph, call: Call, operation, given: tuple[tuple, dict], output) -> Contributions:
    """What each channel set gives to the output of a call: the output less that with the channels of the set at zero.

    Positions of the output that are channels of the set themselves do not count: who reads them hears it.

    Args:
      graph: the traced model.
      call: the call, and `operation`, what is called.
      given: its arguments and keyword arguments on the images.
      output: what it gave on them.
    """
    sets, whole = heard_sets(graph, call), as_rows(output)
    per_image = max(whole[:1].size * len(sets), 1)
    count = int(np.clip(ELEMENTS // per_image, 1, min(IMAGES, len(whole))))
    index = np.linspace(0, len(whole) - 1, count).astype(int)
    tensors, size = tensors_given(call, *given), len(whole)
    taken = {id(x): ops.take(x, index, axis=0) for x in tensors if x.shape[0] == size}
    ids_of = {id(x): graph.sets.set_of[ids] for x, ids in zip(tensors, call.ids_in, strict=True)}

    def at(leaf, gone: int | None):
        x = taken.get(id(leaf), leaf)
        if gone is None or id(leaf) not in ids_of:
            return x
        return x * ops.cast(ops.convert_to_tensor(ids_of[id(leaf)] != gone), x.dtype)

    def run(gone: int | None) -> np.ndarray:
        args, kwargs = keras.tree.map_structure(lambda leaf: at(leaf, gone), given)
        return as_rows(operation(*args, **kwargs))

    base, own = run(None), graph.sets.set_of[call.ids_out[0]]
    lost = np.stack([((base - run(s)) * (own.reshape(own.shape or (1,)) != s)).reshape(-1) for s in sets])
    energy = energy_of(whole) if whole.ndim > 1 else float(whole.var(dtype=np.float64))
    rows = base.size // base.shape[-1] if base.ndim > 1 else base.size
    scale = rows * max(energy, np.finfo(np.float32).tiny)
    products = (lost @ lost.T).astype(np.float64) / scale
    return Contributions(sets, products, np.zeros(len(sets)))


def as_rows(output) -> np.ndarray:
    """The first tensor of an output, float32."""
    return to_numpy(flatten(output)[0]).astype(np.float32, copy=False)
