"""Operations on several tensors: additions and their like tie channels, concatenations put them side by side."""

from functools import partial, reduce

import keras
import numpy as np

from kprune.compat.functional import application_layer
from kprune.compat.variables import to_numpy
from kprune.rules.base import Call, Rule, bare, map_size, register_rule
from kprune.rules.channels import Barrier, varying_axes
from kprune.rules.liveness import fold
from kprune.rules.operators import OperatorConfig

layers = keras.layers


def product(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """A product of constants in which zero wins over the unknown."""
    return np.where((first == 0) | (second == 0), 0.0, first * second)


class Merge(Rule):
    """Ties the channels of its inputs, position by position, broadcasting as the operation does.

    An array of numbers among them (a scale per channel) is sliced with the channels.
    """

    combine = staticmethod(np.add)

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        shape = call.output_shapes[0]
        aligned = [align(ids, len(shape)) for ids in call.ids_in]
        sizes = [(1,) * (len(shape) - len(other)) + tuple(other) for other in call.input_shapes]
        axes = sorted({axis for ids in aligned for axis in varying_axes(ids)})
        if len(axes) > 1:
            raise Barrier("it merges tensors whose channels lie along different axes")
        tied = [ids for ids, other in zip(aligned, sizes, strict=True) if fills(other, shape, axes)]
        if not tied:
            raise Barrier("it broadcasts every one of its inputs")
        for ids in tied[1:]:
            channels.tie(tied[0], ids)
        return [max(tied, key=np.size)]

    def zero_if_removed(self, call: Call) -> bool:
        """Where every operand is a tensor with resting channels; a combination of zeros is zero."""
        return all(call.resting) and len(self.leaves(call)) == len(call.ids_in)

    def leaves(self, call: Call) -> list:
        """The operands as Keras recorded them, in their order."""
        leaves = keras.tree.flatten((call.arguments.args, call.arguments.kwargs))
        return [x for x in leaves if x is not None]

    def pruned_arguments(self, call: Call, kept, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Slices the arrays among the operands along the channel axis."""
        ids = call.ids_out[0]
        for axis in varying_axes(ids):
            cut = partial(self.slice, kept.mask[ids.reshape(-1)], axis - ids.ndim)
            args, kwargs = keras.tree.map_structure(cut, (args, kwargs))
        return args, kwargs

    @staticmethod
    def slice(mask: np.ndarray, axis: int, operand):
        """An operand after removal; `axis` counts from the end."""
        if isinstance(operand, keras.KerasTensor) or np.ndim(operand) < -axis or np.shape(operand)[axis] != len(mask):
            return operand
        return np.compress(mask, to_numpy(operand), axis=axis)

    def operands(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        """Constants of all operands in the order of the arguments, all of the result's rank."""
        tensors, rank = iter(values), len(call.output_shapes[0])
        known = (next(tensors) if isinstance(x, keras.KerasTensor) else to_numpy(x) for x in self.leaves(call))
        return [align(np.asarray(x, dtype=float), rank) for x in known]

    def constant_channels(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        return [reduce(self.combine, self.operands(call, values))]

    def live_inputs(self, call: Call, live: list[np.ndarray], values: list[np.ndarray]) -> list[np.ndarray]:
        """Position by position; what is broadcast matters wherever it is."""
        rank = live[0].ndim
        return [fold(live[0], align(ids, rank).shape).reshape(ids.shape) for ids in call.ids_in]


def align(array: np.ndarray, rank: int) -> np.ndarray:
    """The array with axes of size 1 put before its own, as broadcasting does."""
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def fills(shape: tuple, whole: tuple, axes: list[int]) -> bool:
    """Whether an operand has the result's full size along the channel axes (else it is broadcast, and stays)."""
    return all(shape[axis] == whole[axis] for axis in axes or range(1, len(whole)))


def operands_alike(call: Call, operation: str) -> OperatorConfig | None:
    """A merge of maps of one shape."""
    size, count = map_size(call), len(set(call.input_shapes))
    return OperatorConfig(operation, size, operands=len(call.input_shapes)) if size and count == 1 else None


@register_rule(layers.Add, *bare("Add"))
class Addition(Merge):
    adds, transparent_to_probes = True, True

    def operator(self, call: Call) -> OperatorConfig | None:
        return operands_alike(call, "add") if len(call.input_shapes) > 1 else None


@register_rule(*application_layer("inception_resnet_v2", "CustomScaleLayer"))
class ScaledAddition(Merge):
    """`first + scale * second`."""

    def constant_channels(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        return [values[0] + call.operation.scale * values[1]]


@register_rule(layers.Subtract, *bare("Subtract"))
class Subtract(Merge):
    transparent_to_probes = True
    combine = staticmethod(np.subtract)


@register_rule(layers.Multiply, *bare("Multiply"))
class Multiply(Merge):
    combine = staticmethod(product)
    relevance = "equal_parts"

    def operator(self, call: Call) -> OperatorConfig | None:
        return operands_alike(call, "multiply") if len(call.input_shapes) > 1 else None

    def zero_if_removed(self, call: Call) -> bool:
        return any(rest and ids.size > 1 for rest, ids in zip(call.resting, call.ids_in, strict=True))


@register_rule(layers.Maximum, *bare("Maximum", "Fmax"))
class Maximum(Merge):
    combine = staticmethod(np.maximum)


@register_rule(layers.Minimum, *bare("Minimum", "Fmin"))
class Minimum(Merge):
    combine = staticmethod(np.minimum)


@register_rule(layers.Average)
class Average(Merge):
    transparent_to_probes = True

    def constant_channels(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        return [reduce(np.add, values) / len(values)]


@register_rule(*bare("Where", "Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "NotEqual"))
@register_rule(*bare("LogicalAnd", "LogicalOr", "LogicalXor", "Logaddexp", "Arctan2", "Hypot"))
class OtherMerge(Merge):
    """Position by position too; of its constants kprune says nothing."""

    def zero_if_removed(self, call: Call) -> bool:
        return False

    def constant_channels(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        return Rule.constant_channels(self, call, values)


@register_rule(*bare("Power"))
class Power(OtherMerge):
    """A channel to a fixed power; a power below zero would make infinity of the zeros of a masked channel."""

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        base, exponent = self.leaves(call)[:2]
        if not isinstance(base, keras.KerasTensor) or isinstance(exponent, keras.KerasTensor) or np.any(exponent <= 0):
            raise Barrier("its exponent is not a fixed number above zero")
        return super().output_ids(call, channels)


@register_rule(*bare("TrueDivide", "Divide"))
class Divide(Merge):
    """Divides by a number; a division by a tensor would divide by the zeros of a masked channel."""

    combine = staticmethod(np.divide)

    def zero_if_removed(self, call: Call) -> bool:
        return call.resting[0]

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        if not isinstance(call.arguments.args[0], keras.KerasTensor):
            raise Barrier("it divides by a tensor")
        if any(varying_axes(ids) for ids in call.ids_in[1:]):
            raise Barrier("it divides by channels, and a removed one is zero")
        return super().output_ids(call, channels)


@register_rule(layers.Concatenate, *bare("Concatenate"))
class Concatenate(Rule):
    """Runs the same concatenation on the ids; along another axis it ties them."""

    relevance, transparent_to_probes = "transport", True

    def zero_if_removed(self, call: Call) -> bool:
        return all(call.resting)

    def axis(self, call: Call) -> int:
        return call.operation.axis % len(call.output_shapes[0])

    def output_ids(self, call: Call, channels) -> list[np.ndarray]:
        axis = self.axis(call)
        axes = sorted({other for ids in call.ids_in for other in varying_axes(ids)})
        if [other for other in axes if other != axis]:
            if axis in axes:
                raise Barrier("it concatenates tensors whose channels lie along different axes")
            for ids in call.ids_in[1:]:
                channels.tie(call.ids_in[0], ids)
            return [max(call.ids_in, key=np.size)]
        return [self.join(call, call.ids_in)]

    def join(self, call: Call, arrays) -> np.ndarray:
        """The arrays put side by side, each first spread to the size of its tensor along the axis."""
        axis = self.axis(call)
        sizes = [shape[axis] for shape in call.input_shapes]
        if axis == 0 or None in sizes:
            raise Barrier("it concatenates along an axis of unknown size")
        full = [
            np.broadcast_to(x, (*x.shape[:axis], size, *x.shape[axis + 1 :]))
            for x, size in zip(arrays, sizes, strict=True)
        ]
        common = np.broadcast_shapes(*((*x.shape[:axis], 1, *x.shape[axis + 1 :]) for x in full))
        return np.concatenate(
            [np.broadcast_to(x, (*common[:axis], x.shape[axis], *common[axis + 1 :])) for x in full], axis=axis
        )

    def constant_channels(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        return [self.join(call, values)]

    def live_inputs(self, call: Call, live: list[np.ndarray], values: list[np.ndarray]) -> list[np.ndarray]:
        axis, on = self.axis(call), live[0]
        sizes = [shape[axis] for shape in call.input_shapes]
        parts = [on] * len(sizes) if on.shape[axis] == 1 else np.split(on, np.cumsum(sizes)[:-1], axis=axis)
        return [fold(part, ids.shape) for part, ids in zip(parts, call.ids_in, strict=True)]
