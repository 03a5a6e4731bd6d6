"""Attention: reads the channels of its inputs; what is inside (heads and their widths) stays."""

import math

import keras
import numpy as np

from kprune.compat.variables import projections, to_numpy, variables_by_name
from kprune.rules.base import Call, Rule, Weight, register_rule
from kprune.rules.channels import Barrier, along, spread
from kprune.rules.linear_maps import DenseMap, LinearMap
from kprune.rules.liveness import fold

layers = keras.layers


def last_axis(call: Call, index: int) -> np.ndarray:
    """The ids along the last axis of an input."""
    return along(call.ids_in[index], -1, call.input_shapes[index][-1])


def parts(call: Call) -> tuple[int, int, int]:
    """Which inputs are the query, the value and the key (that of the value where none is given).

    Raises:
      Barrier: there are other inputs, such as masks made in the graph.
    """
    args, kwargs = call.arguments.args, call.arguments.kwargs
    given = keras.tree.flatten(args if len(args) > 1 else args[0]) if args else []
    known = [x for x in (*given[:3], *(kwargs.get(name) for name in ("query", "value", "key"))) if x is not None]
    if len(known) != len(call.ids_in):
        raise Barrier("it has a mask that is computed")
    return 0, 1, len(known) - 1


class Attention(Rule):
    """Attention without projections: sums over the channels of query and key, weighs those of the value."""

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        query, value, key = parts(call)
        channels.tie(last_axis(call, query), last_axis(call, key))
        if not (call.resting[query] and call.resting[key]):
            raise Barrier("it sums over channels that hold a number once removed")
        made = spread(last_axis(call, value), len(call.output_shapes[0]), -1)
        scores = [channels.frozen(len(shape), f"'{call.path}' sums over channels") for shape in call.output_shapes[1:]]
        return [made, *scores]

    def zero_if_removed(self, call: Call) -> bool:
        return call.resting[1]

    def sums_over_channels(self, call: Call) -> bool:
        return True

    def live_inputs(self, call: Call, live: list[np.ndarray], values: list[np.ndarray]) -> list[np.ndarray]:
        """A channel of the value matters where it comes out, those of query and key wherever anything does."""
        _, value, key = parts(call)
        found = super().live_inputs(call, live, values)
        found[value] = fold(live[0], call.ids_in[value].shape) | (found[value] if key == value else False)
        return found


@register_rule(layers.Attention)
class DotAttention(Attention):
    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        if call.operation.score_mode != "dot":
            raise Barrier("its scores are no product of channels")
        return super().output_ids(call, channels)


@register_rule(layers.AdditiveAttention)
class AdditiveAttention(Attention):
    """tanh(query + key), weighed by one number per channel: zero where both are."""

    def sliced_weights(self, call: Call) -> list[Weight]:
        return [Weight("scale", (last_axis(call, 0),))] if call.operation.use_scale else []


@register_rule(layers.MultiHeadAttention)
class MultiHeadAttention(Rule):
    """Reads through the projections of query, key, value and gate; writes through that of the output."""

    separate_inputs = True

    def readers(self, call: Call) -> list[tuple[int, object]]:
        """Which input each projection reads."""
        (query, value, key), inside = parts(call), projections(call.operation)
        index = {"query": query, "gate": query, "key": key, "value": value}
        return [(index[name], layer) for name, layer in inside.items() if name in index]

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        shape = call.output_shapes[0]
        for index, _ in self.readers(call):
            last_axis(call, index)
        made = channels.fresh(shape[-1], call.owner)
        if len(shape) != len(call.input_shapes[0]):
            channels.freeze(made, f"'{call.path}' makes several axes")
        self.restrict(call, channels, made)
        scores = [channels.frozen(len(s), f"'{call.path}' sums over channels") for s in call.output_shapes[1:]]
        return [spread(made, len(shape), len(shape) - 1), *scores]

    def restrict(self, call: Call, channels, made: np.ndarray):
        """What else its configuration asks of the output's ids."""

    def linear_maps(self, call: Call) -> list[LinearMap]:
        """The projections that read."""
        names = {id(v): name for name, v in variables_by_name(call.operation).items()}
        return [
            DenseMap(names[id(layer.kernel)], names.get(id(layer.bias), ""), source=index, inside=True)
            for index, layer in self.readers(call)
        ]

    def sliced_weights(self, call: Call) -> list[Weight]:
        names = {id(v): name for name, v in variables_by_name(call.operation).items()}
        found = []
        for index, layer in self.readers(call):
            axes = (last_axis(call, index), None, None)
            found.append(Weight(names[id(layer.kernel)], axes, places(call.input_shapes[index]), reads=0))
        output, made = (
            projections(call.operation)["output"],
            along(call.ids_out[0], -1, call.output_shapes[0][-1]),
        )
        axes = (None,) * (len(output.kernel.shape) - 1) + (made,)
        found.append(Weight(names[id(output.kernel)], axes, places(call.input_shapes[0]), writes=len(axes) - 1))
        if output.bias is not None:
            found.append(Weight(names[id(output.bias)], (None,) * (len(output.bias.shape) - 1) + (made,)))
        return found

    def pruned_config(self, call: Call, kept) -> dict:
        shape = [*call.output_shapes[0][len(call.input_shapes[0]) - 1 :]]
        shape[-1] = kept.count(along(call.ids_out[0], -1, shape[-1]))
        return {**call.operation.get_config(), "output_shape": tuple(shape)}

    def constant_channels(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        """A channel whose slice of the output projection is zero holds its bias."""
        output, rank = projections(call.operation)["output"], len(call.output_shapes[0])
        varies = (to_numpy(output.kernel) != 0).reshape(-1, call.output_shapes[0][-1]).any(axis=0)
        if rank != len(call.input_shapes[0]):
            return super().constant_channels(call, values)
        bias = np.zeros(len(varies)) if output.bias is None else to_numpy(output.bias).astype(float)
        return [spread(np.where(varies, np.nan, bias), rank, rank - 1), *super().constant_channels(call, values)[1:]]


@register_rule(layers.GroupQueryAttention)
class GroupQueryAttention(MultiHeadAttention):
    """The same with as many output channels as query, value and key have, so that they go together."""

    def restrict(self, call: Call, channels, made: np.ndarray):
        for index in parts(call):
            channels.tie(last_axis(call, index), made)

    def pruned_config(self, call: Call, kept) -> dict:
        return call.operation.get_config()


def places(shape: tuple) -> float:
    """How many places a sequence or map has."""
    return math.nan if None in shape[1:-1] else float(math.prod(shape[1:-1]))
