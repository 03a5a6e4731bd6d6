"""Operations on several tensors: additions and their like tie channels, concatenations put them side by side."""

from functools import reduce

import keras
import numpy as np

from kprune.channels import Barrier, varying_axes
from kprune.rules.base import Call, Rule, bare, register_rule

layers = keras.layers


def product(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """A product of constants in which zero wins over the unknown."""
    return np.where((first == 0) | (second == 0), 0.0, first * second)


class Merge(Rule):
    """Ties the channels of its inputs, position by position, broadcasting as the operation does."""

    combine = staticmethod(np.add)

    def channels(self, call: Call, channels) -> list[np.ndarray]:
        shape = call.output_shapes[0]
        if any(len(other) != len(shape) for other in call.input_shapes):
            raise Barrier("it merges tensors of different ranks")
        if any(np.size(constant) > 1 for constant in self.numbers(call)):
            raise Barrier("it merges with a constant array")
        axes = sorted({axis for ids in call.ids_in for axis in varying_axes(ids)})
        if len(axes) > 1:
            raise Barrier("it merges tensors whose channels lie along different axes")
        tied = [ids for ids, other in zip(call.ids_in, call.input_shapes, strict=True) if fills(other, shape, axes)]
        if not tied:
            raise Barrier("it broadcasts every one of its inputs")
        for ids in tied[1:]:
            channels.tie(tied[0], ids)
        return [max(tied, key=np.size)]

    def numbers(self, call: Call) -> list:
        """The plain numbers and arrays among the arguments."""
        leaves = keras.tree.flatten((call.arguments.args, call.arguments.kwargs))
        return [x for x in leaves if not isinstance(x, keras.KerasTensor) and x is not None]

    def operands(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        """Constants of all operands in the order of the arguments."""
        tensors = iter(values)
        leaves = keras.tree.flatten((call.arguments.args, call.arguments.kwargs))
        known = (next(tensors) if isinstance(x, keras.KerasTensor) else x for x in leaves if x is not None)
        return [np.asarray(x, dtype=float) for x in known]

    def constants(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        return [reduce(self.combine, self.operands(call, values))]


def fills(shape: tuple, whole: tuple, axes: list[int]) -> bool:
    """Whether an operand has the result's full size along the channel axes (else it is broadcast, and stays)."""
    return all(shape[axis] == whole[axis] for axis in axes or range(1, len(whole)))


register_rule(layers.Add, *bare("Add"))(Merge)


@register_rule(layers.Subtract, *bare("Subtract"))
class Subtract(Merge):
    combine = staticmethod(np.subtract)


@register_rule(layers.Multiply, *bare("Multiply"))
class Multiply(Merge):
    combine = staticmethod(product)


@register_rule(layers.Maximum, *bare("Maximum"))
class Maximum(Merge):
    combine = staticmethod(np.maximum)


@register_rule(layers.Minimum, *bare("Minimum"))
class Minimum(Merge):
    combine = staticmethod(np.minimum)


@register_rule(layers.Average)
class Average(Merge):
    def constants(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        return [reduce(np.add, values) / len(values)]


@register_rule(*bare("TrueDivide", "Divide"))
class Divide(Merge):
    """Divides by a number; a division by a tensor would divide by the zeros of a masked channel."""

    combine = staticmethod(np.divide)

    def channels(self, call: Call, channels) -> list[np.ndarray]:
        if len(call.ids_in) > 1 or not isinstance(call.arguments.args[0], keras.KerasTensor):
            raise Barrier("it divides by a tensor")
        return super().channels(call, channels)


@register_rule(layers.Concatenate, *bare("Concatenate"))
class Concatenate(Rule):
    """Runs the same concatenation on the ids; along another axis it ties them."""

    def axis(self, call: Call) -> int:
        return call.operation.axis % len(call.output_shapes[0])

    def channels(self, call: Call, channels) -> list[np.ndarray]:
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

    def constants(self, call: Call, values: list[np.ndarray]) -> list[np.ndarray]:
        return [self.join(call, values)]
